"""Databases as earlier versions of kickserve left them, with what is in them: `old_databases/*.sql`.

The files are dumps of databases that those versions made. They never change.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from msgspec.structs import replace

from kickserve_testing.contract import record_at

FOLDER = Path(__file__).with_suffix("")
VERSIONS = (1, 2, 3)
"""Of the files. The third has schema 3 of SQLite, and schema 4 of Postgres: with a table in months."""


def old_sql(store, version):
    """The SQL that makes the database of a store (`sqlite`, `postgres`) at a version of its schema."""
    return (FOLDER / f"{store}_{version}.sql").read_text()


def _moment(*parts):
    return datetime(*parts, tzinfo=UTC)


_MADE = [
    _moment(2023, 12, 31, 23, 59, 59, 999_000),
    _moment(2024, 1, 1),
    _moment(2024, 2, 29, 12, 30),
    _moment(2024, 2, 29, 23, 59, 59, 999_000),
    _moment(2024, 3, 1),
    _moment(2025, 6, 15, 8),
    _moment(2025, 12, 31, 23, 59, 59, 999_000),
    _moment(2026, 1, 1),
]


def _record(at, made):
    p = (at + 1) / 10
    return record_at(
        round(made.timestamp() * 1000),
        number=at,
        distance=20.0 + at,
        prediction=p,
        confidence=max(p, 1 - p),
        interval=(p - 0.05, p + 0.05),
    )


def old_records(version):
    """The predictions in such a database, oldest first."""
    records = [_record(at, made) for at, made in enumerate(_MADE)]
    records[1] = replace(records[1], outcome=True, outcome_at=_moment(2024, 1, 2, 10))
    records[2] = replace(records[2], outcome=False, outcome_at=_moment(2024, 3, 1))
    broke = {"prediction": None, "confidence": None, "interval": None, "status_code": 500}
    records[5] = replace(records[5], **broke, error="the model broke: 'quoted' κ 🏉")
    records[6] = replace(records[6], outcome=True, outcome_at=_moment(2026, 1, 1, 0, 1))
    if version >= 2:
        shadow = {"shadow_model": "second", "shadow_revision": "r2", "shadow_prediction": 0.4375}
        records[6] = replace(records[6], **shadow)
    return records
