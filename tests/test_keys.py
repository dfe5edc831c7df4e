"""Keys: what each opens, how they are sent and read, and that a running service follows their file."""

from __future__ import annotations

import dataclasses
import json
import stat
import time

import httpx
import pytest
from conftest import having as replace
from hypothesis import given
from hypothesis import strategies as st
from keyring import KEYS, entry, in_an_hour, write
from litestar.routes import HTTPRoute
from serving import BARE, serving

from kickserve.auth import default_keys
from kickserve.cli import run
from kickserve.errors import ConfigurationError
from kickserve.plugins import KEY_NAME, Key, KeyRing, Scope, create_authenticator, discover
from kickserve.settings import Settings
from kickserve_access import keyfile as keys
from kickserve_access.key_meters import NAMES, KeyMeters

ID = "01900000-0000-7000-8000-000000000000"
# Every call, and what a key must be good for. A call that stands here nowhere fails a test.
OPEN = {
    "/",
    "/api/v1/health",
    "/api/v1/health/live",
    "/api/v1/health/ready",
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
}
_MODELS = [
    f"/v2/models/{name}{version}"
    for name in ("{name}", "{owner}/{name}")
    for version in ("", "/versions/{version}")
]
NEEDED = {
    ("POST", "/api/v1/predict"): "predict",
    ("POST", "/api/v1/predict/batch"): "predict",
    ("POST", "/api/v1/explain"): "predict",
    ("GET", "/api/v1/predictions"): "read",
    ("GET", "/api/v1/predictions/{record_id}"): "read",
    ("DELETE", "/api/v1/predictions/{record_id}"): "admin",
    ("PUT", "/api/v1/predictions/{record_id}/outcome"): "predict",
    ("PUT", "/api/v1/predictions/outcomes"): "predict",
    ("GET", "/api/v1/quality"): "read",
    ("GET", "/api/v1/model"): "read",
    ("POST", "/api/v1/model/reload"): "admin",
    ("GET", "/api/v1/drift"): "read",
    ("POST", "/api/v1/drift/reports"): "admin",
    ("GET", "/api/v1/drift/reports"): "read",
    ("GET", "/api/v1/drift/reports/{name}"): "read",
    ("POST", "/api/v1/profile"): "admin",
    ("GET", "/metrics"): "read",
    **{("GET", model): "read" for model in _MODELS},
    **{("GET", f"{model}/ready"): "read" for model in _MODELS},
    **{("POST", f"{model}/infer"): "predict" for model in _MODELS},
}
REFUSED = {401, 403, 429}


@pytest.fixture
def guarded(settings, tmp_path):
    return replace(settings, keys=write(tmp_path / "keys.json"))


class TestScopes:
    async def test_every_call_is_in_the_table(self, start, guarded):
        app = (await start(guarded)).app
        found = {
            (method, route.path_format)
            for route in app.routes
            if isinstance(route, HTTPRoute) and not route.path_format.startswith("/docs")
            for method in route.methods - {"OPTIONS", "HEAD"}
        }
        assert {each for each in found if each[1] not in OPEN} == NEEDED.keys()

    async def test_a_key_opens_what_it_is_good_for_and_nothing_else(self, start, guarded):
        client = await start(guarded)
        for (method, path), needed in NEEDED.items():
            url = "http://test" + path.format(record_id=ID, name="drift-none.html", owner="o", version="1")
            url += "?seconds=0.1" if path.endswith("profile") else ""
            for scope, key in KEYS.items():
                answer = await client.request(method, url, content=b"", headers={"X-API-Key": key})
                allowed = scope in {needed, "admin"}
                assert (answer.status_code not in REFUSED) is allowed, (method, path, scope)
                if not allowed:
                    assert answer.status_code == 403
                    assert answer.headers["content-type"] == "application/problem+json"
                    assert f"'{needed}'" in answer.json()["detail"]
                    assert f'scope="{needed}"' in answer.headers["www-authenticate"]
            for headers in ({}, {"X-API-Key": "wrong"}):
                answer = await client.request(method, url, content=b"", headers=headers)
                assert answer.status_code in {401, 429}

    async def test_api_key_stays_and_may_do_everything(self, start, guarded, kick):
        client = await start(replace(guarded, api_key="sesame"))
        for key in ("sesame", KEYS["admin"]):
            made = (await client.post("/predict", json=kick, headers={"X-API-Key": key})).json()
            gone = await client.delete(f"/predictions/{made['id']}", headers={"X-API-Key": key})
            assert gone.status_code == 204


