"""Write `book/benchmarks.md`, the page of the book that shows the stored results with the machine they ran on.

``python -m benchmarks.page``
"""

import json
import math
import re
from pathlib import Path

import pandas as pd

from benchmarks import RESULTS, tables
from benchmarks.store import long, over_seeds, paired
from vaecm.io import new_file

PAGE = Path(__file__).parent.parent / "book" / "benchmarks.md"
HEAD = """# Benchmarks

Some numbers take too long for a chapter. They are measured by the scripts in the folder `benchmarks`, stored as JSON with
the machine and the versions they ran on, and shown here. `make bench` measures all of them again; the command above each
table measures one. Seconds depend on the machine and on what else it did: trust ratios.

`vaecm` is the book's model. Brackets hold 95 % intervals: Student's over the seeds or folds, unless a table says
otherwise. Few seeds make them wide, and an end can lie beyond what is possible, as a share above 1. The share of the way
is 0 for the best rival of a market and 1 for its true rates. [The glossary](glossary.md) explains the measures.

"Untuned" marks rivals with their default settings, where no search of settings was made.

This page is written by `python -m benchmarks.page` from the stored results.
"""
PARTS = {
    "all": "All impressions of the test part",
    "cold": "Impressions of content that training did not show",
    "gaps": "40 % of the modalities gone at prediction",
}
TITLES = {
    "ctr_log_loss": "clicks: log-loss", "ctr_auc": "clicks: AUC", "ctr_ece": "clicks: calibration error",
    "ctcvr_log_loss": "conversions: log-loss", "sales_gini": "sales: Gini", "coverage": "intervals that hold the truth",
    "fit_seconds": "fit, s", "predict_seconds": "predict, s", "peak_gib": "peak GiB",
    "ctr_log_loss_share": "clicks", "ctcvr_log_loss_share": "conversions", "sales_gini_share": "sales",
}  # fmt: skip


EACH = {"ctr_log_loss_share": "share of the way in clicks", "ctr_ece": "calibration error of clicks"}
WORDS = {
    "epochs_needed": "epochs needed", "parameters": "weights", "share_of_wall_time": "share of the clock time",
    "share_of_cpu_time": "share of the processor time", "target": "target, nats",
    "latent_dim": "latent dimensions", "negative_elbo": "negative ELBO, nats",
    "importance_weighted": "negative importance-weighted bound, nats", "kl": "KL term, nats",
    "active_units": "active units", "probe": "accuracy of a linear probe on z", "pca": "the same on principal components",
    "cpu_seconds": "processor seconds", "test_loss": "test loss, nats", "standard_error": "standard error",
    "auc": "AUC", "average_precision": "average precision", "log_loss": "log-loss",
}  # fmt: skip

OTHERS = r"^without |, |^whole$|^networks alone$|^wide part alone$"  # rows that have a table of their own
COST = (
    "Seconds to fit, and to predict the test part, the making of tables included; peak memory of the process, with what "
    "all rows share. Means, with the least and the most of the markets."
)


def seeds_table(result, part, metrics):
    """Rows are models, columns are metrics: mean [low, high] over the seeds or folds."""
    key = "over_seeds" if "over_seeds" in result else "over_folds"
    table = pd.DataFrame(result[key]).query("part == @part and metric in @metrics").dropna(subset=["low"])
    text = [f"{r['mean']:.4f} [{r['low']:.4f}, {r['high']:.4f}]" for r in table.to_dict("records")]
    models = table["model"].unique()
    table = table.assign(text=text).pivot(index="model", columns="metric", values="text")
    return table.reindex(index=models, columns=[m for m in metrics if m in table]).fillna("")


