"""Smaller models do what the larger one does, or differ as they say; exported ones need no framework; the page agrees."""

import html
import json
import re
import shutil
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fits import fitted, parts
from scipy.special import expit, logit

from vaecm import compress, export, schema, serving
from vaecm.predictor import network_inputs, outputs, targets

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_onnx = pytest.mark.skipif(
    not (find_spec("onnx") and find_spec("onnxruntime")), reason="onnx and onnxruntime are not installed"
)
needs_litert = pytest.mark.skipif(not find_spec("ai_edge_litert"), reason="ai-edge-litert is not installed")
FORMATS = [pytest.param("onnx", marks=needs_onnx), pytest.param("litert", marks=needs_litert)]


@cache
def inputs():
    """What the networks read of the test part, and the targets."""
    predictor, test = fitted(), parts()[2]
    return network_inputs(predictor.representation, test, predictor.state), targets(test, predictor.state)


@cache
def student():
    return compress.distil(fitted(), parts()[0], extra=500, hidden=(8, 4), epochs=4)


def heads(network):
    return outputs([network], compress.Voters(), inputs()[0])[0]


def sizes():
    return fitted().representation.sizes()


# --- pruning


def test_the_schedule_rises_from_none_to_the_final_share():
    found = compress.sparsity(np.arange(40), 5, 25, 0.7)
    assert (np.diff(found) >= 0).all()
    assert found[5] == 0
    assert found[25] == found[-1] == pytest.approx(0.7)


def test_pruned_weights_are_gone_and_stay_gone():
    made = compress.MagnitudePruning(0.75, begin=0, end=8, every=4)
    network = compress.tune(
        compress.twin(fitted().networks[0], sizes()), inputs(), steps=12, callbacks=[made]
    )
    assert made.step >= 12
    assert compress.share_of_zeros(network) == pytest.approx(0.75, abs=0.01)


def test_the_smallest_weights_go_first():
    weight = np.random.default_rng(0).normal(size=(7, 9))
    gone = compress.mask_of(weight, 0.4) == 0
    assert gone.sum() == round(0.4 * 63)
    assert np.abs(weight[gone]).max() < np.abs(weight[~gone]).min()


def test_options_of_pruning_are_refused_together():
    with pytest.raises(ValueError, match=r"final must be a number from 0 to 0.999, got 2; .*every must be"):
        compress.MagnitudePruning(2, every=0)
    with pytest.raises(ValueError, match="begin must lie before end, got 9 and 3"):
        compress.MagnitudePruning(begin=9, end=3)


def test_a_twin_gives_the_same():
    network = fitted().networks[0]
    np.testing.assert_array_equal(heads(compress.twin(network, sizes())), heads(network))


