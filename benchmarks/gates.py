"""What the simulated market has to show, measured with its true factors at hand.

::

    python -m benchmarks.gates --seeds 1 2 3

The gates speak of the market, not of any model of the book: that covers need a CNN, that the order of a
history matters, that effects interact, that contents come and go, and how hard the market is. The command
stores the numbers and writes them into the datasheet of the embedded market.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import vaecm
from vaecm import simulate
from vaecm.creatives import STYLE, K, draw_covers

RESULTS = Path(__file__).parent / "results" / "gates.json"
DATASHEET = Path(__file__).parents[1] / "data" / "market" / "README.md"
LABELLED, HELD_OUT, LAST = 3_000, 1_500, 30


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--impressions", type=int, default=200_000)
    options = parser.parse_args()
    rows = []
    for seed in options.seeds:
        market = vaecm.simulate_market(vaecm.MarketConfig(n_impressions=options.impressions, seed=seed))
        rows.append({"seed": seed, **covers(seed), **log(market), **order(market), **interactions(market)})
        print(pd.Series(rows[-1]).round(4).to_string(), flush=True)
    RESULTS.write_text(json.dumps(rows, indent=1))
    write_datasheet(pd.DataFrame(rows))


def covers(seed: int) -> dict:
    """Gate 1: R2, out of sample, of style and appeal from covers alone: a small CNN, and trees on statistics."""
    import keras

    rng = np.random.default_rng([seed, 1])
    n = LABELLED + HELD_OUT
    style, face, text = rng.normal(size=(n, K)), rng.random(n) < 0.6, rng.random(n) < 0.7
    pictures, above = draw_covers(rng, style, face, text)
    appeal = face + 1.3 * face * text * above + 0.3 * rng.normal(size=n)
    target = np.column_stack([style, (appeal - appeal.mean()) / appeal.std()])
    x = pictures / np.float32(255)
    flat = x.reshape(n, -1)
    table = np.hstack([statistics(x), PCA(64, random_state=seed).fit(flat[:LABELLED]).transform(flat)])
    trees = [
        HistGradientBoostingRegressor(learning_rate=0.05, max_leaf_nodes=8, early_stopping=True, random_state=seed)
        .fit(table[:LABELLED], y[:LABELLED]).predict(table[LABELLED:])
        for y in target.T
    ]  # fmt: skip
    keras.utils.set_random_seed(seed)
    network = small_cnn(x.shape[1:], target.shape[1])
    x = ((x - x.mean((1, 2), keepdims=True)) / x.std((1, 2), keepdims=True))[..., None]
    network.fit(x[:LABELLED], target[:LABELLED], epochs=30, batch_size=64, verbose=0)
    cnn = network.predict(x[LABELLED:], verbose=0).T
    score = {
        name: [r2_score(y, p) for y, p in zip(target[LABELLED:].T, predicted, strict=True)]
        for name, predicted in (("trees", trees), ("cnn", cnn))
    }
    return {
        "style_trees": np.mean(score["trees"][:K]), "style_cnn": np.mean(score["cnn"][:K]),
        "appeal_trees": score["trees"][K], "appeal_cnn": score["cnn"][K],
    }  # fmt: skip


def statistics(x: np.ndarray) -> np.ndarray:
    """Forty statistics of grey pictures (n, H, W): moments, quantiles, gradients, nine fields, neighbours."""
    n, (dy, dx) = len(x), np.gradient(x, axis=(1, 2))
    edge = np.hypot(dy, dx)
    columns = [x.mean((1, 2)), x.std((1, 2)), edge.mean((1, 2)), edge.std((1, 2))]
    columns += list(np.quantile(x.reshape(n, -1), (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95), axis=1))
    for row in np.array_split(np.arange(x.shape[1]), 3):
        for column in np.array_split(np.arange(x.shape[2]), 3):
            field = np.ix_(np.arange(n), row, column)
            columns += [x[field].mean((1, 2)), x[field].std((1, 2)), edge[field].mean((1, 2))]
    columns += [(x[:, lag:] * x[:, :-lag]).mean((1, 2)) for lag in (1, 2)]
    return np.stack(columns, axis=1)


def small_cnn(shape, outputs):
    from keras import Input, Model, layers, optimizers

    x = inputs = Input((*shape, 1))
    x = layers.MaxPooling2D(2)(layers.Conv2D(24, 5, padding="same", activation="relu")(x))
    x = layers.Conv2D(48, 3, padding="same", activation="relu")(x)
    x = layers.MaxPooling2D(2)(layers.Conv2D(48, 3, padding="same", activation="relu")(x))
    x = layers.Dropout(0.1)(x)
    place = layers.Flatten()(layers.Conv2D(8, 1, activation="relu")(layers.AveragePooling2D(2)(x)))
    x = layers.Concatenate()([layers.GlobalMaxPooling2D()(x), layers.GlobalAveragePooling2D()(x), place])
    x = layers.Dropout(0.2)(layers.Dense(64, activation="relu")(x))
    model = Model(inputs, layers.Dense(outputs)(x))
    model.compile(optimizers.AdamW(2e-3, weight_decay=1e-2), "mse")
    return model


def log(market) -> dict:
    """Gates 4 and 5: known contents, oracle's AUC, AUC of the position alone."""
    train, _, test = vaecm.split_by_time(market, (0.7, 0.1, 0.2))
    known = test.impressions["content_id"].isin(train.impressions["content_id"].unique())
    y = market.impressions["clicked"]
    return {
        "known_share": known.mean(), "oracle_auc": roc_auc_score(y, market.truth["p_click"]),
        "position_auc": roc_auc_score(y, -market.impressions["position"]),
        "click_rate": y.mean(), "conversion_rate": market.impressions["converted"].sum() / y.sum(),
    }  # fmt: skip


