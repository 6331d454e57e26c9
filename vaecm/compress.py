r"""Smaller models: pruned, quantised, and distilled into a student that a web server can run on plain columns.

Pruning and quantisation change the effect networks and leave the way to them as it is. A student replaces all of it: it
learns the probabilities that the whole predictor gives, and reads only columns of the request, the user and the content;
beside them, where wanted, what the predictor said of each piece beforehand.

Shapes: ``B`` rows, ``C`` contents, ``D`` columns, ``L`` latent dimensions, ``K`` networks, ``G`` groups of columns.
"""

from __future__ import annotations

import base64
import copy
import gzip
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import layers, ops
from PIL import Image

from vaecm import schema, serving
from vaecm.effects import Batches, Calibration, EffectNetwork, Voters
from vaecm.export import litert, need, onnx_networks, onnx_small, write
from vaecm.io import new_file
from vaecm.market import Market
from vaecm.options import range_problems, refuse, whole_problems
from vaecm.predictor import NOT_ASKED, EffectPredictor, effects, network_inputs, outputs
from vaecm.written import read_cells

SKIPPED = ("attributes", "item")  # experts whose input a student reads as plain columns, or that nobody reads
HEADS = (1.0, 0.3, 0.05)  # weights of click, conversion and value in the student's loss
TEMPLATE = "student.html"
GROUPS = {  # parts of a student's prediction, and the columns that belong to each
    "what the teacher expects": ("content.teacher",),
    "cover": ("content.cover",), "title": ("content.title",), "price": ("content.price",),
    "place": ("context.position", "context.device"), "time": ("context.time", "content.published_at"),
    "user": ("user.",), "other attributes": ("content.", "context."),
}  # fmt: skip


# --- pruning ------------------------------------------------------------------------------------------------------


def sparsity(step: int | np.ndarray, begin: int, end: int, final: float) -> np.ndarray:
    r"""Share of the weights that are gone at a step of training: fast at first, slow at the end.

    .. math:: s_t=s_f\Big[1-\Big(1-\frac{t-t_0}{t_1-t_0}\Big)^3\Big],\qquad t_0\le t\le t_1

    (Zhu and Gupta 2017, arXiv:1710.01878.)

    Examples
    --------
    >>> sparsity(np.array([0, 10, 15, 20, 30]), begin=10, end=20, final=0.8).round(2).tolist()
    [0.0, 0.0, 0.7, 0.8, 0.8]
    """
    way = np.clip((np.asarray(step) - begin) / (end - begin), 0, 1)
    return final * (1 - (1 - way) ** 3)


def kernels(model: keras.Model) -> list[Any]:
    """The weight matrices of a model: what pruning takes from."""
    return [weight for weight in model.trainable_weights if weight.path.endswith("kernel")]


def share_of_zeros(model: keras.Model) -> float:
    """Share of zeros among the weights of `kernels`."""
    values = [np.asarray(weight) for weight in kernels(model)] or [np.ones(1)]
    return float(sum((v == 0).sum() for v in values) / sum(v.size for v in values))


class MagnitudePruning(keras.callbacks.Callback):
    """Set the smallest weights of each matrix to zero while training goes on, more and more of them.

    What is zero stays zero: the masks are laid on again after each step.

    Parameters
    ----------
    final : float
        Share of the weights that are gone in the end.
    begin, end : int
        Steps at which pruning begins and ends.
    every : int
        Steps between two looks at which weights are the smallest.

    Raises
    ------
    ValueError
        Names every option that is out of range.
    """

    def __init__(self, final: float = 0.8, begin: int = 0, end: int = 100, every: int = 10):
        super().__init__()
        problems = range_problems({"final": final}, {"final": (0.0, 0.999)})
        problems += whole_problems({"begin": begin}, 0) + whole_problems({"end": end, "every": every})
        problems += [] if problems or begin < end else [f"begin must lie before end, got {begin} and {end}"]
        refuse("MagnitudePruning", problems)
        self.final, self.begin, self.end, self.every = final, begin, end, every
        self.step, self.masks = 0, {}

    def on_train_batch_end(self, batch, logs=None):
        """Look again at which weights are small, where it is time to; lay the masks on."""
        self.step += 1
        again = self.step <= self.end and (self.step % self.every == 0 or self.step == self.end)
        for at, weight in enumerate(kernels(self.model)):
            if again:
                share = float(sparsity(self.step, self.begin, self.end, self.final))
                self.masks[at] = mask_of(np.asarray(weight), share)
            if at in self.masks:
                weight.assign(weight * self.masks[at])


