"""The version of the code: of its own checkout alone."""

from __future__ import annotations

import subprocess
from importlib.metadata import version
from pathlib import Path

from rlhf_lightning.report.code import code_version


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    return subprocess.run(
        ["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_of_a_checkout(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    git(tmp_path, "init", "-q")
    assert code_version(package) == {"version": version("rlhf-lightning")}, (
        "it is not in the checkout that surrounds it"
    )
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    (tmp_path / "elsewhere.txt").write_text("")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert code_version(package) == {"version": version("rlhf-lightning"), "commit": commit, "changed": False}
    (package / "__init__.py").write_text("x = 1\n")
    assert code_version(package)["changed"] is True


def test_without_git(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code_version(tmp_path) == {"version": version("rlhf-lightning")}
