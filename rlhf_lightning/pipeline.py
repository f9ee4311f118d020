"""The stages in order, from a composed config to a run folder with models, figures and a report."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from rlhf_lightning.callbacks import Alarms, CollectSamples, LogSamples
from rlhf_lightning.data.encoding import Codec, transcript
from rlhf_lightning.data.modules import PreferenceDataModule, PromptDataModule, SFTDataModule
from rlhf_lightning.data.rows import PromptRow
from rlhf_lightning.data.sources import TaskData, read_prompts
from rlhf_lightning.errors import UserError
from rlhf_lightning.hydra_support import instantiate, plain
from rlhf_lightning.models import (
    Classifier,
    ModelSpec,
    Policy,
    RewardModel,
    Sampling,
    load_answerer,
    make_tiny,
)
from rlhf_lightning.models.loading import check_window, load_config, load_tokenizer, model_kind
from rlhf_lightning.report import PolicyResult, RunResults, print_report, write_report, write_samples
from rlhf_lightning.report import Sample as ReportSample
from rlhf_lightning.report.results import write_atomic
from rlhf_lightning.rewards import FunctionReward, LearnedReward, Reward, RewardMix
from rlhf_lightning.stages import EvaluateModule, Evaluator, Sample
from rlhf_lightning.tasks import sample_files

STAGES = ("sft", "reward", "ppo", "evaluate", "predict")
PARTS = ("train", "validation", "test", "prompts", "preferences", "preferences_test")
PACKAGES = (
    "rlhf-lightning",
    "torch",
    "lightning",
    "transformers",
    "hydra-core",
    "torchmetrics",
    "sacrebleu",
    "rouge-score",
)
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


def is_rank_zero() -> bool:
    """Whether this process is the one that writes and speaks."""
    return getattr(rank_zero_only, "rank", 0) == 0


class Interrupted(KeyboardInterrupt):
    """The user stopped a stage; what was learnt so far has been saved."""


@dataclass
class Run:
    """A run as it goes on.

    Attributes:
        cfg: the composed config as plain values.
        dir: the run folder.
        group: name of the sweep it belongs to.
        data: every row.
        results: what is reported.
        spec: the policy as the next stage finds it.
        policy: the same, loaded, where it already is.
        reward_model: the learned reward, where there is one.
        answers: what each policy answered to the test prompts.
        scores: for each policy, each reward of each answer.
    """

    cfg: dict[str, Any]
    dir: Path
    group: str | None
    data: TaskData
    results: RunResults
    spec: ModelSpec
    policy: Policy | Classifier | None = None
    reward_model: RewardModel | None = None
    answers: dict[str, list[Sample]] = field(default_factory=dict)
    scores: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)

    @property
    def limits(self) -> dict[str, Any]:
        """The task's limits, as the models' loaders take them."""
        task = self.cfg["task"]
        return {
            "max_prompt": task["max_prompt_tokens"],
            "max_completion": task["max_completion_tokens"],
            "system": task["system"],
        }

    @property
    def labels(self) -> tuple[str, ...]:
        """The task's label set; empty where it has none."""
        return tuple(self.cfg["task"]["format"].get("labels") or ())