def real(result):
    found = long(result["rows"])
    wide = found.pivot(index=["stage", "model"], columns="metric", values="value").reset_index()
    wide = wide.rename(columns={"stage": "log"})
    logs, models = (found[name].unique() for name in ("stage", "model"))
    about = wide.groupby("log").first()
    for metric, words in {"ctr_log_loss": "Log-loss of clicks", "ctr_auc": "AUC of clicks"}.items():
        table = wide.pivot(index="log", columns="model", values=metric).loc[logs, models]
        table = table.map("{:.4f}".format)
        table.insert(0, "clicked", about["rate"].map("{:.2%}".format))
        table.insert(0, "rows", about["rows"].map("{:,.0f}".format))
        yield f"{words} on the test part of real data that were turned into logs.", table
    gaps = wide.dropna(subset="gap")
    text = [
        tables.interval(*row, signed=True, digits=4)
        for row in zip(gaps["gap"], gaps["gap_low"], gaps["gap_high"], strict=True)
    ]
    table = gaps.assign(text=text).pivot(index="log", columns="model", values="text")
    yield "The model's log-loss minus each baseline's, intervals from rows.", table.loc[logs, models[:-1]]


def protocol(result):
    rows = result["rows"]
    markets = len({row["seed"] for row in rows if row["stage"] == "rivals"})
    worlds = {
        "rivals": f"{markets} markets",
        "few": "5 % of the labels",
        "kuairand": "KuaiRand-Pure, a real feed",
        "pictures": "A market of real pictures and headlines that was written apart from the simulator",
    }
    for stage, world in worlds.items():
        if not any(row["stage"] == stage and row["model"] == "vaecm" for row in rows):
            continue  # rivals alone, which another section shows
        unit = "seed" if stage == "kuairand" else "market"
        for part, words in PARTS.items():
            table = tables.table_of(rows, stage, part, metrics=(*tables.SHOWN, "coverage"))
            table = table[~table.index.str.contains(OTHERS)]
            if len(table):
                yield f"{world}. {words}.", table.rename(columns=TITLES)
            table = tables.table_of(rows, stage, part, reference="LightGBM")
            table = table[~table.index.str.contains(OTHERS)].rename(columns=TITLES)
            if len(table):
                yield f"The same minus LightGBM's, paired by {unit}. {words}.", table
            share = tables.share_table(rows, part, stage)
            if len(share) and stage != "kuairand":
                share = share[~share.index.str.contains(OTHERS)].rename(columns=TITLES)
                yield f"Share of the way from the best rival of each market to the truth. {words}.", share
        cost = tables.costs_table(rows, stage)
        if len(cost):
            yield f"{world}. {COST}", cost[~cost.index.str.contains(OTHERS)].rename(columns=TITLES)
    each = tables.seeds_table(rows)
    if len(each):
        words = "The whole model on each market alone: all rows, and those of content that training did not show (new). "
        yield words + "The share of the way is that from the best rival to the truth.", _each(each)
    for part, words in PARTS.items():
        grid = tables.grid(rows, part)
        if len(grid):
            yield f"Representations (rows) by heads (columns), log-loss of clicks. {words}.", grid
    grid = tables.grid(rows, stage="kuairand")
    if len(grid):
        yield "The same on KuaiRand-Pure.", grid
    lost = tables.parts_table(rows)
    if len(lost):
        words = "What each part is worth: log-loss of clicks without it minus the whole model's, paired by seed. Above "
        yield words + "zero the part pays.", lost
    deep = tables.deep_table(rows)
    if len(deep):
        words = "What the deep part is worth where nothing but networks votes: the wide part's log-loss minus that of "
        yield words + "wide and deep together.", deep
    if result["tuned"]:
        found = {
            k: {
                "log-loss on validation": v["loss"],
                "trials": v["trials"],
                "settings": _settings(v["settings"]),
            }
            for k, v in result["tuned"].items()
        }
        yield "Settings that were found on another market (seed 11).", pd.DataFrame(found).T


def _each(table):
    """The table of single markets with plain words at its head."""
    parts = [column.split(", ") for column in table]
    names = [f"{EACH.get(m, TITLES.get(m, m))}, {'new' if part == 'cold' else part}" for m, part in parts]
    return table.round(4).set_axis(names, axis=1).rename_axis("market (its seed)")


def _settings(settings):
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in settings.items()
    )


