"""A course's project: a market whose truth the teacher alone knows, and the grading of what students make of it.

    python tools/project.py make --seed 918273645 --out build/project
    python tools/project.py make --seed 918273645 --student lee --out build/project-lee
    python tools/project.py grade --seed 918273645 --submission inbox/lee --student lee

The same seed (and student) makes the same market again, so nothing needs to be kept but the seed. Take one of many
digits: the simulator is public, and a short seed can be tried out. With names of students each gets a market of its own.
"""

import argparse
import hashlib
import json
import shutil
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

import vaecm
from vaecm.baselines import LogisticBaseline
from vaecm.book import uplift
from vaecm.market import Market
from vaecm.metrics import bootstrap_interval
from vaecm.options import refuse

TEXTS = Path(__file__).with_name("project_texts")
OUTCOMES = ["clicked", "converted", "converted_at", "sales"]
MARGIN = 0.3  # of the sales
PAYS = 0.4  # share of the candidates whose promotion truly pays, which fixes what the place costs
POINTS = {"prediction": 25, "decision": 15}
SIZE = {"n_users": 1_500, "n_contents": 1_000, "n_impressions": 60_000, "days": 40}


def market_seed(seed: int, student: str = "") -> int:
    """The seed of a student's market, from the teacher's seed and the student's name."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{student}".encode()).digest()[:7])


@dataclass(frozen=True)
class Project:
    """One market of the project: what the student gets, and what the teacher alone can compute."""

    seed: int
    student: str = ""
    size: tuple = tuple(SIZE.items())

    @cached_property
    def market(self) -> Market:
        config = vaecm.MarketConfig(
            **dict(self.size), click_rate=0.08, convert_rate=0.15, seed=market_seed(self.seed, self.student)
        )
        return vaecm.simulate_market(config)

    @cached_property
    def parts(self) -> list[Market]:
        """The part that is given with outcomes, and the one to be predicted, cut by time."""
        return vaecm.split_by_time(self.market, (0.8, 0.2))

    @cached_property
    def known(self) -> Market:
        """What the student sees: the log so far, as it was known when it ends, and no truth."""
        market, (first, later) = self.market, self.parts
        now = later.impressions["time"].min()
        log = first.impressions.copy()
        open_orders = log["converted_at"] >= now
        log.loc[open_orders, "converted_at"] = pd.NaT
        log.loc[open_orders, ["converted", "sales"]] = 0
        events = market.events[market.events["time"] < now]
        return replace(
            market,
            impressions=log,
            events=events,
            truth=None,
            factors=None,
            oracle=None,
            broken=None,
            log=None,
        )

    @cached_property
    def asked(self) -> Market:
        """The candidates for promotion at the top place, before an audience of the first day, as the teacher sees it."""
        return uplift.ask(self.parts[1], pieces=150, moments=40, seed=0)

    def as_known(self, impressions: pd.DataFrame) -> Market:
        """Impressions without outcomes, with nothing but the student's knowledge behind them."""
        rows = impressions.drop(columns=[name for name in OUTCOMES if name in impressions])
        return replace(self.known, impressions=rows, log=self.known.impressions)

    @cached_property
    def baseline(self) -> dict[str, pd.DataFrame]:
        """What logistic regression on an analyst's table makes of the student's data: predictions and a choice."""
        train, valid = vaecm.split_by_time(self.known, (0.85, 0.15))
        model = LogisticBaseline().fit(train, validation=valid)
        told = model.predict(self.as_known(self.parts[1].impressions))
        sales = model.predict(self.as_known(self.asked.impressions))["sales"].to_numpy()
        value = MARGIN * uplift.by_piece(self.asked, sales).mean(axis=1) - self.cost
        return {
            "predictions": told[["ctr"]].reset_index(),
            "decision": pd.DataFrame({"content_id": value.index[value > 0]}),
        }

    @cached_property
    def margins(self) -> pd.Series:
        """The true margin of each candidate at the top place, yuan per impression."""
        sales = uplift.true_effects(self.asked)["sales"].to_numpy()
        return MARGIN * uplift.by_piece(self.asked, sales).mean(axis=1)

    @cached_property
    def cost(self) -> float:
        """What an impression at the top place costs, yuan."""
        return round(float(self.margins.quantile(1 - PAYS)), 2)

    @cached_property
    def piece_values(self) -> pd.Series:
        """What promoting each candidate truly brings, yuan per thousand impressions."""
        return 1_000 * (self.margins - self.cost)


# --- what the student gets


def write(project: Project, folder: Path) -> None:
    """Write a student's folder: data, brief, report template, rubric, and the submission of somebody who guesses."""
    with TemporaryDirectory() as place:
        made = Path(place) / "project"
        project.known.save(made / "market")
        log = project.parts[1].impressions.drop(columns=OUTCOMES)
        log.to_csv(made / "questions.csv", index=False)
        project.asked.impressions.to_csv(made / "promotion.csv", index=False)
        for path in sorted(TEXTS.glob("*.md")):
            text = path.read_text(encoding="utf-8").replace("COST", f"{project.cost:.2f}")
            (made / path.name).write_text(text, encoding="utf-8")
        guess = made / "submission_example"
        guess.mkdir()
        rate = project.known.impressions["clicked"].mean()
        pd.DataFrame({"impression_id": log["impression_id"], "ctr": rate.round(6)}).to_csv(
            guess / "predictions.csv", index=False
        )
        pd.DataFrame({"content_id": project.piece_values.index[:10]}).to_csv(
            guess / "decision.csv", index=False
        )
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(made, folder)


