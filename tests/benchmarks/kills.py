"""Kill runs at random moments, resume them, and compare what comes out with runs that were never interrupted.

    python tests/benchmarks/kills.py --kills 100
    python tests/benchmarks/kills.py --kills 10 --trainer trainer=gpu trainer.precision=32-true

Each trial starts `rlhf-train` in a process of its own that is killed (SIGKILL: nothing is cleaned up) at a moment drawn
at random, starts it again with ``resume=true``, perhaps kills it again, and at last lets it end. Then every weight,
every metric, every answer and every logged value (but for times) has to be the same, bit for bit. Fails otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

SMALL = [
    "data.limit=48",
    "model.tiny.hidden=32",
    "model.tiny.layers=1",
    "sft.trainer.max_epochs=3",
    "sft.loader.batch_size=8",
    "sft.trainer.accumulate_grad_batches=2",
    "reward.trainer.max_epochs=3",
    "reward.loader.batch_size=8",
    "ppo.updates=7",
    "ppo.loader.batch_size=8",
    "ppo.epochs=2",
    "ppo.minibatches=2",
    "ppo.kl=adaptive",
    "ppo.kl_target=0.1",
    "ppo.kl_horizon=100",
    "ppo.lr=1e-2",
    "ppo.trainer.val_check_interval=3",
    "logger=csv",
    "trainer.enable_progress_bar=false",
    "checkpoint.minutes=0",
]
"""A run of seconds that saves at every place it can."""

KINDS = {
    "causal": ["task=qa", "model=tiny"],
    "causal, LoRA": ["task=translation", "model=tiny", "model.lora.r=2"],
    "seq2seq": ["task=summarization", "model=tiny_seq2seq"],
    "seq2seq, LoRA": ["task=classification", "model=tiny_seq2seq", "model.lora.r=2"],
    "critic of its own, patience": ["task=qa", "model=tiny", "ppo.critic=separate", "ppo.patience=2"],
}

PLACES: dict[str, tuple[str, str, int]] = {
    "SFT step": ("rlhf_lightning.stages.sft:SFTModule", "training_step", 18),
    "reward step": ("rlhf_lightning.stages.reward:RewardModule", "training_step", 18),
    "rollout": ("rlhf_lightning.rollout.collect:RewardMix", "each", 12),
    "update": ("rlhf_lightning.stages.ppo:PPOModule", "_loss", 28),
    "validation": ("rlhf_lightning.stages.evaluate:Evaluator", "step", 12),
    "checkpoint, half written": ("lightning.pytorch.plugins.io:TorchCheckpointIO", "save_checkpoint", 20),
    "checkpoint, before its renaming": ("rlhf_lightning.callbacks.checkpoints:Checkpoints", "_put_in_place", 20),
    "checkpoint, while older ones are deleted": ("rlhf_lightning.callbacks.checkpoints:shutil", "rmtree", 60),
    "export of a model": ("rlhf_lightning.models.saving:shutil", "rmtree", 12),
    "state.json and metrics.json": ("rlhf_lightning.report.results:Path", "replace", 20),
}
"""For each place the object and its function whose n-th call kills the process, and the largest n that is drawn."""


DAMAGED = "any time, then the newest checkpoint is damaged"


def find(path: str) -> Any:
    import importlib

    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def arm(place: str, draw: random.Random) -> str:
    """Have this process kill itself at a place, or at a random time; says where."""

    def die(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if place.startswith("any time"):
        seconds = draw.uniform(0.3, 8)
        threading.Timer(seconds, die).start()
        return f"after {seconds:.2f} s"
    owner, name, largest = PLACES[place]
    at, calls = draw.randint(1, largest), Counter[str]()
    target = find(owner)
    original = getattr(target, name)

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls["n"] += 1
        if calls["n"] == at:
            if "half" in place:
                original(*args, **kwargs)
                os.truncate(args[2], Path(args[2]).stat().st_size // 2)
            die()
        return original(*args, **kwargs)

    setattr(target, name, counted)
    return f"call {at} of {name}"


def run(folder: Path, overrides: list[str], before: Callable[[], Any] | None = None) -> int:
    """`rlhf-train` in a forked process; its exit status, or minus the signal that ended it."""
    folder.mkdir(parents=True, exist_ok=True)
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with (folder.parent / f"{folder.name}.log").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        status = 1
        with contextlib.suppress(BaseException):
            from rlhf_lightning.train import main

            if before is not None:
                before()
            status = main([*overrides, f"hydra.run.dir={folder}"])
        sys.stdout.flush()
        os._exit(status)


def content(folder: Path) -> dict[str, Any]:
    """All that a run leaves and that must not depend on interruptions."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*.safetensors")):
        found[str(path.relative_to(folder))] = path.read_bytes()
    results = json.loads((folder / "metrics.json").read_text(encoding="utf-8").replace(str(folder), "FOLDER"))
    for times in ("seconds", "time"):
        results.pop(times)
    found["metrics.json"] = results
    found["samples.jsonl"] = (folder / "samples.jsonl").read_text(encoding="utf-8")
    for path in sorted(folder.glob("*/metrics.csv")):
        with path.open(newline="") as file:
            rows = [{k: v for k, v in row.items() if "second" not in k} for row in csv.DictReader(file)]
        found[str(path.relative_to(folder))] = rows
    return found


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    return [name for name in sorted({*a, *b}) if a.get(name) != b.get(name)]


