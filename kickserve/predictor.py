"""Answers kicks: scored by the model, recorded in the journal, and only then answered."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from itertools import chain, repeat, starmap
from operator import attrgetter, itemgetter
from struct import Struct as Packing
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypeVar, cast, get_args

import msgspec
import numpy as np
from msgspec import Struct
from msgspec.structs import astuple, replace

from kickserve.answers import encode_answers
from kickserve.batching import Batcher, reject, resolve
from kickserve.errors import (
    Backlogged,
    InvalidInput,
    KickserveError,
    ModelUnusable,
    PredictionFailed,
    PredictionTimeout,
    RequestError,
)
from kickserve.features import COUNT, FLAGS
from kickserve.ids import IdFactory, client_id
from kickserve.limited import LimitedThread, call_within
from kickserve.model import TYPICAL, AnswersOne, Cancellable, cancel_of, predict, predict_checked
from kickserve.record import (
    LEARNED_WIDTH,
    NOTHING_LEARNED,
    NUMBER,
    WIDTH,
    RecordBatch,
    numbers_of,
    pack_learned,
)
from kickserve.schemas import Prediction, Source, kicker_of, matrix_of, plain_matrix, row_of
from kickserve.validation import read_kick

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable, Iterator

    from msgspec import Raw
    from numpy.typing import NDArray

    from kickserve.batching import Pending, Promise
    from kickserve.ids import Ids
    from kickserve.learner import Learner
    from kickserve.metrics import Metrics
    from kickserve.model import Answer, Model
    from kickserve.process import ProcessSampler
    from kickserve.record import EncodedLearned
    from kickserve.recorder import Recorder
    from kickserve.schemas import Kick, Learned, ModelCard
    from kickserve.settings import Settings

    Row = Sequence[float]  # the eleven numbers of a kick; flags may be booleans
    Rows = NDArray[np.float64]  # kicks, shape (n, 11); or scores, shape (n, 3)
    Score = tuple[float, float, float]  # probability, low and high; NaN for both where there is no interval
    Kickers = Sequence[str | None] | None  # the label of each kick's kicker; None where all are unnamed
    Encoded = Sequence[Raw | None]  # the JSON of what is in the score of each kick; empty where nothing is
    Asked = tuple[Row, float, str | None]  # a kick, when it came in by `time.perf_counter`, and its kicker
    Outcome = Prediction | KickserveError
    Places = Sequence[int]  # of kicks among others
    Promises = Sequence[Promise[Outcome]]
    Found: TypeAlias = "Scored | Sequence[Score | PredictionFailed]"
    Finish = Callable[[Source, Sequence[Asked], Promises, Found], Pending]
    Alone = Callable[[Source, Asked, Promise[Outcome]], Pending]

Kicks = TypeVar("Kicks", "Sequence[Kick]", "NDArray[np.float64]", "Sequence[str | None]")
CHUNK: Final = 4_000  # kicks of a batch that are scored in one turn of the event loop
_SLOW: Final = 0.001  # seconds for one kick, from which a model works in a thread
_TURN: Final = 0.005  # seconds of the event loop that a part of a batch may take
_THREAD_TURN: Final = 0.5  # seconds of a model's thread
_MANY: Final = 64  # kicks that show what each further one costs
_FEW: Final = 8  # kicks up to which a model scores them more quickly one by one than as an array
_TRIES: Final = 3
_NUMBERS: Final = COUNT - len(FLAGS)  # features that come before the flags
_FAILURES: Final = frozenset({PredictionFailed, PredictionTimeout})
_source: Final = attrgetter("source")
_kicker: Final = attrgetter("kicker")
_encoder: Final = msgspec.json.Encoder()
_pack: Final = Packing(f"<{WIDTH}d").pack
_pack_base: Final = Packing("<d").pack

_log = logging.getLogger(__name__)


class Scored(NamedTuple):
    """Kicks that were scored together, as arrays.

    Attributes:
        rows: the kicks, shape (n, 11).
        scores: shape (n, 3), as `Scorer.score` returns them.
    """

    rows: Rows
    scores: Rows


class Scorer:
    """Scores kicks with one model, and makes their records.

    Args:
        model: the model.
        sampler: of processor and memory, for the records.
        ids: makes the ids; a factory of its own by default.
        learner: adjusts scores on their way to answers and records; None for the model's own.
    """

    def __init__(
        self,
        model: Model,
        sampler: ProcessSampler,
        ids: IdFactory | None = None,
        learner: Learner | None = None,
    ) -> None:
        self.model = model
        self._sampler = sampler
        self._ids = ids or IdFactory()
        self._learner = learner
        self._all_learned = learner is not None and learner.unnamed
        self.answers_one = isinstance(model, AnswersOne)
        self._predict_one: Any = model.predict_one if isinstance(model, AnswersOne) else None

    def answer(self, rows: Rows, kickers: Kickers = None, source: Source = "api") -> RecordBatch:
        """Score kicks and make their record.

        Args:
            rows: n kicks, shape (n, 11), in the order of `kickserve.features.NAMES`, within their ranges.
            kickers: of each kick.
            source: what sent the kicks.

        Raises:
            PredictionFailed: as `kickserve.model.predict`, within whose time limit this is.
        """
        started = time.perf_counter()
        scores = _scores_of(predict(self.model, rows))
        latency = (time.perf_counter() - started) / max(len(rows), 1)
        return self.record(rows, scores, latency, kickers, source)[0]

    def score(self, rows: Rows) -> Rows:
        """Score kicks, without a time limit; may be called in another thread.

        Args:
            rows: as for `answer`.

        Returns:
            Probability, low and high, shape (n, 3); NaN for low and high where the model has no interval.

        Raises:
            PredictionFailed: the model raised, or returned something other than probabilities.
        """
        try:
            return _scores_of(predict_checked(self.model, rows))
        except PredictionFailed as error:
            raise self._failure(error) from error

    def score_each(self, asked: Sequence[Asked]) -> Found:
        """Score kicks that came in together, and fail for each by itself; may be called in another thread."""
        if not self.answers_one or len(asked) > _FEW:
            rows = matrix_of([each[0] for each in asked])
            try:
                return Scored(rows, self.score(rows))
            except PredictionFailed as error:
                if len(asked) == 1:
                    return [error]
                return [each for one in asked for each in _listed(self.score_each([one]))]
        return [self.score_one(row) for row, _, _ in asked]

    def score_one(self, row: Row) -> Score | PredictionFailed:
        """Score one kick, by a model that `answers_one`."""
        try:
            probability, low, high = score = self._predict_one(row)
            plain = type(probability) is type(low) is type(high) is float
            return score if plain and 0 <= low <= probability <= high <= 1 else _checked(*score)
        except Exception as error:  # noqa: BLE001  a model may be anyone's code
            return self._failure(error)

    def record_each(
        self, asked: Sequence[Asked], found: Scored, source: Source = "api"
    ) -> tuple[list[Prediction], RecordBatch]:
        """Make answers and record of kicks that came in together.

        Args:
            asked: the kicks.
            found: their scores.
            source: what sent the kicks.
        """
        kickers = [each[2] for each in asked]
        latencies = time.perf_counter() - np.array([each[1] for each in asked])
        batch, learned = self.record(*found, latencies, kickers if any(kickers) else None, source)
        return self.predictions(batch, learned), batch

    def record_few(
        self, asked: Sequence[Asked], scores: Sequence[Score], source: Source
    ) -> tuple[list[Prediction], RecordBatch]:
        """Make answers and record as `record_each` does, more quickly where they are few."""
        ids, kickers = self._ids.take(len(asked)), [each[2] for each in asked]
        made = map(self._answer_to, ids.texts(), asked, scores)
        predictions, numbers, learned = zip(*made, strict=True)
        packed = b"".join([each or NOTHING_LEARNED.numbers for each in learned]) if any(learned) else None
        labels = kickers if any(kickers) else None
        return [*predictions], self._batch(ids, b"".join(numbers), source, labels, packed)

    def record_one(self, asked: Asked, score: Score, source: Source) -> tuple[Prediction, RecordBatch]:
        """Make the answer to one kick and its record."""
        ids, kicker = self._ids.take(1), asked[2]
        [record_id] = ids.texts()
        prediction, numbers, learned = self._answer_to(record_id, asked, score)
        return prediction, self._batch(ids, numbers, source, None if kicker is None else [kicker], learned)

    def _answer_to(self, record_id: str, asked: Asked, own: Score) -> tuple[Prediction, bytes, bytes | None]:
        """Make the answer to a kick, and its rows of `RecordBatch.numbers` and `RecordBatch.learned`."""
        row, since, kicker = asked
        (probability, low, high), learned = own, None
        if kicker or self._all_learned:
            (probability, low, high), learned = self._adjust(own, kicker)
        other = 1 - probability
        prediction = Prediction(
            record_id,
            probability,
            probability if probability > other else other,  # noqa: FURB136  max() costs five times as much
            None if low != low else (low, high),  # noqa: PLR0124  the quick test for NaN
            self.model.card.name,
            tuple(self.model.warnings(row)),
            None if learned is None else own[0],
            None if learned is None else cast("Learned | None", learned.json),
        )
        numbers = _pack(*row, probability, low, high, (time.perf_counter() - since) * 1000)
        packed = None if learned is None else _pack_base(own[0]) + learned.numbers[NUMBER.itemsize :]
        return prediction, numbers, packed

    def _adjust(self, score: Score, kicker: str | None) -> tuple[Score, EncodedLearned | None]:
        """Return a score and what was learned, if anything in it was."""
        adjusted = self._learner and self._learner.adjust(self.model.card.revision, score, kicker)
        return adjusted or (score, None)

    def record(
        self,
        rows: Rows,
        scores: Rows,
        latency: float | NDArray[np.float64],
        kickers: Kickers = None,
        source: Source = "api",
    ) -> tuple[RecordBatch, Encoded]:
        """Make the record of kicks that were scored together.

        Args:
            rows: as for `answer`.
            scores: shape (n, 3), as `score` returns them.
            latency: of all kicks or of each, in seconds.
            kickers: of each kick.
            source: what sent the kicks.

        Returns:
            The record, and what was learned of each kick, for `predictions`.
        """
        learner, adjusted = self._learner, None
        if learner is not None and (kickers or self._all_learned):
            adjusted = learner.adjust_many(self.model.card.revision, scores, kickers or [None] * len(rows))
        if adjusted is None:
            return self._record(rows, scores, latency, kickers, source), ()
        found, learned = adjusted
        json, numbers = zip(*learned, strict=True)
        packed = pack_learned(numbers, scores[:, 0])
        return self._record(rows, found, latency, kickers, source, packed), json

    def record_failures(
        self, rows: Rows, error: PredictionFailed, kickers: Kickers = None, source: Source = "api"
    ) -> RecordBatch:
        """Make the record of kicks that the model could not score."""
        batch = self._record(rows, np.full((len(rows), 3), np.nan), 0.0, kickers, source)
        return replace(batch, status_code=error.status, error=str(error))

    def _record(
        self,
        rows: Rows,
        scores: Rows,
        latency: float | NDArray[np.float64],
        kickers: Kickers,
        source: Source,
        learned: bytes | None = None,
    ) -> RecordBatch:
        numbers = np.empty((len(rows), WIDTH), NUMBER)
        numbers[:, :COUNT] = rows
        numbers[:, COUNT:-1] = scores
        numbers[:, -1] = latency * 1000
        return self._batch(self._ids.take(len(rows)), numbers.tobytes(), source, kickers, learned)

    def predictions(self, batch: RecordBatch, learned: Encoded = ()) -> list[Prediction]:
        """Make the answers that belong to a record, warnings included.

        Args:
            batch: the record.
            learned: as `record` returned it with the record.
        """
        numbers = numbers_of([batch])
        warnings: list[tuple[str, ...]] = [()] * len(batch)
        for at in self.model.out_of_domain(numbers[:, :COUNT]).nonzero()[0].tolist():
            warnings[at] = tuple(self.model.warnings(numbers[at, :COUNT].tolist()))
        probability, low, high = numbers[:, COUNT : COUNT + 3].T.tolist()
        confidence = [each if each > 0.5 else 1 - each for each in probability]  # noqa: PLR2004  quicker than max()
        intervals = [None if ends[0] != ends[0] else ends for ends in zip(low, high, strict=True)]
        columns = probability, confidence, intervals, repeat(batch.model), warnings
        if batch.learned is None:
            return [*map(Prediction, batch.ids.texts(), *columns)]
        base = np.frombuffer(batch.learned, NUMBER)[::LEARNED_WIDTH].tolist()
        bases = base if None not in learned else [own if own == own else None for own in base]  # noqa: PLR0124  NaN
        return [*map(Prediction, batch.ids.texts(), *columns, bases, learned)]

    def _batch(
        self, ids: Ids, numbers: bytes, source: Source, kickers: Kickers, learned: bytes | None
    ) -> RecordBatch:
        card, sampler = self.model.card, self._sampler
        return RecordBatch(
            ids.millisecond,
            ids.counter,
            ids.tail,
            card.name,
            card.revision,
            sampler.cpu_percent,
            sampler.memory_mb,
            numbers,
            source=source,
            kickers=[*kickers] if kickers else None,
            learned=learned,
        )

    def _failure(self, error: Exception) -> PredictionFailed:
        """Log why the model failed, and make the error for clients, without any word of the model's own."""
        _log.error("the model %s failed", self.model.card.name, exc_info=error)
        if isinstance(error, PredictionFailed) and error.__cause__ is None:
            return PredictionFailed("the model returned an invalid probability")
        return PredictionFailed(
            f"the model raised {type(error.__cause__ or error).__name__}: see the service's log"
        )


