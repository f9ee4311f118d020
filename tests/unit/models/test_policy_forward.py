"""One forward pass of a policy: padding, temperature, values, dropout."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from helpers.tiny_models import KINDS, PROMPTS, batch_of, demonstrations, with_noise_in_padding, write_model

from rlhf_lightning.algorithms import token_logprobs
from rlhf_lightning.data.batches import encode_sft, pad, sft_batch
from rlhf_lightning.errors import UserError
from rlhf_lightning.models import ModelSpec, Policy, Reference, RewardModel, Sampling
from rlhf_lightning.models.loading import check_window, load_config


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_left_and_right_padding_agree(kind: str, make_policy) -> None:
    """Checklist 4: our left-padded logits are those of the model itself on the unpadded text, and right-padded."""
    policy = make_policy(kind)
    batch = batch_of(policy)
    response = torch.randint(2, 250, (len(PROMPTS), 5))
    logits = policy(batch.prompt_ids, batch.prompt_mask, response, torch.ones_like(response, dtype=torch.bool)).logits
    texts = [batch.prompt_ids[i][batch.prompt_mask[i]].tolist() + response[i].tolist() for i in range(len(PROMPTS))]
    right, mask = pad(texts, policy.codec.pad_id)
    plain = policy.inner(input_ids=right, attention_mask=mask.long()).logits
    for i, text in enumerate(texts):
        start = len(text) - 5 - 1
        torch.testing.assert_close(logits[i], plain[i, start : start + 5], atol=1e-4, rtol=1e-4)
        alone = policy.inner(input_ids=torch.tensor([text])).logits[0]
        torch.testing.assert_close(logits[i], alone[start : start + 5], atol=1e-4, rtol=1e-4)


def test_gpt2_needs_the_position_ids(make_policy) -> None:
    """Checklist 4: the test above can fail: without position ids the left-padded logits of GPT-2 are others."""
    policy = make_policy("gpt2")
    batch, response = batch_of(policy), torch.randint(2, 250, (len(PROMPTS), 5))
    inputs = (batch.prompt_ids, batch.prompt_mask, response, torch.ones_like(response, dtype=torch.bool))
    right = policy(*inputs).logits
    policy._takes_positions = False
    assert (policy(*inputs).logits - right).abs().max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_padding_content_changes_nothing(kind: str, make_policy) -> None:
    """Checklist 19: random ids in the padding of prompts and responses leave logits and values as they are."""
    policy = make_policy(kind, wild_head=True)
    batch = batch_of(policy)
    response = torch.randint(2, 250, (len(PROMPTS), 6))
    mask = torch.arange(6) < torch.tensor([6, 1, 3, 5])[:, None]
    clean = policy(batch.prompt_ids, batch.prompt_mask, response, mask, with_values=True)
    noisy = policy(
        with_noise_in_padding(batch.prompt_ids, batch.prompt_mask, 250),
        batch.prompt_mask,
        with_noise_in_padding(response, mask, 250),
        mask,
        with_values=True,
    )
    torch.testing.assert_close(clean.logits[mask], noisy.logits[mask], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(clean.values[mask], noisy.values[mask], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_content_changes_no_sft_loss(kind: str, make_policy) -> None:
    """Checklist 19: nor the loss of demonstrations, nor its gradient, nor the accuracy."""
    policy = make_policy(kind)
    clean = sft_batch([encode_sft(row, policy.codec) for row in demonstrations()], policy.codec)
    results = []
    for noisy in (False, True):
        prompt_ids, response_ids = clean.prompt_ids, clean.response_ids
        if noisy:
            prompt_ids = with_noise_in_padding(prompt_ids, clean.prompt_mask, 250)
            response_ids = with_noise_in_padding(response_ids, clean.response_mask, 250)
        batch = type(clean)(
            prompt_ids, clean.prompt_mask, response_ids, clean.response_mask, clean.weights, clean.portion
        )
        policy.zero_grad()
        loss, stats, _ = policy.sft_loss(batch)
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in policy.model.parameters()])
        results.append((loss.detach(), stats["token_accuracy"], gradient))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_sft_loss_is_that_of_transformers(kind: str, make_policy) -> None:
    """Checklist 2, 3: equal to the cross-entropy of transformers on the joined ids, the final EOS included."""
    policy = make_policy(kind, max_completion=40)
    rows = [encode_sft(row, policy.codec) for row in demonstrations()]
    loss, _, each = policy.sft_loss(sft_batch(rows, policy.codec))
    assert len(each) == len(rows)
    total, count = 0.0, 0
    for row in rows:
        assert row.response[-1] == policy.codec.eos_id
        if kind == "t5":
            output = policy.inner(input_ids=torch.tensor([row.prompt]), labels=torch.tensor([row.response]))
        else:
            ids = torch.tensor([row.prompt + row.response])
            labels = torch.tensor([[-100] * len(row.prompt) + row.response])
            output = policy.inner(input_ids=ids, labels=labels)
        total, count = total + output.loss.item() * len(row.response), count + len(row.response)
    assert loss.item() == pytest.approx(total / count, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_logprobs_of_generation_equal_those_of_a_forward(kind: str, make_policy) -> None:
    """Checklist 14: what `generate` sampled from, at a temperature, is what the forward says of the same tokens."""
    policy = make_policy(kind)
    batch, temperature = batch_of(policy), 0.7
    seen = {}
    original = policy.model.generate

    def recorded(logits_processor, **kwargs):
        scores: list[torch.Tensor] = []

        class Recorder:
            def __call__(self, input_ids, at_step):
                scores.append(at_step)
                return at_step

        logits_processor.insert(len(logits_processor) - 1, Recorder())
        output = original(logits_processor=logits_processor, **kwargs)
        seen["scores"] = torch.stack(scores, dim=1)
        return output

    policy.model.generate = recorded
    answers = policy.complete(batch, Sampling(temperature=temperature, seed=2))
    del policy.model.generate
    assert answers.ended.any()
    assert not answers.ended.all(), "the test needs responses that end, and some that don't"
    sampled = seen["scores"].log_softmax(-1).gather(-1, answers.ids[..., None])[..., 0]
    with torch.no_grad():
        logits = policy(batch.prompt_ids, batch.prompt_mask, answers.ids, answers.mask).logits
    again = token_logprobs(logits, answers.ids, temperature)
    torch.testing.assert_close(again[answers.mask], sampled[answers.mask], atol=1e-4, rtol=1e-4)
    at_one = token_logprobs(logits, answers.ids, 1.0)
    assert (at_one - sampled)[answers.mask].abs().max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_values_start_at_zero(kind: str, make_policy) -> None:
    """Checklist 17: a value head starts with 0 everywhere, and learns from there (its gradient is not 0)."""
    policy = make_policy(kind)
    batch, response = batch_of(policy), torch.randint(2, 250, (len(PROMPTS), 4))
    inputs = (batch.prompt_ids, batch.prompt_mask, response, torch.ones_like(response, dtype=torch.bool))
    values = policy(*inputs, with_values=True).values
    assert values.shape == (len(PROMPTS), 4)
    assert (values == 0).all()
    (values - 1).square().sum().backward()
    assert policy.value_head.weight.grad.abs().sum() > 0


def test_values_need_a_head(make_policy) -> None:
    policy = make_policy(value_head=False)
    one = torch.ones(1, 1, dtype=torch.long)
    with pytest.raises(ValueError, match="value_head"):
        policy(one, one.bool(), one, one.bool(), with_values=True)


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_of_the_state_before_the_token(kind: str, make_policy) -> None:
    """Checklist 17: the value at t does not depend on token t, but on those before it."""
    policy = make_policy(kind, wild_head=True)
    batch, response = batch_of(policy), torch.randint(2, 250, (len(PROMPTS), 4))
    mask = torch.ones_like(response, dtype=torch.bool)
    values = policy(batch.prompt_ids, batch.prompt_mask, response, mask, with_values=True).values
    changed = response.clone()
    changed[:, 2] = 251
    other = policy(batch.prompt_ids, batch.prompt_mask, changed, mask, with_values=True).values
    torch.testing.assert_close(values[:, :3], other[:, :3])
    assert (values[:, 3] - other[:, 3]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("gpt2", {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1}),
        ("llama", {"attention_dropout": 0.1}),
        ("t5", {"dropout_rate": 0.1}),
    ],
)
def test_dropout_is_off(kind: str, config: dict, tmp_path, model_dir) -> None:
    """Checklist 12: two forwards in training mode are equal for a model whose config asks for dropout."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    folder = write_model(kind, tmp_path / "model", **config)
    policy = Policy.load(str(folder), max_prompt=40, max_completion=8).train()
    batch, response = batch_of(policy), torch.randint(2, 250, (len(PROMPTS), 4))
    inputs = (batch.prompt_ids, batch.prompt_mask, response, torch.ones_like(response, dtype=torch.bool))
    assert torch.equal(policy(*inputs).logits, policy(*inputs).logits)
    auto = AutoModelForSeq2SeqLM if kind == "t5" else AutoModelForCausalLM
    policy.model = auto.from_pretrained(folder).train()  # as its config has it: the test can fail
    assert not torch.equal(policy(*inputs).logits, policy(*inputs).logits)


