"""The shell: one clear message when something is wrong, a CSV when all is well."""

import pandas as pd
import pytest
from test_own_data import shop, write

from vaecm.__main__ import main, predict_in_parts, write_csv
from vaecm.market import MarketError, load_market


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "shop", shop())


def test_check_lists_columns_and_says_that_all_is_well(folder, capsys):
    assert main(["check", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "60 users, 40 contents, 600 impressions" in out
    assert "membership" in out
    assert "nothing is wrong" in out


def test_check_tells_what_clean_repairs(folder, tmp_path, capsys):
    tables = shop()
    tables["users"].loc[0, "device"] = " IOS"
    assert main(["check", str(write(tmp_path / "other", tables))]) == 0
    out = capsys.readouterr().out
    assert "users.device: differs from a usual spelling" in out
    assert "usual spelling" in out.partition("clean repairs it")[2]


def test_check_names_everything_that_is_wrong_once(folder, capsys):
    (folder / "users.csv").write_text("")
    (folder / "contents.csv").write_text('content_id\n"open\n')
    assert main(["check", str(folder)]) == 1
    captured = capsys.readouterr()
    assert "users.csv: is empty" in captured.err
    assert "contents.csv: a quote is opened and not closed" in captured.err
    assert captured.err.count("error:") == 1
    assert "Traceback" not in captured.err


def test_impressions_to_come_can_be_checked(folder, capsys):
    shown = pd.read_csv(folder / "impressions.csv").drop(columns="clicked")
    shown.to_csv(folder / "impressions.csv", index=False)
    assert main(["check", str(folder)]) == 1
    assert "impressions.clicked: column is missing" in capsys.readouterr().err
    assert main(["check", str(folder), "--planned"]) == 0


def test_roles_of_a_file(folder, tmp_path, capsys):
    (tmp_path / "roles.json").write_text('{"users": {"membership": "ignore"}}')
    assert main(["check", str(folder), "--roles", str(tmp_path / "roles.json")]) == 0
    assert "set by name" in capsys.readouterr().out
    (tmp_path / "roles.json").write_text("[1]")
    assert main(["check", str(folder), "--roles", str(tmp_path / "roles.json")]) == 1
    assert "roles.json" in capsys.readouterr().err


def test_fit_and_predict_name_all_their_problems(folder, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    assert main(["fit", str(tmp_path / "no"), "--out", str(tmp_path / "mine"), "--set", "epoks=3"]) == 1
    error = capsys.readouterr().err
    for words in ("3 problems", "epoks", "no: is not there", "mine: holds files"):
        assert words in error
    arguments = ["predict", str(folder), str(folder / "users.csv"), "--out", str(tmp_path), "--draws", "-1"]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    for words in (
        "has no readable manifest",
        "is a file, not a folder",
        "--draws",
        "is a folder; it must be a file",
    ):
        assert words in error


class Mean:
    """A predictor that says the same of all, and counts how often it is asked."""

    calls = 0

    def predict(self, market, draws=0):
        self.calls += 1
        return pd.DataFrame(
            {"ctr": 0.1}, index=pd.Index(market.impressions["impression_id"], name="impression_id")
        )


def test_wrong_options_are_named_together(folder, tmp_path, capsys):
    wrong = ("epoks=3", "units=0", "beta", "hidden=x", "epocs")
    bad = [part for pair in wrong for part in ("--set", pair)] + ["--seed", "-5"]
    assert main(["fit", str(folder), "--out", str(tmp_path / "model"), *bad]) == 1
    error = capsys.readouterr().err
    assert error.count("\n  - ") == 5
    for words in (
        "error: 5 problems:",
        "--set epoks=3, epocs: no such option; there are latent_dim, ",
        "units must be a whole number from 1 to 4096, got 0",
        "--set beta",
        "hidden=x",
        "seed",
        "-5",
    ):
        assert words in error
    assert main(["predict", str(tmp_path), str(folder), "--out", str(tmp_path / "effects.xlsx")]) == 1
    assert "effects.xlsx must end in .csv or .csv.gz" in capsys.readouterr().err


def test_parts_are_predicted_in_order(folder, monkeypatch, capsys):
    monkeypatch.setattr("vaecm.__main__.ROWS_AT_ONCE", 250)
    market, mean = load_market(folder), Mean()
    effects = predict_in_parts(mean, market)
    assert effects.index.tolist() == market.impressions["impression_id"].tolist()
    assert mean.calls == 3
    assert "100%" in capsys.readouterr().err


def test_the_csv_is_whole_or_what_it_was(tmp_path):
    table = pd.DataFrame({"ctr": [0.25]}, index=pd.Index([7], name="impression_id"))
    for name in ("a.csv", "a.csv.gz"):
        write_csv(table, tmp_path / "new" / name)
        pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "new" / name, index_col=0), table)

    class Stop(pd.DataFrame):
        def to_csv(self, *args, **kwargs):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_csv(Stop(table), tmp_path / "new" / "a.csv")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["a.csv", "a.csv.gz"]
    assert len(pd.read_csv(tmp_path / "new" / "a.csv")) == 1


def test_from_files_to_predictions(folder, tmp_path, capsys):
    model, out = tmp_path / "model", tmp_path / "effects.csv"
    tiny = [part for pair in ("vae_steps=5", "epochs=1", "ensemble=1") for part in ("--set", pair)]
    assert main(["fit", str(folder), "--out", str(model), *tiny]) == 0, capsys.readouterr().err
    assert main(["predict", str(model), str(folder), "--out", str(out)]) == 0, capsys.readouterr().err
    effects = pd.read_csv(out, index_col="impression_id")
    assert effects.index.tolist() == [f"i{k:05d}" for k in range(600)]
    assert effects["ctr"].between(0, 1, inclusive="neither").all()
    assert main(["check", str(model)]) == 1
    assert "this is a predictor, not a market" in capsys.readouterr().err
    with pytest.raises(MarketError, match="this is a predictor"):
        load_market(model)
