"""When a client asks again, and when it must not: over all that can befall a call."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kickserve.errors import RemoteError, ServiceAway, ServiceBusy
from kickserve_client import calls
from kickserve_client.exchange import FIRST, LONGEST, Exchange, pause, retry_after

UNHEARD = [httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout]
IN_DOUBT = [httpx.ReadTimeout, httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError]
HOPELESS = [httpx.LocalProtocolError, httpx.UnsupportedProtocol, httpx.DecodingError]
BUSY = [429, 503]
REFUSED = [301, 400, 401, 404, 409, 413, 422, 500, 502, 504]

REPEATABLE = [
    calls.get("a"),
    calls.delete("a"),
    calls.outcome("a", success=True),
    calls.health(),
    calls.explain(None, {"distance": 3}),
]
ONCE = [calls.predict(None, {"distance": 3}), *calls.predict_parts([{"distance": 3}], 1), calls.reload()]

seldom = st.integers(0, 6)
chances = st.floats(0, 1)
troubles = st.sampled_from([*UNHEARD, *IN_DOUBT, *HOPELESS, *BUSY, *REFUSED])


def exchange(call, retries=3, chance=0.5):
    return Exchange(call, httpx.Request(call.method, "http://test/api/v1/x"), retries, lambda: chance)


def befall(exchange, trouble, headers=None):
    """Let an error or a status befall a call; return the pause before the next try."""
    if isinstance(trouble, int):
        return exchange.answered(httpx.Response(trouble, headers=headers))
    return exchange.failed(trouble("it broke", request=exchange.request))


@given(again=st.integers(1, 5_000), told=st.none() | st.floats(0, 100), chance=chances)
def test_a_pause_is_no_shorter_than_was_told_and_never_endless(again, told, chance):
    seconds = pause(again, told, chance)
    if told is not None and told > LONGEST:
        assert seconds is None
    else:
        least = told or 0
        assert least <= seconds <= least + min(FIRST * 2 ** min(again - 1, 30), LONGEST)


@given(chance=st.floats(0.01, 1))
def test_pauses_grow_until_they_are_as_long_as_they_get(chance):
    pauses = [pause(again, None, chance) for again in range(1, 12)]
    assert pauses == sorted(pauses)
    assert pauses[1] == pytest.approx(2 * pauses[0])
    assert pauses[-1] == pytest.approx(chance * LONGEST)


@given(call=st.sampled_from(ONCE), trouble=st.sampled_from(IN_DOUBT), before=st.lists(troubles, max_size=3))
def test_what_is_kept_once_is_never_sent_again_when_it_may_have_been_heard(call, trouble, before):
    asked = exchange(call, retries=100)
    for each in before:
        if each in UNHEARD or each in BUSY:
            befall(asked, each)
    with pytest.raises(ServiceAway):
        befall(asked, trouble)


@given(call=st.sampled_from(REPEATABLE), trouble=st.sampled_from([*UNHEARD, *IN_DOUBT, *BUSY]))
def test_what_may_be_done_twice_is_asked_again_whatever_befalls(call, trouble):
    assert befall(exchange(call), trouble) is not None


@given(call=st.sampled_from(ONCE), trouble=st.sampled_from([*UNHEARD, *BUSY]))
def test_what_was_not_heard_or_had_no_room_is_asked_again_always(call, trouble):
    assert befall(exchange(call), trouble) is not None


@given(call=st.sampled_from([*ONCE, *REPEATABLE]), trouble=st.sampled_from([*HOPELESS, *REFUSED]))
def test_what_will_not_pass_is_never_asked_again(call, trouble):
    with pytest.raises(RemoteError):
        befall(exchange(call, retries=100), trouble)


@given(call=st.sampled_from(REPEATABLE), retries=seldom, data=st.data())
def test_a_call_is_repeated_so_often_and_no_more(call, retries, data):
    asked = exchange(call, retries)
    passing = st.sampled_from([*UNHEARD, *IN_DOUBT, *BUSY])
    for _ in range(retries):
        assert befall(asked, data.draw(passing)) is not None
    with pytest.raises(ServiceAway):
        befall(asked, data.draw(passing))


def test_a_service_that_wants_more_time_than_is_waited_is_given_up_at_once():
    with pytest.raises(ServiceBusy) as raised:
        befall(exchange(calls.health()), 503, {"Retry-After": "31"})
    assert raised.value.exit_code == ServiceAway.exit_code
    assert befall(exchange(calls.health(), chance=0), 503, {"Retry-After": "30"}) == 30


def test_what_a_lost_try_has_deleted_counts_as_deleted():
    asked = exchange(calls.delete("a"))
    befall(asked, httpx.ReadTimeout)
    assert befall(asked, 404) is None


def test_what_was_never_there_can_not_be_deleted_though_the_connection_failed_at_first():
    asked = exchange(calls.delete("a"))
    befall(asked, httpx.ConnectError)
    with pytest.raises(RemoteError, match="404"):
        befall(asked, 404)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("5", 5),
        ("0.5", 0.5),
        ("-3", 0),
        ("soon", None),
        ("nan", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2015 07:28:00", 0),
    ],
)
def test_retry_after_is_read(header, seconds):
    assert retry_after(header) == seconds


def test_retry_after_may_be_a_date():
    soon = datetime.now(UTC) + timedelta(seconds=20)
    assert 15 < retry_after(format_datetime(soon, usegmt=True)) <= 20


@given(st.text(max_size=40))
def test_no_retry_after_breaks_it(header):
    seconds = retry_after(header)
    assert seconds is None or seconds >= 0
