"""Typed batches, and the functions that make them from rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from rlhf_lightning.data.encoding import Codec, EncodedPair
from rlhf_lightning.data.order import Portion
from rlhf_lightning.data.rows import PreferenceRow, PromptRow, SFTRow

B = TypeVar("B", bound="Batch")


@dataclass(frozen=True)
class Batch:
    """A bundle of tensors that Lightning moves to a device as a whole."""

    def to(self: B, device: Any, **kwargs: Any) -> B:
        """The same batch with every tensor on ``device``."""
        moved = {f.name: v.to(device, **kwargs) for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)}
        return replace(self, **moved)


@dataclass(frozen=True)
class PromptBatch(Batch):
    """Prompts to answer.

    Attributes:
        prompt_ids: (b, p) int64; padded on the left for causal models, on the right for others.
        prompt_mask: (b, p) bool.
        rows: the b rows that the ids were made of.
        truncated: (b,) bool, prompts that lost text to the limit.
        ids: (b,) int64 position of each row in its data set; -1 where a row only fills up and is not to count.
        portion: which part of the batch over all ranks this is.
    """

    prompt_ids: Tensor
    prompt_mask: Tensor
    rows: list[PromptRow]
    truncated: Tensor
    ids: Tensor
    portion: Portion

    def repeated(self, times: int) -> PromptBatch:
        """(times * b) prompts: each this often, the same ones beside each other."""
        tensors: dict[str, Any] = {
            f.name: v.repeat_interleave(times, 0)
            for f in fields(self)
            if isinstance(v := getattr(self, f.name), Tensor)
        }
        return replace(self, rows=[row for row in self.rows for _ in range(times)], **tensors)


@dataclass(frozen=True)
class SFTBatch(Batch):
    """Demonstrations.

    Attributes:
        prompt_ids, prompt_mask: (b, p), as in `PromptBatch`.
        response_ids: (b, r) int64, padded on the right; for an encoder (b, 1), the label's index.
        response_mask: (b, r) bool.
        weights: (b, r) float, weight of each token's loss; 0 on padding.
        portion: which part of the batch over all ranks this is.
    """

    prompt_ids: Tensor
    prompt_mask: Tensor
    response_ids: Tensor
    response_mask: Tensor
    weights: Tensor
    portion: Portion


@dataclass(frozen=True)
class PairBatch(Batch):
    """Preferences: the b chosen texts, then the b rejected ones.

    Attributes:
        input_ids, mask, type_ids: (2b, t), padded on the right; ``type_ids`` None where the model has none.
        weight, margin: (b,) float.
        lengths: (2b,) int64 length of each completion in characters.
        counts: (b,) bool, false where a pair only fills up.
        portion: which part of the batch over all ranks this is.
    """

    input_ids: Tensor
    mask: Tensor
    type_ids: Tensor | None
    weight: Tensor
    margin: Tensor
    lengths: Tensor
    counts: Tensor
    portion: Portion


def pad(rows: Sequence[Sequence[int]], value: int, side: str = "right") -> tuple[Tensor, Tensor]:
    """Rows of unequal length as one tensor: ``ids (b, t)`` int64 and ``mask (b, t)`` bool, true on what was given."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), value, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.bool)
    for i, row in enumerate(rows):
        where = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[i, where] = torch.tensor(list(row), dtype=torch.long)
        mask[i, where] = True
    return ids, mask


def pad_pairs(pairs: Sequence[EncodedPair], pad_id: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Encoded texts as ids, mask and segment ids (n, t) for a reward model; see `PairBatch`."""
    typed = all(pair.type_ids is not None for pair in pairs)
    ids, mask = pad([pair.ids for pair in pairs], pad_id)
    return ids, mask, pad([pair.type_ids or [] for pair in pairs], 0)[0] if typed else None


def _pad_prompts(prompts: Sequence[Sequence[int]], codec: Codec) -> tuple[Tensor, Tensor]:
    return pad(prompts, codec.pad_id, "left" if codec.kind == "causal" else "right")


def _whole(rows: Sequence[Any]) -> Portion:
    return Portion(list(range(len(rows))), len(rows))


def prompt_batch(rows: Sequence[tuple[int, PromptRow]], codec: Codec, portion: Portion | None = None) -> PromptBatch:
    """Encode and pad prompts, each given with its position in the data set."""
    portion = portion or _whole(rows)
    encoded = [codec.encode_prompt(row.prompt) for _, row in rows]
    ids, mask = _pad_prompts([e.ids for e in encoded], codec)
    return PromptBatch(
        ids,
        mask,
        [row for _, row in rows],
        torch.tensor([e.truncated for e in encoded]),
        torch.tensor([i if k < portion.real else -1 for k, (i, _) in enumerate(rows)]),
        portion,
    )


@dataclass(frozen=True)
class EncodedSFT:
    """A demonstration as ids; each prompt token's loss has weight ``prompt_weight``.

    ``shortened`` says that the prompt lost text, ``cut`` that the completion lost its end.
    """

    prompt: list[int]
    response: list[int]
    prompt_weight: float = 0.0
    shortened: bool = False
    cut: bool = False

    @property
    def weight(self) -> float:
        """Sum of its tokens' weights in the loss."""
        learnt = len(self.prompt) - 1 if self.prompt_weight else 0  # nothing foretells the first token
        return len(self.response) + self.prompt_weight * learnt


def encode_sft(row: SFTRow, codec: Codec, prompt_weight: float = 0.0) -> EncodedSFT:
    """Ids of a demonstration."""
    prompt, response = codec.encode_prompt(row.prompt), codec.encode_completion(row.prompt, row.completion)
    cut = codec.kind != "encoder" and response[-1] != codec.eos_id
    return EncodedSFT(prompt.ids, response, prompt_weight, prompt.truncated, cut)


def sft_batch(rows: Sequence[EncodedSFT], codec: Codec, portion: Portion | None = None) -> SFTBatch:
    """Pad demonstrations.

    With a prompt loss, a row's prompt is its first token alone and the rest of it leads the response, at its weight:
    the same forward then yields the loss of both.
    """
    split = [1 if row.prompt_weight else len(row.prompt) for row in rows]
    prompt_ids, prompt_mask = _pad_prompts([row.prompt[:k] for row, k in zip(rows, split, strict=True)], codec)
    responses = [row.prompt[k:] + row.response for row, k in zip(rows, split, strict=True)]
    response_ids, response_mask = pad(responses, codec.pad_id if codec.kind != "encoder" else 0)
    weights = response_mask.float()
    for i, (row, k) in enumerate(zip(rows, split, strict=True)):
        weights[i, : len(row.prompt) - k] = row.prompt_weight
    return SFTBatch(prompt_ids, prompt_mask, response_ids, response_mask, weights, portion or _whole(rows))


def pair_batch(rows: Sequence[PreferenceRow], codec: Codec, portion: Portion | None = None) -> PairBatch:
    """Encode and pad preferences."""
    portion = portion or _whole(rows)
    texts = [(row.prompt, row.chosen) for row in rows] + [(row.prompt, row.rejected) for row in rows]
    pairs = [codec.encode_pair(prompt, completion) for prompt, completion in texts]
    return PairBatch(
        *pad_pairs(pairs, codec.pad_id),
        torch.tensor([row.weight for row in rows], dtype=torch.float),
        torch.tensor([row.margin for row in rows], dtype=torch.float),
        torch.tensor([len(completion) for _, completion in texts]),
        torch.arange(len(rows)) < portion.real,
        portion,
    )
