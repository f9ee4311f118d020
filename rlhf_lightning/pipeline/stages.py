"""The stages: each takes the run as the one before left it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import EarlyStopping

from rlhf_lightning.callbacks import Alarms, Prune
from rlhf_lightning.callbacks.samples import of_all_ranks
from rlhf_lightning.data.encoding import transcript
from rlhf_lightning.data.modules import PreferenceDataModule, PromptDataModule, SFTDataModule
from rlhf_lightning.data.rows import Prompt, PromptRow
from rlhf_lightning.data.sources import TaskData, read_prompts
from rlhf_lightning.errors import UserError
from rlhf_lightning.hydra_support import instantiate
from rlhf_lightning.metrics.suspicions import suspicions
from rlhf_lightning.models import Classifier, LoraSpec, ModelSpec, Policy, Reference, RewardModel, make_tiny
from rlhf_lightning.models.sharding import is_sharded
from rlhf_lightning.pipeline.measure import (
    functions,
    gold_functions,
    gold_mix,
    measure,
    measure_shared,
    sampling,
    score_answers,
    task_metrics,
    unscored,
    with_learned,
)
from rlhf_lightning.pipeline.reuse import is_shared, key_of, taken_or_done
from rlhf_lightning.pipeline.run import Interrupted, Run, fit, is_rank_zero, make_trainer, once, policy_of, say, tell
from rlhf_lightning.report.results import write_atomic
from rlhf_lightning.rewards import MetricReward, Reward, RewardMix, unattended
from rlhf_lightning.stages import EvaluateModule, Evaluator
from rlhf_lightning.sweep.trial import Judge, TrialAddress


def spec_options(model: dict[str, Any]) -> dict[str, Any]:
    """Of the options of a group `model`, those that make a `ModelSpec`."""
    return {name: value for name, value in model.items() if name not in ("tiny", "recommended")}


def base_model(cfg: dict[str, Any], data: TaskData, directory: Path, keep: bool = False) -> ModelSpec:
    """The model that the run starts from: `policy`, the one that `model` names, or a tiny one made now.

    With ``keep`` the tiny one is there already, as the run is resumed.

    Raises:
        UserError: if a tiny model is asked for and there is no text to train its tokenizer on.
    """
    model = spec_options(cfg["model"])
    if cfg["policy"] is not None:
        return instantiate({**model, "name": cfg["policy"]}, revision=None)
    if cfg["model"].get("tiny") is None:
        return instantiate(model)
    texts = [f"{transcript(row.prompt.text)} {row.completion}" for row in data.train]
    texts += [f"{transcript(row.prompt.text)} {row.chosen}" for row in data.preferences]
    texts += [f"{transcript(row.prompt.text)} {row.completion}" for row in data.unpaired]
    if not texts:
        raise UserError("model=tiny trains its tokenizer on the data's text, but there is none: give data.train=FILE")
    folder = directory / "base" / "model"
    if is_rank_zero() and not keep:
        make_tiny(instantiate(cfg["model"]["tiny"]), texts, folder)
    return instantiate({**model, "name": str(folder)})


def save_once(model: Policy | Classifier | RewardModel, folder: Path) -> None:
    """Write the model's folder, from rank zero; the others help where the weights are dealt out."""
    if is_rank_zero() or is_sharded(model.model):
        model.save(folder)


def trained(run: Run, stage: str, train: Callable[[Run], None]) -> None:
    """Train a stage, unless it was done before; what it would have gone on from is then needed no more."""
    once(run, stage, lambda: train(run))
    if is_rank_zero():
        for name in ("checkpoints", "best"):
            shutil.rmtree(run.dir / stage / name, ignore_errors=True)


def run_sft(run: Run) -> None:
    """Fine-tune the policy on demonstrations, and measure it."""
    made_by = key_of(run, "sft") if is_shared(run) else None
    trained(run, "sft", lambda run: taken_or_done(run, "sft", lambda: train_sft(run)))
    run.policy, run.spec, run.lineage = None, run.spec.at(run.dir / "sft" / "model"), made_by
    once(run, "sft measured", lambda: measure_shared(run, "sft measured", "sft", "sft/model"))