def _scores_of(answer: Answer) -> Rows:
    missing = np.full(len(answer.probability), np.nan) if answer.low is None or answer.high is None else None
    return np.array([missing if part is None else part for part in answer], np.float64).T


def _checked(probability: float, low: float, high: float) -> Score:
    """Return a score whose interval may be missing, as plain floats: numpy's own can't be encoded.

    Raises:
        PredictionFailed: it holds no probability.
    """
    no_interval = math.isnan(low) and math.isnan(high)
    if 0 <= probability <= 1 and (no_interval or (0 <= low <= 1 and 0 <= high <= 1)):
        return float(probability), float(low), float(high)
    raise PredictionFailed("the model returned an invalid probability")


def _listed(found: Found) -> Sequence[Score | PredictionFailed]:
    return [*map(tuple, found.scores.tolist())] if isinstance(found, Scored) else found


class ServedModel:
    """A model that is served. After a reload it is released with its last call.

    Args:
        scorer: scores with it.
        limit: how many single kicks are scored together, at most.
        finish: as for `Batcher`, called with what sent the kicks first.
        alone: the same.
        timeout: seconds that a call of a model may take that is slow or was made elsewhere.

    Attributes:
        scorer: as above.
        batchers: gather single kicks, by what sent them: a record has one source.
        chunk: how many kicks of a batch are scored in one turn of the event loop.
    """

    def __init__(self, scorer: Scorer, limit: int, finish: Finish, alone: Alone, timeout: float) -> None:
        self.scorer = scorer
        model, cancel = scorer.model, cancel_of(scorer.model)
        one, many = call_within(2 * timeout, lambda: (_seconds(model, 1), _seconds(model, _MANY)), cancel)
        in_thread = one > _SLOW or isinstance(model, Cancellable)
        turn, more = _THREAD_TURN if in_thread else _TURN, (many - one) / (_MANY - 1)
        self.chunk = CHUNK if more <= turn / CHUNK else max(1, int(turn / more))
        self._thread = LimitedThread("model", timeout, cancel) if in_thread else None
        self.batchers: dict[Source, Batcher[Asked, Found, Outcome]] = {
            source: Batcher(
                scorer.score_each,
                partial(finish, source),
                limit=min(limit, self.chunk),
                thread=self._thread,
                rescue=_failures,
                alone=partial(alone, source) if scorer.answers_one and not in_thread else None,
            )
            for source in get_args(Source)
        }

    @property
    def model(self) -> Model:
        """The model."""
        return self.scorer.model

    async def score(self, rows: Rows) -> Rows:
        """Score kicks without a record, for pictures and explanations of the model.

        Args:
            rows: kicks, shape (n, 11), in the order of `kickserve.features.NAMES`, within their ranges.

        Returns:
            Probability, low and high, shape (n, 3); NaN for low and high where the model has no interval.

        Raises:
            PredictionFailed: the model could not.
        """
        scores = []
        for part in _parts(rows, self.chunk):
            scores.append(await self.score_part(part))
            await asyncio.sleep(0)
        return np.concatenate(scores)

    async def score_part(self, rows: Rows) -> Rows:
        """Score at most `chunk` kicks: in the thread, where the model is slow."""
        if self._thread is None:
            return self.scorer.score(rows)
        # In this context, so that logs and profiles of the thread belong to this request.
        score = partial(copy_context().run, self.scorer.score, rows)
        return await asyncio.get_running_loop().run_in_executor(self._thread, score)

    @property
    def works(self) -> bool:
        """Whether it can answer: not where too many of its calls did not end."""
        return self._thread is None or self._thread.works

    @property
    def state(self) -> str:
        """`ok`, or that calls of the model did not end."""
        return "ok" if self._thread is None else self._thread.state

    def close(self) -> None:
        """End the thread: further kicks get an error."""
        if self._thread is not None:
            self._thread.shutdown()


