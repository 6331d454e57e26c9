"""The whole pipeline behind fit, predict, save and load."""

import json
from dataclasses import asdict, dataclass

import keras
import numpy as np
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import norm
from tqdm import tqdm

from vaecm.effects import EffectNetwork
from vaecm.evidence import ROWS, fit_ridge, unexplained
from vaecm.market import checked_folder, new_folder
from vaecm.meetings import Meetings
from vaecm.prepare import split_by_time
from vaecm.represent import USER_STEPS, Batches, Progress, Representation, blocks

PAIRED = 300_000  # repeated meetings that doubt is measured on
CHUNK = 200_000  # impressions predicted at once: what bounds the working memory


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and schedules of the model; the defaults are what the benchmarks measure.

    Parameters
    ----------
    latent_dim : int
        L, the latent dimensions of a content and of a user.
    beta : float
        Weight of the KL term in both VAEs.
    company_weight : float
        Weight of what users browse together, which the content VAE has to tell from cover, title and sound.
    modality_dropout : float
        Chance that the VAEs hide a modality from their encoders, in half of the rows.
    vae_steps : int
        Gradient steps of the content VAE; the user VAE takes a quarter of them.
    match_dim : int
        Width of the projections of content and user that are multiplied.
    hidden : tuple of int
        Units of the hidden layers of the effect network.
    dropout : float
        Dropout of the effect network.
    penalty : float
        L2 penalty on its kernels; the linear path finds its own.
    epochs : int
        Most passes over the impressions; the best one on the validation part is kept.
    batch_size : int
        Impressions per gradient step.
    learning_rate : float
        Of the effect network; the VAEs use the same.
    ensemble : int
        Effect networks whose probabilities are averaged.
    history_length, title_length : int
        Events and words that are read.

    Raises
    ------
    ValueError
        Names every field that is out of range, with the value received.

    Examples
    --------
    >>> ModelConfig(latent_dim=8).latent_dim
    8
    """

    latent_dim: int = 24
    beta: float = 1.0
    company_weight: float = 40.0
    modality_dropout: float = 0.5
    vae_steps: int = 600
    match_dim: int = 8
    hidden: tuple = (32,)
    dropout: float = 0.2
    penalty: float = 1e-3
    epochs: int = 3
    batch_size: int = 1_024
    learning_rate: float = 2e-3
    ensemble: int = 2
    history_length: int = 30
    title_length: int = 12

    def __post_init__(self):
        rules = {
            "latent_dim": (1, 512), "beta": (0, 100), "company_weight": (0, 1e4), "modality_dropout": (0, 0.95),
            "vae_steps": (1, 10**6), "match_dim": (1, 1024), "dropout": (0, 0.95), "penalty": (0, 1),
            "epochs": (1, 1000), "batch_size": (1, 10**6), "learning_rate": (1e-6, 1), "ensemble": (1, 100),
            "history_length": (1, 1000), "title_length": (1, 1000),
        }  # fmt: skip
        problems = []
        for name, (low, high) in rules.items():
            value = getattr(self, name)
            whole = isinstance(type(self).__dataclass_fields__[name].default, int)
            kind = (int, np.integer) if whole else (int, float, np.integer, np.floating)
            if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
                problems.append(
                    f"{name} must be {'a whole number' if whole else 'a number'} from {low:g} to {high:g}, got {value!r}"
                )
        if not self.hidden or not all(isinstance(units, int) and units > 0 for units in self.hidden):
            problems.append(f"hidden must be a tuple of positive whole numbers, got {self.hidden!r}")
        if problems:
            raise ValueError("ModelConfig: " + "; ".join(problems))


class EffectPredictor:
    """Predict the click rate, conversion rate and sales of impressions.

    Two product-of-experts VAEs learn, without labels, what contents and users are like; an ensemble of effect networks
    learns from clicks, conversions and sales what comes of their meeting: a linear path whose priors come from the
    data, and a small deep part that learns what the linear path leaves. Each content and each user is encoded once.

    Parameters
    ----------
    config : ModelConfig, optional
    seed : int
        Same seed, same machine, same result.

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=60, n_contents=60, n_impressions=2_000))
    >>> train, valid, test = vaecm.split_by_time(market, (0.7, 0.1, 0.2))
    >>> tiny = vaecm.ModelConfig(vae_steps=5, epochs=1, ensemble=1)
    >>> predictor = vaecm.EffectPredictor(tiny, seed=0).fit(train, validation=valid, verbose=False)
    >>> list(predictor.predict(test).columns)
    ['ctr', 'cvr', 'ctcvr', 'sales']
    """

    made_of = Representation  # what an ablation replaces

    def __init__(self, config=None, seed=0):
        self.config = ModelConfig() if config is None else config
        self.seed = seed
        self.representation, self.networks, self.doubt, self.met = None, None, None, None

    def fit(self, train, validation=None, verbose=True):
        """Learn the preparation, both VAEs and the effect networks from `train`.

        Parameters
        ----------
        train : Market
            Only its impressions, and the contents published before the last of them, are learned from.
        validation : Market, optional
            Later impressions that choose the number of epochs; the last tenth of `train` where it is not given.
        verbose : bool
            Show progress.

        Returns
        -------
        EffectPredictor
            Itself. An interrupted or failed fit leaves the predictor as it was.
        """
        train.check()
        if validation is None:
            train, validation, _ = split_by_time(train, (0.9, 0.1, 0.0))
        keras.utils.set_random_seed(self.seed)
        config = self.config
        steps = round(config.vae_steps * (1 + USER_STEPS)) + 50 * config.ensemble * config.epochs
        with tqdm(total=steps, disable=not verbose) as bar:
            representation, inputs = self.made_of.fit_with_inputs(train, config, self.seed, bar)
            effects = fit_effects(config, representation, inputs, train, validation, self.seed, bar)
        self.representation = representation
        self.networks, self.doubt, self.met = effects
        return self

    def predict(self, market, draws=0, level=0.95):
        """Effects of every impression of `market`.

        Parameters
        ----------
        market : Market
            Clicks, conversions and sales need not be there.
        draws : int
            Draws of the latents from their posterior, for each network; 0 predicts from their means. With draws there
            are intervals of the click rate as well, from four sources: what is not seen of content and user, how the
            networks differ, the posterior of the linear path, and what no column tells (`evidence.unexplained`).
        level : float
            Of the intervals.

        Returns
        -------
        DataFrame
            Indexed by impression_id: ctr, cvr, ctcvr (probabilities) and sales (yuan per impression), NaN for an
            effect that training did not know; with draws also ctr_low and ctr_high.
        """
        self._need_fit()
        market.check(targets=False)
        representation = self.representation
        prepared = representation.prepared(market)
        versions = [
            representation.inputs(prepared, rng).meet(self.met) for rng in _generators(self.seed, draws)
        ]
        effects = np.empty((len(market.impressions), 4))
        bounds = np.empty((len(market.impressions), 2)) if draws else None
        for start in range(0, len(effects), CHUNK):
            rows = slice(start, min(start + CHUNK, len(effects)))
            drawn = [inputs.rows(rows) for inputs in versions]
            each = np.stack([_effects(network, block) for block in drawn for network in self.networks])
            effects[rows] = each.mean(axis=0)
            if draws:
                bounds[rows] = self._bounds(each[:, :, 0], drawn[0], level)
        ctr, ctcvr = effects[:, 0], effects[:, 2]
        columns = {"ctr": ctr, "cvr": ctcvr / ctr, "ctcvr": ctcvr, "sales": effects[:, 3]}
        for name, target in (("cvr", "converted"), ("ctcvr", "converted"), ("sales", "sales")):
            if not representation.preparation.state["has"][target]:
                columns[name] = np.full(len(effects), np.nan)
        if draws:
            columns |= {"ctr_low": bounds[:, 0], "ctr_high": bounds[:, 1]}
        return pd.DataFrame(
            columns, index=pd.Index(market.impressions["impression_id"], name="impression_id")
        )

    def content_latents(self, market):
        """Posterior of each content's z: means ``z0..``, then standard deviations ``sd0..``, indexed by content_id."""
        self._need_fit()
        return _latent_frame(
            self.representation.content_latents(market), market.contents["content_id"], "content_id"
        )

    def user_latents(self, market):
        """Posterior of each user's z: means ``z0..``, then standard deviations ``sd0..``, indexed by user_id."""
        self._need_fit()
        return _latent_frame(self.representation.user_latents(market), market.users["user_id"], "user_id")

    def count_params(self):
        """Weights of both VAEs and of all effect networks."""
        self._need_fit()
        models = [self.representation.content_vae, self.representation.user_vae, *self.networks]
        return sum(model.count_params() for model in models if model is not None)

    def save(self, folder):
        """Write the predictor: weights as HDF5, the rest as JSON, with checksums; a folder is swapped in whole."""
        self._need_fit()
        with new_folder(folder) as path:
            settings = {"config": asdict(self.config), "seed": self.seed, "networks": len(self.networks)}
            (path / "config.json").write_text(json.dumps(settings, indent=1))
            self.representation.write(path)
            np.savez_compressed(path / "doubt.npz", **self.doubt)
            np.savez_compressed(path / "met.npz", **self.met.arrays())
            for k, network in enumerate(self.networks):
                network.save_weights(path / f"effects_{k}.weights.h5")

    @classmethod
    def load(cls, folder):
        """Read what `save` wrote; a missing, truncated or altered file is refused."""
        path = checked_folder(folder)
        settings = json.loads((path / "config.json").read_text())
        settings["config"]["hidden"] = tuple(settings["config"]["hidden"])
        predictor = cls(ModelConfig(**settings["config"]), seed=settings["seed"])
        predictor.representation = cls.made_of.read(path, predictor.config)
        with np.load(path / "doubt.npz") as arrays:
            predictor.doubt = {name: arrays[name] for name in arrays.files}
        with np.load(path / "met.npz") as arrays:
            predictor.met = Meetings(**{name: arrays[name] for name in arrays.files})
        predictor.networks = []
        for k in range(settings["networks"]):
            network = _network(predictor.config, predictor.representation)
            network.load_weights(path / f"effects_{k}.weights.h5")
            predictor.networks.append(network)
        return predictor

    def _bounds(self, click, inputs, level):
        """Lower and upper click rate (B, 2) from the probabilities of all draws and networks, (S, B).

        Log-odds of variance v around m have mean probability sigmoid(m / sqrt(1 + pi v / 8)), about (MacKay 1992,
        doi:10.1162/neco.1992.4.5.720): the middle of the interval lies below the log-odds of a small mean.
        """
        variance = logit(click).var(axis=0) + float(self.doubt["unexplained"])
        variance += _quadratic(self.networks[0], inputs, self.doubt["covariance"])
        middle = logit(click.mean(axis=0)) * np.sqrt(1 + np.pi * variance / 8)
        reach = norm.ppf((1 + level) / 2) * np.sqrt(variance)
        return expit(middle[:, None] + np.outer(reach, [-1, 1]))

    def _need_fit(self):
        if self.networks is None:
            raise RuntimeError(
                "this EffectPredictor is not fitted: call fit(train) or EffectPredictor.load(folder) first"
            )


