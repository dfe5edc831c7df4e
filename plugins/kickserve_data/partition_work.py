"""What is done with a partition, in whatever process: read it, ask the model, write, say it is done."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kickserve_data import scoring
from kickserve_data.locations import place_of
from kickserve_data.manifest import Done, part_of, set_done
from kickserve_data.partitions import read
from kickserve_data.pipeline import ahead, behind
from kickserve_data.writer import open_writer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kickserve.model import Model
    from kickserve_data.partitions import Partition
    from kickserve_data.scoring import Answered

FILE: Final = "file"
"""The column that says which file a line is of, where there are several."""

_REFUSALS_KEPT: Final = 100  # of a partition


@dataclass(frozen=True, slots=True)
class Scoring:
    """Answers the kicks of a partition into a file of its own.

    Attributes:
        output: URL of the folder of the output.
        columns: to write, our own.
        others: to carry along from the input.
        rows: of the whole run.
        min_distance: only kicks from so many metres.
        pipelined: whether reading and writing may have threads beside the one that asks the model.
    """

    output: str
    columns: tuple[str, ...]
    others: tuple[str, ...]
    rows: int
    min_distance: float
    pipelined: bool

    def __call__(self, partition: Partition, model: Model) -> scoring.Share:
        """Do it all; return what it came to.

        Raises:
            DataError: a file can't be read or written.
            PredictionFailed: the model can't answer.
        """
        output = place_of(self.output)
        part = part_of(output, partition.number)
        tally = scoring.Tally(self.rows, keep=_REFUSALS_KEPT)
        with part.filled() as path:
            self._score(partition, model, path, tally)
            size = path.stat().st_size
        share = tally.share()
        set_done(output, Done(partition.number, size, share))
        return share

    def _score(self, partition: Partition, model: Model, path: Path, tally: scoring.Tally) -> None:
        schema, blocks = read(partition, self.others)
        constant = {FILE: partition.name}
        with ExitStack() as stack:
            writer = stack.enter_context(
                open_writer(path, self.columns, schema if self.others else None, durable=True)
            )

            def write(answered: Answered) -> None:
                writer.write(scoring.table_of(answered) | constant, answered.block.others)

            put: Callable[[Answered], None] = write
            if self.pipelined:
                blocks = stack.enter_context(closing(ahead(blocks)))
                put = stack.enter_context(behind(write))
            for answered in scoring.run_direct(scoring.only_from(blocks, self.min_distance, tally), model):
                tally.add(answered)
                put(answered)
