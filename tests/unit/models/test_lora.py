"""Low-rank adapters: what is trained, what the reference is, what is exported."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
from helpers.tiny_models import COMPLETIONS, KINDS, PROMPTS, batch_of, demonstrations
from torch import nn

from rlhf_lightning.data.batches import encode_sft, sft_batch
from rlhf_lightning.data.rows import Prompt
from rlhf_lightning.errors import UserError
from rlhf_lightning.models import Classifier, LoraSpec, ModelSpec, Policy, Reference, RewardModel, Sampling

LORA = LoraSpec(r=2)
LIMITS = {"max_prompt": 40, "max_completion": 8}


def disturb(model: nn.Module) -> None:
    """Give all that is trained other values, as a training would (adapters start at no effect)."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.2)


def inputs_of(policy: Policy):
    batch, response = batch_of(policy), torch.randint(2, 250, (len(PROMPTS), 4))
    return batch.prompt_ids, batch.prompt_mask, response, torch.ones_like(response, dtype=torch.bool)


@pytest.mark.parametrize("kind", KINDS)
def test_reference_is_the_model_without_its_adapter(kind: str, make_policy) -> None:
    """Under LoRA the reference costs no copy: it is the base model, whatever the adapter has learnt; then it is on."""
    plain, policy = make_policy(kind), make_policy(kind, lora=LORA)
    reference = Reference(policy)
    assert reference._copy is None
    inputs = inputs_of(policy)
    with torch.no_grad():
        base = plain(*inputs).logits
        torch.testing.assert_close(policy(*inputs).logits, base, atol=1e-5, rtol=1e-5)
        disturb(policy)
        moved = policy(*inputs).logits
        torch.testing.assert_close(reference.logits(*inputs), base, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(policy(*inputs).logits, moved)
    assert (moved - base).abs().max() > 0.01
    assert any(p.requires_grad for p in policy.model.parameters()), "the adapter is trainable again afterwards"


@pytest.mark.parametrize("kind", KINDS)
def test_only_adapter_and_head_are_trained(kind: str, make_policy) -> None:
    policy = make_policy(kind, lora=LORA)
    trained = {name for name, p in policy.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name or name.startswith("value_head.") for name in trained)
    assert {"value_head.weight", "value_head.bias"} <= trained
    inputs = inputs_of(policy)
    output = policy(*inputs, with_values=True)
    (output.logits.square().mean() + (output.values - 1).square().mean()).backward()
    assert all(p.grad is not None for p in policy.parameters() if p.requires_grad)


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_export_equals_the_live_model(kind: str, merge: bool, make_policy, tmp_path) -> None:
    """Merged or as an adapter alone, the folder loads through `Policy.load` and gives the live model's logits."""
    policy = make_policy(kind, lora=LoraSpec(r=2, merge=merge))
    disturb(policy)
    inputs = inputs_of(policy)
    live = policy(*inputs).logits
    policy.save(tmp_path / "out")
    torch.testing.assert_close(policy(*inputs).logits, live)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert ("adapter_model.safetensors" in names) == (not merge)
    assert ("model.safetensors" in names) == merge
    assert {"config.json", "tokenizer.json", "generation_config.json"} <= names
    again = Policy.load(str(tmp_path / "out"), **LIMITS)
    torch.testing.assert_close(again(*inputs).logits, live, atol=1e-4, rtol=1e-4)
    assert all(p.requires_grad for p in again.parameters()), "it is a whole model again, which can be trained"
    batch = batch_of(policy)
    greedy = Sampling(greedy=True)
    assert again.complete(batch, greedy).texts == policy.complete(batch, greedy).texts


def test_merged_export_is_plain_transformers(make_policy, tmp_path) -> None:
    from transformers import AutoModelForCausalLM

    policy = make_policy("llama", lora=LORA)
    disturb(policy)
    policy.save(tmp_path / "out")
    ids = torch.tensor([[5, 6, 7, 8]])
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out")(input_ids=ids).logits
    torch.testing.assert_close(theirs, policy.model(input_ids=ids).logits, atol=1e-4, rtol=1e-4)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("kind", [*KINDS, "bert"])
def test_reward_model_with_an_adapter(kind: str, merge: bool, model_dir, tmp_path) -> None:
    """The head is trained beside the adapter; scores and normalisation survive either export."""
    spec = ModelSpec(str(model_dir(kind)), lora=LoraSpec(r=2, merge=merge))
    model = RewardModel.load(spec, max_prompt=32, max_completion=12, fresh_head=True)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert any("lora_" in name for name in trained)
    head = {"t5": "classification_head", "bert": "classifier"}.get(kind, "score")
    assert any(head in name and "lora" not in name for name in trained)
    assert kind != "bert" or any("pooler" in name and "lora" not in name for name in trained), "it starts anew as well"
    disturb(model)
    prompts = [Prompt(text) for text in PROMPTS]
    model.normalise(model.score(prompts, COMPLETIONS))
    scores = model.score(prompts, COMPLETIONS)
    assert scores.mean().item() == pytest.approx(0, abs=1e-5)
    model.save(tmp_path / "rm")
    again = RewardModel.load(str(tmp_path / "rm"), max_prompt=32, max_completion=12)
    torch.testing.assert_close(again.score(prompts, COMPLETIONS), scores, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("merge", [True, False])
def test_classifier_with_an_adapter(merge: bool, model_dir, tmp_path) -> None:
    spec = ModelSpec(str(model_dir("bert")), lora=LoraSpec(r=2, merge=merge))
    model = Classifier.load(spec, labels=["a", "b", "c"], max_prompt=32, fresh_head=True)
    disturb(model)
    ids = torch.tensor([[2, 10, 11, 3]])
    live = model(ids, ids > 0)
    model.save(tmp_path / "out")
    again = Classifier.load(str(tmp_path / "out"), labels=["a", "b", "c"], max_prompt=32)
    torch.testing.assert_close(again(ids, ids > 0), live, atol=1e-4, rtol=1e-4)


def test_an_adapter_learns(make_policy) -> None:
    """A step on the adapter alone lowers the loss of demonstrations; the base weights stay."""
    policy = make_policy("llama", lora=LoraSpec(r=4))
    base = {n: p.detach().clone() for n, p in policy.named_parameters() if not p.requires_grad}
    batch = sft_batch([encode_sft(row, policy.codec) for row in demonstrations()], policy.codec)
    optimizer = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], lr=3e-2)
    losses = []
    for _ in range(15):
        loss, *_ = policy.sft_loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(torch.equal(p, base[n]) for n, p in policy.named_parameters() if n in base)


