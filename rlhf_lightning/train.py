"""`rlhf-train`: compose the config, run the stages in order, report."""

from __future__ import annotations

import errno
import logging
import math
import os
import sys
import traceback
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from rlhf_lightning.early import check_early
from rlhf_lightning.errors import Preempted, UserError
from rlhf_lightning.hydra_support import explain, plain, register_resolvers
from rlhf_lightning.hydra_support.asked import answered
from rlhf_lightning.hydra_support.leftovers import take_away
from rlhf_lightning.processes import as_a_run_of_its_own, join, leave, started_together
from rlhf_lightning.sweep import folders, register_plugins
from rlhf_lightning.sweep.checks import SIDE_BY_SIDE
from rlhf_lightning.sweep.labels import labelled

if TYPE_CHECKING:
    from collections.abc import Sequence


register_resolvers()

_failures: list[str] = []
"""Mistakes that ended jobs of this process, in words."""

_preempted: list[str] = []
"""Jobs that were told to stop, in words."""

REQUEUE = 75
"""Exit status of a run that is to be started again with resume=true (EX_TEMPFAIL of sysexits.h)."""

_OUT_OF_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""No space on the disk, none left of the user's share of it."""


class _Stopped(BaseException):
    """A sweep was told to stop: no further job begins."""


@hydra.main(version_base="1.3", config_path="pkg://rlhf_lightning.conf", config_name="train")
def run(cfg: DictConfig) -> float | None:
    """One job: the pipeline in Hydra's run folder. Returns the objective of the last policy, for sweepers."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    settings = HydraConfig.get()
    folder, overrides = Path(settings.runtime.output_dir), list(settings.overrides.task)
    if settings.mode == RunMode.MULTIRUN:
        alone = not any(name in str(settings.launcher._target_) for name in SIDE_BY_SIDE)
        with nullcontext() if alone else labelled(f"[{settings.job.num}] "):
            return _job(cfg, folder, Path(settings.sweep.dir), overrides, alone)
    # A further process of a sweep's job, or a job that is gone on with by itself.
    sweep = folder.parent if (folder.parent / folders.FILE).exists() else None
    try:
        return _pipeline(cfg, folder, sweep, overrides)
    except Preempted as reason:
        _preempted.append(f"stopped ({reason}); the same command with resume=true goes on")
    except UserError as error:  # raised from here Hydra would print it in its own way
        _failures.append(str(error))
        take_away(folder)
    return None


def _job(cfg: DictConfig, folder: Path, sweep: Path, overrides: list[str], alone: bool = True) -> float | None:
    """A job of a sweep. However it ends, the next one begins; its folder says how. Returns nan if it failed."""
    task, seed = str(cfg.task.name), cfg.seed
    done = folders.done_before(folder, cfg) if cfg.resume else None
    if done is not None:
        print(f"{folder.name}: finished before")
        return done.outcome
    folders.begin(folder, task, seed)
    if not alone:  # else Hydra has just told
        print(folder.name)
    try:
        with as_a_run_of_its_own(folder, overrides):
            return _pipeline(cfg, folder, sweep, overrides)
    except Preempted as stop:
        if str(stop) == "SIGTERM":
            raise _Stopped from None
        print(f"{folder.name}: stopped ({stop}); the sweep's command with resume=true goes on with it")
        return None
    except UserError as error:
        reason = str(error)
    except Exception as error:
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}"
    print(f"rlhf-train: {folder.name} failed: {reason}", file=sys.stderr, flush=True)
    folders.write_failure(folder, task, seed, reason)
    return math.nan


def _pipeline(cfg: DictConfig, directory: Path, sweep: Path | None, overrides: list[str]) -> float | None:
    check_early(plain(cfg))
    from rlhf_lightning.pipeline import run_pipeline

    _quieten()
    try:
        if cfg.get("loop") is not None:
            from rlhf_lightning.loop.run import run_loop

            return run_loop(cfg, directory, sweep, overrides)
        return run_pipeline(cfg, directory, sweep, overrides)
    finally:
        if cfg.dry_run:  # also where nobody reads it to its end
            take_away(directory)


def _quieten() -> None:
    """Progress and results are ours to show; the libraries' own chatter would hide them."""
    import lightning.pytorch  # noqa: F401  (it sets its own level when imported)
    from transformers.utils import logging as transformers_logging

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").propagate = False  # it has a handler of its own: each line came twice
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    unneeded = (
        "does not have many workers",
        "Total length of",
        "in eval mode at the start",
        "smaller than the logging",
        "isinstance.treespec, LeafSpec",
        "your dataloader is not resumable",  # its place follows from the progress, which is in the checkpoint
        "Experiment logs directory",  # a stage's folder also holds its models
        "returned a view tensor",  # of FSDP2: nothing of ours writes into logits
        "on epoch level in distributed setting",  # what is logged is the same on every rank
        "`is_gradient_checkpointing` is deprecated",  # transformers reads its own deprecated property under peft
    )
    for message in unneeded:
        warnings.filterwarnings("ignore", f".*{message}.*")
    warnings.formatwarning = _in_words


