"""A file of keys for tests: one of each scope, with what it is."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta

KEYS = {scope: f"kick_{scope}-{'x' * 40}" for scope in ("read", "predict", "admin")}


def entry(name, key, scopes, **more):
    return {"name": name, "scopes": scopes, "sha256": hashlib.sha256(key.encode()).hexdigest(), **more}


def write(file, *more):
    """Write a key of each scope, named after it, and those entries."""
    entries = [entry(scope, key, [scope]) for scope, key in KEYS.items()]
    file.write_text(json.dumps({"keys": [*entries, *more]}))
    return file


def in_an_hour(*, hours=1):
    return (datetime.now(UTC) + timedelta(hours=hours)).isoformat()
