"""The mean loss of a saved model on held-out rows, computed with transformers alone; see `compare.py`."""

from __future__ import annotations

from typing import Any

import torch
from common import say, work
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification


def token_losses(model: Any, row: dict[str, Any]) -> Tensor:
    """Of a completion's tokens."""
    ids, start = torch.tensor([row["ids"]]), row["start"]
    logits = model(input_ids=ids).logits[0, start - 1 : -1]
    return torch.nn.functional.cross_entropy(logits, ids[0, start:], reduction="none")


def pair_loss(model: Any, row: dict[str, Any]) -> Tensor:
    """Of a preference; each text goes through the model alone, so nothing depends on how padding is read."""
    chosen, rejected = (
        model(input_ids=torch.tensor([row[f"{which}_ids"]])).logits[0] for which in ("chosen", "rejected")
    )
    return -torch.nn.functional.logsigmoid(chosen - rejected)


@torch.no_grad()
def main() -> None:
    given = work()
    kind, loss = {
        "sft": (AutoModelForCausalLM, token_losses),
        "reward": (AutoModelForSequenceClassification, pair_loss),
    }[given["work"]]
    model = kind.from_pretrained(given["model"], dtype=torch.float32).eval()
    say(loss=float(torch.cat([loss(model, row) for row in given["rows"]]).mean()))


if __name__ == "__main__":
    main()