def run_pipeline(config: Any, directory: Path, group: str | None = None) -> float | None:
    """Run the stages of a composed config and write everything under ``directory``.

    Args:
        config: the composed config.
        directory: the run folder.
        group: name of the sweep this run belongs to.

    Returns:
        The objective of the last policy, or None where nothing was measured.

    Raises:
        UserError: for a mistake in config, data or model; before any training where it can be known by then.
        Interrupted: after Ctrl-C; the run folder is complete up to then.
    """
    cfg = plain(config)
    L.seed_everything(cfg["seed"], workers=True, verbose=False)
    check_stages(cfg)
    notes = settle_sample(cfg)
    data_config = {k: v for k, v in cfg["data"].items() if k != "gold"}
    data: TaskData = instantiate(data_config, format=instantiate(cfg["task"]["format"]))
    check_parts(cfg, data)
    results = RunResults(
        task=cfg["task"]["name"],
        seed=cfg["seed"],
        status="running",
        stages=list(cfg["stages"]),
        objective="gold" if cfg["data"]["gold"] else cfg["task"]["objective"],
        notes=notes + data.notes,
        versions={name: version(name) for name in PACKAGES},
    )
    run = Run(cfg, directory, group, data, results, base_model(cfg, data, directory))
    check_models(run)
    steps: dict[str, Callable[[Run], None]] = {
        "sft": run_sft,
        "reward": run_reward,
        "ppo": run_ppo,
        "evaluate": lambda run: None,  # every policy is measured anyway
        "predict": run_predict,
    }
    try:
        if set(cfg["stages"]) != {"predict"} and set(cfg["stages"]) != {"reward"}:
            measure(run, "base" if cfg["policy"] is None else "policy", run.spec.name)
        for stage in cfg["stages"]:
            started = time.perf_counter()
            say(f"{stage}", rule=True)
            steps[stage](run)
            run.results.seconds[stage] = round(time.perf_counter() - started, 1)
            save_results(run)
        run.results.status = "finished"
    except KeyboardInterrupt:
        run.results.status = "interrupted"
        raise
    finally:
        finish(run)
    last = run.results.policies[-1].metrics if run.results.policies else {}
    return last.get(run.results.objective or "")


# --- checks before any training --------------------------------------------------------------------------------------


def check_stages(cfg: dict[str, Any]) -> None:
    """Refuse stages that can't be run, or not in this order.

    Raises:
        UserError: saying what is missing.
    """
    stages = cfg["stages"]
    if not isinstance(stages, list) or not stages:
        raise UserError("stages must be a list, such as stages=[sft] or stages=[sft,reward,ppo]")
    if unknown := [s for s in stages if s not in STAGES]:
        raise UserError(f"there is no stage {unknown[0]!r}; there are {', '.join(STAGES)}")
    if len(set(stages)) < len(stages):
        raise UserError(f"stages={stages}: a stage may occur once")
    made = cfg["model"].get("tiny") is not None
    first = stages[0]
    if made and cfg["policy"] is None and first in ("ppo", "evaluate", "predict"):
        raise UserError(
            f"stages={stages} begins with {first} but there is no policy: give policy=FOLDER, put sft before it, or "
            "start from a pre-trained model with model=hf model.name=..."
        )
    if "ppo" in stages:
        learned = [name for name, r in cfg["ppo"]["rewards"].items() if r["_target_"].endswith("LearnedReward")]
        before = stages[: stages.index("ppo")]
        if "sft" in stages and "sft" not in before:
            raise UserError(f"stages={stages}: sft must come before ppo")
        external = [name for name in learned if cfg["ppo"]["rewards"][name].get("model") is not None]
        if set(learned) - set(external) and "reward" not in before and cfg["reward_model"] is None:
            raise UserError(
                f"stages={stages}: ppo's reward {learned[0]!r} needs a reward model: put reward before ppo, give "
                "reward_model=FOLDER, or choose another reward, such as rewards=chrf"
            )
        if not cfg["ppo"]["rewards"]:
            raise UserError("ppo has no reward: choose some, such as rewards=learned or rewards=[chrf,bleu]")
        if cfg["ppo"]["updates"] < 1:
            raise UserError(f"ppo.updates must be at least 1, not {cfg['ppo']['updates']}")
    if "predict" in stages and cfg["predict"]["input"] is None:
        raise UserError("the stage predict needs predict.input=FILE, a file of prompts")


def settle_sample(cfg: dict[str, Any]) -> list[str]:
    """Where some of the sample's parts were replaced by the user's files, drop the others: they don't belong together.

    Returns:
        A note of what was dropped.
    """
    data = cfg["data"]
    known = sample_files(cfg["task"]["name"])
    sample = {part for part in PARTS if data[part] is not None and data[part] == known.get(part)}
    own = [part for part in PARTS if data[part] is not None and part not in sample]
    if not own or not sample:
        return []
    for part in sample:
        data[part] = None
    data["gold"] = None
    return [f"data.{', data.'.join(own)} replaced the sample data; none of the sample's other parts is used"]