def fit_effects(config, representation, inputs, train, validation, seed, bar):
    """The ensemble of effect networks behind one linear path, what is left in doubt of the click rate, and the log."""
    prepared, shown = inputs.prepared, inputs.shown
    ids = prepared.user_ids[shown.user], prepared.content_ids[shown.content]
    train_inputs = inputs.meet(Meetings.learn(*ids, shown.targets[:, 0], inputs.pair.told[shown.content]))
    if train.same_tables(validation):
        valid_inputs = train_inputs.on(representation.shown(validation))
    else:
        valid_inputs = representation.inputs(validation).meet(train_inputs.met)
    first = _network(config, representation, train_inputs.rates(), seed)
    bar.set_description("linear path")
    linear, doubt = _fit_linear(representation, first, train_inputs, seed)
    doubt["unexplained"] = _unexplained(
        representation, first, train_inputs, linear, doubt["covariance"], seed
    )
    networks = [
        _fit_network(config, representation, train_inputs, valid_inputs, linear, seed + 100 * (k + 1), bar)
        for k in range(config.ensemble)
    ]
    return networks, doubt, train_inputs.met


def _generators(seed, draws):
    """One generator for each draw of the latents; None, for their means, without draws."""
    return [np.random.default_rng([seed, k]) for k in range(draws)] if draws else [None]


