"""``feedback.html``: the figures on one page that needs nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date

from rlhf_lightning.data.files import count_of
from rlhf_lightning.feedback.report.agreement import Agreement
from rlhf_lightning.feedback.report.build import Report
from rlhf_lightning.feedback.report.counts import Counts
from rlhf_lightning.feedback.report.disputes import Dispute
from rlhf_lightning.feedback.report.figures import CERTAIN, FEWEST, Figure
from rlhf_lightning.feedback.report.models import Models, Table
from rlhf_lightning.feedback.report.over_time import Course
from rlhf_lightning.feedback.report.people import People, Person
from rlhf_lightning.feedback.report.reward_check import RewardCheck
from rlhf_lightning.feedback.report.said import letter
from rlhf_lightning.feedback.report.words import findings, p_words, percent, plain
from rlhf_lightning.report.curves import Curve, Line, draw
from rlhf_lightning.report.human import coefficient
from rlhf_lightning.report.page import figure, html_text, page

MOST_PEOPLE = 60
"""People that the page shows; all are in feedback.json."""

OPEN_DISPUTES = 5
"""Controversial questions that are seen at once; the rest unfold."""

STYLE = """
td small.why { white-space: normal; min-width: 8em; max-width: 15em; margin-left: auto; text-align: right }
tbody th { min-width: 8.5em }
.sample.two { grid-template-columns: 1fr 1fr }
@media (max-width: 560px) { .sample.two { grid-template-columns: 1fr }
  table { font-size: 13.5px } th, td { padding: 7px 4px } thead th, td small { font-size: 12px }
  tbody th, td small.why { min-width: 5em } }