def check_parts(cfg: dict[str, Any], data: TaskData) -> None:
    """Refuse stages whose rows are missing.

    Raises:
        UserError: naming the option that gives them.
    """
    stages, target = cfg["stages"], cfg["task"]["metrics"]
    if "sft" in stages and not data.train:
        raise UserError("the stage sft needs demonstrations: give data.train=FILE, or leave sft out of stages")
    if "reward" in stages and not data.preferences:
        raise UserError(
            "the stage reward needs preferences: give data.preferences=FILE (columns chosen and rejected), or leave it "
            "out, as in stages=[sft], or stages=[sft,ppo] with another reward, such as rewards=chrf"
        )
    if "ppo" in stages and len(data.prompts) < cfg["ppo"]["loader"]["batch_size"]:
        raise UserError(
            f"ppo has {len(data.prompts)} prompts, fewer than one batch of {cfg['ppo']['loader']['batch_size']}: give "
            "data.prompts=FILE or data.train=FILE, or lower ppo.loader.batch_size"
        )
    if set(stages) & {"sft", "ppo", "evaluate"} and not data.test:
        raise UserError(
            "there are no held-out rows to measure on: give data.test=FILE, or data.train to split them off"
        )
    if target and any(not row.references for row in data.test):
        raise UserError("a test row has no reference, which the task's metrics need")


def base_model(cfg: dict[str, Any], data: TaskData, directory: Path) -> ModelSpec:
    """The model that the run starts from: `policy`, the one that `model` names, or a tiny one made now.

    Raises:
        UserError: if a tiny model is asked for and there is no text to train its tokenizer on.
    """
    model = {k: v for k, v in cfg["model"].items() if k not in ("tiny", "recommended")}
    if cfg["policy"] is not None:
        return instantiate({**model, "name": cfg["policy"]}, revision=None)
    if cfg["model"].get("tiny") is None:
        return instantiate(model)
    texts = [f"{transcript(row.prompt.text)} {row.completion}" for row in data.train]
    texts += [f"{transcript(row.prompt.text)} {row.chosen}" for row in data.preferences]
    if not texts:
        raise UserError("model=tiny trains its tokenizer on the data's text, but there is none: give data.train=FILE")
    folder = directory / "base" / "model"
    if is_rank_zero():
        make_tiny(instantiate(cfg["model"]["tiny"]), texts, folder)
    return instantiate({**model, "name": str(folder)})


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
        spec = reward_spec(run)
        config = load_config(spec)
        limits = run.limits
        codec = Codec(load_tokenizer(spec), model_kind(config, spec), limits["max_prompt"], limits["max_completion"])
        check_window(config, codec, spec.name)
    if cfg["reward_model"] is not None:
        run.reward_model = RewardModel.load(
            ModelSpec(cfg["reward_model"], trust_remote_code=cfg["model"]["trust_remote_code"]), **run.limits
        )
    rows = [row for row in run.data.prompts[:2] if row.references]
    if "ppo" in stages and rows:
        mix = {k: r for k, r in functions(run).items() if not isinstance(r, LearnedReward)}
        if mix:
            RewardMix(mix).each(rows, [row.references[0] for row in rows], torch.device("cpu"))


# --- the stages ------------------------------------------------------------------------------------------------------


def run_sft(run: Run) -> None:
    """Fine-tune the policy on demonstrations."""
    cfg = dict(run.cfg["sft"])
    loader, options = cfg.pop("loader"), cfg.pop("trainer")
    assert run.policy is not None
    evaluator = Evaluator(task_metrics(run), gold_mix(run))
    module = instantiate(cfg, policy=run.policy, evaluator=evaluator)
    data = SFTDataModule(run.data.train, run.data.validation, run.policy.codec, **loader, seed=run.cfg["seed"])
    fit(run, "sft", module, data, options, lambda folder: run.policy.save(folder))  # type: ignore[union-attr]
    run.spec = run.spec.at(run.dir / "sft" / "model")
    measure(run, "sft", "sft/model")


