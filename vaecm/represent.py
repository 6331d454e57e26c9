"""From a market to what the effect network reads: both VAEs, encoded once for each content and user.

Shapes: ``C`` contents, ``U`` users, ``B`` impressions, ``L`` latent dimensions.
"""

import json
from dataclasses import dataclass, field, replace

import keras
import numpy as np
import pandas as pd
from sklearn.linear_model import Ridge

from vaecm.encoders import AudioExpert, CoverExpert, HistoryExpert, TableExpert, TitleExpert, VectorExpert
from vaecm.features import CONTENT_MODALITIES, USER_MODALITIES, Preparation, bags, known_contents, rows_of
from vaecm.meetings import Meetings
from vaecm.multimodal import MultimodalVAE
from vaecm.views import (
    SURPRISES,
    less_neighbours,
    likeness_map,
    mapped,
    neighbour_weights,
    unevenness,
    vector_map,
)

VAE_BATCH = 128
ROWS = 1_024  # contents that are looked at at once
USER_STEPS = 1 / 4  # of the content VAE's steps: histories need fewer
SCALED = ("content", "user", "pair", "context", "surprise")
PICTURES = ("cover", "audio")
FILL_ROWS, FILL_PENALTY = 10_000, 30.0  # rows that filling is learned from, and the penalty on its weights
LANDMARKS = {"told": 300, "likeness": 50}  # contents that a new one is compared with


class Progress(keras.callbacks.Callback):
    """Move a progress bar forward at each batch, or by a fixed amount at each epoch."""

    def __init__(self, bar, per_epoch=None):
        super().__init__()
        self.bar, self.per_epoch = bar, per_epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.per_epoch is None:
            self.bar.update()

    def on_epoch_end(self, epoch, logs=None):
        if self.per_epoch is not None:
            self.bar.update(self.per_epoch)


