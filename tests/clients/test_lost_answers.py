"""A commit is made and its answer is lost on the way: the table stays readable, and holds the rows once."""
import threading

import polars
import pyarrow
import pytest
from engines import ClickHouse, DuckDB, PyIceberg
from proxy import Proxy, is_commit
from test_catalog import ARROW, NAMESPACE, DuckDBWriter, PyIcebergWriter, SparkWriter, rows

WAYS = ["drop", 503, 504]


class LossyProxy(Proxy):
    """Passes everything on; the answer to the next commit that succeeded is lost in the given way."""

    def __init__(self, server_url: str):
        self.way, self.lost, self.lock = None, 0, threading.Lock()
        super().__init__(server_url)

    def lose_next(self, way) -> None:
        with self.lock:
            self.way, self.lost = way, 0

    def take(self, method: str, path: str, status: int):
        """How to lose the answer to this request, if it is to be lost."""
        with self.lock:
            if not is_commit(method, path) or 300 <= status or self.way is None:
                return None
            way, self.way, self.lost = self.way, None, self.lost + 1
            return way

    def answer(self, method, path, body, forward):
        answer = forward()
        way = self.take(method, path, answer[0])
        if way == "drop":
            return None
        return answer if way is None else (way, [], b"")


@pytest.fixture(scope="module")
def proxy(server):
    proxy = LossyProxy(server.url)
    yield proxy
    proxy.close()


class PolarsWriter(PyIcebergWriter):
    """Polars writes a frame with PyIceberg."""

    name = "polars"

    def append(self, table, batch):
        polars.from_arrow(pyarrow.Table.from_pylist(batch, ARROW)).write_iceberg(self.load(NAMESPACE, table), mode="append")


class PolarsSinkWriter(PyIcebergWriter):
    """Its sink writes the files itself, commits them with PyIceberg's catalog, and looks for a commit that failed."""

    name = "polars_sink"

    def append(self, table, batch):
        polars.from_arrow(pyarrow.Table.from_pylist(batch, ARROW)).lazy().sink_iceberg(self.load(NAMESPACE, table), mode="append")


class ClickHouseWriter(ClickHouse):
    """Told of a failure it deletes the manifest list that it wrote."""

    def append(self, table, batch):
        values = ",".join(f"('{row['id']}','{row['type']}',toDateTime64('{row['ts']:%Y-%m-%d %H:%M:%S}',6,'UTC'),{row['n']})" for row in batch)
        self.session.query(f"INSERT INTO {self.table(NAMESPACE, table)} (id, type, ts, n) VALUES {values}")


ENGINES = [PyIcebergWriter, DuckDBWriter, PolarsWriter, PolarsSinkWriter, SparkWriter, ClickHouseWriter]


@pytest.fixture(params=ENGINES, ids=lambda engine: engine.name)
def engine(request, monkeypatch):
    """Makes a writer for a catalog."""
    writer = request.param
    if writer is SparkWriter:
        session = request.getfixturevalue("spark_session")
        return lambda uri: writer(session, uri)
    if writer is ClickHouseWriter:
        session = request.getfixturevalue("clickhouse_session")
        # It opens local files below the current folder only.
        monkeypatch.chdir("/")
        return lambda uri: writer(session, uri)
    return writer


@pytest.mark.parametrize("way", WAYS)
def test_a_lost_answer_leaves_the_rows_there_once(engine, way, proxy, server):
    direct, writer = engine(server.url + "/catalog"), engine(proxy.url + "/catalog")
    table = f"lost_{writer.name}_{way}"
    PyIcebergWriter(server.url + "/catalog").create(table)
    writer.append(table, rows("before", 5))
    proxy.lose_next(way)
    try:
        writer.append(table, rows("lost", 10))
        print(f"{writer.name}, {way}: done")
    except Exception as error:  # Each client has its own error for a lost answer; some send the commit again and have none.
        print(f"{writer.name}, {way}: {type(error).__name__}: {str(error)[:200]}")
    assert proxy.lost == 1, "the answer of the commit was lost"
    # What the client did next, deleting files included, must not have hurt.
    readers = [PyIceberg(server.url + "/catalog"), DuckDB(server.url + "/catalog"), direct]
    for reader in readers:
        ids = reader.ids(NAMESPACE, table)
        assert len(ids) == len(set(ids)) == 15, f"{reader.name} reads {len(ids)} rows"
    direct.append(table, rows("after", 5))
    for reader in readers:
        ids = reader.ids(NAMESPACE, table)
        assert len(ids) == len(set(ids)) == 20, f"{reader.name} reads {len(ids)} rows"
