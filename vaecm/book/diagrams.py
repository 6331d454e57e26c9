"""The book's line drawings, as SVG that reads on paper-white and dark pages, on screens and phones.

Texts know a little markup: ``*x*`` is italic, ``_{i}`` a subscript, ``^{2}`` a superscript; the lines of a box after its
first are notes, in smaller letters. Lengths are units of the viewBox, about a pixel each; y grows downwards.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"  # as in vaecm.book.plots
GREY, INK, WHITE = "#767676", "#222222", "#ffffff"
SIZE, NOTE = 16, 14  # of letters
ENLARGED = 1.15  # screen pixels per unit, where the page is wide enough
MARKUP = re.compile(r"\*([^*]+)\*|([_^])\{([^}]*)\}|([^*_^]+|[_^])")


class Box(NamedTuple):
    """A rectangle, or what bounds a circle.

    >>> Box(10, 20, 100, 40).middle
    (60.0, 40.0)
    """

    x: float
    y: float
    w: float
    h: float

    @property
    def right(self) -> float:
        return self.x + self.w

    @property
    def bottom(self) -> float:
        return self.y + self.h

    @property
    def middle(self) -> tuple[float, float]:
        return self.x + self.w / 2, self.y + self.h / 2


class Drawing:
    """A drawing that shows itself in a notebook; title and description are for readers who do not see it.

    >>> drawing = Drawing("Two steps", "One step leads to the next.", 200)
    >>> first, second = (drawing.box(50, y, 100, 40, text) for y, text in ((20, "*z*"), (100, "*x*_{i}")))
    >>> drawing.link((first, second))
    >>> drawing, drawing.svg.startswith("<svg"), drawing.height
    (<Drawing: Two steps>, True, 156)
    """

    def __init__(self, title: str, description: str, width: float = 480):
        self.title, self.description, self.width = title, description, width
        self.parts, self.lowest = [], 0.0

    def __repr__(self) -> str:
        return f"<Drawing: {self.title}>"

    @property
    def height(self) -> float:
        return round(self.lowest + 16)

    @property
    def svg(self) -> str:
        size = f'width="{self.width * ENLARGED:.0f}" height="{self.height * ENLARGED:.0f}"'
        frame = f'width="{self.width - 2:g}" height="{self.height - 2:g}" rx="10"'
        return "\n".join([
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:g} {self.height:g}" {size} role="img"'
            ' style="max-width:100%;height:auto" font-family="Arial, Helvetica, sans-serif">',
            f"<title>{escape(self.title)}</title>", f"<desc>{escape(self.description)}</desc>",
            f'<rect data-kind="page" x="1" y="1" {frame} fill="{WHITE}" stroke="#bbbbbb"/>', *self.parts, "</svg>",
        ])  # fmt: skip

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, path: str | Path) -> None:
        """Write the drawing as a file."""
        Path(path).write_text(self.svg + "\n", encoding="utf-8")

    def label(self, x: float, y: float, text: str, anchor="middle", size=NOTE, color=INK, bold=False):
        """Lines of text; y is the base line of the first one."""
        for k, line in enumerate(text.split("\n")):
            weight = ' font-weight="bold"' if bold else ""
            at = f'x="{x:g}" y="{y + 1.3 * size * k:g}" font-size="{size}" text-anchor="{anchor}"'
            self.parts.append(f'<text {at} fill="{color}"{weight}>{spans(line, size)}</text>')
            self.lowest = max(self.lowest, y + 1.3 * size * k)

    def box(
        self, x: float, y: float, w: float, h: float, text="", color=GREY, kind="box", round=7, dash=False, size=SIZE
    ) -> Box:  # fmt: skip
        """A tinted rectangle with text in its middle; of the kind "frame", it may hold others."""
        fill = "none" if kind == "frame" else tint(color)
        shape = f'x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="{round:g}"'
        line = (
            f'fill="{fill}" stroke="{color}" stroke-width="{1.6 if text or color == GREY else 2.6}"'
            + ' stroke-dasharray="5 4"' * dash
        )
        self.parts.append(f"<rect data-kind={quoteattr(kind)} {shape} {line}/>")
        first, *notes = text.split("\n")
        top = y + h / 2 - 1.3 * NOTE * len(notes) / 2 + 0.35 * size
        if first:
            self.label(x + w / 2, top, first, size=size)
        if notes:
            self.label(x + w / 2, top + 1.3 * NOTE, "\n".join(notes))
        self.lowest = max(self.lowest, y + h)
        return Box(x, y, w, h)

    def circle(self, x: float, y: float, r: float, text="", color=GREY, filled=True) -> Box:
        """A circle around (x, y), for a variable or for what is done to two of them."""
        fill = tint(color) if filled else WHITE
        shape = f'cx="{x:g}" cy="{y:g}" r="{r:g}" fill="{fill}" stroke="{color}" stroke-width="1.6"'
        self.parts.append(f'<circle data-kind="box" {shape}/>')
        self.label(x, y + 0.35 * SIZE, text, size=SIZE)
        self.lowest = max(self.lowest, y + r)
        return Box(x - r, y - r, 2 * r, 2 * r)

    def row(self, y: float, h: float, texts: Sequence[str], color=GREY, left=14, right=14, gap=8, **style):
        """Boxes of one width side by side, from `left` to `right` units before the end."""
        w = (self.width - left - right - gap * (len(texts) - 1)) / len(texts)
        return [self.box(left + k * (w + gap), y, w, h, text, color, **style) for k, text in enumerate(texts)]

    def line(self, *points: tuple[float, float], color=INK, dash=False, head=True, dot=False):
        """A line through points, with an arrow's head at its end, and a dot where it leaves another line."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        style = f'fill="none" stroke="{color}" stroke-width="1.6"' + ' stroke-dasharray="5 4"' * dash
        self.parts.append(f'<polyline data-kind="line" points="{path}" {style}/>')
        if head:
            (x0, y0), (x, y) = points[-2:]
            length = ((x - x0) ** 2 + (y - y0) ** 2) ** 0.5
            a, b = 9 * (x - x0) / length, 9 * (y - y0) / length
            tip = f"{x:g},{y:g} {x - a + b / 2:g},{y - b - a / 2:g} {x - a - b / 2:g},{y - b + a / 2:g}"
            self.parts.append(f'<polygon points="{tip}" fill="{color}"/>')
        if dot:
            self.parts.append(f'<circle cx="{points[0][0]:g}" cy="{points[0][1]:g}" r="3.5" fill="{color}"/>')

    def link(self, *pairs: tuple, **style):
        """Arrows (a, b) or (a, b, at) from edge to edge: upright at an x that both share, else level at a y."""
        for a, b, *at in pairs:
            low, high = max(a.x, b.x), min(a.right, b.right)
            if low < high:
                x = at[0] if at else (low + high) / 2
                ends = ((x, a.bottom), (x, b.y)) if a.y < b.y else ((x, a.y), (x, b.bottom))
            else:
                y = at[0] if at else (max(a.y, b.y) + min(a.bottom, b.bottom)) / 2
                ends = ((a.right, y), (b.x, y)) if a.x < b.x else ((a.x, y), (b.right, y))
            self.line(*ends, **style)

    def grid(self, x: float, y: float, cell: float, values: Sequence[Sequence], color=GREY, shades=None):
        """Numbers in squares, shaded by `shades` (0 to 1) where they are given."""
        for i, line in enumerate(values):
            for j, value in enumerate(line):
                fill = tint(color, 0.08 + 0.5 * shades[i][j]) if shades else WHITE
                at = f'x="{x + cell * j:g}" y="{y + cell * i:g}" width="{cell:g}" height="{cell:g}"'
                self.parts.append(f'<rect data-kind="cell" {at} fill="{fill}" stroke="{color}"/>')
                self.label(x + cell * (j + 0.5), y + cell * (i + 0.5) + 0.35 * SIZE, str(value), size=SIZE)
        self.lowest = max(self.lowest, y + cell * len(values))
        return Box(x, y, cell * len(values[0]), cell * len(values))


