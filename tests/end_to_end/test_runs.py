"""The installed console scripts, from another directory, offline."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
SMALL = [
    "data.limit=48",
    "model.tiny.hidden=32",
    "model.tiny.layers=1",
    "sft.trainer.max_epochs=1",
    "reward.trainer.max_epochs=1",
    "ppo.updates=2",
    "ppo.loader.batch_size=8",
    "ppo.epochs=2",
    "ppo.trainer.val_check_interval=1",
    "logger=csv",
    "trainer=cpu",
    "trainer.enable_progress_bar=false",
    "hydra.run.dir=run",
]


def run(folder: Path, *overrides: str, program: str = "rlhf-train", **environment: str) -> subprocess.CompletedProcess:
    """A console script in a folder; its output as text."""
    settings = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "140", **environment}
    return subprocess.run(
        [BIN / program, *overrides],
        cwd=folder,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=600,
    )


def ok(result: subprocess.CompletedProcess) -> subprocess.CompletedProcess:
    assert result.returncode == 0, result.stderr[-3000:] + result.stdout[-2000:]
    return result


def metrics(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of all stages of question answering."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "screen.txt").write_text(ok(run(folder, "task=qa", *SMALL)).stdout, encoding="utf-8")
    return folder


def check_run_folder(folder: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    results = metrics(folder)
    assert results["status"] == "finished"
    assert [p["name"] for p in results["policies"]] == ["base", "sft", "ppo"]
    for policy in results["policies"]:
        assert {"gold", "learned", "length", "eos_rate"} <= set(policy["metrics"])
    assert results["policies"][-1]["metrics"]["kl"] >= 0
    assert {"accuracy", "longer_wins"} <= set(results["reward_model"])
    for stage in ("sft", "reward", "ppo"):
        assert (folder / stage / "model" / "model.safetensors").is_file()
        assert (folder / stage / "metrics.csv").is_file()
        AutoTokenizer.from_pretrained(folder / stage / "model")
    assert AutoModelForSequenceClassification.from_pretrained(folder / "reward" / "model").config.num_labels == 1
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text(encoding="utf-8").split("\n") if line]
    assert samples
    assert set(samples[0]["completions"]) == {"base", "sft", "ppo"}
    assert "<svg" in (folder / "report.html").read_text(encoding="utf-8")
    assert (folder / ".hydra" / "config.yaml").is_file()


def test_question_answering_through_all_stages(trained: Path) -> None:
    check_run_folder(trained / "run")
    screen = (trained / "screen.txt").read_text(encoding="utf-8")
    assert re.search(r"policy.*gold", screen)
    assert "report.html" in screen


@pytest.mark.parametrize("task", ["summarization", "translation", "classification"])
def test_a_task_through_all_stages(task: str, tmp_path: Path) -> None:
    ok(run(tmp_path, f"task={task}", *SMALL))
    check_run_folder(tmp_path / "run")


def test_an_encoder_decoder_with_two_rewards_and_a_separate_critic(tmp_path: Path) -> None:
    ok(
        run(
            tmp_path,
            "task=translation",
            "model=tiny_seq2seq",
            "stages=[sft,ppo]",
            "rewards=[chrf,constant]",
            "ppo.critic=separate",
            "ppo.kl=adaptive",
            "optimizer@sft.optimizer=adafactor",
            "schedule@ppo.schedule=constant",
            *SMALL,
        )
    )
    assert {"chrf", "constant"} <= set(metrics(tmp_path / "run")["columns"]["reward"])


def test_lora_exports_whole_models(trained: Path, tmp_path: Path) -> None:
    start = [f"policy={trained / 'run' / 'sft' / 'model'}", f"reward_model={trained / 'run' / 'reward' / 'model'}"]
    ok(run(tmp_path, "task=qa", "stages=[sft,ppo]", *start, "model.lora.r=4", *SMALL))
    assert not (tmp_path / "run" / "ppo" / "model" / "adapter_config.json").exists()
    assert (tmp_path / "run" / "ppo" / "model" / "model.safetensors").is_file()


def test_evaluate_and_predict_from_saved_models(trained: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"context": "Karin lives in Oslo.", "question": "Where does Karin live?"}\n' * 3)
    result = ok(
        run(
            tmp_path,
            "task=qa",
            "stages=[evaluate,predict]",
            f"policy={trained / 'run' / 'ppo' / 'model'}",
            f"reward_model={trained / 'run' / 'reward' / 'model'}",
            f"predict.input={prompts}",
            *SMALL,
        )
    )
    rows = [json.loads(line) for line in (tmp_path / "run/predict/predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 3
    assert rows[0]["completion"] == rows[1]["completion"]  # greedy
    assert isinstance(rows[0]["rewards"]["learned"], float)
    policy = metrics(tmp_path / "run")["policies"][0]["metrics"]
    before = metrics(trained / "run")["policies"][-1]["metrics"]
    assert policy["token_f1"] == before["token_f1"]  # the folder holds what was measured
    assert policy["learned"] == pytest.approx(before["learned"], abs=1e-4)
    assert "predictions.jsonl" in result.stdout.replace("\n", "")


def test_a_task_and_reward_of_the_users_own(tmp_path: Path) -> None:
    (tmp_path / "conf" / "task").mkdir(parents=True)
    (tmp_path / "conf" / "task" / "shout.yaml").write_text(
        'name: shout\nformat: {_target_: rlhf_lightning.data.format.RowFormat, prompt: "{low} =", completion: high, '
        "references: high}\nmax_prompt_tokens: 16\nmax_completion_tokens: 8\nsystem: null\nobjective: chrf\n"
        "metrics: {chrf: {_target_: rlhf_lightning.metrics.ChrF}}\n"
    )
    words = [a + b for a in "abcdefgh" for b in "uvwxyz"]
    (tmp_path / "words.tsv").write_text("low\thigh\n" + "".join(f"{w}\t{w.upper()}\n" for w in words))
    (tmp_path / "my_rewards.py").write_text(
        "def short(prompts, completions, references, meta):\n    return [-float(len(c)) for c in completions]\n"
    )
    ok(
        run(
            tmp_path,
            "--config-dir",
            "conf",
            "task=shout",
            "data=files",
            "data.train=words.tsv",
            "stages=[sft,ppo]",
            "rewards=function",
            "ppo.rewards.function.path=my_rewards.short",
            *SMALL,
            PYTHONPATH=str(tmp_path),
        )
    )
    results = metrics(tmp_path / "run")
    assert results["objective"] == "chrf"
    assert results["policies"][-1]["metrics"]["function"] <= 0


def test_a_sweep_and_its_comparison(tmp_path: Path) -> None:
    small = [o for o in SMALL if not o.startswith("hydra.")]
    ok(run(tmp_path, "-m", "task=qa,classification", "sft.lr=0.001,0.002", "stages=[sft]", *small))
    sweep = next((tmp_path / "outputs" / "multiruns").iterdir())
    assert [metrics(sweep / str(i))["task"] for i in range(4)] == ["qa", "qa", "classification", "classification"]
    compared = ok(run(tmp_path, "outputs/multiruns/LATEST", "--html", "c.html", program="rlhf-compare"))
    assert "sft.lr" in compared.stdout
    assert (tmp_path / "c.html").is_file()


def test_wandb_offline_is_the_default_and_needs_no_network(tmp_path: Path) -> None:
    small = [o for o in SMALL if o != "logger=csv"]
    unset = dict.fromkeys(("WANDB_MODE", "WANDB_API_KEY"), "")
    ok(run(tmp_path, "task=classification", "stages=[sft]", *small, **unset, NETRC=str(tmp_path / "none")))
    assert list(tmp_path.rglob("*.wandb"))


def test_the_same_seed_gives_the_same_figures(trained: Path, tmp_path: Path) -> None:
    ok(run(tmp_path, "task=qa", *SMALL))
    again, first = metrics(tmp_path / "run"), metrics(trained / "run")
    assert [p["metrics"] for p in again["policies"]] == [p["metrics"] for p in first["policies"]]


def test_ctrl_c_leaves_a_usable_run_folder(trained: Path, tmp_path: Path) -> None:
    long = [o for o in SMALL if not o.startswith("ppo.updates")]
    start = [f"policy={trained / 'run' / 'sft' / 'model'}", "stages=[ppo]", "rewards=constant", "ppo.updates=5000"]
    process = subprocess.Popen(
        [BIN / "rlhf-train", "task=qa", *long, *start],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = tmp_path / "run" / "ppo" / "metrics.csv"
    for _ in range(900):
        if log.exists() and len(log.read_text().splitlines()) > 2:
            break
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr[-2000:]
    assert metrics(tmp_path / "run")["status"] == "interrupted"
    assert (tmp_path / "run" / "ppo" / "model" / "model.safetensors").is_file()
    assert (tmp_path / "run" / "report.html").is_file()


def test_the_wheel_holds_configs_and_samples(tmp_path: Path) -> None:
    import shutil
    import zipfile

    source = tmp_path / "source"
    ignore = shutil.ignore_patterns(".git", "outputs", "wandb", "*.egg-info", "build", "dist", ".venv")
    shutil.copytree(Path(__file__).parents[2], source, ignore=ignore)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    site = tmp_path / "site"
    zipfile.ZipFile(next(tmp_path.glob("*.whl"))).extractall(site)
    overrides = ["task=classification", "stages=[sft]", *SMALL]
    code = "import sys, rlhf_lightning, rlhf_lightning.train as t; print(rlhf_lightning.__file__); sys.exit(t.main())"
    result = subprocess.run(
        [sys.executable, "-c", code, *overrides],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert str(site) in ok(result).stdout.replace("\n", "")
    assert metrics(tmp_path / "run")["status"] == "finished"
