"""As-of features against a slow, obviously right oracle, and the laws of time that they keep."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from vaecm.history import DAY, HOUR, WEEK, History, prior_strength, user_stream
from vaecm.market import Market
from vaecm.timeline import SESSION, seconds

START = pd.Timestamp("2025-03-03 08:00")
ACTIONS = ["view", "search", "cart", "purchase", "click", "wishlist"]


def clock(values):
    return START + pd.to_timedelta(values, unit="s")


def random_market(seed, n_requests=40, n_events=120, bare=False, **options):
    """A small log with ties in time, slates, late orders, gaps and unknown classes."""
    rng = np.random.default_rng(seed)
    users = pd.DataFrame({"user_id": [3, 1, 2, 7, 8]})
    contents = pd.DataFrame({"content_id": [f"c{i}" for i in range(9)]})
    asked = np.sort(rng.integers(0, 60, n_requests)) * rng.choice([60, 900, 7_000], n_requests)
    rows = np.repeat(np.arange(n_requests), rng.integers(1, 4, n_requests))
    impressions = pd.DataFrame({
        "impression_id": np.arange(len(rows)) + 100, "user_id": rng.choice(users["user_id"], n_requests)[rows],
        "content_id": rng.choice(contents["content_id"], len(rows)), "time": clock(asked[rows]),
        "clicked": (rng.random(len(rows)) < 0.4).astype(int),
    })  # fmt: skip
    if bare:
        return Market(users=users, contents=contents, impressions=impressions)
    products = pd.DataFrame({
        "product_id": [10, 11, 12, 13], "category": ["Toys", "toys ", "tea", None], "brand": ["a", "b", "a", None],
    })  # fmt: skip
    contents["product_id"] = pd.array([10, 11, 12, 13, 10, 11, None, 12, 10], dtype="Int64")
    contents["author_id"] = [1.0, 1.0, 2.0, 2.0, np.nan, 3.0, 3.0, 3.0, 1.0]
    contents["format"] = ["live", "post", "live", "post", "post", "live", "live", None, "live"]
    impressions["position"] = impressions.groupby(rows).cumcount() + 1
    impressions["device"] = rng.choice(["ios", "web"], len(rows))
    impressions["request_id"] = [f"r{row}" for row in rows]
    impressions["converted"] = impressions["clicked"] * (rng.random(len(rows)) < 0.5)
    late = impressions["time"] + pd.to_timedelta(rng.integers(0, 3 * DAY, len(rows)), unit="s")
    impressions["converted_at"] = late.where(impressions["converted"] == 1)
    impressions.loc[rng.random(len(rows)) < 0.05, "clicked"] = np.nan
    events = pd.DataFrame({
        "user_id": rng.choice(users["user_id"], n_events),
        "time": clock(rng.choice(np.append(asked, rng.integers(-WEEK, 5 * DAY, n_events)), n_events)),
        "action": rng.choice(ACTIONS, n_events),
        "product_id": pd.array(rng.choice([10, 11, 12, 13, None], n_events), dtype="Int64"),
        "category": rng.choice(["toys", "tea", None], n_events, p=[0.2, 0.2, 0.6]),
        "dwell_seconds": rng.integers(0, 50, n_events) / 10,
    })  # fmt: skip
    return Market(
        users=users, contents=contents, impressions=impressions, products=products, events=events, **options
    )


# --- the oracle: for each impression, look at every fact


def facts_of(market):
    """Impressions, orders and events as plain lists of dicts; text keys are folded by hand."""
    fold = lambda v: None if v is None or pd.isna(v) else str(v).strip().casefold()  # noqa: E731
    products = {} if market.products is None else {
        p.product_id: {"category": fold(p.category), "brand": fold(p.brand)} for p in market.products.itertuples()
    }  # fmt: skip
    contents = {}
    for row in market.contents.to_dict("records"):
        product = row.get("product_id")
        product = None if product is None or pd.isna(product) else int(product)
        contents[row["content_id"]] = {
            "content": row["content_id"], "product": product, "author": fold(row.get("author_id")),
            "format": fold(row.get("format")), "category": None, "brand": None, **products.get(product, {}),
        }  # fmt: skip
    item = "product" if market.products is not None else "content"
    shown = []
    for i, row in enumerate(market.past.to_dict("records")):
        time = int(row["time"].timestamp())
        known = int(row["converted_at"].timestamp()) if not pd.isna(row.get("converted_at")) else time
        traits = contents[row["content_id"]]
        shown.append({
            "row": i, "user": row["user_id"], "time": time, "known": known, "clicked": row["clicked"],
            "converted": row.get("converted", np.nan), "item": traits[item],
            "place": (row.get("position"), row.get("device")), **traits,
        })  # fmt: skip
    events = []
    for row in [] if market.events is None else market.events.to_dict("records"):
        product = None if pd.isna(row["product_id"]) else int(row["product_id"])
        traits = products.get(product, {"category": None, "brand": None})
        events.append({
            "user": row["user_id"], "time": int(row["time"].timestamp()), "action": row["action"], "item": product,
            "category": fold(row["category"]) or traits["category"], "brand": traits["brand"],
            "dwell": row["dwell_seconds"], "source": "event",
        })  # fmt: skip
    shown = [s for s in shown if not np.isnan(s["clicked"])]
    for s in shown:  # clicks expected where it stood
        rate, before = 0.05, [o for o in shown if o["time"] < s["time"]]
        for group in (before, [o for o in before if o["place"] == s["place"]]):
            rate = (sum(o["clicked"] for o in group) + 20 * rate) / (len(group) + 20)
        s["expected"] = rate
    clicks = [s | {"action": "click", "dwell": 0, "source": "click"} for s in shown if s["clicked"] == 1]
    ordered = {"action": "purchase", "dwell": 0, "source": "order"}
    orders = [s | ordered | {"time": s["known"]} for s in clicks if s["converted"] == 1]
    return shown, orders, events + clicks + orders


def oracle(market, history):
    """Columns of `History.features`, one impression at a time."""
    shown, orders, events = facts_of(market)
    rows = replace(market, log=None, impressions=market.impressions.assign(clicked=0))
    asked = {s["row"]: s for s in facts_of(rows)[0]}
    return pd.DataFrame(
        [oracle_row(asked[i], shown, orders, events, history) for i in range(len(market.impressions))]
    )


def oracle_row(a, shown, orders, events, history):
    t, row = a["time"], {}
    shown, orders, events = ([f for f in facts if f["time"] < t] for facts in (shown, orders, events))

    def same(facts, name):
        dims = name.split()
        return [f for f in facts if all(f[d] is not None and f[d] == a[d] for d in dims)]

    def rate(hits, expected, base, strength):
        return np.log(base / (1 - base)) + np.log((hits + strength * base) / (expected + strength * base))

    def hours(facts):
        return np.log1p((t - max(f["time"] for f in facts)) / 3600) if facts else np.nan

    def n(facts, since=-np.inf):
        return sum(f.get("source") != "order" for f in facts if f["time"] >= since)

    labelled = [s for s in shown if s["clicked"] and not np.isnan(s["converted"])]
    click = (sum(s["clicked"] for s in shown) + 1) / (len(shown) + 20)
    order = (len(orders) + 1) / (len(labelled) + 20)
    for name in history.rates:
        mine, label = same(shown, name), name.replace(" ", "_")
        known = all(a[d] is not None for d in name.split())
        hits, expected = sum(s["clicked"] for s in mine), sum(s["expected"] for s in mine)
        gap = 1 if known else np.nan
        row[f"{label}_click_rate"] = rate(hits, expected, click, history.strength[f"shown {name}"]) * gap
        row[f"{label}_impressions"] = np.log1p(len(mine)) * gap
        if name in history.orders:
            hits, tries = len(same(orders, name)), len(same(labelled, name))
            row[f"{label}_order_rate"] = (
                rate(hits, tries * order, order, history.strength[f"orders {name}"]) * gap
            )
    mine, pair = same(shown, "user"), same(shown, "user content")
    row |= {
        "user_content_impressions": np.log1p(len(pair)), "user_impressions_hour": np.log1p(n(mine, t - HOUR)),
        "user_impressions_day": np.log1p(n(mine, t - DAY)), "hours_since_impression": hours(mine),
        "hours_since_click": hours([s for s in mine if s["clicked"]]), "hours_since_same_content": hours(pair),
    }  # fmt: skip
    if not history.wanted["events"]:
        return row
    mine = sorted(same(events, "user"), key=lambda f: f["time"])
    began = mine[-1]["time"] if mine else t
    for f in mine[::-1]:
        began = f["time"] if began - f["time"] <= SESSION else began
    row["session_events"] = np.log1p(n(mine, began))
    for name in history.shares:
        both, gap = same(mine, name), 1 if a[name] is not None else np.nan
        row[f"user_{name}_share"] = n(both) / n(mine) * gap if n(mine) else np.nan
        row[f"session_{name}_share"] = n(both, began) / n(mine, began) * gap if n(mine, began) else np.nan
        last = bool(both) and both[-1]["time"] == mine[-1]["time"]
        row[f"last_event_{name}"] = float(last) * gap if n(mine) else np.nan
        row[f"user_{name}_dwell"] = np.log1p(sum(f["dwell"] for f in both)) * gap
    for name, windows in (
        ("user", {"hour": HOUR, "day": DAY, "week": WEEK}), ("user category", {"hour": HOUR, "day": DAY, "week": WEEK}),
        ("user item", {}), ("item", {"day": DAY, "week": WEEK}),
    ):  # fmt: skip
        if name == "user category" and "category" not in history.shares:
            continue
        both, label, short = same(events, name), name.replace(" ", "_"), name.split()[-1]
        gap = 1 if all(a[d] is not None for d in name.split()) else np.nan
        row[f"{label}_events"] = np.log1p(n(both)) * gap
        for window, span in windows.items():
            row[f"{label}_events_{window}"] = np.log1p(n(both, t - span)) * gap
        if name == "item":
            continue
        row[f"hours_since_{short}_event"] = hours(both)
        marks = {mark: [f for f in both if f["action"] == mark] for mark in history.marks}
        for mark, facts in marks.items():
            row[f"hours_since_{short}_{mark}"] = hours(facts)
        if "cart" in marks and name != "user":
            cart, paid = (
                max((f["time"] for f in marks.get(m, [])), default=-np.inf) for m in ("cart", "purchase")
            )
            row[f"{short}_open_cart"] = float(cart > paid) * gap
    return row


def same_features(left, right):
    pd.testing.assert_frame_equal(left, right, check_dtype=False, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_features_are_the_oracles(seed, bare):
    market = random_market(seed, bare=bare)
    history = History.learn(market)
    same_features(history.features(market), oracle(market, history))


# --- laws of time


def learnt(market, until=None, like=None):
    """A history; with `like`, its rates are smoothed as in that one."""
    history = History.learn(market, until)
    if like is None:
        return history
    return History.from_arrays(history.arrays() | {k: v for k, v in like.arrays().items() if "strength" in k})


def after(market, second):
    return market.select(seconds(market.impressions["time"]) > second)


@pytest.mark.parametrize("seed", range(3))
def test_the_store_and_new_rows_are_everything_in_one_log(seed):
    market = random_market(seed, n_requests=60)
    times = np.sort(seconds(market.impressions["time"]))
    for until in times[[20, 60]]:
        history = learnt(market, until)
        whole = learnt(market, like=history)
        rows = after(market, until)
        left, right = history.features(rows), whole.features(rows)
        same_features(left, right[list(left)])
        same_features(left, oracle(rows, history)[list(left)])


@pytest.mark.parametrize("seed", range(3))
def test_the_future_and_the_same_request_change_nothing(seed):
    market = random_market(seed, n_requests=60)
    history = learnt(market)
    first = history.features(market)
    rng = np.random.default_rng(seed)
    for second in np.unique(seconds(market.impressions["time"]))[::9]:
        log, events = market.impressions.copy(), market.events.copy()
        known = seconds(log["converted_at"]) if "converted_at" in log else seconds(log["time"])
        later = seconds(log["time"]) >= second
        log.loc[later, ["clicked", "converted"]] = rng.integers(0, 2, (later.sum(), 2))
        log.loc[later, "converted_at"] = log["time"][later].max() + pd.Timedelta("1D")
        log.loc[~later & (known >= second), ["converted", "converted_at"]] = [0, pd.NaT]
        later = seconds(events["time"]) >= second
        moved = ["action", "category", "product_id", "dwell_seconds"]
        donor = np.arange(len(events))
        donor[later] = rng.permutation(donor[later])
        events[moved] = events[moved].iloc[donor].set_axis(events.index)
        rows = seconds(market.impressions["time"]) <= second
        changed = learnt(replace(market, impressions=log, events=events), like=history)
        found = changed.features(replace(market, impressions=log, events=events))[rows]
        same_features(found[list(first)], first[rows])


def test_a_later_row_of_a_request_does_not_see_the_earlier():
    market = random_market(1)
    log = market.impressions.assign(request_id=[f"q{i // 3}" for i in range(len(market.impressions))])
    log["user_id"] = log.groupby("request_id")["user_id"].transform("first")
    first = log.groupby("request_id")["time"].transform("first")
    at_once = replace(market, impressions=log.assign(time=first))
    spread = replace(
        market, impressions=log.assign(time=first + pd.to_timedelta(np.arange(len(log)) % 3, unit="s"))
    )
    history = learnt(spread)
    counts = ["user_impressions", "user_content_impressions", "user_category_impressions", "user_events"]
    same_features(history.features(spread)[counts], learnt(at_once, like=history).features(at_once)[counts])
    last = np.arange(len(log)) % 3 == 2
    same_features(
        history.features(spread.select(last)), history.features(spread)[last].reset_index(drop=True)
    )


def test_the_order_of_rows_does_not_matter():
    market = random_market(3, n_requests=60)
    history = learnt(market)
    mixed = replace(market, **{
        name: getattr(market, name).sample(frac=1, random_state=i).reset_index(drop=True)
        for i, name in enumerate(("users", "contents", "products", "events", "impressions"))
    })  # fmt: skip
    features = learnt(mixed, like=history).features(mixed).set_axis(mixed.impressions["impression_id"])
    same_features(
        features.loc[market.impressions["impression_id"]].reset_index(drop=True), history.features(market)
    )
    assert learnt(mixed).strength == pytest.approx(history.strength)


def test_selected_rows_have_the_same_features():
    market = random_market(4, n_requests=60)
    until = int(np.median(seconds(market.impressions["time"])))
    history = learnt(market, until)
    everything = history.features(market)
    some = np.random.default_rng(0).random(len(everything)) < 0.3
    same_features(history.features(market.select(some)), everything[some].reset_index(drop=True))
    assert history.features(market.select(some & False)).shape == (0, everything.shape[1])


def test_chunks_change_nothing(monkeypatch):
    market = random_market(5)
    history = learnt(market)
    whole = history.features(market)
    monkeypatch.setattr("vaecm.history.CHUNK", 7)
    pd.testing.assert_frame_equal(history.features(market), whole)


def test_arrays_bring_the_history_back(tmp_path):
    market = random_market(6)
    history = learnt(market, int(seconds(market.impressions["time"])[40]))
    np.savez_compressed(tmp_path / "history.npz", **history.arrays())
    with np.load(tmp_path / "history.npz") as arrays:
        loaded = History.from_arrays(dict(arrays))
    pd.testing.assert_frame_equal(loaded.features(market), history.features(market))
    assert loaded.until == history.until


def test_what_came_before_counts_for_users_whom_the_store_does_not_know():
    market = random_market(7, n_requests=60)
    until = int(np.median(seconds(market.impressions["time"])))
    others = replace(
        market, impressions=market.impressions[market.impressions["user_id"] != 7],
        events=market.events[market.events["user_id"] != 7],
    )  # fmt: skip
    history = learnt(others, until)
    rows = after(market, until).select((after(market, until).impressions["user_id"] == 7).to_numpy())
    left, right = history.features(rows), learnt(market, like=history).features(rows)
    kinds = ("hours_since_category", "user_category_events", "user_category_share", "session")
    own = [column for column in left if column.startswith(kinds)]
    same_features(left[own], right[own])
    assert left["user_category_events"].gt(0).any()


def test_ids_and_classes_in_another_spelling_are_the_same():
    market = random_market(8)
    history = learnt(market)

    def text(table, *columns):
        return table.assign(
            **{c: table[c].map(lambda x: None if pd.isna(x) else f" {int(x)}") for c in columns}
        )

    events = text(market.events, "product_id")
    other = replace(
        market, impressions=market.impressions.assign(user_id=market.impressions["user_id"].astype(float)),
        users=text(market.users, "user_id"), contents=text(market.contents, "product_id", "author_id"),
        events=events.assign(category=events["category"].str.upper()),
    )  # fmt: skip
    same_features(history.features(other), history.features(market))
    same_features(learnt(other, like=history).features(market), history.features(market))
    pd.testing.assert_frame_equal(user_stream(other), user_stream(market))


def test_what_nobody_knows_yet():
    """Unknown users, contents, classes and missing attributes neither fail nor change other rows."""
    market = random_market(9)
    history = learnt(market)
    new = market.impressions.tail(3).assign(
        impression_id=[900, 901, 902], user_id=[555, 3, 556], content_id=["new", "new", "c0"],
        time=market.impressions["time"].max() + pd.Timedelta("9D"), clicked=np.nan, converted=np.nan, converted_at=pd.NaT,
    )  # fmt: skip
    content = pd.DataFrame({"content_id": ["new"], "format": ["hologram"], "author_id": ["zed"]})
    contents = pd.concat([market.contents, content], ignore_index=True)
    users = pd.DataFrame({"user_id": [*market.users["user_id"], 555, 556]})
    planned = replace(market, users=users, contents=contents, impressions=new.reset_index(drop=True))
    features = history.features(planned)
    assert features["author_impressions"].iloc[0] == 0
    assert np.isnan(features["category_click_rate"].iloc[0])
    assert np.isnan(features["hours_since_user_event"].iloc[0])
    assert features["user_events"].iloc[1] > 0
    alone = history.features(planned.select(new["user_id"].to_numpy() == 556))
    pd.testing.assert_frame_equal(alone, features[2:].reset_index(drop=True))


def test_planned_impressions_are_no_facts():
    market = random_market(2)
    history = learnt(market, int(seconds(market.impressions["time"])[40]))
    rows = after(market, history.until).impressions.drop(columns=["clicked", "converted", "converted_at"])
    planned = replace(market, impressions=rows)
    alone = pd.concat(
        [history.features(replace(planned, impressions=rows.iloc[[i]])) for i in range(0, len(rows), 6)]
    )
    pd.testing.assert_frame_equal(
        history.features(planned)[::6].reset_index(drop=True), alone.reset_index(drop=True)
    )


# --- the stream


def test_the_stream_holds_every_fact_once_in_order_of_time():
    market = random_market(3)
    stream = user_stream(market)
    _, _, facts = facts_of(market)
    assert (stream.groupby("user")["time"].diff().dropna() >= 0).all()
    assert stream["user"].is_monotonic_increasing
    counts = pd.Series([f["source"] for f in facts]).value_counts()
    assert (stream["source"] == "click").sum() == counts["click"]
    assert set(stream["source"]) == {"event", "click", "order"}
    until = int(stream["time"].median())
    early = user_stream(market, until)
    assert early["time"].max() <= until
    pd.testing.assert_frame_equal(early, stream[stream["time"] <= until].reset_index(drop=True))
    click = stream[stream["source"] == "click"].iloc[0]
    assert market.contents["product_id"][click["content"]] == int(click["item"])


@pytest.mark.parametrize(
    ("lag", "sources"), [(0, ["click", "event"]), (600, ["click", "order"]), (-600, ["click", "event"])]
)
def test_an_order_that_is_a_purchase_event_is_not_doubled(lag, sources):
    market = random_market(0)
    log = market.impressions.head(1).assign(clicked=1, converted=1, content_id="c0", user_id=3)
    log["converted_at"] = log["time"] + pd.Timedelta("2h")
    bought = market.events.head(2).assign(user_id=3, action="purchase", product_id=[10, 11], category=None)
    bought["time"] = [
        log["converted_at"].iloc[0] + pd.Timedelta(seconds=lag),
        log["time"].iloc[0] - pd.Timedelta("9D"),
    ]
    stream = user_stream(replace(market, impressions=log, events=bought))
    assert stream["source"].tolist() == ["event", *sources]
    assert stream["action"].tolist() == ["purchase", "click", "purchase"]


def test_a_stream_of_a_log_without_events_products_or_requests():
    market = random_market(1, bare=True)
    stream = user_stream(market)
    assert set(stream["action"]) == {"click"}
    assert (stream["item"].to_numpy() == market.contents["content_id"].to_numpy()[stream["content"]]).all()
    assert stream["category"].isna().all()


# --- smoothing


def test_prior_strength_finds_the_beta_that_made_the_rates():
    rng = np.random.default_rng(0)
    tries = rng.integers(1, 60, 20_000)
    for strength in (5, 30, 200):
        hits = rng.binomial(tries, rng.beta(0.1 * strength, 0.9 * strength, len(tries)))
        assert prior_strength(hits, 0.1 * tries, tries) == pytest.approx(strength, rel=0.25)
    assert prior_strength(np.zeros(5), np.zeros(5), np.ones(5)) == 20
    assert prior_strength(rng.binomial(tries, 0.1), 0.1 * tries, tries) > 300
