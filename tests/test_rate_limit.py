"""Limits: how often a key and an address may ask, whose address that is, and what wrong keys lead to."""

from __future__ import annotations

import os

import httpx
import msgspec
import pytest
from conftest import having as replace
from hypothesis import given
from hypothesis import strategies as st
from keyring import KEYS, entry, write
from serving import BARE, serving

from kickserve.addresses import Proxies, identity, proxies
from kickserve_access.rates import Buckets, Rate, rate
from kickserve_access.settings import AccessSettings

SLOW = Rate(3, 3600)  # three, and no more while a test runs


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def taken(buckets, who, tries):
    """Ask so often, and return how often there was something in the bucket."""
    got, place = 0, buckets.place(who)
    for _ in range(tries):
        if not buckets.wait(place):
            buckets.take(place)
            got += 1
    return got


class TestBuckets:
    def test_a_bucket_is_full_at_first_and_fills_at_its_rate(self, clock):
        buckets = Buckets(Rate(10, 60), clock)
        assert taken(buckets, b"a", 100) == 10
        assert buckets.wait(buckets.place(b"a")) == pytest.approx(6)
        clock.now += 5.9
        assert taken(buckets, b"a", 100) == 0
        clock.now += 0.2
        assert taken(buckets, b"a", 100) == 1
        clock.now += 1e6
        assert taken(buckets, b"a", 100) == 10

    def test_each_has_its_own(self, clock):
        buckets = Buckets(Rate(2, 60), clock)
        assert [taken(buckets, who, 5) for who in (b"a", b"b", b"a")] == [2, 2, 0]

    @given(
        most=st.integers(1, 1000),
        seconds=st.sampled_from([1, 60, 3600]),
        pauses=st.lists(st.floats(0, 100), max_size=60),
    )
    def test_never_more_than_full_and_what_has_flowed_in(self, most, seconds, pauses):
        clock = Clock()
        buckets = Buckets(Rate(most, seconds), clock)
        began, got = clock.now, 0
        for pause in pauses:
            clock.now += pause
            left = buckets.left(buckets.place(b"a"))[0]
            now_got = taken(buckets, b"a", 40)
            assert now_got == min(40, left)
            got += now_got
        assert got <= most + (clock.now - began) * most / seconds + 1e-3

    def test_what_is_told_is_what_is_left(self, clock):
        buckets = Buckets(Rate(10, 60), clock)
        assert buckets.left(buckets.place(b"a")) == (10, 0)
        for taken_so_far in range(1, 11):
            buckets.take(buckets.place(b"a"))
            assert buckets.left(buckets.place(b"a")) == (10 - taken_so_far, 6 * taken_so_far)
        buckets.take(buckets.place(b"a"), 20)
        assert buckets.left(buckets.place(b"a")) == (0, 180)
        assert buckets.wait(buckets.place(b"a")) == pytest.approx(126)

    def test_memory_is_bounded_and_those_who_still_wait_are_not_forgotten_for_those_who_don_t(self, clock):
        buckets = Buckets(Rate(2, 60), clock)
        assert taken(buckets, b"the one", 5) == 2
        size = len(buckets._tags)
        for number in range(50_000):  # each asks about a bucket, none takes
            assert buckets.wait(buckets.place(b"%d" % number)) == 0
        assert len(buckets._tags) == size
        assert taken(buckets, b"the one", 5) == 0

    def test_what_is_untouched_says_so(self, clock):
        buckets = Buckets(Rate(2, 60), clock)
        assert buckets.untouched
        buckets.take(buckets.place(b"a"))
        assert not buckets.untouched
        clock.now += 31
        assert buckets.untouched

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no workers without fork")
    def test_workers_share_them(self):
        buckets = Buckets(SLOW)
        pid = os.fork()
        if pid == 0:
            buckets.take(buckets.place(b"a"), 2)
            os._exit(0)
        os.waitpid(pid, 0)
        assert taken(buckets, b"a", 5) == 1

    @pytest.mark.parametrize(
        ("text", "wanted"),
        [
            ("100/s", Rate(100, 1)),
            (" 5_000 / M ", Rate(5000, 60)),
            ("1/h", Rate(1, 3600)),
            ("", None),
            ("0", None),
        ],
    )
    def test_rates_are_read(self, text, wanted):
        assert rate(text) == wanted
        if wanted is not None:
            assert rate(str(wanted)) == wanted

    @pytest.mark.parametrize("text", ["100", "/s", "0/s", "-1/s", "1.5/s", "100/w", "a/s", "1/s/s"])
    def test_what_is_no_rate_is_refused(self, text):
        with pytest.raises(ValueError, match="must be a rate such as"):
            rate(text)


