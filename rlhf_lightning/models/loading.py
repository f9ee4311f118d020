"""Loading from a hub name or a folder, with the checks that tell early whether a model fits."""

from __future__ import annotations

import copy
import importlib.util
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rlhf_lightning.data.encoding import Codec, Kind
from rlhf_lightning.errors import UserError
from rlhf_lightning.hub import find
from rlhf_lightning.models.intact import (
    check_settings,
    check_tensors,
    check_weights,
    damaged,
    no_weights,
    read_object,
)

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from rlhf_lightning.models.classifier import Classifier
    from rlhf_lightning.models.policy import Policy


ADAPTER = "adapter_config.json"
"""The file by which a folder that holds an adapter alone is known."""

ADAPTER_WEIGHTS = "adapter_model.safetensors"


ADAPTED = {
    "ForSequenceClassification": "AutoModelForSequenceClassification",
    "ForConditionalGeneration": "AutoModelForSeq2SeqLM",
    "ForCausalLM": "AutoModelForCausalLM",
    "LMHeadModel": "AutoModelForCausalLM",
}
"""What an adapter was trained on, by the architecture that its folder names."""

MERGED = "_rlhf_adapter_merged"
"""Attribute of a model into which an adapter was merged as it was loaded: no folder holds these weights whole."""

HEADS = ("score", "classifier", "classification_head", "pooler", "pre_classifier")
"""Layers of classification models that a language model lacks: they start anew, so an adapter on them is not enough."""


@dataclass(frozen=True)
class LoraSpec:
    """Low-rank adapters (Hu et al., 2021, arXiv:2106.09685), through peft.

    Attributes:
        r: rank; 0 trains all weights instead.
        alpha: scale; the adapter's output is multiplied by ``alpha / r``. None is ``2 r``.
        target_modules: names of the layers that get one; ``all-linear`` is all but the output head.
        merge: whether exported models have the adapter merged into their weights (else the adapter alone is saved).
    """

    r: int = 0
    alpha: float | None = None
    target_modules: str | Sequence[str] = "all-linear"
    merge: bool = True


@dataclass(frozen=True)
class ModelSpec:
    """A pre-trained model and how to load it.

    Attributes:
        name: a hub name or a folder.
        kind: ``causal``, ``seq2seq``, ``encoder``, or ``auto`` to tell from the model's config.
        revision: branch, tag or commit on the hub.
        trust_remote_code: run code that comes with the model.
        dtype: of the weights.
        lora: adapters.
    """

    name: str
    kind: Kind | Literal["auto"] = "auto"
    revision: str | None = None
    trust_remote_code: bool = False
    dtype: str = "float32"
    lora: LoraSpec = field(default_factory=LoraSpec)

    def at(self, folder: str | Path) -> ModelSpec:
        """The same settings for another folder (the one an earlier stage wrote)."""
        return replace(self, name=str(folder), revision=None)


def _loading(name: str) -> str:
    return f"cannot load the model {name!r}"


def _reason(error: Exception) -> str:
    """Why it can't be loaded, in a line, with the remedy where there is one."""
    text = " ".join(str(error).split())
    if "trust_remote_code" in text:
        return "it comes with code of its own; read that, then model.trust_remote_code=true runs it."
    short = text if len(text) <= 300 else f"{text[:296]} ..."
    return short if " " in short else f"{type(error).__name__} {short}".strip()


def load_config(spec: ModelSpec) -> PretrainedConfig:
    """The model's config, with every dropout (and layerdrop) set to 0.

    Dropout would make the log-probabilities of sampling and update differ, so that PPO's ratio does not start at 1.

    Raises:
        UserError: if there is no such model, or it holds no readable config.
    """
    from transformers import AutoConfig

    find(spec.name, spec.revision)
    folder = Path(spec.name).expanduser()
    name = spec.name if not folder.exists() else str(folder)
    if folder.exists() and not (folder / "config.json").exists():
        below = sorted(path.parent for path in [*folder.glob("model/config.json"), *folder.glob("*/model/config.json")])
        hint = f" Do you mean {' or '.join(map(str, below))}?" if below else ""
        raise UserError(
            f"{_loading(spec.name)}: the folder has no config.json, so it is no Hugging Face model folder.{hint}"
        )
    if folder.exists():
        check_settings(folder)
    try:
        config = AutoConfig.from_pretrained(name, revision=spec.revision, trust_remote_code=spec.trust_remote_code)
    except Exception as error:  # transformers looks for few mistakes in a config, and falls over the others
        if folder.exists():
            raise UserError(f"{_loading(spec.name)}: its config.json can't be used: {_reason(error)}") from error
        raise UserError(
            f"{_loading(spec.name)}: {_reason(error)} There is no folder {name} here, so it was looked for on the hub. "
            "Check the name, or the connection to the hub."
        ) from error
    for key, value in config.to_dict().items():
        dropping = any(word in key for word in ("dropout", "pdrop", "layerdrop"))
        if dropping and isinstance(value, (int, float)) and not isinstance(value, bool):
            setattr(config, key, 0.0)
    return config


