"""Completion with the tab key, in bash itself."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from console import BIN, environment

SCRIPT = """
eval "$(rlhf-train -sc install=bash)"
COMP_LINE="rlhf-train $1"; COMP_POINT=${#COMP_LINE}; COMP_WORDS=($COMP_LINE); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
hydra_bash_completion
echo "${COMPREPLY[*]}"
"""


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("task=", "task=classification task=continuation task=dialogue task=qa task=summarization task=translation"),
        ("task=qa ppo.kl_", "ppo.kl_coef= ppo.kl_estimator= ppo.kl_horizon= ppo.kl_target="),
    ],
)
def test_bash_offers_groups_and_options(typed: str, offered: str, tmp_path: Path) -> None:
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])
    told = subprocess.run(
        ["bash", "-c", SCRIPT, "bash", typed],
        cwd=tmp_path, env=environment(PATH=path), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (told.stdout.strip(), told.stderr) == (offered, "")
    assert list(tmp_path.iterdir()) == []
