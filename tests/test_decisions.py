"""The benchmark of decisions: rows are stored one by one, a run goes on where it stopped, shares are what they say."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import benchmarks
from benchmarks import decisions
from benchmarks.store import Store


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmarks, "RESULTS", tmp_path)
    return tmp_path


@pytest.fixture
def taken(monkeypatch):
    """Decisions that need no model, and the list of those that were taken."""
    done = []

    def decide(name):
        def of(deciders, seed):
            done.append((name, seed))
            return pd.Series([0.0, 1.0, 2.0 + seed, 3.0, 4.0], index=decisions.MODELS)

        return of

    monkeypatch.setattr(decisions, "Deciders", lambda *_: None)
    monkeypatch.setattr(decisions, "DECISIONS", {name: decide(name) for name in ("promotion", "feed")})
    return done


def test_a_run_goes_on_where_it_stopped(folder, taken, capsys):
    decisions.main(["--seeds", "0", "--decisions", "feed"])
    decisions.main(["--seeds", "0", "1"])
    assert taken == [("feed", 0), ("promotion", 0), ("promotion", 1), ("feed", 1)]
    rows = json.loads((folder / "decisions.json").read_text())["rows"]
    assert len(rows) == 2 * 2 * len(decisions.MODELS)
    assert "vaecm minus LightGBM" in capsys.readouterr().out


def test_shares_lead_from_chance_to_the_oracle(folder, taken):
    decisions.main(["--seeds", "0", "--decisions", "feed"])
    rows = Store("decisions", json.loads((folder / "decisions.json").read_text())["settings"]).read()["rows"]
    share = {row["model"]: row["parts"]["all"]["share_of_oracle"] for row in rows}
    assert share == {"random": 0.0, "rule of thumb": 0.25, "LightGBM": 0.5, "vaecm": 0.75, "oracle": 1.0}


def test_lightgbm_gets_the_settings_that_the_protocol_found(folder):
    assert decisions.tuned("protocol") is None
    store = Store("protocol", {"n": 1})
    store.add_tuned("LightGBM, statistics", settings={"num_leaves": 7}, loss=0.2, trials=8)
    assert decisions.tuned("protocol") == {"num_leaves": 7}