def model_kind(config: PretrainedConfig, spec: ModelSpec) -> Kind:
    """What a model is, told from its config.

    Raises:
        UserError: if the config belongs to none of the three kinds.
    """
    if spec.kind != "auto":
        return spec.kind
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    if getattr(config, "is_encoder_decoder", False):
        return "seq2seq"
    # BERT-like models are in both maps: their causal form is for use as a decoder, and nobody means it.
    if type(config) in MODEL_FOR_MASKED_LM_MAPPING:
        return "encoder"
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING or spec.trust_remote_code:
        return "causal"
    raise UserError(
        f"the model {spec.name!r} is of type {config.model_type!r}, which neither generates text nor encodes it. "
        "Choose a causal, a sequence-to-sequence or an encoder model, or say which it is with model.kind."
    )


def load_tokenizer(spec: ModelSpec) -> PreTrainedTokenizerBase:
    """The model's tokenizer.

    Raises:
        UserError: if there is none.
    """
    from transformers import AutoTokenizer

    name = str(Path(spec.name).expanduser()) if Path(spec.name).expanduser().exists() else spec.name
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            name, revision=spec.revision, trust_remote_code=spec.trust_remote_code
        )
    except Exception as error:  # the tokenizers library raises plain ones
        raise UserError(
            f"cannot load the tokenizer of {spec.name!r} (tokenizer.json or a vocabulary, and tokenizer_config.json): "
            f"{_reason(error)}"
        ) from error
    if not any(tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("a", "0", ".", "中", "ا")):
        raise UserError(f"the tokenizer of {spec.name!r} knows no text: its vocabulary is empty. Take the model's own.")
    return tokenizer


FROM_PADDING = (
    "roberta",
    "xlm-roberta",
    "xlm-roberta-xl",
    "camembert",
    "roberta-prelayernorm",
    "data2vec-text",
    "mpnet",
)
"""Model types whose first position is the one after the padding's id."""


def positions(config: PretrainedConfig) -> int | None:
    """How many tokens a model can read at once; None where nothing limits them, as T5's positions are relative."""
    window = getattr(config, "max_position_embeddings", None)
    if window is None or window <= 0:
        return None
    return window - (config.pad_token_id or 0) - 1 if config.model_type in FROM_PADDING else window


def check_window(config: PretrainedConfig, codec: Codec, name: str, one_text: bool = False) -> None:
    """Refuse limits that exceed the positions a model has.

    Args:
        config, codec: the model's.
        name: for the message.
        one_text: prompt and completion are read as one text, as a reward model does, also by an encoder-decoder model.

    Raises:
        UserError: naming both numbers.
    """
    window = positions(config)
    if window is None:
        return
    if codec.kind == "seq2seq" and not one_text:  # prompt and completion have positions of their own
        if max(codec.max_prompt, codec.max_completion) > window:
            raise UserError(
                f"task.max_prompt_tokens = {codec.max_prompt} or task.max_completion_tokens = {codec.max_completion} "
                f"exceeds the {window} positions of {name!r}. Lower it."
            )
        return
    need = codec.max_prompt + (0 if codec.labels else codec.max_completion)
    if need > window:
        raise UserError(
            f"task.max_prompt_tokens + task.max_completion_tokens = {codec.max_prompt} + {codec.max_completion} "
            f"exceeds the {window} positions of {name!r}. Lower them."
        )


