"""The same pipeline behind LitServe, which keeps nothing. `litserve_peer.py PORT LOGISTIC`."""

from __future__ import annotations

import sys

import joblib
import litserve as ls
import pandas as pd


class KickAPI(ls.LitAPI):
    """The four steps that LitServe asks for."""

    def setup(self, device: str) -> None:  # noqa: ARG002  LitServe gives it one
        """Load the model."""
        self.model = joblib.load(sys.argv[2])

    # LitServe reads the annotations of this one, and takes a dict for a parameter of the query.
    def decode_request(self, request):  # noqa: ANN001, ANN201  see above
        """Turn a kick into a table of one row."""
        return pd.DataFrame([request])

    def predict(self, x: pd.DataFrame) -> float:
        """Ask the model."""
        return float(self.model.predict_proba(x)[0, 1])

    def encode_response(self, output: float) -> dict[str, float]:
        """Lay the answer out."""
        return {"prediction": output, "confidence": max(output, 1 - output)}


if __name__ == "__main__":
    server = ls.LitServer(KickAPI(), accelerator="cpu", devices=1, workers_per_device=1)
    # No log of requests and no file for clients: what makes it slower than it need be is off.
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
