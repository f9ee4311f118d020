"""Steps that would ruin the weights are not taken."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.strategies import DeepSpeedStrategy
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn

from rlhf_lightning.errors import UserError
from rlhf_lightning.memory import keep_freed_memory
from rlhf_lightning.stages.timing import TimedModule


@dataclass
class Watched:
    """Samples that a step is made of.

    Attributes:
        texts: gives the b samples as text; only called where something is wrong.
        numbers: (b,) or (b, r) by name: what has to be finite.
    """

    texts: Callable[[], list[str]]
    numbers: dict[str, Tensor]

    def bad(self) -> dict[str, list[int]]:
        """For each name the samples that it is not finite for; only names that have such."""
        found = {}
        for name, values in self.numbers.items():
            rows = ~values.detach().isfinite().flatten(1) if values.dim() > 1 else ~values.detach().isfinite()[:, None]
            if rows.any():
                found[name] = rows.any(1).nonzero()[:, 0].tolist()
        return found


class GuardedModule(TimedModule):
    """A stage that takes no step on numbers that are not finite.

    Such a step is left out as a whole, on every rank; the samples behind it are written to ``bad_batch/`` in the
    Trainer's folder, with their numbers. After ``max_bad_steps`` of them the training stops: something is wrong.

    Args:
        stage: name that it logs under.
        max_bad_steps: at which it stops.
    """

    def __init__(self, stage: str, max_bad_steps: int = 3) -> None:
        super().__init__()
        if max_bad_steps < 1:
            raise UserError(f"{stage}.max_bad_steps must be at least 1, not {max_bad_steps}")
        self.stage, self.max_bad_steps, self.bad_steps = stage, max_bad_steps, 0
        self._watched: list[Watched] = []

    def setup(self, stage: str) -> None:
        """See `keep_freed_memory`."""
        if stage == "fit" and self.trainer.strategy.root_device.type == "cpu":
            keep_freed_memory()

    def watch(self, texts: Callable[[], list[str]], **numbers: Tensor) -> None:
        """Add samples to the coming step."""
        self._watched.append(Watched(texts, {name: values.detach() for name, values in numbers.items()}))

    def sound(self, gradient: Tensor | None = None) -> bool:
        """Whether the coming step may be taken: all that is watched, and the gradient's norm, are finite on every rank.

        The samples are then forgotten.

        Raises:
            UserError: at the last bad step that is put up with, naming quantity and samples.
        """
        watched, self._watched = self._watched, []
        own = all(values.isfinite().all() for one in watched for values in one.numbers.values())
        fine = own and (gradient is None or bool(gradient.isfinite()))
        if self.trainer.world_size > 1:
            fine = self.trainer.strategy.reduce_boolean_decision(fine, all=True)
        if not fine:
            self._reject(watched, gradient)
        return fine

    def _reject(self, watched: list[Watched], gradient: Tensor | None) -> None:
        self.bad_steps += 1
        samples, named = [], []
        for one in watched:
            texts, bad = one.texts(), one.bad()
            for name, rows in bad.items():
                named += [f"{name} of {texts[i][-160:]!r}" for i in rows[:2]]
            for i, text in enumerate(texts):
                numbers = {name: _plain(values[i]) for name, values in one.numbers.items()}
                samples.append({"text": text, "bad": [name for name, rows in bad.items() if i in rows], **numbers})
        weights = []
        if gradient is not None:
            grads = ((name, weight.grad) for name, weight in self.named_parameters())
            weights = [name for name, grad in grads if grad is not None and not _local(grad).isfinite().all()]
            named += [f"the gradient of {name}" for name in weights[: 0 if named else 2]]
        folder = Path(self.trainer.default_root_dir, "bad_batch")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.bad_steps}-rank{self.trainer.global_rank}.json"
        content = {"step": self.trainer.global_step, "gradients": weights, "samples": samples}
        path.write_text(json.dumps(content, ensure_ascii=True, indent=1), encoding="utf-8")
        what = "; ".join(named[:4]) or "something on another rank"
        said = f"not finite in {self.stage}, at optimizer step {self.trainer.global_step + 1}: {what}"
        # DeepSpeed's engine takes its step whatever we find.
        allowed = 1 if isinstance(self.trainer.strategy, DeepSpeedStrategy) else self.max_bad_steps
        if self.bad_steps >= allowed:
            raise UserError(
                f"{said}. This was step {self.bad_steps} of {allowed} that could not be taken, so the "
                f"training stops. The samples are in {folder}, with their numbers: look at their scores, and try a "
                "lower learning rate"
                + ("." if self.trainer.precision == "32-true" else ", or trainer.precision=32-true.")
            )
        rank_zero_warn(f"{said}. The step is not taken; the samples are in {path}")

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradient as the Trainer was told, or drop it where the step is not to be taken."""
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            # Half precision's scaler leaves out the steps whose gradient is too large for it, and expects some.
            self.sound()
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        norm = gradient_norm(self.parameters())
        if not self.sound(norm):
            drop_gradients(self.parameters())
        elif gradient_clip_val and gradient_clip_algorithm in (None, "norm"):
            clip_to(self.parameters(), gradient_clip_val, norm)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What has gone wrong and been seen so far counts on when the training is resumed."""
        checkpoint["bad_steps"], checkpoint["totals"] = self.bad_steps, self.totals

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it up again."""
        self.bad_steps, self.totals = checkpoint["bad_steps"], checkpoint["totals"]


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The 2-norm of all gradients, over all shards."""
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


def clip_to(parameters: Iterable[nn.Parameter], bound: float, norm: Tensor) -> None:
    """Scale gradients of this norm down to the bound, if they exceed it."""
    factor = float(bound / (norm + 1e-6))
    for gradient in (p.grad for p in parameters if p.grad is not None):
        if factor < 1:
            _local(gradient).mul_(factor)


def drop_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Let the optimizer's next step do nothing: it passes over weights without a gradient, and keeps its averages."""
    for parameter in parameters:
        parameter.grad = None


def _local(x: Tensor) -> Tensor:
    return x.to_local() if hasattr(x, "to_local") else x


def _plain(values: Tensor) -> Any:
    """Numbers as JSON has them; those that it doesn't have as text."""
    if values.dim():
        return [_plain(v) for v in values]
    number = float(values)
    return number if bool(values.isfinite()) else str(number)