def _in_words(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning as it is shown: ours are about the user's run, who need not know which line of ours told them."""
    ours = Path(__file__).parent in Path(filename).parents
    return f"warning: {message}\n" if ours else f"{filename}:{lineno}: {category.__name__}: {message}\n"


def main(argv: Sequence[str] | None = None) -> int:
    """The console script; mistakes of the user's end in one message and status 2."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    if argv is not None:
        sys.argv = [sys.argv[0], *argv]
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # for modules of the user's own; last, to shadow nothing
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us as they are, and not as Hydra prints them
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler otherwise says on the screen that it starts
    _failures.clear()
    _preempted.clear()
    folders.started.clear()
    try:
        if answered(sys.argv[1:]):
            return 0
        _expand_resume()
        _refuse_dry_sweeps()
        if started_together():
            _refuse_sweeps()
            join()
        register_plugins()
        run()
    except _Stopped:
        print("rlhf-train: the sweep was stopped (SIGTERM); the same command with resume=true goes on", file=sys.stderr)
        return REQUEUE
    except UserError as error:
        return _fail(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        return _fail(explain(error))
    except YAMLError as error:  # it names the file
        return _fail(f"a config can't be read: {error}")
    except ValueError as error:
        if "Config group override" not in str(error):
            raise
        return _fail("a group can't be null: leave its option out, or choose one (`rlhf-train --help` shows them)")
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        if not _nobody_reads():
            raise
        return 1
    except OSError as error:
        if error.errno in _OUT_OF_ROOM:  # told by a write, which names no file
            return _fail(
                f"cannot write: {error.strerror}. Make room and give the command again with resume=true, or choose "
                "another place with paths.output_dir=..."
            )
        if error.filename is None:
            raise
        return _fail(f"cannot use {error.filename}: {error.strerror}. Choose another place with paths.output_dir=...")
    finally:
        leave()
        for folder in folders.started:
            folders.remove_empty(folder)
    if folders.started:
        return _end_sweep(folders.started[-1])
    if _failures:
        return max(_fail(message) for message in _failures)
    for message in _preempted:
        print(f"rlhf-train: {message}", file=sys.stderr)
    # Another rank's status would make Lightning kill rank zero, whose status the scheduler sees.
    return REQUEUE if _preempted and os.environ.get("LOCAL_RANK", "0") == "0" else 0


def _end_sweep(folder: Path) -> int:
    """Show what came of a sweep. Its status is 1 if a job failed, and `REQUEUE` if one is to be gone on with."""
    from rlhf_lightning.compare import print_summary

    print_summary(folder)
    refused = folders.refused(folder)
    ends = [(name, "refused" if name in refused else results.status) for name, results in folders.jobs(folder)]
    again = "The same command with resume=true runs only what is missing."
    words = {
        "failed": ("failed", again, 1),
        "running": ("ended without a word", again, 1),
        "refused": ("were finished before, with other options or rows, and left as they are", "", 1),
        "interrupted": ("stopped before their end", again, REQUEUE),
    }
    status = 0
    for end, (said, remedy, code) in words.items():
        if names := [name for name, how in ends if how == end]:
            print(f"rlhf-train: {len(names)} of {len(ends)} jobs {said}: {', '.join(names)}. {remedy}", file=sys.stderr)
            status = status or code
    return status


def _nobody_reads() -> bool:
    """Whether standard output has been closed by what it is piped into, as ``| head`` does; it then leads nowhere."""
    try:
        print(flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it ends
        return True
    return False


def _is_sweep(arguments: Sequence[str]) -> bool:
    preset = any(a.startswith("sweep=") for a in arguments) and "hydra.mode=RUN" not in arguments
    return preset or bool({"-m", "--multirun"} & set(arguments))


def _refuse_dry_sweeps() -> None:
    if _is_sweep(sys.argv[1:]) and "dry_run=true" in (a.lower() for a in sys.argv[1:]):
        raise UserError("dry_run=true shows one run, not a sweep: leave -m and sweep= out; give each option one value")


def _refuse_sweeps() -> None:
    """Each of the processes would run the whole sweep."""
    if _is_sweep(sys.argv[1:]):
        raise UserError(
            "a sweep (-m) can't be started by torchrun or srun, which start single runs: start it by itself, its jobs "
            "then start their own processes (trainer=ddp), or start the jobs one by one"
        )


def _expand_resume() -> None:
    """Turn ``resume=FOLDER`` into the command of the run or sweep in that folder; `resume=force` may be added."""
    given = [a.partition("=")[2] for a in sys.argv[1:] if a.startswith("resume=")]
    named = [value for value in given if value.lower() not in ("", "true", "false", "force", "null")]
    if not named:
        return
    from rlhf_lightning.state import command_of

    folder = Path(named[-1])
    others = [a for a in sys.argv[1:] if not a.startswith("resume=")]
    how = "force" if "force" in map(str.lower, given) else "true"
    began = folders.read_sweep(folder)
    if began is not None:
        command = ["--multirun", *began["overrides"], *began["hydra"], f"hydra.sweep.dir={folder}"]
        command = [option for option in command if not option.startswith(("resume=", "max_time="))]
        others = [option for option in others if option not in ("-m", "--multirun")]
    else:
        command = command_of(folder)
    sys.argv[1:] = [*command, *others, f"resume={how}"]


def _fail(message: str) -> int:
    print(f"rlhf-train: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
