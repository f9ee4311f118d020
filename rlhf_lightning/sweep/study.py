"""A sweep as an Optuna study: which values come next, and what became of each job."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rlhf_lightning.errors import UserError
from rlhf_lightning.report.results import RunResults
from rlhf_lightning.report.secrets import hide_paths
from rlhf_lightning.sweep.space import Space
from rlhf_lightning.sweep.trial import open_storage

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial

NAME = "sweep"
JOURNAL = "study.journal"
SAMPLERS = ("tpe", "random", "grid", "nsga2")

Direction = Literal["max", "min"]


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        status: of its results; ``failed`` too where it left none, or lacks one of the figures.
        values: the objectives of its last policy, if it is finished.
        reason: why it failed.
    """

    status: str
    values: tuple[float, ...] = ()
    reason: str = ""

    @classmethod
    def of(cls, folder: Path, objectives: Sequence[str]) -> Outcome:
        """Read the results in a job's folder."""
        try:
            results = RunResults.read(folder / "metrics.json")
        except UserError as error:
            return cls("failed", reason=str(error))
        if results.status != "finished":
            return cls(results.status, reason=results.notes[-1] if results.notes else "")
        figures = results.policies[-1].metrics if results.policies else {}
        values = tuple(figures.get(name, math.nan) for name in objectives)
        for name, value in zip(objectives, values, strict=True):
            if not math.isfinite(value):
                said = f"{name} is {value}" if name in figures else f"{name} was not measured"
                return cls("failed", reason=f"{folder}: {said}")
        return cls("finished", values)


