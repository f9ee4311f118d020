"""Weights dealt out: the same answers, and the same folder as before. One process; two are in test_equivalence.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from helpers.tiny_models import (
    COMPLETIONS,
    KINDS,
    PROMPTS,
    batch_of,
    demonstrations,
    preferences,
    reward_model_of,
    spread_weights,
)
from safetensors.torch import load_file
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from rlhf_lightning.data.batches import encode_sft, pair_batch, sft_batch
from rlhf_lightning.data.micro_batches import TOKENS
from rlhf_lightning.data.rows import Prompt, SFTRow
from rlhf_lightning.models import Classifier, LoraSpec, ModelSpec, Policy, Reference, RewardModel, Sampling
from rlhf_lightning.models.sharding import is_sharded, part_of, whole_tensor, writable
from rlhf_lightning.stages import FSDP2Strategy


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[DeviceMesh]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


def files(folder: Path) -> dict[str, Any]:
    """All of a model folder, with its weights by name."""
    return {p.name: load_file(p) if p.suffix == ".safetensors" else p.read_text() for p in folder.iterdir()}


def same(one: Path, other: Path) -> None:
    a, b = files(one), files(other)
    assert a.keys() == b.keys()
    for name in a:
        if isinstance(a[name], dict):
            assert a[name].keys() == b[name].keys()
            assert all(torch.equal(a[name][key], b[name][key]) for key in a[name])
        else:
            assert a[name] == b[name], name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lora", ["none", "merged", "kept"])
def test_a_policy_answers_and_is_saved_as_before(kind: str, lora: str, model_dir, mesh, tmp_path: Path) -> None:
    spec = ModelSpec(str(model_dir(kind)), lora=LoraSpec(r=0 if lora == "none" else 2, merge=lora == "merged"))
    policy = Policy.load(spec, max_prompt=40, max_completion=8, value_head=True)
    spread_weights(policy.value_head)
    if lora != "none":
        with torch.no_grad():
            for name, weight in policy.model.named_parameters():
                if "lora_B" in name:
                    weight.normal_(std=0.1)
    reference = Reference(policy)
    batch = batch_of(policy)
    before = policy.complete(batch, Sampling(seed=3))
    inputs = (batch.prompt_ids, batch.prompt_mask, before.ids, before.mask)
    logits, values = policy(*inputs, with_values=True)
    policy.save(tmp_path / "before")
    policy.shard(mesh)
    reference.shard(mesh)
    assert is_sharded(policy.model)
    assert all(isinstance(weight, DTensor) for weight in policy.parameters())
    blocks = [m for m in policy.model.modules() if isinstance(m, FSDPModule)]
    assert len(blocks) >= 3, "the blocks are gathered one by one"
    policy.shard(mesh)  # a second time changes nothing
    after = policy.complete(batch, Sampling(seed=3))
    assert after.texts == before.texts
    output = policy(*inputs, with_values=True)
    torch.testing.assert_close(output.logits, logits)
    torch.testing.assert_close(output.values, values)
    torch.testing.assert_close(reference.logits(*inputs), logits)
    policy.save(tmp_path / "after")
    same(tmp_path / "before", tmp_path / "after")
    with torch.no_grad():
        writable(policy.value_head).bias.add_(1.0)
    torch.testing.assert_close(policy(*inputs, with_values=True).values, values + 1)


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_a_reward_model_and_a_classifier_too(kind: str, model_dir, mesh, tmp_path: Path) -> None:
    models: list[RewardModel | Classifier] = [
        RewardModel.load(str(model_dir(kind)), max_prompt=32, max_completion=12, fresh_head=True)
    ]
    if kind == "bert":
        models.append(Classifier.load(str(model_dir(kind)), labels=("a", "b"), max_prompt=32, fresh_head=True))
    for i, model in enumerate(models):
        model.save(tmp_path / f"before{i}")
        model.shard(mesh)
        assert len([m for m in model.modules() if isinstance(m, FSDPModule)]) >= 3
        model.save(tmp_path / f"after{i}")
        same(tmp_path / f"before{i}", tmp_path / f"after{i}")


def test_tensors_are_dealt_out_and_put_together(mesh) -> None:
    layer = torch.nn.Linear(3, 5)
    whole = layer.weight.detach().clone()
    torch.distributed.fsdp.fully_shard(layer, mesh=mesh)
    assert torch.equal(whole_tensor(layer.weight), whole)
    part = part_of(whole, layer.weight)
    assert isinstance(part, DTensor)
    assert torch.equal(part.full_tensor(), whole)
    assert part_of(7, layer.weight) == 7
    assert part_of(whole, whole) is whole
    with pytest.raises(ValueError, match=r"\(2, 2\) can't be dealt out as one of \(5, 3\)"):
        part_of(torch.zeros(2, 2), layer.weight)


def test_a_batch_goes_through_as_a_whole(model_dir, mesh, monkeypatch) -> None:
    """Every rank takes part in each pass, so there is one a batch, however long a rank's rows are."""
    monkeypatch.setitem(TOKENS, "cpu", 1)
    policy = Policy.load(str(model_dir("llama")), max_prompt=40, max_completion=8)
    shown = sft_batch([encode_sft(row, policy.codec) for row in demonstrations()], policy.codec)
    classifier = Classifier.load(str(model_dir("bert")), labels=["a", "b"], max_prompt=32, fresh_head=True)
    labelled = sft_batch([encode_sft(SFTRow(Prompt(p), "a"), classifier.codec) for p in PROMPTS], classifier.codec)
    scorer = reward_model_of(model_dir("llama"))
    pairs = pair_batch(preferences(), scorer.codec)

    def groups() -> list[list[torch.Tensor]]:
        return [
            policy.groups(shown.prompt_mask, shown.response_mask),
            classifier.groups(labelled.prompt_mask),
            scorer.groups(pairs.mask),
        ]

    rows = [len(shown.weights), len(labelled.weights), len(pairs.mask)]
    assert [len(found) for found in groups()] == rows
    for model in (policy, classifier, scorer):
        model.shard(mesh)
    assert [[group.tolist() for group in found] for found in groups()] == [[list(range(n))] for n in rows]


def test_texts_are_scored_in_groups_all_the_same(model_dir, mesh, monkeypatch) -> None:
    """All ranks score the same texts, of which there may be more than one pass has room for."""
    scorer = reward_model_of(model_dir("llama"))
    texts = [Prompt(p) for p in PROMPTS], COMPLETIONS
    expected = scorer.score(*texts)
    scorer.shard(mesh)
    monkeypatch.setitem(TOKENS, "cpu", 1)
    passes: list[int] = []
    scorer.model.register_forward_pre_hook(
        lambda module, args, kwargs: passes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    torch.testing.assert_close(scorer.score(*texts), expected, atol=1e-5, rtol=1e-4)
    assert passes == [1] * len(COMPLETIONS)


def test_no_inference_mode(monkeypatch) -> None:
    """FSDP2 can't gather weights in it; on a CPU it doesn't show, as Lightning leaves it out for gloo."""
    monkeypatch.setattr(FSDP2Strategy.__mro__[1], "setup", lambda self, trainer: None)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    assert trainer.test_loop.inference_mode
    FSDP2Strategy().setup(trainer)
    assert not any(loop.inference_mode for loop in (trainer.validate_loop, trainer.test_loop, trainer.predict_loop))
