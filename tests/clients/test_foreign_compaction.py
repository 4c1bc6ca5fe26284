"""Tables that other engines made are merged where somebody names them: every engine reads the rows that were there, now and then."""
import json
import threading
from datetime import date, datetime, timezone
from decimal import Decimal

import pyarrow
import pytest
from engines import DuckDB, PyIceberg, Spark
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import BucketTransform, DayTransform
from pyiceberg.types import DateType, DecimalType, DoubleType, ListType, LongType, MapType, NestedField, StringType, StructType, TimestamptzType
from server import Server
from test_spark_maintenance import again

NAMESPACE = "theirs"
# What Spark says where a run by hand, which waits for nobody, merged files that it read.
LOST = ("CommitFailed", "Cannot commit", "conflicting", "changed", "stale", "Missing required files", "missing data files", "concurrently modified")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The job would be faster than a test now and then, and does nothing on a disk that is nearly full."""
    server = Server(tmp_path_factory.mktemp("icecore"), ["--set", "compaction.enabled=off", "--set", "wal.disk_free_min=0.001"])
    yield server.start()
    server.stop()


@pytest.fixture(scope="module")
def lake(server):
    lake = PyIceberg(server.url + "/catalog")
    lake.catalog.create_namespace_if_not_exists(NAMESPACE)
    return lake


@pytest.fixture(scope="module")
def spark(lake, spark_session):
    return Spark(spark_session, lake.uri)


def compact(server, table: str, namespace=NAMESPACE) -> dict:
    path = f"/admin/jobs/compact?namespace={namespace}&table={table}"
    status, _, raw = server.client().request("POST", path, b"", {"content-type": "application/json"})
    assert status == 200, raw
    return json.loads(raw)


def files(lake, table: str) -> int:
    return lake.load(NAMESPACE, table).inspect.data_files().num_rows


def rows_of(lake, spark, table: str, columns: str, engines=("spark", "duckdb", "pyiceberg")) -> dict:
    """By engine the rows as text, in order. DuckDB and Spark have their own words for what is nested."""
    duck = DuckDB(lake.uri)
    names = [name.strip() for name in columns.split(",")]
    read = {
        "spark": lambda: spark.rows(f"SELECT {columns} FROM {spark.table(NAMESPACE, table)}"),
        "duckdb": lambda: duck.rows(f"SELECT {columns} FROM {duck.table(NAMESPACE, table)}"),
        "pyiceberg": lambda: [tuple(row[name] for name in names) for row in lake.load(NAMESPACE, table).scan().to_arrow().to_pylist()],
    }
    return {engine: sorted(map(str, read[engine]())) for engine in engines}


def check(server, lake, spark, table: str, columns: str, engines=("spark", "duckdb", "pyiceberg")) -> dict:
    """Merges the table: it has fewer files, and the rows of now and of the snapshot before are what they were."""
    before, count, read = rows_of(lake, spark, table, columns, engines), files(lake, table), lake.load(NAMESPACE, table).current_snapshot().snapshot_id
    report = compact(server, table)
    assert report["tables"] == 1 and report["files"]["after"] < report["files"]["before"], report
    assert files(lake, table) < count
    assert rows_of(lake, spark, table, columns, engines) == before
    then = spark.rows(f"SELECT {columns} FROM {spark.table(NAMESPACE, table)} VERSION AS OF {read}")
    assert sorted(map(str, then)) == before["spark"]
    head = lake.load(NAMESPACE, table).current_snapshot()
    assert head.summary.operation.value == "replace" and head.snapshot_id != read
    return report


def test_a_table_of_pyiceberg_with_nested_columns_an_evolved_spec_and_new_names(server, lake, spark):
    schema = Schema(
        NestedField(1, "id", LongType(), required=True),
        NestedField(2, "at", TimestamptzType()),
        NestedField(3, "price", DecimalType(12, 2)),
        NestedField(4, "place", StructType(NestedField(5, "city", StringType()), NestedField(6, "floor", LongType()))),
        NestedField(7, "tags", ListType(8, StringType(), element_required=False)),
        NestedField(9, "numbers", MapType(10, StringType(), 11, DoubleType(), value_required=False)),
        NestedField(12, "born", DateType()),
    )
    spec = PartitionSpec(PartitionField(2, 1000, DayTransform(), "day"))
    table = lake.catalog.create_table((NAMESPACE, "nested"), schema, partition_spec=spec)

    def add(first: int) -> None:
        loaded = lake.load(NAMESPACE, "nested")
        rows = [
            {
                "id": n, "at": datetime(2026, 3, 1 + n % 2, 5, n % 60, tzinfo=timezone.utc), "price": Decimal(n) / 4, "cost": Decimal(n) / 4, "born": date(2000, 1, 1 + n % 28),
                "place": None if n % 5 == 0 else {"city": f"c{n}", "floor": n}, "tags": [f"t{n}", None] if n % 3 else [],
                "numbers": [("half", n / 2)] if n % 4 else None,
            } for n in range(first, first + 10)
        ]
        names = {field.name for field in loaded.schema().fields}
        rows = [{name: value for name, value in row.items() if name in names} for row in rows]
        loaded.append(pyarrow.Table.from_pylist(rows, schema=loaded.schema().as_arrow()))

    for first in (0, 10, 20):
        add(first)
    with table.update_schema() as update:
        update.rename_column("price", "cost")
        update.add_column(("place", "street"), StringType())
    with lake.load(NAMESPACE, "nested").update_spec() as update:
        update.add_field("id", BucketTransform(2), "bucket")
    for first in (30, 40, 50):
        add(first)
    check(server, lake, spark, "nested", "id, at, cost, place, tags, numbers, born", ["spark", "pyiceberg"])
    specs = lake.load(NAMESPACE, "nested").inspect.files()["spec_id"].to_pylist()
    assert set(specs) == {0, 1}, specs
    # The rows of a day and bucket are still found by them.
    assert lake.load(NAMESPACE, "nested").scan(row_filter="id = 42").to_arrow().num_rows == 1
    assert lake.load(NAMESPACE, "nested").scan(row_filter="at < '2026-03-02T00:00:00+00:00'").to_arrow().num_rows == 30


def test_a_table_of_duckdb(server, lake, spark):
    duck = DuckDB(lake.uri)
    table = duck.table(NAMESPACE, "plain")
    duck.rows(f"CREATE TABLE {table} (id BIGINT, name VARCHAR, score DOUBLE, ok BOOLEAN)")
    for first in range(0, 60, 10):
        duck.rows(f"INSERT INTO {table} SELECT n, 'n' || n, n / 4, n % 2 = 0 FROM range({first}, {first + 10}) AS numbers(n)")
    duck.rows(f"DELETE FROM {table} WHERE id % 7 = 3")
    check(server, lake, spark, "plain", "id, name, score, ok")


def test_a_table_of_spark_with_deletes_that_are_merged_on_read(server, lake, spark):
    table = spark.table(NAMESPACE, "people")
    spark.rows(f"CREATE TABLE {table} (id INT, name STRING, city STRING) USING iceberg PARTITIONED BY (city) TBLPROPERTIES "
               "('format-version' = '2', 'write.delete.mode' = 'merge-on-read', 'write.merge.mode' = 'merge-on-read', "
               "'write.parquet.compression-codec' = 'snappy')")
    for first in range(0, 50, 10):
        spark.rows(f"INSERT INTO {table} SELECT CAST(id AS INT), CONCAT('n', id), IF(id % 2 = 0, 'x', 'y') FROM RANGE({first}, {first + 10})")
    spark.rows(f"DELETE FROM {table} WHERE id % 9 = 4")
    spark.rows(f"ALTER TABLE {table} RENAME COLUMN name TO title")
    spark.rows(f"ALTER TABLE {table} ALTER COLUMN id TYPE BIGINT")
    # The snapshot that is read later has the names of today.
    spark.rows(f"INSERT INTO {table} VALUES (1000, 'last', 'x')")
    check(server, lake, spark, "people", "id, title, city")
    # A MERGE of rows that were merged, and what it leaves is merged again.
    source = "SELECT CAST(id AS BIGINT) AS id, 'new' AS title, 'x' AS city FROM RANGE(0, 100, 10)"
    spark.rows(f"MERGE INTO {table} t USING ({source}) s ON t.id = s.id AND t.city = s.city "
               "WHEN MATCHED THEN UPDATE SET title = s.title WHEN NOT MATCHED THEN INSERT *")
    assert len(spark.rows(f"SELECT id FROM {table} WHERE title = 'new'")) == 10
    check(server, lake, spark, "people", "id, title, city")


def test_a_merge_of_spark_beside_compaction_loses_nothing(server, lake, spark):
    table = spark.table(NAMESPACE, "busy")
    spark.rows(f"CREATE TABLE {table} (id INT, title STRING) USING iceberg TBLPROPERTIES ('write.merge.mode' = 'merge-on-read')")
    wanted = {}
    for first in range(0, 40, 10):
        spark.rows(f"INSERT INTO {table} SELECT CAST(id AS INT), 'old' FROM RANGE({first}, {first + 10})")
        wanted |= {n: "old" for n in range(first, first + 10)}
    over, merged, failures = threading.Event(), [], []

    def maintain() -> None:
        # Spark has to win in between.
        while not over.wait(2):
            try:
                merged.append(compact(server, "busy")["files"]["before"])
            except Exception as failure:  # noqa: BLE001 - raised at the end
                failures.append(failure)

    thread = threading.Thread(target=maintain, daemon=True)
    thread.start()
    try:
        for step in (3, 4, 7):
            source = f"SELECT CAST(id AS INT) AS id, 'by {step}' AS title FROM RANGE(0, 50, {step})"
            again(lambda: spark.rows(f"MERGE INTO {table} t USING ({source}) s ON t.id = s.id "  # noqa: B023 - called at once
                                     "WHEN MATCHED THEN UPDATE SET title = s.title WHEN NOT MATCHED THEN INSERT *"), LOST)
            wanted |= {n: f"by {step}" for n in range(0, 50, step)}
    finally:
        over.set()
        thread.join()
    assert not failures, failures
    merged.append(compact(server, "busy")["files"]["before"])
    assert sum(merged) > 0
    read = rows_of(lake, spark, "busy", "id, title")
    assert all(rows == sorted(map(str, wanted.items())) for rows in read.values()), read


def test_a_table_is_left_alone_unless_it_is_named_or_asks_for_it(server, lake):
    schema = Schema(NestedField(1, "id", LongType()))
    table = lake.catalog.create_table((NAMESPACE, "quiet"), schema)
    for n in range(4):
        table.append(pyarrow.table({"id": pyarrow.array([n], pyarrow.int64())}))
    path = f"/admin/jobs/compact?namespace={NAMESPACE}"
    post = lambda: json.loads(server.client().request("POST", path, b"", {"content-type": "application/json"})[2])  # noqa: E731
    reasons = [it["reason"] for it in post()["skipped"] if it["table"] == f"{NAMESPACE}.quiet"]
    assert any("not a table of the service" in reason for reason in reasons), reasons
    assert files(lake, "quiet") == 4
    with table.transaction() as change:
        change.set_properties({"icecore.compaction": "on"})
    post()
    assert files(lake, "quiet") == 1
    assert sorted(lake.load(NAMESPACE, "quiet").scan().to_arrow()["id"].to_pylist()) == [0, 1, 2, 3]


def test_a_late_delete_of_a_client_is_kept(server, lake, spark):
    """A client that read before the files were merged deletes from them: the merge of these is taken back."""
    duck = DuckDB(lake.uri)
    table = duck.table(NAMESPACE, "late")
    duck.rows(f"CREATE TABLE {table} (id BIGINT)")
    for n in range(5):
        duck.rows(f"INSERT INTO {table} VALUES ({n}), ({n + 10})")
    duck.rows("BEGIN")
    duck.rows(f"DELETE FROM {table} WHERE id = 3")
    assert compact(server, "late")["files"]["after"] == 1
    duck.rows("COMMIT")
    read = rows_of(lake, spark, "late", "id")
    assert {engine: len(rows) for engine, rows in read.items()} == {"spark": 9, "duckdb": 9, "pyiceberg": 9}
