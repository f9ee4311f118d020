"""All figures of the report, as ``feedback.json`` holds them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, Field, ValidationError

from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.events import Event, explain
from rlhf_lightning.feedback.holding import current
from rlhf_lightning.feedback.implicit import implicit_accuracy
from rlhf_lightning.feedback.payloads import Value
from rlhf_lightning.feedback.report.agreement import Agreement, agreements
from rlhf_lightning.feedback.report.biases import Length, Position, length_of, position_of
from rlhf_lightning.feedback.report.counts import Counts, counts_of
from rlhf_lightning.feedback.report.disputes import Disputes, disputes_of
from rlhf_lightning.feedback.report.figures import Figure, share
from rlhf_lightning.feedback.report.models import Models, models_of
from rlhf_lightning.feedback.report.over_time import Course, courses
from rlhf_lightning.feedback.report.people import People, people_of
from rlhf_lightning.feedback.report.reward_check import RewardCheck

SCHEMA: Literal[1] = 1


class Report(Value):
    """All figures; each is described where its class is.

    Attributes:
        version: of this form.
        made: when.
        of: what it is of, in words: the store or the log, and the project.
        counts, agreement, people, position, length, models, disputes, over_time, reward_model: see there.
        implicit: by sign of use how often it agrees with what the same person said of the same two answers.
    """

    version: Literal[1] = SCHEMA
    made: AwareDatetime = Field(default_factory=lambda: datetime.now(timezone.utc))
    of: str
    counts: Counts
    agreement: list[Agreement]
    people: People
    position: Position
    length: Length
    models: Models
    disputes: Disputes
    over_time: list[Course]
    implicit: dict[str, Figure]
    reward_model: RewardCheck | None = None


def build(log: Sequence[Event], of: str, reward_model: RewardCheck | None = None) -> Report:
    """Make all figures of a log.

    Args:
        log: all events, also those that don't hold.
        of: what it is of, in words.
        reward_model: what a reward model makes of them, if one was asked for.
    """
    holding = current(log)
    return Report(
        of=of,
        counts=counts_of(log, holding),
        agreement=agreements(holding),
        people=people_of(log, holding),
        position=position_of(holding),
        length=length_of(holding),
        models=models_of(holding),
        disputes=disputes_of(holding),
        over_time=courses(holding),
        implicit={
            signal: share(found.agreed, found.n, "comparisons of which the same person said which is better")
            for signal, found in implicit_accuracy(holding).items()
        },
        reward_model=reward_model,
    )


def read(path: str | Path) -> Report:
    """Read ``feedback.json``.

    Raises:
        UserError: naming the file, and the field that is not as it should be.
    """
    path = Path(path)
    try:
        return Report.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error)}") from error


def write(report: Report, path: Path) -> None:
    """Write ``feedback.json``, whole or not at all."""
    from rlhf_lightning.report.results import write_atomic

    write_atomic(path, report.model_dump_json(indent=1) + "\n")
