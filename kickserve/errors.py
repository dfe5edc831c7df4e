"""The exceptions of the core and of several plugins, with the HTTP status or exit code that each leads to.

A plugin or library has its own beside the code that raises it, derived from one of these.

KickserveError
├── RequestError               the client can mend it
│   ├── MalformedBody          400  no JSON
│   ├── Unauthorized           401  no key, or a wrong one
│   ├── Forbidden              403  a key that is not good for this, or a page of another origin
│   ├── TooManyRequests        429
│   ├── RecordNotFound         404
│   ├── BodyTooLarge           413
│   ├── EncodedBody            415  compressed: nothing is unpacked here
│   └── InvalidInput           422  JSON that doesn't fit
├── ServiceError               the operator can mend it
│   ├── PredictionFailed       500  the model could not answer
│   │   └── PredictionTimeout  503  it did not answer in time
│   ├── Backlogged             503  more predictions wait to be stored than may wait
│   └── StoreError
│       ├── StoreUnavailable   503  away, locked, full: may pass by itself
│       │   └── RecordPending  503  another process is about to store this record
│       ├── StoreMisconfigured      a wrong URL or folder: will not pass
│       └── RecordUnfit             a record that the store can't hold, though it holds others
├── ModelUnusable              409  a model that can't be found, read or trusted
├── RemoteError                     a running service that answers with an error, or is none of ours
│   └── ServiceAway                 one that can't be reached: may pass by itself
└── ConfigurationError
    ├── SettingsError               a setting with a value that can't be used
    ├── UnknownPlugin
    └── MissingExtra                something needs an extra that is not installed
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kickserve.schemas import FieldError, Problem

AWAY: Final = 6
"""The exit code where a store or a service is away: the same command may do later."""


class KickserveError(Exception):
    """The base of all exceptions that kickserve raises on purpose.

    The message is for a person and says what to do next.

    Attributes:
        status: the HTTP status of the problem document.
        title: the kind of problem in words; it also makes the problem's type URI.
        exit_code: what the command line ends with.
        retry_after: seconds after which asking again may help, for the Retry-After header.
        errors: the faults field by field, where fields are to blame.
    """

    status: int = 500
    title: str = "Internal error"
    exit_code: ClassVar[int] = 1
    retry_after: int | None = None
    errors: Sequence[FieldError] = ()


class RequestError(KickserveError):
    """The client sent something that can't be answered."""

    status = 400
    title = "Bad request"


class MalformedBody(RequestError):
    """The body is no JSON."""

    title = "Malformed JSON"


class Unauthorized(RequestError):
    """The key is missing or wrong."""

    status = 401
    title = "Unauthorized"


class Forbidden(RequestError):
    """The key is right, but not for this; or a page of another origin asks.

    Attributes:
        scope: what the key would have to be good for, where that is the reason.
    """

    status = 403
    title = "Forbidden"

    def __init__(self, message: str, scope: str = "") -> None:
        super().__init__(message)
        self.scope = scope


class TooManyRequests(RequestError):
    """A client has asked more often than it may.

    Args:
        message: for a person.
        wait: seconds until it may ask again.
    """

    status = 429
    title = "Too many requests"

    def __init__(self, message: str, wait: float) -> None:
        super().__init__(message)
        self.retry_after = max(1, math.ceil(wait))


class RecordNotFound(RequestError):
    """No stored prediction has this id."""

    status = 404
    title = "Prediction not found"


class BodyTooLarge(RequestError):
    """The body is larger than is read.

    Args:
        setting: the variable that says how large it may be.
    """

    status = 413
    title = "Request Entity Too Large"

    def __init__(self, setting: str) -> None:
        super().__init__(f"the body is too large: send a smaller body, or raise {setting}")


class EncodedBody(RequestError):
    """The body is compressed. Nothing is unpacked: a small body could become a huge one."""

    status = 415
    title = "Encoded body"


