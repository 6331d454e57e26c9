"""Writes networks for runtimes that need neither TensorFlow nor Keras: ONNX node by node, LiteRT by its converter.

`vaecm.serving.load` reads what is written here.

Shapes: ``B`` rows, ``K`` networks, ``D`` columns.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from vaecm.io import new_folder
from vaecm.options import refuse
from vaecm.serving import ARRAYS, SETTINGS, SUFFIXES

OPSET = 17
LITERT_FORMS = ("float", "dynamic", "int8")


class Graph:
    """Nodes of an ONNX graph, written one after another; an array becomes a constant.

    Examples
    --------
    >>> graph = Graph()
    >>> graph("Add", "x", np.ones(2, np.float32))
    't2'
    """

    def __init__(self):
        self.nodes, self.constants, self.count = [], [], 0

    def __call__(self, operation: str, *inputs: str | np.ndarray, **attributes: Any) -> str:
        """Add a node; gives the name of its output."""
        from onnx import helper

        names = [part if isinstance(part, str) else self.constant(part) for part in inputs]
        output = self._name("t")
        self.nodes.append(helper.make_node(operation, names, [output], **attributes))
        return output

    def constant(self, array: np.ndarray) -> str:
        """Add an array; gives its name."""
        from onnx import numpy_helper

        name = self._name("c")
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def _name(self, letter):
        self.count += 1
        return f"{letter}{self.count}"

    def dense(self, x: str, kernel: np.ndarray, bias: np.ndarray | None = None, silu: bool = False) -> str:
        """A dense layer, with silu where asked."""
        x = self("MatMul", x, kernel)
        x = x if bias is None else self("Add", x, bias)
        return self("Mul", x, self("Sigmoid", x)) if silu else x

    def bytes(self, output: str, inputs: Mapping[str, int]) -> bytes:
        """The file, with inputs (B, n) by name and one output."""
        from onnx import TensorProto, checker, helper

        def told(name, size):
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", size])

        graph = helper.make_graph(
            [*self.nodes, helper.make_node("Identity", [output], ["effects"])], "vaecm",
            [told(name, size) for name, size in inputs.items()], [told("effects", None)], self.constants,
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        checker.check_model(model)
        return model.SerializeToString()


def onnx_small(weights: Mapping[str, np.ndarray]) -> bytes:
    """The network of `serving.forward` as ONNX: ``x`` (B, D) to (B, 3)."""
    graph, h = Graph(), "x"
    out = graph.dense("x", weights["wide"], weights["bias"])
    for k in range(sum(name.startswith("kernel_") for name in weights)):
        h = graph.dense(h, weights[f"kernel_{k}"], weights[f"bias_{k}"], silu=True)
    return graph.bytes(graph("Add", out, graph.dense(h, weights["deep"])), {"x": len(weights["wide"])})


def onnx_networks(networks: Sequence[Any], sizes: Mapping[str, int]) -> bytes:
    """Effect networks as one ONNX graph: the arrays of ``network_inputs`` by name to (B, 4K)."""
    graph = Graph()
    heads = [_heads(graph, network) for network in networks]
    used = {name: size for name, size in sizes.items() if name != "summary"}
    return graph.bytes(graph("Concat", *heads, axis=1), used)


def _heads(graph, network):
    """The nodes of `EffectNetwork.call`: (B, 4)."""
    product = graph("Mul", *(graph.dense(name, np.asarray(layer.kernel)) for name, layer in
                             zip(("content", "user"), network.project, strict=True)))  # fmt: skip
    table = ["table"]
    if network.knots.size:
        numbers = graph("Gather", "table", np.array(network.options["numbers"]), axis=1)
        over = graph("Relu", graph("Sub", graph("Unsqueeze", numbers, np.array([2])), network.knots))
        table.append(graph("Reshape", over, np.array([-1, network.knots.size])))
    x = graph("Concat", *table, "match", axis=1)
    start = np.asarray(network.wide.bias) + np.asarray(network.start)
    out = graph.dense(x, np.asarray(network.wide.kernel), start)
    if network.deep:
        h = graph("Concat", x, product, axis=1)
        for layer in network.deep:
            h = graph.dense(h, np.asarray(layer.kernel), np.asarray(layer.bias), silu=True)
        out = graph("Add", out, graph.dense(h, np.asarray(network.heads.kernel)))
    first, rest = (
        graph("Slice", out, np.array([a]), np.array([b]), np.array([1])) for a, b in ((0, 1), (1, 3))
    )
    click = graph("Add", first, graph("ReduceSum", product, np.array([1]), keepdims=1))
    if network.options["exam"]:
        click = _examined(graph, network, click)
    spread = graph("Add", graph("Mul", click, np.float32([0])), np.asarray(network.log_s).reshape(1))
    return graph("Concat", click, rest, spread, axis=1)


def _examined(graph, network, click):
    """The nodes of `EffectNetwork.examined`, and of `losses.product_logit`: log-odds of a look and interest, (B, 1)."""
    place = graph("Cast", "place", to=7)  # int64
    position, device = (
        graph("Slice", place, np.array([k]), np.array([k + 1]), np.array([1])) for k in (0, 1)
    )
    at = graph("Add", graph("Mul", position, np.array([network.options["exam"][1]])), device)
    look = graph("Gather", 10 * np.asarray(network.exam).reshape(-1), at)
    a, b = graph("Neg", look), graph("Neg", click)
    both = graph("Neg", _logaddexp(graph, _logaddexp(graph, a, b), graph("Add", a, b)))
    return graph("Where", graph("Equal", position, np.array([0])), click, both)


def _logaddexp(graph, a, b):
    return graph("Add", b, graph("Softplus", graph("Sub", a, b)))


def litert(
    models: Sequence[Any], sizes: Mapping[str, int], form: str = "float", sample: Mapping | None = None
) -> bytes:
    """Keras models of the same named inputs (B, n) as one LiteRT file, their outputs side by side.

    Parameters
    ----------
    models : list of keras.Model
    sizes : dict of int
        Columns of each input.
    form : "float", "dynamic" or "int8"
        Weights as they are; weights in 8 bits; weights and what runs between the layers in 8 bits.
    sample : dict of arrays, optional
        Rows that "int8" learns its ranges from.

    Raises
    ------
    ValueError
        For another form, or "int8" without a sample.
    """
    wrong = [] if form in LITERT_FORMS else [f"form must be one of {', '.join(LITERT_FORMS)}, got {form!r}"]
    wrong += ["int8 needs a sample"] if form == "int8" and sample is None else []
    refuse("litert", wrong)
    import tensorflow as tf

    told = {name: tf.TensorSpec((None, size), tf.float32, name) for name, size in sizes.items()}
    archive = tf.Module()
    archive.kept = [weight.value for model in models for weight in model.weights]
    archive.serve = tf.function(
        lambda **inputs: {"effects": tf.concat([model(inputs, training=False) for model in models], axis=1)},
        autograph=False,
    )
    made = archive.serve.get_concrete_function(**told)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # of an interpreter that TensorFlow will give up, and its converter still uses
        tf.saved_model.save(archive, folder, signatures={"serving_default": made})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if form != "float":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if form == "int8":
            rows = range(min(200, len(next(iter(sample.values())))))
            converter.representative_dataset = lambda: (
                {name: np.asarray(sample[name][i : i + 1], np.float32) for name in sizes} for i in rows
            )
        with silent():
            return converter.convert()


@contextmanager
def silent() -> Iterator[None]:
    """Nothing that compiled code writes to stderr is shown: converters tell of their steps there."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def flat_trees(booster: Any) -> dict[str, np.ndarray]:
    """The trees of a LightGBM booster as arrays over all nodes: what `serving.grow` goes down.

    A threshold is rounded down to float32: for columns of that type it parts the same rows.
    """
    nodes, roots = [], []
    for tree in booster.dump_model()["tree_info"]:
        roots.append(len(nodes))
        nodes += _nodes(tree["tree_structure"], len(nodes))
    names = ("feature", "threshold", "left", "right", "value")
    found = {name: np.array([node[k] for node in nodes]) for k, name in enumerate(names)}
    rounded = found["threshold"].astype(np.float32)
    above = rounded > found["threshold"]
    rounded[above] = np.nextafter(rounded[above], np.float32(-np.inf))
    whole = {name: found[name].astype(np.int32) for name in ("feature", "left", "right")}
    return {"root": np.array(roots, np.int32), "threshold": rounded, "value": found["value"], **whole}


