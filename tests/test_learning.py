"""Learning from outcomes: the filter, the answers of a service, the kickers."""

import asyncio
import csv
import json
import math
import re
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from itertools import count
from urllib.parse import quote

import numpy as np
import pytest
from conftest import configured
from hypothesis import given
from hypothesis import strategies as st
from serving import eventually

from kickserve.errors import SettingsError
from kickserve.ids import instant
from kickserve.record import SetOutcome
from kickserve_data.simulate import ABILITY_SD, logit, simulate
from kickserve_learning.settings import LearningSettings
from kickserve_scores.filter import Filter
from kickserve_scores.follower import Follower
from kickserve_scores.kickers import SORTS
from kickserve_scores.quality import assess
from kickserve_testing.contract_samples import START, keep, record_at


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


def test_a_word_that_can_not_be_learned_is_not_taken_for_its_opposite():
    with pytest.raises(SettingsError, match=r"on is none$"):  # not: did you mean none?
        LearningSettings.load({"KICKSERVE_LEARN": "on"})


async def tell(client, kick, success, kicker=None):
    """Predict a kick, and set its outcome; return the answer."""
    answer = await ask(client, kick, kicker)
    await client.put(f"/predictions/{answer['id']}/outcome", json={"success": success})
    return answer


async def ask(client, kick, kicker=None):
    response = await client.post("/predict", json=kick | {"kicker": kicker})
    assert response.status_code == 200, response.text
    return response.json()


async def answers_when(client, kick, kicker, condition):
    """Ask until the answer meets a condition; return the answer without its id."""

    async def asked():
        answer = await ask(client, kick, kicker)
        del answer["id"]
        return answer if condition(answer) else None

    return await eventually(asked)


def knows(outcomes):
    return lambda answer: answer["learned"]["kicker"]["outcomes"] == outcomes


async def fresh_answer(client, kick, kicker, **learns):
    """Return the answer that all outcomes in the store lead to, learned from the first one on."""
    learned = Filter(**learns)
    async for group in client.app.store.known_outcomes():
        for each in group:
            learned.update(each.base, each.kicker, each.success)
    plain = await ask(client, kick)
    adjustment = learned.adjustment(kicker)
    base = plain.get("base", plain["prediction"])
    return adjustment.probability(base)


async def test_answers_learn_from_the_outcomes_of_their_kicker(client, kick):
    plain = await ask(client, kick)
    assert not {"base", "learned"} & plain.keys()
    unseen = await ask(client, kick, "Ann")
    assert unseen["prediction"] == unseen["base"] == plain["prediction"]
    assert unseen["learned"]["level"] == 0
    assert unseen["learned"]["kicker"] == {
        "name": "Ann",
        "outcomes": 0,
        "ability": 0,
        "from": -0.5684,
        "to": 0.5684,
    }
    for success in (True, True, False, True, True):
        await tell(client, kick, success, "Ann")
    answer = await answers_when(client, kick, "Ann", knows(5))
    assert answer["base"] == plain["prediction"] < answer["prediction"]
    assert answer["prediction"] == await fresh_answer(client, kick, "Ann", level=False, kickers=True)
    assert answer["confidence"] == max(answer["prediction"], 1 - answer["prediction"])
    low, high = answer["interval"]
    assert low < answer["prediction"] < high
    assert high - low < plain["interval"][1] - plain["interval"][0]
    ability = answer["learned"]["kicker"]
    assert ability["from"] < 0 < ability["ability"] < ability["to"]
    batch = (await client.post("/predict/batch", json=[kick, kick | {"kicker": "Ann"}])).json()
    assert [each["prediction"] for each in batch] == [plain["prediction"], answer["prediction"]]
    assert (await client.get("/health")).json()["parts"]["learning"] == "ok"
    text = (await client.get("http://localhost/metrics")).text
    assert "kickserve_learning_outcomes 5" in text
    assert "kickserve_learning_kickers 1" in text


async def test_a_level_is_learned_for_all_kicks(start, settings, kick):
    client = await start(configured(settings, KICKSERVE_LEARN="level,kickers"))
    for success in (False, False, True, False):
        await tell(client, kick, success)
    await tell(client, kick, success=False, kicker="Ann")
    answer = await answers_when(client, kick, "Ann", knows(1))
    plain = await ask(client, kick)
    assert plain["learned"]["kicker"] is None
    assert plain["learned"]["level"] < 0
    assert answer["prediction"] < plain["prediction"] < plain["base"]
    assert plain["prediction"] == await fresh_answer(client, kick, None, level=True, kickers=True)
    assert answer["prediction"] == await fresh_answer(client, kick, "Ann", level=True, kickers=True)


