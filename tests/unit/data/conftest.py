"""Tokenizers of every family that the codec treats in its own way, made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

TEXTS = ["the cat sat on the mat", "where does the sun rise in the morning?", "good food, bad service", "中文 句子"]
WORDS = [
    "where",
    "does",
    "the",
    "sun",
    "rise",
    "cat",
    "sat",
    "in",
    "morning",
    "good",
    "food",
    "bad",
    "service",
    *"abcdefg",
]
CHAT = (
    "{% for m in messages %}{% if m['role'] == 'system' and not loop.first %}{{ raise_exception('system first') }}"
    "{% endif %}{% if m['role'] == 'user' and not loop.first and messages[loop.index0 - 1]['role'] == 'user' %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""A template like Llama's and Mistral's: system messages come first, and roles alternate."""


def wordpiece() -> Any:
    """A BERT-like tokenizer: pairs are [CLS] a [SEP] b [SEP], of types 0 and 1."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocab = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "?", ",", ":", "##s", *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=inputs, **names)


def metaspace() -> Any:
    """A tokenizer like Llama 2's, which puts SentencePiece's mark of a word's beginning before every text."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=["<unk>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """A fresh tokenizer of a family: llama, t5, gpt2 (pad == eos), ending (adds eos to all), chat, bert, metaspace."""
    from tokenizers import processors
    from transformers import AutoTokenizer

    from rlhf_lightning.models.tiny import TinySpec, make_tiny

    folders = {}
    for kind in ("causal", "seq2seq"):
        spec = TinySpec(kind=kind, hidden=8, layers=1, heads=1, vocab_size=320)  # type: ignore[arg-type]
        folders[kind] = make_tiny(spec, TEXTS, tmp_path_factory.mktemp("tiny") / kind)

    def make(family: str) -> Any:
        if family in ("bert", "metaspace"):
            return wordpiece() if family == "bert" else metaspace()
        made: Any = AutoTokenizer.from_pretrained(folders["seq2seq" if family == "t5" else "causal"])
        if family == "gpt2":
            made.pad_token = None
        elif family == "ending":
            made.backend_tokenizer.post_processor = processors.TemplateProcessing(
                single="$A <eos>", special_tokens=[("<eos>", 1)]
            )
        elif family == "chat":
            made.chat_template = CHAT
        return made

    return make
