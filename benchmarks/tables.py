"""Tables of the protocol, from its stored rows: for the shell and for the book's page."""

import numpy as np
import pandas as pd

from benchmarks.store import long, over_seeds, paired, shares

KINDS = ("as-of", "statistics", "PCA", "untrained", "VAE", "fine-tuned", "end to end")
HEADS = ("logistic regression", "LightGBM", "effect network")
RIVALS = ("logistic regression", "LightGBM", "DCN-v2", "DIN")
SHOWN = ("ctr_log_loss", "ctr_auc", "ctr_ece", "ctcvr_log_loss", "sales_gini")
COSTS = ("fit_seconds", "predict_seconds", "peak_gib")


def table_of(
    rows,
    stage,
    part,
    reference=None,
    metrics=SHOWN,
):
    """Means over the seeds with their intervals as text; with a `reference`, paired differences from it.

    Rivals whose settings no search has found are marked.
    """
    table = long(rows).query("stage == @stage and part == @part")
    order = table["model"].drop_duplicates()
    table = table if reference is None else paired(table, reference)
    found = over_seeds(table[table["metric"].isin(metrics)])
    text = [
        interval(r["mean"], r["low"], r["high"], signed=reference is not None)
        for r in found.to_dict("records")
    ]
    wide = found.assign(text=text).pivot(index="model", columns="metric", values="text")
    wide = wide.reindex(index=order[order.isin(wide.index)], columns=[m for m in metrics if m in wide])
    return marked(wide.fillna(""), rows, stage)


def marked(table, rows, stage):
    """A table whose index says which rivals kept their default settings."""
    some = {row["model"] for row in rows if row["stage"] == stage and not row.get("tuned")}
    return table.rename(index={name: f"{name} (untuned)" for name in RIVALS if name in some})


def seeds_table(rows, stage="rivals"):
    """The whole model on each seed alone: share of the way to the oracle, calibration error, coverage of intervals."""
    table = long(rows).query("stage == @stage")
    if not len(table):
        return table
    share = shares(table, RIVALS).query("metric == 'ctr_log_loss_share'")
    found = pd.concat([share, table[table["metric"].isin(["ctr_ece", "coverage"])]])
    found = found.query("model == 'vaecm' and part in ('all', 'cold')")
    wide = found.pivot(index="seed", columns=["metric", "part"], values="value")
    wide = wide.sort_index(axis=1, ascending=[False, True])
    return wide.set_axis([f"{metric}, {part}" for metric, part in wide.columns], axis=1)


def costs_table(rows, stage="rivals"):
    """Mean over the seeds of seconds and memory, with the least and the most."""
    table = long(rows).query("stage == @stage and part == 'all' and metric in @COSTS")
    if not len(table):
        return pd.DataFrame()
    by = table.groupby(["model", "metric"], sort=False)["value"].agg(["mean", "min", "max"])
    text = by.apply(lambda r: "{:.3g} ({:.3g} to {:.3g})".format(*r), axis=1)
    wide = text.unstack("metric").reindex(table["model"].drop_duplicates())
    return marked(wide[[name for name in COSTS if name in wide]].fillna(""), rows, stage)


def share_table(rows, part, stage="rivals"):
    """Share of the way from the best rival to the oracle, mean over the seeds with its interval."""
    table = long(rows).query("stage == @stage and part == @part")
    order, table = table["model"].drop_duplicates(), shares(table, RIVALS)
    if not len(table):
        return pd.DataFrame()
    found = over_seeds(table)
    text = [interval(r["mean"], r["low"], r["high"]) for r in found.to_dict("records")]
    wide = found.assign(text=text).pivot(index="model", columns="metric", values="text")
    wide = wide.reindex(index=order[order.isin(wide.index)], columns=table["metric"].drop_duplicates())
    return marked(wide.fillna(""), rows, stage)


def parts_table(rows, metric="ctr_log_loss", whole="whole", parts="without |networks alone"):
    """What the model without a part loses against the whole one: rows are parts, columns where it was measured."""
    table = long(rows).query("metric == @metric")
    table = paired(table[table["model"].str.match(f"{whole}|{parts}")], whole)
    if not len(table):
        return pd.DataFrame()
    found = over_seeds(table)
    where = {
        ("parts", "all"): "all",
        ("parts", "cold"): "new content",
        ("few", "all"): "5 % of the labels",
        ("parts", "gaps"): "40 % gone",
        ("kuairand", "all"): "KuaiRand",
        ("pictures", "all"): "real pictures",
    }
    found = found.assign(where=[where.get(pair) for pair in zip(found["stage"], found["part"], strict=True)])
    found = found.dropna(subset=["where"])
    text = [interval(r["mean"], r["low"], r["high"], signed=True) for r in found.to_dict("records")]
    wide = found.assign(text=text).pivot(index="model", columns="where", values="text").fillna("")
    return wide[[name for name in where.values() if name in wide]]


def deep_table(rows, metric="ctr_log_loss"):
    """What the networks alone lose without their hidden layers."""
    return parts_table(rows, metric, "networks alone", "wide part alone")


def grid(rows, part="all", metric="ctr_log_loss", stage="heads"):
    """Representations by heads."""
    table = table_of(rows, stage, part, metrics=(metric,))
    if not len(table):
        return pd.DataFrame()
    pair = table.index.to_series().str.rsplit(", ", n=1)
    kept = pair.str.len() == 2
    wide = (
        table[kept]
        .assign(kind=pair[kept].str[0], head=pair[kept].str[1])
        .pivot(index="kind", columns="head", values=metric)
    )
    return wide.reindex(
        index=[k for k in KINDS if k in wide.index], columns=[h for h in HEADS if h in wide]
    ).fillna("")


def interval(mean, low, high, signed=False, digits=None):
    """A mean with its interval as text; the mean alone where one seed gives no interval.

    Examples
    --------
    >>> interval(0.21, 0.2, 0.22), interval(-0.001, np.nan, np.nan, signed=True)
    ('0.2100 [0.2000, 0.2200]', '-0.00100')
    """
    digits = digits if digits is not None else 5 if signed else 4
    form = f"{{:{'+' if signed else ''},.{digits}f}}"
    text = form.format(mean)
    return text if np.isnan(low) else f"{text} [{form.format(low)}, {form.format(high)}]"


def show(rows):
    """Print every table that the stored rows allow."""
    for stage in ("rivals", "few", "kuairand", "pictures"):
        for part in ("all", "cold", "gaps"):
            if any(row["stage"] == stage and part in row["parts"] for row in rows):
                table = table_of(rows, stage, part, metrics=(*SHOWN, "coverage"))
                print(f"\n{stage}, {part}\n{table.to_string()}")
                print(table_of(rows, stage, part, reference="LightGBM").to_string())
                print(share_table(rows, part, stage).to_string())
        print(costs_table(rows, stage).to_string())
    print(f"\neach seed alone\n{seeds_table(rows).to_string()}")
    for part in ("all", "cold", "gaps"):
        print(f"\nrepresentations by heads, {part}\n{grid(rows, part).to_string()}")
    print(f"\nwithout a part, minus the whole model\n{parts_table(rows).to_string()}")
    print(f"\nwide part alone, minus the networks alone\n{deep_table(rows).to_string()}")
