"""Texts as words and sentences, for scripts with and without spaces between words, without any download."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nltk.stem.porter import PorterStemmer

_CJK_RANGES = (
    (0x3005, 0x3007),  # iteration mark, closing mark, ideographic zero
    (0x3040, 0x30FF),  # hiragana, katakana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x323AF),
)

_SENTENCE_END = re.compile(
    r"\n+"
    r"|(?<=[.!?…])\s+"
    r"|(?<=[.!?…][\"'”’)\]])\s+"
    # Chinese and Japanese put no space after the mark; a closing quote still belongs to the sentence.
    r"|(?<=[。！？])(?![。！？”’」』）])"
    r"|(?<=[。！？][”’」』）])"
)


def is_cjk(char: str) -> bool:
    """Whether a character is a Chinese ideograph or Japanese kana: scripts written without spaces between words.

    Hangul is not among them, since Korean separates its words.

    >>> is_cjk("猫"), is_cjk("ね"), is_cjk("고"), is_cjk("c")
    (True, True, False, False)
    """
    code = ord(char)
    return any(first <= code <= last for first, last in _CJK_RANGES) and unicodedata.category(char)[0] in "LN"


@lru_cache(maxsize=2**14)
def _kind(char: str) -> str:
    """What a character is to :func:`split_words`: ``cjk``, part of a ``word``, a ``mark`` or ``space``."""
    if is_cjk(char):
        return "cjk"
    category = unicodedata.category(char)[0]
    # Combining marks (M) are part of words: without them Hindi or Thai words fall apart at every vowel sign.
    return {"L": "word", "M": "word", "N": "word", "P": "mark", "S": "mark"}.get(category, "space")


def split_words(text: str, *, punctuation: bool = False) -> list[str]:
    """Split a text into lower-case words.

    A word is a run of letters and digits of any script, or one Chinese or Japanese character. On ASCII text the result
    is that of rouge_score's default tokenizer. Full-width forms count as the letters they stand for (Unicode NFKC).

    Args:
        text: Any text.
        punctuation: Also give every punctuation mark and symbol, each as a word of its own.

    >>> split_words("It's 3 o'clock: 三点了!")
    ['it', 's', '3', 'o', 'clock', '三', '点', '了']
    >>> split_words("Hm ...", punctuation=True)
    ['hm', '.', '.', '.']
    """
    words: list[str] = []
    inside_word = False
    for char in unicodedata.normalize("NFKC", text.lower()).lower():
        kind = _kind(char)
        if kind == "word" and inside_word:
            words[-1] += char
        elif kind in ("word", "cjk") or (punctuation and kind == "mark"):
            words.append(char)
        inside_word = kind == "word"
    return words


class WordTokenizer:
    """A tokenizer for rouge_score which keeps the letters of every script (its own drops all but a-z and 0-9).

    Equal to rouge_score's ``DefaultTokenizer`` on ASCII text. See :func:`split_words`.

    Args:
        use_stemmer: Reduce ASCII words of more than three letters to their stem (Porter's stemmer, for English), as
            rouge_score does.

    >>> WordTokenizer(use_stemmer=True).tokenize("Cats running 猫")
    ['cat', 'run', '猫']
    """

    def __init__(self, use_stemmer: bool = False) -> None:
        self._stemmer = _porter() if use_stemmer else None

    def tokenize(self, text: str) -> list[str]:
        """The words of a text."""
        words = split_words(text)
        if self._stemmer is None:
            return words
        return [self._stemmer.stem(word) if len(word) > 3 and word.isascii() else word for word in words]


def _porter() -> PorterStemmer:
    from nltk.stem.porter import PorterStemmer  # here: it loads all of nltk, and what nltk finds installed (100 MB)

    return PorterStemmer()


def split_sentences(text: str) -> list[str]:
    """Split a text into sentences by its punctuation, with rules only.

    A sentence ends at a line break, at ``. ! ? …`` before white space and at ``。！？``. Abbreviations are not known:
    "Dr. Who" makes two sentences.

    >>> split_sentences("It is 3.5 m long. 真的吗？是的。")
    ['It is 3.5 m long.', '真的吗？', '是的。']
    """
    return [sentence.strip() for sentence in _SENTENCE_END.split(text) if sentence.strip()]