def order(market) -> dict:
    """Gate 2: log-loss that a shuffled order of the last 30 events costs, beside the true terms that need no history."""
    fixed = market.truth[[
        name for name in market.truth
        if name.startswith("click_") and name not in ("click_intent", "click_category", "click_format", "click_base")
    ]].assign(look=market.truth["p_look"])  # fmt: skip
    losses = []
    for events in (market.events, shuffled(market.events, np.random.default_rng(0))):
        losses.append(
            held_out_loss(market, pd.concat([fixed.reset_index(drop=True), recent(market, events)], axis=1))
        )
    return dict(
        zip(("order", "order_low", "order_high"), interval(market, losses[1] - losses[0]), strict=True)
    )


def shuffled(events, rng):
    """The same times, with what happened within each run of 30 events of a user in random order."""
    run = events.groupby("user_id").cumcount(ascending=False) // LAST
    order = np.lexsort((rng.random(len(events)), -run, events["user_id"]))
    what = [name for name in events if name not in ("user_id", "time")]
    mixed = events[what].iloc[order].reset_index(drop=True)
    return events[["user_id", "time"]].reset_index(drop=True).join(mixed)


def recent(market, events):
    """What the last events before each impression were, and how they fit its content (true style at hand)."""
    shown = market.impressions.reset_index(drop=True)
    style = market.oracle.world["content_style"][shown["content_id"].to_numpy() - 1]
    product = market.oracle.world["content_product"][shown["content_id"].to_numpy() - 1]
    category = market.oracle.world["product_category"][product]
    key = (
        events["user_id"].to_numpy() * 10**11
        + events["time"].astype("datetime64[s]").astype("int64").to_numpy()
    )
    at = np.searchsorted(
        key,
        shown["user_id"].to_numpy() * 10**11
        + shown["time"].astype("datetime64[s]").astype("int64").to_numpy(),
    )
    of = pd.Categorical(events["category"], simulate.CATEGORIES).codes
    action = pd.Categorical(events["action"], simulate.LIVE_ACTIONS).codes
    item = events["product_id"].fillna(0).astype(int).to_numpy() - 1
    looks = np.where(item[:, None] >= 0, market.oracle.world["product_style"][item], 0)
    columns, same_count, fit = {}, 0, 0
    for back in range(1, LAST + 1):
        row = np.maximum(at - back, 0)
        mine = (at - back >= 0) & (events["user_id"].to_numpy()[row] == shown["user_id"].to_numpy())
        hours = (shown["time"].to_numpy() - events["time"].to_numpy()[row]) / np.timedelta64(1, "h")
        same = mine & (of[row] == category)
        fit = fit + np.where(same, (looks[row] * style).sum(axis=1), 0)
        same_count = same_count + same
        if back <= 6:
            columns |= {f"same_{back}": same, f"action_{back}": np.where(mine, action[row], -1)}
            columns |= {f"hours_{back}": np.where(mine, hours, np.nan)}
        if back in (3, 6, LAST):
            columns |= {f"share_{back}": same_count.copy(), f"fit_{back}": fit.copy()}
    return pd.DataFrame(columns)


def held_out_loss(market, table):
    """Log-loss of each test impression under boosted trees on a table."""
    train, test = parts(market)
    y = market.impressions["clicked"].to_numpy()
    model = HistGradientBoostingClassifier(
        learning_rate=0.08,
        max_iter=300,
        max_leaf_nodes=31,
        min_samples_leaf=100,
        early_stopping=True,
        random_state=0,
    ).fit(table[train], y[train])
    return loss(y[test], model.predict_proba(table[test])[:, 1])


def parts(market):
    time = market.impressions["time"]
    border = time.quantile(0.8)
    return (time <= border).to_numpy(), (time > border).to_numpy()


def loss(y, p):
    return -np.where(y == 1, np.log(p), np.log1p(-p))