def decisions(result):
    rows = long(result["rows"]).query("metric == 'yuan'")
    for reference in (None, "LightGBM"):
        table = rows if reference is None else paired(rows, reference)
        found = over_seeds(table)
        text = [
            tables.interval(r["mean"], r["low"], r["high"], signed=reference is not None, digits=2)
            for r in found.to_dict("records")
        ]
        wide = found.assign(text=text).pivot(index="model", columns="stage", values="text")
        wide = wide.reindex(index=table["model"].drop_duplicates(), columns=rows["stage"].drop_duplicates())
        words = "What each way to decide truly brings, in yuan: promotion per 1,000 impressions offered, a budget over "
        words += "twelve pieces, a feed per request, ads per 1,000 auctions. Means over the markets."
        yield words if reference is None else f"The same minus {reference}'s, paired by market.", wide


SMALL = {
    "kib": ("KiB", 0), "network_kib": ("network, KiB", 1), "packed_kib": ("after gzip, KiB", 1),
    "request_ms": ("request, ms", 1), "forward_ms": ("networks alone, ms", 2), "ctr_log_loss": ("clicks: log-loss", 4),
    "ctr_auc": ("clicks: AUC", 4), "ctr_ece": ("clicks: calibration error", 4), "feed": ("feed: regret, yuan", 2),
    "promotion": ("promotion: regret, yuan", 1),
}  # fmt: skip


def compress(result):
    rows = long(result["rows"]).query("metric in @SMALL")
    for reference in (None, "whole predictor"):
        table = rows if reference is None else paired(rows, reference)
        found = over_seeds(table)
        if reference is None:
            text = [f"{r['mean']:,.{SMALL[r['metric']][1]}f}" for r in found.to_dict("records")]
        else:
            found = found[found["metric"].isin(["ctr_log_loss", "ctr_auc", "ctr_ece", "feed", "promotion"])]
            text = [
                tables.interval(r["mean"], r["low"], r["high"], signed=True, digits=SMALL[r["metric"]][1] + 1)
                for r in found.to_dict("records")
            ]
        wide = found.assign(text=text).pivot(index="model", columns="metric", values="text")
        wide = wide.reindex(index=table["model"].drop_duplicates(), columns=[m for m in SMALL if m in wide])
        words = "Files that are needed to predict, the time of one request with 100 candidates, quality, and what a feed "
        words += "(yuan per request) and a promotion (yuan per 1,000 impressions offered) lose against the oracle. Means."
        yield (
            words if reference is None else f"The same minus the {reference}'s, paired by market.",
            wide.fillna("").rename(columns={name: title for name, (title, _) in SMALL.items()}),
        )


def speed(result):
    rows = {
        STEPS.get(name, name): {**s["seconds"], "peak GiB": s["peak_gib"]}
        for name, s in result["stages"].items()
    }
    words = "Seconds of each step, and peak memory, each row in a fresh process. Requests of some rows have the whole "
    yield words + "log attached, that of one user has this user's rows since the fit.", pd.DataFrame(rows).T
    values = {**result["ratios"], **result["rates"]}
    names = [re.sub(r"\w+$", lambda last: STEPS.get(last[0], last[0]), name) for name in values]
    yield "Ratios of seconds, and rows a second.", pd.DataFrame({"value": [*values.values()]}, names)


STEPS = {
    "simulate": "simulation alone", "lightgbm": "LightGBM", "dcn": "DCN-v2", "din": "DIN",
    "latency": "requests to a saved vaecm",
}  # fmt: skip


def growth(result):
    rows = [
        {"impressions": f"{r['impressions']:,}", "stage": r["stage"], "peak GiB": r["peak_gib"]}
        | {f"{step}, s": lap["processor_seconds"] for step, lap in r["steps"].items()}
        for r in result["runs"]
    ]
    yield "Processor seconds of each step, and peak memory.", pd.DataFrame(rows).set_index("impressions")
    powers = pd.DataFrame({"power": result["exponents"]})
    yield "Power of the number of impressions with which processor time grows: 1 is in proportion.", powers


