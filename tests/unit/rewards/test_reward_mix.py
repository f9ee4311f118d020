"""Several rewards at once, and what happens when one fails."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from helpers.tiny_models import PROMPTS, length_reward, reward_model_of, rows

from rlhf_lightning.data.rows import Prompt, PromptRow
from rlhf_lightning.errors import UserError
from rlhf_lightning.rewards import (
    ConstantReward,
    FunctionReward,
    LearnedReward,
    MetricReward,
    RewardFailure,
    RewardMix,
)
from rlhf_lightning.rewards.functions import SENTENCE_METRICS

CPU = torch.device("cpu")
ANSWERS = ["one", "three", "", "answer 3"]


def each(reward, prompt_rows=None):
    return RewardMix({"mine": reward}).each(prompt_rows or rows(), ANSWERS, CPU)["mine"]


def test_weights_and_names() -> None:
    """Each reward stays under its own name, unweighted; the total is the weighted sum, weight 1 where none is given."""
    mix = RewardMix({"length": length_reward, "two": ConstantReward(2.0)}, {"length": -3.0})
    scores = mix.each(rows(), ANSWERS, CPU)
    torch.testing.assert_close(scores["length"], torch.tensor([0.3, 0.5, 0.0, 0.8]))
    torch.testing.assert_close(mix.total(scores), -3 * scores["length"] + 2)


def test_weight_without_a_reward_is_refused() -> None:
    with pytest.raises(UserError, match="lenght"):
        RewardMix({"length": length_reward}, {"lenght": 1.0})
    with pytest.raises(UserError, match="no reward"):
        RewardMix({})


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (torch.zeros(3), r"shape \(3,\) for 4"),
        (torch.zeros(4, 1), r"shape \(4, 1\)"),
        (torch.tensor(0.0), r"shape \(\)"),
        ([0.0] * 4, "a list"),
        (None, "NoneType"),
        (torch.tensor([0.0, math.nan, 0.0, 0.0]), "nan.*'three'.*where does"),
        (torch.tensor([0.0, 0.0, 0.0, math.inf]), "inf.*'answer 3'"),
    ],
)
def test_wrong_returns_are_errors(returned, message: str) -> None:
    """A reward that is not one finite number a sample is never 0 in silence; the error names reward and sample."""
    with pytest.raises(UserError, match=rf"'mine'.*{message}"):
        each(lambda *_: returned)


@pytest.mark.parametrize("on_failure", ["stop", "mask"])
@pytest.mark.parametrize("returned", [torch.zeros(3), torch.zeros(4, 1), torch.tensor(0.0), [0.0] * 4, None])
def test_another_number_of_values_always_stops(returned, on_failure: str) -> None:
    """No server that is down explains it: whoever wrote the reward has to mend it."""
    mix = RewardMix({"mine": lambda *_: returned}, on_failure=on_failure)
    with pytest.raises(UserError, match="'mine' returned"):
        mix.each(rows(), ANSWERS, CPU)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_masking_takes_only_the_samples_that_failed(value: float) -> None:
    """They are NaN under the reward's name and in the total, and counted; all else stays what it is."""
    mix = RewardMix(
        {"bad": lambda *_: torch.tensor([1.0, value, 2.0, value]), "length": length_reward}, on_failure="mask"
    )
    assert mix.failures == {"bad": 0, "length": 0}
    with pytest.warns(UserWarning, match="'bad' is .* for the completion 'three'.*left out and counted"):
        scores = mix.each(rows(), ANSWERS, CPU)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mix.each(rows(), ANSWERS, CPU)
    assert scores["bad"].isnan().tolist() == [False, True, False, True]
    torch.testing.assert_close(scores["length"], torch.tensor([0.3, 0.5, 0.0, 0.8]))
    expected = torch.tensor([1.3, math.nan, 2.0, math.nan])
    torch.testing.assert_close(mix.total(scores), expected, equal_nan=True)
    assert mix.failures == {"bad": 4, "length": 0}
    assert set(mix.reasons) == {"bad"}
    mix.forget_failures()
    assert mix.failures == {"bad": 0, "length": 0}


def test_masking_a_call_that_raises_takes_the_whole_batch() -> None:
    """And the last reason is kept, though only the first was warned of."""
    said = iter(["first", "second"])

    def broken(*_):
        raise ValueError(next(said))

    mix = RewardMix({"mine": broken, "length": length_reward}, on_failure="mask")
    with pytest.warns(UserWarning, match=r"'mine' failed in .*test_\w+\.py, line \d+: ValueError: first"):
        scores = mix.each(rows(), ANSWERS, CPU)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mix.each(rows(), ANSWERS, CPU)
    assert scores["mine"].isnan().all()
    assert mix.total(scores).isnan().all()
    assert not scores["length"].isnan().any()
    assert mix.failures == {"mine": 8, "length": 0}
    assert "ValueError: second" in mix.reasons["mine"]


def test_a_failure_for_some_keeps_the_others() -> None:
    def partly(*_):
        raise RewardFailure("two are missing", torch.tensor([1.0, math.nan, math.nan, 4.0]))

    with pytest.raises(UserError, match=r"^the reward 'mine' failed: two are missing$"):
        each(partly)
    mix = RewardMix({"mine": partly}, on_failure="mask")
    with pytest.warns(UserWarning, match="two are missing"):
        scores = mix.each(rows(), ANSWERS, CPU)
    assert scores["mine"].isnan().tolist() == [False, True, True, False]
    assert mix.failures == {"mine": 2}


