"""NDJSON through `/predict/batch`: answers while the request is still being sent, over real sockets."""

from __future__ import annotations

import asyncio

import msgspec
import psutil
import pytest
from serving import BARE, PATIENCE, serving

from kickserve.ndjson import LONGEST
from kickserve.openapi import EXAMPLE, NDJSON

HEAD = (
    f"POST /api/v1/predict/batch HTTP/1.1\r\nhost: localhost\r\n"
    f"content-type: {NDJSON}\r\naccept: {NDJSON}\r\n"
    "transfer-encoding: chunked\r\n\r\n"
)
LINE = msgspec.json.encode(EXAMPLE)


def line_of(distance):
    return msgspec.json.encode({**EXAMPLE, "distance": distance})


class Stream:
    """A request whose body is sent and whose answer is read at the same time."""

    def __init__(self, reader, writer):
        self._reader, self._writer = reader, writer
        self._text = b""

    @classmethod
    async def begin(cls, url):
        host, port = url.split("/")[2].split(":")
        stream = cls(*await asyncio.open_connection(host, int(port)))
        stream._writer.write(HEAD.encode())
        return stream

    async def send(self, data):
        if data:
            self._writer.write(b"%x\r\n%b\r\n" % (len(data), data))
            await self._writer.drain()

    async def head(self):
        async with asyncio.timeout(PATIENCE):
            head = await self._reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert NDJSON.encode() in head

    async def answer(self):
        """Return the next answer, or None at the end."""
        while b"\n" not in self._text:
            async with asyncio.timeout(PATIENCE):
                size = int(await self._reader.readline(), 16)
                self._text += await self._reader.readexactly(size)
                await self._reader.readline()
            if not size:
                assert not self._text
                return None
        line, _, self._text = self._text.partition(b"\n")
        return msgspec.json.decode(line)

    async def end(self):
        self._writer.write(b"0\r\n\r\n")
        answers = []
        while (answer := await self.answer()) is not None:
            answers.append(answer)
        return answers

    def close(self):
        self._writer.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("lines"), **BARE) as server:
        yield server


async def answers_to(server, *pieces):
    stream = await Stream.begin(server.url)
    for piece in pieces:
        await stream.send(piece)
    await stream.head()
    answers = await stream.end()
    stream.close()
    return answers


async def test_answers_begin_before_the_request_has_ended(server):
    stream = await Stream.begin(server.url)
    for at in range(5):
        await stream.send(line_of(20 + at) + b"\n" + line_of(20)[:30])
        if not at:
            await stream.head()
        assert "prediction" in await stream.answer()
        await stream.send(line_of(20)[30:] + b"\n")
        assert "prediction" in await stream.answer()
    assert await stream.end() == []
    stream.close()


async def test_blank_lines_have_no_answer_and_end_nothing(server):
    answers = await answers_to(server, b"\n\r\n  \n", b"\n", LINE + b"\r\n\r\n", b"\n" * 1_000, LINE)
    assert ["prediction" in answer for answer in answers] == [True, True]
    assert await answers_to(server, b"\n") == []
    assert await answers_to(server) == []


async def test_a_line_that_is_too_long_is_refused_alone(server):
    pieces = [LINE + b"\n", b'{"word": "', *([b"x" * 10_000] * 30), b'"}\n' + LINE + b"\n"]
    assert sum(map(len, pieces)) > 4 * LONGEST
    good, refused, last = await answers_to(server, *pieces)
    assert "prediction" in good
    assert "prediction" in last
    assert refused["detail"].startswith("row 1: ")
    assert refused["status"] in {400, 422}


@pytest.mark.parametrize(
    ("bad", "lines"), [(LINE + b" " + LINE, 1), (LINE + LINE, 1), (LINE.replace(b",", b",\n", 1), 2)]
)
@pytest.mark.parametrize("cut", [0, 1, len(LINE), len(LINE) + 1])
async def test_a_line_that_is_not_one_kick_is_refused_wherever_the_stream_is_cut(server, bad, lines, cut):
    body = bad + b"\n" + LINE
    answers = await answers_to(server, body[:cut], body[cut:])
    assert ["prediction" in answer for answer in answers] == [False] * lines + [True]


async def test_each_line_has_its_answer_in_order_and_a_bad_one_hurts_no_other(server):
    lines = [line_of(20 + at / 10) for at in range(300)]
    bad = {7: b"{}", 8: b"no json", 50: b"\xff\xfe", 51: line_of(999), 250: b"[]"}
    for at, line in bad.items():
        lines[at] = line
    body = b"\n".join(lines)
    answers = await answers_to(server, body[:1000], body[1000:1001], body[1001:])
    refused = {at: answer for at, answer in enumerate(answers) if "status" in answer}
    assert [*refused] == [*bad]
    for at, answer in refused.items():
        assert answer["detail"].startswith(f"row {at}: ")
        assert all(error["row"] == at for error in answer.get("errors", ()))
    predictions = [answer["prediction"] for answer in answers if "prediction" in answer]
    assert predictions == sorted({*predictions}, reverse=True)
    assert len(predictions) == 295


@pytest.mark.parametrize(("line", "status"), [(LINE, None), (b"{}", 422)], ids=["kicks", "bad lines"])
async def test_lines_without_end_take_no_memory_and_each_is_answered(server, line, status):
    process = psutil.Process(server.process.pid)
    stream = await Stream.begin(server.url)
    block, blocks = (line + b"\n") * 500, 60

    async def read():
        await stream.head()
        for _ in range(500 * blocks):
            assert (await stream.answer()).get("status") == status

    reading = asyncio.create_task(read())
    sizes = []
    for _ in range(blocks):
        await stream.send(block)
        sizes.append(process.memory_info().rss)
    await reading
    assert await stream.end() == []
    assert max(sizes) - sizes[blocks // 5] < 50e6
    stream.close()


async def test_a_client_that_goes_away_in_the_middle_leaves_the_others_alone(server):
    process = psutil.Process(server.process.pid)
    before = process.num_fds()
    for _ in range(5):
        stream = await Stream.begin(server.url)
        await stream.send(LINE + b"\n" + LINE[:40])
        await stream.head()
        assert "prediction" in await stream.answer()
        stream._writer.transport.abort()
    assert len(await answers_to(server, LINE)) == 1
    async with asyncio.timeout(PATIENCE):
        while process.num_fds() > before + 1:
            await asyncio.sleep(0.05)
    assert not any("Traceback" in line for line in server.log)
