"""Model cards: what they tell, what they don't, and that the snippet in them runs."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.tiny_models import spread_weights

from rlhf_lightning.data.rows import Prompt
from rlhf_lightning.models import LoraSpec, ModelSpec, Policy, RewardModel, load_answerer
from rlhf_lightning.report.card import card, without_paths, write_cards
from rlhf_lightning.report.results import PolicyResult, RunResults

ROWS = {"train": [90, "a" * 32], "test": [10, "b" * 32], "preferences": [0, "c" * 32], "predict.input": [0, ""]}


def config(**changes: Any) -> dict[str, Any]:
    stage = {"lr": 1e-3, "trainer": {"max_epochs": 2}, "loader": {"batch_size": 8},
             "optimizer": {"_target_": "torch.optim.AdamW"}}  # fmt: skip
    made = {
        "task": {"name": "qa", "format": {"prompt": "{question}\nAnswer:"}, "max_completion_tokens": 6},
        "policy": None,
        "reward_model": None,
        "model": {"name": "/home/me/secret/base", "dtype": "float32", "lora": {"r": 0}},
        "data": {"train": "/home/me/rows.jsonl", "test": "hub:owner/set:config#test", "gold": None},
        "trainer": {"precision": "32-true"},
        "sft": stage,
        "reward": {**stage, "normalise": "scale"},
        "ppo": {**stage, "updates": 3, "rewards": {"http": {"weight": 1.0, "api_key": "sk-123"}}},
    }
    return {**made, **changes}


def results(**changes: Any) -> RunResults:
    made = RunResults(
        task="qa", seed=3, stages=["sft", "reward", "ppo"], objective="token_f1", held_out=10,
        policies=[PolicyResult("base", None, {"token_f1": 0.1}), PolicyResult("sft", "sft/model", {"token_f1": 0.5}),
                  PolicyResult("ppo", "ppo/model", {"token_f1": 0.75, "kl": 1.5})],
        columns={"task": ["token_f1"], "reward": [], "guardrails": ["kl"]}, directions={"token_f1": "max", "kl": None},
        reward_model={"accuracy": 0.8}, versions={"torch": "2.13"},
        notes=["ppo: alarm kl_limit after 3 optimizer steps: see /home/me/run/bad_batch/1.json", "sft: something"],
    )  # fmt: skip
    for name, value in changes.items():
        setattr(made, name, value)
    return made


@pytest.fixture
def exported(model_dir: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """The model folder of a stage, as the stage would write it."""

    def export(stage: str, kind: str, lora: LoraSpec | None = None) -> Path:
        spec = ModelSpec(str(model_dir(kind)), lora=lora or LoraSpec())
        folder, limits = tmp_path / stage / "model", {"max_prompt": 40, "max_completion": 6}
        if stage == "reward":
            model: Any = RewardModel.load(spec, **limits, fresh_head=True)
            model.mean.fill_(0.5)
            model.std.fill_(2.0)
        else:
            model = load_answerer(spec, **limits, labels=("yes", "no"), fresh_head=True)
        spread_weights(model, std=0.3, seed=1)
        return model.save(folder)

    return export


def run_snippet(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Run what stands between the card's fences, in the model's folder; what it prints."""
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert code is not None
    monkeypatch.chdir(folder)
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(code[1], "card", "exec"), {})
    return capsys.readouterr().out.strip()


ADAPTER = LoraSpec(r=2, merge=False)
PROMPT = Prompt("the question\nAnswer:")


@pytest.mark.parametrize(("kind", "lora"), [("llama", None), ("gpt2", None), ("t5", None), ("llama", ADAPTER)])
def test_the_snippet_answers_as_the_policy_does(kind, lora, exported, monkeypatch, capsys) -> None:
    from rlhf_lightning.data.batches import prompt_batch
    from rlhf_lightning.data.rows import PromptRow
    from rlhf_lightning.models import Sampling

    folder = exported("ppo", kind, lora)
    text = card("ppo", folder, results(), config(), ROWS)
    policy = Policy.load(ModelSpec(str(folder)), max_prompt=40, max_completion=6)
    answer = policy.complete(prompt_batch([(0, PromptRow(PROMPT))], policy.codec), Sampling(greedy=True))
    assert run_snippet(text, folder, monkeypatch, capsys) == answer.texts[0]
    assert ("peft" in text) == (lora is not None)