def test_units_that_do_nothing_go_without_a_trace():
    network = compress.twin(fitted().networks[0], sizes())
    rng, hidden = np.random.default_rng(0), network.options["hidden"]
    network.heads.kernel.assign(rng.normal(size=network.heads.kernel.shape))
    dead = rng.permutation(hidden[0])[: hidden[0] // 2]
    out = np.array(network.deep[1].kernel)
    out[dead] = 0
    network.deep[1].kernel.assign(out)
    small = compress.narrow(network, sizes(), (hidden[0] - len(dead), hidden[1]))
    np.testing.assert_allclose(heads(small), heads(network), atol=2e-5)
    assert small.count_params() < network.count_params()


def test_no_layer_becomes_wider():
    with pytest.raises(ValueError, match=r"hidden must be at most \[64, 32\], got \[64, 33\]"):
        compress.narrow(fitted().networks[0], sizes(), (64, 33))


# --- other runtimes


@needs_onnx
def test_onnx_gives_what_keras_gives():
    network = fitted().networks[0]
    np.testing.assert_allclose(heads(compress.onnx_network(network, sizes())), heads(network), atol=1e-5)


@needs_litert
def test_litert_gives_what_keras_gives():
    network = fitted().networks[0]
    np.testing.assert_allclose(heads(compress.litert_network(network, sizes())), heads(network), atol=1e-5)


@needs_onnx
def test_eight_bits_are_fewer_bytes_and_nearly_the_same():
    network = fitted().networks[0]
    exact, small = (compress.onnx_network(network, sizes(), int8) for int8 in (False, True))
    assert len(small.content) < 0.5 * len(exact.content)
    gap = expit(heads(small)[:, 0]) - expit(heads(network)[:, 0])
    assert 0 < np.abs(gap).max() < 0.05


@needs_litert
@pytest.mark.parametrize("form", ["dynamic", "int8"])
def test_forms_of_litert_are_nearly_the_same(form):
    network = fitted().networks[0]
    made = compress.litert_network(network, sizes(), form, inputs()[0])
    assert np.abs(expit(heads(made)[:, 0]) - expit(heads(network)[:, 0])).mean() < 0.05


def test_keras_int8_leaves_the_network_as_it_was():
    network = fitted().networks[0]
    before = heads(network)
    gap = expit(heads(compress.keras_int8(network, sizes()))[:, 0]) - expit(before[:, 0])
    np.testing.assert_array_equal(heads(network), before)
    assert np.abs(gap).max() < 0.05


def test_forms_are_refused():
    with pytest.raises(ValueError, match="form must be one of float, dynamic, int8, got 'int4'"):
        export.litert([], {}, "int4")
    with pytest.raises(ValueError, match="int8 needs a sample"):
        export.litert([], {}, "int8")


# --- export of the predictor


@pytest.mark.parametrize("format", FORMATS)
def test_an_exported_predictor_agrees(format, tmp_path):
    predictor, test = fitted(), parts()[2]
    predictor.export(tmp_path / "model", format=format)
    found = serving.load(tmp_path / "model").predict(inputs()[0])
    for name, expected in predictor.predict(test).items():
        np.testing.assert_allclose(found[name], expected, rtol=2e-4, atol=1e-6, err_msg=name)


def test_trees_as_arrays_are_the_trees():
    x = (
        np.random.default_rng(0).normal(size=(3_000, 6)).astype(np.float32).round(1)
    )  # many values on a threshold
    y = x[:, 0] * x[:, 1] + (x[:, 2] > 0)
    import lightgbm

    booster = lightgbm.train({"verbosity": -1, "num_leaves": 9}, lightgbm.Dataset(x, y), 20)
    found = serving.grow(export.flat_trees(booster), x)
    np.testing.assert_allclose(found, booster.predict(x, raw_score=True), rtol=1e-9)


def test_formats_and_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="format must be one of onnx, litert, got 'pickle'"):
        fitted().export(tmp_path / "model", format="pickle")
    with pytest.raises(ValueError, match="holds no exported model"):
        serving.load(tmp_path)


@needs_onnx
def test_an_altered_file_is_named(tmp_path):
    student().export(tmp_path / "model")
    (tmp_path / "model" / "network.onnx").write_bytes(b"")
    with pytest.raises(ValueError, match=r"model: network\.onnx is missing or was altered"):
        serving.load(tmp_path / "model")


ALONE = """
import sys, pickle, numpy as np
from vaecm import serving
with open(sys.argv[2], "rb") as file:
    rows = pickle.load(file)
found = serving.load(sys.argv[1]).predict(rows)
np.savez(sys.argv[3], **found)
print([name for name in ("tensorflow", "keras", "pandas", "lightgbm", "sklearn") if name in sys.modules])
"""


