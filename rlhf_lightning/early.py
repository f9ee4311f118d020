"""What can be refused at once, before the heavy libraries are loaded: it must not take a user a quarter of a minute."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlhf_lightning.errors import UserError

STAGES = ("sft", "reward", "ppo", "evaluate", "predict")

PARTS = ("train", "validation", "test", "prompts", "preferences", "preferences_test")


AT_LEAST: dict[str, int] = dict.fromkeys(
    (
        "task.max_prompt_tokens",
        "task.max_completion_tokens",
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
    """Refuse what is seen without torch and transformers: stages that can't be, files and models that aren't there.

    What isn't of the form that is expected here is left to the checks that come later, which say so.

    Raises:
        UserError: saying what is missing, and the remedy.
    """
    if not _well_formed(cfg):
        return
    check_stages(cfg)
    check_numbers(cfg)
    check_files(cfg)
    check_names(cfg)


def _well_formed(cfg: dict[str, Any]) -> bool:
    groups = [cfg.get(name) for name in ("task", "data", "model", "sft", "reward", "ppo", "predict")]
    stages = cfg.get("stages")
    if not all(isinstance(group, dict) for group in groups) or not isinstance(stages, list) or not stages:
        return False
    rewards = cfg["ppo"].get("rewards")
    targets = [isinstance(r, dict) and isinstance(r.get("_target_"), str) for r in (rewards or {}).values()]
    names = [cfg["predict"].get("input"), cfg["predict"].get("output"), cfg["policy"], cfg["reward_model"]]
    return (
        all(isinstance(stage, str) for stage in stages)
        and isinstance(rewards, dict)
        and all(targets)
        and all(name is None or isinstance(name, str) for name in names)
    )


def check_numbers(cfg: dict[str, Any]) -> None:
    """Refuse numbers that are too small, or that PPO can't work with; what is no number is left to later.

    Raises:
        UserError: naming the option and what it may be.
    """
    for path, least in AT_LEAST.items():
        group, value = path.split(".")[0], _at(cfg, path)
        # Of a stage that isn't run nothing matters.
        if isinstance(value, (int, float)) and (group not in STAGES or group in cfg["stages"]) and value < least:
            raise UserError(f"{path} must be at least {least}, not {value}")
    settings = cfg["ppo"]
    numbers = [settings.get(name, "missing") for name in (*PPO_AT_LEAST, *ABOVE_0, *AT_MOST_1)]
    never_null = [settings.get(name) is not None for name in (*ABOVE_0, *AT_MOST_1, *CHOICES)]
    known = all(value is None or isinstance(value, (int, float)) for value in numbers) and all(never_null)
    if "ppo" in cfg["stages"] and known:
        check_ppo(settings)


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
    sources = [cfg["data"].get(part) for part in PARTS]
    if "predict" in cfg["stages"]:
        sources.append(cfg["predict"]["input"])
    for source in sources:
        for path in source.values() if isinstance(source, Mapping) else [source]:
            if isinstance(path, str) and not path.startswith("hub:") and path not in sample:
                check_exists(home(path))


def check_names(cfg: dict[str, Any]) -> None:
    """Refuse models that are neither a folder nor to be had from the hub.

    Raises:
        UserError: as `rlhf_lightning.hub.find`.
    """
    from rlhf_lightning.hub import find

    model = cfg["model"]
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
            f"stages=[{','.join(s for s in stages if s != 'reward')}]"
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