tbody th .remark { display: block; color: var(--bad); font-size: 12.5px; line-height: 1.35 }
tbody th code { font-size: 13px }
.card + .card, .card + .panels { margin-top: 12px }
"""


def report_page(report: Report) -> str:
    """The whole page."""
    parts = [
        _header(report),
        _counts(report.counts),
        _agreement(report.agreement, report.people),
        _models(report.models),
        _biases(report),
        _people(report.people),
        _disputes(report),
        _over_time(report.over_time),
        _implicit(report.implicit),
        _reward_model(report.reward_model),
    ]
    return page("Human feedback", "\n".join(part for part in parts if part), STYLE)


def _header(report: Report) -> str:
    counts = report.counts
    facts = [
        report.of,
        count_of(counts.people, "people"),
        count_of(counts.questions, "questions"),
        *([f"{counts.erased} erased"] if counts.erased else []),
        f"{report.made:%Y-%m-%d}",
    ]
    what = "judgements and signs of use" if counts.by_source.get("implicit") else "judgements"
    title = count_of(counts.events, what) if counts.events else "No judgements yet"
    told = "".join(f"<li>{html_text(line)}</li>" for line in findings(report))
    told = f'<ul class="plain">{told}</ul>' if told else ""
    return f"<header><p>{html_text(' · '.join(facts))}</p><h1>{title}</h1></header>{told}"


# --- cells -----------------------------------------------------------------------------------------------------------


def _cell(value: Figure, shown: Callable[[float], str]) -> str:
    """A figure with its interval below, or the reason why there is none."""
    if value.value is None:
        return f'<td>-<small class="why">{html_text(value.why or "")}</small></td>'
    ends = ""
    if value.low is not None and value.high is not None:
        low = shown(value.low).removesuffix(" %")
        ends = f"<small>{html_text(low)} to {html_text(shown(value.high))}</small>"
    return f"<td>{html_text(shown(value.value))}{ends}<small>n = {value.n}</small></td>"


def _share(value: Figure) -> str:
    return _cell(value, percent)


def _table(heads: Sequence[str], rows: Iterable[str], narrow: bool = False) -> str:
    head = "".join(f'<th scope="col">{html_text(title)}</th>' for title in heads)
    kind = "card results" if narrow else "card"
    return f'<div class="{kind}"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _row(head: str, *cells: str) -> str:
    return f'<tr><th scope="row">{head}</th>{"".join(cells)}</tr>'


def _number(value: object) -> str:
    return f"<td>{html_text(value)}</td>"


def _dim(text: str) -> str:
    return f'<p class="dim">{html_text(text)}</p>'


# --- sections --------------------------------------------------------------------------------------------------------


def _counts(counts: Counts) -> str:
    if not counts.events:
        return _dim("The log is empty: `rlhf-feedback serve` collects judgements, `rlhf-feedback import` reads them.")
    rows = [
        _row(
            html_text(one.kind),
            *map(_number, (one.logged, one.holding, one.used, one.pairs, one.unpaired, one.sft)),
        )
        for one in counts.by_kind
    ]
    parts = [
        "<h2>Counts</h2>",
        _table(("kind", "logged", "hold", "in rows", "pairs", "unpaired", "sft"), rows),
        _dim(
            "Hold: submitted, and neither replaced nor taken back. In rows: those that `rlhf-feedback rows` makes rows "
            "of by its usual rules, signs of use included."
        ),
    ]
    facts = [
        ("status", counts.by_status),
        ("source", counts.by_source),
        ("role", counts.by_role),
        ("project", counts.by_project),
        ("checks", counts.checks),
    ]
    parts.append(
        _table(
            ("by", ""), [_row(title, f'<td class="text">{html_text(_listed(of))}</td>') for title, of in facts], True
        )
    )
    for title, reasons in (
        ("Judgements in no row", counts.unused),
        ("Comparisons and answers within judgements that gave no row", counts.dropped),
    ):
        if reasons:
            told = [_row(html_text(reason), _number(count)) for reason, count in reasons.items()]
            parts.append(f"<details><summary>{title}</summary>{_table(('why', 'how many'), told, True)}</details>")
    parts.append(_days(counts))
    return "".join(parts)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "-"


def _days(counts: Counts) -> str:
    days = {date.fromisoformat(one.day): one.count for one in counts.by_day}
    first, last = min(days), max(days)
    if first == last:
        return _dim(f"All of one day, {first}.")
    steps = sorted({*days, *(day for day in map(date.fromordinal, _around(days)) if first <= day <= last)})
    curve = Curve([float((day - first).days) for day in steps], [float(days.get(day, 0)) for day in steps])
    picture = draw([Line(curve, 0, marked=len(steps) <= 60)], label="events by day", x_label=f"days from {first} on")
    return f'<h3>By day</h3><div class="panels wide">{figure("events", picture, f"{first} to {last}")}</div>'


def _around(days: Iterable[date]) -> set[int]:
    """The days beside those with events, on which there may be none."""
    return {day.toordinal() + step for day in days for step in (-1, 1)}


def _agreement(agreements: Sequence[Agreement], people: People) -> str:
    if not agreements:
        return "<h2>Agreement</h2>" + _dim("No question was judged by people on their own.")
    rows = []
    for one in agreements:
        level = f", {one.level}" if one.level else ""
        sizes = ((one.questions, "questions"), (one.judgements, "judgements"), (one.people, "people"))
        about = ", ".join(count_of(n, of) for n, of in sizes) + level
        head = f"{html_text(one.kind if one.aspect is None else f'{one.kind}: {one.aspect}')}<small>{about}</small>"
        rows.append(
            _row(
                head,
                _share(one.raw),
                _cell(one.alpha, coefficient),
                _cell(one.cohen, coefficient),
                _cell(one.fleiss, coefficient),
            )
        )
    others = [
        _row("with each other", _share(people.with_others)),
        _row("with themselves, where a question came again", _share(people.with_self)),
        _row("with what settled their disagreement", _share(people.with_adjudicator)),
        _row("with known answers", _share(people.gold)),
    ]
    return (
        "<h2>Agreement</h2>"
        + _table(("kind", "raw", "Krippendorff\u2019s alpha", "Cohen\u2019s kappa", "Fleiss\u2019 kappa"), rows)
        + _dim(
            "Of questions that several people judged. Coefficients are 1 for perfect agreement and 0 for what chance "
            "gives. Below: 95 % intervals, of a bootstrap over questions, and the number of questions."
        )
        + _table(("people agree", "mean likeness"), others, True)
        + _dim(
            "Likeness of two judgements: 1 for the same answer; of rankings the share of pairs in the same order, of "
            "ratings 1 less the mean distance as a share of the scale, of marks Dice\u2019s coefficient of the marked "
            "characters."
        )
    )


def _models(models: Models) -> str:
    left = []
    if models.seen:
        left.append(f"Left out: {count_of(models.seen, 'comparisons')}, as the models\u2019 names were shown.")
    if models.nameless:
        left.append(f"{models.nameless} are left out: a model is not known, or both answers are of one.")
    notes = "".join(map(_dim, left))
    if not models.tables:
        return "<h2>Models</h2>" + _dim("No two models were compared blindly.") + notes
    parts = ["<h2>Models</h2>", *(_strengths(table) for table in models.tables)]
    if len(models.tables) > 1:
        parts.append(
            _dim("Each table is of models that were compared with each other; between tables nothing is known.")
        )
    duels = [
        _row(
            f"{html_text(one.first)} over {html_text(one.second)}"
            f"<small>{count_of(one.prompts, 'prompts')}, {count_of(one.people, 'people')}</small>",
            _share(one.wins),
            *map(_number, (one.won, one.tied, one.lost)),
        )
        for one in models.duels
    ]
    parts.append("<h3>Each two models</h3>" + _table(("", "preferred", "won", "tied", "lost"), duels))
    parts.append(
        _dim(
            "Of blind comparisons of two and of rankings, which compare each two of their answers; a tie counts one "
            "half. Intervals take all comparisons of one prompt for one."
        )
    )
    return "".join(parts) + notes


def _strengths(table: Table) -> str:
    if table.why is not None:
        names = ", ".join(f"{one.name} ({count_of(one.comparisons, 'comparisons')})" for one in table.models)
        return _dim(f"No strengths of {names}: {table.why}.")
    rows = [
        _row(html_text(one.name), _cell(one.strength, _signed), _cell(one.wins, percent), _number(one.comparisons))
        for one in table.models
    ]
    text = _table(("model", "strength", "beats another", "comparisons"), rows)
    text += _dim(
        "Bradley and Terry\u2019s model: strengths are log-odds, and their mean is 0; at equal strengths each wins "
        "half of the time. Beats another: the probability of winning against another one of these models. Below: 95 % "
        "intervals, of a bootstrap over prompts."
    )
    if table.separated:
        text += '<p class="warn">Some models never lost to others here: how far apart they are can\u2019t be told.</p>'
    return text


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")


def _biases(report: Report) -> str:
    position, length = report.position, report.length
    if not position.first.n and not length.longer.n and not position.unknown:
        return ""
    rows = [
        _row("the answer shown first wins", _share(position.first), _p(position.p)),
        _row("the longer answer wins", _share(length.longer), _p(length.p)),
        _row("odds of winning, for twice the length", _cell(length.odds, lambda v: f"× {v:.2f}"), "<td></td>"),
    ]
    notes = ["Of comparisons of two with a winner. p: that it is one half. Longer answers may be better ones."]
    if position.stored_first is not None and not position.drawn:
        notes.append(
            f"The first of the stored answers was shown first in {percent(position.stored_first)} of comparisons: the "
            "order was not drawn at random, so that the first line may tell of quality."
        )
    if position.unknown:
        notes.append(f"Of {count_of(position.unknown, 'comparisons')} it is not known which answer was shown first.")
    return "<h2>Position and length</h2>" + _table(("", "share", ""), rows, True) + _dim(" ".join(notes))


def _p(p: float | None) -> str:
    return f"<td>{p_words(p) if p is not None else ''}</td>"


def _people(people: People) -> str:
    if not people.each:
        return ""
    # Of people with few judgements little can be said; where nobody has more they are shown all the same.
    steady = [one for one in people.each if one.judged >= FEWEST] or people.each
    rows = steady[:MOST_PEOPLE]
    shown = {title: get for title, get in SHARES.items() if any(get(one).value is not None for one in people.each)}
    heads = ["person", "judged", "seconds", *shown, "longest run"]
    absent = "; ".join(
        f"{title}: {_reason(map(get, people.each))}" for title, get in SHARES.items() if title not in shown
    )
    more = len(people.each) - len(rows)
    kind = people.accuracy_kind
    accuracy = f"Accuracy: by Dawid and Skene\u2019s model of {kind} judgements. " if kind else ""
    text = (
        "Seconds: the median. Too fast: judgements that took less time than reading takes at twice the usual speed, by "
        f"script. {accuracy}First shown, longer: how often that answer wins. Longest run: of one and the same choice. "
        f"Remarks are of p below {CERTAIN:g}, after Bonferroni for the number of people."
    )
    return (
        "<h2>People</h2>"
        + _table(heads, [_person(one, list(shown.values())) for one in rows])
        + (_dim(f"In feedback.json: {count_of(more, 'more people')}.") if more > 0 else "")
        + _dim(text)
        + (_dim(f"Not shown: {absent}.") if absent else "")
    )


SHARES: dict[str, Callable[[Person], Figure]] = {
    "too fast": lambda one: one.too_fast,
    "with others": lambda one: one.with_others,
    "with self": lambda one: one.with_self,
    "settled": lambda one: one.with_adjudicator,
    "known answers": lambda one: one.gold,
    "accuracy": lambda one: one.accuracy,
    "first shown": lambda one: one.position.first,
    "longer": lambda one: one.length.longer,
}
"""Columns of shares; one that nobody has is left out, and said why."""


def _reason(figures: Iterable[Figure]) -> str:
    """Why nobody has a figure, of the person who has most to tell."""
    return max(figures, key=lambda one: one.n).why or ""


def _person(one: Person, shares: Sequence[Callable[[Person], Figure]]) -> str:
    remarks = "".join(f'<span class="remark">{html_text(remark)}</span>' for remark in one.remarks)
    head = f"<code>{html_text(one.id)}</code><small>{html_text(one.role)}</small>{remarks}"
    seconds = "-" if one.median_seconds is None else f"{one.median_seconds:.1f}"
    skipped = f"<small>{one.skipped} skipped</small>" if one.skipped else ""
    run = one.monotony
    if run.why is not None or run.p is None:
        longest = f'<td>-<small class="why">{html_text(run.why or "")}</small></td>'
    else:
        about = f"{run.choice}, of {run.choices}, {p_words(run.p)}"
        longest = f'<td>{run.longest}<small class="why">{html_text(about)}</small></td>'
    counts = f"<td>{one.judged}{skipped}</td><td>{seconds}</td>"
    return _row(head, counts, *(_share(get(one)) for get in shares), longest)


def _disputes(report: Report) -> str:
    found = report.disputes
    if not found.questions:
        return ""
    told = _dim(f"People disagree on {found.disputed} of {count_of(found.questions, 'questions')} that several judged.")
    shown = [_dispute(one) for one in found.most]
    more = ""
    if shown[OPEN_DISPUTES:]:
        folded = "".join(shown[OPEN_DISPUTES:])
        more = f"<details><summary>{len(shown) - OPEN_DISPUTES} more</summary><div>{folded}</div></details>"
    return f"<h2>What is controversial</h2>{told}{''.join(shown[:OPEN_DISPUTES])}{more}"


def _dispute(one: Dispute) -> str:
    answers = ", ".join(f"{count} × {text}" for text, count in one.answers.items())
    settled = f"; settled: {one.settled}" if one.settled is not None else ""
    texts = "".join(_text(letter(i), text) for i, text in enumerate(one.candidates))
    about = html_text(f"{answers}{settled}")
    two = " two" if len(one.candidates) == 2 else ""
    return f'<div class="sample{two}">{_prompt(one.kind, one.prompt, about)}{texts}</div>'


def _prompt(title: str, text: str, about: str) -> str:
    shown = f'<p dir="auto">{html_text(text)}</p><small>{about}</small>'
    return f'<div class="prompt"><h4>{html_text(title)}</h4>{shown}</div>'


def _text(title: str, text: str) -> str:
    shown = html_text(text) or "<span class=dim>(empty)</span>"
    return f'<div><h4>{html_text(title)}</h4><p dir="auto">{shown}</p></div>'


def _over_time(courses: Sequence[Course]) -> str:
    drawn = [course for course in courses if course.means]
    figures = []
    for one in drawn:
        curve = Curve([float(i + 1) for i in range(len(one.means))], list(one.means))
        picture = draw([Line(curve, 0, marked=True)], label=f"{one.title}, block by block", x_label="block of time")
        aside = f"{p_words(one.p)}{', a trend' if one.found else ''}" if one.p is not None else "no change"
        figures.append(figure(one.title, picture, aside))
    words = "; ".join(f"{one.title}: {one.why}" for one in courses if one.why)
    text = ""
    if figures:
        first, last = min(min(one.times) for one in drawn), max(max(one.times) for one in drawn)
        about = f"Blocks of equal numbers of judgements, from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} (UTC). "
        about += "p: of Spearman\u2019s correlation with the order; too small where neighbouring judgements are alike."
        text = f'<div class="panels">{"".join(figures)}</div>{_dim(about)}'
    return f"<h2>Over time</h2>{text}" + (_dim(f"Not shown: {words}.") if words else "")


def _implicit(signals: Mapping[str, Figure]) -> str:
    if not signals:
        return ""
    rows = [_row(html_text(plain(name)), _share(found)) for name, found in signals.items()]
    return (
        "<h2>Signs of use</h2>"
        + _table(("sign", "agrees with what was said"), rows, True)
        + _dim("How often a sign points to the answer that the same person said is better. Guessing gets one half.")
    )


def _reward_model(check: RewardCheck | None) -> str:
    if check is None:
        return ""
    about = f"{check.model}: {check.held_out}; {count_of(check.pairs, 'pairs')} used, {check.left_out} left out."
    rows = [
        _row("the reward model is right", _share(check.accuracy)),
        _row("the rule that the longer one wins is right", _share(check.longer)),
        *(_row(html_text(f"the reward model, {title}"), _share(found)) for title, found in check.by_length.items()),
        _row("expected calibration error", _cell(check.calibration_error, lambda v: f"{v:.3f}")),
    ]
    parts = ["<h2>Reward model</h2>", _dim(about), _table(("", ""), rows, True)]
    known = [b for b in check.bins if b.confidence is not None and b.right is not None]
    if known:
        bins = [
            _row(f"{percent(b.low)} to {percent(b.high)}", *map(_number, (b.pairs, _or(b.confidence), _or(b.right))))
            for b in known
        ]
        diagonal = Line(Curve([0.5, 1.0], [0.5, 1.0]), 7)
        points = Line(Curve([b.confidence or 0 for b in known], [b.right or 0 for b in known]), 0, marked=True)
        picture = draw([diagonal, points], label="reliability", x_label="how sure it is", y_label="right")
        parts.append("<h3>Calibration</h3>" + _table(("how sure it is", "pairs", "mean", "right"), bins, True))
        parts.append(f'<div class="panels">{figure("share of right ones by how sure it is", picture)}</div>')
        parts.append(_dim("On the straight line a model is right as often as it is sure to be."))
    if check.contradictions:
        parts.append("<h3>Where it disagrees with people most</h3>")
    for one in check.contradictions:
        gap = html_text(f"it scores the rejected answer higher by {one.gap:.2f}")
        texts = _text("preferred by people", one.chosen) + _text("preferred by the model", one.rejected)
        parts.append(f'<div class="sample two">{_prompt("prompt", one.prompt, gap)}{texts}</div>')
    return "".join(parts)


def _or(value: float | None) -> str:
    return "-" if value is None else percent(value)
