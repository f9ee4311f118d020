import dataclasses

import pytest
import torch

from rlhf_lightning.data.batches import Batch, encode_sft, pad, pair_batch, prompt_batch, sft_batch
from rlhf_lightning.data.encoding import Codec
from rlhf_lightning.data.rows import PreferenceRow, Prompt, PromptRow, SFTRow

KINDS = {"llama": "causal", "gpt2": "causal", "t5": "seq2seq", "bert": "encoder"}
PROMPTS = ["the cat", "where does the sun rise in the morning?", "a"]
ANSWERS = ["sat on the mat", "good", "bad service, bad food"]


@pytest.fixture
def codec(tokenizer):
    def make(family, **options):
        return Codec(tokenizer(family), KINDS[family], **{"max_prompt": 30, "max_completion": 12, **options})

    return make


def unpadded(ids, mask):
    return [row[keep].tolist() for row, keep in zip(ids, mask, strict=True)]


def test_batches_pad():
    ids, mask = pad([[5], [6, 7, 8], []], 9)
    assert ids.tolist() == [[5, 9, 9], [6, 7, 8], [9, 9, 9]]
    assert mask.tolist() == [[True, False, False], [True] * 3, [False] * 3]
    ids, mask = pad([[5], [6, 7, 8]], 0, "left")
    assert ids.tolist() == [[0, 0, 5], [6, 7, 8]]
    assert mask.tolist() == [[False, False, True], [True] * 3]
    assert (ids.dtype, mask.dtype) == (torch.long, torch.bool)


@pytest.mark.parametrize(("family", "side"), [("llama", "left"), ("gpt2", "left"), ("t5", "right"), ("bert", "right")])
def test_batches_prompts(codec, family, side):
    made = codec(family, max_prompt=14)
    rows = [PromptRow(Prompt(text), ["r"], {"number": i}) for i, text in enumerate([*PROMPTS, PROMPTS[1] * 3])]
    batch = prompt_batch(list(zip([7, 3, 5, 1], rows, strict=True)), made)
    assert unpadded(batch.prompt_ids, batch.prompt_mask) == [made.encode_prompt(row.prompt).ids for row in rows]
    assert bool((batch.prompt_ids[~batch.prompt_mask] == made.pad_id).all())
    edge = batch.prompt_mask[:, -1 if side == "left" else 0]
    assert edge.all()
    assert not batch.prompt_mask.all()
    assert batch.rows == rows
    assert batch.ids.tolist() == [7, 3, 5, 1]
    assert batch.truncated.tolist() == [made.encode_prompt(row.prompt).truncated for row in rows]
    assert batch.truncated[-1]
    assert not batch.truncated[0]


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
def test_batches_sft(codec, family):
    made = codec(family)
    rows = [SFTRow(Prompt(p), a) for p, a in zip(PROMPTS, ANSWERS, strict=True)]
    batch = sft_batch([encode_sft(row, made) for row in rows], made)
    assert unpadded(batch.prompt_ids, batch.prompt_mask) == [made.encode_prompt(row.prompt).ids for row in rows]
    answers = [made.encode_completion(row.prompt, row.completion) for row in rows]
    assert unpadded(batch.response_ids, batch.response_mask) == answers
    assert batch.response_mask[:, 0].all(), "responses are padded on the right"
    assert torch.equal(batch.weights, batch.response_mask.float()), "the end is learnt also where it is the padding too"


def test_batches_sft_with_prompt_loss(codec):
    made = codec("llama")
    rows = [SFTRow(Prompt(p), a) for p, a in zip(PROMPTS, ANSWERS, strict=True)]
    encoded = [encode_sft(row, made, 0.25) for row in rows]
    batch = sft_batch(encoded, made)
    assert batch.prompt_ids.tolist() == [[e.prompt[0]] for e in encoded]
    assert unpadded(batch.response_ids, batch.response_mask) == [e.prompt[1:] + e.response for e in encoded]
    for weights, e in zip(batch.weights.tolist(), encoded, strict=True):
        told = [0.25] * (len(e.prompt) - 1) + [1.0] * len(e.response)
        assert weights == told + [0.0] * (len(weights) - len(told))


def test_batches_sft_of_labels(codec):
    made = codec("bert", labels=("bad", "good"))
    rows = [SFTRow(Prompt(p), label) for p, label in zip(PROMPTS, ["good", "bad", "good"], strict=True)]
    batch = sft_batch([encode_sft(row, made) for row in rows], made)
    assert batch.response_ids.tolist() == [[1], [0], [1]]
    assert batch.response_mask.all()


@pytest.mark.parametrize("family", KINDS)
def test_batches_pairs(codec, family):
    made = codec(family)
    rows = [PreferenceRow(Prompt(p), a, "c", i, 2 * i) for i, (p, a) in enumerate(zip(PROMPTS, ANSWERS, strict=True))]
    batch = pair_batch(rows, made)
    texts = [(p, text) for p, a in zip(PROMPTS, ANSWERS, strict=True) for text in (a, "c")]
    pairs = [made.encode_pair(Prompt(p), a) for p, a in texts]
    assert unpadded(batch.input_ids, batch.mask) == [pair.ids for pair in pairs]
    assert batch.mask[:, 0].all()
    assert batch.lengths.tolist() == [len(a) for _, a in texts]
    assert (batch.chosen.tolist(), batch.rejected.tolist()) == ([0, 2, 4], [1, 3, 5])
    assert batch.uses.tolist() == [1] * 6
    assert (batch.rankings, batch.thumbs) == (None, None)
    assert batch.weight.tolist() == [0.0, 1.0, 2.0]
    assert batch.margin.tolist() == [0.0, 2.0, 4.0]
    assert batch.weight.dtype == batch.margin.dtype == torch.float, "also where rows hold whole numbers"
    if family == "bert":
        assert unpadded(batch.type_ids, batch.mask) == [pair.type_ids for pair in pairs]
        assert not batch.type_ids[~batch.mask].any()
    else:
        assert batch.type_ids is None


def test_batches_move_as_a_whole(codec):
    from lightning.fabric.utilities.apply_func import move_data_to_device

    rows = [PromptRow(Prompt(text)) for text in PROMPTS]
    batch = prompt_batch(list(enumerate(rows)), codec("llama"))
    moved = batch.to("meta")
    assert moved.rows is batch.rows
    tensors = [f.name for f in dataclasses.fields(batch) if f.name not in ("rows", "portion")]
    assert {getattr(moved, name).device.type for name in tensors} == {"meta"}
    assert batch.prompt_ids.device.type == "cpu"
    by_lightning = move_data_to_device(batch, torch.device("meta"))
    assert isinstance(by_lightning, Batch)
    assert by_lightning.prompt_mask.device.type == "meta"
    pairs = pair_batch([PreferenceRow(Prompt("a"), "b", "c")], codec("llama"))
    assert pairs.to("meta").type_ids is None
