"""A shop's own files, as its programs export them: a folder that nobody prepared for this package.

Shapes: ``C`` contents, ``D`` numbers of a vector.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from vaecm.market import Market


def export(market: Market, folder: str | Path, upcoming: float = 0.1, seed: int = 0) -> pd.DataFrame:
    """Write a market as a shop might export it; gives the truth of the impressions to come.

    Semicolons and GB18030, ids with leading zeros, names of columns of the shop's own, decimal commas, times with a
    zone, covers as JPEG files of mixed sizes, vectors of another encoder, and a few rows that are wrong: two
    impressions twice, a negative price.

    Parameters
    ----------
    market : Market
        Simulated, so that the truth is known.
    folder : str or Path
        Where to write ``shop`` (the log so far) and ``next_week`` (impressions without outcomes).
    upcoming : float
        Share of the impressions, the last ones, that go to ``next_week``.
    seed : int

    Returns
    -------
    DataFrame
        By the shop's impression ids of next week: clicked, converted, sales, and the true p_click.

    Examples
    --------
    >>> import tempfile, vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=40, n_contents=40, n_impressions=400))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     truth = export(market, folder)
    >>> len(truth)
    40
    """
    rng, folder = np.random.default_rng(seed), Path(folder)
    log = market.impressions.sort_values("time", kind="stable")
    first = len(log) - round(upcoming * len(log))
    now = log["time"].iloc[first]
    texts = {
        "users": market.users.assign(user_id=market.users["user_id"].map("{:06d}".format)),
        "contents": _contents(market, rng),
        "events": market.events[market.events["time"] < now],
    }
    texts["events"] = texts["events"].assign(user_id=texts["events"]["user_id"].map("{:06d}".format))
    for name, rows in (("shop", log.iloc[:first]), ("next_week", log.iloc[first:])):
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        tables = texts | {"impressions": _impressions(rows, rng, outcomes=name == "shop")}
        for table, frame in tables.items():
            frame.to_csv(place / f"{table}.csv", sep=";", decimal=",", encoding="gb18030", index=False)
        _pictures(market, place / "covers", rng)
        ids = texts["contents"]["item"].to_numpy(str)[: len(market.contents)]
        np.savez(place / "vectors_encoder.npz", ids=ids, vectors=_vectors(market, rng))
    truth = market.truth.reindex(log["impression_id"].iloc[first:])["p_click"].to_numpy()
    known = log.iloc[first:][["clicked", "converted", "sales"]].assign(p_click=truth)
    return known.set_axis(log["impression_id"].iloc[first:].map("i{:07d}".format), axis=0)


def _contents(market, rng):
    contents = market.content_table().rename(columns={"content_id": "item", "published_at": "online_since"})
    contents = contents.drop(columns="author_id", errors="ignore")
    contents["item"] = contents["item"].map("{:05d}".format)
    contents["campaign"] = rng.choice(["spring", "none", "outlet"], len(contents))
    contents["stock"] = rng.integers(0, 500, len(contents))
    contents.loc[contents.index[7], "price"] = -1.0
    return contents


def _impressions(rows, rng, outcomes):
    names = {"content_id": "item", "time": "shown_at"}
    kept = ["impression_id", "user_id", "content_id", "time", "position", "request_id"]
    kept += ["clicked", "converted", "converted_at", "sales"] if outcomes else []
    table = rows[kept].rename(columns=names)
    table["impression_id"] = table["impression_id"].map("i{:07d}".format)
    table["user_id"], table["item"] = (
        table["user_id"].map("{:06d}".format),
        table["item"].map("{:05d}".format),
    )
    table["shown_at"] = table["shown_at"].dt.strftime("%Y-%m-%dT%H:%M:%S+08:00")
    return pd.concat([table, table.iloc[[3, 11]]]) if outcomes else table


def _pictures(market, folder, rng):
    folder.mkdir(exist_ok=True)
    for k in np.flatnonzero(market.covers.any(axis=tuple(range(1, market.covers.ndim)))):
        side = int(rng.integers(48, 160))
        picture = Image.fromarray(market.covers[k]).resize((side, int(side * rng.uniform(0.8, 1.25))))
        picture.convert("RGB").save(folder / f"{market.contents['content_id'].iloc[k]:05d}.jpg", quality=85)


def _vectors(market, rng):
    """What a pretrained encoder might give: a random projection of the pixels, (C, D = 16)."""
    pixels = market.covers.reshape(len(market.covers), -1).astype(np.float32) / 255
    axes = rng.normal(size=(pixels.shape[1], 16)) / np.sqrt(pixels.shape[1])
    return ((pixels - pixels.mean(axis=0)) @ axes).astype(np.float32)
