"""The model card of each exported folder: what the model is, how it was made and measured, and how to load it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlhf_lightning.report.results import RunResults, write_atomic
from rlhf_lightning.report.secrets import hide_secrets
from rlhf_lightning.report.summary import clean, number, result_columns, stage_title
from rlhf_lightning.tasks import sample_files

STAGES = ("sft", "reward", "ppo")

MADE_BY = {
    "sft": "supervised fine-tuning on demonstrations",
    "reward": "learning a reward from preferences (Bradley-Terry loss)",
    "ppo": "PPO against a reward",
}

SETTINGS = {
    "model": ("dtype", "lora.r", "lora.alpha"),
    "trainer": ("precision", "limit_train_batches"),
    "sft": ("lr", "trainer.max_epochs", "loader.batch_size", "loader.prompt_loss_weight"),
    "reward": ("lr", "trainer.max_epochs", "loader.batch_size", "normalise"),
    "ppo": (
        "updates",
        "loader.batch_size",
        "responses_per_prompt",
        "epochs",
        "minibatches",
        "lr",
        "value_lr",
        "kl",
        "kl_coef",
        "clip_range",
        "lam",
        "temperature",
        "missing_eos",
        "missing_eos_penalty",
    ),
}
"""The options that make a result what it is, by group."""

SAMPLE_LANGUAGES = {"translation": ["en", "zh"]}
"""Languages of the sample data that are not English alone."""


def write_cards(folder: Path, results: RunResults, config: dict[str, Any], rows: dict[str, list]) -> None:
    """Write README.md into every model folder of a run, anew whenever there is more to tell.

    Args:
        folder: the run folder.
        results: what has been measured so far.
        config: the run's options.
        rows: for each part of the data its number of rows and their fingerprint.
    """
    for stage in STAGES:
        model = folder / stage / "model"
        if (model / "config.json").exists():
            write_atomic(model / "README.md", card(stage, model, results, config, rows))


def card(stage: str, model: Path, results: RunResults, config: dict[str, Any], rows: dict[str, list]) -> str:
    """The card of the model that a stage exported to a folder. It names no secret and no path of this machine."""
    config = hide_secrets(config)
    stages = [s for s in results.stages if s in STAGES]
    done = stages[: stages.index(stage) + 1] if stage in stages else [stage]
    if stage == "reward" and config["reward"].get("model") is not None:  # it starts from a model of its own
        config, done = {**config, "policy": None, "model": config["reward"]["model"]}, [stage]
    kind, base = _kind(model), _base(config)
    made = "Reward model" if stage == "reward" else stage_title(stage)
    title = f"{made} of {base or 'a small model made from nothing'}, for {results.task}"
    parts = [
        _front_matter(stage, model, results, config, kind),
        f"# {title}",
        f"Made by {MADE_BY[stage]} with rlhf-lightning"
        + (f", after {', '.join(done[:-1])}" if len(done) > 1 else "")
        + ". "
        + _what(stage, kind, model),
        "## Data",
        _data(stage, config, rows),
        "## How it was made",
        _settings(done, config, results),
        "## Results",
        _results(stage, results),
        "## Limits",
        _limits(stage, config, results),
        "## Use",
        f"```python\n{snippet(stage, model, config, kind)}```",
        "## Versions",
        ", ".join(f"{name} {version}" for name, version in results.versions.items()) or "unknown",
    ]
    return without_paths("\n\n".join(parts)) + "\n"


def without_paths(text: str) -> str:
    """A text in which paths of this machine are but their last names.

    >>> without_paths("see /home/me/run/x.json, a/b and https://a.b/c/d")
    'see x.json, a/b and https://a.b/c/d'
    """
    return re.sub(r"(?<![\w:/.<])~?/(?:[^\s/'\"`,;:()|]+/)+([^\s/'\"`,;:()|]*)", r"\1", text)


def _settings_of(folder: Path, name: str) -> dict[str, Any]:
    try:
        found = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _kind(model: Path) -> str:
    """``causal``, ``seq2seq`` or ``encoder``: what a folder's model is."""
    from rlhf_lightning.models.loading import ModelSpec, load_config, model_kind

    spec = ModelSpec(str(model))
    return model_kind(load_config(spec), spec)


def _adapter(model: Path) -> bool:
    return (model / "adapter_config.json").exists()


def _source(config: dict[str, Any]) -> str | None:
    """The hub name or folder that the run started from; None where it made a model of its own."""
    name = config["policy"] or config["model"].get("name")
    return str(name) if name else None


def _base(config: dict[str, Any]) -> str | None:
    """The same, in a form that may be told: a folder is its last name."""
    name = _source(config)
    if name is None:
        return None
    return Path(name).expanduser().resolve().name if _is_path(name) else name


def _is_path(name: str) -> bool:
    return Path(name).expanduser().exists() or name.startswith((".", "/", "~")) or name.count("/") != 1


