"""Sampling with a cache of our own, in which finished responses make room for the next prompts.

Every row in progress has a slot. All slots write their next key and value into the same column of the cache, so that a
step writes one slice and attention reads one contiguous span; a mask hides what lies left of a row's first token. A
prompt that comes in later is put right before the current column, as if it had been padded on the left.

On a GPU the step is recorded once and replayed (`StepGraph`); it then reads all columns of the cache, so that its
shapes stay the same.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from transformers import Cache

from rlhf_lightning.data.batches import PromptBatch
from rlhf_lightning.errors import UserError
from rlhf_lightning.models.generation import Completions, Sampling, draw, placed, truncations, uniforms
from rlhf_lightning.models.policy import Policy
from rlhf_lightning.models.sharding import is_sharded
from rlhf_lightning.rollout.graphs import StepGraph, weights_cast_once
from rlhf_lightning.rollout.merging import merged


class NativeEngine:
    """Draws responses to many prompts at once; a slot that becomes free is given to the next prompt.

    Gives log-probabilities and values of the drawn tokens along, as they fall off. Encoder-decoder models, models with
    an output layer or a cache of another kind, and weights that are dealt out to devices are left to transformers'
    ``generate``, with a warning that says so.

    Args:
        slots: responses in progress at once; bounds the cache's memory.
    """

    is_policy = True

    def __init__(self, slots: int = 64) -> None:
        if slots < 1:
            raise UserError(f"rollout.slots must be at least 1, not {slots}")
        self.slots = slots

    @torch.no_grad()
    def __call__(self, policy: Policy, batch: PromptBatch, sampling: Sampling, turn: int = 0) -> Completions:
        """See `Engine`."""
        if policy.obstacle is None:
            policy.obstacle = obstacle(policy)
            if policy.obstacle:
                rank_zero_warn(
                    f"responses are drawn by transformers' generate (rollout=generate): {policy.obstacle}, which "
                    "rollout=native can't do"
                )
        if policy.obstacle or not bool(batch.prompt_mask.any(1).all()):
            return policy.complete(batch, sampling, turn)
        return complete(policy, batch, sampling, turn, self.slots)


def obstacle(policy: Policy) -> str:
    """Why a policy's responses can't be drawn here; empty where they can.

    Nothing in a transformers model says that its cache and positions can be handled so; a few tokens are tried.
    """
    if policy.kind != "causal":
        return "this is an encoder-decoder model"
    if is_sharded(policy.model):
        return "the weights are dealt out to several devices"
    config, width = policy.inner.config, policy.codec.max_prompt + policy.codec.max_completion
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if (window or width) < width:
        return f"this model looks back {window} tokens only, of {width}"
    if not policy.has_plain_head:
        return "this model's output layer can't be computed apart"
    return "" if _agrees(policy) else "this model's cache or positions work in a way of their own"


def _agrees(policy: Policy) -> bool:
    """Whether prompts of unlike lengths, one of which waits for a slot, get the log-probabilities of a forward."""
    vocabulary = len(policy.inner.get_input_embeddings().weight)  # type: ignore[arg-type]
    ids = (torch.arange(12, device=policy.device).view(3, 4) * 7 + 3) % vocabulary
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]], device=policy.device).bool()
    width = min(3, policy.codec.max_completion)
    with torch.autocast(policy.device.type, enabled=False):  # the closer a look, the less passes for rounding
        try:
            drawn = _Decoding(policy, ids, mask, Sampling(temperature=1.0), torch.full((3, width), 0.5), slots=2).run()
        except Exception:  # whatever a model's own code may raise on what it doesn't know
            return False
        responses = drawn.ids.ge(0)
        said = policy.token_outputs(ids, mask, drawn.ids.clamp(min=0), responses).logprobs
        return bool((said - drawn.logprobs)[responses].abs().max() < policy.tolerance)


def complete(policy: Policy, batch: PromptBatch, sampling: Sampling, turn: int, slots: int) -> Completions:
    """Draw a response to every prompt, with so many in progress at once."""
    width = policy.codec.max_completion
    u = None if sampling.greedy else uniforms(batch.ids.tolist(), width, sampling.seed, turn)
    drawn = _Decoding(policy, batch.prompt_ids, batch.prompt_mask, sampling, u, slots).run()
    ids = drawn.ids[:, : max(int(drawn.ids.ge(0).sum(1).max()), 1)]
    made = policy.completions(ids.masked_fill(ids < 0, policy.codec.pad_id))
    if sampling.greedy or sampling.top_k or sampling.top_p < 1:
        return made  # these aren't the probabilities that tokens were drawn with
    return made._replace(
        logprobs=drawn.logprobs[:, : ids.shape[1]],
        values=None if drawn.values is None else drawn.values[:, : ids.shape[1]],
    )


def recorded(device: torch.device) -> bool:
    """Whether steps are recorded there, and replayed."""
    return device.type == "cuda"


class _Drawn:
    """What is collected: (b + 1, r) each, the last row taking what empty slots draw.

    ``ids`` is -1 where nothing was drawn.
    """

    def __init__(self, rows: int, width: int, device: torch.device, with_values: bool) -> None:
        self.rows = rows
        self._ids = torch.full((rows + 1, width), -1, device=device)
        self._logprobs = torch.zeros(rows + 1, width, device=device)
        self._values = torch.zeros(rows + 1, width, device=device) if with_values else None

    def put(self, rows: Tensor, at: Tensor, ids: Tensor, logprobs: Tensor, values: Tensor | None) -> None:
        self._ids[rows, at], self._logprobs[rows, at] = ids, logprobs
        if self._values is not None and values is not None:
            self._values[rows, at] = values

    @property
    def ids(self) -> Tensor:
        return self._ids[: self.rows]

    @property
    def logprobs(self) -> Tensor:
        return self._logprobs[: self.rows]

    @property
    def values(self) -> Tensor | None:
        return None if self._values is None else self._values[: self.rows]


class SlotCache(Cache):
    """Keys and values of all layers, ``(slots, heads, columns, size)`` each; made when a layer is first written.

    Attributes:
        slots: that a forward pass is of: a tensor of them, or how many from the first.
        source: which of the rows that go through the model each of those slots takes; None is one each.
        span: columns that it writes, as start and end.
        first: column from which attention reads; None where only what is written now is read (a prompt).
        place: (1,) the column that a step writes, where a tensor tells it; attention then reads all columns.
    """

    is_compileable = False

    def __init__(self, slots: int, columns: int) -> None:
        self.layers = []
        self.size, self.columns = slots, columns
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.slots: Tensor | int = slots
        self.source: Tensor | None = None
        self.span = (0, 0)
        self.first: int | None = None
        self.place: Tensor | None = None

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns before those that are written now."""
        return 0 if self.first is None else self.span[0] - self.first

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write a layer's keys and values, and give back all that the queries may look at."""
        kind = key_states.device.type
        if torch.is_autocast_enabled(kind):  # attention would cast all of the cache anew in each step
            half = torch.get_autocast_dtype(kind)
            key_states, value_states = key_states.to(half), value_states.to(half)
        if layer_idx == len(self.keys):
            _, heads, _, size = key_states.shape
            self.keys.append(key_states.new_zeros(self.size, heads, self.columns, size))
            self.values.append(value_states.new_zeros(self.size, heads, self.columns, value_states.shape[-1]))
        start, end = self.span
        keys, values = self.keys[layer_idx], self.values[layer_idx]
        if self.place is not None:
            keys, values = keys[: self.slots], values[: self.slots]
            return keys.index_copy_(2, self.place, key_states), values.index_copy_(2, self.place, value_states)
        rows = self.slots if isinstance(self.slots, Tensor) else slice(self.slots)
        if self.source is not None:
            keys[rows, :, start:end], values[rows, :, start:end] = key_states[self.source], value_states[self.source]
        else:
            keys[rows, :, start:end], values[rows, :, start:end] = key_states, value_states
        if self.first is None:
            return key_states, value_states
        return keys[rows, :, self.first : end], values[rows, :, self.first : end]

    def shift(self, by: int, end: int) -> None:
        """Move columns up to ``end`` to the left."""
        for part in (*self.keys, *self.values):
            part[:, :, : end - by] = part[:, :, by:end].clone()

    def keep(self, slots: Tensor, span: slice) -> None:
        """Let these slots be the first ones; the others are given up."""
        for part in (*self.keys, *self.values):
            part[: len(slots), :, span] = part[slots, :, span]


