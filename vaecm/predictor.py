"""The whole pipeline behind fit, predict, save and load.

Shapes: ``B`` impressions, ``C`` contents, ``E`` events, ``L`` latent dimensions, ``D`` numbers of an item embedding.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import norm
from tqdm import tqdm

from vaecm.effects import LOOKS, Calibration, EffectNetwork, Voters, head_rows, train_network, train_voters
from vaecm.export import export_predictor
from vaecm.history import outcomes, seconds
from vaecm.io import checked_folder, nested, new_folder, read_arrays
from vaecm.latents import Representation
from vaecm.market import Market, MarketError, Problem
from vaecm.options import is_number, is_whole, range_problems, whole_problems
from vaecm.options import refuse as refuse_options
from vaecm.schema import canonical
from vaecm.splits import split_by_time
from vaecm.training import in_batches
from vaecm.written import read_cells

CHUNK = 100_000  # impressions predicted at once: what bounds the working memory
RANGES = {
    "latent_dim": (1, 512), "beta": (0.0, 100.0), "history_beta": (0.0, 100.0), "item_dim": (1, 512),
    "item_weight": (0.0, 1e4), "pixel_weight": (0.0, 1e4), "modality_dropout": (0.0, 0.95), "vae_steps": (0, 10**6),
    "units": (1, 4096), "history_length": (2, 1000), "title_length": (1, 1000), "dropout": (0.0, 0.95),
    "penalty": (0.0, 1.0), "epochs": (1, 1000), "batch_size": (1, 10**6), "learning_rate": (1e-6, 1.0),
    "ensemble": (1, 100),
}  # fmt: skip
EFFECTS = ("ctr", "cvr", "ctcvr", "sales")
# What an impression that did not happen does not have.
NOT_ASKED = ("clicked", "converted", "converted_at", "sales", "propensity")


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and schedules of the model; the defaults are what the benchmarks measure.

    Parameters
    ----------
    latent_dim : int
        L, the latent dimensions of a content and of a user's state.
    beta, history_beta : float
        Weight of the KL term in the VAE of contents and in that of histories.
    item_dim : int
        D, the dimensions of the item embeddings.
    item_weight : float
        Weight of the item embedding that z has to tell from cover, title, sound and attributes.
    pixel_weight : float
        Weight of the pixels of covers and sound, which are many.
    modality_dropout : float
        Chance that the content VAE hides a modality from its encoders, in half of the rows.
    vae_steps : int
        Gradient steps of the content VAE; the history VAE takes half of them.
    units : int
        Of the GRU.
    history_length, title_length : int
        Events and words that are read at once.
    hidden : tuple of int
        Units of the hidden layers of the effect network.
    dropout : float
        Dropout of the effect network.
    penalty : float
        Its weight decay.
    epochs : int
        Most passes over the impressions; it stops earlier where validation no longer gains.
    batch_size : int
        Impressions per gradient step.
    learning_rate : float
        Of the effect network.
    ensemble : int
        Effect networks whose probabilities are averaged.
    trees, linear : bool
        Whether boosted trees have a say in clicks and conversions, and a penalised logistic regression in clicks.

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
    history_beta: float = 0.02
    item_dim: int = 32
    item_weight: float = 30.0
    pixel_weight: float = 0.1
    modality_dropout: float = 0.5
    vae_steps: int = 600
    units: int = 64
    history_length: int = 64
    title_length: int = 16
    hidden: tuple = (64, 32)
    dropout: float = 0.2
    penalty: float = 1e-4
    epochs: int = 5
    batch_size: int = 512
    learning_rate: float = 2e-3
    ensemble: int = 1
    trees: bool = True
    linear: bool = True

    def __post_init__(self):
        for name, kind in ((f.name, type(f.default)) for f in fields(self)):
            value = getattr(self, name)  # NumPy's numbers cannot be written as JSON
            if kind in (int, float) and is_number(value) and kind(value) == value:
                object.__setattr__(self, name, kind(value))
        problems = range_problems(asdict(self), RANGES)
        hidden = self.hidden if isinstance(self.hidden, (tuple, list)) else (0,)
        if not all(is_whole(n) for n in hidden):
            problems.append(f"hidden must be a tuple of positive whole numbers, got {self.hidden!r}")
        flags = {"trees": self.trees, "linear": self.linear}
        wrong = {name: flag for name, flag in flags.items() if not isinstance(flag, (bool, np.bool_))}
        problems += [f"{name} must be True or False, got {flag!r}" for name, flag in wrong.items()]
        refuse_options("ModelConfig", problems)
        for name, value in {"hidden": tuple(map(int, hidden)), **flags}.items():
            object.__setattr__(self, name, value if name == "hidden" else bool(value))


class EffectPredictor:
    """Predict the click rate, conversion rate and sales of impressions.

    Two VAEs learn without labels: one what contents are like, one what users are after; as-of features tell what was
    known just before; an effect network, and boosted trees beside it, learn from clicks, conversions and sales what comes
    of it. What validation does not support is shrunk towards the mean rate.

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

    def __init__(self, config: ModelConfig | None = None, seed: int = 0):
        self.config = ModelConfig() if config is None else config
        problems, kind = range_problems({"seed": seed}, {"seed": (0, 2**31 - 1)}), type(self.config).__name__
        problems += [] if kind == "ModelConfig" else [f"config must be a ModelConfig, got {kind}"]
        refuse_options("EffectPredictor", problems)
        self.seed = int(seed)
        self.representation, self.networks, self.voters, self.state = None, None, None, None

    def fit(self, train: Market, validation: Market | None = None, verbose: bool = True) -> EffectPredictor:
        """Learn the features, both VAEs, the effect networks and their calibration.

        Parameters
        ----------
        train : Market
            Only its impressions, and what was known by the last of them, are learned from.
        validation : Market, optional
            Later impressions that end the training and calibrate it; the last tenth of `train` where it is not given.
        verbose : bool
            Show progress.

        Returns
        -------
        EffectPredictor
            Itself. An interrupted or failed fit leaves the predictor as it was.

        Raises
        ------
        MarketError
            Lists all that is wrong with `train`, or with `validation`.
        """
        train = checked(train, "train")
        if validation is None:
            train, validation = split_by_time(train, (0.9, 0.1))
        validation = checked(validation, "validation").without(ignored(train))
        config, looks = self.config, self.config.ensemble * self.config.epochs * LOOKS
        with tqdm(total=config.vae_steps + config.vae_steps // 2 + looks, disable=not verbose) as bar:
            bar.set_description("autoencoders")
            done = lambda *_: bar.update()  # noqa: E731
            representation = Representation.learn(train, validation, config, self.seed, done)
            state = learn_state(train, validation)
            parts = [
                (network_inputs(representation, p, state), targets(p, state)) for p in (train, validation)
            ]
            bar.set_description("effects")
            pairs = met(validation)
            networks, voters = train_effects(representation, config, state, parts, pairs, self.seed, done)
            bar.total = bar.n
        self.representation, self.networks, self.voters, self.state = representation, networks, voters, state
        return self

    def predict(self, market: Market, draws: int = 0, level: float = 0.95) -> pd.DataFrame:
        """Effects of every impression of `market`.

        Parameters
        ----------
        market : Market
            Clicks, conversions and sales need not be there. Of its log and events, what lies before a row counts for it.
        draws : int
            Draws of the latents from their posterior; with any there are columns ``ctr_low``, ``ctr_high`` and so on.
        level : float
            Share of the intervals that hold the rate.

        Returns
        -------
        DataFrame
            Indexed by impression_id: ctr, cvr, ctcvr, and sales in yuan per impression; NaN for what training lacked.

        Raises
        ------
        ValueError
            For options out of range, and for a market that cannot be read.
        """
        fine = isinstance(level, (float, int, np.number)) and 0 < level < 1
        wrong = [] if fine else [f"level must lie between 0 and 1, got {level!r}"]
        return self._predict(self._ready("predict", market, {"draws": (draws, 0)}, wrong), draws, level)

    def _predict(self, market: Market, draws: int, level: float) -> pd.DataFrame:
        if (n := len(market.impressions)) > CHUNK:  # user by user, so that each history is read once
            part = np.empty(n, int)
            part[np.argsort(market.user_rows, kind="stable")] = np.arange(n) // CHUNK
            found = [self._predict(market.select(part == k), draws, level) for k in range(part.max() + 1)]
            return pd.concat(found).iloc[np.argsort(np.argsort(part, kind="stable"))]
        market = market.settled()
        known = self.representation.posterior(market)
        inputs = network_inputs(self.representation, market, self.state, known)
        heads = outputs(self.networks, self.voters, inputs)
        drawn = [heads]
        for k in range(draws):
            noisy = self.representation.inputs(market, np.random.default_rng([self.seed, k]), known)
            drawn.append(outputs(self.networks, self.voters, inputs | noisy))
        columns = effects(heads, self.state)
        if draws:
            columns |= intervals(columns, np.concatenate(drawn), self.state, level)
        index = pd.Index(market.impressions["impression_id"], name="impression_id")
        return pd.DataFrame(columns, index=index)

    def score_contents(
        self,
        market: Market,
        audience: Sequence | None = None,
        position: int = 1,
        draws: int = 0,
        sample: int = 24,
    ) -> pd.DataFrame:
        """Expected effects of each content of `market` for an audience, at one position.

        Parameters
        ----------
        market : Market
            Its impressions give the moments at which users are met.
        audience : sequence of user ids, optional
            All users that the impressions show, where it is not given.
        position : int
        draws : int
            As in `predict`.
        sample : int
            Moments that are drawn and shared by all contents.

        Returns
        -------
        DataFrame
            Indexed by content_id: the means over the moments of ctr, cvr, ctcvr and sales, and of their intervals.
        """
        whole = {"position": (position, 1), "draws": (draws, 0), "sample": (sample, 1)}
        market = self._ready("score_contents", market, whole)
        moments = market.impressions.sort_values(["time", "impression_id"], kind="stable")
        if audience is not None:
            moments = moments[np.isin(canonical(moments["user_id"]), canonical(audience))]
        if not len(moments):
            raise ValueError("score_contents: no impression of this audience says when it is met")
        moments = moments.iloc[np.random.default_rng(self.seed).permutation(len(moments))[:sample]]
        contents = market.contents["content_id"].to_numpy()
        rows = moments.drop(columns=[name for name in NOT_ASKED if name in moments])
        rows = rows.iloc[np.repeat(np.arange(len(moments)), len(contents))].reset_index(drop=True)
        ids = {"content_id": np.tile(contents, len(moments)), "impression_id": np.arange(len(rows))}
        rows = rows.assign(**ids, position=position)
        asked = replace(market, impressions=rows, log=market.past, truth=None)
        content = np.tile(np.arange(len(contents)), len(moments))
        return self._predict(asked, draws, 0.95).groupby(content).mean().set_axis(
            pd.Index(contents, name="content_id"))  # fmt: skip

    def content_latents(self, market: Market) -> pd.DataFrame:
        """Posterior of each content's z: means ``z0..``, then standard deviations ``sd0..``, indexed by content_id."""
        market = self._ready("content_latents", market, strict=False)
        latent = self.representation.contents(market, np.arange(len(market.contents)))
        return latent_frame(latent.mean, latent.log_var, market.contents["content_id"])

    def user_latents(self, market: Market, at: object = None) -> pd.DataFrame:
        """Posterior of each user's state just before a time (by default after all that is known)."""
        second = np.iinfo(np.int64).max // 4 if at is None else read_cells(pd.Series([at]), "time")[0]
        wrong = [] if np.isfinite(second) else [f"at must be a time such as '2025-03-03 10:00', got {at!r}"]
        market = self._ready("user_latents", market, wrong=wrong, strict=False)
        n = len(market.users)
        found = self.representation.users_at(market, np.arange(n), np.full(n, int(second)))
        return latent_frame(found["mean"], found["log_var"], market.users["user_id"])

    def representations(self, market: Market) -> pd.DataFrame:
        """What the encoders say of each impression, for other models: latents of content and user, and their match."""
        found = self.representation.inputs(self._ready("representations", market).settled())
        names = ("content", "user", "match")
        return pd.DataFrame({f"{n}_{j}": found[n][:, j] for n in names for j in range(found[n].shape[1])})

    def count_params(self) -> int:
        """Weights of both VAEs and of all effect networks."""
        self._need_fit()
        models = [self.representation.content_vae, self.representation.history_vae, *self.networks]
        return sum(model.count_params() for model in models)

    def save(self, folder: str | Path) -> None:
        """Write the predictor: weights as HDF5, the rest as JSON and NPZ, with checksums, and the folder in one step."""
        self._need_fit()
        plain, arrays = self.representation.to_state()
        settings = {"config": asdict(self.config), "seed": self.seed, "features": plain, "state": to_json(self.state),
                    "networks": [network.get_config() for network in self.networks]}  # fmt: skip
        arrays |= self.voters.arrays()
        with new_folder(folder, {"kind": "predictor"}) as path:
            (path / "predictor.json").write_text(json.dumps(settings), encoding="utf-8")
            np.savez_compressed(path / "arrays.npz", **arrays)
            for name, model in self._models():
                model.save_weights(path / f"{name}.weights.h5")
            for head, trees in self.voters.trees.items():
                (path / f"trees_{head}.txt").write_text(trees.model_to_string(), encoding="utf-8")

    def export(self, folder: str | Path, format: str = "onnx") -> None:
        """Write networks ("onnx" or "litert"), voters and calibration: `vaecm.serving.load` needs no TensorFlow."""
        self._need_fit()
        sizes = self.representation.sizes()
        export_predictor(folder, format, self.networks, self.voters, self.state, sizes)

    @classmethod
    def load(cls, folder: str | Path) -> EffectPredictor:
        """Read what `save` wrote; a folder of another kind, or a missing or altered file is refused."""
        path = checked_folder(folder, "predictor")
        settings = json.loads((path / "predictor.json").read_text(encoding="utf-8"))
        predictor = cls(ModelConfig(**settings["config"]), settings["seed"])
        parts = nested(arrays := read_arrays(path / "arrays.npz"))
        trees = {head: file for head in parts["say"] if (file := path / f"trees_{head}.txt").exists()}
        trees = {h: lightgbm.Booster(model_str=file.read_text(encoding="utf-8")) for h, file in trees.items()}
        predictor.voters = Voters(trees, parts["linear"], parts["say"])
        plain, config = settings["features"], predictor.config
        predictor.representation = Representation.from_state(plain, arrays, config, predictor.seed)
        predictor.state = from_json(settings["state"])
        predictor.networks = [EffectNetwork(**options) for options in settings["networks"]]
        empty = {name: np.zeros((1, n), np.float32) for name, n in predictor.representation.sizes().items()}
        for network in predictor.networks:
            network(empty)  # builds it
        for name, model in predictor._models():
            model.load_weights(path / f"{name}.weights.h5")
        return predictor

    def _models(self):
        models = {"contents": self.representation.content_vae, "histories": self.representation.history_vae}
        return (models | {f"effects_{k}": network for k, network in enumerate(self.networks)}).items()

    def _ready(self, function, market, whole=None, wrong=(), strict=True):
        """The market without what training was told to ignore, or one error for all that is wrong."""
        self._need_fit()
        refuse(function, market, whole or {}, wrong)
        return market.check(strict, targets=False).without(self.state["ignored"])

    def _need_fit(self):
        if self.networks is None:
            raise RuntimeError(
                "this EffectPredictor is not fitted: call fit(train) or EffectPredictor.load(folder) first"
            )


def refuse(function: str, market: object, whole: dict, wrong: Sequence[str] = ()) -> None:
    """One error for all that is wrong: `whole` maps names of whole numbers to value and least value."""
    problems = [line for name, (value, low) in whole.items() for line in whole_problems({name: value}, low)]
    kind = type(market).__name__
    problems += [*wrong, *([] if isinstance(market, Market) else [f"market must be a Market, got {kind}"])]
    refuse_options(function, problems)


def checked(market: object, name: str) -> Market:
    """The market without what is to be ignored; refused if it is none, has no rows, or does not tell what was clicked."""
    if not isinstance(market, Market):
        raise ValueError(f"fit: {name} must be a Market, got {type(market).__name__}")
    market, problems = market.check().without(ignored(market)), []
    if not len(market.impressions):
        problems.append(Problem("impressions", "impression_id", f"must have rows in {name}", 0, []))
    elif "clicked" not in market.impressions or market.impressions["clicked"].isna().all():
        n = len(market.impressions)
        problems.append(Problem("impressions", "clicked", f"must be known in {name}", n, []))
    if problems:
        raise MarketError(problems)
    return market


def ignored(market: Market) -> dict[str, list[str]]:
    """Columns that roles tell to ignore, by table."""
    roles = market.roles or {}
    return {name: [c for c, kind in part.items() if kind == "ignore"] for name, part in roles.items()}


def learn_state(train: Market, validation: Market) -> dict:
    """What the networks' inputs and targets need beside the representation: positions, devices, delays, mean rates."""
    log = train.impressions
    state = {"ignored": ignored(train), "positions": 0}
    state["until"] = int(max(seconds(part.impressions["time"]).max() for part in (train, validation)))
    if "position" in log and log["position"].notna().any():
        position = log["position"].dropna().astype(int)
        state |= {"positions": int(np.clip(position.max(), 1, 50)), "usual": int(position.median())}
    device = canonical(devices(train), casefold=True)
    counts = pd.Series(device, dtype=object).value_counts()
    state["devices"] = [name for name in counts.index[:5] if counts[name] > len(log) / 100] or [""]
    state["delays"] = delays(log, state["until"])
    y = np.concatenate([targets(part, state) for part in (train, validation)])
    place = np.concatenate([places(part, state) for part in (train, validation)])
    state["looks"] = looks(place, y[:, 0], (max(state["positions"], 1), len(state["devices"])))
    state["has"] = [bool(np.isfinite(y[:, j]).any()) for j in range(3)]
    sold = y[:, 2][y[:, 2] > 0]
    clicks, orders = np.nansum(y[:, 0]), np.nansum(y[:, 1])
    ripe = np.nansum(np.where(np.isfinite(y[:, 1]), y[:, 0] * y[:, 3], 0))
    state["counts"] = [float(n) for n in (clicks, np.isfinite(y[:, 0]).sum(), orders, max(ripe, orders))]
    state["start"] = [
        float(logit((clicks + 0.5) / (state["counts"][1] + 1))),
        float(logit((orders + 0.5) / (state["counts"][3] + 1.0))),
        float(np.log(sold).mean()) if len(sold) else 0.0,
    ]  # fmt: skip
    return state


def delays(log: pd.DataFrame, until: int) -> list[float]:
    """Quantiles of the seconds from impression to order, of impressions old enough for most orders to be in."""
    if "converted_at" not in log or not log["converted_at"].notna().any():
        return []
    time = seconds(log["time"])
    took = (log["converted_at"] - log["time"]).dt.total_seconds().to_numpy()
    old = time <= np.median(time)
    took = took[old & np.isfinite(took) & (time + np.nan_to_num(took) <= until)]
    return np.quantile(took, np.linspace(0, 1, 41)).tolist() if len(took) >= 20 else []


def targets(market: Market, state: dict) -> np.ndarray:
    """Clicked, converted and sales as they were known at the end of training, and maturity: (B, 4) float32."""
    log = market.impressions
    y = np.column_stack([outcomes(log), np.ones(len(log))]).astype(np.float32)
    if "converted_at" in log:
        later = (seconds(log["converted_at"]) > state["until"])[:, None]
        y[:, 1:3] = np.where(later & np.isfinite(y[:, 1:3]), 0, y[:, 1:3])
    if state["delays"]:
        age = state["until"] - seconds(log["time"])
        share = np.linspace(0, 1, len(state["delays"]))
        y[:, 3] = np.clip(np.interp(age, state["delays"], share), 0.02, 1)
    return y


def devices(market: Market) -> np.ndarray:
    """Device of each impression, its own or its user's; None where unknown."""
    if "device" in market.impressions:
        return market.impressions["device"].to_numpy(object)
    if "device" in market.users:
        return market.users["device"].to_numpy(object)[market.user_rows]
    return np.full(len(market.impressions), None)


def network_inputs(
    representation: Representation, market: Market, state: dict, known: dict | None = None
) -> dict[str, np.ndarray]:
    """All that an effect network reads of each impression; `known` is the `Representation.posterior` of `market`."""
    market = market.without(state["ignored"]).settled()
    table = representation.features.table(market)
    return representation.inputs(market, None, known) | {
        "table": representation.features.design(table), "place": places(market, state),
    }  # fmt: skip


def places(market: Market, state: dict) -> np.ndarray:
    """Codes of position and device of each impression, the usual ones where they are not known: (B, 2) int32."""
    log, place = market.impressions, np.zeros((len(market.impressions), 2), np.int32)
    if state["positions"]:
        if "position" in log:
            position = log["position"].to_numpy(dtype=float, na_value=state["usual"])
        else:
            position = np.full(len(log), state["usual"])
        place[:, 0] = np.clip(position, 1, state["positions"]) - 1
        device = canonical(devices(market), casefold=True)
        place[:, 1] = np.maximum(pd.Index(state["devices"], dtype=object).get_indexer(device), 0)
    return place


def looks(place: np.ndarray, clicked: np.ndarray, shape: tuple[int, int]) -> list[list[float]]:
    """Log-odds of a look by position and device, (P, V), from clicks against the first position: a start."""
    known = np.isfinite(clicked)
    at = np.ravel_multi_index(tuple(place[known].T), shape)
    shown, clicks = np.bincount(at, minlength=np.prod(shape)), np.bincount(at, clicked[known], np.prod(shape))
    rate = ((clicks + 10 * clicked[known].mean()) / (shown + 10)).reshape(shape)
    return logit(np.clip(rate / np.maximum(rate[0], 1e-9), 0.05, 0.95)).tolist()


def make_network(representation, config: ModelConfig, state: dict, inputs: dict, seed: int) -> EffectNetwork:
    """An effect network that starts at the mean rates."""
    exam = (state["positions"], len(state["devices"])) if state["positions"] > 1 else None
    scale = representation.features.scale
    read = scale["numbers"], scale["knots"], exam
    network = EffectNetwork(*read, config.hidden, config.dropout, state["start"], seed)
    network({name: array[:1] for name, array in inputs.items()})
    if exam:  # in tenths
        network.exam.assign(np.array(state["looks"]) / 10)
    return network


def train_effects(
    representation: Representation, config: ModelConfig, state: dict, parts: Sequence[tuple], pairs: np.ndarray,
    seed: int, callback: Callable | None = None,
) -> tuple[list[EffectNetwork], Voters]:  # fmt: skip
    """Networks and other voters, trained and calibrated on (inputs, targets) of training and of validation."""
    networks = []
    for k in range(config.ensemble):
        network = make_network(representation, config, state, parts[0][0], seed + 100 * k)
        schedule = config.epochs, config.batch_size, config.learning_rate, config.penalty
        networks.append(train_network(network, *parts, *schedule, callback))
    voters = train_voters(parts, config.trees, config.linear, seed)
    calibrate(state, networks, voters, parts[1], pairs)
    return networks, voters


def outputs(networks: list, voters: Voters, inputs: dict[str, np.ndarray], size: int = 8_192) -> np.ndarray:
    """Log-odds of click and conversion, m and log s of each network, (K, B, 4), with the say of `voters`."""
    heads = in_batches(lambda x: [network.predict_on_batch(x) for network in networks], inputs, size)
    return voters.join(np.stack(heads).astype(np.float64), inputs)


def pooled(logits: np.ndarray) -> np.ndarray:
    """Log-odds of the mean probability of several networks: (K, B) to (B,)."""
    return logit(np.clip(expit(logits).mean(axis=0), 1e-9, 1 - 1e-9))


def met(market: Market) -> np.ndarray:
    """A number for each pair of a user and a content, at each impression: (B,) int64."""
    return market.user_rows * len(market.contents) + market.content_rows


def calibrate(state: dict, networks: list, voters: Voters, valid: tuple, pairs: np.ndarray) -> None:
    """Learn from (inputs, targets) of validation who has how much to say, how far to trust it, and what stays in doubt.

    `pairs` (B,) tells which user meets which content: pairs that meet again tell what nothing known explains.
    """
    inputs, y = valid
    heads = outputs(networks, Voters(), inputs)
    voters.weigh(heads.mean(axis=0), inputs, y)
    heads = voters.join(heads, inputs)
    clicks, shown, orders, ripe = state["counts"]
    rows, clicked, _ = head_rows(y, "click")
    click = pooled(heads[:, :, 0])[rows]
    state["click"] = Calibration.learn(click, clicked, clicks, shown)
    state["click"].learn_spread(click, clicked, pairs[rows])
    rows, converted, maturity = head_rows(y, "convert")
    convert = pooled(heads[:, :, 1])[rows]
    state["convert"] = Calibration.learn(convert, converted, orders, ripe, maturity)
    sold = y[:, 2] > 0
    value, n = order_value(heads[:, sold]).mean(axis=0), sold.sum()
    state["value"] = float((y[sold, 2].sum() / value.sum()) ** (n / (n + 10))) if n else 1.0
    # of the mean of n log-normal orders, and of the ten that stand for what the networks said
    state["value_sd"] = float(np.sqrt(np.expm1(np.exp(2 * heads[:, :, 3].mean())) / (n + 10)))


def order_value(heads: np.ndarray) -> np.ndarray:
    """Mean value of an order in yuan, of a log-normal with m and log s: (K, B, 4) to (K, B)."""
    return np.exp(heads[:, :, 2] + np.exp(2 * heads[:, :, 3]) / 2)


def effects(heads: np.ndarray, state: dict) -> dict[str, np.ndarray]:
    """Calibrated effects (B,) by name, from the heads of all networks (K, B, 4)."""
    ctr = expit(state["click"](pooled(heads[:, :, 0])))
    cvr = expit(state["convert"](pooled(heads[:, :, 1])))
    value = order_value(heads).mean(axis=0) * state["value"]
    cvr = cvr if state["has"][1] else np.full(len(ctr), np.nan)
    value = value if state["has"][2] else np.full(len(ctr), np.nan)
    return {"ctr": ctr, "cvr": cvr, "ctcvr": ctr * cvr, "sales": ctr * cvr * value}


def intervals(columns: dict, heads: np.ndarray, state: dict, level: float) -> dict[str, np.ndarray]:
    """Ends of the intervals of all effects; relative widths of factors add up in squares."""
    ends, width = {}, {}
    for j, (name, head) in enumerate((("ctr", "click"), ("cvr", "convert"))):
        low, high = state[head].bounds(logit(columns[name]), heads[:, :, j], level)
        ends |= {f"{name}_low": low, f"{name}_high": high}
        width[name] = np.log(columns[name] / low), np.log(high / columns[name])
    sd = np.hypot(state["value_sd"], np.std(np.log(order_value(heads)), axis=0))
    width["value"] = (norm.ppf((1 + level) / 2) * sd,) * 2
    for name, factors in {"ctcvr": ("ctr", "cvr"), "sales": ("ctr", "cvr", "value")}.items():
        low, high = (np.sqrt(sum(width[factor][k] ** 2 for factor in factors)) for k in (0, 1))
        ends |= {f"{name}_low": columns[name] * np.exp(-low), f"{name}_high": columns[name] * np.exp(high)}
    return ends


def to_json(state: dict) -> dict:
    """The state with its calibrations as plain dicts."""
    return {name: asdict(value) if isinstance(value, Calibration) else value for name, value in state.items()}


def from_json(state: dict) -> dict:
    """What `to_json` gave."""
    return state | {name: Calibration(**state[name]) for name in ("click", "convert")}


def latent_frame(mean: np.ndarray, log_var: np.ndarray, ids: pd.Series) -> pd.DataFrame:
    """Means, then standard deviations, by id."""
    columns = [f"{name}{i}" for name in ("z", "sd") for i in range(mean.shape[1])]
    return pd.DataFrame(np.hstack([mean, np.exp(log_var / 2)]), pd.Index(ids, name=ids.name), columns)
