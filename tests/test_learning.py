"""Learning from outcomes: the filter, the answers of a service, the kickers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kickserve.errors import SettingsError
from kickserve_data.simulate import ABILITY_SD, logit, simulate
from kickserve_learning.settings import LearningSettings
from kickserve_scores.filter import Filter
from kickserve_scores.quality import assess


def test_the_filter_takes_the_steps_of_its_formulas():
    learned = Filter(level=True, kickers=True)
    b, v_b, v_k = 0.0, 0.3**2, 0.29**2
    for base, success in ((0.7, True), (0.9, False), (0.4, False)):
        z = math.log(base / (1 - base)) * math.sqrt(1 + math.pi * v_k / 8)
        v_b += 4e-6  # the walk of the level
        v = v_b + v_k
        p = 1 / (1 + math.exp(-(z + b) / math.sqrt(1 + math.pi * v / 8)))
        assert learned.predict(base) == pytest.approx(p, abs=1e-6)
        h = p * (1 - p)
        gain = 1 / (1 + h * v)
        b, v_b = b + v_b * (success - p) * gain, v_b - v_b**2 * h * gain
        learned.update(base, None, success)
        assert (learned.level, learned.level_sd) == (pytest.approx(b), pytest.approx(math.sqrt(v_b)))


def test_an_unseen_kicker_without_a_level_has_the_models_own_answer():
    learned = Filter(level=False, kickers=True)
    learned.update(0.7, "a", success=True)
    for base in (0.0, 1e-9, 0.25, 0.99999, 1.0):
        assert learned.predict(base, "b") == learned.predict(base) == base
    assert learned.adjustment("b").score((0.7, 0.55, 0.82)) == (0.7, 0.55, 0.82)


@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.sampled_from([None, "a", "b"]), st.booleans()), min_size=1, max_size=50
    )
)
def test_no_outcome_makes_a_probability_that_is_none(outcomes):
    learned = Filter(level=True, kickers=True)
    for base, kicker, success in outcomes:
        learned.update(base, kicker, success)
        probability, low, high = learned.adjustment(kicker).score((base, base / 2, (1 + base) / 2))
        assert 0 <= low <= probability <= high <= 1
        assert all(each.variance > 0 for each in learned.kickers.values())
        assert learned.level_sd > 0


def test_a_copy_of_the_filter_goes_its_own_way():
    learned = Filter(level=True, kickers=True)
    learned.update(0.7, "a", success=True)
    other, before = learned.copy(), learned.predict(0.7, "a")
    other.update(0.7, "a", success=False)
    assert learned.predict(0.7, "a") == before != other.predict(0.7, "a")
    learned.update(0.7, "a", success=False)
    assert learned.predict(0.7, "a") == other.predict(0.7, "a")


def test_the_filter_learns_a_level_and_the_abilities_of_kickers():
    kicks, rng = simulate(10_000, 5), np.random.default_rng(5)
    own = logit(kicks.matrix)
    model = 1 / (1 + np.exp(-own / np.sqrt(1 + np.pi * ABILITY_SD**2 / 8)))
    who = rng.integers(0, 60, len(kicks))
    ability = rng.normal(0, ABILITY_SD, 60)
    success = rng.random(len(kicks)) < 1 / (1 + np.exp(-(own - 0.2 + ability[who])))
    level, kickers = Filter(level=True, kickers=False), Filter(level=True, kickers=True)
    said = {"base": model, "level": [], "kickers": []}
    for base, kicker, came in zip(model.tolist(), who.tolist(), success.tolist(), strict=True):
        for name, each in (("level", level), ("kickers", kickers)):
            said[name].append(each.predict(base, str(kicker)))
            each.update(base, str(kicker), came)
    losses = {name: assess(each, success).log_loss for name, each in said.items()}
    assert losses["base"] - losses["level"] > 0.001
    assert losses["level"] - losses["kickers"] > 0.001
    assert kickers.kickers.keys() == set(map(str, range(60)))
    covered = [
        each.interval[0] <= ability[int(name)] <= each.interval[1] for name, each in kickers.kickers.items()
    ]
    assert np.mean(covered) > 0.85


@pytest.mark.parametrize(
    ("value", "level", "kickers"),
    [
        ("", False, True),
        ("off", False, False),
        ("OFF", False, False),
        ("kickers", False, True),
        ("level,kickers", True, True),
        ("kickers,level", True, True),
        (" Kickers + Level ", True, True),
        ("level", True, False),
    ],
)
def test_what_is_learned_may_be_spelt_in_many_ways(value, level, kickers):
    assert LearningSettings.load({"KICKSERVE_LEARN": value}).learns == (level, kickers)


@pytest.mark.parametrize("value", ["kickrs", "off,kickers", "level,wind", ","])
def test_what_can_not_be_learned_is_refused_with_what_can(value):
    with pytest.raises(SettingsError, match=r"KICKSERVE_LEARN.*must be off, kickers, level"):
        LearningSettings.load({"KICKSERVE_LEARN": value})
