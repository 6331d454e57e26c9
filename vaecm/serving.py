r"""Predictions from an exported folder with NumPy and a small runtime: nothing of TensorFlow or Keras is loaded.

`EffectPredictor.export` writes the effect networks with all their voters; they read the arrays that
`vaecm.predictor.network_inputs` makes. `Student.export` writes a student with its plain preprocessing; it reads columns
of the request, the content and the user. `load` reads both. The networks are files of ONNX Runtime or LiteRT.

Shapes: ``B`` rows, ``K`` networks, ``D`` columns, ``L`` numbers of a vector, ``T`` trees, ``N`` nodes of all trees.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

DAY = 86_400
REACH = 6.0  # standard deviations beyond which a number counts no further
SETTINGS, ARRAYS = "settings.json", "arrays.npz"
SUFFIXES = {"onnx": ".onnx", "litert": ".tflite"}
LINEAR_PARTS = ("table", "match", "content", "user", "summary")  # then one column for each position
TREE_PARTS = (*LINEAR_PARTS, "place")  # what trees read, in this order
WHOLE, FRACTION = (re.compile(rf"-?(?:0|[1-9]\d*)\.{end}") for end in ("0+", r"\d*[1-9]0+"))
CHUNK = 4_096  # rows at a time


# --- plain columns ------------------------------------------------------------------------------------------------


def comparable(value: Any) -> str | None:
    """A class as a text that can be compared, None where it is missing: what `schema.canonical` gives, without pandas.

    Examples
    --------
    >>> [comparable(value) for value in (1.0, " iOS ", None, "2.0", float("nan"))]
    ['1', 'ios', None, '2', None]
    """
    if value is None or value != value:
        return None
    if isinstance(value, float | np.floating) and np.isfinite(value):
        value = str(int(value)) if value == int(value) else np.format_float_positional(value, trim="-")
    text = unicodedata.normalize("NFC", str(value)).strip()
    if WHOLE.fullmatch(text):
        text = text.partition(".")[0]
    elif FRACTION.fullmatch(text):
        text = text.rstrip("0")
    return text.casefold() or None


def encode(columns: Sequence[Mapping], rows: Mapping[str, Any]) -> np.ndarray:
    r"""Plain columns as the numbers that a student reads.

    ==========  ================================================================================================
    kind        becomes
    ==========  ================================================================================================
    ``number``  x, or :math:`\operatorname{sign}(x)\log(1+|x|)` where ``heavy``, standardised; and whether it is there
    ``age``     days from the time of the column to ``context.time``, as a heavy number
    ``clock``   sine and cosine of the hour of the day and of the day of the week
    ``class``   a column of 0 and 1 for each of its ``levels``
    ``vector``  its numbers, which are standardised already; and whether it is there
    ==========  ================================================================================================

    Parameters
    ----------
    columns : list of dict
        Name, kind, and what training learned of it: ``mean``, ``sd``, ``heavy``, ``levels``, ``size``.
    rows : dict
        Values by name; one value counts for all rows, a missing column for unknown.

    Returns
    -------
    array, shape (B, D), float32

    Examples
    --------
    >>> price = {"name": "content.price", "kind": "number", "heavy": False, "mean": 10.0, "sd": 5.0}
    >>> tier = {"name": "user.tier", "kind": "class", "levels": ["1", "2"]}
    >>> encode([price, tier], {"content.price": [20.0, None], "user.tier": 2}).tolist()
    [[2.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]]
    """
    parts = [_KINDS[column["kind"]](column, rows) for column in columns]
    size = max((len(part) for part in parts), default=0)
    wide = [np.broadcast_to(part, (size, part.shape[1])) for part in parts]
    return np.hstack(wide).astype(np.float32)


def _number(column, rows):
    values = np.atleast_1d(np.asarray(rows.get(column["name"]), dtype=float))
    return _standardised(column, np.sign(values) * np.log1p(np.abs(values)) if column["heavy"] else values)


def _age(column, rows):
    days = (seconds(rows.get("context.time")) - seconds(rows.get(column["name"]))) / DAY
    return _standardised(column, np.sign(days) * np.log1p(np.abs(days)))


def _standardised(column, x):
    there = np.isfinite(x)
    z = np.clip((np.where(there, x, 0) - column["mean"]) / column["sd"], -REACH, REACH)
    return np.column_stack([np.where(there, z, 0), there])


def _clock(column, rows):
    angle = 2 * np.pi * seconds(rows.get(column["name"]))[:, None] / np.array([DAY, 7 * DAY])
    both = np.stack([np.sin(angle), np.cos(angle)], axis=2)
    return np.nan_to_num(both.reshape(len(angle), -1))


def _class(column, rows):
    values = np.atleast_1d(np.asarray(rows.get(column["name"]), dtype=object))
    code = {level: at for at, level in enumerate(column["levels"])}
    codes = {value: code.get(comparable(value), -1) for value in set(values.tolist())}
    found = np.array([codes[value] for value in values.tolist()], int)
    return found[:, None] == np.arange(len(code))


def _vector(column, rows):
    values = rows.get(column["name"])
    values = np.full((1, column["size"]), np.nan) if values is None else np.atleast_2d(values).astype(float)
    there = np.isfinite(values).all(axis=1, keepdims=True)
    return np.hstack([np.where(there, values, 0), there])


_KINDS = {"number": _number, "age": _age, "clock": _clock, "class": _class, "vector": _vector}


def width(column: Mapping) -> int:
    """Numbers that a column becomes in `encode`."""
    if column["kind"] == "class":
        return len(column["levels"])
    return (
        column["size"] + 1
        if column["kind"] == "vector"
        else {"number": 2, "age": 2, "clock": 4}[column["kind"]]
    )


def seconds(times: Any) -> np.ndarray:
    """Seconds since 1970 of dates, or of texts such as 2025-03-01 08:00; NaN where missing: (B,).

    >>> seconds(["1970-01-02", None]).tolist()
    [86400.0, nan]
    """
    times = np.atleast_1d(np.asarray(times if times is not None else "NaT", dtype="datetime64[ms]"))
    return np.where(np.isnat(times), np.nan, times.astype(np.int64) / 1_000)


# --- small networks, trees and calibration ------------------------------------------------------------------------


def forward(weights: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    r"""A small wide and deep network: (B, D) to log-odds of click and conversion, and log of the value: (B, 3).

    .. math:: f(x)=xW+b+V^\top h_n(x),\qquad h_k=\operatorname{silu}(h_{k-1}A_k+a_k),\quad h_0=x

    `weights` holds ``wide``, ``bias``, ``deep`` and ``kernel_k``, ``bias_k``.
    """
    out, h = x @ weights["wide"] + weights["bias"], x
    for k in range(sum(name.startswith("kernel_") for name in weights)):
        h = h @ weights[f"kernel_{k}"] + weights[f"bias_{k}"]
        h = h * expit(h)
    return out + h @ weights["deep"]


def expit(x: np.ndarray) -> np.ndarray:
    """The logistic function, without overflow: that of SciPy, which a server does without.

    >>> expit(np.array([0.0, -1e4])).tolist()
    [0.5, 0.0]
    """
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def grow(trees: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Sum of the leaves that the rows (B, D) reach: (B,); all trees go down one level at a time.

    `trees` holds ``root`` (T,) and, for all N nodes, ``feature``, ``threshold``, ``left``, ``right``, ``value``; a leaf
    leads to itself.
    """
    found = np.zeros(len(x))
    for start in range(0, len(x), CHUNK):
        part = x[start : start + CHUNK]
        node, row = np.tile(trees["root"], (len(part), 1)), np.arange(len(part))[:, None]
        while True:
            low = part[row, trees["feature"][node]] <= trees["threshold"][node]
            below = np.where(low, trees["left"][node], trees["right"][node])
            if (below == node).all():
                break
            node = below
        found[start : start + CHUNK] = trees["value"][node].sum(axis=1)
    return found


