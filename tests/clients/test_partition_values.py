"""Whatever value a partition has, each engine writes the table and every other reads it."""
import pyarrow as pa
import pytest
from engines import DuckDB, PyIceberg, Spark
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import LongType, NestedField, StringType
from server import Server

VALUES = [
    "plain", "", "/", "//", "a/", "/a", "a//b", "a/b/c", "https://example.com", "https://example.com/?q=1#top", "C:\\logs", "a\\b",
    "\\", "tab\there", "line\nend", "cr\rlf", "./", "../", ".", "..", "...", "../x", "a/../../../../b", "%2F", "%2e%2e", "%", "50%",
    "%25", "a%20b", "a b", "a+b", " ", " a ", "a=b", "a&b", "a?b", "a#b", "a:b", "a;b", "a,b", "'", '"', "`", "a*b", "<a|b>", "{a}[b]",
    "~", "größe", "日本", "🦆", "\u202e", "NULL", "null", "__HIVE_DEFAULT_PARTITION__", "x" * 120,
]


def sql_text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def write_with_pyiceberg(server, table, _session):
    schema = Schema(NestedField(1, "k", StringType()), NestedField(2, "n", LongType()))
    spec = PartitionSpec(PartitionField(1, 1000, IdentityTransform(), "k"))
    catalog = PyIceberg(server.url + "/catalog").catalog
    catalog.create_table(("values", table), schema, partition_spec=spec)
    rows = pa.table({"k": [*VALUES, None], "n": list(range(len(VALUES) + 1))})
    catalog.load_table(("values", table)).append(rows)


def write_with_duckdb(server, table, _session):
    duckdb = DuckDB(server.url + "/catalog")
    name = duckdb.table("values", table)
    duckdb.rows(f"CREATE TABLE {name} (k VARCHAR, n BIGINT) PARTITIONED BY (k)")
    rows = ", ".join(f"({sql_text(value)}, {n})" for n, value in enumerate(VALUES))
    duckdb.rows(f"INSERT INTO {name} VALUES {rows}, (NULL, {len(VALUES)})")


def write_with_spark(server, table, session):
    spark = Spark(session, server.url + "/catalog")
    name = spark.table("values", table)
    spark.rows(f"CREATE TABLE {name} (k STRING, n BIGINT) USING iceberg PARTITIONED BY (k)")
    rows = session.createDataFrame([(value, n) for n, value in enumerate(VALUES)] + [(None, len(VALUES))], "k string, n long")
    rows.coalesce(1).writeTo(name).append()


WRITERS = {"pyiceberg": write_with_pyiceberg, "duckdb": write_with_duckdb, "spark": write_with_spark}


@pytest.fixture(scope="module")
def bucket(tmp_path_factory, store):
    """A server whose warehouse is in S3."""
    server = Server(tmp_path_factory.mktemp("bucket"), ["--warehouse", f"s3://{store.BUCKET}/values"], store.environment())
    yield server.start()
    server.stop()


@pytest.mark.parametrize("writer", WRITERS)
def test_every_value_of_a_partition_is_written_and_read(server, spark_session, writer):
    check_values(server, spark_session, writer)


def test_every_value_of_a_partition_is_a_key_in_a_bucket(bucket, spark_session):
    check_values(bucket, spark_session, "pyiceberg")


def check_values(server, spark_session, writer):
    client = server.client()
    PyIceberg(server.url + "/catalog").catalog.create_namespace_if_not_exists("values")
    WRITERS[writer](server, writer, spark_session)
    wanted = list(enumerate([*VALUES, None]))
    uri = server.url + "/catalog"
    pyiceberg, duckdb, spark = PyIceberg(uri), DuckDB(uri), Spark(spark_session, uri)
    arrow = pyiceberg.load("values", writer).scan().to_arrow()
    read = {
        "icecore": client.sql("values", f"SELECT n, k FROM {writer}"),
        "pyiceberg": list(zip(arrow["n"].to_pylist(), arrow["k"].to_pylist())),
        "duckdb": duckdb.rows(f"SELECT n, k FROM {duckdb.table('values', writer)}"),
        "spark": spark.rows(f"SELECT n, k FROM {spark.table('values', writer)}"),
    }
    for reader, rows in read.items():
        assert sorted(rows) == wanted, reader
    # Each is found by its partition alone.
    for n, value in enumerate(VALUES):
        assert client.sql("values", f"SELECT n FROM {writer} WHERE k = {sql_text(value)}") == [(n,)], repr(value)