def reward_spec(run: Run) -> ModelSpec:
    """The model that the reward model starts from: its own where one is named, else the policy as it is now."""
    model = run.cfg["reward"].get("model")
    if model is None:
        return run.spec
    return instantiate({k: v for k, v in model.items() if k not in ("tiny", "recommended")})


def run_reward(run: Run) -> None:
    """Learn a reward from preferences."""
    cfg = dict(run.cfg["reward"])
    loader, options, normalise = cfg.pop("loader"), cfg.pop("trainer"), cfg.pop("normalise")
    cfg.pop("model", None)
    if normalise not in ("scale", "shift", "none"):
        raise UserError(f"reward.normalise must be scale, shift or none, not {normalise!r}")
    model = RewardModel.load(reward_spec(run), **run.limits, fresh_head=True)
    module = instantiate(cfg, model=model)
    data = PreferenceDataModule(
        run.data.preferences, run.data.preferences_test, model.codec, **loader, seed=run.cfg["seed"]
    )

    def save(folder: Path) -> None:
        model.eval()
        if normalise != "none":
            shown = [(row.prompt, row.completion) for row in run.data.train[:256]]
            shown = shown or [(row.prompt, row.chosen) for row in run.data.preferences[:256]]
            model.normalise(model.score(*zip(*shown, strict=True)), scale=normalise == "scale")  # type: ignore[arg-type]
        model.save(folder)

    measured = fit(run, "reward", module, data, options, save)
    prefix = "reward/val/"
    run.results.reward_model = {k.removeprefix(prefix): float(v) for k, v in measured.items() if k.startswith(prefix)}
    run.reward_model = model
    score_answers(run)


def run_ppo(run: Run) -> None:
    """Optimise the policy against the rewards."""
    cfg = dict(run.cfg["ppo"])
    loader, options, updates = cfg.pop("loader"), cfg.pop("trainer"), cfg.pop("updates")
    weights = {name: reward["weight"] for name, reward in cfg.pop("rewards").items()}
    critic = cfg.pop("critic")
    run.policy = None  # its memory is given back before the next one is loaded
    policy = Policy.load(run.spec, **run.limits, value_head=critic == "shared")
    rewards = functions(run)
    evaluator = Evaluator(task_metrics(run), RewardMix({**gold_functions(run), **rewards}))
    module = instantiate(
        cfg,
        policy=policy,
        rewards=rewards,
        reward_weights=weights,
        critic=separate_critic(run, critic),
        evaluator=evaluator,
    )
    data = PromptDataModule(run.data.prompts, run.data.validation, policy.codec, **loader, seed=run.cfg["seed"])
    options = {
        "max_epochs": -1,
        "max_steps": updates * cfg["epochs"] * cfg["minibatches"],
        "check_val_every_n_epoch": None,
        **options,
    }
    run.policy = policy
    fit(run, "ppo", module, data, options, lambda folder: policy.save(folder))
    run.spec = run.spec.at(run.dir / "ppo" / "model")
    measure(run, "ppo", "ppo/model", reference=module.reference)


def separate_critic(run: Run, critic: str) -> Policy | None:
    """A critic apart from the policy: from a reward model where one fits, with that model's values to begin with."""
    if critic == "shared":
        return None
    folder = critic if critic != "separate" else None
    if folder is not None:
        return Policy.critic_from(RewardModel.load(ModelSpec(folder), **run.limits))
    return (
        Policy.critic_from(run.reward_model)
        if run.reward_model is not None
        else Policy.load(run.spec, **run.limits, value_head=True)
    )


