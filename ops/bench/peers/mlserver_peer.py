"""The same pipeline behind MLServer in one process, which keeps nothing. `mlserver_peer.py PORT LOGISTIC`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import joblib
import pandas as pd
from mlserver import MLModel
from mlserver.handlers import custom_handler
from starlette.requests import Request  # noqa: TC002  MLServer reads the annotation
from starlette.responses import JSONResponse


class Kicks(MLModel):
    """A runtime with a route of its own, which takes the JSON that all others take, and no tensors."""

    async def load(self) -> bool:
        """Load the model."""
        self._model = joblib.load(self.settings.parameters.uri)
        return True

    @custom_handler(rest_path="/predict")
    async def answer(self, request: Request) -> JSONResponse:
        """Predict one kick."""
        p = float(self._model.predict_proba(pd.DataFrame([await request.json()]))[0, 1])
        return JSONResponse({"prediction": p, "confidence": max(p, 1 - p)})


if __name__ == "__main__":
    port, model = sys.argv[1:]
    script = Path(__file__)
    # On one core, a process for models beside the one of the server only costs.
    settings = {"host": "127.0.0.1", "http_port": int(port), "grpc_port": 0, "parallel_workers": 0}
    Path("settings.json").write_text(json.dumps({**settings, "metrics_endpoint": None, "debug": False}))
    runtime = {"name": "kicks", "implementation": f"{script.stem}.Kicks", "parameters": {"uri": model}}
    Path("model-settings.json").write_text(json.dumps(runtime))
    os.environ["PYTHONPATH"] = str(script.parent)
    os.execv(sys.executable, [sys.executable, "-c", "from mlserver.cli import main; main()", "start", "."])  # noqa: S606  our own
