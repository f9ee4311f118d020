"""The reward model: a sequence-classification model with one output, read as a score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rlhf_lightning.data.batches import pad_pairs
from rlhf_lightning.data.encoding import Codec, Kind
from rlhf_lightning.data.micro_batches import by_parts, columns, micro_batches
from rlhf_lightning.data.rows import Prompt
from rlhf_lightning.errors import UserError
from rlhf_lightning.models.loading import (
    LoraSpec,
    ModelSpec,
    add_lora,
    check_window,
    from_pretrained,
    load_config,
    load_tokenizer,
    made_for,
    model_kind,
    save_model,
)
from rlhf_lightning.models.saving import write_folder
from rlhf_lightning.models.sharding import groups, shard, to_save

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from transformers import PreTrainedModel


def _head(model: nn.Module) -> nn.Linear:
    """The last linear layer of a sequence-classification model's head."""
    heads = [m for name, m in model.named_modules() if isinstance(m, nn.Linear) and m.out_features == 1]
    return heads[-1]


class RewardModel(nn.Module):
    """Scores a completion of a prompt.

    The raw output is shifted by ``mean`` and divided by ``std``, which travel in the model's config.

    Args:
        model: a transformers sequence-classification model with one label.
        codec: encodes its texts.
        lora: how `save` treats an adapter.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: PreTrainedModel | nn.Module, codec: Codec, lora: LoraSpec | None = None) -> None:
        super().__init__()
        self.model, self.codec, self.lora = model, codec, lora or LoraSpec()
        config = model.config
        self.register_buffer("mean", torch.tensor(float(getattr(config, "reward_mean", 0.0))))  # type: ignore[arg-type]
        self.register_buffer("std", torch.tensor(float(getattr(config, "reward_std", 1.0))))  # type: ignore[arg-type]

    @property
    def kind(self) -> Kind:
        """What the trunk is."""
        return self.codec.kind

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @classmethod
    def load(
        cls,
        spec: ModelSpec | str | Path,
        *,
        max_prompt: int = 512,
        max_completion: int = 128,
        system: str | None = None,
        fresh_head: bool = False,
    ) -> RewardModel:
        """Load a reward model from a hub name or a folder.

        Args:
            spec: which model, or just its name or folder.
            max_prompt, max_completion: limits in tokens.
            system: system message for chat models.
            fresh_head: to train one: a model without a score head gets one, drawn from N(0, 1/(d+1)) with bias 0
                (arXiv:2403.17031, detail 11). Without it such a model is refused.

        Raises:
            UserError: if the model can't be loaded, has several labels, or has no trained head.
        """
        from transformers import AutoModelForSequenceClassification

        spec = spec if isinstance(spec, ModelSpec) else ModelSpec(str(spec))
        config = load_config(spec)
        kind = model_kind(config, spec)
        trained = made_for(config, "ForSequenceClassification")
        if trained and config.num_labels != 1 and not fresh_head:
            raise UserError(f"{spec.name!r} has {config.num_labels} labels; a reward model has one.")
        if not trained and not fresh_head:
            raise UserError(
                f"{spec.name!r} has no trained reward head (its architecture is {config.architectures}). "
                "Train one with stages=[reward], or give a reward_model that has one."
            )
        config.id2label, config.label2id = {0: "reward"}, {"reward": 0}
        codec = Codec(load_tokenizer(spec), kind, max_prompt, max_completion, system=system)
        config.pad_token_id = codec.pad_id
        check_window(config, codec, spec.name, one_text=True)
        new = fresh_head and not (trained and load_config(spec).num_labels == 1)
        model = from_pretrained(AutoModelForSequenceClassification, spec, config, new)
        if new:
            head = _head(model)
            nn.init.normal_(head.weight, std=(head.in_features + 1) ** -0.5)
            if head.bias is not None:
                nn.init.zeros_(head.bias)
        return cls(add_lora(model, spec.lora, "SEQ_CLS"), codec, spec.lora)

    def normalise(self, scores: Tensor, scale: bool = True) -> None:
        """Make these scores, as the model gives them now, have mean 0 (and standard deviation 1 with ``scale``).

        Args:
            scores: (n,) of the texts that shall score 0 on average, n >= 2.
            scale: False shifts only.

        Raises:
            UserError: if all scores are equal or one is not finite.
        """
        raw = scores.double().to(self.mean.device) * self.std + self.mean
        spread = raw.std(unbiased=False)
        if not torch.isfinite(raw).all():
            raise UserError("the reward model gives a score that is no number: lower reward.lr")
        if scale and not spread > 0:
            raise UserError("the reward model gives every reference the same score: take reward.normalise=shift")
        self.mean.fill_(raw.mean())
        self.std.fill_(spread if scale else 1.0)

    def shard(self, mesh: DeviceMesh) -> None:
        """Deal the weights out to the devices of a mesh (FSDP2)."""
        shard(self.model, mesh)

    def save(self, folder: str | Path) -> Path:
        """Write a Hugging Face sequence-classification folder; whole or not at all.

        Where the weights are dealt out to several ranks all of them have to call, and rank zero writes.

        Raises:
            UserError: if it can't be written.
        """
        self.model.config.reward_mean, self.model.config.reward_std = self.mean.item(), self.std.item()  # type: ignore[union-attr]
        model = to_save(self.model)
        if model is None:
            return Path(folder)
        return write_folder(folder, lambda path: save_model(model, self.codec.tokenizer, path, self.lora.merge))

    def forward(self, input_ids: Tensor, mask: Tensor, type_ids: Tensor | None = None) -> Tensor:
        """Scores of encoded texts.

        Args:
            input_ids: (b, t), padded on the right.
            mask: (b, t) bool.
            type_ids: (b, t) segment ids of BERT-like models.

        Returns:
            (b,) float32.
        """
        return (
            by_parts(lambda rows: self._raw(input_ids, mask, type_ids, rows), self.groups(mask)) - self.mean
        ) / self.std

    def _raw(self, input_ids: Tensor, mask: Tensor, type_ids: Tensor | None, rows: Tensor) -> Tensor:
        """(k,) what the model gives some rows (k,) of a batch, before it is shifted and scaled."""
        width = columns(mask, rows)
        kwargs = {} if type_ids is None else {"token_type_ids": type_ids[rows, :width]}
        ids, shown = self._padded(input_ids[rows, :width], mask[rows, :width]), mask[rows, :width].long()
        return self.model(input_ids=ids, attention_mask=shown, **kwargs).logits[:, 0].float()

    def _padded(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """Ids with padding where the mask says so.

        Where pad and eos are one token, transformers reads the score before the padding's first: same on every path.
        """
        return input_ids.masked_fill(~mask, self.codec.pad_id)

    def groups(self, mask: Tensor) -> list[Tensor]:
        """Positions of the texts, with this mask (b, t), that `forward` takes through the model together."""
        return groups(self.model, mask.sum(1))

    @torch.no_grad()
    def score(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> Tensor:
        """Scores of texts: (n,) float32 on the model's device.

        Where the weights are dealt out, all ranks have to score the same texts.
        """
        return self._by_batches(self, (), prompts, completions)

    @torch.no_grad()
    def features(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> Tensor:
        """What the last layer of the head reads of texts: (n, d) float32 on the model's device.

        A score is ``(last layer(features) - mean) / std``. Of a decoder it is the hidden state at the last token, of
        models whose head has several layers what comes out of the one before.
        """
        seen: list[Tensor] = []

        def of(input_ids: Tensor, mask: Tensor, type_ids: Tensor | None) -> Tensor:
            def read(rows: Tensor) -> Tensor:
                self._raw(input_ids, mask, type_ids, rows)
                hidden = seen.pop().float()
                if hidden.ndim == 2:
                    return hidden
                width = hidden.shape[1]
                text = self._padded(input_ids[rows, :width], mask[rows, :width]) != self.codec.pad_id
                last = (text * torch.arange(width, device=hidden.device)).argmax(1)
                return hidden[torch.arange(len(rows), device=hidden.device), last]

            return by_parts(read, self.groups(mask))

        head = _head(self.model)
        with head.register_forward_pre_hook(lambda _, args: seen.append(args[0])):
            return self._by_batches(of, (head.in_features,), prompts, completions)

    def _by_batches(
        self,
        of: Callable[[Tensor, Tensor, Tensor | None], Tensor],
        size: tuple[int, ...],
        prompts: Sequence[Prompt],
        completions: Sequence[str],
    ) -> Tensor:
        """What is computed of encoded texts (b, t), of this size for each, a few texts at a time: (n, *size)."""
        pairs = [self.codec.encode_pair(p, c) for p, c in zip(prompts, completions, strict=True)]
        found = torch.zeros(len(pairs), *size, device=self.device)
        for rows in micro_batches(torch.tensor([len(pair.ids) for pair in pairs], device=self.device)):
            ids, mask, types = pad_pairs([pairs[i] for i in rows.tolist()], self.codec.pad_id)
            types = None if types is None else types.to(self.device)
            found[rows] = of(ids.to(self.device), mask.to(self.device), types)
        return found
