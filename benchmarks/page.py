"""Write `book/benchmarks.md`, the page of the book that shows the stored results with the machine they ran on.

``python -m benchmarks.page``
"""

import json
import math
import os
import re
from pathlib import Path

import pandas as pd

from benchmarks import RESULTS

PAGE = Path(__file__).parent.parent / "book" / "benchmarks.md"
HEAD = """# Benchmarks

Some numbers take too long for a chapter. They are measured by the scripts in the folder `benchmarks`, stored as JSON with
the machine and the versions they ran on, and shown here. `make bench` measures all of them again; the command above each
table measures one. Brackets hold 95 % intervals. Seconds depend on the machine and on what else it did: trust ratios.

"Share to oracle" is the part of the way from LightGBM to the true probabilities that a model covers, so LightGBM's
own cell is empty. "Minus LightGBM" is a paired difference on the same contents: below zero is better for losses,
above zero for AUC and Gini.

This page is written by `python -m benchmarks.page` from the stored results.
"""


def seeds_table(result, part, metrics):
    """Rows are models, columns are metrics: mean [low, high] over the seeds or folds."""
    key = "over_seeds" if "over_seeds" in result else "over_folds"
    table = pd.DataFrame(result[key]).query("part == @part and metric in @metrics").dropna(subset=["low"])
    text = [f"{r['mean']:.4f} [{r['low']:.4f}, {r['high']:.4f}]" for r in table.to_dict("records")]
    models = table["model"].unique()
    table = table.assign(text=text).pivot(index="model", columns="metric", values="text")
    return table.reindex(index=models, columns=[m for m in metrics if m in table]).fillna("")


def quality(result):
    metrics = [
        "ctr_log_loss",
        "ctr_auc",
        "ctr_ece",
        "ctr_share_to_oracle",
        "ctcvr_auc",
        "ctcvr_share_to_oracle",
    ]
    yield "Contents unseen in training.", seeds_table(result, "new contents", [*metrics, "sales_gini"])
    paired = [
        f"{m}_minus_lightgbm"
        for m in ("ctr_log_loss", "ctr_auc", "ctcvr_log_loss", "ctcvr_auc", "sales_gini")
    ]
    yield (
        "Paired differences from LightGBM, on the same contents.",
        seeds_table(result, "new contents", paired),
    )
    yield (
        "Share of impressions whose true click rate lies in its 95 % interval.",
        seeds_table(result, "test", ["coverage", "coverage_new"]),
    )


def ablation(result):
    metrics = ["ctr_share_to_oracle", "ctr_log_loss_minus_model", "ctcvr_log_loss_minus_model"]
    yield "Whole test parts.", seeds_table(result, "all", [*metrics, "processor_seconds"])


def speed(result):
    rows = {name: {**s["seconds"], "peak GiB": s["peak_gib"]} for name, s in result["stages"].items()}
    yield "Seconds of each step, and peak memory, each row in a fresh process.", pd.DataFrame(rows).T
    yield "Ratios and rates.", pd.DataFrame({"value": {**result["ratios"], **result["rates"]}})


def growth(result):
    rows = [
        {"impressions": f"{r['impressions']:,}", "stage": r["stage"], "peak GiB": r["peak_gib"]}
        | {f"{step}, s": lap["processor_seconds"] for step, lap in r["steps"].items()}
        for r in result["runs"]
    ]
    yield "Processor seconds of each step, and peak memory.", pd.DataFrame(rows).set_index("impressions")
    powers = pd.DataFrame({"power": result["exponents"]})
    yield "Power of the number of impressions with which processor time grows: 1 is in proportion.", powers


def robustness(result):
    table = pd.DataFrame(result["loss_ratio_at_40_percent"])
    by = table.groupby("over", sort=False)[["model", "baseline", "ratio", "low", "high"]].mean().round(4)
    words = (
        "Loss of AUC with 40 % of the modalities missing: of the model, of the other, and their ratio. Each column is "
        "the mean over the draws of what goes, ends of intervals too."
    )
    yield words, by


def explain(result):
    methods = ["SHAP, trees", "SHAP, permutation", "LIME", "linear surrogate"]
    table = pd.DataFrame(result["over_seeds"])
    found = [
        f"{m}: {what}" for m in methods for what in ("correlation, mean of groups", "error, mean of groups")
    ]
    table = table[table["metric"].isin(found)].dropna(subset=["low"])
    text = [f"{r['mean']:.3f} [{r['low']:.3f}, {r['high']:.3f}]" for r in table.to_dict("records")]
    wide = table.assign(text=text).pivot(index="metric", columns="model", values="text").fillna("")
    yield "How near explanations come to the true terms of the log-odds.", wide


