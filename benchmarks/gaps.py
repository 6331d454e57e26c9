"""Modalities that are gone when an impression is predicted: for the protocol's rows on gaps."""

from dataclasses import replace

import numpy as np
import pandas as pd

KEPT = {"content_id", "published_at", "title"}


def hide(market, share=0.4, seed=0):
    """A copy of which each modality of each content and user is gone with probability `share`, independently.

    Cover, sound, title, every vector and the attributes of a content (its product and its author too); the profile of
    a user and the history. A user without a history is one that nobody has met: a new id, without events, as when a
    reader is not logged in. The log of the past stays as it is.

    Parameters
    ----------
    market : Market
    share : float
    seed : int

    Returns
    -------
    Market
    """
    rng = np.random.default_rng(seed)
    C, U = len(market.contents), len(market.users)
    gone = {name: rng.random(C) < share for name in ("cover", "sound", "title", "attributes")}
    contents = market.content_table().copy()
    if "title" in contents:
        contents["title"] = contents["title"].where(~gone["title"])
    for name in contents.columns:
        if name not in KEPT and gone["attributes"].any():
            contents[name] = contents[name].where(~gone["attributes"])
    changes = {"contents": contents}
    for name, what in (("covers", "cover"), ("audio", "sound")):
        values = getattr(market, name)
        if values is not None:
            changes[name] = np.where(gone[what][(...,) + (None,) * (values.ndim - 1)], 0, values).astype(
                values.dtype
            )
    if market.vectors:
        lost = {name: rng.random(C) < share for name in market.vectors}
        changes["vectors"] = {k: np.where(lost[k][:, None], np.nan, v) for k, v in market.vectors.items()}
    return _without_users(replace(market, **changes), rng.random(U) < share, rng.random(U) < share)


def _without_users(market, no_profile, no_history):
    """Profiles are blanked; users without a history are met under a new id, beside the ones that the log knows."""
    users = market.users.copy()
    for name in users.columns:
        if name != "user_id":
            users[name] = users[name].where(~no_profile)
    ids, rows = users["user_id"], market.user_rows
    whole = np.issubdtype(ids.dtype, np.integer)
    new = (
        np.arange(len(ids)) + ids.max() + 1
        if whole
        else np.array([f"unknown-{k}" for k in range(len(ids))], object)
    )
    strangers = users[no_history].assign(user_id=new[no_history])
    met = np.where(no_history[rows], new[rows], ids.to_numpy()[rows])
    return replace(
        market, users=pd.concat([users, strangers], ignore_index=True), log=market.past,
        impressions=market.impressions.assign(user_id=met),
    )  # fmt: skip
