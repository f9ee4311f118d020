"""Data files in bulk, good and damaged, through the readers and the codec: what came of each.

usage: fuzz_readers.py [--files 6000] [--seed 0] [--limit 10]

Prints a table by kind of damage and one by form of file, and every file that went wrong. The exit status is 1 if a file
made the readers crash or hang, if rows came out otherwise than they were written, were refused though they are good, or
if a refusal did not name its file and line.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))

from helpers.odd_files import FORMS, KINDS, MUTATIONS, Case, applies, draw
from helpers.verdicts import judge

VERDICTS = ("rows", "refused", "changed", "lost", "unnamed", "crash", "hang")
RIGHT = ("rows", "refused")


def plan(count: int, seed: int) -> list[tuple[str, str, str, bool, int]]:
    """What is made: every damage of every form, kind of row, zipped or not, over and over with other seeds."""
    every = [
        (mutation, form, kind, zipped)
        for mutation, form in itertools.product(MUTATIONS, FORMS)
        for kind in KINDS[form]
        for zipped in (False, True)
        if applies(mutation, form, kind)
    ]
    random.Random(seed).shuffle(every)
    return [(*every[i % len(every)], seed * 1_000_003 + i) for i in range(count)]


def case_of(mutation: str, form: str, kind: str, zipped: bool, seed: int) -> Case:
    return draw(random.Random(seed), mutation, form, kind, zipped)


def codecs_of(folder: Path) -> list:
    """A codec of each kind of model, as tiny models have it."""
    from transformers import AutoTokenizer

    from rlhf_lightning.data.encoding import Codec
    from rlhf_lightning.models.tiny import TinySpec, make_tiny

    made = []
    for kind in ("causal", "seq2seq"):
        spec = TinySpec(kind=kind, hidden=8, layers=1, heads=1, vocab_size=400)  # type: ignore[arg-type]
        tokenizer = AutoTokenizer.from_pretrained(make_tiny(spec, ["the cat sat on the mat", "中文"], folder / kind))
        made.append(Codec(tokenizer, kind, 64, 32))  # type: ignore[arg-type]
    return made


def work(pipe, planned: list) -> None:
    """Judge files as they are asked for; a process of its own, as a crash of a library would take it along."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with tempfile.TemporaryDirectory() as folder:
        codecs = codecs_of(Path(folder))
        pipe.send("ready")
        while True:
            case = case_of(*planned[pipe.recv()])
            with tempfile.TemporaryDirectory() as place:
                pipe.send(judge(case, Path(place), codecs))


class Worker:
    """A process that judges one file after another, and is replaced when it dies or takes too long."""

    def __init__(self, planned: list) -> None:
        self.pipe, other = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=work, args=(other, planned), daemon=True)
        self.process.start()
        other.close()
        self.pipe.recv()

    def judge(self, index: int, limit: float) -> tuple[str, str]:
        self.pipe.send(index)
        if not self.pipe.poll(limit):
            self.process.kill()
            return "hang", f"no answer within {limit} s"
        try:
            return self.pipe.recv()
        except EOFError:
            self.process.join()
            return "crash", f"the process died ({self.process.exitcode})"


def table(title: str, counts: dict[str, Counter]) -> None:
    width = max(map(len, counts))
    print(f"\n{title:{width}}  files {' '.join(f'{v:>8}' for v in VERDICTS)}")
    for name, counter in [*counts.items(), ("all", sum(counts.values(), Counter()))]:
        print(f"{name:{width}}  {counter.total():5} {' '.join(f'{counter[v]:8}' for v in VERDICTS)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=10.0, help="seconds a file may take")
    options = parser.parse_args()
    planned = plan(options.files, options.seed)
    by_mutation = {name: Counter() for name in MUTATIONS}
    by_form = {form + suffix: Counter() for form in FORMS for suffix in ("", ".gz")}
    worker, started, slowest = None, time.monotonic(), 0.0
    for index, (mutation, form, kind, zipped, seed) in enumerate(planned):
        if worker is None:
            worker = Worker(planned)
        before = time.monotonic()
        verdict, reason = worker.judge(index, options.limit)
        slowest = max(slowest, time.monotonic() - before)
        by_mutation[mutation][verdict] += 1
        by_form[form + ".gz" * zipped][verdict] += 1
        if verdict not in RIGHT:
            print(f"{verdict}: {mutation} {form} {kind} zipped={zipped} seed={seed}: {reason}", flush=True)
        if verdict == "hang" or not worker.process.is_alive():
            worker = None
    table("damage", by_mutation)
    table("form", by_form)
    print(f"\n{time.monotonic() - started:.0f} s, the slowest file {slowest:.1f} s")
    return int(any(counter[v] for counter in by_mutation.values() for v in VERDICTS if v not in RIGHT))


if __name__ == "__main__":
    sys.exit(main())