class TestSending:
    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"X-API-Key": KEYS["predict"]}, 200),
            ({"Authorization": f"Bearer {KEYS['predict']}"}, 200),
            ({"Authorization": f"bearer   {KEYS['predict']} "}, 200),
            ({"Authorization": f"Basic {KEYS['predict']}"}, 401),
            ({"Authorization": KEYS["predict"]}, 401),
            ({"X-API-Key": KEYS["predict"], "Authorization": "Bearer of-a-proxy"}, 200),
            ({"X-API-Key": "", "Authorization": f"Bearer {KEYS['predict']}"}, 401),
            ({"X-API-Key": "wrong", "Authorization": f"Bearer {KEYS['predict']}"}, 401),
            ({"X-API-Key": KEYS["predict"][:-1]}, 401),
            ({"X-API-Key": KEYS["predict"].upper()}, 401),
            ({"X-API-Key": keys.make("a", [Scope.PREDICT], None)[1].sha256}, 401),
        ],
    )
    @pytest.mark.parametrize("fastlane", [True, False])
    async def test_either_header_takes_a_key(self, start, guarded, kick, headers, status, fastlane):
        client = await start(replace(guarded, fastlane=fastlane))
        answer = await client.post("/predict", json=kick, headers=headers)
        assert answer.status_code == status
        if status == 401:
            assert answer.headers["www-authenticate"] == 'Bearer realm="kickserve"'

    async def test_a_key_that_has_expired_opens_nothing(self, start, settings, tmp_path, kick):
        more = [
            entry("late", "late-key", ["admin"], expires=in_an_hour(hours=-1)),
            entry("soon", "soon-key", ["admin"], expires=in_an_hour()),
        ]
        client = await start(replace(settings, keys=write(tmp_path / "keys.json", *more)))
        for key, status in (("late-key", 401), ("soon-key", 200)):
            for path in ("/predict", "/explain"):
                answer = await client.post(path, json=kick, headers={"X-API-Key": key})
                assert answer.status_code == status


class TestRing:
    @given(
        st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=8, unique=True),
        st.binary(max_size=60),
    )
    def test_only_what_is_in_it_is_found(self, held, sent):
        ring = KeyRing(default_keys(Settings(api_key=each.decode("latin-1")))[0] for each in held)
        wanted = {each.decode("latin-1").encode() for each in held}
        assert (ring.find(sent) is not None) is (sent in wanted)

    def test_a_key_that_was_changed_is_not_the_one_that_was_found(self):
        before = Key("a", frozenset({Scope.READ}), b"1" * 32)
        assert KeyRing([before]).holds(before)
        assert not KeyRing([dataclasses.replace(before, scopes=frozenset(Scope))]).holds(before)
        assert not KeyRing([dataclasses.replace(before, expires=0.0)]).holds(
            dataclasses.replace(before, expires=0.0)
        )
        assert not KeyRing([]).holds(before)


