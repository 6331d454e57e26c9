"""Check a folder of one's own files, fit a predictor to it and predict, from a shell.

python -m vaecm check FOLDER
python -m vaecm fit FOLDER --out MODEL
python -m vaecm predict MODEL FOLDER --out effects.csv --draws 200
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from vaecm.io import checked_folder, new_file, read_roles, writable_folder
from vaecm.market import Market, MarketError, load_market

ROWS_AT_ONCE = 50_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; errors of the user are one message on stderr.

    Parameters
    ----------
    arguments : sequence of str, optional
        Those of the shell where none are given.

    Returns
    -------
    int
        0, or 1 where something is wrong with files or options.

    Examples
    --------
    >>> main(["check", "no/such/folder"])
    1
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError, MemoryError) as error:
        if type(error) is ValueError and not _own(error):
            raise  # of a library: a fault of the package, not of the files
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _own(error):
    """Whether this package raised an error itself."""
    place = error.__traceback__
    while place.tb_next:
        place = place.tb_next
    return Path(place.tb_frame.f_code.co_filename).parent == Path(__file__).parent


def _parser():
    parser = argparse.ArgumentParser(prog="python -m vaecm", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="check | fit | predict")
    check = commands.add_parser("check", help="read a folder, list its columns and what is wrong with it")
    fit = commands.add_parser("fit", help="train a predictor on a folder and save it")
    predict = commands.add_parser("predict", help="write the expected effects of impressions to a CSV file")
    predict.add_argument("model", type=Path, help="folder that `fit` wrote")
    for command, run in ((check, _check), (fit, _fit), (predict, _predict)):
        command.add_argument("folder", type=Path, help="folder with users, contents, impressions, ...")
        command.add_argument(
            "--roles", type=Path, help='JSON file: {"users": {"uid": "user_id", "x": "class"}}'
        )
        command.add_argument("--cover-size", type=int, default=32, help="pixels of a side (default 32)")
        command.set_defaults(run=run)
    check.add_argument("--planned", action="store_true", help="outcomes are still to come")
    fit.add_argument("--out", type=Path, required=True, help="folder for the predictor")
    fit.add_argument("--seed", type=int, default=0)
    fit.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="option of ModelConfig")
    predict.add_argument("--out", type=Path, required=True, help="CSV file (.csv or .csv.gz)")
    predict.add_argument("--draws", type=int, default=0, help="draws for intervals of 95 %% (default none)")
    return parser


def _load(options, targets):
    if options.roles is not None and not options.roles.is_file():
        raise ValueError(f"--roles {options.roles} is not a file")
    roles = None if options.roles is None else read_roles(options.roles)
    return load_market(options.folder, targets=targets, cover_size=options.cover_size, roles=roles)


def _together(*steps: Callable[[], Any]) -> list:
    """Results of all steps, or one error with everything that is wrong in any of them."""
    results, errors = [], []
    for step in steps:
        try:
            results.append(step())
        except (ValueError, OSError) as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        lines = [str(line) for error in errors for line in getattr(error, "problems", str(error).split("\n"))]
        raise ValueError("\n  - ".join([f"{len(lines)} problems:", *lines]))
    return results


def _check(options):
    from vaecm.cleaning import clean

    market = _load(options, targets=not options.planned)
    print(market)
    with pd.option_context("display.width", 150, "display.max_columns", 10, "display.max_colwidth", 70):
        print(market.describe().to_string(index=False))
    try:
        market.check(targets=not options.planned)
    except MarketError as error:
        print(f"\n{error}")
        cleaned, report = clean(market)
        print("\nclean repairs it:\n" + _repairs(report) + f"\n{cleaned}")
    else:
        print("\nnothing is wrong")


def _repairs(report):
    done = report[report["rows"] > 0]
    return done.to_string(index=False) if len(done) else "nothing had to be repaired"


def _fit(options):
    from vaecm.cleaning import clean
    from vaecm.predictor import EffectPredictor
    from vaecm.splits import split_by_time

    config, _, market, out = _together(
        lambda: _config(options.set),
        lambda: EffectPredictor(seed=options.seed),
        lambda: _load(options, targets=True),
        lambda: writable_folder(options.out),
    )
    print(market)
    market, report = clean(market)
    print(_repairs(report))
    train, validation = split_by_time(market, (0.9, 0.1))
    predictor = EffectPredictor(config, seed=options.seed).fit(train, validation=validation, verbose=True)
    predictor.save(out)
    print(f"saved to {out}")


def _config(pairs):
    """`ModelConfig` with the options that were set as NAME=VALUE; values are JSON."""
    from vaecm.predictor import ModelConfig

    known, values = [f.name for f in fields(ModelConfig)], {}
    unknown = [pair for pair in pairs if pair.partition("=")[0] not in known]
    wrong = [f"--set {', '.join(unknown)}: no such option; there are {', '.join(known)}"] if unknown else []
    for pair in (pair for pair in pairs if pair not in unknown):
        name, _, value = pair.partition("=")
        try:
            values[name] = json.loads(value)
        except ValueError:
            wrong.append(f"--set {pair}: the value must be a number, true, false or a list")
        else:
            values[name] = tuple(values[name]) if isinstance(values[name], list) else values[name]
    try:
        config = ModelConfig(**values)
    except ValueError as error:
        wrong.append(str(error))
    if wrong:
        raise ValueError("\n".join(wrong))
    return config


def _predict(options):
    def draws():
        if options.draws < 0:
            raise ValueError(f"--draws must not be negative, got {options.draws}")

    def out():
        if options.out.is_dir():
            raise ValueError(f"--out {options.out} is a folder; it must be a file such as effects.csv")
        if not options.out.name.lower().endswith((".csv", ".csv.gz")):
            raise ValueError(f"--out {options.out} must end in .csv or .csv.gz")
        return options.out

    def model():
        from vaecm.predictor import EffectPredictor

        return EffectPredictor.load(checked_folder(options.model, kind="predictor"))

    predictor, market, _, _ = _together(model, lambda: _load(options, targets=False), draws, out)
    effects = predict_in_parts(predictor, market, options.draws)
    write_csv(effects, options.out)
    print(f"{len(effects):,} impressions written to {options.out}")


def predict_in_parts(predictor: Any, market: Market, draws: int = 0) -> pd.DataFrame:
    """Predictions of all impressions of a market, with a progress bar on stderr."""
    n = len(market.impressions)
    part = np.arange(n) // ROWS_AT_ONCE
    found = []
    with tqdm(total=n, unit=" impressions", desc="predict", file=sys.stderr) as bar:
        for k in range(int(part[-1]) + 1 if n else 0):
            rows = part == k
            found.append(predictor.predict(market.select(rows) if n > ROWS_AT_ONCE else market, draws=draws))
            bar.update(int(rows.sum()))
    return pd.concat(found)


def write_csv(frame: pd.DataFrame, file: Path) -> None:
    """Write a table with its index in one step: an interrupted run leaves the earlier file."""
    with new_file(file) as draft:
        frame.to_csv(draft)  # pandas packs what ends in .gz


if __name__ == "__main__":
    sys.exit(main())
