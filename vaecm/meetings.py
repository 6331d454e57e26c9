r"""What a user met earlier, and what came of it: the log of impressions as a second history.

The events before the log tell of taste, but they grow old. In the log itself a user passes some contents by and clicks
others, and both say something of the next one.

Shapes: ``C`` contents, ``U`` users, ``B`` impressions, ``D`` numbers of a content's vector.
"""

from dataclasses import dataclass, fields

import numpy as np
import pandas as pd

CLICK_PRIOR, SHOWN_PRIOR = 5.0, 15.0  # how much must be known of a user before it counts half
LEAST_SCALE = 1e-4


@dataclass
class Meetings:
    r"""Who was shown what in a training log, and who clicked, in a space where similar contents are near.

    For content c with vector :math:`v_c`, and the n impressions i of user u in the log that were of *other* contents,

    .. math:: a=\frac{\sum_i (y_i-\bar y)\,(v_i-\bar v)}{5+\bar y(1-\bar y)\,n},\qquad
              s=\frac{\sum_i (v_i-\bar v)}{15+n}

    and the columns are :math:`a\odot(v_c-\bar v)`, :math:`s\odot(v_c-\bar v)` and the sum of each. The content itself is
    left out, so that no impression is told of its own click.

    Parameters
    ----------
    users, contents : array
        Ids in the log.
    vectors : array, shape (contents, D)
        Centred vectors of these contents.
    middle : array, shape (D,)
        Their mean over the impressions of the log.
    rate : array, shape ()
        Mean click rate of the log.
    key, shown, clicked : array, shape (pairs,)
        Number of each pair of user and content, ascending; its impressions, and its clicks.
    scale : array, shape (2 D + 2,)
        Standard deviations of the columns in the log.
    """

    users: np.ndarray
    contents: np.ndarray
    vectors: np.ndarray
    middle: np.ndarray
    rate: np.ndarray
    key: np.ndarray
    shown: np.ndarray
    clicked: np.ndarray
    scale: np.ndarray

    @classmethod
    def learn(cls, user_ids, content_ids, clicked, vectors):
        """Count the meetings of a log.

        Parameters
        ----------
        user_ids, content_ids, clicked : array, shape (B,)
            Of each impression; clicks are 0 or 1.
        vectors : array, shape (B, D)
            Of each impression's content.

        Returns
        -------
        Meetings

        Examples
        --------
        >>> ids, clicked = np.array([1, 1, 2]), np.array([1, 0, 0])
        >>> met = Meetings.learn(ids, np.array([7, 8, 8]), clicked, np.array([[1.0], [-1.0], [-1.0]]))
        >>> met.columns(np.array([7, 9]), np.array([1, 3]), np.array([[1.0], [1.0]])).shape
        (2, 4)
        """
        user_ids, content_ids = np.asarray(user_ids), np.asarray(content_ids)
        user, users = pd.factorize(user_ids, sort=True)
        content, contents = pd.factorize(content_ids, sort=True)
        key, at = np.unique(user.astype(np.int64) * max(len(contents), 1) + content, return_inverse=True)
        of_content = np.zeros((len(contents), vectors.shape[1]), np.float32)
        of_content[content] = vectors
        middle = vectors.mean(axis=0, dtype=np.float64) if len(vectors) else np.zeros(vectors.shape[1])
        met = cls(
            users=np.asarray(users.tolist()), contents=np.asarray(contents.tolist()),
            vectors=(of_content - middle).astype(np.float32), middle=middle.astype(np.float32),
            rate=np.asarray(np.mean(clicked) if len(clicked) else 0.0), key=key,
            shown=np.bincount(at, minlength=len(key)).astype(np.float32),
            clicked=np.bincount(at, clicked, minlength=len(key)).astype(np.float32),
            scale=np.ones(2 * vectors.shape[1] + 2, np.float32),
        )  # fmt: skip
        some = np.random.default_rng(0).permutation(len(user))[:50_000]
        if len(some):
            columns = met.columns(user_ids[some], content_ids[some], vectors[some])
            met.scale = np.maximum(columns.std(axis=0), LEAST_SCALE)
        return met

    def __post_init__(self):
        n = len(self.contents)
        user, content = self.key // max(n, 1), self.key % max(n, 1)
        vectors, rest = self.vectors[content] if n else self.vectors, self.clicked - self.rate * self.shown
        self.n = np.bincount(user, self.shown, len(self.users))
        self.sums = [
            np.stack([np.bincount(user, weight * column, len(self.users)) for column in vectors.T], axis=1)
            for weight in (rest, self.shown)
        ]  # fmt: skip

    def rows(self, user_ids, content_ids):
        """Rows of users and of contents in the log, -1 where they were not met."""
        return pd.Index(self.users).get_indexer(user_ids), pd.Index(self.contents).get_indexer(content_ids)

    def columns(self, user_ids, content_ids, vectors):
        """The columns of some impressions, from ids and the vectors of their contents: (B, 2 D + 2) float32."""
        return self.at(*self.rows(user_ids, content_ids), vectors)

    def at(self, user, content, vectors):
        """The columns of some impressions, from rows in the log and the vectors of their contents (B, D)."""
        known, v = user >= 0, vectors - self.middle
        if not len(self.key):
            return np.zeros((len(user), 2 * v.shape[1] + 2), np.float32)
        key = user.astype(np.int64) * len(self.contents) + content
        place = np.minimum(np.searchsorted(self.key, key), len(self.key) - 1)
        own = known & (content >= 0) & (self.key[place] == key)
        shown, clicked = np.where(own, self.shown[place], 0), np.where(own, self.clicked[place], 0)
        here = self.vectors[content]  # of row -1 nothing is taken away
        n = np.where(known, self.n[user], 0) - shown
        parts = []
        for sums, taken, weight in zip(
            self.sums, (clicked - self.rate * shown, shown),
            (CLICK_PRIOR + self.rate * (1 - self.rate) * n, SHOWN_PRIOR + n), strict=True,
        ):  # fmt: skip
            mean = (np.where(known[:, None], sums[user], 0) - taken[:, None] * here) / weight[:, None]
            parts += [mean * v, (mean * v).sum(axis=1, keepdims=True)]
        return np.clip(np.hstack(parts) / self.scale, -5, 5).astype(np.float32)

    def arrays(self):
        """Everything that was counted, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
