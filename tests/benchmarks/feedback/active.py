"""How many labels a choice of questions saves, on real preferences: each strategy against random.

usage: active.py --data SHARED_DATA --models MODELS [--out FOLDER] [--seeds 0 1 2 3 4]

SHARED_DATA holds hh_rlhf, MODELS the folder minilm_l6. A reward model is a linear Bradley-Terry head on fixed features
of a prompt and its answer. It begins with 32 random labels; then 32 more are asked at a time, chosen as
`rlhf_lightning.feedback.selection.choose` does it, and the head is fitted anew to all so far.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats

from rlhf_lightning.algorithms.ensemble import bootstrap_heads, fit_heads
from rlhf_lightning.data.format import EmptyAnswer, SameCompletions, split_transcripts
from rlhf_lightning.data.split import split_by_group
from rlhf_lightning.feedback.selection import STRATEGIES, Strategy, choose

SETS = ("helpful-base", "harmless-base")
HELD, BATCH, BUDGET, DIRECTIONS = 0.35, 32, 512, 128
HEADS, L2 = 8, 1.0
LABELS = ("given", "noisy", "control")
"""Those of the set; those with a fifth turned round, but for the held-out part's; and, to see that choosing works at
all, those of a head fitted to all pairs of the set, which the learner can represent and which hold no noise."""
TURNED = 0.2


class Pair(NamedTuple):
    """A comparison of two answers."""

    opening: str
    question: str
    chosen: str
    rejected: str


def read_pairs(file: Path) -> list[Pair]:
    """The pairs of one of the sets, without those that say nothing: with equal or empty answers."""
    pairs = []
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for i, line in enumerate(lines, 1):
            row = json.loads(line)
            try:
                prompt, chosen, rejected = split_transcripts(f"{file}, line {i}", row["chosen"], row["rejected"])
            except (EmptyAnswer, SameCompletions):
                continue
            turns = [str(turn["content"]) for turn in prompt.text if isinstance(turn, dict)]
            pairs.append(Pair(turns[0], turns[-1], chosen, rejected))
    return pairs


# --- features --------------------------------------------------------------------------------------------------------


def tfidf(pairs: Sequence[Pair], cache: Path) -> np.ndarray:
    """(n, 129) difference of 128 principal directions of TF-IDF and of the log length, chosen minus rejected.

    The prompt's own words would cancel in a linear head. The directions are fitted to all texts, without their labels.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [p.chosen for p in pairs] + [p.rejected for p in pairs]
    table = TfidfVectorizer(sublinear_tf=True, min_df=2).fit_transform(texts)
    words = TruncatedSVD(DIRECTIONS, random_state=0).fit_transform(table)
    lengths = np.log([[len(text)] for text in texts])
    return np.hstack([unit(first - second) for first, second in (np.split(words, 2), np.split(lengths, 2))])


def minilm(pairs: Sequence[Pair], cache: Path, model: Path) -> np.ndarray:
    """(n, 128) difference of the mean-pooled last hidden states of MiniLM on (last question, answer).

    Their principal directions, fitted to all pairs without their labels.
    """
    if not cache.exists():
        from transformers import AutoModel, AutoTokenizer

        tokenizer, encoder = AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model).eval()
        sides: list[np.ndarray] = []
        for answers in ([p.chosen for p in pairs], [p.rejected for p in pairs]):
            rows = [
                tokenizer(tokenizer.decode(tokenizer(p.question, add_special_tokens=False).input_ids[-64:]), answer,
                          truncation="only_second", max_length=256)
                for p, answer in zip(pairs, answers, strict=True)
            ]  # fmt: skip
            order = np.argsort([len(row.input_ids) for row in rows])
            found = np.zeros((len(rows), encoder.config.hidden_size))
            for part in np.array_split(order, math.ceil(len(order) / 16)):
                batch = tokenizer.pad([rows[i] for i in part], return_tensors="pt")
                with torch.no_grad():
                    hidden = encoder(**batch).last_hidden_state
                mask = batch["attention_mask"].unsqueeze(-1)
                found[part] = ((hidden * mask).sum(1) / mask.sum(1)).numpy()
            sides.append(found)
        np.save(cache, sides[0] - sides[1])
    found = np.load(cache)
    return unit(found @ np.linalg.svd(found, full_matrices=False)[2][:DIRECTIONS].T)


