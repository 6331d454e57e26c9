"""Markets that the tests share."""

import numpy as np
import pandas as pd
import pytest

from vaecm.market import Market


def hand_made_market():
    """Six impressions of four contents, written by hand, with everything a market can have."""
    users = pd.DataFrame({
        "user_id": [1, 2, 3], "age_group": ["18-24", "45+", "25-34"], "city_tier": [1, 2, 2],
        "device": ["ios", "web", "android"], "registered_days": [400, 20, 3],
    })  # fmt: skip
    products = pd.DataFrame({
        "product_id": [7, 8], "category": ["toys", "snacks"], "brand": ["toys-1", "snacks-2"],
        "price": [59.9, 12.5], "rating": [4.5, 3.9],
    })  # fmt: skip
    contents = pd.DataFrame({
        "content_id": [11, 12, 13, 14], "product_id": [7, 7, 8, 8], "format": ["article", "short_video", "live", "post"],
        "title": ["bright puzzle", "truly useful robot", "calm tea", "plain nuts"], "length": [700, 30, 1800, 90],
        "author_followers": [1000, 20, 35_000, 400],
        "published_at": pd.to_datetime(["2025-03-01 08:00", "2025-03-02 09:30", "2025-03-03 10:00", "2025-03-04 18:45"]),
    })  # fmt: skip
    events = pd.DataFrame({
        "user_id": [1, 1, 2], "time": pd.to_datetime(["2025-02-20 10:00", "2025-02-21 11:00", "2025-02-27 12:00"]),
        "action": ["search", "view", "purchase"], "category": ["toys", "toys", "snacks"],
        "product_id": pd.array([None, 7, 8], dtype="Int64"), "query": ["bright robot", None, None],
        "dwell_seconds": [4.0, 31.5, 12.0],
    })  # fmt: skip
    impressions = pd.DataFrame({
        "impression_id": [101, 102, 103, 104, 105, 106], "user_id": [1, 2, 1, 3, 2, 3],
        "content_id": [11, 11, 12, 13, 14, 14],
        "time": pd.to_datetime([
            "2025-03-03 09:00:01", "2025-03-03 10:00:02", "2025-03-04 09:00:03",
            "2025-03-05 20:00:04", "2025-03-06 07:00:05", "2025-03-07 23:00:06",
        ]),
        "position": [1, 2, 1, 4, 3, 1], "exposure": [1, 1, 1, 1, 1, 1], "clicked": [1, 0, 1, 0, 0, 1],
        "converted": [1, 0, 0, 0, 0, 0], "sales": [61.07, 0.0, 0.0, 0.0, 0.0, 0.0],
    })  # fmt: skip
    truth = pd.DataFrame({
        "p_click": [0.2, 0.1, 0.3, 0.05, 0.02, 0.15], "p_convert": [0.1, 0.1, 0.2, 0.3, 0.1, 0.05],
        "expected_sales": [1.2, 0.6, 3.6, 0.2, 0.03, 0.1],
    }, index=pd.Index(impressions["impression_id"], name="impression_id"))  # fmt: skip
    rng = np.random.default_rng(0)
    audio = rng.integers(0, 256, size=(4, 16, 24), dtype=np.uint8)
    audio[[0, 3]] = 0
    return Market(
        users=users, products=products, contents=contents, events=events, impressions=impressions,
        covers=rng.integers(0, 256, size=(4, 28, 28), dtype=np.uint8), audio=audio, truth=truth,
        factors={"users": pd.DataFrame({"activity": [0.1, -1 / 3, 2.5]}, index=pd.Index([1, 2, 3], name="user_id"))},
    )  # fmt: skip


@pytest.fixture
def market():
    return hand_made_market()