def interactions(market) -> dict:
    """Gate 3: log-loss of logistic regression less that of boosted trees, on the true factors of each impression."""
    table, classes = factors(market)
    train, test = parts(market)
    y = market.impressions["clicked"].to_numpy()
    numbers = [name for name in table if name not in classes]
    linear = make_pipeline(
        make_column_transformer((StandardScaler(), numbers), (OneHotEncoder(), classes)),
        LogisticRegression(max_iter=200),
    ).fit(table[train], y[train])
    difference = loss(y[test], linear.predict_proba(table[test])[:, 1]) - held_out_loss(market, table)
    names = ("interactions", "interactions_low", "interactions_high")
    return dict(zip(names, interval(market, difference), strict=True))


def factors(market):
    """True factors and columns of each impression, and the names of the classes among them."""
    world, shown = market.oracle.world, market.impressions
    request, content = shown["request_id"].to_numpy() - 1, shown["content_id"].to_numpy() - 1
    user, product = world["request_user"][request], world["content_product"][content]
    day = world["request_day"][request]
    columns = {name: world["content_style"][content, k] for k, name in enumerate(STYLE)}
    columns |= {f"taste_{k}": world["user_taste"][user, k] for k in range(K)}
    columns |= {f"direction_{k}": world["request_direction"][request, k].astype(float) for k in range(K)}
    columns |= {
        name: world[f"content_{name}"][content] for name in ("appeal", "wording", "bait", "energy", "hidden")
    }
    columns |= {"charm": world["author_charm"][world["content_author"][content]]}
    columns |= {name: world[f"user_{name}"][user] for name in ("clicker", "tier")}
    columns |= {"price": world["product_relative"][product], "hour": 24 * (day % 1), "day": day}
    columns |= {"age": day - world["content_birth"][content], "exposure": shown["exposure"].to_numpy()}
    category = world["product_category"][product]
    columns |= {
        "likes": world["user_likes"][user, category],
        "same": category == world["request_category"][request],
    }
    classes = {
        "stage": world["request_stage"][request], "format": world["content_format"][content], "category": category,
        "position": shown["position"].to_numpy(), "device": world["request_device"][request],
        "age_group": world["user_age"][user], "week_day": np.floor(day).astype(int) % 7,
    }  # fmt: skip
    return pd.DataFrame({**columns, **classes}), list(classes)


def interval(market, difference, n=300):
    """Mean of the test impressions with its 95 % interval, contents drawn with replacement."""
    _, test = parts(market)
    codes, groups = pd.factorize(market.impressions["content_id"][test])
    total, count = np.bincount(codes, difference), np.bincount(codes)
    draws = np.random.default_rng(0).multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=n)
    means = draws @ total / (draws @ count)
    return difference.mean(), *np.quantile(means, (0.025, 0.975))


def write_datasheet(rows: pd.DataFrame):
    """Put the table of gates between the marks of the datasheet."""
    start, end = "<!-- gates: written by python -m benchmarks.gates -->", "<!-- end of gates -->"
    text = DATASHEET.read_text()
    if start in text:
        head, rest = text.split(start)
        DATASHEET.write_text(head + start + "\n" + gate_table(rows) + "\n" + end + rest.split(end)[1])


def gate_table(rows: pd.DataFrame) -> str:
    """Markdown: what each gate asks, and its value on each seed."""

    def line(text, ask, form):
        return f"| {text} | {ask} | " + " | ".join(form(row) for _, row in rows.iterrows()) + " |"

    def gap(name):
        return lambda r: f"{r[name + '_cnn']:.2f} against {r[name + '_trees']:.2f}"

    def cost(name):
        return lambda r: f"{r[name]:.4f} [{r[name + '_low']:.4f}, {r[name + '_high']:.4f}]"

    def share(name):
        return lambda r: f"{r[name]:.2f}"

    seeds = " | ".join(f"seed {int(seed)}" for seed in rows["seed"])
    return "\n".join([
        f"| gate | asked | {seeds} |",
        "|---|---|" + "---|" * len(rows),
        line(
            "1. style from covers, R2: small CNN against trees on 40 statistics and 64 components",
            ".1 more",
            gap("style"),
        ),
        line("1. appeal from covers, R2", ".1 more", gap("appeal")),
        line("2. log-loss that shuffling the last 30 events costs", "above 0", cost("order")),
        line(
            "3. log-loss by which trees beat logistic regression on the true factors", "above 0", cost("interactions")
        ),
        line("4. share of test impressions whose content training met", ".4 to .6", share("known_share")),
        line("5. AUC of the true probabilities", ".80 to .85", share("oracle_auc")),
        line("5. AUC of the position alone", "at most .62", share("position_auc")),
    ])  # fmt: skip


if __name__ == "__main__":
    main()