def tint(color: str, share: float = 0.14) -> str:
    """A colour mixed with white.

    >>> tint("#000000", 0.2)
    '#cccccc'
    """
    parts = (int(color[k : k + 2], 16) for k in (1, 3, 5))
    return "#" + "".join(f"{round(255 + (part - 255) * share):02x}" for part in parts)


def spans(text: str, size: float) -> str:
    """Text with markup as tspans: italics, subscripts that return to the base line, minus signs before digits.

    >>> spans("*z*_{t}", 10)
    '<tspan font-style="italic">z</tspan><tspan dy="2.5" font-size="7.5">t</tspan>'
    """
    out, shift = [], 0.0
    for italic, sign, raised, plain in MARKUP.findall(text):
        want = {"_": 0.25, "^": -0.4}.get(sign, 0.0) * size
        style = f' dy="{want - shift:g}"' if want != shift else ""
        style += f' font-size="{0.75 * size:g}"' if sign else ' font-style="italic"' if italic else ""
        text, shift = escape(re.sub(r"-(?=\d)", "−", raised or italic or plain)), want
        out.append(f"<tspan{style}>{text}</tspan>" if style else text)
    return "".join(out)


def sliding_kernel() -> Drawing:
    """A kernel over a picture: one patch, one sum, one output.

    >>> sliding_kernel()
    <Drawing: A kernel slides over a picture>
    """
    d = Drawing("A kernel slides over a picture", "A patch of 3 by 3 numbers of a picture of 5 by 5 is multiplied with "
                "the kernel, number by number; the sum is one number of the output of 3 by 3.")  # fmt: skip
    x = [[0, 0, 7, 9, 9], [0, 1, 8, 9, 9], [1, 2, 8, 9, 8], [0, 1, 7, 9, 9], [0, 0, 7, 8, 9]]
    w, three, cell = [[-1, 0, 1]] * 3, range(3), 38
    sums = [[sum(w[u][v] * x[i + u][j + v] for u in three for v in three) for j in three] for i in three]
    for at, text in (((22, 32), "picture *x*"), ((326, 32), "kernel *w*"), ((244, 254), "output *y*")):
        d.label(*at, text, "start", SIZE)
    picture = d.grid(22, 44, cell, x, BLUE, [[v / 9 for v in line] for line in x])
    kernel = d.grid(326, 44, cell, w, ORANGE)
    output = d.grid(326, 228, cell, sums, GREEN, [[v / 24 for v in line] for line in sums])
    for k, dash in ((2, True), (1, False)):  # the next patch, and this one
        for box, side in ((picture, 3), (output, 1)):
            d.box(box.x + k * cell, box.y, side * cell, side * cell, "", ORANGE, "frame", 2, dash)
    d.link((picture, kernel, picture.y + 1.5 * cell), (kernel, output), color=ORANGE)
    d.label(268, picture.y + 1.5 * cell - 9, "times")
    d.label(kernel.middle[0] + 10, 198, "sum", "start")
    terms = [" + ".join(f"{w[u][v]}·{x[u][v + 1]}" for v in three) for u in three]
    d.label(22, 268, "*y*_{0,1} =\n" + " +\n".join(terms) + f" = {sums[0][1]}", "start")
    d.label(22, 376, "One step to the right (dashed): the next output.\nThe nine weights are the same at "
            "every place.\nZeros around *x* (padding) would keep *y* at 5 × 5.", "start")  # fmt: skip
    return d


