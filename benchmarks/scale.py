"""Past one process: two workers against one, a worker that is killed, and the memory of predictions by part.

``python -m benchmarks.scale --rows 100000 1000000 10000000``, and then ``--fit 10000000``. Needs Ray.
"""

import argparse
import json
import os
import signal
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

import vaecm
from benchmarks import RESULTS, peak_gib, write
from benchmarks.gates import loss
from vaecm import parallel, scale
from vaecm.effects import EffectNetwork
from vaecm.predictor import network_inputs, targets

IMPRESSIONS, PART = 20_000, 50_000  # of the market that is repeated; of a part
BLOCK, SAMPLE = 25, 4  # copies of it that are written at once; parts that a fit holds
STEPS, WARM, EVERY, KILLED = 150, 30, 50, 120
SMALL = {"vae_steps": 20, "epochs": 1, "ensemble": 1, "trees": False}


def asked_later(market, until):
    """The market later, when nothing is known that training did not know."""
    outcomes = ["clicked", "converted", "converted_at", "sales"]
    shown = market.impressions.drop(columns=outcomes)
    later = pd.Timestamp(until, unit="s") - shown["time"].min() + pd.Timedelta("1D")
    shown = shown.assign(time=shown["time"] + later)
    events = market.events[market.events["time"] <= pd.Timestamp(until, unit="s")]
    return replace(market, impressions=shown, events=events, truth=None)


def repeated(market, times):
    """The market again and again with other users, `BLOCK` times at once."""
    for start in range(0, times, BLOCK):
        tables, copies = {}, range(start, times)[:BLOCK]
        for name in ("impressions", "users", "events"):
            table = getattr(market, name)
            ids = [c for c in ("user_id", "impression_id", "request_id") if c in table]
            more = [table.assign(**{c: table[c] + k * 10**8 for c in ids}) for k in copies]
            tables[name] = pd.concat(more, ignore_index=True)
        yield replace(market, **tables, truth=None, factors=None, oracle=None)


def predictions(predictor, market, rows, folder):
    """Seconds, rows a second and greatest memory of one worker, for each number of rows."""
    found, market = [], asked_later(market, predictor.representation.features.history.until)
    for n in rows:
        data = folder / f"data-{n}"
        scale.write_parts(repeated(market, max(1, n // IMPRESSIONS)), data, max(1, n // PART))
        began = time.perf_counter()
        told = scale.predict(folder / "predictor", data, folder / f"out-{n}", workers=2)
        row = {"rows": int(told["rows"].sum()), "parts": len(told), "seconds": time.perf_counter() - began}
        row |= {"worker_seconds": told["seconds"].sum(), "peak_gib": told["peak_gib"].max()}
        row["first_peak_gib"] = told.groupby("process")["peak_gib"].min().max()
        row["dataset_bytes"] = sum(file.stat().st_size for file in data.rglob("*.parquet"))
        found.append({name: round(float(value), 3) for name, value in row.items()})
        print(found[-1], flush=True)
    return found


def out_of_core(market, rows, folder):
    """A fit whose network reads labelled rows from disk, in this process alone: seconds, bytes, and the peak in GiB."""
    scale.write_parts(repeated(market, rows // IMPRESSIONS), folder / "data", rows // PART)
    began = time.perf_counter()
    model = scale.fit(folder / "data", folder / "fit", vaecm.ModelConfig(**SMALL), workers=0, sample=SAMPLE)
    found = {
        "rows": rows,
        "parts": rows // PART,
        "held at once": SAMPLE * PART,
        "seconds": time.perf_counter() - began,
    }
    found["prepared_bytes"] = sum(file.stat().st_size for file in (folder / "fit" / "arrays").rglob("*"))
    found["peak_gib"], late = peak_gib(), vaecm.split_by_time(market, (0.9, 0.1))[1]
    clicked, rate = late.impressions["clicked"].to_numpy(float), market.impressions["clicked"].mean()
    told = model.predict(late)["ctr"].to_numpy()
    for name, p in (("log_loss", told), ("log_loss_of_the_mean_rate", np.full(len(told), rate))):
        found[name] = float(np.mean(loss(clicked, p)))
    print(found, flush=True)
    return found


def training(predictor, market, folder):
    """Weights of one, two and two workers of which one dies, against those of this process; rows a second."""
    x, y = network_inputs(predictor.representation, market, predictor.state), targets(market, predictor.state)
    for k in range(4):
        arrays = {name: array[k::4] for name, array in (x | {"targets": y}).items()}
        parallel.save_arrays(folder / "share" / str(k), arrays)
    shares = tuple((str(folder / "share" / str(k)),) for k in range(4))
    task = parallel.Task(shares, STEPS, 512, partial(scale.adamw, 2e-3, 1e-4, STEPS))
    weights, found = {}, []
    for name, workers in (("this process", 0), ("one", 1), ("two", 2), ("two, one killed", 2)):
        network = EffectNetwork(**predictor.networks[0].get_config())
        network({key: array[:1] for key, array in x.items()})
        times, killed = {}, []

        def note(step, processes, times=times, killed=killed, name=name):
            now = time.perf_counter()
            times.setdefault(step, now)
            if killed:
                times.setdefault("back", now)
            if name.endswith("killed") and step == KILLED and not killed:
                killed.append(now)
                os.kill(processes[1], signal.SIGKILL)

        losses = parallel.train(network, task, workers, every=EVERY, callback=note)
        weights[name] = network.get_weights()
        gap = max(np.abs(a - b).max() for a, b in zip(weights[name], weights["this process"], strict=True))
        row = {"workers": name, "largest_gap_of_weights": float(gap), "last_loss": float(losses[-1])}
        row["rows_per_second"] = round(512 * (KILLED - WARM) / (times[KILLED] - times[WARM]))
        if killed:
            row["seconds_from_kill_to_step"] = round(
                times[KILLED + 1] - min(times[KILLED], times[KILLED + 1]), 2
            )
        found.append(row)
        print(row, flush=True)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument(
        "--fit", type=int, help="only fit so many rows from disk, and add that to what is stored"
    )
    parser.add_argument("--note", default="", help="what else the machine was doing")
    args = parser.parse_args()
    market = vaecm.simulate_market(
        vaecm.MarketConfig(n_users=400, n_contents=400, n_impressions=IMPRESSIONS, seed=25)
    )
    train, valid, test = vaecm.split_by_time(market, (0.7, 0.1, 0.2))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        before = json.loads((RESULTS / "scale.json").read_text())
        if args.fit:
            kept = {name: before[name] for name in before if name not in ("measured", "machine")}
            write("scale", kept | {"fit": out_of_core(market, args.fit, folder)})
            return
        predictor = vaecm.EffectPredictor(vaecm.ModelConfig(**SMALL), seed=0)
        predictor.fit(train, validation=valid, verbose=False)
        predictor.save(folder / "predictor")
        settings = {"impressions": IMPRESSIONS, "part": PART, "model": SMALL, "note": args.note}
        found = {"fit": before["fit"], "settings": settings}
        found["predictions"] = predictions(predictor, market, sorted(args.rows), folder)
        facts = vaecm.Market(test.users, test.contents, test.impressions, events=test.events)
        scale.write_parts(facts, folder / "facts", 2)
        tables = scale.facts_since(folder / "facts", predictor.state["until"])
        size = sum(table.memory_usage(deep=True).sum() for table in tables.values())
        found["bytes_of_a_fact"] = round(float(size / max(1, sum(map(len, tables.values())))), 1)
        write("scale", found)
        found["training"] = training(predictor, train, folder)
        write("scale", found)


if __name__ == "__main__":
    main()
