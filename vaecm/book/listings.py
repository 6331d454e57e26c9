r"""A common listing of a convolutional VAE as it is found, and its repair, part by part.

The left column keeps the structure in which the listing is copied from page to page, with its five faults and one
more that shows only when these are mended. The right column changes what has to change and nothing else.
"""

from __future__ import annotations

import ast
import builtins
import html
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from keras import layers

from vaecm.vae import Sampling

FAULTS = {
    1: "no KL term", 2: "an undefined sampling layer", 3: "missing imports",
    4: "256 filters at full resolution", 5: "a plot of the wrong layer",
}  # fmt: skip


class Part(NamedTuple):
    """One part of the listing: its name, the code as found, the code as mended, the faults of the former."""

    name: str
    found: str
    mended: str
    faults: tuple[int, ...] = ()


PARTS = (
    Part(
        "imports",
        """\
from tensorflow.keras.layers import (
    Conv2D, Dense, Input, MaxPooling2D,
    UpSampling2D)
from tensorflow.keras.models import Model""",
        """\
from keras import Model, ops, random
from keras.layers import (
    Conv2D, Dense, Flatten, Input, Layer,
    Reshape)""",
        (3,),
    ),
    Part(
        "settings",
        """\
shape, latent, wide = (28, 28, 1), 2, 256""",
        """\
shape, latent = (28, 28, 1), 2""",
        (4,),
    ),
    Part(
        "encoder",
        """\
picture = Input(shape=shape)
h = Conv2D(wide, (3, 3), padding="same",
           activation="relu")(picture)
h = MaxPooling2D((2, 2), padding="same")(h)
h = Conv2D(wide, (3, 3), padding="same",
           activation="relu")(h)
h = MaxPooling2D((2, 2), padding="same")(h)
h = Flatten()(h)
h = Dense(wide, activation="relu")(h)
mean = Dense(latent)(h)
log_var = Dense(latent)(h)""",
        """\
picture = Input(shape=shape)
h = Conv2D(16, (3, 3), strides=2,
           padding="same",
           activation="relu")(picture)
h = Conv2D(32, (3, 3), strides=2,
           padding="same",
           activation="relu")(h)
h = Flatten()(h)
h = Dense(128, activation="relu")(h)
mean = Dense(latent)(h)
log_var = Dense(latent)(h)""",
        (4,),
    ),
    Part(
        "draw",
        """\
z = LambdaSampling(mean, log_var)(
    [mean, log_var])""",
        """\
class Sampling(Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.seed = random.SeedGenerator(0)

    def call(self, mean, log_var):
        noise = random.normal(
            ops.shape(mean), seed=self.seed)
        deviation = ops.exp(log_var / 2)
        return mean + deviation * noise


z = Sampling()(mean, log_var)""",
        (2,),
    ),
    Part(
        "decoder",
        """\
h = Dense(wide, activation="relu")(z)
h = Reshape((7, 7, wide))(h)
h = Conv2D(wide, (3, 3), padding="same",
           activation="relu")(h)
h = UpSampling2D((2, 2))(h)
h = Conv2D(wide, (3, 3), padding="same",
           activation="relu")(h)
h = UpSampling2D((2, 2))(h)
output = Conv2D(1, (3, 3), padding="same",
                activation="sigmoid")(h)""",
        """\
h = Dense(128, activation="relu")(z)
h = Dense(256, activation="relu")(h)
h = Dense(28 * 28)(h)
logits = Reshape(shape)(h)""",
        (4,),
    ),
    Part(
        "loss",
        """\
vae = Model(inputs=picture, outputs=output)
vae.compile(optimizer="adam",
            loss="binary_crossentropy")""",
        """\
class VAE(Model):
    def compute_loss(self, x, y, y_pred,
                     weight, training=True):
        logits, mean, log_var = y_pred
        nats = ops.binary_crossentropy(
            y, logits, from_logits=True)
        nats = ops.sum(nats, axis=(1, 2, 3))
        kl = mean**2 + ops.exp(log_var) - 1
        kl = ops.sum(kl - log_var, axis=1) / 2
        return ops.mean(nats + kl)


vae = VAE(picture, [logits, mean, log_var])
vae.compile(optimizer="adam")""",
        (1,),
    ),
    Part(
        "training",
        """\
vae.fit(x_train, x_train, epochs=50,
        batch_size=16,
        validation_data=(x_test, x_test))""",
        """\
vae.fit(x_train, x_train, epochs=2,
        batch_size=128, verbose=0,
        validation_data=(x_test, x_test))""",
    ),
    Part(
        "plot",
        """\
mean, log_var = vae.layers[-3].output
z = LambdaSampling(mean, log_var)(
    [mean, log_var])
reader = Model(vae.layers[-3].inputs, z)
codes = reader.predict(x_test)""",
        """\
encoder = Model(picture, mean)
codes = encoder.predict(x_test, verbose=0)""",
        (5,),
    ),
)