def mask_of(weight: np.ndarray, share: float) -> np.ndarray:
    """0 for the share of the smallest weights, 1 for the others.

    >>> mask_of(np.array([[3.0, -0.1], [0.2, -2.0]]), 0.5).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    mask = np.ones(weight.size, np.float32)
    mask[np.argsort(np.abs(weight), axis=None, kind="stable")[: round(share * weight.size)]] = 0
    return mask.reshape(weight.shape)


def twin(
    network: EffectNetwork, sizes: Mapping[str, int], hidden: Sequence[int] | None = None
) -> EffectNetwork:
    """A network with the weights of another one, or with hidden layers of other sizes and its own first weights.

    `sizes` tells the columns of each input, as ``predictor.representation.sizes()`` does.
    """
    options = network.get_config() | ({} if hidden is None else {"hidden": [int(n) for n in hidden]})
    made = EffectNetwork(**options)
    made({name: np.zeros((1, size), np.float32) for name, size in sizes.items()})
    if hidden is None:
        made.set_weights(network.get_weights())
    return made


def narrow(network: EffectNetwork, sizes: Mapping[str, int], hidden: Sequence[int]) -> EffectNetwork:
    r"""A network with fewer units in its hidden layers: those stay whose weights, in and out, are the largest.

    Unit j of a layer counts :math:`\lVert W^{in}_{\cdot j}\rVert\cdot\lVert W^{out}_{j\cdot}\rVert`. A smaller matrix
    costs less on every machine; zeros in a large one cost less only where they are skipped.

    Raises
    ------
    ValueError
        If `hidden` has another number of layers, or more units than there are.
    """
    had = network.options["hidden"]
    problems = whole_problems({f"hidden[{k}]": n for k, n in enumerate(hidden)})
    fits = len(hidden) == len(had) and all(n <= m for n, m in zip(hidden, had, strict=True))
    problems += [] if problems or fits else [f"hidden must be at most {had}, got {list(hidden)}"]
    refuse("narrow", problems)
    made = twin(network, sizes, hidden)
    kept, rows = [], slice(None)
    after = [*(np.asarray(layer.kernel) for layer in network.deep[1:]), np.asarray(network.heads.kernel)]
    for layer, out, n in zip(network.deep, after, hidden, strict=True):
        size = np.linalg.norm(np.asarray(layer.kernel), axis=0) * np.linalg.norm(out, axis=1)
        kept.append(np.sort(np.argsort(-size, kind="stable")[:n]))
    for layer, new, units in zip(network.deep, made.deep, kept, strict=True):
        new.kernel.assign(np.asarray(layer.kernel)[rows][:, units])
        new.bias.assign(np.asarray(layer.bias)[units])
        rows = units
    made.heads.kernel.assign(np.asarray(network.heads.kernel)[rows])
    for old, new in zip([network.wide, *network.project], [made.wide, *made.project], strict=True):
        new.set_weights(old.get_weights())
    for name in ("start", "log_s", *(["exam"] if network.options["exam"] else [])):
        getattr(made, name).assign(getattr(network, name))
    return made


def tune(
    network: EffectNetwork, train: tuple, steps: int = 300, batch_size: int = 512, learning_rate: float = 5e-4,
    callbacks: Iterable[keras.callbacks.Callback] = (),
) -> EffectNetwork:  # fmt: skip
    """Train a network a little further on (inputs, targets), so that it makes up for what was taken from it."""
    data = Batches(*train, min(batch_size, len(train[1])), 1, network.options["seed"])
    network.compile(optimizer=keras.optimizers.Adam(learning_rate, clipnorm=5.0))
    passes = -(-steps // len(data))
    network.fit(data, epochs=passes, verbose=0, callbacks=list(callbacks), shuffle=False)
    return network


# --- quantisation -------------------------------------------------------------------------------------------------


class Compiled:
    """A network of another runtime in the place of an `EffectNetwork`: it gives its heads (B, 4).

    Parameters
    ----------
    content : bytes
        A file of ONNX (suffix ".onnx") or LiteRT (".tflite").
    suffix : str
    """

    def __init__(self, content: bytes, suffix: str):
        self.content, self.run = content, serving.session(content, suffix)

    def predict_on_batch(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Heads of some rows."""
        return self.run({name: np.asarray(x, np.float32) for name, x in inputs.items()})


