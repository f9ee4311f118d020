"""What a job of a sweep knows of its trial: it reports how it is doing, and is told whether to go on."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import Trial

VARIABLE = "RLHF_LIGHTNING_TRIAL"
"""Environment variable by which a job's processes find their trial, whatever started them."""


@dataclass(frozen=True)
class TrialAddress:
    """Where a job finds its trial, and when it is pruned.

    Attributes:
        storage: a journal file's path or a database's URL.
        study: the study's name.
        number: the trial's.
        objective: name of the figure that the study is about.
        startup_trials: finished trials before which none is pruned.
        warmup_rounds: PPO's rounds before which a trial is not pruned.
    """

    storage: str
    study: str
    number: int
    objective: str
    startup_trials: int
    warmup_rounds: int

    def to_text(self) -> str:
        """For the environment variable."""
        return json.dumps(asdict(self))

    @classmethod
    def of_this_job(cls) -> TrialAddress | None:
        """That of the job this process belongs to; None where it isn't one that can be pruned."""
        text = os.environ.get(VARIABLE)
        return cls(**json.loads(text)) if text else None


def open_storage(where: str) -> BaseStorage:
    """The storage at a database's URL, or in a journal file."""
    from optuna.storages import JournalStorage, get_storage
    from optuna.storages.journal import JournalFileBackend

    if "://" in where:
        return get_storage(where)
    Path(where).parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(where))


def find_trial(address: TrialAddress) -> Trial:
    """The running trial at an address, with a pruner that compares it with the median of the finished ones."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = open_storage(address.storage)
    pruner = optuna.pruners.MedianPruner(address.startup_trials, address.warmup_rounds)
    study = optuna.load_study(study_name=address.study, storage=storage, pruner=pruner)
    study_id = storage.get_study_id_from_name(address.study)
    return optuna.trial.Trial(study, storage.get_trial_id_from_study_id_trial_number(study_id, address.number))


class Judge:
    """Tells whether a job of a sweep is worth going on with.

    Args:
        address: of its trial.
    """

    def __init__(self, address: TrialAddress) -> None:
        self.address = address

    @cached_property
    def trial(self) -> Trial:
        """The trial, looked up by the one process that asks."""
        return find_trial(self.address)

    def __call__(self, step: int, value: float) -> bool:
        """Report the objective after a step; whether it is below the median of the finished trials at that step."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The reported value is ignored")  # a resumed job comes there again
            self.trial.report(value, step)
        return self.trial.should_prune()
