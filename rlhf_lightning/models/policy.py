"""The policy: a causal or an encoder-decoder model behind one interface, with an optional value head.

Only this file knows the difference between the two.
"""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from rlhf_lightning.algorithms import entropy, head_logprobs, token_logprobs
from rlhf_lightning.data.batches import PromptBatch, SFTBatch
from rlhf_lightning.data.encoding import Codec, Kind
from rlhf_lightning.data.micro_batches import by_parts, trimmed
from rlhf_lightning.errors import UserError
from rlhf_lightning.models.generation import Completions, Sampling, mask_after_end, placed, processors, uniforms
from rlhf_lightning.models.loading import (
    LoraSpec,
    ModelSpec,
    add_lora,
    check_window,
    from_pretrained,
    has_adapter,
    load_config,
    load_tokenizer,
    made_for,
    model_kind,
    save_model,
)
from rlhf_lightning.models.saving import write_folder
from rlhf_lightning.models.sharding import groups, is_sharded, shard, to_save

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from transformers import GenerationConfig, PreTrainedModel

    from rlhf_lightning.models.reward_model import RewardModel


class PolicyOutput(NamedTuple):
    """What the policy says of the response tokens.

    Attributes:
        logits: (b, r, v); those at t give the distribution that response token t was drawn from.
        values: (b, r) value of the state in which token t was chosen, or None.
    """

    logits: Tensor
    values: Tensor | None


class TokenOutput(NamedTuple):
    """What the policy says of the response tokens, without the distributions themselves; all (b, r), 0 on padding.

    Attributes:
        logprobs: of the tokens.
        entropy: in nats; without a gradient.
        best: bool, the token is the most likely one.
        values: of the states in which the tokens were chosen, or None.
    """

    logprobs: Tensor
    entropy: Tensor
    best: Tensor
    values: Tensor | None


def aligned(
    prompt_ids: Tensor, prompt_mask: Tensor, response_ids: Tensor, response_mask: Tensor, pad_id: int
) -> tuple[Tensor, Tensor]:
    """Prompts and responses as rows without a gap, padded on the right: there causal attention needs no mask.

    Args:
        prompt_ids, prompt_mask: (b, p), padded on either side.
        response_ids, response_mask: (b, r), padded on the right.
        pad_id: what fills up.

    Returns:
        ``ids (b, w)`` without the last response token, which foretells nothing; and ``starts (b,)``, the position in
        which a row's first response token was chosen. It is -1 where the prompt is empty.
    """
    mask = torch.cat([prompt_mask, response_mask], 1)
    ids = torch.cat([prompt_ids, response_ids], 1)
    order = (~mask).long().argsort(dim=1, stable=True)
    width = max(int(mask.sum(1).max()) - 1, 1)
    ids = ids.masked_fill(~mask, pad_id).gather(1, order)[:, :width]
    return ids, prompt_mask.sum(1) - 1


def _savable(config: GenerationConfig) -> GenerationConfig:
    """The settings as transformers agrees to write them: published ones have sampling values and sampling off."""
    try:
        config.validate(strict=True)
    except ValueError:
        config.do_sample = True
        if config.num_beams in (None, 1):
            config.length_penalty = config.early_stopping = None  # without beams they say nothing
    return config


def _base(model: nn.Module) -> PreTrainedModel:
    return model.get_base_model() if has_adapter(model) else model  # type: ignore[return-value,operator]