class TestFile:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "[]",
            "{",
            '{"keys": [{"name": "a"}]}',
            '{"keys": [{"name": "a", "scopes": [], "sha256": "%s"}]}' % ("0" * 64),
            '{"keys": [{"name": "a", "scopes": ["root"], "sha256": "%s"}]}' % ("0" * 64),
            '{"keys": [{"name": "a\\nb", "scopes": ["read"], "sha256": "%s"}]}' % ("0" * 64),
            '{"keys": [{"name": "a\\n", "scopes": ["read"], "sha256": "%s"}]}' % ("0" * 64),
            '{"keys": [{"name": "a", "scopes": ["read"], "sha256": "00"}]}',
            '{"keys": [{"name": "a", "scopes": ["read"], "sha256": "%s", "key": "k"}]}' % ("0" * 64),
            '{"keys": [{"name": "a", "scopes": ["read"], "sha256": "%s", "expires": "soon"}]}' % ("0" * 64),
            '{"keys": [{"name": "a", "scopes": ["read"], "sha256": "%s", "expires": "2026-01-01T00:00"}]}'
            % ("0" * 64),
        ],
    )
    def test_one_that_is_broken_stops_the_start(self, tmp_path, text):
        (tmp_path / "keys.json").write_text(text)
        with pytest.raises(ConfigurationError, match=r"keys\.json can't be used"):
            keys.read(tmp_path / "keys.json")

    def test_a_server_does_not_start_without_the_file_that_it_is_told_of(self, tmp_path):
        with (
            pytest.raises(RuntimeError, match="kickserve key new"),
            serving(tmp_path, KICKSERVE_KEYS="none.json"),
        ):
            pass

    async def test_a_change_is_taken_up_and_a_broken_one_is_not(self, start, guarded, tmp_path, caplog):
        client = await start(guarded)
        gate, file = client.app.authenticator, tmp_path / "keys.json"

        async def status(key):
            return (await client.get("/model", headers={"X-API-Key": key})).status_code

        write(file, entry("new", "new-key", ["read"]))
        gate.reload()
        assert await status("new-key") == 200
        file.write_text('{"keys": [')
        gate.reload()
        gate.reload()
        assert await status("new-key") == 200
        assert caplog.text.count("the keys before stay") == 1
        file.unlink()
        gate.reload()
        assert await status("new-key") == 200
        write(file)
        gate.reload()
        assert await status("new-key") == 401
        assert await status(KEYS["read"]) == 200

    def test_all_workers_of_a_running_service_follow(self, tmp_path, kick):
        file = write(tmp_path / "keys.json")
        often = {"KICKSERVE_RATE_FAILURES": "0"}  # the wrong key is sent until both have noticed
        with serving(tmp_path, **BARE, **often, KICKSERVE_KEYS=str(file), KICKSERVE_WORKERS="2") as server:

            def statuses(key):
                # A connection each, so that both workers are asked.
                return {
                    httpx.post(f"{server.url}/predict", json=kick, headers={"X-API-Key": key}).status_code
                    for _ in range(12)
                }

            assert statuses(KEYS["predict"]) == {200}
            assert run(["key", "remove", "predict", "--file", str(file)]) == 0
            within(60, lambda: statuses(KEYS["predict"]) == {401})
            assert server.end() == 0


def within(seconds, true):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