def unit(differences: np.ndarray) -> np.ndarray:
    """Scaled so that the mean squared length of a difference is 1: a head of N(0, I) gives gaps of about 1."""
    return np.asarray(differences / math.sqrt((differences**2).sum(1).mean()))


def by_a_head(x: np.ndarray) -> np.ndarray:
    """The same pairs, each in the order in which a head fitted to all of them puts it."""
    head = fit_heads(torch.from_numpy(x), torch.ones(1, len(x)), torch.zeros(1, x.shape[1]), L2)[0].numpy()
    return np.asarray(x * np.where(x @ head < 0, -1.0, 1.0)[:, None])


# --- the simulation --------------------------------------------------------------------------------------------------


class Course(NamedTuple):
    """What came of one strategy with one seed.

    Attributes:
        labels: (k,) how many there were.
        accuracy: (k,) on the held-out part.
        parts: (k - 1, 2) accuracy on the next questions' random and chosen part, before they were learnt; NaN without.
    """

    labels: np.ndarray
    accuracy: np.ndarray
    parts: np.ndarray


def simulate(x: np.ndarray, openings: Sequence[str], strategy: Strategy, seed: int, noise: float) -> Course:
    """Ask, learn, ask; no dialogue is on both sides.

    Args:
        x: (n, d) features of the chosen minus the rejected answer.
        openings: (n,) first turn of each dialogue.
        strategy: by which it is asked.
        seed: of the split, the noise, the first labels and all choices.
        noise: share of labels turned round.
    """
    rest, held = split_by_group(range(len(x)), lambda i: openings[i], HELD, seed)
    pool, test = x[rest], x[held]
    draw = np.random.default_rng(seed)
    said = pool * np.where(draw.random(len(pool)) < noise, -1.0, 1.0)[:, None]
    known = draw.permutation(len(pool))[:BATCH]
    labels, accuracy, parts = [], [], []
    while True:
        learnt = torch.from_numpy(said[known])
        head = fit_heads(learnt, torch.ones(1, len(known)), torch.zeros(1, x.shape[1]), L2).numpy()
        labels.append(len(known))
        accuracy.append(correct(test @ head[0]))
        if len(known) >= BUDGET:
            return Course(np.array(labels), np.array(accuracy), np.array(parts))
        left = np.setdiff1d(np.arange(len(pool)), known)
        step = seed * 1000 + len(known)
        heads = (
            bootstrap_heads(learnt, torch.ones(len(known)), HEADS, step, L2).numpy() if strategy == "variance" else head
        )
        chosen = choose(len(left), BATCH, strategy, heads @ pool[left].T, step)
        new = {
            way: left[[c.place for c in chosen if (c.strategy == "random") == (way == "random")]]
            for way in ("random", "other")
        }
        parts.append([correct(said[new[way]] @ head[0]) if len(new[way]) else math.nan for way in ("random", "other")])
        known = np.concatenate([known, *new.values()])


def correct(gaps: np.ndarray) -> float:
    """Share of pairs in which the better one scores higher, a tie counting one half."""
    return float(np.mean((gaps > 0) + 0.5 * (gaps == 0)))


# --- what is told ----------------------------------------------------------------------------------------------------


def interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Mean and half the width of its 95 % interval (Student's t over seeds)."""
    v = np.asarray(values, dtype=float)
    return float(v.mean()), float(stats.t.ppf(0.975, len(v) - 1) * v.std(ddof=1) / math.sqrt(len(v)))


def smooth(accuracy: np.ndarray) -> np.ndarray:
    """Isotonic fit: an accuracy is reached when it is reached for good, not by one lucky step."""
    from sklearn.isotonic import IsotonicRegression

    return np.asarray(IsotonicRegression().fit_transform(np.arange(len(accuracy)), accuracy))


def reached(labels: np.ndarray, accuracy: np.ndarray, target: float) -> float:
    """Labels at which a mean curve, made monotone, with lines between its points, comes to an accuracy; inf: never."""
    curve = smooth(accuracy)
    if curve[-1] < target:
        return math.inf
    i = int(np.argmax(curve >= target))
    if i == 0:
        return float(labels[0])
    return float(np.interp(target, curve[i - 1 : i + 1], labels[i - 1 : i + 1]))


def tell(courses: dict[str, list[Course]]) -> None:
    """The table of one set, feature and noise."""
    base = courses["random"]
    labels = base[0].labels
    mean = {name: np.mean([c.accuracy for c in runs], axis=0) for name, runs in courses.items()}
    start, end = smooth(mean["random"])[[0, -1]]
    target = start + 0.95 * (end - start)
    shown = [int(np.argmin(np.abs(labels - n))) for n in (32, 128, 256, 384, 512)]
    print(f"  random: {start:.3f} to {end:.3f} (monotone), target {target:.3f}")
    for name, runs in courses.items():
        at = ["{:.3f}+-{:.3f}".format(*interval([c.accuracy[i] for c in runs])) for i in shown]
        area = [c.accuracy.mean() for c in runs]
        more = interval(np.array(area) - [c.accuracy.mean() for c in base])
        last = interval([c.accuracy[-1] - b.accuracy[-1] for c, b in zip(runs, base, strict=True)])
        need = reached(labels, mean[name], target)
        resampled = []
        for k in range(200):
            picked = np.random.default_rng(k).integers(len(runs), size=len(runs))
            own, other = (np.mean([r[i].accuracy for i in picked], axis=0) for r in (runs, base))
            low, high = smooth(other)[[0, -1]]
            goal = low + 0.95 * (high - low)
            resampled.append(min(reached(labels, own, goal), 2 * BUDGET) / reached(labels, other, goal))
        low, high = np.quantile(resampled, [0.025, 0.975])
        bias = ""
        if name != "random":
            given = [np.nanmean(c.parts, axis=0) for c in runs]
            true = [c.accuracy[:-1].mean() for c in runs]
            own = [interval([g[i] - t for g, t in zip(given, true, strict=True)]) for i in (0, 1)]
            bias = " | random part {:+.3f}+-{:.3f} chosen {:+.3f}+-{:.3f}".format(*own[0], *own[1])
        saved = need / reached(labels, mean["random"], target)
        print(
            f"  {name:8} {' '.join(at)} | area {interval(area)[0]:.4f} {more[0]:+.4f}+-{more[1]:.4f}"
            f" | end {last[0]:+.3f}+-{last[1]:.3f} | labels {need:.0f}"
            f", of random's {saved:.2f} ({low:.2f} to {high:.2f}){bias}",
            flush=True,
        )


def trivial(x: np.ndarray, pairs: Sequence[Pair]) -> None:
    """What the longer answer, and a head on all labels (five folds by dialogue), get right."""
    from sklearn.model_selection import GroupKFold

    right = np.zeros(len(x))
    for train, test in GroupKFold(5).split(x, groups=[p.opening for p in pairs]):
        head = fit_heads(torch.from_numpy(x[train]), torch.ones(1, len(train)), torch.zeros(1, x.shape[1]), L2)
        right[test] = x[test] @ head[0].numpy()
    longer = correct(np.array([len(p.chosen) - len(p.rejected) for p in pairs], dtype=float))
    print(
        f"  {len(pairs)} pairs; longer wins {longer:.3f}; head on all labels, 5 folds {correct(right):.3f}", flush=True
    )


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("outputs/active"), help="keeps the embeddings")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    kinds: dict[str, Callable[[Sequence[Pair], Path], np.ndarray]] = {
        "tfidf": tfidf,
        "minilm": lambda pairs, cache: minilm(pairs, cache, args.models / "minilm_l6"),
    }
    parser.add_argument("--features", nargs="+", choices=tuple(kinds), default=tuple(kinds))
    parser.add_argument("--labels", nargs="+", choices=LABELS, default=LABELS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.sets:
        pairs = read_pairs(args.data / "hh_rlhf" / name / "test.jsonl.gz")
        openings = [p.opening for p in pairs]
        for kind in args.features:
            x = kinds[kind](pairs, args.out / f"{name}-{kind}.npy")
            print(f"{name}, {kind}", flush=True)
            trivial(x, pairs)
            for labels in args.labels:
                print(f" labels: {labels}", flush=True)
                way = by_a_head(x) if labels == "control" else x
                noise = TURNED if labels == "noisy" else 0.0
                runs = {s: [simulate(way, openings, s, seed, noise) for seed in args.seeds] for s in STRATEGIES}
                tell(runs)
                kept = {s: [[part.tolist() for part in course] for course in courses] for s, courses in runs.items()}
                (args.out / f"{name}-{kind}-{labels}.json").write_text(json.dumps(kept))


if __name__ == "__main__":
    main()
