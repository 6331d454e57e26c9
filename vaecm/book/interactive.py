"""Figures that answer: HTML with its own script, for the page, Jupyter and Colab, without a server.

Every control is one of the browser's own, so keys, fingers and screen readers work. Lines take the colours of the book's
figures, text the colour of the page.
"""

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from vaecm.options import refuse

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # the first of the figures' colours
# What a model promises, what is paid, what the best order would pay.
PROMISES = (COLORS[1], COLORS[0], "gray")
STYLE = """
.vaecm-try { max-width: 46rem; margin: 1rem 0; }
.vaecm-try svg { width: 100%; height: auto; border: 1px solid rgba(128, 128, 128, 0.4); border-radius: 6px; }
.vaecm-try svg text { font: 13px sans-serif; fill: currentColor; }
.vaecm-try .row { display: flex; flex-wrap: wrap; gap: 0.2rem 1.2rem; align-items: center; margin: 0.2rem 0; }
.vaecm-try .row > label:first-child { min-width: 6.5rem; }
.vaecm-try .wide label { width: 28rem; justify-content: space-between; }
.vaecm-try .wide input { width: min(18rem, 45vw); }
.vaecm-try label { display: inline-flex; gap: 0.5rem; align-items: center; min-height: 2rem; }
.vaecm-try input:focus-visible, .vaecm-try svg:focus-visible { outline: 3px solid #0072b2; outline-offset: 2px; }
.vaecm-try .pair { display: flex; flex-wrap: wrap; gap: 0.8rem; align-items: flex-start; }
.vaecm-try .pair svg { flex: 1 1 16.5rem; max-width: 24rem; cursor: crosshair; touch-action: none; }
.vaecm-try canvas { flex: 0 1 12rem; width: 9rem; image-rendering: pixelated; border-radius: 6px; }
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

INTERVALS = """
const box = document.getElementById("try-intervals"), svg = box.querySelector("svg"), said = box.querySelector("output");
const [shown, clicked] = box.querySelectorAll("input"), q = 1.959964;
const some = (k, n, p) => {  // the chance of k clicks or fewer in n
  let term = n * Math.log1p(-p), sum = Math.exp(term);
  for (let i = 1; i <= k; i++) sum += Math.exp(term += Math.log((n - i + 1) / i * p / (1 - p)));
  return sum;
};
const where = (k, n, chance) => {  // the rate at which that is the chance
  let [low, high] = [0, 1];
  for (let step = 0; step < 50; step++) {
    const p = (low + high) / 2;
    if (some(k, n, p) > chance) low = p; else high = p;
  }
  return low;
};
const draw = () => {
  const n = +shown.value, k = Math.min(+clicked.value, n), p = k / n, half = q * Math.sqrt(p * (1 - p) / n);
  const middle = (p + q * q / (2 * n)) / (1 + q * q / n);
  const wide = q * Math.sqrt(p * (1 - p) / n + q * q / (4 * n * n)) / (1 + q * q / n);
  const found = {
    plain: [p - half, p + half],
    Wilson: [Math.max(0, middle - wide), Math.min(1, middle + wide)],
    exact: [k ? where(k - 1, n, 0.975) : 0, k < n ? where(k, n, 0.025) : 1],
  };
  const most = Math.max(...Object.values(found).map((ends) => ends[1])), at = (x) => 100 + 300 * x / most;
  let shapes = `<line x1="${at(0)}" x2="${at(0)}" y1="20" y2="230" stroke="gray"/>
    <line x1="${at(p)}" x2="${at(p)}" y1="20" y2="230" stroke="gray" stroke-dasharray="5 4"/>
    <text x="${at(0)}" y="255" text-anchor="middle">0 %</text>
    <text x="${at(most)}" y="255" text-anchor="end">${(100 * most).toFixed(2)} %</text>
    <text x="250" y="285" text-anchor="middle">click rate</text>`;
  Object.entries(found).forEach(([name, [low, high]], row) => {
    const y = 60 + 65 * row;
    shapes += `<text x="${at(p) + 8}" y="${y - 12}">${name}</text>
      <line x1="${at(low)}" x2="${at(high)}" y1="${y}" y2="${y}" stroke="${data.colors[row]}" stroke-width="5"/>
      <circle cx="${at(p)}" cy="${y}" r="6" fill="${data.colors[row]}"/>`;
  });
  svg.querySelector("g").innerHTML = shapes;
  const percent = (x) => `${(100 * x).toFixed(2)}\u00a0%`;
  const ends = Object.entries(found).map(([name, pair]) => `${name} ${pair.map(percent).join(" to ")}`).join("; ");
  said.textContent = `${k} of ${n} impressions clicked. ${ends}`;
};
box.addEventListener("input", draw);
draw();
"""

BOTS = """
const box = document.getElementById("try-bots"), svg = box.querySelector("svg"), said = box.querySelector("output");
const input = box.querySelector("input"), { users, all, readers, bots, low, high } = data;
const most = Math.max(high, ...users.map((user) => user[0]));
const at = (requests) => 70 + 330 * Math.log(requests / low) / Math.log(most / low);
const percent = (x, digits) => `${(100 * x).toFixed(digits)}\u00a0%`;  // no break before the sign
const sums = (t) => {  // of those at or above the threshold: bots, readers, readers' impressions; the rate of the rest
  let [caught, lost, seen, impressions, clicks] = [0, 0, 0, ...all];
  for (const [requests, bot, shown, clicked] of users) {
    if (requests < t) continue;
    if (bot) caught++; else { lost++; seen += shown; }
    impressions -= shown;
    clicks -= clicked;
  }
  return { caught, lost, seen, rate: clicks / impressions };
};
const right = readers[2] / readers[1], whole = all[1] / all[0];
const path = Array.from({ length: high - low + 1 }, (_, i) => [low + i, sums(low + i).rate]);
const rates = [whole, right, ...path.map((pair) => pair[1])], floor = Math.min(...rates);
const up = (rate) => 240 - 95 * (rate - floor) / (Math.max(...rates) - floor || 1);
const level = (rate, name) => `<line x1="70" x2="400" y1="${up(rate)}" y2="${up(rate)}" stroke="gray"
  stroke-dasharray="5 4"/><text x="400" y="${up(rate) - 5}" text-anchor="end">${name} ${percent(rate, 1)}</text>`;
