"""A loop from its config to its report."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L

from rlhf_lightning.callbacks import StopRequest
from rlhf_lightning.errors import UserError
from rlhf_lightning.hydra_support import instantiate, plain
from rlhf_lightning.loop.options import SIMULATED, Loop, check_loop
from rlhf_lightning.loop.rounds import Rounds, clear_rounds
from rlhf_lightning.pipeline import PACKAGES, check_options, objective_of, read_data
from rlhf_lightning.pipeline.reuse import code_hash
from rlhf_lightning.pipeline.run import is_rank_zero, noting_its_end, say
from rlhf_lightning.report import RunResults, print_report, read_samples, write_report
from rlhf_lightning.report.results import DONE
from rlhf_lightning.state import State, fingerprint, flat, open_state, row_files


def run_loop(config: Any, directory: Path, sweep: Path | None = None, overrides: Sequence[str] = ()) -> float | None:
    """Carry out the rounds of a composed config that has a `loop`, and write everything under ``directory``.

    ``start/`` is a run of SFT (or of measuring alone), ``round_<n>/`` one of reward model and PPO, with the questions
    and judgements that it learnt from; ``metrics.json`` and the report in ``directory`` are about the whole.

    Args:
        config: the composed config.
        directory: the run folder.
        sweep: folder of the sweep this run belongs to.
        overrides: the options that the run was started with, by which it is found to be resumed.

    Returns:
        The objective of the last policy, or None where nothing was measured.

    Raises:
        UserError: for a mistake in config, data or model.
        Interrupted: after Ctrl-C.
        Preempted: after SIGTERM, or when ``max_time`` is used up; ``resume=true`` goes on.
    """
    cfg = plain(config)
    check_options(cfg)
    with StopRequest(cfg["max_time"]) as stop:
        rounds = prepare(cfg, directory, sweep, list(overrides), stop)
        if rounds.results.status in DONE:
            say(f"the loop in {directory} is {rounds.results.status}: there is nothing to resume")
            return rounds.results.outcome
        try:
            with noting_its_end(rounds.results, "loop"):
                rounds.carry_out()
                rounds.results.status = "finished"
        finally:
            rounds.settle()
            if is_rank_zero() and rounds.results.policies:
                say("all rounds", rule=True)
                write_report(directory)
                print_report(directory, n_samples=cfg["samples"])
        return rounds.results.outcome


def prepare(
    cfg: dict[str, Any], directory: Path, sweep: Path | None, overrides: list[str], stop: StopRequest
) -> Rounds:
    """Read the data, refuse what can't be, and take up what was done before."""
    options, files = flat(cfg), row_files(cfg)
    check_loop(cfg)
    loop: Loop = instantiate(cfg["loop"])
    L.seed_everything(cfg["seed"], workers=True, verbose=False)
    data = read_data(cfg)
    if loop.annotators == SIMULATED and not cfg["data"]["gold"]:
        raise UserError(
            "simulated annotators judge by the data's hidden judge, and this data has none: have people judge, with "
            "loop.annotators=people, or name a judge, a function as tasks/qa/gold.py has one, in data.gold"
        )
    if not data.prompts or not data.test:
        lacking = "data.prompts" if not data.prompts else "data.test"
        raise UserError(f"a loop needs prompts to ask about and held-out rows to measure on: give {lacking}=FILE")
    new = State(overrides, options, fingerprint(data, []), code=code_hash(), files=files)
    state, told = open_state(directory, new, cfg["resume"], sweep is not None)
    for text in told:
        say(f"Note: {text}")
    if state.results:
        results = RunResults.from_dict(state.results, directory / "state.json")
    else:
        results = RunResults(
            task=cfg["task"]["name"],
            seed=cfg["seed"],
            status="running",
            stages=list(cfg["stages"]),
            objective=objective_of(cfg),
            versions={name: version(name) for name in PACKAGES},
        )
        if is_rank_zero():
            clear_rounds(directory)
    rounds = Rounds(cfg, directory, loop, data, state, results, stop)
    if state.results:
        rounds.samples = {str(sample.id): sample for sample in read_samples(directory / "samples.jsonl")}
        if results.status not in DONE:
            results.status = "running"
    rounds.settle()
    for text in data.notes:
        rounds.tell(text)
    return rounds
