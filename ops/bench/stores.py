"""Measures something with each kind of store: SQLite, and a Postgres of its own where there is one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeVar

from postgres import Cluster, NoPostgres, binaries  # found through the line above

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def with_each_store(measure: Callable[[dict[str, str]], T]) -> dict[str, T]:
    """Call with the settings that lead to a store; return what came of each, by the store's name."""
    found = {"SQLite": measure({})}
    try:
        cluster = Cluster(binaries())
    except NoPostgres as reason:
        print(reason, file=sys.stderr)
        return found
    try:
        cluster.start()
        found["Postgres"] = measure({"DATABASE_URL": cluster.url})
    finally:
        cluster.remove()
    return found
