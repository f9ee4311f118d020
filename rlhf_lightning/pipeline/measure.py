"""Every policy on the held-out rows, and the results of the run."""

from __future__ import annotations

from typing import Any

import torch

from rlhf_lightning.callbacks import CollectSamples
from rlhf_lightning.data.modules import PromptDataModule
from rlhf_lightning.hydra_support import instantiate
from rlhf_lightning.models import Sampling
from rlhf_lightning.pipeline.publish import log_results
from rlhf_lightning.pipeline.reuse import taken_or_done
from rlhf_lightning.pipeline.run import (
    Interrupted,
    Run,
    is_rank_zero,
    make_trainer,
    policy_of,
    report_samples,
    save_results,
    say,
    tell,
)
from rlhf_lightning.pipeline.tracking import finish_wandb
from rlhf_lightning.report import PolicyResult, print_report, read_samples, read_times, write_report
from rlhf_lightning.rewards import FunctionReward, LearnedReward, PeopleReward, Reward, RewardMix, unattended
from rlhf_lightning.stages import EvaluateModule, Evaluator, Sample

GUARDRAILS = {
    "kl": None,
    "length": None,
    "eos_rate": "max",
    "empty_rate": "min",
    "longest_repeat": "min",
    "copied": None,
    "duplicates": None,
    "distinct_2": None,
    "distinct_1": None,
    "prompt_echo": "min",
}
"""Measures beside the task's own, the most telling first, and which way is better."""


def task_metrics(cfg: dict[str, Any]) -> dict[str, Any]:
    """The task's metrics, new."""
    return {name: instantiate(metric) for name, metric in cfg["task"]["metrics"].items()}


def gold_functions(run: Run) -> dict[str, Reward]:
    """The data's hidden judge, where it has one."""
    path = run.cfg["data"]["gold"]
    return {"gold": FunctionReward(path)} if path else {}


def gold_mix(run: Run) -> RewardMix | None:
    """The same as a mix of its own."""
    return RewardMix(gold_functions(run)) if gold_functions(run) else None


def functions(run: Run) -> dict[str, Reward]:
    """PPO's rewards by name, each made once a run; learned ones that name no model use the run's, once there is one."""
    for name, config in run.cfg["ppo"]["rewards"].items():
        if name in run.rewards:
            continue
        config = {k: v for k, v in config.items() if k != "weight"}
        if not config["_target_"].endswith("LearnedReward"):
            run.rewards[name] = reward = instantiate(config)
            if isinstance(reward, PeopleReward):
                reward.check = run.stop.check
        elif config.get("model") is not None:
            run.rewards[name] = instantiate(config, **run.limits)
        elif run.reward_model is not None:
            run.rewards[name] = instantiate(config, model=run.reward_model)
    return {name: run.rewards[name] for name in run.cfg["ppo"]["rewards"] if name in run.rewards}


def with_learned(run: Run, rewards: dict[str, Reward]) -> dict[str, Reward]:
    """The same, and the run's reward model where none of them is learned."""
    if run.reward_model is None or any(isinstance(reward, LearnedReward) for reward in rewards.values()):
        return rewards
    return {**rewards, "learned": LearnedReward(run.reward_model)}


def sampling(run: Run) -> Sampling:
    """How answers are drawn when they are measured."""
    cfg = run.cfg["evaluate"]
    return Sampling(cfg["greedy"], cfg["temperature"], cfg["top_k"], cfg["top_p"], run.cfg["seed"])


def measure(run: Run, name: str, model: str, reference: Any = None) -> None:
    """Answer the test prompts with the current policy, score the answers, and add its row to the results."""
    answer(run, name, model, reference)
    score_answers(run)


def measure_shared(run: Run, step: str, name: str, model: str) -> None:
    """The same, where another job of the sweep may have had the answers already."""
    taken_or_done(run, step, lambda: answer(run, name, model))
    run.results.policies[-1].model = model  # this run's own, whoever measured it
    score_answers(run)


