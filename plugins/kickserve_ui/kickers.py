"""Kickers as their page shows them: the table of a file, a sample season or the store, and every kick."""

from __future__ import annotations

import asyncio
import gzip
import struct
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from datetime import date
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np
from msgspec.structs import asdict

from kickserve.features import INDEX, NAMES, named
from kickserve.plugins import Selection
from kickserve.schemas import Kick, OutcomeOf
from kickserve_data.season import KICKER, read_apart
from kickserve_data.simulate import simulate
from kickserve_data.writer import csv_cell
from kickserve_scores.kickers import Tally
from kickserve_ui.history import csv_text
from kickserve_ui.page_state import PageState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from numpy.typing import NDArray

    from kickserve.schemas import Record, Source
    from kickserve_data.season import Season
    from kickserve_ui.backend import Backend
    from kickserve_ui.messages import Messages

USUAL: Final = PageState()
"""The kick whose numbers stand for what a file has no column for."""

_SAMPLE: Final = 1_200  # kicks
_SQUAD: Final = 16  # kickers of the sample
_SEED: Final = 2028
_ROUNDS: Final = 26
_BEGIN: Final = date(2025, 9, 6)
_MOST_OF_ONE: Final = 5_000  # stored kicks of a kicker that are shown: the newest
_PAGE: Final = 250  # records that are looked through together: 2 ms
_PART: Final = 250  # kicks that are saved together: 3 ms
_COMPRESSION: Final = 5


@dataclass(frozen=True, slots=True, eq=False)
class Kicks:
    """Kicks with outcomes, in the order in which these became known.

    Attributes:
        matrix: shape (n, 11), in the order of `kickserve.features.NAMES`.
        success: shape (n,).
        labels: of the kickers.
        kicker: shape (n,), positions in `labels`; -1 for an unnamed kicker.
        day: shape (n,), days since 1970, or `kickserve_data.season.NO_DAY`; empty where no day is known.
        line: shape (n,), of a file; empty elsewhere.
    """

    matrix: NDArray[np.float64]
    success: NDArray[Any]
    labels: Sequence[str]
    kicker: NDArray[Any]
    day: NDArray[Any] = field(default_factory=lambda: np.empty(0))
    line: NDArray[Any] = field(default_factory=lambda: np.empty(0))

    @classmethod
    def of(cls, season: Season) -> Kicks:
        """Return the kicks of a file."""
        matrix = np.frombuffer(season.matrix, dtype="<f8").reshape(-1, len(NAMES))
        numbers = [np.frombuffer(each, dtype="<i4") for each in (season.kicker, season.day, season.line)]
        return cls(matrix, np.frombuffer(season.success, dtype="u1"), season.labels, *numbers)

    def packed(self, chance: NDArray[np.float64]) -> tuple[list[tuple[str, str]], bytes]:
        """Return the names and types of columns of numbers, and after them the numbers, little-endian.

        Args:
            chance: shape (n,), the probability of each.
        """
        columns = {
            "distance": (self.matrix[:, INDEX["distance"]], "f4"),
            "angle": (self.matrix[:, INDEX["angle"]], "f4"),
            "left": (self.matrix[:, INDEX["is_left_side"]], "u1"),
            "chance": (chance, "f4"),
            "made": (self.success, "u1"),
            "kicker": (self.kicker, "i4"),
            "day": (self.day, "i4"),
            "line": (self.line, "i4"),
        }
        known = {name: each for name, each in columns.items() if len(each[0]) == len(self.matrix)}
        return (
            [(name, kind) for name, (_, kind) in known.items()],
            b"".join(values.astype(f"<{kind}").tobytes() for values, kind in known.values()),
        )


async def of_file(
    backend: Backend, messages: Messages, content: bytes, columns: Mapping[str, str] | None
) -> bytes:
    """Return what the page shows of a file, packed; nothing is recorded.

    Raises:
        DataError: the file can't be read.
        PredictionFailed: the model failed.
    """
    season = await _read(backend, content, columns)
    about = {
        "header": season.header,
        "columns": season.columns,
        "guessed": season.guessed,
        "missing": season.missing,
        "examples": season.examples,
        "refused": season.refused,
        "refusals": [(each.line, messages.reason(each.reason)) for each in season.refusals],
    }
    kicks = Kicks.of(season)
    if KICKER not in season.columns:
        kicks = replace(kicks, labels=[messages("one_kicker")], kicker=np.zeros(len(kicks.matrix), "i4"))
    return await _figures(backend, kicks, about, level=_learns_level(backend))


