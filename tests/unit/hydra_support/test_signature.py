from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from rlhf_lightning.errors import UserError
from rlhf_lightning.hydra_support import check_arguments, check_call, check_value


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (1, int),
        (1, float),
        (0.5, float),
        (None, int | None),
        ("a", str),
        ("a", Path),
        (True, bool),
        ("k1", Literal["k1", "k2"]),
        (3, int | Literal["auto"]),
        ("auto", int | Literal["auto"]),
        ("anything", Any),
        ("a", Sequence[str]),
        ([0.9, 0.95], tuple[float, float]),
        ({"_target_": "x"}, Callable[..., int]),
    ],
)
def test_what_fits(value: Any, hint: Any) -> None:
    check_value(value, hint, "x")


@pytest.mark.parametrize(
    ("value", "hint", "words"),
    [
        ("x", int, "a whole number"),
        (1.5, int, "a whole number"),
        (True, int, "a whole number"),
        (True, float, "a number"),
        (None, int, "a whole number"),
        ("x", int | None, "a whole number or null"),
        (1, str, "a text"),
        (1, bool, "true or false"),
        ("k4", Literal["k1", "k2", "k3"], "k1, k2 or k3"),
        ([1, 2], int, "a whole number"),
        ("x", Callable[..., int], "of another type"),
    ],
)
def test_what_does_not_fit(value: Any, hint: Any, words: str) -> None:
    with pytest.raises(UserError) as refused:
        check_value(value, hint, "some.option")
    assert str(refused.value) == f"some.option must be {words}, not {value!r}"


def takes(rows: list, size: int = 3, scale: float = 1.0) -> None:
    """Something to call."""


def test_a_function_and_its_arguments() -> None:
    check_arguments(takes, {"size": 3}, "x", ["rows"])
    check_arguments(takes, {"size": 3}, "x", None)
    with pytest.raises(UserError, match=r"x\.sise: takes does not take it\. Did you mean x\.size\?"):
        check_arguments(takes, {"sise": 3}, "x", ["rows"])
    with pytest.raises(UserError, match=r"x\.rows must be given"):
        check_arguments(takes, {}, "x", [])
    with pytest.raises(UserError, match=r"x\.size must be a whole number"):
        check_arguments(takes, {"size": "big"}, "x", ["rows"])


def test_targets_are_looked_into() -> None:
    sgd = {"_target_": "torch.optim.SGD", "_partial_": True, "momentum": "much"}
    with pytest.raises(UserError, match=r"sft\.optimizer\.momentum must be a number"):
        check_call({"_target_": "rlhf_lightning.SFTModule", "optimizer": sgd}, "sft", given=["policy"])
    with pytest.raises(UserError, match=r"sft\._target_: cannot find 'rlhf_lightning.NoModule'"):
        check_call({"_target_": "rlhf_lightning.NoModule"}, "sft")