class Policy(nn.Module):
    """A model that answers prompts.

    Args:
        model: a transformers model that generates, with or without a peft adapter.
        codec: encodes its texts; tells its kind.
        value_head: add a head that gives a value for each response token, 0 at first.
        lora: how `save` treats an adapter.
    """

    def __init__(
        self, model: PreTrainedModel | nn.Module, codec: Codec, value_head: bool = False, lora: LoraSpec | None = None
    ) -> None:
        from transformers import GenerationConfig

        super().__init__()
        self.model, self.codec = model, codec
        self.lora = lora or LoraSpec()
        inner = self.inner
        config: GenerationConfig = inner.generation_config
        ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
        self.eos_ids = sorted({codec.eos_id, *(i for i in ends if i is not None)})
        # A model's own generation settings (top_k 50 and the like) would leak into every `generate` call.
        self._exported_generation_config = copy.deepcopy(config)
        inner.generation_config = GenerationConfig(
            pad_token_id=codec.pad_id,
            eos_token_id=self.eos_ids,
            bos_token_id=config.bos_token_id,
            decoder_start_token_id=getattr(inner.config, "decoder_start_token_id", None),
        )
        parameters = inspect.signature(inner.forward).parameters
        self._takes_positions = "position_ids" in parameters
        self._takes_keep = "logits_to_keep" in parameters
        self._plain: bool | None = None
        self.obstacle: str | None = None
        """Why `rlhf_lightning.rollout.NativeEngine` can't draw its responses; empty if it can, None before it tried."""
        self.value_head: nn.Linear | None = None
        if value_head:
            self.value_head = nn.Linear(inner.config.hidden_size, 1)
            nn.init.zeros_(self.value_head.weight)
            nn.init.zeros_(self.value_head.bias)

    @property
    def inner(self) -> PreTrainedModel:
        """The transformers model, out of peft's wrapper if there is one."""
        return _base(self.model)

    @property
    def kind(self) -> Kind:
        """``causal`` or ``seq2seq``."""
        return self.codec.kind

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @classmethod
    def load(
        cls,
        spec: ModelSpec | str | Path,
        *,
        max_prompt: int = 512,
        max_completion: int = 128,
        system: str | None = None,
        value_head: bool = False,
    ) -> Policy:
        """Load a policy from a hub name or a folder.

        Args:
            spec: which model, or just its name or folder.
            max_prompt, max_completion: limits in tokens.
            system: system message for chat models.
            value_head: see `Policy`.

        Raises:
            UserError: if the model can't be loaded, doesn't generate, or has fewer positions than the limits need.
        """
        from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

        spec = spec if isinstance(spec, ModelSpec) else ModelSpec(str(spec))
        config = load_config(spec)
        kind = model_kind(config, spec)
        if kind == "encoder":
            raise UserError(
                f"{spec.name!r} is an encoder ({config.model_type}): it can't generate, so it can't be PPO's policy "
                "or answer a task that needs text. Use it for classification with stages=[sft], as a reward model "
                "(model@reward.model=...), or choose a causal or sequence-to-sequence model."
            )
        if made_for(config, "ForSequenceClassification"):
            raise UserError(f"{spec.name!r} is a reward model or classifier: it can't generate text.")
        codec = Codec(load_tokenizer(spec), kind, max_prompt, max_completion, system=system)
        check_window(config, codec, spec.name)
        model = from_pretrained(AutoModelForCausalLM if kind == "causal" else AutoModelForSeq2SeqLM, spec, config)
        rows = len(model.get_input_embeddings().weight)  # type: ignore[arg-type]
        if len(codec.tokenizer) > rows:
            raise UserError(
                f"the tokenizer of {spec.name!r} has {len(codec.tokenizer)} tokens, its model only {rows}: "
                "they don't belong together."
            )
        wrapped = add_lora(model, spec.lora, "CAUSAL_LM" if kind == "causal" else "SEQ_2_SEQ_LM")
        return cls(wrapped, codec, value_head, spec.lora)

    @classmethod
    def critic_from(cls, reward_model: RewardModel) -> Policy:
        """A critic with a reward model's trunk: the value of a state is that model's score of the text so far.

        Raises:
            UserError: if the reward model is no decoder, so that it has no value for each token.
        """
        from transformers import AutoModelForCausalLM

        if reward_model.kind != "causal":
            raise UserError(f"a critic is made from a causal reward model; this one is {reward_model.kind}")
        scorer: Any = reward_model.model
        if has_adapter(scorer):
            scorer = copy.deepcopy(scorer).merge_and_unload()
        model = AutoModelForCausalLM.from_config(scorer.config)
        model.base_model.load_state_dict(scorer.base_model.state_dict())
        critic = cls(model, reward_model.codec, value_head=True)
        head, std = critic.value_head, float(reward_model.std)
        assert head is not None
        with torch.no_grad():
            head.weight.copy_(scorer.score.weight / std)
            bias = 0.0 if scorer.score.bias is None else float(scorer.score.bias)
            head.bias.fill_((bias - float(reward_model.mean)) / std)
        return critic

    def shard(self, mesh: DeviceMesh) -> None:
        """Deal the weights out to the devices of a mesh (FSDP2)."""
        shard(self.model, mesh)
        if self.value_head is not None:
            shard(self.value_head, mesh)

    def save(self, folder: str | Path, merge: bool | None = None) -> Path:
        """Write a Hugging Face folder (safetensors, tokenizer, generation config); whole or not at all.

        Where the weights are dealt out to several ranks all of them have to call, and rank zero writes.

        Args:
            folder: where to.
            merge: whether an adapter is merged into the weights; None is as `LoraSpec` has it.

        Raises:
            UserError: if it can't be written.
        """
        model = to_save(self.model)
        if model is None:
            return Path(folder)
        inner = _base(model)
        working = inner.generation_config

        def fill(path: Path) -> None:
            save_model(model, self.codec.tokenizer, path, self.lora.merge if merge is None else merge)

        exported = copy.deepcopy(self._exported_generation_config)
        exported.pad_token_id, exported.eos_token_id = self.codec.pad_id, working.eos_token_id
        inner.generation_config = _savable(exported)
        try:
            return write_folder(folder, fill)
        finally:
            inner.generation_config = working

    def forward(
        self,
        prompt_ids: Tensor,
        prompt_mask: Tensor,
        response_ids: Tensor,
        response_mask: Tensor,
        with_values: bool = False,
    ) -> PolicyOutput:
        """Distributions over the response tokens (and their values), in one pass.

        Args:
            prompt_ids: (b, p).
            prompt_mask: (b, p) bool; where it is false the content doesn't matter.
            response_ids: (b, r), padded on the right.
            response_mask: (b, r) bool, likewise.
            with_values: also give values; needs a value head.

        Returns:
            `PolicyOutput`, for the r response positions alone: no logits are computed over the prompt.
        """
        # The last response token predicts nothing that is asked for, so it isn't fed.
        width = response_ids.shape[1]
        if self.kind == "causal":
            ids = torch.cat([prompt_ids, response_ids[:, :-1]], dim=1)
            mask = torch.cat([prompt_mask, response_mask[:, :-1]], dim=1).long()
            kwargs: dict = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
            if self._takes_positions:
                kwargs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
            if self._takes_keep:
                kwargs["logits_to_keep"] = width
            output = self.model(**kwargs, output_hidden_states=with_values)
            hidden = output.hidden_states[-1] if with_values else None
        else:
            start = torch.full_like(response_ids[:, :1], self.inner.config.decoder_start_token_id)
            output = self.model(
                input_ids=prompt_ids,
                attention_mask=prompt_mask.long(),
                decoder_input_ids=torch.cat([start, response_ids[:, :-1]], dim=1),
                use_cache=False,
                output_hidden_states=with_values,
            )
            hidden = output.decoder_hidden_states[-1] if with_values else None
        logits = output.logits[:, -width:]
        if hidden is None:
            return PolicyOutput(logits, None)
        if self.value_head is None:
            raise ValueError("with_values=True needs a policy made with value_head=True")
        values = self.value_head(hidden[:, -width:].to(self.value_head.weight.dtype)).squeeze(-1)
        return PolicyOutput(logits, values.float())

    def token_outputs(
        self,
        prompt_ids: Tensor,
        prompt_mask: Tensor,
        response_ids: Tensor,
        response_mask: Tensor,
        temperature: float = 1.0,
        with_values: bool = False,
    ) -> TokenOutput:
        """What `forward` says of the response tokens themselves, computed where they are and nowhere else.

        Rows are put together without padding between prompt and response, the output layer sees response tokens alone,
        and its logits are never held all at once. Models that this can't be done with go through `forward`: encoder-
        decoder models, weights that are dealt out to devices, and output layers that are more than a matrix.

        Args:
            prompt_ids, prompt_mask, response_ids, response_mask: as in `forward`.
            temperature: what logits are divided by.
            with_values: also give values; needs a value head.
        """
        inputs = prompt_ids, prompt_mask, response_ids, response_mask
        if not self.has_plain_head or not bool(prompt_mask.any(1).all()):
            output = self(*inputs, with_values=with_values)
            right = output.logits.detach().argmax(-1) == response_ids
            return TokenOutput(
                token_logprobs(output.logits, response_ids, temperature).masked_fill(~response_mask, 0.0),
                entropy(output.logits.detach(), temperature).masked_fill(~response_mask, 0.0),
                right & response_mask,
                None if output.values is None else output.values.masked_fill(~response_mask, 0.0),
            )
        return self._token_outputs(*inputs, temperature, with_values)

    def _token_outputs(
        self,
        prompt_ids: Tensor,
        prompt_mask: Tensor,
        response_ids: Tensor,
        response_mask: Tensor,
        temperature: float,
        with_values: bool,
    ) -> TokenOutput:
        ids, starts = aligned(prompt_ids, prompt_mask, response_ids, response_mask, self.codec.pad_id)
        hidden = self.inner.base_model(input_ids=ids, use_cache=False).last_hidden_state
        row, column = response_mask.nonzero(as_tuple=True)
        states = hidden[row, starts[row] + column]
        head: Any = self.inner.get_output_embeddings()
        said = head_logprobs(states, head.weight, head.bias, response_ids[row, column], temperature)

        def spread(values: Tensor) -> Tensor:
            return values.new_zeros(response_ids.shape).index_put((row, column), values)

        values = None
        if with_values:
            if self.value_head is None:
                raise ValueError("with_values=True needs a policy made with value_head=True")
            values = spread(self.value_head(states.to(self.value_head.weight.dtype)).squeeze(-1).float())
        return TokenOutput(spread(said.logprobs), spread(said.entropy), spread(said.best), values)

    @property
    def has_plain_head(self) -> bool:
        """Whether logits are the last hidden states times a matrix, and rows may be padded on the right.

        Nothing in a transformers model says so (some scale or cap their logits), so a few tokens are tried, once.
        """
        if self._plain is None:
            self._plain = self._looks_plain()
        return self._plain

    @torch.no_grad()
    def _looks_plain(self) -> bool:
        if self.kind != "causal" or is_sharded(self.model) or self.inner.base_model is self.inner:
            return False
        if getattr(self.inner.config.get_text_config(), "final_logit_softcapping", None):
            return False  # a cap that small logits hardly feel
        head: Any = self.inner.get_output_embeddings()
        if type(head) is not nn.Linear or hasattr(head.weight, "ds_id"):  # DeepSpeed has it in pieces
            return False
        ids = torch.arange(9, device=self.device).view(3, 3) % len(head.weight)
        prompt_mask = torch.tensor([[0, 0, 1], [0, 1, 1], [1, 1, 1]], device=self.device).bool()
        response_mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0]], device=self.device).bool()
        inputs = ids, prompt_mask, ids.flip(1), response_mask
        with torch.autocast(self.device.type, enabled=False):  # the closer a look, the less passes for rounding
            plain = token_logprobs(self(*inputs).logits, inputs[2])[response_mask]
            try:
                other = self._token_outputs(*inputs, 1.0, False).logprobs[response_mask]
            except Exception:  # whatever a model's own code may raise on what it doesn't know
                return False
            return bool((plain - other).abs().max() < self.tolerance)

    @property
    def is_exact(self) -> bool:
        """Whether it computes in float32 now, so that log-probabilities had in two ways are equal but for rounding."""
        return self.inner.dtype == torch.float32 and not torch.is_autocast_enabled(self.device.type)

    @property
    def tolerance(self) -> float:
        """What rounding may change of a log-probability, with room to spare."""
        return 1e-3 if self.is_exact else 0.2

    def sft_loss(self, batch: SFTBatch) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Weighted mean of the next-token loss, the share of weighted tokens guessed right, each row's loss (b,)."""
        tensors = batch.prompt_ids, batch.prompt_mask, batch.response_ids, batch.response_mask

        def sums(rows: Tensor) -> Tensor:
            inputs = trimmed(*tensors, rows, left=self.kind == "causal")
            output, weights = self.token_outputs(*inputs), batch.weights[rows, : inputs[2].shape[1]]
            return torch.stack([-(output.logprobs * weights).sum(1), (output.best * weights).sum(1)], 1)

        losses, right = by_parts(sums, self.groups(batch.prompt_mask, batch.response_mask)).unbind(1)
        weights = batch.weights.sum(1).clamp(min=1e-8)
        total = batch.weights.sum().clamp(min=1e-8)
        return losses.sum() / total, {"token_accuracy": right.detach().sum() / total}, losses.detach() / weights

    def groups(self, prompt_mask: Tensor, response_mask: Tensor) -> list[Tensor]:
        """Positions of rows, with masks (b, p) and (b, r), that `sft_loss` takes through the model together."""
        return groups(self.model, prompt_mask.sum(1) + response_mask.sum(1))

    @torch.no_grad()
    def complete(self, batch: PromptBatch, sampling: Sampling, turn: int = 0) -> Completions:
        """Answer prompts by transformers' ``generate``, with at most ``codec.max_completion`` tokens.

        Made for every model and strategy, it is what the faster engines in `rlhf_lightning.rollout` are held against.
        ``turn`` says which time these prompts are answered: the same turn gives the same answers.
        """
        from transformers import GenerationConfig

        width = self.codec.max_completion
        how = GenerationConfig(do_sample=False, max_new_tokens=width)
        how.pad_token_id, how.eos_token_id = self.codec.pad_id, self.eos_ids  # type: ignore[assignment]
        drawing = None
        if not sampling.greedy:
            u = placed(uniforms(batch.ids.tolist(), width, sampling.seed, turn), batch.prompt_ids.device)
            drawing = processors(sampling, u, batch.prompt_ids.shape[1] if self.kind == "causal" else 1)
        ids = self.model.generate(  # type: ignore[operator]
            inputs=batch.prompt_ids,
            attention_mask=batch.prompt_mask.long(),
            generation_config=how,
            logits_processor=drawing,
            synced_gpus=is_sharded(self.model),  # all ranks gather weights until the last has its answers
        )
        return self.completions(ids[:, batch.prompt_ids.shape[1] :] if self.kind == "causal" else ids[:, 1:])

    def completions(self, ids: Tensor) -> Completions:
        """Generated ids (b, r), cut after the first end of sequence, with their texts."""
        mask, ended = mask_after_end(ids, torch.tensor(self.eos_ids, device=ids.device))
        ids = ids.masked_fill(~mask, self.codec.pad_id)
        texts = [self.codec.decode(row[keep].tolist()) for row, keep in zip(ids, mask, strict=True)]
        return Completions(texts, ids, mask, ended)
