"""What people say of each response, as the reward itself: no reward model in between."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from rlhf_lightning.errors import UserError
from rlhf_lightning.rewards.functions import RewardFailure

if TYPE_CHECKING:
    from rlhf_lightning.feedback.items import Item


class PeopleReward:
    """Asks people about each response, and waits for their thumbs (1 or 0) or ratings (share of the scale).

    Questions go into a store, which `rlhf-feedback serve --store ... --project ...` shows to people at the same time. A
    response that has been judged before is not asked about again. In measuring answers it has no part: people would
    have to judge all held-out rows, again and again. Personal data in prompt and response is replaced before people see
    them.

    Args:
        store: a file, or ``postgresql://...``.
        project: of the questions.
        kind: ``thumbs`` or ``rating`` (1 to 5).
        raters: people that judge each response; their judgements are averaged.
        minutes: how long a round of responses is waited for. Those without a judgement by then have no reward, which
            stops the run or (``ppo.on_reward_failure=mask``) leaves them out.
        poll: seconds between two looks.

    Raises:
        UserError: if the store can't be opened, or an option is none of these.
    """

    asks_people = True
    """It is used where responses are learnt from, and not where answers are measured."""

    def __init__(
        self,
        store: str,
        project: str = "reward",
        kind: Literal["thumbs", "rating"] = "thumbs",
        raters: int = 1,
        minutes: float = 60.0,
        poll: float = 1.0,
    ) -> None:
        from rlhf_lightning.feedback.privacy.storing import Scrubber
        from rlhf_lightning.feedback.store import Store

        if kind not in ("thumbs", "rating"):
            raise UserError(f"people are asked for thumbs or a rating, not {kind!r}")
        if raters < 1 or not minutes > 0:
            raise UserError("raters must be at least 1, and minutes above 0")
        self.store, self.project, self.kind, self.raters = (
            Store(store, scrubber=Scrubber()),
            project,
            kind,
            raters,
        )
        self.minutes, self.poll = minutes, poll
        self.told = False

    def __call__(
        self, prompts: list[str], completions: list[str], references: list[list[str]], meta: list[dict[str, Any]]
    ) -> Tensor:
        """(b,) means of what people said, 0 to 1.

        Raises:
            RewardFailure: for the responses that nobody has judged in time.
        """
        from rlhf_lightning.feedback.events import Asked, Candidate, digest
        from rlhf_lightning.feedback.items import Item
        from rlhf_lightning.feedback.text import whole_text

        # Half a surrogate pair, which a byte-level tokenizer can give, is no character that a store could hold.
        pairs = [(whole_text(prompt), whole_text(text)) for prompt, text in zip(prompts, completions, strict=True)]
        items: dict[tuple[str, str], Item] = {}
        for prompt, text in pairs:
            asked, candidate = Asked(text=prompt), Candidate(text=text)
            items.setdefault(
                (digest(prompt), digest(text)),
                Item(
                    id=digest(f"{self.project}|{prompt}|{text}")[:20],
                    kind=self.kind,
                    asked=asked,
                    candidates=(candidate,),
                    strategy="reward",
                    raters=self.raters,
                ),
            )
        found = self._wait(items)
        values = torch.tensor([found.get((digest(prompt), digest(text)), math.nan) for prompt, text in pairs])
        if values.isnan().any():
            raise RewardFailure(f"nobody judged them within {self.minutes:g} minutes", values)
        return values

    def _wait(self, items: dict[tuple[str, str], Item]) -> dict[tuple[str, str], float]:
        self.store.note_texts()
        new = self.store.add_items(items.values(), self.project)
        items = {key: self.store.stored_item(item) for key, item in items.items()}
        if new and not self.told:
            self.told = True
            warnings.warn(
                f"responses wait for people: rlhf-feedback serve --store {self.store.shown_place} "
                f"--project {self.project} --raters {self.raters}",
                stacklevel=3,
            )
        deadline, read = time.monotonic() + 60 * self.minutes, -1
        while True:
            if read != (read := self.store.newest()):
                found, left = self._judged(items)
            if not left or time.monotonic() >= deadline:
                return found
            time.sleep(self.poll)

    def _judged(self, items: dict[tuple[str, str], Item]) -> tuple[dict[tuple[str, str], float], int]:
        """What is known by now, and how many responses have too few judgements."""
        from rlhf_lightning.feedback.events import current, digest
        from rlhf_lightning.feedback.items import unanswered
        from rlhf_lightning.feedback.rewarding import reward_of

        events = list(self.store.events(self.project))
        open_ = {item.id for item in unanswered(items.values(), events, self.raters)}
        known = reward_of(current(events))
        told = {key: (digest(item.asked.plain), digest(item.candidates[0].text)) for key, item in items.items()}
        done = [key for key, item in items.items() if item.id not in open_ and told[key] in known]
        return {key: known[told[key]] for key in done}, len(open_)


def unattended(rewards: dict[str, Callable[..., Tensor]]) -> dict[str, Any]:
    """The rewards that answers can be measured by: those that ask nobody."""
    return {name: reward for name, reward in rewards.items() if not getattr(reward, "asks_people", False)}