async def test_nothing_is_learned_where_that_is_off(start, settings, kick):
    client = await start(configured(settings, KICKSERVE_LEARN="off"))
    await tell(client, kick, success=True, kicker="Ann")
    assert not {"base", "learned"} & (await ask(client, kick, "Ann")).keys()
    assert "learning" not in (await client.get("/health")).json()["parts"]
    [row] = (await client.get("/kickers")).json()
    assert (row["kicker"], row["kicks"]) == ("Ann", 1)


@pytest.fixture(params=["sqlite", "postgres"])
def database(request, settings):
    return settings.database_url if request.param == "sqlite" else request.getfixturevalue("postgres_schema")


@pytest.fixture
def start_replica(start, settings, database, tmp_path):
    """Start a service on the one database, with a journal of its own."""
    numbers = count()

    async def start_replica():
        journal = f"{tmp_path}/journal_{next(numbers)}"
        return await start(configured(settings, DATABASE_URL=database, KICKSERVE_JOURNAL_DIR=journal))

    return start_replica


async def test_replicas_give_the_same_learned_answer_whatever_becomes_of_outcomes(start_replica, kick):
    replicas = one, two = await start_replica(), await start_replica()

    async def agree_on(outcomes):
        answers = [await answers_when(each, kick, "Ann", knows(outcomes)) for each in replicas]
        expected = await fresh_answer(one, kick, "Ann", level=False, kickers=True)
        assert answers[0] == answers[1]
        assert answers[0]["prediction"] == expected
        return answers[0]

    told = [await tell(replicas[at % 2], kick, at % 3 > 0, "Ann") for at in range(6)]
    await tell(one, kick, success=True, kicker="Ben")
    first = await agree_on(6)

    await two.delete(f"/predictions/{told[0]['id']}")
    assert await agree_on(5) != first

    before = await agree_on(5)
    await one.put(f"/predictions/{told[1]['id']}/outcome", json={"success": False})
    for each in replicas:
        await answers_when(each, kick, "Ann", lambda answer: answer != before)
    await agree_on(5)

    taken_back = await tell(two, kick, success=True, kicker="Ann")
    await agree_on(6)
    await one.delete(f"/predictions/{taken_back['id']}/outcome")
    await agree_on(5)

    late = await ask(two, kick, "Ann")
    await two.app.recorder.flush()
    earlier = datetime.now(UTC) - timedelta(days=1)
    await two.app.store.set_outcomes([SetOutcome(late["id"], success=False, at=earlier)])
    last = await agree_on(6)

    assert await answers_when(await start_replica(), kick, "Ann", knows(6)) == last

    assert (await one.delete("/kickers/Ann")).status_code == 204
    await agree_on(0)
    assert (await answers_when(two, kick, "Ben", knows(1)))["learned"]["kicker"]["outcomes"] == 1


async def test_another_model_learns_from_its_own_outcomes_alone(start, settings, kick, tmp_path):
    file = tmp_path / "model.json"
    document = json.loads((files("kickserve") / "default.json").read_text())
    file.write_text(json.dumps(document | {"revision": ""}))
    client = await start(replace(settings, model=file))
    await tell(client, kick, success=True, kicker="Ann")
    await answers_when(client, kick, "Ann", knows(1))
    document["coefficients"] = [each + 0.01 for each in document["coefficients"]]
    file.write_text(json.dumps(document | {"revision": ""}))
    assert (await client.post("/model/reload")).status_code == 200
    answer = await ask(client, kick, "Ann")
    assert "learned" not in answer or answer["learned"]["kicker"]["outcomes"] == 0
    await answers_when(client, kick, "Ann", lambda answer: "learned" in answer and knows(0)(answer))
    [row] = (await client.get("/kickers")).json()
    assert row["kicks"] == 1, "the table is of all models"


