"""Metrics of text tasks as torchmetrics, and the per-text scores behind them for use as rewards.

A task metric has ``update(completions, references)`` and gives in ``compute()`` a scalar tensor or a dict of them. It
equals the score that the reference package gives for the whole corpus, over any split into batches and ranks, also when
ranks update unequally or not at all.
"""

from rlhf_lightning.metrics.classification import LabelAccuracy, LabelF1, label_match, parse_label
from rlhf_lightning.metrics.detectors import (
    label_collapse,
    length_reward_correlation,
    lists_several_labels,
    negative_kl,
    relative_drift,
)
from rlhf_lightning.metrics.guardrails import Guardrails, copied_share, echoes_prompt, longest_repeat
from rlhf_lightning.metrics.qa import ExactMatch, TokenF1, exact_match, token_f1
from rlhf_lightning.metrics.rouge import ROUGE, sentence_rouge
from rlhf_lightning.metrics.translation import BLEU, TER, ChrF, sentence_bleu, sentence_chrf, sentence_ter
from rlhf_lightning.metrics.words import WordTokenizer, split_sentences, split_words

__all__ = [
    "BLEU",
    "ROUGE",
    "TER",
    "ChrF",
    "ExactMatch",
    "Guardrails",
    "LabelAccuracy",
    "LabelF1",
    "TokenF1",
    "WordTokenizer",
    "copied_share",
    "echoes_prompt",
    "exact_match",
    "label_collapse",
    "label_match",
    "length_reward_correlation",
    "lists_several_labels",
    "longest_repeat",
    "negative_kl",
    "parse_label",
    "relative_drift",
    "sentence_bleu",
    "sentence_chrf",
    "sentence_rouge",
    "sentence_ter",
    "split_sentences",
    "split_words",
    "token_f1",
]