class Predictor:
    """Answers kicks with the current model. Every way to a prediction leads here.

    An answer leaves once its record is kept. Kicks that come in together are scored together and share a
    record.

    Args:
        load: loads the model: now, and again on `reload`.
        recorder: keeps the records.
        metrics: counts predictions, failures and refused kicks.
        sampler: of processor and memory, for the records.
        settings: `batch_max` and `model_timeout`.
        on_predictions: called with each batch of answers that was kept, in the event loop.
        learner: adjusts the scores of the model; None for the model's own.

    Attributes:
        current: the model that is served at present.
        learner: as above.
    """

    def __init__(  # noqa: PLR0913  the parts of the application, nearly all by keyword
        self,
        load: Callable[[], Model],
        recorder: Recorder,
        *,
        metrics: Metrics,
        sampler: ProcessSampler,
        settings: Settings,
        on_predictions: Sequence[Callable[[RecordBatch], Any]] = (),
        learner: Learner | None = None,
    ) -> None:
        self._load = load
        self._recorder = recorder
        self._metrics = metrics
        self._sampler = sampler
        self._settings = settings
        self._on_predictions = on_predictions
        self.learner = learner
        self._ids = IdFactory()
        self._loading = asyncio.Lock()
        self.current = self.serve(load())

    @property
    def model(self) -> Model:
        """The current model; a reload may change it during any `await`."""
        return self.current.model

    def serve(self, model: Model) -> ServedModel:
        """Return a model as it is served; it takes the place of no other.

        Raises:
            ModelUnusable: it does not answer.
        """
        scorer = Scorer(model, self._sampler, self._ids, self.learner)
        finish, alone = partial(self._finish, scorer), partial(self._answer_alone, scorer)
        settings = self._settings
        try:
            return ServedModel(scorer, settings.batch_max, finish, alone, settings.model_timeout)
        except TimeoutError as error:
            name = model.card.name
            raise ModelUnusable(f"the model {name} hangs on a usual kick: {error}") from error

    async def reload(self) -> ModelCard:
        """Load the model anew beside the current one, and put it in its place between two requests.

        What has been asked already is still answered by the model before, and recorded as such.

        Returns:
            The card of the current model from now on.

        Raises:
            ModelUnusable: it can't be loaded or does not answer; the model before stays.
            MissingExtra: its kind needs an extra that is not installed; the model before stays.
        """
        async with self._loading:
            self.current = await asyncio.to_thread(lambda: self.serve(self._load()))
        card = self.model.card
        self._metrics.set_model(card.name, card.revision)
        _log.info("the model is now %s, revision %s, from %s", card.name, card.revision, card.source)
        return card

    def close(self) -> None:
        """End the thread of a slow model: further kicks get an error."""
        self.current.close()

    @contextmanager
    def counting_refusals(self) -> Iterator[None]:
        """Count the invalid kicks of a request that is read in the block."""
        try:
            yield
        except RequestError as error:
            self._metrics.count("refused_kicks", len({fault.row for fault in error.errors}) or 1)
            raise

    def predict_json(self, body: bytes) -> asyncio.Future[Outcome]:
        """Answer one kick as it came over the network, as `predict` does; raises as `answer_json`."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.answer_json(body, future)
        return future

    def answer_json(self, body: bytes, promise: Promise[Outcome]) -> None:
        """Answer one kick as it came over the network; the promise takes what `predict` returns.

        Raises:
            MalformedBody: it is no JSON.
            InvalidInput: it is JSON that is no kick.
        """
        try:
            kick = read_kick(body)
        except RequestError:
            self._metrics.count("refused_kicks")
            raise
        self._answer_one(kick, promise, self.current)

    def predict(self, kick: Kick, served: ServedModel | None = None) -> asyncio.Future[Outcome]:
        """Answer one kick.

        Args:
            kick: the kick.
            served: what `current` was before, where that must answer; the current model by default.

        Returns:
            Brings the answer, once its record is kept; or PredictionFailed where the model could not score it
            (the attempt is kept all the same); or Backlogged where the record could not be kept.
        """
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._answer_one(kick, future, served or self.current)
        return future

    def _answer_one(self, kick: Kick, promise: Promise[Outcome], served: ServedModel) -> None:
        *row, kicker, source = astuple(kick)
        asked = (row, time.perf_counter(), kicker_of(kicker) if kicker else None)
        served.batchers[source].put(asked, promise)

    async def predict_once(self, kick: Kick, record_id: str) -> Prediction:
        """Answer one kick under an id that the client made: asked again, no second record is kept.

        Args:
            kick: the kick.
            record_id: a new UUID of version 7 (`kickserve.ids.client_id`). Its instant, of at most 30 days
                ago, is that of the record.

        Raises:
            InvalidInput: the id can't be used.
            PredictionFailed: the model could not score it; the attempt is kept under an id of its own.
            Backlogged: the record could not be kept.
        """
        try:
            ids = client_id(record_id)
        except ValueError as error:
            raise InvalidInput(f"id {error}") from None
        served = self.current
        [[answer]] = await self._answer(served, _by_source([kick], 1), ids)
        return answer

    async def predict_batch(self, kicks: Sequence[Kick]) -> list[Prediction]:
        """Answer many kicks, in their order.

        Raises:
            PredictionFailed: the model could not score them. A record is kept of the part of the kicks where
                it failed, and none of the others.
            Backlogged: the records could not be kept, so no kick was answered.
        """
        served = self.current
        answers = await self._answer(served, _by_source(kicks, served.chunk))
        return [*chain.from_iterable(answers)]

    async def answer_batch(
        self, kicks: AsyncIterable[Sequence[Kick]], charge: Callable[[int], object]
    ) -> list[Answers]:
        """Answer many kicks that are read meanwhile, in their order.

        Args:
            kicks: some at a time; may raise.
            charge: called with the number of all, before the model is asked; may raise.

        Raises:
            PredictionFailed: as `predict_batch`.
            Backlogged: as `predict_batch`.
        """
        served = self.current
        with self.counting_refusals():
            groups = [group async for some in kicks for group in _by_source(some, served.chunk)]
        charge(sum(len(part.rows) for part in chain.from_iterable(groups)))
        return await self._answer(served, groups)

    async def predict_matrix(
        self, rows: Rows, served: ServedModel | None = None, kickers: Kickers = None
    ) -> list[RecordBatch]:
        """Answer many kicks that are numbers already, without an object for each.

        Args:
            rows: kicks, shape (n, 11), in the order of `kickserve.features.NAMES`, within their ranges.
            served: as for `predict`.
            kickers: label of each kicker, as `kickserve.schemas.kicker_of` returns it.

        Returns:
            Their records: n kicks altogether, in their order.

        Raises:
            PredictionFailed: as `predict_batch`.
            Backlogged: as `predict_batch`.
        """
        served = served or self.current
        labels = _parts(kickers, served.chunk) if kickers else repeat(None)
        groups = [[_Part(*each)] for each in zip(_parts(rows, served.chunk), labels, strict=False)]
        return [batch for answers in await self._answer(served, groups) for batch in answers.batches]

    async def predict_each(self, kicks: Sequence[Kick]) -> Answers | list[Outcome]:
        """Answer kicks as `predict` does, in their order: a failure of one concerns no other.

        Args:
            kicks: few enough for one turn of the event loop.
        """
        if not kicks:
            return []
        served, started = self.current, time.perf_counter()
        [[part, *others]] = _by_source(kicks, len(kicks))
        if others:
            return await asyncio.gather(*map(self.predict, kicks))
        try:
            scores = await served.score_part(part.rows)
        except PredictionTimeout as error:
            await self._keep([served.scorer.record_failures(part.rows, error, part.kickers, part.source)])
            return [error] * len(kicks)
        except PredictionFailed:
            return await asyncio.gather(*map(self.predict, kicks))
        latency = (time.perf_counter() - started) / len(kicks)
        batch, learned = served.scorer.record(part.rows, scores, latency, part.kickers, part.source)
        refusal = await self._keep([batch])
        return Answers(served.scorer, [(batch, learned)]) if refusal is None else [refusal] * len(kicks)

    async def _answer(
        self, served: ServedModel, groups: Iterable[Sequence[_Part]], ids: Ids | None = None
    ) -> list[Answers]:
        """Score kicks part by part, and keep all of the records or none: a refused client may ask again.

        Args:
            served: the model.
            groups: the kicks.
            ids: of the kicks of a single part; new ones by default.
        """
        scorer, scored = served.scorer, []
        for group in groups:
            found = []
            for part in group:
                started = time.perf_counter()
                try:
                    scores = await served.score_part(part.rows)
                except PredictionFailed as error:
                    await self._keep([scorer.record_failures(part.rows, error, part.kickers, part.source)])
                    raise
                latency = (time.perf_counter() - started) / len(part.rows)
                found.append((part, scores, latency))
            scored.append(found)
            await asyncio.sleep(0)
        # Only now: an id holds the time at which its record is kept.
        answers = []
        for found in scored:
            recorded = [
                scorer.record(part.rows, scores, latency, part.kickers, part.source)
                for part, scores, latency in found
            ]
            if ids is not None:
                own = {"millisecond": ids.millisecond, "counter": ids.counter, "tail": ids.tail}
                recorded = [(replace(batch, **own), learned) for batch, learned in recorded]
            answers.append(Answers(scorer, recorded, [at for part, *_ in found for at in part.places]))
            await asyncio.sleep(0)
        refusal = await self._keep([batch for each in answers for batch in each.batches])
        if refusal is not None:
            raise refusal
        return answers

    def _finish(
        self,
        scorer: Scorer,
        source: Source,
        asked: Sequence[Asked],
        promises: Promises,
        found: Found,
    ) -> Pending:
        """Make the answers of single kicks, and have them given once their records are kept.

        Returns:
            Done when the last of the records is kept, or could not be.
        """
        if isinstance(found, Scored):
            predictions, batch = scorer.record_each(asked, found, source)
            return self._put(batch, promises, predictions)
        if _FAILURES.isdisjoint(map(type, found)):
            predictions, batch = scorer.record_few(asked, cast("Sequence[Score]", found), source)
            return self._put(batch, promises, predictions)
        for each, promise, score in zip(asked, promises, found, strict=True):
            kept = self._finish_one(scorer, source, each, promise, score)
        return kept

    def _finish_one(
        self,
        scorer: Scorer,
        source: Source,
        asked: Asked,
        promise: Promise[Outcome],
        score: Score | PredictionFailed,
    ) -> Pending:
        if not isinstance(score, PredictionFailed):
            prediction, batch = scorer.record_one(asked, score, source)
            return self._put(batch, [promise], [prediction])
        row, _, kicker = asked
        batch = scorer.record_failures(matrix_of([row]), score, None if kicker is None else [kicker], source)
        return self._put(batch, [promise], [score])

    def _answer_alone(
        self, scorer: Scorer, source: Source, asked: Asked, promise: Promise[Outcome]
    ) -> Pending:
        return self._finish_one(scorer, source, asked, promise, scorer.score_one(asked[0]))

    def _put(self, batch: RecordBatch, promises: Promises, outcomes: Sequence[Outcome]) -> Pending:
        """Keep the record of single kicks; then count it, and give the answers, or the reason for none."""
        keeping = _Keeping(self._count, batch, promises, outcomes)
        self._recorder.put(batch, keeping)
        return keeping

    async def _keep(self, batches: Sequence[RecordBatch]) -> Backlogged | None:
        """Keep records, and count them; return the reason, where they could not be kept."""
        refusal = await self._recorder.keep(batches)
        for batch in batches:
            self._count(batch, refusal)
        return refusal

    def _count(self, batch: RecordBatch, refusal: Backlogged | None) -> None:
        if batch.error is not None:
            self._metrics.count("failed_kicks", len(batch))
        elif refusal is None:
            self._metrics.count_predictions(batch)
            for on_predictions in self._on_predictions:
                try:
                    on_predictions(batch)
                except Exception:  # noqa: BLE001  the predictions are recorded: their answers must leave
                    _log.exception("a plugin failed in on_predictions")


class _Keeping(Struct, gc=False):
    """The promise of a record (`kickserve.batching.Promise`), and what the answers wait for (`Pending`).

    A future would bring the answers in a later turn of the event loop.
    """

    count: Callable[[RecordBatch, Backlogged | None], object]
    batch: RecordBatch
    promises: Promises
    outcomes: Sequence[Outcome]
    kept: bool = False
    callback: Callable[[Any], object] | None = None

    def done(self) -> bool:
        return self.kept

    def add_done_callback(self, callback: Callable[[Any], object], /) -> None:
        self.callback = callback

    def set_result(self, refusal: Backlogged | None, /) -> None:
        self.kept = True
        promises = self.promises
        resolve(promises, self.outcomes if refusal is None else [refusal] * len(promises))
        self.count(self.batch, refusal)
        if self.callback is not None:
            self.callback(self)

    def set_exception(self, exception: Exception, /) -> None:
        self.kept = True
        reject(self.promises, exception)
        if self.callback is not None:
            self.callback(self)


class Answers:
    """The answers to kicks that were scored together, each made when it is asked for.

    Args:
        scorer: scored the kicks.
        recorded: for each source a record, and what was learned, as `Scorer.record` returns them.
        places: of all that the records hold, in their order; none where that is the order of the kicks.

    Attributes:
        batches: the records.
    """

    def __init__(
        self, scorer: Scorer, recorded: Sequence[tuple[RecordBatch, Encoded]], places: Sequence[int] = ()
    ) -> None:
        self.batches = [batch for batch, _ in recorded]
        self._scorer = scorer
        self._recorded = recorded
        self._places = places

    def __len__(self) -> int:
        """How many answers these are."""
        return sum(map(len, self.batches))

    def __iter__(self) -> Iterator[Prediction]:
        """Make the answers, in the order of the kicks."""
        predictions = chain.from_iterable(starmap(self._scorer.predictions, self._recorded))
        if not self._places:
            return predictions
        return (each for _, each in sorted(zip(self._places, predictions, strict=True), key=itemgetter(0)))

    def encode(self, *, lines: bool) -> bytes:
        """Return the answers as NDJSON, or as elements of a JSON array with a comma behind each."""
        separator, text = b"\n" if lines else b",", None
        if not self._places:
            text = encode_answers(self.batches[0], self._scorer.model, separator)
        if text is not None:
            return text
        return _encoder.encode_lines([*self]) if lines else _encoder.encode([*self])[1:-1] + separator


class _Part(NamedTuple):
    """Kicks that are scored and recorded together.

    Attributes:
        rows: their numbers, shape (n, 11).
        kickers: label of each kicker.
        source: what sent the kicks.
        places: of each among kicks of several sources; none where all are of this one.
    """

    rows: Rows
    kickers: Kickers = None
    source: Source = "api"
    places: Places = ()


def _by_source(kicks: Sequence[Kick], size: int) -> Iterator[list[_Part]]:
    """Yield at most `size` kicks at a time, in a part for each source of theirs."""
    for some in _parts(kicks, size):
        if (rows := plain_matrix(some)) is not None:
            yield [_Part(rows)]
            continue
        sources, group = dict.fromkeys(map(_source, some)), []
        for source in sources:
            places = [at for at, kick in enumerate(some) if kick.source == source]
            same = [some[at] for at in places]
            kickers = [*map(kicker_of, map(_kicker, same))] if any(map(_kicker, same)) else None
            rows = matrix_of([*map(row_of, same)])
            group.append(_Part(rows, kickers, source, places if len(sources) > 1 else ()))
        yield group


def _parts(kicks: Kicks, size: int) -> Iterator[Kicks]:
    """Yield kicks in parts of at most `size`, in their order."""
    return (kicks[start : start + size] for start in range(0, len(kicks), size))


def _failures(error: BaseException, count: int) -> list[Score | PredictionFailed]:
    """Return the same failure for each kick that was scored together."""
    if isinstance(error, PredictionFailed):
        return [error] * count
    raise error


def _seconds(model: Model, kicks: int) -> float:
    """Measure how long a model takes, at its quickest; a failing one says so when it scores a kick."""
    took = []
    try:
        # The first try may cost more than those that follow, and another process may come between.
        for attempt in range(_TRIES):
            rows = _spread(kicks, attempt)
            started = time.perf_counter()
            model.predict(rows)
            took.append(time.perf_counter() - started)
    except Exception:  # noqa: BLE001  a model may be anyone's code
        return 0.0
    return min(took)


def _spread(count: int, attempt: int) -> Rows:
    """Return usual kicks, no two alike: the same one over and over would take trees less time."""
    rows: Rows = np.repeat(TYPICAL, count, axis=0)
    steps = np.outer(np.arange(count) + attempt * count, np.sqrt(np.arange(_NUMBERS) + 2.5))
    rows[:, :_NUMBERS] *= 0.5 + steps % 1
    return rows