def unrolled_cell() -> Drawing:
    """One recurrent cell, step by step: the same weights, a state that is handed on, gradients on the way back.

    >>> unrolled_cell()
    <Drawing: A recurrent cell, unrolled over the events of a history>
    """
    d = Drawing("A recurrent cell, unrolled over the events of a history", "Each event enters a copy of the same cell "
                "with the state before it; the state goes on to the next. Gradients go back the same way.")  # fmt: skip
    cells = [d.box(x, 112, 84, 52, "cell", GREEN) for x in (78, 202, 354)]
    for cell, step in zip(cells, "12T", strict=True):
        event = d.box(cell.x + 10, 232, 64, 36, f"*x*_{{{step}}}", BLUE)
        d.link((event, cell), (cell, d.circle(cell.middle[0], 54, 22, f"*h*_{{{step}}}", ORANGE)))
    d.link((d.circle(32, 138, 20, "*h*_{0}", ORANGE), cells[0]), (cells[0], cells[1]))
    d.line((cells[1].right, 138), (302, 138))
    d.line((338, 138), (cells[2].x, 138))
    d.label(320, 142, "...", size=SIZE)
    d.line((cells[2].right, 186), (cells[0].x, 186), color=PURPLE, dash=True)
    d.label(320, 206, "gradients")
    d.label(240, 302, "*h*_{t} = *f*(*x*_{t}, *h*_{t−1}): the same weights in every step")
    return d


