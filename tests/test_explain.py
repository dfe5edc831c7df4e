"""What drives a kick: shares that are right for linear models, add up for all, and come over the API."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import httpx
import kinds
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier

from kickserve.features import NAMES
from kickserve.linear import load_default
from kickserve.loading import profile_of
from kickserve.model import Origin
from kickserve_data.simulate import simulate
from kickserve_models.sklearn import of_estimator
from kickserve_scores.explain import average_kick, log_odds, mixtures, shares

KICKS = simulate(20, 5).matrix
AVERAGE = average_kick(profile_of(load_default()))


def of_model(predict, row, average=AVERAGE):
    return shares(row, average, predict(mixtures(row, average)))


def test_the_average_kick_is_one_that_a_model_can_be_asked_about():
    assert AVERAGE.shape == (11,)
    assert all(AVERAGE[NAMES.index(name)] in (0, 1) for name in ("is_start", "is_left_footed", "game_away"))
    assert np.abs(AVERAGE[:5] - simulate(50_000, 1).matrix[:, :5].mean(axis=0)).max() < 1


def test_of_a_weighted_sum_the_shares_are_weight_times_difference():
    weights = np.linspace(-0.4, 0.4, 11)
    for row in KICKS:
        found = of_model(lambda matrix: 1 / (1 + np.exp(-(matrix @ weights) / 20)), row)
        assert np.allclose(found, weights * (row - AVERAGE) / 20, atol=1e-12)


@given(st.integers(0, 19), st.randoms(use_true_random=False))
def test_the_shares_add_up_whatever_the_model(at, random):
    table = {}

    def predict(matrix):
        return np.array([table.setdefault(tuple(row), random.uniform(0.01, 0.99)) for row in matrix])

    row = KICKS[at]
    found = of_model(predict, row)
    ends = log_odds(predict(np.array([AVERAGE, row])))
    assert found.sum() == pytest.approx(ends[1] - ends[0])
    assert all(found[row == AVERAGE] == 0)


def test_they_are_the_mean_over_all_orders_in_which_features_can_come():
    row = AVERAGE.copy()
    row[[1, 2, 3]] = 50, 40, 30

    def predict(matrix):
        return 1 / (1 + np.exp(matrix[:, 1] * matrix[:, 2] / 1000 - matrix[:, 3] / 20))

    expected = np.zeros(11)
    for order in permutations([1, 2, 3]):
        now = AVERAGE.copy()
        for feature in order:
            then = now.copy()
            then[feature] = row[feature]
            before, after = log_odds(predict(np.array([now, then])))
            expected[feature] += (after - before) / 6
            now = then
    assert np.allclose(of_model(predict, row), expected)


class TestOverTheApi:
    async def test_it_explains_the_prediction_and_records_nothing(self, client, kick):
        answer = (await client.post("/explain", json=kick)).json()
        assert (await client.get("/predictions")).json() == []
        predicted = (await client.post("/predict", json=kick)).json()
        assert answer["prediction"] == pytest.approx(predicted["prediction"], abs=1e-10)
        assert answer["model"] == predicted["model"]
        total = sum(each["share"] for each in answer["shares"])
        assert total == pytest.approx(answer["log_odds"] - answer["average_log_odds"])
        sizes = [abs(each["share"]) for each in answer["shares"]]
        assert sizes == sorted(sizes, reverse=True)
        assert {each["feature"]: each["value"] for each in answer["shares"]} == kick

    async def test_it_says_which_effects_are_assumed_as_the_card_does_and_two_means(self, client, kick):
        answer = (await client.post("/explain", json=kick)).json()
        assumed = {each["feature"] for each in answer["shares"] if each["assumed"]}
        assert assumed == set((await client.get("/model")).json()["assumed"])
        assert assumed == {
            "wind_speed",
            "precipitation_probability",
            "game_away",
            "time_norm",
            "has_previous_attempts",
        }
        assert (answer["average_prediction"], answer["mean_prediction"]) == pytest.approx(
            (0.82, 0.735), abs=0.01
        )

    async def test_what_is_no_kick_is_422(self, client, kick):
        response = await client.post("/explain", json={**kick, "distance": 400})
        assert response.status_code == 422
        assert response.json()["errors"][0]["field"] == "distance"

    async def test_a_model_without_profile_is_explained_against_the_packaged_ones(
        self, start, settings, kick
    ):
        forest = RandomForestClassifier(5, random_state=0).fit(kinds.X, kinds.Y)
        model = of_estimator(forest, [], b"", Origin("forest", "forest"))
        client = await start(replace(settings, database_url="sqlite://"), model=model)
        response = await client.post("/explain", json=kick)
        assert response.status_code == httpx.codes.OK
        answer = response.json()
        assert (answer["model"], answer["mean_prediction"]) == ("forest", None)
        assert not any(each["assumed"] for each in answer["shares"])
