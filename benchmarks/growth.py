"""How time and memory grow with the market: simulate, fit and predict, each size in a process of its own.

``python -m benchmarks.growth --impressions 100000 1000000``; ten million are an option, for a machine with 16 GiB and
an hour.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time

from benchmarks import peak_gib, write

STAGES = ("simulate", "vaecm")


def measure(stage, impressions, seed):
    """Wall and processor seconds of each step, and the peak memory of this process in GiB."""
    steps, wall, processor = {}, time.perf_counter(), time.process_time()

    def lap(name):
        nonlocal wall, processor
        now = time.perf_counter(), time.process_time()
        steps[name] = {"seconds": round(now[0] - wall, 2), "processor_seconds": round(now[1] - processor, 2)}
        wall, processor = now

    import vaecm

    lap("import")
    users, contents = max(2_000, impressions // 50), max(1_500, impressions // 66)
    config = vaecm.MarketConfig(n_users=users, n_contents=contents, n_impressions=impressions, seed=seed)
    market = vaecm.simulate_market(config)
    lap("simulate")
    if stage == "vaecm":
        train, valid, _ = vaecm.split_by_time(market, (0.7, 0.1, 0.2))
        lap("split")
        predictor = vaecm.EffectPredictor(vaecm.ModelConfig(), seed=seed)
        predictor.fit(train, validation=valid, verbose=False)
        lap("fit")
        if len(predictor.predict(market)) != impressions:
            raise RuntimeError("not every impression was predicted")
        lap("predict")
    return {"users": users, "contents": contents, "steps": steps, "peak_gib": peak_gib()}


def in_fresh_process(stage, impressions, seed):
    """The result of `measure` from a new interpreter."""
    command = [sys.executable, "-m", "benchmarks.growth", "--stage", stage]
    command += ["--impressions", str(impressions), "--seed", str(seed)]
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(f"stage {stage} at {impressions:,} impressions failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def exponent(sizes, seconds):
    """The power of the size with which time grows between the least and the greatest size: 1 is in proportion.

    Examples
    --------
    >>> exponent([10, 1_000], [1.0, 100.0])
    1.0
    """
    if len(sizes) < 2:
        return None
    return round(math.log(seconds[-1] / max(seconds[0], 0.01)) / math.log(sizes[-1] / sizes[0]), 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--impressions", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--stage", choices=STAGES, help="measure one stage in this process and print it")
    args = parser.parse_args()
    if args.stage:
        print(json.dumps(measure(args.stage, args.impressions[0], args.seed)))
        return
    sizes, rows = sorted(args.impressions), []
    for size in sizes:
        for stage in STAGES:
            row = {"impressions": size, "stage": stage, **in_fresh_process(stage, size, args.seed)}
            print(row, flush=True)
            rows.append(row)
    whole = [row["steps"] for row in rows if row["stage"] == "vaecm"]
    growth = {
        step: exponent(sizes, [steps[step]["processor_seconds"] for steps in whole])
        for step in ("simulate", "fit", "predict")
    }
    write(
        "growth", {"settings": {"impressions": sizes, "seed": args.seed}, "exponents": growth, "runs": rows}
    )


if __name__ == "__main__":
    main()