def gates() -> Drawing:
    """A GRU cell in the convention of Keras: the reset gate acts after the product with U.

    >>> gates()
    <Drawing: The gates of a GRU>
    """
    d = Drawing("The gates of a GRU", "The state before passes down on the left. The update gate says how much of it is "
                "kept; the candidate makes up the rest; the reset gate says how much of the state it hears.")  # fmt: skip
    keep, zx, hx, rx, far = 58, 184, 288, 384, 444  # from left to right
    old, new = d.circle(keep, 44, 28, "*h*_{t−1}", ORANGE), d.circle(far, 44, 28, "*x*_{t}", BLUE)
    z = d.box(zx - 54, 140, 108, 52, "*z*_{t} = σ(·)\nupdate gate", GREEN)
    r = d.box(rx - 50, 140, 100, 52, "*r*_{t} = σ(·)\nreset gate", GREEN)
    candidate = d.box(hx - 58, 330, 116, 52, "*h̃*_{t} = tanh(·)\ncandidate", GREEN)
    kept, added = d.circle(keep, 230, 14, "×"), d.circle(keep, 356, 14, "+")
    rest, part, heard = d.circle(zx, 286, 20, "1 −"), d.circle(zx, 356, 14, "×"), d.circle(hx, 250, 14, "×")
    result = d.circle(keep, 430, 28, "*h*_{t}", ORANGE)
    d.link((old, kept), (kept, added), (added, result), (z, rest), (rest, part), (heard, candidate),
           (candidate, part), (part, added))  # fmt: skip
    d.line((keep, 90), (rx - 14, 90), (rx - 14, r.y), color=ORANGE, dot=True)
    d.line((zx - 14, 90), (zx - 14, z.y), color=ORANGE, dot=True)
    d.line((hx, 90), (hx, heard.y), color=ORANGE, dot=True)
    d.line((far, new.bottom), (far, 356), (candidate.right, 356), color=BLUE)
    d.line((far, 112), (zx + 14, 112), (zx + 14, z.y), color=BLUE, dot=True)
    d.line((rx + 14, 112), (rx + 14, r.y), color=BLUE, dot=True)
    d.line((zx, 230), (kept.right, 230), dot=True)
    d.line((rx, r.bottom), (rx, 250), (heard.right, 250))
    d.label(hx - 6, 216, "*U*_{h}", "end")
    d.label(far - 14, 346, "*W*_{h}", "end")
    d.label(106, 420, "*z*_{t} = σ(*x*_{t}*W*_{z} + *h*_{t−1}*U*_{z} + *b*_{z}), *r*_{t} likewise\n*h*_{t} = "
            "*z*_{t} ⊙ *h*_{t−1} + (1 − *z*_{t}) ⊙ *h̃*_{t}", "start")  # fmt: skip
    return d


