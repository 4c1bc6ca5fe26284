"""Engines read `main` of `events` as if there were no branch, and a branch by its name."""
import json

import pytest
from engines import DuckDB, PyIceberg, Spark

NAMESPACE, CATALOG_NAMESPACE = "branches.example", "branches_example"
MAIN, OWN = ["e0", "e1", "e2", "m0"], ["b0", "b1"]


def send(client, ids, query=""):
    events = [json.dumps({"id": event, "type": f"t{event[0]}"}) for event in ids]
    status, reply = client.send(events, NAMESPACE, query)
    assert status == 200, reply
    return reply


@pytest.fixture(scope="module")
def branch(server):
    """The snapshot of a branch that is newer than that of `main`."""
    client = server.client()
    send(client, MAIN[:3])
    status, _, body = client.request("POST", f"/v1/{NAMESPACE}/branches", json.dumps({"name": "try"}).encode())
    assert status == 201, body
    send(client, MAIN[3:])
    client.commit(NAMESPACE)
    return send(client, OWN, "?branch=try")["snapshot"]


def test_duckdb_reads_main_and_the_snapshot_of_a_branch(branch, catalog_uri):
    duck = DuckDB(catalog_uri)
    assert sorted(duck.ids(CATALOG_NAMESPACE, "events")) == MAIN
    table = duck.table(CATALOG_NAMESPACE, "events")
    of_branch = duck.rows(f"SELECT id FROM {table} AT (VERSION => {branch}) ORDER BY id")
    assert [row[0] for row in of_branch] == sorted(MAIN[:3] + OWN)


def test_pyiceberg_reads_main_and_a_branch(branch, catalog_uri):
    engine = PyIceberg(catalog_uri)
    assert sorted(engine.ids(CATALOG_NAMESPACE, "events")) == MAIN
    table = engine.load(CATALOG_NAMESPACE, "events")
    assert table.snapshot_by_name("try").snapshot_id == branch
    rows = table.scan(snapshot_id=branch, selected_fields=("id", "seq")).to_arrow().to_pylist()
    assert sorted((row["seq"], row["id"]) for row in rows) == [(1, "e0"), (2, "e1"), (3, "e2"), (4, "b0"), (5, "b1")]


def test_spark_reads_main_and_a_branch(branch, catalog_uri, spark_session):
    spark = Spark(spark_session, catalog_uri)
    assert sorted(spark.ids(CATALOG_NAMESPACE, "events")) == MAIN
    table = spark.table(CATALOG_NAMESPACE, "events")
    rows = spark.rows(f"SELECT id FROM {table} VERSION AS OF 'try' ORDER BY seq")
    assert [row[0] for row in rows] == MAIN[:3] + OWN
