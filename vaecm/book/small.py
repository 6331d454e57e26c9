"""What the compression chapter and its benchmark share: times, files, and what decisions lose with a smaller model.

Shapes: ``B`` impressions, ``R`` requests of ``M`` candidates each.
"""

from __future__ import annotations

import html
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from vaecm.book import feeds, uplift
from vaecm.compress import Compiled
from vaecm.market import Market
from vaecm.metrics import score
from vaecm.options import refuse, whole_problems
from vaecm.predictor import EffectPredictor, effects, network_inputs, outputs

MARGIN, COST = 0.3, 0.12  # share of the sales; yuan per impression
METRICS = ("ctr_log_loss", "ctr_auc", "ctr_ece", "ctr_truth_mae")
WORDS = {
    "ctr_log_loss": "log-loss", "ctr_auc": "AUC", "ctr_ece": "calibration error",
    "ctr_truth_mae": "off the true rate", "feed": "feed: yuan lost", "promotion": "promotion: yuan lost",
}  # fmt: skip


def milliseconds(call: Callable[[], object], times: int = 15) -> float:
    """Median time of a call, after a first one that is not counted.

    >>> milliseconds(lambda: time.sleep(0.002), times=3) >= 2
    True
    """
    refuse("milliseconds", whole_problems({"times": times}))
    call()
    laps = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        laps.append(time.perf_counter() - start)
    return 1_000 * float(np.median(laps))


def file_sizes(save: Callable[[Path], object]) -> pd.Series:
    """Bytes of the files that a way to save writes into an empty folder, the largest first.

    >>> file_sizes(lambda folder: (folder / "a.txt").write_text("abc")).to_dict()
    {'a.txt': 3}
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "model"
        place.mkdir()
        save(place)
        found = {path.name: path.stat().st_size for path in place.iterdir()}
    return pd.Series(found, name="bytes").sort_values(ascending=False)


def network_files(networks: Sequence[Any]) -> list[bytes]:
    """Networks as files: Keras' own weights, or what another runtime reads."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.weights.h5"
        for network in networks:
            if isinstance(network, Compiled):
                found.append(network.content)
            else:
                network.save_weights(path)
                found.append(path.read_bytes())
    return found


class Asked(NamedTuple):
    """What every model is asked: the test part, candidates of a feed, pieces to promote, and one request to be timed."""

    test: Market
    feed: Market
    promotion: Market
    request: Market


def ask(
    test: Market, requests: int = 400, stock: int = 20, pieces: int = 120, moments: int = 40, seed: int = 0
) -> Asked:
    """The questions of the chapters on promotion and on the feed, and one user's request with 100 candidates."""
    feed = feeds.candidates(test, requests, stock, seed)
    return Asked(test, feed, uplift.ask(test, pieces, moments, seed), uplift.ask(test, 100, 1, seed))


def read(predictor: EffectPredictor, asked: Asked) -> dict[str, dict[str, np.ndarray]]:
    """What effect networks read of each question; it is made once, because smaller networks read the same."""
    return {name: network_inputs(predictor.representation, market, predictor.state)
            for name, market in asked._asdict().items()}  # fmt: skip


def answers(predictor: EffectPredictor, inputs: Mapping[str, np.ndarray], market: Market) -> pd.DataFrame:
    """Effects by impression_id from what the networks read: `predict` without the way to it."""
    found = effects(outputs(predictor.networks, predictor.voters, inputs), predictor.state)
    return pd.DataFrame(found, index=pd.Index(market.impressions["impression_id"], name="impression_id"))


def graded(
    asked: Asked, predict: Callable[[str], pd.DataFrame], seed: int = 0, cost: float = COST
) -> dict[str, float]:
    r"""Log-loss, calibration and the regret of both decisions of a model.

    .. math:: \text{regret}=V(\text{oracle})-V(\text{model})

    with the true value V of the feed in yuan per request of six places, and of the promotion in yuan per thousand
    impressions offered.

    Parameters
    ----------
    asked : Asked
    predict : callable
        Effects of one of the questions, by its name.
    seed : int
    cost : float
        Of a promotion, in yuan per impression.
    """
    table = score(asked.test, predict("test"), n_resamples=1).set_index("metric")["value"]
    found = {name: float(table[name]) for name in METRICS if name in table}
    return found | regret(asked, predict("feed")["sales"], predict("promotion")["sales"], seed, cost)


def in_words(rows: Mapping[str, Mapping[str, float]], *metrics: str) -> pd.DataFrame:
    """Some metrics of `graded`, or all, as a table with a row for each model and plain words over the columns.

    >>> in_words({"whole": {"ctr_log_loss": 0.3, "feed": 6.0}}, "feed")
           feed: yuan lost
    whole              6.0
    """
    table = pd.DataFrame(rows).T
    return table[list(metrics) or list(table)].rename(columns=WORDS)


def regret(
    asked: Asked, feed: np.ndarray, promotion: np.ndarray, seed: int = 0, cost: float = COST
) -> dict[str, float]:
    """What is lost against the oracle, in yuan: by a feed, per request, and by a promotion, per 1,000 offered."""
    shown = feeds.feed_values(asked.feed, {"model": np.asarray(feed)}, "yuan", seed=seed)
    put = uplift.promotion_values(
        asked.promotion, {"model": np.asarray(promotion)}, MARGIN, cost, seed
    ).mean()
    yuan = {name: table["yuan"].mean() for name, table in shown.items()}
    return {"feed": float(yuan["oracle"] - yuan["model"]), "promotion": float(put["oracle"] - put["model"])}


def regret_of_rules(asked: Asked, seed: int = 0, cost: float = COST) -> pd.DataFrame:
    """The same for deciding by chance, and by clicks so far."""
    shown = feeds.feed_values(asked.feed, {}, "yuan", seed=seed)
    put = uplift.promotion_values(asked.promotion, {}, MARGIN, cost, seed).mean()
    yuan = {name: table["yuan"].mean() for name, table in shown.items()}
    names = {"chance": ("random order", "at random"), "clicks so far": ("clicks so far", "clicks so far")}
    rows = {
        name: {"feed": yuan["oracle"] - yuan[a], "promotion": put["oracle"] - put[b]}
        for name, (a, b) in names.items()
    }
    return pd.DataFrame(rows).T


def frame(path: str | Path, height: int = 900) -> str:
    """A page as part of another one: it keeps its own styles and scripts.

    A division holds the frame: for a bare one IPython advises its own `IFrame`, which cannot hold a page's text.

    >>> place = Path(tempfile.mkdtemp()) / "a.html"
    >>> _ = place.write_text("<p>1 < 2</p>")
    >>> frame(place, 90)[:75]
    '<div><iframe title="A model in the browser" style="width:100%;height:90px;b'
    """
    text = html.escape(Path(path).read_text(encoding="utf-8"))
    style = f"width:100%;height:{height}px;border:1px solid #888"
    return f'<div><iframe title="A model in the browser" style="{style}" srcdoc="{text}"></iframe></div>'
