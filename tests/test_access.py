"""Keys and rate limits: scopes, headers, the file of keys and its command, rates, proxies, wrong keys."""

from __future__ import annotations

import json
import shlex
import stat
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import httpx
import msgspec
import pytest
from conftest import KEYS, configured, key_entry, write_keys
from hypothesis import given
from hypothesis import strategies as st
from litestar.routes import HTTPRoute
from serving import BARE, serving, until

from kickserve.addresses import Proxies, identity, proxies
from kickserve.cli import run
from kickserve.linear import load_default
from kickserve.plugins import KEY_NAME
from kickserve_access.rates import Buckets, Rate, rate

ID = "01900000-0000-7000-8000-000000000000"
# Every route with the scope that it needs. A route that is missing here fails a test.
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
    ("DELETE", "/api/v1/predictions/{record_id}/outcome"): "predict",
    ("PUT", "/api/v1/predictions/outcomes"): "predict",
    ("GET", "/api/v1/quality"): "read",
    ("GET", "/api/v1/kickers"): "read",
    ("GET", "/api/v1/kickers/{kicker}"): "read",
    ("DELETE", "/api/v1/kickers/{kicker}"): "admin",
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
NDJSON = {"Content-Type": "application/x-ndjson", "Accept": "application/x-ndjson"}
BOTH_WAYS = pytest.mark.parametrize("fastlane", ["1", "0"], ids=["lane", "router"])


def sent(name):
    return {"X-API-Key": KEYS.get(name, name)}


def in_hours(count):
    return (datetime.now(UTC) + timedelta(hours=count)).isoformat()


@pytest.fixture
def guarded(settings, tmp_path):
    return configured(settings, KICKSERVE_KEYS=write_keys(tmp_path / "keys.json"))


