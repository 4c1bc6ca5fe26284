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


@pytest.fixture(scope="module")
def documents(server):
    """The snapshots of `main` and of a branch of a collection's table; that of the branch is the newer one."""
    client = server.client()
    namespace = "documents.example"

    def put(prices, query=""):
        events = [{"id": f"{key}-{cents}", "op": "c", "collection": "prices", "key": key, "after": {"cents": cents}} for key, cents in prices.items()]
        status, reply = client.send([json.dumps(event) for event in events], namespace, query)
        assert status == 200, reply

    def post(path, body=b""):
        status, _, answer = client.request("POST", f"/v1/{namespace}{path}", body)
        assert status in (200, 201), answer
        return json.loads(answer)

    put(dict.fromkeys(("p-1", "p-2", "p-3"), 100))
    main = post("/collections/prices/refresh")["snapshot"]
    post("/branches", json.dumps({"name": "try"}).encode())
    put({"p-2": 200, "p-4": 400}, "?branch=try")
    of_branch = post("/collections/prices/refresh?branch=try")
    assert (of_branch["branch"], of_branch["documents"]) == ("try", 4)
    return main, of_branch["snapshot"]


DOCUMENTS_NAMESPACE, TABLE = "documents_example", "cdc_prices"
MAIN_PRICES = [("p-1", '{"cents": 100}'), ("p-2", '{"cents": 100}'), ("p-3", '{"cents": 100}')]
BRANCH_PRICES = [MAIN_PRICES[0], ("p-2", '{"cents": 200}'), MAIN_PRICES[2], ("p-4", '{"cents": 400}')]


def test_duckdb_reads_the_documents_of_a_branch(documents, catalog_uri):
    duck = DuckDB(catalog_uri)
    table = duck.table(DOCUMENTS_NAMESPACE, TABLE)
    assert duck.rows(f"SELECT key, doc FROM {table} ORDER BY key") == MAIN_PRICES
    for snapshot, prices in zip(documents, (MAIN_PRICES, BRANCH_PRICES)):
        assert duck.rows(f"SELECT key, doc FROM {table} AT (VERSION => {snapshot}) ORDER BY key") == prices


def test_pyiceberg_reads_the_documents_of_a_branch(documents, catalog_uri):
    table = PyIceberg(catalog_uri).load(DOCUMENTS_NAMESPACE, TABLE)
    main, of_branch = documents
    assert table.current_snapshot().snapshot_id == main
    assert table.snapshot_by_name("try").snapshot_id == of_branch
    for snapshot, prices in ((None, MAIN_PRICES), (of_branch, BRANCH_PRICES)):
        rows = table.scan(snapshot_id=snapshot, selected_fields=("key", "doc")).to_arrow().to_pylist()
        assert sorted((row["key"], row["doc"]) for row in rows) == prices


def test_spark_reads_the_documents_of_a_branch(documents, catalog_uri, spark_session):
    spark = Spark(spark_session, catalog_uri)
    table = spark.table(DOCUMENTS_NAMESPACE, TABLE)
    for point, prices in (("", MAIN_PRICES), ("VERSION AS OF 'try'", BRANCH_PRICES)):
        rows = spark.rows(f"SELECT key, doc FROM {table} {point} ORDER BY key")
        assert [tuple(row) for row in rows] == prices
