from dataclasses import dataclass, field
from typing import Any

import pytest
from omegaconf import OmegaConf

from rlhf_lightning.errors import UserError
from rlhf_lightning.hydra_support import instantiate, plain, register_resolvers

HERE = "hydra_support_targets"


@dataclass
class Spec:
    """Stands for ModelSpec and the like."""

    name: str
    parts: dict = field(default_factory=dict)


class Taker:
    """Keeps what it is given."""

    def __init__(self, spec: Any, count: int = 1, config: Any = None, parts: Any = None) -> None:
        if count < 0:
            raise UserError("count must not be negative")
        if count > 100:
            raise TypeError("unsupported operand")
        self.spec, self.count, self.config, self.parts = spec, count, config, parts


@pytest.fixture(autouse=True)
def targets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives this module a name of its own to be found by."""
    import sys

    monkeypatch.setitem(sys.modules, HERE, sys.modules[__name__])


def test_objects_stay_what_they_are() -> None:
    spec = Spec("m", {"a": 1})
    made = instantiate({"_target_": f"{HERE}.Taker", "count": 2}, spec=spec)
    assert made.spec is spec
    assert made.count == 2


def test_an_argument_may_be_called_config() -> None:
    """`wandb.init` has one."""
    assert instantiate({"_target_": f"{HERE}.Taker"}, spec=1, config={"lr": 1}).config == {"lr": 1}


def test_containers_become_plain_and_nested_targets_objects() -> None:
    config = OmegaConf.create(
        {"_target_": f"{HERE}.Taker", "parts": [1, {"b": 2}], "spec": {"_target_": f"{HERE}.Spec", "name": "x"}}
    )
    made = instantiate(config)
    assert made.spec == Spec("x")
    assert (type(made.parts), type(made.parts[1])) == (list, dict)
    assert instantiate(config, count=3).spec == Spec("x")


def test_partial_targets_are_finished_by_the_caller() -> None:
    import torch

    make = instantiate({"_target_": "torch.optim.SGD", "_partial_": True, "momentum": 0.5})
    optimizer = make([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    assert optimizer.defaults["momentum"] == 0.5


@pytest.mark.parametrize("given", [{}, {"spec": 1}])
def test_an_argument_that_is_not_taken(given: dict) -> None:
    with pytest.raises(UserError, match="cuont"):
        instantiate({"_target_": f"{HERE}.Taker", "cuont": 1, **({} if given else {"spec": 1})}, **given)


@pytest.mark.parametrize("given", [{}, {"spec": 1}])
def test_a_mistake_found_in_the_target_keeps_its_words(given: dict) -> None:
    with pytest.raises(UserError, match=r"^count must not be negative$"):
        instantiate({"_target_": f"{HERE}.Taker", "count": -1, **({} if given else {"spec": 1})}, **given)


def test_a_fault_of_the_target_is_no_mistake_of_the_user() -> None:
    with pytest.raises(TypeError, match="unsupported operand"):
        instantiate({"_target_": f"{HERE}.Taker", "count": 101}, spec=1)


def test_a_target_that_does_not_exist() -> None:
    with pytest.raises(UserError, match=r"no_such_module\.Thing"):
        instantiate({"_target_": "no_such_module.Thing"})


def test_a_missing_value_is_named() -> None:
    with pytest.raises(UserError, match=r"^model\.name must be given: model\.name=\.\.\.$"):
        plain(OmegaConf.create({"model": {"name": "???"}}))


def test_a_dangling_interpolation_is_named() -> None:
    with pytest.raises(UserError, match="nowhere"):
        plain(OmegaConf.create({"a": "${nowhere.at_all}"}))


def test_plain_values_are_let_through() -> None:
    assert plain({"a": [1]}) == {"a": [1]}


def test_the_resolver_finds_the_samples() -> None:
    from pathlib import Path

    register_resolvers()
    register_resolvers()  # twice does no harm
    assert Path(OmegaConf.create({"x": "${sample_data:qa,train}"}).x).is_file()
