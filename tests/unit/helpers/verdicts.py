"""What the readers and the codec make of a file of `odd_files`, and whether that is right."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from helpers.odd_files import LABELS, Case, typed
from rlhf_lightning.data.encoding import Codec
from rlhf_lightning.data.format import RowFormat
from rlhf_lightning.data.readers import read_records
from rlhf_lightning.data.rows import Prompt
from rlhf_lightning.data.sources import load_task_data
from rlhf_lightning.errors import UserError

FORMATS = {
    "sft": RowFormat("{document}\nTL;DR:", completion="reference", references="reference", cut="document"),
    "prompts": RowFormat("Q: {document} A:", references="references"),
    "pairs": RowFormat("{document}\n", weight="weight"),
    "labels": RowFormat("{text} is", completion="label", references="label", labels=LABELS),
    "chat": RowFormat("{nothing}"),
    "unpaired": RowFormat("{nothing}"),
    "plain": RowFormat("{text}"),
    "squad": RowFormat("{context}\nQ: {question}", references="answers"),
}


def load(kind: str, source: Any, encoding: str, on_bad_row: str) -> list[tuple]:
    """The same of the project: the rows of a source, read the way a run reads them."""
    form = FORMATS[kind]
    options: dict[str, Any] = {"encoding": encoding, "on_bad_row": on_bad_row}
    if kind == "pairs":
        pairs = load_task_data(form, preferences=source, preferences_test=source, **options).preferences
        return [(r.prompt.text, r.chosen, r.rejected, r.weight) for r in pairs]
    if kind in ("prompts", "squad", "plain"):
        asked = load_task_data(form, test=source, need_references=kind != "plain", **options).test
        return [(r.prompt.text, r.references) if kind != "plain" else (r.prompt.text,) for r in asked]
    if kind == "unpaired":
        rows = []
        for record in read_records(source, encoding=encoding):
            row = form.unpaired_row(record)
            rows.append((row.prompt.text, row.completion, row.label))
        return rows
    shown = load_task_data(form, train=source, validation=source, test=source, **options).train
    if kind == "sft":
        return [(r.prompt.text, r.prompt.cut, r.completion) for r in shown]
    return [(r.prompt.text, r.completion) for r in shown]


def same(a: Any, b: Any) -> bool:
    """Equal, types and all; NaN is NaN."""
    return repr(a) == repr(b) or (a == b and type(a) is type(b) and not isinstance(a, (dict, list, tuple)))


@contextmanager
def placed(case: Case, folder: Path) -> Iterator[Any]:
    """The source as a user would name it, with its files where they belong."""
    for name, content in case.files.items():
        (folder / name).write_bytes(content)
    paths = [folder / name for name in case.files]
    first, user = paths[0], os.geteuid()
    if case.state in ("directory", "missing", "loop"):
        first.unlink()
    if case.state == "directory":
        first.mkdir()
    if case.state == "loop":
        first.symlink_to(first)
    elif case.state == "nul name":
        paths[0] = first.with_name(f"a\0{first.name}")
    elif case.state == "long name":
        paths[0] = first.with_name("x" * 3000 + first.name)
    elif case.state == "no such home":
        paths[0] = Path("~nobody-of-this-name") / first.name
    elif case.state == "unreadable":
        first.chmod(0)
        if user == 0:  # root reads everything
            folder.chmod(0o755)
            os.seteuid(65534)
    try:
        if case.form == "parallel":
            yield {path.name.partition(".")[0]: str(path) for path in paths}
        else:
            yield str(paths[0])
    finally:
        os.seteuid(user)


class Wrong(Exception):
    """The verdict ``changed``, ``lost`` or ``unnamed``, and why."""


def judge(case: Case, folder: Path, codecs: Sequence[Codec] = ()) -> tuple[str, str]:
    """Read the case, and encode what was read.

    Returns:
        The verdict and its reason. ``rows`` or ``refused`` where that is right; ``changed`` (other rows than were
        written, or rows of what must be refused), ``lost`` (refused though nothing is wrong), ``unnamed`` (refused
        without file, line or a short message), ``crash``.
    """
    with placed(case, folder) as source:
        try:
            return _read(case, source, codecs)
        except Wrong as wrong:
            return wrong.args
        except Exception as error:
            return "crash", f"{type(error).__name__}: {str(error)[:300]}"


def _read(case: Case, source: Any, codecs: Sequence[Codec]) -> tuple[str, str]:
    told: list[str] = []
    try:
        records = list(read_records(source, encoding=case.encoding, on_bad=lambda error: told.append(str(error))))
    except UserError as error:
        if case.rows is not None and any(case.rows) and not case.loose:
            raise Wrong("lost", str(error)) from None
        return _refused(case, str(error), [case.fault])
    if told and (not records or case.rows is None):  # the first of them ends a run
        return _refused(case, told[0], [case.fault])
    if not any(case.rows or ()):
        raise Wrong("changed", "read, though it must be refused")
    if not (case.loose and told):
        _compare([record.values for record in records], [row for row in case.rows or () if row is not None])
    if case.loose:
        return _read_anything(case, source)
    _check_places(case, [record.place for record in records], told)
    wanted = [typed(case.kind, record.values) for record in records]
    bad = [f"{record.place}:" for record, row in zip(records, wanted, strict=True) if row is None] + told
    rows = [row for row in wanted if row is not None and not (case.kind == "pairs" and row[1] == row[2])]
    _encode(case, rows, codecs)
    if rows and case.kind != "unpaired":
        _compare(load(case.kind, source, case.encoding, "skip"), rows)
    try:
        found = load(case.kind, source, case.encoding, "error")
    except UserError as error:
        if rows and not bad:
            raise Wrong("lost", str(error)) from None
        return _refused(case, str(error), [text[:60] for text in bad])
    if bad:
        raise Wrong("changed", f"taken, though this must be refused: {bad}")
    _compare(found, rows)
    return "rows", ""


def _read_anything(case: Case, source: Any) -> tuple[str, str]:
    """Rows of whatever columns there are: nothing but the project's error may come of them."""
    for mode in ("skip", "error"):
        try:
            load(case.kind, source, case.encoding, mode)
        except UserError as error:
            return _refused(case, str(error), [])
    return "rows", ""