class Representation:
    """The preparation, the content VAE and the user VAE, and what they make of a market.

    Besides the latents there are three views of one space, in which products that the same users browse are near: the
    vector of a content's product (company), the vector that its cover, title and sound tell of (told), and the mean
    vector of what a user looked at and searched for, where recent and costly actions weigh more (browsed). What neither
    the content VAE nor the neighbours tell of a pixel speaks as well: how large and how uneven this rest is (surprise).
    """

    def __init__(self, config, preparation):
        self.config, self.preparation = config, preparation
        self.content_vae = self.user_vae = None
        self.scales, self.maps = {}, {}

    @classmethod
    def fit(cls, train, config, seed, bar):
        """Learn vocabulary, scales and both VAEs from what the training market may know; no label is read."""
        return cls.fit_with_inputs(train, config, seed, bar)[0]

    @classmethod
    def fit_with_inputs(cls, train, config, seed, bar):
        """What `fit` gives, and the inputs of the training market, which are needed on the way."""
        self = cls(config, Preparation.fit(train, config.title_length, config.history_length))
        prepared, known = self.prepared(train), known_contents(train)
        everybody = np.ones(len(train.users), bool)
        self.content_vae = self._learn("content", prepared.contents, known, seed, bar)
        self.user_vae = self._learn("user", prepared.users, everybody, seed + 1, bar)
        self._learn_maps(prepared, known, seed)
        content, user, pair = tables = self._tables(prepared)
        some = np.sort(np.random.default_rng(seed).permutation(len(train.impressions))[:50_000])
        shown = prepared.shown
        scaled = {"content": content[known], "user": user}
        scaled["pair"] = pair.rows(shown.content[some], shown.user[some])
        scaled["context"] = shown.context[some]
        for name, table in scaled.items():
            self.scales[name] = [table.mean(axis=0), np.maximum(table.std(axis=0), 0.05)]
        return self, self._inputs(prepared, *tables)

    def content_latents(self, market):
        """Mean and log-variance of every content, each (C, L)."""
        return self._encode("content", self.preparation.contents(market))

    def user_latents(self, market):
        """Mean and log-variance of every user, each (U, L)."""
        return self._encode("user", self.preparation.users(market))

    def surprise(self, market):
        r"""What neither the content VAE nor the neighbours of a pixel tell of it.

        From the rest :math:`e=x-\hat x(z)` of a picture is taken what the eight neighbours' rests tell of it, by
        weights :math:`w` of least squares. Of this :math:`r=e-b-w\star e`, over pixels, there are

        .. math:: \log\overline{r^2},\qquad \log\frac{\overline{r^4}}{\overline{r^2}^{\,2}},\qquad
                  \log Q_{.5}(|r|),\qquad \log Q_{.9}(|r|),\qquad \log Q_{.97}(|r|)

        the second being the kurtosis: large where a few pixels hold most of the rest. Where the latents tell what
        covers have in common, the rest tells what is peculiar to this one: clutter, noise, a blur. What the VAE drew a
        little beside its place is smooth, so the neighbours take it away.

        Parameters
        ----------
        market : Market

        Returns
        -------
        DataFrame
            Indexed by content_id; five columns for each picture that the VAE reads (``cover square``,
            ``cover kurtosis``, ``cover median``, ``cover decile``, ``cover extreme``, then those of the sound), NaN
            where there is none.

        Examples
        --------
        >>> import vaecm
        >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=60, n_contents=60, n_impressions=2_000))
        >>> tiny = vaecm.ModelConfig(vae_steps=5)
        >>> from tqdm import tqdm
        >>> Representation.fit(market, tiny, 0, tqdm(disable=True)).surprise(market).shape
        (60, 10)
        """
        contents = self.preparation.contents(market)
        table = self._surprise(contents, self._encode("content", contents)[0])
        names = [f"{picture} {part}" for picture in self._pictures() for part in SURPRISES]
        return pd.DataFrame(
            table, columns=names, index=pd.Index(market.contents["content_id"], name="content_id")
        )

    def prepared(self, market):
        """What is the same in every draw of the latents: arrays of contents, users and impressions."""
        preparation = self.preparation
        users = preparation.users(market)
        return Prepared(
            preparation.contents(market), users, *self._browsed(market, users["history"]),
            preparation.shares(users["history"]), preparation.title_phrases(market), preparation.log_price(market),
            market.contents["content_id"].to_numpy(), market.users["user_id"].to_numpy(), self.shown(market),
        )  # fmt: skip

    def shown(self, market):
        """Arrays of the impressions alone."""
        return Shown(self.preparation.context(market), *rows_of(market), _targets(market))

    def inputs(self, prepared, rng=None):
        """What the effect network reads of each impression; with `rng`, latents are drawn from their posteriors.

        Parameters
        ----------
        prepared : Prepared or Market
            A market, or what `prepared` made of it.
        rng : numpy.random.Generator, optional

        Returns
        -------
        Inputs
        """
        if not isinstance(prepared, Prepared):
            prepared = self.prepared(prepared)
        return self._inputs(prepared, *self._tables(prepared, rng))

    def _inputs(self, prepared, content, user, pair):
        return Inputs(
            prepared, _scaled(content, self.scales["content"]), _scaled(user, self.scales["user"]),
            pair, {name: self.scales[name] for name in ("pair", "context")},
        )  # fmt: skip

    def layout(self):
        """Groups of columns that the effect network reads: their widths, by table and name, in order."""
        preparation, L, D = self.preparation, self.latent_dim, self.preparation.company_dim

        def table(name):
            n, classes = preparation.n_numbers(name), preparation.state["classes"][name]
            return {
                "numbers": n,
                "missing": n,
                **dict(zip(classes, preparation.class_sizes(name), strict=True)),
            }

        surprise = 2 * len(SURPRISES) * len(self._pictures())
        likeness = len(self.maps["likeness"]["middle"]) if "likeness" in self.maps else 0
        content = {"z": L, "likeness": likeness, "company": D, "told": D, "surprise": surprise}
        user = {"z": 0 if self.user_vae is None else self.config.latent_dim, "browsed": D, "activity": 6}
        pair = {"company by browsed": D, "told by browsed": D * D, "distance": D, "sums": 2, "shares": 2}
        numbers = len(preparation.state["scales"]["context"])
        context = {"numbers": numbers, "hours": 4, "weekday": 7, "position": 11, "fade": 1}
        return {
            "content": content | table("contents"), "user": user | table("users"),
            "pair": pair, "met": {"clicked": D, "clicked sum": 1, "shown": D, "shown sum": 1}, "context": context,
        }  # fmt: skip

    def sizes(self):
        """Widths of what the effect network reads."""
        return {name: sum(groups.values()) for name, groups in self.layout().items()} | {"log_price": 1}

    def columns(self, table, *groups):
        """First and last column of neighbouring groups of a table."""
        widths = self.layout()[table]
        starts = dict(zip(widths, np.cumsum([0, *widths.values()]).tolist(), strict=False))
        return starts[groups[0]], starts[groups[-1]] + widths[groups[-1]]

    def crossed(self):
        """First and last column of what the linear path crosses.

        Numbers, first class and hours with the classes of users; the sums of the pair with the fade of the history.
        """
        classes = [list(self.preparation.state["classes"][name]) for name in ("contents", "users")]
        return {
            "numbers": self.columns("content", "numbers"),
            "classes": self.columns("content", classes[0][0]) if classes[0] else (0, 0),
            "hours": self.columns("context", "hours"),
            "sums": self.columns("pair", "sums"),
            "fade": self.columns("context", "fade"),
            "users": self.columns("user", classes[1][0], classes[1][-1]) if classes[1] else (0, 0),
        }

    def groups(self):
        """Columns of each group of the linear path, in its order, the phrases of the title last."""
        named = {
            f"{table}: {name}": width
            for table, groups in self.layout().items()
            for name, width in groups.items()
        }
        width = {name: stop - start for name, (start, stop) in self.crossed().items()}
        for name in ("numbers", "classes", "hours"):
            named[f"users by {name}"] = width["users"] * width[name]
        named["sums by fade"] = width["sums"]
        octaves = {f"phrases met {2**k}+ times": n for k, n in self.preparation.phrase_octaves().items()}
        # the codes 0 and 1, nothing there and an unknown phrase, have columns of zeros: a group without weight
        return named | {"no phrase": 2} | octaves

    def example(self):
        """One made-up row of what the effect network reads, to build it with."""
        rows = {name: np.zeros((1, width), np.float32) for name, width in self.sizes().items()}
        return {**rows, "phrases": np.zeros((1, self.preparation.state["title_length"]), np.int32)}

    @property
    def latent_dim(self):
        return self.config.latent_dim if self.content_vae is not None else 0

    def _learn(self, which, arrays, known, seed, bar):
        """Make and train the VAE of contents or users on the rows in `known`."""
        return _fit_vae(self._vae(which, seed), arrays, known, self.config, bar, f"{which} VAE")

    def _vae(self, which, seed):
        """The VAE of contents or users, with an expert for each modality that training has; None without any."""
        L, preparation, has = self.config.latent_dim, self.preparation, self.preparation.state["has"]
        table = "contents" if which == "content" else "users"
        sizes = preparation.n_numbers(table), preparation.class_sizes(table)
        D = preparation.company_dim
        makers = {
            "cover": lambda: CoverExpert(L), "audio": lambda: AudioExpert(L),
            "title": lambda: TitleExpert(L, len(preparation.vocabulary)), "attributes": lambda: TableExpert(L, *sizes),
            "company": lambda: VectorExpert(L, D),
            "history": lambda: HistoryExpert(L, preparation.event_sizes(), D), "profile": lambda: TableExpert(L, *sizes),
        }  # fmt: skip
        has = {**has, "attributes": any(sizes[1]) or sizes[0] > 0, "profile": any(sizes[1]) or sizes[0] > 0}
        names = CONTENT_MODALITIES if which == "content" else USER_MODALITIES
        experts = {name: makers[name]() for name in names if has[name]}
        if not set(experts) - {"company"}:
            return None
        config = self.config
        weights = {"company": config.company_weight}
        vae = MultimodalVAE(
            experts, config.beta, weights, config.modality_dropout, targets=("company",), seed=seed
        )
        vae(_choose(vae, preparation.example(which)))
        if "history" in experts:
            experts["history"].company.assign(preparation.company_table())
        return vae

    def _encode(self, which, arrays):
        """Mean and log-variance of z for the rows of contents or users, each (n, L); (n, 0) without a VAE."""
        vae, n = self.user_vae if which == "user" else self.content_vae, len(arrays["present"])
        if vae is None or n == 0:
            return np.zeros((n, 0), np.float32), np.zeros((n, 0), np.float32)
        parts = [vae(block) for block in blocks(_choose(vae, arrays), ROWS)]
        sides = zip(*parts, strict=True)
        return tuple(np.concatenate([keras.ops.convert_to_numpy(part) for part in side]) for side in sides)

    def _posteriors(self, prepared):
        """Means and log-variances of contents, of contents without attributes, and of users: encoded once."""
        if not prepared.posteriors:
            contents = prepared.contents
            each = {"content": contents, "blind": _blind(contents), "user": prepared.users}
            prepared.posteriors = {name: self._encode(name, arrays) for name, arrays in each.items()}
        return prepared.posteriors

    def _tables(self, prepared, rng=None):
        """Unscaled rows of contents and users, and what is needed to pair them."""
        preparation, contents = self.preparation, prepared.contents
        posteriors = self._posteriors(prepared)
        content_z, blind_z, user_z = (_draw(posteriors[name], rng) for name in ("content", "blind", "user"))
        told, company = self._told(blind_z, contents), self._known_or_told(contents, content_z)
        surprise = np.nan_to_num(_scaled(self._surprise(contents, content_z), self.scales["surprise"]))
        plain = self._filled("contents", prepared, blind_z)
        content = np.hstack(
            [content_z, self.likeness(content_z), company, told, surprise, surprise**2, plain]
        )
        profile = self._filled("users", prepared, None)
        user = np.hstack([user_z, prepared.browsed, prepared.activity, profile])
        codes = np.column_stack(
            [preparation.codes(contents["attributes"], name) for name in ("category", "brand")]
        )
        price, unknown = prepared.log_price, np.isnan(prepared.log_price)
        if unknown.any():
            price = np.where(unknown, preparation.told_price(plain), price)
        return content, user, Pair(company, told, prepared.browsed, codes, prepared.bags, price)

    def _learn_maps(self, prepared, known, seed):
        """Maps from z without attributes to vectors, from neighbours to a rest, from clues to what is missing."""
        contents, posteriors = prepared.contents, self._posteriors(prepared)
        company, blind = contents["company"], posteriors["blind"][0]
        there = known & ~np.isnan(company).any(axis=1)
        if there.sum() > 1 and blind.shape[1]:
            self.maps["told"] = vector_map(blind[there], company[there], LANDMARKS["told"], seed)
        some = {name: array[known] for name, array in contents.items()}
        z = posteriors["content"][0][known]
        if z.size:
            self.maps["likeness"] = likeness_map(z, LANDMARKS["likeness"], seed)
        for name in self._pictures():
            rows = np.flatnonzero(some["present"][:, CONTENT_MODALITIES.index(name)])[:ROWS]
            self.maps[name] = {"weights": neighbour_weights(self._rest(name, some[name][rows], z[rows]))}
        self._learn_fill("contents", prepared, blind, np.flatnonzero(known), seed)
        self._learn_fill("users", prepared, None, np.arange(len(prepared.user_ids)), seed)
        rest = self._surprise(some, z)
        self.scales["surprise"] = [_known(np.nanmean, rest), np.maximum(_known(np.nanstd, rest), 0.05)]

    def _learn_fill(self, name, prepared, z, rows, seed):
        """Ridge regression from clues, and from what is there of the row, to all plain columns of a table.

        It practises on copies of the rows in which values are hidden: all of them, a half, a fifth.
        """
        table = prepared.table(name)[rows]
        if not table.size:
            return
        whole = ~self._gaps(name, table).any(axis=1)
        if whole.sum() > 10 * table.shape[1]:
            rows, table = rows[whole], table[whole]
        rng, n = np.random.default_rng(seed), self.preparation.n_numbers(name)
        some = np.sort(rng.permutation(len(rows))[:FILL_ROWS])
        rows, table = rows[some], table[some]
        self.maps[name] = {"usual": self._clues(name, prepared, rows).mean(axis=0)}
        clues, parts = self._all_clues(name, prepared, z, rows), []
        for share in (1.0, 0.5, 0.2):
            hidden = rng.random(table.shape) < share
            gappy = np.where(hidden, np.where(np.arange(table.shape[1]) < n, np.nan, 0), table)
            parts.append(np.hstack([clues, self.preparation.plain(gappy, name)]))
        ridge = Ridge(FILL_PENALTY).fit(
            np.vstack(parts), np.tile(self.preparation.plain(table, name), (len(parts), 1))
        )
        self.maps[name] |= {"weights": ridge.coef_.T, "middle": ridge.intercept_}

    def _filled(self, name, prepared, z):
        """The plain columns of a table; what is missing is filled with what is usual for such clues.

        Numbers get their mean, classes their probabilities.
        """
        table = prepared.table(name)
        plain, gaps = self.preparation.plain(table, name), self._gaps(name, table)
        n = self.preparation.n_numbers(name)
        rows = np.flatnonzero(gaps.any(axis=1))
        if not len(rows) or name not in self.maps:
            return plain
        clues = np.hstack([self._all_clues(name, prepared, z, rows), plain[rows]])
        found = clues @ self.maps[name]["weights"] + self.maps[name]["middle"]
        plain[rows, :n] = np.where(gaps[rows, :n], found[:, :n], plain[rows, :n])
        start = 2 * n
        for k, size in enumerate(self.preparation.class_sizes(name)):
            chance = np.maximum(found[:, start : start + size], 1e-6) * (np.arange(size) > 0)
            chance /= np.maximum(chance.sum(axis=1, keepdims=True), 1e-6)
            block = plain[rows, start : start + size]
            plain[rows, start : start + size] = np.where(gaps[rows, n + k, None], chance, block)
            start += size
        return plain

    def _gaps(self, name, table):
        """Which numbers and which classes of a table are missing."""
        n = self.preparation.n_numbers(name)
        return np.hstack([np.isnan(table[:, :n]), table[:, n:] == 0])

    def _all_clues(self, name, prepared, z, rows):
        """Clues, their usual values where title or history is missing, and z without the attributes: (rows, D)."""
        clues, arrays = self._clues(name, prepared, rows), getattr(prepared, name)
        at = CONTENT_MODALITIES.index("title") if name == "contents" else USER_MODALITIES.index("history")
        there = arrays["present"][rows, at, None] > 0
        clues = np.where(there, clues, self.maps[name]["usual"])
        return clues if z is None else np.hstack([clues, z[rows]])

    def _clues(self, name, prepared, rows):
        """Words of titles, or what a history was about: what a missing attribute is told from, (rows, D)."""
        if name == "contents":
            return bags(prepared.contents["title"][rows], len(self.preparation.vocabulary))
        parts = [prepared.browsed, prepared.activity, *prepared.bags]
        return np.hstack([part[rows] for part in parts])

    def _known_or_told(self, contents, z):
        """Vectors of the contents' products, where one is not known the one that z tells of: (C, D)."""
        company = contents["company"]
        expert = None if self.content_vae is None else self.content_vae.experts.get("company")
        rows = np.flatnonzero(np.isnan(company).any(axis=1))
        company = np.nan_to_num(company)
        if len(rows) and expert is not None:
            company[rows] = keras.ops.convert_to_numpy(expert.decode(z[rows]))
        return company

    def _told(self, z, contents):
        """The vector that cover, title and sound tell of, from a z without the attributes: (C, D)."""
        if "told" not in self.maps:
            return np.zeros_like(contents["company"])
        return mapped(z, self.maps["told"])

    def likeness(self, z):
        """How near z is to landmarks, (C, K): functions of z that bend, for the linear path to choose from."""
        return mapped(z, self.maps["likeness"]) if "likeness" in self.maps else z[:, :0]

    def _pictures(self):
        """The pictures that the content VAE reads."""
        return [] if self.content_vae is None else [n for n in PICTURES if n in self.content_vae.experts]

    def rest(self, name, pictures, z):
        """What neither z nor the neighbours tell of the pixels of covers or sounds (n, H, W, 1): (n, H, W)."""
        return less_neighbours(self._rest(name, pictures, z), self.maps[name]["weights"])

    def _rest(self, name, pictures, z):
        """What the VAE leaves of pictures, (n, H, W)."""
        made = keras.ops.convert_to_numpy(self.content_vae.experts[name].decode(z)[0])
        return (pictures - made)[..., 0]

    def _surprise(self, contents, z):
        """What `surprise` returns, from prepared contents and their latents (C, L), as an array."""
        names, parts = self._pictures(), []
        for start in range(0, len(z), ROWS if names else len(z) + 1):
            some, columns = slice(start, start + ROWS), []
            for name in names:
                found = unevenness(self.rest(name, contents[name][some], z[some]))
                absent = contents["present"][some, CONTENT_MODALITIES.index(name)] == 0
                columns.append(np.where(absent[:, None], np.nan, found))
            parts += [np.hstack(columns)] if names else []
        return np.concatenate(parts) if parts else np.zeros((len(z), len(SURPRISES) * len(names)))

    def _browsed(self, market, history):
        """Mean vector of what each user looked at and searched for (U, D), and counts of what the user did."""
        U, preparation = len(market.users), self.preparation
        action = history[..., 0]
        counts = np.log1p(np.stack([(action == k).sum(axis=1) for k in range(1, 5)], axis=1))
        there = action > 0
        means = (history[..., 6:8] * there[..., None]).sum(axis=1) / (2 + there.sum(axis=1))[:, None]
        summary = np.hstack([counts, means])
        vectors = np.zeros((U, preparation.company_dim), np.float32)
        events = preparation.events(market)
        if events is None or not vectors.shape[1]:
            return vectors, summary
        row = pd.Index(market.users["user_id"]).get_indexer(events["user_id"])
        seen = preparation.event_vectors(events)
        keep = (row >= 0) & ~np.isnan(seen[:, 0])
        weight = preparation.event_weight(events)[keep]
        total = np.bincount(row[keep], weight, minlength=U)
        for k in range(vectors.shape[1]):
            vectors[:, k] = np.bincount(row[keep], weight * seen[keep, k], minlength=U) / (5.0 + total)
        return vectors, summary

    def write(self, path):
        """Write everything that was learned into a folder."""
        (path / "preparation.json").write_text(json.dumps(self.preparation.state))
        arrays = {
            f"{name}_{part}": value
            for name, pair in self.scales.items()
            for part, value in zip(("mean", "scale"), pair, strict=True)
        }
        np.savez(path / "scales.npz", **arrays)
        np.savez(
            path / "maps.npz",
            **{f"{name} {part}": a for name, m in self.maps.items() for part, a in m.items()},
        )
        for name, vae in (("content", self.content_vae), ("user", self.user_vae)):
            if vae is not None:
                vae.save_weights(path / f"{name}_vae.weights.h5")

    @classmethod
    def read(cls, path, config):
        """Read what `write` wrote."""
        self = cls(config, Preparation(json.loads((path / "preparation.json").read_text())))
        with np.load(path / "scales.npz") as arrays:
            self.scales = {name: [arrays[f"{name}_mean"], arrays[f"{name}_scale"]] for name in SCALED}
        with np.load(path / "maps.npz") as arrays:
            for name, part in (key.split() for key in arrays.files):
                self.maps.setdefault(name, {})[part] = arrays[f"{name} {part}"]
        for name in ("content", "user"):
            weights = path / f"{name}_vae.weights.h5"
            if weights.exists():
                setattr(self, f"{name}_vae", self._vae(name, 0))
                getattr(self, f"{name}_vae").load_weights(weights)
        return self


