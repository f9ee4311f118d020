"""Measurements on real data and real models: runs `rlhf-train` and prints one line of figures a run.

usage: real_input.py MEASUREMENT --data SHARED_DATA --models MODELS --out OUT [--seeds 0 1 2] [--sets ...]

MEASUREMENT is one of
  translation     Tatoeba English-Chinese from scratch: SFT, PPO on chrF + BLEU, and PPO on a constant reward
  reward          hh_rlhf harmless-base: MiniLM as a reward model, against "longer wins"
  classification  sentence polarity: MiniLM with a classification head
  lora            XQuAD (English, Chinese) and SciTLDR: SmolLM2-135M-Instruct with LoRA through all stages

MODELS holds the folders smollm2_135m_instruct and minilm_l6. Every command is printed before it runs.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import resource
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

TATOEBA = [
    "task=translation",
    "data=files",
    "data.columns=[source,reference,_]",
    "data.group=source",
    "data.test_size=500",
    "data.validation_size=200",
    "data.seed=0",
    'task.format.prompt="{source} ="',
    "task.max_completion_tokens=24",
    "model.tiny.hidden=192",
    "model.tiny.heads=6",
    "model.tiny.layers=3",
    "model.tiny.vocab_size=4096",
]


def train(out: Path, *overrides: str) -> dict:
    """Run `rlhf-train` into ``out``, unless it has finished there before; its metrics.json."""
    command = ["rlhf-train", *overrides, "logger=csv", "trainer.enable_progress_bar=false", f"hydra.run.dir={out}"]
    results = out / "metrics.json"
    if not (results.exists() and json.loads(results.read_text())["status"] == "finished"):
        print("$", shlex.join(command), flush=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with (out.parent / f"{out.name}.log").open("w") as log:
            subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        (out / "cpu_seconds.txt").write_text(f"{seconds:.0f}")
    return {**json.loads(results.read_text()), "cpu_seconds": (out / "cpu_seconds.txt").read_text()}


def show(title: str, results: dict, names: list[str]) -> None:
    """One line a policy."""
    for policy in results["policies"]:
        figures = {name: policy["metrics"].get(name) for name in names}
        told = "  ".join(f"{k} {v:.3f}" for k, v in figures.items() if v is not None)
        print(f"{title:24} {policy['name']:8} {told}", flush=True)
    print(f"{title:24} seconds  {results['seconds']}, on the CPU {results['cpu_seconds']} in all", flush=True)
    if results["reward_model"]:
        told = "  ".join(f"{k} {v:.3f}" for k, v in results["reward_model"].items())
        print(f"{title:24} reward   {told}", flush=True)


def translation(data: Path, models: Path, out: Path, seeds: list[int]) -> None:
    """SFT from scratch, then PPO on the task's metrics and on a constant, for every seed."""
    rows = [*TATOEBA, f"data.train={data / 'tatoeba_enzh' / 'cmn.txt'}"]
    names = ["bleu", "chrf", "kl", "length", "eos_rate"]
    ppo = ["stages=[ppo]", "ppo.lr=5e-5", "ppo.value_lr=2e-3", "ppo.updates=150", "ppo.epochs=1", "ppo.minibatches=4"]
    ppo += ["ppo.temperature=0.4"]  # nearer to the greedy answers that are measured than the default
    ppo += ["ppo.loader.batch_size=64", "ppo.responses_per_prompt=4"]
    ppo += ["ppo.trainer.val_check_interval=25"]
    for seed in seeds:
        sft = out / f"sft_{seed}"
        recipe = ["sft.loader.batch_size=64", "sft.trainer.max_epochs=3"]
        show(f"sft seed {seed}", train(sft, *rows, *recipe, "stages=[sft]", f"seed={seed}"), names)
        for name, reward in (
            ("metrics", ["rewards=[chrf,bleu]"]),
            ("constant", ["rewards=constant", "ppo.rewards.constant.value=1"]),
        ):
            start = [*rows, *ppo, *reward, f"policy={sft / 'sft' / 'model'}", f"seed={seed}"]
            run = out / f"ppo_{name}_{seed}"
            show(f"ppo {name} seed {seed}", train(run, *start), names)
            print(f"{f'ppo {name} seed {seed}':24} p value  {p_values(run / 'samples.jsonl')}", flush=True)


def p_values(samples: Path) -> str:
    """How often answers swapped at random between SFT and PPO differ as much: approximate randomisation."""
    from sacrebleu.metrics import BLEU, CHRF
    from sacrebleu.significance import PairedTest

    rows = [json.loads(line) for line in samples.open(encoding="utf-8")]
    answers = [(name, [row["completions"][name] for row in rows]) for name in ("policy", "ppo")]
    most = max(len(row["references"]) for row in rows)
    references = [[dict(enumerate(row["references"])).get(i) for row in rows] for i in range(most)]
    metrics = {"bleu": BLEU(tokenize="zh", references=references), "chrf": CHRF(references=references)}
    _, found = PairedTest(answers, metrics, references=None, test_type="ar")()  # type: ignore[arg-type]
    values = [column[1].p_value for name, column in found.items() if name != "System"]
    return "  ".join(f"{name} {value:.2f}" for name, value in zip(metrics, values, strict=True))


def reward(data: Path, models: Path, out: Path, seeds: list[int]) -> None:
    """Bradley-Terry on harmless-base, a fifth of the prompts held out."""
    for seed in seeds:
        results = train(
            out / f"reward_{seed}",
            "stages=[reward]",
            "data=files",
            f"data.preferences={data / 'hh_rlhf' / 'harmless-base' / 'test.jsonl.gz'}",
            "data.test_size=0.2",
            "data.seed=0",
            "model=minilm",
            f"model.name={models / 'minilm_l6'}",
            "task.max_prompt_tokens=160",
            "task.max_completion_tokens=96",
            "reward.lr=1e-4",
            f"seed={seed}",
        )
        show(f"harmless-base seed {seed}", results, [])


