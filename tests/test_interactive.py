"""Figures that answer: what the browser computes is what the formulas say."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.interpolate import RegularGridInterpolator

from vaecm.book import interactive, plots

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PICTURES = np.random.default_rng(0).integers(0, 64, size=(4, 4, 5, 3)) / 63
PLACES = {"bag": (1.0, 1.0), "boot": (-1.0, -2.0)}
DRAW = np.random.default_rng(1)
USERS = pd.DataFrame({
    "requests": DRAW.integers(1, 200, 150), "bot": DRAW.random(150) < 0.4, "impressions": DRAW.integers(200, 400, 150),
    "clicks": DRAW.integers(0, 200, 150),
})  # fmt: skip
PREDICTED, TRUE = DRAW.gamma(2, 0.2, 50), DRAW.gamma(2, 0.15, 50)
FIGURES = {
    "experts": interactive.product_of_experts,
    "divergence": interactive.divergence,
    "intervals": interactive.rate_intervals,
    "latents": lambda: interactive.latent_explorer(PICTURES, PLACES, edge=3.0),
    "bots": lambda: interactive.bot_threshold(USERS),
    "promoted": lambda: interactive.promotion_regret(PREDICTED, TRUE, cost=0.24),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_whole_and_asks_nobody(name):
    text = FIGURES[name]().data
    assert "http" not in text
    assert text.count("<input") == len(re.findall(r"<label>[^<]*<input|<label><input", text))
    assert re.search(r'<svg[^>]* role="(img|application)"[^>]* aria-label="[^"]+"', text)
    assert text.count("<output>") == 1


def answer(name, change, tmp_path, wanted="document.querySelector('output').textContent"):
    """What the figure says in words, or anything else that is wanted, after a change of its controls."""
    late = "<script>addEventListener('load', () => { setTimeout(() => {"
    late += f"const [...inputs] = document.querySelectorAll('input'); {change}; "
    late += "inputs[0].dispatchEvent(new Event('input', {bubbles: true}));"
    late += f"document.title = 'said:' + JSON.stringify({wanted}); }}, 200); }});</script>"
    page = tmp_path / "page.html"
    page.write_text(f"<html><head></head><body>{FIGURES[name]().data}{late}</body></html>", encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    options += ["--virtual-time-budget=3000", "--dump-dom"]
    done = subprocess.run(
        [BROWSER, *options, page.as_uri()], capture_output=True, encoding="utf-8", timeout=120, check=True
    )
    return json.loads(html.unescape(re.search(r"<title>said:(.*?)</title>", done.stdout)[1]))


def numbers(said):
    return [float(number) for number in re.findall(r"-?\d+\.\d+", said)]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_the_product_is_that_of_the_formula(tmp_path):
    found = numbers(answer("experts", "inputs[4].checked = false; inputs[1].value = 1", tmp_path))
    cover, title = (interactive.EXPERTS[name] for name in ("cover", "title"))
    noise = np.array([[0.0, 0.0], cover["mean"], title["mean"]])
    precision = np.array([[1.0, 1.0], cover["deviation"], title["deviation"]]) ** -2.0
    precision[1] /= 2.0**2  # the cover's deviation is doubled, the sound is gone
    mean = (noise * precision).sum(axis=0) / precision.sum(axis=0)
    np.testing.assert_allclose(found, [*mean, *precision.sum(axis=0) ** -0.5], atol=0.0051)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_the_divergence_is_that_of_the_formula(tmp_path):
    *_, there, back = numbers(answer("divergence", "inputs[0].value = 2; inputs[1].value = 0.5", tmp_path))
    m, s = 2.0, 0.5
    assert there == pytest.approx(0.5 * (m**2 + s**2 - 1) - np.log(s), abs=0.0051)
    assert back == pytest.approx(0.5 * ((m**2 + 1) / s**2 - 1) + np.log(s), abs=0.0051)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize(("k", "n"), [(0, 150), (10, 500), (37, 1000), (50, 10)])
def test_the_intervals_are_those_of_scipy(k, n, tmp_path):
    found = numbers(answer("intervals", f"inputs[0].value = {n}; inputs[1].value = {k}", tmp_path))
    k = min(k, n)  # the figure has no more clicks than impressions
    half = stats.norm.ppf(0.975) * np.sqrt(k / n * (1 - k / n) / n)
    test = stats.binomtest(k, n)
    both = [test.proportion_ci(0.95, method=method) for method in ("wilson", "exact")]
    right = [k / n - half, k / n + half, *(end for ends in both for end in ends)]
    np.testing.assert_allclose(found, 100 * np.array(right), atol=0.0051)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("threshold", [8, 61, 160])
def test_the_rate_of_the_rest_is_that_of_pandas(threshold, tmp_path):
    said = answer("bots", f"inputs[0].value = {threshold}", tmp_path)
    out, readers = USERS["requests"] >= threshold, USERS[~USERS["bot"]]
    lost, rest = readers[readers["requests"] >= threshold], USERS[~out]
    assert [int(n) for n in re.findall(r"(\d+) of (\d+) (?:bots|readers)", said) for n in n] == [
        *((out & USERS["bot"]).sum(), USERS["bot"].sum()),
        *(len(lost), len(readers)),
    ]
    sums = [part[["impressions", "clicks"]].sum() for part in (rest, readers)]
    rates = [part["clicks"] / part["impressions"] for part in sums]
    share = lost["impressions"].sum() / readers["impressions"].sum()
    np.testing.assert_allclose(numbers(said), 100 * np.array([share, *rates]), atol=0.0051)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize(("n", "cost"), [(0, 0.24), (17, 0.1), (50, 0.6)])
def test_the_regret_is_that_of_numpy_and_its_parts_are_not_negative(n, cost, tmp_path):
    said = answer("promoted", f"inputs[0].value = {n}; inputs[1].value = {cost}", tmp_path)
    chosen = np.argsort(-PREDICTED)[:n]
    fair = np.append(0, 20 * np.cumsum(np.sort(TRUE)[::-1] - cost))  # 1000 impressions, 50 reviews
    promised, paid = (20 * (values[chosen] - cost).sum() for values in (PREDICTED, TRUE))
    regret, order, number = fair.max() - paid, fair[n] - paid, fair.max() - fair[n]
    right = [cost, promised, paid, fair.max(), regret, order, number]
    np.testing.assert_allclose(numbers(said), right, atol=0.0511)
    assert f"{n} of 50 reviews" in said
    assert f"best choice, {np.sum(TRUE > cost)} reviews" in said
    assert min(order, number) > -1e-9


PIXELS = "[...document.querySelector('canvas').getContext('2d').getImageData(0, 0, 3, 5).data]"
KEY = "document.querySelector('svg').dispatchEvent(new KeyboardEvent('keydown', {key: '%s', shiftKey: %s}))"


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("z", [(0.0, 0.0), (-3.0, 3.0), (3.0, -3.0), (1.37, -2.2)])
def test_the_picture_is_mixed_of_the_four_around_the_point(z, tmp_path):
    change = f"inputs[0].value = {z[0]}; inputs[1].value = {z[1]}"
    found = np.reshape(answer("latents", change, tmp_path, PIXELS), (5, 3, 4))
    side = np.linspace(-3, 3, 4)
    mix = RegularGridInterpolator((side, side), PICTURES[::-1])  # the first row is the highest
    np.testing.assert_allclose(found[..., 0], 255 * mix((z[1], z[0])), atol=1.01)
    assert (found[..., :3] == found[..., :1]).all()
    assert (found[..., 3] == 255).all()


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_arrow_keys_move_the_point_and_the_text_says_where(tmp_path):
    keys = "; ".join(
        [KEY % ("ArrowRight", "true"), KEY % ("ArrowRight", "false"), KEY % ("ArrowDown", "true")]
    )
    said = answer("latents", keys, tmp_path)
    assert numbers(said) == [0.6, -0.5, pytest.approx(np.hypot(0.4, 1.5), abs=0.0051)]
    assert "bag" in said


def test_the_grid_is_the_one_that_is_drawn():
    grid = interactive.latent_grid(15, edge=2.5)
    assert grid.shape == (15, 15, 2)
    np.testing.assert_allclose(grid[0, 0], [-2.5, 2.5])
    np.testing.assert_allclose(grid[-1, 7], [0.0, -2.5], atol=1e-12)


def test_pictures_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\(n, n, H, W\), got \(2, 3, 4, 4\)"):
        interactive.latent_explorer(np.zeros((2, 3, 4, 4)))
    with pytest.raises(ValueError, match="between 0 and 1"):
        interactive.latent_explorer(np.full((2, 2, 4, 4), 255.0))


def test_tables_that_do_not_fit_are_refused_with_all_that_is_wrong():
    with pytest.raises(ValueError, match=r"lacks the column bot; .*start <= high must hold, got 8, 200, 160"):
        interactive.bot_threshold(USERS.drop(columns="bot"), start=200)
    with pytest.raises(
        ValueError, match=r"one shape .*\(2,\) and \(1,\); .* finite; cost must be above 0, got 0"
    ):
        interactive.promotion_regret([0.1, np.nan], [0.1], cost=0)


def test_the_colours_are_those_of_all_figures():
    assert interactive.COLORS == plots.COLORS[:4]
