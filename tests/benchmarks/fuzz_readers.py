"""Read thousands of odd and broken files: rows with the very text, or an error that names the file; nothing else.

    python tests/benchmarks/fuzz_readers.py --files 4000

Prints a table of what came of them, and fails if a file crashed the reader, hung it, or came out changed.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))
from helpers.fuzz import KINDS, MUTATIONS, TEXTS, outcome, written

from rlhf_lightning.data.encoding import Codec
from rlhf_lightning.data.rows import SFTRow
from rlhf_lightning.models import ModelSpec, TinySpec, make_tiny
from rlhf_lightning.models.loading import load_tokenizer

OUTCOMES = ("rows", "some rows refused", "refused", "crash", "hang", "changed")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    found: dict[str, Counter[str]] = defaultdict(Counter)
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        make_tiny(TinySpec(hidden=16, layers=1, heads=1, vocab_size=300), list(TEXTS), Path(folder, "model"))
        codec = Codec(load_tokenizer(ModelSpec(f"{folder}/model")), "causal", 64, 64)

        def encode(row: SFTRow) -> None:
            codec.encode_prompt(row.prompt)
            codec.encode_completion(row.prompt, row.completion)

        for number in range(arguments.files):
            kind = KINDS[number % len(KINDS)]
            mutation = MUTATIONS[number // len(KINDS) % len(MUTATIONS)]
            place = Path(folder, "file")
            source = written(random.Random(f"{arguments.seed} {number}"), place, kind, mutation)
            came = outcome(source, kind, encode)
            found[kind][came.partition(":")[0].partition(" ")[0] if ":" in came else came] += 1
            if came not in OUTCOMES[:3]:
                wrong.append(f"file {number}, {kind}, {mutation}: {came}")
            shutil.rmtree(place)
    print(f"| kind of file | {' | '.join(OUTCOMES)} |\n|{' --- |' * (len(OUTCOMES) + 1)}")
    for kind in KINDS:
        print(f"| {kind} | {' | '.join(str(found[kind][name]) for name in OUTCOMES)} |")
    print(f"| all {arguments.files} | {' | '.join(str(sum(f[name] for f in found.values())) for name in OUTCOMES)} |")
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
