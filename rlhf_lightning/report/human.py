"""What people say of a run's policies: ``human.json`` in its folder, a line and a section of the report.

`rlhf-feedback report --run` writes the file; whoever shows it needs none of what feedback needs.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rlhf_lightning.data.files import count_of
from rlhf_lightning.errors import UserError
from rlhf_lightning.report.json_fields import Fields, kind_of, parse_json, read_text
from rlhf_lightning.report.page import html_text
from rlhf_lightning.report.results import write_atomic
from rlhf_lightning.report.summary import clean, stage_title

FILE = "human.json"
SCHEMA = 1


@dataclass(frozen=True)
class Preferred:
    """How often one policy's answers were preferred to another's in blind comparisons.

    Attributes:
        policy, other: their names in the run; the policy is the later one.
        rate: share of comparisons that the policy won, a tie counting one half; None of too few.
        low, high: of its 95 % interval, which takes all comparisons of one prompt for one.
        won, tied, lost: comparisons.
        prompts, people: that were asked.
    """

    policy: str
    other: str
    rate: float | None
    low: float | None
    high: float | None
    won: int
    tied: int
    lost: int
    prompts: int
    people: int

    @property
    def comparisons(self) -> int:
        """All of them."""
        return self.won + self.tied + self.lost


@dataclass(frozen=True)
class Human:
    """What ``human.json`` holds.

    Attributes:
        preferred: each two policies that were compared.
        alpha: Krippendorff's of the people's comparisons; None where few questions were judged by two.
        alpha_low, alpha_high: of its 95 % interval.
        simulated: whether no people, but simulated annotators judged.
    """

    preferred: list[Preferred]
    alpha: float | None = None
    alpha_low: float | None = None
    alpha_high: float | None = None
    simulated: bool = False

    def write(self, run_dir: str | Path) -> Path:
        """Write ``human.json`` into a run folder."""
        path = Path(run_dir) / FILE
        write_atomic(path, json.dumps({"schema": SCHEMA, **asdict(self)}, ensure_ascii=False, indent=1) + "\n")
        return path

    def of(self, policy: str, other: str) -> Preferred | None:
        """One policy against another, if they were compared this way round."""
        return next((p for p in self.preferred if (p.policy, p.other) == (policy, other)), None)


def read_human(run_dir: str | Path) -> Human | None:
    """What people said of a run's policies; None where nobody was asked.

    Raises:
        UserError: if the file is there and can't be read. It names file and field.
    """
    path = Path(run_dir) / FILE
    if not path.is_file():
        return None
    content = parse_json(read_text(path), str(path))
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected an object with what people said, not {kind_of(content)}")
    if content.get("schema") != SCHEMA:
        raise UserError(f"{path}: schema is {content.get('schema')!r}, this version reads {SCHEMA}")
    fields = Fields(content, str(path))
    number = (int, float)
    preferred = [
        Preferred(
            one.text("policy"),
            one.text("other"),
            *(one.optional(name, number) for name in ("rate", "low", "high")),
            *(one.count(name) for name in ("won", "tied", "lost", "prompts", "people")),
        )
        for one in fields.objects("preferred")
    ]
    alpha, low, high = (fields.optional(name, number) for name in ("alpha", "alpha_low", "alpha_high"))
    return Human(preferred, alpha, low, high, bool(content.get("simulated")))


def coefficient(value: float) -> str:
    """A coefficient of agreement as papers print it.

    >>> coefficient(0.524), coefficient(-0.1), coefficient(1.0)
    ('.52', '−.10', '1.00')
    """
    text = f"{abs(value):.2f}"
    return ("\N{MINUS SIGN}" if value < 0 and float(text) else "") + (text[1:] if text.startswith("0") else text)


def human_lines(human: Human) -> list[str]:
    """A sentence for each two policies.

    >>> human_lines(Human([Preferred("ppo", "sft", 0.63, 0.55, 0.71, 70, 11, 39, 120, 3)], 0.52))
    ['People: PPO preferred to SFT in 63 % (55 to 71) of 120 comparisons, alpha .52']
    """
    who = "Simulated annotators" if human.simulated else "People"
    return [f"{who}: {_said(one)}{_alpha(human)}" for one in human.preferred]


def _said(one: Preferred) -> str:
    policy, other = stage_title(clean(one.policy)), stage_title(clean(one.other))
    if one.rate is None or one.low is None or one.high is None:
        ties = f", {one.tied} tied" if one.tied else ""
        return f"{policy} preferred to {other} in {one.won} of {_comparisons(one)}{ties}: too few for a rate"
    rate = f"{100 * one.rate:.0f} % ({100 * one.low:.0f} to {100 * one.high:.0f})"
    return f"{policy} preferred to {other} in {rate} of {_comparisons(one)}"


def _comparisons(one: Preferred) -> str:
    return count_of(one.comparisons, "comparisons")


def _alpha(human: Human) -> str:
    return "" if human.alpha is None else f", alpha {coefficient(human.alpha)}"


def human_section(human: Human | None) -> str:
    """The same as a table; empty where nobody was asked."""
    if human is None or not human.preferred:
        return ""
    rows = []
    for one in human.preferred:
        names = f"{stage_title(one.policy)} over {stage_title(one.other)}"
        if one.rate is None or one.low is None or one.high is None:
            rate = f"<td>-<small>{_comparisons(one)} of {count_of(one.prompts, 'prompts')}: too few</small></td>"
        else:
            ends = f"{100 * one.low:.0f} to {100 * one.high:.0f} %"
            rate = f"<td>{100 * one.rate:.0f} %<small>{ends}</small></td>"
        counts = "".join(f"<td>{count}</td>" for count in (one.won, one.tied, one.lost))
        asked = f"<small>{count_of(one.prompts, 'prompts')}, {count_of(one.people, 'people')}</small>"
        rows.append(f'<tr><th scope="row">{html_text(names)}{asked}</th>{rate}{counts}</tr>')
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("", "preferred", "won", "tied", "lost"))
    agreement = ""
    if human.alpha is not None:
        ends = ""
        if human.alpha_low is not None and human.alpha_high is not None:
            ends = f" ({coefficient(human.alpha_low)} to {coefficient(human.alpha_high)})"
        agreement = f" People agree by Krippendorff\u2019s alpha {coefficient(human.alpha)}{ends}."
    who = "Simulated annotators\u2019" if human.simulated else "People\u2019s"
    return (
        f'<h2>{who} preferences</h2><div class="card results"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        '<p class="dim">Of blind comparisons of two answers; a tie counts one half. Below: 95 % intervals, which take '
        f"all comparisons of one prompt for one.{agreement}</p>"
    )
