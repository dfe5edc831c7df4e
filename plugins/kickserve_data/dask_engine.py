"""Work on a Dask cluster, of this machine or elsewhere; imported only for `--engine dask`."""

from __future__ import annotations

import logging
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final, TypeVar

from distributed import Client, LocalCluster, WorkerPlugin, as_completed, get_worker

from kickserve import __version__
from kickserve.errors import ConfigurationError, ServiceAway, first_line
from kickserve.loading import load_file
from kickserve.plugins import discover
from kickserve.settings import Settings
from kickserve_data.partitions import Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from kickserve.model import Model, ModelFile
    from kickserve_data.partitions import EngineConfig, Partition

T = TypeVar("T")

_HOST: Final = "127.0.0.1"
_QUEUED: Final = 2  # partitions that wait for each core, so that none is idle
_PATIENCE: Final = 30.0  # seconds for a scheduler to answer, and to have a worker


class _LoadedModel(WorkerPlugin):
    """Loads the model once in each worker, also in one that comes later or replaces a dead one.

    Args:
        file: the model as it was read: workers need not see the disk of this machine.
        name: of the plugin.
    """

    def __init__(self, file: ModelFile, name: str) -> None:
        self.name = name
        self._file = file
        self._version = __version__

    def setup(self, worker: Any) -> None:  # noqa: ARG002  Dask calls it so
        """Load the model in a worker."""
        import pyarrow as pa

        if __version__ != self._version:
            raise ConfigurationError(
                f"a worker has kickserve {__version__}, and this process {self._version}: install the"
                " same version on both"
            )
        pa.set_cpu_count(1)  # a worker is a core: tasks go side by side already
        self.model: Model = load_file(self._file, discover(Settings.load()))


def work_on_cluster(
    work: Callable[[Partition, Model], T],
    partitions: Iterable[Partition],
    config: EngineConfig,
    file: ModelFile,
    say: Callable[[str], None],
) -> Iterator[Result[T]]:
    """Do work on a running cluster, or on one of this machine: see `engines.work_through`."""
    with ExitStack() as stack:
        address: Any = config.scheduler
        if address is None:
            address = stack.enter_context(
                LocalCluster(
                    n_workers=config.workers,
                    threads_per_worker=1,
                    host=_HOST,
                    dashboard_address=f"{_HOST}:0",
                    memory_limit=config.memory,
                    silence_logs=logging.ERROR,
                )
            )
        client = stack.enter_context(_connect(address))
        plugin = _LoadedModel(file, f"kickserve-{token_hex(4)}")
        stack.callback(_remove, client, plugin.name)
        _send(client, plugin)
        if "dashboard" in client.scheduler_info(n_workers=0).get("services", {}):
            say(f"dashboard: {client.dashboard_link}")

        def begin(partition: Partition) -> Any:
            key = f"{plugin.name}-{partition.number}"
            task = partial(_work_in_worker, work, plugin.name)
            return client.submit(task, partition, key=key, retries=config.retries, pure=False)

        yield from _in_turns(client, begin, iter(partitions))


def _in_turns(
    client: Client, begin: Callable[[Partition], Any], left: Iterator[Partition]
) -> Iterator[Result[Any]]:
    """Begin no more than the cluster can do soon: the scheduler would keep all of them in memory."""
    under_way: dict[Any, Partition] = {}

    def fill() -> list[Any]:
        room = (1 + _QUEUED) * max(sum(client.nthreads().values()), 1) - len(under_way)
        begun = {begin(each): each for each in islice(left, max(room, 0))}  # none after a worker's death
        under_way.update(begun)
        return [*begun]

    ended = as_completed(fill())
    for future in ended:
        yield _result(under_way.pop(future), future)
        ended.update(fill())


@contextmanager
def _connect(address: Any) -> Iterator[Client]:
    try:
        client = Client(address, timeout=_PATIENCE)
        client.wait_for_workers(1, timeout=_PATIENCE)
    except (OSError, ValueError) as error:  # a timeout is an OSError
        raise ServiceAway(
            f"the Dask scheduler {address} does not answer, or has no workers: {first_line(error)}"
        ) from error
    with client:
        yield client


def _send(client: Client, plugin: _LoadedModel) -> None:
    try:
        client.register_plugin(plugin)
    except Exception as error:  # whatever a worker raised, or that it has no kickserve
        raise ConfigurationError(
            f"a worker can't load the model: {first_line(error)}. Install kickserve {__version__} on the"
            " workers, with the extras of the model"
        ) from error


def _remove(client: Client, name: str) -> None:
    if client.status == "running":
        client.unregister_worker_plugin(name)


def _work_in_worker(work: Callable[[Partition, Model], T], name: str, partition: Partition) -> T:
    plugin: Any = get_worker().plugins[name]
    return work(partition, plugin.model)


def _result(partition: Partition, future: Any) -> Result[Any]:
    if future.status == "finished":
        return Result(partition, future.result())
    if future.status == "error":
        return Result(partition, None, first_line(future.exception()))
    raise ServiceAway("the connection to the Dask scheduler is lost: the same command resumes the run")
