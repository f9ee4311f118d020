import dataclasses
import itertools
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lightning.data.encoding import Codec
from rlhf_lightning.data.modules import LengthGroupedSampler, PreferenceDataModule, PromptDataModule, SFTDataModule
from rlhf_lightning.data.rows import PreferenceRow, Prompt, PromptRow, SFTRow
from rlhf_lightning.errors import UserError

DEMONSTRATIONS = [SFTRow(Prompt("the cat " * (1 + i % 5)), "sat " * (1 + i % 3)) for i in range(22)]
PROMPTS = [PromptRow(Prompt(f"prompt {i}"), [f"r{i}"]) for i in range(10)]
PREFERENCES = [PreferenceRow(Prompt("p" * (1 + i % 7)), "good", "bad") for i in range(10)]


@pytest.fixture
def codec(tokenizer):
    return Codec(tokenizer("llama"), "causal", 40, 20)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=300), st.integers(1, 9), st.integers(0, 3))
def test_sampler_is_a_permutation_each_pass(lengths, batch_size, seed):
    sampler = LengthGroupedSampler(lengths, batch_size, seed)
    first, second = list(sampler), list(sampler)
    assert sorted(first) == sorted(second) == list(range(len(lengths)))
    assert len(sampler) == len(lengths)
    again = LengthGroupedSampler(lengths, batch_size, seed)
    assert [list(again), list(again)] == [first, second]


def padding(order, lengths, size):
    batches = [[lengths[i] for i in order[s : s + size]] for s in range(0, len(order), size)]
    return sum(max(b) * len(b) - sum(b) for b in batches)


