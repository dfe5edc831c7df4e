"""The Dask engine: the answers and figures that one process has, whatever dies on the way; files and S3."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial

import cloudpickle
import pyarrow.parquet as pq
import pytest
import s3fs
from distributed import LocalCluster
from moto.server import ThreadedMotoServer
from partitions import answers, evaluate, folder_of, lasting, rounded, table_of, without_pages
from partitions import batch as run_batch

from kickserve.errors import ConfigurationError, ServiceAway
from kickserve.loading import fetch_model
from kickserve.model import ModelFile, Origin
from kickserve_data.engines import DASK, work_through
from kickserve_data.partitions import EngineConfig, Partition

pytestmark = [
    pytest.mark.slow,
    # s3fs leaves the connections of its own thread to the collector of rubbish.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]


@pytest.fixture(scope="module")
def s3():
    """Run an S3 of our own, and point whoever asks for S3 at it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        store = s3fs.S3FileSystem()
        store.mkdir("season")
        yield store
    server.stop()


@pytest.fixture(scope="module")
def cluster(s3):  # noqa: ARG001  workers inherit where it is
    """Start a cluster that knows where that S3 is."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def batch(capsys):
    return partial(run_batch, capsys)


@pytest.fixture
def dask(batch, cluster):
    return partial(batch, "--engine", "dask", "--scheduler", cluster)


def test_a_file_is_answered_as_in_one_process(batch, dask, tmp_path):
    table = table_of(5_000, match=[f"match {at % 7}" for at in range(5_000)])
    pq.write_table(table, "kicks.parquet", row_group_size=800)
    _, here, _ = batch("kicks.parquet", "--output", "here.parquet")
    code, there, _ = dask("kicks.parquet", "--output", "there")
    assert (code, there["partitions"], there["taken_up"], there["failed"]) == (0, 7, 0, [])
    assert {**lasting(there), **lasting(here)} == lasting(there)
    assert answers(tmp_path / "there").equals(pq.read_table("here.parquet"))
    assert {"line", "match", "prediction", "low", "high", "revision"} < {
        *pq.read_schema("here.parquet").names
    }


def test_a_cluster_of_its_own_shows_where_its_dashboard_is(batch, tmp_path):
    kicks = folder_of(tmp_path / "kicks", [2_000], rows=500)
    code, summary, err = batch(
        kicks, "--output", "answers", "--engine", "dask", "--workers", 1, "--memory", "1GB"
    )
    assert (code, summary["sent"]) == (0, 2_000)
    assert "dashboard: http://127.0.0.1:" in err


def test_an_evaluation_has_the_figures_of_one_process(capsys, cluster, tmp_path, monkeypatch):
    without_pages(monkeypatch)
    kicks = folder_of(tmp_path / "kicks", [1_500, 900], rows=300)
    _, here, _ = evaluate(capsys, kicks)
    code, there, _ = evaluate(capsys, kicks, "--engine", "dask", "--scheduler", cluster)
    assert (code, there["kicks"]) == (0, 2_400)
    assert rounded(there) == rounded(here)


def test_s3_is_read_written_and_taken_up(s3, batch, dask, tmp_path):
    kicks = folder_of(tmp_path / "kicks", [1_000, 700], rows=250)
    s3.put(f"{kicks}/", "season/kicks/", recursive=True)
    _, here, _ = batch(kicks, "--output", "answers")
    expected = answers(tmp_path / "answers")
    code, there, _ = dask("s3://season/kicks/", "--output", "s3://season/answers")
    assert (code, lasting(there)) == (0, lasting(here))
    s3.invalidate_cache()
    assert answers("season/answers", filesystem=s3).equals(expected)
    s3.rm("season/answers/part-000002.parquet")
    s3.rm("season/answers/part-000004.parquet")
    assert dask("s3://season/kicks/*.parquet", "--output", "s3://season/answers")[1]["taken_up"] == 5
    s3.pipe("season/kicks/kicks-0.parquet", (kicks / "kicks-1.parquet").read_bytes())
    code, _, err = batch("s3://season/kicks", "--output", "s3://season/answers")
    assert (code, "s3://season/kicks/kicks-0.parquet has changed" in err) == (2, True)
    code, summary, _ = batch("s3://season/kicks", "--output", "s3://season/answers", "--restart")
    assert (code, summary["taken_up"], summary["sent"]) == (0, 0, 1_400)
    s3.invalidate_cache()
    assert len(answers("season/answers", filesystem=s3)) == 1_400
    assert "can't be used" in batch("s3://nobodys-bucket/kicks", "--output", "answers2")[2]


@pytest.fixture
def run(cluster):
    """Do work on the cluster, on partitions with these numbers."""

    def run(work, partitions, file=None):
        model = (file or fetch_model("default", ()), None)
        return work_through(work, partitions, EngineConfig(DASK, scheduler=cluster, retries=0), model, print)

    return run


@pytest.fixture
def sent():
    """Have the functions of this module sent to workers, which can't import tests."""
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    yield
    cloudpickle.unregister_pickle_by_value(module)


def numbered(count):
    return [Partition(number, "nowhere", None, 0, number, 1) for number in range(count)]


def dies_once(folder, partition, model):
    mark = os.path.join(folder, "died")  # noqa: PTH118  it goes to a worker, with no imports of this module
    if partition.number == 2 and not os.path.exists(mark):  # noqa: PTH110
        with open(mark, "w"):  # noqa: PTH123
            os.kill(os.getpid(), signal.SIGKILL)
    return partition.number, model.card.name


@pytest.mark.usefixtures("sent")
def test_a_worker_that_dies_is_replaced_and_its_partitions_are_done(run, tmp_path):
    results = [*run(partial(dies_once, str(tmp_path)), iter(numbered(20)))]
    assert (tmp_path / "died").exists()
    assert sorted(each.value for each in results) == [(number, "simulated") for number in range(20)]


@pytest.mark.usefixtures("sent")
def test_only_few_partitions_are_under_way_at_once(run):
    taken = 0

    def partitions():
        nonlocal taken
        for each in numbered(100):
            taken += 1
            yield each

    for done, _ in enumerate(run(quick, partitions()), 1):
        assert taken - done < 10
    assert done == 100


def quick(partition, _):
    return partition.number


def test_a_scheduler_that_is_not_there_is_said_to_be_away(batch, tmp_path, monkeypatch):
    monkeypatch.setattr("kickserve_data.dask_engine._PATIENCE", 0.3)
    kicks = folder_of(tmp_path / "kicks", [10])
    code, _, err = batch(kicks, "--output", "a", "--engine", "dask", "--scheduler", "tcp://127.0.0.1:1")
    assert (code, "tcp://127.0.0.1:1 does not answer" in err) == (ServiceAway.exit_code, True)


def test_a_model_that_workers_can_not_load_is_said_to_be_so(run):
    file = ModelFile(b"no model", ".json", Origin("a file", "a"))
    with pytest.raises(ConfigurationError, match="a worker can't load the model"):
        next(run(quick, numbered(1), file))