class TestScopes:
    async def test_a_key_opens_the_routes_of_its_scope_and_no_others(self, start, guarded):
        client = await start(guarded)
        routes = {
            (method, route.path_format)
            for route in client.app.routes
            if isinstance(route, HTTPRoute) and not route.path_format.startswith("/docs")
            for method in route.methods - {"OPTIONS", "HEAD"}
        }
        assert {each for each in routes if each[1] not in OPEN} == NEEDED.keys()
        for (method, path), needed in NEEDED.items():
            url = "http://test" + path.format(
                record_id=ID, name="drift-none.html", owner="o", version="1", kicker="Ann"
            )
            url += "?seconds=0.1" if path.endswith("profile") else ""
            for scope in KEYS:
                answer = await client.request(method, url, content=b"", headers=sent(scope))
                allowed = scope in {needed, "admin"}
                assert (answer.status_code not in REFUSED) is allowed, (method, path, scope)
                if not allowed:
                    assert answer.status_code == 403
                    assert answer.headers["content-type"] == "application/problem+json"
                    assert f"'{needed}'" in answer.json()["detail"]
                    assert f'scope="{needed}"' in answer.headers["www-authenticate"]
            for headers in ({}, sent("wrong")):
                answer = await client.request(method, url, content=b"", headers=headers)
                assert answer.status_code in {401, 429}

    async def test_api_key_opens_everything_beside_a_file_of_keys(self, start, guarded, kick):
        client = await start(configured(guarded, API_KEY="sesame"))
        made = (await client.post("/predict", json=kick, headers=sent("sesame"))).json()
        for key, status in (("admin", 204), ("sesame", 404)):
            gone = await client.delete(f"/predictions/{made['id']}", headers=sent(key))
            assert gone.status_code == status

    @BOTH_WAYS
    async def test_either_header_takes_a_key(self, start, guarded, kick, fastlane):
        client = await start(configured(guarded, KICKSERVE_FASTLANE=fastlane, KICKSERVE_RATE_FAILURES="0"))
        key = KEYS["predict"]
        for headers, status in [
            ({"X-API-Key": key}, 200),
            ({"Authorization": f"Bearer {key}"}, 200),
            ({"Authorization": f"bearer   {key} "}, 200),
            ({"Authorization": f"Basic {key}"}, 401),
            ({"Authorization": key}, 401),
            ({"X-API-Key": key, "Authorization": "Bearer of-a-proxy"}, 200),
            ({"X-API-Key": "", "Authorization": f"Bearer {key}"}, 401),
            ({"X-API-Key": "wrong", "Authorization": f"Bearer {key}"}, 401),
            ({"X-API-Key": key[:-1]}, 401),
            ({"X-API-Key": key.upper()}, 401),
            ({"X-API-Key": key_entry("predict", key, [])["sha256"]}, 401),
        ]:
            answer = await client.post("/predict", json=kick, headers=headers)
            assert answer.status_code == status, headers
            if status == 401:
                assert answer.headers["www-authenticate"] == 'Bearer realm="kickserve"'

    async def test_an_expired_key_opens_nothing(self, start, settings, tmp_path, kick):
        more = [
            key_entry("late", "late-key", ["admin"], expires=in_hours(-1)),
            key_entry("soon", "soon-key", ["admin"], expires=in_hours(1)),
        ]
        client = await start(configured(settings, KICKSERVE_KEYS=write_keys(tmp_path / "keys.json", *more)))
        for key, status in (("late-key", 401), ("soon-key", 200)):
            for path in ("/predict", "/explain"):
                assert (await client.post(path, json=kick, headers=sent(key))).status_code == status

    @BOTH_WAYS
    async def test_logs_know_the_name_of_the_key_of_a_request(
        self, start, guarded, kick, monkeypatch, caplog, fastlane
    ):
        names = []
        monkeypatch.setattr(caplog.handler, "emit", lambda _: names.append(KEY_NAME.get()))
        good = load_default()
        failing = SimpleNamespace(card=good.card, warnings=good.warnings, predict=lambda _: 1 / 0)
        client = await start(configured(guarded, KICKSERVE_FASTLANE=fastlane), model=failing)
        answer = await client.post("/predict", json=kick, headers=sent("predict"))
        assert answer.status_code == 500
        assert names[-1] == "predict"
        assert KEY_NAME.get() == ""

    async def test_metrics_count_requests_by_key(self, start, guarded, kick):
        client = await start(guarded)
        for path in ("/predict", "/explain", "/predict"):
            await client.post(path, json=kick, headers=sent("predict"))
        await client.get("/model", headers=sent("predict"))  # 403
        text = (await client.get("http://test/metrics", headers=sent("read"))).text
        assert 'kickserve_key_requests_total{key="predict"} 3.0' in text
        assert 'kickserve_key_requests_total{key="read"} 1.0' in text


def file_of(**changes):
    """Write a file of one key with changes."""
    return json.dumps({"keys": [{**key_entry("a", "a-key", ["read"]), **changes}]})