@dataclass
class Shown:
    """Arrays of the impressions of a market."""

    context: np.ndarray  # (B, Dx)
    content: np.ndarray  # (B,) row of the content
    user: np.ndarray  # (B,) row of the user
    targets: np.ndarray  # (B, 3)


@dataclass
class Prepared:
    """Arrays of a market that no draw of the latents changes."""

    contents: dict
    users: dict
    browsed: np.ndarray  # (U, D)
    activity: np.ndarray  # (U, 6)
    bags: list  # (U, categories) and (U, brands): shares of the history
    phrases: np.ndarray  # (C, T) codes
    log_price: np.ndarray  # (C,) log yuan, NaN where unknown
    content_ids: np.ndarray  # (C,)
    user_ids: np.ndarray  # (U,)
    shown: Shown
    posteriors: dict = field(default_factory=dict)  # mean and log-variance of z, once they are known

    def table(self, name):
        """The attributes of contents, or the profiles of users."""
        return self.contents["attributes"] if name == "contents" else self.users["profile"]


@dataclass
class Pair:
    """What is computed for a content and a user together: vectors that are multiplied, shares of the history."""

    company: np.ndarray  # (C, D)
    told: np.ndarray  # (C, D)
    browsed: np.ndarray  # (U, D)
    codes: np.ndarray  # (C, 2) category and brand
    bags: list  # (U, categories) and (U, brands): shares of the history
    log_price: np.ndarray  # (C,) log yuan, told where unknown

    def rows(self, content, user):
        shares = [bag[user, self.codes[content, k]] for k, bag in enumerate(self.bags)]
        taste, company, told = self.browsed[user], self.company[content], self.told[content]
        every = (taste[:, :, None] * told[:, None, :]).reshape(len(taste), -1)
        sums = [(taste * company).sum(axis=1), (taste * told).sum(axis=1)]
        distance = np.abs(taste - (company + told) / 2)
        return np.column_stack([taste * company, every, distance, *sums, *shares]).astype(np.float32)