def scale(result):
    rows = [
        {"rows": f"{r['rows']:,.0f}", "parts": f"{r['parts']:.0f}", "seconds of all workers": r["worker_seconds"],
         "peak GiB of a worker": r["peak_gib"], "after its first part": r["first_peak_gib"],
         "dataset, MB": r["dataset_bytes"] / 1e6}
        for r in result["predictions"]
    ]  # fmt: skip
    words = "Effects of a Parquet data set, part by part, by two workers: memory hardly grows with the rows. "
    words += f"A fact of the past that every worker holds takes {result['bytes_of_a_fact']:.0f} bytes."
    yield words, pd.DataFrame(rows).set_index("rows")
    if "fit" in result:
        fit = result["fit"]
        row = {
            "rows": f"{fit['rows']:,}", "rows held at once": f"{fit['held at once']:,}", "minutes": fit["seconds"] / 60,
            "prepared rows, GB": fit["prepared_bytes"] / 1e9, "peak GiB": fit["peak_gib"],
            "log-loss": fit["log_loss"], "of the mean rate": fit["log_loss_of_the_mean_rate"],
        }  # fmt: skip
        words = "A fit whose network reads all rows from disk, in one process (`scale.fit`, a small model, one pass). "
        words += "The peak counts prepared rows too; they are mapped from disk, and dropped when others need memory. "
        words += "The log-loss is of rows that it saw under other users' names: it shows that something was learned."
        yield words, pd.DataFrame([row]).set_index("rows")
    words = "One effect network after the same steps: largest difference of a weight to this process's, rows learned "
    words += "from a second, and seconds from the death of a worker to the next step."
    yield words, pd.DataFrame(result.get("training", [])).rename(columns=WORKERS).set_index("who trains")


WORKERS = {
    "workers": "who trains", "largest_gap_of_weights": "largest difference of a weight", "last_loss": "last loss",
    "rows_per_second": "rows a second", "seconds_from_kill_to_step": "from kill to step, s",
}  # fmt: skip


def conv_vae(result):
    rows = pd.DataFrame([{k: v for k, v in row.items() if k != "log"} for row in result["rows"]])
    yield "Epochs and share of the reference's time until its test loss is reached.", rows.set_index("model")


def latent(result):
    names = ["negative_elbo", "importance_weighted", "kl", "active_units", "probe", "pca", "cpu_seconds"]
    yield "Fashion-MNIST, by latent dimensions.", pd.DataFrame(result["rows"]).set_index("latent_dim")[names]


def next_event(result):
    found = pd.DataFrame(result["rows"]).rename(columns={"log": "stage", "next": "model"})
    found = over_seeds(
        found.melt(["stage", "model", "seed"], ["rates", "fading mean", "GRU", "gain"], "metric")
    )
    wide = found.pivot(index=["stage", "model"], columns="metric", values="mean").map("{:.3f}".format)
    gains = found[found["metric"] == "gain"].set_index(["stage", "model"])[["mean", "low", "high"]]
    wide["gain"] = [
        tables.interval(*gain, signed=True, digits=3) for gain in gains.loc[wide.index].to_numpy()
    ]
    wide.index = [f"{log}: {told}" for log, told in wide.index]
    about = (
        "Log-loss of each user's next event, and what the GRU gains over a fading mean of the same events."
    )
    yield about, wide[["rates", "fading mean", "GRU", "gain"]]


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
    "protocol": ("Rivals", protocol),
    "parts": ("A market of real pictures and headlines, and what each part is worth there", protocol),
    "kuairand": ("A real feed, and what each part is worth there", protocol),
    "heads": ("Representations by heads, on the simulated market", protocol),
    "simulated_parts": ("What each part is worth on the simulated market", protocol),
    "million": ("What each part is worth in ten times the log", protocol),
    "next_event": ("What a user does next", next_event),
    "real": ("Texts, pictures, tables and few clicks", real),
    "decisions": ("Decisions", decisions),
    "compress": ("Smaller models", compress),
    "speed": ("Time and memory", speed),
    "growth": ("Growth", growth),
    "scale": ("More than one process", scale),
    "conv_vae": ("The convolutional VAE against the Keras example", conv_vae),
    "latent": ("Latent dimensions", latent),
    "backends": ("Backends", backends),
    "upworthy": ("Which headline wins", upworthy),
    "sessions": ("Who will buy", sessions),
}