class TestFile:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "[]",
            "{",
            '{"keys": [{"name": "a"}]}',
            file_of(scopes=[]),
            file_of(scopes=["root"]),
            file_of(name="a\nb"),
            file_of(name="a\n"),
            file_of(sha256="00"),
            file_of(key="k"),
            file_of(expires="soon"),
            file_of(expires="2026-01-01T00:00"),
        ],
    )
    def test_a_broken_file_stops_the_start(self, tmp_path, text, monkeypatch, capsys):
        (tmp_path / "keys.json").write_text(text)
        monkeypatch.setenv("KICKSERVE_KEYS", "keys.json")
        assert run(["serve"]) == 2
        assert "keys.json can't be used" in capsys.readouterr().err

    def test_a_missing_file_stops_the_start_with_the_command_that_makes_one(self, monkeypatch, capsys):
        monkeypatch.setenv("KICKSERVE_KEYS", "none.json")
        assert run(["serve"]) == 2
        advice = capsys.readouterr().err.partition("with  kickserve ")[2]
        assert run(shlex.split(advice)) == 0

    async def test_changes_are_followed_and_a_broken_file_changes_nothing(
        self, start, guarded, tmp_path, caplog
    ):
        client = await start(guarded)
        file, reload = tmp_path / "keys.json", client.app.authenticator.reload

        async def status(key):
            return (await client.get("/model", headers=sent(key))).status_code

        write_keys(file, key_entry("new", "new-key", ["read"]))
        reload()
        assert await status("new-key") == 200
        file.write_text('{"keys": [')
        reload()
        reload()
        assert await status("new-key") == 200
        assert caplog.text.count("the previous keys stay valid") == 1
        file.unlink()
        reload()
        assert await status("new-key") == 200
        write_keys(file)
        reload()
        assert (await status("new-key"), await status("read")) == (401, 200)

    def test_workers_limit_a_key_together_and_all_follow_the_file(self, tmp_path, kick):
        file = write_keys(tmp_path / "keys.json")
        variables = {"KICKSERVE_KEYS": file, "KICKSERVE_RATE": "20/h", "KICKSERVE_RATE_FAILURES": "0"}
        with serving(tmp_path, **BARE, **variables, KICKSERVE_WORKERS="2") as server:

            def statuses(name, count):
                # A connection for each, so that both workers answer.
                url = f"{server.url}/predict"
                return [httpx.post(url, json=kick, headers=sent(name)).status_code for _ in range(count)]

            assert statuses("predict", 25) == [200] * 20 + [429] * 5
            assert run(["key", "remove", "predict", "--file", file]) == 0
            until(lambda: set(statuses("predict", 12)) == {401})
            assert statuses("admin", 1) == [200]
            assert server.end() == 0


class TestCommand:
    @pytest.fixture
    def file(self, tmp_path):
        return tmp_path / "keys.json"

    @pytest.fixture
    def kickserve(self, capsys, file):
        """Run `kickserve key` on a file; return exit code, standard output and standard error."""

        def call(*arguments):
            code = run(["key", *arguments, "--file", str(file)])
            return code, *capsys.readouterr()

        return call

    @pytest.fixture
    def opens(self, start, settings, file, kick):
        """Return the statuses of predictions with some keys, by a service that has just read the file."""

        async def opens(*keys):
            client = await start(configured(settings, KICKSERVE_KEYS=str(file)))
            return [(await client.post("/predict", json=kick, headers=sent(key))).status_code for key in keys]

        return opens

    async def test_new_shows_the_key_once_and_keeps_its_digest_for_the_owner_alone(
        self, kickserve, file, opens
    ):
        code, out, err = kickserve("new", "app", "--scope", "predict", "--scope", "read")
        key = out.strip()
        assert code == 0
        assert len(key) > 40
        assert key not in err + file.read_text()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        [entry] = json.loads(kickserve("list", "--json")[1])
        assert (entry["name"], entry["scopes"]) == ("app", ["predict", "read"])
        assert "app" in kickserve("list")[1]
        assert await opens(key) == [200]

    def test_the_setting_names_the_file_and_its_folder_is_made(self, tmp_path, monkeypatch, capsys):
        assert run(["key", "list"]) == 2
        monkeypatch.setenv("KICKSERVE_KEYS", str(tmp_path / "new" / "keys.json"))
        assert run(["key", "new", "app", "--scope", "admin"]) == 0
        assert run(["key", "list"]) == 0
        assert "app" in capsys.readouterr().out

    async def test_rotate_lets_both_keys_in_until_the_overlap_ends(self, kickserve, opens):
        first = kickserve("new", "app", "--scope", "predict")[1].strip()
        second = json.loads(kickserve("rotate", "app", "--overlap", "1d", "--json")[1])["key"]
        before, after = json.loads(kickserve("list", "--json")[1])
        lasts = datetime.fromisoformat(before["expires"]) - datetime.fromisoformat(after["created"])
        assert lasts == timedelta(days=1)
        assert "expires" not in after
        assert before["scopes"] == after["scopes"] == ["predict"]
        assert await opens(first, second) == [200, 200]

    def test_a_mistake_is_explained_and_changes_nothing(self, kickserve):
        kickserve("new", "app", "--scope", "read")
        for arguments, why in [
            (("new", "app", "--scope", "read"), "rotate"),
            (("new", "default", "--scope", "read"), "API_KEY"),
            (("new", "a b", "--scope", "read"), "is not a valid name"),
            (("new", "a", "--scope", "root"), "root"),
            (("new", "a"), "--scope"),
            (("new", "a", "--scope", "read", "--expires", "soon"), "90d"),
            (("rotate", "other"), "existing keys: app"),
            (("remove", "other"), "existing keys: app"),
        ]:
            code, _, err = kickserve(*arguments)
            assert code == 2
            assert why in err
        assert [each["name"] for each in json.loads(kickserve("list", "--json")[1])] == ["app"]

    def test_a_broken_file_stays_as_it_is(self, kickserve, file):
        file.write_text("{")
        assert kickserve("new", "app", "--scope", "read")[0] == 2
        assert file.read_text() == "{"

    def test_a_link_to_the_file_stays_a_link(self, kickserve, file, tmp_path):
        (tmp_path / "real").mkdir()
        write_keys(tmp_path / "real" / "keys.json")
        file.symlink_to(tmp_path / "real" / "keys.json")
        assert kickserve("remove", "read")[0] == 0
        assert file.is_symlink()
        assert [each["name"] for each in json.loads(kickserve("list", "--json")[1])] == ["predict", "admin"]
        assert [each.name for each in (tmp_path / "real").iterdir()] == ["keys.json"]


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def take(buckets, client, tries):
    """Try so often, and return how many requests the client's bucket held."""
    got, place = 0, buckets.place(client)
    for _ in range(tries):
        if not buckets.wait(place):
            buckets.take(place)
            got += 1
    return got


