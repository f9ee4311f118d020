"""Settings and fixtures of the whole suite: no network, one thread, and the real data sets where they are."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before anything imports torch, wandb or the hub's client: they read these once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny tensors gain nothing from threads, and parallel test processes would fight for cores."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real public sets: RLHF_SHARED_DATA, else shared/data beside the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("RLHF_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"the real data sets are not there ({folder}): set RLHF_SHARED_DATA to their folder")
    return folder


@pytest.fixture
def hydra_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undoes what Hydra does to a process: it configures logging, and remembers that it has run."""
    from absl import logging as absl_logging
    from hydra.core.global_hydra import GlobalHydra

    # Configuring logging closes all handlers; absl's (of rouge_score) takes its stream along, which is pytest's.
    absl_logging.get_absl_handler().python_handler.setStream(sys.__stderr__)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    handlers, level = logging.root.handlers[:], logging.root.level
    GlobalHydra.instance().clear()
    yield
    GlobalHydra.instance().clear()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
