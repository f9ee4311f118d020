"""Tiny models for all unit tests; each is written once a session."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from helpers.tiny_models import spread_weights, write_model

from rlhf_lightning.models import ModelSpec, Policy

DEVICE = os.environ.get("RLHF_TEST_DEVICE", "cpu")
"""Where policies and Trainers of the fixtures compute: ``cuda`` holds a GPU to what is tested on the CPU."""

warnings.filterwarnings("ignore", message=".*does not have many workers.*")
warnings.filterwarnings("ignore", message=".*Checkpoint directory.*")


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of the tiny model of a kind: llama, gpt2 (pad == eos), t5, bert."""
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = write_model(kind, tmp_path_factory.mktemp(kind) / "model")
        return made[kind]

    return folder


@pytest.fixture
def make_policy(model_dir: Callable[[str], Path]) -> Callable[..., Policy]:
    """A policy of a kind; ``wild_head`` gives the value head random weights instead of 0."""

    def make(kind: str = "llama", wild_head: bool = False, **options: Any) -> Policy:
        lora = options.pop("lora", None)
        spec = ModelSpec(str(model_dir(kind)), **({"lora": lora} if lora else {}))
        policy = Policy.load(spec, **{"max_prompt": 40, "max_completion": 8, "value_head": True, **options})
        if wild_head and policy.value_head is not None:
            spread_weights(policy.value_head, std=0.5, seed=3)
        return policy.to(DEVICE)

    return make


@pytest.fixture
def make_trainer(tmp_path: Path) -> Callable[..., L.Trainer]:
    """A silent Trainer on one device."""

    def make(**options: Any) -> L.Trainer:
        quiet = {
            "accelerator": DEVICE,
            "devices": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": tmp_path,
            "num_sanity_val_steps": 0,
        }
        return L.Trainer(**{**quiet, **options})

    return make


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same random numbers in every test, whatever ran before it."""
    torch.manual_seed(0)
