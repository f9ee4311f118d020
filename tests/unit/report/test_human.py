import json
import subprocess
import sys

import pytest
from helpers.run_folders import write_run

from rlhf_lightning.compare import main as compare
from rlhf_lightning.errors import UserError
from rlhf_lightning.report import print_report, write_report
from rlhf_lightning.report.human import Human, Preferred, human_lines, human_section, read_human

SAID = Human([Preferred("ppo", "sft", 0.63, 0.55, 0.71, 70, 11, 39, 120, 3)], 0.524, 0.4, 0.62)
FEW = Human([Preferred("ppo", "sft", None, None, None, 3, 1, 0, 4, 1)])


def test_it_is_read_back(tmp_path):
    assert read_human(tmp_path) is None
    SAID.write(tmp_path)
    assert read_human(tmp_path) == SAID
    FEW.write(tmp_path)
    assert read_human(tmp_path) == FEW


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "schema is 2"),
        ({"preferred": [{"policy": "a"}]}, "other: expected a string"),
        ({"alpha": "x"}, "alpha"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path, change, message):
    path = SAID.write(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=message):
        read_human(tmp_path)


def test_lines():
    assert human_lines(SAID) == [
        "People: PPO preferred to SFT in 63 % (55 to 71) of 120 comparisons, alpha .52",
    ]
    assert human_lines(FEW) == ["People: PPO preferred to SFT in 3 of 4 comparisons, 1 tied: too few for a rate"]
    assert human_lines(Human(SAID.preferred, simulated=True))[0].startswith("Simulated annotators: PPO")


def test_a_section_escapes_names():
    evil = Human([Preferred("<script>", "sft", 0.6, 0.5, 0.7, 60, 0, 40, 100, 2)])
    assert "<script>" not in human_section(evil)
    assert human_section(None) == human_section(Human([])) == ""


def test_reports_show_it(run_dir, capsys):
    SAID.write(run_dir)
    text = write_report(run_dir).read_text()
    assert "People’s preferences" in text
    assert "PPO over SFT" in text
    print_report(run_dir)
    assert "People: PPO preferred to SFT in 63 %" in capsys.readouterr().out


def test_the_comparison_has_a_column(tmp_path, capsys):
    for name, kl in (("a", "0.05"), ("b", "0.1")):
        write_run(tmp_path / name, kl_coef=kl)
    assert compare([str(tmp_path), "--no-tests"]) == 0
    assert "human" not in capsys.readouterr().out
    SAID.write(tmp_path / "b")
    assert compare([str(tmp_path), "--no-tests", "--csv", str(tmp_path / "t.csv")]) == 0
    out = capsys.readouterr().out
    assert "human" in out
    assert "63 %" in out
    lines = (tmp_path / "t.csv").read_text().splitlines()
    place = lines[0].split(",").index("human")
    assert [line.split(",")[place] for line in lines[1:]] == ["", "0.63"]


def test_it_is_shown_without_what_feedback_needs():
    code = (
        "import sys, rlhf_lightning.compare, rlhf_lightning.report, rlhf_lightning.comparison.page\n"
        "assert not {'sqlalchemy', 'pydantic'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
