"""The report of a run: what its folder holds, the tables on the screen and ``report.html``.

A run folder holds ``metrics.json`` (:class:`RunResults`), ``samples.jsonl`` (:class:`Sample`) and a ``metrics.csv`` a
stage. Everything here reads those files alone, so a report can be made again later and without the models.
"""

from rlhf_lightning.report.html import write_report
from rlhf_lightning.report.results import PolicyResult, RunResults, Sample, read_samples, write_samples
from rlhf_lightning.report.screen import print_report, results_table, samples_table
from rlhf_lightning.report.summary import headline
from rlhf_lightning.report.times import read_times

__all__ = [
    "PolicyResult",
    "RunResults",
    "Sample",
    "headline",
    "print_report",
    "read_samples",
    "read_times",
    "results_table",
    "samples_table",
    "write_report",
    "write_samples",
]
