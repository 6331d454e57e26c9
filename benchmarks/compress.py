"""What smaller models lose: bytes, time of a request, log-loss, calibration, and the regret of decisions.

``python -m benchmarks.compress --seeds 41 42 43``

Each seed is another market, split in time as in the protocol. The whole predictor is fitted on it, made smaller in
several ways, and each way is asked for the test part, for a feed and for a promotion, which the oracle grades:

================  ====================================================================================================
``kib``           all files that predict: those of the folder, or of the export
``network_kib``   the effect networks, or the student's network, alone; ``packed_kib`` after gzip
``request_ms``    one request with 100 candidates, features included; ``forward_ms`` without them
``feed``          regret in yuan per request of six places: the oracle's order minus this one
``promotion``     regret in yuan per 1,000 impressions offered
================  ====================================================================================================
"""

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import vaecm
from benchmarks.store import Store, long, over_seeds, paired
from vaecm import compress, serving
from vaecm.book import small
from vaecm.book.small import milliseconds
from vaecm.effects import Voters
from vaecm.export import onnx_small
from vaecm.predictor import network_inputs, targets

WHOLE, LAST = "whole predictor", "student, with vectors of contents"


class Bench:
    """A market, the predictor that was fitted on it, and the questions that are put to every model."""

    def __init__(self, seed, args):
        config = vaecm.MarketConfig(
            n_users=args.users, n_contents=args.contents, n_impressions=args.n, seed=seed
        )
        self.seed, market = seed, vaecm.simulate_market(config)
        self.train, valid, test = vaecm.split_by_time(market, (0.7, 0.1, 0.2))
        self.predictor = vaecm.EffectPredictor(vaecm.ModelConfig(), seed)
        self.predictor.fit(self.train, validation=valid, verbose=False)
        self.sizes = self.predictor.representation.sizes()
        self.asked = small.ask(test, seed=seed)
        self.inputs = small.read(self.predictor, self.asked)
        self.fitted = self.read(self.train), targets(self.train, self.predictor.state)

    def read(self, market):
        """What the networks read of a market."""
        return network_inputs(self.predictor.representation, market, self.predictor.state)

    def graded(self, predictor):
        """Quality of a predictor with other networks, and the time of its forward pass."""

        def predict(name):
            return small.answers(predictor, self.inputs[name], getattr(self.asked, name))

        return small.graded(self.asked, predict, self.seed) | {
            "forward_ms": milliseconds(lambda: predict("request"))
        }


def network_ways(bench):
    """The effect networks made smaller: name to networks and their files."""
    networks, sizes, sample = bench.predictor.networks, bench.sizes, bench.fitted[0]
    yield WHOLE, networks
    yield "ONNX", [compress.onnx_network(n, sizes) for n in networks]
    yield "ONNX, int8", [compress.onnx_network(n, sizes, int8=True) for n in networks]
    for form in ("float", "dynamic", "int8"):
        name = "LiteRT" if form == "float" else f"LiteRT, {form}"
        yield name, [compress.litert_network(n, sizes, form, sample) for n in networks]
    yield "Keras, int8", [compress.keras_int8(n, sizes) for n in networks]
    prune = {"final": 0.8, "begin": 0, "end": 200}
    yield (
        "80 % pruned",
        [
            compress.tune(
                compress.twin(n, sizes), bench.fitted, callbacks=[compress.MagnitudePruning(**prune)]
            )
            for n in networks
        ],
    )
    units = [max(1, n // 4) for n in networks[0].options["hidden"]]
    yield (
        "a quarter of the units",
        [compress.tune(compress.narrow(n, sizes, units), bench.fitted) for n in networks],
    )


def compressed(bench, store):
    """Add the rows of the whole predictor, of its smaller networks, and of deciding without a model."""
    sizes = small.file_sizes(bench.predictor.save) / 1024
    rest = sizes[~sizes.index.str.startswith("effects_")].sum()
    before = milliseconds(lambda: bench.read(bench.asked.request), 5)
    for name, networks in network_ways(bench):
        found = bench.graded(compress.swapped(bench.predictor, networks))
        found |= told(small.network_files(networks), rest, before + found["forward_ms"])
        add(store, bench, name, found)
    for name, regret in small.regret_of_rules(bench.asked, bench.seed).iterrows():
        add(store, bench, name, dict(regret))
    alone = compress.swapped(bench.predictor, bench.predictor.networks, Voters())
    add(store, bench, "networks without other voters", bench.graded(alone))
    made = compress.one_network(bench.predictor, bench.train, seed=bench.seed)
    found = bench.graded(made)
    network = onnx_small(made.networks[0].weights)
    rest -= sizes.get("trees.txt", 0.0)
    add(
        store,
        bench,
        "one network for all voters",
        found | told([network], rest, before + found["forward_ms"]),
    )


def told(files, rest, request_ms):
    """Sizes and the time of a request."""
    size = sum(map(len, files)) / 1024
    packed = sum(map(compress.packed, files)) / 1024
    return {"kib": rest + size, "network_kib": size, "packed_kib": packed, "request_ms": request_ms}


def students(bench, store):
    """Add the rows of the students, as they are served: in ONNX Runtime, from an exported folder."""
    for name, vectors in (("student, plain columns", False), (LAST, True)):
        student = compress.distil(bench.predictor, bench.train, vectors=vectors, seed=bench.seed)
        found = small.graded(bench.asked, lambda q, s=student: s.predict(getattr(bench.asked, q)), bench.seed)
        rows = compress.plain_rows(student.columns, bench.asked.request, student.vectors)
        rows |= {column: x[0] for column, x in rows.items() if column.startswith("user.")}
        with tempfile.TemporaryDirectory() as folder:
            student.export(Path(folder) / "model")
            files = {path.name: path.read_bytes() for path in (Path(folder) / "model").iterdir()}
            served = serving.load(Path(folder) / "model")
        network = files.pop("network.onnx")
        request_ms = milliseconds(lambda: served.predict(rows))  # noqa: B023
        x = serving.encode(student.columns, rows)
        found["forward_ms"] = milliseconds(lambda: served.run({"x": x}))  # noqa: B023
        add(store, bench, name, found | told([network], sum(map(len, files.values())) / 1024, request_ms))


def add(store, bench, name, found):
    """Store a row and print it."""
    store.add(stage="compress", seed=bench.seed, model=name, seconds=None, parts={"all": found})
    print(f"{bench.seed} {name}: " + ", ".join(f"{k} {v:.4g}" for k, v in found.items()), flush=True)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="*", default=[41, 42, 43])
    parser.add_argument("--n", type=int, default=60_000, help="impressions")
    parser.add_argument("--users", type=int, default=1_500)
    parser.add_argument("--contents", type=int, default=1_200)
    parser.add_argument("--name", default="compress", help="of the result file")
    args = parser.parse_args(arguments)
    store = Store(args.name, {"impressions": args.n, "users": args.users, "contents": args.contents})
    for seed in args.seeds:
        if not store.has(stage="compress", seed=seed, model=LAST):
            bench = Bench(seed, args)
            compressed(bench, store)
            students(bench, store)
    if rows := store.read()["rows"]:
        table = long(rows)
        print(over_seeds(table).round(4).to_string(index=False))
        print(f"\nminus the {WHOLE}")
        print(over_seeds(paired(table, WHOLE)).round(4).to_string(index=False))


if __name__ == "__main__":
    main()
