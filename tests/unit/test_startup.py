"""What is loaded when: the package, the command line and its refusals need none of the heavy libraries."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import rlhf_lightning

HEAVY = ("torch", "lightning", "transformers")
AT_EXIT = """
import atexit, sys
atexit.register(lambda: print("LOADED", *sorted({name.partition(".")[0] for name in sys.modules})))
"""


def loaded_after(code: str, folder: Path, status: int = 0) -> set[str]:
    """The top-level modules that a new process has loaded when it ends, which it does with ``status``."""
    command = [sys.executable, "-c", AT_EXIT + code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == status, done.stderr
    told = done.stdout.splitlines()[-1].split()
    assert told[0] == "LOADED"
    return set(told[1:])


@pytest.mark.parametrize(
    "code", ["import rlhf_lightning", "import rlhf_lightning.train", "import rlhf_lightning.compare"]
)
def test_an_import_loads_nothing_heavy(code: str, tmp_path: Path) -> None:
    loaded = loaded_after(code, tmp_path)
    assert "rlhf_lightning" in loaded
    assert not loaded & set(HEAVY)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ("--help", 0),
        ("--list", 0),
        ("--list metrics", 0),
        ("--list modles", 2),
        ("task=qa --tree", 0),
        ("--tree pppo", 2),
        ("--cfg job", 0),
        ("task=qa --cfg job --resolve", 0),
        ("task=qaa", 2),
        ("ppo.ecohs=2", 2),
        ("-m ppo.ecohs=1,2", 2),
        ("ppo.epochs={", 2),
        ("task=null", 2),
        ("resume=nowhere", 2),
    ],
)
def test_the_command_line_loads_nothing_heavy_before_a_run(arguments: str, status: int, tmp_path: Path) -> None:
    code = f"from rlhf_lightning.train import main\nsys.exit(main({arguments.split()}))"
    loaded = loaded_after(code, tmp_path, status)
    assert "hydra" in loaded
    assert not loaded & set(HEAVY)


def test_a_run_loads_no_library_before_it_is_used(tmp_path: Path) -> None:
    loaded = loaded_after("import rlhf_lightning.pipeline", tmp_path)
    assert set(HEAVY) < loaded
    assert not loaded & {"nltk", "rouge_score", "wandb", "datasets", "peft"}


@pytest.mark.parametrize("name", rlhf_lightning.__all__)
def test_every_public_name_is_found(name: str) -> None:
    home = importlib.import_module(f"rlhf_lightning.{rlhf_lightning._HOMES[name]}")
    assert getattr(rlhf_lightning, name) is getattr(home, name)


def test_the_public_names_are_the_same_everywhere() -> None:
    assert sorted(rlhf_lightning.__all__) == sorted(rlhf_lightning._HOMES)
    assert set(rlhf_lightning.__all__) <= set(dir(rlhf_lightning))


def test_another_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'PPOModul'"):
        _ = rlhf_lightning.PPOModul


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"]])
def test_a_reader_that_leaves_gets_no_traceback(arguments: list[str], tmp_path: Path) -> None:
    """As with ``rlhf-train --help | head -1``, here with a reader that leaves before the first word."""
    command = [sys.executable, "-m", "rlhf_lightning.train", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read()
    assert (process.returncode, said) == (1, "")
