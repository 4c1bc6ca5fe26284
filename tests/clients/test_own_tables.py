"""Other engines work on a table that Icecore itself writes, while it writes it: everybody's rows are counted right."""
import json
import threading
from datetime import datetime, timezone

import pyarrow
import pytest
from engines import DuckDB, PyIceberg, Spark
from icecore import Client, Sent, send_until_taken
from pyiceberg.exceptions import CommitFailedException, RESTError, ValidationException
from pyiceberg.transforms import BucketTransform
from pyiceberg.types import IntegerType, LongType, StringType
from server import Server

NAMESPACE = "shop"
BATCHES, BATCH = 60, 200
SOME_BATCHES = BATCHES // 4
TYPES = ["order.placed", "order.paid", "call"]
FOREIGN = 40
RETRIES = 30


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    # A snapshot every second, so that others meet ours and still have time to win.
    server = Server(tmp_path_factory.mktemp("icecore"), environment={"ICECORE_COMMIT_INTERVAL": "1s"})
    yield server.start()
    server.stop()


def event(number: int) -> str:
    return f'{{"id":"own-{number}","type":"{TYPES[number % 3]}","ts":"{datetime.now(timezone.utc).isoformat()}","data":{{"n":{number}}}}}'


class Ingest(threading.Thread):
    """Sends batches one after the other until told to stop, and at least `BATCHES`."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self.client, self.taken, self.enough, self.failure = Client(url), 0, threading.Event(), None
        self.some = threading.Event()

    def run(self):
        try:
            batch = 0
            while batch < BATCHES or not self.enough.is_set():
                lines = [event(number) for number in range(batch * BATCH, (batch + 1) * BATCH)]
                send_until_taken(self.client, lines, Sent(), NAMESPACE)
                batch += 1
                self.taken = batch * BATCH
                if batch == SOME_BATCHES:
                    self.some.set()
                self.enough.wait(0.02)
        except Exception as failure:  # noqa: BLE001 - shown by the test
            self.failure = failure
            self.some.set()


def again(attempt, lost):
    """Until the race is won: our commits come several times a second."""
    for left in reversed(range(RETRIES)):
        try:
            return attempt()
        except Exception as error:
            if not left or not lost(error):
                raise


def foreign_rows(table, prefix: str, count: int) -> pyarrow.Table:
    schema = table.schema().as_arrow()
    now = datetime.now(timezone.utc)
    filled = {"id": lambda n: f"{prefix}-{n}", "type": lambda n: TYPES[n % 3], "ts": lambda n: now, "ns": lambda n: NAMESPACE,
              "seq": lambda n: 10**12 + n, "ingested_at": lambda n: now}
    columns = [pyarrow.array([filled.get(field.name, lambda n: None)(n) for n in range(count)], field.type) for field in schema]
    return pyarrow.table(columns, schema=schema)


def test_foreign_writes_and_our_own_meet_in_one_table(server, spark_session):
    ingest = Ingest(server.url)
    ingest.start()
    assert ingest.some.wait(60) and not ingest.failure, ingest.failure
    lake, spark = PyIceberg(server.url + "/catalog"), Spark(spark_session, server.url + "/catalog")
    server.client().commit(NAMESPACE)
    events = spark.table(NAMESPACE, "events")
    lost = lambda error: isinstance(error, (CommitFailedException, ValidationException))  # noqa: E731
    spark_lost = lambda error: any(word in str(error) for word in ("CommitFailed", "Cannot commit", "conflicting", "changed"))  # noqa: E731

    # PyIceberg adds a column and rows, and deletes one of its rows and two of ours.
    again(lambda: lake.load(NAMESPACE, "events").update_schema().add_column("note", StringType()).commit(), lost)
    again(lambda: (table := lake.load(NAMESPACE, "events")).append(foreign_rows(table, "py", FOREIGN)), lost)
    again(lambda: lake.load(NAMESPACE, "events").delete("id in ('py-1', 'own-1', 'own-2')"), lost)
    # Spark deletes by marking rows, and rewrites files while ours arrive.
    again(lambda: spark.rows(f"ALTER TABLE {events} SET TBLPROPERTIES ('write.delete.mode'='merge-on-read','write.delete.isolation-level'='snapshot')"), spark_lost)
    again(lambda: spark.rows(f"DELETE FROM {events} WHERE id IN ('py-2', 'own-4', 'own-5', 'own-6')"), spark_lost)
    snapshot = lake.load(NAMESPACE, "events").current_snapshot()
    again(lambda: spark.rows(f"CALL `{spark.catalog}`.system.rewrite_data_files(table => '{NAMESPACE}.events', "
                             "options => map('min-input-files','2','partial-progress.enabled','false'))"), spark_lost)
    again(lambda: spark.rows(f"DELETE FROM {events} WHERE id IN ('py-3', 'own-7', 'own-20')"), spark_lost)
    assert lake.load(NAMESPACE, "events").current_snapshot().snapshot_id != snapshot.snapshot_id
    ingest.enough.set()
    ingest.join(120)
    assert not ingest.failure, ingest.failure
    server.client().commit(NAMESPACE)

    gone = {"py-1", "own-1", "own-2", "py-2", "own-4", "own-5", "own-6", "py-3", "own-7", "own-20"}
    expected = {f"own-{n}" for n in range(ingest.taken)} | {f"py-{n}" for n in range(FOREIGN)}
    expected -= gone
    operations = [snapshot.summary.operation.value for snapshot in lake.load(NAMESPACE, "events").snapshots()]
    assert {"append", "replace"} <= set(operations) and {"delete", "overwrite"} & set(operations), operations
    duck = DuckDB(server.url + "/catalog")
    readers = {
        "sql": lambda: [row[0] for row in server.client().sql(NAMESPACE, "SELECT id FROM events")],
        "duckdb": lambda: duck.ids(NAMESPACE, "events"),
        "pyiceberg": lambda: lake.ids(NAMESPACE, "events"),
        "spark": lambda: spark.ids(NAMESPACE, "events"),
    }
    for name, ids in readers.items():
        found = ids()
        assert len(found) == len(set(found)) == len(expected), (name, len(found), len(expected))
        assert set(found) == expected, name
    assert server.client().sql(NAMESPACE, "SELECT count(*) FROM events WHERE id = 'own-7'") == [(0,)]


def test_files_that_spark_writes_anew_are_no_larger(server, spark_session):
    """Its library would put a megabyte of bloom filter for each column into each file, if the table asked for them."""
    client = server.client()
    for start in range(0, 4_000, 200):
        send_until_taken(client, [event(number) for number in range(start, start + 200)], Sent(), "sizes")
        client.commit("sizes")
    stats = lambda: json.loads(client.request("GET", "/v1/sizes/tables/events/stats")[2])  # noqa: E731
    ours, spark = stats(), Spark(spark_session, server.url + "/catalog")
    spark.rows(f"CALL `{spark.catalog}`.system.rewrite_data_files(table => 'sizes.events', options => map('min-input-files','2'))")
    theirs = stats()
    assert theirs["data_files"] < ours["data_files"] and theirs["data_rows"] == ours["data_rows"] == 4_000, theirs
    assert theirs["data_bytes"] < ours["data_bytes"], (ours, theirs)
    assert client.sql("sizes", "SELECT seq FROM events WHERE id = 'own-7'") == [(8,)]


def test_what_would_break_ingest_is_refused_with_a_reason(server, spark_session):
    lake, spark = PyIceberg(server.url + "/catalog"), Spark(spark_session, server.url + "/catalog")
    load = lambda: lake.load(NAMESPACE, "events")  # noqa: E731

    def replace_spec():
        with load().update_spec() as update:
            update.remove_field("type")

    def bucket():
        with load().update_spec() as update:
            update.add_field("id", BucketTransform(4), "by_id")

    refused = {
        "drop a column": lambda: load().update_schema(allow_incompatible_changes=True).delete_column("ns").commit(),
        "rename a column": lambda: load().update_schema().rename_column("id", "other").commit(),
        "drop an optional column": lambda: load().update_schema().delete_column("data").commit(),
        "rename an optional column": lambda: load().update_schema().rename_column("data", "body").commit(),
        "widen a column": lambda: load().update_schema().update_column("retries", LongType()).commit(),
        "make a column optional": lambda: load().update_schema().make_column_optional("ts").commit(),
        "remove a partition field": replace_spec,
        "add a partition field": bucket,
        "remove the mark": lambda: again_commit(load(), lambda change: change.remove_properties("icecore.managed")),
    }
    for what, attempt in refused.items():
        with pytest.raises(Exception) as caught:
            attempt()
        assert "written by this server" in str(caught.value), (what, caught.value)
    for what, attempt in {"dropped": lambda: lake.catalog.drop_table((NAMESPACE, "events")),
                          "renamed": lambda: lake.catalog.rename_table((NAMESPACE, "events"), (NAMESPACE, "mine"))}.items():
        with pytest.raises(RESTError) as caught:
            attempt()
        assert what in str(caught.value)
    lake.catalog.create_namespace_if_not_exists("theirs")
    # A table of the same name elsewhere is nobody's business but its owner's.
    lake.catalog.create_table(("theirs", "events"), load().schema())
    assert lake.load("theirs", "events").scan().count() == 0
    with pytest.raises(RESTError) as caught:
        lake.catalog.update_namespace_properties("theirs", updates={"icecore.ns": NAMESPACE})
    assert "icecore.ns" in str(caught.value)
    with pytest.raises(Exception) as caught:
        spark.rows(f"ALTER TABLE {spark.table(NAMESPACE, 'events')} DROP COLUMN type")
    assert "type" in str(caught.value)
    # A column of another engine may come and go.
    load().update_schema().add_column("guest", IntegerType()).commit()
    load().update_schema().delete_column("guest").commit()
    before = server.client().sql(NAMESPACE, "SELECT count(*) FROM events")[0][0]
    send_until_taken(server.client(), ['{"id":"last","type":"call"}'], Sent(), NAMESPACE)
    server.client().commit(NAMESPACE)
    assert server.client().sql(NAMESPACE, "SELECT count(*) FROM events") == [(before + 1,)]
    assert len(lake.ids(NAMESPACE, "events")) == before + 1


def again_commit(table, change):
    with table.transaction() as transaction:
        change(transaction)
