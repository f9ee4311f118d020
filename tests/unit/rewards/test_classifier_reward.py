"""A label of a classifier as a reward: equal to transformers' own pipeline, and refused early where it can't work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.tiny_models import PROMPTS, rows, spread_weights, wordpiece, write_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, pipeline

from rlhf_lightning.errors import UserError
from rlhf_lightning.rewards import ClassifierReward, RewardMix

LABELS = {0: "NEGATIVE", 1: "POSITIVE", 2: "NEUTRAL"}
TEXTS = ["the cat sat", "a quick brown fox jumps over the lazy dog", "", "good food [SEP] bad service", "dog"]
FUNCTIONS = {"logit": "none", "probability": "softmax"}


def write_classifier(folder: Path, kind: str = "bert", labels: dict[int, str] = LABELS, **config) -> Path:
    """A classifier of random weights, as a folder."""
    names = {"id2label": labels, "label2id": {name: i for i, name in labels.items()}, **config}
    if kind == "bert":
        folder.mkdir()
        wordpiece(folder)
        shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        settings = BertConfig(vocab_size=60, **{"max_position_embeddings": 24, **shape, **names})
    else:
        settings = AutoModelForSequenceClassification.from_pretrained(write_model(kind, folder)).config
        settings.update(names)
    model = AutoModelForSequenceClassification.from_config(settings)
    spread_weights(model)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("bert") / "model")


def scores(folder: Path, texts: list[str] = TEXTS, prompts: list[str] | None = None, **options) -> list[float]:
    reward = ClassifierReward(folder, **{"label": "POSITIVE", **options})
    prompts = prompts or [""] * len(texts)
    return reward(prompts, texts, [[]] * len(texts), [{}] * len(texts)).tolist()


def by_pipeline(folder: Path, texts: list[str], function: str, label: str = "POSITIVE") -> list[float]:
    classify = pipeline("text-classification", model=str(folder), device="cpu")
    answers = [classify(text, top_k=None, function_to_apply=function, split_special_tokens=True) for text in texts]
    return [next(x["score"] for x in answer if x["label"] == label) for answer in answers]


@pytest.mark.parametrize("kind", ["bert", "llama"])
@pytest.mark.parametrize("score", ["logit", "probability"])
def test_scores_are_those_of_the_pipeline(kind: str, score: str, tmp_path: Path) -> None:
    """One text at a time without padding there, all at once here; with segment ids, and with a decoder's last token."""
    folder = write_classifier(tmp_path / "model", kind)
    texts = TEXTS if kind == "bert" else [text for text in TEXTS if text]  # the pipeline can't read nothing by a Llama
    got = scores(folder, texts, score=score)
    assert got == pytest.approx(by_pipeline(folder, texts, FUNCTIONS[score]), abs=1e-5)
    assert max(got) - min(got) > 0.01


def test_log_odds_are_of_the_probability(bert: Path) -> None:
    probability = torch.tensor(scores(bert, score="probability"))
    expected = (probability / (1 - probability)).log().tolist()
    assert scores(bert, score="log-odds") == pytest.approx(expected, abs=1e-4)


def test_labels_that_do_not_exclude_each_other_have_probabilities_of_their_own(tmp_path: Path) -> None:
    folder = write_classifier(tmp_path / "model", problem_type="multi_label_classification")
    assert scores(folder, score="probability") == pytest.approx(by_pipeline(folder, TEXTS, "sigmoid"), abs=1e-5)
    assert scores(folder, score="log-odds") == pytest.approx(scores(folder, score="logit"))


@pytest.mark.parametrize("label", LABELS.values())
def test_the_label_is_found_by_its_name(bert: Path, label: str) -> None:
    assert scores(bert, label=label) == pytest.approx(by_pipeline(bert, TEXTS, "none", label), abs=1e-5)


