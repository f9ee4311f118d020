"""Sampling: where responses end, and that a model's own settings have no say."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny_models import KINDS, batch_of, rows, write_model
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lightning.data.batches import prompt_batch
from rlhf_lightning.models import Policy, Sampling
from rlhf_lightning.models.generation import draw, mask_after_end, uniforms


@pytest.mark.parametrize(
    ("ids", "mask", "ended"),
    [
        ([1, 5, 6, 7], [1, 0, 0, 0], True),  # first
        ([5, 1, 6, 7], [1, 1, 0, 0], True),  # middle
        ([5, 6, 7, 1], [1, 1, 1, 1], True),  # last
        ([5, 6, 7, 8], [1, 1, 1, 1], False),  # none
        ([5, 1, 1, 6], [1, 1, 0, 0], True),  # twice
        ([5, 9, 6, 1], [1, 1, 0, 0], True),  # another of the end ids first
    ],
)
def test_response_is_cut_after_the_first_end(ids: list[int], mask: list[int], ended: bool) -> None:
    """Checklist 15: EOS first, middle, last, none, twice; and with two ids that end a response."""
    got, ends = mask_after_end(torch.tensor([ids]), torch.tensor([1, 9]))
    assert got.long().tolist() == [mask]
    assert ends.tolist() == [ended]


@pytest.mark.parametrize("kind", KINDS)
def test_complete_cuts_pads_and_decodes(kind: str, make_policy) -> None:
    """Checklist 15: after the cut there is only padding, and the text is that of the tokens before the end."""
    policy = make_policy(kind)
    batch, eos, pad = batch_of(policy), policy.codec.eos_id, policy.codec.pad_id
    word = policy.codec.tokenizer("cat", add_special_tokens=False)["input_ids"]
    drawn = torch.tensor(
        [[eos, *word, *word][: 2 * len(word)], [*word, eos, *word][: 2 * len(word)], [*word, *word], [*word, *word]]
    )
    lead = batch.prompt_ids if kind != "t5" else torch.zeros(4, 1, dtype=torch.long)
    policy.model.generate = lambda **_: torch.cat([lead, drawn], dim=1)
    answers = policy.complete(batch, Sampling())
    assert answers.texts == ["", "cat", "catcat", "catcat"]
    assert answers.lengths.tolist() == [1, len(word) + 1, 2 * len(word), 2 * len(word)]
    assert answers.ended.tolist() == [True, True, False, False]
    assert (answers.ids[~answers.mask] == pad).all()


@pytest.mark.parametrize("kind", KINDS)
def test_own_generation_settings_do_not_leak(kind: str, tmp_path, make_policy) -> None:
    """Checklist 13: top_k, repetition penalty and the like of the model don't touch our sampling, but are exported."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, GenerationConfig

    folder = write_model(kind, tmp_path / "model")
    settings = GenerationConfig.from_pretrained(folder)
    settings.do_sample, settings.top_k, settings.repetition_penalty, settings.temperature = True, 5, 1.7, 0.3
    settings.no_repeat_ngram_size, settings.max_length = 1, 11
    settings.save_pretrained(folder)
    plain, other = make_policy(kind), Policy.load(str(folder), max_prompt=40, max_completion=8)
    for sampling in (Sampling(temperature=1.0), Sampling(greedy=True)):
        answers = []
        for policy in (plain, other):
            answers.append(policy.complete(batch_of(policy), sampling))
        assert torch.equal(answers[0].ids, answers[1].ids)
        assert answers[0].ids.shape[1] <= 8
    other.save(tmp_path / "out")
    exported = GenerationConfig.from_pretrained(tmp_path / "out")
    assert (exported.top_k, exported.repetition_penalty, exported.temperature) == (5, 1.7, 0.3)
    auto = AutoModelForSeq2SeqLM if kind == "t5" else AutoModelForCausalLM
    assert auto.from_pretrained(tmp_path / "out").generation_config.top_k == 5
    assert other.inner.generation_config.top_k is None, "the working settings are put back"


def test_sampling_is_from_the_whole_distribution(make_policy) -> None:
    """Checklist 13: no token gets probability 0 (top_k 0 means all, not transformers' 50)."""
    policy = make_policy("llama")
    batch, seen = batch_of(policy), {}
    original = policy.model.generate

    def recorded(logits_processor, **kwargs):
        class Recorder:
            def __call__(self, input_ids, scores):
                seen["scores"] = scores
                return scores

        logits_processor.insert(len(logits_processor) - 1, Recorder())
        return original(logits_processor=logits_processor, **kwargs)

    policy.model.generate = recorded
    policy.complete(batch, Sampling(temperature=1.0))
    assert torch.isfinite(seen["scores"]).all()
    policy.complete(batch, Sampling(temperature=1.0, top_k=5))
    assert torch.isfinite(seen["scores"][0]).sum() == 5