@dataclass
class Inputs:
    """Everything about a set of impressions, gathered row by row only when it is asked for."""

    prepared: Prepared
    content_table: np.ndarray
    user_table: np.ndarray
    pair: Pair
    scales: dict  # means and standard deviations of the columns of pair and context
    met: Meetings | None = None
    met_at: tuple = ()  # rows of users and of contents in `met`

    @property
    def shown(self):
        return self.prepared.shown

    def __len__(self):
        return len(self.shown.content)

    def meet(self, met):
        """The same, with what users met in a training log."""
        return replace(self, met=met, met_at=met.rows(self.prepared.user_ids, self.prepared.content_ids))

    def on(self, shown):
        """The same contents and users, in other impressions."""
        return replace(self, prepared=replace(self.prepared, shown=shown))

    def rows(self, rows):
        """The effect network's inputs for some impressions."""
        if self.met is None:
            raise RuntimeError("Inputs.rows: what users met is not known yet; call meet(met) first")
        content, user = self.shown.content[rows], self.shown.user[rows]
        return {
            "content": self.content_table[content],
            "user": self.user_table[user],
            "pair": _scaled(self.pair.rows(content, user), self.scales["pair"]),
            "met": self.met.at(self.met_at[0][user], self.met_at[1][content], self.pair.told[content]),
            "context": _scaled(self.shown.context[rows], self.scales["context"]),
            "phrases": self.prepared.phrases[content],
            "log_price": self.pair.log_price[content][:, None],
        }

    def rates(self):
        """Click rate, conversion rate per click, and mean of log(sales / price), kept away from 0 and 1."""
        clicked, converted, sales = self.shown.targets.T
        clicks, orders = np.nansum(clicked), np.nansum(converted)
        sold = np.nan_to_num(sales) > 0
        value = np.log(sales[sold]) - self.pair.log_price[self.shown.content[sold]]
        return (
            (clicks + 1) / (len(self) + 20),
            (orders + 1) / (clicks + 10),
            float(value.mean()) if sold.any() else 0.0,
        )