def train_sft(run: Run) -> None:
    """Fine-tune the policy on demonstrations."""
    cfg = dict(run.cfg["sft"])
    loader, options = cfg.pop("loader"), cfg.pop("trainer")
    policy = run.policy
    assert policy is not None
    evaluator = Evaluator(task_metrics(run.cfg), gold_mix(run), engine=run.engine)
    module = instantiate(cfg, policy=policy, evaluator=evaluator)
    data = SFTDataModule(run.data.train, run.data.validation, policy.codec, **loader, seed=run.cfg["seed"])
    remedy = "see task.max_prompt_tokens, task.max_completion_tokens"
    tell(run.results, [f"sft: {text}; {remedy}" for text in data.losses()])
    fit(run, "sft", module, data, options, partial(save_once, policy))


def reward_spec(run: Run) -> ModelSpec:
    """The model that the reward model starts from: its own where one is named, else the policy as it is now."""
    model = run.cfg["reward"].get("model")
    if model is None:
        return run.spec
    return instantiate(spec_options(model))


def run_reward(run: Run) -> None:
    """Learn a reward from preferences, and score all answers so far by it."""
    trained(run, "reward", lambda run: taken_or_done(run, "reward", lambda: train_reward(run)))
    folder = run.dir / "reward" / "model"
    run.reward_model = RewardModel.load(replace(reward_spec(run).at(folder), lora=LoraSpec()), **run.limits)
    once(run, "reward measured", lambda: score_answers(run))


def shown_for_zero(data: TaskData) -> list[tuple[Prompt, str]]:
    """The prompts and texts whose reward is made 0 on average: demonstrations, or else what people chose."""
    shown = [(row.prompt, row.completion) for row in data.train[:256]]
    shown = shown or [(row.prompt, row.chosen) for row in data.preferences[:256]]
    return shown or [(row.prompt, row.completion) for row in data.unpaired[:256]]


def train_reward(run: Run) -> None:
    """Learn a reward from preferences."""
    cfg = dict(run.cfg["reward"])
    loader, options, normalise = cfg.pop("loader"), cfg.pop("trainer"), cfg.pop("normalise")
    cfg.pop("model", None)
    ranking, seed = cfg.pop("ranking"), run.cfg["seed"]
    model = RewardModel.load(reward_spec(run), **run.limits, fresh_head=True)
    module = instantiate(cfg, model=model)
    data = PreferenceDataModule(*run.data.judged, model.codec, **loader, seed=seed, ranking=ranking)

    def save(folder: Path) -> None:
        model.eval()
        if normalise != "none":
            shown = zip(*shown_for_zero(run.data), strict=True)
            model.normalise(model.score(*shown), scale=normalise == "scale")  # type: ignore[arg-type]
        save_once(model, folder)

    measured = fit(run, "reward", module, data, options, save, origin=reward_spec(run))
    prefix = "reward/val/"
    run.results.reward_model = {k.removeprefix(prefix): v for k, v in measured.items() if k.startswith(prefix)}


def run_ppo(run: Run) -> None:
    """Optimise the policy against the rewards, and measure it."""
    start = run.spec
    trained(run, "ppo", train_ppo)
    run.policy, run.spec, run.lineage = None, run.spec.at(run.dir / "ppo" / "model"), None
    once(run, "ppo measured", lambda: measure_ppo(run, start))


