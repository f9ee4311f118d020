"""An encoder with a classification head, behind the same interface as a policy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from rlhf_lightning.data.batches import PromptBatch, SFTBatch
from rlhf_lightning.data.encoding import Codec, Kind
from rlhf_lightning.data.micro_batches import by_parts, columns
from rlhf_lightning.errors import UserError
from rlhf_lightning.models.generation import Completions, Sampling
from rlhf_lightning.models.loading import (
    LoraSpec,
    ModelSpec,
    add_lora,
    check_window,
    from_pretrained,
    load_config,
    load_tokenizer,
    save_model,
)
from rlhf_lightning.models.saving import write_folder
from rlhf_lightning.models.sharding import groups, shard, to_save

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from transformers import PreTrainedModel


class Classifier(nn.Module):
    """A sequence-classification model whose answer to a prompt is a label's text.

    Args:
        model: a transformers sequence-classification model with as many labels as ``codec.labels``.
        codec: encodes its texts.
        lora: how `save` treats an adapter.
    """

    def __init__(self, model: PreTrainedModel | nn.Module, codec: Codec, lora: LoraSpec | None = None) -> None:
        super().__init__()
        self.model, self.codec, self.lora = model, codec, lora or LoraSpec()

    @property
    def kind(self) -> Kind:
        """``encoder``."""
        return self.codec.kind

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @classmethod
    def load(
        cls, spec: ModelSpec | str | Path, *, labels: Sequence[str], max_prompt: int = 512, fresh_head: bool = False
    ) -> Classifier:
        """Load an encoder for a label set.

        Args:
            spec: which model, or just its name or folder.
            labels: the label texts, in the order of the head's outputs.
            max_prompt: limit in tokens.
            fresh_head: give a model that has no head for these labels an untrained one (to train it).

        Raises:
            UserError: without labels, or if the model has no trained head for them and ``fresh_head`` is off.
        """
        from transformers import AutoModelForSequenceClassification

        spec = spec if isinstance(spec, ModelSpec) else ModelSpec(str(spec))
        config = load_config(spec)
        if not labels:
            raise UserError(
                f"{spec.name!r} is an encoder ({config.model_type}): it classifies, but this task has no label set, so "
                "it can't answer it. Choose a causal or sequence-to-sequence model."
            )
        own = [str(label) for _, label in sorted(dict(config.id2label or {}).items())]
        known = own == list(labels)
        if not known and not fresh_head:
            raise UserError(
                f"{spec.name!r} has no trained head for the labels {list(labels)} (its own are {own}). "
                "Train one with stages=[sft]."
            )
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: i for i, label in enumerate(labels)}
        codec = Codec(load_tokenizer(spec), "encoder", max_prompt, labels=tuple(labels))
        check_window(config, codec, spec.name)
        model = from_pretrained(AutoModelForSequenceClassification, spec, config, fresh_head and not known)
        return cls(add_lora(model, spec.lora, "SEQ_CLS"), codec, spec.lora)

    def shard(self, mesh: DeviceMesh) -> None:
        """Deal the weights out to the devices of a mesh (FSDP2)."""
        shard(self.model, mesh)

    def save(self, folder: str | Path) -> Path:
        """Write a Hugging Face sequence-classification folder; whole or not at all.

        Where the weights are dealt out to several ranks all of them have to call, and rank zero writes.

        Raises:
            UserError: if it can't be written.
        """
        model = to_save(self.model)
        if model is None:
            return Path(folder)
        return write_folder(folder, lambda path: save_model(model, self.codec.tokenizer, path, self.lora.merge))

    def forward(self, prompt_ids: Tensor, prompt_mask: Tensor) -> Tensor:
        """(b, labels) logits; ``prompt_ids`` (b, p) and ``prompt_mask`` are padded on the right."""

        def logits(rows: Tensor) -> Tensor:
            width = columns(prompt_mask, rows)
            return self.model(
                input_ids=prompt_ids[rows, :width], attention_mask=prompt_mask[rows, :width].long()
            ).logits.float()

        return by_parts(logits, self.groups(prompt_mask))

    def groups(self, prompt_mask: Tensor, response_mask: Tensor | None = None) -> list[Tensor]:
        """Positions of rows, with a mask (b, p), that `forward` takes through together; responses say nothing."""
        return groups(self.model, prompt_mask.sum(1))

    def sft_loss(self, batch: SFTBatch) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Cross-entropy of the labels, the share guessed right, and each row's loss (b,)."""
        logits, targets = self(batch.prompt_ids, batch.prompt_mask), batch.response_ids[:, 0]
        losses = cross_entropy(logits, targets, reduction="none")
        right = (logits.argmax(-1) == targets).float().mean()
        return losses.mean(), {"token_accuracy": right}, losses.detach()

    @torch.no_grad()
    def complete(self, batch: PromptBatch, sampling: Sampling) -> Completions:
        """The most likely label of each prompt (``sampling`` has nothing to say here)."""
        ids = self(batch.prompt_ids, batch.prompt_mask).argmax(-1, keepdim=True)
        mask = torch.ones_like(ids, dtype=torch.bool)
        return Completions([self.codec.labels[i] for i in ids[:, 0].tolist()], ids, mask, mask[:, 0])