def open_study(
    storage: str,
    resume: bool,
    sampler: str,
    seed: int,
    directions: Mapping[str, Direction],
    space: Space,
    at_once: int,
    name: str = NAME,
) -> Study:
    """A new study, or with ``resume`` the one that is there, if it is about the same; what failed is tried again then.

    Args:
        storage: a journal file's path or a database's URL.
        resume: whether to go on with what is there.
        sampler: ``tpe``, ``random``, ``grid`` or ``nsga2``.
        seed: of the sampler.
        directions: objective to which way is better.
        space: of the options.
        at_once: jobs that run at the same time.
        name: the study's, in a storage that holds several.

    Raises:
        UserError: if there is a study already and no resume, or it is about something else; for an unknown sampler.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if sampler not in SAMPLERS:
        raise UserError(f"hydra.sweeper.sampler={sampler}: there are {', '.join(SAMPLERS)}")
    grid = space.grid() if sampler == "grid" else []
    opened = open_storage(storage)
    about = {"objectives": dict(directions), "options": space.describe()}
    there, shown = name in optuna.get_all_study_names(opened), hide_paths(storage) if "://" in storage else storage
    if there and not resume:
        raise UserError(
            f"{shown} holds this sweep already: go on with it by resume=true, or choose another hydra.sweep.dir"
        )
    study = optuna.create_study(
        storage=opened,
        study_name=name,
        directions=["maximize" if direction == "max" else "minimize" for direction in directions.values()],
        load_if_exists=True,
    )
    before = study.user_attrs.get("about", about)
    if before != about:
        raise UserError(
            f"{shown} holds a sweep of other options or objectives ({_said(before)}; now {_said(about)}): start a "
            "new one without resume=true"
        )
    if "about" not in study.user_attrs:  # new, or killed while the grid was written
        for values in grid:
            study.enqueue_trial(values, skip_if_exists=True)
        study.set_user_attr("about", about)
    _try_again(study, space)
    study.sampler = _seed_by_trial(lambda number: _sampler(sampler, seed + number, at_once))
    return study


def _try_again(study: Study, space: Space) -> None:
    """Put the values of trials that failed into the queue once more, whose failure then counts no more."""
    from optuna.trial import TrialState

    failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    before = set(study.user_attrs.get("again", []))
    for trial in failed:
        if trial.number not in before and set(space.searched) <= set(trial.params):
            study.enqueue_trial(trial.params)
    study.set_user_attr("again", [trial.number for trial in failed])


def _said(about: dict[str, Any]) -> str:
    named = [f"{name} ({direction})" for name, direction in about["objectives"].items()]
    return ", ".join([*named, *(f"{name}: {drawn}" for name, drawn in about["options"].items())])


def _seed_by_trial(make: Callable[[int], BaseSampler]) -> BaseSampler:
    """A sampler that draws a trial's values by the seed of its number: a search that is gone on with draws those that
    it would have drawn.

    Args:
        make: a sampler by a trial's number.
    """
    from optuna.samplers import BaseSampler

    class ByTrial(BaseSampler):
        def __init__(self) -> None:
            self.now = make(0)

        def before_trial(self, study: Study, trial: FrozenTrial) -> None:
            self.now = make(trial.number)
            self.now.before_trial(study, trial)

        def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Any:
            return self.now.infer_relative_search_space(study, trial)

        def sample_relative(self, study: Study, trial: FrozenTrial, search_space: Any) -> Any:
            return self.now.sample_relative(study, trial, search_space)

        def sample_independent(self, study: Study, trial: FrozenTrial, name: str, distribution: Any) -> Any:
            return self.now.sample_independent(study, trial, name, distribution)

        def after_trial(self, study: Study, trial: FrozenTrial, state: Any, values: Any) -> None:
            make(trial.number).after_trial(study, trial, state, values)

    return ByTrial()


def _sampler(name: str, seed: int, at_once: int) -> BaseSampler:
    from optuna import samplers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant_liar, which keeps jobs that run at once apart, is experimental
        if name == "tpe":
            return samplers.TPESampler(seed=seed, constant_liar=at_once > 1)
        if name == "nsga2":  # Optuna's populations of 50 make a random search of what a sweep of trainings can afford
            return samplers.NSGAIISampler(seed=seed, population_size=10)
        return samplers.RandomSampler(seed=seed)


def unfinished(study: Study, space: Space) -> list[int]:
    """Numbers of the trials that were running when the sweep was killed. Those that had no values yet are failed."""
    from optuna.trial import TrialState

    numbers = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if set(space.searched) <= set(trial.params):
            numbers.append(trial.number)
        else:
            study.tell(trial.number, state=TrialState.FAIL)
    return numbers


def next_numbers(study: Study, space: Space, n_trials: int | None, at_once: int) -> list[int]:
    """Ask for as many trials as may run at once, up to ``n_trials`` in all (None is what is left of the grid).

    Failures that are tried again don't count.
    """
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    waiting = sum(trial.state == TrialState.WAITING for trial in trials)
    counted = len(trials) - waiting - len(study.user_attrs.get("again", []))
    left = waiting if n_trials is None else n_trials - counted
    return [study.ask(fixed_distributions=space.searched).number for _ in range(min(left, at_once))]


def runs_of(numbers: Iterable[int], longest: int) -> list[list[int]]:
    """Numbers in runs without gaps, none longer than ``longest``: a launcher numbers its jobs that way.

    >>> runs_of([3, 4, 5, 9], 2)
    [[3, 4], [5], [9]]
    """
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][-1] == number - 1 and len(runs[-1]) < longest:
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs


def tell(study: Study, number: int, outcome: Outcome, folder: Path) -> None:
    """Record what became of a trial and where; one that was interrupted stays open, to be gone on with."""
    from optuna.trial import TrialState

    study.set_user_attr("folders", {**study.user_attrs.get("folders", {}), str(number): folder.name})
    if outcome.status == "finished":
        study.tell(number, outcome.values)
    elif outcome.status == "pruned":
        study.tell(number, state=TrialState.PRUNED)
    elif outcome.status != "interrupted":
        study.tell(number, state=TrialState.FAIL)


def importances(study: Study) -> dict[str, float]:
    """How much each searched option decided over the (first) objective, in shares; empty where that can't be told.

    PED-ANOVA (Watanabe et al. 2023), Optuna's default.
    """
    import optuna
    from optuna.trial import TrialState

    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    searched = {name for trial in done for name in trial.params}
    if len(done) < 4 or len(searched) < 2 or len({trial.values[0] for trial in done}) == 1:
        return {}
    target = None if len(study.directions) == 1 else lambda trial: trial.values[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return dict(optuna.importance.get_param_importances(study, target=target))
        except (ValueError, RuntimeError):  # such as no option with two values
            return {}


def best(study: Study) -> list[FrozenTrial]:
    """The best trial, or with several objectives the Pareto front: trials that none beats in all of them."""
    from optuna.trial import TrialState

    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        return []
    if len(study.directions) == 1:
        return [study.best_trial]
    front = sorted(study.best_trials, key=lambda trial: trial.values)
    return list({tuple(trial.values): trial for trial in reversed(front)}.values())[::-1]


def counts(study: Study) -> dict[str, int]:
    """How many trials there are of each state, in words."""
    from optuna.trial import TrialState

    named = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
    trials = study.get_trials(deepcopy=False)
    found = {word: sum(trial.state == state for trial in trials) for word, state in named.items()}
    return {word: number for word, number in found.items() if number}


def all_failed(study: Study, first: int = 3) -> bool:
    """Whether at least so many trials have ended, and each of them failed: so would the rest."""
    from optuna.trial import TrialState

    ended = [trial.state for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    return len(ended) >= first and all(state == TrialState.FAIL for state in ended)