def in_a_fresh_process(folder, rows, tmp_path):
    """What a process gives that loads an export, and which large packages it has imported by then."""
    import pickle

    (tmp_path / "rows.pkl").write_bytes(pickle.dumps(rows))
    files = [str(folder), str(tmp_path / "rows.pkl"), str(tmp_path / "found.npz")]
    done = subprocess.run([sys.executable, "-c", ALONE, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    with np.load(tmp_path / "found.npz") as found:
        return dict(found), done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize("format", FORMATS)
def test_a_server_needs_no_framework(format, tmp_path):
    predictor, test = fitted(), parts()[2]
    predictor.export(tmp_path / "predictor", format=format)
    found, loaded = in_a_fresh_process(tmp_path / "predictor", inputs()[0], tmp_path)
    assert loaded == "[]"
    np.testing.assert_allclose(found["sales"], predictor.predict(test)["sales"], rtol=2e-4, atol=1e-6)
    student().export(tmp_path / "student", format=format)
    rows = compress.plain_rows(student().columns, test, student().vectors)
    found, loaded = in_a_fresh_process(tmp_path / "student", rows, tmp_path)
    assert loaded == "[]"
    np.testing.assert_allclose(found["sales"], student().predict(test)["sales"], rtol=1e-4, atol=1e-6)


# --- students


def test_texts_of_classes_are_those_of_the_schema():
    values = [
        1.0,
        1,
        "1",
        " iOS ",
        None,
        "00123",
        2.5,
        "2.50",
        float("nan"),
        "ﬁ",
        "é",
        "é",
        "",
        True,
        np.int8(3),
    ]
    for value in values:
        assert serving.comparable(value) == schema.canonical([value], casefold=True)[0], repr(value)


def test_plain_columns_are_the_encoders_columns():
    encoder = fitted().representation.features.encoders["content"]
    market = parts()[2]
    columns = [c for c in student().columns if c["name"].startswith("content.") and c["kind"] == "class"]
    found = serving.encode(columns, compress.plain_rows(columns, market, {}))
    expected = encoder.encode(market.content_table())[market.content_rows]
    np.testing.assert_array_equal(found, expected[:, len(encoder.numbers) :])


def test_one_value_counts_for_all_candidates():
    rows = compress.plain_rows(student().columns, parts()[2], student().vectors)
    rows = {name: x[:5] for name, x in rows.items()}
    many = rows | {name: np.repeat(x[:1], 5, axis=0) for name, x in rows.items() if name.startswith("user.")}
    one = rows | {name: x[0] for name, x in rows.items() if name.startswith("user.")}
    np.testing.assert_array_equal(student().effects(one)["ctr"], student().effects(many)["ctr"])


def test_what_is_not_known_is_the_average_and_breaks_nothing():
    found = student().effects({"content.format": ["live", "never seen", None]})
    assert np.isfinite(found["ctr"]).all()
    assert found["ctr"][1] == found["ctr"][2]


def test_a_network_learns_the_probabilities_of_a_teacher():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3_000, 3)).astype(np.float32)
    ctr, cvr = expit(x[:, 0] - 2 + x[:, 1] * x[:, 2]), expit(-1 + 0.5 * x[:, 1])
    told = {"ctr": ctr, "cvr": cvr, "sales": ctr * cvr * np.exp(3 + 0.2 * x[:, 2])}
    weights = compress.distil_network(x, told, hidden=(16,), epochs=60)
    found = serving.effects_of(serving.forward(weights, x).astype(float), [True] * 3)
    assert np.corrcoef(logit(found["ctr"]), logit(ctr))[0, 1] > 0.97
    assert abs(found["ctr"].mean() / ctr.mean() - 1) < 0.05
    assert np.corrcoef(np.log(found["sales"]), np.log(told["sales"]))[0, 1] > 0.95


def test_the_same_seed_gives_the_same_student():
    again = compress.distil(fitted(), parts()[0], extra=500, hidden=(8, 4), epochs=4)
    np.testing.assert_allclose(again.predict(parts()[2]), student().predict(parts()[2]), rtol=1e-5)


def test_a_student_reads_no_history_and_no_outcome():
    from dataclasses import replace

    test = parts()[2]
    bare = test.impressions.drop(columns=["clicked", "converted", "converted_at", "sales"])
    asked = replace(test, impressions=bare, log=None, events=None, truth=None)
    pd.testing.assert_frame_equal(student().predict(asked), student().predict(test))


def test_questions_ask_for_what_was_not_shown_but_could_have_been():
    train = parts()[0]
    asked = compress.questions(train, 2_000, seed=1)
    born = asked.contents["published_at"].to_numpy()[asked.content_rows]
    assert (born <= asked.impressions["time"].to_numpy()).all()
    assert "clicked" not in asked.impressions
    shown = set(zip(train.impressions["user_id"], train.impressions["content_id"], strict=True))
    told = set(zip(asked.impressions["user_id"], asked.impressions["content_id"], strict=True))
    assert len(told - shown) > 100


def test_parts_add_up_to_the_log_odds():
    rows = compress.plain_rows(student().columns, parts()[2], student().vectors)
    found = student().parts(rows)
    assert {"average", "cover", "title", "price", "user", "together"} <= set(found)
    np.testing.assert_allclose(sum(found.values()), logit(student().effects(rows)["ctr"]), atol=1e-5)


def test_one_network_stands_for_all_voters():
    predictor, (train, _, test) = fitted(), parts()
    made = compress.one_network(predictor, train, hidden=(8,), epochs=20)
    assert np.corrcoef(logit(made.predict(train)["ctr"]), logit(predictor.predict(train)["ctr"]))[0, 1] > 0.7
    assert made.predict(test).shape == (len(test.impressions), 4)


def test_options_of_a_student_are_refused():
    with pytest.raises(ValueError, match="extra must be a whole number from 0 on, got -1"):
        compress.distil(fitted(), parts()[0], extra=-1)
    with pytest.raises(ValueError, match=r"hidden\[0\] must be a whole number from 1 on, got 0"):
        compress.distil_network(np.zeros((4, 2), np.float32), {}, hidden=(0,))


# --- the page


