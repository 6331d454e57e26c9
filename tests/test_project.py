"""The course's project: what a student gets tells no truth, and marks follow what is handed in."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import project  # noqa: E402

import vaecm  # noqa: E402

SMALL = (("n_users", 300), ("n_contents", 250), ("n_impressions", 8_000), ("days", 30))


@pytest.fixture(scope="module")
def made():
    return project.Project(987654321, "lee", SMALL)


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory):
    place = tmp_path_factory.mktemp("project") / "lee"
    project.write(made, place)
    return place


def hand_in(folder, predictions, decision):
    folder.mkdir(exist_ok=True)
    predictions.to_csv(folder / "predictions.csv", index=False)
    pd.DataFrame({"content_id": decision}).to_csv(folder / "decision.csv", index=False)
    return folder


def test_the_student_gets_no_truth_and_nothing_of_the_days_after(folder, made):
    market = vaecm.load_market(folder / "market")
    end = pd.read_csv(folder / "questions.csv", parse_dates=["time"])["time"].min()
    assert market.truth is None
    assert market.oracle is None
    assert market.factors is None
    assert market.impressions["time"].max() < end
    assert market.events["time"].max() < end
    assert not (market.impressions["converted_at"] >= end).any()
    for name in ("questions.csv", "promotion.csv"):
        assert not set(pd.read_csv(folder / name)) & {*project.OUTCOMES, "p_click"}
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert {"brief.md", "report.md", "rubric.md", "decision.csv"} <= names
    assert str(made.seed) not in "".join(path.read_text() for path in folder.glob("*.md"))
    assert f"An impression costs {made.cost:.2f} yuan" in (folder / "brief.md").read_text(encoding="utf-8")


def test_the_same_seed_and_student_give_the_same_market_and_another_student_another():
    assert project.market_seed(5, "lee") == project.market_seed(5, "lee") != project.market_seed(5, "kim")


def test_the_truth_gets_all_points_the_baseline_sixty_per_cent_and_a_guess_none(made, tmp_path):
    ids = made.parts[1].impressions["impression_id"].to_numpy()
    true = made.parts[1].truth["p_click"].to_numpy(float)
    values = made.piece_values
    truth = hand_in(
        tmp_path / "t", pd.DataFrame({"impression_id": ids, "ctr": true}), values.index[values > 0]
    )
    found = project.grade(truth, made)
    assert found["points"] == {"prediction": 25.0, "decision": 15.0}
    assert found["share of the way to the truth"]["share"] == pytest.approx(1, abs=1e-4)

    rate = np.full(len(ids), made.known.impressions["clicked"].mean())
    guess = hand_in(tmp_path / "g", pd.DataFrame({"impression_id": ids, "ctr": rate}), [])
    assert project.grade(guess, made)["points"] == {"prediction": 0.0, "decision": 0.0}


def test_points_are_a_line_through_three_marks():
    assert [project.points(v, 0.2, 1.0, 10) for v in (-1, 0, 0.1, 0.2, 0.4, 0.6, 1)] == [
        0,
        0,
        3,
        6,
        8,
        10,
        10,
    ]
    assert project.points(0.1, -5, 1.0, 10) == 6


def test_a_bad_submission_is_told_all_that_is_wrong(made, tmp_path):
    with pytest.raises(ValueError, match=r"predictions\.csv is missing; decision\.csv is missing"):
        project.read_submission(tmp_path, made)
    bad = pd.DataFrame({"impression_id": [1, 1], "ctr": [0.0, 0.5]})
    message = "each impression_id .* once; .* between 0 and 1; .* at most once"
    with pytest.raises(ValueError, match=message):
        project.read_submission(hand_in(tmp_path / "bad", bad, [-7]), made)


def test_the_example_submission_can_be_read_and_earns_no_points_for_predictions(folder, made):
    found = project.grade(folder / "submission_example", made)
    assert found["points"]["prediction"] == 0.0
    assert found["promoted"] == 10
