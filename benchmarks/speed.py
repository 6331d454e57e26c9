"""How long it takes and how much memory: simulate, fit, predict, each in a process of its own.

``python -m benchmarks.speed --impressions 200000``
"""

import argparse
import json
import resource
import subprocess
import sys
import time

from benchmarks import write

STAGES = ("simulate", "lightgbm", "end_to_end", "vaecm")


def measure(stage, impressions, seed):
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
    if model is not None:
        train, valid, _ = vaecm.split_by_time(market, (0.7, 0.1, 0.2))
        lap("split")
        model.fit(train, validation=valid, **({"verbose": False} if stage == "vaecm" else {}))
        lap("fit")
        effects = model.predict(market)
        lap("predict")
        assert len(effects) == impressions
    unit = 2**30 if sys.platform == "darwin" else 2**20  # ru_maxrss counts bytes there, KiB elsewhere
    return {
        "seconds": seconds,
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 2),
    }


def _model(stage, seed):
    import vaecm

    if stage == "lightgbm":
        from vaecm.baselines import LightGBMBaseline

        return LightGBMBaseline(seed=seed)
    if stage == "end_to_end":
        from vaecm.ablation import EndToEnd

        return EndToEnd(seed=seed)
    return vaecm.EffectPredictor(vaecm.ModelConfig(), seed=seed) if stage == "vaecm" else None


def in_fresh_process(stage, args):
    """The result of `measure` from a new interpreter, so that no stage pays or profits from another."""
    command = [sys.executable, "-m", "benchmarks.speed", "--stage", stage]
    command += ["--impressions", str(args.impressions), "--seed", str(args.seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"stage {stage} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--impressions", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--stage", choices=STAGES, help="measure one stage in this process and print it")
    args = parser.parse_args()
    if args.stage:
        print(json.dumps(measure(args.stage, args.impressions, args.seed)))
        return
    stages = {}
    for stage in STAGES:
        stages[stage] = in_fresh_process(stage, args)
        print(stage, stages[stage], flush=True)
    ours = stages["vaecm"]["seconds"]
    ratios = {
        f"{step}, vaecm over {other}": round(ours[step] / max(stages[other]["seconds"][step], 0.01), 2)
        for other in ("lightgbm", "end_to_end")
        for step in ("fit", "predict")
    }
    rates = {
        "simulated per second": round(
            args.impressions / max(stages["simulate"]["seconds"]["simulate"], 0.01)
        ),
        "learned from per second": round(0.7 * args.impressions / max(ours["fit"], 0.01)),
        "predicted per second": round(args.impressions / max(ours["predict"], 0.01)),
    }
    settings = {"impressions": args.impressions, "seed": args.seed}
    write("speed", {"settings": settings, "stages": stages, "ratios": ratios, "rates": rates})


if __name__ == "__main__":
    main()
