"""The installed console scripts, from another directory, offline."""

import csv
import gzip
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from console import BIN, SMALL, environment, metrics, ok, run, write_rows
from safetensors.torch import load_file

STAGES = ["sft", "reward", "ppo"]
TASKS = ["summarization", *(pytest.param(task, marks=pytest.mark.slow) for task in ("translation", "classification"))]


def columns(stage: Path) -> set[str]:
    """What a stage logged."""
    return set((stage / "metrics.csv").read_text(encoding="utf-8").split("\n")[0].split(","))


def check_run_folder(folder: Path) -> None:
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSeq2SeqLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
    )

    results = metrics(folder)
    assert results["status"] == "finished"
    assert [p["name"] for p in results["policies"]] == ["base", "sft", "ppo"]
    for policy in results["policies"]:
        assert {"gold", "learned", "length", "eos_rate"} <= set(policy["metrics"])
    assert results["policies"][-1]["metrics"]["kl"] >= -1e-5  # 0 but for rounding where nothing moved
    assert {"accuracy", "longer_wins"} <= set(results["reward_model"])
    for stage in STAGES:
        assert (folder / stage / "model" / "model.safetensors").is_file()
        assert (folder / stage / "metrics.csv").is_file()
        assert AutoTokenizer.from_pretrained(folder / stage / "model").eos_token or stage == "reward"
    for stage in ("sft", "ppo"):
        config = AutoConfig.from_pretrained(folder / stage / "model")
        auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        assert auto.from_pretrained(folder / stage / "model").can_generate()
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


@pytest.mark.parametrize("task", TASKS)
def test_a_task_through_all_stages(task: str, tmp_path: Path) -> None:
    ok(run(tmp_path, f"task={task}", *SMALL))
    check_run_folder(tmp_path / "run")


@pytest.mark.slow
def test_each_stage_learns_from_the_one_before(tmp_path: Path) -> None:
    """With a budget that teaches something: SFT raises the gold score, PPO its reward, whose parts have weights."""
    budget = ["model.tiny.hidden=64", "sft.trainer.max_epochs=5", "reward.trainer.max_epochs=1", "ppo.updates=40"]
    rewards = ["rewards=[learned,constant]", "ppo.rewards.learned.weight=0.5", "ppo.rewards.constant.weight=3"]
    more = ["ppo.rewards.constant.value=1", "ppo.trainer.val_check_interval=100"]
    ok(run(tmp_path, "task=classification", *budget, *rewards, *more, "logger=csv", "trainer=cpu", "hydra.run.dir=run"))
    base, sft, ppo = (policy["metrics"] for policy in metrics(tmp_path / "run")["policies"])
    assert sft["gold"] > base["gold"] + 0.2
    assert ppo["learned"] > sft["learned"]
    with (tmp_path / "run" / "ppo" / "metrics.csv").open(encoding="utf-8") as file:
        first, *rest = [row for row in csv.DictReader(file) if row["ppo/score"]]
    for row in (first, *rest):
        expected = 0.5 * float(row["ppo/reward/learned"]) + 3 * float(row["ppo/reward/constant"])
        assert float(row["ppo/score"]) == pytest.approx(expected, abs=1e-4)
    # PPO starts where SFT ended: its first answers, though sampled, are scored much like SFT's.
    assert abs(float(first["ppo/reward/learned"]) - sft["learned"]) < abs(base["learned"] - sft["learned"]) / 2


@pytest.mark.slow
def test_an_encoder_decoder_with_several_rewards_and_a_separate_critic(tmp_path: Path) -> None:
    options = ["task=translation", "model=tiny_seq2seq", "rewards=[learned,chrf,constant]", "ppo.critic=separate"]
    optimizers = ["optimizer@sft.optimizer=adafactor", "schedule@ppo.schedule=constant"]
    ok(run(tmp_path, *options, "ppo.kl=adaptive", *optimizers, *SMALL))
    check_run_folder(tmp_path / "run")
    # The mean of sentence chrF is not the corpus' chrF: the reward doesn't take the metric's name.
    assert {"learned", "reward/chrf", "constant"} <= set(metrics(tmp_path / "run")["columns"]["reward"])
    assert {"ppo/kl_coef", "ppo/reward/chrf", "ppo/reward/learned"} <= columns(tmp_path / "run" / "ppo")


