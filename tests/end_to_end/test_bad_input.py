"""Mistakes of a user's: one message that names place and remedy, no traceback, nothing trained."""

import json
from pathlib import Path

import pytest

from rlhf_lightning import train

QUICK = [
    "hydra/job_logging=disabled",
    "hydra/hydra_logging=disabled",
    "logger=csv",
    "trainer=cpu",
    "trainer.enable_progress_bar=false",
    "model.tiny.hidden=32",
    "model.tiny.layers=1",
]


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs `rlhf-train` in an empty folder, and gives the message it was refused with."""
    monkeypatch.chdir(tmp_path)

    def run(*overrides: str) -> str:
        from hydra.core.global_hydra import GlobalHydra

        GlobalHydra.instance().clear()
        monkeypatch.setattr("sys.argv", ["rlhf-train"])
        quick = [o for o in QUICK if "tiny" not in o or "model=hf" not in overrides]
        status = train.main(["hydra.run.dir=run", *quick, *overrides])
        message = capsys.readouterr().err
        assert status == 2, message
        assert "Traceback" not in message
        assert not (tmp_path / "run" / "sft").exists()
        assert not (tmp_path / "run" / "ppo").exists()
        return message

    return run


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


ROWS = [{"text": f"a sentence {i}", "label": "tech"} for i in range(40)]
FILES = ["task=classification", "data=files", "stages=[sft]"]


def test_a_missing_file(refused, tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", ROWS)
    message = refused(*FILES, "data.train=trian.jsonl")
    assert "trian.jsonl" in message
    assert "train.jsonl" in message.replace("trian.jsonl", "")


def test_an_unknown_column(refused, tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", [{"txt": "a", "label": "tech"}] * 20)
    message = refused(*FILES, f"data.train={path}")
    for part in ("t.jsonl, line 1", "'text'", "txt", "data.columns"):
        assert part in message


def test_a_row_without_a_reference(refused, tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", [*ROWS, {"text": "a", "label": ""}])
    assert "t.jsonl, line 41" in refused(*FILES, f"data.train={path}")


def test_a_label_outside_the_set(refused, tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", [*ROWS, {"text": "a", "label": "sprots"}])
    message = refused(*FILES, f"data.train={path}")
    for part in ("line 41", "'sprots'", "tech, sports, positive, negative"):
        assert part in message


def test_bytes_that_are_not_utf_8(refused, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"text,label\nok,tech\nna\xefve,tech\n")
    message = refused(*FILES, "data.train=t.csv")
    for part in ("t.csv, line 3", "0xef", "data.encoding=latin-1"):
        assert part in message


def test_an_empty_file(refused, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").touch()
    assert "t.jsonl" in refused(*FILES, "data.train=t.jsonl")


def test_limits_beyond_the_models_window(refused) -> None:
    message = refused("task=qa", "task.max_prompt_tokens=600")
    assert "600" in message
    assert "512" in message


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return [1.0]", "one number each"),
        ("return [float('nan')] * len(completions)", "nan"),
        ("raise KeyError('oops')", "oops"),
        ("return None", "function"),
    ],
)
def test_a_reward_function_that_misbehaves(refused, tmp_path: Path, monkeypatch, body: str, said: str) -> None:
    name = f"bad_reward_{abs(hash(body))}"
    (tmp_path / f"{name}.py").write_text(f"def mine(prompts, completions, references, meta):\n    {body}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    message = refused("task=qa", "stages=[sft,ppo]", "rewards=function", f"ppo.rewards.function.path={name}.mine")
    assert said in message


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["stages=[ppo]"], "policy="),
        (["stages=[sft,ppo]"], "reward_model="),
        (["stages=[sft,pp]"], "'pp'"),
        (["stages=[sft,sft]"], "once"),
        (["policy=no/such/folder"], "no such folder"),
        (["policy=."], "config.json"),
        (["rewards=function", "ppo.rewards.function.path=no.such.thing"], "no.such.thing"),
        (["data.train=x.jsonl", "data.preferences=x.jsonl"], "x.jsonl"),
        (["ppo.kl_coeff=0.1"], "ppo.kl_coef"),
        (["task=translatoin"], "translation"),
        (["rewards=chfr"], "chrf"),
        (["sft.optimizer.nesterov=true"], "sft.optimizer.nesterov"),
        (["stages=[predict]", "policy=x"], "predict.input"),
    ],
)
def test_options_that_do_not_fit(refused, overrides: list[str], said: str) -> None:
    assert said in refused(*overrides)


def test_a_folder_that_cannot_be_written(refused, tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("a file")
    message = refused("hydra.run.dir=blocked/run")
    assert "blocked" in message


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """A BERT of random weights with a word-level tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    words = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "sentence"])}
    raw = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertForMaskedLM(BertConfig(vocab_size=6, **shape)).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def test_an_encoder_can_be_no_policy(refused, encoder: Path) -> None:
    message = refused("task=classification", "model=hf", f"model.name={encoder}")
    assert "encoder" in message
    assert "stages=[sft]" in message


def test_an_encoder_needs_labels(refused, encoder: Path) -> None:
    assert "label set" in refused("task=qa", "model=hf", f"model.name={encoder}", "stages=[sft]")


def test_an_encoder_without_a_head_is_no_reward_model(refused, encoder: Path) -> None:
    message = refused("task=qa", "stages=[sft,ppo]", f"reward_model={encoder}")
    assert "no trained reward head" in message


def test_a_tokenizer_without_an_end_of_sequence(refused, tmp_path: Path) -> None:
    from rlhf_lightning.models import TinySpec, make_tiny

    folder = make_tiny(TinySpec(hidden=16, heads=2, layers=1), ["some text"], tmp_path / "m")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).exists():
            content = json.loads((folder / name).read_text())
            content.pop("eos_token", None)
            (folder / name).write_text(json.dumps(content))
    assert "end-of-sequence" in refused("task=qa", "model=hf", f"model.name={folder}", "stages=[sft]")


def test_equal_preferences_are_dropped_and_counted(tmp_path: Path) -> None:
    from rlhf_lightning import RowFormat, load_task_data

    pairs = [{"prompt": f"p{i}", "chosen": "a", "rejected": "a" if i < 3 else "b"} for i in range(30)]
    data = load_task_data(RowFormat("{x}"), preferences=write(tmp_path / "p.jsonl", pairs))
    assert len(data.preferences) + len(data.preferences_test) == 27
    assert any("3 preference" in note for note in data.notes)
