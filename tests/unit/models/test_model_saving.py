"""Model folders that are whole or not there, and what loads again from them."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch
from helpers.tiny_models import KINDS, batch_of

from rlhf_lightning.errors import UserError
from rlhf_lightning.models import Policy, Sampling
from rlhf_lightning.models.saving import write_folder


def fill(path: Path) -> None:
    (path / "a.txt").write_text("new")


def test_folder_is_written_and_replaced(tmp_path) -> None:
    target = tmp_path / "deep" / "model"
    assert write_folder(target, fill) == target
    (target / "leftover.txt").write_text("old")
    write_folder(target, fill)
    assert [p.name for p in target.iterdir()] == ["a.txt"], "nothing of the old folder is left in the new one"
    assert [p.name for p in target.parent.iterdir()] == ["model"], "nothing beside it"


@pytest.mark.parametrize("error", [OSError("No space left on device"), RuntimeError("bad"), KeyboardInterrupt()])
@pytest.mark.parametrize("existed", [True, False])
def test_failing_fill_leaves_the_old_folder(error: BaseException, existed: bool, tmp_path) -> None:
    """A full disk, a bug, Ctrl-C: what was there stays whole, and nothing half-written is left."""
    target = tmp_path / "model"
    if existed:
        target.mkdir()
        (target / "a.txt").write_text("old")

    def failing(path: Path) -> None:
        (path / "half.txt").write_text("half")
        raise error

    expected = UserError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected):
        write_folder(target, failing)
    assert target.exists() == existed
    if existed:
        assert [(p.name, p.read_text()) for p in target.iterdir()] == [("a.txt", "old")]
    assert [p.name for p in tmp_path.iterdir()] == (["model"] if existed else [])


def test_interrupt_between_the_renames_loses_nothing(tmp_path, monkeypatch) -> None:
    """Ctrl-C after the old folder was moved aside, before the new one stands in its place."""
    target = tmp_path / "model"
    write_folder(target, fill)
    original = Path.rename

    def rename(self: Path, to: Path) -> Path:
        if self.name.endswith(".writing"):
            raise KeyboardInterrupt
        return original(self, to)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        write_folder(target, fill)
    assert (target / "a.txt").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_disk_that_takes_no_weights_is_a_user_error(make_policy, tmp_path) -> None:
    """The weights' writer has an exception of its own, which is no OSError."""
    policy = make_policy("llama")
    policy.save(tmp_path / "model")
    before = {p.name: p.read_bytes() for p in (tmp_path / "model").iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))  # as a full disk: no file may grow beyond this
    try:
        with pytest.raises(UserError, match="cannot write the model folder"):
            policy.save(tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {p.name: p.read_bytes() for p in (tmp_path / "model").iterdir()} == before


@pytest.mark.parametrize("kind", KINDS)
def test_saved_policy_loads_as_it_was(kind: str, make_policy, tmp_path) -> None:
    """Weights, tokenizer and greedy answers are the same, here and in plain transformers; the value head stays out."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    policy = make_policy(kind, wild_head=True)
    policy.save(tmp_path / "out")
    again = Policy.load(str(tmp_path / "out"), max_prompt=40, max_completion=8)
    batch, greedy = batch_of(policy), Sampling(greedy=True)
    assert torch.equal(batch_of(again).prompt_ids, batch.prompt_ids)
    assert torch.equal(again.complete(batch, greedy).ids, policy.complete(batch, greedy).ids)
    theirs = (AutoModelForSeq2SeqLM if kind == "t5" else AutoModelForCausalLM).from_pretrained(tmp_path / "out")
    ours = policy.inner.state_dict()
    assert theirs.state_dict().keys() == ours.keys()
    assert all(torch.equal(theirs.state_dict()[name], weight) for name, weight in ours.items())
    assert AutoTokenizer.from_pretrained(tmp_path / "out").eos_token == policy.codec.tokenizer.eos_token


def test_unsafe_weights_are_not_loaded(make_policy, tmp_path) -> None:
    """Weights that only a pickle holds are refused."""
    policy = make_policy("llama")
    policy.save(tmp_path / "out")
    (tmp_path / "out" / "model.safetensors").unlink()
    torch.save(policy.inner.state_dict(), tmp_path / "out" / "pytorch_model.bin")
    with pytest.raises(UserError, match="safetensors"):
        Policy.load(str(tmp_path / "out"), max_prompt=40, max_completion=8)


def test_tokenizer_larger_than_the_model_is_refused(make_policy, tmp_path) -> None:
    policy = make_policy("llama")
    policy.save(tmp_path / "out")
    policy.codec.tokenizer.add_tokens([f"extra{i}" for i in range(100)])
    policy.codec.tokenizer.save_pretrained(tmp_path / "out")
    with pytest.raises(UserError, match="don't belong together"):
        Policy.load(str(tmp_path / "out"), max_prompt=40, max_completion=8)