def train_ppo(run: Run) -> None:
    """Optimise the policy against the rewards."""
    cfg = dict(run.cfg["ppo"])
    loader, options, updates = cfg.pop("loader"), cfg.pop("trainer"), cfg.pop("updates")
    weights = {name: reward["weight"] for name, reward in cfg.pop("rewards").items()}
    critic, patience, exported = cfg.pop("critic"), cfg.pop("patience"), cfg.pop("export")
    measured = held_out(run) if run.results.objective is not None and run.data.validation else None
    alarms = Alarms(cfg.pop("alarms"), cfg.pop("stop_on"), measured)
    run.policy = None  # its memory is given back before the next one is loaded
    policy = Policy.load(run.spec, **run.limits, value_head=critic == "shared")
    rewards = functions(run)
    watched = {**gold_functions(run), **unattended(rewards)}
    mix = RewardMix(watched, on_failure=cfg["on_reward_failure"]) if watched else None
    evaluator = Evaluator(task_metrics(run.cfg), mix, engine=run.engine)
    module = instantiate(
        cfg,
        policy=policy,
        rewards=rewards,
        reward_weights=weights,
        critic=separate_critic(run, critic, policy),
        engine=run.engine,
        evaluator=evaluator,
    )
    data = PromptDataModule(run.data.prompts, run.data.validation, policy.codec, **loader, seed=run.cfg["seed"])
    options = {
        "max_epochs": -1,
        "max_steps": updates * cfg["epochs"] * cfg["minibatches"],
        "check_val_every_n_epoch": None,
        **options,
    }
    stops = [] if patience is None else [stop_when_it_turns(run, patience)]
    best_by = measured if exported == "best" else None
    try:
        watching = [alarms, *stops, *pruning(run)]
        fit(run, "ppo", module, data, options, partial(save_once, policy), watching, best_by)
    finally:
        run.results.notes += [f"ppo: {text}" for text in alarms.raised.values()]
        if alarms.stopped_by is not None:
            run.results.notes.append(f"ppo was ended by the alarm {alarms.stopped_by} (ppo.stop_on)")
    told = [
        f"ppo: some responses were left out of the training ({reason}); ppo/failures/{name} counts them"
        for name, reason in module.rewards.reasons.items()
    ]
    tell(run.results, told)
    for stop in stops:
        if stop.wait_count >= patience:
            run.results.notes.append(
                f"ppo stopped early: {run.results.objective} on the validation prompts was best at "
                f"{float(stop.best_score):.4g} and no better in the {patience} looks since"
            )


def stop_when_it_turns(run: Run, patience: int) -> EarlyStopping:
    """A callback that ends PPO when the objective on the validation prompts stops getting better."""
    metric, mode = held_out(run)
    return EarlyStopping(metric, mode=mode, patience=patience, check_on_train_epoch_end=False)


def pruning(run: Run) -> list[Prune]:
    """What ends PPO early in a job of a sweep that does worse than the others; nothing in a run of its own."""
    address = TrialAddress.of_this_job()
    return [] if address is None or not run.data.validation else [Prune(f"ppo/val/{address.objective}", Judge(address))]


def held_out(run: Run) -> tuple[str, str]:
    """Name of the objective as PPO logs it on the validation prompts, and which way is better."""
    objective = run.results.objective
    return f"ppo/val/{objective}", run.results.directions.get(objective or "") or "max"


def measure_ppo(run: Run, start: ModelSpec) -> None:
    """Measure PPO's policy, also by its distance from where it started, and look for signs that it games the reward."""
    reference = None
    if run.cfg["ppo"]["kl_coef"]:
        reference = Reference.of(Policy.load(replace(start, lora=LoraSpec()), **run.limits))
    measure(run, "ppo", "ppo/model", reference=reference)
    before, after = run.results.policies[-2:]
    said = suspicions(
        before.metrics,
        after.metrics,
        [s.completion for s in run.answers[before.name]],
        [s.completion for s in run.answers["ppo"]],
        [s.row.references for s in run.answers["ppo"]],
        {name: scores.tolist() for name, scores in run.scores["ppo"].items() if name != "gold"},
        run.labels,
    )
    tell(run.results, [f"ppo: {text}" for text in said])