def test_every_end_id_of_the_model_ends_a_response(tmp_path) -> None:
    """Checklist 15: chat models have two; the tokenizer's and those of the generation config count."""
    from transformers import GenerationConfig

    folder = write_model("llama", tmp_path / "model")
    settings = GenerationConfig.from_pretrained(folder)
    settings.eos_token_id = [1, 42]
    settings.save_pretrained(folder)
    policy = Policy.load(str(folder), max_prompt=40, max_completion=8)
    assert policy.eos_ids == [1, 42]
    batch = batch_of(policy)
    policy.model.generate = lambda **_: torch.cat([batch.prompt_ids, torch.tensor([[50, 42, 51, 1]] * 4)], dim=1)
    assert policy.complete(batch, Sampling()).lengths.tolist() == [2] * 4
    policy.save(tmp_path / "out")
    assert GenerationConfig.from_pretrained(tmp_path / "out").eos_token_id == [1, 42]


def test_greedy_is_the_likeliest_token(make_policy) -> None:
    """Checklist 13: greedy answers are the argmax of the forward, step for step."""
    policy = make_policy("gpt2")
    batch = batch_of(policy)
    answers = policy.complete(batch, Sampling(greedy=True))
    likeliest = policy(batch.prompt_ids, batch.prompt_mask, answers.ids, answers.mask).logits.argmax(-1)
    assert torch.equal(likeliest[answers.mask], answers.ids[answers.mask])


def test_published_settings_that_transformers_refuses_to_write(tmp_path) -> None:
    """Sampling values with sampling off, as some published models have them, must not fail the save after training."""
    import json

    folder = write_model("llama", tmp_path / "model")
    path = folder / "generation_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "temperature": 0.6, "top_p": 0.9, "length_penalty": 2.0}))
    Policy.load(str(folder), max_prompt=40, max_completion=8).save(tmp_path / "out")
    saved = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert (saved["temperature"], saved["top_p"]) == (0.6, 0.9)


def test_draws_follow_the_distribution() -> None:
    """Checklist 13: 20,000 draws from a distribution with a token that can't be drawn, by a chi-square test."""
    logits = torch.tensor([0.0, 1.0, -torch.inf, 2.0, -1.0])
    tokens = draw(logits.expand(20_000, 5), uniforms(range(20_000), 1, seed=3)[:, 0])
    counts, expected = torch.bincount(tokens, minlength=5).double(), 20_000 * logits.double().softmax(0)
    assert counts[2] == 0
    possible = expected > 0
    chi = ((counts - expected)[possible].square() / expected[possible]).sum()
    assert chi < 16.3, "the 99.9th percentile with 3 degrees of freedom"


@given(st.lists(st.floats(-30, 30), min_size=1, max_size=40), st.floats(0, 1, exclude_max=True))
def test_a_draw_is_the_first_token_above_its_number(logits: list[float], u: float) -> None:
    """Against a loop that adds probabilities up."""
    row = torch.tensor([logits])
    probabilities = row.float().softmax(-1).double()[0].tolist()
    (token,) = draw(row, torch.tensor([u], dtype=torch.float64)).tolist()
    below, total = sum(probabilities[:token]), sum(probabilities)
    assert below - 1e-9 <= u * total <= below + probabilities[token] + 1e-9
    assert probabilities[token] > 0


def test_extreme_numbers_draw_possible_tokens() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]])
    assert draw(logits, torch.tensor([0.0], dtype=torch.float64)).item() == 1
    assert draw(logits, torch.tensor([1 - 2**-53], dtype=torch.float64)).item() in (2, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_does_not_depend_on_its_batch(kind: str, make_policy) -> None:
    """A row is answered alike alone and beside others; another seed or turn gives another answer."""
    policy, how = make_policy(kind), Sampling(temperature=0.7, seed=1)
    whole = policy.complete(batch_of(policy), how, turn=2)
    for i, row in enumerate(rows()):
        alone = policy.complete(prompt_batch([(i, row)], policy.codec), how, turn=2)
        assert alone.texts == [whole.texts[i]]
    others = [policy.complete(batch_of(policy), how, turn=3), policy.complete(batch_of(policy), Sampling(seed=2), 2)]
    assert all(other.texts != whole.texts for other in others)
    twice = policy.complete(batch_of(policy).repeated(2), how, turn=2)
    assert twice.texts[::2] == whole.texts
    assert twice.texts[1::2] != whole.texts, "a row's second response has numbers of its own"