@pytest.mark.parametrize(("kind", "lora"), [("llama", None), ("t5", None), ("bert", None), ("llama", ADAPTER)])
def test_the_snippet_scores_as_the_reward_model_does(kind, lora, exported, monkeypatch, capsys) -> None:
    folder = exported("reward", kind, lora)
    text = card("reward", folder, results(), config(), ROWS)
    model = RewardModel.load(ModelSpec(str(folder)), max_prompt=40, max_completion=24)
    score = float(model.score([PROMPT], ["an answer"]))
    assert float(run_snippet(text, folder, monkeypatch, capsys)) == pytest.approx(score, rel=1e-4)


def test_the_snippet_of_a_classifier(exported, monkeypatch, capsys) -> None:
    folder = exported("sft", "bert")
    text = card("sft", folder, results(), config(), ROWS)
    assert run_snippet(text, folder, monkeypatch, capsys) in ("yes", "no")
    assert yaml.safe_load(text.split("---")[1])["pipeline_tag"] == "text-classification"


def test_what_a_card_tells_and_what_it_does_not(exported) -> None:
    text = card("ppo", exported("ppo", "llama"), results(), config(), ROWS)
    front = yaml.safe_load(text.split("---")[1])
    assert front["license"] == "unknown"
    assert front["datasets"] == ["owner/set"]
    assert "base_model" not in front
    for told in ("# PPO of base, for qa", "| token_f1 ↑ | 0.100 | 0.500 | 0.750 |", "accuracy 0.800", "| train | 90 |",
                 "`aaaaaaaaaaaa`", "rows.jsonl", "| ppo.updates | 3 |", "alarm kl_limit", "| seed | 3 |",
                 "hub:owner/set:config#test", "torch 2.13", "Not tested"):  # fmt: skip
        assert told in text, told
    for hidden in ("/home", "sk-123", "sft: something", "sample data"):
        assert hidden not in text, hidden


def test_an_earlier_stage_does_not_tell_of_a_later_one(exported) -> None:
    text = card("sft", exported("sft", "llama"), results(), config(), ROWS)
    assert "| token_f1 ↑ | 0.100 | 0.500 |" in text
    assert "0.750" not in text
    assert "ppo.updates" not in text
    assert "alarm" not in text


def test_the_license_of_the_base_goes_on(exported, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "README.md").write_text("---\nlicense: mit\nlanguage: de\nbase_model: owner/root\n---\n# Base\n")
    made = card("sft", exported("sft", "llama"), results(), config(policy=str(base)), ROWS)
    front = yaml.safe_load(made.split("---")[1])
    assert (front["license"], front["language"], front["base_model"]) == ("mit", "de", "owner/root")


def test_a_reward_model_of_its_own_is_named_with_its_base(exported, tmp_path: Path) -> None:
    base = tmp_path / "encoder"
    base.mkdir()
    (base / "README.md").write_text("---\nlicense: mit\nbase_model: owner/encoder\n---\n# Base\n")
    reward = {**config()["reward"], "model": {"name": str(base), "dtype": "bfloat16", "lora": {"r": 8}}}
    made = card("reward", exported("reward", "bert"), results(), config(reward=reward, policy="owner/policy"), ROWS)
    front = yaml.safe_load(made.split("---")[1])
    assert (front["license"], front["base_model"]) == ("mit", "owner/encoder")
    for told in ("# Reward model of encoder, for qa", "| model.dtype | bfloat16 |", "| model.lora.r | 8 |"):
        assert told in made, told
    for wrong in ("owner/policy", "after sft", "| sft."):
        assert wrong not in made, wrong


def test_cards_are_written_where_models_are_and_anew(exported, tmp_path: Path) -> None:
    exported("sft", "llama")
    write_cards(tmp_path, results(policies=[], status="running"), config(), ROWS)
    path = tmp_path / "sft" / "model" / "README.md"
    assert "Not measured yet" in path.read_text(encoding="utf-8")
    write_cards(tmp_path, results(), config(), ROWS)
    assert "0.500" in path.read_text(encoding="utf-8")
    assert not (tmp_path / "ppo").exists()


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("see '/home/me/a b.json'", "see 'a b.json'"),
        ("in ~/runs/x: no", "in x: no"),
        ("sft/model and owner/name stay, 1/2 too", "sft/model and owner/name stay, 1/2 too"),
        ("https://host/a/b stays", "https://host/a/b stays"),
    ],
)
def test_paths_are_but_their_last_names(text: str, left: str) -> None:
    assert without_paths(text) == left