@pytest.mark.slow
def test_where_the_time_goes(tmp_path: Path) -> None:
    """Each stage's profile, or why there is none; phases in words in metrics.json and the report."""
    done = ok(run(tmp_path, "task=qa", *SMALL, "sft.loader.batch_size=8", "profile=true"))
    said = done.stdout + done.stderr
    assert "profiler" not in said
    sft = tmp_path / "run" / "sft"
    for name in ("profile.txt", "trace.json.gz"):
        assert str(sft / name) in said
    with gzip.open(sft / "trace.json.gz", "rt", encoding="utf-8") as file:
        assert json.load(file)["traceEvents"]
    assert re.search(r"aten::(add)?mm\b", (sft / "profile.txt").read_text(encoding="utf-8"))
    assert "profile=true makes no profile of ppo: it takes 3 steps at least" in said
    time = metrics(tmp_path / "run")["time"]
    assert list(time) == STAGES
    assert set(time["ppo"]["seconds"]) == {"sample", "score", "forward", "update", "rest"}
    assert set(time["sft"]["seconds"]) == {"step", "data"}
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert all(time[stage]["words"] in page for stage in STAGES)
    assert {"sft/padding", "sft/tokens_per_second", "sft/seconds/data"} <= columns(sft)


@pytest.mark.slow
def test_lora_exports_whole_models(trained: Path, tmp_path: Path) -> None:
    start = [f"policy={trained / 'run' / 'sft' / 'model'}", f"reward_model={trained / 'run' / 'reward' / 'model'}"]
    ok(run(tmp_path, "task=qa", "stages=[sft,ppo]", *start, "model.lora.r=4", *SMALL))
    assert not (tmp_path / "run" / "ppo" / "model" / "adapter_config.json").exists()
    assert (tmp_path / "run" / "ppo" / "model" / "model.safetensors").is_file()


@pytest.mark.slow
def test_a_reward_model_is_gone_on_with(trained: Path, tmp_path: Path) -> None:
    """Its head, weights and normalisation are where the training begins; the latter is kept, or found anew."""
    earlier = trained / "run" / "reward" / "model"
    start = ["stages=[reward]", "model@reward.model=hf", f"reward.model.name={earlier}", "reward.lr=0"]
    before = json.loads((earlier / "config.json").read_text(encoding="utf-8"))
    assert (before["reward_mean"], before["reward_std"]) != (0.0, 1.0)
    for normalise in ("none", "shift"):
        ok(run(tmp_path, "task=qa", *start, f"reward.normalise={normalise}", *SMALL))
        made = tmp_path / "run" / "reward" / "model"
        old, new = (load_file(folder / "model.safetensors") for folder in (earlier, made))
        assert old.keys() == new.keys()
        assert all(old[name].equal(new[name]) for name in old)
        after = json.loads((made / "config.json").read_text(encoding="utf-8"))
        assert after["reward_std"] == (before["reward_std"] if normalise == "none" else 1.0)
        assert after["reward_mean"] == pytest.approx(before["reward_mean"], rel=1e-4), "of the same references"
    accuracy = metrics(tmp_path / "run")["reward_model"]["accuracy"]
    assert accuracy == pytest.approx(metrics(trained / "run")["reward_model"]["accuracy"])


