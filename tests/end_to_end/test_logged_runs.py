"""What a run leaves with its loggers, offline: W&B's own files read back, TensorBoard's and MLflow's."""

from __future__ import annotations

import json
import socket
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from console import SMALL, metrics, ok, run, write_rows

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from helpers.wandb_file import OfflineRun, read_runs

from rlhf_lightning.report.curves import read_curves
from rlhf_lightning.report.runs import find_runs
from rlhf_lightning.report.wandb_source import runs_of_project

KEY = "k0123456789secret"
OTHERS = [name for name in ("tensorboard", "mlflow") if find_spec(name)]
JUDGE = """
class Judge:
    def __init__(self, api_key):
        self.api_key = api_key

    def __call__(self, prompts, completions, references, meta):
        return [float(len(set(text))) for text in completions]
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
    done = run(
        folder,
        *(option for option in SMALL if option != "logger=csv"),
        "data=files",
        f"data.train={data}",
        "stages=[sft,ppo]",
        "rewards=[]",
        f"+ppo.rewards.judge={{_target_: judges.Judge, api_key: {KEY}, weight: 1.0}}",
        f"logger=[{','.join(['wandb', *OTHERS])}]",
        **user,
        WANDB_MODE="",
        WANDB_DATA_DIR=str(folder / "staging"),
    )
    runs = {one.run.job_type: one for one in read_runs(ok(done) and folder / "run")}
    return Logged(folder / "run", home, done.stdout, runs)


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


@pytest.mark.skipif("tensorboard" not in OTHERS, reason="tensorboard is not installed")
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


@pytest.mark.skipif("mlflow" not in OTHERS, reason="mlflow is not installed")
def test_mlflow_has_runs_settings_and_figures(logged: Logged) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{logged.folder / 'mlflow.db'}")
    (experiment,) = [one for one in client.search_experiments() if one.name == "rlhf-lightning"]
    runs = {one.data.tags["stage"]: one for one in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"sft", "ppo", "evaluate"}
    assert {one.info.status for one in runs.values()} == {"FINISHED"}
    assert runs["ppo"].data.params["ppo.kl_coef"] == "0.05"
    assert runs["ppo"].data.tags["group"] == "run"
    last = metrics(logged.folder)["policies"][-1]["metrics"]
    assert runs["evaluate"].data.metrics["test/judge"] == pytest.approx(last["judge"])
    assert "report.html" in {file.path for file in client.list_artifacts(runs["evaluate"].info.run_id)}
    for one in runs.values():
        assert "anna" not in str(one.data)
        assert KEY not in str(one.data)
