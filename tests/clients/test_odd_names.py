"""Names that nobody expects: in namespaces, tables, columns, partition fields and values. Each engine that can write one makes the table,
and every other reads it.
"""
import pyarrow as pa
import pytest
from engines import DuckDB, PyIceberg, Spark
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import LongType, NestedField, StringType

NAMES = {
    "space": "a b", "spaces": " a  b ", "latin": "größe", "han": "日本", "emoji": "a🦆b", "plus": "a+b", "percent": "50%",
    "escape": "a%20b", "escaped_slash": "a%2Fb", "slash": "a/b", "backslash": "a\\b", "quote": 'a"b', "apostrophe": "it's", "dot": "a.b",
    "question": "a?b", "hash": "a#b", "ampersand": "a&b=c", "brackets": "{a}[b](c)<d>", "digit": "1a",
}
# Iceberg's Java client sends ISO-8859-1.
NOT_BY_SPARK = {"han", "emoji"}
# DuckDB 1.5.5 ends its process when a partition field has such a name, whoever wrote the table.
NO_PARTITION_FOR_DUCKDB = {"latin", "han"}
# DuckDB takes a dot in a schema's name for the end of a level.
NO_SCHEMA_FOR_DUCKDB = {"dot"}


def quoted(name: str, quote='"') -> str:
    return quote + name.replace(quote, quote * 2) + quote


def columns(name: str) -> tuple[str, str]:
    """A column that the table is partitioned by, and one beside it."""
    return name, name + " n"


def rows(name: str) -> list[tuple]:
    return [(name, 1), (name + "/../" + name, 2), (None, 3)]


def with_pyiceberg(server, _spark, namespace, name):
    key, number = columns(name)
    schema = Schema(NestedField(1, key, StringType()), NestedField(2, number, LongType()))
    catalog = PyIceberg(server.url + "/catalog").catalog
    table = catalog.create_table((namespace, name), schema, partition_spec=PartitionSpec(PartitionField(1, 1000, IdentityTransform(), key)))
    keys, numbers = zip(*rows(name))
    table.append(pa.table({key: pa.array(keys, pa.string()), number: pa.array(numbers, pa.int64())}))


def with_spark(server, session, namespace, name):
    spark = Spark(session, server.url + "/catalog")
    table = ".".join([spark.catalog, quoted(namespace, "`"), quoted(name, "`")])
    key, number = (quoted(column, "`") for column in columns(name))
    spark.rows(f"CREATE TABLE {table} ({key} STRING, {number} BIGINT) USING iceberg PARTITIONED BY ({key})")
    schema = ", ".join(f"{column} {kind}" for column, kind in [(key, "string"), (number, "long")])
    session.createDataFrame(rows(name), schema).coalesce(1).writeTo(table).append()


def with_duckdb(server, _spark, namespace, name):
    duck = DuckDB(server.url + "/catalog")
    table = ".".join(["lake", quoted(namespace), quoted(name)])
    key, number = (quoted(column) for column in columns(name))
    duck.rows(f"CREATE TABLE {table} ({key} VARCHAR, {number} BIGINT)")
    for values in rows(name):
        duck.connection.execute(f"INSERT INTO {table} VALUES (?, ?)", values)


WRITERS = {"pyiceberg": with_pyiceberg, "spark": with_spark, "duckdb": with_duckdb}


def read_all(server, session, namespace, name, by_duckdb) -> dict:
    key, number = columns(name)
    selected = f"{quoted(key)}, {quoted(number)}"
    uri = server.url + "/catalog"
    arrow = PyIceberg(uri).load(namespace, name).scan().to_arrow()
    read = {
        "icecore": server.client().sql(namespace, f"SELECT {selected} FROM {quoted(name)}"),
        "pyiceberg": list(zip(arrow[key].to_pylist(), arrow[number].to_pylist())),
    }
    if by_duckdb:
        read["duckdb"] = DuckDB(uri).rows(f"SELECT {selected} FROM lake.{quoted(namespace)}.{quoted(name)}")
    spark = Spark(session, uri)
    table = ".".join([spark.catalog, quoted(namespace, "`"), quoted(name, "`")])
    read["spark"] = spark.rows(f"SELECT {quoted(key, '`')}, {quoted(number, '`')} FROM {table}")
    return read


@pytest.mark.parametrize("writer", WRITERS)
def test_odd_names_are_written_and_read(server, spark_session, writer):
    failures = []
    for label, name in NAMES.items():
        if writer == "spark" and label in NOT_BY_SPARK:
            continue
        # SQL finds namespaces by names of letters, digits and `_`; odd ones are the next test's.
        namespace = f"{writer}_{label}"
        PyIceberg(server.url + "/catalog").catalog.create_namespace((namespace,))
        try:
            WRITERS[writer](server, spark_session, namespace, name)
            by_duckdb = writer == "duckdb" or label not in NO_PARTITION_FOR_DUCKDB
            for reader, found in read_all(server, spark_session, namespace, name, by_duckdb).items():
                if sorted(found, key=str) != sorted(rows(name), key=str):
                    failures.append(f"{label}: {reader} reads {found}")
        except Exception as error:  # noqa: BLE001 - all names are tried
            failures.append(f"{label}: {type(error).__name__} {str(error)[:300]}")
    assert not failures, "\n".join(failures)


def test_odd_namespaces_are_made_and_found(server, spark_session):
    uri, failures = server.url + "/catalog", []
    catalog, spark = PyIceberg(uri).catalog, Spark(spark_session, uri)
    for label, name in NAMES.items():
        try:
            if label in NOT_BY_SPARK:
                catalog.create_namespace((name,))
            else:
                spark.rows(f"CREATE NAMESPACE `{spark.catalog}`.{quoted(name, '`')}")
            assert (name,) in catalog.list_namespaces(), "it is not listed"
            catalog.create_table((name, "t"), Schema(NestedField(1, "n", LongType()))).append(pa.table({"n": [1, 2]}))
            assert catalog.list_tables((name,)) == [(name, "t")]
            if label not in NO_SCHEMA_FOR_DUCKDB:
                duck = DuckDB(uri).rows(f"SELECT count(*) FROM lake.{quoted(name)}.t")
                assert duck == [(2,)], f"DuckDB reads {duck}"
            found = spark.rows(f"SELECT count(*) FROM `{spark.catalog}`.{quoted(name, '`')}.t")
            assert found == [(2,)], f"Spark reads {found}"
        except Exception as error:  # noqa: BLE001 - all names are tried
            failures.append(f"{label}: {type(error).__name__} {str(error)[:300]}")
    assert not failures, "\n".join(failures)
