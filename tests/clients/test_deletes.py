"""Deletes that other engines write apply in SQL as they do there: by value, as Flink's, and deletion vectors."""
import pytest
from engines import DuckDB, PyIceberg, Spark

NAMESPACE = "gone"


@pytest.fixture(scope="module")
def spark(server, spark_session):
    PyIceberg(server.url + "/catalog").catalog.create_namespace_if_not_exists(NAMESPACE)
    return Spark(spark_session, server.url + "/catalog")


def delete_values(spark, table, values, **partition):
    """One row of an equality delete file, as Iceberg's Java library writes it. Numbers are those of INT columns."""
    session, jvm = spark.session, spark.session._jvm
    iceberg = jvm.org.apache.iceberg
    loaded = iceberg.spark.Spark3Util.loadIcebergTable(session._jsparkSession, f"{spark.catalog}.{NAMESPACE}.{table}")
    names = jvm.java.util.ArrayList()
    for name in values:
        names.add(name)
    schema = loaded.schema().select(names)
    ids = session.sparkContext._gateway.new_array(jvm.int, len(values))
    for at, name in enumerate(values):
        ids[at] = schema.findField(name).fieldId()
    factory = iceberg.data.GenericAppenderFactory(loaded.schema(), loaded.spec(), ids, schema, None)
    files = iceberg.io.OutputFileFactory.builderFor(loaded, 1, 1).format(iceberg.FileFormat.PARQUET).build()
    place = None
    if partition:
        place = iceberg.data.GenericRecord.create(loaded.spec().partitionType())
        for name, value in partition.items():
            place.setField(name, value)
    file = files.newOutputFile(place) if partition else files.newOutputFile()
    writer = factory.newEqDeleteWriter(file, iceberg.FileFormat.PARQUET, place)
    row = iceberg.data.GenericRecord.create(schema)
    for name, value in values.items():
        row.setField(name, value)
    writer.write(row)
    writer.close()
    loaded.newRowDelta().addDeletes(writer.toDeleteFile()).commit()


def check(server, spark, table, columns, wanted, engines=("icecore", "spark", "duckdb")):
    client, uri = server.client(), server.url + "/catalog"
    duck = DuckDB(uri)
    read = {
        "icecore": lambda: client.sql(NAMESPACE, f"SELECT {columns} FROM {table}"),
        "spark": lambda: spark.rows(f"SELECT {columns} FROM {spark.table(NAMESPACE, table)}"),
        "duckdb": lambda: duck.rows(f"SELECT {columns} FROM {duck.table(NAMESPACE, table)}"),
    }
    for engine in engines:
        assert sorted(read[engine](), key=str) == sorted(wanted, key=str), engine
    assert client.sql(NAMESPACE, f"SELECT count(*) FROM {table}") == [(len(wanted),)]


def test_equality_deletes_of_a_partitioned_table(server, spark):
    table = spark.table(NAMESPACE, "people")
    spark.rows(f"CREATE TABLE {table} (id INT, name STRING, city STRING) USING iceberg PARTITIONED BY (city)")
    spark.rows(f"INSERT INTO {table} VALUES (1, 'a', 'x'), (2, NULL, 'x'), (3, 'c', 'x'), (1, 'a', 'y'), (2, NULL, 'y')")
    delete_values(spark, "people", {"id": 1}, city="x")
    # What comes later stays, and so does what is elsewhere. DuckDB 1.5 applies the delete in all partitions.
    spark.rows(f"INSERT INTO {table} VALUES (1, 'new', 'x')")
    left = [(1, "new", "x"), (2, None, "x"), (3, "c", "x"), (1, "a", "y"), (2, None, "y")]
    check(server, spark, "people", "id, name, city", left, ["icecore", "spark"])
    delete_values(spark, "people", {"id": 2, "name": None}, city="y")
    check(server, spark, "people", "id, name, city", left[:4], ["icecore", "spark"])
    client = server.client()
    assert client.sql(NAMESPACE, "SELECT name FROM people WHERE id = 1 ORDER BY name") == [("a",), ("new",)]
    assert client.sql(NAMESPACE, "SELECT max(id) FROM people WHERE city = 'y'") == [(1,)]


def test_equality_deletes_beside_position_deletes_and_by_a_column_that_is_dropped_later(server, spark):
    table = spark.table(NAMESPACE, "plain")
    spark.rows(f"CREATE TABLE {table} (id INT, name STRING) USING iceberg TBLPROPERTIES ('write.delete.mode' = 'merge-on-read')")
    spark.rows(f"INSERT INTO {table} SELECT CAST(id AS INT), CONCAT('n', id % 10) FROM RANGE(1000)")
    delete_values(spark, "plain", {"name": "n3"})
    spark.rows(f"DELETE FROM {table} WHERE id < 5")
    spark.rows(f"INSERT INTO {table} VALUES (3, 'n3')")
    left = [(id,) for id in [3, *range(5, 1000)] if id % 10 != 3 or id == 3]
    check(server, spark, "plain", "id", left)
    # DuckDB 1.5 leaves out every row that has no value in a column that a delete compares.
    spark.rows(f"INSERT INTO {table} VALUES (1001, NULL), (1002, NULL), (1002, 'n')")
    delete_values(spark, "plain", {"id": 1002, "name": None})
    left += [(1001,), (1002,)]
    check(server, spark, "plain", "id", left, ["icecore", "spark"])
    # Iceberg's Java library 1.10 fails on such a table with a null pointer.
    spark.rows(f"ALTER TABLE {table} DROP COLUMN name")
    check(server, spark, "plain", "id", left, ["icecore"])


def test_deletion_vectors(server, spark):
    table = spark.table(NAMESPACE, "vectors")
    spark.rows(f"CREATE TABLE {table} (id INT, name STRING) USING iceberg TBLPROPERTIES ('format-version' = '3', 'write.delete.mode' = 'merge-on-read')")
    spark.rows(f"INSERT INTO {table} SELECT CAST(id AS INT), CONCAT('n', id % 10) FROM RANGE(1000)")
    for gone in ["id % 10 = 7", "id BETWEEN 100 AND 899", "id = 5"]:
        spark.rows(f"DELETE FROM {table} WHERE {gone}")
    files = spark.rows(f"SELECT file_format FROM {table}.delete_files")
    assert files and {kind for kind, in files} == {"PUFFIN"}
    left = [(id,) for id in range(1000) if id % 10 != 7 and not 100 <= id < 900 and id != 5]
    check(server, spark, "vectors", "id", left)
