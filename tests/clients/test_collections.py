"""Every engine reads the table of a collection, and finds in it what /sql answers."""
import json

import polars
import pytest
from engines import ClickHouse, DuckDB, PyIceberg, Spark

TABLE, COLUMNS = "cdc_users", ("key", "doc", "version", "seq")
NAMESPACE = "people"


def change(op, number, name=None):
    after = None if name is None else {"name": name, "größe": number * 1.5}
    return json.dumps({"id": f"{op}-{number}-{name}", "type": "user", "op": op, "collection": "users", "key": f"u-{number:04}", "after": after})


def refresh(client, namespace):
    path = f"/v1/{namespace}/collections/users/refresh"
    status, _, raw = client.request("POST", path, b"", {"content-type": "application/json"})
    assert status == 200, raw
    return json.loads(raw)


def of_rows(rows):
    return sorted((key, json.loads(doc), version, seq) for key, doc, version, seq in rows)


@pytest.fixture(scope="module")
def filled(server):
    """500 documents, some of them changed and some deleted after the table was made."""
    client = server.client()
    assert client.send([change("c", n, f"n{n}") for n in range(500)], NAMESPACE)[0] == 200
    assert refresh(client, NAMESPACE)["documents"] == 500
    later = [change("u", n, "other") for n in range(0, 500, 50)] + [change("d", n) for n in range(1, 500, 100)]
    assert client.send(later, NAMESPACE)[0] == 200
    done = refresh(client, NAMESPACE)
    assert done["documents"] == 495 and 0 < done["buckets"], done
    return server


@pytest.fixture(scope="module")
def wanted(filled):
    rows = filled.client().sql(NAMESPACE, f"SELECT {', '.join(COLUMNS)} FROM {TABLE}")
    assert len(rows) == 495
    return of_rows(rows)


def test_duckdb_reads_the_documents(filled, wanted):
    duck = DuckDB(filled.url + "/catalog")
    table = duck.table(NAMESPACE, TABLE)
    assert of_rows(duck.rows(f"SELECT {', '.join(COLUMNS)} FROM {table}")) == wanted
    # Buckets and bounds leave one file to read.
    assert duck.rows(f"SELECT count(*) FROM {table} WHERE key = 'u-0050'") == [(1,)]
    assert duck.rows(f"SELECT count(*) FROM {table} WHERE key = 'u-0001'") == [(0,)]


def test_pyiceberg_and_polars_read_the_documents(filled, wanted):
    lake = PyIceberg(filled.url + "/catalog")
    table = lake.load(NAMESPACE, TABLE)
    assert str(table.spec().fields[0].transform) == "bucket[4]"
    rows = table.scan(selected_fields=COLUMNS).to_arrow().select(list(COLUMNS)).to_pylist()
    assert of_rows(tuple(row[name] for name in COLUMNS) for row in rows) == wanted
    # A reader that reckons buckets in another way would leave out the file with the key.
    one = table.scan(row_filter="key == 'u-0050'", selected_fields=COLUMNS).to_arrow()
    assert one["doc"].to_pylist() and one.num_rows == 1
    assert len(list(table.scan(row_filter="key == 'u-0050'").plan_files())) == 1
    assert len(list(table.scan().plan_files())) == 4
    assert not any(task.delete_files for task in table.scan().plan_files())
    frame = polars.scan_iceberg(table).select(COLUMNS).collect()
    assert of_rows(frame.rows()) == wanted


def test_clickhouse_reads_the_documents(filled, wanted, clickhouse_session, monkeypatch):
    # It opens local files below the current folder only.
    monkeypatch.chdir("/")
    house = ClickHouse(clickhouse_session, filled.url + "/catalog")
    answer = clickhouse_session.query(f"SELECT key, version, seq FROM {house.table(NAMESPACE, TABLE)} ORDER BY key", "TabSeparated")
    rows = [line.split("\t") for line in str(answer).splitlines()]
    assert [(key, int(version), int(seq)) for key, version, seq in rows] == [(key, version, seq) for key, _, version, seq in wanted]


def test_spark_reads_the_documents_and_does_not_write_them(filled, wanted, spark_session):
    spark = Spark(spark_session, filled.url + "/catalog")
    table = spark.table(NAMESPACE, TABLE)
    assert of_rows(spark.rows(f"SELECT {', '.join(COLUMNS)} FROM {table}")) == wanted
    assert spark.rows(f"SELECT count(*) FROM {table} WHERE key = 'u-0050'") == [(1,)]
    with pytest.raises(Exception, match="computes"):
        spark.rows(f"DELETE FROM {table} WHERE key = 'u-0050'")
    assert spark.rows(f"SELECT count(*) FROM {table}") == [(495,)]
    # Another engine's tag is kept, and so is what it names.
    spark.rows(f"ALTER TABLE {table} CREATE TAG month")
    client = filled.client()
    assert client.send([change("d", 2)], NAMESPACE)[0] == 200
    assert refresh(client, NAMESPACE)["documents"] == 494
    assert spark.rows(f"SELECT count(*) FROM {table} VERSION AS OF 'month'") == [(495,)]