def graphical_model() -> Drawing:
    """The VAE in plate notation: solid arrows generate, dashed ones infer.

    >>> graphical_model()
    <Drawing: The VAE as a graphical model>
    """
    d = Drawing("The VAE as a graphical model", "Inside a plate of N rows, the hidden z generates the observed x, with "
                "the decoder's weights theta. The encoder, with weights phi, infers z from x: dashed.")  # fmt: skip
    d.box(154, 20, 172, 268, "", GREY, "frame", 12)
    z, phi = d.circle(240, 74, 30, "*z*", ORANGE, False), d.circle(60, 74, 24, "*φ*", GREEN, False)
    x, theta = d.circle(240, 214, 30, "*x*", BLUE), d.circle(420, 214, 24, "*θ*", GREEN, False)
    d.link((z, x, 252), (theta, x))
    d.link((x, z, 228), (phi, z), dash=True)
    for px, py, text, side in (
        (266, 148, "*p*_{θ}(*x* | *z*)", "start"), (214, 148, "*q*_{φ}(*z* | *x*)", "end"),
        (338, 70, "*z* ~ N(0, *I*)\nis hidden", "start"), (142, 210, "*x* is seen:\nshaded", "end"),
        (314, 276, "*N* rows", "end"), (420, 260, "decoder’s\nweights", "middle"),
        (60, 120, "encoder’s\nweights", "middle"),
        (240, 318, "Solid: how *x* comes about. Dashed: how *z* is inferred.", "middle"),
    ):  # fmt: skip
        d.label(px, py, text, side)
    return d


def encoder_decoder() -> Drawing:
    """A VAE as it is computed: two outputs, one draw, two terms of the loss.

    >>> encoder_decoder()
    <Drawing: Encoder, draw and decoder of a VAE>
    """
    d = Drawing("Encoder, draw and decoder of a VAE", "The encoder turns x into mean and log-variance; z is the mean "
                "plus deviation times noise; the decoder makes x-hat of it. The loss has two terms.")  # fmt: skip
    seen, encoder = d.box(150, 20, 180, 40, "*x*", BLUE), d.box(150, 92, 180, 46, "encoder *φ*", GREEN)
    mean, spread = d.box(96, 170, 124, 40, "*μ*", ORANGE), d.box(260, 170, 124, 40, "log *σ*^{2}", ORANGE)
    deviation = d.box(232, 242, 180, 40, "*σ* = exp(½ log *σ*^{2})", ORANGE)
    noise = d.circle(436, 322, 24, "*ε*")
    times, plus = d.circle(322, 322, 15, "⊙"), d.circle(158, 322, 15, "+")
    z = d.box(64, 368, 188, 40, "*z* = *μ* + *σ* ⊙ *ε*", ORANGE)
    decoder, made = d.box(64, 440, 188, 46, "decoder *θ*", GREEN), d.box(64, 518, 188, 42, "*x̂*(*z*)", BLUE)
    d.link((seen, encoder), (encoder, mean), (encoder, spread), (spread, deviation), (deviation, times), (noise, times),
           (times, plus), (mean, plus), (plus, z), (z, decoder), (decoder, made))  # fmt: skip
    d.label(466, 366, "*ε* ~ N(0, *I*)", "end")
    d.label(282, 424, "the loss adds up", "start")
    d.box(282, 436, 184, 50, "*D*_{KL}(*q*_{φ} ‖ N(0, *I*))\nfrom *μ* and *σ*", PURPLE)
    d.link((made, d.box(282, 514, 184, 50, "− log *p*_{θ}(*x* | *z*)\nfrom *x* and *x̂*", PURPLE)))
    d.label(240, 592, "Training draws *ε*; a prediction takes *z* = *μ*.")
    return d


