"""Rewards of two processes that train together, where one of them fails."""

import json
from datetime import timedelta
from pathlib import Path

import torch
import torch.multiprocessing as mp

from rlhf_lightning.data.rows import Prompt, PromptRow
from rlhf_lightning.errors import UserError
from rlhf_lightning.processes import gathered
from rlhf_lightning.rewards import RewardMix


def fails_on(rank: int):
    def reward(prompts, completions, references, meta):
        if torch.distributed.get_rank() == rank:
            raise ConnectionError("no answer")
        return torch.ones(len(completions))

    return reward


def asks_all(prompts, completions, references, meta):
    """Exchanges something of its own, which must not meet another exchange."""
    return torch.tensor([float(sum(gathered(len(completions))))] * len(completions))


def _rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=timedelta(seconds=20)
    )
    told = {}
    for name, failing in (("first", 0), ("second", 1), ("none", 2)):
        mix = RewardMix({"server": fails_on(failing), "all": asks_all})
        texts = ["a", "b"][: 1 + rank]
        try:
            scores = mix.each([PromptRow(Prompt("p"))] * len(texts), texts, torch.device("cpu"))
            told[name] = str({key: values.tolist() for key, values in scores.items()})
        except UserError as error:
            told[name] = str(error)
        torch.distributed.barrier()  # as a training's next step is: it comes on all of them or on none
    nothing = RewardMix({"server": fails_on(0)}).each([], [], torch.device("cpu")) if rank == 0 else None
    if rank == 1:  # it has samples where the other one has none
        RewardMix({"server": fails_on(0)}).each([PromptRow(Prompt("p"))], ["a"], torch.device("cpu"))
    told["nothing"] = str(nothing and nothing["server"].tolist())
    Path(folder, f"told_{rank}.json").write_text(json.dumps(told))
    torch.distributed.destroy_process_group()


def test_where_a_reward_fails_on_one_process_all_end_with_its_message(tmp_path: Path):
    mp.spawn(_rank, (str(tmp_path),), nprocs=2)
    one, other = (json.loads((tmp_path / f"told_{rank}.json").read_text()) for rank in range(2))
    for name in ("first", "second"):
        assert "the reward 'server' failed" in one[name]
        assert "ConnectionError: no answer" in one[name]
        assert one[name] == other[name]
    assert (one["none"], other["none"]) == (
        "{'server': [1.0], 'all': [3.0]}",
        "{'server': [1.0, 1.0], 'all': [3.0, 3.0]}",
    )
    assert one["nothing"] == "[]"