def run_predict(run: Run) -> None:
    """Answer a file of prompts, and score the answers where there is a reward model."""
    cfg = run.cfg["predict"]
    data = run.cfg["data"]
    rows = read_prompts(cfg["input"], instantiate(run.cfg["task"]["format"]), data["columns"], data["encoding"])
    assert run.policy is not None
    trainer = make_trainer(run, "predict", {}, [], logger=False)
    loader = PromptDataModule([], rows, run.policy.codec, 0, cfg["batch_size"])
    batches = trainer.predict(EvaluateModule(run.policy, Evaluator(sampling=sampling(run))), loader.val_dataloader())
    samples = sorted((s for batch in batches or [] for s in batch), key=lambda s: s.id)  # type: ignore[union-attr]
    texts = [s.completion for s in samples]
    scores: dict[str, torch.Tensor] = {}
    if run.reward_model is not None:
        scores["learned"] = LearnedReward(run.reward_model).score([s.row.prompt for s in samples], texts).cpu()
    import json

    lines = [
        json.dumps(
            {"prompt": s.row.prompt.text, "completion": s.completion}
            | ({"rewards": {k: round(float(v[i]), 6) for k, v in scores.items()}} if scores else {}),
            ensure_ascii=False,
        )
        for i, s in enumerate(samples)
    ]
    path = Path(cfg["output"] or run.dir / "predict" / "predictions.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, "\n".join(lines) + "\n")
    say(f"{len(lines)} completions in {path}")


# --- parts that the stages share -------------------------------------------------------------------------------------


def make_trainer(
    run: Run, stage: str, options: dict[str, Any], callbacks: list[L.Callback], logger: Any = None
) -> L.Trainer:
    """The Trainer of a stage: the group `trainer`, what the stage asks of it, and the loggers."""
    folder = run.dir / stage
    return instantiate(
        {**run.cfg["trainer"], **options, "default_root_dir": str(folder)},
        callbacks=callbacks,
        logger=loggers(run, stage) if logger is None else logger,
    )


def loggers(run: Run, stage: str) -> list[Any]:
    """The CSV logger, always, and those of the group `logger`."""
    made: list[Any] = [CSVLogger(run.dir, name=stage, version="")]
    for name, logger in run.cfg["logger"].items():
        extra: dict[str, Any] = {"save_dir": str(run.dir)}
        if name == "wandb":
            model = run.cfg["model"]["name"] or run.cfg["model"]["tiny"]["kind"]
            extra |= {
                "name": f"{run.dir.name}-{stage}",
                "group": run.group or run.dir.name,
                "job_type": stage,
                "tags": [run.cfg["task"]["name"], stage, Path(str(model)).name[:60]],
                "config": {k: v for k, v in run.cfg.items() if k not in ("paths", "logger")}
                | {"versions": run.results.versions},
            }
        made.append(instantiate(logger, **extra))
    return made


def fit(
    run: Run,
    stage: str,
    module: L.LightningModule,
    data: L.LightningDataModule,
    options: dict[str, Any],
    save: Callable[[Path], Any],
) -> dict[str, Any]:
    """Train, and save the model: also after Ctrl-C, which then ends the run.

    Returns:
        The last value of everything logged.
    """
    alarms = Alarms()
    trainer = make_trainer(run, stage, options, [alarms, LogSamples(stage)])
    interrupted = False
    try:
        trainer.fit(module, datamodule=data)
    except SystemExit:  # Lightning's answer to Ctrl-C
        if not trainer.interrupted:
            raise
        interrupted = True
    interrupted = interrupted or trainer.interrupted
    measured = dict(trainer.callback_metrics)
    run.results.notes += [f"{stage}: alarm: {text}" for text in alarms.raised.values()]
    if trainer.is_global_zero:
        save(run.dir / stage / "model")
    trainer.strategy.barrier()
    finish_wandb(run)
    if interrupted:
        run.results.notes.append(f"{stage} was interrupted after {trainer.global_step} optimizer steps")
        raise Interrupted
    return measured


def finish_wandb(run: Run) -> None:
    """End the live W&B run: a second logger in this process would otherwise write into it."""
    if "wandb" in run.cfg["logger"]:
        import wandb

        wandb.finish()


def task_metrics(run: Run) -> dict[str, Any]:
    """The task's metrics, new."""
    return {name: instantiate(metric) for name, metric in run.cfg["task"]["metrics"].items()}


def gold_functions(run: Run) -> dict[str, Reward]:
    """The data's hidden judge, where it has one."""
    path = run.cfg["data"]["gold"]
    return {"gold": FunctionReward(path)} if path else {}


def gold_mix(run: Run) -> RewardMix | None:
    """The same as a mix of its own."""
    return RewardMix(gold_functions(run)) if gold_functions(run) else None


def functions(run: Run) -> dict[str, Reward]:
    """PPO's rewards by name; learned ones that name no model use the run's."""
    made: dict[str, Reward] = {}
    limits = {k: v for k, v in run.limits.items() if k != "system"}
    for name, config in run.cfg["ppo"]["rewards"].items():
        config = {k: v for k, v in config.items() if k != "weight"}
        if config["_target_"].endswith("LearnedReward"):
            if config.get("model") is not None:
                made[name] = instantiate(config, **limits)
            elif run.reward_model is not None:
                made[name] = instantiate(config, model=run.reward_model)
        else:
            made[name] = instantiate(config)
    return made


def sampling(run: Run) -> Sampling:
    """How answers are drawn when they are measured."""
    cfg = run.cfg["evaluate"]
    return Sampling(cfg["greedy"], cfg["temperature"], cfg["top_k"], cfg["top_p"])


def measure(run: Run, name: str, model: str, reference: Any = None) -> None:
    """Answer the test prompts with the current policy, and add its row to the results."""
    assert run.policy is not None
    evaluator = Evaluator(task_metrics(run), None, sampling(run), reference)
    collect = CollectSamples()
    trainer = make_trainer(run, "evaluate", {}, [collect], logger=False)
    data = PromptDataModule([], run.data.test, run.policy.codec, 0, run.cfg["evaluate"]["batch_size"])
    say(f"measuring {name} on {len(run.data.test)} held-out prompts")
    try:
        trainer.test(EvaluateModule(run.policy, evaluator), data.test_dataloader(), verbose=False)
    except SystemExit:
        raise Interrupted from None
    if trainer.interrupted:
        raise Interrupted
    figures = {key.removeprefix("test/"): float(value) for key, value in trainer.callback_metrics.items()}
    describe(run, evaluator, figures)
    run.results.policies.append(PolicyResult(name, model, figures))
    run.answers[name] = collect.samples
    score_answers(run)


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
    rewards = {**gold_functions(run), **(functions(run) if "ppo" in run.cfg["stages"] else {})}
    if run.reward_model is not None and not any(isinstance(r, LearnedReward) for r in rewards.values()):
        rewards["learned"] = LearnedReward(run.reward_model)
    run.results.columns["reward"] = list(rewards)
    run.results.directions |= dict.fromkeys(rewards, "max")
    for policy in run.results.policies:
        samples = run.answers[policy.name]
        known = run.scores.setdefault(policy.name, {})
        missing = {name: reward for name, reward in rewards.items() if name not in known}
        if not missing or not samples:
            continue
        device = run.reward_model.device if run.reward_model is not None else torch.device("cpu")
        known |= RewardMix(missing).each([s.row for s in samples], [s.completion for s in samples], device)
        policy.metrics |= {name: float(known[name].mean()) for name in missing}


def report_samples(run: Run) -> list[ReportSample]:
    """The test rows with what every policy answered, for samples.jsonl."""
    rows: dict[int, PromptRow] = {s.id: s.row for samples in run.answers.values() for s in samples}
    made = []
    for i, row in sorted(rows.items()):
        sample = ReportSample(i, transcript(row.prompt.text), row.references)
        for policy, samples in run.answers.items():
            for position, s in enumerate(samples):
                if s.id == i:
                    sample.completions[policy] = s.completion
                    sample.scores[policy] = {k: round(float(v[position]), 6) for k, v in run.scores[policy].items()}
        made.append(sample)
    return made


def save_results(run: Run) -> None:
    """Write metrics.json and samples.jsonl as they stand."""
    if is_rank_zero():
        run.results.write(run.dir / "metrics.json")
        write_samples(run.dir / "samples.jsonl", report_samples(run))


def finish(run: Run) -> None:
    """Write everything, and show it."""
    finish_wandb(run)
    save_results(run)
    if is_rank_zero():
        write_report(run.dir)
        print_report(run.dir, n_samples=run.cfg["samples"])


@rank_zero_only
def say(text: str, rule: bool = False) -> None:
    """One line on the screen."""
    from rich.console import Console

    console = Console(highlight=False)
    console.rule(text, align="left") if rule else console.print(text, markup=False)
