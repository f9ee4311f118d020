"""Tiny models made on the spot: random weights, a tokenizer trained on the task's own text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rlhf_lightning.models.saving import write_folder


@dataclass(frozen=True)
class TinySpec:
    """Shape of a model made from nothing.

    Attributes:
        kind: ``causal`` (Llama) or ``seq2seq`` (T5).
        hidden: width; a multiple of ``heads``.
        layers: blocks (of the encoder and of the decoder each, for seq2seq).
        heads: attention heads.
        vocab_size: the most tokens the tokenizer may have.
        positions: the longest sequence.
        seed: of the weights.
    """

    kind: Literal["causal", "seq2seq"] = "causal"
    hidden: int = 128
    layers: int = 2
    heads: int = 4
    vocab_size: int = 1024
    positions: int = 512
    seed: int = 0


def make_tiny(spec: TinySpec, texts: Iterable[str], folder: str | Path) -> Path:
    """Write a randomly initialised model and its tokenizer as a Hugging Face folder.

    The tokenizer is a byte-level BPE: no text of any script is unknown to it.

    Args:
        spec: the shape.
        texts: what the tokenizer is trained on (the task's training text).
        folder: where the model goes.

    Returns:
        ``folder``.

    Raises:
        UserError: if the folder can't be written.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
        T5Config,
        T5ForConditionalGeneration,
    )

    pad, eos = "<pad>", "<eos>"
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=spec.vocab_size,
        special_tokens=[pad, eos],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    if spec.kind == "seq2seq":
        bpe.post_processor = processors.TemplateProcessing(single=f"$A {eos}", special_tokens=[(eos, 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=pad,
        eos_token=eos,
        model_max_length=spec.positions,
        clean_up_tokenization_spaces=False,
    )
    shared: dict[str, Any] = {"vocab_size": len(tokenizer), "pad_token_id": 0, "eos_token_id": 1}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        model: LlamaForCausalLM | T5ForConditionalGeneration
        if spec.kind == "causal":
            model = LlamaForCausalLM(
                LlamaConfig(
                    hidden_size=spec.hidden,
                    intermediate_size=4 * spec.hidden,
                    num_hidden_layers=spec.layers,
                    num_attention_heads=spec.heads,
                    max_position_embeddings=spec.positions,
                    tie_word_embeddings=True,
                    bos_token_id=None,
                    **shared,
                )
            )
        else:
            model = T5ForConditionalGeneration(
                T5Config(
                    d_model=spec.hidden,
                    d_kv=spec.hidden // spec.heads,
                    d_ff=4 * spec.hidden,
                    num_layers=spec.layers,
                    num_heads=spec.heads,
                    dropout_rate=0.0,
                    **{**shared, "decoder_start_token_id": 0},
                )
            )

    def fill(path: Path) -> None:
        model.save_pretrained(path)
        tokenizer.save_pretrained(path)

    return write_folder(folder, fill)