@pytest.mark.slow
def test_a_reward_from_rankings_and_thumbs(tmp_path: Path) -> None:
    """Both beside each other from files, held out too; then thumbs alone, all of them down. Each run is noted."""
    (tmp_path / "feedback.json").write_text('{"store": "feedback.db", "export": "x"}')  # as `rlhf-feedback rows` does
    texts = ["very good", "good", "bad"]
    pairs = [
        {"prompt": f"p{i}", "chosen": texts[a], "rejected": texts[b], "weight": 1 / 3, "ranking": i}
        for i in range(16)
        for a, b in ((0, 1), (0, 2), (1, 2))
    ]
    thumbs = [{"prompt": f"q{i}", "completion": texts[i % 3], "label": i % 3 < 2, "weight": 2} for i in range(24)]
    files = {
        "preferences": write_rows(tmp_path / "p.jsonl", pairs),
        "unpaired": write_rows(tmp_path / "u.jsonl", thumbs),
    }
    names = ["+task.format.weight=weight", "+task.format.group=ranking", "reward.ranking=plackett_luce"]
    options = ["data=files", "stages=[reward]", *SMALL]
    both = [f"data.{part}={path}" for part, path in files.items()]
    ok(run(tmp_path, *options, *both, *names))
    read = {"unpaired_accuracy", "unpaired_loss"}
    assert metrics(tmp_path / "run")["reward_model"].keys() >= {"accuracy", *read}
    logged = columns(tmp_path / "run" / "reward")
    assert {"reward/ranking_loss", "reward/unpaired_loss", "reward/unpaired"} <= logged
    down = write_rows(tmp_path / "d.jsonl", [{**row, "label": False} for row in thumbs])
    said = ok(run(tmp_path, *options, f"data.unpaired={down}")).stdout
    assert metrics(tmp_path / "run")["reward_model"].keys() == read
    assert "Reward model: unpaired" in said
    noted = [json.loads(line)["path"] for line in (tmp_path / "models.jsonl").read_text().splitlines()]
    assert noted == [str(tmp_path / "run")] * 2


@pytest.mark.slow
def test_ppo_stops_when_the_held_out_objective_turns(trained: Path, tmp_path: Path) -> None:
    """Checklist 31: here it can't get better, because nothing is learnt: the second look is the first one's equal."""
    start = ["stages=[ppo]", f"policy={trained / 'run' / 'sft' / 'model'}", "rewards=constant", "ppo.lr=0"]
    patience = ["ppo.updates=6", "ppo.trainer.val_check_interval=1", "ppo.patience=1"]
    ok(run(tmp_path, "task=qa", *start, *SMALL, *patience))
    with (tmp_path / "run" / "ppo" / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len([row for row in rows if row["ppo/score"]]) == 2
    assert len({row["ppo/val/gold"] for row in rows if row["ppo/val/gold"]}) == 1
    results = metrics(tmp_path / "run")
    assert results["status"] == "finished"
    assert any("ppo stopped early: gold on the validation prompts" in note for note in results["notes"])


def test_evaluate_and_predict_from_saved_models(trained: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"id": 7, "context": "Karin lives in Oslo.", "question": "Where does Karin live?"}\n' * 3)
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
    assert (rows[0]["id"], rows[0]["question"]) == (7, "Where does Karin live?")
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
        )
    )
    results = metrics(tmp_path / "run")
    assert results["objective"] == "chrf"
    assert results["policies"][-1]["metrics"]["function"] <= 0


def test_a_sweep_and_its_comparison(tmp_path: Path) -> None:
    small = [o for o in SMALL if not o.startswith("hydra.")]
    ok(run(tmp_path, "-m", "task=qa,classification", "sft.lr=0.001,0.002", "stages=[sft]", *small))
    sweep = next((tmp_path / "outputs" / "multiruns").iterdir())
    names = [f"{task}_sft.lr-{lr}" for task in ("qa", "classification") for lr in ("0.001", "0.002")]
    assert [metrics(sweep / f"{i}_task-{name}")["task"] for i, name in enumerate(names)] == [
        *("qa", "qa"),
        *("classification", "classification"),
    ]
    compared = ok(run(tmp_path, "outputs/multiruns/LATEST", "--html", "c.html", program="rlhf-compare"))
    assert "sft.lr" in compared.stdout
    assert (tmp_path / "c.html").is_file()