class InvalidInput(RequestError):
    """The request is well-formed, but its values don't fit."""

    status = 422
    title = "Invalid input"
    exit_code = 2

    def __init__(self, message: str, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(message)
        self.errors = errors


class ServiceError(KickserveError):
    """The request was right; the service could not do its part."""


class PredictionFailed(ServiceError):
    """The model raised or returned something that is no probability."""

    title = "Prediction failed"


class PredictionTimeout(PredictionFailed):
    """The model did not answer in time; its call was given up."""

    status = 503
    title = "The model did not answer in time"
    retry_after = 5


class Backlogged(ServiceError):
    """Taking one more prediction could mean losing it."""

    status = 503
    title = "Too many predictions wait to be stored"
    retry_after = 5


class StoreError(ServiceError):
    """The store could not read or write."""

    status = 503
    title = "The store is not available"


class StoreUnavailable(StoreError):
    """The store is away, locked or full: trying again later may help."""

    exit_code = AWAY
    retry_after = 5


class RecordPending(StoreUnavailable):
    """A record is not stored yet: the process that made it is about to store it."""

    title = "The prediction is not stored yet"
    retry_after = 1


class StoreMisconfigured(StoreError):
    """The store can't be used as it is set up: trying again will not help."""

    exit_code = 2


class RecordUnfit(StoreError):
    """The store can't hold this record, though it holds others: trying again will not help."""

    status = 500
    title = "The store can't hold this"


class ModelUnusable(KickserveError):
    """The model can't be found, read or trusted."""

    status = 409
    title = "Model unusable"
    exit_code = 2


class RemoteError(KickserveError):
    """A running service answered with an error, or can't be asked.

    `status`, `title` and `errors` are those of its answer, where there was one.

    Args:
        message: for a person.
        problem: what the service answered.
        request_id: the id that the request carried, and that the service's log has too.

    Attributes:
        detail: what happened, in the service's words where it said something.
        request_id: as above; empty where nothing was sent.
    """

    title = "The service did not answer as it should"

    def __init__(self, message: str, problem: Problem | None = None, request_id: str = "") -> None:
        super().__init__(message)
        self.detail = message
        self.request_id = request_id
        if problem is not None:
            self.status, self.title, self.detail = problem.status, problem.title, problem.detail
            self.errors = problem.errors


class ServiceAway(RemoteError):
    """A running service can't be reached: trying again later may help."""

    status = 503
    exit_code = AWAY


class ConfigurationError(KickserveError):
    """Something is set up in a way that can't work."""

    title = "Configuration error"
    exit_code = 2


class SettingsError(ConfigurationError):
    """A setting has a value that can't be used."""


class UnknownPlugin(ConfigurationError):
    """No installed plugin has this name."""


class MissingExtra(ConfigurationError):
    """Something needs an extra that is not installed.

    Args:
        what: what needs it, as the subject of a sentence.
        extra: name of the extra.
        packages: the packages that are missing.
    """

    def __init__(self, what: str, extra: str, packages: Sequence[str]) -> None:
        missing = ", ".join(packages)
        super().__init__(f"{what} needs {missing}: install it with  pip install 'kickserve[{extra}]'")
        self.extra = extra
        self._made_of = (what, extra, [*packages])

    def __reduce__(self) -> tuple[Any, ...]:
        """Say how to make it again in another process."""
        return type(self), self._made_of


def need_extra(what: str, extra: str, modules: Mapping[str, str]) -> None:
    """Make sure that the packages of an extra are installed.

    Args:
        what: needs them, as the subject of a sentence.
        extra: its name.
        modules: the modules it brings, each with the package that holds it.

    Raises:
        MissingExtra: a module is missing; the message names the extra.
    """
    # Looked up by name, not imported: an error inside a package must not look like the package missing.
    missing = [package for module, package in modules.items() if find_spec(module) is None]
    if missing:
        raise MissingExtra(what, extra, missing)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its kind where it has none."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
