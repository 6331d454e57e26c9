r"""Past one process: a market in parts, predicted and trained on part by part, by one worker or by many.

A market is divided **by users**: what a user did is in one part, so that states and the user's own counts need no
other part. What content brings is counted over all users; `predict` carries that along as the few columns of the facts
that came after training. `fit` holds a sample of users where it has to hold something, and reads the rest row by row.
Workers are processes of Ray, see `vaecm.parallel`; ``workers=0`` does all of it in this process.

What it costs: `Machine`, `cost`, `checkpoint_interval`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import keras
import numpy as np
import pandas as pd
import pyarrow.dataset as pads

from vaecm.effects import LOOKS, adamw, train_voters
from vaecm.history import CONTEXT, seconds
from vaecm.io import MANIFEST, about, new_file, new_folder
from vaecm.latents import Representation
from vaecm.market import Market, MarketError, Problem
from vaecm.options import is_number, is_whole, refuse, whole_problems
from vaecm.parallel import Rows, Task, agree, arrays_of, checkpoints, cluster, save_arrays, train
from vaecm.predictor import (
    EFFECTS,
    EffectPredictor,
    ModelConfig,
    calibrate,
    learn_state,
    make_network,
    met,
    network_inputs,
    targets,
)
from vaecm.schema import canonical, rows_of
from vaecm.splits import split_by_time
from vaecm.training import SCHEDULES, adam, warm_kl

BY_USER = ("users", "impressions", "events")
FACTS = ("impression_id", "request_id", "user_id", "content_id", "time", *CONTEXT, "clicked", "converted",
         "converted_at", "action", "category", "brand", "product_id", "author_id", "format", "dwell_seconds")  # fmt: skip


# --- a market in parts ----------------------------------------------------------------------------------------


def part_of(ids: Any, parts: int) -> np.ndarray:
    """Part of each user, from the id alone: (n,) int64 from 0.

    Examples
    --------
    >>> part_of(["a", "b", 7, "7"], 4).tolist()
    [3, 1, 2, 2]
    """
    codes, distinct = pd.factorize(canonical(ids))
    return np.array([crc32(str(name).encode()) % parts for name in distinct])[codes]


def write_parts(markets: Market | Iterable[Market], folder: str | Path, parts: int = 8) -> None:
    """Write a market as Parquet files by part of its users, and a catalogue of its content that all parts share.

    Parameters
    ----------
    markets : Market or iterable of Market
        The whole, or one stretch of time after another, of which only one is held. The last one's contents, products,
        covers, sound and vectors are the catalogue. The truth of simulated markets is not written.
    folder : path
        Replaced in one step.
    parts : int
        One part has to fit into a worker's memory; a hundred thousand impressions are a good size.

    Raises
    ------
    ValueError, MarketError
        For a number of parts below 1, and for a market that is not well formed.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=60, n_contents=60, n_impressions=2_000))
    >>> place = Path(mkdtemp()) / "parts"
    >>> write_parts(market, place, parts=3)
    >>> sum(len(read_part(place, k).impressions) for k in range(count_parts(place)))
    2000
    """
    refuse("write_parts", whole_problems({"parts": parts}))
    markets = [markets] if isinstance(markets, Market) else markets
    with new_folder(folder, {"kind": "parts", "parts": int(parts)}) as path:
        for number, market in enumerate(markets):
            market.check(strict=False, targets=False)
            for name in BY_USER:
                if (table := getattr(market, name)) is None:
                    continue
                (path / name).mkdir(exist_ok=True)
                part = part_of(table["user_id"], parts)
                for k in range(parts):
                    table[part == k].to_parquet(
                        path / name / f"part-{k:05d}-{number:05d}.parquet", index=False
                    )
        for name in ("contents", "products"):
            if (table := getattr(market, name)) is not None:
                table.to_parquet(path / f"{name}.parquet", index=False)
        arrays = {"covers": market.covers, "audio": market.audio}
        arrays |= {f"vectors/{name}": array for name, array in (market.vectors or {}).items()}
        np.savez(path / "arrays.npz", **{name: array for name, array in arrays.items() if array is not None})
        (path / "roles.json").write_text(json.dumps(market.roles))


def count_parts(folder: str | Path) -> int:
    """How many parts `write_parts` wrote; a `MarketError` where it wrote none."""
    path = Path(folder).expanduser()
    found = about(path) if (path / MANIFEST).is_file() else {}
    if found.get("kind") != "parts":
        raise MarketError([Problem(path.name, "", "is no folder that write_parts wrote", 0, "")])
    return found["parts"]


def read_part(folder: str | Path, *parts: int) -> Market:
    """The users of some parts and all that is theirs, with the catalogue, as a market."""
    path, n = Path(folder).expanduser(), count_parts(folder)
    wrong = [k for k in parts if not 0 <= k < n]
    refuse("read_part", [f"parts must be from 0 to {n - 1}, got {wrong}"] if wrong or not parts else [])
    found: dict[str, Any] = {}
    for name in BY_USER:
        files = [file for k in parts for file in sorted((path / name).glob(f"part-{k:05d}-*.parquet"))]
        if files:
            found[name] = pd.concat(map(pd.read_parquet, files), ignore_index=True)
    found["users"] = found["users"].drop_duplicates("user_id", keep="last", ignore_index=True)
    return Market(**found, **_catalogue(path))


def _catalogue(path):
    files = {name: path / f"{name}.parquet" for name in ("contents", "products")}
    found = {name: pd.read_parquet(file) for name, file in files.items() if file.exists()}
    with np.load(path / "arrays.npz") as arrays:
        found |= {name: arrays[name] for name in ("covers", "audio") if name in arrays}
        vectors = {name.partition("/")[2]: arrays[name] for name in arrays if "/" in name}
    return found | {"vectors": vectors or None, "roles": json.loads((path / "roles.json").read_text())}


def facts_since(folder: str | Path, until: int) -> dict[str, pd.DataFrame]:
    """What became known after a second, of all parts: impressions (late orders too) and events, in few columns.

    Of this, and of nothing else of other parts, a prediction depends: content is counted over all users.
    """
    path, after, found = Path(folder).expanduser(), pd.Timestamp(until, unit="s"), {}
    for name in ("impressions", "events"):
        if not (path / name).is_dir():
            continue
        data = pads.dataset(path / name)
        known = pads.field("time") > after
        if "converted_at" in data.schema.names:
            known |= pads.field("converted_at") > after
        if name == "impressions":  # without an outcome it is no fact, and need not be read
            known &= (
                pads.field("clicked").is_valid() if "clicked" in data.schema.names else pads.scalar(False)
            )
        columns = [column for column in FACTS if column in data.schema.names]
        found[name] = data.to_table(columns=columns, filter=known).to_pandas()
    return found


def with_others(part: Market, facts: dict[str, pd.DataFrame]) -> Market:
    """A part with the facts of the users of other parts in its log and among its events."""
    ids, tables = part.users["user_id"], {"log": part.past, "events": part.events}
    more = {name: table[rows_of(table["user_id"], ids) < 0] for name, table in facts.items()}
    more = {{"impressions": "log"}.get(name, name): table for name, table in more.items() if len(table)}
    for name, table in more.items():
        tables[name] = pd.concat([tables[name], table], ignore_index=True)
    strangers = pd.concat([ids.iloc[:0], *(table["user_id"] for table in more.values())]).drop_duplicates()
    users = pd.concat([part.users, strangers.to_frame()], ignore_index=True) if len(strangers) else part.users
    return replace(part, users=users, **tables)


# --- workers --------------------------------------------------------------------------------------------------


class PartWorker:
    """Loads a predictor once, then reads part after part, and writes what `work` makes of each.

    Parameters
    ----------
    predictor, dataset, out : path
    work : callable
        Takes the predictor, a market with the rows that are asked for, and the path to write to.
    since, until : int, optional
        Seconds between which rows are asked for, the last not among them; earlier ones are history.
    """

    def __init__(
        self, predictor: str, dataset: str, out: str, work: Callable, since: int | None, until: int | None
    ):
        self.predictor, self.dataset, self.out = EffectPredictor.load(predictor), dataset, Path(out)
        self.work, self.since, self.until = work, since, until
        self.facts = facts_since(dataset, self.predictor.representation.features.history.until)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list]:
        began, rows = time.perf_counter(), [self.one(int(k)) for k in batch["part"]]
        seconds_ = (time.perf_counter() - began) / len(rows)
        told = {"part": batch["part"], "rows": rows, "seconds": [seconds_] * len(rows)}
        return told | {"peak_gib": [peak_gib()] * len(rows), "process": [os.getpid()] * len(rows)}

    def one(self, k: int) -> int:
        """Do one part; gives its rows."""
        market = with_others(read_part(self.dataset, k), self.facts)
        time_ = seconds(market.impressions["time"])
        asked = np.ones(len(time_), bool)
        asked &= True if self.since is None else time_ >= self.since
        asked &= True if self.until is None else time_ < self.until
        self.work(self.predictor, market.select(asked), self.out / f"part-{k:05d}")
        return int(asked.sum())


def each_part(
    work: Callable, predictor: str | Path, dataset: str | Path, out: str | Path, workers: int = 2,
    since: object = None, until: object = None,
) -> pd.DataFrame:  # fmt: skip
    """Let workers do all parts that `out` does not hold yet; gives part, rows, seconds, peak_gib and process of each.

    A part is written in one step, so that a run that was cut off goes on where it stopped. `out` remembers what it is
    made from, and refuses anything else with a ValueError.
    """
    refuse("each_part", whole_problems({"workers": workers}, 0))
    paths = [os.path.realpath(Path(path).expanduser()) for path in (predictor, dataset, out)]
    since, until = (
        None if t is None else int(seconds(pd.Series([pd.Timestamp(t)]))[0]) for t in (since, until)
    )
    n, place = count_parts(dataset), Path(paths[2])
    made = {"predictor": digest(paths[0]), "dataset": digest(paths[1]), "work": work.__name__, "since": since,
            "until": until}  # fmt: skip
    place.mkdir(parents=True, exist_ok=True)
    agree(place / "_run.json", made)  # which readers of a folder of Parquet skip
    todo = [k for k in range(n) if not list(place.glob(f"part-{k:05d}*"))]
    arguments = dict(zip(("predictor", "dataset", "out"), paths, strict=True))
    arguments |= {"work": work, "since": since, "until": until}
    if not todo:
        rows = []
    elif not workers:
        worker = PartWorker(**arguments)
        rows = [{name: values[0] for name, values in worker({"part": [k]}).items()} for k in todo]
    else:
        with cluster(workers) as ray, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Ray's, about its own options
            ray.data.DataContext.get_current().enable_progress_bars = False
            for name in ("ray", "ray.data"):
                logging.getLogger(name).setLevel(logging.ERROR)
            data = ray.data.from_items([{"part": k} for k in todo], override_num_blocks=len(todo))
            data = data.map_batches(PartWorker, fn_constructor_kwargs=arguments, batch_size=1, num_cpus=1,
                                    compute=ray.data.ActorPoolStrategy(size=min(workers, len(todo))))  # fmt: skip
            rows = data.take_all()
    columns = ["part", "rows", "seconds", "peak_gib", "process"]
    return pd.DataFrame(rows, columns=columns).sort_values("part", ignore_index=True)


def peak_gib() -> float:
    """Peak memory of this process in GiB; NaN on Windows, which does not tell."""
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:
        return float("nan")
    unit = 2**30 if sys.platform == "darwin" else 2**20  # of bytes there, of KiB elsewhere
    return getrusage(RUSAGE_SELF).ru_maxrss / unit


def digest(folder: str | Path) -> int:
    """A number for what a folder of `new_folder` holds, from its manifest."""
    return crc32((Path(folder).expanduser() / MANIFEST).read_bytes())


def write_effects(predictor: EffectPredictor, market: Market, place: Path) -> None:
    """Predict a market and write its effects, with impression_id as a column, as one Parquet file."""
    shown = market.impressions
    if len(shown):
        effects = predictor.predict(market).reset_index()
    else:  # users who were shown nothing in the time that is asked for
        effects = shown[["impression_id"]].assign(**dict.fromkeys(EFFECTS, 0.0))
    with new_file(place.with_name(f"{place.name}.parquet")) as draft:
        effects.to_parquet(draft, index=False)


def write_arrays(predictor: EffectPredictor, market: Market, place: Path) -> None:
    """Write what the effect networks read and learn of a market: a folder with one file for each array."""
    shown = len(market.impressions) > 0
    arrays = network_inputs(predictor.representation, market, predictor.state) if shown else {}
    save_arrays(place, arrays | {"targets": targets(market, predictor.state)})


def predict(
    predictor: str | Path, dataset: str | Path, out: str | Path, workers: int = 2, since: object = None,
    until: object = None,
) -> pd.DataFrame:  # fmt: skip
    """Predict a dataset part by part, in memory that does not grow with the number of parts.

    Each worker loads the predictor once and holds one part at a time, and the facts after training of all parts
    (`facts_since`). With them the result is, to float error, that of `EffectPredictor.predict` on the whole market.
    Where nothing was known after training, as when tomorrow's impressions are scored tonight, there are none to hold.

    Parameters
    ----------
    predictor : path
        What `EffectPredictor.save` wrote.
    dataset : path
        What `write_parts` wrote.
    out : path
        ``part-00000.parquet`` and so on: impression_id and its effects; `pandas.read_parquet(out)` reads all of them.
    workers : int
        Processes; 0 for this one alone.
    since, until : time, optional
        Predict the impressions from the first to just before the second; earlier ones are history.

    Returns
    -------
    DataFrame
        Of each part that was done now: part, rows, seconds, peak_gib (of its process so far) and process.

    Raises
    ------
    ValueError
        If `out` holds the effects of another predictor, dataset or time.
    """
    return each_part(write_effects, predictor, dataset, out, workers, since, until)


def prepare(
    predictor: str | Path, dataset: str | Path, out: str | Path, workers: int = 2, since: object = None,
    until: object = None,
) -> pd.DataFrame:  # fmt: skip
    """Write what the effect networks read and learn, part by part; as `predict`, with a folder for each part."""
    return each_part(write_arrays, predictor, dataset, out, workers, since, until)


# --- training -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """Where and with how many workers `fit` works; see there."""

    folder: Path
    workers: int
    shares: int
    every: int
    callback: Callable | None

    def train_vae(self, name: str, model: keras.Model, inputs: dict, steps: int, seed: int) -> None:
        """Train an autoencoder on arrays, which are written as one folder for each share."""
        n = len(next(iter(inputs.values())))
        folders = [self.folder / name / f"share-{k}" for k in range(min(self.shares, n))]
        for k, folder in enumerate(folders):
            if not folder.exists():
                save_arrays(folder, {key: array[k :: len(folders)] for key, array in inputs.items()})
        size, rate = SCHEDULES[name]
        task = Task(tuple((str(folder),) for folder in folders), steps, min(size, n), partial(adam, rate, steps),
                    partial(warm_kl, steps), seed)  # fmt: skip
        train(model, task, self.workers, self.folder / name, self.every, callback=self.callback)

    def train_network(self, name: str, network: keras.Model, config: ModelConfig, valid: tuple) -> None:
        """Train an effect network on the prepared parts; keep the checkpoint that is best on validation."""
        parts = sorted((self.folder / "arrays").glob("part-*"))
        parts = [str(part) for part in parts if len(Rows([part]))]
        shares = tuple(tuple(parts[k :: self.shares]) for k in range(min(self.shares, len(parts))))
        rows = [len(Rows(share)) for share in shares]
        size = max(min(config.batch_size, sum(rows) // 8), len(shares))
        turn = max(1, min(rows) // (size // len(shares)))
        steps = turn * config.epochs
        make = partial(adamw, config.learning_rate, config.penalty, steps)
        task = Task(shares, steps, size, make, None, network.get_config()["seed"])
        place = self.folder / name
        train(network, task, self.workers, place, max(1, turn // LOOKS), callback=self.callback)
        network.compile()
        found = {}
        for step, file in checkpoints(place).items():
            network.set_weights(arrays_of(file)[: len(network.weights)])
            found[step] = network.evaluate(*valid, batch_size=8_192, verbose=0, return_dict=True)["loss"]
        best = checkpoints(place)[min(found, key=found.get)]
        network.set_weights(arrays_of(best)[: len(network.weights)])


def fit(
    dataset: str | Path, folder: str | Path, config: ModelConfig | None = None, seed: int = 0, workers: int = 2,
    sample: int | None = None, validation: float = 0.1, shares: int = 4, every: int = 100,
    callback: Callable[[int, list[int]], object] | None = None,
) -> EffectPredictor:  # fmt: skip
    """Fit a predictor to a market in parts, its VAEs and effect networks trained on several workers.

    A sample of the parts is held at once. From it come scales, words, item embeddings, both VAEs, trees and regression,
    the calibration, and the log behind the counts of content; the effect networks read all parts, prepared row by row
    on disk. With a sample of all parts nothing is approximate, and nothing is saved but the working memory of the
    networks. With fewer, content is counted over the sample's users alone, in training as in use.

    Parameters
    ----------
    dataset : path
        What `write_parts` wrote.
    folder : path
        For all that is in between; ``predictor`` in it is the result. The same call goes on where an earlier one was
        cut off.
    config : ModelConfig, optional
    seed : int
    workers : int
        Processes; 0 for this one alone. The result does not depend on it.
    sample : int, optional
        Parts that are held at once; all by default.
    validation : float
        The latest share of the impressions, which calibrates; no part is trained on what came later.
    shares : int
        In how many shares each batch is computed; the result does depend on it.
    every : int
        Steps between the autoencoders' checkpoints; the networks have theirs in each third of a pass.
    callback : callable, optional
        As in `vaecm.parallel.train`.

    Raises
    ------
    ValueError, MarketError
        For options out of range, a folder of another run, and markets that cannot be learned from.
    """
    n, config = count_parts(dataset), ModelConfig() if config is None else config
    sample = n if sample is None else sample
    whole = {"sample": sample, "shares": shares, "every": every}
    problems = whole_problems(whole) + whole_problems({"workers": workers}, 0)
    if is_whole(sample) and sample > n:
        problems.append(f"sample must be at most the {n} parts, got {sample}")
    if not (is_number(validation) and 0 < validation < 1):
        problems.append(f"validation must lie between 0 and 1, got {validation!r}")
    refuse("fit", problems)
    run = Run(Path(folder).expanduser().resolve(), workers, shares, every, callback)
    run.folder.mkdir(parents=True, exist_ok=True)
    made = {"dataset": digest(dataset), "config": repr(config), "seed": seed, "sample": sample,
            "validation": validation, "shares": shares}  # fmt: skip
    agree(run.folder / "run.json", made)
    market = read_part(dataset, *range(sample)).check()
    parts = split_by_time(market, (1 - validation, validation))
    predictor, valid = _draft(*parts, config, seed, run)
    prepare(run.folder / "draft", dataset, run.folder / "arrays", workers,
            until=parts[1].impressions["time"].min())  # fmt: skip
    for k, network in enumerate(predictor.networks):
        run.train_network(f"effects_{k}", network, config, valid)
    calibrate(predictor.state, predictor.networks, predictor.voters, valid, met(parts[1]))
    predictor.save(run.folder / "predictor")
    return predictor


def _draft(train_part, valid_part, config, seed, run):
    """A predictor with all but trained networks, written to ``draft``; and inputs and targets of validation."""
    representation = _represent(train_part, valid_part, config, seed, run)
    state = learn_state(train_part, valid_part)
    x, valid = ((network_inputs(representation, part, state), targets(part, state))
                for part in (train_part, valid_part))  # fmt: skip
    voters = train_voters((x, valid), config.trees, config.linear, seed)
    networks = [
        make_network(representation, config, state, x[0], seed + 100 * k) for k in range(config.ensemble)
    ]
    calibrate(state, networks, voters, valid, met(valid_part))
    predictor = EffectPredictor(config, seed)
    predictor.representation, predictor.networks = representation, networks
    predictor.voters, predictor.state = voters, state
    if not (run.folder / "draft").exists():
        predictor.save(run.folder / "draft")
    return predictor, valid


def _represent(market, validation, config, seed, run):
    """As `Representation.learn`, with both autoencoders trained by the workers of a run."""
    found = Representation.learn(market, validation, replace(config, vae_steps=0), seed)
    if not config.vae_steps:
        return found
    found.learn_contents(
        market, seed, lambda vae, inputs: run.train_vae("contents", vae, inputs, config.vae_steps, seed)
    )
    if config.vae_steps > 1:
        found.learn_states(
            seconds(market.impressions["time"]).max(),
            lambda vae, inputs: run.train_vae("histories", vae, inputs, config.vae_steps // 2, seed),
        )
    return found


# --- what it costs ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Machine:
    """A machine for rent.

    Parameters
    ----------
    cores : int
    yuan_per_hour : float
    speed : float
        Of a core, against the core on which the work was measured.
    losses_per_hour : float
        How often it is taken away, as spot machines are.

    Examples
    --------
    >>> Machine(cores=8, yuan_per_hour=3.0).cores
    8
    """

    cores: int
    yuan_per_hour: float
    speed: float = 1.0
    losses_per_hour: float = 0.0

    def __post_init__(self):
        problems = whole_problems({"cores": self.cores})
        for name, least in (("yuan_per_hour", 0), ("losses_per_hour", 0), ("speed", 1e-9)):
            value = getattr(self, name)
            if not is_number(value) or value < least:
                problems.append(f"{name} must be a number from {least:g} on, got {value!r}")
        refuse("Machine", problems)


class Cost(NamedTuple):
    """Hours on the clock, and yuan."""

    hours: float
    yuan: float


def cost(
    core_hours: float, machine: Machine, machines: int = 1, serial: float = 0.0, checkpoint_hours: float = 0.25,
    restart_hours: float = 0.05,
) -> Cost:  # fmt: skip
    r"""How long some work takes on n machines of c cores, and what it costs.

    .. math:: T_0=\frac Ws\Big(f+\frac{1-f}{nc}\Big),\qquad T=\frac{T_0}{1-n\lambda\,(\tau/2+r)},\qquad
              \text{yuan}=T\,n\,p

    The first part is Amdahl's law (1967): a share f of the work W has to be done one after the other. The second counts
    losses: each of n machines is taken away :math:`\lambda` times an hour, and each time half the :math:`\tau` hours
    between checkpoints is done again and r hours pass until a new machine works.

    Parameters
    ----------
    core_hours : float
        W, hours of one core of speed 1.
    machine : Machine
    machines : int
    serial : float
        f, from 0 to 1.
    checkpoint_hours, restart_hours : float
        :math:`\tau` and r.

    Raises
    ------
    ValueError
        For numbers out of range, and where machines are lost faster than the work goes on.

    Examples
    --------
    >>> cost(100, Machine(cores=10, yuan_per_hour=4.0), machines=2)
    Cost(hours=5.0, yuan=40.0)
    """
    values = {"core_hours": core_hours, "checkpoint_hours": checkpoint_hours, "restart_hours": restart_hours}
    problems = [f"{name} must be a number from 0 on, got {value!r}"
                for name, value in values.items() if not is_number(value) or value < 0]  # fmt: skip
    problems += whole_problems({"machines": machines})
    problems += (
        [] if is_number(serial) and 0 <= serial <= 1 else [f"serial must be from 0 to 1, got {serial!r}"]
    )
    refuse("cost", problems)
    hours = core_hours / machine.speed * (serial + (1 - serial) / (machines * machine.cores))
    lost = machines * machine.losses_per_hour * (checkpoint_hours / 2 + restart_hours)
    if lost >= 1:
        refuse("cost", [f"machines are lost faster than the work goes on: {lost:.2f} hours in each hour"])
    hours /= 1 - lost
    return Cost(round(hours, 6), round(hours * machines * machine.yuan_per_hour, 6))


def checkpoint_interval(write_hours: float, losses_per_hour: float) -> float:
    r"""Hours between checkpoints that lose the least time (Young 1974, doi:10.1145/361147.361115).

    .. math:: \tau^*=\sqrt{2\,\delta/\lambda}

    with :math:`\delta` the hours that writing one takes and :math:`\lambda` the losses of all machines per hour: the
    minimum of :math:`\delta/\tau+\lambda\tau/2`.

    Examples
    --------
    >>> checkpoint_interval(write_hours=0.02, losses_per_hour=0.25)
    0.4
    """
    values = {"write_hours": write_hours, "losses_per_hour": losses_per_hour}
    refuse("checkpoint_interval", [f"{name} must be a number above 0, got {value!r}"
                                   for name, value in values.items() if not is_number(value) or value <= 0])  # fmt: skip
    return float(np.sqrt(2 * write_hours / losses_per_hour))
