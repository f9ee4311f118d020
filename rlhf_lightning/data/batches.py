"""Typed batches, and the functions that make them from rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from rlhf_lightning.data.encoding import Codec, EncodedPair
from rlhf_lightning.data.order import Portion
from rlhf_lightning.data.rankings import Judged, ranks
from rlhf_lightning.data.rows import PreferenceRow, Prompt, PromptRow, SFTRow, UnpairedRow

B = TypeVar("B", bound="Batch")


@dataclass(frozen=True)
class Batch:
    """A bundle of tensors that Lightning moves to a device as a whole."""

    def to(self: B, device: Any, **kwargs: Any) -> B:
        """The same batch with every tensor on ``device``."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {name: v.to(device, **kwargs) for name, v in values.items() if isinstance(v, (Tensor, Batch))}
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
class Rankings(Batch):
    """Rankings of g times some texts, m in all.

    Attributes:
        text: (m,) int64 positions of the ranked texts.
        rank: (m,) int64, 0 the best; equal within a ranking where tied.
        ranking: (m,) int64 which ranking, 0 to g - 1.
        weight: (g,) float: the sum of the weights of a ranking's pairs.
    """

    text: Tensor
    rank: Tensor
    ranking: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Thumbs(Batch):
    """Texts with a thumb up or down.

    Attributes:
        text: (u,) int64 their positions.
        label: (u,) float, 1 for a thumb up and 0 for one down.
        weight: (u,) float.
        counts: (u,) bool, false where one only fills up.
    """

    text: Tensor
    label: Tensor
    weight: Tensor
    counts: Tensor


@dataclass(frozen=True)
class PairBatch(Batch):
    """Preferences: b pairs of n texts, each of which is held once, in however many pairs it stands.

    Attributes:
        input_ids, mask, type_ids: (n, t) the texts, padded on the right; ``type_ids`` None where the model has none.
        lengths: (n,) int64 length of each completion in characters.
        uses: (n,) int64 in how many of the elements that count a text stands, a ranking being one.
        chosen, rejected: (b,) int64 positions of the pairs' texts.
        weight, margin, probability: (b,) float; the weight is 0 for a pair whose ranking is among ``rankings``.
        counts: (b,) bool, false where a pair only fills up.
        rankings, thumbs: other judgements of the texts; None where there are none.
        portion: which part of the batch over all ranks this is; it is made of elements.
    """

    input_ids: Tensor
    mask: Tensor
    type_ids: Tensor | None
    lengths: Tensor
    uses: Tensor
    chosen: Tensor
    rejected: Tensor
    weight: Tensor
    margin: Tensor
    probability: Tensor
    counts: Tensor
    rankings: Rankings | None
    thumbs: Thumbs | None
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


def pair_batch(
    elements: Sequence[Judged | Sequence[Judged]],
    codec: Codec,
    portion: Portion | None = None,
    plackett_luce: bool = False,
) -> PairBatch:
    """Encode and pad preferences; a text that stands in several of them is encoded once.

    Args:
        elements: rows, each by itself or, for a ranking, with the others of its ranking (`together`).
        codec: of the reward model.
        portion: which part of the batch they are; its ``real`` counts elements.
        plackett_luce: learn rankings as such and not by their pairs, which are then held for the accuracy alone.

    Raises:
        UserError: if a ranking that is to be learnt is none (`ranks`).
    """
    portion = portion or _whole(elements)
    texts: dict[Any, int] = {}  # the position of each
    encoded, lengths, uses = list[EncodedPair](), list[int](), list[int]()
    pairs: list[tuple[int, int, float, float, float, bool]] = []
    thumbs: list[tuple[int, bool, float, bool]] = []
    ranked: list[tuple[int, int, int]] = []
    weights: list[float] = []

    def position(prompt: Prompt, completion: str) -> int:
        key = _key(prompt, completion)
        if key not in texts:
            texts[key] = len(texts)
            encoded.append(codec.encode_pair(prompt, completion))
            lengths.append(len(completion))
            uses.append(0)
        return texts[key]

    for number, element in enumerate(elements):
        rows = element if isinstance(element, Sequence) else (element,)
        counts, seen = number < portion.real, set[int]()
        whole = plackett_luce and isinstance(rows[0], PreferenceRow) and rows[0].group is not None
        for row in rows:
            if isinstance(row, UnpairedRow):
                thumbs.append((at := position(row.prompt, row.completion), row.label, row.weight, counts))
                seen.add(at)
                continue
            two = position(row.prompt, row.chosen), position(row.prompt, row.rejected)
            pairs.append((*two, 0.0 if whole else row.weight, row.margin, row.probability, counts))
            seen.update(two)
        if whole:
            order = ranks([row for row in rows if isinstance(row, PreferenceRow)])
            ranked += [(position(rows[0].prompt, text), rank, len(weights)) for text, rank in order.items()]
            weights.append(sum(row.weight for row in rows) * counts)
        if counts:
            for at in seen:
                uses[at] += 1
    chosen, rejected, weight, margin, probability, pair_counts = _columns(pairs, "iifffb")
    text, rank, ranking = _columns(ranked, "iii")
    return PairBatch(
        *pad_pairs(encoded, codec.pad_id),
        torch.tensor(lengths),
        torch.tensor(uses),
        chosen,
        rejected,
        weight,
        margin,
        probability,
        pair_counts,
        Rankings(text, rank, ranking, torch.tensor(weights, dtype=torch.float)) if ranked else None,
        Thumbs(*_columns(thumbs, "iffb")) if thumbs else None,
        portion,
    )


def _key(prompt: Prompt, completion: str) -> tuple[Any, ...]:
    """Equal for equal texts."""
    text = prompt.text if isinstance(prompt.text, str) else tuple(tuple(turn.items()) for turn in prompt.text)
    return text, prompt.cut, completion


def _columns(rows: Sequence[Sequence[Any]], types: str) -> list[Tensor]:
    """Rows of numbers as one tensor a column: i an int64, f a float, b a bool. Without rows they are empty."""
    kinds = {"i": torch.long, "f": torch.float, "b": torch.bool}
    columns: Sequence[Sequence[Any]] = list(zip(*rows, strict=True)) or [()] * len(types)
    return [torch.tensor(values, dtype=kinds[kind]) for values, kind in zip(columns, types, strict=True)]
