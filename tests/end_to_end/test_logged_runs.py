"""What a run leaves with its loggers, offline: W&B's own files read back, TensorBoard's and MLflow's."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from console import BIN, SMALL, environment, metrics, ok, run, write_rows

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from helpers.wandb_file import OfflineRun, read_runs

from rlhf_lightning.report.curves import read_curves
from rlhf_lightning.report.runs import find_runs
from rlhf_lightning.report.wandb_source import runs_of_project

KEY = "k0123456789secret"
HAS_TENSORBOARD = find_spec("tensorboard") is not None
JUDGE = """
import torch


class Judge:
    def __init__(self, api_key):
        self.api_key = api_key

    def __call__(self, prompts, completions, references, meta):
        return torch.tensor([float(len(set(text))) for text in completions])
"""


@dataclass
class Logged:
    """A run of the user anna's, whose data lies in her home, with a reward that needs a key."""

    folder: Path
    home: Path
    screen: str
    runs: dict[str, OfflineRun]


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Logged:
    folder = tmp_path_factory.mktemp("logged")
    home = folder / "home" / "anna"
    (home / "my data").mkdir(parents=True)
    rows = [{"document": f"Report {i} says that {i} jobs go.", "reference": f"{i} jobs go"} for i in range(60)]
    data = write_rows(home / "my data" / "rows.jsonl", rows)
    (folder / "judges.py").write_text(JUDGE)
    user = {"HOME": str(home), "USER": "anna", "LOGNAME": "anna", "NETRC": str(home / "none"), "WANDB_API_KEY": ""}
    user["MPLCONFIGDIR"] = str(Path.home() / ".cache" / "matplotlib")  # its list of fonts takes a while to make
    done = run(
        folder,
        *(option for option in SMALL if option != "logger=csv"),
        "data=files",
        f"data.train={data}",
        "stages=[sft,ppo]",
        "rewards=[]",
        f"+ppo.rewards.judge={{_target_: judges.Judge, api_key: {KEY}, weight: 1.0}}",
        "logger=[wandb,tensorboard]" if HAS_TENSORBOARD else "logger=wandb",
        **user,
        WANDB_MODE="",
        WANDB_DATA_DIR=str(folder / "staging"),
    )
    runs = {one.run.job_type: one for one in read_runs(ok(done) and folder / "run")}
    return Logged(folder / "run", home, done.stdout, runs)


@pytest.mark.slow
def test_a_run_a_stage_and_one_for_the_figures(logged: Logged) -> None:
    assert set(logged.runs) == {"sft", "ppo", "evaluate"}
    for stage, one in logged.runs.items():
        assert one.run.run_group == "run"
        assert one.run.display_name == f"run-{stage}"
        assert list(one.run.tags) == ["summarization", "tiny-causal", "sft" if stage == "sft" else "ppo"]
    config = logged.runs["ppo"].config
    assert config["ppo"]["kl_coef"] == 0.05
    assert config["data"]["train"] == "rows.jsonl"
    assert config["made_with"]["rows"]["train"]["rows"] > 0
    assert config["made_with"]["versions"]["torch"]


def test_nothing_tells_of_the_machine_or_its_user(logged: Logged) -> None:
    """Neither W&B's file nor what is uploaded beside it; only the places of files that are to be uploaded are in it."""
    uploaded = [path for path in (logged.folder / "wandb").rglob("files/**/*") if path.is_file()]
    assert uploaded
    contents = {path.name: path.read_bytes() for path in uploaded}
    for stage, one in logged.runs.items():
        content = one.path.read_bytes()
        for artifact in one.artifacts:
            for entry in artifact.manifest.contents:
                content = content.replace(entry.local_path.encode(), b"")
        contents[stage] = content
    told = {
        "user": "anna",
        "home": str(logged.home),
        "key": KEY,
        "folder": str(logged.folder),
        "python": sys.executable,
    }
    if len(socket.gethostname()) > 4:  # a shorter one may stand in any text
        told["host"] = socket.gethostname()
    for where, content in contents.items():
        for what, text in told.items():
            assert text.encode() not in content, f"{where} has the {what}"


def test_curves_are_over_what_was_seen(logged: Logged) -> None:
    ppo = logged.runs["ppo"]
    assert ppo.values("ppo/episodes") == [8, 16]
    assert ppo.metrics["ppo/*"].step_metric == "ppo/episodes"
    assert ppo.values("ppo/val/histogram/length._type") == ["histogram"] * 2
    assert ppo.values("ppo/val/samples.nrows")[-1] == 2 * ppo.values("ppo/val/samples.nrows")[0]
    (last, *_) = sorted((logged.folder / "wandb").rglob("ppo/val/samples_1_*.json"))
    columns = json.loads(last.read_text())["columns"]
    assert columns == ["step", "episodes", "prompt", "reference", "before", "now", "judge", "kl"]


def test_the_summary_has_every_policys_figures(logged: Logged) -> None:
    summary, policies = logged.runs["evaluate"].summary, metrics(logged.folder)["policies"]
    for policy in policies:
        assert summary[f"test/{policy['name']}/rouge1"] == pytest.approx(policy["metrics"]["rouge1"])
    assert summary["test/judge"] == pytest.approx(policies[-1]["metrics"]["judge"])
    assert summary["report._type"] == "html-file"


