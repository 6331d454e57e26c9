"""The record that everything passes around: a platform's log, its contents and users, and what they hold.

A market is *well formed* when its tables, columns, types and arrays are what the other modules read, and
*clean* when its values are possible as well. `Market.check` knows both kinds of rules: `load_market` and
`clean` ask for a well-formed market only, `EffectPredictor.fit` for a clean one. What is merely unusual (a
price a hundred times its category's, a user with hundreds of clicks in minutes) is no fault here; `clean`
looks for it.
"""

from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

from vaecm import io, schema
from vaecm.schema import MINIMUM, SCHEMA, TABLES, MarketError, Problem, is_category, is_text, rows_of

__all__ = ["Market", "MarketError", "Problem", "load_market"]


@dataclass(repr=False, eq=False)
class Market:
    """Users, contents and impressions, with products, events, pictures, sound, vectors and known truth.

    Parameters
    ----------
    users, contents, impressions : DataFrame
        Required, with at least their ids and, for impressions, `time` (without a time zone).
    products, events : DataFrame, optional
        What is promoted; what users did, before and during the log.
    covers : ndarray, optional
        (n_contents, H, W) or (n_contents, H, W, 3) uint8; row i is that of `contents`; all 0 where there is none.
    audio : ndarray, optional
        (n_contents, bands, frames) uint8; all 0 where there is none.
    vectors : dict of ndarray, optional
        By name, (n_contents, D) floats of any other encoder; NaN rows where there is none.
    truth : DataFrame, optional
        Row by row as the impressions, by their id: `p_click`, `p_convert` (given a click), `expected_sales`
        (yuan per impression) and named terms; only a simulated market has it.
    factors : dict of DataFrame, optional
        True factors: "contents" by content_id and "users" by user_id.
    oracle : object, optional
        Answers `effects(request_ids, content_ids, positions)` for what was not shown as well.
    broken : DataFrame, optional
        What was broken on purpose.
    roles : dict, optional
        Kinds of columns that were set by name: {table: {column: kind}}, see `vaecm.schema.column_kinds`.
    log : DataFrame, optional
        All impressions that these were selected from: what may be known of the past, see `past`.
    notes : tuple of str, optional
        What is worth knowing of how the files were read.

    Examples
    --------
    >>> users = pd.DataFrame({"user_id": [1, 2]})
    >>> contents = pd.DataFrame({"content_id": ["a", "b"]})
    >>> impressions = pd.DataFrame({
    ...     "impression_id": [1, 2], "user_id": [1, 2], "content_id": ["a", "b"],
    ...     "time": pd.to_datetime(["2025-03-03 10:00", "2025-03-03 11:00"]), "clicked": [0, 1],
    ... })
    >>> Market(users=users, contents=contents, impressions=impressions).check()
    Market: 2 users, 2 contents, 2 impressions
    """

    users: pd.DataFrame
    contents: pd.DataFrame
    impressions: pd.DataFrame
    products: pd.DataFrame | None = None
    events: pd.DataFrame | None = None
    covers: np.ndarray | None = None
    audio: np.ndarray | None = None
    vectors: dict[str, np.ndarray] | None = None
    truth: pd.DataFrame | None = None
    factors: dict[str, pd.DataFrame] | None = None
    oracle: Any = None
    broken: pd.DataFrame | None = None
    roles: dict[str, dict[str, str]] | None = None
    log: pd.DataFrame | None = None
    notes: tuple[str, ...] = ()
    _kept = None  # rows of users and contents, and `content_table`, of a market that is `settled`

    def __repr__(self) -> str:
        tables = [(name, getattr(self, name)) for name in TABLES]
        parts = [f"{len(table):,} {name}" for name, table in tables if isinstance(table, pd.DataFrame)]
        others = ("covers", "audio", "vectors", "truth", "oracle", "broken")
        return "Market: " + ", ".join([*parts, *(name for name in others if getattr(self, name) is not None)])

    def check(self, strict: bool = True, targets: bool = True) -> "Market":
        """Give the market itself, or raise one `MarketError` that lists every problem.

        Parameters
        ----------
        strict : bool
            Ask for possible values too (what `clean` repairs), not only for the right tables and columns.
        targets : bool
            Ask for `clicked`, and for complete outcomes where their columns are there.
        """
        problems = schema.structure_problems(self, targets)
        if strict:
            problems += schema.value_problems(self, targets, broken=problems)
        if problems:
            raise MarketError(problems)
        return self

    @property
    def past(self) -> pd.DataFrame:
        """All impressions that may be looked back at: the log that these were selected from."""
        return self.impressions if self.log is None else self.log

    @property
    def user_rows(self) -> np.ndarray:
        """(n_impressions,) row in `users` of each impression; -1 where the user is not there."""
        return self._kept[0] if self._kept else rows_of(self.impressions["user_id"], self.users["user_id"])

    @property
    def content_rows(self) -> np.ndarray:
        """(n_impressions,) row in `contents` of each impression; -1 where the content is not there."""
        ids = self.impressions["content_id"]
        return self._kept[1] if self._kept else rows_of(ids, self.contents["content_id"])

    def content_table(self) -> pd.DataFrame:
        """Contents with the attributes of their products where they have none of their own; row i as `contents`."""
        if self._kept:
            return self._kept[2]
        table, products = self.contents.reset_index(drop=True), self.products
        if products is None or not {"product_id"} <= set(table) & set(products):
            return table
        rows = rows_of(table["product_id"], products["product_id"])
        there = rows >= 0
        for column in products.columns.drop("product_id"):
            values = products[column]
            values = values.astype(object) if is_category(values) else values
            joined = values.reset_index(drop=True).reindex(np.where(there, rows, -1)).reset_index(drop=True)
            if column in table:
                own = table[column]
                own = own.astype(object) if is_text(own) != is_text(joined) or is_category(own) else own
                joined = own.where(own.notna(), joined)
            table = table.assign(**{column: joined})
        return table

    def settled(self) -> "Market":
        """The same market with rows and `content_table` made once: for a call that asks often and changes no table."""
        if self._kept:
            return self
        market = copy(self)
        market._kept = self.user_rows, self.content_rows, self.content_table()
        return market

    def without(self, columns: dict[str, list[str]]) -> "Market":
        """The same market whose tables lack some columns, {table: names}; its log lacks those of the impressions."""
        tables = {name: getattr(self, name) for name in columns}
        tables |= {"log": self.past} if "impressions" in columns else {}
        columns = columns | {"log": columns.get("impressions", ())}
        lost = {n: [c for c in columns[n] if c in table] for n, table in tables.items() if table is not None}
        parts = {n: tables[n].drop(columns=names) for n, names in lost.items() if names}
        return replace(self, **parts) if parts else self

    def summary(self) -> pd.DataFrame:
        """Rows, columns, share of missing values and period of each table."""
        rows = []
        for name in TABLES:
            table = getattr(self, name)
            if table is not None:
                clock = next((c for c, kind in SCHEMA[name].items() if kind == "time" and c in table), None)
                timed = clock and types.is_datetime64_any_dtype(table[clock])
                rows.append({
                    "table": name, "rows": len(table), "columns": table.shape[1],
                    "missing": round(float(table.isna().to_numpy().mean()), 3) if table.size else 0.0,
                    "from": table[clock].min() if timed else pd.NaT,
                    "to": table[clock].max() if timed else pd.NaT,
                })  # fmt: skip
        return pd.DataFrame(rows).set_index("table")

    def describe(self) -> pd.DataFrame:
        """Every column: table, column, kind, why it is of that kind, missing (share), distinct (values), example.

        Arrays follow, and what was noted when the files were read.
        """
        return schema.described(self)

    def select(self, rows: Any) -> "Market":
        """The same market with some of its impressions (and their truth), in their order; `past` stays whole.

        Parameters
        ----------
        rows : array-like
            A mask over the impressions, or values of impression_id.
        """
        ids = self.impressions["impression_id"]
        many = np.iterable(rows) and not isinstance(rows, str | bytes | pd.DataFrame)
        rows = np.asarray(list(rows)) if many and not hasattr(rows, "dtype") else rows
        if not many or rows.ndim != 1:
            raise ValueError(f"select: rows must be a mask or values of impression_id, got {rows!r}")
        if types.infer_dtype(rows, skipna=True) == "boolean":
            if len(rows) != len(ids):
                rule = "select: a mask must have one value per impression"
                raise ValueError(f"{rule}, {len(ids):,}, got shape {rows.shape}")
            mask = pd.array(rows, dtype="boolean").fillna(False).to_numpy(bool)
        else:
            unknown = np.asarray(rows)[rows_of(rows, ids) < 0]
            if len(unknown):
                place, first = ("impressions", "impression_id"), schema.listed(unknown)
                raise MarketError([Problem(*place, "select found no such id", len(unknown), first)])
            mask = rows_of(ids, rows) >= 0
        return replace(
            self, impressions=self.impressions[mask].reset_index(drop=True), log=self.past, broken=None,
            truth=None if self.truth is None else self.truth[mask],
        )  # fmt: skip

    def without_log(self) -> "Market":
        """The same market that knows no other impressions than its own."""
        return replace(self, log=None)

    def save(self, folder: str | Path) -> None:
        """Write the market to a folder of CSV and NPZ files, with checksums; `load_market` reads it again.

        Tables are written exactly (an empty text counts as missing), a truth that the oracle does not tell with a
        relative precision of 2^-15 (probabilities, sales) and in steps of 2^-11 (terms). The same market gives
        the same bytes. The folder is swapped in whole; files in it that no save has written (a README) stay.

        Raises
        ------
        MarketError
            When the market is not well formed, a text cannot be written, or the folder holds something else.
        """
        self.check(strict=False, targets=False)
        io.write_parts(self, folder)