def test_the_same_seed_gives_the_same_figures_with_wandb_offline(trained: Path, tmp_path: Path) -> None:
    """W&B is the default logger: without a key it writes files, needs no network, and changes nothing."""
    small = [o for o in SMALL if o != "logger=csv"]
    unset = dict.fromkeys(("WANDB_MODE", "WANDB_API_KEY"), "")
    ok(run(tmp_path, "task=qa", *small, **unset, NETRC=str(tmp_path / "none")))
    assert len(list((tmp_path / "run").rglob("*.wandb"))) == 4  # one a stage, one for the results
    (answers,) = (tmp_path / "run").rglob("test/samples_*.table.json")
    columns = json.loads(answers.read_text(encoding="utf-8"))["columns"]
    assert columns[:6] == ["prompt", "references", "base", "sft", "ppo", "base: gold"]
    assert not (tmp_path / "wandb").exists()
    again, first = metrics(tmp_path / "run"), metrics(trained / "run")
    assert [p["metrics"] for p in again["policies"]] == [p["metrics"] for p in first["policies"]]
    ok(run(tmp_path, "task=qa", *SMALL, "stages=[sft]", "seed=1", "hydra.run.dir=other"))
    other = metrics(tmp_path / "other")["policies"][-1]["metrics"]
    assert other != first["policies"][1]["metrics"], "another seed is another run"


@pytest.mark.slow
def test_an_encoder_classifies_and_judges(encoder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    small = [o for o in SMALL if not o.startswith("model.tiny")]
    ok(run(tmp_path, "task=classification", "model=hf", f"model.name={encoder}", "stages=[sft]", *small))
    results = metrics(tmp_path / "run")
    assert [p["name"] for p in results["policies"]] == ["base", "sft"]
    config = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "sft" / "model").config
    assert list(config.id2label.values()) == ["tech", "sports", "positive", "negative"]

    judge = ["model@reward.model=hf", f"reward.model.name={encoder}"]
    ok(run(tmp_path, "task=classification", *judge, *SMALL, "hydra.run.dir=judged"))
    check_run_folder(tmp_path / "judged")
    config = AutoModelForSequenceClassification.from_pretrained(tmp_path / "judged" / "reward" / "model").config
    assert config.model_type == "bert"


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "adafactor"])
def test_every_optimizer_with_every_schedule(optimizer: str, schedule: str, trained: Path, tmp_path: Path) -> None:
    groups = [f"{g}@{s}.{g}={o}" for g, o in (("optimizer", optimizer), ("schedule", schedule)) for s in STAGES]
    ok(run(tmp_path, "task=qa", *groups, *SMALL))
    check_run_folder(tmp_path / "run")


@pytest.mark.slow
def test_adapters_alone_can_be_exported_and_gone_on_from(trained: Path, tmp_path: Path) -> None:
    start = [f"policy={trained / 'run' / 'sft' / 'model'}", "rewards=token_f1"]
    lora = ["model.lora.r=4", "model.lora.merge=false"]
    ok(run(tmp_path, "task=qa", "stages=[ppo]", *start, *lora, *SMALL))
    assert (tmp_path / "run" / "ppo" / "model" / "adapter_config.json").is_file()
    ok(run(tmp_path, "task=qa", "stages=[evaluate]", "policy=run/ppo/model", *SMALL, "hydra.run.dir=again"))
    (again,) = metrics(tmp_path / "again")["policies"]
    assert again["metrics"]["token_f1"] == metrics(tmp_path / "run")["policies"][-1]["metrics"]["token_f1"]


