"""Words of English titles, and their codes."""

import re
from collections import Counter
from collections.abc import Iterable

import numpy as np

UNKNOWN = 1


def tokenize(text: object) -> list[str]:
    """Words of a title, in lower case; none where the title is missing.

    Examples
    --------
    >>> tokenize("Not boring: a rice-cooker!")
    ['not', 'boring', 'a', 'rice-cooker']
    """
    return re.findall(r"[^\W_]+(?:[-'’][^\W_]+)*", text.lower()) if isinstance(text, str) else []


class Vocabulary:
    """Words that occur at least `min_count` times, most frequent first; code 0 is padding, 1 any other word.

    Examples
    --------
    >>> vocabulary = Vocabulary.learn(["calm lamp", "bold lamp"], min_count=1)
    >>> vocabulary.encode(["lamp shade"], length=3)
    array([[2, 1, 0]], dtype=int32)
    """

    def __init__(self, words: Iterable[str]):
        self.words = list(words)
        self._code = {word: code for code, word in enumerate(self.words, start=2)}

    @classmethod
    def learn(cls, texts: Iterable[object], min_count: int = 2, most: int = 20_000) -> "Vocabulary":
        """Count the words of texts; among equally frequent ones the alphabet decides."""
        counts = Counter(word for text in texts for word in tokenize(text))
        frequent = [word for word, count in counts.items() if count >= min_count]
        return cls(sorted(frequent, key=lambda word: (-counts[word], word))[:most])

    def __len__(self) -> int:
        return len(self.words) + 2

    def encode(self, texts: Iterable[object], length: int) -> np.ndarray:
        """Codes of the first `length` words of each of n texts: (n, length) int32."""
        texts = list(texts)
        codes = np.zeros((len(texts), length), dtype=np.int32)
        for row, text in enumerate(texts):
            found = [self._code.get(word, UNKNOWN) for word in tokenize(text)[:length]]
            codes[row, : len(found)] = found
        return codes
