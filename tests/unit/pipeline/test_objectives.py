"""What a run is judged by, before anything has been measured."""

from __future__ import annotations

from typing import Any

import pytest
from hydra import compose, initialize_config_module

from rlhf_lightning.errors import UserError
from rlhf_lightning.hydra_support import plain, register_resolvers
from rlhf_lightning.pipeline.objectives import directions_of

register_resolvers()


def config(*overrides: str) -> dict[str, Any]:
    with initialize_config_module("rlhf_lightning.conf", version_base="1.3"):
        return plain(compose("train", overrides=list(overrides)))


@pytest.mark.parametrize(
    ("task", "metric"),
    [
        ("summarization", "rougeL"),
        ("translation", "chrf"),
        ("qa", "token_f1"),
        ("classification", "accuracy"),
        ("continuation", "kl"),
        ("dialogue", "kl"),
    ],
)
def test_every_task_can_be_searched(task: str, metric: str) -> None:
    data = [] if task in ("summarization", "translation", "qa", "classification") else ["data=files", "data.gold=x.y"]
    cfg = config(f"task={task}", *data)
    assert directions_of(cfg, None) == {"gold": "max"}
    assert directions_of(cfg, ["objective", metric]) == {"gold": "max", metric: "min" if metric == "kl" else "max"}
    with pytest.raises(UserError, match="nonsense is unknown; say which way is better"):
        directions_of(cfg, ["nonsense"])
    assert directions_of(cfg, {"nonsense": "min"}) == {"nonsense": "min"}