def test_alpha_is_twice_the_rank_unless_given(make_policy) -> None:
    assert make_policy(lora=LoraSpec(r=4)).model.peft_config["default"].lora_alpha == 8
    assert make_policy(lora=LoraSpec(r=4, alpha=3)).model.peft_config["default"].lora_alpha == 3


def test_wrong_layer_names_are_a_user_error(make_policy) -> None:
    with pytest.raises(UserError, match="no_such_layer"):
        make_policy(lora=LoraSpec(r=2, target_modules=["no_such_layer"]))


def test_without_peft_the_remedy_is_named(make_policy, monkeypatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "peft" else find(name, *a))
    with pytest.raises(UserError, match=r"rlhf-lightning\[lora\]"):
        make_policy(lora=LORA)


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_upon_an_adapter_is_exported_whole(kind: str, make_policy, tmp_path) -> None:
    """Its base (with the first adapter merged in) is in no folder, so an adapter alone would lose the first one."""
    spec = LoraSpec(r=2, merge=False)
    first = make_policy(kind, lora=spec)
    disturb(first)
    first.save(tmp_path / "sft")
    second = Policy.load(ModelSpec(str(tmp_path / "sft"), lora=spec), **LIMITS)
    disturb(second)
    second.save(tmp_path / "ppo")
    inputs = inputs_of(second)
    again = Policy.load(str(tmp_path / "ppo"), **LIMITS)
    torch.testing.assert_close(again(*inputs).logits, second(*inputs).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_reward_model_starts_from_a_policy_s_adapter(kind: str, make_policy, model_dir, tmp_path) -> None:
    """The trunk is that of the policy with its adapter, as if that had been merged on export."""
    policy = make_policy(kind, lora=LoraSpec(r=2, merge=False))
    disturb(policy)
    policy.save(tmp_path / "adapter")
    policy.lora = LoraSpec(r=2)
    policy.save(tmp_path / "merged")
    trunks = []
    for folder in (tmp_path / "adapter", tmp_path / "merged", model_dir(kind)):
        model = RewardModel.load(str(folder), max_prompt=32, max_completion=12, fresh_head=True)
        weights = model.model.state_dict()
        trunks.append({n: w for n, w in weights.items() if not n.startswith(("score", "classification_head"))})
    adapter, merged, base = trunks
    torch.testing.assert_close(adapter, merged, atol=1e-5, rtol=1e-5)
    assert max((adapter[name] - base[name]).abs().max() for name in base) > 0.01
    assert all(p.requires_grad for p in model.parameters())


def test_reference_of_a_trained_adapter_is_a_copy(make_policy) -> None:
    """Going on with one policy object: where it started is with the adapter on, so switching that off won't do."""
    policy = make_policy("llama", lora=LORA)
    disturb(policy)
    reference = Reference(policy)
    inputs = inputs_of(policy)
    with torch.no_grad():
        start = policy(*inputs).logits
        torch.testing.assert_close(reference.logits(*inputs), start)
        disturb(policy)
        torch.testing.assert_close(reference.logits(*inputs), start)
        assert (policy(*inputs).logits - start).abs().max() > 0.01


def test_an_adapter_s_base_is_found_from_any_folder(make_policy, model_dir, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(model_dir("llama").parent)
    policy = Policy.load(ModelSpec(model_dir("llama").name, lora=LoraSpec(r=2, merge=False)), **LIMITS)
    policy.save(tmp_path / "adapter")
    monkeypatch.chdir(tmp_path)
    inputs = inputs_of(policy)
    torch.testing.assert_close(Policy.load("adapter", **LIMITS)(*inputs).logits, policy(*inputs).logits)
