"""Rankings: their pairs stay together, on any number of ranks, and stand for one order."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lightning.data.batches import pair_batch
from rlhf_lightning.data.encoding import Codec
from rlhf_lightning.data.modules import PreferenceDataModule
from rlhf_lightning.data.order import Portion
from rlhf_lightning.data.rankings import ranks, together
from rlhf_lightning.data.rows import PreferenceRow, Prompt, UnpairedRow
from rlhf_lightning.errors import UserError


def ranking(name: str, *places: int, ties: bool = False) -> list[PreferenceRow]:
    """All pairs of completions with these places, the lowest the best; of tied ones only with ``ties``."""
    k, rows = len(places), []
    for a, b in itertools.permutations(range(k), 2):
        if places[a] < places[b] or (ties and a < b and places[a] == places[b]):
            p = 0.5 if places[a] == places[b] else 1.0
            rows.append(PreferenceRow(Prompt(name), f"{a}" * 3, f"{b}" * 3, 2 / (k * (k - 1)), 0.0, p, name))
    return rows


@pytest.fixture
def codec(tokenizer):
    return Codec(tokenizer("llama"), "causal", 40, 20)


@given(st.lists(st.sampled_from(["a", "b", "c", None]), max_size=20))
def test_rows_are_put_together_by_ranking(names: list[str | None]) -> None:
    rows = [PreferenceRow(Prompt(str(name)), f"{i}", "x", group=name) for i, name in enumerate(names)]
    made = together(rows)
    assert sorted((row.chosen for element in made for row in element), key=int) == [row.chosen for row in rows]
    assert len(made) == len(set(names) - {None}) + names.count(None)
    for element in made:
        assert len({row.group for row in element}) == 1
        assert len(element) == (1 if element[0].group is None else names.count(element[0].group))
        assert [int(row.chosen) for row in element] == sorted(int(row.chosen) for row in element)
    firsts = [int(element[0].chosen) for element in made]
    assert firsts == sorted(firsts)


def test_a_ranking_is_of_one_prompt() -> None:
    with pytest.raises(UserError, match=r"the ranking 'r' has pairs of several prompts.*task\.format\.group"):
        together([*ranking("r", 0, 1), replace(ranking("r", 0, 1)[0], prompt=Prompt("other"))])


@given(st.lists(st.integers(0, 4), min_size=2, max_size=6), st.booleans(), st.randoms())
def test_the_order_is_read_off_the_pairs(places: list[int], ties: bool, random) -> None:
    """For each completion how many are better, whatever the order of the pairs; where none differ there is no pair."""
    rows = ranking("r", *places, ties=ties)
    random.shuffle(rows)
    if rows:
        expected = {f"{i}" * 3: sum(other < place for other in places) for i, place in enumerate(places)}
        found = ranks(rows)
        assert found == {text: expected[text] for text in found}
        if ties or len(set(places)) > 1:
            assert len(found) == len(places)


@pytest.mark.parametrize(
    "rows",
    [
        ranking("r", 0, 1, 2)[::2],  # the first and the last are not compared
        [*ranking("r", 0, 1), replace(ranking("r", 1, 0)[0])],  # each beats the other
        [replace(row, chosen=a, rejected=b) for row, (a, b) in zip(ranking("r", 0, 1, 2), ["ab", "bc", "ca"])],  # noqa: B905
        [*ranking("r", 0, 1), replace(ranking("r", 0, 1)[0], probability=0.5)],  # better, and tied
    ],
)
def test_pairs_that_make_no_order_are_refused(rows: list[PreferenceRow], codec) -> None:
    with pytest.raises(UserError, match=r"the pairs of the ranking 'r' make no order"):
        ranks(rows)
    assert PreferenceDataModule(rows, [], codec).train, "by its pairs it can be learnt"
    with pytest.raises(UserError, match="make no order"):
        PreferenceDataModule(rows, [], codec, ranking="plackett_luce")


@pytest.mark.parametrize("more", [{"margin": 0.5}, {"probability": 0.75}])
def test_what_an_order_does_not_have_is_refused(more: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"margin or a probability.*choose reward\.ranking=pairs"):
        ranks([replace(ranking("r", 0, 1)[0], **more)])


def test_plackett_luce_needs_a_ranking(codec) -> None:
    rows = [PreferenceRow(Prompt("a"), "b", "c"), UnpairedRow(Prompt("a"), "b", True)]
    with pytest.raises(UserError, match=r"needs rankings, and no preference is of one.*task\.format\.group"):
        PreferenceDataModule(rows, [], codec, ranking="plackett_luce")


def test_a_ranking_of_k_is_k_texts(codec) -> None:
    rows = ranking("r", 2, 0, 1, 1, ties=True)
    batch = pair_batch([rows], codec)
    assert len(batch.input_ids) == len(batch.lengths) == 4
    assert (len(batch.weight), batch.portion.real, batch.uses.tolist()) == (6, 1, [1] * 4)
    for i, row in enumerate(rows):
        for text, at in ((row.chosen, batch.chosen[i]), (row.rejected, batch.rejected[i])):
            assert batch.input_ids[at][batch.mask[at]].tolist() == codec.encode_pair(row.prompt, text).ids
    assert batch.weight.tolist() == pytest.approx([1 / 6] * 6)
    assert batch.probability.tolist() == [row.probability for row in rows]
    assert batch.rankings is None


def test_a_text_of_several_judgements_is_held_once(codec) -> None:
    """Chat prompts too; another prompt, or one cut elsewhere, is another text."""
    chat = [{"role": "user", "content": "hi"}]
    rows = [
        PreferenceRow(Prompt("p"), "a", "b"),
        PreferenceRow(Prompt("p"), "a", "c"),
        PreferenceRow(Prompt("q"), "a", "b"),
        UnpairedRow(Prompt("p"), "a", False, 2),
        UnpairedRow(Prompt("p", (0, 1)), "a", True),
    ]
    batch = pair_batch(rows, codec, Portion([0, 1, 2, 3, 4], 4))
    assert len(batch.input_ids) == 6
    assert batch.uses.tolist() == [3, 1, 1, 1, 1, 0]
    assert (batch.chosen.tolist(), batch.rejected.tolist()) == ([0, 0, 3], [1, 2, 4])
    assert batch.thumbs is not None
    assert batch.thumbs.text.tolist() == [0, 5]
    assert batch.thumbs.label.tolist() == [0.0, 1.0]
    assert batch.thumbs.weight.tolist() == [2.0, 1.0]
    assert batch.thumbs.counts.tolist() == [True, False]
    moved = batch.to("meta")
    assert moved.thumbs is not None
    assert moved.thumbs.text.device.type == "meta", "what is nested is moved along"
    from rlhf_lightning.data.batches import _key

    assert _key(Prompt(chat), "a") == _key(Prompt([dict(chat[0])]), "a") != _key(Prompt(str(chat)), "a")


def test_rankings_that_are_learnt_as_such(codec) -> None:
    """Their pairs are there for the accuracy, and have no weight; pairs by themselves keep theirs."""
    elements = together([*ranking("r", 0, 1, 1), PreferenceRow(Prompt("p"), "a", "b", 3.0), *ranking("s", 1, 0)])
    batch = pair_batch(elements, codec, plackett_luce=True)
    assert batch.weight.tolist() == [0.0, 0.0, 3.0, 0.0]
    assert batch.rankings is not None
    assert batch.rankings.ranking.tolist() == [0, 0, 0, 1, 1]
    assert batch.rankings.rank.tolist() == [0, 1, 1, 0, 1]
    assert batch.rankings.text.tolist() == [0, 1, 2, 5, 6]
    assert batch.rankings.weight.tolist() == pytest.approx([2 / 3, 1.0])


@pytest.mark.parametrize("way", ["pairs", "plackett_luce"])
def test_rankings_stay_whole_on_any_number_of_ranks(way, codec) -> None:
    """Two ranks with batches of 2 elements have, batch by batch, what one has with batches of 4; resumed, too."""
    rows = [row for i in range(7) for row in ranking(f"r{i}", *range(2 + i % 3))]
    rows += [PreferenceRow(Prompt(f"p{i}"), "a", "b") for i in range(5)]
    rows += [UnpairedRow(Prompt(f"u{i}"), "a", i % 2 == 0) for i in range(4)]

    def batches(rank: int, world: int, accumulate: int = 1, ready: int = 0) -> list:
        module = PreferenceDataModule(rows, [], codec, batch_size=4 // world // accumulate, ranking=way)
        progress = SimpleNamespace(batch_progress=SimpleNamespace(current=SimpleNamespace(ready=ready)))
        module.trainer = SimpleNamespace(  # type: ignore[assignment]
            world_size=world,
            global_rank=rank,
            accumulate_grad_batches=accumulate,
            fit_loop=SimpleNamespace(epoch_loop=progress),
        )
        loader = module.train_dataloader()
        loader.sampler.set_epoch(2)  # type: ignore[union-attr]
        return list(loader)

    def held(*parts) -> tuple[int, int, float, list[int]]:
        """Pairs, thumbs, weight and tokens."""
        thumbs = [batch.thumbs for batch in parts if batch.thumbs is not None]
        weight = sum(float((batch.weight * batch.counts).sum()) for batch in parts)
        weight += sum(float((t.weight * t.counts).sum()) for t in thumbs)
        weight += sum(float(batch.rankings.weight.sum()) for batch in parts if batch.rankings is not None)
        pairs, up = sum(int(b.counts.sum()) for b in parts), sum(int(t.counts.sum()) for t in thumbs)
        tokens = sum(int((batch.mask.sum(1) * batch.uses).sum()) for batch in parts)
        return pairs, up, round(weight, 5), [tokens]

    whole = batches(0, 1)
    assert [batch.portion.real for batch in whole] == [4, 4, 4, 4]
    assert len({len(batch.weight) for batch in whole}) > 1, "the test needs batches of unequally many pairs"
    assert sum(held(batch)[0] for batch in whole) == sum(isinstance(row, PreferenceRow) for row in rows)
    assert sum(held(batch)[2] for batch in whole) == pytest.approx(16), "a ranking weighs as much as a pair"
    parts = [batches(rank, 2) for rank in range(2)]
    assert [held(*both) for both in zip(*parts, strict=True)] == [held(batch) for batch in whole]
    accumulated = [batches(rank, 2, 2) for rank in range(2)]
    steps = [[b for part in accumulated for b in part[2 * i : 2 * i + 2]] for i in range(4)]
    assert [held(*step) for step in steps] == [held(batch) for batch in whole]
    for batch in [*whole, *(b for part in (*parts, *accumulated) for b in part)]:
        names = [codec.decode(batch.input_ids[i].tolist()) for i in batch.chosen.tolist()]
        for i in range(7):
            k = 2 + i % 3
            assert sum(name.startswith(f"r{i}") for name in names) in (0, k * (k - 1) // 2), "all pairs or none"
    rest = batches(1, 2, ready=2)
    assert [b.input_ids.tolist() for b in rest] == [b.input_ids.tolist() for b in parts[1][2:]]
