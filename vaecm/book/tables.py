"""The book's tables of results: one row per model, plain words, the best in bold.

An interval does not break between its ends; where a column is narrow, it goes below its value.

Shapes: ``K`` models, ``M`` metrics.
"""

from collections.abc import Mapping, Sequence
from zlib import crc32

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

WORDS = {
    "auc": "AUC", "log_loss": "log-loss",
    "ctr_log_loss": "clicks: log-loss", "ctr_auc": "clicks: AUC", "ctr_gauc": "clicks: AUC within users",
    "ctr_normalised_entropy": "clicks: normalised entropy", "ctr_brier": "clicks: Brier score",
    "ctr_ece": "clicks: calibration error", "cvr_log_loss": "conversions of clicks: log-loss",
    "cvr_auc": "conversions of clicks: AUC", "ctcvr_log_loss": "conversions: log-loss",
    "ctcvr_auc": "conversions: AUC", "ctcvr_ece": "conversions: calibration error",
    "sales_gini": "sales: Gini", "sales_decile_error": "sales: decile error",
    "sales_ratio": "sales: predicted over observed",
}  # fmt: skip
HIGH = ("auc", "gini", "correlation")  # endings of metrics of which more is better
SPACE = "\N{NO-BREAK SPACE}"


def scores(
    scored: Mapping[str, pd.DataFrame], metrics: Sequence[str], caption: str = "", digits: int = 4,
    ceiling: str = "oracle",
) -> Styler:  # fmt: skip
    """One row per model, one column per metric: value [low, high], the best value in bold, the ceiling in italics.

    Parameters
    ----------
    scored : dict of DataFrame
        By name of the model, in the order of the rows: what `vaecm.score` gives.
    metrics : sequence of str
        Names as in `vaecm.score`; a metric that a model lacks stays empty.
    caption : str
        What the table is about.
    digits : int
        After the point.
    ceiling : str
        The row that no model can be expected to beat; it takes no part in the contest.

    Returns
    -------
    pandas.io.formats.style.Styler

    Examples
    --------
    >>> one = pd.DataFrame({"metric": ["ctr_auc"], "value": [0.7], "low": [0.6], "high": [0.8]})
    >>> scores({"model": one}, ["ctr_auc"], digits=2).data.iloc[0, 0].replace(SPACE, " ")
    '0.70 [0.60, 0.80]'
    """
    found = {name: table.set_index("metric").reindex(list(metrics)) for name, table in scored.items()}
    values = pd.DataFrame({name: table["value"] for name, table in found.items()}).T
    text = pd.DataFrame(
        {name: table.apply(_cell, axis=1, digits=digits) for name, table in found.items()}
    ).T.reindex(columns=list(metrics))
    rivals = values.drop(index=ceiling, errors="ignore")
    best = pd.DataFrame("", index=text.index, columns=text.columns)
    for metric in metrics:
        if metric in WORDS and metric.endswith(("ratio",)):
            continue
        if rivals[metric].notna().sum() > 1:
            first = rivals[metric].idxmax() if metric.endswith(HIGH) else rivals[metric].idxmin()
            best.loc[first, metric] = "font-weight: bold"
    best.loc[best.index == ceiling] = "font-style: italic"
    return _styled(text, best, caption)


def pairs(
    compared: Mapping[str, pd.DataFrame], metrics: Sequence[str], caption: str = "", digits: int = 4
) -> Styler:
    """One row per rival, one column per metric: the model's difference [low, high], and who is ahead.

    Parameters
    ----------
    compared : dict of DataFrame
        By name of the rival: what `vaecm.metrics.compare` gives for (model, rival).
    metrics, caption, digits
        As in `scores`.

    Returns
    -------
    pandas.io.formats.style.Styler
        Bold where the model is ahead beyond the interval, grey where the two are not told apart.

    Examples
    --------
    >>> one = pd.DataFrame({"metric": ["ctr_auc"], "difference": [0.02], "low": [0.01], "high": [0.03]})
    >>> pairs({"rival": one}, ["ctr_auc"], digits=2).data.iloc[0, 0].replace(SPACE, " ")
    '+0.02 [+0.01, +0.03] ahead'
    """
    rows, style = {}, {}
    for name, table in compared.items():
        table = table.set_index("metric").reindex(list(metrics))
        ahead = np.array([1 if metric.endswith(HIGH) else -1 for metric in metrics])
        low, high = ahead * table["low"], ahead * table["high"]
        says = np.select([(low > 0) & (high > 0), (low < 0) & (high < 0)], ["ahead", "behind"], "level")
        cells = table.rename(columns={"difference": "value"}).apply(_cell, axis=1, digits=digits, sign="+")
        rows[name] = [f"{cell} {word}" if cell else "" for cell, word in zip(cells, says, strict=True)]
        look = {"ahead": "font-weight: bold", "behind": "", "level": "color: #767676"}
        style[name] = [look[word] for word in says]
    text = pd.DataFrame.from_dict(rows, orient="index", columns=list(metrics))
    return _styled(text, pd.DataFrame.from_dict(style, orient="index", columns=list(metrics)), caption)


def _cell(row: pd.Series, digits: int, sign: str = "") -> str:
    if not np.isfinite(row["value"]):
        return ""
    form = f"{{:{sign}.{digits}f}}"
    row = row.round(digits) + 0.0  # no minus before a zero
    text = form.format(row["value"])
    if np.isfinite(row["low"]) and np.isfinite(row["high"]):
        text += f" [{form.format(row['low'])},{SPACE}{form.format(row['high'])}]"
    return text


def _styled(text: pd.DataFrame, style: pd.DataFrame, caption: str) -> Styler:
    text, style = (table.rename(columns=WORDS) for table in (text, style))
    made = (
        text.style.apply(lambda _: style, axis=None)
        .set_uuid(crc32(text.to_csv().encode()))
        .set_table_attributes('class="results"')
    )
    return made.set_caption(caption) if caption else made
