"""What is refused before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rlhf_lightning.data.modules import check_rankings
from rlhf_lightning.data.rows import PromptRow
from rlhf_lightning.data.sources import TaskData
from rlhf_lightning.errors import UserError
from rlhf_lightning.models import Classifier, ModelSpec, RewardModel, load_answerer
from rlhf_lightning.pipeline.measure import GUARDRAILS, functions, gold_functions, task_metrics
from rlhf_lightning.pipeline.options import processes
from rlhf_lightning.pipeline.run import Run
from rlhf_lightning.pipeline.stages import prediction_rewards, reward_spec, shown_for_zero
from rlhf_lightning.rewards import LearnedReward, Reward, RewardMix, unattended
from rlhf_lightning.rewards.mix import OnFailure
from rlhf_lightning.state import ROWS
from rlhf_lightning.tasks import sample_files


def settle_sample(cfg: dict[str, Any]) -> list[str]:
    """Drop the sample's parts where they don't belong: beside the user's files, for a task that ships none, or where
    rows are only to be answered.

    Returns:
        A note of what the user's files replaced.
    """
    data = cfg["data"]
    known = sample_files(cfg["task"]["name"])
    sample = {part for part in ROWS if data[part] is not None and data[part] == known.get(part)}
    own = [part for part in ROWS if data[part] is not None and part not in sample]
    unused = cfg["stages"] == ["predict"] or not Path(known["train"]).exists()
    if not sample or not (own or unused):
        return []
    for part in sample:
        data[part] = None
    data["gold"] = None
    if not own:
        return []
    return [f"data.{', data.'.join(own)} replaced the sample data; none of the sample's other parts is used"]


def check_parts(cfg: dict[str, Any], data: TaskData) -> None:
    """Refuse stages whose rows are missing.

    Raises:
        UserError: naming the option that gives them.
    """
    stages, target = cfg["stages"], cfg["task"]["metrics"]
    if "sft" in stages and not data.train:
        raise UserError("the stage sft needs demonstrations: give data.train=FILE, or leave sft out of stages")
    if "reward" in stages:
        judged, _ = data.judged
        if not judged:
            raise UserError(
                "the stage reward needs preferences: give data.preferences=FILE (columns chosen and rejected) or "
                "data.unpaired=FILE (completion and label), or leave it out, as in stages=[sft], or stages=[sft,ppo] "
                "with another reward, such as rewards=chrf"
            )
        check_rankings(judged, cfg["reward"]["ranking"])
        if cfg["reward"]["normalise"] == "scale" and len({repr(one) for one in shown_for_zero(data)}) < 2:
            of = "data.train" if data.train else "data.preferences" if data.preferences else "data.unpaired"
            raise UserError(
                f"reward.normalise=scale divides by the spread of the scores of {of}'s answers, but these are all one: "
                f"give {of} more rows, or take reward.normalise=shift"
            )
    batch, devices = cfg["ppo"]["loader"]["batch_size"], processes(cfg["trainer"])
    if "ppo" in stages and len(data.prompts) < batch * devices:
        many = f" on each of {devices} devices" if devices > 1 else ""
        raise UserError(
            f"ppo has {len(data.prompts)} prompts, fewer than one batch of {batch}{many}: give data.prompts=FILE or "
            "data.train=FILE, or lower ppo.loader.batch_size"
        )
    if set(stages) & {"sft", "ppo", "evaluate"} and not data.test:
        raise UserError(
            "there are no held-out rows to measure on: give data.test=FILE, or data.train to split them off"
        )
    if "ppo" in stages and cfg["ppo"]["patience"] is not None:
        if not data.validation:
            raise UserError("ppo.patience looks at validation prompts, but there are none: give data.validation=FILE")
        if not (cfg["data"]["gold"] or cfg["task"]["objective"]):
            raise UserError("ppo.patience needs an objective that can get better: give task.objective")
    if target and any(not row.references for row in data.test):
        raise UserError("a test row has no reference, which the task's metrics need")
    if set(stages) & {"sft", "ppo", "evaluate"}:
        _check_metrics(cfg, data.test[:2])


def _check_metrics(cfg: dict[str, Any], rows: list[PromptRow]) -> None:
    """Measure two references as if they were answers, and see that the objective is among the figures."""
    figures = list(GUARDRAILS)
    for name, metric in task_metrics(cfg).items():
        try:
            metric.update([row.references[0] for row in rows], [row.references for row in rows])
            value = metric.compute()
        except Exception as error:
            raise UserError(f"task.metrics.{name} fails on the references of the test rows: {error}") from error
        named = list(value) if isinstance(value, dict) else [name]
        if twice := set(named) & set(figures) - {"unparsed"}:  # that one is the same whichever metric gives it
            raise UserError(f"task.metrics.{name} gives {min(twice)!r}, a figure there already is: take another name")
        figures += named
    objective = cfg["task"]["objective"]
    if objective is not None and objective not in [*figures, *cfg["ppo"]["rewards"], "learned"]:
        given = [name for name in figures if name not in GUARDRAILS]
        raise UserError(
            f"task.objective={objective}: there is no such figure; the task's metrics give {', '.join(given) or 'none'}"
        )


def check_models(run: Run) -> None:
    """Load what the run starts from, and see that everything fits before anything is trained.

    Raises:
        UserError: for a model that doesn't fit its stage or the task, or a reward that fails on two examples.
    """
    cfg, stages = run.cfg, run.cfg["stages"]
    if set(stages) - {"reward"}:
        fresh = "sft" in stages
        run.policy = load_answerer(run.spec, **run.limits, labels=run.labels, fresh_head=fresh)
        if isinstance(run.policy, Classifier) and "ppo" in stages:
            raise UserError(
                f"{run.spec.name!r} is an encoder: it can't generate text, so it can't be PPO's policy. Use "
                "stages=[sft], or choose a causal or sequence-to-sequence model."
            )
    if "reward" in stages and cfg["reward"].get("model") is not None:
        _try_loading(reward_spec(run), run, fresh_head=True)
    if cfg["reward_model"] is not None:
        run.reward_model = RewardModel.load(
            ModelSpec(cfg["reward_model"], trust_remote_code=cfg["model"]["trust_remote_code"]), **run.limits
        )
    if "ppo" in stages and cfg["ppo"]["critic"] not in ("shared", "separate"):
        _try_loading(ModelSpec(cfg["ppo"]["critic"]), run)
    gold_functions(run)
    if "predict" in stages and run.asked:
        rewards = prediction_rewards(run)
        try:
            _try_rewards(rewards, run.asked[:2], ["an answer"] * len(run.asked[:2]))
        except UserError as error:
            raise UserError(
                f"predictions of {cfg['predict']['input']} can't be scored: {error} Predict in a run of its own, "
                "stages=[predict] with other rewards: rewards=learned scores by a reward model, where one is given."
            ) from error
    known = [*run.data.prompts, *run.data.validation]
    rows = known[:2] + [row for row in known[2:] if not row.references][:1]
    if "ppo" in stages and rows:
        texts = [row.references[0] if row.references else "an answer" for row in rows]
        _try_rewards(functions(run), rows, texts, cfg["ppo"]["on_reward_failure"])


def _try_loading(spec: ModelSpec, run: Run, fresh_head: bool = False) -> None:
    """Load a model that a later stage needs, and let it go: what is wrong with it must not show after hours of another.

    The random numbers of what comes next stay the same.
    """
    with torch.random.fork_rng(devices=[]):
        RewardModel.load(spec, **run.limits, fresh_head=fresh_head)


def _try_rewards(
    rewards: dict[str, Reward], rows: list[PromptRow], texts: list[str], on_failure: OnFailure = "stop"
) -> None:
    """Score a few texts as if they were answers; learned rewards are left out, as loading has checked them, and so
    are those that ask people.

    A reward that fails for each of them stops the run also with ``mask``: that is for rewards that fail now and then.
    """
    tried = {name: reward for name, reward in unattended(rewards).items() if not isinstance(reward, LearnedReward)}
    if tried:
        mix = RewardMix(tried, on_failure=on_failure)
        for name, scores in mix.each(rows, texts, torch.device("cpu")).items():
            if scores.isnan().all():
                raise UserError(mix.reasons[name])
