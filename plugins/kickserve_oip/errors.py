"""What this plugin refuses."""

from __future__ import annotations

from kickserve.errors import InvalidInput, RequestError


class BadInference(InvalidInput):
    """The request is no inference request, or not one of kicks; 400, as the protocol has it."""

    status = 400
    title = "Invalid inference request"


class ModelNotServed(RequestError):
    """No model of this name or version is served."""

    status = 404
    title = "Model not found"
