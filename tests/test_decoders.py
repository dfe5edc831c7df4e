"""Whatever bytes come in, each decoder gives a value or an error of ours; what is written is read again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from importlib.resources import files

import httpx
import msgspec
import numpy as np
import pytest
from bent import bent
from conftest import settings_rows
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from kinds import FRESH, linear, load, onnx

from kickserve.errors import KickserveError, ModelUnusable, RemoteError, SettingsError
from kickserve.features import NAMES
from kickserve.ids import Ids, canonical, first_id_at
from kickserve.record import WIDTH, Add, RecordBatch, ShadowAnswers, operations_in
from kickserve.settings import Settings
from kickserve_client import calls
from kickserve_client.exchange import Exchange, ServiceBusy, read_retry_after
from kickserve_data import DataError
from kickserve_data.reader import read_blocks


class TestIds:
    @given(st.text(max_size=50))
    @example("{01900000-0000-7000-8000-000000000000}")
    @example("urn:uuid:01900000-0000-7000-8000-00000000000٣")
    def test_any_text_is_an_id_in_one_spelling_or_none(self, text):
        found = canonical(text)
        assert found is None or canonical(found) == found

    @given(st.datetimes(timezones=st.just(UTC) | st.timezones()))
    @example(datetime.min.replace(tzinfo=UTC) + timedelta(days=1))
    @example(datetime(9999, 12, 31, 23, 59, tzinfo=UTC))
    def test_any_instant_has_a_first_id_and_later_ones_have_no_smaller(self, moment):
        first = first_id_at(moment)
        assert canonical(first) == first
        assert first_id_at(moment + timedelta(milliseconds=1) * (moment.year < 9999)) >= first

    @pytest.mark.parametrize("first", [0, 255, 777, (1 << 14) - 300])
    def test_many_ids_are_those_that_are_made_one_by_one(self, first):
        many = Ids(1_800_000_000_000, first, 2_000, "0123456789ab")
        alone = [Ids(many.millisecond, first + at, 1, many.tail).texts() for at in range(2_000)]
        assert [[each] for each in many.texts()] == alone


def batch(**changes):
    numbers = np.zeros((2, WIDTH)).tobytes()
    return RecordBatch(
        **{
            "millisecond": 1_800_000_000_000,
            "counter": 5,
            "tail": "0123456789ab",
            "model": "m",
            "revision": "r",
            "cpu_percent": 1.0,
            "memory_mb": 2.0,
            "numbers": numbers,
            **changes,
        }
    )


ADD = msgspec.msgpack.encode(Add(batch(shadow=ShadowAnswers("s", "r", bytes(16)))))


class TestJournal:
    @given(bent(ADD))
    @example(msgspec.msgpack.encode(Add(batch(numbers=b"12345678"))))
    @example(msgspec.msgpack.encode(Add(batch(numbers=b""))))
    @example(msgspec.msgpack.encode(Add(batch(counter=(1 << 26) - 1))))
    @example(msgspec.msgpack.encode(Add(batch(millisecond=1 << 48))))
    @example(msgspec.msgpack.encode(Add(batch(tail="no tail"))))
    @example(msgspec.msgpack.encode(Add(batch(shadow=ShadowAnswers("s", "r", b"")))))
    @example(ADD.replace(b"0123456789ab", b"\xff" * 12))
    @example(b"\x91" * 100_000)
    def test_an_operation_that_cannot_be_is_left_out_and_the_others_stay(self, payload):
        found = [*operations_in([ADD, payload, ADD])]
        assert len(found) in {2, 3}
        for each in found:
            if isinstance(each, Add):
                records = each.batch.records()
                assert len(records) == len(each.batch) >= 1
                assert all(each.batch.find(record.id) is not None for record in records)


class TestSettings:
    @given(
        st.sampled_from([row.variable for row in settings_rows()]),
        st.text(max_size=20).filter(lambda t: "\0" not in t),
    )
    @example("KICKSERVE_BATCH_MAX", "²")
    @example("KICKSERVE_PORT", "9" * 5_000)
    @example("KICKSERVE_BODY_MAX", "9" * 5_000)
    @example("KICKSERVE_RETENTION", "99999999999d")
    @example("KICKSERVE_RETENTION", "d")
    @example("KICKSERVE_SHUTDOWN_TIMEOUT", "nan")
    @example("KICKSERVE_MODEL", "~nobody-of-this-name/x")
    def test_any_value_is_used_or_refused_in_words(self, variable, value):
        try:
            Settings.load({variable: value})
        except SettingsError as error:
            assert variable in str(error)
            assert "must" in str(error)


class TestAnswersOfAService:
    @given(bent(b'{"detail": "no"}'), st.text(st.characters(codec="latin-1"), max_size=8))
    @example(b"\xff", "nan")
    @example(b"[" * 100_000, "-1")
    def test_whatever_answers_it_is_told_in_words(self, body, retry):
        headers = {"retry-after": retry.encode("latin-1")}
        call = calls.live()
        request = httpx.Request(call.method, "http://test/")
        exchange = Exchange(call, request, retries=0)
        seconds = read_retry_after(retry)
        assert seconds is None or seconds >= 0
        with pytest.raises(ServiceBusy, match="answered 503"):
            exchange.answered(httpx.Response(503, content=body, headers=headers))
        try:
            exchange.read(httpx.Response(200, content=body))
        except RemoteError as error:
            assert "answered 200" in str(error)


class TestFiles:
    @hypothesis_settings(max_examples=60, deadline=None)
    @given(
        bent(",".join(NAMES).encode() + b"\n" + b"0.5,38,24,12,0.2,0,1,0,0,1,1\n" * 3),
        st.sampled_from(["csv", "ndjson"]),
    )
    def test_any_file_of_kicks_is_read_line_by_line_or_refused_in_words(self, tmp_path_factory, data, ending):
        path = tmp_path_factory.mktemp("kicks") / f"kicks.{ending}"
        path.write_bytes(data)
        try:
            for block in read_blocks(path, size=10):
                assert len(block.lines) == len(block.matrix)
        except DataError:
            pass


def default():
    return files("kickserve").joinpath("default.json").read_bytes()


def skops():
    from skops.io import dumps

    return dumps(linear())


class TestModels:
    @pytest.mark.parametrize(("ending", "good"), [("onnx", onnx()), ("skops", skops()), ("json", default())])
    def test_any_bytes_are_a_model_that_answers_or_are_refused_in_words(self, tmp_path, ending, good):
        path = tmp_path / f"model.{ending}"

        @hypothesis_settings(max_examples=40, deadline=None)
        @given(bent(good))
        def check(data):
            path.write_bytes(data)
            try:
                model = load(path)
            except KickserveError as error:
                assert isinstance(error, ModelUnusable)
            else:
                assert len(model.predict(FRESH).probability) == len(FRESH)

        check()
