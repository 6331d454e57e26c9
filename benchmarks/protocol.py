"""The protocol that decides what is in the default model: rivals, representations by heads, parts left out.

``python -m benchmarks.protocol --stage all --seeds 31 32 33 34 35 --n 200000``

Each row is stored as soon as it is there, so an interrupted run goes on where it stopped. The settings of each head were
found by the same number of Optuna trials on the validation part of one other market (``--stage tune``), never by the
truth and never on a test part. Every fitted model is scored on all impressions of the test part, on those of contents
that training did not show, and on a copy with 40 % of the modalities gone.
"""

import argparse
import os
import time
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pandas as pd

import vaecm
from benchmarks.gaps import hide
from benchmarks.heads import FIRST, SPACES, log_loss, make_head
from benchmarks.pictures import shop
from benchmarks.representations import PARTS, Representations
from benchmarks.store import Store
from benchmarks.tables import HEADS, KINDS, RIVALS, show
from vaecm.baselines import GlobalRate, TableInputs, outcome
from vaecm.metrics import score
from vaecm.predictor import calibrate, met, network_inputs, targets
from vaecm.splits import few_labels, split_by_time

VOTERS = ("without trees", "without regression", "networks alone")
WORLDS = ("few", "kuairand", "pictures")  # stages with a market of their own: rivals and parts on it
STAGES = ("rivals", "heads", "parts", *WORLDS)
ALIASES = {"cold": ("rivals", "parts"), "gaps": ("rivals", "parts"), "all": STAGES}
NETWORK = "effect network"
SHARE_OF_LABELS, SHARE_GONE, DRAWS = 0.05, 0.4, 3
BOOSTED = {"trees": True, "linear": True}  # as in the whole model
METRICS = (
    "ctr_log_loss", "ctr_auc", "ctr_ece", "ctr_truth_mae", "ctcvr_log_loss", "ctcvr_auc", "ctcvr_ece", "sales_gini",
    "sales_decile_error", "oracle_ctr_log_loss", "oracle_ctr_auc", "oracle_ctcvr_log_loss", "oracle_ctcvr_auc",
    "oracle_sales_gini",
)  # fmt: skip


class Workbench:
    """One market cut in three, with the tables and representations that its models share; made when first asked for.

    Parameters
    ----------
    train, validation, test : Market
    seed : int
        Of every model.
    """

    def __init__(self, train, validation, test, seed):
        self.train, self.validation, self.seed = train, validation, seed
        self.views = {"test": test, "gaps": hide(test, SHARE_GONE, seed)}
        self.new = ~test.impressions["content_id"].isin(train.impressions["content_id"]).to_numpy()
        self.representations = Representations(
            train,
            validation,
            lambda: self.inputs[False].features,
            seed,
            lambda: self.predictor.representation,
        )
        self._tables, self._columns, self.seconds = {}, {}, {}

    @cached_property
    def predictor(self):
        """The whole model, fitted once for its row, for what takes parts of it away, and for the grid."""
        predictor = vaecm.EffectPredictor(vaecm.ModelConfig(), self.seed)
        with self.timed("predictor"):
            return predictor.fit(self.train, validation=self.validation, verbose=False)

    @cached_property
    def inputs(self):
        """The analyst's inputs without (False) and with (True) statistics of covers, sound and titles."""
        with self.timed("inputs"):
            plain = TableInputs.learn(self.train, self.validation, statistics=False, seed=self.seed)
            return {
                False: plain,
                True: TableInputs.learn(self.train, features=plain.features, seed=self.seed),
            }

    @contextmanager
    def timed(self, *names):
        """Note the seconds that something takes, under `names`: it is shared, and counts for each model that uses it."""
        start = time.perf_counter()
        yield
        self.seconds[names] = time.perf_counter() - start

    def taken(self, *kinds, markets):
        """Seconds that the shared tables of `kinds` took for some markets."""
        return sum(self.seconds.get((kind, market), 0.0) for kind in kinds for market in markets)

    def markets(self):
        """The four markets that are read, by name."""
        return {"train": self.train, "validation": self.validation, **self.views}

    def tables(self, kind):
        """Tables (B, D) of the four markets: as-of features, with the columns that `kind` adds."""
        base = "statistics" if kind == "statistics" else "as-of"
        if base not in self._tables:
            self._tables[base] = self._made(base, self.inputs[base == "statistics"].table)
        base = self._tables[base]
        if kind in ("as-of", "statistics"):
            return base
        if kind not in self._columns:
            with self.timed("learn", kind):
                self.representations.get(kind)
            self._columns = {kind: self._made(kind, lambda m: self.representations.columns(kind, m))}
        more = self._columns[kind]
        return {k: pd.concat([base[k], more[k]], axis=1) for k in base}

    def _made(self, kind, make):
        found = {}
        for name, market in self.markets().items():
            with self.timed(kind, name):
                found[name] = make(market)
        return found

    def scores(self, predict, before=0.0):
        """Metrics by part of a model that predicts a view: all impressions, new contents, modalities gone.

        `before` are the seconds that its tables of the test part took.
        """
        test, start = self.views["test"], time.perf_counter()
        effects = predict("test")
        found = {"all": {"predict_seconds": time.perf_counter() - start + before}}
        found["all"] |= metrics(test, effects)
        if self.new.any():
            found["cold"] = metrics(test, effects, self.new)
        found["gaps"] = metrics(self.views["gaps"], predict("gaps"))
        return found


