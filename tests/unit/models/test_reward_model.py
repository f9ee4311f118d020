"""The reward model: its head, where the score is read, normalisation, and a critic made of it."""

from __future__ import annotations

import json

import pytest
import torch
from helpers.tiny_models import COMPLETIONS, PROMPTS, preferences, reward_model_of, with_noise_in_padding, write_model

from rlhf_lightning.data.batches import pad, pair_batch
from rlhf_lightning.data.micro_batches import TOKENS
from rlhf_lightning.data.rows import Prompt
from rlhf_lightning.errors import UserError
from rlhf_lightning.models import LoraSpec, ModelSpec, Policy, RewardModel
from rlhf_lightning.models.reward_model import _head

ALL = ("llama", "gpt2", "t5", "bert")
TEXTS = [Prompt(p) for p in PROMPTS]


@pytest.mark.parametrize("kind", ALL)
def test_same_text_same_score_in_training_and_ppo(kind: str, model_dir, monkeypatch) -> None:
    """Checklist 10: `forward` on a batch of pairs (training) and `score` on texts (PPO) agree, for every shape."""
    model = reward_model_of(model_dir(kind))
    rows = preferences()
    batch = pair_batch(rows, model.codec)
    assert (batch.type_ids is not None) == (kind == "bert")
    with torch.no_grad():
        scores = model(batch.input_ids, batch.mask, batch.type_ids)
        chosen, rejected = scores[batch.chosen], scores[batch.rejected]
    prompts = [row.prompt for row in rows]
    for tokens in (1, 60, 512):
        monkeypatch.setitem(TOKENS, "cpu", tokens)
        torch.testing.assert_close(model.score(prompts, [r.chosen for r in rows]), chosen, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(model.score(prompts, [r.rejected for r in rows]), rejected, atol=1e-5, rtol=1e-4)
    assert chosen.std() > 1e-3, "the test needs scores that differ"


def test_segment_ids_reach_the_model(model_dir) -> None:
    """Checklist 10: a BERT-like model's score does depend on them, so that forgetting them on one path would show."""
    model = reward_model_of(model_dir("bert"))
    batch = pair_batch(preferences(), model.codec)
    with_types = model(batch.input_ids, batch.mask, batch.type_ids)
    assert (with_types - model(batch.input_ids, batch.mask)).abs().max() > 1e-4


@pytest.mark.parametrize("kind", ALL)
def test_score_is_independent_of_padding(kind: str, model_dir) -> None:
    """Checklist 7, 19: neither its amount (none, some, much) nor its content (random ids) changes a score."""
    model = reward_model_of(model_dir(kind))
    pair = model.codec.encode_pair(TEXTS[1], COMPLETIONS[2])
    alone, mask = pad([pair.ids], model.codec.pad_id)
    types = None if pair.type_ids is None else torch.tensor([pair.type_ids])
    expected = model(alone, mask, types)
    for amount in (1, 9):
        wide = torch.cat([alone, torch.full((1, amount), model.codec.pad_id)], dim=1)
        wide_mask = torch.cat([mask, torch.zeros(1, amount, dtype=torch.bool)], dim=1)
        wide_types = None if types is None else torch.cat([types, torch.zeros(1, amount, dtype=torch.long)], dim=1)
        torch.testing.assert_close(model(wide, wide_mask, wide_types), expected, atol=1e-5, rtol=1e-4)
        noisy = with_noise_in_padding(wide, wide_mask, 55)
        torch.testing.assert_close(model(noisy, wide_mask, wide_types), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_score_is_read_at_the_last_token(kind: str, model_dir) -> None:
    """Checklist 7: it is the head on the hidden state of the end-of-sequence token; llama's worked out here."""
    model = reward_model_of(model_dir(kind))
    pair = model.codec.encode_pair(TEXTS[0], COMPLETIONS[0])
    assert pair.ids[-1] == model.codec.eos_id
    assert pair.ids.count(model.codec.eos_id) == 1
    ids = torch.tensor([pair.ids])
    if kind == "llama":
        hidden = model.model.model(input_ids=ids).last_hidden_state[0, -1]
        expected = model.model.score(hidden)
    else:
        hidden = model.model.transformer(input_ids=ids, decoder_input_ids=model.model._shift_right(ids))
        expected = model.model.classification_head(hidden.last_hidden_state[0, -1])
    torch.testing.assert_close(model.score([TEXTS[0]], [COMPLETIONS[0]]), expected.detach(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ALL)
def test_the_head_on_the_features_is_the_score(kind: str, model_dir, monkeypatch) -> None:
    """For decoders with and without a padding token of their own, encoder-decoders, encoders; in any batches."""
    model = reward_model_of(model_dir(kind))
    model.mean.fill_(0.3)
    model.std.fill_(1.7)
    scores = model.score(TEXTS, COMPLETIONS)
    for tokens in (1, 60, 512):
        monkeypatch.setitem(TOKENS, "cpu", tokens)
        features = model.features(TEXTS, COMPLETIONS)
        head = _head(model.model)
        assert features.shape == (4, head.in_features)
        expected = (head(features)[:, 0] - model.mean) / model.std
        torch.testing.assert_close(expected.detach(), scores, atol=1e-5, rtol=1e-4)
    assert scores.std() > 1e-3, "the test needs scores that differ"
    torch.testing.assert_close(model.score(TEXTS, COMPLETIONS), scores)  # no hook is left behind
    assert not _head(model.model)._forward_pre_hooks
    assert model.features([], []).shape == (0, head.in_features)


def test_the_head_of_a_model_with_an_adapter_reads_the_features(model_dir) -> None:
    spec = ModelSpec(str(model_dir("llama")), lora=LoraSpec(r=4))
    model = RewardModel.load(spec, max_prompt=32, max_completion=12, fresh_head=True)
    features = model.features(TEXTS, COMPLETIONS)
    torch.testing.assert_close(_head(model.model)(features)[:, 0].detach(), model.score(TEXTS, COMPLETIONS))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5"])
def test_fresh_head_and_trunk_of_the_policy(kind: str, tmp_path) -> None:
    """Checklist 6: the head is drawn with std 1/sqrt(d+1) and bias 0; the trunk is the policy's."""
    wide = {"llama": {"hidden_size": 512, "num_hidden_layers": 1}, "gpt2": {"n_embd": 512, "n_layer": 1}}
    folder = write_model(kind, tmp_path / "m", **wide.get(kind, {"d_model": 512, "num_layers": 1}))
    model = reward_model_of(folder)
    head = _head(model.model)
    d = head.in_features
    assert d == 512
    assert head.weight.std().item() * (d + 1) ** 0.5 == pytest.approx(1, abs=0.15)
    assert abs(head.weight.mean().item()) < 4 / d
    assert head.bias is None or (head.bias == 0).all()
    policy = Policy.load(str(folder), max_prompt=32, max_completion=12)
    if kind == "t5":
        theirs, ours = policy.inner.encoder.state_dict(), model.model.transformer.encoder.state_dict()
    else:
        theirs, ours = policy.inner.base_model.state_dict(), model.model.base_model.state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[k], ours[k]) for k in theirs)


@pytest.mark.parametrize("kind", ALL)
def test_trained_head_is_kept(kind: str, model_dir, tmp_path) -> None:
    """Checklist 6: a saved reward model keeps its head, also where a fresh one is allowed."""
    model = reward_model_of(model_dir(kind))
    scores = model.score(TEXTS, COMPLETIONS)
    model.save(tmp_path / "rm")
    for fresh in (False, True):
        again = RewardModel.load(str(tmp_path / "rm"), max_prompt=32, max_completion=12, fresh_head=fresh)
        torch.testing.assert_close(again.score(TEXTS, COMPLETIONS), scores)


@pytest.mark.parametrize("scale", [True, False])
def test_normalisation_survives_saving(scale: bool, model_dir, tmp_path) -> None:
    """Checklist 9: the references score mean 0 (and std 1), recomputed after saving, loading and normalising twice."""
    model = reward_model_of(model_dir("llama"))
    raw = model.score(TEXTS, COMPLETIONS)
    assert abs(raw.mean().item()) > 0.01
    for _ in range(2):
        model.normalise(model.score(TEXTS, COMPLETIONS), scale=scale)
    model.save(tmp_path / "rm")
    scores = RewardModel.load(str(tmp_path / "rm"), max_prompt=32, max_completion=12).score(TEXTS, COMPLETIONS)
    assert scores.mean().item() == pytest.approx(0, abs=1e-5)
    spread = scores.std(unbiased=False).item()
    assert spread == pytest.approx(1 if scale else raw.std(unbiased=False).item(), rel=1e-4)
    config = json.loads((tmp_path / "rm" / "config.json").read_text())
    assert config["reward_mean"] == pytest.approx(raw.mean().item(), rel=1e-4)


@pytest.mark.parametrize(("scores", "told"), [([1.0, 1.0], "same score"), ([1.0, float("nan")], "no number")])
def test_scores_without_spread_cannot_be_normalised(scores: list[float], told: str, model_dir) -> None:
    with pytest.raises(UserError, match=told):
        reward_model_of(model_dir("llama")).normalise(torch.tensor(scores))


def test_models_without_a_fitting_head_are_refused(model_dir, tmp_path) -> None:
    from rlhf_lightning.models import Classifier

    with pytest.raises(UserError, match="no trained reward head"):
        RewardModel.load(str(model_dir("llama")), max_prompt=32, max_completion=12)
    classifier = Classifier.load(str(model_dir("bert")), labels=["a", "b", "c"], max_prompt=32, fresh_head=True)
    classifier.save(tmp_path / "three")
    with pytest.raises(UserError, match="3 labels"):
        RewardModel.load(str(tmp_path / "three"), max_prompt=32, max_completion=12)
    model = RewardModel.load(str(tmp_path / "three"), max_prompt=32, max_completion=12, fresh_head=True)
    assert model.score(TEXTS, COMPLETIONS).shape == (4,)
    assert _head(model.model).weight.std().item() * 17**0.5 == pytest.approx(1, abs=0.5)


def test_scores_of_nothing(model_dir) -> None:
    assert reward_model_of(model_dir("llama")).score([], []).shape == (0,)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("lora", [False, True])
def test_critic_starts_at_the_reward_models_values(kind: str, lora: bool, model_dir) -> None:
    """Checklist 17: the value of a state is the (normalised) score the reward model gives the text so far."""
    spec = ModelSpec(str(model_dir(kind)), lora=LoraSpec(r=2 if lora else 0))
    model = RewardModel.load(spec, max_prompt=32, max_completion=12, fresh_head=True)
    if lora:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name or (parameter.requires_grad and "score" in name):
                    parameter.normal_(std=0.3)
    model.normalise(model.score(TEXTS, COMPLETIONS))
    critic = Policy.critic_from(model.eval()).eval()
    prompt, response = torch.tensor([[20, 21, 22, 23]]), torch.tensor([[30, 31, 32]])
    ones = torch.ones_like
    values = critic(prompt, ones(prompt).bool(), response, ones(response).bool(), with_values=True).values[0]
    for t in range(3):
        text = torch.cat([prompt, response[:, :t]], dim=1)
        torch.testing.assert_close(values[t], model(text, ones(text).bool())[0], atol=1e-5, rtol=1e-4)
    assert values.std() > 1e-3
    assert all(p.requires_grad for p in critic.parameters())


@pytest.mark.parametrize("kind", ["t5", "bert"])
def test_no_critic_from_other_shapes(kind: str, model_dir) -> None:
    with pytest.raises(UserError, match="causal reward model"):
        Policy.critic_from(reward_model_of(model_dir(kind)))


@pytest.mark.parametrize("kind", ALL)
def test_reward_model_dropout_is_off(kind: str, tmp_path) -> None:
    """Checklist 12: two scores in training mode are equal for a config with dropout."""
    names = {
        "llama": ["attention_dropout"],
        "gpt2": ["resid_pdrop", "embd_pdrop", "attn_pdrop", "summary_first_dropout"],
        "t5": ["dropout_rate", "classifier_dropout"],
        "bert": ["hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"],
    }
    folder = write_model(kind, tmp_path / "m", **dict.fromkeys(names[kind], 0.3))
    model = reward_model_of(folder).train()
    assert torch.equal(model.score(TEXTS, COMPLETIONS), model.score(TEXTS, COMPLETIONS))
