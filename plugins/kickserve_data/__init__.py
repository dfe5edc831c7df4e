"""The library `data`: reads and writes kicks, and predicts many of them, here or on a cluster."""

from kickserve.errors import KickserveError

__all__ = ["DataError"]


class DataError(KickserveError):
    """A file of kicks can't be read or written."""

    title = "Unusable file"
    exit_code = 2
