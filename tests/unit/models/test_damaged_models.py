"""Damaged model folders are refused in one message that names the folder, and nothing of them is executed."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rlhf_lightning.data.rows import Prompt
from rlhf_lightning.errors import UserError
from rlhf_lightning.models import Classifier, LoraSpec, ModelSpec, Policy, RewardModel, load_answerer

WEIGHTS = "model.safetensors"


class Bomb:
    """A pickle of it writes a file when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


def change(folder: Path, name: str, **values: Any) -> None:
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def without(folder: Path, part: str) -> None:
    """Leave out the tensors whose names have this part."""
    tensors = {name: value for name, value in load_file(folder / WEIGHTS).items() if part not in name}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def sharded(folder: Path) -> None:
    """Weights in two files, of which the second is missing."""
    tensors = load_file(folder / WEIGHTS)
    half = sorted(tensors)[: len(tensors) // 2]
    save_file({name: tensors[name] for name in half}, folder / "model-00001-of-00002.safetensors", {"format": "pt"})
    parts = {name: f"model-0000{1 if name in half else 2}-of-00002.safetensors" for name in tensors}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": parts}))
    (folder / WEIGHTS).unlink()


def reshaped(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    name = next(name for name in sorted(tensors) if tensors[name].dim() == 2 and "embed" not in name)
    tensors[name] = tensors[name][:-1].contiguous()
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


def of_integers(folder: Path) -> None:
    tensors = {name: value.to(torch.int8) for name, value in load_file(folder / WEIGHTS).items()}
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


def not_finite(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors[sorted(tensors)[0]].fill_(float("nan"))
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(folder / "executed")))


def beside(folder: Path) -> None:
    """Code of its own, which the config asks to run."""
    (folder / "mine.py").write_text(
        f"open({str(folder / 'executed')!r}, 'w').close()\nclass Model: pass\nclass Config: pass"
    )
    change(folder, "config.json", auto_map={"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"})
    change(folder, "config.json", model_type="mine")


def indexed(folder: Path, **parts: str) -> None:
    """Weights under another name, and an index that says where to find them."""
    (folder / WEIGHTS).rename(folder / "other.safetensors")
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": parts}))


def pickled_behind_an_index(folder: Path) -> None:
    """An index of safetensors files may name others, and transformers would read them."""
    pickled(folder)
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": {"x": "pytorch_model.bin"}}))


def without_vocabulary(folder: Path) -> None:
    settings = json.loads((folder / "tokenizer.json").read_text())
    settings["model"].update(vocab={}, merges=[])
    (folder / "tokenizer.json").write_text(json.dumps(settings))


def truncated(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2])


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a missing shard": (sharded, "model-00002-of-00002"),
    "a truncated file": (truncated, "damaged"),
    "an empty file": (lambda f: (f / WEIGHTS).write_bytes(b""), "damaged"),
    "text for weights": (lambda f: (f / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1"), "damaged"),
    "a wrong shape": (reshaped, "shape"),
    "a layer left out": (lambda f: without(f, "layers.1."), "lacks"),
    "embeddings left out": (lambda f: without(f, "embed_tokens"), "lacks"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "model.safetensors"),
    "a pickle": (pickled, "safetensors"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json"),
    "a broken config": (lambda f: (f / "config.json").write_text("{"), "config.json"),
    "a config that is a list": (lambda f: (f / "config.json").write_text("[]"), ""),
    "an empty config": (lambda f: (f / "config.json").write_text("{}"), ""),
    "a config of text for numbers": (lambda f: change(f, "config.json", hidden_size="wide"), ""),
    "a config of another size": (lambda f: change(f, "config.json", hidden_size=32), "shape"),
    "code of its own": (beside, "trust_remote_code"),
    "no tokenizer": (lambda f: [p.unlink() for p in f.glob("tokenizer*")], "tokenizer"),
    "a broken tokenizer": (lambda f: (f / "tokenizer.json").write_text("{"), "tokenizer"),
    "a tokenizer that is a list": (lambda f: (f / "tokenizer.json").write_text("[]"), "tokenizer"),
    "a broken tokenizer config": (lambda f: (f / "tokenizer_config.json").write_text("{"), "tokenizer"),
    "a pickle behind an index": (pickled_behind_an_index, "'pytorch_model.bin', which is no safetensors file"),
    "a pickle under another name": (
        lambda f: [pickled(f), (f / "pytorch_model.bin").rename(f / WEIGHTS)],
        "model.safetensors is damaged",
    ),
    "an index without shards": (lambda f: indexed(f), "weight_map"),
    "an index that leads outside": (lambda f: indexed(f, x="../model/other.safetensors"), "no safetensors file of"),
    "an index that is cut": (
        lambda f: [indexed(f), (f / f"{WEIGHTS}.index.json").write_text('{"metadata":')],
        "index.json is no JSON: Expecting value in line 1",
    ),
    "a header that promises too much": (lambda f: (f / WEIGHTS).write_bytes(b"\0\0\0\0\0\1\0\0{}"), "is damaged"),
    "a folder for weights": (lambda f: [(f / WEIGHTS).unlink(), (f / WEIGHTS).mkdir()], "model.safetensors is missing"),
    "weights of another model": (lambda f: save_file({"x": torch.zeros(1)}, f / WEIGHTS, {"format": "pt"}), "lacks"),
    "a config that is no text": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe\0"), "config.json can't be read"),
    "no attention heads": (lambda f: change(f, "config.json", num_attention_heads=0), "config.json"),
    "a negative size": (lambda f: change(f, "config.json", hidden_size=-16), "negative dimension"),
    "architectures of numbers": (lambda f: change(f, "config.json", architectures=[3]), "'architectures'"),
    "a dtype of nonsense": (lambda f: change(f, "config.json", dtype="float33"), "float33"),
    "more layers than weights": (lambda f: change(f, "config.json", num_hidden_layers=3), "lacks model.layers.2."),
    "a broken generation config": (lambda f: (f / "generation_config.json").write_text("{"), "generation_config.json"),
    "an end token of text": (lambda f: change(f, "generation_config.json", eos_token_id="x"), "eos_token_id"),
    "a tokenizer config that is a list": (lambda f: (f / "tokenizer_config.json").write_text("[]"), "tokenizer_config"),
    "a tokenizer of nothing": (without_vocabulary, "vocabulary is empty"),
    "a broken chat template": (lambda f: (f / "chat_template.jinja").write_text("{% for %}"), "chat template"),
    "a chat template of numbers": (lambda f: change(f, "tokenizer_config.json", chat_template=3), "chat template"),
    "weights that are not finite": (not_finite, "finite"),
    "weights of integers": (of_integers, "int8"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_policy(damage: str, model_dir, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_dir("llama"), folder)
    Policy.load(str(folder), max_prompt=16, max_completion=8)
    do, said = DAMAGES[damage]
    do(folder)
    with pytest.raises(UserError) as refused:
        load_answerer(ModelSpec(str(folder)), max_prompt=16, max_completion=8)
    message = str(refused.value)
    print(message)
    assert str(folder) in message
    assert said in message
    assert len(message) < 700
    assert not (folder / "executed").exists()


@pytest.mark.parametrize(
    "damage", ["a missing shard", "a truncated file", "a wrong shape", "a layer left out", "a pickle"]
)
@pytest.mark.parametrize("fresh_head", [True, False])
def test_a_damaged_reward_model(damage: str, fresh_head: bool, model_dir, tmp_path: Path) -> None:
    """Only the head may be new, and only where it is to be trained."""
    folder = tmp_path / "model"
    RewardModel.load(str(model_dir("llama")), max_prompt=16, max_completion=8, fresh_head=True).save(folder)
    RewardModel.load(str(folder), max_prompt=16, max_completion=8)
    DAMAGES[damage][0](folder)
    with pytest.raises(UserError, match=str(folder)):
        RewardModel.load(str(folder), max_prompt=16, max_completion=8, fresh_head=fresh_head)


def test_a_reward_model_without_its_head(model_dir, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    RewardModel.load(str(model_dir("llama")), max_prompt=16, max_completion=8, fresh_head=True).save(folder)
    without(folder, "score")
    with pytest.raises(UserError, match=r"lacks.*score"):
        RewardModel.load(str(folder), max_prompt=16, max_completion=8)


def test_a_damaged_classifier(model_dir, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    Classifier.load(str(model_dir("bert")), labels=("a", "b"), max_prompt=16, fresh_head=True).save(folder)
    without(folder, "layer.1.")
    with pytest.raises(UserError, match="lacks"):
        Classifier.load(str(folder), labels=("a", "b"), max_prompt=16)
    with pytest.raises(UserError, match="lacks"):
        Classifier.load(str(folder), labels=("a", "b", "c"), max_prompt=16, fresh_head=True)


def test_code_of_its_own_is_not_run_where_transformers_has_the_model(model_dir, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_dir("llama"), folder)
    beside(folder)
    change(folder, "config.json", model_type="llama")
    Policy.load(str(folder), max_prompt=16, max_completion=8)
    assert not (folder / "executed").exists()


def test_a_chat_template_may_not_reach_out_of_its_box(model_dir, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_dir("llama"), folder)
    reach = "{{ cycler.__init__.__globals__.os.system('touch " + str(folder / "executed") + "') }}"
    (folder / "chat_template.jinja").write_text(reach)
    policy = Policy.load(str(folder), max_prompt=16, max_completion=8)
    with pytest.raises(UserError, match="unsafe"):
        policy.codec.encode_prompt(Prompt("hi"))
    assert not (folder / "executed").exists()


def test_a_reference_kept_whole_has_no_missing_weights(model_dir) -> None:
    """The check is no stricter than the models: tied weights and heads that are to be trained are not missing."""
    for kind in ("llama", "gpt2", "t5"):
        Policy.load(str(model_dir(kind)), max_prompt=16, max_completion=8, value_head=True)
        RewardModel.load(str(model_dir(kind)), max_prompt=16, max_completion=8, fresh_head=True)
    Classifier.load(str(model_dir("bert")), labels=("a", "b"), max_prompt=16, fresh_head=True)


ADAPTER = "adapter_model.safetensors"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: (f / ADAPTER).unlink(), "adapter"),
        (lambda f: (f / ADAPTER).write_bytes((f / ADAPTER).read_bytes()[:200]), "damaged"),
        (lambda f: (f / "adapter_config.json").write_text("{"), "adapter_config.json"),
        (lambda f: (f / "adapter_config.json").write_text("{}"), "adapter_config.json"),
        (
            lambda f: save_file(
                {k: v for k, v in load_file(f / ADAPTER).items() if "layers.1." not in k}, f / ADAPTER, {"format": "pt"}
            ),
            "lacks",
        ),
        (
            lambda f: [
                (f / ADAPTER).unlink(),
                (f / "adapter_model.bin").write_bytes(pickle.dumps(Bomb(f / "executed"))),
            ],
            "adapter_model.bin, a pickle",
        ),
        (lambda f: (f / "adapter_config.json").write_text("[]"), "adapter_config.json holds a list"),
        (lambda f: change(f, "adapter_config.json", base_model_name_or_path=None), "base_model_name_or_path"),
        (lambda f: change(f, "adapter_config.json", base_model_name_or_path=str(f)), "names its own folder"),
        (lambda f: change(f, "adapter_config.json", peft_type="NONSENSE"), "NONSENSE"),
        (lambda f: change(f, "adapter_config.json", r=3), "its adapter can't be used"),
        (
            lambda f: save_file(
                {k: v * float("nan") for k, v in load_file(f / ADAPTER).items()}, f / ADAPTER, {"format": "pt"}
            ),
            "finite",
        ),
    ],
)
def test_a_damaged_adapter(damage, said: str, model_dir, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    spec = ModelSpec(str(model_dir("llama")), lora=LoraSpec(r=2, merge=False))
    Policy.load(spec, max_prompt=16, max_completion=8).save(folder)
    Policy.load(str(folder), max_prompt=16, max_completion=8)
    damage(folder)
    with pytest.raises(UserError) as refused:
        Policy.load(str(folder), max_prompt=16, max_completion=8)
    print(refused.value)
    assert str(folder) in str(refused.value)
    assert said in str(refused.value)
    assert not (folder / "executed").exists()
