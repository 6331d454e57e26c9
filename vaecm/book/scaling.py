"""What the chapter on scale needs beside `vaecm.scale`: the measured curve, a kill at a step, and a plan on paper."""

import os
import signal
import time
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import pandas as pd

# What `python -m benchmarks.growth` stored: the market, processor seconds of each step, and the peak in GiB.
MEASURED = pd.DataFrame(
    [
        (30_000, 2_000, 1_500, 1.08, 56.6, 1.45, 1.44),
        (100_000, 2_000, 1_515, 1.14, 70.62, 3.71, 1.86),
        (1_000_000, 20_000, 15_151, 5.18, 324.84, 58.94, 6.31),
    ],
    columns=["impressions", "users", "contents", "simulate", "fit", "predict", "peak_gib"],
)


# What `python -m benchmarks.scale` stored of predictions in parts of 50,000 rows by two workers: the most memory that one
# of them held after its first part, and after all.
PREDICTED = pd.DataFrame(
    {
        "rows": [100_000, 1_000_000, 10_000_000],
        "parts": [2, 20, 200],
        "first part, GiB": [1.197, 1.243, 1.348],
        "all parts, GiB": [1.31, 1.439, 1.531],
        "rows a second": [3360, 20301, 35760],
    }
)
# And of training on the same shares: the largest difference of any weight from this process's, and rows a second.
TRAINED = pd.DataFrame(
    {
        "workers": ["none, this process", "one", "two"],
        "largest difference of weights": [0.0, 0.0, 0.0],
        "rows a second": [29119, 24851, 20571],
    }
)
# And of a fit (`scale.fit`, a small model, one pass) that holds four parts and reads the rest from disk, in one process.
FITTED = pd.Series(
    {
        "rows": 10_000_000,
        "rows held at once": 200_000,
        "minutes": 19.4,
        "GB of prepared rows on disk": 12.8,
        "peak GiB, with the prepared rows": 13.57,
    },
    dtype=object,
)


class Line(NamedTuple):
    r"""A fixed cost and a cost by row, :math:`y=a+b\,n`."""

    fixed: float
    by_row: float

    def __call__(self, n: float) -> float:
        return float(self.fixed + self.by_row * n)


class Power(NamedTuple):
    r"""A power law, :math:`y=a\,n^b`."""

    factor: float
    power: float

    def __call__(self, n: float) -> float:
        return float(self.factor * n**self.power)


def line(n: np.ndarray, y: np.ndarray) -> Line:
    """The line of least squares through some points.

    Examples
    --------
    >>> found = line(np.array([10, 1_000]), np.array([12.0, 210.0]))
    >>> round(found.fixed, 3), round(found.by_row, 3)
    (10.0, 0.2)
    """
    by_row, fixed = np.polyfit(n, y, 1)
    return Line(float(fixed), float(by_row))


def power(n: np.ndarray, y: np.ndarray) -> Power:
    """The line of least squares through some points on two logarithmic axes.

    Examples
    --------
    >>> found = power(np.array([10, 1_000]), np.array([2.0, 200.0]))
    >>> round(found.power, 3), round(found(100), 3)
    (1.0, 20.0)
    """
    slope, factor = np.polyfit(np.log(n), np.log(y), 1)
    return Power(float(np.exp(factor)), float(slope))


def fresh(network: keras.Model, rows: dict[str, np.ndarray]) -> keras.Model:
    """An untrained network with the options of another, built for such rows."""
    made = type(network)(**network.get_config())
    made({name: array[:1] for name, array in rows.items()})
    return made


def largest_gap(one: keras.Model, other: keras.Model) -> float:
    """The largest difference between two models' weights."""
    pairs = zip(one.get_weights(), other.get_weights(), strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


class Diary:
    """A callback of `vaecm.parallel.train`: notes the time of each step, and kills a worker once after a step.

    Examples
    --------
    >>> diary = Diary()
    >>> diary(1, [os.getpid()])
    >>> diary.steps
    [1]
    """

    def __init__(self, kill_at: int | None = None):
        self.kill_at, self.steps, self.times, self.killed = kill_at, [], [], []

    def __call__(self, step: int, processes: list[int]) -> None:
        self.steps.append(step)
        self.times.append(time.perf_counter())
        if step == self.kill_at and not self.killed and processes[-1] != os.getpid():
            self.killed.append(processes[-1])
            os.kill(processes[-1], signal.SIGKILL)

    def rows_per_second(self, batch_size: int, warm: int = 10) -> float:
        """Rows a second after some steps in which functions are traced."""
        times = self.times[warm:]
        return batch_size * (len(times) - 1) / (times[-1] - times[0])


def day(
    impressions: float, fit: Callable[[float], float], predict: Callable[[float], float],
    memory: Callable[[float], float], bytes_per_row: float, days: int = 90, sample: float = 0.0005,
    candidates: int = 100, slate: int = 4, peak: float = 2.0,
) -> pd.Series:  # fmt: skip
    """A plan on paper: what so many impressions a day ask for.

    Parameters
    ----------
    impressions : float
        A day.
    fit, predict, memory : callable
        Processor seconds, and GiB that a fit holds, by number of impressions.
    bytes_per_row : float
        Of an impression on disk, its share of the events included.
    days : int
        That are kept, and from which the sample is drawn.
    sample : float
        Share of the users that a fit holds.
    candidates, slate : int
        Items that are scored for a request, and that it shows.
    peak : float
        Busiest second against the mean one.

    Returns
    -------
    Series
        TB that are kept; rows in a fit; GiB and core hours of a fit; core hours of scoring each impression once; and
        cores for scoring all candidates live.
    """
    rows = impressions * days * sample
    per_row = predict(1e6) / 1e6
    live = impressions / slate * candidates * per_row / 86_400 * peak
    return pd.Series({
        "kept on disk, TB": impressions * days * bytes_per_row / 1e12,
        "rows in a fit": rows,
        "GiB to hold them": memory(rows),
        "core hours of a fit": fit(rows) / 3_600,
        "core hours to score each impression once": impressions * per_row / 3_600,
        "cores to score all candidates live": live,
    })  # fmt: skip