const dot = ([requests, bot], i, t) => {
  const color = data.colors[bot], y = (bot ? 92 : 42) + 6 * (i * 3 % 5 - 2);
  return `<circle cx="${at(requests)}" cy="${y}" r="4" stroke="${color}" stroke-width="1.5" fill="${
    requests < t ? "none" : color}"/>`;
};
const tick = (n) => `<text x="${at(n)}" y="268" text-anchor="middle">${n}</text>`;
const draw = () => {
  const t = +input.value, found = sums(t);
  svg.querySelector("g").innerHTML = `<rect x="${at(t)}" y="8" width="${408 - at(t)}" height="242" fill="gray"
    opacity="0.15"/><line x1="${at(t)}" x2="${at(t)}" y1="8" y2="250" stroke="currentColor"/>` +
    users.map((user, i) => dot(user, i, t)).join("") + level(whole, "whole log") + level(right, "readers alone") +
    `<polyline points="${path.map(([n, rate]) => [at(n), up(rate)].join(",")).join(" ")}" fill="none"
    stroke="${data.colors[2]}" stroke-width="3"/>
    <circle cx="${at(t)}" cy="${up(found.rate)}" r="6" fill="${data.colors[2]}"/>
    <text x="6" y="46">readers</text><text x="6" y="96">bots</text><text x="6" y="186">click rate</text>
    <text x="6" y="202">of the rest</text>` +
    [10, 30, 100, 300].filter((n) => n >= low && n <= most).map(tick).join("") +
    `<text x="235" y="291" text-anchor="middle">requests within ten minutes (logarithmic)</text>`;
  said.textContent = `From ${t} requests on: ${found.caught} of ${bots} bots caught; ${found.lost} of ` +
    `${readers[0]} readers thrown out, with ${percent(found.seen / readers[1], 2)} of their impressions; ` +
    `click rate of the rest ${percent(found.rate, 2)}, of readers alone ${percent(right, 2)}`;
};
box.addEventListener("input", draw);
draw();
"""
PROMOTED = """
const box = document.getElementById("try-promoted"), svg = box.querySelector("svg"), said = box.querySelector("output");
const [number, price] = box.querySelectorAll("input"), { told, real } = data, all = told.length;
const fairest = [...real].sort((a, b) => b - a);
const sums = (values, cost) => {  // yuan per thousand impressions offered, for the first 0, 1, 2, ... pieces
  let sum = 0;
  return [0, ...values.map((value) => sum += 1000 * (value - cost) / all)];
};
const peak = (line) => line.indexOf(Math.max(...line));
const draw = () => {
  const n = +number.value, cost = +price.value;
  const lines = [told, real, fairest].map((values) => sums(values, cost)), [promised, paid, best] = lines;
  const [low, high] = [Math.min(0, ...lines.flat()), Math.max(1, ...lines.flat())];
  const at = (k) => 56 + 344 * k / all, up = (yuan) => 28 + 212 * (high - yuan) / (high - low);
  const step = [10, 20, 50, 100, 200, 500, 1000, 1e4].find((size) => (high - low) / size < 6) || 1e5;
  let shapes = '<text x="50" y="17" text-anchor="end">yuan</text>';
  for (let yuan = Math.ceil(low / step) * step; yuan <= high; yuan += step)
    shapes += `<line x1="56" x2="400" y1="${up(yuan)}" y2="${up(yuan)}" stroke="gray" opacity="${yuan ? 0.3 : 1}"/>
      <text x="50" y="${up(yuan) + 4}" text-anchor="end">${yuan}</text>`;
  shapes += `<line x1="${at(n)}" x2="${at(n)}" y1="28" y2="240" stroke="currentColor"/>`;
  lines.forEach((line, i) => {
    shapes += `<polyline points="${line.map((yuan, k) => [at(k), up(yuan)].join(",")).join(" ")}" fill="none"
      stroke="${data.colors[i]}" stroke-width="${i === 2 ? 2 : 3}" ${i === 1 ? "" : 'stroke-dasharray="6 4"'}/>
      <circle cx="${at(n)}" cy="${up(line[n])}" r="5" fill="${data.colors[i]}"/>`;
  });
  ["promised", "paid", "best order"].forEach((name, i) => {
    shapes += `<line x1="${60 + 125 * i}" x2="${84 + 125 * i}" y1="13" y2="13" stroke="${data.colors[i]}" stroke-width="3"
      ${i === 1 ? "" : 'stroke-dasharray="6 4"'}/><text x="${90 + 125 * i}" y="17">${name}</text>`;
  });
  svg.querySelector("g").innerHTML = shapes + [0, all / 2, all].map((k) =>
    `<text x="${at(k)}" y="264" text-anchor="middle">${Math.round(k)}</text>`).join("") +
    `<text x="228" y="289" text-anchor="middle">reviews promoted, the most promising first</text>`;
  const top = peak(best), one = (yuan) => yuan.toFixed(1);
  said.textContent = `${n} of ${all} reviews promoted at ${cost.toFixed(2)} yuan a place: promised ` +
    `${one(promised[n])}, paid ${one(paid[n])} yuan per thousand impressions offered. The best choice, ${top} reviews, ` +
    `pays ${one(best[top])}: regret ${one(best[top] - paid[n])}, of which ${one(best[n] - paid[n])} for the order and ` +
    `${one(best[top] - best[n])} for the number`;
};
box.addEventListener("input", draw);
draw();
"""

EXPLORER = """
const box = document.getElementById("try-latents"), svg = box.querySelector("svg"), said = box.querySelector("output");
const canvas = box.querySelector("canvas"), pen = canvas.getContext("2d"), [across, up] = box.querySelectorAll("input");
const { n, height, width, edge } = data, sheet = new Image();
const place = (z) => [150 + 150 * z[0] / edge, 150 - 150 * z[1] / edge];
const ring = (r) => `<circle cx="150" cy="150" r="${150 * r / edge}" fill="none" stroke="gray" stroke-dasharray="5 4"/>`;
const label = ([name, z]) => `<text x="${place(z)[0]}" y="${place(z)[1] + 4}" text-anchor="middle">${name}</text>`;
let grey;
const cell = (z) => {
  const at = (z + edge) / (2 * edge) * (n - 1), low = Math.min(Math.floor(at), n - 2);
  return [low, at - low];
};
const mixed = (z) => {
  const [column, s] = cell(z[0]), [row, t] = cell(-z[1]), made = pen.createImageData(width, height);
  const value = (r, c, y, x) => grey[4 * ((r * height + y) * n * width + c * width + x)];
  for (let i = 0; i < width * height; i++) {
    const x = i % width, y = (i - x) / width;
    const above = (1 - s) * value(row, column, y, x) + s * value(row, column + 1, y, x);
    const below = (1 - s) * value(row + 1, column, y, x) + s * value(row + 1, column + 1, y, x);
    made.data.fill((1 - t) * above + t * below, 4 * i, 4 * i + 3);
    made.data[4 * i + 3] = 255;
  }
  return made;
};
const draw = () => {
  const z = [+across.value, +up.value], [x, y] = place(z);
  svg.querySelector("g").innerHTML = [1, 2, 3].map(ring).join("") + data.places.map(label).join("") +
    `<circle cx="${x}" cy="${y}" r="8" fill="${data.color}" stroke="white" stroke-width="2"/>`;
  const away = ([, m]) => Math.hypot(m[0] - z[0], m[1] - z[1]);
  const near = data.places.reduce((a, b) => (away(b) < away(a) ? b : a), data.places[0]);
  said.textContent = `z = (${z.map((v) => v.toFixed(2)).join(", ")})` +
    (near ? `; the nearest name is ${near[0]}, ${away(near).toFixed(2)} away` : "");
  if (grey) pen.putImageData(mixed(z), 0, 0);
};
const move = (x, y) => { across.value = x; up.value = y; draw(); };
const drag = (event) => {
  const r = svg.getBoundingClientRect(), share = [(event.clientX - r.left) / r.width, (event.clientY - r.top) / r.height];
  move(edge * (2 * share[0] - 1), edge * (1 - 2 * share[1]));
};
svg.addEventListener("pointerdown", (event) => { svg.setPointerCapture(event.pointerId); drag(event); });
svg.addEventListener("pointermove", (event) => { if (svg.hasPointerCapture(event.pointerId)) drag(event); });
svg.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
  if (!step) return;
  event.preventDefault();
  event.stopPropagation();
  const size = event.shiftKey ? 0.5 : 0.1;
  move(+across.value + size * step[0], +up.value + size * step[1]);
});
box.addEventListener("input", draw);
draw();
sheet.onload = () => {
  const whole = Object.assign(document.createElement("canvas"), { width: n * width, height: n * height });
  const brush = whole.getContext("2d");
  brush.drawImage(sheet, 0, 0);
  grey = brush.getImageData(0, 0, n * width, n * height).data;
  draw();
};
sheet.src = data.sheet;
"""
DRAWING = '<svg viewBox="0 0 420 300" role="img" aria-label="{title}"><g></g></svg>'
PLANE = (
    '<div class="pair"><svg viewBox="0 0 300 300" role="application" tabindex="0" aria-label="{title}"><g></g></svg>'
    '<canvas width="{width}" height="{height}" role="img" aria-label="The decoder\'s picture at this point">'
    "</canvas></div>"
)
GREYS = 63  # shades of a stored picture above black: fewer weigh less


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
        f"{slider('noise', -1, 3, 0.1, 0, said=f'noise of the {name}')}</div>"
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
    both = slider("mean", -3, 3, 0.1, 1) + slider("deviation", 0.15, 2.5, 0.05, 0.5)
    title = "Densities of the prior (dashed) and of q (line)"
    return figure("divergence", f'<div class="row">{both}</div>', title, DIVERGENCE, {"color": COLORS[0]})


def rate_intervals() -> Any:
    """A click rate and three 95 % intervals for it: the plain one, Wilson's (1.8), and the exact one.

    The exact interval is that of Clopper and Pearson (1934): all rates at which neither so few nor so many clicks would
    have a chance below 2.5 %.

    Returns
    -------
    IPython.display.HTML
        A figure with a slider for the impressions and one for the clicks.

    Examples
    --------
    >>> rate_intervals()
    <IPython.core.display.HTML object>
    """
    both = slider("impressions", 10, 1000, 10, 150) + slider("clicks", 0, 50, 1, 3)
    title = "Three 95 % intervals of one click rate (dashed), and where 0 is"
    return figure("intervals", f'<div class="row">{both}</div>', title, INTERVALS, {"colors": COLORS[:3]})


def bot_threshold(users: pd.DataFrame, low: int = 8, high: int = 160, start: int = 60) -> Any:
    """Readers and bots by their largest burst: what a threshold catches, whom it throws out, and the rate of the rest.

    Parameters
    ----------
    users : DataFrame
        A row for each user: ``requests``, the largest burst; ``bot``, the truth; ``impressions`` and ``clicks``.
    low, high, start : int
        Ends of the slider, and where it begins. Users below the lower end are counted and not drawn.

    Returns
    -------
    IPython.display.HTML
        A figure with a slider for the threshold: who has as many requests or more is thrown out.

    Raises
    ------
    ValueError
        If a column is missing, or the threshold does not begin between its ends.

    Examples
    --------
    >>> rows = [[3, False, 5, 1], [20, False, 40, 3], [90, True, 90, 30]]
    >>> bot_threshold(pd.DataFrame(rows, columns=["requests", "bot", "impressions", "clicks"]))
    <IPython.core.display.HTML object>
    """
    columns = ["requests", "bot", "impressions", "clicks"]
    problems = [f"users lacks the column {name}" for name in columns if name not in users]
    if not 1 <= low <= start <= high:
        problems.append(f"1 <= low <= start <= high must hold, got {low}, {start}, {high}")
    refuse("bot_threshold", problems)
    rows = users[columns].astype(int)
    readers = rows[rows["bot"] == 0]
    data = {
        "users": rows[rows["requests"] >= low].sort_values("requests").to_numpy().tolist(),
        "all": rows[["impressions", "clicks"]].sum().tolist(),
        "readers": [len(readers), *readers[["impressions", "clicks"]].sum().tolist()],
        "bots": int(rows["bot"].sum()),
    }
    title = "Filled dots are thrown out; the line is the click rate of the rest, by threshold"
    row = f'<div class="row wide">{slider("threshold", low, high, 1, start)}</div>'
    return figure("bots", row, title, BOTS, data | {"low": low, "high": high, "colors": COLORS[:3]})


def promotion_regret(predicted: Sequence[float], true: Sequence[float], cost: float) -> Any:
    """How many pieces to promote, in the order of a prediction: what is promised, what is paid, and the regret.

    The regret against the best choice has two parts. With the n pieces chosen, :math:`V_i` the true margin of a piece
    less the cost, and n* pieces that truly pay, the order costs (best n) - (chosen n), the number (best n*) - (best n).

    Parameters
    ----------
    predicted, true : array, shape (C,)
        Margin of each piece before the cost, yuan per impression.
    cost : float
        Of a place, yuan per impression, where its slider begins; it reaches from nothing to two and a half times that.

    Returns
    -------
    IPython.display.HTML
        A figure with a slider for the number and one for the cost, in yuan per thousand impressions offered.

    Raises
    ------
    ValueError
        If the margins are not two finite lists of one length, or the cost is not above 0.

    Examples
    --------
    >>> promotion_regret([0.4, 0.3, 0.1], [0.2, 0.5, 0.1], cost=0.24)
    <IPython.core.display.HTML object>
    """
    told, real = np.asarray(predicted, float), np.asarray(true, float)
    problems = []
    if told.ndim != 1 or told.shape != real.shape or not len(told):
        problems.append(f"predicted and true must have one shape (C,), got {told.shape} and {real.shape}")
    if not (np.isfinite(told).all() and np.isfinite(real).all()):
        problems.append("predicted and true must be finite")
    if not 0 < cost < np.inf:
        problems.append(f"cost must be above 0, got {cost}")
    refuse("promotion_regret", problems)
    order = np.argsort(-told, kind="stable")
    data = {"told": told[order].round(6).tolist(), "real": real[order].round(6).tolist(), "colors": PROMISES}
    sliders = (
        slider("reviews promoted", 0, len(told), 1, int((told > cost).sum())),
        slider("cost, yuan", 0, float(f"{2.5 * cost:g}"), float(f"{cost / 12:g}"), cost),
    )
    rows = "".join(f'<div class="row wide">{each}</div>' for each in sliders)
    title = "Margin by the number of reviews promoted: promised by the model, truly paid, and paid in the best order"
    return figure("promoted", rows, title, PROMOTED, data)


def latent_grid(n: int, edge: float = 3.0) -> np.ndarray:
    """Latents at equal steps of a square, as `latent_explorer` wants their pictures.

    Parameters
    ----------
    n : int
        Points along each dimension.
    edge : float
        The square reaches from -edge to edge.

    Returns
    -------
    array, shape (n, n, 2)
        The first row has the largest second coordinate.

    Examples
    --------
    >>> latent_grid(3)[0].tolist()
    [[-3.0, 3.0], [0.0, 3.0], [3.0, 3.0]]
    """
    side = np.linspace(-edge, edge, n)
    return np.stack(np.meshgrid(side, -side), axis=-1)


def latent_explorer(
    pictures: np.ndarray, places: Mapping[str, Sequence[float]] | None = None, edge: float = 3.0
) -> Any:
    """A plane of two latent dimensions with a point to move, and the decoder's picture at the point.

    Between the stored pictures the page mixes the four around the point, each with its share (bilinear).

    Parameters
    ----------
    pictures : array, shape (n, n, H, W)
        What the decoder makes of `latent_grid(n, edge)`: grey, from 0 to 1.
    places : mapping of str to two numbers, optional
        Names to write into the plane, such as the middle of each class.
    edge : float
        The plane reaches from -edge to edge.

    Returns
    -------
    IPython.display.HTML
        A figure with a slider for each dimension; the plane itself takes finger, mouse and arrow keys.

    Raises
    ------
    ValueError
        If the pictures do not fill a square grid, or are not between 0 and 1.

    Examples
    --------
    >>> latent_explorer(np.zeros((2, 2, 4, 4)), {"nothing": (0, 0)})
    <IPython.core.display.HTML object>
    """
    pictures = np.asarray(pictures, float)
    if pictures.ndim != 4 or pictures.shape[0] != pictures.shape[1] or len(pictures) < 2:
        raise ValueError(f"latent_explorer: pictures must have shape (n, n, H, W), got {pictures.shape}")
    if not ((pictures >= 0) & (pictures <= 1)).all():
        raise ValueError("latent_explorer: pictures must lie between 0 and 1")
    n, _, height, width = pictures.shape
    named = [[html.escape(name), [round(float(v), 2) for v in at]] for name, at in (places or {}).items()]
    sliders = (slider(f"dimension {d}", -edge, edge, 0.01, 0) for d in (1, 2))
    rows = "".join(f'<div class="row">{each}</div>' for each in sliders)
    title = "Drag the point, or move it with the arrow keys: the picture is what the decoder draws there"
    data = {"n": n, "height": height, "width": width, "edge": edge, "places": named, "color": COLORS[1]}
    plane = PLANE.replace("{width}", str(width)).replace("{height}", str(height))
    return figure("latents", rows, title, EXPLORER, data | {"sheet": sheet(pictures)}, plane)


def slider(label: str, low: float, high: float, step: float, value: float, said: str = "") -> str:
    """A slider with its label; `said` is what a screen reader says in the label's place."""
    said = f' aria-label="{said}"' if said else ""
    return f'<label>{label} <input type="range" min="{low}" max="{high}" step="{step}" value="{value}"{said}></label>'


def sheet(pictures: np.ndarray) -> str:
    """One PNG of a grid of grey pictures (n, n, H, W), from 0 to 1, as a data address."""
    rows, columns, height, width = pictures.shape
    whole = pictures.transpose(0, 2, 1, 3).reshape(rows * height, columns * width)
    file = io.BytesIO()
    shades = np.round(np.round(whole * GREYS) * (255 / GREYS)).astype("uint8")
    Image.fromarray(shades).save(file, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def figure(
    name: str, controls: str, title: str, script: str, data: dict[str, Any], drawing: str = DRAWING
) -> Any:
    """A figure of controls, a drawing and a sentence that says in words what it shows."""
    from IPython.display import HTML

    return HTML(
        f'<div class="vaecm-try" id="try-{name}">\n<style>{STYLE}</style>\n{controls}\n'
        f"{drawing.replace('{title}', html.escape(title))}\n"
        f"<p>{html.escape(title)}.</p>\n<output></output>\n"
        f"<script>(() => {{\nconst data = {json.dumps(data)};\n{script}}})();</script>\n</div>"
    )