def test_the_screen_says_how_to_upload(logged: Logged) -> None:
    assert f"wandb sync {logged.folder}/wandb/offline-run-*".replace("\n", "") in logged.screen.replace("\n", "")


def test_read_back_it_is_the_run_folder(logged: Logged) -> None:
    """As `wandb.Api` gives what was uploaded."""
    runs = {
        one.run.run_id: SimpleNamespace(
            id=one.run.run_id,
            name=one.run.display_name,
            group=one.run.run_group,
            config=one.config,
            scan_history=lambda one=one: iter(one.history),
        )
        for one in logged.runs.values()
    }
    figures = runs[logged.runs["evaluate"].run.run_id]
    api: Any = SimpleNamespace(runs=lambda *args, **options: [figures], run=lambda path: runs[path.split("/")[-1]])
    (there,) = runs_of_project("team/project", api)
    (here,) = find_runs([logged.folder])
    assert there.results.policies[-1].metrics == pytest.approx(here.results.policies[-1].metrics, nan_ok=True)
    assert there.settings["ppo.kl_coef"] == here.settings["ppo.kl_coef"]
    assert there.choices == here.choices
    curves, own = (read_curves(one.path, ["ppo"])["ppo"]["ppo/score"] for one in (there, here))
    assert curves.values == pytest.approx(own.values)


@pytest.mark.skipif(not HAS_TENSORBOARD, reason="tensorboard is not installed")
def test_tensorboard_has_curves_settings_samples_and_figures(logged: Logged) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = {stage: EventAccumulator(str(logged.folder / "tensorboard" / stage)) for stage in logged.runs}
    for one in events.values():
        one.Reload()
    assert [point.value for point in events["ppo"].Scalars("ppo/episodes")][-1] == 16
    assert "ppo/val/samples/text_summary" in events["ppo"].Tags()["tensors"]
    last = metrics(logged.folder)["policies"][-1]["metrics"]
    assert events["evaluate"].Scalars("test/judge")[-1].value == pytest.approx(last["judge"])
    settings = (logged.folder / "tensorboard" / "ppo" / "hparams.yaml").read_text()
    assert "ppo.kl_coef: 0.05" in settings
    assert KEY not in settings


@pytest.mark.slow
def test_mlflow_has_runs_settings_and_figures(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    from mlflow.tracking import MlflowClient

    small = [option for option in SMALL if option != "logger=csv"]
    user = {"USER": "anna", "LOGNAME": "anna", "MLFLOW_TRACKING_URI": ""}
    ok(run(tmp_path, *small, "stages=[sft]", "logger=mlflow", **user))
    folder = tmp_path / "run"
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (experiment,) = [one for one in client.search_experiments() if one.name == "rlhf-lightning"]
    runs = {one.data.tags["stage"]: one for one in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"sft", "evaluate"}
    assert {one.info.status for one in runs.values()} == {"FINISHED"}
    assert runs["sft"].data.params["sft.loader.batch_size"] == "32"
    assert runs["sft"].data.tags["group"] == "run"
    last = metrics(folder)["policies"][-1]["metrics"]
    assert runs["evaluate"].data.metrics["test/gold"] == pytest.approx(last["gold"])
    assert "report.html" in {file.path for file in client.list_artifacts(runs["evaluate"].info.run_id)}
    for one in runs.values():
        assert "anna" not in str(one.data)


@pytest.mark.slow
def test_a_resumed_run_of_w_and_bs_agent_goes_on_where_it_was(tmp_path: Path) -> None:
    """Stopped in PPO and started again: the same W&B runs, each step once, the table whole; the agent's own run, and no
    other, is in its sweep."""
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text("wandb_version: 1\nppo.kl_coef: {value: 0.1}\n")
    agent = {"WANDB_SWEEP_ID": "s1", "WANDB_RUN_ID": "of_agent", "WANDB_SWEEP_PARAM_PATH": str(parameters)}
    offline = {**agent, "WANDB_MODE": "offline", "WANDB_DATA_DIR": str(tmp_path / "staging")}
    small = [option for option in SMALL if option != "logger=csv"]
    command = [*small, "stages=[sft,ppo]", "rewards=chrf", "ppo.updates=12", "checkpoint.minutes=0", "logger=wandb"]
    process = subprocess.Popen([str(BIN / "rlhf-train"), *command], cwd=tmp_path, env=environment(**offline))
    while not list(tmp_path.glob("run/ppo/checkpoints/*4")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 75
    ok(run(tmp_path, *command, "resume=true", **offline))
    written = read_runs(tmp_path / "run")
    ppo = [one for one in written if one.run.job_type == "ppo"]
    assert len({one.run.run_id for one in ppo}) == 1
    assert len(ppo) == 2
    assert [row["_step"] for one in ppo for row in one.history] == list(range(12))
    assert [value for one in ppo for value in one.values("ppo/episodes")] == [8 * (i + 1) for i in range(12)]
    assert ppo[1].values("ppo/val/samples.nrows")[-1] == 12 * 8
    assert {(one.run.job_type, one.run.sweep_id) for one in written} == {("sft", ""), ("ppo", ""), ("evaluate", "s1")}
    assert {one.run.run_id for one in written if one.run.job_type == "evaluate"} == {"of_agent"}
    assert {one.run.run_group for one in written} == {"s1"}
