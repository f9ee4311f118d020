"""Weights dealt out: the same answers, and the same folder as before. One process; two are in test_equivalence.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_models import KINDS, batch_of, spread_weights
from safetensors.torch import load_file
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from rlhf_lightning.models import Classifier, LoraSpec, ModelSpec, Policy, Reference, RewardModel, Sampling
from rlhf_lightning.models.sharding import is_sharded, part_of, whole_tensor, writable


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
