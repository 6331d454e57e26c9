"""The whole pipeline behind fit, predict, save and load."""

import json
from dataclasses import asdict, dataclass

import keras
import numpy as np
import pandas as pd
from scipy.special import expit
from tqdm import tqdm

from vaecm.effects import EffectNetwork
from vaecm.market import checked_folder, new_folder
from vaecm.prepare import split_by_time
from vaecm.represent import Batches, Progress, Representation, blocks

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
        Gradient steps of each VAE.
    match_dim : int
        Width of the projections of content and user that are multiplied.
    hidden : tuple of int
        Units of the hidden layers of the effect network.
    dropout : float
        Dropout of the effect network.
    prior : float
        Standard deviation that the weights of its linear path are expected to have; the penalty is
        ``1 / (2 * prior**2)`` over all impressions together.
    phrase_prior : float
        The same for phrases of the title.
    penalty : float
        L2 penalty on its kernels.
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

    latent_dim: int = 16
    beta: float = 1.0
    company_weight: float = 20.0
    modality_dropout: float = 0.5
    vae_steps: int = 1_500
    match_dim: int = 8
    hidden: tuple = (32,)
    dropout: float = 0.2
    prior: float = 0.05
    phrase_prior: float = 0.15
    penalty: float = 1e-3
    epochs: int = 12
    batch_size: int = 1_024
    learning_rate: float = 2e-3
    ensemble: int = 3
    history_length: int = 30
    title_length: int = 12

    def __post_init__(self):
        rules = {
            "latent_dim": (1, 512), "beta": (0, 100), "modality_dropout": (0, 0.95), "vae_steps": (1, 10**6),
            "match_dim": (1, 1024), "dropout": (0, 0.95), "penalty": (0, 1), "prior": (1e-4, 100),
            "phrase_prior": (1e-4, 100), "company_weight": (0, 1e4), "epochs": (1, 1000), "batch_size": (1, 10**6),
            "learning_rate": (1e-6, 1), "ensemble": (1, 100), "history_length": (1, 1000), "title_length": (1, 1000),
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
    learns from clicks, conversions and sales what comes of their meeting. Each content and each user is encoded once.

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

    def __init__(self, config=None, seed=0):
        self.config = ModelConfig() if config is None else config
        self.seed = seed
        self.representation, self.networks = None, None

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
        with tqdm(
            total=2 * config.vae_steps + config.ensemble * config.epochs * 50, disable=not verbose
        ) as bar:
            representation = Representation.fit(train, config, self.seed, bar)
            parts = representation.inputs(train), representation.inputs(validation)
            networks = [
                _fit_network(config, representation, *parts, self.seed + 100 * (k + 1), bar)
                for k in range(config.ensemble)
            ]
        self.representation, self.networks = representation, networks
        return self

    def predict(self, market, draws=0, level=0.95):
        """Effects of every impression of `market`.

        Parameters
        ----------
        market : Market
            Clicks, conversions and sales need not be there.
        draws : int
            Draws of the latents from their posterior, for each network; 0 predicts from their means. With draws there
            are intervals as well: they hold what is not seen of content and user, and how the networks differ.
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
        versions = [representation.inputs(market)] if not draws else [
            representation.inputs(market, rng=np.random.default_rng([self.seed, k])) for k in range(draws)
        ]  # fmt: skip
        effects = np.empty((len(market.impressions), 4))
        bounds = np.empty((len(market.impressions), 2)) if draws else None
        for start in range(0, len(effects), CHUNK):
            rows = slice(start, min(start + CHUNK, len(effects)))
            each = np.stack(
                [_effects(network, inputs.rows(rows)) for inputs in versions for network in self.networks]
            )
            effects[rows] = each.mean(axis=0)
            if draws:
                bounds[rows] = np.quantile(each[:, :, 0], [(1 - level) / 2, (1 + level) / 2], axis=0).T
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
            for k, network in enumerate(self.networks):
                network.save_weights(path / f"effects_{k}.weights.h5")

    @classmethod
    def load(cls, folder):
        """Read what `save` wrote; a missing, truncated or altered file is refused."""
        path = checked_folder(folder)
        settings = json.loads((path / "config.json").read_text())
        settings["config"]["hidden"] = tuple(settings["config"]["hidden"])
        predictor = cls(ModelConfig(**settings["config"]), seed=settings["seed"])
        predictor.representation = Representation.read(path, predictor.config)
        predictor.networks = []
        for k in range(settings["networks"]):
            network = _network(predictor.config, predictor.representation, (0.05, 0.1, 0.0), 1, 0)
            network(predictor.representation.example())
            network.load_weights(path / f"effects_{k}.weights.h5")
            predictor.networks.append(network)
        return predictor

    def _need_fit(self):
        if self.networks is None:
            raise RuntimeError(
                "this EffectPredictor is not fitted: call fit(train) or EffectPredictor.load(folder) first"
            )


def _network(config, representation, rates, n, seed):
    precision = 0.5 / (n * (config.prior * representation.priors()) ** 2)
    phrases = len(representation.preparation.phrases), 0.5 / (n * config.phrase_prior**2)
    return EffectNetwork(
        config.match_dim, config.hidden, config.dropout, config.penalty, precision.tolist(), phrases,
        representation.crossed(), rates, seed,
    )  # fmt: skip


def _fit_network(config, representation, train, valid, seed, bar):
    """Train one effect network; keep the weights of the epoch with the least validation loss."""
    keras.utils.set_random_seed(seed)
    network = _network(config, representation, train.rates(), len(train), seed)
    steps = -(-len(train) // config.batch_size)
    rate = keras.optimizers.schedules.CosineDecay(config.learning_rate, config.epochs * steps, alpha=0.05)
    network.compile(optimizer=keras.optimizers.Adam(rate))
    best = keras.callbacks.EarlyStopping("val_loss", patience=3, restore_best_weights=True)
    data = Batches(train, config.batch_size, seed), Batches(valid, 8_192)
    bar.set_description(f"effects {seed // 100}")
    network.fit(
        data[0], validation_data=data[1], epochs=config.epochs, callbacks=[best, Progress(bar, 50)], verbose=0
    )
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
