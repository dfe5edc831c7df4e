"""Keeps every answer: in the journal before it leaves, in the store soon after."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import deque
from datetime import UTC, datetime
from functools import partial
from itertools import groupby, islice
from typing import TYPE_CHECKING, Final, NamedTuple

from kickserve.batching import cancel_task, within
from kickserve.dead_letters import DeadLetters
from kickserve.errors import (
    Backlogged,
    RecordNotFound,
    RecordPending,
    RecordUnfit,
    StoreError,
    StoreUnavailable,
)
from kickserve.ids import canonical, is_young
from kickserve.record import Add, Delete, Forget, SetOutcome, encode, operations_in, replay
from kickserve.schemas import OutcomesKept

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from kickserve.batching import Promise
    from kickserve.journal import Journal
    from kickserve.record import Operation, RecordBatch
    from kickserve.schemas import OutcomeOf, Record
    from kickserve.store import Store

    Completer = Callable[[Sequence[RecordBatch]], Awaitable[Sequence[RecordBatch]]]

GROUP: Final = 1_000_000  # bytes of predictions a transaction: about 8,000
_LARGE: Final = 2_000_000  # bytes of predictions from which they are kept in several turns: 17,000
LINGER: Final = 0.05  # seconds that predictions are gathered before they go to the store together
# Bytes of predictions, those of 20,000 a second, from which they are gathered twice as long. Each transaction
# writes every page that it touches anew, of one index alone a page for each kicker: few large ones cost less.
_MANY: Final = 125_000
PATIENCE: Final = 10.0  # seconds that a reader waits for what was written before it
_CLOSING: Final = 2.0  # seconds that are left to close everything, whatever hangs
_HEALTH: Final = 1.5  # seconds that the store may take to say that it is well
ORPHANS_EVERY: Final = 2.0  # seconds between two searches for what dead processes left
_IDS: Final = 10_000  # ids of outcomes that are parsed in one turn of the event loop
_OUTCOMES: Final = 500  # outcomes a transaction: some milliseconds of the event loop, and of other writers
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
_SAMPLES: Final = 10_000  # of how far the journal was written, one a second

_log = logging.getLogger(__name__)


class Recorder:
    """Between the predictor and the store.

    Changes of the store are written to the journal as operations, in their order, and a writer carries them
    out in groups. Each can be carried out twice with the same result, so a process that dies between the
    store's commit and the journal's progress does no harm.

    Args:
        store: where records are kept for good.
        journal: where they are until then.
        completers: `Plugin.complete` of plugins, called on the way from the journal to the store.

    Attributes:
        on_failure: called when an attempt to write to the store has failed.
        on_refusal: called when an operation has become a dead letter.
        dead_letters: operations that the store refuses for good.
    """

    def __init__(self, store: Store, journal: Journal, completers: Sequence[Completer] = ()) -> None:
        self.on_failure: Callable[[], object] = lambda: None
        self.on_refusal: Callable[[], object] = lambda: None
        self.dead_letters = DeadLetters(journal.folder)
        self.store = store
        self._journal = journal
        self._completers = completers
        self._samples: deque[tuple[float, int]] = deque(maxlen=_SAMPLES)  # when, and how far it was written
        self._writer: asyncio.Task[None] | None = None
        self._trouble: StoreError | None = None
        self._opened = False
        self._progress = asyncio.Event()  # set for a moment when the store has taken or refused a group
        self._readers = 0  # that wait for what was written before them
        self._hurry = asyncio.Event()  # set while there are any

    async def start(self) -> None:
        """Open journal and store, and begin to drain the one into the other.

        A store that is away is waited for, in the background.

        Raises:
            StoreMisconfigured: the store can't be used as it is set up.
            ConfigurationError: the journal's folder can't be used.
        """
        self._journal.open()
        try:
            await self._open_store()
        except StoreUnavailable as error:
            self._set_trouble(error)
        except BaseException:
            await self._journal.close()
            raise
        self._writer = asyncio.create_task(self._drain(), name="writer")

    async def stop(self, patience: float) -> None:
        """Bring the rest to the store as far as it can be reached, and close both.

        Args:
            patience: seconds that this may take; what has not reached the store by then stays in the journal.
        """
        with contextlib.suppress(StoreError):
            await self.flush(max(patience - _CLOSING, patience / 4))
        await cancel_task(self._writer)
        if self._journal.size:
            _log.warning(
                "%d bytes of predictions have not reached %s: they wait in the journal %s, and go to the"
                " store when kickserve starts again",
                self._journal.size,
                self.store.label,
                self._journal.folder,
            )
        await self._journal.close()
        try:
            await within(_CLOSING / 4, self.store.close())
        except TimeoutError:
            _log.warning("%s does not answer: its connections are left as they are", self.store.label)

    def keep(self, batches: Sequence[RecordBatch]) -> asyncio.Future[Backlogged | None]:
        """Keep predictions, all or none.

        Returns:
            Brings None once they are in the journal, or the reason why they are not: it is as large as it may
            be, or its disk is full.
        """
        if len(batches) > 1 and sum(len(each.numbers) for each in batches) > _LARGE:
            return asyncio.ensure_future(self._keep_many(batches))
        return self._journal.write([*map(encode, map(Add, batches))])

    def put(self, batch: RecordBatch, promise: Promise[Backlogged | None]) -> None:
        """Keep predictions; the promise takes what the future of `keep` brings, in the same turn."""
        self._journal.put([encode(Add(batch))], promise)

    async def _keep_many(self, batches: Sequence[RecordBatch]) -> Backlogged | None:
        payloads = []
        for each in batches:
            payloads.append(encode(Add(each)))
            await asyncio.sleep(0)
        return await self._journal.write_apart(payloads)

    async def flush(self, patience: float = PATIENCE) -> None:
        """Wait until everything kept before this call is in the store.

        Raises:
            StoreUnavailable: the store is away, or too slow.
        """
        mark = self._journal.written
        self._readers += 1
        self._hurry.set()
        try:
            async with asyncio.timeout(patience):
                while self._journal.drained < mark:
                    if self._trouble is not None:
                        raise StoreUnavailable(str(self._trouble))
                    await self._progress.wait()
        except TimeoutError:
            raise StoreUnavailable(f"{self.store.label} takes too long to write") from None
        finally:
            self._readers -= 1
            if not self._readers:
                self._hurry.clear()

    async def find(self, record_id: str) -> Record:
        """Return a record, also one that is still on its way to the store.

        Raises:
            RecordNotFound: there is none.
            RecordPending: another process may be about to store it.
            StoreUnavailable: the store is away, and the record is not in the journal.
        """
        try:
            await self.flush()
            found = await self.store.get(record_id)
        except StoreUnavailable:
            if (waiting := await self._in_journals(record_id)) is not None:
                return waiting
            raise
        # A process that lost the answer to its commit may still have a record that was deleted since.
        if found is None and not await self.store.was_deleted(record_id):
            # Another process drains its own journal: its records may come to the store in between.
            found = await self._in_journals(record_id) or await self.store.get(record_id)
            if found is None and is_young(record_id):
                raise _pending(record_id)
        if found is None:
            raise _not_found(record_id)
        return found

    async def _in_journals(self, record_id: str) -> Record | None:
        """Look a record up in the journals of all processes."""
        return (await asyncio.to_thread(replay, [record_id], self._journal.scan())).get(record_id)

    async def delete(self, record_id: str) -> None:
        """Remove a record, also one that is still on its way to the store.

        Raises:
            RecordNotFound: there is none.
            RecordPending: another process may be about to store it.
            StoreUnavailable: the store is away, and the record is not in this process's journal.
        """
        if await self._change([Delete(record_id)]):
            raise _not_found(record_id)

    async def set_outcome(self, record_id: str, *, success: bool | None) -> None:
        """Keep the outcome of a kick, or take it back where it is None; raises as `delete` does."""
        if await self._change([SetOutcome(record_id, success, datetime.now(UTC))]):
            raise _not_found(record_id)

    async def set_outcomes(self, outcomes: Sequence[OutcomeOf]) -> OutcomesKept:
        """Keep the outcomes of many kicks, and return which are unknown.

        Raises:
            RecordPending: another process may be about to store one of them; the others may have been set.
            StoreUnavailable: the store is away.
        """
        at = datetime.now(UTC)
        ids: list[str | None] = []
        for start in range(0, len(outcomes), _IDS):
            ids += [canonical(each.id) for each in outcomes[start : start + _IDS]]
            await asyncio.sleep(0)
        changes = [
            SetOutcome(record_id, bool(each.success), at)
            for each, record_id in zip(outcomes, ids, strict=True)
            if record_id is not None
        ]
        missing: set[str | None] = {None, *(await self._change(changes) if changes else ())}
        unknown = [each.id for each, record_id in zip(outcomes, ids, strict=True) if record_id in missing]
        return OutcomesKept(kept=len(outcomes) - len(unknown), unknown=unknown)

    async def forget(self, kicker: str) -> int | None:
        """Take the label of a kicker off all records made before this call, also off those that come later.

        Returns:
            How many stored records had it; None where the store is away, and the call waits in the journal.

        Raises:
            Backlogged: the store is away, and the journal is full.
        """
        forget = Forget(kicker, datetime.now(UTC))
        try:
            await self.flush()
            return await self.store.forget(forget.kicker, forget.at)
        except StoreUnavailable:
            if (refusal := await self._journal.write([encode(forget)])) is not None:
                raise refusal from None
            return None

    async def _change(self, changes: Sequence[Delete | SetOutcome]) -> set[str]:
        """Change records that may still be on their way; return the ids under which there is none."""
        ids = {each.id for each in changes}
        try:
            await self.flush()
            unknown = await carry_out(self.store, changes)
        except StoreUnavailable:
            # In this process's journal the changes follow the records, whenever the store comes back.
            if ids <= (await asyncio.to_thread(replay, ids, self._journal.scan(others=False))).keys():
                if (refusal := await self._journal.write([encode(each) for each in changes])) is not None:
                    raise refusal from None
                return set()
            raise
        if unknown:
            coming = await asyncio.to_thread(replay, unknown, self._journal.scan())
            # As in `find`: by now they may be in the store.
            unknown = await carry_out(self.store, [each for each in changes if each.id in unknown])
            for each in unknown:
                if (each in coming or is_young(each)) and not await self.store.was_deleted(each):
                    raise _pending(each)
        return unknown

    def journal_state(self) -> str:
        """Return the state of the journal in words: `ok`, or its trouble."""
        return self._journal.state

    def backlog(self) -> Waiting:
        """Return how much waits in the journal, and for how long; to be called about once a second."""
        now, journal, samples = time.monotonic(), self._journal, self._samples
        samples.append((now, journal.written))
        while samples and samples[0][1] <= journal.drained:
            samples.popleft()
        # Between two samples something may have waited for longer than any sample shows.
        age = max(now - samples[0][0] if samples else 0.0, journal.lag)
        return Waiting(journal.size, journal.lag, age)

    @property
    def store_works(self) -> bool:
        """Whether the store took the last group that it was given."""
        return self._trouble is None

    async def store_state(self) -> str:
        """Return the state of the store in words: `ok`, its trouble and how much waits, or dead letters."""
        trouble = self._trouble
        try:
            if trouble is None:
                await within(_HEALTH, self.store.ping())
        except StoreError as error:
            trouble = error
        except TimeoutError:
            trouble = StoreUnavailable(f"{self.store.label} does not answer")
        if trouble is None:
            return self.dead_letters.state
        return f"{trouble} ({self._journal.size:,} bytes wait in the journal)"

    async def _drain(self) -> None:
        """Carry out the operations of the journal, for ever."""
        recover_at = 0.0
        if not self._opened:  # readers wait for the store too, however long no prediction comes
            await self._store_group([])
        while True:
            if time.monotonic() >= recover_at:
                self._journal.recover_orphans()
                recover_at = time.monotonic() + ORPHANS_EVERY
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ORPHANS_EVERY):  # wait_for may pass over a cancellation
                    await self._journal.arrival()
            if self._journal.size:
                await self._linger()
                await self._drain_group()
                self._notify()

    async def _drain_group(self) -> None:
        group = await self._journal.take(GROUP)
        unreadable: list[tuple[bytes, Exception]] = []
        operations = [*operations_in(group.payloads, lambda *each: unreadable.append(each))]
        group.payloads.clear()  # a megabyte: the operations hold all of it
        await self._store_group(await self._complete(operations))
        for each in unreadable:
            await self._insist(partial(self._put_aside, *each))
        self._journal.done(group)

    async def _linger(self) -> None:
        """Wait a little for more, unless a reader waits; under load longer."""
        for least in (0, _MANY):
            if least <= self._journal.size < GROUP:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LINGER):
                        await self._hurry.wait()

    async def _complete(self, operations: list[Operation]) -> list[Operation]:
        batches: Sequence[RecordBatch] = [each.batch for each in operations if isinstance(each, Add)]
        for complete in self._completers:
            try:
                batches = await complete(batches)
            except Exception:  # noqa: BLE001  a bug in a plugin must not end the writing for good
                _log.exception("a plugin failed on predictions, which are stored without its changes")
        completed = iter(batches)
        return [Add(next(completed)) if isinstance(each, Add) else each for each in operations]

    async def _store_group(self, operations: list[Operation]) -> None:
        await self._insist(partial(self._try_to_store, operations))

    async def _insist(self, attempt: Callable[[], Awaitable[StoreError | None]]) -> None:
        """Try something however often it takes; it returns its trouble."""
        for pause in _pauses():
            trouble = await attempt()
            self._set_trouble(trouble)
            if trouble is None:
                return
            self._notify()
            await asyncio.sleep(pause)

    async def _try_to_store(self, operations: list[Operation]) -> StoreError | None:
        try:
            await self._open_store()
            await _carry_out_all(self.store, operations)
        except RecordUnfit as error:
            return await self._store_halves(operations, error)
        except StoreError as error:
            return error
        except Exception as error:  # noqa: BLE001  a bug in a store must not end the draining for good
            _log.exception("the store failed with an unexpected error")
            return StoreUnavailable(f"{type(error).__name__}: {error}")
        self.dead_letters.accepted()
        return None

    async def _store_halves(self, operations: list[Operation], error: RecordUnfit) -> StoreError | None:
        """Store in halves a group that was refused, down to the one operation that becomes a dead letter."""
        if parts := halves(operations):
            for part in parts:
                await self._store_group(part)
            return None
        return await self._put_aside(operations[0], error)

    async def _put_aside(self, refused: Operation | bytes, error: Exception) -> StoreError | None:
        """Make a dead letter of an operation, or of a payload that can't be decoded."""
        try:
            passed_over = await asyncio.to_thread(self.dead_letters.add, refused, error)
        except OSError as trouble:
            file = self.dead_letters.file
            return StoreUnavailable(f"{error}, and the dead letter can't be written to {file}: {trouble}")
        if not passed_over:
            return StoreUnavailable(f"the store refuses everything: {error}")
        self.on_refusal()
        return None

    async def _open_store(self) -> None:
        if not self._opened:
            await self.store.open()
            self._opened = True

    def _set_trouble(self, trouble: StoreError | None) -> None:
        """Remember the store's trouble, and log when it begins and ends."""
        if trouble is not None:
            self.on_failure()
        if trouble is not None and self._trouble is None:
            _log.warning("predictions wait in the journal: %s", trouble)
        if trouble is None and self._trouble is not None:
            _log.warning("the store %s is back; %d bytes wait", self.store.label, self._journal.size)
        self._trouble = trouble

    def _notify(self) -> None:
        self._progress.set()  # wakes all that wait
        self._progress.clear()


