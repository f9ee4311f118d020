"""Runs that several tests look at, and `rlhf-train` within this process where that tells as much."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from console import QUICK, SMALL, ok, run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of all stages of question answering, and what it said in `screen.txt`."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "screen.txt").write_text(ok(run(folder, "task=qa", *SMALL)).stdout, encoding="utf-8")
    return folder


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], hydra_process: None
) -> Callable[..., str]:
    """Runs `rlhf-train` in an empty folder, and gives the one message it was refused with before any training."""
    from rlhf_lightning import train

    monkeypatch.chdir(tmp_path)

    def refuse(*overrides: str) -> str:
        monkeypatch.setattr("sys.argv", ["rlhf-train"])
        tiny = not any(option.startswith("model=") for option in overrides)
        quick = [option for option in QUICK if tiny or not option.startswith("model.tiny")]
        status = train.main(["hydra.run.dir=run", *quick, *overrides])
        message = capsys.readouterr().err
        assert status == 2, message
        assert message.count("rlhf-train: ") == 1
        assert "Traceback" not in message
        for stage in ("sft", "reward", "ppo"):
            assert not (tmp_path / "run" / stage).exists()
        return message

    return refuse


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of random weights with a WordPiece tokenizer of letters."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("encoder") / "bert"
    letters = [chr(i) for i in range(33, 127)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *("##" + letter for letter in letters)]
    raw = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    raw.normalizer = normalizers.BertNormalizer(lowercase=True)
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertForMaskedLM(BertConfig(vocab_size=len(pieces), **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
