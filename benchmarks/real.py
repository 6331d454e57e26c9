"""Real data sets turned into logs of clicks: the model on texts alone, pictures alone, tables alone, and few clicks.

``python -m benchmarks.real --logs "meal reviews" comments``

None of them comes from a feed: what the model makes of a modality or of a thin log shows best where there is little else.
Rows without times are taken in random order. Baselines keep their default settings, as the model does. Intervals are
from rows drawn with replacement, paired.

===================  ==========================================  =============================================
log                  an impression, and its content              clicked
===================  ==========================================  =============================================
``meal reviews``     a Chinese review, new each time             it is positive
``comments``         an English comment, new each time           joy, love, admiration or gratitude is in it
``pictures``         a picture of Fashion-MNIST, new each time   drawn: 12 % for tops and coats, 4 % for others
``shop sessions``    a session, its source of traffic            it ends with an order
``e-mails``          a customer, one of three e-mails            visited within two weeks
``bandit ...``       a recommended item, six logs                clicked
===================  ==========================================  =============================================
"""

import argparse
import os
import time
from functools import partial

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd

import vaecm
from benchmarks.gates import loss
from benchmarks.store import Store
from vaecm import datasets
from vaecm.baselines import GlobalRate, LightGBMBaseline, LogisticBaseline
from vaecm.metrics import bootstrap_interval, score
from vaecm.splits import split_by_time

MODELS = {
    "global rate": GlobalRate, "logistic regression": partial(LogisticBaseline, seed=0),
    "LightGBM": partial(LightGBMBaseline, seed=0), "vaecm": partial(vaecm.EffectPredictor, seed=0),
}  # fmt: skip
METRICS = ("ctr_log_loss", "ctr_auc", "ctr_ece")
COMMENTS, PICTURES, CUSTOMERS = 20_000, 15_000, 30_000  # rows that are taken of the longer data sets
LIKED = ["joy", "love", "admiration", "gratitude"]
TOPS = (0, 2, 3, 4, 6)  # T-shirt, pullover, dress, coat, shirt
LEAKS = ["PageValues", "Revenue"]
SHARES = {"training": 0.7, "validation": 0.1, "test": 0.2}


def log_of(clicked, content_id=None, user_id=None, users=None, contents=None, covers=None, seed=0, **context):
    """A market of rows in random order, one each minute; by default all show contents of their own to one user."""
    n = len(clicked)
    content_id = np.arange(n) if content_id is None else np.asarray(content_id)
    contents = pd.DataFrame({"content_id": np.unique(content_id)}) if contents is None else contents
    user_id = np.zeros(n, int) if user_id is None else np.asarray(user_id)
    users = pd.DataFrame({"user_id": np.unique(user_id)}) if users is None else users
    order = np.random.default_rng(seed).permutation(n)
    rows = {"user_id": user_id, "content_id": content_id, "clicked": np.asarray(clicked, int), **context}
    rows = pd.DataFrame({name: np.asarray(values)[order] for name, values in rows.items()})
    begun = pd.Timestamp("2025-01-01")
    rows = rows.assign(impression_id=np.arange(n), time=begun + pd.to_timedelta(np.arange(n), unit="min"))
    return vaecm.Market(users, contents, rows, covers=covers)


def meal_reviews():
    reviews = datasets.load_waimai()
    return log_of(reviews["positive"], contents=titled(reviews["text"]))


def comments():
    found = datasets.load_goemotions().head(COMMENTS)
    return log_of(found[LIKED].any(axis=1), contents=titled(found["text"]))


def titled(texts):
    """Contents that have a title and nothing else."""
    return pd.DataFrame({"content_id": np.arange(len(texts)), "title": texts.to_numpy(object)})


def pictures():
    found = datasets.load_fashion_mnist()
    covers, kind = found.train_images[:PICTURES], found.train_labels[:PICTURES]
    chance = np.where(np.isin(kind, TOPS), 0.12, 0.04)
    return log_of(np.random.default_rng(0).random(len(kind)) < chance, covers=covers)


def shop_sessions():
    found = datasets.load_online_shoppers()
    context = {f"s_{name}": found[name] for name in found if name not in [*LEAKS, "TrafficType"]}
    return log_of(found["Revenue"], found["TrafficType"], np.arange(len(found)), **context)


def e_mails():
    found = datasets.load_hillstrom().head(CUSTOMERS)
    users = found.drop(columns=["segment", "visit", "conversion", "spend"])
    users.insert(0, "user_id", np.arange(len(users)))
    return log_of(found["visit"], found["segment"], users["user_id"], users)


def bandit(policy, campaign):
    """Its own times; users are those whose four hashed features are equal."""
    found = datasets.load_open_bandit(policy, campaign).reset_index(drop=True)
    of_user, of_item = (
        [name for name in found if name.startswith(f"{kind}_feature")] for kind in ("user", "item")
    )
    found = found.assign(user_id=found.groupby(of_user, dropna=False).ngroup())
    users = found.groupby("user_id")[of_user].first().reset_index()
    contents = found.groupby("item_id")[of_item].first().rename_axis("content_id").reset_index()
    names = {"item_id": "content_id", "timestamp": "time", "click": "clicked"}
    rows = found.rename(columns=names)[["user_id", "content_id", "time", "position", "clicked"]]
    return vaecm.Market(users, contents, rows.assign(impression_id=np.arange(len(rows))))


LOGS = {
    "meal reviews": meal_reviews, "comments": comments, "pictures": pictures, "shop sessions": shop_sessions,
    "e-mails": e_mails,
}  # fmt: skip
LOGS |= {
    f"bandit, {policy}, {campaign}": partial(bandit, policy, campaign)
    for policy in ("random", "bts")
    for campaign in ("all", "men", "women")
}


def run(name, store):
    """Store every model's scores on the test part of one log, and the model's loss minus each baseline's (``gap``)."""
    if all(store.has(stage=name, seed=0, model=model) for model in MODELS):
        return
    market = LOGS[name]()
    train, valid, test = split_by_time(market, tuple(SHARES.values()))
    told, seconds = {}, {}
    for label, make in MODELS.items():
        begun = time.perf_counter()
        options = {"verbose": False} if label == "vaecm" else {}
        told[label] = make().fit(train, validation=valid, **options).predict(test)
        seconds[label] = round(time.perf_counter() - begun, 1)
    clicked = test.impressions["clicked"].to_numpy(float)
    rates = {label: np.clip(effects["ctr"].to_numpy(), 1e-9, 1 - 1e-9) for label, effects in told.items()}
    lost = {label: loss(clicked, rate) for label, rate in rates.items()}
    about = {"rows": len(market.impressions), "rate": clicked.mean()}
    for label, effects in told.items():
        found = score(test, effects, n_resamples=1).set_index("metric")["value"]
        part = {metric: found[metric] for metric in METRICS} | about
        if label != "vaecm":
            gap = bootstrap_interval(lost["vaecm"] - lost[label], np.arange(len(clicked)), n_resamples=1_000)
            part |= {"gap": gap.value, "gap_low": gap.low, "gap_high": gap.high}
        store.add(stage=name, seed=0, model=label, seconds=seconds[label], parts={"all": part})
    print(name, {label: round(float(x["ctr"].mean()), 4) for label, x in told.items()}, flush=True)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--logs", nargs="+", default=list(LOGS), choices=list(LOGS))
    store = Store("real", SHARES)
    for name in parser.parse_args(arguments).logs:
        run(name, store)


if __name__ == "__main__":
    main()
