"""The export of a shop: what the chapter on own data reads is the market that was written."""

import numpy as np
import pytest

import vaecm
from vaecm.book import shop

ROLES = {
    "contents": {"item": "content_id", "online_since": "published_at"},
    "impressions": {"item": "content_id", "shown_at": "time"},
}


@pytest.fixture(scope="module")
def market():
    return vaecm.simulate_market(vaecm.MarketConfig(n_users=60, n_contents=60, n_impressions=1_500, seed=3))


@pytest.fixture(scope="module")
def folder(market, tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    shop.export(market, folder)
    return folder


def test_the_files_hold_the_market(market, folder):
    own, report = vaecm.clean(vaecm.load_market(folder / "shop", roles=ROLES))
    found = report.set_index(["rule", "table"])["rows"]
    assert found["duplicate id", "impressions"] == 2
    assert found["impossible price", "contents"] == 1
    log = market.impressions.sort_values("time", kind="stable").iloc[: len(own.impressions)]
    assert len(own.impressions) == 1_350
    np.testing.assert_array_equal(own.impressions["clicked"], log["clicked"])
    assert own.users["user_id"].iloc[0] == "000001"
    assert own.covers.shape[1:] == (32, 32, 3)
    rough = own.covers[..., 0].reshape(60, -1).astype(float)
    there = market.covers.any(axis=(1, 2))
    same = [np.corrcoef(a, b.ravel())[0, 1] for a, b in zip(rough[there], market.covers[there], strict=True)]
    assert np.median(same) > 0.9


def test_next_week_has_no_outcomes_and_its_truth_is_kept_apart(market, folder, tmp_path):
    week = vaecm.load_market(folder / "next_week", targets=False, roles=ROLES)
    assert not {"clicked", "converted", "sales"} & set(week.impressions)
    later = shop.export(market, tmp_path)
    assert list(later.index) == list(week.impressions["impression_id"])
    assert later["p_click"].between(0, 1).all()
