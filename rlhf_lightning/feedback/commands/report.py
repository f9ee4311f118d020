"""`rlhf-feedback report`: counts, agreement, biases and what the models are worth, as HTML and JSON."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf_lightning.data.files import home
from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.commands.logged import logged

if TYPE_CHECKING:
    from rlhf_lightning.feedback.events import Event
    from rlhf_lightning.report.runs import Run

HTML, JSON = "feedback.html", "feedback.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add = parser.add_argument
    add("--out", metavar="FOLDER", help=f"for {HTML} and {JSON}; default: feedback in the run's folder")
    add("--project", help="judgements of this project alone")
    add("--log", metavar="FILE", help="a log that was exported, instead of a store")
    add(
        "--run",
        dest="folder",
        type=Path,
        metavar="FOLDER",
        help="of a run: its store is feedback.db there, and people's preferences are added to its report",
    )
    add("--reward-model", metavar="FOLDER", help="a reward model to be held against people's preferences")


def run(args: argparse.Namespace) -> int:
    """Make the report; with ``--run`` the run's report as well."""
    from rlhf_lightning.feedback.holding import current
    from rlhf_lightning.feedback.report import reward_check
    from rlhf_lightning.feedback.report.build import build, write
    from rlhf_lightning.feedback.report.html import report_page
    from rlhf_lightning.feedback.report.screen import print_feedback
    from rlhf_lightning.feedback.store import Store
    from rlhf_lightning.report.results import write_atomic

    of_run = _run(args.folder)
    if args.log is not None:
        log, store = _read_log(home(args.log), args.project), None
        of = Path(args.log).name
    else:
        store = Store(args.store, create=False)
    try:
        if store is not None:
            log, of = logged(store, args.project), store.shown_place
        out = _folder(args.out, of_run)
        checked = None
        if args.reward_model is not None:
            known, held_out = reward_check.trained_on(args.reward_model, store)
            model = reward_check.load(args.reward_model)
            checked = reward_check.check(model, args.reward_model, current(log), known, held_out)
    finally:
        if store is not None:
            store.close()
    report = build(log, of if args.project is None else f"{of}, project {args.project}", checked)
    out.mkdir(parents=True, exist_ok=True)
    write(report, out / JSON)
    write_atomic(out / HTML, report_page(report))
    print_feedback(report)
    print(f"\n{out / HTML}\n{out / JSON}")
    if of_run is not None:
        _into_run(of_run, log)
    return 0


def _run(folder: Path | None) -> Run | None:
    from rlhf_lightning.feedback.from_run import run_of

    return None if folder is None else run_of(folder)


def _folder(given: str | None, of_run: Run | None) -> Path:
    if given is None:
        if of_run is None:
            raise UserError(f"say where to: --out FOLDER takes {HTML} and {JSON}")
        return of_run.path / "feedback"
    out = home(given)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file: name a folder")
    return out


def _read_log(path: Path, project: str | None) -> list[Event]:
    from rlhf_lightning.feedback.events import Event
    from rlhf_lightning.feedback.formats import log
    from rlhf_lightning.feedback.formats.common import Import

    # No salt: a log has ids of people already.
    found = [entry for entry in log.read(path, Import("log", b"")) if isinstance(entry, Event)]
    events = [event for event in found if project in (None, event.project)]
    if all(event.status == "erased" for event in events):
        raise UserError(
            f"{path} holds no judgements{f' of {project}' if project else ''}: name a file of "
            "`rlhf-feedback export --format log`"
        )
    return events


def _into_run(of_run: Run, log: list[Event]) -> None:
    from rlhf_lightning.feedback.holding import current
    from rlhf_lightning.feedback.report.of_run import human_of
    from rlhf_lightning.report.html import write_report
    from rlhf_lightning.report.human import human_lines

    human = human_of(of_run, current(log))
    path = human.write(of_run.path)
    print(f"{path}\n{write_report(of_run.path)}")
    for line in human_lines(human) or ["No two policies of this run were compared blindly."]:
        print(line)