async def of_sample(backend: Backend, messages: Messages) -> bytes:
    """Return a simulated season, packed.

    Raises:
        PredictionFailed: the model failed.
    """
    found = await asyncio.to_thread(simulate, _SAMPLE, _SEED, kickers=_SQUAD)
    labels = [messages("sample_kicker", letter=chr(ord("A") + at)) for at in range(_SQUAD)]
    day = (_BEGIN - date(1970, 1, 1)).days + 7 * (np.arange(_SAMPLE) * _ROUNDS // _SAMPLE)
    kicks = Kicks(found.matrix, found.success, labels, np.asarray(found.kicker), day)
    return await _figures(backend, kicks, {}, level=False)


async def of_store(backend: Backend) -> bytes:
    """Return the table of the stored kickers, packed, without their kicks; those of `GET /kickers`.

    Raises:
        StoreError: the store can't be reached.
    """
    await backend.app.recorder.flush()
    tally = await backend.known(level=_learns_level(backend)).look()
    return await asyncio.to_thread(lambda: _pack({"kickers": _rows(tally)}, b""))


async def of_stored_kicker(backend: Backend, kicker: str) -> bytes:
    """Return the newest stored kicks of a kicker whose outcome is known, packed.

    Raises:
        StoreError: the store can't be reached.
    """
    await backend.app.recorder.flush()
    known: deque[tuple[tuple[float, ...], bool, float]] = deque(maxlen=_MOST_OF_ONE)
    async for each in _records(backend, kicker):
        if each.outcome is not None and each.prediction is not None:
            chance = each.prediction if each.base is None else each.base
            known.append((_row_of(each), each.outcome, chance))
    return await asyncio.to_thread(_packed_of_one, kicker, [*known])


def _packed_of_one(kicker: str, known: Sequence[tuple[tuple[float, ...], bool, float]]) -> bytes:
    rows, success, chance = zip(*known, strict=True) if known else ((), (), ())
    matrix = np.array(rows, dtype=np.float64).reshape(-1, len(NAMES))
    kicks = Kicks(matrix, np.array(success), [kicker], np.zeros(len(known)))
    columns, numbers = kicks.packed(np.array(chance))
    return _pack({"kicks": columns, "count": len(known)}, numbers)


async def save(backend: Backend, content: bytes, columns: Mapping[str, str] | None) -> dict[str, int]:
    """Predict and record the kicks of a file with their outcomes, but for those that are recorded already.

    A kick is recorded already where the store has one of the same kicker with the same eleven numbers, and no
    other outcome; where it has none, the file's is set. Kicks with numbers that are none of the file's have
    the source `page`, others `batch`: drift and quality leave those of the page out.

    Returns:
        How many are `saved`, and how many were there `before`.

    Raises:
        DataError: the file can't be read.
        KickserveError: the kicks could not be recorded; the same call again records the rest.
    """
    season = await _read(backend, content, columns)
    source: Source = "batch" if {*NAMES} <= {*season.columns} else "page"
    kicks, wanted = await asyncio.to_thread(_to_save, Kicks.of(season), source)
    async with backend.saving:
        stored, unmarked = await _stored(backend, wanted)
        fresh: list[_ToSave] = []
        outcomes: list[OutcomeOf] = []
        for each in kicks:
            if stored[each.key, each.success]:
                stored[each.key, each.success] -= 1
            elif unmarked.get(each.key):
                outcomes.append(OutcomeOf(id=unmarked[each.key].pop(), success=each.success))
            else:
                fresh.append(each)
        await _record(backend, fresh, outcomes)
    saved = len(fresh) + len(outcomes)
    return {"saved": saved, "before": len(kicks) - saved}


class _ToSave(NamedTuple):
    """A kick of a file.

    Attributes:
        key: the kicker and the eleven numbers.
        kick: to be predicted.
        success: its outcome.
    """

    key: tuple[Any, ...]
    kick: Kick
    success: bool


def _to_save(kicks: Kicks, source: Source) -> tuple[list[_ToSave], dict[str | None, set[Any]]]:
    """Return the kicks of a file, and their keys by kicker."""
    made: list[_ToSave] = []
    keys: dict[str | None, set[Any]] = {}
    labels = [*kicks.labels, None]  # the last is that of -1
    columns = (kicks.matrix.tolist(), kicks.kicker.tolist(), kicks.success.tolist())
    for row, at, success in zip(*columns, strict=True):
        label = labels[at]
        made.append(_ToSave((label, *row), Kick(**named(row), kicker=label, source=source), bool(success)))
        keys.setdefault(label, set()).add(made[-1].key)
    return made, keys


async def _record(backend: Backend, fresh: Sequence[_ToSave], outcomes: Sequence[OutcomeOf]) -> None:
    app = backend.app
    for start in range(0, len(outcomes), _PART):
        await app.recorder.set_outcomes(outcomes[start : start + _PART])
    for start in range(0, len(fresh), _PART):
        part = fresh[start : start + _PART]
        answers = await app.predictor.predict_batch([each.kick for each in part])
        known = zip(answers, part, strict=True)
        await app.recorder.set_outcomes(
            [OutcomeOf(id=answer.id, success=each.success) for answer, each in known]
        )


async def _stored(
    backend: Backend, wanted: Mapping[str | None, set[Any]]
) -> tuple[Counter[Any], dict[Any, list[str]]]:
    """Count the stored kicks that are the same as some of a file, by key and outcome.

    Args:
        backend: has the store.
        wanted: the keys of the file's kicks by kicker.

    Returns:
        The counts; and the ids of those without an outcome, by key.
    """
    counts: Counter[Any] = Counter()
    unmarked: dict[Any, list[str]] = {}
    await backend.app.recorder.flush()
    for label, keys in wanted.items():
        async for record in _records(backend, label):
            key = (record.kicker, *_row_of(record))
            if key in keys and record.outcome is None:
                unmarked.setdefault(key, []).append(record.id)
            elif key in keys:
                counts[key, record.outcome] += 1
    return counts, unmarked


async def _records(backend: Backend, label: str | None) -> AsyncIterator[Record]:
    """Yield the stored records of a kicker, or those without a kicker that came from files or the page."""
    chosen = [Selection(kicker=label)] if label else [Selection(source="batch"), Selection(source="page")]
    for selection in chosen:
        after: str | None = None
        while True:
            found = await backend.app.store.search(selection._replace(after=after), _PAGE, order="oldest")
            for record in found:
                yield record
            if len(found) < _PAGE:
                break
            after = found[-1].id


async def _read(backend: Backend, content: bytes, columns: Mapping[str, str] | None) -> Season:
    async with backend.reading:
        return await read_apart(content, USUAL.row.tolist(), columns)


def _row_of(record: Record) -> tuple[float, ...]:
    return tuple(float(getattr(record, name)) for name in NAMES)


def _learns_level(backend: Backend) -> bool:
    learner = backend.app.predictor.learner
    return learner is not None and learner.unnamed


async def _figures(backend: Backend, kicks: Kicks, about: Mapping[str, Any], *, level: bool) -> bytes:
    """Score kicks, and return them with the table of their kickers, packed."""
    count = len(kicks.matrix)
    chance = (await backend.served.score(kicks.matrix))[:, 0] if count else np.empty(0)
    return await asyncio.to_thread(_tabulated, kicks, chance, about, level=level)


def _tabulated(kicks: Kicks, chance: NDArray[np.float64], about: Mapping[str, Any], *, level: bool) -> bytes:
    tally = Tally(level=level)
    labels = [*kicks.labels, None]  # the last is that of -1
    for each, kicker, success in zip(
        chance.tolist(), kicks.kicker.tolist(), kicks.success.tolist(), strict=True
    ):
        tally.update(each, labels[kicker], bool(success))
    names, numbers = kicks.packed(chance)
    unnamed = int((kicks.kicker < 0).sum())
    shown = {"labels": kicks.labels, "kickers": _rows(tally), "unnamed": unnamed}
    return _pack({**about, **shown, "kicks": names, "count": len(chance)}, numbers)


def _rows(tally: Tally) -> list[dict[str, Any]]:
    """Return the table, each row with its label as CSV has it."""
    rows, _ = tally.page("points")
    return [{**asdict(row), "cell": csv_text([[csv_cell(row.kicker)]]).rstrip("\r\n")} for row in rows]


def _pack(about: Mapping[str, Any], numbers: bytes) -> bytes:
    """Return a JSON header behind its length (4 bytes, little-endian), and numbers, compressed by gzip."""
    header = msgspec.json.encode(about)
    return gzip.compress(b"".join((struct.pack("<I", len(header)), header, numbers)), _COMPRESSION)
