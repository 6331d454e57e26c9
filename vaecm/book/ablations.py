"""What representations, parts of the model and the model itself are worth: stored runs that take long.

``python -m benchmarks.protocol --stage pictures --name parts --n 100000 --users 2000 --seeds 31 32 33`` and ``python -m
benchmarks.protocol --stage kuairand --name kuairand --seeds 31 32 33`` measure `RUNS` again, on logs that the simulator
did not write; ``--stage heads --name heads --n 100000 --users 2000 --seeds 31 32 33`` measures `GRID`, on simulated ones.
``python -m benchmarks.real`` measures `DATA`.
"""

import pandas as pd

SHOP, FEED, VIEWS = "shop, clicks", "feed, clicks", "feed, long views"
# Log-loss without a part minus the whole model's, in thousandths of a nat: mean of three seeds, Student's 95 % interval.
RUNS = pd.DataFrame(
    [
        ("picture CNN", SHOP, 1.67, 0.73, 2.62),
        ("text CNN", SHOP, -0.21, -0.98, 0.57),
        ("content VAE", SHOP, 6.48, 3.47, 9.49),
        ("item embeddings", SHOP, -0.07, -0.45, 0.31),
        ("user VAE", SHOP, -0.06, -0.66, 0.55),
        ("GRU", SHOP, 0.06, -1.01, 1.14),
        ("deep part", SHOP, -0.05, -0.79, 0.7),
        ("trees", SHOP, 0.47, -0.24, 1.18),
        ("regression", SHOP, -0.02, -0.31, 0.27),
        ("content VAE", FEED, 0.38, -0.82, 1.57),
        ("item embeddings", FEED, 1.92, -0.85, 4.69),
        ("user VAE", FEED, 1.52, -0.03, 3.06),
        ("GRU", FEED, -0.39, -1.64, 0.86),
        ("deep part", FEED, 0.34, -0.26, 0.94),
        ("trees", FEED, 1.73, 0.79, 2.67),
        ("regression", FEED, 0.45, -0.01, 0.91),
        ("content VAE", VIEWS, 0.2, -0.79, 1.2),
        ("item embeddings", VIEWS, 1.46, -1.58, 4.5),
        ("user VAE", VIEWS, 1.48, 0.59, 2.36),
        ("GRU", VIEWS, -0.8, -2.41, 0.81),
        ("deep part", VIEWS, 0.13, -0.25, 0.52),
        ("trees", VIEWS, 1.52, 0.85, 2.19),
        ("regression", VIEWS, 0.32, -0.06, 0.7),
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

# Log-loss of a baseline minus the model's on real data that were turned into logs: one fit, 95 % interval from rows.
DATA = pd.DataFrame(
    [
        ("meal reviews", "mean rate", 288.1, 260.06, 316.77),
        ("meal reviews", "logistic regression", 9.3, -4.39, 21.6),
        ("meal reviews", "LightGBM", -7.15, -18.43, 3.91),
        ("comments", "mean rate", 150.64, 135.76, 166.57),
        ("comments", "logistic regression", 9.58, 2.03, 17.3),
        ("comments", "LightGBM", -2.09, -9.57, 4.93),
        ("pictures", "mean rate", 6.9, 3.62, 10.5),
        ("pictures", "logistic regression", 4.23, 1.72, 7.12),
        ("pictures", "LightGBM", 2.27, -1.03, 5.3),
        ("shop sessions", "mean rate", 60.04, 49.22, 71.32),
        ("shop sessions", "logistic regression", 9.43, 4.55, 14.37),
        ("shop sessions", "LightGBM", 2.76, -0.58, 6.44),
        ("e-mails", "mean rate", 14.44, 10.02, 18.54),
        ("e-mails", "logistic regression", -0.72, -1.99, 0.54),
        ("e-mails", "LightGBM", 0.87, -0.21, 1.95),
        ("bandit, random, all", "mean rate", -0.02, -0.05, 0.02),
        ("bandit, random, all", "logistic regression", 0.29, -0.42, 0.9),
        ("bandit, random, all", "LightGBM", -0.06, -0.17, 0.08),
        ("bandit, random, men", "mean rate", -0.06, -0.96, 1.1),
        ("bandit, random, men", "logistic regression", -0.16, -0.94, 0.85),
        ("bandit, random, men", "LightGBM", -0.02, -0.99, 1.24),
        ("bandit, random, women", "mean rate", 0.13, -0.18, 0.55),
        ("bandit, random, women", "logistic regression", 0.14, -0.19, 0.55),
        ("bandit, random, women", "LightGBM", 0.14, -0.19, 0.57),
        ("bandit, bts, all", "mean rate", -0.05, -0.1, 0.01),
        ("bandit, bts, all", "logistic regression", -0.02, -0.07, 0.0),
        ("bandit, bts, all", "LightGBM", -0.05, -0.09, 0.0),
        ("bandit, bts, men", "mean rate", 0.07, -0.11, 0.23),
        ("bandit, bts, men", "logistic regression", 0.1, -0.19, 0.36),
        ("bandit, bts, men", "LightGBM", 0.11, -0.13, 0.32),
        ("bandit, bts, women", "mean rate", -0.01, -0.03, 0.0),
        ("bandit, bts, women", "logistic regression", -0.93, -1.79, -0.19),
        ("bandit, bts, women", "LightGBM", 0.04, 0.01, 0.07),
    ],
    columns=["data", "baseline", "worth", "low", "high"],
)


def by_log() -> pd.DataFrame:
    """A row for each part and a column for each log, as texts; empty where the log has nothing for the part to read.

    Examples
    --------
    >>> by_log().loc["picture CNN"].tolist()
    ['+1.7 [+0.7, +2.6]', '', '']
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


def by_data() -> pd.DataFrame:
    """A row for each of the data sets and a column for each baseline, as texts.

    Examples
    --------
    >>> by_data().columns.tolist()
    ['mean rate', 'logistic regression', 'LightGBM']
    """
    return wide(DATA, "data", "baseline")


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
    (6.48, 9)
    """
    found = RUNS[RUNS["log"] == log].set_index("part")[["worth", "low", "high"]]
    return found.reindex(RUNS["part"].unique())