def _front_matter(stage: str, model: Path, results: RunResults, config: dict[str, Any], kind: str) -> str:
    import yaml

    source, told = _source(config), {}
    if source is not None:
        told = _front_matter_of(source)
    generates = {"translation": "translation", "summarization": "summarization"}
    tag = "text-classification" if stage == "reward" or kind == "encoder" else "text-generation"
    if kind == "seq2seq" and stage != "reward":
        tag = generates.get(results.task, "text2text-generation")
    content: dict[str, Any] = {
        "license": told.get("license", "unknown"),
        "library_name": "peft" if _adapter(model) else "transformers",
        "pipeline_tag": tag,
        "tags": ["rlhf-lightning", "rlhf", "reward-model" if stage == "reward" else stage, results.task],
    }
    base = told.get("base_model") if source is None or _is_path(source) else source
    if base:
        content["base_model"] = base
    values = [v for v in config["data"].values() if isinstance(v, str) and v.startswith("hub:")]
    hub = [re.split(r"[:#@]", value.removeprefix("hub:"))[0] for value in values]
    if hub:
        content["datasets"] = list(dict.fromkeys(hub))
    if _is_sample(config):
        content["language"] = SAMPLE_LANGUAGES.get(results.task, ["en"])
    elif "language" in told:
        content["language"] = told["language"]
    return f"---\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True)}---"


