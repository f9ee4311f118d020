"""A label of a text classifier as a reward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rlhf_lightning.data.micro_batches import by_parts, micro_batches
from rlhf_lightning.errors import UserError
from rlhf_lightning.models.loading import (
    ModelSpec,
    from_pretrained,
    load_config,
    load_tokenizer,
    made_for,
    positions,
)


class ClassifierReward:
    """How sure a sequence-classification model is that a text has a label, such as positive sentiment.

    A text that is longer than the model's window, where it has one, is read from its end on: of prompt and completion
    together, the completion is what must not be lost.

    Args:
        model: hub name or folder of a transformers sequence-classification model with several labels.
        label: one of its labels.
        text: what is classified: the ``completion`` alone, or ``prompt+completion`` (with a space between them).
        score: the label's ``logit``; its ``probability``; or its ``log-odds``, log p - log(1 - p). Where the model
            was made for several labels at once, each has a probability of its own, and its log-odds are its logit.
        revision: branch, tag or commit on the hub.
        trust_remote_code: run code that comes with the model.

    Raises:
        UserError: if the model can't be loaded, is no classifier, has one label only, or lacks this one.
    """

    def __init__(
        self,
        model: str | Path,
        label: str,
        text: Literal["completion", "prompt+completion"] = "completion",
        score: Literal["logit", "probability", "log-odds"] = "logit",
        revision: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        from transformers import AutoModelForSequenceClassification
        from transformers.tokenization_utils_base import VERY_LARGE_INTEGER  # what no limit is

        spec = ModelSpec(str(model), revision=revision, trust_remote_code=trust_remote_code)
        config = load_config(spec)
        if not made_for(config, "ForSequenceClassification"):
            raise UserError(
                f"{spec.name!r} is no text classifier (its architecture is {config.architectures}): a classifier "
                "reward needs a sequence-classification model"
            )
        labels = [str(name) for _, name in sorted(dict(config.id2label or {}).items())]
        if len(labels) == 1:
            raise UserError(
                f"{spec.name!r} has one label, as a reward model does: use it as rewards=learned "
                f"ppo.rewards.learned.model={spec.name}"
            )
        if label not in labels:
            raise UserError(f"{spec.name!r} has no label {label!r}; its labels are {', '.join(labels)}")
        self.tokenizer = load_tokenizer(spec)
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        config.pad_token_id = self.tokenizer.pad_token_id
        self.tokenizer.truncation_side = "left"
        told = self.tokenizer.model_max_length
        windows = (positions(config), told if told < VERY_LARGE_INTEGER else None)
        self.window = min((window for window in windows if window is not None), default=None)
        self.model = from_pretrained(AutoModelForSequenceClassification, spec, config).requires_grad_(False).eval()
        self.label, self.text, self.kind = labels.index(label), text, score
        self.independent = config.problem_type == "multi_label_classification"

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    def to(self, device: torch.device) -> None:
        """Move the model."""
        if self.device != device:
            self.model.to(device)  # type: ignore[arg-type]

    @torch.no_grad()
    def __call__(
        self, prompts: list[str], completions: list[str], references: list[list[str]], meta: list[dict[str, Any]]
    ) -> Tensor:
        """(b,) float32 scores of the label."""
        texts = completions
        if self.text == "prompt+completion":
            texts = [joined(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
        # What spells a special token, such as [SEP], is text: a policy must not be able to end the input with it.
        limit = {"truncation": self.window is not None, "max_length": self.window}
        encoded = self.tokenizer(texts, **limit, split_special_tokens=True)
        lengths = torch.tensor([len(ids) for ids in encoded["input_ids"]], device=self.device)
        return by_parts(lambda rows: self._scores(encoded, rows.tolist()), micro_batches(lengths))

    def _scores(self, encoded: Mapping[str, Sequence[list[int]]], rows: list[int]) -> Tensor:
        padding = {"input_ids": self.tokenizer.pad_token_id}
        nothing = {**padding, "attention_mask": 1}  # a decoder's tokenizer makes no token at all of an empty text
        batch = {
            name: pad_sequence(
                [torch.tensor(values[i] or [nothing.get(name, 0)]) for i in rows], True, padding.get(name, 0)
            ).to(self.device)
            for name, values in encoded.items()
        }
        logits = self.model(**batch).logits.float()
        chosen = logits[:, self.label]
        if self.kind == "logit":
            return chosen
        others = torch.cat([logits[:, : self.label], logits[:, self.label + 1 :]], dim=1)
        log_odds = chosen if self.independent else chosen - others.logsumexp(1)
        return log_odds if self.kind == "log-odds" else log_odds.sigmoid()


def joined(prompt: str, completion: str) -> str:
    """Prompt and completion as one text.

    >>> joined("I like", "it"), joined("Text:\\n", "it"), joined("I like", "")
    ('I like it', 'Text:\\nit', 'I like')
    """
    return f"{prompt}{'' if prompt[-1:].isspace() else ' '}{completion}" if completion else prompt
