"""The least that can answer over HTTP: reads the body, and sends the same each time. `bare.py PORT`."""

from __future__ import annotations

import sys
from typing import Any, Final

import uvicorn

# As many bytes as a prediction has; a test looks that it stays so.
ANSWER: Final = (
    b'{"id":"01a20c5b-b7fa-7000-8000-aefcc455ff30","prediction":0.74646271820,'
    b'"confidence":0.74646271820,"interval":[0.62835955137,0.84155673227],"model":"simulated"}'
)
START: Final = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))],
}
BODY: Final = {"type": "http.response.body", "body": ANSWER}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer any request alike (ASGI)."""
    assert scope["type"] == "http"
    while (await receive()).get("more_body"):
        pass
    await send(START)
    await send(BODY)


if __name__ == "__main__":
    # As kickserve.server sets it up; there is nothing to start, so no lifespan.
    uvicorn.run(
        app,
        port=int(sys.argv[1]),
        access_log=False,
        log_config=None,
        lifespan="off",
        server_header=False,
        timeout_keep_alive=30,
    )
