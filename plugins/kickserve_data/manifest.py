"""What a run is, and which of its partitions are done, kept beside its output.

    OUTPUT/part-000012.parquet                   the answers of partition 12
    OUTPUT/_kickserve/run.json                   what the run is: input, model, options
    OUTPUT/_kickserve/done/part-000012.json      partition 12 is done, and what it came to

Each file appears whole or not at all, the answers before the mark that says so. So a run may stop anywhere:
what has no mark is done again, under the same name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from kickserve import __version__
from kickserve.errors import DataError
from kickserve_data.partitions import File
from kickserve_data.scoring import Share

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kickserve_data.locations import Place

FOLDER: Final = "_kickserve"
_RUN: Final = "run.json"
_DONE: Final = "done"
_PART: Final = "part-"


class Run(Struct, frozen=True):
    """What a run is: only with the same of all these it can be taken up again.

    Attributes:
        files: of kicks, as they were.
        model: name and revision.
        options: whatever else changes the output, in words.
        kickserve: the version.
    """

    files: list[File]
    model: str
    options: dict[str, str]
    kickserve: str = __version__


class Done(Struct, frozen=True):
    """A partition that is done.

    Attributes:
        number: of the partition.
        size: bytes of its answers.
        share: what it came to.
    """

    number: int
    size: int
    share: Share


_decode_done = msgspec.json.Decoder(Done).decode
_decode_run = msgspec.json.Decoder(Run).decode


def part_of(output: Place, number: int) -> Place:
    """Return where the answers of a partition go."""
    return output.child(f"{_PART}{number:06d}.parquet")


def set_done(output: Place, done: Done) -> None:
    """Remember that a partition is done: from now on it will not be done again."""
    name = f"{_PART}{done.number:06d}.json"
    output.child(FOLDER).child(_DONE).child(name).write(msgspec.json.encode(done))


class Manifest:
    """The state of a run.

    Args:
        output: the folder of the output.
    """

    def __init__(self, output: Place) -> None:
        self._output = output
        self._folder = output.child(FOLDER)

    def begin(self, run: Run, *, restart: bool) -> None:
        """Begin a run, or take it up where it stands.

        Args:
            run: what it is.
            restart: forget what an earlier run left here, and begin anew.

        Raises:
            DataError: the folder holds another run, or files of somebody else; nothing was changed.
        """
        earlier = self._folder.child(_RUN).read()
        if earlier is None:
            self._refuse_strangers()
        elif not restart:
            self._refuse_another(earlier, run)
            self._tidy()
            return
        if restart:
            self._forget()
        self._folder.child(_RUN).write(msgspec.json.encode(run))

    def done(self) -> Iterator[Done]:
        """Yield the partitions that are done, and whose answers are all there."""
        folder = self._folder.child(_DONE)
        sizes = self._output.sizes()
        names = [name for name in folder.sizes() if name.startswith(_PART) and name.endswith(".json")]
        for content in folder.read_many(sorted(names)):
            try:
                done = _decode_done(content)
            except msgspec.MsgspecError:
                continue  # of a disk that failed; its partition is done again
            if sizes.get(part_of(self._output, done.number).path.rpartition("/")[2]) == done.size:
                yield done

    def _refuse_strangers(self) -> None:
        strangers = [name for name in self._output.sizes() if not name.startswith(".")]
        if strangers:
            raise DataError(
                f"{self._output.url} holds files that are of no run, such as {min(strangers)}:"
                " name a folder that is new or empty"
            )

    def _refuse_another(self, content: bytes, run: Run) -> None:
        try:
            differs = _difference(_decode_run(content), run)
        except msgspec.MsgspecError as error:
            differs = f"its {FOLDER}/{_RUN} can't be read ({error})"
        if differs:
            raise DataError(
                f"{self._output.url} holds a run that can't be taken up: {differs}."
                " Name another folder, or begin anew with --restart"
            )

    def _tidy(self) -> None:
        """Remove what was half written when a run was killed."""
        for name in self._output.sizes():
            if name.startswith(f".{_PART}") and name.endswith(".part"):
                self._output.child(name).remove()

    def _forget(self) -> None:
        self._tidy()
        for name in self._output.sizes():
            if name.startswith(_PART) and name.endswith(".parquet"):
                self._output.child(name).remove()
        self._folder.remove()


def _difference(old: Run, new: Run) -> str:
    """Say in a clause what differs; empty where nothing does."""
    if old.model != new.model:
        return f"it was begun with the model {old.model}, and this one is {new.model}"
    if old.kickserve != new.kickserve:
        return f"it was begun by kickserve {old.kickserve}, and this is {new.kickserve}"
    if old.files != new.files:
        return _changed(old.files, new.files)
    for name, now in new.options.items():
        if (before := old.options.get(name)) != now:
            return f"{name}: it was begun with {before}, and now that is {now}"
    return ""


def _changed(old: list[File], new: list[File]) -> str:
    before, now = ({file.url: file for file in files} for files in (old, new))
    for url in [*before, *now]:
        if url not in now:
            return f"{url} is no longer there, or not asked for"
        if url not in before:
            return f"{url} was not there, or not asked for, when it was begun"
        if before[url] != now[url]:
            return f"{url} has changed since it was begun"
    return "its files stand in another order"