ASK = """
addEventListener("load", () => setTimeout(() => {
  const frame = document.querySelector("iframe"), page = frame.contentDocument, at = (name) => page.getElementById(name);
  const set = (name, value, event) => { at(name).value = value; at(name).dispatchEvent(new Event(event)); };
  const tell = () => ({ rate: +at("rate").dataset.rate, parts: JSON.parse(at("rate").dataset.parts) });
  const found = { start: tell() };
  page.querySelector("details").open = true;
  set("content.price", PRICE, "input");
  at("content.cover-0").click();
  set("content.title", 1, "change");
  set("user.age_group", 2, "change");
  set("hour", 7, "input");
  set("content.published_at", DAYS, "input");
  found.changed = tell();
  found.used = [+at("content.price").value, +at("content.published_at").value];
  const inputs = [...page.querySelectorAll("input, select")];
  found.unlabelled = inputs.filter((input) => !input.labels.length).map((input) => input.id);
  found.wide = page.documentElement.scrollWidth;
  const asked = frame.contentWindow.performance.getEntriesByType("resource");
  found.loaded = asked.filter((r) => !r.name.startsWith("data:")).length;
  document.title = "asked:" + JSON.stringify(found);
}, 300));
"""


@cache
def asked_page(folder):
    """What Chromium finds on the page, in a frame as wide as a phone."""
    path = Path(folder) / "student.html"
    compress.page(student(), parts()[2], path)
    script = ASK.replace("PRICE", "100").replace("DAYS", "12")
    text = html.escape(path.read_text(encoding="utf-8"))
    frame = f'<iframe style="width:400px;height:800px;border:0" srcdoc="{text}"></iframe>'
    around = Path(folder) / "around.html"
    around.write_text(f'<meta charset="utf-8"><script>{script}</script>{frame}', encoding="utf-8")
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--virtual-time-budget=4000",
    ]
    done = subprocess.run(
        [BROWSER, *options, "--dump-dom", around.as_uri()],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=True,
    )
    return json.loads(html.unescape(re.search(r"<title>asked:(.*?)</title>", done.stdout, re.DOTALL)[1]))


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    if BROWSER is None:
        pytest.skip("no Chromium on this machine")
    return asked_page(str(tmp_path_factory.mktemp("page")))


def model_of(path):
    """The model that a page holds."""
    line = next(
        line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("const MODEL = ")
    )
    return json.loads(line.removeprefix("const MODEL = ").removesuffix(";").replace("<\\/", "</"))


def rows_of_the_page(values, controls, used=None):
    """The page's values as plain columns: at the start, or after what the test changed."""
    rows = dict(values)
    if used:
        options = {control["name"]: control.get("options") for control in controls}
        rows |= {"content.price": used[0], "content.published_at": used[1]}
        rows |= {
            "content.cover": options["content.cover"][0]["vector"],
            "content.title": options["content.title"][1]["value"],
        }
        rows |= {"user.age_group": options["user.age_group"][2]["value"]}
        rows["context.time"] = rows["context.time"] | {"hour": 7}
    clock = rows["context.time"]
    now = np.datetime64("1970-01-01T00:00") + np.timedelta64(24 * (7 + clock["day"]) + clock["hour"], "h")
    for column in student().columns:
        if column["kind"] == "age" and rows[column["name"]] is not None:
            rows[column["name"]] = now - np.timedelta64(round(rows[column["name"]] * 86_400_000), "ms")
    return rows | {"context.time": now}


@pytest.mark.parametrize("when", ["start", "changed"])
def test_the_page_agrees_with_python(asked, when, tmp_path):
    compress.page(student(), parts()[2], tmp_path / "student.html")
    model = model_of(tmp_path / "student.html")
    rows = rows_of_the_page(model["values"], model["controls"], asked["used"] if when == "changed" else None)
    assert asked[when]["rate"] == pytest.approx(student().effects(rows)["ctr"][0], abs=1e-5)
    for name, value in student().parts(rows).items():
        assert asked[when]["parts"][name] == pytest.approx(value[0], abs=1e-4), name


def test_the_page_changes_with_its_inputs(asked):
    assert asked["start"]["rate"] != asked["changed"]["rate"]


def test_the_page_fits_a_phone_and_every_input_has_a_label(asked):
    assert asked["wide"] <= 400
    assert asked["unlabelled"] == []
    assert asked["loaded"] == 0


def test_the_page_names_no_host(tmp_path):
    compress.page(student(), parts()[2], tmp_path / "student.html")
    assert not re.search(
        r"(?:https?:)?//[\w.-]+\.\w", (tmp_path / "student.html").read_text(encoding="utf-8")
    )
