"""The alarm on outcomes: valid at every look, and it says what has changed, since when and by how much."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kickserve_scores.alarm import Alarm

probability = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1))


def kicks(count, seed):
    return np.random.default_rng(seed).beta(3, 1.1, count)


def outcomes(truth, seed):
    return np.random.default_rng([seed, 1]).random(len(truth)) < truth


def expit(z):
    return 1 / (1 + np.exp(-z))


def logit(p):
    return np.log(p / (1 - p))


CHANGES = {
    "level up": lambda p: expit(logit(p) + 0.5),
    "level down": lambda p: expit(logit(p) - 0.5),
    "too flat": lambda p: expit(1.6 * logit(p)),
    "too steep": lambda p: expit(logit(p) / 1.6),
}


@given(st.lists(st.tuples(probability, st.booleans()), max_size=30), probability)
def test_no_outcome_is_worth_anything_on_average_where_predictions_are_right(history, p):
    heard = [(q, y) for q, y in history if q != (not y)]  # the sure never fails
    after = []
    for success in (False, True):
        alarm = Alarm()
        alarm.hear([*(q for q, _ in heard), p], [*(y for _, y in heard), success])
        after.append(alarm.evidence)
    before = Alarm()
    before.hear([q for q, _ in heard], [y for _, y in heard])
    assert (1 - p) * after[0] + p * after[1] == pytest.approx(before.evidence)


def test_outcomes_that_come_one_by_one_raise_the_same_alarm():
    p = kicks(1_500, 3)
    y = outcomes(CHANGES["level down"](p), 3)
    together, alone = Alarm(), Alarm()
    together.hear(p, y)
    for each in zip(p, y, strict=True):
        alone.hear(*np.array([each]).T)
    assert alone.first is not None
    assert alone.first[:4] == together.first[:4]
    assert alone.first.difference == pytest.approx(together.first.difference)
    assert alone.evidence == pytest.approx(together.evidence)


@pytest.mark.parametrize("what", CHANGES)
def test_an_alarm_says_what_has_changed_since_when_and_by_how_much(what):
    p = kicks(8_000, 5)
    truth = np.concatenate([p[:5_000], CHANGES[what](p[5_000:])])
    alarm = Alarm()
    alarm.hear(p, outcomes(truth, 5))
    change = alarm.change
    assert change is not None
    assert change.what == alarm.first.what == what
    assert 5_000 < change.at < 6_000
    assert 4_700 < change.since < 5_300
    assert change.difference.low < (truth - p)[5_000:].mean() < change.difference.high
    if what.startswith("too"):
        assert change.factor.low < {"too flat": 1.6, "too steep": 1 / 1.6}[what] < change.factor.high
        assert not change.factor.low < 1 < change.factor.high
    else:
        assert not change.difference.low < 0 < change.difference.high


def test_an_alarm_ends_when_predictions_fit_again_and_the_next_change_is_heard():
    p = kicks(20_000, 7)
    truth = np.concatenate(
        [CHANGES["level down"](p[:2_000]), p[2_000:17_000], CHANGES["level up"](p[17_000:])]
    )
    alarm, standing = Alarm(), []
    for part in np.split(np.array([p, outcomes(truth, 7), np.arange(len(p))]), 10, axis=1):
        alarm.hear(*part)
        standing.append(alarm.change and alarm.change.what)
    assert standing[0] == "level down"
    assert standing[7] is None
    assert standing[9] == "level up"
    assert alarm.first.what == "level down"


@pytest.mark.parametrize(("surest", "wrong"), [(0.97, 0.3), (0.999, 0.2), (0.97, 1.0)])
def test_predictions_that_are_far_too_sure_are_said_to_be_so_by_a_factor_below_one(surest, wrong):
    p = np.where(np.arange(1_000) % 2, surest, 1 - surest)
    y = (p > 0.5) ^ (np.random.default_rng(11).random(len(p)) < wrong)
    alarm = Alarm()
    alarm.hear(p, y)
    best = alarm.change.factor
    assert alarm.change.what == "too steep"
    fits = logit(max(1 - wrong, 0.001)) / logit(surest)  # of 1,000 that are all wrong, something like it
    assert best.low < fits < best.high


def test_marks_name_outcomes_to_people():
    p = kicks(3_000, 9)
    alarm = Alarm()
    alarm.hear(p, outcomes(CHANGES["level up"](p), 9), np.arange(len(p)) * 10.0 + 7)
    assert alarm.first.at % 10 == alarm.first.since % 10 == 7


def test_no_alarm_where_predictions_are_right():
    alarms = []
    for seed in range(20):
        p = kicks(20_000, 100 + seed)
        alarm = Alarm()
        alarm.hear(p, outcomes(p, 100 + seed))
        alarms.append(alarm.first)
    assert alarms == [None] * 20
