"""Every metric on two real processes that update unequally gives the score of the whole corpus."""

import json

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from rlhf_lightning.metrics import BLEU, ROUGE, TER, ChrF, ExactMatch, Guardrails, LabelAccuracy, LabelF1, TokenF1

LABELS = ["positive", "negative"]
# Rows 0 and 1 share words: ranks that hash them differently count too many distinct ones.
COMPLETIONS = ["the cat sat on the mat", "the cat", "猫坐在垫子上", "", "positive and negative words here"]
REFERENCES = [
    ["the cat sat on a mat", "a cat"],
    ["the dog barked"],
    ["猫在垫子上"],
    ["nothing"],
    ["positive words here"],
]
LABEL_TEXTS = ["positive", "Negative.", "both", "positive", "negative"]
GOLD = [["positive"], ["positive"], ["negative"], ["negative"], ["negative"]]
GUARD = (["the cat sat on the mat"] * 5, [5, 6, 7, 8, 9], [True, False, True, True, False])

# Rows by update, for rank 0 and rank 1.
SCHEDULES = {
    "rank 1 without any update": [[[0, 1], [2, 3, 4]], []],
    "rank 0 without any update": [[], [[0], [1, 2, 3, 4]]],
    "three updates and one": [[[0], [2], [4]], [[1, 3]]],
}


def metrics():
    return {
        "bleu": BLEU(),
        "bleu-one-reference": BLEU(),
        "bleu-zh": BLEU(tokenize="zh", smooth_method="add-k"),
        "chrf": ChrF(word_order=2),
        "ter": TER(),
        "rouge": ROUGE(),
        "em": ExactMatch(),
        "f1": TokenF1(),
        "accuracy": LabelAccuracy(LABELS),
        "label_f1": LabelF1(LABELS),
        "guardrails": Guardrails(),
    }


def update(name, metric, rows):
    def take(values):
        return [values[row] for row in rows]

    if name == "guardrails":
        metric.update(take(COMPLETIONS), *(take(column) for column in GUARD))
    elif name in ("accuracy", "label_f1"):
        metric.update(take(LABEL_TEXTS), take(GOLD))
    elif name == "bleu-one-reference":
        metric.update(take(COMPLETIONS), [row[:1] for row in take(REFERENCES)])
    else:
        metric.update(take(COMPLETIONS), take(REFERENCES))


def results(updates):
    """Every metric's values (and signature) after these updates."""
    values: dict[str, float | str] = {}
    for name, metric in metrics().items():
        for rows in updates:
            update(name, metric, rows)
        result = metric.compute()
        result = result if isinstance(result, dict) else {"": result}
        values |= {f"{name}/{key}": value.item() for key, value in result.items()}
        if hasattr(metric, "signature"):
            values[f"{name}/signature"] = metric.signature()
    return values


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=2)
    seen = {name: results(schedule[rank]) for name, schedule in SCHEDULES.items()}
    dist.destroy_process_group()
    (folder / f"rank{rank}.json").write_text(json.dumps(seen))


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_two_ranks_give_the_whole_corpus_score(tmp_path):
    mp.spawn(work, args=(tmp_path,), nprocs=2)
    expected = results([[0, 1, 2, 3, 4]])
    assert "nrefs:var" in expected["bleu/signature"]
    assert "nrefs:1" in expected["bleu-one-reference/signature"]
    for rank in range(2):
        for schedule, values in json.loads((tmp_path / f"rank{rank}.json").read_text()).items():
            assert values == expected, (rank, schedule)  # to the last bit: the sums are whole numbers


def test_the_schedules_cover_the_corpus():
    for ranks in SCHEDULES.values():
        assert sorted(row for updates in ranks for rows in updates for row in rows) == [0, 1, 2, 3, 4]
