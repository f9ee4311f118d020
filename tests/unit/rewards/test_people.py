import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("sqlalchemy", reason="needs the extra feedback")

from rlhf_lightning.callbacks import StopRequest
from rlhf_lightning.data.rows import Prompt, PromptRow
from rlhf_lightning.errors import Preempted, UserError
from rlhf_lightning.feedback.events import Annotator, Event
from rlhf_lightning.feedback.items import Item
from rlhf_lightning.feedback.payloads import Rating, Thumbs
from rlhf_lightning.feedback.store import Store
from rlhf_lightning.pipeline.measure import functions
from rlhf_lightning.rewards import ConstantReward, PeopleReward, RewardFailure, RewardMix, unattended


def said(item: Item, person: str, payload: Thumbs | Rating | None, status: str = "submitted") -> Event:
    return Event(
        project="reward",
        item=item.id,
        kind=item.kind,
        asked=item.asked,
        candidates=item.candidates,
        annotator=Annotator(id=person),
        payload=payload,
        status=status,  # type: ignore[arg-type]
    )


class People:
    """Judge whatever is asked, from another thread, until they are told to go home."""

    def __init__(self, place: Path, judge, people: int = 1) -> None:
        self.place, self.judge, self.people = place, judge, people
        self.judged: list[str] = []
        self.home = threading.Event()

    def __enter__(self) -> "People":
        self.thread = threading.Thread(target=self._work)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.home.set()
        self.thread.join()

    def _work(self) -> None:
        with Store(self.place) as store:
            while not self.home.is_set():
                for item in list(store.items("reward")):
                    if item.id not in self.judged:
                        self.judged.append(item.id)
                        store.add([said(item, f"p{k}", *self.judge(item, k)) for k in range(self.people)])
                time.sleep(0.02)


def ask(reward: PeopleReward, *texts: str) -> torch.Tensor:
    n = len(texts)
    return reward(["prompt"] * n, list(texts), [[]] * n, [{}] * n)


def test_thumbs_are_1_and_0_and_nothing_is_asked_twice(tmp_path: Path):
    place = tmp_path / "f.db"
    reward = PeopleReward(str(place), minutes=1, poll=0.02)
    with People(place, lambda item, k: (Thumbs(up=(item.candidates[0].text == "good",)),)) as people:
        with pytest.warns(UserWarning, match="rlhf-feedback serve --store"):
            assert ask(reward, "good", "bad", "good").tolist() == [1.0, 0.0, 1.0]
        assert ask(reward, "bad", "good").tolist() == [0.0, 1.0]
    assert len(people.judged) == 2


def test_people_see_no_personal_data(tmp_path: Path):
    reward = PeopleReward(str(tmp_path / "f.db"), minutes=1, poll=0.02)
    with (
        People(tmp_path / "f.db", lambda item, k: (Thumbs(up=(item.candidates[0].text == "ask [EMAIL_1]",)),)),
        pytest.warns(UserWarning, match="wait for people"),
    ):
        assert ask(reward, "ask ada@example.org", "ask me").tolist() == [1.0, 0.0]


def test_ratings_are_shares_of_the_scale_averaged_over_people(tmp_path: Path):
    place = tmp_path / "f.db"
    reward = PeopleReward(str(place), kind="rating", raters=2, minutes=1, poll=0.02)
    with (
        People(place, lambda item, k: (Rating(values={"overall": (5.0 if k else 2.0,)}),), people=2),
        pytest.warns(UserWarning, match="--raters 2"),
    ):
        assert ask(reward, "text").tolist() == pytest.approx([(1.0 + 0.25) / 2])


def test_what_nobody_judges_fails_and_is_never_0(tmp_path: Path):
    place = tmp_path / "f.db"
    reward = PeopleReward(str(place), minutes=0.02, poll=0.02)
    with (
        People(place, lambda item, k: (Thumbs(up=(True,)),) if item.candidates[0].text == "a" else (None, "skipped")),
        pytest.warns(UserWarning, match="wait for people"),
        pytest.raises(RewardFailure, match="nobody judged them") as failed,
    ):
        ask(reward, "a", "b")
    assert failed.value.values[0] == 1.0
    assert failed.value.values[1].isnan()


def test_half_a_surrogate_pair_is_asked_about_all_the_same(tmp_path: Path):
    place = tmp_path / "f.db"
    reward = PeopleReward(str(place), minutes=1, poll=0.02)
    with People(place, lambda item, k: (Thumbs(up=(True,)),)), pytest.warns(UserWarning, match="wait for people"):
        assert ask(reward, "x\ud800").tolist() == [1.0]


@pytest.mark.parametrize("options", [{"kind": "stars"}, {"raters": 0}, {"minutes": 0}])
def test_impossible_options_are_refused(tmp_path: Path, options):
    with pytest.raises(UserError):
        PeopleReward(str(tmp_path / "f.db"), **options)


def test_people_have_no_part_in_measuring(tmp_path: Path):
    rewards = {"people": PeopleReward(str(tmp_path / "f.db")), "constant": ConstantReward(1.0)}
    assert list(unattended(rewards)) == ["constant"]
    assert RewardMix(unattended(rewards)).rewards.keys() == {"constant"}


def test_a_run_that_is_told_to_stop_waits_for_nobody(tmp_path: Path):
    made = {"_target_": "rlhf_lightning.rewards.PeopleReward", "store": str(tmp_path / "f.db"), "poll": 0.02}
    stop = StopRequest()
    run = SimpleNamespace(cfg={"ppo": {"rewards": {"people": made}}}, rewards={}, stop=stop)
    mix = RewardMix(functions(run))  # type: ignore[arg-type]
    threading.Timer(0.3, lambda: setattr(stop, "signalled", True)).start()
    with pytest.warns(UserWarning, match="wait for people"), pytest.raises(Preempted, match="SIGTERM"):
        mix.each([PromptRow(Prompt("p"))], ["a"], torch.device("cpu"))