async def test_what_was_learned_stays_while_the_store_is_away(start, settings, postgres_cluster, kick):
    client = await start(configured(settings, DATABASE_URL=postgres_cluster.url))
    await tell(client, kick, success=True, kicker="Ann")
    before = await answers_when(client, kick, "Ann", knows(1))
    postgres_cluster.stop()

    async def state():
        found = (await client.get("/health")).json()["parts"]["learning"]
        return found if found != "ok" else None

    assert re.match(r"answers know the outcomes of \d+ s ago: .*", await eventually(state))
    assert await answers_when(client, kick, "Ann", knows(1)) == before
    postgres_cluster.start()
    await eventually(lambda: client.app.recorder.store_works)
    await tell(client, kick, success=True, kicker="Ann")
    await answers_when(client, kick, "Ann", knows(2))


async def test_far_more_outcomes_than_a_checkpoint_are_learned_as_one_by_one(client, kick):
    kicks = [kick | {"kicker": f"kicker {at % 7}"} for at in range(4_000)]
    answers = (await client.post("/predict/batch", json=kicks)).json()
    for start in range(0, 4_000, 1_000):
        some = enumerate(answers[start : start + 1_000], start)
        outcomes = [{"id": each["id"], "success": at % 3 > 0} for at, each in some]
        assert (await client.put("/predictions/outcomes", json=outcomes)).json()["kept"] == 1_000
    await answers_when(client, kick, "kicker 0", knows(572))
    for at in (3_990, 2_005, 5):
        await client.put(f"/predictions/{answers[at]['id']}/outcome", json={"success": at % 3 == 0})
        await client.delete(f"/predictions/{answers[at - 5]['id']}")
        if at == 5:  # as retention does
            assert await client.app.store.purge(datetime.now(UTC) + timedelta(days=1), 1_500) == 1_500
        expected = await fresh_answer(client, kick, "kicker 0", level=False, kickers=True)
        await answers_when(
            client, kick, "kicker 0", lambda answer, expected=expected: answer["prediction"] == expected
        )


async def test_others_have_their_turn_while_all_is_learned_again_from_the_oldest_outcome(client, monkeypatch):
    turn, taken = 0, Counter()
    take = Filter.take

    def counted(learned, outcomes):
        taken[turn] += len(outcomes)
        take(learned, outcomes)

    monkeypatch.setattr(Filter, "take", counted)
    store = client.app.store
    records = [
        record_at(START + at, outcome=at % 3 > 0, outcome_at=instant(START + at), kicker=f"kicker {at % 7}")
        for at in range(6_000)
    ]
    await keep(store, records)
    follower = Follower(store, lambda: Filter(level=True, kickers=True))
    assert (await follower.look()).outcomes == 6_000
    for change in (
        store.set_outcomes([SetOutcome(records[1].id, success=False, at=instant(START + 10_000))]),
        store.delete(records[0].id),
    ):
        await change
        look = asyncio.ensure_future(follower.look())
        taken.clear()
        while not look.done():
            turn += 1
            await asyncio.sleep(0)
        assert max(taken.values()) <= 500
        assert sum(taken.values()) >= 5_999
        expected = Filter(level=True, kickers=True)
        async for group in store.known_outcomes():
            expected.take(group)
        learned = look.result()
        assert (learned.level, learned.kickers) == (expected.level, expected.kickers)
    assert learned.outcomes == 5_999


@pytest.fixture
async def table(client, kick):
    """Kickers with 1 to 5 kicks, the first of each a miss."""
    for number, kicker in enumerate(("Zoé", "Ann", "ben", "Ärzte 🏉", "=1+1"), 1):
        for at in range(number):
            await tell(client, kick, at > 0, kicker)
    await ask(client, kick, "nobody yet")
    await tell(client, kick, success=True)
    return client


async def test_kickers_are_listed_with_what_was_expected_of_them(table, kick):
    rows = {row["kicker"]: row for row in (await table.get("/kickers")).json()}
    assert rows.keys() == {"Zoé", "Ann", "ben", "Ärzte 🏉", "=1+1"}
    row, p = rows["ben"], (await ask(table, kick))["prediction"]
    half = 1.96 * math.sqrt(3 * p * (1 - p))
    assert (row["kicks"], row["made"], row["expected"]) == (3, 2, pytest.approx(3 * p, abs=1e-6))
    above = [2 - 3 * p, 2 - 3 * p - half, 2 - 3 * p + half]
    assert [row[name] for name in ("above", "above_from", "above_to")] == pytest.approx(above, abs=1e-6)
    points = [row[name] for name in ("points", "points_from", "points_to")]
    assert points == pytest.approx([3 * each for each in above], abs=1e-6)
    learned = (await answers_when(table, kick, "ben", knows(3)))["learned"]["kicker"]
    assert (learned["ability"], learned["from"], learned["to"]) == (
        row["ability"],
        row["ability_from"],
        row["ability_to"],
    )
    [of_conversions] = [
        row for row in (await table.get("/kickers?points=2")).json() if row["kicker"] == "ben"
    ]
    assert of_conversions["points"] == pytest.approx(2 * row["above"], abs=2e-6)


