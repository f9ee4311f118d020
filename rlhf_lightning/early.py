"""What can be refused at once, before the heavy libraries are loaded: it must not take a user a quarter of a minute."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from rlhf_lightning.errors import UserError
from rlhf_lightning.hydra_support.signature import check_value
from rlhf_lightning.state import ROWS

STAGES = ("sft", "reward", "ppo", "evaluate", "predict")

GROUPS = ("task", "data", "model", "rollout", "trainer", "logger", "sft", "reward", "ppo", "evaluate", "predict")

KEYS = {
    "task": ("name", "format", "max_prompt_tokens", "max_completion_tokens", "system", "objective", "metrics"),
    "data": (
        "train",
        "validation",
        "test",
        "prompts",
        "preferences",
        "preferences_test",
        "unpaired",
        "unpaired_test",
        "columns",
        "encoding",
        "gold",
    ),
}
"""What a YAML of the user's own must hold."""

TYPES: dict[str, Any] = {
    "loop": dict | None,
    "policy": str | None,
    "reward_model": str | None,
    "seed": int,
    "samples": int,
    "profile": bool,
    "dry_run": bool,
    "task.max_prompt_tokens": int,
    "task.max_completion_tokens": int,
    "task.objective": str | None,
    "data.gold": str | None,
    "model.dtype": Literal["float32", "bfloat16", "float16", "float64"],
    "reward.normalise": Literal["scale", "shift", "none"],
    "reward.ranking": Literal["pairs", "plackett_luce"],
    "ppo.updates": int,
    "ppo.critic": str,
    "ppo.patience": int | None,
    "ppo.export": Literal["best", "last"],
    "ppo.alarms": dict,
    "ppo.stop_on": list,
    "resume": bool | Literal["force"],
    "max_time": str | None,
    "checkpoint.minutes": float,
    "checkpoint.keep": int,
    "evaluate.batch_size": int,
    "predict.batch_size": int,
    "predict.input": str | None,
    "predict.output": str | None,
}
"""What the pipeline itself takes; all else goes to a function, whose signature says it."""


AT_LEAST: dict[str, int] = dict.fromkeys(
    (
        "task.max_prompt_tokens",
        "task.max_completion_tokens",
        "model.tiny.hidden",
        "model.tiny.layers",
        "model.tiny.heads",
        "sft.loader.batch_size",
        "sft.loader.eval_batch_size",
        "reward.loader.batch_size",
        "reward.loader.eval_batch_size",
        "ppo.loader.batch_size",
        "ppo.loader.eval_batch_size",
        "ppo.updates",
        "ppo.patience",
        "evaluate.batch_size",
        "predict.batch_size",
        "checkpoint.keep",
    ),
    1,
) | dict.fromkeys(
    (
        "seed",
        "sft.lr",
        "sft.loader.prompt_loss_weight",
        "reward.lr",
        "checkpoint.minutes",
    ),
    0,
)
"""Least values; only those of the chosen stages are looked at."""

CHOICES = {
    "kl": ("fixed", "adaptive"),
    "kl_estimator": ("k1", "k2", "k3"),
    "missing_eos": ("replace", "subtract"),
    "on_reward_failure": ("stop", "mask"),
}
PPO_AT_LEAST = dict.fromkeys(("responses_per_prompt", "epochs", "minibatches", "micro_batch_tokens"), 1)
PPO_AT_LEAST |= dict.fromkeys(
    ("lr", "value_lr", "kl_coef", "clip_range", "value_clip_range", "vf_coef", "gamma", "lam", "max_grad_norm"), 0
)
ABOVE_0 = ("temperature", "kl_target", "kl_horizon")
AT_MOST_1 = ("gamma", "lam")


def check_early(cfg: dict[str, Any]) -> None:
    """Refuse what is seen without torch and transformers: options of another type, numbers and stages that can't be,
    files and models that aren't there.

    Raises:
        UserError: saying what is wrong or missing, and the remedy.
    """
    check_form(cfg)
    check_stages(cfg)
    check_numbers(cfg)
    check_files(cfg)
    check_names(cfg)
    if cfg.get("loop") is not None:
        from rlhf_lightning.loop.options import check_loop

        check_loop(cfg)