def explained(a: Any, b: Any) -> str:
    """Where two contents begin to differ."""
    if not isinstance(a, bytes) and not isinstance(b, bytes):
        a, b = (json.dumps(x, indent=1, ensure_ascii=False).splitlines() for x in (a, b))
    for i, (x, y) in enumerate(zip(a or [], b or [], strict=False)):
        if x != y:
            return f"at {i}: {x!r} is not {y!r}"
    return f"lengths {len(a or [])} and {len(b or [])}"


def trial(
    folder: Path, overrides: list[str], expected: dict[str, Any], place: str, draw: random.Random, most: int
) -> tuple[int, list[str]]:
    """One run with up to ``most`` kills; how many really happened, and what differs at the end."""
    kills = 0
    for turn in range(most + 1):
        seed = draw.random()

        def before(seed: float = seed, last: bool = turn == most) -> None:
            if not last:
                arm(place, random.Random(seed))

        status = run(folder, [*overrides, *(["resume=true"] if turn else [])], before)
        if status == -signal.SIGKILL:
            kills += 1
            if place == DAMAGED:
                for newest in sorted(folder.glob("*/checkpoints/[0-9]*/state.ckpt"))[-1:]:
                    os.truncate(newest, newest.stat().st_size - 100)
        elif status == 0:
            break
        else:
            log = folder.with_name(f"{folder.name}.log").read_text(encoding="utf-8")
            return kills, [f"the run ended with status {status}: {log[-1500:]}"]
    return kills, differences(content(folder), expected)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="go on until so many have happened")
    parser.add_argument("--most", type=int, default=2, help="kills of one run, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="part of the name of the places to try")
    parser.add_argument("--kind", help="part of the name of the models to try")
    parser.add_argument("--trainer", nargs="+", default=["trainer=cpu"], help="options of the Trainer")
    options = parser.parse_args()
    import rlhf_lightning.pipeline  # noqa: F401  (imported once, before the processes are forked)

    draw = random.Random(options.seed)
    places = [p for p in [*PLACES, "any time", DAMAGED] if options.only is None or options.only in p]
    kinds = {name: o for name, o in KINDS.items() if options.kind is None or options.kind in name}
    done: dict[str, Counter[str]] = {place: Counter() for place in places}
    started, bad = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as temporary:
        expected: dict[str, dict[str, Any]] = {}
        number = 0
        while sum(c["kills"] for c in done.values()) < options.kills:
            # Five kinds and twelve places: every pair comes within sixty runs.
            kind, place = list(kinds)[number % len(kinds)], places[number % len(places)]
            overrides = [*SMALL, *options.trainer, *kinds[kind]]
            if kind not in expected:
                whole = Path(temporary, kind.replace(",", "").replace(" ", "-"))
                assert run(whole, overrides) == 0, whole.with_suffix(".log").read_text()[-3000:]
                expected[kind] = content(whole)
            folder = Path(temporary, f"run{number}")
            kills, found = trial(folder, overrides, expected[kind], place, draw, options.most)
            done[place].update(runs=1, kills=kills, different=int(bool(found)))
            if found:
                bad += 1
                print(f"DIFFERENT: {kind}, {place}, run {number}: {found}", flush=True)
                for name in found[:3] if (folder / "metrics.json").exists() else []:
                    print(name, explained(content(folder).get(name), expected[kind].get(name)), flush=True)
            print(f"{number:4d} {kind:28} {place:42} {kills} kill(s)  {'DIFFERENT' if found else 'same'}", flush=True)
            number += 1
    print("\n| killed at | runs | kills | runs that differ |\n| --- | --- | --- | --- |")
    for place, counts in done.items():
        print(f"| {place} | {counts['runs']} | {counts['kills']} | {counts['different']} |")
    total = sum((counts for counts in done.values()), Counter())
    print(f"| all | {total['runs']} | {total['kills']} | {bad} |\n\n{time.monotonic() - started:.0f} s")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