def keras_int8(network: EffectNetwork, sizes: Mapping[str, int]) -> EffectNetwork:
    """A network whose dense layers hold whole numbers from -127 to 127, by Keras itself."""
    made = twin(network, sizes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of dropout, which has no weights
        made.quantize("int8")
    return made


def onnx_int8(content: bytes) -> bytes:
    """An ONNX file with its weights in 8 bits; what runs between the layers is scaled as it comes (dynamic)."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.disable(logging.WARNING)  # it advises a step for pictures' networks
    try:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
            source.write_bytes(content)
            quantize_dynamic(source, target, weight_type=QuantType.QInt8)
            return target.read_bytes()
    finally:
        logging.disable(logging.NOTSET)


def onnx_network(network: EffectNetwork, sizes: Mapping[str, int], int8: bool = False) -> Compiled:
    """An effect network in ONNX Runtime, with its weights in 8 bits where asked."""
    content = onnx_networks([network], sizes)
    return Compiled(onnx_int8(content) if int8 else content, ".onnx")


def litert_network(
    network: EffectNetwork, sizes: Mapping[str, int], form: str = "float", sample: Mapping | None = None
) -> Compiled:
    """An effect network in LiteRT; the forms are those of `vaecm.export.litert`."""
    sizes = {name: size for name, size in sizes.items() if name != "summary"}
    return Compiled(litert([network], sizes, form, sample), ".tflite")


def swapped(
    predictor: EffectPredictor,
    networks: Sequence[Any],
    voters: Voters | None = None,
    state: dict | None = None,
) -> EffectPredictor:
    """The same predictor with other networks, and other voters and calibration where they are given."""
    made = copy.copy(predictor)
    made.networks = list(networks)
    made.voters = predictor.voters if voters is None else voters
    made.state = predictor.state if state is None else state
    return made


def packed(content: bytes) -> int:
    """Bytes of a file after gzip: what has to travel, and the only place where scattered zeros save anything."""
    return len(gzip.compress(content, 9, mtime=0))


# --- distillation -------------------------------------------------------------------------------------------------


def distil_network(
    x: np.ndarray,
    effects: Mapping[str, np.ndarray],
    hidden: Sequence[int] = (32,),
    epochs: int = 15,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    r"""A small wide and deep network that learns the probabilities of a teacher, not the outcomes.

    .. math:: \ell=\mathrm{BCE}(p,\sigma(a))+0.3\,\mathrm{BCE}(q,\sigma(b))+0.05\,(\log v-m)^2

    with the teacher's click rate p, conversion rate q and value v of an order (Hinton, Vinyals and Dean 2015,
    arXiv:1503.02531). The cross-entropy takes p itself: an outcome says one bit, a probability says how sure.

    Parameters
    ----------
    x : array, shape (B, D), float32
    effects : dict of array, shape (B,)
        ``ctr``, ``cvr``, ``sales`` of the teacher; NaN where it has none.
    hidden, epochs, seed

    Returns
    -------
    dict of arrays
        What `vaecm.serving.forward` runs on, and ``mean``, the mean row (D,).
    """
    problems = whole_problems({"epochs": epochs}) + whole_problems(
        {f"hidden[{k}]": n for k, n in enumerate(hidden)}
    )
    refuse("distil", problems)
    ctr, cvr, sales = (np.asarray(effects[name], float) for name in ("ctr", "cvr", "sales"))
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.log(sales / (ctr * cvr))
    y = np.column_stack([ctr, np.nan_to_num(cvr), np.nan_to_num(value, posinf=0, neginf=0)]).astype(
        np.float32
    )
    model = small_model(x.shape[1], hidden, y.mean(axis=0), seed)
    steps = -(-len(x) // 512)
    rate = keras.optimizers.schedules.CosineDecay(3e-3, epochs * steps, alpha=0.01)
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=1e-3), soft_loss, steps_per_execution=min(steps, 16)
    )
    keras.utils.set_random_seed(seed)
    model.fit({"x": x}, y, batch_size=512, epochs=epochs, verbose=0)
    return weights_of(model) | {"mean": x.mean(axis=0, dtype=np.float64).astype(np.float32)}


def small_model(columns: int, hidden: Sequence[int], start: np.ndarray, seed: int = 0) -> keras.Model:
    """The network of `vaecm.serving.forward` in Keras; it begins at the means `start` of p, q and log v."""
    p = np.clip(start[:2], 1e-6, 1 - 1e-6)
    begin = keras.initializers.Constant(np.append(np.log(p / (1 - p)), start[2]))
    h = x = keras.Input((columns,), name="x")
    wide = layers.Dense(3, kernel_initializer="zeros", bias_initializer=begin, name="wide")(x)
    for k, n in enumerate(hidden):
        glorot = keras.initializers.GlorotUniform(1_000 * seed + k)
        h = layers.Dense(n, "silu", kernel_initializer=glorot, name=f"hidden_{k}")(h)
    deep = layers.Dense(3, use_bias=False, kernel_initializer="zeros", name="deep")(h)
    return keras.Model({"x": x}, layers.Add()([wide, deep]))


def soft_loss(y: Any, out: Any) -> Any:
    """The loss of `distil_network`, (B,)."""
    click, convert = (ops.softplus(out[:, k]) - y[:, k] * out[:, k] for k in (0, 1))
    return HEADS[0] * click + HEADS[1] * convert + HEADS[2] * ops.square(out[:, 2] - y[:, 2])


def weights_of(model: keras.Model) -> dict[str, np.ndarray]:
    """The weights of `small_model` by the names of `vaecm.serving.forward`."""
    wide, deep = (model.get_layer(name).get_weights() for name in ("wide", "deep"))
    found = {"wide": wide[0], "bias": wide[1], "deep": deep[0]}
    for k, layer in enumerate(part for part in model.layers if part.name.startswith("hidden_")):
        found[f"kernel_{k}"], found[f"bias_{k}"] = layer.get_weights()
    return found


def one_network(
    predictor: EffectPredictor, train: Market, hidden: Sequence[int] = (32,), epochs: int = 15, seed: int = 0
) -> EffectPredictor:  # fmt: skip
    """The same predictor with all its voters distilled into one small network; it still reads all that they read."""
    found = distil_network(side_by_side(network_inputs(predictor.representation, train, predictor.state)),
                           predictor.predict(train), hidden, epochs, seed)  # fmt: skip
    plain = Calibration(base=0.0, slope=1.0)
    state = predictor.state | {"click": plain, "convert": plain, "value": 1.0}
    return swapped(predictor, [SmallHeads(found)], Voters(), state)


def side_by_side(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """All that voters read as one array, each position and device a column of its own: (B, D) float32."""
    place = np.asarray(inputs["place"]).astype(int)
    codes = [np.eye(n, dtype=np.float32)[np.minimum(place[:, k], n - 1)] for k, n in enumerate((50, 6))]
    return np.hstack([*(x for name, x in sorted(inputs.items()) if name != "place"), *codes]).astype(
        np.float32
    )


class SmallHeads:
    """A distilled network in the place of an `EffectNetwork`."""

    def __init__(self, weights: Mapping[str, np.ndarray]):
        self.weights = weights

    def predict_on_batch(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Log-odds of click and conversion, log of the value, and a spread of 0: (B, 4)."""
        found = serving.forward(self.weights, side_by_side(inputs))
        return np.column_stack([found, np.full(len(found), -50.0)])