class TestAddresses:
    @pytest.mark.parametrize(
        ("trusted", "peer", "forwarded", "client"),
        [
            ("127.0.0.1", "127.0.0.1", None, "127.0.0.1"),
            ("127.0.0.1", "127.0.0.1", "1.2.3.4", "1.2.3.4"),
            ("127.0.0.1", "5.6.7.8", "1.2.3.4", "5.6.7.8"),  # anybody can send that
            ("", "127.0.0.1", "1.2.3.4", "127.0.0.1"),
            (
                "10.0.0.0/8",
                "10.1.1.1",
                "6.6.6.6, 1.2.3.4, 10.2.2.2",
                "1.2.3.4",
            ),  # a client's own entry is first
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
    def test_the_client_is_the_last_whom_a_trusted_proxy_has_heard(self, trusted, peer, forwarded, client):
        sent = None if forwarded is None else forwarded.encode()
        assert Proxies(proxies(trusted)).client(peer, sent) == client

    @given(st.binary(max_size=200))
    def test_whatever_is_forwarded_gives_an_address_of_the_chain_or_the_peer(self, forwarded):
        client = Proxies(proxies("10.0.0.0/8")).client("10.1.1.1", forwarded)
        assert client == "10.1.1.1" or client.encode() in forwarded
        assert len(identity(client)) <= 64

    def test_an_ipv6_network_counts_as_one_and_ipv4_is_the_same_either_way(self):
        assert identity("2001:db8:1:2:3::4") == identity("2001:db8:1:2::9")
        assert identity("2001:db8:1:2::1") != identity("2001:db8:1:3::1")
        assert identity("::ffff:1.2.3.4") == identity("1.2.3.4") != identity("1.2.3.5")
        assert identity("a socket") == b"a socket"

    @pytest.mark.parametrize("value", ["proxy.example", "10.0.0.0/33", "-1", "1.2.3.4;5.6.7.8", "10.0.0.1/8"])
    def test_what_names_no_proxies_is_refused(self, value):
        with pytest.raises(ValueError, match="must be addresses or networks"):
            proxies(value)


@pytest.fixture
def by_key(settings, tmp_path):
    file = write(tmp_path / "keys.json", entry("predict", "its-next", ["predict"]))
    return replace(settings, keys=file, rate=SLOW)


class TestByKey:
    @pytest.mark.parametrize("fastlane", [True, False])
    async def test_each_key_has_its_own_share_and_is_told_of_it(self, start, by_key, kick, fastlane):
        client = await start(replace(by_key, fastlane=fastlane))
        send = {"X-API-Key": KEYS["predict"]}
        for left in (2, 1, 0):
            answer = await client.post("/predict", json=kick, headers=send)
            assert answer.status_code == 200
            assert answer.headers["ratelimit-policy"] == '"key";q=3;w=3600'
            assert answer.headers["ratelimit"] == f'"key";r={left};t={(3 - left) * 1200}'
        answer = await client.post("/predict", json=kick, headers=send)
        assert answer.status_code == 429
        assert 1100 < int(answer.headers["retry-after"]) <= 1200
        assert answer.headers["ratelimit"] == '"key";r=0;t=3600'
        assert answer.headers["content-type"] == "application/problem+json"
        assert "3 times in 3,600 s" in answer.json()["detail"]
        assert (await client.post("/explain", json=kick, headers=send)).status_code == 429
        assert (await client.get("/model", headers={"X-API-Key": KEYS["read"]})).status_code == 200

    async def test_a_key_and_the_one_that_follows_it_share(self, start, by_key, kick):
        client = await start(by_key)
        for key, status in [
            (KEYS["predict"], 200),
            ("its-next", 200),
            ("its-next", 200),
            (KEYS["predict"], 429),
        ]:
            answer = await client.post("/predict", json=kick, headers={"X-API-Key": key})
            assert answer.status_code == status

    async def test_health_is_never_limited(self, start, by_key):
        client = await start(replace(by_key, rate_address=SLOW))
        for _ in range(10):
            answer = await client.get("/health/ready")
            assert answer.status_code == 200
            assert "ratelimit" not in answer.headers

    async def test_a_batch_counts_by_its_kicks(self, start, by_key, kick):
        client = await start(replace(by_key, rate=Rate(10, 3600)))
        send = {"X-API-Key": KEYS["predict"]}
        for kicks, left in [(99, 9), (100, 8), (101, 6)]:
            answer = await client.post("/predict/batch", json=[kick] * kicks, headers=send)
            assert answer.headers["ratelimit"].startswith(f'"key";r={left};')
        answer = await client.post("/predict/batch", json=[kick] * 5_000, headers=send)
        assert answer.status_code == 200  # it was let in, and the rest is owed
        answer = await client.post("/predict", json=kick, headers=send)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 360 * 40

    async def test_a_stream_counts_by_its_kicks(self, start, by_key, kick):
        client = await start(replace(by_key, rate=Rate(10, 3600)))
        ndjson = {"Content-Type": "application/x-ndjson", "Accept": "application/x-ndjson"}
        send = {"X-API-Key": KEYS["predict"], **ndjson}
        body = b"\n".join([msgspec.json.encode(kick)] * 1_000)
        assert (await client.post("/predict/batch", content=body, headers=send)).status_code == 200
        assert (await client.post("/predict/batch", content=body, headers=send)).status_code == 429

    async def test_a_stream_in_small_pieces_counts_the_same(self, start, by_key, kick):
        client = await start(replace(by_key, rate=Rate(10, 3600)))
        ndjson = {"Content-Type": "application/x-ndjson", "Accept": "application/x-ndjson"}
        send = {"X-API-Key": KEYS["predict"], **ndjson}

        async def pieces():
            for _ in range(20):
                yield (msgspec.json.encode(kick) + b"\n") * 50

        assert (await client.post("/predict/batch", content=pieces(), headers=send)).status_code == 200
        assert (await client.post("/predict/batch", content=b"", headers=send)).status_code == 429


class TestByAddress:
    async def test_clients_behind_a_trusted_proxy_are_told_apart(self, start, settings, kick):
        client = await start(replace(settings, rate_address=SLOW))  # httpx comes from 127.0.0.1
        for address, wanted in [("1.1.1.1", [200] * 3 + [429]), ("2.2.2.2", [200] * 3 + [429])]:
            got = [
                (await client.post("/predict", json=kick, headers={"X-Forwarded-For": address})).status_code
                for _ in wanted
            ]
            assert got == wanted

    async def test_who_is_no_proxy_can_t_choose_an_address(self, start, settings, kick):
        client = await start(replace(settings, rate_address=SLOW, trusted_proxies=()))
        got = [
            (await client.post("/predict", json=kick, headers={"X-Forwarded-For": f"1.1.1.{n}"})).status_code
            for n in range(4)
        ]
        assert got == [200, 200, 200, 429]

    async def test_who_is_refused_for_one_limit_pays_nothing_of_the_other(self, start, by_key, kick):
        client = await start(replace(by_key, rate=Rate(1, 3600), rate_address=Rate(5, 3600)))
        for name, left in [("predict", 4), ("predict", 4), ("predict", 4), ("admin", 3)]:
            answer = await client.post("/predict", json=kick, headers={"X-API-Key": KEYS[name]})
            assert f'"address";r={left};' in answer.headers["ratelimit"]

    def test_workers_count_together_and_the_connection_s_lane_too(self, tmp_path, kick):
        with serving(tmp_path, **BARE, KICKSERVE_RATE_ADDRESS="20/h", KICKSERVE_WORKERS="2") as server:
            got = [httpx.post(f"{server.url}/predict", json=kick).status_code for _ in range(30)]
            assert got == [200] * 20 + [429] * 10
            assert server.end() == 0

    async def test_without_limits_nothing_is_told_of_any(self, client, kick):
        assert "ratelimit" not in (await client.post("/predict", json=kick)).headers
        assert client.app.authenticator._limits is None


class TestWrongKeys:
    @pytest.fixture
    def guessed(self, settings, tmp_path):
        return replace(settings, api_key="sesame", keys=write(tmp_path / "keys.json"), rate_failures=SLOW)

    @pytest.mark.parametrize("fastlane", [True, False])
    async def test_too_many_and_even_the_right_one_is_not_looked_at(self, start, guessed, kick, fastlane):
        client = await start(replace(guessed, fastlane=fastlane))

        async def ask(key, address="1.1.1.1"):
            headers = {"X-API-Key": key, "X-Forwarded-For": address}
            return await client.post("/predict", json=kick, headers=headers)

        assert [(await ask(f"guess-{n}")).status_code for n in range(4)] == [401, 401, 401, 429]
        refused, right = await ask("guess"), await ask("sesame")
        assert right.status_code == refused.status_code == 429
        assert right.json()["detail"] == refused.json()["detail"]  # nothing tells a right guess
        assert int(right.headers["retry-after"]) > 1000
        assert (await ask("sesame", "2.2.2.2")).status_code == 200
        assert (await ask(KEYS["predict"])).status_code == 200  # nobody guesses one of those

    async def test_to_send_no_key_is_no_guess(self, start, guessed):
        client = await start(guessed)
        got = [(await client.get("/model")).status_code for _ in range(10)]
        assert got == [401] * 10
        assert (await client.get("/model", headers={"X-API-Key": "sesame"})).status_code == 200

    def test_it_is_so_where_nothing_is_set(self):
        assert AccessSettings().rate_failures == Rate(20, 60)
