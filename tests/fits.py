"""A small log with something to learn, and a predictor that several test modules share."""

from dataclasses import replace
from functools import cache

import numpy as np
from logs import small_log

import vaecm

TINY = vaecm.ModelConfig(vae_steps=5, epochs=1, ensemble=1)


def clear_log(seed=5):
    """As `small_log`, but live contents are clicked much more often, and fewer look at later positions."""
    market = small_log(60, 50, 800, seed=seed)
    log, rng = market.impressions.copy(), np.random.default_rng(seed)
    live = market.contents["format"].to_numpy()[market.content_rows] == "live"
    chance = np.where(live, 0.7, 0.1) * 0.6 ** (log["position"].to_numpy() - 1)
    log["clicked"] = (rng.random(len(log)) < chance).astype(np.int8)
    log["converted"] = (log["clicked"] * (rng.random(len(log)) < 0.3)).astype(np.int8)
    ordered = log["converted"] == 1
    late = log["time"] + np.timedelta64(1, "h") * rng.integers(1, 30, len(log))
    log["converted_at"], log["sales"] = late.where(ordered), np.where(ordered, 20.0, 0.0)
    return replace(market, impressions=log, truth=None)


@cache
def parts():
    """Training, validation and test of `clear_log`."""
    return vaecm.split_by_time(clear_log(), (0.7, 0.1, 0.2))


@cache
def fitted():
    """A predictor of `parts`; nothing may change it."""
    train, valid, _ = parts()
    return vaecm.EffectPredictor(TINY, seed=0).fit(train, validation=valid, verbose=False)
