"""Judgements of a round's questions: by simulated annotators, by people, or from a file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.events import Event
from rlhf_lightning.feedback.items import Item, unanswered
from rlhf_lightning.feedback.simulated import Simulated
from rlhf_lightning.feedback.store import Store
from rlhf_lightning.loop.candidates import REFERENCES
from rlhf_lightning.loop.options import PEOPLE, SIMULATED, Loop
from rlhf_lightning.rewards import FunctionReward


def project_of(folder: Path) -> str:
    """The name under which a run's questions are kept in a store that may hold those of others too."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", f"loop-{folder.parent.name}-{folder.name}")[:100]


def answer(
    store: Store,
    project: str,
    items: Sequence[Item],
    loop: Loop,
    cfg: dict[str, Any],
    questions: Path,
    say: Callable[[str], None],
    check: Callable[[], None],
) -> None:
    """Have questions answered by whom the options name.

    Args:
        store: holds the questions already, and gets the answers.
        project: theirs.
        items: the questions; those that are answered are not asked again.
        loop: the loop's options.
        cfg: the composed config, with the data's hidden judge.
        questions: the file that holds the questions.
        say: shows a line.
        check: raises if the run is to stop; what was judged by then is kept.

    Raises:
        UserError: if they can't be.
    """
    left = unanswered(items, store.events(), loop.raters)
    if left and loop.annotators == SIMULATED:
        ask_simulated(store, project, left, loop.simulated, loop.raters, cfg["data"]["gold"], cfg["seed"])
    elif left and loop.annotators == PEOPLE:
        ask_people(store, project, items, loop.raters, loop.people, loop.port, say, check)
    elif left:
        ask_file(store, items, Path(loop.annotators).expanduser(), loop.raters, questions)


def hidden_scores(judge: str, items: Sequence[Item]) -> list[list[float]]:
    """What a hidden judge (the dotted path of a reward function) gives each candidate of each question."""
    flat = [(item, candidate.text) for item in items for candidate in item.candidates]
    scores = iter(
        FunctionReward(judge)(
            [item.asked.plain for item, _ in flat],
            [text for _, text in flat],
            [list(item.asked.meta[REFERENCES]) for item, _ in flat],
            [{name: value for name, value in item.asked.meta.items() if name != REFERENCES} for item, _ in flat],
        ).tolist()
    )
    return [[next(scores) for _ in item.candidates] for item in items]


def ask_simulated(
    store: Store, project: str, items: Sequence[Item], people: Simulated, raters: int, judge: str, seed: int
) -> None:
    """Have each question answered by ``raters`` of the simulated annotators, in turn."""
    events = []
    for item, scores in zip(items, hidden_scores(judge, items), strict=True):
        # Not from the ids, which are each run's own: the same run in another folder is judged alike.
        key = "|".join([item.asked.plain, *(candidate.hash for candidate in item.candidates)])
        first = zlib.crc32(key.encode())
        persons = [(first + k) % len(people.noise) for k in range(raters)]
        events += [people.judge(item, scores, person, seed, project, key) for person in persons]
    store.add(events)


def ask_file(store: Store, items: Sequence[Item], file: Path, raters: int, questions: Path) -> None:
    """Take judgements from a file of the log's form.

    Raises:
        UserError: if it can't be read, or questions are unanswered: it says where these are.
    """
    from rlhf_lightning.feedback.formats.common import Import
    from rlhf_lightning.feedback.formats.log import read
    from rlhf_lightning.feedback.salt import salt_of

    store.add(entry for entry in read(file, Import("log", salt_of(store))) if isinstance(entry, Event))
    left = unanswered(items, store.events(), raters)
    if left:
        raise UserError(
            f"{file} answers {len(items) - len(left)} of {len(items)} questions: those of this round are in "
            f"{questions}. Have them judged (`rlhf-feedback serve --items`), export the log into that file, and go on "
            "with resume=true"
        )


def ask_people(
    store: Store,
    project: str,
    items: Sequence[Item],
    raters: int,
    people: int,
    port: int,
    say: Callable[[str], None],
    check: Callable[[], None],
    poll: float = 1.0,
) -> None:
    """Serve the page until each question is answered.

    Args:
        store: holds the questions already.
        project: theirs.
        items: those that are waited for.
        raters: people for each.
        people: links that are given out.
        port: of the page.
        say: shows a line.
        check: raises if the run is to stop; what was judged is kept.
        poll: seconds between two looks.

    Raises:
        UserError: if the page could not be served.
    """
    command = [sys.executable, "-m", "rlhf_lightning.loop.page", "serve"]
    command += ["--project", project, "--raters", str(raters), "--annotators", str(people), "--port", str(port)]
    command += ["--keep-raw"] if store.scrubber is None else []
    # Not among the arguments, which all users of the machine can see: the store's address may hold a password.
    environment = {**os.environ, "RLHF_FEEDBACK_STORE": store.place}
    server = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE)  # the page ends when nobody holds it
    try:
        total, told, read, left = len(items), -1, -1, list(items)
        while left:
            check()
            if read != (read := store.newest()):
                answered = store.answered(project, raters)
                left = [item for item in items if item.id not in answered]
            if server.poll() is not None:
                raise UserError("the page for judgements ended: see what it said above, and go on with resume=true")
            if told != (done := total - len(left)) and done % max(1, total // 10) == 0:
                say(f"{done} of {total} questions are answered")
                told = done
            if left:
                time.sleep(poll)
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
