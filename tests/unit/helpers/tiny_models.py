"""Models of a few thousand weights, as Hugging Face folders, with weights large enough that every bug shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlhf_lightning.data.batches import PromptBatch, prompt_batch
from rlhf_lightning.data.rows import PreferenceRow, Prompt, PromptRow, SFTRow
from rlhf_lightning.models import Policy, RewardModel, TinySpec, make_tiny

TEXTS = [
    "the cat sat on the mat and the dog sat on the log",
    "a quick brown fox jumps over the lazy dog again",
    "where does the sun rise in the morning of the day",
    "good food bad service long wait small portions",
]
PROMPTS = ["the cat", "where does the sun rise in the morning of the day?", "a", "good food, bad service: the dog sat"]
COMPLETIONS = ["on the mat", "a", "in the morning of the lazy dog", "the fox jumps"]
KINDS = ("llama", "gpt2", "t5")
"""The generating shapes: rotary with its own pad token, absolute positions with pad == eos, encoder-decoder."""


def spread_weights(model: nn.Module, std: float = 0.25, seed: int = 0) -> None:
    """Draw every matrix anew, so that tokens and positions matter (std 0.02 leaves all logits nearly equal)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)


def write_model(kind: str, folder: Path, **config: Any) -> Path:
    """A tiny model of a kind (llama, gpt2, t5, bert) as a folder; ``config`` overrides its settings."""
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        GPT2Config,
        GPT2LMHeadModel,
        LlamaForCausalLM,
        T5ForConditionalGeneration,
    )

    model: Any
    if kind in ("llama", "t5"):
        spec = TinySpec(
            kind="causal" if kind == "llama" else "seq2seq", hidden=16, layers=2, heads=2, vocab_size=300, positions=96
        )
        make_tiny(spec, TEXTS, folder)
        cls: Any = LlamaForCausalLM if kind == "llama" else T5ForConditionalGeneration
        if config:
            made = cls.config_class.from_pretrained(folder)
            made.update(config)
            model = cls(made)
        else:
            model = cls.from_pretrained(folder)
    elif kind == "gpt2":
        make_tiny(TinySpec(hidden=16, layers=1, heads=1, vocab_size=300), TEXTS, folder)
        tokenizer_without_padding(folder)
        settings: dict[str, Any] = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 96, "vocab_size": 300}
        model = GPT2LMHeadModel(GPT2Config(**{**settings, "eos_token_id": 1, "bos_token_id": 1, **config}))
    elif kind == "bert":
        folder.mkdir(parents=True, exist_ok=True)
        wordpiece(folder)
        settings = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        model = BertForMaskedLM(BertConfig(**{**settings, "vocab_size": 60, "max_position_embeddings": 96, **config}))
    else:
        raise ValueError(kind)
    spread_weights(model)
    if (head := model.get_output_embeddings()) is not None and kind != "bert":
        with torch.no_grad():
            head.weight[1] *= 16 if kind == "t5" else 7  # some responses end, some don't
    model.save_pretrained(folder)
    return folder


def tokenizer_without_padding(folder: Path) -> None:
    """Take the padding token out of a folder's tokenizer, as GPT-2's has none."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    backend = AutoTokenizer.from_pretrained(folder).backend_tokenizer
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", model_max_length=96).save_pretrained(folder)


def wordpiece(folder: Path) -> None:
    """A BERT tokenizer with segment ids."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = sorted({word for text in [*TEXTS, *PROMPTS] for word in text.replace("?", "").replace(",", "").split()})
    vocab = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "?", ",", ":", *words])}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = {f"{n.lower()}_token": f"[{n}]" for n in ("PAD", "UNK", "CLS", "SEP", "MASK")}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **names,
    ).save_pretrained(folder)


def rows(prompts: Sequence[str] = PROMPTS) -> list[PromptRow]:
    """Prompt rows with a reference each."""
    return [PromptRow(Prompt(text), [f"answer {i}"], {"number": i}) for i, text in enumerate(prompts)]


def batch_of(policy: Policy, prompts: Sequence[str] = PROMPTS) -> PromptBatch:
    """The batch that a data module would make of prompts."""
    return prompt_batch(list(enumerate(rows(prompts))), policy.codec).to(policy.device)


def demonstrations() -> list[SFTRow]:
    """One demonstration a prompt."""
    return [SFTRow(Prompt(p), c) for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]


def preferences() -> list[PreferenceRow]:
    """Eight preferences with one another's completions as the rejected ones."""
    shifted = [*COMPLETIONS[1:], COMPLETIONS[0]]
    pairs = [PreferenceRow(Prompt(p), c, r) for p, c, r in zip(PROMPTS, COMPLETIONS, shifted, strict=True)]
    turned = [*COMPLETIONS[2:], *COMPLETIONS[:2]]
    return pairs + [PreferenceRow(Prompt(p), c, r) for p, c, r in zip(PROMPTS, COMPLETIONS, turned, strict=True)]


def with_noise_in_padding(ids: Tensor, mask: Tensor, vocab: int, seed: int = 7) -> Tensor:
    """The same ids with random ones where the mask is false."""
    noise = torch.randint(0, vocab, ids.shape, generator=torch.Generator().manual_seed(seed)).to(ids.device)
    return torch.where(mask, ids, noise)


def count_of(letter: str):
    """A reward: how often a letter stands in each completion."""

    def reward(prompts: list[str], completions: list[str], references: list, meta: list) -> Tensor:
        return torch.tensor([float(text.count(letter)) for text in completions])

    return reward


def length_reward(prompts: list[str], completions: list[str], references: list, meta: list) -> Tensor:
    """A reward that differs from sample to sample: a tenth of the letters."""
    return torch.tensor([len(text) / 10 for text in completions])


def reward_model_of(folder: Path, **limits: int) -> RewardModel:
    """A reward model with a fresh head that gives scores of order 1."""
    model = RewardModel.load(str(folder), fresh_head=True, **{"max_prompt": 32, "max_completion": 12, **limits})
    return model.eval()
