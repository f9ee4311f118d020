"""People as the reward of two processes that train together."""

import json
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Literal, NamedTuple

import pytest
import torch
import torch.multiprocessing as mp

pytest.importorskip("sqlalchemy", reason="needs the extra feedback")

from rlhf_lightning.data.rows import Prompt, PromptRow
from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.events import Annotator, Event
from rlhf_lightning.feedback.items import Item
from rlhf_lightning.feedback.payloads import Thumbs
from rlhf_lightning.feedback.store import Store
from rlhf_lightning.rewards import PeopleReward, RewardMix

PATIENCE = timedelta(seconds=6)
"""How long an exchange between the processes may last here; by default it is 10 to 30 minutes."""


def said(item: Item, up: bool | None) -> Event:
    return Event(
        project="reward",
        item=item.id,
        kind=item.kind,
        asked=item.asked,
        candidates=item.candidates,
        annotator=Annotator(id="p"),
        payload=None if up is None else Thumbs(up=(up,)),
        status="skipped" if up is None else "submitted",
    )


def judge(place: Path, count: int, thumbs: dict[str, bool | None], slow: str | None = None) -> None:
    """Wait until so many questions are there at once, and answer them: one of them late."""
    with Store(place) as store:
        while len(items := list(store.items("reward"))) < count:
            time.sleep(0.02)
        late = [item for item in items if item.candidates[0].text == slow]
        store.add([said(item, thumbs[item.candidates[0].text]) for item in items if item not in late])
        if late:
            time.sleep(1.6 * PATIENCE.total_seconds())
            store.add([said(item, thumbs[item.candidates[0].text]) for item in late])


class Scene(NamedTuple):
    """Which texts the two processes have, by turns and one in common, and what people say of them.

    Attributes:
        thumbs: None is a skip.
        slow: the text that is judged last, when an exchange between the processes could no longer wait.
        on_failure: see `RewardMix`.
        told: what each process should be told.
    """

    thumbs: dict[str, bool | None]
    slow: str | None
    on_failure: Literal["stop", "mask"]
    told: tuple[str, str]


FAILED = "the reward 'people' failed: nobody judged them within 1 minutes"
SCENES = {
    "slow": Scene({"a": True, "b": False, "c": False, "d": True}, "b", "stop", ("[1.0, 0.0, 1.0]", "[0.0, 1.0, 1.0]")),
    "stop": Scene({"a": True, "b": None}, None, "stop", (FAILED, FAILED)),
    "mask": Scene({"a": True, "b": None}, None, "mask", ("[1.0, 1.0]", "[nan, 1.0]")),
}


def _rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=PATIENCE
    )
    told = {}
    for name, scene in SCENES.items():
        place = Path(folder, f"{name}.db")
        reward = PeopleReward(str(place), minutes=1, poll=0.02)
        thumbs = {**scene.thumbs, "both": True}
        people = threading.Thread(target=judge, args=(place, len(thumbs), thumbs, scene.slow))
        if rank == 0:
            people.start()
        texts = [*list(scene.thumbs)[rank::2], "both"]
        mix = RewardMix({"people": reward}, on_failure=scene.on_failure)
        try:
            told[name] = str(
                mix.each([PromptRow(Prompt("p"))] * len(texts), texts, torch.device("cpu"))["people"].tolist()
            )
        except UserError as error:
            told[name] = str(error)
        torch.distributed.barrier()  # as a training's next step is: it comes on all of them or on none
        if rank == 0:
            people.join()
    Path(folder, f"told_{rank}.json").write_text(json.dumps(told))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_all_are_asked_about_at_once_and_no_process_waits_in_vain_for_the_other_s(tmp_path: Path):
    mp.spawn(_rank, (str(tmp_path),), nprocs=2)
    for rank in range(2):
        told = json.loads((tmp_path / f"told_{rank}.json").read_text())
        assert told == {name: scene.told[rank] for name, scene in SCENES.items()}
    for name, scene in SCENES.items():
        with Store(tmp_path / f"{name}.db") as store:
            assert sorted(item.candidates[0].text for item in store.items()) == sorted([*scene.thumbs, "both"])