class TestCommand:
    @pytest.fixture
    def kickserve(self, capsys):
        def call(*arguments):
            code = run(["key", *map(str, arguments)])
            return code, *capsys.readouterr()

        return call

    def test_a_key_is_shown_once_and_its_digest_is_kept_for_the_owner_alone(self, kickserve, tmp_path):
        file = tmp_path / "new" / "keys.json"
        code, out, said = kickserve("new", "app", "--scope", "predict", "--scope", "read", "--file", file)
        key = out.strip()
        assert code == 0
        assert key not in said
        assert len(key) > 40
        assert key not in file.read_text()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        [kept] = keys.read(file)
        assert keys.key_of(kept) == KeyRing([keys.key_of(kept)]).find(key.encode())
        assert kept.scopes == (Scope.PREDICT, Scope.READ)

    def test_the_setting_names_the_file(self, kickserve, tmp_path, monkeypatch):
        assert kickserve("list")[0] == 2
        monkeypatch.setenv("KICKSERVE_KEYS", str(tmp_path / "keys.json"))
        assert kickserve("new", "app", "--scope", "admin")[0] == 0
        code, out, _ = kickserve("list", "--json")
        assert code == 0
        assert [each["name"] for each in json.loads(out)] == ["app"]
        assert "app" in kickserve("list")[1]

    def test_rotation_lets_both_keys_in_until_the_overlap_is_over(self, kickserve, tmp_path):
        file = tmp_path / "keys.json"
        first = kickserve("new", "app", "--scope", "predict", "--file", file)[1].strip()
        [found] = KeyRing(map(keys.key_of, keys.read(file)))
        code, out, _ = kickserve("rotate", "app", "--overlap", "1d", "--file", file, "--json")
        assert code == 0
        second = json.loads(out)["key"]
        before, after = (keys.key_of(each) for each in keys.read(file))
        assert 86_000 < before.expires - time.time() <= 86_400
        assert after.expires == float("inf")
        ring = KeyRing([before, after])
        assert ring.find(first.encode()) == before
        assert ring.holds(found)  # a page that was opened with it stays open
        assert not KeyRing([after]).holds(found)
        assert ring.find(second.encode()) == after
        assert before.scopes == after.scopes

    def test_what_can_t_be_done_is_said(self, kickserve, tmp_path):
        file = tmp_path / "keys.json"
        kickserve("new", "app", "--scope", "read", "--file", file)
        for arguments, why in [
            (("new", "app", "--scope", "read"), "rotate"),
            (("new", "default", "--scope", "read"), "API_KEY"),
            (("new", "a b", "--scope", "read"), "can't be called"),
            (("new", "a", "--scope", "root"), "root"),
            (("new", "a"), "--scope"),
            (("new", "a", "--scope", "read", "--expires", "soon"), "90d"),
            (("rotate", "nobody"), "there are: app"),
            (("remove", "nobody"), "there are: app"),
        ]:
            code, _, said = kickserve(*arguments, "--file", file)
            assert code == 2
            assert why in said
        assert [each.name for each in keys.read(file)] == ["app"]

    def test_a_broken_file_is_left_as_it_is(self, kickserve, tmp_path):
        file = tmp_path / "keys.json"
        file.write_text("{")
        assert kickserve("new", "app", "--scope", "read", "--file", file)[0] == 2
        assert file.read_text() == "{"

    def test_a_link_stays_one(self, kickserve, tmp_path):
        (tmp_path / "real").mkdir()
        write(tmp_path / "real" / "keys.json")
        (tmp_path / "keys.json").symlink_to(tmp_path / "real" / "keys.json")
        assert kickserve("remove", "read", "--file", tmp_path / "keys.json")[0] == 0
        assert (tmp_path / "keys.json").is_symlink()
        assert [each.name for each in keys.read(tmp_path / "real" / "keys.json")] == ["predict", "admin"]
        assert [each.name for each in (tmp_path / "real").iterdir()] == ["keys.json"]


class TestTold:
    async def test_the_name_of_a_key_stands_in_the_lines_of_its_requests(
        self, start, guarded, kick, monkeypatch
    ):
        names = []
        for fastlane in (True, False):
            client = await start(
                replace(
                    guarded,
                    fastlane=fastlane,
                    database_url="sqlite://",
                    journal_dir=guarded.journal_dir / str(fastlane),
                )
            )
            predictor = client.app.predictor
            monkeypatch.setattr(predictor, "predict", lambda _: names.append(KEY_NAME.get()) or 1 / 0)
            await client.post("/predict", json=kick, headers={"X-API-Key": KEYS["predict"]})
            assert KEY_NAME.get() == ""
        assert names == ["predict", "predict"]

    async def test_metrics_count_requests_by_key(self, start, guarded, kick):
        client = await start(guarded)
        for path in ("/predict", "/explain", "/predict"):
            await client.post(path, json=kick, headers={"X-API-Key": KEYS["predict"]})
        await client.get("/model", headers={"X-API-Key": KEYS["predict"]})  # 403
        text = (await client.get("http://test/metrics", headers={"X-API-Key": KEYS["read"]})).text
        assert 'kickserve_key_requests_total{key="predict"} 3.0' in text
        assert 'kickserve_key_requests_total{key="read"} 1.0' in text

    def test_counts_are_of_all_workers_and_their_number_is_bounded(self):
        meters = KeyMeters(2)
        for worker in (0, 1):
            meters.join_worker(worker)
            for number in range(NAMES + 10):
                meters.add(f"key-{number}")
        meters.join_worker(1)  # another takes its place
        meters.add("key-0")
        counts = meters.read()
        assert len(counts) == NAMES
        assert counts["key-0"] == 3
        assert counts["other"] == 22
        assert sum(counts.values()) == 2 * (NAMES + 10) + 1

    def test_a_service_with_a_file_of_keys_alone_may_be_reached_by_others(self, tmp_path):
        def guards(settings):
            return create_authenticator(discover(settings), settings).guarded

        write(tmp_path / "keys.json")
        assert guards(Settings(environ={"KICKSERVE_KEYS": str(tmp_path / "keys.json")}))
        assert not guards(Settings())