@pytest.mark.parametrize("kind", KINDS)
def test_reference_is_the_policy_at_the_start(kind: str, make_policy) -> None:
    """The reference gives the policy's logits, and goes on giving them when the policy moves."""
    policy = make_policy(kind)
    batch, response = batch_of(policy), torch.randint(2, 250, (len(PROMPTS), 4))
    inputs = (batch.prompt_ids, batch.prompt_mask, response, torch.ones_like(response, dtype=torch.bool))
    with torch.no_grad():
        before = policy(*inputs).logits
        reference = Reference(policy)
        for parameter in policy.parameters():
            parameter.add_(0.1)
        torch.testing.assert_close(reference.logits(*inputs), before)
        assert (policy(*inputs).logits - before).abs().max() > 0.1
    assert not any(p.requires_grad for p in reference._copy.parameters())


def test_encoder_is_no_policy(model_dir) -> None:
    with pytest.raises(UserError, match="encoder"):
        Policy.load(str(model_dir("bert")))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_limits_beyond_the_positions_are_refused(kind: str, model_dir) -> None:
    """The model has 96 positions: 60 + 36 fit, 60 + 37 don't."""
    folder = str(model_dir(kind))
    Policy.load(folder, max_prompt=60, max_completion=36)
    with pytest.raises(UserError, match=r"60 \+ 37.*96 positions"):
        Policy.load(folder, max_prompt=60, max_completion=37)