class TestRates:
    @given(
        most=st.integers(1, 1000),
        seconds=st.sampled_from([1, 60, 3600]),
        pauses=st.lists(st.floats(0, 100), max_size=60),
    )
    def test_no_pattern_of_pauses_gets_more_than_the_rate(self, most, seconds, pauses):
        clock = Clock()
        buckets = Buckets(Rate(most, seconds), clock)
        got = 0
        for pause in pauses:
            clock.now += pause
            left = buckets.left(buckets.place(b"a"))[0]
            assert take(buckets, b"a", 40) == min(40, left)
            got += min(40, left)
        assert got <= most + (clock.now - 1000) * most / seconds + 1e-3

    def test_many_other_clients_do_not_free_a_limited_one(self):
        buckets = Buckets(Rate(2, 60), Clock())
        assert take(buckets, b"limited", 5) == 2
        for number in range(50_000):
            assert buckets.wait(buckets.place(b"%d" % number)) == 0
        assert take(buckets, b"limited", 5) == 0

    def test_a_rate_is_a_number_a_unit(self):
        for text, expected in (
            ("100/s", Rate(100, 1)),
            (" 5_000 / M ", Rate(5000, 60)),
            ("", None),
            ("0", None),
        ):
            assert rate(text) == expected
        for text in ("100", "/s", "0/s", "-1/s", "1.5/s", "100/w", "a/s", "1/s/s"):
            with pytest.raises(ValueError, match="must be a rate such as"):
                rate(text)