# --- grading


def read_submission(folder: Path, project: Project) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions in the order of the questions, and the decision; one error lists all that is wrong."""
    problems = [
        f"{name} is missing" for name in ("predictions.csv", "decision.csv") if not (folder / name).is_file()
    ]
    refuse(str(folder), problems)
    predictions, decision = (pd.read_csv(folder / name) for name in ("predictions.csv", "decision.csv"))
    problems += [
        f"{name} has no column {column}"
        for name, table, columns in (
            ("predictions.csv", predictions, ("impression_id", "ctr")),
            ("decision.csv", decision, ("content_id",)),
        )
        for column in columns
        if column not in table
    ]
    refuse(str(folder), problems)
    wanted = project.parts[1].impressions["impression_id"]
    if sorted(predictions["impression_id"]) != sorted(wanted):
        problems.append("predictions.csv must have each impression_id of questions.csv once")
    if not pd.to_numeric(predictions["ctr"], errors="coerce").between(0, 1, inclusive="neither").all():
        problems.append("predictions.csv: every ctr must be a number between 0 and 1")
    if (
        not decision["content_id"].isin(project.piece_values.index).all()
        or decision["content_id"].duplicated().any()
    ):
        problems.append("decision.csv must hold candidates of promotion.csv, each at most once")
    refuse(str(folder), problems)
    return predictions.set_index("impression_id").loc[wanted].reset_index(), decision


def divergence(true: np.ndarray, told: np.ndarray) -> np.ndarray:
    """What a prediction loses against the truth, in expectation: nats per impression."""
    return true * np.log(true / told) + (1 - true) * np.log((1 - true) / (1 - told))


def prediction_shares(project: Project, ctr: np.ndarray) -> dict[str, float]:
    """The share of the way from the mean rate to the truth, of a prediction and of the baseline, and their difference."""
    later = project.parts[1]
    true = later.truth["p_click"].to_numpy(float)
    content = later.impressions["content_id"].to_numpy()
    rate = project.known.impressions["clicked"].mean()
    lost = [divergence(true, q) for q in (rate, ctr, project.baseline["predictions"]["ctr"].to_numpy(float))]

    def shares(sums, rows):
        own, base = (1 - sums[:, i] / sums[:, 0] for i in (1, 2))
        return np.stack([own, base, own - base], axis=1)

    found = bootstrap_interval(np.stack(lost, axis=1), content, shares)
    names = ("share", "baseline", "minus baseline")
    rows = {name: float(v) for name, v in zip(names, found.value, strict=True)}
    return rows | {"low": float(found.low[2]), "high": float(found.high[2])}


def points(value: float, baseline: float, best: float, most: int) -> float:
    """Points by a line: none at 0, 60 % at the baseline, all half-way from there to the best.

    A baseline that reaches less than a tenth of the best counts as a tenth.
    """
    baseline = max(baseline, 0.1 * best)
    return round(most * float(np.interp(value, [0, baseline, (baseline + best) / 2], [0, 0.6, 1])), 1)


def grade(folder: Path, project: Project) -> dict:
    """Grade one submission: predictions against the truth, the decision by the yuan that it brings."""
    predictions, decision = read_submission(folder, project)
    shares = prediction_shares(project, predictions["ctr"].to_numpy(float))
    values = project.piece_values
    yuan = {
        "decision": values[decision["content_id"]].sum(),
        "baseline": values[project.baseline["decision"]["content_id"]].sum(),
        "all": values.sum(),
        "oracle": values[values > 0].sum(),
    }
    yuan = {name: round(float(v) / len(values), 2) for name, v in yuan.items()}
    marks = {"prediction": (shares["baseline"], 1.0), "decision": (yuan["baseline"], yuan["oracle"])}
    reached = {"prediction": shares["share"], "decision": yuan["decision"]}
    earned = {name: points(reached[name], *marks[name], POINTS[name]) for name in POINTS}
    return {
        "submission": folder.name,
        "share of the way to the truth": {name: round(v, 4) for name, v in shares.items()},
        "yuan per thousand impressions offered": yuan,
        "promoted": len(decision),
        "points": earned,
        "of": POINTS,
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("make", "grade"))
    parser.add_argument("--seed", type=int, required=True, help="many digits, kept by the teacher")
    parser.add_argument("--student", default="", help="a name, for a market of one's own")
    parser.add_argument("--out", type=Path, default=Path("build/project"))
    parser.add_argument("--submission", type=Path, help="a folder with predictions.csv and decision.csv")
    arguments = parser.parse_args()
    project = Project(arguments.seed, arguments.student)
    if arguments.what == "make":
        write(project, arguments.out)
        print(f"The project lies in {arguments.out}; the truth is in the seed, which you keep.")
    elif arguments.submission is None:
        parser.error("grade needs --submission")
    else:
        try:
            print(json.dumps(grade(arguments.submission, project), indent=1))
        except ValueError as error:  # one line for the teacher, all that is wrong
            raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