def simulated(seed, args, share=None):
    """The workbench of a simulated market, or of one with a share of its labels."""
    config = vaecm.MarketConfig(n_users=args.users, n_contents=args.contents, n_impressions=args.n, seed=seed)
    market = vaecm.simulate_market(config)
    train, validation, test = split_by_time(market, (0.7, 0.1, 0.2))
    if share is not None:
        # what is not labelled is not known of the past either, nor on the days of the test part
        log = few_labels(market, share, seed).impressions
        train, validation = (
            replace(part, log=log).select(
                part.impressions["impression_id"].isin(log["impression_id"]).to_numpy()
            )
            for part in (train, validation)
        )
        test = replace(test, log=log)
    return Workbench(train, validation, test, seed)


def metrics(market, effects, rows=None):
    """Values of `METRICS` that can be had."""
    table = score(market, effects, n_resamples=1, rows=rows).set_index("metric")["value"]
    return {name: table[name] for name in METRICS if name in table}


def head_row(bench, head, kind, settings):
    """Fit a head on the tables of a kind and score it."""
    tables, start = bench.tables(kind), time.perf_counter()
    model = make_head(head, settings, bench.seed, bench)
    model.fit(bench.train, bench.validation, (tables["train"], tables["validation"]))
    took = time.perf_counter() - start
    kinds = dict.fromkeys(("statistics" if kind == "statistics" else "as-of", kind))
    parts = bench.scores(
        lambda view: model.predict(bench.views[view], tables[view]), bench.taken(*kinds, markets=["test"])
    )
    shared = bench.seconds[("inputs",)] + bench.seconds.get(("learn", kind), 0.0)
    parts["all"]["fit_seconds"] = took + shared + bench.taken(*kinds, markets=["train", "validation"])
    return parts


def model_row(bench, model=None):
    """Score the whole model or one made of its parts, with the coverage of its intervals where the truth is known."""
    model = model or bench.predictor
    parts = bench.scores(lambda view: model.predict(bench.views[view]))
    test = bench.views["test"]
    if model is bench.predictor:
        parts["all"]["fit_seconds"] = bench.seconds[("predictor",)]
    if test.truth is not None:
        found = model.predict(test, draws=DRAWS)
        truth = test.truth["p_click"].reindex(found.index).to_numpy()
        inside = ((found["ctr_low"] <= truth) & (truth <= found["ctr_high"])).to_numpy()
        parts["all"]["coverage"] = inside.mean()
        if bench.new.any():
            parts["cold"]["coverage"] = inside[bench.new].mean()
    return parts


def alone(bench, name):
    """The fitted whole model with some of its voters taken away, calibrated anew."""
    model, voters = copy(bench.predictor), replace(bench.predictor.voters)
    if name in ("without trees", "networks alone"):
        voters.trees = {}
    if name in ("without regression", "networks alone"):
        voters.linear = {}
    model.voters, model.state = voters, dict(model.state)
    valid = bench.validation
    inputs = network_inputs(model.representation, valid, model.state)
    calibrate(model.state, model.networks, model.voters, (inputs, targets(valid, model.state)), met(valid))
    return model


def rate_row(bench):
    """The mean rates."""
    model = GlobalRate().fit(bench.train)
    return bench.scores(lambda view: model.predict(bench.views[view]))


def rows_of_stage(stage, bench, tuned):
    """The rows of a stage: name, and the function that makes it."""
    if stage in ("rivals", *WORLDS):
        yield "global rate", lambda: rate_row(bench)
        for head in (*RIVALS[:2], "vaecm", *RIVALS[2:]):
            if head == "vaecm":
                yield head, lambda: model_row(bench)
            else:
                yield (
                    head,
                    lambda head=head: head_row(bench, head, "statistics", tuned(f"{head}, statistics")),
                )
    if stage in ("heads", "kuairand"):
        for kind in KINDS:
            for head in HEADS:
                name = f"{kind}, {head}"
                yield name, lambda kind=kind, head=head: head_row(bench, head, kind, tuned(f"{head}, {kind}"))
    if stage in ("parts", *WORLDS):
        yield "whole", lambda: model_row(bench)
        for name in VOTERS:
            yield name, lambda name=name: model_row(bench, alone(bench, name))
        yield "without deep part", lambda: head_row(bench, NETWORK, "VAE", BOOSTED | {"hidden": ""})
        yield "wide part alone", lambda: head_row(bench, NETWORK, "VAE", {"hidden": ""})
        for part in PARTS:
            name = f"without {part}"
            if stage != "kuairand" or part not in ("picture CNN", "text CNN"):  # it has neither
                yield name, lambda name=name: head_row(bench, NETWORK, name, BOOSTED)