def product_of_experts() -> Drawing:
    """The VAE of contents: opinions of experts times the prior, and what z has to tell.

    >>> product_of_experts()
    <Drawing: A product of experts over the modalities of a content>
    """
    d = Drawing("A product of experts over the modalities of a content", "An expert each reads cover, title, sound and "
                "attributes. Their Gaussian opinions are multiplied with the prior; what is missing takes no part. z is "
                "decoded into all of them and into the item embedding, which no expert reads.", 520)  # fmt: skip
    names, opinion = ["cover", "title", "sound", "attributes"], "*μ*_{{{0}}}, *σ*_{{{0}}}"
    readers = ["CNN\non pixels", "CNN\non words", "CNN\non bands", "dense\nlayers"]
    opinions = [opinion.format(1), opinion.format(2), "missing\n*a*_{3} = 0", opinion.format(4)]
    rows = ((20, 40, names, BLUE), (90, 52, readers, GREEN), (172, 52, opinions, ORANGE))
    columns = zip(*(d.row(*row, right=114, size=15) for row in rows), strict=True)
    product = d.box(14, 266, 492, 62, "1 / *σ*^{2} = 1 + Σ_{m} *a*_{m} / *σ*_{m}^{2}\n"
                    "*μ* = *σ*^{2} Σ_{m} *a*_{m} *μ*_{m} / *σ*_{m}^{2}", ORANGE)  # fmt: skip
    for k, (a, b, c) in enumerate(columns):
        d.link((a, b), (b, c), (c, product), **({"color": GREY, "dash": True} if k == 2 else {}))
    prior = d.box(414, 172, 92, 52, "N(0, *I*)\nprior", ORANGE)
    z = d.box(160, 366, 200, 40, "*z* ~ N(*μ*, *σ*^{2})", ORANGE)
    decoders = d.box(14, 442, 492, 40, "a decoder each: *p*_{θ}(*x*_{m} | *z*)", GREEN)
    written = d.row(520, 52, [*names, "item\nembedding"], BLUE, size=15)
    d.link((prior, product), (product, z), (z, decoders), *((decoders, one) for one in written))
    d.label(14, 602, "*z* has to tell the item embedding; no expert reads it.\nFor a new item, what *z* tells of it "
            "stands in.\nIn half of the rows, training hides some modalities from\nthe experts; *z* still has to tell "
            "them.", "start")  # fmt: skip
    return d


def wide_and_deep() -> Drawing:
    """What an effect network computes, from the inputs by name to the effects.

    >>> wide_and_deep()
    <Drawing: The effect network: wide, deep, three heads, examination>
    """
    d = Drawing("The effect network: wide, deep, three heads, examination", "The table, bent at its knots, and the match "
                "make phi of x. Its linear map, and a perceptron of it and of the product of content and user, add up to "
                "heads: click, conversion, sales. The product's sum joins the click, which needs a look.")  # fmt: skip
    place, user, content, match, table = d.row(20, 40, ["place", "user", "content", "match", "table"], BLUE)
    product = d.box(user.x, 96, content.right - user.x, 46, "*Pc* ⊙ *Qu*", GREEN)
    bend = d.box(table.x, 96, table.w, 46, "bend\nat knots", GREEN)
    phi = d.box(match.x, 174, table.right - match.x, 40, "*φ*(*x*)", GREEN)
    deep = d.box(148, 252, 216, 52, "deep\nMLP with dropout", GREEN)
    wide = d.box(table.x, 252, table.w, 52, "wide\nlinear", GREEN)
    total = d.box(148, 340, 318, 40, "start + wide + deep", GREEN)
    look = d.box(14, 420, 78, 50, "*e*\nlook", ORANGE)
    heads = d.row(420, 50, ["*a*\nclick", "*b*\nconversion", "*m*\nlog sales"], ORANGE, left=112, gap=20)
    chain = ["σ(*e*) σ(*a*)\nclick rate", "× σ(*b*)\nand order", "× e^{m + s²/2}\nsales, yuan"]
    effects = d.row(516, 52, chain, PURPLE, gap=26)
    d.link((table, bend), (bend, phi), (match, phi), (user, product), (content, product), (phi, wide), (phi, deep),
           (product, deep), (deep, total), (wide, total), (place, look), (look, effects[0]), (product, heads[0], 126),
           *((total, head) for head in heads), *zip(heads, effects, strict=True), *pairwise(effects))  # fmt: skip
    d.label(118, 330, "its sum", "end")
    d.label(14, 600, "place: position (the first is always seen), device\nuser: state *z*, means of the items seen"
            "\ncontent: *z* and item embedding\nmatch: is it what the user is after?\ntable: as-of features, attributes, "
            "clock", "start")  # fmt: skip
    return d


