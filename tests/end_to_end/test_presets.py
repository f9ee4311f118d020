"""`experiment=`: presets run on small models and rows of the form that their data has, with what they ask for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from console import SMALL, metrics, ok, run, write_rows

from rlhf_lightning.rewards import ClassifierReward

FEW = [*SMALL, "sft.loader.batch_size=8", "reward.loader.batch_size=8", "ppo.minibatches=2", "data.limit=24"]
REAL = [option for option in FEW if not option.startswith("model.tiny")]


def samples(folder: Path) -> list[dict]:
    lines = (folder / "samples.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def finished(folder: Path) -> dict:
    results = metrics(folder)
    assert results["status"] == "finished"
    assert results["policies"][-1]["name"] == "ppo"
    return results


@pytest.fixture(scope="session")
def classifier(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentiment classifier of random weights."""
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path_factory.mktemp("classifier") / "bert"
    config = AutoConfig.from_pretrained(encoder)
    config.id2label, config.label2id = {0: "NEGATIVE", 1: "POSITIVE"}, {"NEGATIVE": 0, "POSITIVE": 1}
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(encoder).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_reviews_are_continued_for_a_classifier(trained: Path, classifier: Path, tmp_path: Path) -> None:
    """No reference and no demonstration: the reward is all there is, and the objective too."""
    rows = [{"text": f"I have seen film number {i} and it was quite good", "label": "pos"} for i in range(24)]
    reviews = write_rows(tmp_path / "reviews.jsonl", rows)
    own = [f"model.name={trained / 'run' / 'sft' / 'model'}", f"data.train={reviews}", f"data.test={reviews}"]
    own += ["data.validation_size=4", f"ppo.rewards.classifier.model={classifier}"]
    ok(run(tmp_path, "experiment=imdb", *own, *REAL))
    results = finished(tmp_path / "run")
    assert results["objective"] == "classifier"
    assert [policy["name"] for policy in results["policies"]] == ["base", "ppo"]
    assert {"classifier", "kl", "distinct_2"} <= set(results["policies"][-1]["metrics"])
    score = ClassifierReward(classifier, "POSITIVE", text="prompt+completion")
    for sample in samples(tmp_path / "run"):
        assert 2 <= len(sample["prompt"].split()) <= 8
        (expected,) = score([sample["prompt"]], [sample["completions"]["ppo"]], [[]], [{}]).tolist()
        assert sample["scores"]["ppo"]["classifier"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_dialogues_in_transcripts_go_through_all_stages(tmp_path: Path) -> None:
    def dialogue(i: int, answer: str) -> str:
        return f"\n\nHuman: Hi {i}\n\nAssistant: Hello\n\nHuman: What is {i} and {i}?\n\nAssistant: {answer}"

    rows = [{"chosen": dialogue(i, f"It is {2 * i}."), "rejected": dialogue(i, "No.")} for i in range(24)]
    path = write_rows(tmp_path / "hh.jsonl", rows)
    own = [f"data.{part}={path}" for part in ("train", "test", "preferences_test")]
    ok(run(tmp_path, "experiment=hh", "model=tiny", "model.tiny.positions=640", *own, "data.validation_size=4", *FEW))
    results = finished(tmp_path / "run")
    assert results["objective"] == "learned"
    assert "accuracy" in results["reward_model"]
    for sample in samples(tmp_path / "run"):
        assert sample["prompt"].startswith("\n\nHuman: Hi")
        assert sample["prompt"].endswith("?\n\nAssistant:")
        assert sample["references"][0].startswith("It is")


@pytest.mark.slow
def test_posts_and_preferences_in_trl_form_go_through_all_stages(tmp_path: Path) -> None:
    posts = [f"SUBREDDIT: r/tea\n\nTITLE: Pot {i}\n\nPOST: I broke pot {i}.\n\nTL;DR:" for i in range(24)]
    shown = write_rows(tmp_path / "a.jsonl", [{"prompt": p, "completion": f" Broke {i}."} for i, p in enumerate(posts)])
    pairs = [{"prompt": p, "chosen": f" Broke {i}.", "rejected": " Tea."} for i, p in enumerate(posts)]
    preferred = write_rows(tmp_path / "b.jsonl", pairs)
    own = [f"data.{part}={shown}" for part in ("train", "validation", "test")]
    own += [f"data.{part}={preferred}" for part in ("preferences", "preferences_test")]
    ok(run(tmp_path, "experiment=tldr", "model=tiny", "model.tiny.positions=640", *own, *FEW))
    finished(tmp_path / "run")
    assert {sample["prompt"] for sample in samples(tmp_path / "run")} <= set(posts)


@pytest.mark.slow
def test_pairs_in_objects_go_through_sft_and_ppo(tmp_path: Path) -> None:
    rows = [{"translation": {"en": f"house number {i}", "ro": f"casa numărul {i}"}} for i in range(24)]
    path = write_rows(tmp_path / "pairs.jsonl", rows)
    own = [f"data.{part}={path}" for part in ("train", "validation", "test")]
    ok(run(tmp_path, "experiment=wmt16", "model=tiny_seq2seq", *own, *FEW))
    results = finished(tmp_path / "run")
    assert {"bleu", "chrf", "ter", "reward/chrf"} <= set(results["policies"][-1]["metrics"])
    assert samples(tmp_path / "run")[0]["prompt"].startswith("translate English to Romanian: house number")


@pytest.mark.slow
@pytest.mark.parametrize("task", ["summarization", "translation", "qa", "classification"])
def test_the_preset_of_a_task(task: str, encoder: Path, tmp_path: Path) -> None:
    judge = [f"reward.model.name={encoder}"] if task == "classification" else []
    ok(run(tmp_path, f"experiment={task}", "model=tiny", *judge, *FEW))
    results = finished(tmp_path / "run")
    assert results["task"] == task
    assert {"gold", "learned"} <= set(results["policies"][-1]["metrics"])


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["smoke", "metric_reward", "constant_reward"])
def test_a_preset_without_a_hub(experiment: str, tmp_path: Path) -> None:
    ok(run(tmp_path, f"experiment={experiment}", *SMALL))
    results = finished(tmp_path / "run")
    if experiment == "constant_reward":
        assert {p["metrics"]["constant"] for p in results["policies"]} == {0.0}


def test_a_classifier_that_cannot_be_a_reward_is_refused(
    classifier: Path, encoder: Path, refused: Callable[..., str]
) -> None:
    chosen = ["task=qa", "stages=[sft,ppo]", "rewards=classifier", "ppo.rewards.classifier.label=GOOD"]
    message = refused(*chosen, f"ppo.rewards.classifier.model={classifier}")
    assert "has no label 'GOOD'; its labels are NEGATIVE, POSITIVE" in message
    assert "is no text classifier" in refused(*chosen, f"ppo.rewards.classifier.model={encoder}")
    message = refused(*chosen, f"ppo.rewards.classifier.model={classifier}", "ppo.rewards.classifier.score=odds")
    assert "ppo.rewards.classifier.score must be logit, probability or log-odds, not 'odds'" in message
    assert "ppo.rewards.classifier.model must be given" in refused(*chosen)