def _not_found(record_id: str) -> RecordNotFound:
    return RecordNotFound(f"no stored prediction has the id {record_id}")


def _pending(record_id: str) -> RecordPending:
    return RecordPending(
        f"{record_id} is new, and the process that made it may not have stored it yet: retry"
    )


def _pauses() -> Iterator[float]:
    """Yield waiting times that double, with jitter: many processes must not all come back at once."""
    longest = _FIRST_PAUSE
    while True:
        yield random.uniform(longest / 2, longest)  # noqa: S311  no secret depends on it
        longest = min(longest * 2, _LONGEST_PAUSE)


async def _carry_out_all(store: Store, operations: Iterable[Operation]) -> None:
    """Carry operations out in their order, predictions that follow one another in one transaction."""
    for adds, run in groupby(operations, lambda each: isinstance(each, Add)):
        if adds:
            await store.add([each.batch for each in run if isinstance(each, Add)])
        else:
            await carry_out(store, (each for each in run if not isinstance(each, Add)))


async def carry_out(store: Store, changes: Iterable[Delete | SetOutcome | Forget]) -> set[str]:
    """Carry changes of stored records out in their order, outcomes together.

    Returns:
        The ids under which the store has no record.

    Raises:
        StoreUnavailable: it is away; some may have been carried out, and all may be once more.
    """
    unknown: set[str] = set()
    for kind, run in groupby(changes, type):
        if kind is SetOutcome:
            outcomes = (each for each in run if isinstance(each, SetOutcome))
            while some := [*islice(outcomes, _OUTCOMES)]:
                unknown |= await store.set_outcomes(some)
            continue
        for each in run:
            if isinstance(each, Forget):
                await store.forget(each.kicker, each.at)
            elif isinstance(each, Delete) and not await store.delete(each.id):
                unknown.add(each.id)
    return unknown


def halves(operations: list[Operation]) -> list[list[Operation]]:
    """Cut a group in two, predictions of one batch as well; return nothing where it is one alone."""
    if len(operations) > 1:
        middle = len(operations) // 2
        return [operations[:middle], operations[middle:]]
    match operations:
        case [Add(batch)] if len(batch) > 1:
            middle = len(batch) // 2
            return [[Add(batch.part(0, middle))], [Add(batch.part(middle, len(batch)))]]
    return []


class Waiting(NamedTuple):
    """Operations that wait in the journal.

    Attributes:
        size: in bytes.
        lag: seconds for which something has waited and nothing has drained.
        age: seconds for which the oldest of this process's own has waited, to about a second; no less than
            `lag`, since no more is known of what a dead process left.
    """

    size: int
    lag: float
    age: float
