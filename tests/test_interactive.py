"""Figures that answer: what the browser computes is what the formulas say."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from vaecm.book import interactive, plots

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FIGURES = {"experts": interactive.product_of_experts, "divergence": interactive.divergence}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_whole_and_asks_nobody(name):
    text = FIGURES[name]().data
    assert "http" not in text
    assert text.count("<input") == len(re.findall(r"<label>[^<]*<input|<label><input", text))
    assert 'role="img" aria-label="' in text
    assert text.count("<output>") == 1


def answer(name, change, tmp_path):
    """What the figure says in words after a change of its controls."""
    late = f"<script>const [...inputs] = document.querySelectorAll('input'); {change}; "
    late += "inputs[0].dispatchEvent(new Event('input', {bubbles: true}));"
    late += "document.title = 'said:' + JSON.stringify(document.querySelector('output').textContent)</script>"
    page = tmp_path / "page.html"
    page.write_text(f"<html><head></head><body>{FIGURES[name]().data}{late}</body></html>", encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom"]
    done = subprocess.run(
        [BROWSER, *options, page.as_uri()], capture_output=True, encoding="utf-8", timeout=120, check=True
    )
    said = json.loads(html.unescape(re.search(r"<title>said:(.*?)</title>", done.stdout)[1]))
    return [float(number) for number in re.findall(r"-?\d+\.\d+", said)]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_the_product_is_that_of_the_formula(tmp_path):
    found = answer("experts", "inputs[4].checked = false; inputs[1].value = 1", tmp_path)
    cover, title = (interactive.EXPERTS[name] for name in ("cover", "title"))
    noise = np.array([[0.0, 0.0], cover["mean"], title["mean"]])
    precision = np.array([[1.0, 1.0], cover["deviation"], title["deviation"]]) ** -2.0
    precision[1] /= 2.0**2  # the cover's deviation is doubled, the sound is gone
    mean = (noise * precision).sum(axis=0) / precision.sum(axis=0)
    np.testing.assert_allclose(found, [*mean, *precision.sum(axis=0) ** -0.5], atol=0.0051)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_the_divergence_is_that_of_the_formula(tmp_path):
    *_, there, back = answer("divergence", "inputs[0].value = 2; inputs[1].value = 0.5", tmp_path)
    m, s = 2.0, 0.5
    assert there == pytest.approx(0.5 * (m**2 + s**2 - 1) - np.log(s), abs=0.0051)
    assert back == pytest.approx(0.5 * ((m**2 + 1) / s**2 - 1) + np.log(s), abs=0.0051)


def test_the_colours_are_those_of_all_figures():
    assert interactive.COLORS == plots.COLORS[:4]