def time_line() -> Drawing:
    """A log's time line around one request: what may be used, and what not.

    >>> time_line()
    <Drawing: What is known at a request>
    """
    d = Drawing("What is known at a request", "Time runs downwards. Before the request: impressions with their clicks, "
                "orders that have arrived, events; these may be used. The other rows of its slate, its own outcome, "
                "orders that arrive late and all that follows may not.")  # fmt: skip
    axis, now, size = 233, 290, (196, 58)
    d.line((axis, 22), (axis, 594), color=GREY)
    for x, text in ((112, "may be used"), (354, "may not")):
        d.label(x, 36, text, size=SIZE, bold=True)
    shown, *_ = [d.box(14, y, *size, text, BLUE) for y, text in (
        (50, "impressions\nand their clicks"), (122, "orders\nthat have arrived"),
        (194, "events\nviews, carts, purchases"), (now, "the request\nuser, content, place"))]  # fmt: skip
    *_, late, _ = [d.box(256, y, *size, text, ORANGE) for y, text in (
        (now, "the same slate\nother rows and clicks"), (378, "its own outcome\nto be predicted"),
        (450, "late orders\nof earlier impressions"), (522, "the future\nall that comes later"))]  # fmt: skip
    y, end = shown.middle[1], late.middle[1]
    d.line((shown.right, y), (466, y), (466, end), (late.right, end), dash=True)
    d.line((14, now - 20), (466, now - 20), color=GREY, dash=True, head=False)
    d.label(454, y + 22, "an order may take days", "end")
    d.label(454, now - 28, "second of the request", "end")
    d.label(14, 392, "A fact counts only if it\nwas known before the\nsecond of the request,\nin training as in use.",
            "start")  # fmt: skip
    d.label(axis - 10, 590, "time", "end")
    return d


def overview() -> Drawing:
    """The whole pipeline, from the log to the effects.

    >>> overview()
    <Drawing: How vaecm predicts the effects of content>
    """
    d = Drawing("How vaecm predicts the effects of content", "Events give item embeddings. Two variational autoencoders "
                "learn without labels, from contents and from the histories of users. As-of features say what was known "
                "just before a request. Content, match, user, table and place go into a network, trees and a regression; "
                "calibrated on later impressions, they give click rate, conversion rate and sales.", 520)  # fmt: skip
    contents = d.box(14, 20, 142, 70, "contents\ncover, title,\nsound, attributes", BLUE)
    log = d.box(172, 20, 200, 70, "log\nimpressions, clicks,\norders, events", BLUE)
    request = d.box(388, 20, 118, 70, "request\nuser, content,\nplace, time", BLUE)
    learned = d.box(8, 112, 330, 206, "", GREY, "frame")
    items = d.box(172, 144, 116, 52, "item\nembeddings", GREEN)
    content_vae = d.box(18, 234, 138, 72, "content VAE\nCNNs, product\nof experts", GREEN)
    history_vae = d.box(172, 234, 156, 72, "history VAE\nGRU over events,\nclicks, orders", GREEN)
    asof = d.box(348, 234, 124, 72, "as-of features\nand attributes", GREEN, size=14)
    names = d.row(352, 40, ["content", "match", "user", "table", "place"], ORANGE)
    models = d.row(
        452,
        54,
        ["effect network\nwide, deep, three heads", "trees: clicks, orders\nregression: clicks"],
        GREEN,
    )
    mean = d.box(100, 542, 320, 54, "weighing, calibration\non later impressions", GREEN)
    effects = d.row(632, 52, ["CTR\nclick rate", "CVR\nconversion rate", "sales\nyuan an impression"], PURPLE)
    d.link((log, items), (items, history_vae), (asof, names[3]), (request, asof), (contents, content_vae, 40),
           (log, history_vae, 310), (log, asof, 360), (request, names[4], 489), *((learned, one) for one in names[:3]),
           *((model, mean) for model in models), *((mean, effect) for effect in effects))  # fmt: skip
    d.line((items.x, 170), (130, 170), (130, content_vae.y))
    d.label(86, 150, "learned\nwithout\nlabels")
    d.label(236, 134, "events", "start")
    for one in names:
        d.line((one.middle[0], one.bottom), (one.middle[0], 420), head=False)
    d.line((names[0].middle[0], 420), (names[4].middle[0], 420), head=False)
    for model in models:
        d.line((model.middle[0], 420), (model.middle[0], model.y))
    return d