def load_market(
    folder: str | Path, targets: bool = True, cover_size: int = 32, roles: dict | None = None
) -> Market:
    """Read a market that `Market.save` wrote, or a folder of one's own tables.

    Own tables are `users`, `contents`, `impressions` and optionally `products` and `events`, as CSV, TSV (also packed
    with gzip) or Parquet; a folder `covers` of pictures named by content_id (a / in it as %2F or as a folder), or
    `covers.npz`; `audio.npz`; `vectors_NAME.npz`. Encoding, delimiter and forms of numbers and times are found out;
    ids stay as they are; only an empty field is missing. `Market.describe` lists what was found. A file `roles.json`
    or `roles` sets kinds and names of columns: {"users": {"uid": "user_id", "level": "class"}}.

    `targets` is False where clicks are still to come; `cover_size` is the side, in pixels, to which picture files are
    resized. One `MarketError` names every file that is missing, broken or altered, and every column that is not what
    it must be.

    Examples
    --------
    >>> import vaecm
    >>> market = load_market(vaecm.example_market())
    >>> len(market.contents) == len(market.covers)
    True
    """
    path = Path(folder).expanduser()
    if not 4 <= cover_size <= 1024:
        raise ValueError(f"load_market: cover_size must be from 4 to 1024 pixels, got {cover_size!r}")
    if roles is not None and not schema.by_table(roles):
        raise MarketError(schema.role_problems(roles, {}))
    named = io.merged_roles(io.read_roles(path / "roles.json"), roles)
    odd = {t: {c: k for c, k in part.items() if not isinstance(k, str)} for t, part in (named or {}).items()}
    if any(odd.values()):
        raise MarketError(schema.role_problems(odd, {}))
    if not path.is_dir() or io.has_manifest(path):
        parts = io.read_parts(io.checked_folder(path, kind="market"))
        parts["roles"] = io.merged_roles(parts["roles"], named)
        return Market(**parts).check(strict=False, targets=targets)
    parts, problems = io.read_own(path, named or {}, cover_size, targets)
    market = Market(**parts) if all(name in parts for name in MINIMUM) else None
    if market is not None:
        problems += schema.structure_problems(market, targets)
    if problems:  # then say all at once, what `clean` could repair as well
        problems += schema.value_problems(market, targets, broken=problems) if market is not None else []
        raise MarketError(problems)
    return market