def _compare(found: list[Any], written: list[Any]) -> None:
    if not same(found, written):
        raise Wrong("changed", f"{found!r:.300} instead of {written!r:.300}")


def _check_places(case: Case, places: list[str], told: list[str]) -> None:
    """See that each record, and each refusal, names its own line."""
    lines = list(zip(case.places, case.rows or (), strict=True))
    expected = [place for place, row in lines if row is not None]
    if [place.rpartition(", ")[2] for place in places] != expected:
        raise Wrong("unnamed", f"places {places} instead of {expected}")
    for message, place in zip(told, [place for place, row in lines if row is None], strict=True):
        _refused(case, message, [f", {place}:"])


def _refused(case: Case, message: str, needles: list[str]) -> tuple[str, str]:
    """A refusal, if it is short, and names its file and one of these places."""
    named = [name.partition(".")[0] for name in case.files] + ["data.encoding", "~nobody", "xxx"]
    if len(message) > 2500:
        raise Wrong("unnamed", f"a message of {len(message)} characters: {message[:300]}")
    if not any(name in message for name in named):
        raise Wrong("unnamed", f"no file: {message}")
    if needles and not any(needle in message for needle in needles):
        raise Wrong("unnamed", f"not {needles}: {message}")
    return "refused", message


def _encode(case: Case, rows: list[tuple], codecs: Sequence[Codec]) -> None:
    """Encode rows; byte-level tokenizers must give every text back that was not cut."""
    for codec in codecs:
        for row in rows:
            prompt = Prompt(row[0], row[1]) if case.kind == "sft" else Prompt(row[0])
            answers = {"sft": row[2:], "prompts": row[-1], "squad": row[-1], "pairs": row[1:3], "plain": ()}.get(
                case.kind, row[1:2]
            )
            ids, truncated = codec.encode_prompt(prompt)
            if codec.kind == "causal" and not codec.chat and not truncated and isinstance(prompt.text, str):
                _compare([codec.tokenizer.decode(ids)], [prompt.text])
            for answer in answers:
                codec.encode_pair(prompt, answer)
                if codec.kind == "encoder":
                    continue
                ids = codec.encode_completion(prompt, answer)
                if ids[-1] == codec.eos_id:
                    _compare([codec.decode(ids)], [answer])
