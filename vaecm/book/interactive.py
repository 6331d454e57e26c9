"""Figures that answer: HTML with its own script, for the page, Jupyter and Colab, without a server.

Every control is one of the browser's own, so keys, fingers and screen readers work. Lines take the colours of the book's
figures, text the colour of the page.
"""

import html
import json
from typing import Any

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # the first of the figures' colours
STYLE = """
.vaecm-try { max-width: 46rem; margin: 1rem 0; }
.vaecm-try svg { width: 100%; height: auto; border: 1px solid rgba(128, 128, 128, 0.4); border-radius: 6px; }
.vaecm-try svg text { font: 13px sans-serif; fill: currentColor; }
.vaecm-try .row { display: flex; flex-wrap: wrap; gap: 0.2rem 1.2rem; align-items: center; margin: 0.2rem 0; }
.vaecm-try .row > label:first-child { min-width: 6.5rem; }
.vaecm-try label { display: inline-flex; gap: 0.5rem; align-items: center; min-height: 2rem; }
.vaecm-try input:focus-visible { outline: 3px solid #0072b2; outline-offset: 2px; }
.vaecm-try output { font-variant-numeric: tabular-nums; }
"""
EXPERTS = {
    "cover": {"mean": (1.6, 0.3), "deviation": (0.5, 1.6)},
    "title": {"mean": (0.2, 1.4), "deviation": (1.8, 0.6)},
    "sound": {"mean": (-0.9, -0.7), "deviation": (1.2, 1.2)},
}
PRODUCT = """
const box = document.getElementById("try-experts"), svg = box.querySelector("svg"), said = box.querySelector("output");
const at = (x, y) => [210 + 60 * x, 150 - 60 * y];
const ellipse = (mean, deviation, color, width, dash) => {
  const [x, y] = at(...mean);
  return `<ellipse cx="${x}" cy="${y}" rx="${60 * deviation[0]}" ry="${60 * deviation[1]}" fill="none"
    stroke="${color}" stroke-width="${width}" stroke-dasharray="${dash}"/>`;
};
const name = (text, mean, deviation) => {
  const [x, y] = at(mean[0], mean[1] + deviation[1]);
  return `<text x="${x}" y="${Math.max(14, y - 5)}" text-anchor="middle">${text}</text>`;
};
const draw = () => {
  const precision = [1, 1], sum = [0, 0];
  let shapes = ellipse([0, 0], [1, 1], "gray", 1.5, "5 4") + `<text x="210" y="225" text-anchor="middle">prior</text>`;
  for (const row of box.querySelectorAll("[data-expert]")) {
    const [there, noise] = row.querySelectorAll("input"), expert = data.experts[row.dataset.expert];
    const deviation = expert.deviation.map((s) => s * 2 ** noise.value);
    noise.disabled = !there.checked;
    if (!there.checked) continue;
    for (const d of [0, 1]) {
      precision[d] += 1 / deviation[d] ** 2;
      sum[d] += expert.mean[d] / deviation[d] ** 2;
    }
    shapes += ellipse(expert.mean, deviation, expert.color, 1.5, "") + name(row.dataset.expert, expert.mean, deviation);
  }
  const mean = sum.map((s, d) => s / precision[d]), deviation = precision.map((p) => p ** -0.5);
  shapes += ellipse(mean, deviation, data.color, 4, "") + `<circle cx="${at(...mean)[0]}" cy="${at(...mean)[1]}" r="4"
    fill="${data.color}"/>`;
  svg.querySelector("g").innerHTML = shapes;
  const two = (pair) => `(${pair.map((v) => v.toFixed(2)).join(", ")})`;
  said.textContent = `product: mean ${two(mean)}, deviation ${two(deviation)}`;
};
box.addEventListener("input", draw);
draw();
"""
DIVERGENCE = """
const box = document.getElementById("try-divergence"), svg = box.querySelector("svg"), said = box.querySelector("output");
const density = (x, m, s) => Math.exp(-0.5 * ((x - m) / s) ** 2) / (s * Math.sqrt(2 * Math.PI));
const line = (f) => Array.from({ length: 211 }, (_, i) => [2 * i, 270 - 200 * f(i / 30 - 3.5)].join(",")).join(" ");
const draw = () => {
  const [m, s] = [...box.querySelectorAll("input")].map((input) => +input.value);
  const there = 0.5 * (m * m + s * s - 1) - Math.log(s), back = 0.5 * ((m * m + 1) / (s * s) - 1) + Math.log(s);
  svg.querySelector("g").innerHTML = `<polyline points="${line((x) => density(x, 0, 1))}" fill="none" stroke="gray"
    stroke-width="2" stroke-dasharray="5 4"/><polyline points="${line((x) => density(x, m, s))}" fill="none"
    stroke="${data.color}" stroke-width="3"/><text x="210" y="293" text-anchor="middle">z, from -3.5 to 3.5</text>`;
  said.textContent = `mean ${m.toFixed(1)}, deviation ${s.toFixed(2)}: KL of q from the prior ` +
    `${there.toFixed(2)} nats, of the prior from q ${back.toFixed(2)} nats`;
};
box.addEventListener("input", draw);
draw();
"""


def product_of_experts() -> Any:
    """Three experts and the prior in two latent dimensions; what is ticked is multiplied, formula (7.5).

    Returns
    -------
    IPython.display.HTML
        A figure with a box to tick and a slider for the noise (a power of two) of each expert.

    Examples
    --------
    >>> product_of_experts()
    <IPython.core.display.HTML object>
    """
    rows = "".join(
        f'<div class="row" data-expert="{name}"><label><input type="checkbox" checked> {name}</label>'
        '<label>noise <input type="range" min="-1" max="3" step="0.1" value="0" '
        f'aria-label="noise of the {name}"></label>'
        "</div>"
        for name in EXPERTS
    )
    colors = dict(zip(EXPERTS, (COLORS[0], COLORS[1], COLORS[2]), strict=True))
    experts = {name: values | {"color": colors[name]} for name, values in EXPERTS.items()}
    title = (
        "Ellipses of one deviation: the prior (dashed), each expert that is ticked, and their product (thick)"
    )
    return figure("experts", rows, title, PRODUCT, {"experts": experts, "color": COLORS[3]})


def divergence() -> Any:
    """A normal q and the standard normal prior, and the divergence between them in both directions.

    Returns
    -------
    IPython.display.HTML
        A figure with a slider for the mean and one for the deviation.

    Examples
    --------
    >>> divergence()
    <IPython.core.display.HTML object>
    """
    rows = (
        '<div class="row"><label>mean <input type="range" min="-3" max="3" step="0.1" value="1"></label>'
        '<label>deviation <input type="range" min="0.15" max="2.5" step="0.05" value="0.5"></label></div>'
    )
    title = "Densities of the prior (dashed) and of q (line)"
    return figure("divergence", rows, title, DIVERGENCE, {"color": COLORS[0]})


def figure(name: str, controls: str, title: str, script: str, data: dict[str, Any]) -> Any:
    """A figure of controls, a drawing and a sentence that says in words what it shows."""
    from IPython.display import HTML

    return HTML(
        f'<div class="vaecm-try" id="try-{name}">\n<style>{STYLE}</style>\n{controls}\n'
        f'<svg viewBox="0 0 420 300" role="img" aria-label="{html.escape(title)}"><g></g></svg>\n'
        f"<p>{html.escape(title)}.</p>\n<output></output>\n"
        f"<script>(() => {{\nconst data = {json.dumps(data)};\n{script}}})();</script>\n</div>"
    )