def classification(data: Path, models: Path, out: Path, seeds: list[int]) -> None:
    """Cross-entropy on the sentence polarity set, a fifth of the sentences held out."""
    rows = out / "polarity.csv"
    with zipfile.ZipFile(data / "nltk_sentiment" / "sentence_polarity.zip") as archive:
        rows.parent.mkdir(parents=True, exist_ok=True)
        with rows.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            for label, name in (("positive", "rt-polarity.pos"), ("negative", "rt-polarity.neg")):
                text = archive.read(f"sentence_polarity/{name}").decode("utf-8")
                writer.writerows([line.strip(), label] for line in text.split("\n") if line.strip())
    for seed in seeds:
        results = train(
            out / f"classification_{seed}",
            "task=classification",
            "stages=[sft]",
            "data=files",
            f"data.train={rows}",
            "data.test_size=0.2",
            "data.seed=0",
            "task.format.labels=[positive,negative]",
            'task.format.prompt="{text}"',
            "model=minilm",
            f"model.name={models / 'minilm_l6'}",
            "sft.trainer.max_epochs=2",
            f"seed={seed}",
        )
        show(f"polarity seed {seed}", results, ["accuracy", "f1", "precision", "recall"])


def lora(data: Path, models: Path, out: Path, seeds: list[int], sets: list[str]) -> None:
    """All stages with adapters. The sets hold no preferences: the reference against an answer to another question."""
    for name in sets:
        train_file, preferences, extra, names = _lora_rows(name, data, out)
        results = train(
            out / f"lora_{name}",
            *extra,
            "data=files",
            f"data.train={train_file}",
            f"data.preferences={preferences}",
            "data.test_size=40",
            "data.validation_size=8",
            "model=smollm2_135m",
            f"model.name={models / 'smollm2_135m_instruct'}",
            "model.lora.r=16",
            "sft.lr=2e-4",
            "sft.trainer.max_epochs=1",
            "sft.loader.batch_size=8",
            "reward.lr=2e-4",
            "reward.loader.batch_size=4",
            "reward.trainer.accumulate_grad_batches=2",
            "ppo.lr=1e-4",
            "ppo.updates=10",
            "ppo.epochs=1",
            "ppo.minibatches=2",
            "ppo.loader.batch_size=16",
            "ppo.trainer.val_check_interval=100",
            "evaluate.batch_size=20",
            f"seed={seeds[0]}",
        )
        show(name, results, [*names, "learned", "kl", "length", "eos_rate"])


def _lora_rows(name: str, data: Path, out: Path) -> tuple[Path, Path, list[str], list[str]]:
    """A few hundred rows and preferences made of them; the task's overrides; the figures to show."""
    random.seed(0)
    if name == "scitldr":
        rows = [json.loads(line) for line in (data / "scitldr" / "train.jsonl").open(encoding="utf-8")]
        rows = [
            {"document": " ".join(r["source"]), "references": r["target"], "title": str(i)} for i, r in enumerate(rows)
        ]
        rows = random.sample([r for r in rows if len(r["document"]) < 900], 200)
        answer, prompt = "references", ("document",)
        extra = ["task=summarization", 'task.format.prompt="{document}\nSummarize this in one sentence."']
        extra += ["task.max_prompt_tokens=224", "task.max_completion_tokens=40"]
        figures = ["rouge1", "rouge2", "rougeL"]
    else:
        content = json.loads((data / "xquad" / f"{name}.json").read_text(encoding="utf-8"))
        rows = [
            {
                "context": p["context"],
                "question": q["question"],
                "answers": [q["answers"][0]["text"]],
                "title": p["context"],
            }
            for article in content["data"]
            for p in article["paragraphs"]
            for q in p["qas"]
            if len(p["context"]) < (600 if name.endswith("en") else 200)
        ]
        rows = random.sample(rows, min(200, len(rows)))
        answer, prompt = "answers", ("context", "question")
        extra = [
            "task=qa",
            'task.format.prompt="{context}\n{question} Answer with words of the text."',
            "data.group=title",
        ]
        extra += ["task.max_prompt_tokens=224", "task.max_completion_tokens=24"]
        figures = ["exact_match", "token_f1"]
    others = rows[1:] + rows[:1]
    pairs = [
        {**{c: r[c] for c in prompt}, "title": r["title"], "chosen": r[answer][0], "rejected": o[answer][0]}
        for r, o in zip(rows, others, strict=True)
    ]
    out.mkdir(parents=True, exist_ok=True)
    paths = out / f"{name}.jsonl", out / f"{name}.preferences.jsonl"
    for path, made in zip(paths, (rows, pairs), strict=True):
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made), encoding="utf-8")
    return *paths, extra, figures


def main() -> None:
    """Run one measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurement", choices=["translation", "reward", "classification", "lora"])
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("RLHF_SHARED_DATA"), required="RLHF_SHARED_DATA" not in os.environ
    )
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--out", type=Path, default=Path("outputs/real_input"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sets", nargs="+", default=["xquad.en", "xquad.zh", "scitldr"])
    args = parser.parse_args()
    data, models, out = (Path(p).resolve() for p in (args.data, args.models, args.out))
    if args.measurement == "lora":
        lora(data, models, out, args.seeds, args.sets)
    else:
        globals()[args.measurement](data, models, out, args.seeds)


if __name__ == "__main__":
    sys.exit(main())