class TestLimits:
    @pytest.fixture
    def limited(self, settings, tmp_path):
        file = write_keys(tmp_path / "keys.json", key_entry("predict", "its-next", ["predict"]))
        return configured(settings, KICKSERVE_KEYS=file, KICKSERVE_RATE="3/h")

    @BOTH_WAYS
    async def test_answers_say_how_often_a_key_may_still_ask(self, start, limited, kick, fastlane):
        client = await start(configured(limited, KICKSERVE_FASTLANE=fastlane))
        for left in (2, 1, 0):
            answer = await client.post("/predict", json=kick, headers=sent("predict"))
            assert answer.status_code == 200
            assert answer.headers["ratelimit-policy"] == '"key";q=3;w=3600'
            assert answer.headers["ratelimit"].startswith(f'"key";r={left};t=')
        answer = await client.post("/predict", json=kick, headers=sent("predict"))
        assert answer.status_code == 429
        assert 0 < int(answer.headers["retry-after"]) <= 1200
        assert answer.headers["ratelimit"].startswith('"key";r=0;t=')
        assert answer.headers["content-type"] == "application/problem+json"
        assert "3 requests in 3,600 s" in answer.json()["detail"]
        assert (await client.post("/explain", json=kick, headers=sent("predict"))).status_code == 429
        assert (await client.get("/model", headers=sent("read"))).status_code == 200

    async def test_a_rotated_key_shares_the_limit_of_its_name(self, start, limited, kick):
        client = await start(limited)
        for key, status in [("predict", 200), ("its-next", 200), ("its-next", 200), ("predict", 429)]:
            assert (await client.post("/predict", json=kick, headers=sent(key))).status_code == status

    async def test_health_has_no_limit(self, start, limited):
        client = await start(configured(limited, KICKSERVE_RATE_ADDRESS="3/h"))
        for _ in range(10):
            answer = await client.get("/health/ready")
            assert answer.status_code == 200
            assert "ratelimit" not in answer.headers

    async def test_a_batch_counts_by_its_kicks(self, start, limited, kick):
        client = await start(configured(limited, KICKSERVE_RATE="10/h"))
        for kicks, left in [(99, 9), (100, 8), (101, 6)]:
            answer = await client.post("/predict/batch", json=[kick] * kicks, headers=sent("predict"))
            assert answer.headers["ratelimit"].startswith(f'"key";r={left};')
        answer = await client.post("/predict/batch", json=[kick] * 1_500, headers=sent("predict"))
        assert answer.status_code == 200  # what the bucket lacks is owed
        answer = await client.post("/predict", json=kick, headers=sent("predict"))
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 360 * 8

    @pytest.mark.parametrize("pieces", [1, 20])
    async def test_a_stream_counts_by_its_kicks(self, start, limited, kick, pieces):
        client = await start(configured(limited, KICKSERVE_RATE="10/h"))
        headers = {**sent("predict"), **NDJSON}

        async def body():
            for _ in range(pieces):
                yield (msgspec.json.encode(kick) + b"\n") * (1_000 // pieces)

        assert (await client.post("/predict/batch", content=body(), headers=headers)).status_code == 200
        assert (await client.post("/predict/batch", content=b"", headers=headers)).status_code == 429

    async def test_a_request_refused_by_one_limit_does_not_count_for_the_other(self, start, limited, kick):
        client = await start(configured(limited, KICKSERVE_RATE="1/h", KICKSERVE_RATE_ADDRESS="5/h"))
        for name, left in [("predict", 4), ("predict", 4), ("predict", 4), ("admin", 3)]:
            answer = await client.post("/predict", json=kick, headers=sent(name))
            assert f'"address";r={left};' in answer.headers["ratelimit"]

    async def test_without_a_limit_answers_name_none(self, client, kick):
        assert "ratelimit" not in (await client.post("/predict", json=kick)).headers


class TestAddresses:
    @pytest.mark.parametrize(
        ("trusted", "peer", "forwarded", "client"),
        [
            ("127.0.0.1", "127.0.0.1", None, "127.0.0.1"),
            ("127.0.0.1", "127.0.0.1", "1.2.3.4", "1.2.3.4"),
            ("127.0.0.1", "5.6.7.8", "1.2.3.4", "5.6.7.8"),  # anybody can send that
            ("", "127.0.0.1", "1.2.3.4", "127.0.0.1"),
            ("10.0.0.0/8", "10.1.1.1", "6.6.6.6, 1.2.3.4, 10.2.2.2", "1.2.3.4"),  # the client wrote the first
            ("10.0.0.0/8", "10.1.1.1", "10.3.3.3, 10.2.2.2", "10.3.3.3"),
            ("10.0.0.0/8", "10.1.1.1", "1.2.3.4, unknown, 10.2.2.2", "10.2.2.2"),
            ("10.0.0.0/8", "10.1.1.1", "nonsense", "10.1.1.1"),
            ("10.0.0.0/8", "10.1.1.1", "", "10.1.1.1"),
            ("10.0.0.0/8", "10.1.1.1", "1.2.3.4:5678", "1.2.3.4"),
            ("10.0.0.0/8", "10.1.1.1", "[2001:db8::1]:80", "2001:db8::1"),
            ("10.0.0.0/8", "::ffff:10.1.1.1", "1.2.3.4", "1.2.3.4"),
            ("2001:db8::/32", "2001:db8::9", "2a00::1", "2a00::1"),
            ("2", "10.1.1.1", "6.6.6.6, 1.2.3.4, 10.2.2.2", "1.2.3.4"),
            ("1", "10.1.1.1", "6.6.6.6, 1.2.3.4", "1.2.3.4"),
            ("3", "10.1.1.1", "1.2.3.4", "1.2.3.4"),
            ("0", "10.1.1.1", "1.2.3.4", "10.1.1.1"),
        ],
    )
    def test_the_client_is_the_last_address_from_which_a_trusted_proxy_forwards(
        self, trusted, peer, forwarded, client
    ):
        header = None if forwarded is None else forwarded.encode()
        assert Proxies(proxies(trusted)).client(peer, header) == client

    def test_an_ipv6_network_counts_as_one_client_and_ipv4_is_the_same_either_way(self):
        assert identity("2001:db8:1:2:3::4") == identity("2001:db8:1:2::9")
        assert identity("2001:db8:1:2::1") != identity("2001:db8:1:3::1")
        assert identity("::ffff:1.2.3.4") == identity("1.2.3.4") != identity("1.2.3.5")

    def test_other_texts_name_no_proxies(self):
        for value in ("proxy.example", "10.0.0.0/33", "-1", "1.2.3.4;5.6.7.8", "10.0.0.1/8"):
            with pytest.raises(ValueError, match="must be addresses or networks"):
                proxies(value)

    @pytest.mark.parametrize(("trusted", "second"), [("127.0.0.1", [200, 200, 200, 429]), ("", [429] * 4)])
    async def test_clients_behind_a_trusted_proxy_alone_have_limits_of_their_own(
        self, start, settings, kick, trusted, second
    ):
        limits = {"KICKSERVE_RATE_ADDRESS": "3/h", "KICKSERVE_TRUSTED_PROXIES": trusted}
        client = await start(configured(settings, **limits))  # httpx comes from 127.0.0.1
        for address, expected in [("1.1.1.1", [200, 200, 200, 429]), ("2.2.2.2", second)]:
            headers = {"X-Forwarded-For": address}
            got = [(await client.post("/predict", json=kick, headers=headers)).status_code for _ in range(4)]
            assert got == expected


class TestWrongKeys:
    @pytest.fixture
    def guessed(self, guarded):
        return configured(guarded, API_KEY="sesame", KICKSERVE_RATE_FAILURES="3/h")

    @BOTH_WAYS
    async def test_after_too_many_wrong_keys_of_an_address_its_right_keys_still_pass(
        self, start, guessed, kick, fastlane
    ):
        client = await start(configured(guessed, KICKSERVE_FASTLANE=fastlane))

        async def ask(key):
            return await client.post("/predict", json=kick, headers=sent(key))

        assert [(await ask(f"guess-{n}")).status_code for n in range(4)] == [401, 401, 401, 429]
        assert [(await ask(key)).status_code for key in ("sesame", "predict", "guess")] == [200, 200, 429]
        assert (await client.get("/model", headers=sent("sesame"))).status_code == 200
        assert int((await ask("guess")).headers["retry-after"]) > 0

    async def test_a_request_without_a_key_is_no_guess(self, start, guessed):
        client = await start(guessed)
        assert [(await client.get("/model")).status_code for _ in range(10)] == [401] * 10
        assert (await client.get("/model", headers=sent("sesame"))).status_code == 200
