"""What representations and parts of the model are worth: stored runs that take hours.

``python -m benchmarks.protocol --stage pictures --name parts --n 100000 --users 2000 --seeds 31 32 33`` and ``python -m
benchmarks.protocol --stage kuairand --name kuairand --seeds 31 32 33`` measure `RUNS` again, on logs that the simulator
did not write; ``--stage heads --name heads --n 100000 --users 2000 --seeds 31 32 33`` measures `GRID`, on simulated ones.
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
# Log-loss of a head on as-of features alone minus that with a representation beside them, likewise.
GRID = pd.DataFrame(
    [
        ("statistics", "logistic regression", -0.22, -1.68, 1.25),
        ("PCA", "logistic regression", -0.83, -2.74, 1.09),
        ("untrained", "logistic regression", -1.33, -2.1, -0.55),
        ("VAE", "logistic regression", 0.22, -1.44, 1.87),
        ("fine-tuned", "logistic regression", 0.54, 0.11, 0.97),
        ("end to end", "logistic regression", -3.0, -8.6, 2.59),
        ("statistics", "LightGBM", 0.16, -0.77, 1.09),
        ("PCA", "LightGBM", 0.02, -0.19, 0.23),
        ("untrained", "LightGBM", -0.54, -2.04, 0.97),
        ("VAE", "LightGBM", 1.17, -0.79, 3.14),
        ("fine-tuned", "LightGBM", 1.73, 1.01, 2.45),
        ("end to end", "LightGBM", -0.92, -2.01, 0.17),
        ("statistics", "effect network", -0.56, -2.62, 1.49),
        ("PCA", "effect network", -0.03, -0.4, 0.35),
        ("untrained", "effect network", 0.08, -0.61, 0.76),
        ("VAE", "effect network", 1.1, 0.09, 2.12),
        ("fine-tuned", "effect network", 1.08, -0.01, 2.17),
        ("end to end", "effect network", -2.58, -7.68, 2.52),
    ],
    columns=["representation", "head", "worth", "low", "high"],
)


def by_log() -> pd.DataFrame:
    """A row for each part and a column for each log, as texts; empty where the log has nothing for the part to read.

    Examples
    --------
    >>> by_log().loc["picture CNN"].tolist()
    ['+1.6 [+0.8, +2.3]', '', '']
    """
    return wide(RUNS, "part", "log")


def by_head() -> pd.DataFrame:
    """A row for each representation and a column for each head, as texts.

    Examples
    --------
    >>> by_head().loc["PCA", "LightGBM"]
    '+0.0 [-0.2, +0.2]'
    """
    return wide(GRID, "representation", "head")


def wide(runs: pd.DataFrame, rows: str, columns: str) -> pd.DataFrame:
    """Runs as texts, value [low, high], in the order in which they come."""
    text = [f"{r.worth:+.1f} [{r.low:+.1f}, {r.high:+.1f}]" for r in runs.itertuples()]
    table = runs.assign(text=text).pivot(index=rows, columns=columns, values="text").fillna("")
    return table.reindex(index=runs[rows].unique(), columns=runs[columns].unique())


def on(log: str) -> pd.DataFrame:
    """The runs on one log, indexed by part, all parts in one order; NaN where there is none.

    Examples
    --------
    >>> float(on("shop, clicks").loc["content VAE", "worth"]), len(on("feed, clicks"))
    (6.47, 10)
    """
    found = RUNS[RUNS["log"] == log].set_index("part")[["worth", "low", "high"]]
    return found.reindex(RUNS["part"].unique())