def code(column: str) -> str:
    """The whole listing of one column, "found" or "mended", as it would stand in a file.

    Examples
    --------
    >>> code("found").splitlines()[-1]
    'codes = reader.predict(x_test)'
    """
    return "\n\n".join(getattr(part, column) for part in PARTS) + "\n"


def undefined(text: str) -> list[str]:
    """Names that a piece of code reads and neither makes nor imports, in alphabetical order.

    Examples
    --------
    >>> undefined("from math import pi\\nprint(pi * radius)")
    ['radius']
    """
    nodes = list(ast.walk(ast.parse(text)))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    made = {node.id for node in names if not isinstance(node.ctx, ast.Load)}
    made |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    made |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    made |= {
        (alias.asname or alias.name).split(".")[0]
        for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }  # fmt: skip
    return sorted({node.id for node in names if isinstance(node.ctx, ast.Load)} - made - set(dir(builtins)))


def stops(text: str, supply: Mapping[str, object]) -> Iterator[str]:
    """What stops a piece of code, run after run: a missing name that is in `supply` is given to the next run.

    Parameters
    ----------
    text : str
    supply : dict
        What stands for the missing names.

    Yields
    ------
    str
        The error of each run; the last one is not a name that could be supplied. Nothing more where the code runs.

    Examples
    --------
    >>> list(stops("half(3) / 0", {"half": lambda x: x / 2}))
    ["NameError: name 'half' is not defined", 'ZeroDivisionError: float division by zero']
    """
    given: dict[str, object] = {}
    while True:
        try:
            exec(text, dict(given))
        except Exception as error:
            said = re.sub(r"\x1b\[[0-9;]*m", "", str(error))  # Keras prints in bold
            yield f"{type(error).__name__}: {' '.join(said.split())}"
            name = getattr(error, "name", None)
            if not isinstance(error, NameError) or name not in supply or name in given:
                return
            given[name] = supply[name]
        else:
            return


def stand_ins() -> dict[str, object]:
    """What the missing names of the listing most probably meant, for `stops`.

    Examples
    --------
    >>> sorted(stand_ins())
    ['Flatten', 'LambdaSampling', 'Reshape']
    """
    return {
        "Flatten": layers.Flatten, "Reshape": layers.Reshape, "LambdaSampling": lambda *_: Sampling(seed=0),
    }  # fmt: skip


class SideBySide:
    """Both columns in a notebook, part by part: side by side, and one above the other where the page is narrow.

    Examples
    --------
    >>> SideBySide()
    <SideBySide: 8 parts, faults 1 to 5>
    """

    def __repr__(self) -> str:
        return f"<SideBySide: {len(PARTS)} parts, faults {min(FAULTS)} to {max(FAULTS)}>"

    def _repr_html_(self) -> str:
        rows = "".join(_row(part) for part in PARTS)
        title = "The listing, and its repair: the marks count the faults"
        title = f'<div style="font-weight:600">{title}</div>'
        return f'<div class="vaecm-listing" style="text-align:left">{title}{rows}</div>'


def _row(part: Part) -> str:
    marks = "".join(
        '<span style="background:#0072B2;color:#fff;border-radius:0.6em;padding:0.1em 0.6em;'
        f'display:inline-block;font-size:0.8em">fault {fault}: {FAULTS[fault]}</span>'
        for fault in part.faults
    )
    left, right = (
        _cell(part.found, f"{part.name}, as found", marks),
        _cell(part.mended, f"{part.name}, mended"),
    )
    return f'<div style="display:flex;flex-wrap:wrap;gap:0 0.8rem;margin-top:0.6em">{left}{right}</div>'


def _cell(text: str, name: str, marks: str = "") -> str:
    look = (
        "white-space:pre-wrap;font-size:0.7rem;line-height:1.35;text-align:left;margin:0.3em 0;padding:0.5rem"
    )
    return (
        f'<div style="flex:1 1 19rem;min-width:0"><div><b>{name}</b> {marks}</div>'
        f'<pre style="{look}">{html.escape(text)}</pre></div>'
    )