async def test_pages_of_kickers_show_each_once_in_their_order(table):
    for sort in SORTS:
        await _show_each_once(table, sort)


async def _show_each_once(table, sort):
    whole = (await table.get(f"/kickers?sort={sort}")).json()
    values = [row[sort] for row in whole]
    assert values == sorted(values, reverse=sort != "kicker")
    seen, url = [], f"http://localhost/api/v1/kickers?sort={sort}&limit=2"
    while url is not None:
        response = await table.get(url)
        seen += response.json()
        url = response.links.get("next", {}).get("url")
        url = url and f"http://localhost{url}"
    assert seen == whole


async def test_kickers_come_as_csv_that_no_spreadsheet_runs(table):
    response = await table.get("/kickers?sort=kicks&limit=2", headers={"Accept": "text/csv"})
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert "next" in response.links
    head, first, second = csv.reader(response.text.splitlines())
    assert head[:4] == ["kicker", "kicks", "made", "expected"]
    assert (first[:3], second[:3]) == (["'=1+1", "5", "4"], ["Ärzte 🏉", "4", "3"])


async def test_a_kicker_is_found_and_forgotten_whatever_signs_the_name_has(client, kick):
    names = ["Ann", "a/b", "a//b c", "Zoé 🏉", "100%", "%2F", "?x=1", "#", "..", "a+b", "'; --", "\u202eab"]
    for name in names:
        await tell(client, kick, success=True, kicker=name)
        await tell(client, kick, success=True, kicker=name)
        path = f"http://localhost/api/v1/kickers/{quote(name, safe='').replace('..', '%2E%2E')}"
        page = (await client.get(path)).json()
        assert (page["kicker"], page["kicks"], len(page["predictions"])) == (name, 2, 2)
        one = await client.get(f"{path}?limit=1")
        rest = await client.get(f"http://localhost{one.links['next']['url']}")
        assert [*one.json()["predictions"], *rest.json()["predictions"]] == page["predictions"]
        assert (await client.delete(path)).status_code == 204
        assert (await client.get(path)).status_code == (await client.delete(path)).status_code == 404
        assert (await client.get(f"/predictions/{page['predictions'][0]['id']}")).json()["kicker"] is None
    assert (await client.get("/kickers")).json() == []
    problem = (await client.get("/kickers/nobody")).json()
    assert (problem["title"], problem["status"]) == ("Kicker not found", 404)


async def test_what_the_table_of_kickers_can_not_do_is_refused(client):
    for query in ("sort=speed", "limit=0", "points=0", "points=nan", "after=x", "x=1"):
        response = await client.get(f"/kickers?{query}")
        assert response.status_code == 422, response.text
        assert response.json()["errors"][0]["field"] == query.partition("=")[0]
    assert "points must be a number above 0" in (await client.get("/kickers?points=0")).text


def test_the_command_lists_the_kickers_of_the_store_and_of_a_file(kickserve, tmp_path, kick):
    rows = [["kicker", "success", *kick]]
    rows += [["Ann", at > 0, *kick.values()] for at in range(4)] + [[" Ben ", 1, *kick.values()]]
    file = tmp_path / "season.csv"
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows([*rows, ["", 1, *kick.values()], ["Ann", "?", *kick.values()]])
    code, out, err = kickserve("kickers", file, "--json", "--sort", "kicks", "--points", 2)
    ann, ben = json.loads(out)
    assert (code, ann["kicker"], ann["kicks"], ann["made"]) == (3, "Ann", 4, 3)
    assert (ben["kicker"], ben["kicks"], ben["points"]) == (
        "Ben",
        1,
        pytest.approx(2 * ben["above"], abs=2e-6),
    )
    code, out, err = kickserve("kickers", file, "--limit", 1, "--sort", "kicks")
    assert code == 3
    assert "line 8: success is missing, or can't be read" in err
    assert "Ann" in out
    assert "Ben" not in out
    code, out, err = kickserve("kickers", file, "--kicker", "player")
    assert code == 2
    assert "no column player" in err
    assert kickserve("kickers")[:2] == (0, "")
