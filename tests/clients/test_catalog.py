"""Other engines make tables of their own in the catalog, write them at the same time, and read one another's."""
import time
from datetime import datetime, timedelta, timezone

import duckdb
import pyarrow
import pytest
from engines import DuckDB, PyIceberg, Spark
from icecore import in_parallel
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import DayTransform, IdentityTransform
from pyiceberg.types import LongType, NestedField, StringType, TimestamptzType

NAMESPACE = "workshop"
ROWS, WORKERS, APPENDS, APPEND_ROWS = 1000, 4, 5, 10
TOTAL = ROWS + WORKERS * APPENDS * APPEND_ROWS
START = datetime(2026, 5, 1, 22, tzinfo=timezone.utc)
TYPES = ["created", "updated", "deleted"]
ARROW = pyarrow.schema([("id", pyarrow.string()), ("type", pyarrow.string()), ("ts", pyarrow.timestamp("us", "UTC")), ("n", pyarrow.int64())])
RETRIES = 50


def rows(prefix: str, count: int) -> list[dict]:
    """Rows of three types over several days."""
    return [{"id": f"{prefix}-{n}", "type": TYPES[n % 3], "ts": START + timedelta(minutes=7 * n), "n": n} for n in range(count)]


def values(batch: list[dict], timestamp: str) -> str:
    """The rows as a SQL VALUES list."""
    return ",".join(f"('{row['id']}','{row['type']}',{timestamp} '{row['ts']:%Y-%m-%d %H:%M:%S}{'+00' if timestamp == 'TIMESTAMPTZ' else ''}',{row['n']})" for row in batch)


class DuckDBWriter(DuckDB):
    def create(self, table):
        self.rows(f'CREATE SCHEMA IF NOT EXISTS lake."{NAMESPACE}"')
        self.rows(f"CREATE TABLE {self.table(NAMESPACE, table)} (id VARCHAR, type VARCHAR, ts TIMESTAMPTZ, n BIGINT) PARTITIONED BY (type, day(ts))")

    def create_with_rows(self, table, batch):
        """In one transaction, so the table is staged and appears with its rows."""
        columns = "id VARCHAR, type VARCHAR, ts TIMESTAMPTZ, n BIGINT"
        self.rows("BEGIN")
        self.rows(f"CREATE TABLE {self.table(NAMESPACE, table)} ({columns})")
        self.append(table, batch)
        self.rows("COMMIT")

    def append(self, table, batch):
        self.rows(f"INSERT INTO {self.table(NAMESPACE, table)} VALUES {values(batch, 'TIMESTAMPTZ')}")

    def appender(self, table):
        """DuckDB leaves a lost race to its user."""
        own = DuckDBWriter(self.uri)

        def append(batch):
            retry(lambda: own.append(table, batch), lambda error: isinstance(error, duckdb.Error) and "onflict" in str(error))

        return append

    def count(self, table):
        return self.rows(f"SELECT count(*) FROM {self.table(NAMESPACE, table)}")[0][0]

    def drop(self, table):
        self.rows(f"DROP TABLE {self.table(NAMESPACE, table)}")


class PyIcebergWriter(PyIceberg):
    SCHEMA = Schema(NestedField(1, "id", StringType()), NestedField(2, "type", StringType()), NestedField(3, "ts", TimestamptzType()), NestedField(4, "n", LongType()))
    SPEC = PartitionSpec(PartitionField(2, 1000, IdentityTransform(), "type"), PartitionField(3, 1001, DayTransform(), "dt"))

    def create(self, table):
        self.catalog.create_namespace_if_not_exists(NAMESPACE)
        self.catalog.create_table((NAMESPACE, table), self.SCHEMA, partition_spec=self.SPEC)

    def create_with_rows(self, table, batch):
        with self.catalog.create_table_transaction((NAMESPACE, table), self.SCHEMA) as transaction:
            transaction.append(pyarrow.Table.from_pylist(batch, ARROW))

    def append(self, table, batch):
        self.load(NAMESPACE, table).append(pyarrow.Table.from_pylist(batch, ARROW))

    def appender(self, table):
        own = PyIcebergWriter(self.uri)
        return lambda batch: retry(lambda: own.append(table, batch), lambda error: isinstance(error, CommitFailedException))

    def count(self, table):
        return self.load(NAMESPACE, table).scan().count()

    def rename(self, table, new):
        self.catalog.rename_table((NAMESPACE, table), (NAMESPACE, new))

    def drop(self, table):
        self.catalog.drop_table((NAMESPACE, table))


