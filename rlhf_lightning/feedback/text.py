"""Texts as a person sees them."""

from __future__ import annotations

import unicodedata


def whole_text(text: str) -> str:
    """The text with ``?`` for halves of surrogate pairs, which a byte-level tokenizer can give and no store holds."""
    return text.encode("utf-8", "replace").decode("utf-8")


def same_text(a: str, b: str) -> bool:
    """Whether two texts differ in nothing but space and Unicode's ways of writing one character (NFC).

    Full-width and half-width forms (NFKC) are different texts: in Chinese, correcting one to the other is a correction.
    """
    first, second = ("".join(unicodedata.normalize("NFC", text).split()) for text in (a, b))
    return first == second
