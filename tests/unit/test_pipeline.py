"""What the pipeline decides before it trains."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra

from rlhf_lightning.callbacks import StopRequest
from rlhf_lightning.data.rows import PreferenceRow, Prompt, PromptRow
from rlhf_lightning.data.sources import TaskData
from rlhf_lightning.early import check_stages
from rlhf_lightning.errors import UserError
from rlhf_lightning.hydra_support import plain, register_resolvers
from rlhf_lightning.models import RewardModel
from rlhf_lightning.pipeline.checks import _try_rewards, check_parts, settle_sample
from rlhf_lightning.pipeline.measure import functions
from rlhf_lightning.pipeline.options import check_options, processes
from rlhf_lightning.pipeline.run import Run, report_samples
from rlhf_lightning.pipeline.stages import base_model, reward_spec
from rlhf_lightning.pipeline.tracking import loggers
from rlhf_lightning.report import RunResults
from rlhf_lightning.stages import Sample
from rlhf_lightning.state import State


def config(*overrides: str) -> dict[str, Any]:
    register_resolvers()
    GlobalHydra.instance().clear()
    with initialize_config_module("rlhf_lightning.conf", version_base="1.3"):
        return plain(compose("train", overrides=list(overrides)))


def make_run(cfg: dict[str, Any], folder: Path, data: TaskData | None = None) -> Run:
    return Run(cfg, folder, None, data or TaskData(), RunResults(task="t"), State(), StopRequest(), spec=None)


@pytest.mark.parametrize(
    "overrides",
    [
        "",
        "stages=[sft]",
        "stages=[reward]",
        "stages=[sft,ppo] rewards=chrf",
        "stages=[ppo] policy=a reward_model=b",
        "stages=[ppo,evaluate] policy=a rewards=[chrf,constant]",
        "stages=[reward,ppo] policy=a",
        "stages=[evaluate] policy=a",
        "stages=[evaluate] model=gpt2",
        "stages=[predict] policy=a predict.input=f",
        "stages=[ppo] policy=a +ppo.rewards.learned.model=other",
    ],
)
def test_stages_that_make_sense(overrides: str) -> None:
    cfg = config(*overrides.split())
    check_options(cfg)
    check_stages(cfg)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("reward_model=a", "leave one of them out, as in stages=[sft,ppo]"),
        ("stages=[rlhf]", "'rlhf'"),
        ("stages=[sft,ppo]", "reward_model=FOLDER"),
        ("stages=[sft,ppo,reward]", "put reward before ppo"),
        ("stages=[ppo] rewards=chrf", "policy=FOLDER"),
        ("stages=[reward,ppo]", "ppo needs a policy"),
        ("stages=[ppo] policy=a", "reward_model=FOLDER"),
        ("stages=[ppo,sft] policy=a rewards=chrf", "sft must come before ppo"),
        ("stages=[sft,ppo] ~ppo.rewards.learned", "rewards=learned"),
        ("stages=[predict] policy=a", "predict.input=FILE"),
    ],
)
def test_stages_that_do_not(overrides: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        check_stages(config(*overrides.split()))
    assert said in str(refused.value)


def test_options_of_stages_that_are_not_run_do_not_matter() -> None:
    check_options(config("stages=[sft]", "ppo.epochs=x"))
    with pytest.raises(UserError, match=r"ppo\.epochs"):
        check_options(config("stages=[ppo]", "ppo.epochs=x"))


def test_profile_is_on_or_off() -> None:
    check_options(config("profile=true"))
    with pytest.raises(UserError, match=r"^profile"):
        check_options(config("profile=4"))


@pytest.mark.parametrize("key", ["task.system", "task.metrics", "data.columns", "data.gold"])
def test_a_yaml_of_the_users_own_that_lacks_something(key: str) -> None:
    cfg = config()
    group, name = key.split(".")
    del cfg[group][name]
    with pytest.raises(UserError, match=rf"^{key} is missing"):
        check_options(cfg)


@pytest.mark.parametrize("parts", [[], ["data.train=my.tsv", "data.test=t.tsv"], ["data.preferences=p.jsonl"]])
def test_the_sample_is_used_whole_or_not_at_all(parts: list[str]) -> None:
    cfg = config("task=qa", *parts)
    notes = settle_sample(cfg)
    given = {part.split("=")[0].removeprefix("data.") for part in parts}
    named = {part for part in ("train", "validation", "test", "preferences", "preferences_test") if cfg["data"][part]}
    if not parts:
        assert notes == []
        assert len(named) == 5
        assert cfg["data"]["gold"]
    else:
        assert named == given
        assert cfg["data"]["gold"] is None
        assert all(f"data.{part}" in notes[0] for part in given)


@pytest.mark.parametrize("override", ["task.name=mine", "stages=[predict]"])
def test_the_sample_is_not_read_where_it_does_not_belong(override: str) -> None:
    """A task of the user's own ships no rows; to answer prompts none are needed."""
    cfg = config("task=qa", override)
    assert settle_sample(cfg) == []
    assert not any(cfg["data"][part] for part in ("train", "validation", "test", "preferences", "preferences_test"))
    assert cfg["data"]["gold"] is None