def _network(config, representation, rates=(0.05, 0.1, 0.0), seed=0):
    network = EffectNetwork(
        config.match_dim, config.hidden, config.dropout, config.penalty, len(representation.preparation.phrases),
        representation.crossed(), rates, seed,
    )  # fmt: skip
    network(representation.example())
    return network


def _fit_linear(representation, network, inputs, seed):
    """Weights of the linear path for click, conversion and sales, (1 + D, 3), and the log-deviation of sales.

    Conversions are few, so they may lean on what clicks teach: what each group of columns adds to the click's
    log-odds is one more column for conversion, and its weight is then spread over the group's own columns.
    """
    groups = representation.groups()
    of = np.repeat(np.arange(len(groups)), list(groups.values()))
    clicked, converted, sales = inputs.shown.targets.T

    def design(rows):
        return network.design(inputs.rows(rows))

    click = fit_ridge(design, clicked, groups, seed=seed)
    weights, log_s = np.zeros((len(of) + 1, 3)), -1.0
    weights[:, 0] = click.weights
    _, convert, value = inputs.rates()
    weights[0, 1], weights[0, 2] = logit(convert), value
    rows = np.flatnonzero((clicked == 1) & ~np.isnan(converted))
    if len(rows):
        parts = np.zeros((len(of), len(groups)))
        parts[np.arange(len(of)), of] = click.weights[1:]

        def taught(at):
            x = design(rows[at])
            return np.hstack([x, x @ parts.astype(np.float32)])

        fit = fit_ridge(taught, converted[rows], groups | {"clicks": len(groups)}, seed=seed).weights
        weights[:, 1] = fit[: len(of) + 1] + np.concatenate([[0], parts @ fit[len(of) + 1 :]])
    rows = np.flatnonzero(np.nan_to_num(sales) > 0)
    if len(rows):
        value = np.log(sales[rows]) - inputs.pair.log_price[inputs.shown.content[rows]]
        fit = fit_ridge(lambda at: design(rows[at]), value, groups, kind="linear", seed=seed)
        weights[:, 2], log_s = fit.weights, float(np.log(fit.noise) / 2)
    return (weights, log_s), {"covariance": click.covariance.astype(np.float32)}


