"""An encoder that classifies, behind the policy's interface."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny_models import PROMPTS, rows, with_noise_in_padding

from rlhf_lightning.data.batches import encode_sft, prompt_batch, sft_batch
from rlhf_lightning.data.modules import SFTDataModule
from rlhf_lightning.data.rows import Prompt, SFTRow
from rlhf_lightning.errors import UserError
from rlhf_lightning.models import Classifier, ModelSpec, Policy, Sampling, load_answerer
from rlhf_lightning.stages import SFTModule

LABELS = ["good", "bad", "so so"]


@pytest.fixture
def classifier(model_dir) -> Classifier:
    return Classifier.load(str(model_dir("bert")), labels=LABELS, max_prompt=32, fresh_head=True)


def test_trains_saves_and_reloads_with_its_labels(classifier, make_trainer, tmp_path) -> None:
    """Four prompts are learnt by heart through SFTModule; the folder knows its labels."""
    from transformers import pipeline

    data = [SFTRow(Prompt(p), LABELS[i % 3]) for i, p in enumerate(PROMPTS)]
    module = SFTModule(classifier, lr=3e-2)
    make_trainer(max_epochs=40).fit(module, datamodule=SFTDataModule(data, [], classifier.codec, batch_size=4))
    classifier.eval()
    batch = prompt_batch(list(enumerate(rows())), classifier.codec)
    answers = classifier.complete(batch, Sampling())
    assert answers.texts == [row.completion for row in data]
    assert answers.ended.all()
    assert answers.lengths.tolist() == [1] * 4
    classifier.save(tmp_path / "out")
    again = Classifier.load(str(tmp_path / "out"), labels=LABELS, max_prompt=32)
    torch.testing.assert_close(
        again(batch.prompt_ids, batch.prompt_mask), classifier(batch.prompt_ids, batch.prompt_mask)
    )
    theirs = pipeline("text-classification", model=str(tmp_path / "out"), device="cpu")(PROMPTS)
    assert [t["label"] for t in theirs] == answers.texts


def test_labels_of_another_task_are_refused(classifier, model_dir, tmp_path) -> None:
    """Also the same labels in another order: the head's outputs would be taken for others."""
    classifier.save(tmp_path / "out")
    for labels in (["good", "bad"], ["bad", "good", "so so"]):
        with pytest.raises(UserError, match="no trained head for the labels"):
            Classifier.load(str(tmp_path / "out"), labels=labels, max_prompt=32)
    with pytest.raises(UserError, match="no trained head"):
        Classifier.load(str(model_dir("bert")), labels=LABELS, max_prompt=32)
    with pytest.raises(UserError, match="no label set"):
        Classifier.load(str(model_dir("bert")), labels=[], max_prompt=32, fresh_head=True)
    four = Classifier.load(str(tmp_path / "out"), labels=[*LABELS, "new"], max_prompt=32, fresh_head=True)
    assert four.model.config.num_labels == 4


def test_loss_is_the_cross_entropy(classifier) -> None:
    """Checklist 19: of the labels, independent of the padding's content."""
    data = [SFTRow(Prompt(p), LABELS[i % 3]) for i, p in enumerate(PROMPTS)]
    batch = sft_batch([encode_sft(row, classifier.codec) for row in data], classifier.codec)
    loss, stats, rows = classifier.eval().sft_loss(batch)
    assert rows.mean() == pytest.approx(loss.item())
    logits = torch.cat(
        [classifier.model(torch.tensor([classifier.codec.encode_prompt(r.prompt).ids])).logits for r in data]
    )
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0]))
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    right = (logits.argmax(-1) == torch.tensor([0, 1, 2, 0])).float().mean()
    assert stats["token_accuracy"] == right
    noisy = with_noise_in_padding(batch.prompt_ids, batch.prompt_mask, 50)
    torch.testing.assert_close(
        classifier(noisy, batch.prompt_mask), classifier(batch.prompt_ids, batch.prompt_mask), atol=1e-5, rtol=1e-5
    )


def test_load_answerer_tells_the_kind(model_dir) -> None:
    limits = {"max_prompt": 32, "max_completion": 8}
    for kind, expected in [("llama", "causal"), ("gpt2", "causal"), ("t5", "seq2seq")]:
        policy = load_answerer(ModelSpec(str(model_dir(kind))), **limits)
        assert isinstance(policy, Policy)
        assert policy.kind == expected
    model = load_answerer(ModelSpec(str(model_dir("bert"))), **limits, labels=LABELS, fresh_head=True)
    assert isinstance(model, Classifier)
    assert model.kind == "encoder"