def _nodes(top, start):
    """(feature, threshold, left, right, value) of a tree's nodes, the first of them number `start`."""
    found, left = [], [top]
    while left:  # breadth first: children come after all that is known by then
        at, node = start + len(found), left.pop(0)
        if "leaf_value" in node:
            found.append((0, np.inf, at, at, node["leaf_value"]))
        else:
            below = at + len(left) + 1
            found.append((node["split_feature"], node["threshold"], below, below + 1, 0.0))
            left += [node["left_child"], node["right_child"]]
    return found


def export_predictor(
    folder: str | Path, format: str, networks: Sequence[Any], voters: Any, state: Mapping, sizes: Mapping[str, int]
) -> None:  # fmt: skip
    """Write effect networks, their voters and their calibration; see `EffectPredictor.export`.

    Raises
    ------
    ValueError
        For another format, or where its package is not installed.
    """
    need(format)
    if format == "onnx":
        network = onnx_networks(networks, sizes)
    else:
        network = litert(networks, {name: size for name, size in sizes.items() if name != "summary"})
    arrays = voters.arrays()
    for head, booster in voters.trees.items():
        arrays |= {f"trees/{head}/{name}": array for name, array in flat_trees(booster).items()}
    settings = {"kind": "predictor", "has": state["has"], "value": state["value"]}
    settings |= {name: {k: float(v) for k, v in asdict(state[name]).items()} for name in ("click", "convert")}
    write(folder, format, network, settings, arrays)


def need(format: str) -> None:
    """Refuse a format that is not known, or whose package is not installed."""
    packages = {"onnx": "onnx", "litert": "tensorflow"}
    if format not in packages:
        refuse("export", [f"format must be one of {', '.join(packages)}, got {format!r}"])
    if find_spec(packages[format]) is None:
        refuse("export", [f"{format} needs the extra: pip install 'vaecm[compress]'"])


def write(folder: str | Path, format: str, network: bytes, settings: Mapping, arrays: Mapping) -> None:
    """Put network, settings and arrays into a folder, in one step."""
    with new_folder(folder, {"kind": "export"}) as path:
        (path / f"network{SUFFIXES[format]}").write_bytes(network)
        (path / SETTINGS).write_text(json.dumps(settings), encoding="utf-8")
        np.savez_compressed(path / ARRAYS, **arrays)
