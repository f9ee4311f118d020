"""The report on the screen: a table of what was said, and the sentences that the figures come to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhf_lightning.data.files import count_of
from rlhf_lightning.feedback.report.build import Report
from rlhf_lightning.feedback.report.words import coefficient_words, findings, share_words
from rlhf_lightning.report.summary import clean

if TYPE_CHECKING:
    from rich.console import Console


def print_feedback(report: Report, console: Console | None = None) -> None:
    """Print it."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from rlhf_lightning.report.screen import show, standard_output

    console = console or standard_output()
    counts = report.counts
    about = f"{report.of}: {count_of(counts.events, 'events')} of {count_of(counts.people, 'people')} on "
    about += count_of(counts.questions, "questions") + (f"; {counts.erased} erased" if counts.erased else "")
    show(console, Text(clean(about), "dim"))
    if counts.by_kind:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for i, title in enumerate(("kind", "logged", "hold", "pairs", "unpaired", "sft", "raw agreement", "alpha")):
            table.add_column(title, justify="right" if i else "left", no_wrap=i < 6)
        for one in counts.by_kind:
            numbers = map(str, (one.logged, one.holding, one.pairs, one.unpaired, one.sft))
            found = [a for a in report.agreement if a.kind == one.kind]
            raw, alpha = (share_words(found[0].raw), coefficient_words(found[0].alpha)) if found else ("-", "-")
            if len(found) > 1:
                raw = alpha = f"{len(found)} aspects: see the page"
            table.add_row(one.kind, *numbers, raw, alpha)
        show(console, table)
    for line in findings(report):
        show(console, Text(f"• {clean(line)}"))