def effects_of(logits: np.ndarray, has: Sequence[bool]) -> dict[str, np.ndarray]:
    """Effects (B,) by name, from log-odds of click and conversion and the log of the value (B, 3)."""
    ctr, cvr, value = expit(logits[:, 0]), expit(logits[:, 1]), np.exp(logits[:, 2])
    cvr = cvr if has[1] else np.full(len(ctr), np.nan)
    value = value if has[2] else np.full(len(ctr), np.nan)
    return {"ctr": ctr, "cvr": cvr, "ctcvr": ctr * cvr, "sales": ctr * cvr * value}


# --- folders ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Served:
    """An exported model that is ready to predict.

    Attributes
    ----------
    settings : dict
    arrays : dict of arrays
    run : callable
        The network: inputs by name to one array.
    """

    settings: dict
    arrays: dict[str, np.ndarray]
    run: Callable[[Mapping[str, np.ndarray]], np.ndarray]

    def predict(self, rows: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """ctr, cvr, ctcvr and sales in yuan per impression, each (B,).

        Parameters
        ----------
        rows : dict
            Of a student: plain columns by name, see `encode`; ``content.content_id`` finds the exported vectors.
            Of a predictor: the arrays of `vaecm.predictor.network_inputs`.
        """
        if self.settings["kind"] == "student":
            x = encode(self.settings["columns"], self._with_vectors(rows))
            return effects_of(self.run({"x": x}).astype(float), self.settings["has"])
        return self._voted({name: np.asarray(x, np.float32) for name, x in rows.items()})

    def _with_vectors(self, rows):
        wanted = [column["name"] for column in self.settings["columns"] if column["kind"] == "vector"]
        if "ids" not in self.arrays or not wanted or "content.content_id" not in rows:
            return rows
        ids = np.atleast_1d(np.asarray(rows["content.content_id"], dtype=object))
        known = {name: at for at, name in enumerate(self.arrays["ids"].tolist())}
        at = np.array([known.get(str(value), -1) for value in ids])
        found = {name: self.arrays[name].astype(float) for name in wanted if name in self.arrays}
        return {name: np.where(at[:, None] < 0, np.nan, x[at]) for name, x in found.items()} | dict(rows)

    def _voted(self, inputs):
        s, a = self.settings, self.arrays
        heads = self.run(inputs).astype(float).reshape(len(inputs["place"]), -1, 4)  # (B, K, 4)
        position = np.eye(50, dtype=np.float32)[np.minimum(inputs["place"][:, 0].astype(int), 49)]
        x = np.hstack([*(inputs[name] for name in LINEAR_PARTS if name in inputs), position])
        logits = []
        for j, head in enumerate(("click", "convert")):
            said = a[f"say/{head}"][1] * self._grown(head, inputs)
            if f"linear/{head}" in a:
                said += a[f"say/{head}"][2] * (x @ a[f"linear/{head}"][:-1] + a[f"linear/{head}"][-1])
            logits.append(_calibrated(s[head], a[f"say/{head}"][0] * heads[:, :, j] + said[:, None]))
        value = np.exp(heads[:, :, 2] + np.exp(2 * heads[:, :, 3]) / 2).mean(axis=1) * s["value"]
        return effects_of(np.column_stack([*logits, np.log(value)]), s["has"])

    def _grown(self, head, inputs):
        of = f"trees/{head}/"
        trees = {name.removeprefix(of): x for name, x in self.arrays.items() if name.startswith(of)}
        if not trees:
            return np.zeros(len(inputs["place"]))
        return grow(trees, np.hstack([inputs[name] for name in TREE_PARTS if name in inputs]))


def _calibrated(found, logits):
    """Calibrated log-odds of the mean probability of the networks: (B, K) to (B,)."""
    p = np.clip(expit(logits).mean(axis=1), 1e-9, 1 - 1e-9)
    return found["base"] + found["shift"] + found["slope"] * (np.log(p / (1 - p)) - found["pivot"])


def load(folder: str | Path) -> Served:
    """Read what `EffectPredictor.export` or `Student.export` wrote.

    Raises
    ------
    ValueError
        If the folder holds no export, or a file is missing or altered.
    """
    path = Path(folder)
    if not (path / "manifest.json").is_file():
        raise ValueError(f"load: {path.name} holds no exported model: manifest.json is missing")
    files = json.loads((path / "manifest.json").read_text(encoding="utf-8"))["files"]
    wrong = [name for name, entry in files.items() if not _same(path / name, entry["sha256"])]
    wrong = [f"{name} is missing or was altered" for name in wrong]
    wrong += [f"{name} is missing" for name in (SETTINGS, ARRAYS) if name not in files]
    if wrong:
        raise ValueError(f"load: {path.name}: " + "; ".join(wrong))
    with np.load(path / ARRAYS) as arrays:
        arrays = dict(arrays)
    network = next(name for name in files if name.endswith(tuple(SUFFIXES.values())))
    settings = json.loads((path / SETTINGS).read_text(encoding="utf-8"))
    return Served(settings, arrays, session((path / network).read_bytes(), Path(network).suffix))


def _same(path, checksum):
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == checksum


def session(content: bytes, suffix: str) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """A network of ONNX Runtime or LiteRT as a function, on one thread; inputs that it does not read are left out."""
    if suffix == SUFFIXES["onnx"]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        found = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        names = [item.name for item in found.get_inputs()]
        return lambda inputs: found.run(None, {name: inputs[name] for name in names})[0]
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = (
        OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )  # a delegate gains nothing here, and writes to stderr
    made = Interpreter(model_content=content, num_threads=1, experimental_op_resolver_type=plain)
    runner = made.get_signature_runner()
    names = list(runner.get_input_details())
    return lambda inputs: next(iter(runner(**{name: inputs[name] for name in names}).values()))
