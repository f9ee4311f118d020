"""Which questions are answered, as the database counts them, and as reading all events tells."""

from __future__ import annotations

import random

from rlhf_lightning.feedback.events import Annotator, Asked, Candidate, Event
from rlhf_lightning.feedback.items import Item, unanswered
from rlhf_lightning.feedback.payloads import Thumbs
from rlhf_lightning.feedback.store import Store

ITEMS = [Item(id=f"q{i}", kind="thumbs", asked=Asked(text="x"), candidates=(Candidate(text="y"),)) for i in range(6)]


def event(number: int, item: Item, person: str, status: str, supersedes: str | None, project: str = "p") -> Event:
    return Event(
        id=f"e{number}",
        project=project,
        item=item.id,
        kind=item.kind,
        asked=item.asked,
        candidates=item.candidates,
        annotator=Annotator(id=person),
        status=status,  # type: ignore[arg-type]
        supersedes=supersedes,
        payload=Thumbs(up=(True,)) if status in ("submitted", "draft") else None,
    )


def some_log(seed: int) -> list[Event]:
    """People who answer, skip, begin, correct themselves and take it back; one in a while names another's event."""
    draw = random.Random(seed)
    log: list[Event] = []
    for number in range(draw.randrange(60)):
        item, person = draw.choice(ITEMS), f"a{draw.randrange(3)}"
        before = [e.id for e in log if e.item == item.id and (e.annotator.id == person or draw.random() < 0.1)]
        supersedes = draw.choice([None, *before])
        status = draw.choice(["submitted", "submitted", "skipped", "draft", "retracted"])
        if status == "retracted" and supersedes is None:
            status = "skipped"
        log.append(event(number, item, person, status, supersedes))
    return log


def test_the_database_counts_as_reading_the_log_does(store_place: str) -> None:
    seen = set()
    for seed in range(25):
        with Store(store_place) as store, store.writing() as connection:
            connection.exec_driver_sql("delete from events")
        with Store(store_place) as store:
            log = some_log(seed)
            store.add([*log, event(1000, ITEMS[0], "a0", "submitted", None, "other")])
            for people in (1, 2, 3):
                left = {item.id for item in unanswered(ITEMS, log, people)}
                assert store.answered("p", people) == {item.id for item in ITEMS} - left
                seen.add((people, len(left)))
    assert len(seen) > 10  # logs that differ in what is answered
