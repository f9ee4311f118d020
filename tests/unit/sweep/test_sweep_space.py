"""A sweep's options in Hydra's syntax: what is drawn lies where it was asked for."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

optuna = pytest.importorskip("optuna", minversion="4", reason="needs the extra optuna")

from rlhf_lightning.errors import UserError  # noqa: E402
from rlhf_lightning.sweep.space import read_space  # noqa: E402

optuna.logging.set_verbosity(optuna.logging.WARNING)


def drawn(override: str, seed: int = 0, n: int = 5) -> list:
    """Values of the one option that is searched, as a sampler draws them."""
    space = read_space([override])
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    (name,) = space.searched
    return [study.ask(fixed_distributions=space.searched).params[name] for _ in range(n)]


@settings(max_examples=50, deadline=None)
@given(
    low=st.floats(1e-6, 1e3, allow_subnormal=False),
    width=st.floats(1e-3, 1e3),
    log=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_an_interval_gives_what_lies_in_it(low: float, width: float, log: bool, seed: int) -> None:
    high = low + width
    interval = f"interval({low!r},{high!r})"
    values = drawn(f"a={f'tag(log,{interval})' if log else interval}", seed)
    assert all(isinstance(value, float) and low <= value <= high for value in values)


@settings(max_examples=50, deadline=None)
@given(low=st.integers(-50, 50), count=st.integers(1, 20), step=st.integers(1, 7), seed=st.integers(0, 2**31))
def test_a_range_gives_its_steps_without_the_end(low: int, count: int, step: int, seed: int) -> None:
    stop = low + count * step
    assert set(drawn(f"a=range({low},{stop},{step})", seed)) <= set(range(low, stop, step))
    assert [p["a"] for p in read_space([f"a=range({low},{stop},{step})"]).grid()] == list(range(low, stop, step))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 99), min_size=2, max_size=6, unique=True), st.integers(0, 2**31))
def test_a_choice_gives_one_of_its_values(choices: list[int], seed: int) -> None:
    values = drawn(f"a={','.join(map(str, choices))}", seed)
    assert set(values) <= {str(choice) for choice in choices}


def test_whole_numbers() -> None:
    values = drawn("a=int(interval(2,5))", n=60)
    assert set(values) == {2, 3, 4, 5}
    assert all(isinstance(value, int) for value in values)


def test_the_logarithm_is_drawn_evenly() -> None:
    values = drawn("a=tag(log,interval(1e-4,1.0))", n=400)
    below = sum(value < 1e-2 for value in values)
    assert 160 < below < 240  # half of them; without the logarithm it would be 4
    assert sum(value < 1e-2 for value in drawn("a=interval(1e-4,1.0)", n=400)) < 20


def test_fixed_options_stay_as_they_were_given() -> None:
    space = read_space(["task=qa", "+a.b='x, y'", "stages=[sft,ppo]", "c=1,2", "~d"])
    assert space.overrides({"c": "2"}) == ["task=qa", "+a.b='x, y'", "stages=[sft,ppo]", "~d", "c=2"]


def test_lists_and_texts_can_be_chosen_from() -> None:
    space = read_space(["stages=[sft],[sft,ppo]", "name='a,b',c"])
    made = [space.overrides(values) for values in space.grid()]
    assert made == [
        ["stages=[sft]", "name='a,b'"],
        ["stages=[sft]", "name=c"],
        ["stages=[sft,ppo]", "name='a,b'"],
        ["stages=[sft,ppo]", "name=c"],
    ]


def test_the_later_one_of_an_option_counts() -> None:
    space = read_space(["a=interval(0.0,1.0)", "b=1,2", "a=0.5", "b=3,4"])
    assert space.fixed == {"a": "a=0.5"}
    assert [values["b"] for values in space.grid()] == ["3", "4"]


def test_a_grid_of_numbers_with_a_point() -> None:
    space = read_space(["a=range(0.1,0.45,0.1)"])
    assert [values["a"] for values in space.grid()] == [0.1, 0.2, 0.3, 0.4]
    study = optuna.create_study()
    for values in space.grid():
        study.enqueue_trial(values)
    assert [study.ask(fixed_distributions=space.searched).params for _ in range(4)] == space.grid()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("a=tag(log,interval(0.0,1.0))", "a can't be drawn from that"),
        ("a=range(5,1)", "it has no values"),
        ("a=interval(2.0,1.0)", "a can't be drawn from that"),
    ],
)
def test_what_nothing_can_be_drawn_from(override: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_space([override])


def test_an_interval_has_no_grid() -> None:
    with pytest.raises(UserError, match=r"a grid needs single values, as a=0.1,0.2"):
        read_space(["a=interval(0.0,1.0)"]).grid()


def test_what_is_tried_out_of_an_option_are_its_ends() -> None:
    space = read_space(["a=1", "b=x,y,x", "c=interval(0,1)", "d=range(1,9,2)", "e=int(interval(3,5))"])
    assert space.ends() == {
        "b": ["b=x", "b=y"],
        "c": ["c=1e-06", "c=0.999999"],
        "d": ["d=1", "d=7"],
        "e": ["e=3", "e=5"],
    }