def conv_vae(result):
    rows = pd.DataFrame([{k: v for k, v in row.items() if k != "log"} for row in result["rows"]])
    yield "Epochs and share of the reference's time until its test loss is reached.", rows.set_index("model")


def latent(result):
    names = ["negative_elbo", "importance_weighted", "kl", "active_units", "probe", "pca", "cpu_seconds"]
    yield "Fashion-MNIST, by latent dimensions.", pd.DataFrame(result["rows"]).set_index("latent_dim")[names]


def backends(result):
    names = ["version", "test_loss", "standard_error", "seconds", "cpu_seconds"]
    yield "The same model under three backends.", pd.DataFrame(result["rows"]).set_index("backend")[names]


def upworthy(result):
    rows = pd.DataFrame(result["rows"])
    rows = rows[(rows["metric"] == "accuracy") & (rows["seed"] == 0)].drop_duplicates(["model", "by"])
    text = [f"{r['value']:.3f} [{r['low']:.3f}, {r['high']:.3f}]" for r in rows.to_dict("records")]
    order = rows["model"].unique()
    wide = rows.assign(text=text).pivot(index="model", columns="by", values="text").reindex(order)
    yield (
        "Share of pairs whose winner was named, folds by test and by story.",
        wide.add_prefix("by ").fillna(""),
    )


def sessions(result):
    for part in dict.fromkeys(row["part"] for row in result["over_folds"]):
        yield (
            f"{_labels(part)}.",
            seeds_table(result, part, ["auc", "average_precision", "log_loss"]),
        )


def _labels(part):
    """A part of the sessions in words: "0.1 of the labels" becomes "10 % of the labels".

    Examples
    --------
    >>> _labels("with PageValues, 0.05 of the labels"), _labels("with PageValues, 1 of the labels")
    ('With PageValues, 5 % of the labels', 'With PageValues, all of the labels')
    """
    share = float(re.search(r"([\d.]+) of the labels", part)[1])
    words = re.sub(r"[\d.]+ of", "all of" if share == 1 else f"{100 * share:.0f} % of", part)
    return words[0].upper() + words[1:]


SECTIONS = {
    "quality": ("How good the predictions are", quality),
    "ablation": ("What each part is worth", ablation),
    "speed": ("Time and memory", speed),
    "growth": ("Growth", growth),
    "robustness": ("Gaps and noise", robustness),
    "explain": ("Explanations against the truth", explain),
    "conv_vae": ("The convolutional VAE against the Keras example", conv_vae),
    "latent": ("Latent dimensions", latent),
    "backends": ("Backends", backends),
    "upworthy": ("Which headline wins", upworthy),
    "sessions": ("Who will buy", sessions),
}


def markdown(table):
    """A table of Markdown."""
    head = [table.index.name or "", *map(str, table.columns)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, row in zip(table.index, table.to_numpy(object), strict=True):
        lines.append("| " + " | ".join(_text(value) for value in (name, *row)) + " |")
    return "\n".join(lines)


def _text(value):
    if isinstance(value, float) and math.isnan(value):
        return ""
    if isinstance(value, float):
        return f"{int(value):,}" if value.is_integer() and abs(value) >= 1_000 else f"{value:.4g}"
    return str(value).replace("|", "\\|")


def page(results=RESULTS):
    """The text of the page, from the results that are there."""
    parts = [HEAD]
    for name, (title, tables) in SECTIONS.items():
        path = results / f"{name}.json"
        if not path.exists():
            continue
        result = json.loads(path.read_text())
        machine, packages = result["machine"], result["machine"]["packages"]
        versions = ", ".join(
            f"{k} {packages[k]}" for k in ("keras", "tensorflow", "lightgbm") if packages.get(k)
        )
        settings = json.dumps(result["settings"]).strip("{}").replace('"', "")
        parts.append(
            f"## {title}\n\n`python -m benchmarks.{name}`, measured {result['measured']} on {machine['processor']}, "
            f"{machine['cores']} cores, {machine['memory_gib']} GiB, Python {machine['python']}, {versions}. "
            f"Settings: {settings}.\n"
        )
        parts += [f"{words}\n\n{markdown(table)}\n" for words, table in tables(result)]
    return "\n".join(parts)


def main():
    draft = PAGE.with_name(PAGE.name + ".part")
    draft.write_text(page(), encoding="utf-8")
    os.replace(draft, PAGE)
    print(f"wrote book/{PAGE.name}")


if __name__ == "__main__":
    main()
