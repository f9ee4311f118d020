"""How near PPO comes to what the machine can do, and how its time grows with the work.

    python tests/benchmarks/speed/limits.py 5m 135m --models MODELS
    python tests/benchmarks/speed/limits.py --grow --json outputs/grow.json

The limit is the machine's rate of multiplying float32 matrices: the highest median over the shapes that are tried. A
phase's share of it is its useful operations over its seconds times that rate. Operations are counted by formula:

- 2 for each weight of the blocks and each token in a forward pass, twice that in a backward pass;
- attention: 4 x width x context for each token and layer, where a token's context is what stands before it and itself;
- the output layer: 2 x width x vocabulary, for the response's tokens alone;
- the logits that the backward pass computes anew are no useful work: they are told apart, under `again`.

Prompts and responses count without padding, at the mean lengths of an update's prompts and responses; the last token of
a response foretells nothing and is not fed. Norms, the embedding, the value head, the optimizer's steps and everything
that is no multiplication count nothing, but their seconds do.

Sampling has another limit: for each token of a response all weights are read from memory, once for the whole batch.
`read` is the share of sampling's seconds that this takes at the rate at which a matrix that fits no cache is read.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from compare import CASES, described, parsed, run, summary

GROWN: dict[str, list[dict[str, Any]]] = {
    "batch": [{"batch": n} for n in (8, 16, 32, 64)],
    "response": [{"new": n} for n in (16, 32, 64, 128)],
    "width": [{"size": f"tiny-{n}"} for n in (128, 256, 512)],
}
"""What `--grow` changes about the case `ppo-5m`, one thing at a time."""
PHASES = ("sample", "score", "forward", "update")


class Shape(NamedTuple):
    """Of a model: the weights of its blocks, its layers, what attention's heads are wide together, and the rest."""

    weights: int
    layers: int
    attention: int
    width: int
    inner: int
    vocabulary: int

    @classmethod
    def of(cls, folder: str) -> Shape:
        """A Llama's, from its configuration."""
        from transformers import AutoConfig

        config: Any = AutoConfig.from_pretrained(folder)
        width, inner, head = config.hidden_size, config.intermediate_size, config.head_dim
        queries, keys = config.num_attention_heads * head, config.num_key_value_heads * head
        block = 2 * width * queries + 2 * width * keys + 3 * width * inner
        layers = config.num_hidden_layers
        return cls(block * layers, layers, queries, width, inner, config.vocab_size)

    def trunk(self, tokens: float) -> float:
        """Operations of a forward pass over a row of so many tokens, without the output layer."""
        contexts = tokens * (tokens + 1) / 2
        return 2 * self.weights * tokens + 4 * self.attention * self.layers * contexts

    def head(self, tokens: float) -> float:
        """Operations of the output layer for so many tokens."""
        return 2 * self.width * self.vocabulary * tokens

    def phases(self, prompts: list[int], response: float, epochs: int) -> dict[str, float]:
        """Useful operations of an update's phases, and those done again, a row.

        Sampling feeds a row's tokens once, and has the policy's log-probabilities and values on the way; ``forward``
        asks the reference; an epoch is a forward pass and a backward pass, which is twice that.
        """
        fed = statistics.mean(self.trunk(prompt + response - 1) for prompt in prompts)
        forward = fed + self.head(response)
        return {
            "sample": forward,
            "score": statistics.mean(self.trunk(prompt + response) for prompt in prompts),
            "forward": forward,
            "update": 3 * epochs * forward,
            "again": epochs * self.head(response),
        }

    def matrices(self, batch: int, tokens: int) -> dict[str, tuple[int, int, int]]:
        """Products that the model takes: (rows, inner, columns)."""
        return {
            "block, forward": (tokens, self.width, self.inner),
            "block, sampling": (batch, self.width, self.inner),
            "output layer": ((1 << 22) // self.vocabulary, self.width, self.vocabulary),
        }


def timed(work: Callable[[], Any], least: float = 0.5, times: int = 10) -> list[float]:
    """Seconds of each of at least so many repetitions, which take so many seconds at least; the first two are left out.

    Short work is timed many times over at once: a clock costs time as well.
    """
    work()
    start = time.perf_counter()
    work()
    inner = max(1, math.ceil(2e-3 / (time.perf_counter() - start)))
    seconds: list[float] = []
    while len(seconds) < times or sum(seconds) * inner < least:
        start = time.perf_counter()
        for _ in range(inner):
            work()
        seconds.append((time.perf_counter() - start) / inner)
    return seconds


def multiplying(rows: int, inner: int, columns: int) -> dict[str, float]:
    """Operations a second of a product of two float32 matrices: the best and the median."""
    import torch

    left, right, out = torch.randn(rows, inner), torch.randn(columns, inner), torch.empty(rows, columns)
    seconds = timed(lambda: torch.mm(left, right.t(), out=out))
    operations = 2.0 * rows * inner * columns
    return {"best": operations / min(seconds), "median": operations / statistics.median(seconds)}


def reading() -> float:
    """Bytes a second at which a matrix that fits no cache is multiplied with a vector (median)."""
    import torch

    matrix, vector = torch.ones(16_384, 4096), torch.ones(4096)
    return matrix.nbytes / statistics.median(timed(lambda: torch.mv(matrix, vector)))


def rates(shapes: dict[str, tuple[int, int, int]]) -> dict[str, dict[str, float]]:
    """The rate of each product, printed as it comes."""
    told = {}
    print(f"{'product':<24}{'rows x inner x columns':>24}{'best':>12}{'median':>12}  GFLOP/s")
    for name, shape in shapes.items():
        told[name] = multiplying(*shape)
        best, median = (told[name][which] / 1e9 for which in ("best", "median"))
        print(f"{name:<24}{' x '.join(map(str, shape)):>24}{best:>12.1f}{median:>12.1f}", flush=True)
    return told


def ppo(given: dict[str, Any]) -> dict[str, float]:
    """Ours: medians over the updates."""
    return summary(run(sys.executable, "ours.py", given), given)


def operations(given: dict[str, Any], tokens: float) -> dict[str, float]:
    """Of the phases of an update with so many response tokens."""
    prompts = [len(row["ids"]) for row in given["rows"]]
    rows = Shape.of(given["model"]).phases(prompts, tokens / given["batch"], given["epochs"])
    return {phase: each * given["batch"] for phase, each in rows.items()}


def shares(given: dict[str, Any], rate: float, bandwidth: float) -> dict[str, dict[str, float]]:
    """Each phase of an update: seconds, operations and share of the limit."""
    figures = ppo(given)
    counted = operations(given, figures["tokens"])
    again = {"update": counted.pop("again")}
    seconds = {phase: figures[f"{phase}_s"] for phase in PHASES}
    seconds["all"], counted["all"], again["all"] = figures["seconds"], sum(counted.values()), again["update"]
    print(f"{'phase':<10}{'seconds':>10}{'GFLOP':>10}{'again':>10}{'GFLOP/s':>10}{'share':>8}{'read':>8}")
    told = {}
    for phase, took in seconds.items():
        row = {"seconds": took, "operations": counted[phase], "again": again.get(phase, 0.0)}
        row["share"] = counted[phase] / took / rate
        line = f"{phase:<10}{took:>10.3f}{row['operations'] / 1e9:>10.1f}{row['again'] / 1e9:>10.1f}"
        line += f"{row['operations'] / took / 1e9:>10.1f}{row['share']:>8.2f}"
        if phase == "sample":
            row["read"] = weight_bytes(given["model"]) * given["new"] / bandwidth / took
            line += f"{row['read']:>8.2f}"
        print(line)
        told[phase] = row
    return told


def weight_bytes(folder: str) -> int:
    """What is read for each token of a response, in float32."""
    shape = Shape.of(folder)
    return 4 * (shape.weights + shape.width * shape.vocabulary)


def limits(sizes: list[str], args: argparse.Namespace) -> dict[str, Any]:
    """The machine's rates, and the shares of PPO at some sizes."""
    cases = {size: described(CASES[f"ppo-{size}"], args) for size in sizes}
    products = {"2048^3": (2048, 2048, 2048)}
    for size, given in cases.items():
        tokens = sum(len(row["ids"]) + given["new"] for row in given["rows"]) * given["batch"] // len(given["rows"])
        matrices = Shape.of(given["model"]).matrices(given["batch"], tokens)
        products |= {f"{size}: {name}": shape for name, shape in matrices.items()}
    told: dict[str, Any] = {"rates": rates(products), "reading": reading()}
    limit = max(rate["median"] for rate in told["rates"].values())
    print(f"limit {limit / 1e9:.1f} GFLOP/s; weights are read at {told['reading'] / 1e9:.1f} GB/s")
    for size, given in cases.items():
        print(
            f"\nPPO {size}: batch {given['batch']}, {given['new']} tokens a response at most, {given['epochs']} epochs"
        )
        told[size] = shares(given, limit, told["reading"])
    return told


def grow(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds per update where one thing grows, beside the operations by formula.

    The last columns are the exponents to which seconds and operations grow from the line before: 1 is in proportion.
    """
    told: dict[str, Any] = {}
    for what, changes in GROWN.items():
        print(f"\n{what:<10}{'seconds':>10}" + "".join(f"{phase:>10}" for phase in PHASES), end="")
        print(f"{'GFLOP':>10}{'seconds^':>10}{'GFLOP^':>10}")
        told[what] = []
        for change in changes:
            told[what].append(grown({**CASES["ppo-5m"], **change}, change, args))
            show_growth(told[what])
    return told


def grown(case: dict[str, Any], change: dict[str, Any], args: argparse.Namespace) -> dict[str, float]:
    """A changed case's figures; ``at`` is the changed number."""
    given = described(case, args)
    figures = ppo(given)
    counted = operations(given, figures["tokens"])
    (at,) = change.values()
    useful = sum(count for phase, count in counted.items() if phase != "again")
    return {"at": float(str(at).removeprefix("tiny-")), **figures, "operations": useful}


def show_growth(rows: list[dict[str, float]]) -> None:
    """The last of a table's rows."""
    row = rows[-1]
    print(f"{row['at']:<10.0f}{row['seconds']:>10.3f}", end="")
    print("".join(f"{row[f'{phase}_s']:>10.3f}" for phase in PHASES) + f"{row['operations'] / 1e9:>10.1f}", end="")
    if len(rows) > 1:
        scale = math.log(row["at"] / rows[-2]["at"])
        print("".join(f"{math.log(row[w] / rows[-2][w]) / scale:>10.2f}" for w in ("seconds", "operations")), end="")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = ("5m", "135m")
    parser.add_argument("sizes", nargs="*", help=f"of {', '.join(sizes)}; without --grow, none is all")
    parser.add_argument("--grow", action="store_true", help="tables of how seconds grow")
    args = parsed(parser)
    if unknown := set(args.sizes) - set(sizes):
        parser.error(f"no such size: {', '.join(unknown)}")
    import torch

    torch.set_num_threads(args.threads)
    told: dict[str, Any] = {}
    if args.sizes or not args.grow:
        told["limits"] = limits(args.sizes or list(sizes), args)
    if args.grow:
        told["growth"] = grow(args)
    if args.json:
        args.json.write_text(json.dumps(told, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
