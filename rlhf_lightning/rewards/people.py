"""What people say of each response, as the reward itself: no reward model in between."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from rlhf_lightning.errors import UserError
from rlhf_lightning.processes import agreed, first_alone, gathered, is_first
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

    Attributes:
        check: called while people are waited for; it raises if the run is to stop. What was judged by then is kept.

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
        self.check: Callable[[], None] = lambda: None
        self.told = False

    def __call__(
        self, prompts: list[str], completions: list[str], references: list[list[str]], meta: list[dict[str, Any]]
    ) -> Tensor:
        """(b,) means of what people said, 0 to 1.

        Of several processes each gets those of its own responses; the first one asks about all of them at once, while
        the others wait for as long as it takes. So it has to be called on all of them.

        Raises:
            RewardFailure: if nobody has judged some of the responses in time; on every process, as the run has to end
                on all of them alike.
        """
        from rlhf_lightning.feedback.text import whole_text

        # Half a surrogate pair, which a byte-level tokenizer can give, is no character that a store could hold.
        own = [(whole_text(prompt), whole_text(text)) for prompt, text in zip(prompts, completions, strict=True)]
        everyone = list(dict.fromkeys(pair for part in gathered(own) for pair in part))
        said: list[float | None] = []

        def ask(goes_on: Callable[[], None]) -> None:
            said.extend(self._ask(everyone, goes_on))

        first_alone(ask, is_first())
        told = dict(zip(everyone, json.loads(agreed(lambda: json.dumps(said))), strict=True))
        values = torch.tensor([math.nan if told[pair] is None else told[pair] for pair in own])
        if None in told.values():
            raise RewardFailure(f"nobody judged them within {self.minutes:g} minutes", values)
        return values

    def _ask(self, pairs: Sequence[tuple[str, str]], goes_on: Callable[[], None]) -> list[float | None]:
        """What people say of prompts with responses, all of them different; None where there were too few in time."""
        from rlhf_lightning.feedback.events import Asked, Candidate, digest
        from rlhf_lightning.feedback.items import Item

        made = [
            Item(
                id=digest(f"{self.project}|{prompt}|{text}")[:20],
                kind=self.kind,
                asked=Asked(text=prompt),
                candidates=(Candidate(text=text),),
                strategy="reward",
                raters=self.raters,
            )
            for prompt, text in pairs
        ]
        self.store.note_texts()
        new = self.store.add_items(made, self.project)
        items = [self.store.stored_item(item) for item in made]
        if new and not self.told:
            self.told = True
            warnings.warn(
                f"responses wait for people: rlhf-feedback serve --store {self.store.shown_place} "
                f"--project {self.project} --raters {self.raters}",
                stacklevel=6,
            )
        wanted = {item.id for item in items}
        deadline, read = time.monotonic() + 60 * self.minutes, -1
        while True:
            self.check()
            goes_on()
            if read != (read := self.store.newest()):
                found = self.store.answered(self.project, self.raters)
            if wanted <= found or time.monotonic() >= deadline:
                return self._judged(items)
            time.sleep(self.poll)

    def _judged(self, items: Sequence[Item]) -> list[float | None]:
        """What is known of each by now; None where too few people have judged it."""
        from rlhf_lightning.feedback.events import digest
        from rlhf_lightning.feedback.holding import current
        from rlhf_lightning.feedback.items import unanswered
        from rlhf_lightning.feedback.rewarding import reward_of

        events = list(self.store.events(self.project))
        open_ = {item.id for item in unanswered(items, events, self.raters)}
        known = reward_of(current(events))
        return [
            None if item.id in open_ else known.get((digest(item.asked.plain), digest(item.candidates[0].text)))
            for item in items
        ]


def unattended(rewards: dict[str, Callable[..., Tensor]]) -> dict[str, Any]:
    """The rewards that answers can be measured by: those that ask nobody."""
    return {name: reward for name, reward in rewards.items() if not getattr(reward, "asks_people", False)}