def run(stage, seed, args, store, bench):
    """Make and store the rows of a stage and seed that are not there yet; `bench` gives the workbench."""

    def tuned(name):
        return store.tuned(name) or store.tuned(f"{name.split(',')[0]}, as-of")

    for name, make in rows_of_stage(stage, None, tuned):
        if (args.models and name not in args.models) or store.has(stage=stage, seed=seed, model=name):
            continue
        make = dict(rows_of_stage(stage, bench(), tuned))[name]
        forget_peak()
        start = time.perf_counter()
        parts = make()
        seconds = time.perf_counter() - start
        parts["all"]["peak_gib"] = peak_gib()
        found = name in RIVALS and tuned(f"{name}, statistics") is not None
        store.add(stage=stage, seed=seed, model=name, tuned=found, seconds=round(seconds, 1), parts=parts)
        print(f"{stage} {seed} {name}: {parts['all']['ctr_log_loss']:.5f}, {seconds:.0f} s", flush=True)


def forget_peak():
    """Let the peak of this process's memory begin anew, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def peak_gib():
    """Peak memory of this process since `forget_peak`, with what is shared by all rows; None where it is not told."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return round(int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 2**20, 2)
    except (OSError, StopIteration):
        return None


def tune(args, store):
    """Find the settings of each head on each kind of table: the same trials, on validation, on one other market."""
    pairs = [(head, "statistics") for head in RIVALS] + [(head, kind) for kind in KINDS for head in HEADS]
    bench = None
    for head, kind in dict.fromkeys(pairs):
        name = f"{head}, {kind}"
        if (args.models and name not in args.models) or store.tuned(name) is not None:
            continue
        bench = bench or simulated(args.development_seed, args)
        start = time.perf_counter()
        study = search(bench, head, bench.tables(kind), args.trials)
        store.add_tuned(name, settings=study.best_params, loss=study.best_value, trials=args.trials)
        print(f"tuned {name}: {study.best_value:.5f}, {time.perf_counter() - start:.0f} s", flush=True)


def search(bench, head, tables, trials):
    """Optuna's study of a head: log-loss of clicks on the validation part; half of the trials are drawn at random."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    clicked = outcome(bench.validation, "clicked")

    def loss(trial):
        model = make_head(head, SPACES[head](trial), bench.seed, bench, calibrated=False)
        model.fit(bench.train, bench.validation, (tables["train"], tables["validation"]))
        return log_loss(clicked, model.predict(bench.validation, tables["validation"])["ctr"].to_numpy())

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=trials // 2))
    study.enqueue_trial(FIRST[head])
    study.optimize(loss, n_trials=trials)
    return study


def workbench(stage, seed, args):
    """The workbench of a stage; rivals, heads and parts of a seed share one."""
    if stage == "kuairand":
        from vaecm.datasets import load_kuairand

        train, validation, test = split_by_time(load_kuairand(), (0.7, 0.1, 0.2))
        return Workbench(train, validation, test, seed)
    if stage == "pictures":
        return Workbench(*split_by_time(shop(seed), (0.7, 0.1, 0.2)), seed)
    return simulated(seed, args, SHARE_OF_LABELS if stage == "few" else None)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stage", nargs="+", default=["all"], choices=["tune", "show", *STAGES, *ALIASES])
    parser.add_argument("--seeds", type=int, nargs="+", default=[31, 32, 33, 34, 35])
    parser.add_argument("--n", type=int, default=200_000, help="impressions")
    parser.add_argument("--users", type=int, default=4_000)
    parser.add_argument("--contents", type=int, default=3_000)
    parser.add_argument("--trials", type=int, default=8, help="of Optuna, for each head and table")
    parser.add_argument("--development-seed", type=int, default=11)
    parser.add_argument("--models", nargs="+", help="names of rows, all where not given")
    parser.add_argument("--name", default="protocol", help="of the result file")
    args = parser.parse_args(arguments)
    size = {"impressions": args.n, "users": args.users, "contents": args.contents}
    measured = set(args.stage) - {"show"}
    store = Store(
        args.name, {"log": "KuaiRand-Pure"} if measured == {"kuairand"} else size if measured else None
    )
    stages = list(dict.fromkeys(s for stage in args.stage for s in ALIASES.get(stage, (stage,))))
    if "tune" in stages:
        tune(args, store)
    for seed in args.seeds if set(stages) & set(STAGES) else ():
        kept = {}
        for stage in [stage for stage in STAGES if stage in stages]:
            world = stage if stage in WORLDS else "whole"

            def bench(stage=stage, world=world, seed=seed, kept=kept):
                if world not in kept:
                    kept.clear()  # one at a time
                    kept[world] = workbench(stage, seed, args)
                return kept[world]

            run(stage, seed, args, store, bench)
    show(store.read()["rows"])


if __name__ == "__main__":
    main()