def _unexplained(representation, network, inputs, linear, covariance, seed, draws=2):
    """What repeated meetings show beyond the prediction, less what draws of the latents account for already.

    The same meetings were learned from, so that their residuals agree less than those of new ones: the variance
    of the prediction is added back. The estimate is a rough one, so two standard errors are added as well: an
    interval that is too short does more harm than one that is too long.
    """
    content, user = inputs.shown.content, inputs.shown.user
    rng = np.random.default_rng(seed)
    some = rng.choice(len(user), min(len(user), 20_000), replace=False)
    pair = user.astype(np.int64) * (content.max(initial=0) + 1) + content
    _, at, times = np.unique(pair, return_inverse=True, return_counts=True)
    again = np.flatnonzero(times[at] > 1)  # whoever met a content once says nothing here
    users = rng.permutation(user.max(initial=0) + 1)
    rows = again[users[user[again]] < len(users) * min(1.0, PAIRED / max(len(again), 1))]
    weights = linear[0][:, 0].astype(np.float32)

    def log_odds(inputs, rows):
        blocks = [rows[start : start + ROWS] for start in range(0, len(rows), ROWS)]
        return (
            np.concatenate([network.design(inputs.rows(part)) @ weights[1:] for part in blocks]) + weights[0]
        )

    total = 0.0
    if len(rows):
        p = expit(log_odds(inputs, rows).astype(float))
        total = unexplained(inputs.shown.targets[rows, 0], p, content[rows], user[rows])[1]
    total += _quadratic(network, inputs.rows(some), covariance).mean()
    versions = (
        representation.inputs(inputs.prepared, rng).meet(inputs.met) for rng in _generators(seed, draws)
    )
    drawn = [log_odds(version, some) for version in versions]
    return max(total - float(np.var(drawn, axis=0, ddof=1).mean()), 0.0)


def _quadratic(network, inputs, covariance):
    """Variance of the linear path's log-odds that comes from its weights, (B,)."""
    parts = []
    for block in blocks(inputs, ROWS):
        x = network.design(block)
        x = np.hstack([np.ones((len(x), 1), np.float32), x])
        parts.append(np.einsum("ij,ij->i", x @ covariance, x))
    return np.concatenate(parts)


def _fit_network(config, representation, train, valid, linear, seed, bar):
    """Train the deep part beside the linear path; keep the best epoch, or none where none helps on validation."""
    keras.utils.set_random_seed(seed)
    network = _network(config, representation, train.rates(), seed)
    network.set_linear(*linear)
    steps = -(-len(train) // config.batch_size)
    rate = keras.optimizers.schedules.CosineDecay(config.learning_rate, config.epochs * steps, alpha=0.05)
    network.compile(optimizer=keras.optimizers.Adam(rate), jit_compile=False)
    best = keras.callbacks.EarlyStopping("val_loss", patience=3, restore_best_weights=True)
    data = Batches(train, config.batch_size, seed), Batches(valid, 8_192)
    bar.set_description(f"effects {seed // 100}")
    before = network.get_weights(), network.evaluate(data[1], verbose=0, return_dict=True)["loss"]
    network.fit(
        data[0], validation_data=data[1], epochs=config.epochs, callbacks=[best, Progress(bar, 50)], verbose=0
    )
    if len(valid) and best.best is not None and best.best > before[1]:
        network.set_weights(before[0])
    return network


def _effects(network, inputs):
    """Probabilities and expected sales of one network: (B, 4) of ctr, cvr, ctcvr, sales."""
    parts = [keras.ops.convert_to_numpy(network(block)) for block in blocks(inputs, 8_192)]
    a, b, m, s = np.concatenate(parts).astype(np.float64).T
    click, convert = expit(a), expit(b)
    return np.stack([click, convert, click * convert, click * convert * np.exp(m + s**2 / 2)], axis=1)


def _latent_frame(latent, ids, name):
    mean, log_var = latent
    columns = [f"z{i}" for i in range(mean.shape[1])] + [f"sd{i}" for i in range(mean.shape[1])]
    return pd.DataFrame(
        np.hstack([mean, np.exp(log_var / 2)]), columns=columns, index=pd.Index(ids, name=name)
    )