def from_pretrained(
    auto_class: Any, spec: ModelSpec, config: PretrainedConfig, fresh_head: bool = False
) -> PreTrainedModel:
    """Load weights (safetensors only), with an adapter that a folder may hold merged into them.

    Args:
        auto_class: of transformers.
        spec, config: of the model.
        fresh_head: its head (`HEADS`) may be missing or of another size: it then gets a new one.

    Raises:
        UserError: if weights are missing, damaged, of another shape than the config's, not finite, or in an unsafe
            format.
    """
    import torch

    folder = Path(spec.name).expanduser()
    if (folder / ADAPTER).exists():
        return _with_adapter(auto_class, spec, config, folder, fresh_head)
    if folder.exists():
        check_weights(folder)
    try:
        model, loaded = auto_class.from_pretrained(
            str(folder.resolve()) if folder.exists() else spec.name,  # an adapter remembers it
            config=config,
            revision=spec.revision,
            trust_remote_code=spec.trust_remote_code,
            dtype=getattr(torch, spec.dtype),
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # we look at them ourselves, and say which
            output_loading_info=True,
        )
    except Exception as error:  # of a damaged folder or a config of nonsense, whatever comes of reading it
        raise UserError(f"{_loading(spec.name)}: {_reason(error)}") from error
    new = [name for name in sorted(loaded["missing_keys"]) if not (fresh_head and _of_head(name))]
    other = [found for found in sorted(loaded["mismatched_keys"]) if not (fresh_head and _of_head(found[0]))]
    if new:
        raise UserError(
            f"{_loading(spec.name)}: its file of weights lacks {', '.join(new[:3])}"
            f"{f' and {len(new) - 3} more' if len(new) > 3 else ''}; they would start as noise. Is the folder whole, "
            f"and its config.json (of {', '.join(config.architectures or [str(config.model_type)])}) its own?"
        )
    if other:
        name, saved, wanted = other[0]
        raise UserError(
            f"{_loading(spec.name)}: {name} has the shape {tuple(saved)}, where config.json wants {tuple(wanted)}"
            f"{f' ({len(other)} weights differ)' if len(other) > 1 else ''}. They don't belong together."
        )
    _check_numbers(model, spec.name, folder)
    return model


def _of_head(name: str) -> bool:
    return any(part in HEADS for part in name.split("."))


def _check_numbers(model: PreTrainedModel, name: str, folder: Path) -> None:
    """Refuse weights that are no numbers to compute with: NaN, or integers that a quantised model packs them into."""
    from safetensors import safe_open

    weights = dict(model.named_parameters())
    for weight_name, weight in weights.items():
        if weight.is_floating_point() and not bool(weight.isfinite().all()):
            raise UserError(f"{_loading(name)}: {weight_name} holds numbers that are not finite. Take an earlier one.")
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118 - it is no dict
                kind = file.get_slice(key).get_dtype()
                if key in weights and not kind.startswith(("F", "BF")):
                    raise UserError(
                        f"{_loading(name)}: {key} is stored as {kind.lower().replace('i', 'int')}: quantised weights "
                        "can't be trained. Take the model in full precision."
                    )


def _adapter_base(folder: Path) -> str:
    """The model that an adapter was made for.

    Raises:
        UserError: if the folder doesn't say, or has no weights for the adapter that are safe to read.
    """
    base = read_object(folder / ADAPTER).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise damaged(folder / ADAPTER, "does not say which model it is for (base_model_name_or_path)")
    if Path(base).expanduser().resolve() == folder.resolve():
        raise damaged(folder / ADAPTER, "names its own folder as the model that it is for")
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise no_weights(folder, ADAPTER_WEIGHTS)
    check_tensors(folder / ADAPTER_WEIGHTS)
    return base


def _with_adapter(
    auto_class: Any, spec: ModelSpec, config: PretrainedConfig, folder: Path, fresh_head: bool
) -> PreTrainedModel:
    base = _adapter_base(folder)
    _need_peft()
    import transformers

    trained = next(
        (getattr(transformers, auto) for task, auto in ADAPTED.items() if made_for(config, task)), auto_class
    )
    own = config if trained is auto_class else load_config(spec)  # a config made for another task has its labels
    # The head of a classification model is in the adapter, which is looked through below.
    new = trained is transformers.AutoModelForSequenceClassification
    merged = _merged(from_pretrained(trained, replace(spec, name=base, revision=None), own, new), folder)
    if trained is not auto_class:  # the trunk goes on in a model for another task, with a head of its own
        with tempfile.TemporaryDirectory() as whole:
            merged.save_pretrained(whole)
            merged = from_pretrained(auto_class, replace(spec, name=whole, revision=None), config, fresh_head)
    else:
        _check_numbers(merged, spec.name, folder)
    setattr(merged, MERGED, True)
    return merged


