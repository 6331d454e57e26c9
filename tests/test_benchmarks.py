"""Laws of the benchmarks: results are swapped in whole, and means over seeds carry Student's interval."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import benchmarks
from benchmarks import page
from benchmarks.quality import over_seeds, records


def test_a_failed_write_leaves_the_last_result(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmarks, "RESULTS", tmp_path)
    benchmarks.write("speed", {"seconds": 1.5})
    with pytest.raises(ValueError, match="JSON"):
        benchmarks.write("speed", {"seconds": float("nan")})
    assert [file.name for file in tmp_path.iterdir()] == ["speed.json"]
    kept = json.loads((tmp_path / "speed.json").read_text())
    assert kept["seconds"] == 1.5
    assert kept["machine"]["cores"] >= 1
    assert kept["machine"]["packages"]["numpy"] == np.__version__


def test_mean_over_seeds_has_students_interval():
    values = [0.2, 0.25, 0.33]
    rows = pd.DataFrame(
        {"part": "all", "model": "m", "metric": "ctr_auc", "seed": [1, 2, 3], "value": values}
    )
    row = over_seeds(rows).iloc[0]
    low, high = stats.t.interval(0.95, df=2, loc=np.mean(values), scale=stats.sem(values))
    assert row[["mean", "low", "high"]].tolist() == pytest.approx([np.mean(values), low, high])


def test_records_hold_plain_values_and_none_for_what_is_not_a_number():
    table = pd.DataFrame({"seed": [np.int64(3)], "value": [np.nan], "low": [0.12345678]})
    assert records(table) == [{"seed": 3, "value": None, "low": 0.123457}]


def test_the_page_of_the_book_shows_the_stored_results():
    assert page.PAGE.read_text(encoding="utf-8") == page.page(), "python -m benchmarks.page writes it anew"


def test_every_benchmark_has_a_section_of_the_page():
    scripts = {path.stem for path in Path(benchmarks.__file__).parent.glob("*.py")}
    assert set(page.SECTIONS) == scripts - {"__init__", "__main__", "page"}