def test_a_users_mistake_is_never_masked(tmp_path, monkeypatch) -> None:
    """Neither one that a reward names itself, nor a function that returns no numbers."""
    (tmp_path / "no_numbers.py").write_text("def none(p, c, r, m):\n    return None\n")
    monkeypatch.syspath_prepend(tmp_path)

    def own(*_):
        raise UserError("no such judge")

    for reward, message in [(own, "^no such judge$"), (FunctionReward("no_numbers.none"), "'no_numbers.none'.*NoneT")]:
        with pytest.raises(UserError, match=message):
            RewardMix({"mine": reward}, on_failure="mask").each(rows(), ANSWERS, CPU)


def test_a_failure_is_met_in_one_of_two_ways() -> None:
    with pytest.raises(UserError, match="stop or mask, not 'zero'"):
        RewardMix({"length": length_reward}, on_failure="zero")  # type: ignore[arg-type]


def test_a_reward_that_raises_is_named() -> None:
    def broken(prompts, completions, references, meta):
        raise KeyError("gold")

    with pytest.raises(
        UserError, match=r"'mine' failed in .*test_\w+\.py, line \d+: KeyError: 'gold'.*\(prompts, comp"
    ):
        each(broken)

    def own(prompts, completions, references, meta):
        raise UserError("the server is down")

    with pytest.raises(UserError, match=r"^the server is down$"):
        each(own)


def test_a_reward_sees_prompts_references_and_meta() -> None:
    """Chats arrive as plain text, every other column as meta."""
    seen = {}

    def reward(prompts, completions, references, meta):
        seen.update(prompts=prompts, completions=completions, references=references, meta=meta)
        return torch.zeros(len(prompts), dtype=torch.float64)

    chat = PromptRow(Prompt([{"role": "user", "content": "hi"}]), ["x", "y"], {"k": 1})
    given = [*rows()[:3], chat]
    assert each(reward, given).dtype == torch.float32
    assert seen["prompts"] == [*PROMPTS[:3], "\n\nHuman: hi\n\nAssistant:"]
    assert seen["references"][3] == ["x", "y"]
    assert seen["meta"][3] == {"k": 1}
    assert seen["completions"] == ANSWERS


def test_metric_rewards() -> None:
    """A task metric of each completion, scaled; an unknown one names those that exist."""
    scores = each(MetricReward("exact_match", scale=2.0))
    assert scores.tolist() == [0, 0, 0, 2]
    with pytest.raises(UserError, match="token_f1"):
        MetricReward("rogue")
    assert each(MetricReward("bleu", options={"tokenize": "char"}))[3] == pytest.approx(100)


def test_function_reward_by_dotted_path(tmp_path, monkeypatch) -> None:
    (tmp_path / "my_rewards.py").write_text(
        "def fives(p, c, r, m):\n    return [5] * len(c)\n\n"
        "def some(p, c, r, m):\n    return [None, *range(1, len(c))]\n\nnumber = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert each(FunctionReward("my_rewards.fives")).tolist() == [5.0] * 4
    none, *others = FunctionReward("my_rewards.some")(PROMPTS, ANSWERS, [], []).tolist()
    assert math.isnan(none), "None is a failure, and never a 0"
    assert others == [1.0, 2.0, 3.0]
    for path, message in [
        ("my_rewards.sixes", r"my_rewards\.py has no 'sixes'"),
        ("nowhere.fives", "nowhere.*current folder"),
        ("fives", "MODULE.FUNCTION"),
        ("my_rewards.number", "not a function"),
    ]:
        with pytest.raises(UserError, match=message):
            FunctionReward(path)


def test_constant_reward() -> None:
    assert each(ConstantReward(1.5)).tolist() == [1.5] * 4


def test_learned_reward_scores_like_its_model(model_dir) -> None:
    """Checklist 10: within the mix a reward model gives what `score` gives, frozen."""
    model = reward_model_of(model_dir("llama"))
    expected = model.score([row.prompt for row in rows()], ANSWERS)
    reward = LearnedReward(model)
    torch.testing.assert_close(each(reward), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(reward(PROMPTS, ANSWERS, [], []), expected, atol=1e-5, rtol=1e-5)
    assert not any(p.requires_grad for p in model.parameters())
    assert not model.training


def test_learned_reward_of_a_folder(model_dir, tmp_path) -> None:
    """Checklist 10: a saved reward model scores the same when it is loaded by name; one without a head is refused."""
    model = reward_model_of(model_dir("gpt2"))
    model.save(tmp_path / "rm")
    reward = LearnedReward(str(tmp_path / "rm"), max_prompt=32, max_completion=12)
    torch.testing.assert_close(each(reward), model.score([row.prompt for row in rows()], ANSWERS))
    with pytest.raises(UserError, match="no trained reward head"):
        LearnedReward(str(model_dir("gpt2")))


@pytest.mark.parametrize("metric", sorted(SENTENCE_METRICS))
def test_a_metric_reward_needs_references(metric: str) -> None:
    with pytest.raises(ValueError, match="no reference"):
        MetricReward(metric)(["p", "p"], ["a", "b"], [["a"], []], [{}, {}])