def _merged(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    try:
        with safe_open(folder / ADAPTER_WEIGHTS, "pt") as file:
            given = set(file.keys())
        adapted = PeftModel.from_pretrained(model, str(folder))
    except Exception as error:  # settings of nonsense, shapes of another model
        raise UserError(f"{_loading(str(folder))}: its adapter can't be used: {_reason(error)}") from error
    if lacking := sorted(set(get_peft_model_state_dict(adapted)) - given):
        raise UserError(
            f"{_loading(str(folder))}: the adapter lacks {lacking[0]} and {len(lacking) - 1} more: is the folder whole?"
        )
    return adapted.merge_and_unload().requires_grad_(True)


def _need_peft() -> None:
    if importlib.util.find_spec("peft") is None:
        raise UserError("model.lora needs peft: pip install 'rlhf-lightning[lora]'")


def made_for(config: PretrainedConfig, task: str) -> bool:
    """Whether the config's weights were saved with this head, such as ``ForSequenceClassification``."""
    return any(task in name for name in config.architectures or [])


def add_lora(model: PreTrainedModel, lora: LoraSpec, task_type: str) -> nn.Module:
    """Wrap a model so that only low-rank adapters are trained; the model itself where ``lora.r`` is 0.

    Raises:
        UserError: if peft is not installed, or no layer has one of the target names.
    """
    if not lora.r:
        return model
    _need_peft()
    from peft import LoraConfig, get_peft_model

    from rlhf_lightning.models.adapters import in_one_piece

    targets = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    heads = (
        [name for name, _ in model.named_modules() if name.rpartition(".")[2] in HEADS]
        if task_type == "SEQ_CLS"
        else []
    )
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha if lora.alpha is not None else 2 * lora.r,  # type: ignore[arg-type]
        target_modules=targets,
        task_type=task_type,  # type: ignore[arg-type]
        modules_to_save=heads or None,
        exclude_modules=rf"({'|'.join(map(re.escape, heads))})(\..*)?" if heads else None,
    )
    try:
        wrapped = get_peft_model(model, config)  # type: ignore[arg-type]
    except ValueError as error:
        raise UserError(f"model.lora.target_modules={targets!r} does not fit this model: {error}") from error
    in_one_piece(wrapped)
    return wrapped


def has_adapter(model: nn.Module) -> bool:
    """Whether `add_lora` wrapped the model."""
    return hasattr(model, "peft_config") and hasattr(model, "disable_adapter")


def adapter_is_new(model: nn.Module) -> bool:
    """Whether the adapter changes nothing yet: one factor of each of its products starts at 0."""
    return not any(bool(weight.any()) for name, weight in model.named_parameters() if "lora_B" in name)


def save_model(model: nn.Module, tokenizer: PreTrainedTokenizerBase, path: Path, merge: bool) -> None:
    """Write weights and tokenizer into an existing folder; adapters are merged first if so told.

    Beside an adapter alone stands the config of the whole model, so that the folder loads like any other. An adapter
    on a model that no folder holds (another adapter was merged into it when it was loaded) is merged in any case.
    """
    if has_adapter(model) and (merge or getattr(model.get_base_model(), MERGED, False)):  # type: ignore[operator]
        model = copy.deepcopy(model).merge_and_unload()  # type: ignore[operator]
    elif has_adapter(model):
        inner: Any = model.get_base_model()  # type: ignore[operator]
        config = copy.deepcopy(inner.config)
        config.architectures = [type(inner).__name__]
        config.save_pretrained(path)
        if inner.can_generate():
            inner.generation_config.save_pretrained(path)
    model.save_pretrained(path)  # type: ignore[operator]
    tokenizer.save_pretrained(path)


def load_answerer(
    spec: ModelSpec,
    *,
    max_prompt: int = 512,
    max_completion: int = 128,
    labels: Sequence[str] = (),
    system: str | None = None,
    fresh_head: bool = False,
) -> Policy | Classifier:
    """The model that answers a task's prompts: a `Policy` that generates, or a `Classifier` where it is an encoder.

    Args:
        spec: which model.
        max_prompt, max_completion: limits in tokens.
        labels: the task's label set; needed by encoders.
        system: system message for chat models.
        fresh_head: allow an encoder without a classification head of these labels, and give it an untrained one.

    Raises:
        UserError: if the model doesn't fit.
    """
    from rlhf_lightning.models.classifier import Classifier
    from rlhf_lightning.models.policy import Policy

    config = load_config(spec)
    if model_kind(config, spec) == "encoder":
        return Classifier.load(spec, labels=labels, max_prompt=max_prompt, fresh_head=fresh_head)
    return Policy.load(spec, max_prompt=max_prompt, max_completion=max_completion, system=system)
