"""kickserve that counts nothing of itself: what counting costs is the difference. `unmetered.py PORT`."""

from __future__ import annotations

import sys
from typing import Any

from kickserve import cli, metrics


def _nothing(*_: Any) -> None:
    pass


if __name__ == "__main__":
    for kind, name in ((metrics.RouteMetrics, "add"), (metrics.Metrics, "count_predictions")):
        setattr(kind, name, _nothing)
    sys.exit(cli.run(["serve", "--port", sys.argv[1]]))