class _Decoding:
    """One call's state; see the module.

    Args:
        policy: what is asked.
        ids, mask: (b, p) prompts, padded on the left.
        sampling: how tokens are drawn.
        u: (b, r) random numbers, None where tokens aren't drawn at random.
        slots: rows in progress at once.
    """

    def __init__(
        self, policy: Policy, ids: Tensor, mask: Tensor, sampling: Sampling, u: Tensor | None, slots: int
    ) -> None:
        self.policy, self.ids, self.mask, self.sampling = policy, ids, mask, sampling
        self.device, rows = ids.device, len(ids)
        self.width = policy.codec.max_completion if u is None else u.shape[1]
        self.u = None if u is None else placed(torch.cat([u, u.new_zeros(1, self.width)]), self.device)
        self.truncations = truncations(sampling)
        self.ends = torch.tensor(policy.eos_ids, device=self.device)
        self.drawn = _Drawn(rows, self.width, self.device, policy.value_head is not None)
        self.lengths = mask.sum(1)
        self.waiting = deque(self.lengths.argsort(descending=True, stable=True).tolist())
        """Rows without a slot, the longest prompts first: those that come in together hold little padding."""
        self.slots = min(slots, rows)
        longest = int(self.lengths.max())
        refills = rows > self.slots
        columns = longest + self.width * (2 if refills else 1)
        self.graph = StepGraph() if recorded(self.device) else None
        self.cache = SlotCache(self.slots, -(-columns // 8) * 8 if self.graph else columns)  # of 8: attention's kernels
        self.column = longest
        self.row = torch.full((self.slots,), rows, device=self.device)
        """The row that each slot answers; the one after the last where it is empty."""
        self.at = torch.zeros(self.slots, dtype=torch.long, device=self.device)
        self.last = torch.zeros(self.slots, dtype=torch.long, device=self.device)
        self.start = torch.zeros(self.slots, dtype=torch.long, device=self.device)
        """Tokens drawn, the last one, and the column of the first one of the prompt."""
        self.most = longest + self.width - 1
        """Positions that there can be; an empty slot stays below."""
        self.live: list[bool] = [False] * self.slots
        self.first = 0
        self.place = torch.zeros(1, dtype=torch.long, device=self.device)
        self.over = torch.zeros(self.slots, dtype=torch.bool, device=self.device)
        """The column of a step, and whose responses it ended, for steps in place."""
        parameters = inspect.signature(policy.inner.base_model.forward).parameters
        self.cache_name = "cache" if "cache" in parameters else "past_key_values"  # its name since transformers 5.2x

    def run(self) -> _Drawn:
        """Draw until every row has its response."""
        with _evaluating(self.policy), merged(self.policy.model), weights_cast_once(self.device.type):
            while self.waiting or any(self.live):
                if self.waiting and self._room():
                    self._admit()
                elif not self.waiting:
                    self._shrink()
                if any(self.live):
                    self._step()
        return self.drawn

    def _room(self) -> bool:
        """Whether so many slots are free that a pass over new prompts pays."""
        free = self.live.count(False)
        return free >= min(len(self.waiting), max(len(self.live) // 8, 1))

    def _admit(self) -> None:
        """Give the free slots to waiting rows, read their prompts (an equal one once), and draw their first tokens."""
        slots = [i for i, live in enumerate(self.live) if not live][: len(self.waiting)]
        rows = torch.tensor([self.waiting.popleft() for _ in slots], device=self.device)
        where, width = torch.tensor(slots, device=self.device), int(self.lengths[rows].max())
        prompts = torch.where(self.mask, self.ids, -1)[rows, -width:]
        prompts, source = prompts.unique(dim=0, return_inverse=True)
        mask = prompts >= 0
        self.row[where], self.at[where] = rows, 0
        self.start[where] = self.column - self.lengths[rows]
        for slot in slots:
            self.live[slot] = True
        square = torch.ones(width, width, dtype=torch.bool, device=self.device)
        seen = (square.tril() & mask[:, None]) | square.diag().diag()  # padding at least sees itself: else it is NaN
        self.cache.slots, self.cache.source = where, source
        self.cache.span, self.cache.first = (self.column - width, self.column), None
        hidden = self._forward(prompts.clamp(min=0), seen[:, None], (mask.cumsum(1) - 1).clamp(min=0))
        self.cache.source = None
        self._free(slots, self._draw(where, hidden[source, -1]))
        self._look()

    def _look(self) -> None:
        """What follows from the starts of rows: where attention begins, and what it may not look at."""
        live = torch.tensor(self.live, device=self.device)
        self.first = int(self.start[live].min()) if any(self.live) else self.column
        columns = torch.arange(self.cache.columns, device=self.device)
        self.seen = (columns[None] >= self.start[:, None])[:, None, None]

    def _step(self) -> None:
        """Draw the next token of every row in progress."""
        if self.column == self.cache.columns:
            self._look()
            by = min(self.first, self.column - int(self.lengths.max()))
            self.cache.shift(by, self.column)
            self.column -= by
            self.start -= by
            self._look()
        count = len(self.live)
        self.cache.slots, self.cache.span, self.cache.first = count, (self.column, self.column + 1), self.first
        if self.graph is not None:
            self.place.fill_(self.column)
            self.graph(self._step_in_place)
            over = self.over
        else:
            seen = self.seen[..., self.first : self.column + 1]
            position = (self.column - self.start).clamp(max=self.most)
            hidden = self._forward(self.last[:, None], seen, position[:, None])
            over = self._draw(torch.arange(count, device=self.device), hidden[:, -1])
        self.column += 1
        self._free(range(count), over)

    def _step_in_place(self) -> None:
        """A step without a shape or an address that changes from one to the next, and without a word to the host."""
        columns = torch.arange(self.cache.columns, device=self.device)
        seen = (columns >= self.start[:, None]) & (columns <= self.place)
        position = (self.place - self.start).clamp(max=self.most)
        self.cache.place = self.place
        hidden = self._forward(self.last[:, None], seen[:, None, None], position[:, None])
        self.cache.place = None
        self.over.copy_(self._draw(torch.arange(len(self.live), device=self.device), hidden[:, -1]))

    def _forward(self, ids: Tensor, seen: Tensor, positions: Tensor) -> Tensor:
        inner = self.policy.inner
        mask = torch.zeros(seen.shape, dtype=inner.dtype, device=self.device).masked_fill_(
            ~seen, torch.finfo(inner.dtype).min
        )
        output = inner.base_model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            **{self.cache_name: self.cache},
        )
        return output.last_hidden_state

    def _draw(self, slots: Tensor, hidden: Tensor) -> Tensor:
        """Draw a token for each of these slots from its last state; whose response ends with it."""
        policy, rows, at = self.policy, self.row[slots], self.at[slots]
        head: Any = policy.inner.get_output_embeddings()
        logits = head(hidden).float()
        values = None
        if policy.value_head is not None:
            values = policy.value_head(hidden.to(policy.value_head.weight.dtype)).squeeze(-1).float()
        if self.u is None:
            tokens, logprobs = logits.argmax(-1), logits.new_zeros(len(logits))
        else:
            logits = logits.div_(self.sampling.temperature)
            shown = self.truncations(rows[:, None], logits) if self.truncations else logits  # type: ignore[arg-type]
            tokens = draw(shown, self.u[rows, at])
            logprobs = logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(1)
        self.drawn.put(rows, at, tokens, logprobs, values)
        self.last[slots] = tokens
        self.at[slots] = (at + 1).clamp(max=self.width - 1)
        over = (tokens[:, None] == self.ends).any(1) | (at + 1 >= self.width)
        self.row[slots] = rows.masked_fill(over, self.drawn.rows)
        return over

    def _free(self, slots: Iterable[int], over: Tensor) -> None:
        """Free those of the slots whose response is over."""
        for slot, ended in zip(slots, over.tolist(), strict=True):
            if ended:
                self.live[slot] = False

    def _shrink(self) -> None:
        """Give up slots that stay empty, once they are many enough to be worth the copying (or another graph)."""
        count = sum(self.live)
        if not 0 < count <= (0.75 if self.graph is None else 0.5) * len(self.live):
            return
        kept = torch.tensor([i for i, live in enumerate(self.live) if live], device=self.device)
        self.cache.keep(kept, slice(self.first, self.column))
        self.row, self.at, self.last, self.start = (x[kept] for x in (self.row, self.at, self.last, self.start))
        self.over = self.over[:count].clone()
        self.live = [True] * count
        self._look()
        if self.graph is not None:
            self.graph.forget()


@contextmanager
def _evaluating(policy: Policy) -> Iterator[None]:
    """Inference mode of every layer: gradient checkpointing, where it is on, would leave the cache unused."""
    training = policy.training
    policy.eval()
    try:
        yield
    finally:
        policy.train(training)