def test_parts_that_a_stage_needs() -> None:
    row = PromptRow(Prompt("p"), references=["r"])
    cfg = config("stages=[sft]")
    with pytest.raises(UserError, match=r"data\.train=FILE"):
        check_parts(cfg, TaskData(test=[row]))
    with pytest.raises(UserError, match=r"data\.preferences=FILE"):
        check_parts(config("stages=[reward]"), TaskData())
    pairs = [PreferenceRow(Prompt("p"), "same", "worse"), PreferenceRow(Prompt("p"), "same", "bad")]
    with pytest.raises(UserError, match=r"data\.preferences's answers, but these are all one.*reward\.normalise=shift"):
        check_parts(config("stages=[reward]"), TaskData(preferences=pairs))
    check_parts(config("stages=[reward]", "reward.normalise=shift"), TaskData(preferences=pairs))
    with pytest.raises(UserError, match="fewer than one batch of 64"):
        check_parts(config("stages=[ppo]"), TaskData(prompts=[row], test=[row]))
    with pytest.raises(UserError, match=r"data\.test=FILE"):
        check_parts(config("stages=[evaluate]"), TaskData())
    with pytest.raises(UserError, match="no reference"):
        check_parts(config("stages=[evaluate]"), TaskData(test=[PromptRow(Prompt("p"), references=[])]))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], 1),
        (["trainer=ddp"], 2),
        (["trainer=ddp", "trainer.num_nodes=3"], 6),
        (["trainer.devices=[0,3]"], 2),
        (["trainer.devices='1,2,3'"], 3),
        (["trainer.devices='4'"], 4),
        (["trainer.devices=auto", "trainer.accelerator=cpu"], 1),
    ],
)
def test_number_of_processes(overrides: list[str], expected: int) -> None:
    assert processes(config(*overrides)["trainer"]) == expected


def test_prompts_must_fill_a_batch_on_every_device() -> None:
    rows = TaskData(prompts=[PromptRow(Prompt("p"), references=["r"])] * 100)
    rows.test = rows.prompts
    check_parts(config("stages=[ppo]"), rows)
    with pytest.raises(UserError, match="one batch of 64 on each of 2 devices"):
        check_parts(config("stages=[ppo]", "trainer=ddp"), rows)


def test_metrics_are_tried_before_training() -> None:
    rows = TaskData(test=[PromptRow(Prompt("p"), references=["r s"])])
    check_parts(config("stages=[evaluate]", "task.objective=rouge2"), rows)
    check_parts(config("stages=[evaluate]", "task.objective=eos_rate"), rows)
    none = config("stages=[evaluate]", "task.objective=null")
    none["task"]["metrics"] = {}
    check_parts(none, rows)
    with pytest.raises(UserError, match=r"task\.objective=rouge3.* rougeL"):
        check_parts(config("stages=[evaluate]", "task.objective=rouge3"), rows)
    labels = config("stages=[evaluate]", "task=classification")
    with pytest.raises(UserError, match=r"task\.metrics\.\w+ fails on the references"):
        check_parts(labels, rows)


def test_where_the_policy_and_the_reward_model_start(tmp_path: Path) -> None:
    given = base_model(config("policy=some/model", "model.lora.r=8"), TaskData(), tmp_path)
    assert (given.name, given.lora.r, given.revision) == ("some/model", 8, None)
    assert base_model(config("model=gpt2"), TaskData(), tmp_path).name == "openai-community/gpt2"
    with pytest.raises(UserError, match=r"data\.train=FILE"):
        base_model(config(), TaskData(), tmp_path)
    run = make_run(config("model@reward.model=minilm"), tmp_path)
    assert reward_spec(run).name == "sentence-transformers/all-MiniLM-L6-v2"
    run = make_run(config(), tmp_path)
    run.spec = given
    assert reward_spec(run) is given


def test_every_logger_gets_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B's has an argument called config."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    csv, wandb = loggers(make_run(config("logger=[csv,wandb]"), tmp_path), "sft")
    assert Path(csv.log_dir) == tmp_path / "sft"
    assert wandb._wandb_init["job_type"] == "sft"
    assert "summarization" in wandb._wandb_init["tags"]
    assert wandb._wandb_init["config"]["seed"] == 0


def test_samples_whose_scoring_failed_are_still_written(tmp_path: Path) -> None:
    run = make_run(config(), tmp_path)
    rows = [PromptRow(Prompt(f"p{i}"), references=["r"]) for i in range(2)]
    run.answers = {name: [Sample(i, row, f"{name}{i}") for i, row in enumerate(rows)] for name in ("base", "sft")}
    run.scores = {"base": {"gold": torch.tensor([0.5, 1.0])}}
    first, second = report_samples(run)
    assert first.completions == {"base": "base0", "sft": "sft0"}
    assert second.scores == {"base": {"gold": 1.0}, "sft": {}}


def test_a_reward_is_made_once_a_run(model_dir, tmp_path: Path) -> None:
    """Making one may load a model; a learned one waits for the run's reward model."""
    run = make_run(config("rewards=[learned,chrf]"), tmp_path)
    first = functions(run)
    assert list(first) == ["chrf"]
    run.reward_model = RewardModel.load(str(model_dir("llama")), max_prompt=16, max_completion=8, fresh_head=True)
    second = functions(run)
    assert list(second) == ["learned", "chrf"]
    assert second["chrf"] is first["chrf"]
    assert functions(run)["learned"] is second["learned"]


@pytest.mark.filterwarnings("ignore:the reward 'odd'")
def test_a_reward_that_fails_now_and_then_may_be_masked_from_the_start() -> None:
    def none(prompts, completions, references, meta):
        return torch.full((len(prompts),), float("nan"))

    def some(prompts, completions, references, meta):
        return torch.tensor([float("nan"), *range(1, len(prompts))])

    asked = [PromptRow(Prompt(text)) for text in ("one", "two")]
    with pytest.warns(UserWarning, match="is nan for the completion"):
        _try_rewards({"some": some}, asked, ["a", "b"], "mask")
    for reward, setting in ((some, "stop"), (none, "stop"), (none, "mask")):
        with pytest.raises(UserError, match="is nan for the completion"):
            _try_rewards({"odd": reward}, asked, ["a", "b"], setting)
