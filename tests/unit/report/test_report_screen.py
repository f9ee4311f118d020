import io

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from rlhf_lightning.errors import UserError
from rlhf_lightning.report import print_report, results_table, samples_table, write_report
from rlhf_lightning.report.results import Sample
from rlhf_lightning.report.screen import duration, show, table_width


def printed(thing, width=120, **options):
    console = Console(width=width, file=io.StringIO(), **options)
    console.print(thing)
    return console.file.getvalue()


def test_rows_are_policies_and_columns_stand_in_groups(results):
    lines = printed(results_table(results)).splitlines()
    assert lines[1].split() == ["Task", "Reward", "Guardrails"]
    assert lines[2].split() == ["policy", "rougeL", "↑", "ter", "↓", "gold", "↑", "kl", "length"]
    assert lines[4].split() == ["base", "0.100", "90.0", "0.310", "0.00", "30.0"]
    assert lines[6].split() == ["ppo", "0.400", "55.5", "0.710", "3.08", "14.0"]


def test_the_best_are_bold(results):
    table = results_table(results)
    bold = [[i for i, cell in enumerate(column.cells) if "bold" in str(cell.style)] for column in table.columns]
    assert bold == [[], [1], [2], [2], [], []]


@pytest.mark.parametrize("width", [30, 45, 60, 80, 120])
def test_a_narrow_table_drops_guardrails_first_and_names_them(results, width):
    for i in range(12):
        results.columns["guardrails"].append(f"guardrail_{i}")
        for policy in results.policies:
            policy.metrics[f"guardrail_{i}"] = 0.5
    table = results_table(results, width)
    assert table_width(table) <= width
    header = printed(table, width).splitlines()[2]
    assert "gold" in header
    dropped = [f"guardrail_{i}" for i in range(12) if f"guardrail_{i}" not in header]
    assert dropped == [f"guardrail_{i}" for i in range(12 - len(dropped), 12)]  # from the last on
    assert all(name in str(table.caption) for name in dropped)
    assert all(cell_len(line) <= width for line in printed(table, width).splitlines())


def test_samples_side_by_side_keep_their_width_with_cjk():
    samples = [Sample(0, "猫" * 60, ["犬" * 30], {"sft": "鳥" * 45, "ppo": "abc"}, {"sft": {"gold": 0.5}})]
    text = printed(samples_table(samples, width=120), 120)
    assert {cell_len(line) for line in text.splitlines()} == {120}
    assert text.splitlines()[1].split() == ["prompt", "reference", "sft", "ppo"]
    assert text.count("猫") == 60
    assert "gold 0.50" in text


def test_samples_are_stacked_where_it_is_narrow():
    samples = [Sample(i, "p", ["r"], {"sft": "one", "ppo": ""}) for i in range(5)]
    lines = [line.split() for line in printed(samples_table(samples, n=1, width=50), 50).splitlines() if line.strip()]
    assert lines == [["prompt", "p"], ["reference", "r"], ["sft", "one"], ["ppo", "(empty)"]]


def test_untrusted_text_is_no_markup(run_dir):
    console = Console(width=200, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    print_report(run_dir, console)
    text = console.file.getvalue()
    assert "summarization, seed 3, 40 held-out rows" in text
    assert "[bold]markup[/bold]" in text
    assert "\x1b[31m" not in text


def test_the_report_ends_with_the_paths_unbroken(run_dir):
    for expected in (f"Report: none written at {run_dir / 'report.html'}", f"Report: {run_dir / 'report.html'}"):
        console = Console(width=40, file=io.StringIO())
        print_report(run_dir, console)
        lines = console.file.getvalue().splitlines()
        assert lines[-2:] == [f"Run folder: {run_dir}", expected]
        write_report(run_dir)
    assert "Reward model: accuracy 0.800, longer-wins" in " ".join(line.strip() for line in lines)


def test_in_a_file_texts_are_one_line_and_no_line_ends_in_spaces(run_dir):
    console = Console(width=60, file=io.StringIO())
    print_report(run_dir, console)
    lines = console.file.getvalue().splitlines()
    assert all(line == line.rstrip() for line in lines)
    assert "Reward model: accuracy 0.800, longer-wins baseline 0.500" in lines


def test_on_a_terminal_no_word_is_broken():
    def shown(text):
        console = Console(width=20, height=9, file=io.StringIO(), force_terminal=True, color_system=None)
        show(console, Text(text))
        return console.file.getvalue().splitlines()

    assert shown("Note: what was found is in [a]") == ["Note: what was found", "is in [a]"]
    long = "Note: what was found is in /a/folder/with/a/long/name"
    assert shown(long) == [long]


def test_no_run(tmp_path):
    with pytest.raises(UserError, match=r"metrics.json: no such file"):
        print_report(tmp_path, Console(file=io.StringIO()))


def test_duration():
    assert [duration(s) for s in (4.31, 59.99, 61.2, 3599.6, 7380)] == [
        "4.3 s",
        "60.0 s",
        "1 min 1 s",
        "1 h 0 min",
        "2 h 3 min",
    ]
