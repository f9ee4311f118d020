"""Every option held against what will take it, before any data is read: a typo must not surface after hours."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch

from rlhf_lightning.callbacks.alarms import LIMITS
from rlhf_lightning.data.modules import PreferenceDataModule, PromptDataModule, SFTDataModule
from rlhf_lightning.early import check_form, check_numbers
from rlhf_lightning.errors import UserError
from rlhf_lightning.hydra_support import check_arguments, check_call, check_value
from rlhf_lightning.models import Sampling

ROWS = ("train", "validation", "codec", "seed")
STAGES: dict[str, tuple[Any, tuple[str, ...], tuple[str, ...]]] = {
    "sft": (SFTDataModule, ("policy", "evaluator"), ("loader", "trainer")),
    "reward": (PreferenceDataModule, ("model",), ("loader", "trainer", "normalise", "ranking", "model")),
    "ppo": (
        PromptDataModule,
        ("policy", "evaluator", "rewards", "reward_weights", "critic", "engine"),
        ("loader", "trainer", "updates", "rewards", "critic", "patience", "export", "alarms", "stop_on"),
    ),
}
"""For each stage its data module, the arguments that the pipeline gives it, and the keys that the pipeline takes."""


def check_options(cfg: dict[str, Any]) -> None:
    """Refuse options that nothing takes, that are missing, or whose values are of another type.

    Raises:
        UserError: naming the option and what it takes.
    """
    check_form(cfg)
    check_call(cfg["data"], "data", given=("format", "need_references"), without=("gold",))
    check_call(cfg["task"]["format"], "task.format")
    for where in ("task.metrics", "ppo.rewards"):
        for name in _at(cfg, where):
            if not name.isidentifier() or hasattr(torch.nn.ModuleDict, name) or name == "training":
                raise UserError(f"{where}.{name} can't be called that; choose a plain word as its name")
    for name, metric in cfg["task"]["metrics"].items():
        check_call(metric, f"task.metrics.{name}")
    _check_model(cfg["model"], "model")
    sampling = {k: v for k, v in cfg["evaluate"].items() if k != "batch_size"}
    check_arguments(Sampling, sampling, "evaluate", None)
    check_call(cfg["rollout"], "rollout")
    if cfg.get("loop") is not None:
        check_call(cfg["loop"], "loop")
    check_call(cfg["trainer"], "trainer")
    for stage in (s for s in STAGES if s in cfg["stages"]):
        _check_stage(cfg[stage], stage)
    check_numbers(cfg)
    if "ppo" in cfg["stages"]:
        _check_alarms(cfg["ppo"]["alarms"], cfg["ppo"]["stop_on"])
    for stage in {"sft", "reward"} & set(cfg["stages"]):
        _check_length(cfg[stage]["trainer"], stage)
    _check_precision(cfg["trainer"]["precision"], cfg["stages"])
    _check_strategy(cfg["trainer"], cfg["stages"])
    ppo, tiny = cfg["ppo"], cfg["model"].get("tiny")
    responses = ppo["loader"]["batch_size"] * ppo["responses_per_prompt"]
    if "ppo" in cfg["stages"] and ppo["minibatches"] > responses:
        raise UserError(f"ppo.minibatches={ppo['minibatches']} is more than the {responses} responses of a round")
    if tiny is not None and tiny["hidden"] % tiny["heads"]:
        raise UserError(f"model.tiny.hidden={tiny['hidden']} must be a multiple of model.tiny.heads={tiny['heads']}")
    if not sampling["greedy"] and sampling["temperature"] <= 0:
        raise UserError(f"evaluate.temperature must be above 0, not {sampling['temperature']}")


def processes(trainer: dict[str, Any]) -> int:
    """How many processes the group `trainer` asks for, as far as that can be known before there is a Trainer."""
    devices = trainer["devices"]
    if isinstance(devices, str) and devices.isdigit():
        devices = int(devices)
    if devices in ("auto", -1, "-1"):
        devices = torch.cuda.device_count() if trainer["accelerator"] in ("auto", "gpu", "cuda") else 1
    elif isinstance(devices, (str, list)):
        devices = len(devices if isinstance(devices, list) else devices.split(","))
    return max(int(devices), 1) * int(trainer["num_nodes"])


def _check_stage(config: dict[str, Any], stage: str) -> None:
    loader, given, without = STAGES[stage]
    check_call(config, stage, given, without)
    check_arguments(loader, config["loader"], f"{stage}.loader", ROWS)
    check_arguments(L.Trainer, config["trainer"], f"{stage}.trainer", None)
    if config.get("model") is not None:
        if config["model"]["name"] is None:
            raise UserError(f"{stage}.model.name must be given (without {stage}.model it starts from the policy)")
        _check_model(config["model"], f"{stage}.model")
    for name, reward in config.get("rewards", {}).items():
        check_value(reward.get("weight"), float, f"{stage}.rewards.{name}.weight")
        learned = ("model",) if reward["_target_"].endswith("LearnedReward") else ()
        check_call(reward, f"{stage}.rewards.{name}", learned, ("weight",))


def _check_length(limits: dict[str, Any], stage: str) -> None:
    """Refuse a training that does nothing, or that never ends."""
    epochs, steps = limits["max_epochs"], limits["max_steps"]
    if epochs is not None and (epochs == 0 or epochs < -1):
        raise UserError(f"{stage}.trainer.max_epochs must be at least 1, or -1 for no limit, not {epochs}")
    if steps == 0 or steps < -1:
        raise UserError(f"{stage}.trainer.max_steps must be at least 1, or -1 for no limit, not {steps}")
    if epochs == steps == -1:
        raise UserError(
            f"{stage} would never end: give {stage}.trainer.max_epochs or .max_steps (max_time may end it sooner)"
        )


def _check_precision(precision: Any, stages: list[str]) -> None:
    """Refuse what would fail later, or go wrong in silence."""
    kind = str(precision)
    if kind in ("64", "16-true", "bf16-true", "64-true", "transformer-engine", "transformer-engine-float16"):
        raise UserError(
            f"trainer.precision={kind}: use 32-true or bf16-mixed; the type of the weights is model.dtype, for example "
            "model.dtype=bfloat16"
        )
    if kind in ("16", "16-mixed") and "ppo" in stages:
        raise UserError(
            f"trainer.precision={kind}: PPO clips gradients before half precision's scale is taken off them; use "
            "bf16-mixed or 32-true"
        )


def _check_alarms(limits: dict[str, Any], stop_on: list[str]) -> None:
    for name, limit in limits.items():
        check_value(limit, float | None, f"ppo.alarms.{name}")
        if limit is not None and not limit > 0:  # nor NaN
            raise UserError(f"ppo.alarms.{name} must be above 0, or null to turn it off, not {limit}")
    for where, names in (("alarms", list(limits)), ("stop_on", stop_on)):
        if unknown := [name for name in names if name not in LIMITS]:
            raise UserError(f"ppo.{where}: there is no alarm {unknown[0]!r}; there are {', '.join(LIMITS)}")
    if off := [name for name in stop_on if limits.get(name, LIMITS[name]) is None]:
        raise UserError(f"ppo.stop_on: the alarm {off[0]} is turned off by ppo.alarms.{off[0]}=null")


def strategy_name(trainer: dict[str, Any]) -> str:
    """The strategy that the group `trainer` names, in small letters."""
    strategy = trainer["strategy"]
    return str(strategy["_target_"] if isinstance(strategy, dict) else strategy).rpartition(".")[2].lower()


def _check_strategy(trainer: dict[str, Any], stages: list[str]) -> None:
    """Refuse strategies that can't do what the stages need."""
    name = strategy_name(trainer)
    if name.startswith("fsdp") and not name.startswith("fsdp2"):
        raise UserError(
            f"trainer.strategy={name}: a model under the first version of FSDP can't generate while it is trained, "
            "which PPO and validation do, nor be saved as a model folder; trainer=fsdp2 deals out the same and can"
        )
    if name.startswith("deepspeed"):
        if "ppo" in stages:
            raise UserError(
                "PPO can't run under DeepSpeed, whose one engine takes one optimizer step a batch, where PPO takes "
                "several: use trainer=ddp or trainer=fsdp2 (stages=[sft] and stages=[reward] run under it)"
            )
        if "stage_3" in name or "offload" in name:
            raise UserError(f"trainer.strategy={name}: use deepspeed_stage_2, or trainer=fsdp2 to deal out weights too")
    if name.startswith("fsdp2") and str(trainer["precision"]) in ("16", "16-mixed"):
        raise UserError("trainer.precision=16-mixed does not work with FSDP2: use bf16-mixed or 32-true")


def _check_model(model: dict[str, Any], where: str) -> None:
    made = model.get("tiny") is not None
    check_call(model, where, without=("tiny", "recommended", *(("name",) if made else ())), given=("name",) * made)
    if made:
        check_call(model["tiny"], f"{where}.tiny")
    if isinstance(rank := _at(model, "lora.r"), int) and rank < 0:
        raise UserError(f"{where}.lora.r must be at least 0 (0 is no adapter), not {rank}")


def _at(cfg: dict[str, Any], path: str) -> Any:
    value: Any = cfg
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value
