"""kickserve: the honest probability that a rugby place kick goes over."""

from importlib.metadata import version

__version__ = version("kickserve")
