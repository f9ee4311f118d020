"""Hydra's sweeper on today's Optuna: asks for values, launches jobs in batches, and tells what became of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from rlhf_lightning.errors import UserError
from rlhf_lightning.hydra_support import check_value
from rlhf_lightning.sweep.checks import composed, refuse_useless
from rlhf_lightning.sweep.launching import PACKAGE, jobs_at_once, register_launchers

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn
    from optuna.study import Study

    from rlhf_lightning.sweep.space import Space
    from rlhf_lightning.sweep.study import Direction

TRIALS = 20
"""Trials of a sweep that says nothing else and is no grid."""


class OptunaSweeper(Sweeper):
    """Searches options with Optuna.

    Args:
        sampler: ``tpe``, ``random``, ``grid`` or ``nsga2``.
        seed: of the sampler.
        n_trials: jobs in all; None is 20, or the whole grid.
        n_jobs: jobs at once; None is as many as the launcher runs at once.
        objectives: figures of the last policy that are searched for: names, or names with ``max`` or ``min``. None is
            the objective of the run.
        prune: ``startup_trials`` and ``warmup_rounds`` of the median rule by which jobs are ended early; None has
            every job run to its end.
        storage: a database's URL; None is a journal file in the sweep's folder.
        params: overrides such as those of the command line, which go before them.
    """

    def __init__(
        self,
        sampler: str,
        seed: int,
        n_trials: int | None,
        n_jobs: int | None,
        objectives: str | Sequence[str] | Mapping[str, Direction] | None,
        prune: Mapping[str, int] | None,
        storage: str | None,
        params: Mapping[str, Any] | None,
    ) -> None:
        self.sampler, self.seed, self.n_trials, self.n_jobs = sampler, seed, n_trials, n_jobs
        self.objectives, self.prune, self.storage, self.params = objectives, prune, storage, params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives, and make the launcher.

        Raises:
            UserError: without Optuna, or for an option that can't be.
        """
        try:
            import optuna
        except ImportError as error:
            raise UserError(
                f"hydra/sweeper=rlhf_optuna needs Optuna ({error}): pip install 'rlhf-lightning[optuna]'"
            ) from error
        if int(optuna.__version__.partition(".")[0]) < 4:
            raise UserError(
                f"hydra/sweeper=rlhf_optuna needs Optuna 4 or newer, not {optuna.__version__} (hydra-optuna-sweeper "
                "asks for an old one; it is not needed): pip install 'rlhf-lightning[optuna]'"
            )
        self._check()
        self.hydra_context, self.config = hydra_context, config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def _check(self) -> None:
        for name, value in {"n_trials": self.n_trials, "n_jobs": self.n_jobs}.items():
            check_value(value, int | None, f"hydra.sweeper.{name}")
            if value is not None and value < 1:
                raise UserError(f"hydra.sweeper.{name} must be at least 1, not {value}")
        check_value(self.seed, int, "hydra.sweeper.seed")
        if self.prune is not None:
            names = ("startup_trials", "warmup_rounds")
            if not isinstance(self.prune, Mapping) or set(self.prune) != set(names):
                raise UserError(f"hydra.sweeper.prune={self.prune} must be null or have {' and '.join(names)}")
            for name in names:
                check_value(self.prune[name], int, f"hydra.sweeper.prune.{name}")

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        """Run the jobs, and tell what they came to.

        Args:
            arguments: the command line's overrides.

        Returns:
            What each job returned, those that were done before a resume left out.

        Raises:
            UserError: for options that make no sweep or no run; or if the first jobs all fail.
        """
        from rlhf_lightning.sweep import results
        from rlhf_lightning.sweep.space import read_space
        from rlhf_lightning.sweep.study import NAME, open_study

        assert self.config is not None
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        space = read_space([*(f"{name}={value}" for name, value in self.params.items()), *arguments], parser)
        if not space.searched:
            raise UserError("the sweep has nothing to search: give options such as 'ppo.kl_coef=interval(0.01,0.2)'")
        directions = self._directions(space)
        if self.prune is not None and len(directions) > 1:
            raise UserError(
                f"several objectives ({', '.join(directions)}) can't be pruned, as no job is worse than others in all "
                "of them until it is done: hydra.sweeper.prune=null"
            )
        folder = Path(self.config.hydra.sweep.dir)
        at_once = self.n_jobs or jobs_at_once(self.config.hydra.launcher)
        storage = self.storage or str(folder / "study.journal")
        name = folder.name if self.storage else NAME
        study = open_study(storage, bool(self.config.resume), self.sampler, self.seed, directions, space, at_once, name)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        returns = self._run(study, storage, space, directions, at_once)
        results.write(study, directions, folder)
        results.show(study, directions, folder)
        return returns

    def _directions(self, space: Space) -> dict[str, Direction]:
        """The objectives and which way is better, after a look at whether each searched option's values can be used."""
        from rlhf_lightning.pipeline.objectives import directions_of

        assert self.config is not None
        assert self.hydra_context is not None
        loader, fixed, ends = self.hydra_context.config_loader, list(space.fixed.values()), space.ends()
        refuse_useless(loader, self.config, fixed, ends)
        return directions_of(composed(loader, self.config, [*fixed, *(v[0] for v in ends.values())]), self.objectives)

    def _run(
        self, study: Study, storage: str, space: Space, directions: Mapping[str, Direction], at_once: int
    ) -> list[JobReturn]:
        from rlhf_lightning.sweep.study import Outcome, all_failed, next_numbers, runs_of, tell, unfinished

        returns: list[JobReturn] = []
        limit = self.n_trials or (None if self.sampler == "grid" else TRIALS)
        if self.sampler == "grid" and limit is not None:
            limit = min(limit, len(space.grid()))
        batches = runs_of(unfinished(study, space), at_once)
        while batches or (batches := runs_of(next_numbers(study, space, limit, at_once), at_once)):
            numbers, *batches = batches
            params = [study.trials[number].params for number in numbers]
            jobs = [
                [*space.overrides(values), *self._address(storage, study.study_name, number, directions)]
                for number, values in zip(numbers, params, strict=True)
            ]
            done = list(self.launcher.launch(jobs, initial_job_idx=numbers[0]))
            returns += done
            folders = [Path(job.hydra_cfg.hydra.runtime.output_dir) for job in done]  # type: ignore[union-attr]
            outcomes = [Outcome.of(folder, list(directions)) for folder in folders]
            for number, folder, outcome in zip(numbers, folders, outcomes, strict=True):
                tell(study, number, outcome, folder)
            if any(outcome.status == "interrupted" for outcome in outcomes):
                break
            if all_failed(study):
                raise UserError(f"the first jobs of the sweep all failed, the last of them so: {outcomes[-1].reason}")
        return returns

    def _address(self, storage: str, study: str, number: int, directions: Mapping[str, Direction]) -> list[str]:
        """The override that lets a job find its trial, where it may be pruned."""
        from rlhf_lightning.sweep.trial import VARIABLE, TrialAddress

        if self.prune is None:
            return []
        where = storage if "://" in storage else str(Path(storage).absolute())
        address = TrialAddress(where, study, number, next(iter(directions)), **self.prune)
        return [f"hydra.job.env_set.{VARIABLE}={QuotedString(address.to_text(), Quote.single).with_quotes()}"]


def register_plugins() -> None:
    """Make the sweepers and the launchers known to Hydra under the names that it asks of plugins.

    A package below ``hydra_plugins`` would be found in a wheel, but not in an editable install: Hydra looks through
    folders, and there is none of that name then. Its own sweeper is replaced under its own name, since the presets
    could not choose Optuna's if the primary config chose one.
    """
    plugins = Plugins.instance()  # it loads Hydra's own plugins anew: classes imported before would be others
    from rlhf_lightning.sweep.grid import GridSweeper

    plugins.class_name_to_class["hydra._internal.core_plugins.basic_sweeper.BasicSweeper"] = GridSweeper
    plugins.class_name_to_class[f"{PACKAGE}.OptunaSweeper"] = OptunaSweeper
    register_launchers()