class Batches(keras.utils.PyDataset):
    """Batches of impressions for Keras; shuffled at each epoch where a seed is given."""

    def __init__(self, inputs, batch_size, seed=None):
        super().__init__()
        self.inputs, self.batch_size = inputs, batch_size
        self.rng = None if seed is None else np.random.default_rng(seed)
        self.order = np.arange(len(inputs))
        self.on_epoch_end()

    def __len__(self):
        return -(-len(self.inputs) // self.batch_size)

    def __getitem__(self, index):
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        return self.inputs.rows(rows), self.inputs.shown.targets[rows]

    def on_epoch_end(self):
        if self.rng is not None:
            self.rng.shuffle(self.order)


def _fit_vae(vae, arrays, known, config, bar, name):
    """Train a VAE for a fixed number of steps on the rows in `known` that have any modality."""
    if vae is None:
        return None
    names = [*vae.experts, "present"]
    data = _choose(vae, arrays)
    rows = np.flatnonzero(known & (data["present"].sum(axis=1) > 0))
    data = {key: data[key][rows] for key in names}
    steps = -(-len(rows) // VAE_BATCH)
    epochs = max(1, round(config.vae_steps * (USER_STEPS if "history" in arrays else 1) / steps))
    rate = keras.optimizers.schedules.CosineDecay(config.learning_rate, epochs * steps, alpha=0.05)
    vae.compile(optimizer=keras.optimizers.Adam(rate, clipnorm=5.0), jit_compile=False)
    bar.set_description(name)
    vae.fit(data, batch_size=VAE_BATCH, epochs=epochs, verbose=0, callbacks=[Progress(bar)])
    return vae


def _choose(vae, arrays):
    """The arrays of the VAE's modalities, and the columns of `present` that belong to them."""
    order = CONTENT_MODALITIES if "cover" in arrays else USER_MODALITIES
    columns = [order.index(name) for name in vae.experts]
    return {**{name: arrays[name] for name in vae.experts}, "present": arrays["present"][:, columns]}


def _blind(contents):
    """The arrays of contents, with the attributes marked as missing."""
    present = contents["present"].copy()
    present[:, CONTENT_MODALITIES.index("attributes")] = 0
    return {**contents, "present": present}


def _known(statistic, table):
    """A statistic of each column over what is there; 0 for a column without values."""
    there = ~np.isnan(table)
    out = np.zeros(table.shape[1])
    some = there.any(axis=0)
    out[some] = statistic(table[:, some], axis=0)
    return out


def _scaled(table, scale):
    mean, deviation = scale
    return np.clip((table - mean) / deviation, -5, 5).astype(np.float32)


def blocks(arrays, size):
    """Rows of a dict of arrays, `size` at a time: a plain call needs no graph, so none is traced again and again."""
    for start in range(0, len(next(iter(arrays.values()))), size):
        yield {name: array[start : start + size] for name, array in arrays.items()}


def _draw(latent, rng):
    mean, log_var = latent
    return (
        mean
        if rng is None
        else mean + np.exp(log_var / 2) * rng.standard_normal(mean.shape, dtype=np.float32)
    )


def _targets(market):
    columns = [market.impressions.get(name) for name in ("clicked", "converted", "sales")]
    empty = np.full(len(market.impressions), np.nan)
    return np.column_stack(
        [empty if c is None else c.to_numpy(float, na_value=np.nan) for c in columns]
    ).astype(np.float32)
