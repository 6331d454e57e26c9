"""What each part of the model is worth on logs that the simulator did not write: stored runs that take hours.

``python -m benchmarks.protocol --stage pictures --name parts --n 100000 --users 2000 --seeds 31 32 33`` and ``python -m
benchmarks.protocol --stage kuairand --name kuairand --seeds 31 32 33`` measure them again.
"""

import pandas as pd

SHOP, FEED, VIEWS = "shop, clicks", "feed, clicks", "feed, long views"
# Log-loss without a part minus the whole model's, in thousandths of a nat: mean of three seeds, Student's 95 % interval.
RUNS = pd.DataFrame(
    [
        ("picture CNN", SHOP, 1.56, 0.85, 2.28),
        ("text CNN", SHOP, -0.22, -1.16, 0.73),
        ("content VAE", SHOP, 6.47, 3.47, 9.47),
        ("item embeddings", SHOP, -0.1, -0.43, 0.23),
        ("user VAE", SHOP, -0.01, -0.32, 0.31),
        ("GRU", SHOP, 0.07, -0.6, 0.75),
        ("deep part", SHOP, -0.01, -0.56, 0.54),
        ("trees", SHOP, 0.31, -0.77, 1.38),
        ("regression", SHOP, -0.05, -0.53, 0.42),
        ("ensemble", SHOP, 0.02, -0.18, 0.22),
        ("content VAE", FEED, 0.03, -0.76, 0.82),
        ("item embeddings", FEED, 1.82, 0.79, 2.85),
        ("user VAE", FEED, 0.81, -0.14, 1.76),
        ("GRU", FEED, -0.33, -1.41, 0.75),
        ("deep part", FEED, 0.04, -1.63, 1.72),
        ("trees", FEED, 1.34, 1.05, 1.62),
        ("regression", FEED, 0.34, 0.18, 0.49),
        ("ensemble", FEED, 0.09, -0.05, 0.22),
        ("content VAE", VIEWS, 0.03, -0.84, 0.89),
        ("item embeddings", VIEWS, 1.46, 0.57, 2.35),
        ("user VAE", VIEWS, 1.01, 0.08, 1.95),
        ("GRU", VIEWS, -0.13, -1.6, 1.34),
        ("deep part", VIEWS, -0.13, -1.5, 1.23),
        ("trees", VIEWS, 0.89, 0.51, 1.27),
        ("regression", VIEWS, 0.35, 0.06, 0.64),
        ("ensemble", VIEWS, 0.12, -0.1, 0.35),
    ],
    columns=["part", "log", "worth", "low", "high"],
)


def by_log() -> pd.DataFrame:
    """A row for each part and a column for each log, as texts; empty where the log has nothing for the part to read.

    Examples
    --------
    >>> by_log().loc["picture CNN"].tolist()
    ['+1.6 [+0.8, +2.3]', '', '']
    """
    text = [f"{r.worth:+.1f} [{r.low:+.1f}, {r.high:+.1f}]" for r in RUNS.itertuples()]
    wide = RUNS.assign(text=text).pivot(index="part", columns="log", values="text").fillna("")
    return wide.reindex(index=RUNS["part"].unique(), columns=RUNS["log"].unique())


def on(log: str) -> pd.DataFrame:
    """The runs on one log, indexed by part, all parts in one order; NaN where there is none.

    Examples
    --------
    >>> float(on("shop, clicks").loc["content VAE", "worth"]), len(on("feed, clicks"))
    (6.47, 10)
    """
    found = RUNS[RUNS["log"] == log].set_index("part")[["worth", "low", "high"]]
    return found.reindex(RUNS["part"].unique())
