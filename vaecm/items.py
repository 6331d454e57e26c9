r"""Item embeddings: products or pieces of content that the same sessions, and the same users, hold are near each other.

Shapes: ``n`` items, ``D`` dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, eigsh

from vaecm.schema import Ids, canonical, rows_of
from vaecm.timeline import SESSION

TAU = 100.0  # added to the counts of each item
LONGEST = 200  # items of a session or user that are paired: what bounds the work that a robot makes


@dataclass
class ItemEmbeddings:
    r"""One vector per item, from the sessions and the users that hold it.

    With :math:`n_{ij}` the sessions that hold both of two different items, :math:`n_i=\sum_j n_{ij}`,
    :math:`n=\sum_i n_i`, and the same for users,

    .. math:: M_{ij}=\frac{n_{ij}-n_i n_j/n}{\sqrt{(n_i+\tau)(n_j+\tau)}},\qquad
              M^{\text{sessions}}+M^{\text{users}}\approx U_D\,\Lambda_D\,U_D^\top,\qquad
              e_i\propto (U_D\,\Lambda_D^{1/2})_i

    (correspondence analysis: standardised residuals of a table of counts and their largest eigenvalues; Greenacre
    2017, Correspondence Analysis in Practice). :math:`\tau=100` keeps items that met few others near 0, where they
    would make directions of their own (Amini et al. 2013, arXiv:1207.2340). Sessions tell what is wanted together, users
    what is liked by the same people. Positive pointwise mutual information forgets what is *less* together than chance,
    which within a category is half of the news. One factor for all brings the mean square of a value to 1.

    ``items`` (n,) are ids as `vaecm.schema.canonical` writes them, ``table`` (n, D) their vectors.

    Examples
    --------
    >>> stream = pd.DataFrame({"user": np.arange(60) // 3, "time": np.arange(60) % 3})
    >>> stream["item"] = np.where(np.arange(60) < 30, ["a", "b", "c"] * 20, ["d", "e", "f"] * 20)
    >>> found = ItemEmbeddings.learn(stream, dim=2)
    >>> a, b, d, unknown = found.vectors(["a", "b", "d", "x"])
    >>> bool(np.linalg.norm(a - b) < np.linalg.norm(a - d)), bool(np.isnan(unknown).all())
    (True, True)
    """

    items: np.ndarray
    table: np.ndarray

    def __post_init__(self):
        self.index = Ids(self.items)

    @classmethod
    def learn(
        cls, stream: pd.DataFrame, dim: int = 32, seed: int = 0, gap: float = SESSION, least: int = 2
    ) -> "ItemEmbeddings":
        """Learn from the sessions of a stream of events.

        Parameters
        ----------
        stream : DataFrame
            Columns user, time (seconds) and item (missing where an event has none), as `history.user_stream` gives.
        dim, seed : int
            D, and of the decomposition; where there are too few items, the last columns are 0.
        gap, least : float, int
            Seconds without an event, of an item or not, that end a session; events that an item needs to get a vector.

        Raises
        ------
        ValueError
            Lists every option that is out of range.
        """
        limits = {"dim": (dim, 1), "gap": (gap, 0), "least": (least, 1)}
        wrong = [f"{k} must be {low} or more, got {v}" for k, (v, low) in limits.items() if not v >= low]
        if wrong:
            raise ValueError("ItemEmbeddings: " + "; ".join(wrong))
        frame, items = _coded(stream, gap, least)
        pairs = [_pairs(frame[of], frame["code"], len(items)) for of in ("session", "user")]
        table = np.zeros((len(items), dim), np.float32)
        if any(both.nnz for both in pairs):
            found = _largest(*zip(*map(_standardised, pairs), strict=True), min(dim, len(items)), seed)
            table[:, : found.shape[1]] = found / max(np.sqrt(np.mean(found**2)), 1e-12)
        return cls(items, table)

    def vectors(self, ids: Sequence) -> np.ndarray:
        """Vectors of some ids (n,), NaN rows where an item is unknown or missing: (n, D) float32."""
        unknown = np.full((1, self.table.shape[1]), np.nan, np.float32)
        return np.vstack([self.table, unknown])[rows_of(ids, self.index)]

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything that was learned, by name, as `from_arrays` takes it."""
        return {"items": self.items.astype(str), "table": self.table}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "ItemEmbeddings":
        """The embeddings that `arrays` gave."""
        return cls(np.asarray(arrays["items"]).astype(object), np.asarray(arrays["table"], np.float32))


def _coded(stream: pd.DataFrame, gap: float, least: int) -> tuple[pd.DataFrame, np.ndarray]:
    """User, session and item code of each event with an item that comes often enough, and the items' ids."""
    first, ids = pd.factorize(stream["item"])  # canonical ids of the different ones only: streams are long
    code, items = pd.factorize(np.append(canonical(ids), None)[first])
    enough = np.append(np.bincount(code[code >= 0], minlength=len(items)) >= least, False)
    frame = pd.DataFrame({name: stream[name].to_numpy() for name in ("user", "time")})
    frame["code"] = np.where(enough, np.cumsum(enough) - 1, -1)[code]
    frame = frame.sort_values(["user", "time"], kind="stable", ignore_index=True)
    # a search has no item, but goes on with a session
    frame["session"] = ((frame["user"].diff() != 0) | (frame["time"].diff() > gap)).cumsum()
    return frame[frame["code"] >= 0], np.asarray(items, object)[enough[:-1]]


def _pairs(of: pd.Series, code: pd.Series, n: int) -> sparse.csr_matrix:
    """How many of the groups hold both of two different items: (n, n)."""
    frame = pd.DataFrame({"of": of, "code": code}).drop_duplicates()
    frame = frame[frame.groupby("of").cumcount() < LONGEST]
    row, groups = pd.factorize(frame["of"])
    holds = sparse.csr_matrix((np.ones(len(frame), np.float32), (row, frame["code"])), shape=(len(groups), n))
    both = (holds.T @ holds).tolil()
    both.setdiag(0)
    return both.tocsr()


def _standardised(both: sparse.csr_matrix) -> tuple[sparse.csr_matrix, np.ndarray]:
    """The two parts of M: a sparse matrix, and the vector whose outer product with itself is taken from it."""
    total = np.asarray(both.sum(axis=1)).ravel().astype(float)
    root = np.sqrt(total + TAU)
    scaled = sparse.diags(1 / root) @ both @ sparse.diags(1 / root)
    return scaled.tocsr(), total / root / np.sqrt(max(total.sum(), 1e-12))


def _largest(scaled, roots, rank: int, seed: int) -> np.ndarray:
    """Eigenvectors of the sum of several M, times the roots of their eigenvalues, the largest first: (n, rank)."""
    n, scaled = len(roots[0]), sum(scaled)

    def product(x):
        return scaled @ x - sum(root * (root @ x) for root in roots)

    if n <= max(3 * rank, 50):
        value, vector = np.linalg.eigh(scaled.toarray() - sum(np.outer(root, root) for root in roots))
    else:
        start = np.random.default_rng(seed).normal(size=n)
        value, vector = eigsh(LinearOperator((n, n), matvec=product), rank, which="LA", v0=start, tol=1e-4)
    order = np.argsort(-value)[:rank]
    sign = np.sign(vector[np.abs(vector).argmax(axis=0), np.arange(vector.shape[1])])
    return (vector * sign)[:, order] * np.sqrt(np.maximum(value[order], 0))
