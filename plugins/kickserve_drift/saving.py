"""Writes reports into their folder, so that one that is listed is whole."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from kickserve.errors import DataError
from kickserve.wholefile import atomic_write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kickserve_drift.report import Report


def save_page(folder: Path, name: str, page: str) -> Path:
    """Write the page.

    Raises:
        DataError: it can't be written.
    """
    path = folder / f"{name}.html"
    with _writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(page)
        except FileExistsError:
            raise
        except OSError:
            path.unlink(missing_ok=True)  # half a page helps nobody
            raise
    return path


def save_report(folder: Path, name: str, report: Report) -> Path:
    """Write the report as JSON, after its page: from then on there is a report.

    Raises:
        DataError: it can't be written.
    """
    path = folder / f"{name}.json"
    with _writing(path), atomic_write(path) as part:
        part.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1))
    return path


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"can't write {path}: {error.strerror or error}. KICKSERVE_REPORTS names another folder"
        ) from error
