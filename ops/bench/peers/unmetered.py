"""kickserve that counts nothing of itself: what counting costs is the difference. `unmetered.py PORT`."""

from __future__ import annotations

import sys
from typing import Any

from kickserve import cli
from kickserve import metrics as meters


def _nothing(*_: Any) -> None:
    pass


if __name__ == "__main__":
    for kind, name in ((meters.RouteMeter, "add"), (meters.Meters, "predicted")):
        setattr(kind, name, _nothing)
    sys.exit(cli.run(["serve", "--port", sys.argv[1]]))