def check_form(cfg: dict[str, Any]) -> None:
    """Refuse a config that lacks a part, or in which the pipeline's own options are of another type.

    Raises:
        UserError: naming the option and what it takes.
    """
    stages = cfg["stages"]
    if not (isinstance(stages, list) and stages and all(isinstance(stage, str) for stage in stages)):
        raise UserError("stages must be a list, such as stages=[sft] or stages=[sft,reward,ppo]")
    for group in GROUPS:
        if not isinstance(cfg.get(group), dict):
            raise UserError(f"{group} is missing; `rlhf-train --help` shows what there is to choose from")
    for group, keys in KEYS.items():
        if missing := [key for key in keys if key not in cfg[group]]:
            model = "conf/task/qa.yaml" if group == "task" else "a YAML that begins with `defaults: [files, _self_]`"
            raise UserError(f"{group}.{missing[0]} is missing (null says that there is none); see {model}")
    for path, hint in TYPES.items():
        check_value(_at(cfg, path), hint, path)
    if not isinstance(cfg["task"]["metrics"], dict):
        raise UserError("task.metrics must name metrics, each with its _target_; {} says that there are none")
    for stage in ("sft", "reward", "ppo"):
        for part in ("loader", "trainer", *(("rewards",) if stage == "ppo" else ())):
            if not isinstance(value := cfg[stage].get(part), dict):
                raise UserError(f"{stage}.{part} can't be {value!r}: set its options, or leave it as it is")
    for name, reward in cfg["ppo"]["rewards"].items():
        if not isinstance(reward, dict) or not isinstance(reward.get("_target_"), str):
            raise UserError(f"ppo.rewards.{name} must be a reward with its _target_ and weight; see conf/rewards/")


def check_numbers(cfg: dict[str, Any]) -> None:
    """Refuse numbers that are none or too small, and what PPO can't work with; of a stage that isn't run nothing
    matters.

    Raises:
        UserError: naming the option and what it may be.
    """
    for path, least in AT_LEAST.items():
        group, value = path.split(".")[0], _at(cfg, path)
        if value is None or (group in STAGES and group not in cfg["stages"]):
            continue
        check_value(value, _number(least), path)
        if not value >= least:  # nor NaN
            raise UserError(f"{path} must be at least {least}, not {value}")
    if "ppo" not in cfg["stages"]:
        return
    settings = cfg["ppo"]
    for name, least in (PPO_AT_LEAST | dict.fromkeys((*ABOVE_0, *AT_MOST_1), 0)).items():
        if settings.get(name) is not None:
            check_value(settings[name], _number(least), f"ppo.{name}")
    # One that is missing or null is left to what takes it, which may not mind.
    if all(settings.get(name) is not None for name in (*ABOVE_0, *AT_MOST_1, *CHOICES, "kl_coef")):
        check_ppo({**dict.fromkeys(PPO_AT_LEAST), **settings})


def _number(least: int) -> type:
    """What is at least 1 counts something; the rest are amounts."""
    return int if least else float


def _at(cfg: dict[str, Any], path: str) -> Any:
    value: Any = cfg
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def check_ppo(settings: Mapping[str, Any]) -> None:
    """Refuse values that PPO can't work with.

    Args:
        settings: the arguments of `PPOModule` by name; others are not looked at.

    Raises:
        UserError: naming the option and what it may be.
    """
    for name, choices in CHOICES.items():
        if settings[name] not in choices:
            raise UserError(f"ppo.{name} must be {', '.join(choices[:-1])} or {choices[-1]}, not {settings[name]!r}")
    for name, least in PPO_AT_LEAST.items():
        if settings[name] is not None and not settings[name] >= least:  # nor NaN
            raise UserError(f"ppo.{name} must be at least {least}, not {settings[name]}")
    for name in ABOVE_0:
        if not settings[name] > 0:
            raise UserError(f"ppo.{name} must be above 0, not {settings[name]}")
    for name in AT_MOST_1:
        if settings[name] > 1:
            raise UserError(f"ppo.{name} must be at most 1, not {settings[name]}")
    if settings["kl"] == "adaptive" and settings["kl_coef"] == 0:
        raise UserError("an adaptive KL coefficient can't start from 0: set ppo.kl_coef, or ppo.kl=fixed")


