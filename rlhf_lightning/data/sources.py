"""All the rows of a task, from wherever they come."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from rlhf_lightning.data.files import Record, did_you_mean
from rlhf_lightning.data.format import EmptyAnswer, RowFormat, SameCompletions
from rlhf_lightning.data.rankings import Judged
from rlhf_lightning.data.readers import Columns, Renames, Source, read_records
from rlhf_lightning.data.rows import PreferenceRow, PromptRow, SFTRow, UnpairedRow
from rlhf_lightning.data.split import group_key, rows_wanted, split_by_group
from rlhf_lightning.errors import UserError

Row = TypeVar("Row")
OnBadRow = Literal["error", "skip"]


@dataclass
class TaskData:
    """The rows of a task; a part that was not given is empty.

    Attributes:
        train: demonstrations.
        validation: prompts measured during training.
        test: prompts measured at the end.
        prompts: prompts that PPO answers.
        preferences: to learn a reward from.
        preferences_test: held-out ones.
        unpaired: completions with a thumb up or down, to learn a reward from.
        unpaired_test: held-out ones.
        notes: what was dropped or split, in words for the report.
    """

    train: list[SFTRow] = field(default_factory=list)
    validation: list[PromptRow] = field(default_factory=list)
    test: list[PromptRow] = field(default_factory=list)
    prompts: list[PromptRow] = field(default_factory=list)
    preferences: list[PreferenceRow] = field(default_factory=list)
    preferences_test: list[PreferenceRow] = field(default_factory=list)
    unpaired: list[UnpairedRow] = field(default_factory=list)
    unpaired_test: list[UnpairedRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def judged(self) -> tuple[list[Judged], list[Judged]]:
        """All that a reward is learnt from, and what is held out of it."""
        return [*self.preferences, *self.unpaired], [*self.preferences_test, *self.unpaired_test]


@dataclass
class _Reader:
    """Reads parts with the same settings, and notes what it drops."""

    columns: Columns
    encoding: str
    on_bad_row: OnBadRow
    limit: int | None
    seed: int
    notes: list[str]

    def __post_init__(self) -> None:
        if self.on_bad_row not in ("error", "skip"):
            raise UserError(f"data.on_bad_row must be error or skip, not {self.on_bad_row!r}")
        # One for all parts: a column to rename need not be in each of them, but must be in one.
        self.renames = Renames(self.columns if isinstance(self.columns, Mapping) else {})

    def rows(self, name: str, source: Source, convert: Callable[[Record], Row]) -> list[Row]:
        """Rows of one part, as many as `limit` allows, drawn at random."""
        rows: list[Row] = []
        told = len(self.notes)
        same, empty, bad = 0, 0, list[str]()

        def refuse(error: UserError) -> None:
            if self.on_bad_row == "error":
                raise UserError(f"{error}\n(data.on_bad_row=skip leaves such rows out and counts them.)") from None
            bad.append(str(error))

        names = None if isinstance(self.columns, Mapping) else self.columns
        for record in read_records(source, encoding=self.encoding, columns=names, on_bad=refuse):
            try:
                rows.append(convert(self.renames(record)))
            except SameCompletions:
                same += 1
            except EmptyAnswer:
                empty += 1
            except UserError as error:
                refuse(UserError(f"{error}{self._unnamed(record)}"))
        if same:
            self.notes.append(f"{name}: {same} preference(s) dropped, chosen and rejected are equal")
        if empty:
            self.notes.append(f"{name}: {empty} preference(s) dropped, one dialogue ends without an answer")
        if bad:
            self.notes.append(f"{name}: {len(bad)} bad row(s) skipped, such as: {'; '.join(bad[:3])}")
        if not rows:
            raise UserError(f"{name}: of {source} no row is left. {' '.join(self.notes[told:])}")
        if self.limit is not None and len(rows) > self.limit:
            rows = _drawn(rows, self.limit, self.seed)
        return rows

    def _unnamed(self, record: Record) -> str:
        """What to add to a row's error: a column that was to be renamed, but which no row so far has had."""
        wrong = sorted(self.renames.unseen - record.values.keys())
        free = record.values.keys() - record.renamed.keys() - set(record.renamed.values())
        like = did_you_mean(wrong[0], free) if len(wrong) == 1 else ""
        return f" (data.columns names {', '.join(map(repr, wrong))}: no such column was found){like}" if wrong else ""


def _drawn(rows: list[Row], limit: int, seed: int) -> list[Row]:
    """At most so many rows, in their order; of a ranking all pairs or none."""
    rankings: dict[Any, list[int]] = {}
    for i, row in enumerate(rows):
        group = getattr(row, "group", None)
        rankings.setdefault(i if group is None else group, []).append(i)
    draw, kept = random.Random(seed), list[int]()
    names = list(rankings)
    for name in draw.sample(names, limit if len(names) == len(rows) else len(names)):
        if len(kept) + len(rankings[name]) <= limit:
            kept += rankings[name]
    if not kept:
        raise UserError(f"data.limit={limit} is less than the pairs of any ranking: raise it")
    return [rows[i] for i in sorted(kept)]


