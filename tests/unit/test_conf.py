"""Every option of every group composes, and what it names exists and takes what it is given."""

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from rlhf_lightning.hydra_support import plain, register_resolvers
from rlhf_lightning.pipeline.options import check_options

CONF = Path(__file__).parents[2] / "conf"
FILL = [
    "model.name=some/model",
    "data.train=train.jsonl",
    "ppo.rewards.function.path=a.b",
    "ppo.rewards.http.url=http://a/b",
]
"""Values for what an option leaves to the user."""

GIVEN_BY_CODE = {
    "mlflow_logger": {"save_dir", "run_name"},
    "SFTModule": {"policy", "evaluator"},
    "RewardModule": {"model"},
    "PPOModule": {"policy", "rewards", "reward_weights", "critic", "evaluator"},
    "load_task_data": {"format"},
    "LearnedReward": {"model", "max_prompt", "max_completion"},
}
TAKEN_BY_PIPELINE = {
    "SFTModule": {"loader", "trainer"},
    "RewardModule": {"loader", "trainer", "normalise", "ranking", "model"},
    "PPOModule": {"loader", "trainer", "updates", "rewards", "critic", "patience", "export", "alarms", "stop_on"},
    "load_task_data": {"gold"},
    "ModelSpec": {"tiny", "recommended"},
}
ANY_REWARD = {"weight"}


def options() -> list[str]:
    found = []
    for path in sorted(CONF.glob("*/*.yaml")):
        group, name = path.parent.name, path.stem
        if group == "launcher":
            continue  # each needs a package of its own; tests/end_to_end/test_launchers.py
        if group in ("optimizer", "schedule"):
            found += [f"{group}@{stage}.{group}={name}" for stage in ("sft", "reward", "ppo")]
        elif group == "stage":
            found.append(f"stage@{name}={name}")
        else:
            found.append(f"{group}={name}")
            if group == "model":
                found.append(f"model@reward.model={name}")
    return found


def compose_with(*overrides: str) -> DictConfig:
    register_resolvers()
    GlobalHydra.instance().clear()
    with initialize_config_module("rlhf_lightning.conf", version_base="1.3"):
        return compose("train", overrides=list(overrides))


def fill(option: str) -> list[str]:
    wanted = [option]
    if option in ("model=hf",):
        wanted.append(FILL[0])
    if option == "model@reward.model=hf":
        wanted.append("reward.model.name=some/model")
    if option == "data=hub":
        wanted.append(FILL[1])
    if option == "rewards=function":
        wanted.append(FILL[2])
    if option == "rewards=http":
        wanted.append(FILL[3])
    if option == "rewards=people":
        wanted.append("ppo.rewards.people.store=feedback.db")
    if option == "rewards=classifier":
        wanted += ["ppo.rewards.classifier.model=some/model", "ppo.rewards.classifier.label=POSITIVE"]
    if option == "rewards=label_accuracy":
        wanted.append("task=classification")
    return wanted


def targets(node: Any) -> list[dict]:
    if isinstance(node, dict):
        return ([node] if "_target_" in node else []) + [t for v in node.values() for t in targets(v)]
    return [t for v in node for t in targets(v)] if isinstance(node, list) else []


@pytest.mark.parametrize("option", options())
def test_an_option_composes_and_its_targets_take_its_values(option: str) -> None:
    config = plain(compose_with(*fill(option)))
    for target in targets(config):
        module, _, name = target["_target_"].rpartition(".")
        function = getattr(importlib.import_module(module), name)
        given = set(target) - {"_target_", "_partial_"} - TAKEN_BY_PIPELINE.get(name, set())
        if "Reward" in name and name != "RewardModule":
            given -= ANY_REWARD
        parameters = inspect.signature(function).parameters
        if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            continue
        assert given <= set(parameters), (target["_target_"], given - set(parameters))
        required = {n for n, p in parameters.items() if p.default is p.empty and n not in ("self",)}
        if not target.get("_partial_"):
            assert required <= given | GIVEN_BY_CODE.get(name, set()), (target["_target_"], required - given)
    if not option.startswith("model@reward.model=tiny"):  # a reward model starts from the policy, or from a real one
        config["stages"] = ["sft", "reward", "ppo", "evaluate", "predict"]
        if option == "trainer=deepspeed":  # not for PPO
            config["stages"].remove("ppo")
        check_options(config)


def test_the_groups_are_found() -> None:
    assert {"task=qa", "rewards=chrf", "optimizer@ppo.optimizer=sgd", "experiment=smoke"} <= set(options())


def test_several_rewards_stand_side_by_side() -> None:
    assert set(compose_with("rewards=[chrf,constant]").ppo.rewards) == {"chrf", "constant"}


def test_a_reward_model_of_its_own_brings_its_own_learning_rate() -> None:
    assert compose_with().reward.lr == compose_with().model.recommended.reward.lr
    other = compose_with("model@reward.model=minilm")
    assert other.reward.lr == other.reward.model.recommended.reward.lr != other.model.recommended.reward.lr


def test_every_task_names_its_sample() -> None:
    for task in ("summarization", "translation", "qa", "classification"):
        config = compose_with(f"task={task}")
        for part in ("train", "validation", "test", "preferences", "preferences_test"):
            assert Path(config.data[part]).is_file()
        assert OmegaConf.select(config, "data.gold") == f"rlhf_lightning.tasks.{task}.gold.score"


def test_runs_of_several_seeds_hold_out_the_same_rows() -> None:
    """Rows are split by a seed that is not the run's, so that answers of several seeds are to the same prompts."""
    assert OmegaConf.load(CONF / "data" / "files.yaml")["seed"] == 0
