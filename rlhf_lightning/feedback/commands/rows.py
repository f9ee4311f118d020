"""`rlhf-feedback rows`: judgements as rows that rlhf-train trains on."""

from __future__ import annotations

import argparse
import shlex
import uuid
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.commands.logged import logged
from rlhf_lightning.feedback.events import Event
from rlhf_lightning.feedback.holding import current
from rlhf_lightning.feedback.payloads import KINDS
from rlhf_lightning.feedback.row_files import check_folder, optional_columns, write_rows
from rlhf_lightning.feedback.rows import Rows, rows_of, split_rows
from rlhf_lightning.feedback.rules import MERGES, Rules

PROMPTS = 64
"""So many prompts a round PPO asks for, by the presets of the models."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    usual = Rules()
    add = parser.add_argument
    add("--out", required=True, type=Path, metavar="FOLDER", help="a new folder for the rows")
    add("--project", help="judgements of this project alone")
    add("--ties", choices=("drop", "half"), default=usual.ties, help="no pair, or one of probability 0.5 (%(default)s)")
    add("--merge", choices=MERGES, default=usual.merge, help="what several people say of one thing (%(default)s)")
    add("--margin", type=float, default=usual.margin, help="margin for each grade of strength (%(default)s)")
    add(
        "--gap", type=float, default=usual.gap, help="least difference of ratings, in standard deviations (%(default)s)"
    )
    add("--target", type=float, default=usual.target, help="share of the scale worth imitating (%(default)s)")
    add("--aspect", help="judgements of this aspect alone")
    add("--implicit", action="store_true", help="weak preferences from signs of use, too")
    add("--with-checks", action="store_true", help="gold and repeated items, too")
    add("--split-by", choices=("prompt", "document", "person"), default="prompt", help="what is never on both sides")
    add("--test-share", type=float, default=0.1, help="share of the rows that is held out; 0 for none (%(default)s)")
    add("--seed", type=int, default=0, help="of the split (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Write the rows, and say what became of which judgements."""
    from rlhf_lightning.feedback.store import Store

    rules = Rules(
        args.ties, args.merge, args.margin, args.gap, args.target, args.aspect, args.implicit, args.with_checks
    )
    if not 0 <= args.test_share < 1:
        raise UserError(f"--test-share must be a share from 0 up to 1, not {args.test_share}")
    check_folder(args.out)
    with Store(args.store, create=False) as store:
        log = logged(store, args.project)
        holding = current(log)
        rows = rows_of(holding, rules)
        print("\n".join(told(log, holding, rows)))
        if not rows:
            raise UserError("no judgement gives a row; the table says why")
        train, test = split_rows(rows, args.test_share, args.split_by, args.seed) if args.test_share else (rows, Rows())
        # Noted first: of rows that the store does not know of, nobody would hear when a person's words are erased.
        name = f"rows-{uuid.uuid4().hex}"
        store.note_export(name, "rows", str(args.out.absolute()), rows.events, rows=len(rows))
        files = write_rows(args.out, train, test, {"store": store.shown_place, "export": name})
    print(f"\n{args.out}: " + ", ".join(f"{len(_part(name, train, test))} {name}" for name in files))
    if 0 < len(train.sft) < PROMPTS and train.preferences:
        print(f"\nPPO needs prompts, {PROMPTS} in a round: with data.prompts=FILE ppo can be one of the stages")
    print(f"\n{train_line(files, optional_columns(train, test), _task(holding), len(train.sft))}")
    return 0


def _part(name: str, train: Rows, test: Rows) -> Sequence[object]:
    return getattr(test if name.endswith("_test") else train, name.removesuffix("_test"))


def told(log: Sequence[Event], holding: Sequence[Event], rows: Rows) -> list[str]:
    """A table of the rows by kind of judgement, and below it why judgements, or comparisons, gave none."""
    kind: dict[str, str] = {event.id: event.kind for event in log if event.status != "erased"}
    held = {event.id for event in holding}
    lines = [f"{'judgements':<12}{'logged':>8}{'hold':>8}{'used':>8}{'pairs':>8}{'unpaired':>10}{'sft':>8}"]
    parts = (rows.preferences, rows.unpaired, rows.sft)
    # A row of several kinds of judgement stands in the line of the first.
    made = [Counter(kind[row.meta["events"][0]] for row in part) for part in parts]
    for name in KINDS:
        logged = [event for event, of in kind.items() if of == name]
        if logged:
            holds = [event for event in logged if event in held]
            used = sum(event not in rows.unused for event in holds)
            pairs, unpaired, sft = (count[name] for count in made)
            lines.append(f"{name:<12}{len(logged):>8}{len(holds):>8}{used:>8}{pairs:>8}{unpaired:>10}{sft:>8}")
    gone = Counter(e.status if e.status != "submitted" else "replaced" for e in log if e.id not in held)
    for title, counts in (
        ("judgements that don't hold", gone),
        ("judgements in no row", Counter(rows.unused.values())),
        ("comparisons and answers that gave no row", rows.dropped),
    ):
        if counts:
            lines += ["", f"{title}:", *(f"{count:>8}  {reason}" for reason, count in counts.most_common())]
    return lines


def _task(events: Sequence[Event]) -> str:
    """The task of all events, where it is one of those that `rlhf-train` has; else the one without right answers."""
    names = {event.task for event in events}
    name = names.pop() if len(names) == 1 else None
    tasks = (resources.files("rlhf_lightning.conf") / "task").iterdir()
    return name if name and f"{name}.yaml" in {file.name for file in tasks} else "dialogue"


def train_line(files: dict[str, Path], columns: Sequence[str], task: str, prompts: int) -> str:
    """The command to go on with: of the stages that the files are rows for, and enough of them."""
    options = {
        "data.preferences": "preferences",
        "data.preferences_test": "preferences_test",
        "data.unpaired": "unpaired",
        "data.unpaired_test": "unpaired_test",
        "data.train": "sft",
        "data.test": "sft_test",
    }
    words = ["rlhf-train", f"task={task}", "data=files"]
    if "sft" not in files:
        words.append("stages=[reward]")
    elif not {"preferences", "unpaired"} & set(files):
        words.append("stages=[sft]")
    elif prompts < PROMPTS:
        words.append("stages=[sft,reward]")
    words += [f"{option}={files[name].absolute()}" for option, name in options.items() if name in files]
    words += [f"++task.format.{name}={name}" for name in columns]  # added where the task says nothing of it
    return shlex.join(words)