def check_files(cfg: dict[str, Any]) -> None:
    """Refuse files of rows that aren't there; the sample's are looked for only where the task ships one.

    Raises:
        UserError: naming the file, and one with a like name beside it.
    """
    from rlhf_lightning.data.files import check_exists, home
    from rlhf_lightning.tasks import sample_files

    sample = sample_files(str(cfg["task"].get("name"))).values()
    sources = [cfg["data"].get(part) for part in ROWS]
    if "predict" in cfg["stages"]:
        sources.append(cfg["predict"]["input"])
    for source in sources:
        for path in source.values() if isinstance(source, Mapping) else [source]:
            if isinstance(path, str) and not path.startswith("hub:") and path not in sample:
                check_exists(home(path))


def check_names(cfg: dict[str, Any]) -> None:
    """Refuse models that are neither a folder nor to be had from the hub, or that wouldn't be used.

    Raises:
        UserError: as `rlhf_lightning.hub.find`; or for a name beside a model that is made on the spot.
    """
    from rlhf_lightning.hub import find

    model = cfg["model"]
    if model.get("tiny") is not None and model.get("name") is not None:
        raise UserError(
            f"model.name={model['name']} has no part in this run, as a tiny model is made on the spot: give model=hf "
            f"model.name={model['name']}"
        )
    needed: list[tuple[Any, Any]] = [(cfg["policy"], None), (cfg["reward_model"], None)]
    if cfg["policy"] is None and model.get("tiny") is None and set(cfg["stages"]) - {"reward"}:
        needed.append((model.get("name"), model.get("revision")))
    if "reward" in cfg["stages"] and isinstance(own := cfg["reward"].get("model"), dict):
        needed.append((own.get("name"), own.get("revision")))
    if "ppo" in cfg["stages"] and cfg["ppo"].get("critic") not in ("shared", "separate"):
        needed.append((cfg["ppo"].get("critic"), None))
    for name, revision in needed:
        if isinstance(name, str):
            find(name, revision if isinstance(revision, str) else None)


def check_stages(cfg: dict[str, Any]) -> None:
    """Refuse stages that can't be run, or not in this order.

    Raises:
        UserError: saying what is missing.
    """
    stages = cfg["stages"]
    if unknown := [s for s in stages if s not in STAGES]:
        raise UserError(f"there is no stage {unknown[0]!r}; there are {', '.join(STAGES)}")
    if len(set(stages)) < len(stages):
        raise UserError(f"stages={stages}: a stage may occur once")
    if "reward" in stages and cfg["reward_model"] is not None:
        raise UserError(
            "the stage reward learns a reward model, and reward_model names another: leave one of them out, as in "
            f"stages=[{','.join(s for s in stages if s != 'reward')}]. To go on training that one, name it as "
            f"model@reward.model=hf reward.model.name={cfg['reward_model']} instead."
        )
    made = cfg["model"].get("tiny") is not None
    before_sft = stages[: stages.index("sft")] if "sft" in stages else stages
    early = next((s for s in before_sft if s in ("ppo", "evaluate", "predict")), None)
    if made and cfg["policy"] is None and early is not None:
        raise UserError(
            f"stages={stages}: {early} needs a policy: give policy=FOLDER, put sft before it, or start from a "
            "pre-trained model with model=hf model.name=..."
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
    if "predict" in stages and cfg["predict"]["input"] is None:
        raise UserError("the stage predict needs predict.input=FILE, a file of prompts")
    if "predict" in stages and cfg["predict"]["output"] is not None:
        _check_output(Path(cfg["predict"]["output"]))


def _check_output(path: Path) -> None:
    """Refuse a file that can't be written, before what goes into it is made."""
    if path.is_dir():
        raise UserError(f"predict.output={path} can't be written: it is a folder")
    try:
        # Folders are made when there is something to put into them.
        tempfile.TemporaryFile(dir=next(folder for folder in path.absolute().parents if folder.exists())).close()
    except OSError as error:
        raise UserError(f"predict.output={path} can't be written: {error.strerror}") from error