class SparkWriter(Spark):
    def create(self, table):
        self.rows(f"CREATE NAMESPACE IF NOT EXISTS `{self.catalog}`.`{NAMESPACE}`")
        self.rows(f"CREATE TABLE {self.table(NAMESPACE, table)} (id STRING, type STRING, ts TIMESTAMP, n BIGINT) USING iceberg PARTITIONED BY (type, days(ts)) TBLPROPERTIES ('commit.retry.num-retries' = '{RETRIES}')")

    def create_with_rows(self, table, batch):
        self.rows(f"CREATE TABLE {self.table(NAMESPACE, table)} USING iceberg AS SELECT * FROM VALUES {values(batch, 'TIMESTAMP')} AS t (id, type, ts, n)")

    def append(self, table, batch):
        self.rows(f"INSERT INTO {self.table(NAMESPACE, table)} VALUES {values(batch, 'TIMESTAMP')}")

    def appender(self, table):
        """Spark retries a lost race itself."""
        return lambda batch: self.append(table, batch)

    def count(self, table):
        return self.rows(f"SELECT count(*) FROM {self.table(NAMESPACE, table)}")[0][0]

    def rename(self, table, new):
        # The new name is one inside the catalog.
        self.rows(f"ALTER TABLE {self.table(NAMESPACE, table)} RENAME TO `{NAMESPACE}`.`{new}`")

    def drop(self, table):
        self.rows(f"DROP TABLE {self.table(NAMESPACE, table)}")


def retry(step, is_lost_race):
    for attempt in range(RETRIES):
        try:
            return step()
        except Exception as error:
            if not is_lost_race(error) or attempt == RETRIES - 1:
                raise
            time.sleep(0.02 * (1 + attempt % 10))


@pytest.fixture(scope="module")
def engines(catalog_uri, spark_session):
    engines = {"duckdb": DuckDBWriter(catalog_uri), "pyiceberg": PyIcebergWriter(catalog_uri), "spark": SparkWriter(spark_session, catalog_uri)}
    engines["pyiceberg"].catalog.create_namespace_if_not_exists(NAMESPACE)
    return engines


@pytest.mark.parametrize("name", ["duckdb", "pyiceberg", "spark"])
def test_concurrent_appends_of_one_engine_all_land_once(engines, name):
    engine, table = engines[name], f"{name}_appended"
    engine.create(table)
    engine.append(table, rows("first", ROWS))

    def worker(number):
        append = engine.appender(table)
        for turn in range(APPENDS):
            append(rows(f"worker-{number}-{turn}", APPEND_ROWS))

    in_parallel([lambda number=number: worker(number) for number in range(WORKERS)])
    ids = engine.ids(NAMESPACE, table)
    assert (len(ids), len(set(ids))) == (TOTAL, TOTAL)
    for other in engines.values():
        assert other.count(table) == TOTAL, other.name


@pytest.mark.parametrize("name", ["duckdb", "pyiceberg", "spark"])
def test_a_staged_table_appears_with_its_rows(engines, name):
    table = f"{name}_staged"
    engines[name].create_with_rows(table, rows("staged", ROWS))
    for other in engines.values():
        assert other.count(table) == ROWS, other.name


def test_appends_of_different_engines_at_the_same_time_all_land_once(engines):
    engines["pyiceberg"].create("mixed")

    def worker(engine):
        append = engine.appender("mixed")
        for turn in range(APPENDS):
            append(rows(f"{engine.name}-{turn}", APPEND_ROWS))

    in_parallel([lambda engine=engine: worker(engine) for engine in engines.values()])
    ids = engines["duckdb"].ids(NAMESPACE, "mixed")
    assert len(ids) == len(set(ids)) == len(engines) * APPENDS * APPEND_ROWS


@pytest.mark.parametrize("name", ["pyiceberg", "spark"])
def test_a_renamed_table_is_found_by_its_new_name_only(engines, name):
    engines[name].create(f"{name}_old")
    engines[name].append(f"{name}_old", rows("kept", 3))
    engines[name].rename(f"{name}_old", f"{name}_new")
    for other in engines.values():
        assert other.count(f"{name}_new") == 3, other.name
    with pytest.raises(NoSuchTableError):
        engines["pyiceberg"].load(NAMESPACE, f"{name}_old")


@pytest.mark.parametrize("name", ["duckdb", "pyiceberg", "spark"])
def test_a_dropped_table_is_gone_and_its_name_is_free(engines, name):
    engine, table = engines[name], f"{name}_dropped"
    engine.create(table)
    engine.append(table, rows("gone", 3))
    engine.drop(table)
    assert (NAMESPACE, table) not in engines["pyiceberg"].catalog.list_tables(NAMESPACE)
    engine.create(table)
    assert engines["pyiceberg"].count(table) == 0


def test_a_time_travel_to_every_snapshot_shows_what_was_there(engines):
    engines["spark"].create("travelled")
    for turn in range(3):
        engines["spark"].append("travelled", rows(f"turn-{turn}", 10))
    table = engines["pyiceberg"].load(NAMESPACE, "travelled")
    for turn, entry in enumerate(table.history(), 1):
        duck = engines["duckdb"].table(NAMESPACE, "travelled")
        spark = engines["spark"].table(NAMESPACE, "travelled")
        assert table.scan(snapshot_id=entry.snapshot_id).count() == 10 * turn
        assert engines["duckdb"].rows(f"SELECT count(*) FROM {duck} AT (VERSION => {entry.snapshot_id})") == [(10 * turn,)]
        assert engines["spark"].rows(f"SELECT count(*) FROM {spark} VERSION AS OF {entry.snapshot_id}") == [(10 * turn,)]
