"""A small log with everything that a market can have, drawn without the simulator: what tests break and damage."""

import numpy as np
import pandas as pd

from vaecm.market import Market

START = pd.Timestamp("2025-03-03")
DAYS = 20


def small_log(n_users=300, n_contents=150, n_requests=4_000, slate=3, seed=3):
    """Requests of `slate` contents each; clean, with live events, late orders, colour covers and vectors."""
    rng = np.random.default_rng(seed)
    n_products = n_contents // 3
    category = np.array(["toys", "snacks", "lamps"])[rng.integers(3, size=n_products)]
    usual = pd.Series({"toys": 60.0, "snacks": 12.0, "lamps": 150.0})[category].to_numpy()
    products = pd.DataFrame({
        "product_id": np.arange(1, n_products + 1), "category": category,
        "brand": [f"{c}-{k % 4}" for k, c in enumerate(category)],
        "price": np.round(usual * np.exp(0.2 * rng.normal(size=n_products)), 2),
        "rating": np.round(rng.uniform(2.5, 5, n_products), 1),
    })  # fmt: skip
    users = pd.DataFrame({
        "user_id": np.arange(1, n_users + 1), "age_group": rng.choice(["18-24", "25-34", "45+"], n_users),
        "city_tier": rng.integers(1, 5, n_users), "device": rng.choice(["ios", "android", "web"], n_users),
        "registered_days": rng.integers(1, 900, n_users),
    })  # fmt: skip
    words = np.array(["bright", "calm", "useful", "plain", "robot", "tea", "lamp", "nuts"])
    contents = pd.DataFrame({
        "content_id": np.arange(11, n_contents + 11), "product_id": rng.integers(1, n_products + 1, n_contents),
        "author_id": rng.integers(1, 30, n_contents), "format": rng.choice(["post", "article", "live"], n_contents),
        "title": [" ".join(row) for row in words[rng.integers(len(words), size=(n_contents, 5))]],
        "length": rng.integers(20, 900, n_contents), "author_followers": rng.integers(10, 9_000, n_contents),
        "published_at": START - pd.to_timedelta(rng.integers(0, 30 * 86_400, n_contents), unit="s"),
    })  # fmt: skip
    impressions, truth = _impressions(rng, n_users, contents, n_requests, slate)
    return Market(
        users=users, contents=contents, impressions=impressions, products=products,
        events=_events(rng, n_users, products, 8 * n_users), truth=truth,
        covers=rng.integers(1, 256, size=(n_contents, 8, 10, 3), dtype=np.uint8),
        audio=rng.integers(1, 256, size=(n_contents, 4, 6), dtype=np.uint8),
        vectors={"clip": rng.normal(size=(n_contents, 5)).astype(np.float32)},
    )  # fmt: skip


def _impressions(rng, n_users, contents, n_requests, slate):
    n = n_requests * slate
    seconds = np.sort(rng.choice(DAYS * 86_400, n_requests, replace=False)) + 1
    first = rng.integers(len(contents), size=n_requests)
    row = (first[:, None] + np.arange(slate) * 7).ravel() % len(contents)  # a request shows each content once
    p_click, p_convert = rng.uniform(0.05, 0.4, n), rng.uniform(0.1, 0.4, n)
    clicked = (rng.random(n) < p_click).astype(np.int8)
    converted = (clicked * (rng.random(n) < p_convert)).astype(np.int8)
    time = pd.Series(START + pd.to_timedelta(np.repeat(seconds, slate), unit="s"))
    ids = np.arange(1, n + 1)
    impressions = pd.DataFrame({
        "impression_id": ids, "request_id": np.repeat(np.arange(1, n_requests + 1), slate),
        "user_id": np.repeat(rng.integers(1, n_users + 1, n_requests), slate),
        "content_id": contents["content_id"].to_numpy()[row], "time": time,
        "position": np.tile(np.arange(1, slate + 1), n_requests), "device": "ios", "exposure": 1,
        "policy": "ranked", "propensity": 1.0, "clicked": clicked, "converted": converted,
        "converted_at": (time + pd.to_timedelta(rng.integers(60, 9_000, n), unit="s")).where(converted == 1),
        "sales": np.where(converted == 1, np.round(rng.uniform(5, 90, n), 2), 0.0),
    })  # fmt: skip
    truth = pd.DataFrame(
        {"p_click": p_click, "p_convert": p_convert, "expected_sales": 20 * p_click * p_convert},
        index=pd.Index(ids, name="impression_id"),
    )
    return impressions, truth


def _events(rng, n_users, products, n):
    row = rng.integers(len(products), size=n)
    seconds = np.sort(rng.integers(-30 * 86_400, DAYS * 86_400, n))
    return pd.DataFrame({
        "user_id": rng.integers(1, n_users + 1, n), "time": START + pd.to_timedelta(seconds, unit="s"),
        "action": rng.choice(["view", "search", "cart", "purchase"], n),
        "category": products["category"].to_numpy()[row], "product_id": products["product_id"].to_numpy()[row],
        "dwell_seconds": np.round(rng.exponential(20, n), 1),
    })  # fmt: skip
