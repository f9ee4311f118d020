"""Intervals of what comes in clusters, such as several judgements of one prompt."""

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from rlhf_lightning.feedback.statistics.agreement import alpha_interval, bootstrap_interval, raw_agreement
from rlhf_lightning.feedback.statistics.intervals import clustered_share, effective_clusters, ratio_interval

TABLE = np.random.default_rng(0).integers(0, 3, (40, 3)).astype(float)


def test_a_cluster_each_is_no_cluster():
    assert alpha_interval(TABLE, clusters=range(40)) == alpha_interval(TABLE)
    assert bootstrap_interval(TABLE, raw_agreement, 200, clusters=range(40)) == bootstrap_interval(
        TABLE, raw_agreement, 200
    )


def test_one_cluster_varies_in_nothing():
    found = alpha_interval(TABLE, clusters=[0] * 40)
    assert found.low == found.high == pytest.approx(found.value)


def test_what_is_drawn_together_makes_intervals_wider():
    twice = np.repeat(TABLE, 4, axis=0)
    apart, together = alpha_interval(twice), alpha_interval(twice, clusters=np.repeat(np.arange(40), 4))
    assert together.high - together.low > 1.5 * (apart.high - apart.low)  # a factor of 2
    with pytest.raises(ValueError, match="as many clusters"):
        alpha_interval(TABLE, clusters=[0])


def test_a_ratio_is_the_bootstrap_of_raw_agreement():
    equal = np.array([sum(a == b for a, b in ((r[0], r[1]), (r[0], r[2]), (r[1], r[2]))) for r in TABLE])
    ratio = ratio_interval(equal, np.full(40, 3), draws=300, seed=4)
    assert ratio == pytest.approx(bootstrap_interval(TABLE, raw_agreement, 300, seed=4))


def test_a_ratio_of_nothing_is_none():
    assert np.isnan(ratio_interval([], []).value)
    assert np.isnan(ratio_interval([0], [0]).value)
    with pytest.raises(ValueError, match="not negative"):
        ratio_interval([1], [-1])


def test_judgements_of_one_prompt_count_as_one():
    scores = [1.0] * 60 + [0.0] * 40
    assert clustered_share(scores, range(100))[1:] == pytest.approx(proportion_confint(60, 100, method="wilson"))
    found = clustered_share(scores, [i // 5 for i in range(100)])
    assert found.value == pytest.approx(0.6)
    assert found[1:] == pytest.approx(proportion_confint(12, 20, method="wilson"))
    assert effective_clusters([0] * 9 + [1]) == 1  # 100 / 82
    assert np.isnan(clustered_share([], []).value)