EARLIER = "Measured with an earlier model, which"
NOTES = {
    "kuairand": " There is one log: intervals tell what the seed of a training changes, not what another log would show. "
    "The rivals are those of an earlier run.",
    "heads": f" {EARLIER} had two networks and a history VAE that was hardly trained.",
    "parts": " The rivals are those of an earlier run.",
    "simulated_parts": " On all labels the rivals are those of an earlier run.",
    "million": " One seed: it gives no interval. Ten times as many users, contents and impressions as above, the same "
    "settings, so that the VAEs take as many steps.",
    "scale": f" {EARLIER} had two networks, but for the fit, and trees for clicks alone.",
}  # fmt: skip

COMMANDS = {
    "heads": "protocol --stage heads --name heads --n 100000 --users 2000 --seeds 31 32 33",
    "parts": "protocol --stage pictures --name parts --n 100000 --users 2000 --seeds 31 32 33",
    "kuairand": "protocol --stage kuairand --name kuairand --seeds 31 32 33",
    "million": "protocol --stage parts --name million --n 1000000 --users 20000 --contents 30000 --seeds 31",
    "simulated_parts": "protocol --stage rivals parts few --name simulated_parts --n 100000 --users 2000 "
    "--seeds 31 32 33",
    "decisions": "decisions --n 100000 --users 2000 --settings parts",
}


def markdown(table):
    """A table of Markdown."""
    head = [WORDS.get(name, name) for name in (table.index.name or "", *map(str, table.columns))]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, row in zip(table.index, table.to_numpy(object), strict=True):
        lines.append("| " + " | ".join(_text(value) for value in (name, *row)) + " |")
    return "\n".join(lines)


def _text(value):
    if isinstance(value, float) and math.isnan(value):
        return ""
    if isinstance(value, int) and value >= 10_000:
        return f"{value:,}"
    if isinstance(value, float):
        return f"{int(value):,}" if value.is_integer() and abs(value) >= 1_000 else f"{value:.4g}"
    return str(value).replace("|", "\\|")


def _options(settings):
    """The settings of a benchmark in words.

    Examples
    --------
    >>> _options({"impressions": 30000, "note": ""})
    'impressions: 30,000'
    """
    text = json.dumps({key: value for key, value in settings.items() if value != ""})
    return re.sub(r"\d{4,}", lambda n: f"{int(n[0]):,}", text[1:-1].replace('"', ""))


def page(results=RESULTS):
    """The text of the page, from the results that are there."""
    parts = [HEAD]
    for name, (title, section) in SECTIONS.items():
        path = results / f"{name}.json"
        if not path.exists():
            continue
        result = json.loads(path.read_text())
        machine, packages = result["machine"], result["machine"]["packages"]
        versions = ", ".join(
            f"{k} {packages[k]}" for k in ("keras", "tensorflow", "lightgbm") if packages.get(k)
        )
        command = COMMANDS.get(name, name)
        parts.append(
            f"## {title}\n\n`python -m benchmarks.{command}`, measured {result['measured']} on {machine['processor']}, "
            f"{machine['cores']} cores, {machine['memory_gib']} GiB, Python {machine['python']}, {versions}. "
            f"Settings: {_options(result['settings'])}.{NOTES.get(name, '')}\n"
        )
        blocks = (f"{words}\n\n{markdown(table)}\n" for words, table in section(result))
        parts += [block for block in blocks if block not in parts]  # one search serves several sections
    return "\n".join(parts)


def main():
    with new_file(PAGE) as draft:
        draft.write_text(page(), encoding="utf-8")
    print(f"wrote book/{PAGE.name}")


if __name__ == "__main__":
    main()
