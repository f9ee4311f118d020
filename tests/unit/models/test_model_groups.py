"""Batches of rows of unlike lengths go through a model in groups of like ones, and come out as if they had not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.tiny_models import KINDS, PROMPTS, demonstrations, preferences, reward_model_of, with_noise_in_padding
from torch import Tensor, nn

from rlhf_lightning.data.batches import encode_sft, pair_batch, sft_batch
from rlhf_lightning.data.micro_batches import TOKENS
from rlhf_lightning.data.rows import Prompt, SFTRow
from rlhf_lightning.models import Classifier

LABELS = ["good", "bad", "so so"]


@contextmanager
def passes_of(model: nn.Module) -> Iterator[list[tuple[int, ...]]]:
    """The shapes of all ids that a transformers model is given."""
    shapes: list[tuple[int, ...]] = []

    def look(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        shapes.append(tuple((args[0] if args else kwargs["input_ids"]).shape))  # GPT-2 gets them by position

    handle = model.register_forward_pre_hook(look, with_kwargs=True)
    yield shapes
    handle.remove()


def both_ways(
    compute: Callable[[], Tensor], model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[Tensor, dict[str, Tensor]]]:
    """What is computed and the gradients of it: of the whole batch at once, of few rows, and of each row by itself."""
    results = []
    for tokens in (10**6, 30, 1):
        monkeypatch.setitem(TOKENS, "cpu", tokens)
        model.zero_grad()
        out = compute()
        out.square().sum().backward()
        results.append((out.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}))
    return results


def same(results: list[tuple[Tensor, dict[str, Tensor]]]) -> None:
    (whole, gradients), *ways = results
    assert max(float(g.abs().max()) for g in gradients.values()) > 1e-3, "the test needs gradients"
    for apart, others in ways:
        torch.testing.assert_close(apart, whole, atol=1e-5, rtol=1e-4)
        assert gradients.keys() == others.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(others[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize(("kind", "prompt_weight"), [*((kind, 0.0) for kind in KINDS), ("llama", 0.5), ("gpt2", 0.5)])
def test_demonstrations(kind: str, prompt_weight: float, make_policy, monkeypatch) -> None:
    """The loss with its gradients, the share guessed right, and each row's loss, with noise in all padding."""
    policy = make_policy(kind, value_head=False)
    rows = [encode_sft(row, policy.codec, prompt_weight) for row in demonstrations()]
    clean = sft_batch(rows, policy.codec)
    batch = replace(
        clean,
        prompt_ids=with_noise_in_padding(clean.prompt_ids, clean.prompt_mask, 250),
        response_ids=with_noise_in_padding(clean.response_ids, clean.response_mask, 250),
    )
    told: list[Any] = []

    def loss() -> Tensor:
        value, *rest = policy.sft_loss(batch)
        told.append(rest)
        return value

    with passes_of(policy.inner if kind == "t5" else policy.inner.base_model) as shapes:
        same(both_ways(loss, policy, monkeypatch))
    assert [shape[0] for shape in shapes][-4:] == [1] * 4
    (right, losses), *ways = told
    for others, each in ways:
        torch.testing.assert_close(others, right)
        torch.testing.assert_close(each, losses, atol=1e-5, rtol=1e-4)
    assert losses.std() > 1e-2, "the test needs rows that can't be taken for each other"


@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5", "bert"])
def test_preferences(kind: str, model_dir, monkeypatch) -> None:
    """The scores of chosen and rejected texts, each at its place."""
    model = reward_model_of(model_dir(kind))
    batch = pair_batch(preferences(), model.codec)
    with passes_of(model.model) as shapes:
        same(both_ways(lambda: model(batch.input_ids, batch.mask, batch.type_ids), model, monkeypatch))
    texts, width = batch.mask.shape
    assert shapes[0] == (texts, width)
    assert 1 < len(shapes[1:-texts]) < texts, "groups of several rows"
    assert shapes[-texts:] == [(1, n) for n in sorted(batch.mask.sum(1).tolist(), reverse=True)]


def test_labels(model_dir, monkeypatch) -> None:
    classifier = Classifier.load(str(model_dir("bert")), labels=LABELS, max_prompt=32, fresh_head=True)
    rows = [SFTRow(Prompt(p), LABELS[i % 3]) for i, p in enumerate(PROMPTS)]
    batch = sft_batch([encode_sft(row, classifier.codec) for row in rows], classifier.codec)
    with passes_of(classifier.model) as shapes:
        same(both_ways(lambda: classifier(batch.prompt_ids, batch.prompt_mask), classifier, monkeypatch))
    assert shapes[0][0] == 4
    assert [shape[0] for shape in shapes[-4:]] == [1, 1, 1, 1]


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_an_empty_prompt_may_be_a_group_of_its_own(kind: str, make_policy, monkeypatch) -> None:
    """It is a column of padding then, as it is beside other rows."""
    policy = make_policy(kind, value_head=False)
    clean = sft_batch([encode_sft(row, policy.codec) for row in demonstrations()], policy.codec)
    mask = clean.prompt_mask.clone()
    mask[2] = False
    batch = replace(clean, prompt_mask=mask)
    losses = []
    for tokens in (10**6, 1):
        monkeypatch.setitem(TOKENS, "cpu", tokens)
        losses.append(policy.sft_loss(batch)[2])
    others = [0, 1, 3]  # what a model makes of a row without anything to read is its own affair
    torch.testing.assert_close(losses[1][others], losses[0][others], atol=1e-5, rtol=1e-4)
    assert losses[1].isfinite().all()