def _front_matter_of(source: str) -> dict[str, Any]:
    """What the card of a model folder, or of one in the hub's cache, says of itself."""
    import yaml

    path: Any = Path(source).expanduser() / "README.md"
    if not _is_path(source):
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(source, "README.md")
    try:
        text = Path(path).read_text(encoding="utf-8") if isinstance(path, (str, Path)) else ""
        found = yaml.safe_load(text.split("---")[1]) if text.startswith("---") else {}
    except (OSError, ValueError, IndexError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _what(stage: str, kind: str, model: Path) -> str:
    if stage == "reward":
        what = "It reads a prompt and a completion and gives one number, the higher the better"
    elif kind == "encoder":
        what = "It reads a text and names one of its labels"
    else:
        what = "It answers prompts of the form that the task has (see Use)"
    adapter = " This folder holds a LoRA adapter alone, which is put onto the base model." if _adapter(model) else ""
    return f"{what}.{adapter}"


def _is_sample(config: dict[str, Any]) -> bool:
    return config["data"].get("train") == sample_files(str(config["task"]["name"]))["train"]


def _data(stage: str, config: dict[str, Any], rows: dict[str, list]) -> str:
    lines = ["| part | rows | from | fingerprint |", "| --- | --- | --- | --- |"]
    for part, (count, mark) in rows.items():
        if count and part != "predict.input":
            lines.append(f"| {part} | {count} | {_named(config['data'].get(part), config)} | `{mark[:12]}` |")
    return "\n".join(lines)


def _named(source: Any, config: dict[str, Any]) -> str:
    """A source of rows without its place."""
    if source is None:
        return "split off, or the training prompts"
    if _is_sample(config) and isinstance(source, str):
        return f"sample data of the task {config['task']['name']}, {Path(source).name}"
    names = source.values() if isinstance(source, dict) else [source]
    return ", ".join(str(n) if str(n).startswith("hub:") else Path(str(n)).name for n in names)


def _settings(done: Sequence[str], config: dict[str, Any], results: RunResults) -> str:
    lines = ["| option | value |", "| --- | --- |", f"| seed | {results.seed} |"]
    for group in ("model", "trainer", *done):
        for name in SETTINGS[group]:
            value: Any = config[group]
            for key in name.split("."):
                value = value.get(key) if isinstance(value, dict) else None
            if value is not None:
                lines.append(f"| {group}.{name} | {_cell(value)} |")
        if group in done and isinstance(optimizer := config[group].get("optimizer"), dict):
            lines.append(f"| {group}.optimizer | {str(optimizer.get('_target_')).rpartition('.')[2]} |")
    if "ppo" in done:
        rewards = ", ".join(f"{name} (weight {r['weight']})" for name, r in config["ppo"]["rewards"].items())
        lines.append(f"| rewards | {_cell(rewards)} |")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return clean(value).replace("|", "\\|").replace("\n", " ")


def _results(stage: str, results: RunResults) -> str:
    parts = []
    names = [policy.name for policy in results.policies]
    last = names.index(stage) if stage in names else -1
    if stage != "reward" and last >= 0:
        columns = [
            c for c in result_columns(results) if math.isfinite(c.values[last] or 0) and c.values[last] is not None
        ]
        before = names[:last]
        head = ["measure", *before, f"**{stage}**"]
        lines = [f"| {' | '.join(head)} |", "| --- |" + " --- |" * (last + 1)]
        lines += [f"| {c.header} | {' | '.join(c.text(i) for i in range(last + 1))} |" for c in columns]
        parts.append(f"On {results.held_out} held-out rows, before and after (an arrow points to the better side; `kl` "
                     "is the distance from where PPO started, in nats an answer):")  # fmt: skip
        parts.append("\n".join(lines))
    if stage != "sft" and results.reward_model:
        told = results.reward_model
        line = ", ".join(f"{name.replace('_', ' ')} {number(value, 3)}" for name, value in told.items())
        parts.append(f"The reward model on held-out preferences: {line}.")
    return "\n\n".join(parts) or "Not measured yet."


def _limits(stage: str, config: dict[str, Any], results: RunResults) -> str:
    told = []
    if results.status != "finished":
        told.append("The run that made it has not finished.")
    if _is_sample(config):
        told.append(
            "It learnt from the small sample data that ships with rlhf-lightning, made up by a program: it shows that "
            "the training works, and is of no use for real texts."
        )
    if stage == "reward":
        told.append(
            "A learned reward holds near the answers that it learnt from; a policy that is optimised against it finds "
            "where it doesn't."
        )
    if stage == "ppo":
        told.append(
            "PPO raises what it is rewarded for, which is not all that matters: compare the measures that were not "
            "rewarded, and read answers."
        )
        told += [f"Told during the run: {note}" for note in results.notes if note.startswith("ppo")]
    told.append("Measured on the held-out rows above alone. Not tested: safety, bias, other data, other languages.")
    return "\n".join(f"- {clean(text)}" for text in told)


# --- how to load it --------------------------------------------------------------------------------------------------


def _prompt(config: dict[str, Any]) -> str:
    """The task's prompt with its columns' names for their texts."""
    template = str(config["task"]["format"].get("prompt") or "Hello!")
    return re.sub(r"\{(\w+)\}", r"the \1", template)


def snippet(stage: str, model: Path, config: dict[str, Any], kind: str) -> str:
    """Python that loads the model with transformers alone (and peft, for an adapter), and asks it something."""
    auto = {"causal": "CausalLM", "seq2seq": "Seq2SeqLM", "encoder": "SequenceClassification"}[kind]
    auto = "SequenceClassification" if stage == "reward" else auto
    package, name = ("peft", f"AutoPeftModelFor{auto}") if _adapter(model) else ("transformers", f"AutoModelFor{auto}")
    imports = ["import torch"] if stage == "reward" and kind != "encoder" else []
    both = sorted(["AutoTokenizer", name]) if package == "transformers" else ["AutoTokenizer"]
    if package == "peft" and stage == "reward":  # what its scores are shifted and divided by stands in its own config
        both = ["AutoConfig", *both]
    imports += [f"from {package} import {name}"] if package == "peft" else []
    imports += [f"from transformers import {', '.join(both)}"]
    labels = ", num_labels=1" if _adapter(model) and stage == "reward" else ""
    lines = [
        *imports,
        "",
        'folder = "."  # this folder',
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        f"model = {name}.from_pretrained(folder{labels})",
        f"prompt = {json.dumps(_prompt(config), ensure_ascii=False)}",
    ]
    chat = kind == "causal" and _has_template(model)
    message = '[{"role": "user", "content": prompt}]'
    if stage == "reward":
        lines += _scoring(model, kind, chat, message)
    elif kind == "encoder":
        lines += [
            'logits = model(**tokenizer(prompt, return_tensors="pt")).logits',
            "print(model.config.id2label[int(logits.argmax(-1))])",
        ]
    else:
        if chat:
            lines.append(
                f"inputs = tokenizer.apply_chat_template({message}, add_generation_prompt=True, return_dict=True, "
                'return_tensors="pt")'
            )
        else:
            lines.append('inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)')
        most = config["task"]["max_completion_tokens"]
        start = '[0, inputs["input_ids"].shape[1] :]' if kind == "causal" else "[0]"
        lines += [
            f"answer = model.generate(**inputs, max_new_tokens={most}, do_sample=False)",
            f"print(tokenizer.decode(answer{start}, skip_special_tokens=True).strip())",
        ]
    return "\n".join(lines) + "\n"


def _has_template(model: Path) -> bool:
    return (model / "chat_template.jinja").exists() or "chat_template" in _settings_of(model, "tokenizer_config.json")


def _scoring(model: Path, kind: str, chat: bool, message: str) -> list[str]:
    """The lines that score a completion, from the same ids that the model learnt from."""
    if kind == "encoder":
        scored = ['score = model(**tokenizer(prompt, "an answer", return_tensors="pt")).logits[0, 0].item()']
    else:
        read = (
            f"tokenizer.apply_chat_template({message}, add_generation_prompt=True, return_dict=False)"
            if chat
            else 'tokenizer(prompt)["input_ids"]'
        )
        lead = "" if chat or kind == "seq2seq" or _adds_space(model) else " "
        scored = [
            f"ids = {read}",
            *(["ids = [i for i in ids if i != tokenizer.eos_token_id]"] if kind == "seq2seq" else []),
            f'ids += tokenizer("{lead}an answer", add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]',
            "score = model(torch.tensor([ids])).logits[0, 0].item()",
        ]
    if _adapter(model):
        scored.append("config = AutoConfig.from_pretrained(folder)")
    config = "config" if _adapter(model) else "model.config"
    return [*scored, f"print((score - {config}.reward_mean) / {config}.reward_std)"]


def _adds_space(model: Path) -> bool:
    """Whether the tokenizer itself puts a space before a text, as SentencePiece does."""
    from transformers import AutoTokenizer

    pieces = AutoTokenizer.from_pretrained(str(model)).tokenize("a")
    return bool(pieces) and pieces[0].startswith("\u2581")
