"""How long it takes and how much memory: simulate, fit, predict, each in a process of its own; and one row after load.

``python -m benchmarks.speed --impressions 200000``
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace

from benchmarks import peak_gib, write

STAGES = ("simulate", "lightgbm", "dcn", "din", "vaecm", "latency")
ROWS, REPEATS, CANDIDATES = (1, 100, 10_000), 15, 100


def measure(stage, impressions, seed, folder):
    """Seconds of each step of one stage, and the peak memory of this process in GiB."""
    seconds, clock = {}, time.perf_counter()

    def lap(name):
        nonlocal clock
        seconds[name] = round(time.perf_counter() - clock, 2)
        clock = time.perf_counter()

    import vaecm

    model = _model(stage, seed)
    lap("import")
    market = vaecm.simulate_market(vaecm.MarketConfig(n_impressions=impressions, seed=seed))
    lap("simulate")
    if stage == "latency":
        model = vaecm.EffectPredictor.load(folder)
        lap("load")
        seconds |= latency(model, market)
    elif model is not None:
        train, valid, _ = vaecm.split_by_time(market, (0.7, 0.1, 0.2))
        lap("split")
        model.fit(train, validation=valid, **({"verbose": False} if stage == "vaecm" else {}))
        lap("fit")
        if len(model.predict(market)) != impressions:
            raise RuntimeError("not every impression was predicted")
        lap("predict")
        if stage == "vaecm":
            model.save(folder)
            lap("save")
    return {"seconds": seconds, "peak_gib": peak_gib()}


def latency(model, market):
    """Seconds of the first prediction after load, and the median of later ones, by number of rows."""
    import numpy as np

    found, n = {}, len(market.impressions)
    last = np.arange(n) >= n - min(20_000, n // 5)
    late = np.flatnonzero(last)
    for rows in ROWS:
        parts = (np.isin(np.arange(n), np.roll(late, -k * rows)[:rows]) for k in range(REPEATS + 1))
        times = waits(model, map(market.select, parts))
        if rows == ROWS[0]:
            found["first prediction"] = round(times[0], 4)
        found[f"{rows} rows" if rows > 1 else "1 row"] = round(statistics.median(times[1:]), 4)
    asked = (request(market, row, model.state["until"]) for row in late[:: len(late) // REPEATS][:REPEATS])
    return found | {f"{CANDIDATES} candidates of one user": round(statistics.median(waits(model, asked)), 4)}


def waits(model, markets):
    """Seconds that the prediction of each market takes, its making not counted."""
    times = []
    for market in markets:
        start = time.perf_counter()
        model.predict(market)
        times.append(time.perf_counter() - start)
    return times


def request(market, row, until):
    """What a server sends at an impression: candidates, and of this user alone what happened since the last fit."""
    import numpy as np
    import pandas as pd

    seen = market.impressions.iloc[[row]]
    user, now = seen["user_id"].iloc[0], seen["time"].iloc[0]
    online = np.flatnonzero((market.contents["published_at"] < now).to_numpy())
    some = np.sort(np.random.default_rng(row).choice(online, CANDIDATES, replace=False))
    rows = seen[["user_id", "time", "position"]].iloc[np.zeros(CANDIDATES, int)].reset_index(drop=True)
    ids = market.contents["content_id"]
    rows = rows.assign(impression_id=np.arange(CANDIDATES), content_id=ids.to_numpy()[some])
    since = {"log": market.past, "events": market.events}
    for name, table in since.items():
        own = (table["user_id"] == user) & (table["time"] < now)
        since[name] = table[own & (table["time"] > pd.Timestamp(until, unit="s"))].reset_index(drop=True)
    used = np.union1d(some, np.flatnonzero(ids.isin(since["log"]["content_id"])))
    return replace(
        market, users=market.users[market.users["user_id"] == user].reset_index(drop=True), impressions=rows,
        contents=market.contents.iloc[used].reset_index(drop=True), covers=market.covers[used],
        audio=market.audio[used], truth=None, **since,
    )  # fmt: skip


def _model(stage, seed):
    import vaecm

    if stage == "lightgbm":
        from vaecm.baselines import LightGBMBaseline

        return LightGBMBaseline(seed=seed)
    if stage in ("dcn", "din"):
        from benchmarks.rivals import DCN, DIN

        return {"dcn": DCN, "din": DIN}[stage](seed=seed)
    return vaecm.EffectPredictor(vaecm.ModelConfig(), seed=seed) if stage == "vaecm" else None


def in_fresh_process(stage, args, folder):
    """The result of `measure` from a new interpreter, so that no stage pays or profits from another."""
    command = [sys.executable, "-m", "benchmarks.speed", "--stage", stage, "--folder", folder]
    command += ["--impressions", str(args.impressions), "--seed", str(args.seed)]
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(f"stage {stage} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--impressions", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--stage", choices=STAGES, help="measure one stage in this process and print it")
    parser.add_argument("--folder", help="where a stage finds or leaves the saved model")
    args = parser.parse_args()
    if args.stage:
        print(json.dumps(measure(args.stage, args.impressions, args.seed, args.folder)))
        return
    stages = {}
    with tempfile.TemporaryDirectory() as folder:
        for stage in STAGES:
            stages[stage] = in_fresh_process(stage, args, os.path.join(folder, "model"))
            print(stage, stages[stage], flush=True)
    write(
        "speed", {"settings": {"impressions": args.impressions, "seed": args.seed}, **summary(stages, args)}
    )


def summary(stages, args):
    """The stages, with ratios to the rivals and rows per second."""
    ours = stages["vaecm"]["seconds"]
    ratios = {
        f"{step}, vaecm over {other}": round(ours[step] / max(stages[other]["seconds"][step], 0.01), 2)
        for other in ("lightgbm", "dcn", "din")
        for step in ("fit", "predict")
    }
    made = stages["simulate"]["seconds"]["simulate"]
    rates = {
        "simulated per second": round(args.impressions / max(made, 0.01)),
        "learned from per second": round(0.7 * args.impressions / max(ours["fit"], 0.01)),
        "predicted per second": round(args.impressions / max(ours["predict"], 0.01)),
    }
    return {"stages": stages, "ratios": ratios, "rates": rates}


if __name__ == "__main__":
    main()
