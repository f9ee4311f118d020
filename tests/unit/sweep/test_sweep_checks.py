"""A look at a sweep's jobs before one is started."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lightning.errors import UserError
from rlhf_lightning.hydra_support import plain, register_resolvers
from rlhf_lightning.sweep.checks import Mistake, check_job, hopeless, refuse_useless, told

register_resolvers()

GRID = [(f"a={a}", f"b={b}") for a in (1, 2, 3) for b in (1, 2)]


@given(st.sets(st.sampled_from(GRID)))
def test_a_value_is_hopeless_when_all_its_jobs_are(bad: set[tuple[str, str]]) -> None:
    expected = any(
        all((a, b) in bad for a, b in GRID if value in (a, b)) for value in ("a=1", "a=2", "a=3", "b=1", "b=2")
    )
    assert hopeless(GRID, [Mistake(job, "no") for job in bad]) == expected


def test_each_reason_is_told_once() -> None:
    reasons = [f"reason {i}" for i in (0, 0, 1, 2, 3, 4)]
    said = told(GRID, [Mistake(job, reason) for job, reason in zip(GRID, reasons, strict=True)])
    assert said.splitlines() == [
        "6 of 6 jobs of the sweep can't be run:",
        "  a=1 b=1 and 1 more: reason 0",
        "  a=2 b=1: reason 1",
        "  a=2 b=2: reason 2",
        "  and 2 more",
    ]


def test_a_single_job_has_no_options_of_its_own() -> None:
    assert told([("a=1",)], [Mistake(("a=1",), "no")]).splitlines()[1] == "  no"


@pytest.fixture
def config() -> dict[str, Any]:
    with initialize_config_module("rlhf_lightning.conf", version_base="1.3"):
        return plain(compose("train", overrides=["task=qa", "trainer=cpu"]))


@pytest.mark.parametrize("launcher", ["hydra_joblib_launcher.Joblib", "hydra_ray_launcher.Ray"])
def test_launchers_with_one_device_a_job(launcher: str, config: dict[str, Any]) -> None:
    hydra = {"launcher": {"_target_": launcher}, "runtime": {"choices": {"launcher": None, "hydra/launcher": "side"}}}
    check_job(config, hydra)
    config["trainer"] |= {"devices": 2, "accelerator": "cpu"}
    with pytest.raises(UserError, match="launcher=side gives each job of a sweep one device"):
        check_job(config, hydra)
    check_job(config, {"launcher": {"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"}})


@pytest.fixture
def search() -> Iterator[Callable[..., None]]:
    """Looks at a search's values, as the sweeper does."""
    pytest.importorskip("optuna", minversion="4", reason="needs the extra optuna")
    from rlhf_lightning.sweep.space import read_space

    with initialize_config_module("rlhf_lightning.conf", version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()

        def look(*options: str) -> None:
            master = loader.load_configuration("train", [], run_mode=RunMode.MULTIRUN)
            space = read_space(["task=qa", "trainer=cpu", *options])
            refuse_useless(loader, master, list(space.fixed.values()), space.ends())

        yield look


@pytest.mark.parametrize(
    "options",
    [
        ["model.tiny.hidden=24,48", "model.tiny.heads=3,6"],
        ["stages=[sft,ppo]", "rewards=chrf", "ppo.loader.batch_size=128,256", "ppo.minibatches=64,128"],
        ["stages=[sft,ppo],[sft,reward,ppo]", "rewards=chrf,learned"],
        ["ppo.temperature=interval(0,1)"],
        ["ppo.gamma=interval(0.9,1.0)", "ppo.lam=interval(0,1)"],
    ],
)
def test_values_that_can_be_used_with_some_other_are_searched(options: list[str], search: Callable[..., None]) -> None:
    search(*options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["ppo.gamma=interval(0.9,1.5)", "ppo.lr=interval(0,1)"], "no job with ppo.gamma=1.49.* ppo.gamma must be at"),
        (["model.tiny.heads=0,4"], "no job with model.tiny.heads=0 can be run: model.tiny.heads must be at least 1"),
        (["model.tiny.hidden=24,48", "model.tiny.heads=3,5"], "no job with model.tiny.heads=5 can be run"),
        (["ppo.lr=interval(0,1)", "ppo.epochs=x"], "ppo.epochs must be a whole number"),
    ],
)
def test_a_value_that_can_be_used_with_none_is_refused(
    options: list[str], said: str, search: Callable[..., None]
) -> None:
    with pytest.raises(UserError, match=said):
        search(*options)
