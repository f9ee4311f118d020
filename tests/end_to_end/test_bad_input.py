"""Mistakes of a user's: one message that names place and remedy, no traceback, nothing trained."""

import json
import pickle
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from console import SMALL, metrics, ok, run
from console import write_rows as write

from rlhf_lightning import TinySpec, make_tiny

ROWS = [{"text": f"a sentence {i}", "label": "tech"} for i in range(40)]
FILES = ["task=classification", "data=files", "stages=[sft]"]


def test_a_missing_file(refused, tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", ROWS)
    message = refused(*FILES, "data.train=trian.jsonl")
    assert "trian.jsonl" in message
    assert "train.jsonl" in message.replace("trian.jsonl", "")


class Bomb:
    """A pickle of it writes a file when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return Path.touch, (self.marker,)


def damaged_model(folder: Path, damage: str) -> None:
    make_tiny(TinySpec(hidden=16, layers=1, heads=1, vocab_size=300), ["some text to learn tokens from"], folder)
    weights = folder / "model.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    else:
        weights.unlink()
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(folder / "executed")))


@pytest.mark.parametrize(
    "option", ["model=hf model.name=bad", "model@reward.model=hf reward.model.name=bad", "ppo.critic=bad", "policy=bad"]
)
@pytest.mark.parametrize("damage", ["cut", "pickle"])
def test_a_damaged_model_is_refused_before_any_stage(refused, tmp_path: Path, option: str, damage: str) -> None:
    damaged_model(tmp_path / "bad", damage)
    if "critic" in option:  # a reward model's config: only its weights are wrong
        path = tmp_path / "bad" / "config.json"
        settings = {**json.loads(path.read_text()), "architectures": ["LlamaForSequenceClassification"]}
        path.write_text(json.dumps({**settings, "id2label": {"0": "reward"}, "label2id": {"reward": 0}}))
    message = refused("task=qa", *option.split())
    assert "cannot load the model 'bad'" in message
    assert {"cut": "model.safetensors is damaged", "pickle": "pytorch_model.bin, a pickle"}[damage] in message
    assert not (tmp_path / "bad" / "executed").exists()


def test_an_unknown_column(refused, tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", [{"txt": "a", "label": "tech"}] * 20)
    message = refused(*FILES, f"data.train={path}")
    for part in ("t.jsonl, line 1", "'text'", "txt", "data.columns"):
        assert part in message


def test_a_row_without_a_reference(refused, tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", [*ROWS, {"text": "a", "label": ""}])
    assert "t.jsonl, line 41" in refused(*FILES, f"data.train={path}")


def test_a_label_outside_the_set(refused, tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", [*ROWS, {"text": "a", "label": "sprots"}])
    message = refused(*FILES, f"data.train={path}")
    for part in ("line 41", "'sprots'", "tech, sports, positive, negative"):
        assert part in message


def test_bytes_that_are_not_utf_8(refused, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"text,label\nok,tech\nna\xefve,tech\n")
    message = refused(*FILES, "data.train=t.csv")
    for part in ("t.csv, line 3", "0xef", "data.encoding=latin-1"):
        assert part in message


def test_an_empty_file(refused, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").touch()
    assert "t.jsonl" in refused(*FILES, "data.train=t.jsonl")


def test_limits_beyond_the_models_window(refused) -> None:
    message = refused("task=qa", "task.max_prompt_tokens=600")
    assert "600" in message
    assert "512" in message


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return [1.0]", "one number each"),
        ("return [float('nan')] * len(completions)", "nan"),
        ("raise KeyError('oops')", "oops"),
        ("return None", "function"),
    ],
)
def test_a_reward_function_that_misbehaves(refused, tmp_path: Path, monkeypatch, body: str, said: str) -> None:
    name = f"bad_reward_{abs(hash(body))}"
    (tmp_path / f"{name}.py").write_text(f"def mine(prompts, completions, references, meta):\n    {body}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    message = refused("task=qa", "stages=[sft,ppo]", "rewards=function", f"ppo.rewards.function.path={name}.mine")
    assert said in message


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("stages=[ppo]", "policy="),
        ("stages=[evaluate]", "policy="),
        ("stages=[sft,ppo]", "reward_model="),
        ("stages=[ppo,sft] policy=x", "sft must come before ppo"),
        ("stages=[sft,pp]", "'pp'"),
        ("stages=[sft,sft]", "once"),
        ("stages=sft", "stages=[sft]"),
        ("stages=null", "stages=[sft]"),
        ("stages=[[sft]]", "stages=[sft]"),
        ("reward_model=some/model", "leave one of them out"),
        ("stages=[sft,predict]", "predict.input"),
        ("stages=[sft,predict] predict.input=nothing.jsonl", "nothing.jsonl"),
        ("policy=no/such/folder", "no such folder"),
        ("policy=.", "config.json"),
        ("reward_model=. stages=[sft,ppo]", "config.json"),
        ("ppo.critic=no/such/folder", "no such folder"),
        ("rewards=function ppo.rewards.function.path=no.such.thing", "no.such.thing"),
        ("rewards=function", "ppo.rewards.function.path must be given"),
        ("data.gold=no.such.judge", "no.such.judge"),
        ("data.train=x.jsonl data.preferences=x.jsonl", "x.jsonl"),
        ("model=hf", "model.name must be given"),
        ("model@reward.model=tiny", "reward.model.name"),
    ],
)
def test_runs_that_cannot_be(refused, overrides: str, said: str) -> None:
    assert said in refused(*overrides.split())


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("rollout.slots=0", "at least 1"),
        pytest.param("rollout=vllm", "[vllm]", marks=pytest.mark.skipif(bool(find_spec("vllm")), reason="it is there")),
    ],
)
def test_an_engine_that_cannot_be_is_refused_before_anything_is_written(
    refused, tmp_path: Path, option: str, said: str
) -> None:
    assert said in refused(option)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("ppo.kl_coeff=0.1", "Did you mean 'ppo.kl_coef'?"),
        ("task=translatoin", "Did you mean task=translation?"),
        ("rewards=chfr", "chrf"),
        ("sft.optimizer.nesterov=true", "sft.optimizer.nesterov"),
        ("+ppo.kl_coeff=0.1", "Did you mean ppo.kl_coef?"),
        ("+sft.loader.batchsize=4", "Did you mean sft.loader.batch_size?"),
        ("+ppo.trainer.max_tim=1", "Did you mean ppo.trainer.max_time?"),
        ("ppo.epochs=x", "ppo.epochs must be a whole number, not 'x'"),
        ("ppo.epochs=1.5", "ppo.epochs must be a whole number"),
        ("ppo.epochs=0", "ppo.epochs must be at least 1"),
        ("ppo.updates=many", "ppo.updates must be a whole number"),
        ("ppo.kl=adaptivee", "ppo.kl must be fixed or adaptive, not 'adaptivee'"),
        ("ppo.missing_eos=drop", "replace or subtract"),
        ("ppo.minibatches=100", "64 responses"),
        ("ppo.rewards.learned.weight=x", "ppo.rewards.learned.weight must be a number"),
        ("reward.normalise=no", "scale, shift or none"),
        ("sft.lr=high", "sft.lr must be a number"),
        ("sft.trainer.max_epochs=x", "sft.trainer.max_epochs must be a whole number or null"),
        ("sft.loader.batch_size=0", "sft.loader.batch_size must be at least 1"),
        ("sft.trainer.max_epochs=0", "sft.trainer.max_epochs must be at least 1"),
        ("sft.trainer.max_epochs=-1", "sft would never end"),
        ("reward.trainer.max_steps=0", "reward.trainer.max_steps must be at least 1"),
        ("ppo.clip_range=-1", "ppo.clip_range must be at least 0"),
        ("ppo.stop_on=[kl]", "there is no alarm 'kl'; there are kl_limit"),
        ("ppo.stop_on=[length] ppo.alarms.length=null", "turned off by ppo.alarms.length=null"),
        ("+ppo.alarms.lenght=2", "there is no alarm 'lenght'"),
        ("ppo.alarms.length=-1", "ppo.alarms.length must be above 0"),
        ("ppo.patience=0", "ppo.patience must be at least 1"),
        ("ppo.gamma=1.5", "ppo.gamma must be at most 1"),
        ("sft.lr=.nan", "sft.lr must be"),
        ("task.objective=rouge3", "rougeL"),
        ("seed=-1", "seed must be at least 0"),
        ("task.metrics.rouge=x", "task.metrics.rouge must name what it is made of"),
        ("+task.metrics.b={_target_:rlhf_lightning.metrics.ROUGE}", "task.metrics.b gives 'rouge"),
        ("+ppo.rewards.x={weight:1.0}", "ppo.rewards.x must be a reward"),
        ("ppo.rewards.learned=null", "ppo.rewards.learned must be a reward"),
        ("ppo.trainer=null", "ppo.trainer can't be None"),
        ("sft.loader=null", "sft.loader can't be None"),
        ("task.metrics=null", "task.metrics must name metrics"),
        ("data.limit=x", "data.limit must be a whole number or null"),
        ("seed=x", "seed must be a whole number"),
        ("model.dtype=float33", "bfloat16"),
        ("model.tiny.hidden=33", "a multiple of model.tiny.heads=4"),
        ("evaluate.greedy=false evaluate.temperature=0", "evaluate.temperature must be above 0"),
        ("logger=null", "a group can't be null"),
        ("~logger", "logger is missing"),
        ("trainer.precision=bf16-true", "model.dtype=bfloat16"),
        ("trainer.precision=16-mixed", "use bf16-mixed"),
        ("trainer=deepspeed", "PPO can't run under DeepSpeed"),
        ("trainer.strategy=fsdp", "trainer=fsdp2 deals out the same"),
        ("ppo.temperature=0", "ppo.temperature must be above 0"),
        ("ppo.kl_target=0", "ppo.kl_target must be above 0"),
        (
            "+ppo.rewards.type={_target_:rlhf_lightning.rewards.ChrF,weight:1.0}",
            "ppo.rewards.type can't be called that",
        ),
        ("trainer.precision=8", "bf16-mixed"),
        ("task.metrics.token_f1._target_=rlhf_lightning.metrics.F2 task=qa", "rlhf_lightning.metrics.F2"),
        ("stages=[sft", "[sft"),
        ("ppo.lr", "ppo.lr"),
        ("--config-dir nowhere", "nowhere"),
    ],
)
def test_options_that_nothing_takes(refused, overrides: str, said: str) -> None:
    assert said in refused(*overrides.split())


def test_a_device_that_is_not_there(refused) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert "gpu" in refused("trainer=gpu", "trainer.precision=32-true")


def test_a_reward_that_fails_on_answers_says_so_at_the_end(tmp_path: Path) -> None:
    """The check before the training asks about references only; a failure later must not be hidden by the report."""
    (tmp_path / "picky.py").write_text(
        "def mine(prompts, completions, references, meta):\n"
        "    if len(completions) > 2: raise ValueError('too many')\n    return [0.0] * len(completions)\n"
    )
    options = ["task=qa", "stages=[sft,ppo]", "rewards=function", "ppo.rewards.function.path=picky.mine", *SMALL]
    result = run(tmp_path, *options, PYTHONPATH=str(tmp_path))
    assert result.returncode == 2
    assert re.search(r"the reward .function. failed in \S*picky.py, line 2: ValueError: too many", result.stderr)
    assert "Traceback" not in result.stderr
    assert metrics(tmp_path / "run")["status"] == "failed"
    assert any("ValueError: too many" in note for note in metrics(tmp_path / "run")["notes"])


@pytest.mark.slow
def test_a_reward_that_fails_late_keeps_the_policy_so_far(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(
        "calls = 0\ndef mine(prompts, completions, references, meta):\n    global calls\n    calls += 1\n"
        "    if calls > 5: raise ValueError('enough')\n    return [0.0] * len(completions)\n"
    )
    options = ["task=qa", "stages=[sft,ppo]", "rewards=function", "ppo.rewards.function.path=late.mine", *SMALL]
    result = run(tmp_path, *options, "ppo.updates=20", "ppo.trainer.val_check_interval=100")
    assert result.returncode == 2
    assert "ValueError: enough" in result.stderr
    assert (tmp_path / "run" / "ppo" / "model" / "model.safetensors").is_file()
    results = metrics(tmp_path / "run")
    assert results["status"] == "failed"
    assert any("ppo failed after" in note for note in results["notes"])


def test_predictions_that_can_not_be_written_or_scored(refused, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def mine(prompts, completions, references, meta): return references[9]\n")
    write(tmp_path / "asked.jsonl", [{"prompt": "what?"}])
    (tmp_path / "folder").mkdir()
    ask = ["task=qa", "stages=[sft,predict]", "predict.input=asked.jsonl"]
    assert "predict.output=folder can't be written" in refused(*ask, "predict.output=folder")
    assert "predict.output=asked.jsonl/x can't be written" in refused(*ask, "predict.output=asked.jsonl/x")
    message = refused(*ask, "rewards=function", "ppo.rewards.function.path=mine.mine")
    assert "predictions of asked.jsonl can't be scored" in message


@pytest.mark.slow
def test_one_bad_job_does_not_end_a_sweep(tmp_path: Path) -> None:
    small = [o for o in SMALL if not o.startswith("hydra.")]
    rows = [json.dumps({"text": f"text {i}", "label": ("tech", "sports")[i % 2]}) for i in range(40)]
    (tmp_path / "bad.jsonl").write_text("\n".join([*rows, "{no row"]))
    (tmp_path / "good.jsonl").write_text("\n".join(rows))
    options = ["task=classification", "stages=[sft]", "data=files", "data.train=bad.jsonl,good.jsonl"]
    result = run(tmp_path, "-m", *options, "hydra.sweep.dir=sweep", *small)
    assert result.returncode == 1
    assert "rlhf-train: 0_data.train-bad.jsonl failed: bad.jsonl, line 41: " in result.stderr
    assert "1 of 2 jobs failed: 0_data.train-bad.jsonl." in result.stderr
    assert "Traceback" not in result.stderr
    assert metrics(tmp_path / "sweep" / "0_data.train-bad.jsonl")["status"] == "failed"
    assert metrics(tmp_path / "sweep" / "1_data.train-good.jsonl")["status"] == "finished"


@pytest.mark.parametrize("option", ["hydra.run.dir=blocked/run", "hydra.run.dir=blocked"])
def test_a_folder_that_cannot_be_written(refused, tmp_path: Path, option: str) -> None:
    (tmp_path / "blocked").write_text("a file")
    message = refused(option)
    assert "blocked" in message
    assert "paths.output_dir" in message


def test_an_encoder_can_be_no_policy(refused, encoder: Path) -> None:
    message = refused("task=classification", "model=hf", f"model.name={encoder}")
    assert "encoder" in message
    assert "stages=[sft]" in message


def test_an_encoder_needs_labels(refused, encoder: Path) -> None:
    assert "label set" in refused("task=qa", "model=hf", f"model.name={encoder}", "stages=[sft]")


def test_an_encoder_without_a_head_is_no_reward_model(refused, encoder: Path) -> None:
    message = refused("task=qa", "stages=[sft,ppo]", f"reward_model={encoder}")
    assert "no trained reward head" in message


def test_a_tokenizer_without_an_end_of_sequence(refused, tmp_path: Path) -> None:
    from rlhf_lightning.models import TinySpec, make_tiny

    folder = make_tiny(TinySpec(hidden=16, heads=2, layers=1), ["some text"], tmp_path / "m")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).exists():
            content = json.loads((folder / name).read_text())
            content.pop("eos_token", None)
            (folder / name).write_text(json.dumps(content))
    assert "end-of-sequence" in refused("task=qa", "model=hf", f"model.name={folder}", "stages=[sft]")


@pytest.mark.slow
def test_equal_preferences_are_dropped_and_counted(tmp_path: Path) -> None:
    pairs = [{"prompt": f"p{i}", "chosen": "a", "rejected": "a" if i < 3 else "b"} for i in range(40)]
    path = write(tmp_path / "p.jsonl", pairs)
    options = ["data=files", f"data.preferences={path}", "stages=[reward]", *SMALL]
    ok(run(tmp_path, *options))
    assert any("3 preference(s) dropped" in note for note in metrics(tmp_path / "run")["notes"])