# --- a student on plain columns -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Student:
    """A small network on plain columns, with all that it needs to read them.

    Attributes
    ----------
    columns : list of dict
        As `vaecm.serving.encode` reads them.
    weights : dict of arrays
        As `vaecm.serving.forward` runs on them.
    vectors : dict of arrays
        ``ids`` (C,) of pieces of content, and their vectors (C, L) by name of the column, float16.
    has : list of bool
        Whether the teacher knew clicks, conversions and sales.
    """

    columns: list[dict]
    weights: dict[str, np.ndarray]
    vectors: dict[str, np.ndarray]
    has: list[bool]

    def predict(self, market: Market) -> pd.DataFrame:
        """Effects of every impression of `market`, as `EffectPredictor.predict` names them."""
        found = self.effects(plain_rows(self.columns, market, self.vectors))
        index = pd.Index(market.impressions["impression_id"], name="impression_id")
        return pd.DataFrame(found, index=index)

    def effects(self, rows: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Effects of rows of plain columns by name, each (B,): see `vaecm.serving.encode`."""
        logits = serving.forward(self.weights, serving.encode(self.columns, rows))
        return serving.effects_of(logits.astype(float), self.has)

    def parts(self, rows: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """What each group of columns adds to the log-odds of a click, against the average row; each (B,).

        A part is what the prediction loses when its group alone is set to the average; ``average`` is the prediction of
        the average row, and ``together`` what the groups do only in common. All of them add up to the log-odds.
        """
        x = serving.encode(self.columns, rows)
        whole = serving.forward(self.weights, x)[:, 0].astype(float)
        mean = self.weights["mean"]
        base = float(serving.forward(self.weights, mean[None])[0, 0])
        found = {"average": np.full(len(x), base)}
        for name, at in self.groups().items():
            without = np.where(at, mean, x).astype(np.float32)
            found[name] = whole - serving.forward(self.weights, without)[:, 0]
        return found | {"together": whole - sum(found.values())}

    def groups(self) -> dict[str, np.ndarray]:
        """Which of the D numbers belong to each group of columns: (D,) bool by name."""
        owner = [next(group for group, names in GROUPS.items() if column["name"].startswith(names))
                 for column in self.columns for _ in range(serving.width(column))]  # fmt: skip
        return {group: np.array(owner) == group for group in GROUPS if group in owner}

    def export(self, folder: str | Path, format: str = "onnx", form: str = "float") -> None:
        """Write network, scalers, class codes and vectors: `vaecm.serving.load` needs neither TensorFlow nor Keras.

        `format` is "onnx" or "litert"; `form` "float", or "dynamic" for weights in 8 bits.
        """
        refuse(
            "export",
            [] if form in ("float", "dynamic") else [f"form must be 'float' or 'dynamic', got {form!r}"],
        )
        need(format)
        if format == "onnx":
            network = onnx_small(self.weights)
            network = onnx_int8(network) if form == "dynamic" else network
        else:
            network = litert([self.keras_model()], {"x": len(self.weights["wide"])}, form)
        write(
            folder,
            format,
            network,
            {"kind": "student", "columns": self.columns, "has": self.has},
            self.vectors,
        )

    def keras_model(self) -> keras.Model:
        """The network as a Keras model."""
        hidden = [len(x) for name, x in self.weights.items() if name.startswith("bias_")]
        model = small_model(len(self.weights["wide"]), hidden, np.array([0.5, 0.5, 0.0]))
        model.get_layer("wide").set_weights([self.weights["wide"], self.weights["bias"]])
        model.get_layer("deep").set_weights([self.weights["deep"]])
        for k in range(len(hidden)):
            model.get_layer(f"hidden_{k}").set_weights(
                [self.weights[f"kernel_{k}"], self.weights[f"bias_{k}"]]
            )
        return model


def distil(
    predictor: EffectPredictor, market: Market, vectors: bool = True, extra: int | None = None,
    hidden: Sequence[int] = (32, 16), epochs: int = 15, seed: int = 0,
) -> Student:  # fmt: skip
    """A student of the whole predictor, on plain columns.

    Parameters
    ----------
    predictor : EffectPredictor
        The teacher.
    market : Market
        Its impressions are asked about; outcomes are not read.
    vectors : bool
        Whether the student reads what the teacher says of each piece beforehand: what its encoders see in cover, title
        and sound, and the clicks it expects on average. That does not depend on the user or the moment.
    extra : int, optional
        Questions that the log does not hold: other pieces, at any position. As many as impressions by default.
    hidden, epochs, seed
        As in `distil_network`.

    Raises
    ------
    ValueError
        If an option is out of range.
    """
    extra = len(market.impressions) if extra is None else extra
    refuse("distil", whole_problems({"extra": extra}, 0))
    asked = [market, *([questions(market, extra, seed)] if extra else [])]
    told = content_vectors(predictor, market) if vectors else {}
    columns = plain_columns(predictor, market, told)
    x = np.vstack([serving.encode(columns, plain_rows(columns, part, told)) for part in asked])
    taught = pd.concat([predictor.predict(part) for part in asked])
    weights = distil_network(x, taught, hidden, epochs, seed)
    return Student(columns, weights, told, [bool(flag) for flag in predictor.state["has"]])


def questions(market: Market, n: int, seed: int = 0) -> Market:
    """What the log does not hold: some of its requests with a piece that was shown about then, at any position.

    A teacher answers any question, so that a student need not learn from what a platform chose to show alone.
    """
    log, rng = market.impressions, np.random.default_rng(seed)
    row = np.sort(rng.choice(len(log), n))
    other = np.clip(row + rng.integers(-500, 501, n), 0, len(log) - 1)
    rows = log.iloc[row].reset_index(drop=True)
    content = log["content_id"].to_numpy()[other]
    if "published_at" in market.contents:
        born = market.contents["published_at"].to_numpy()[market.content_rows][other]
        content = np.where(born > rows["time"].to_numpy(), rows["content_id"].to_numpy(), content)
    gone = ["clicked", "converted", "converted_at", "sales", "propensity", "policy"]
    rows = rows.drop(columns=[name for name in gone if name in rows])
    changed = content != rows["content_id"].to_numpy()
    rows = rows.assign(content_id=content, impression_id=np.arange(n))
    if "exposure" in rows:
        rows["exposure"] = np.where(changed, 1, rows["exposure"])
    if "position" in rows:
        rows["position"] = rng.permutation(rows["position"].to_numpy())
    return replace(market, impressions=rows, log=market.past, truth=None)


def content_vectors(predictor: EffectPredictor, market: Market) -> dict[str, np.ndarray]:
    """What can be said of each piece beforehand: ``ids`` (C,), then columns by name, standardised, in float16.

    Means of each encoder (C, L), and ``content.teacher`` (C, 1), what `expected_clicks` gives.
    """
    representation = predictor.representation
    inputs = representation.features.content_inputs(market, np.arange(len(market.contents)))
    found = {"ids": schema.canonical(market.contents["content_id"]).astype(str)}
    for name, expert in representation.content_vae.experts.items():
        if name in SKIPPED:
            continue
        parts = []
        for start in range(0, len(inputs[name]), 1_024):
            x = inputs[name][start : start + 1_024]
            there = np.asarray(ops.convert_to_numpy(expert.there(x)))[:, None]
            parts.append(np.where(there, ops.convert_to_numpy(expert.encode(x)[0]), np.nan))
        z = np.vstack(parts)
        mean, sd = np.nanmean(z, axis=0), np.maximum(np.nanstd(z, axis=0), 1e-6)
        found[f"content.{name}"] = np.clip((z - mean) / sd, -6, 6).astype(np.float16)
    z = expected_clicks(predictor, market)[:, None]
    found["content.teacher"] = np.clip((z - z.mean()) / max(z.std(), 1e-6), -6, 6).astype(np.float16)
    return found


def expected_clicks(predictor: EffectPredictor, market: Market, moments: int = 16) -> np.ndarray:
    """Mean log-odds of a click that the teacher expects of each piece, at position 1: (C,).

    Users are met where they were met last in `market`; pieces that came in later, at their first second. That is what a
    job of every night, and one at each upload, would write beside a piece's price.
    """
    log, contents = market.impressions, market.contents
    met = log.drop_duplicates("user_id", keep="last").tail(moments)
    rows = met.drop(columns=[name for name in NOT_ASKED if name in met])
    rows = rows.iloc[np.tile(np.arange(len(met)), len(contents))].reset_index(drop=True)
    rows = rows.assign(
        content_id=contents["content_id"].to_numpy().repeat(len(met)), impression_id=np.arange(len(rows))
    )
    rows = rows.assign(**{name: 1 for name in ("position", "exposure") if name in rows})
    if "published_at" in contents:
        born = contents["published_at"].to_numpy().repeat(len(met))
        rows["time"] = np.where(born > rows["time"].to_numpy(), born, rows["time"].to_numpy())
    asked = replace(market, impressions=rows, log=market.past, truth=None)
    inputs = network_inputs(predictor.representation, asked, predictor.state)
    ctr = effects(outputs(predictor.networks, predictor.voters, inputs), predictor.state)["ctr"]
    return np.log(ctr / (1 - ctr)).reshape(-1, len(met)).mean(axis=1)


def plain_columns(
    predictor: EffectPredictor, market: Market, vectors: Mapping[str, np.ndarray]
) -> list[dict]:
    """The columns that a student reads, with the scales and levels that `market` and the teacher's encoders tell."""
    columns = []
    for prefix, encoder in predictor.representation.features.encoders.items():
        columns += [{"name": f"{prefix}.{name}", "kind": "number", "heavy": bool(heavy), "mean": 0.0, "sd": 1.0,
                     "read": list(encoder.reads[name])} for name, heavy in encoder.numbers.items()]  # fmt: skip
        columns += [{"name": f"{prefix}.{name}", "kind": "age", "mean": 0.0, "sd": 1.0,
                     "read": list(encoder.reads[name])} for name in encoder.times]  # fmt: skip
        columns += [{"name": f"{prefix}.{name}", "kind": "class", "levels": list(levels)}
                    for name, levels in encoder.classes.items()]  # fmt: skip
    if last := predictor.state["positions"]:
        columns.append(
            {"name": "context.position", "kind": "class", "levels": [str(k + 1) for k in range(last)]}
        )
    columns.append({"name": "context.time", "kind": "clock"})
    columns += [
        {"name": name, "kind": "vector", "size": x.shape[1]} for name, x in vectors.items() if name != "ids"
    ]
    rows = plain_rows(columns, market, vectors)
    for column in columns:
        if column["kind"] in ("number", "age"):
            raw = serving.encode(
                [column], {name: rows[name] for name in {column["name"], "context.time"} if name in rows}
            )
            known = raw[raw[:, 1] > 0, 0].astype(float)
            sd = known.std() if len(known) else 0.0
            column["mean"], column["sd"] = (
                float(known.mean()) if len(known) else 0.0,
                float(sd if sd > 1e-6 else 1.0),
            )
    return columns


def plain_rows(
    columns: Sequence[Mapping], market: Market, vectors: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The columns of each impression of `market` by name, for `vaecm.serving.encode`; vectors from a table by content."""
    frames = {
        "user": (market.users, market.user_rows), "content": (market.content_table(), market.content_rows),
        "context": (market.impressions, np.arange(len(market.impressions))),
    }  # fmt: skip
    rows = {}
    for column in columns:
        prefix, _, name = column["name"].partition(".")
        frame, at = frames[prefix]
        if column["kind"] == "vector":
            ids = market.contents["content_id"]
            known = schema.rows_of(ids, vectors["ids"])
            table = np.vstack([vectors[column["name"]], np.full((1, column["size"]), np.nan)])
            rows[column["name"]] = table[np.append(known, -1)[at]]
        elif name in frame:
            rows[column["name"]] = _taken(frame[name], at, column)
    return rows


def _taken(values, at, column):
    """Values at some rows, missing at row -1, as plain NumPy."""
    if column["kind"] in ("number", "age", "clock"):
        found = np.append(read_cells(values, *column.get("read", ["time"])), np.nan)[at]
        return found if column["kind"] == "number" else (1_000 * found).astype("datetime64[ms]")
    return np.append(values.astype(object).where(values.notna(), None).to_numpy(object), None)[at]


# --- one file for a browser ---------------------------------------------------------------------------------------


def page(student: Student, market: Market, path: str | Path, covers: int = 6, titles: int = 5) -> None:
    """Write the student as one HTML file: it runs from a disk, without a server, and asks no host for anything.

    Parameters
    ----------
    student : Student
    market : Market
        Gives the covers and titles to choose from, and the range of each number.
    path : path
        Of the file; written in one step.
    covers, titles : int
        How many to choose from, from the least to the most clicked.

    Raises
    ------
    ValueError
        If an option is no whole number from 1 on.
    """
    refuse("page", whole_problems({"covers": covers, "titles": titles}))
    rows = plain_rows(student.columns, market, student.vectors)
    controls, values = [], {}
    for column in student.columns:
        found, value = CONTROLS[column["kind"]](
            student, market, column, rows, {"covers": covers, "titles": titles}
        )
        controls += found
        values[column["name"]] = value
    controls.sort(key=lambda control: (not control["first"], control["type"] != "covers"))
    numbers = sum(x.size for name, x in student.weights.items() if name != "mean")
    model = {
        "columns": student.columns, "has": student.has, "controls": controls, "values": values,
        "groups": {name: np.flatnonzero(at).tolist() for name, at in student.groups().items()},
        "weights": {name: _base64(np.float32(x).tobytes()) for name, x in student.weights.items()},
        "about": f"A small network of {numbers:,} numbers that has learned from a large predictor. It runs in this file; "
                 "nothing is sent anywhere.",
    }  # fmt: skip
    template = resources.files("vaecm").joinpath(TEMPLATE).read_text(encoding="utf-8")
    told = json.dumps(model, ensure_ascii=False).replace("</", "<\\/")
    with new_file(path) as draft:
        draft.write_text(template.replace("/*MODEL*/null", told, 1), encoding="utf-8")


def _base64(content):
    return base64.b64encode(content).decode("ascii")


def _label(name):
    prefix, _, rest = name.partition(".")
    return f"{prefix}: {rest}".replace("_", " ").replace("context: ", "").replace("content: ", "")


def _slider(student, market, column, rows, _):
    """A slider from the first to the 99th percentile, and the median."""
    name, age = column["name"], column["kind"] == "age"
    x = np.asarray(rows.get(name, [np.nan]))
    x = (serving.seconds(rows["context.time"]) - serving.seconds(x)) / serving.DAY if age else x.astype(float)
    x = x[np.isfinite(x)]
    if not len(x):
        return [], None
    low, middle, high = np.quantile(x, (0.01, 0.5, 0.99))
    if not low < high:
        return [], float(middle)
    step = float(10.0 ** np.floor(np.log10((high - low) / 50)))
    low, middle, high = (float(round(round(v / step) * step, 10)) for v in (low, middle, high))
    unit = "days" if age else "yuan" if name == "content.price" else ""
    label = {"content.published_at": "age of the content", "user.registered_at": "user: member for"}.get(
        name, _label(name)
    )
    return [{"type": "range", "name": name, "column": name, "label": label, "min": low, "max": high, "step": step,
             "value": middle, "unit": unit, "first": name == "content.price"}], middle  # fmt: skip


def _choice(student, market, column, rows, _):
    """A list of the levels, the most frequent one chosen."""
    if not column["levels"]:
        return [], None
    seen = pd.Series(
        schema.canonical(rows.get(column["name"], []), casefold=True), dtype=object
    ).value_counts()
    usual = next((level for level in seen.index if level in column["levels"]), column["levels"][0])
    usual = column["levels"][0] if column["name"] == "context.position" else usual
    options = [{"label": level, "value": level} for level in column["levels"]]
    first = column["name"] in ("context.position", "content.category")
    return [{"type": "select", "name": column["name"], "column": column["name"], "label": _label(column["name"]),
             "options": options, "value": column["levels"].index(usual), "first": first}], usual  # fmt: skip


def _clock_inputs(student, market, column, rows, _):
    """An hour, and a day of the week: the first of January 1970 was a Thursday."""
    days = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"]
    options = [{"label": name, "value": k} for k, name in enumerate(days)]
    day = {"type": "select", "name": "day", "column": column["name"], "part": "day", "label": "day of the week",
           "options": options, "value": 0, "first": False}  # fmt: skip
    hour = {"type": "range", "name": "hour", "column": column["name"], "part": "hour", "label": "hour of the day",
            "min": 0, "max": 23, "step": 1, "value": 20, "unit": "h", "first": False}  # fmt: skip
    return [hour, day], {"day": 0, "hour": 20}


def _vector_choice(student, market, column, rows, most):
    """Covers as pictures, titles as texts: of some pieces, from the least to the most clicked. No choice of others."""
    name, table = column["name"], student.vectors[column["name"]].astype(float)
    kind = name.partition(".")[2]
    at = schema.rows_of(market.contents["content_id"], student.vectors["ids"])
    there = (at >= 0) & np.isfinite(table[at]).all(axis=1)
    if kind == "cover":
        there &= market.covers is not None
    if kind not in ("cover", "title") or not there.any():
        return [], [0.0] * column["size"]
    x = np.tile(student.weights["mean"], (len(table), 1))
    x[:, student.groups()[kind]] = serving.encode([column], {name: table})
    rate = serving.forward(student.weights, x)[:, 0][at]
    order = np.flatnonzero(there)[np.argsort(rate[there], kind="stable")]
    number = most["covers" if kind == "cover" else "titles"]
    chosen = order[np.linspace(0, len(order) - 1, min(number, len(order))).round().astype(int)]
    middle = len(chosen) // 2
    control = {"name": name, "column": name, "label": kind, "value": middle, "first": True}
    vectors = table[at[chosen]].tolist()
    if kind == "cover":
        options = [{"label": f"cover {k + 1} of {len(chosen)}", "picture": _picture(market.covers[row]), "vector": vector}
                   for k, (row, vector) in enumerate(zip(chosen, vectors, strict=True))]  # fmt: skip
        return [control | {"type": "covers", "options": options}], vectors[middle]
    texts = market.contents["title"].iloc[chosen]
    options = [{"label": text, "value": vector} for text, vector in zip(texts, vectors, strict=True)]
    return [control | {"type": "select", "options": options}], vectors[middle]


def _picture(cover):
    stream = io.BytesIO()
    Image.fromarray(cover).save(stream, format="PNG")
    return "data:image/png;base64," + _base64(stream.getvalue())


CONTROLS = {
    "number": _slider,
    "age": _slider,
    "class": _choice,
    "clock": _clock_inputs,
    "vector": _vector_choice,
}