def test_the_prompt_is_read_too_where_that_is_asked_for(bert: Path) -> None:
    prompts = ["the cat", "a", "where does the sun rise ", "", "dog"]
    together = ["the cat the cat sat", f"a {TEXTS[1]}", prompts[2], f" {TEXTS[3]}", "dog dog"]
    got = scores(bert, prompts=prompts, text="prompt+completion")
    assert got == pytest.approx(by_pipeline(bert, together, "none"), abs=1e-5)
    assert scores(bert, prompts=prompts) == scores(bert)


def test_what_exceeds_the_window_loses_its_beginning(bert: Path) -> None:
    """24 positions hold 22 words beside the two tokens around them."""
    words = ("the lazy dog sat on the mat and the fox jumps over a log again " * 3).split()
    assert scores(bert, [" ".join(words)]) == pytest.approx(scores(bert, [" ".join(words[-22:])]))
    assert scores(bert, [" ".join(words)]) != pytest.approx(scores(bert, [" ".join(words[:22])]))


def test_a_completion_cannot_end_the_text(bert: Path) -> None:
    """`[SEP]` spelled out is text: what comes after it is read, and the token itself is not put in."""
    tokenizer = AutoTokenizer.from_pretrained(bert)
    reward = ClassifierReward(bert, "POSITIVE")
    seen: list[torch.Tensor] = []
    reward.model.register_forward_pre_hook(lambda m, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True)
    reward([""], ["good [SEP] food"], [[]], [{}])
    assert (seen[0] == tokenizer.sep_token_id).sum() == 1


def test_a_decoder_reads_nothing_too(tmp_path: Path) -> None:
    folder = write_classifier(tmp_path / "model", "llama")
    alone = scores(folder, [""])
    assert scores(folder, ["", "the cat sat"])[0] == pytest.approx(alone[0])


def test_in_a_mix_it_is_one_reward_of_several(bert: Path) -> None:
    answers = ["one", "the cat", "", "dog"]
    mix = RewardMix({"classifier": ClassifierReward(bert, "POSITIVE", text="prompt+completion")})
    got = mix.each(rows(), answers, torch.device("cpu"))["classifier"]
    expected = scores(bert, answers, prompts=PROMPTS, text="prompt+completion")
    assert got.tolist() == pytest.approx(expected)


def test_what_is_no_classifier_is_refused(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no label 'positive'; its labels are NEGATIVE, POSITIVE, NEUTRAL"):
        ClassifierReward(bert, "positive")
    with pytest.raises(UserError, match="is no text classifier"):
        ClassifierReward(write_model("bert", tmp_path / "encoder"), "POSITIVE")
    one = write_classifier(tmp_path / "one", labels={0: "reward"})
    with pytest.raises(UserError, match=r"has one label.*rewards=learned ppo\.rewards\.learned\.model="):
        ClassifierReward(one, "reward")
    with pytest.raises(UserError, match="there is no such folder"):
        ClassifierReward(tmp_path / "nothing", "POSITIVE")


def test_weights_in_a_pickle_are_refused(tmp_path: Path) -> None:
    folder = write_classifier(tmp_path / "model")
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="safetensors"):
        ClassifierReward(folder, "POSITIVE")


def test_a_head_that_is_not_in_the_weights_is_refused(tmp_path: Path) -> None:
    """It would start as noise, and so would the rewards."""
    folder = write_model("bert", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["architectures"] = ["BertForSequenceClassification"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UserError, match=r"lacks .*classifier"):
        ClassifierReward(folder, "LABEL_1")


def test_a_model_without_a_window_reads_all_of_it(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one whose positions are relative, and whose tokenizer knows no limit."""
    monkeypatch.setattr("rlhf_lightning.rewards.classifier.positions", lambda config: None)
    reward = ClassifierReward(bert, label="POSITIVE")
    assert reward.tokenizer.model_max_length > 10**9
    assert reward.window is None
    text = " ".join(["dog"] * 20)
    assert reward([""], [text], [[]], [{}]).tolist() == pytest.approx(scores(bert, [text]), abs=1e-5)