def separate_critic(run: Run, critic: str, policy: Policy) -> Policy | None:
    """A critic apart from the policy: from a reward model where that reads the policy's tokens, else from the policy.

    A reward model foretells scores. With several responses to a prompt the gain over the others is what counts, which
    is 0 on average: the critic then starts from the policy too.

    Raises:
        UserError: if a reward model was named that doesn't.
    """
    if critic == "shared":
        return None
    named = RewardModel.load(ModelSpec(critic), **run.limits) if critic != "separate" else None
    start = named or (run.reward_model if run.cfg["ppo"]["responses_per_prompt"] == 1 else None)
    if start is not None and _same_tokens(start, policy):
        return Policy.critic_from(start)
    if named is not None:
        raise UserError(f"ppo.critic={critic}: a critic must be a causal model with the policy's own tokenizer")
    return Policy.load(run.spec, **run.limits, value_head=True)


def _same_tokens(reward_model: RewardModel, policy: Policy) -> bool:
    vocabularies = [model.codec.tokenizer.get_vocab() for model in (reward_model, policy)]
    return reward_model.kind == policy.kind == "causal" and vocabularies[0] == vocabularies[1]


def predict_rows(cfg: dict[str, Any], notes: list[str]) -> list[PromptRow]:
    """The prompts of ``predict.input``; what was dropped is added to ``notes``."""
    data, form = cfg["data"], instantiate(cfg["task"]["format"])
    on_bad_row = data.get("on_bad_row", "error")
    return read_prompts(cfg["predict"]["input"], form, data["columns"], data["encoding"], on_bad_row, notes)


def prediction_rewards(run: Run) -> dict[str, Reward]:
    """What predictions are scored by: the chosen rewards and the reward model; metrics only if rows have references."""
    compared = all(row.references for row in run.asked)
    chosen = {name: r for name, r in unattended(functions(run)).items() if compared or not isinstance(r, MetricReward)}
    return with_learned(run, chosen)


def run_predict(run: Run) -> None:
    """Answer a file of prompts."""
    once(run, "predict", lambda: predict(run))


def predict(run: Run) -> None:
    """Answer a file of prompts, and score the answers by every reward there is.

    Raises:
        UserError: if a reward fails and ppo.on_reward_failure is ``stop``; the answers are then written without
            rewards.
    """
    cfg = run.cfg["predict"]
    policy = policy_of(run)
    trainer = make_trainer(run, "predict", {}, [], logger=False)
    data = PromptDataModule([], run.asked, policy.codec, 0, cfg["batch_size"])
    try:
        evaluator = Evaluator(sampling=sampling(run), engine=run.engine)
        batches = trainer.predict(EvaluateModule(policy, evaluator), datamodule=data)
    except SystemExit:  # Lightning's answer to Ctrl-C
        raise Interrupted from None
    samples = of_all_ranks([s for batch in batches or [] for s in batch], trainer)
    texts = [s.completion for s in samples]
    scores: dict[str, torch.Tensor] = {}
    failure = None
    if rewards := prediction_rewards(run):
        try:
            mix = RewardMix(rewards, on_failure=run.cfg["ppo"]["on_reward_failure"])
            scores = mix.each([s.row for s in samples], texts, run.scoring_device)
            tell(run.results, [f"predict: {text}; these are null" for text in unscored(mix, len(samples))])
        except UserError as error:
            failure = error
    if is_rank_zero():
        lines = [
            json.dumps(
                {**s.row.meta, "prompt": s.row.prompt.text, "completion": s.completion}
                | ({"rewards": {k: _number_or_null(float(v[i])) for k, v in scores.items()}} if scores else {}),
                ensure_ascii=False,
                default=str,
            )
            for i, s in enumerate(samples)
        ]
        path = Path(cfg["output"] or run.dir / "predict" / "predictions.jsonl")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, "\n".join(lines) + "\n")
        say(f"{len(lines)} completions in {path}")
    if failure is not None:
        raise failure


def _number_or_null(value: float) -> float | None:
    """A reward as JSON has it: null where it failed."""
    return None if math.isnan(value) else round(value, 6)
