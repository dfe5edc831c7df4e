"""The same pipeline behind BentoML with one worker, which keeps nothing. `bentoml_peer.py PORT LOGISTIC`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import bentoml
import joblib
import pandas as pd
from pydantic import RootModel

MODEL = "KICKS_MODEL"  # the variable that brings the model's path to the worker


class Kick(RootModel[dict[str, Any]]):
    """What comes in: the whole body."""


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Kicks:
    """The service."""

    def __init__(self) -> None:
        self._model = joblib.load(os.environ[MODEL])

    @bentoml.api
    def predict(self, kick: Kick, /) -> dict[str, float]:
        """Predict one kick."""
        p = float(self._model.predict_proba(pd.DataFrame([kick.root]))[0, 1])
        return {"prediction": p, "confidence": max(p, 1 - p)}


if __name__ == "__main__":
    port, model = sys.argv[1:]
    script = Path(__file__)
    os.environ |= {MODEL: model, "BENTOML_HOME": str(Path.cwd()), "BENTOML_DO_NOT_TRACK": "True"}
    command = ["-m", "bentoml", "serve", f"{script.stem}:Kicks", "--working-dir", str(script.parent)]
    os.execv(sys.executable, [sys.executable, *command, "--host", "127.0.0.1", "--port", port])  # noqa: S606  our own