def load_task_data(
    format: RowFormat,
    *,
    train: Source | None = None,
    validation: Source | None = None,
    test: Source | None = None,
    prompts: Source | None = None,
    preferences: Source | None = None,
    preferences_test: Source | None = None,
    unpaired: Source | None = None,
    unpaired_test: Source | None = None,
    columns: Columns = None,
    encoding: str = "utf-8",
    group: str | None = None,
    validation_size: float = 0.05,
    test_size: float = 0.1,
    limit: int | None = None,
    on_bad_row: OnBadRow = "error",
    seed: int = 0,
    need_references: bool = True,
) -> TaskData:
    """Read and check every row of a task.

    Held-out parts that are not given are split off the training rows by group, so that no group is on both sides.

    Args:
        format: what the rows look like.
        train: demonstrations with the references they are measured by.
        validation, test: held-out rows.
        prompts: what PPO answers; the training prompts, where it is not given. References are optional.
        preferences, preferences_test: chosen and rejected completions.
        unpaired, unpaired_test: completions with a thumb up or down.
        columns, encoding: see `read_records`.
        group: column whose values are kept together in splits; None is the prompt itself.
        validation_size, test_size: rows, or a share below 1, held out where validation or test is not given.
        limit: the most rows of each part, drawn at random before any split; a ranking is drawn as a whole.
        on_bad_row: ``error`` refuses the first bad row, ``skip`` drops, counts and notes them.
        seed: of splits and draws.
        need_references: whether validation and test rows must have references, as metrics need them.

    Raises:
        UserError: naming the file and row, or the option, that is wrong.
    """
    if limit is not None and limit < 1:
        raise UserError(f"data.limit must be at least 1, not {limit}")
    notes: list[str] = []
    reader = _Reader(columns, encoding, on_bad_row, limit, seed, notes)
    key = group_key(group)
    data = TaskData(notes=notes)
    if "\\n" in format.prompt:
        notes.append(
            "task.format.prompt holds a backslash followed by n, which is no line break: write one in a YAML file "
            "between double quotes, or on the command line as it is"
        )

    def hold_out(rows: Sequence[Row], name: str, size: float) -> tuple[list[Row], list[Row]]:
        try:
            rest, held = split_by_group(rows, key, size, seed)
        except UserError as error:
            raise UserError(f"{name} is not given, so it is held out by {group or 'prompt'}: {error}") from None
        if held:
            wanted, by = rows_wanted(size, len(rows)), group or "prompt"
            short = f"; {wanted} were wanted, but the others share one {by}" if len(held) < wanted else ""
            notes.append(f"{name}: {len(held)} of {len(rows)} rows held out by {by}{short}")
        return rest, held

    if train is not None:
        pairs = reader.rows("train", train, lambda record: _Both(format.sft_row(record), format.prompt_row(record)))
        if test is None:
            pairs, held = hold_out(pairs, "test", test_size)
            data.test = [pair.asked for pair in held]
        if validation is None:
            pairs, held = hold_out(pairs, "validation", validation_size)
            data.validation = [pair.asked for pair in held]
        data.train = [pair.shown for pair in pairs]
        data.prompts = [pair.asked for pair in pairs]
    if validation is not None:
        data.validation = reader.rows("validation", validation, lambda r: format.prompt_row(r, need_references))
    if test is not None:
        data.test = reader.rows("test", test, lambda r: format.prompt_row(r, need_references))
    if prompts is not None:
        data.prompts = reader.rows("prompts", prompts, lambda record: format.prompt_row(record, need_references=False))
    if preferences is not None:
        data.preferences = reader.rows("preferences", preferences, format.preference_row)
        if preferences_test is None:
            data.preferences, data.preferences_test = hold_out(data.preferences, "preferences_test", test_size)
    if preferences_test is not None:
        data.preferences_test = reader.rows("preferences_test", preferences_test, format.preference_row)
    if unpaired is not None:
        data.unpaired = reader.rows("unpaired", unpaired, format.unpaired_row)
        if unpaired_test is None:
            data.unpaired, data.unpaired_test = hold_out(data.unpaired, "unpaired_test", test_size)
    if unpaired_test is not None:
        data.unpaired_test = reader.rows("unpaired_test", unpaired_test, format.unpaired_row)

    if reader.renames.known:
        reader.renames.check()
    may_leak = [("validation", "train"), ("test", "train"), ("test", "preferences"), ("test", "unpaired")]
    may_leak += [("test", "prompts")] * (prompts is not None) + [("preferences_test", "preferences")]
    may_leak += [("preferences_test", "unpaired"), ("unpaired_test", "unpaired"), ("unpaired_test", "preferences")]
    for held_part, learnt_part in may_leak:
        _note_leak(data, held_part, learnt_part)
    return data


def _note_leak(data: TaskData, held: str, learnt: str) -> None:
    """Note how many held-out prompts are among those that something is learnt from."""
    shown = {str(row.prompt.text) for row in getattr(data, learnt)}
    rows = getattr(data, held)
    if leaked := sum(str(row.prompt.text) in shown for row in rows):
        data.notes.append(f"{held}: {leaked} of {len(rows)} prompts are also in {learnt}")


@dataclass(frozen=True)
class _Both:
    """A training row as a demonstration and as a prompt; split as one."""

    shown: SFTRow
    asked: PromptRow

    @property
    def prompt(self) -> Any:
        return self.shown.prompt

    @property
    def meta(self) -> dict[str, Any]:
        return self.shown.meta


def read_prompts(
    source: Source,
    format: RowFormat,
    columns: Columns = None,
    encoding: str = "utf-8",
    on_bad_row: OnBadRow = "error",
    notes: list[str] | None = None,
) -> list[PromptRow]:
    """Prompts to answer; references are taken along where there are any.

    Args:
        source, columns, encoding: see `read_records`.
        format: what the rows look like.
        on_bad_row: ``error`` refuses the first bad row, ``skip`` drops them.
        notes: is told how many rows were dropped; where it is not given, a warning says so.

    Raises:
        UserError: naming the file and row that is wrong.
    """
    told: list[str] = []
    reader = _Reader(columns, encoding, on_bad_row, None, 0, told)
    rows = reader.rows("input", source, lambda record: format.prompt_row(record, need_references=False))
    if notes is not None:
        notes += told
    elif told:
        warnings.warn("\n".join(told), stacklevel=2)
    return rows
