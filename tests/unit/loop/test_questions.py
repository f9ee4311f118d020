from __future__ import annotations

import pytest
import torch
from helpers.tiny_models import COMPLETIONS, PROMPTS, reward_model_of

from rlhf_lightning.data.rows import PreferenceRow, Prompt
from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.selection import choose
from rlhf_lightning.loop.questions import HEADS, ensemble_gaps

TEXTS = [Prompt(text) for text in PROMPTS]


def said(n: int, **more) -> list[PreferenceRow]:
    """The same comparison n times: of the first prompt's two answers the first is better."""
    return [PreferenceRow(TEXTS[0], COMPLETIONS[0], COMPLETIONS[2], **more) for _ in range(n)]


@pytest.mark.parametrize("kind", ["llama", "t5", "bert"])
def test_heads_agree_on_what_was_said_and_differ_on_what_was_not(kind, model_dir):
    model = reward_model_of(model_dir(kind))
    first, second = [COMPLETIONS[0], COMPLETIONS[1]], [COMPLETIONS[2], COMPLETIONS[3]]
    gaps = ensemble_gaps(model, said(60), [TEXTS[0], TEXTS[1]], first, second, 0)
    assert gaps.shape == (HEADS, 2)
    assert (gaps[:, 0] > 1).all()
    p = torch.sigmoid(gaps)
    assert p[:, 1].var() > 3 * p[:, 0].var()
    chosen = choose(2, 2, "variance", gaps, 0, 0.2)
    assert {c.strategy for c in chosen} == {"random", "variance"}
    turned = ensemble_gaps(model, said(60), [TEXTS[0], TEXTS[1]], second, first, 0)
    torch.testing.assert_close(turned, -gaps)


def test_a_tie_says_that_neither_is_better(model_dir):
    model = reward_model_of(model_dir("llama"))
    asked = ([TEXTS[0]], [COMPLETIONS[0]], [COMPLETIONS[2]])
    tie = ensemble_gaps(model, said(200, probability=0.5), *asked, 0)
    assert tie.abs().mean() < 0.5
    little = ensemble_gaps(model, said(60, weight=0.01), *asked, 0)
    assert little.mean() < ensemble_gaps(model, said(60), *asked, 0).mean()


def test_a_model_that_sees_no_difference_is_refused(model_dir):
    same = PreferenceRow(TEXTS[0], "a", "a")
    with pytest.raises(UserError, match="no difference"):
        ensemble_gaps(reward_model_of(model_dir("llama")), [same], [TEXTS[0]], ["a"], ["on the mat"], 0)