def test_sampler_groups_by_length_in_random_order():
    lengths = torch.randint(1, 200, (1003,), generator=torch.Generator().manual_seed(1)).tolist()
    sampler = LengthGroupedSampler(lengths, 16, 0)
    orders = [list(sampler) for _ in range(3)]
    chance = padding(range(1003), lengths, 16)
    assert all(padding(order, lengths, 16) < chance / 5 for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert orders[0] != list(LengthGroupedSampler(lengths, 16, 7))
    means = [sum(lengths[i] for i in orders[0][s : s + 16]) for s in range(0, 480, 16)]
    assert means != sorted(means), "batches must not go from short to long"
    # The short last batch stays last: every other one is whole and of like lengths.
    assert all(
        max(lengths[i] for i in batch) - min(lengths[i] for i in batch) < 60
        for batch in (orders[0][s : s + 16] for s in range(0, 480, 16))
    )


def test_sampler_without_lengths_shuffles_all():
    order = list(LengthGroupedSampler([0] * 100, 4, 0))
    assert order != list(range(100))
    assert sum(abs(a - b) for a, b in itertools.pairwise(order)) > 1000


def test_sft_module(codec):
    module = SFTDataModule(DEMONSTRATIONS, PROMPTS, codec, batch_size=4, eval_batch_size=6)
    loader = module.train_dataloader()
    sizes = [len(batch.response_ids) for batch in loader]
    assert sizes == [4, 4, 4, 4, 4, 2]
    assert loader.sampler.batch_size == 4
    rows = [
        tuple(r[m].tolist()) for batch in loader for r, m in zip(batch.response_ids, batch.response_mask, strict=True)
    ]
    assert sorted(rows) == sorted(tuple(codec.encode_completion(r.prompt, r.completion)) for r in DEMONSTRATIONS)
    held = list(module.val_dataloader())
    assert [r.prompt.text for batch in held for r in batch.rows] == [r.prompt.text for r in PROMPTS]
    assert [i for batch in held for i in batch.ids.tolist()] == list(range(10))
    assert [len(batch.rows) for batch in module.test_dataloader()] == [6, 4]
    assert SFTDataModule(DEMONSTRATIONS, [], codec).val_dataloader() == []
    assert module.losses() == []


def test_sft_module_tells_what_the_limits_took(codec):
    """Checklist 5: shortened prompts and completions without their end are counted."""
    lengths = [len(codec.encode_completion(r.prompt, r.completion)) for r in DEMONSTRATIONS]
    small = dataclasses.replace(codec, max_completion=max(lengths) - 1)
    (said,) = SFTDataModule(DEMONSTRATIONS, [], small).losses()
    assert said.startswith(f"{lengths.count(max(lengths))} of {len(lengths)} completions have more than")
    prompts = [len(codec.encode_prompt(r.prompt).ids) for r in DEMONSTRATIONS]
    small = dataclasses.replace(codec, max_prompt=max(prompts) - 1)
    (said,) = SFTDataModule(DEMONSTRATIONS, [], small).losses()
    assert said.startswith(f"{prompts.count(max(prompts))} of {len(prompts)} prompts have more than")


def test_sft_module_prompt_loss_and_ungrouped(codec):
    module = SFTDataModule(DEMONSTRATIONS, [], codec, batch_size=22, prompt_loss_weight=0.5, group_by_length=False)
    (batch,) = module.train_dataloader()
    assert {0.5, 1.0} <= set(batch.weights.unique().tolist()) <= {0.0, 0.5, 1.0}
    assert set(module.train_dataloader().sampler.lengths) == {0}


def test_modules_group_over_all_ranks(codec):
    modules = [
        SFTDataModule(DEMONSTRATIONS, [], codec, batch_size=4),
        PreferenceDataModule(PREFERENCES, [], codec, batch_size=4),
    ]
    for module in modules:
        module.trainer = SimpleNamespace(world_size=3)
        assert module.train_dataloader().sampler.batch_size == 12
        assert module.train_dataloader().batch_size == 4


def test_preference_module(codec):
    module = PreferenceDataModule(PREFERENCES, PREFERENCES[:5], codec, batch_size=4, eval_batch_size=3)
    assert [len(batch.weight) for batch in module.train_dataloader()] == [4, 4, 2]
    assert [len(batch.weight) for batch in module.val_dataloader()] == [3, 2]
    assert [len(batch.input_ids) for batch in module.val_dataloader()] == [6, 4]
    assert PreferenceDataModule(PREFERENCES, [], codec).val_dataloader() == []


def test_prompt_module_drops_the_last_short_batch(codec):
    def passes(seed):
        loader = PromptDataModule(PROMPTS, PROMPTS[:2], codec, batch_size=4, seed=seed).train_dataloader()
        return [[batch.ids.tolist() for batch in loader] for _ in range(2)]

    one, two = passes(0)
    assert [len(ids) for ids in one] == [4, 4]
    assert one != two, "every pass has an order of its own"
    assert passes(0) == [one, two]
    assert passes(1)[0] != one
    module = PromptDataModule(PROMPTS, PROMPTS[:2], codec, batch_size=4)
    for batch in module.train_dataloader():
        assert [row.prompt.text for row in batch.rows] == [f"prompt {i}" for i in batch.ids.tolist()]
    assert [len(batch.rows) for batch in module.val_dataloader()] == [2]


def test_modules_refuse(codec, tokenizer):
    with pytest.raises(UserError, match=r"no demonstrations to train on: give data.train"):
        SFTDataModule([], PROMPTS, codec)
    with pytest.raises(UserError, match=r"no preferences to train on: give data.preferences"):
        PreferenceDataModule([], [], codec)
    with pytest.raises(UserError, match=r"10 prompts are fewer than one batch of 32: lower ppo\.loader\.batch_size"):
        PromptDataModule(PROMPTS, [], codec)
    with pytest.raises(UserError, match=r"no prompts to answer: give data.prompts or data.train"):
        PromptDataModule([], PROMPTS, codec).train_dataloader()
    for family, kind in (("t5", "seq2seq"), ("bert", "encoder")):
        with pytest.raises(UserError, match=f"prompt_loss_weight needs a causal model; this one is {kind}"):
            SFTDataModule(DEMONSTRATIONS, [], Codec(tokenizer(family), kind), prompt_loss_weight=0.1)
