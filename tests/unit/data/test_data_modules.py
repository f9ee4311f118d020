import dataclasses
import itertools
from types import SimpleNamespace

import pytest
import torch

from rlhf_lightning.data.encoding import Codec
from rlhf_lightning.data.modules import PreferenceDataModule, PromptDataModule, SFTDataModule
from rlhf_lightning.data.rows import PreferenceRow, Prompt, PromptRow, SFTRow
from rlhf_lightning.errors import UserError

DEMONSTRATIONS = [SFTRow(Prompt("the cat " * (1 + i % 5)), "sat " * (1 + i % 3)) for i in range(22)]
PROMPTS = [PromptRow(Prompt(f"prompt {i}"), [f"r{i}"]) for i in range(10)]
PREFERENCES = [PreferenceRow(Prompt("p" * (1 + i % 7)), "good", "bad") for i in range(10)]


@pytest.fixture
def codec(tokenizer):
    return Codec(tokenizer("llama"), "causal", 40, 20)


def test_sft_module(codec):
    module = SFTDataModule(DEMONSTRATIONS, PROMPTS, codec, batch_size=4, eval_batch_size=6)
    loader = module.train_dataloader()
    sizes = [len(batch.response_ids) for batch in loader]
    assert sizes == [4, 4, 4, 4, 4, 2]
    rows = [
        tuple(r[m].tolist()) for batch in loader for r, m in zip(batch.response_ids, batch.response_mask, strict=True)
    ]
    assert sorted(rows) == sorted(tuple(codec.encode_completion(r.prompt, r.completion)) for r in DEMONSTRATIONS)
    held = list(module.val_dataloader())
    assert [r.prompt.text for batch in held for r in batch.rows] == [r.prompt.text for r in PROMPTS]
    assert [i for batch in held for i in batch.ids.tolist()] == list(range(10))
    for loader in (module.test_dataloader(), module.predict_dataloader()):
        assert [len(batch.rows) for batch in loader] == [6, 4]
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


def test_sft_module_prompt_loss(codec):
    module = SFTDataModule(DEMONSTRATIONS, [], codec, batch_size=22, prompt_loss_weight=0.5)
    (batch,) = module.train_dataloader()
    assert {0.5, 1.0} <= set(batch.weights.unique().tolist()) <= {0.0, 0.5, 1.0}


def on_rank(rank, world, accumulate=1, ready=0):
    """What the modules ask of a Trainer."""
    progress = SimpleNamespace(batch_progress=SimpleNamespace(current=SimpleNamespace(ready=ready)))
    return SimpleNamespace(
        world_size=world,
        global_rank=rank,
        accumulate_grad_batches=accumulate,
        fit_loop=SimpleNamespace(epoch_loop=progress),
    )


@pytest.mark.parametrize("made", ["sft", "preferences", "prompts"])
def test_ranks_share_the_batches_of_one_process(made, codec):
    """Two ranks with batches of 2 see, step for step, the rows that one process sees with batches of 4."""

    def texts(batch):
        if made == "prompts":
            return [row.prompt.text for row in batch.rows][: batch.portion.real]
        if made == "sft":
            return [
                tuple(ids[mask].tolist()) for ids, mask in zip(batch.response_ids, batch.response_mask, strict=True)
            ][: batch.portion.real]
        return [tuple(batch.input_ids[i][batch.mask[i]].tolist()) for i in batch.chosen[batch.counts].tolist()]

    def batches(rank, world):
        size = 4 // world
        module = {
            "sft": lambda: SFTDataModule(DEMONSTRATIONS, [], codec, batch_size=size),
            "preferences": lambda: PreferenceDataModule(PREFERENCES, [], codec, batch_size=size),
            "prompts": lambda: PromptDataModule(PROMPTS, [], codec, batch_size=size),
        }[made]()
        module.trainer = on_rank(rank, world)
        return [texts(batch) for batch in module.train_dataloader()]

    whole = batches(0, 1)
    parts = [batches(rank, 2) for rank in range(2)]
    assert len(parts[0]) == len(parts[1]) == len(whole)
    for batch, first, second in zip(whole, *parts, strict=True):
        assert batch == [part for pair in itertools.zip_longest(first, second) for part in pair if part is not None]


def test_a_loader_goes_on_where_the_training_is(codec):
    """Resumed after three batches of the second epoch, it gives the fourth and those after it."""
    module = SFTDataModule(DEMONSTRATIONS, [], codec, batch_size=4)

    def epoch(ready):
        module.trainer = on_rank(0, 1, ready=ready)
        loader = module.train_dataloader()
        loader.sampler.set_epoch(1)
        return [batch.response_ids.tolist() for batch in loader], len(loader)

    (whole, length), (rest, same) = epoch(0), epoch(3)
    assert rest == whole[3:]
    assert length == same == 6


def test_a_loader_draws_no_global_random_number(codec):
    module = PromptDataModule(PROMPTS, PROMPTS, codec, batch_size=4)
    before = torch.random.get_rng_state()
    for loader in (module.train_dataloader(), module.val_dataloader()):
        list(loader)
    assert torch.equal(before, torch.random.get_rng_state())


def test_preference_module(codec):
    module = PreferenceDataModule(PREFERENCES, PREFERENCES[:5], codec, batch_size=4, eval_batch_size=3)
    assert [len(batch.weight) for batch in module.train_dataloader()] == [4, 4, 2]
    assert [len(batch.weight) for batch in module.val_dataloader()] == [3, 2]
    assert [len(batch.input_ids) for batch in module.val_dataloader()] == [6, 4]
    assert PreferenceDataModule(PREFERENCES, [], codec).val_dataloader() == []


def test_prompt_module_drops_the_last_short_batch(codec):
    def passes(seed):
        loader = PromptDataModule(PROMPTS, PROMPTS[:2], codec, batch_size=4, seed=seed).train_dataloader()
        made = []
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)
            made.append([batch.ids.tolist() for batch in loader])
        return made

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
