"""The engine of a Dask cluster: one on this machine, or one that runs elsewhere.

The module needs dask and distributed, so it is imported only for `--engine dask`.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack, contextmanager
from itertools import islice
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final, TypeVar

from distributed import Client, LocalCluster, WorkerPlugin, as_completed, get_worker

from kickserve import __version__
from kickserve.errors import ConfigurationError, ServiceAway, first_line
from kickserve.loading import load_file
from kickserve.plugins import discover
from kickserve.settings import Settings
from kickserve_data.partitions import EngineConfig, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from kickserve.model import Model, ModelFile
    from kickserve_data.partitions import Partition

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


class DaskEngine:
    """Works on a Dask cluster.

    Args:
        client: of the cluster.
        name: of the plugin that has the model.
    """

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self._name = name

    def run(
        self, work: Callable[[Partition, Model], T], partitions: Iterable[Partition], retries: int
    ) -> Iterator[Result[T]]:
        """Do the work; see `kickserve_data.engines.LocalEngine.run`.

        Raises:
            ServiceAway: the scheduler went away.
        """
        left = iter(partitions)
        under_way: dict[Any, Partition] = {}

        def begin(count: int) -> list[Any]:
            chosen = [*islice(left, max(count, 0))]  # there is less room after the death of a worker
            futures = [self._submit(work, partition, retries) for partition in chosen]
            under_way.update(zip(futures, chosen, strict=True))
            return futures

        # Never more than the cluster can begin soon: the scheduler would keep them all in memory.
        ended = as_completed(begin(self._room()))
        for future in ended:
            yield _result(under_way.pop(future), future)
            ended.update(begin(self._room() - len(under_way)))

    def _room(self) -> int:
        cores: int = sum(self._client.nthreads().values())
        return (1 + _QUEUED) * max(cores, 1)

    def _submit(self, work: Callable[[Partition, Model], T], partition: Partition, retries: int) -> Any:
        key = f"{self._name}-{partition.number}"
        return self._client.submit(
            _work_in_worker, work, partition, self._name, key=key, retries=retries, pure=False
        )


@contextmanager
def start_dask(config: EngineConfig, file: ModelFile, say: Callable[[str], None]) -> Iterator[DaskEngine]:
    """Connect to a cluster, or start one on this machine that ends with the context, and send it the model.

    Args:
        config: address of a scheduler, or the size of a cluster on this machine.
        file: the model.
        say: gets the address of the dashboard, if there is one.

    Raises:
        ServiceAway: the scheduler does not answer, or has no workers.
        ConfigurationError: a worker can't load the model.
    """
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
        yield DaskEngine(client, plugin.name)


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


def _work_in_worker(work: Callable[[Partition, Model], T], partition: Partition, name: str) -> T:
    plugin: Any = get_worker().plugins[name]
    return work(partition, plugin.model)


def _result(partition: Partition, future: Any) -> Result[Any]:
    if future.status == "finished":
        return Result(partition, future.result())
    if future.status == "error":
        return Result(partition, None, first_line(future.exception()))
    raise ServiceAway("the connection to the Dask scheduler is lost: the same command resumes the run")