def heeding_interrupts() -> None:
    """What is started in a shell's background ignores SIGINT, and so would all that it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_ctrl_c_leaves_a_usable_run_folder(trained: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    long = [o for o in SMALL if not o.startswith("ppo.updates")]
    start = [f"policy={trained / 'run' / 'sft' / 'model'}", "stages=[ppo]", "rewards=constant", "ppo.updates=5000"]
    process = subprocess.Popen(
        [BIN / "rlhf-train", "task=qa", *long, *start],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heeding_interrupts,
    )
    log = tmp_path / "run" / "ppo" / "metrics.csv"
    try:
        for _ in range(900):
            if log.exists() and len(log.read_text().splitlines()) > 2:
                break
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, stderr[-2000:]
    assert metrics(tmp_path / "run")["status"] == "interrupted"
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "ppo" / "model").config.hidden_size == 32
    assert (tmp_path / "run" / "report.html").is_file()
    assert "Traceback" not in stderr
    assert "interrupted" in stderr


def test_the_wheel_holds_configs_and_samples(tmp_path: Path) -> None:
    source = tmp_path / "source"
    ignore = shutil.ignore_patterns(".*", "outputs", "wandb", "*.egg-info", "build", "dist", "tests")
    shutil.copytree(Path(__file__).parents[2], source, ignore=ignore)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    built = subprocess.run(build, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-2000:]
    assert "is absent from" not in built.stdout + built.stderr  # a folder of conf/ that `packages` does not list
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        held = set(wheel.namelist())
        wheel.extractall(tmp_path / "site")
    for pattern, home in (("conf/**/*.yaml", ""), ("tasks/**/*.jsonl", ""), ("rlhf_lightning/**/*.py", None)):
        for path in source.glob(pattern):
            name = path.relative_to(source).as_posix()
            assert (name if home is None else f"rlhf_lightning/{name}") in held
    # As the console script does, but from the wheel: the editable installation would come after it on the path.
    (entries,) = (tmp_path / "site").glob("*.dist-info/entry_points.txt")
    assert "rlhf-train = rlhf_lightning.train:main" in entries.read_text(encoding="utf-8")
    script = "import sys; from rlhf_lightning.train import main, __file__ as f; print(f); sys.exit(main())"
    command = [sys.executable, "-c", script, "task=classification", "stages=[sft]", *SMALL]
    env = environment(PYTHONPATH=str(tmp_path / "site"))
    result = ok(subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True))
    assert result.stdout.startswith(str(tmp_path / "site"))
    assert metrics(tmp_path / "run")["status"] == "finished"


@pytest.mark.parametrize("program", ["rlhf-train", "rlhf-compare"])
def test_help_is_quick_to_come(program: str, tmp_path: Path) -> None:
    times = []
    for _ in range(2):
        started = time.perf_counter()
        shown = ok(run(tmp_path, "--help", program=program)).stdout
        times.append(time.perf_counter() - started)
    assert "classification, continuation" in shown or program == "rlhf-compare"
    assert min(times) < 10  # about 1 s; nothing heavy is imported
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_engines_draw_the_same_responses(tmp_path: Path) -> None:
    """`rollout=` chooses what draws responses; whichever it is, a run ends alike."""
    answers = []
    for engine in ("native", "generate"):
        ok(run(tmp_path, "task=summarization", *SMALL, f"rollout={engine}", f"hydra.run.dir={engine}"))
        lines = (tmp_path / engine / "samples.jsonl").read_text(encoding="utf-8").split("\n")
        answers.append([json.loads(line)["completions"] for line in lines if line])
    same = sum(a == b for a, b in zip(*answers, strict=True))
    assert same >= 0.9 * len(answers[0]), "roundings may grow into another token here and there"


@pytest.mark.slow
def test_a_dry_run_tells_all_and_leaves_nothing(tmp_path: Path) -> None:
    told = ok(run(tmp_path, "task=qa", *SMALL, "dry_run=true")).stdout
    for part in ("Lengths in tokens", "Row 3 as the model sees it", "2 rounds of 8 responses", "Memory: about",
                 "Time: about", "Disk: about", "Nothing was trained"):  # fmt: skip
        assert part in told
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_dry_run_of_a_reward_model_alone(tmp_path: Path) -> None:
    told = ok(run(tmp_path, "task=qa", *SMALL, "stages=[reward]", "dry_run=true")).stdout
    assert "Nothing was trained" in told


def test_every_exported_model_has_its_card(trained: Path) -> None:
    for stage in ("sft", "reward", "ppo"):
        told = (trained / "run" / stage / "model" / "README.md").read_text(encoding="utf-8")
        assert told.startswith("---\nlicense: unknown\n")
        assert "48 held-out rows" in told or stage == "reward"
        assert str(trained) not in told