def test_positions_of_an_encoder_decoder_are_counted_apart(model_dir, tmp_path) -> None:
    """BART has absolute positions, as many for the prompt as for the completion."""
    from transformers import BartConfig

    config = BartConfig(max_position_embeddings=64)
    codec = Policy.load(str(model_dir("t5")), max_prompt=64, max_completion=64).codec
    check_window(config, codec, "bart")
    for limit in ("max_prompt", "max_completion"):
        with pytest.raises(UserError, match="64 positions of 'bart'"):
            check_window(config, dataclasses.replace(codec, **{limit: 65}), "bart")
    with pytest.raises(UserError, match=r"64 \+ 64 exceeds the 64 positions"):  # a reward model reads both as one text
        check_window(config, codec, "bart", one_text=True)


def test_positions_that_begin_after_the_padding(model_dir) -> None:
    """Of RoBERTa's 66 positions the first two are the padding's."""
    from transformers import RobertaConfig

    config = RobertaConfig(max_position_embeddings=66, pad_token_id=1)
    codec = Policy.load(str(model_dir("llama")), max_prompt=40, max_completion=24).codec
    check_window(config, codec, "roberta")
    with pytest.raises(UserError, match=r"40 \+ 25 exceeds the 64 positions of 'roberta'"):
        check_window(config, dataclasses.replace(codec, max_completion=25), "roberta")


def test_layers_are_never_dropped(tmp_path) -> None:
    """Checklist 12: a forward in training is that of sampling."""
    from transformers import BartConfig

    BartConfig(encoder_layerdrop=0.5, decoder_layerdrop=0.5, dropout=0.1).save_pretrained(tmp_path)
    config = load_config(ModelSpec(str(tmp_path)))
    assert (config.encoder_layerdrop, config.decoder_layerdrop, config.dropout) == (0, 0, 0)


def test_a_reward_model_is_no_policy(model_dir, tmp_path) -> None:
    RewardModel.load(str(model_dir("llama")), max_prompt=32, max_completion=12, fresh_head=True).save(tmp_path / "rm")
    with pytest.raises(UserError, match="can't generate"):
        Policy.load(str(tmp_path / "rm"))


def test_relative_positions_have_no_limit(model_dir) -> None:
    Policy.load(str(model_dir("t5")), max_prompt=600, max_completion=600)


def test_missing_folder_is_a_user_error(tmp_path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        Policy.load(ModelSpec(str(tmp_path / "nothing")))
    with pytest.raises(UserError, match=r"config\.json"):
        Policy.load(ModelSpec(str(tmp_path)))
    for stage in ("ppo", "sft"):  # a run folder
        (tmp_path / stage / "model").mkdir(parents=True)
        (tmp_path / stage / "model" / "config.json").touch()
    with pytest.raises(UserError, match=r"Do you mean .*ppo.model or .*sft.model\?"):
        Policy.load(ModelSpec(str(tmp_path)))


def test_bfloat16_trunk_gives_float32_values(model_dir) -> None:
    """Values and log-probabilities stay float32 under bfloat16 weights; they are near the float32 ones."""
    outputs = []
    for dtype in ("float32", "bfloat16"):
        policy = Policy.load(
            ModelSpec(str(model_dir("llama")), dtype=dtype), max_prompt=40, max_completion=8, value_head=True
        )
        torch.nn.init.constant_(policy.value_head.weight, 0.1)
        batch, response = batch_of(policy), torch.arange(16).view(4, 4) + 20
        inputs = (batch.prompt_ids, batch.prompt_mask, response, torch.ones_like(response, dtype=torch.bool))
        outputs.append(policy(*inputs, with_values=True).values)
    assert outputs[1].dtype == torch.float32
    torch.testing.assert_close(outputs[0], outputs[1], atol=0.1, rtol=0.1)
