"""A market of real pictures and real headlines, written apart from the simulator.

A user likes some of the ten classes of Fashion-MNIST, and looks for one of them in a session. The class of a content
stands in its cover alone: no column tells it. How often a headline was clicked at Upworthy tells how good it is.
Nothing of the model was chosen here.
"""

import numpy as np
import pandas as pd
from scipy.special import expit

import vaecm
from vaecm.datasets import load_fashion_mnist, load_upworthy

START, CLASSES = pd.Timestamp("2024-03-01"), 10


def shop(seed, n_users=2_500, n_contents=2_500, n_requests=22_000, slate=5, days=30):
    """A market with its truth: covers (28, 28), titles, a channel, an author and a price that tell little."""
    rng = np.random.default_rng(seed)
    covers, kind, titles, appeal = _creatives(rng, n_contents)
    contents = pd.DataFrame({
        "content_id": np.arange(n_contents), "title": titles, "channel": rng.integers(0, 6, n_contents).astype(str),
        "author_id": rng.integers(0, 300, n_contents), "price": np.exp(rng.normal(4, 0.6, n_contents)).round(2),
    })  # fmt: skip
    taste = rng.dirichlet(np.full(CLASSES, 0.35), n_users)
    liking = np.log(taste + 0.02)
    liking -= liking.mean(axis=1, keepdims=True)
    own = {
        "kind": kind, "appeal": appeal, "liking": liking, "popularity": rng.lognormal(0, 1, n_contents),
        "author": rng.normal(0, 0.3, 300)[contents["author_id"]], "price": np.log(contents["price"].to_numpy()) - 4,
        "channel": rng.normal(0, 0.3, (n_users, 6))[:, contents["channel"].astype(int)],
    }  # fmt: skip
    birth = np.sort(rng.uniform(-10, days, n_contents))
    death = birth + 3 * rng.lognormal(1.6, 0.7, n_contents)
    activity = rng.pareto(1.6, n_users) + 0.3
    events, rows = [], []
    times = np.sort(rng.uniform(0, days, n_requests))
    asking = rng.choice(n_users, n_requests, p=activity / activity.sum())
    for request, (time, user) in enumerate(zip(times, asking, strict=True)):
        alive = np.flatnonzero((birth < time) & (time < death))
        if len(alive) >= 2 * slate:
            wanted = rng.choice(CLASSES, p=taste[user])
            events += _browsed(rng, own, user, wanted, alive, time)
            rows += _shown(rng, own, request, user, wanted, alive, time, slate, birth)
    return _market(rng, contents.assign(published_at=_moments(birth)), events, rows, n_users, covers)


def _creatives(rng, n):
    """Covers with their classes, and titles with their standardised log click rates, drawn apart from each other."""
    clothes, arms = load_fashion_mnist(), load_upworthy().query("impressions > 1000")
    at, arm = rng.permutation(len(clothes.train_images))[:n], rng.permutation(len(arms))[:n]
    rate = np.log(arms["clicks"].to_numpy()[arm] / arms["impressions"].to_numpy()[arm] + 1e-4)
    appeal = (rate - rate.mean()) / rate.std()
    return (
        clothes.train_images[at],
        clothes.train_labels[at].astype(int),
        arms["headline"].to_numpy()[arm],
        appeal,
    )


def _browsed(rng, own, user, wanted, alive, time):
    """What a user looks at before a request: (user, content, time), a few seconds apart."""
    n, kind = rng.poisson(2.0), own["kind"][alive]
    weight = own["popularity"][alive] * np.exp(1.6 * (kind == wanted) + 0.5 * own["liking"][user, kind])
    seen = alive[rng.choice(len(alive), n, p=weight / weight.sum())]
    return [(user, content, time - (n - k) * rng.uniform(0.0004, 0.001)) for k, content in enumerate(seen)]


def _shown(rng, own, request, user, wanted, alive, time, slate, birth):
    """The slate of a request, with true rates: the platform ranks by popularity, age and the user's class."""
    liking = own["liking"][user, own["kind"]]
    weight = own["popularity"][alive] * np.exp(-0.15 * (time - birth[alive]) + 0.25 * liking[alive])
    some = rng.choice(alive, slate, replace=False, p=weight / weight.sum())
    right = own["kind"][some] == wanted
    place = np.arange(slate)
    click = (
        -2.6 + right + 0.45 * liking[some] + 0.5 * own["appeal"][some] + own["author"][some] - 0.18 * place
    )
    click = expit(click + own["channel"][user, some])
    order = expit(-2.3 + 0.6 * right - 0.4 * own["price"][some])
    return [(request, user, content, time, k + 1, click[k], order[k]) for k, content in enumerate(some)]


def _market(rng, contents, events, rows, n_users, covers):
    """Outcomes drawn from the true rates, and all of it as a `Market`."""
    columns = ["request_id", "user_id", "content_id", "time", "position", "p_click", "p_convert"]
    log = pd.DataFrame(rows, columns=columns).assign(time=lambda t: _moments(t["time"]))
    log["impression_id"] = np.arange(len(log))
    price = contents["price"].to_numpy()[log["content_id"]]
    truth = log.set_index("impression_id")[["p_click", "p_convert"]]
    truth["expected_sales"] = truth["p_click"] * truth["p_convert"] * price
    log = log.drop(columns=["p_click", "p_convert"])
    log["clicked"] = (rng.random(len(log)) < truth["p_click"]).astype(int)
    log["converted"] = log["clicked"] * (rng.random(len(log)) < truth["p_convert"])
    log["sales"] = log["converted"] * price
    seen = pd.DataFrame(events, columns=["user_id", "content_id", "time"]).sort_values(
        "time", ignore_index=True
    )
    seen = seen.assign(time=_moments(seen["time"]), action="view")
    users = pd.DataFrame({"user_id": np.arange(n_users), "city": rng.integers(0, 5, n_users).astype(str)})
    users["age"] = rng.integers(18, 65, n_users)
    return vaecm.Market(
        users=users, contents=contents, impressions=log, events=seen, covers=covers, truth=truth
    )


def _moments(days):
    """Days after the start as times, to the second."""
    return (START + pd.to_timedelta(np.asarray(days), unit="D")).astype("datetime64[s]")