def answer(run: Run, name: str, model: str, reference: Any = None) -> None:
    """Answer the test prompts with the current policy, and add its row to the results, without rewards yet."""
    policy = policy_of(run)
    evaluator = Evaluator(task_metrics(run.cfg), None, sampling(run), reference, run.engine)
    collect = CollectSamples()
    trainer = make_trainer(run, "evaluate", {}, [collect], logger=False)
    data = PromptDataModule([], run.data.test, policy.codec, 0, run.cfg["evaluate"]["batch_size"])
    say(f"measuring {name}")
    try:
        trainer.test(EvaluateModule(policy, evaluator), datamodule=data, verbose=False)
    except SystemExit:
        raise Interrupted from None
    if trainer.interrupted:
        raise Interrupted
    figures = {key.removeprefix("test/"): float(value) for key, value in trainer.callback_metrics.items()}
    describe(run, evaluator, figures)
    run.results.held_out = len(collect.samples)  # fewer than there are under trainer.limit_test_batches
    run.results.policies.append(PolicyResult(name, model, figures))
    run.answers[name] = collect.samples


def recall(run: Run) -> None:
    """Take up what was measured before the run was resumed."""
    rows = run.data.test
    scores: dict[str, dict[str, list[float]]] = {}
    for sample in read_samples(run.dir / "samples.jsonl"):
        for name in (policy.name for policy in run.results.policies):
            if name in sample.completions:
                measures = sample.measures.get(name, {})
                made = Sample(int(sample.id), rows[int(sample.id)], sample.completions[name], measures)
                run.answers.setdefault(name, []).append(made)
                for reward, value in sample.scores.get(name, {}).items():
                    scores.setdefault(name, {}).setdefault(reward, []).append(value)
    run.scores = {
        name: {reward: torch.tensor(values) for reward, values in given.items()} for name, given in scores.items()
    }


def describe(run: Run, evaluator: Evaluator, figures: dict[str, float]) -> None:
    """Which column each measure belongs to, and which way is better."""
    columns, directions = run.results.columns, run.results.directions
    tasks = [key for key in figures if key not in GUARDRAILS]
    columns["task"] = list(dict.fromkeys([*columns.get("task", []), *tasks]))
    columns["guardrails"] = list(GUARDRAILS)
    columns.setdefault("reward", [])
    directions |= GUARDRAILS
    for key in tasks:
        metric = evaluator.source.get(key)
        directions[key] = {True: "max", False: "min", None: None}[getattr(metric, "higher_is_better", None)]
    directions["unparsed"] = "min"


def score_answers(run: Run) -> None:
    """Score every policy's answers by every reward there is by now: also those that came before the reward model."""
    chosen = unattended(functions(run)) if "ppo" in run.cfg["stages"] else {}
    rewards = with_learned(run, {**gold_functions(run), **chosen})
    # A reward may have a metric's name: sentence chrF, averaged, is not the corpus' chrF.
    taken = {*run.results.columns.get("task", []), *GUARDRAILS}
    rewards = {f"reward/{name}" if name in taken else name: reward for name, reward in rewards.items()}
    run.results.columns["reward"] = list(rewards)
    weights = {name: reward["weight"] for name, reward in run.cfg["ppo"]["rewards"].items()}
    for name in rewards:
        run.results.directions[name] = "min" if weights.get(name.removeprefix("reward/"), 1) < 0 else "max"
    for policy in run.results.policies:
        samples = run.answers[policy.name]
        known = run.scores.setdefault(policy.name, {})
        missing = {name: reward for name, reward in rewards.items() if name not in known}
        if not missing or not samples:
            continue
        rows, texts = [s.row for s in samples], [s.completion for s in samples]
        mix = RewardMix(missing, on_failure=run.cfg["ppo"]["on_reward_failure"])
        known |= mix.each(rows, texts, run.scoring_device)
        policy.metrics |= {name: float(known[name].nanmean()) for name in missing}
        tell(
            run.results,
            [
                f"answers of {policy.name}: {text}; the mean is over those that have it"
                for text in unscored(mix, len(rows))
            ],
        )


def unscored(mix: RewardMix, answers: int) -> list[str]:
    """What to tell of rewards that failed for some of so many answers."""
    return [
        f"the reward {name!r} failed for {count} of {answers} ({mix.reasons[name]})"
        for name, count in mix.failures.items()
        if count
    ]


def finish(run: Run) -> None:
    """Write everything, and show it."""
    finish_wandb(run)
    run.results.time = read_times(run.dir, run.results.stages)
    save_results(run)
    if is_rank_zero():
        write_report(run.dir)
        print_report(run.dir, n_samples=run.cfg["samples"])
        log_results(run, report_samples(run))  # last: what fails over the net can't keep the report from being written
