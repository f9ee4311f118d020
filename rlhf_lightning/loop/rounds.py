"""The rounds of a loop, in a folder: each is an ordinary run, on judgements of the answers of the one before."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rlhf_lightning.callbacks import StopRequest
from rlhf_lightning.data.sources import TaskData
from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.holding import current
from rlhf_lightning.feedback.items import Item
from rlhf_lightning.feedback.privacy.storing import Scrubber
from rlhf_lightning.feedback.store import Store
from rlhf_lightning.hydra_support import instantiate
from rlhf_lightning.loop.figures import Figures, foretold, gains, said_of, wins_of
from rlhf_lightning.loop.judgements import JUDGEMENTS, QUESTIONS, Judgements, read_items
from rlhf_lightning.loop.judging import answer, project_of
from rlhf_lightning.loop.options import Loop, is_learned_here
from rlhf_lightning.loop.questions import Questions, round_name
from rlhf_lightning.models import ModelSpec
from rlhf_lightning.pipeline import run_pipeline
from rlhf_lightning.pipeline.run import is_rank_zero, say
from rlhf_lightning.pipeline.stages import spec_options
from rlhf_lightning.processes import agreed, first_alone, wait_for_all
from rlhf_lightning.report import PolicyResult, RunResults, read_samples, write_samples
from rlhf_lightning.report.results import Sample, write_atomic
from rlhf_lightning.state import FILE, State, clear


@dataclass
class Rounds:
    """A loop as it goes on.

    Attributes:
        cfg: the composed config as plain values.
        dir: the run folder.
        loop: the loop's options.
        data: every row.
        state: what it remembers of itself.
        results: what is reported of the whole.
        stop: whether it has been told to stop.
        samples: the held-out rows with what the policies answered.
    """

    cfg: dict[str, Any]
    dir: Path
    loop: Loop
    data: TaskData
    state: State
    results: RunResults
    stop: StopRequest
    samples: dict[str, Sample] = field(default_factory=dict)

    def carry_out(self) -> None:
        """The start, then round after round, each beginning with people's judgements of the last one's answers."""
        say("start", rule=True)
        first = "sft" if "sft" in self.cfg["stages"] else "evaluate"
        self._train(0, self.dir / "start", {"stages": [first]}, self.data)
        for number in range(1, self.loop.rounds + 1):
            say(round_name(number), rule=True)
            self._round(number)
        if self.loop.verdict:
            self._judged("verdict", self.loop.rounds, lambda: self.questions.verdict(self.loop.rounds))

    def _round(self, number: int) -> None:
        if "judgements" in self._figures(number):
            return  # done before the loop was resumed, to its last figure
        folder = self._folder(number)

        def asked() -> list[Item]:
            own = self.questions.about_answers(number)
            if not own:
                raise UserError(
                    f"round {number}: the policy gave the same answer to a prompt each time, so there is nothing to "
                    "ask people about: raise loop.temperature"
                )
            compared = self.questions.verdict(number - 1) if number > 1 and self.loop.verdict else []
            return own + compared

        self._judged(folder.name, number - 1, asked)
        data = self.judgements.rows(number)
        known = self._foretold(number)
        options: dict[str, Any] = {"stages": ["reward", "ppo"], "policy": self._policy(number - 1)}
        if number > 1:
            options["reward"] = {**self.cfg["reward"], "model": self._warm(number - 1)}
        self._note_models(number, folder)
        self._train(number, folder, options, data)
        self._note(
            number,
            {
                **known,
                "judgements": len(self.judgements.events(folder.name)),
                "pairs": len(data.preferences),
                "held_out": len(data.preferences_test),
            },
        )

    # --- steps -------------------------------------------------------------------------------------------------------

    def step(self, name: str, work: Callable[[], None]) -> None:
        """Do a step, unless it was done before the loop was resumed; then remember that it is done."""
        if name in self.state.done:
            return
        self.stop.check()
        work()
        wait_for_all()
        self.state.done.append(name)
        self.settle()

    def settle(self) -> None:
        """Write down how far the loop is, and its results as they stand."""
        self.state.results = self.results.to_dict()
        if is_rank_zero():
            self.results.write(self.dir / "metrics.json")
            write_samples(self.dir / "samples.jsonl", list(self.samples.values()))
            self.state.write(self.dir)

    def tell(self, text: str) -> None:
        """Say something now, and again in the report."""
        if text not in self.results.notes:
            say(f"Note: {text}")
            self.results.notes.append(text)

    def _folder(self, number: int) -> Path:
        return self.dir / (f"round_{number}" if number else "start")

    # --- judgements --------------------------------------------------------------------------------------------------

    @cached_property
    def questions(self) -> Questions:
        """What makes the questions."""
        return Questions(
            self.cfg,
            self.loop,
            self.data,
            self.dir,
            project_of(self.dir),
            self._spec,
            self._reward_folder,
            self.judgements.pairs,
            self.tell,
        )

    @cached_property
    def judgements(self) -> Judgements:
        """What was asked and said so far."""
        return Judgements(self.dir, self.data, self.cfg["seed"], self.tell)

    def _judged(self, name: str, last: int, asked: Callable[[], list[Item]]) -> None:
        """Ask people, and write down all that holds when they have answered; then the last round's wins are known."""
        folder = self.dir / name

        def ask() -> None:
            # Questions that are written down already, but perhaps not stored, stay as they are: not every device draws
            # the same answers twice, and people may have begun.
            known = agreed(lambda: "known" if (folder / QUESTIONS).exists() else "")
            items = [] if known else asked()

            def keep(_: Callable[[], None]) -> None:
                with self._store() as store:
                    store.note_texts()
                    if not known:
                        folder.mkdir(parents=True, exist_ok=True)
                        lines = [store.stored_item(item).to_json() + "\n" for item in items]
                        write_atomic(folder / QUESTIONS, "".join(lines))
                    # As they were drawn, where that is known still: what is replaced in them is listed for review.
                    store.add_items(read_items(folder / QUESTIONS) if known else items, project_of(self.dir))

            first_alone(keep, is_rank_zero())

        def judge(goes_on: Callable[[], None]) -> None:
            def check() -> None:
                self.stop.check()
                goes_on()

            items = self.judgements.questions(name)
            with self._store() as store:
                project, file = project_of(self.dir), folder / QUESTIONS
                answer(store, project, items, self.loop, self.cfg, file, say, check)
                parts = [path.parent.name for path in self.dir.glob(f"*/{QUESTIONS}")]
                asked = {item.id for part in parts for item in self.judgements.questions(part)}
                said = [event for event in current(store.events()) if event.item in asked]
                # Noted first: what the store does not know of is not told of when a person is erased.
                store.note_export(f"{project}/{name}", "log", str(folder / JUDGEMENTS), [e.id for e in said])
                lines = [event.to_json() + "\n" for event in said]
            write_atomic(folder / JUDGEMENTS, "".join(lines))

        self.step(f"{name} asked", ask)
        self.step(f"{name} judged", lambda: first_alone(judge, is_rank_zero()))
        if last:
            self._note(last, wins_of(round_name(last), round_name(last - 1), self.judgements.events(name)))

    def _store(self) -> Store:
        """The store; questions and judgements come into it without personal data, unless it is to be kept."""
        scrubber = None if self.loop.keep_raw else Scrubber()
        return Store(self.loop.store or self.dir / "feedback.db", scrubber=scrubber)

    def _foretold(self, number: int) -> Figures:
        """How many of a round's judgements, of those asked at random, the reward model of the last round foretold."""
        figures: Figures = {"questions": len(self.judgements.questions(self._folder(number).name))}
        if number > 1:
            new = self.judgements.asked_at_random(number)
            figures |= {"foretold": foretold(self.questions.reward_model(number - 1), new), "new_pairs": len(new)}
        return figures

    # --- training ----------------------------------------------------------------------------------------------------

    def _train(self, number: int, folder: Path, options: dict[str, Any], data: TaskData) -> None:
        """A run of its own, gone on with where it had begun; its policies join the results of the whole."""
        name = round_name(number)

        def work() -> None:
            began = time.perf_counter()
            begun = agreed(lambda: "begun" if (folder / FILE).exists() else "")  # before any process begins it
            resume = ("force" if self.cfg["resume"] == "force" else True) if begun else False
            more = {"loop": None, "resume": resume, "max_time": self.stop.left(), "samples": 0}
            with _no_trial():
                run_pipeline({**self.cfg, **options, **more}, folder, None, [f"round={number}"], data)
            wait_for_all()  # the first process alone has written what came of it
            self.results.seconds[name] = round(time.perf_counter() - began, 1)
            self._take(name, folder)
            if number:
                self._rescore(number)

        self.step(f"{name} trained", work)

    def _note_models(self, number: int, folder: Path) -> None:
        """Let the store know what models learn from, so that `rlhf-feedback erase` can name them."""
        if is_rank_zero():
            used = [event.id for event in self.judgements.learnable(number)]
            with self._store() as store:
                store.note_export(f"{project_of(self.dir)}/models_{number}", "model", str(folder), used)

    def _policy(self, number: int) -> str | None:
        """Folder of the policy after a round; None where it is the model that the config names."""
        if number:
            return str(self._folder(number) / "ppo" / "model")
        return str(self.dir / "start" / "sft" / "model") if "sft" in self.cfg["stages"] else self.cfg["policy"]

    def _spec(self, number: int) -> ModelSpec:
        model, named = spec_options(self.cfg["model"]), self._policy(number)
        return instantiate(model) if named is None else instantiate({**model, "name": named}, revision=None)

    def _reward_folder(self, number: int) -> Path:
        return self._folder(number) / "reward" / "model"

    def _warm(self, number: int) -> dict[str, Any]:
        """The reward model of a round as the start of the next one's."""
        model = spec_options(self.cfg["reward"].get("model") or self.cfg["model"])
        return {**model, "name": str(self._reward_folder(number)), "revision": None}

    def _take(self, name: str, folder: Path) -> None:
        """Take a run's policies and answers over into the results of the whole."""
        inner = RunResults.read(folder / "metrics.json")
        first = name == round_name(0)
        names = {p.name: p.name for p in inner.policies} if first else {inner.policies[-1].name: name}
        # What was taken before the loop was interrupted is taken anew.
        self.results.policies = [p for p in self.results.policies if p.name not in names.values()]
        for policy in inner.policies:
            if policy.name in names:
                own = policy.model is not None and policy.name != "base" and not Path(policy.model).is_absolute()
                model = f"{folder.name}/{policy.model}" if own else policy.model
                self.results.policies.append(PolicyResult(names[policy.name], model, dict(policy.metrics)))
        for sample in read_samples(folder / "samples.jsonl"):
            kept = self.samples.setdefault(str(sample.id), Sample(sample.id, sample.prompt, sample.references))
            for old, new in names.items():
                if old in sample.completions:
                    kept.completions[new] = sample.completions[old]
                    kept.scores[new] = sample.scores.get(old, {})
                    kept.measures[new] = sample.measures.get(old, {})
        self.results.held_out = inner.held_out
        self.results.directions |= inner.directions
        for group, columns in inner.columns.items():
            self.results.columns[group] = list(dict.fromkeys([*self.results.columns.get(group, []), *columns]))
        self.results.reward_model = inner.reward_model or self.results.reward_model
        told = [f"{name}: {note}" for note in inner.notes]
        self.results.notes += [note for note in told if note not in self.results.notes]

    def _rescore(self, number: int) -> None:
        """Score the answers of all policies by the newest reward model: no two rounds' scores are on one scale."""
        columns = self._learned(self.results)
        model = self.questions.reward_model(number)
        for policy in self.results.policies:
            answered = [sample for sample in self.samples.values() if policy.name in sample.completions]
            prompts = [self.data.test[int(sample.id)].prompt for sample in answered]
            scores = model.score(prompts, [sample.completions[policy.name] for sample in answered]).tolist()
            for name in columns:
                for sample, score in zip(answered, scores, strict=True):
                    sample.scores.setdefault(policy.name, {})[name] = round(score, 6)
                policy.metrics[name] = sum(scores) / len(scores)

    def _learned(self, results: RunResults) -> list[str]:
        """Columns of the reward model that each round trains."""
        learned = [name for name, r in self.cfg["ppo"]["rewards"].items() if is_learned_here(r)]
        return [name for name in results.columns.get("reward", []) if name.removeprefix("reward/") in learned]

    # --- what came of it ---------------------------------------------------------------------------------------------

    def _figures(self, number: int) -> Figures:
        """What is known of a round by now."""
        rounds = self.results.rounds
        return rounds[number - 1] if len(rounds) >= number else {"round": number}

    def _note(self, number: int, known: Figures) -> None:
        """Add to a round's figures, and tell what they warn of."""
        rounds, figures = self.results.rounds, self._figures(number)
        if "learned" not in figures:
            inner = RunResults.read(self._folder(number) / "metrics.json")
            first, last = inner.policies[0].metrics, inner.policies[-1].metrics
            gained = gains(first, last, inner.objective, *self._learned(inner)[:1])
            figures |= {"accuracy": (inner.reward_model or {}).get("accuracy"), **gained}
        figures |= known
        self.results.rounds = [*rounds[: number - 1], figures, *rounds[number:]]
        direction = self.results.directions.get(self.results.objective or "")
        before = self.results.rounds[number - 2] if number > 1 else {}
        for text in said_of(figures, before, direction):
            self.tell(text)
        self.settle()


def clear_rounds(folder: Path) -> None:
    """Remove what an earlier loop in this folder left to be gone on with; what people said stays in its store."""
    clear(folder)
    for path in folder.glob("*/"):
        if path.name in ("start", "verdict") or path.name.startswith("round_"):
            clear(path)
            for name in (QUESTIONS, JUDGEMENTS):
                (path / name).unlink(missing_ok=True)


@contextmanager
def _no_trial() -> Iterator[None]:
    """Without the search's address: what a round logs is not a step of the trial."""
    name = "RLHF_LIGHTNING_TRIAL"
    kept = os.environ.pop(name, None)
    try:
        yield
    finally:
        if kept is not None:
            os.environ[name] = kept
