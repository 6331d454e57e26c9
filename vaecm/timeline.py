"""Facts of many entities on one sorted axis of time: what each had done strictly before any second.

F facts, N questions. An entity is any whole number that is not negative; times are whole seconds since 1970.
"""

import numpy as np
import pandas as pd

NEVER = np.iinfo(np.int64).min
SESSION = 1_800  # a longer pause ends a session


def seconds(times: pd.Series) -> np.ndarray:
    """Whole seconds since 1970 of datetimes, `NEVER` where missing; (N,) int64."""
    return times.to_numpy(dtype="datetime64[s]").astype(np.int64)


def pair(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(F,) int64 entities made of two, such as a user and a category; -1 where one of them is unknown."""
    return np.where((first < 0) | (second < 0), -1, first.astype(np.int64) << 32 | second)


class Timeline:
    """Facts sorted by entity and time, with running sums; `AsOf` reads it.

    Parameters
    ----------
    key, time : (F,) int64
        The entity of each fact and its second; at least one fact.
    columns : dict of (F,) int or bool arrays
        What is counted, not negative.
    """

    def __init__(self, key: np.ndarray, time: np.ndarray, columns: dict[str, np.ndarray]):
        order = np.lexsort((time, key))
        key, self.origin, self.span = key[order], time.min(), np.ptp(time) + 2
        self.first = np.flatnonzero(np.diff(key, prepend=key[0] - 1))
        self.keys, length = key[self.first], np.diff(self.first, append=len(key))
        # one axis of time on which the entities follow each other
        self.place = np.repeat(np.arange(len(length)), length) * self.span + time[order] - self.origin
        self.sums, self.marks = {}, {}
        for name, values in columns.items():
            dtype = np.int32 if values.sum() < 2**31 else np.int64
            self.sums[name] = np.concatenate([[0], np.cumsum(values[order])], dtype=dtype)

    def find(self, key: np.ndarray) -> np.ndarray:
        """The rank of each entity in the timeline, -1 where it has no fact."""
        rank = np.minimum(np.searchsorted(self.keys, key), len(self.keys) - 1)
        return np.where(self.keys[rank] == key, rank, -1)

    def before(self, rank: np.ndarray, time: np.ndarray) -> np.ndarray:
        """How many facts lie before those that this entity has from `time` on (0: no such entity)."""
        place = rank * self.span + np.clip(time - self.origin, 0, self.span - 1)
        return np.where(rank < 0, 0, np.searchsorted(self.place, place))

    def where(self, name: str) -> np.ndarray:
        """The facts that count in a column, or, for "session", the first fact of each fact's session."""
        if name not in self.marks and name == "session":
            fresh = np.diff(self.place, prepend=0) > SESSION
            fresh[self.first] = True
            self.marks[name] = np.maximum.accumulate(np.where(fresh, np.arange(len(fresh)), 0))
        elif name not in self.marks:
            self.marks[name] = np.flatnonzero(np.diff(self.sums[name]))
        return self.marks[name]


class AsOf:
    """What entities did strictly before given seconds, added up over timelines that follow each other.

    Parameters
    ----------
    lines : list of Timeline
    key, time : (N,) int64
        The entity asked for, -1 where unknown, and the second of the request.

    Examples
    --------
    >>> line = Timeline(np.array([7, 7, 3]), np.array([10, 20, 15]), {"clicked": np.array([1, 0, 1])})
    >>> asked = AsOf([line], np.array([7, 7, 3, -1]), np.array([10, 21, 99, 99]))
    >>> asked.count("clicked").tolist(), asked.last().tolist()
    ([0.0, 1.0, 1.0, nan], [nan, 20.0, 15.0, nan])
    """

    def __init__(self, lines: list[Timeline], key: np.ndarray, time: np.ndarray):
        self.key, self.parts = key, []
        for line in lines:
            rank = line.find(key)
            self.parts.append((line, rank, np.where(rank < 0, 0, line.first[rank]), line.before(rank, time)))

    def count(self, name: str | None = None, since: np.ndarray | None = None) -> np.ndarray:
        """(N,) facts, or sums of a column, NaN for unknown entities; `since` (N,) leaves out what came before."""
        total = np.where(self.key < 0, np.nan, 0.0)
        for line, rank, first, end in self.parts:
            start = first if since is None else line.before(rank, since)
            total += end - start if name is None else line.sums[name][end] - line.sums[name][start]
        return total

    def last(self, name: str | None = None) -> np.ndarray:
        """(N,) second of the last fact, or of the last that counts in a column; NaN where there is none."""
        latest = np.full(len(self.key), np.nan)
        for line, rank, first, end in self.parts:
            there = end > first if name is None else line.sums[name][end] > line.sums[name][first]
            fact = end[there] - 1 if name is None else line.where(name)[line.sums[name][end[there]] - 1]
            latest[there] = line.place[fact] - rank[there] * line.span + line.origin
        return latest

    def session(self) -> np.ndarray:
        """(N,) second at which the session of the last fact began, NaN where there is no fact."""
        begun, latest = np.full((2, len(self.key)), np.nan)
        for line, rank, first, end in self.parts:
            there = end > first
            shift = line.origin - rank[there] * line.span
            start = line.place[line.where("session")[end[there] - 1]] + shift
            begun[there] = np.where(start - latest[there] <= SESSION, begun[there], start)
            latest[there] = line.place[end[there] - 1] + shift
        return begun
