"""The warehouse on S3: events go in, every engine reads them with the keys that the catalog hands out."""
import json
import time
from datetime import datetime, timezone

import boto3
import pytest
from engines import DuckDB, PyIceberg, Spark
from generate import NAMESPACES, generate
from icecore import catalog_name, send_all
from server import SeaweedFS, Server
from test_events import id_crc

EVENTS, PREFIX = 20_000, "warehouse"


@pytest.fixture(scope="module")
def server(tmp_path_factory, store):
    arguments = ["--warehouse", f"s3://{store.BUCKET}/{PREFIX}"]
    server = Server(tmp_path_factory.mktemp("icecore"), arguments, store.environment())
    yield server.start()
    server.stop()


@pytest.fixture(scope="module")
def truth(server):
    lines, truth = generate(EVENTS, datetime.now(timezone.utc), seed=3, dup=0.03)
    sent = send_all(server.url, lines, workers=4)
    assert set(sent.replies) == {200}, sent.errors[:3]
    for namespace in NAMESPACES:
        server.client().commit(namespace)
    return truth


def check_ids(truth, ids_of) -> None:
    for namespace in NAMESPACES:
        ids = ids_of(namespace)
        assert len(set(ids)) == len(ids) == truth.by_namespace[namespace]
        assert id_crc(ids) == truth.id_crc[namespace]


def test_sql_reads_the_bucket(server, truth):
    check_ids(truth, lambda namespace: [row[0] for row in server.client().sql(namespace, "SELECT id FROM events")])


def test_duckdb_reads_the_bucket(server, truth):
    duck = DuckDB(server.url + "/catalog")
    check_ids(truth, lambda namespace: duck.ids(catalog_name(namespace), "events"))


def test_pyiceberg_reads_the_bucket(server, truth):
    lake = PyIceberg(server.url + "/catalog")
    check_ids(truth, lambda namespace: lake.ids(catalog_name(namespace), "events"))


def test_spark_reads_and_writes_the_bucket(server, spark_session, truth):
    spark = Spark(spark_session, server.url + "/catalog")
    check_ids(truth, lambda namespace: spark.ids(catalog_name(namespace), "events"))
    name = catalog_name(next(iter(NAMESPACES)))
    spark.rows(f"CREATE TABLE {spark.table(name, 'by_type')} USING iceberg AS SELECT type, count(*) AS events FROM {spark.table(name, 'events')} GROUP BY type")
    duck = DuckDB(server.url + "/catalog")
    assert duck.rows(f"SELECT sum(events) FROM {duck.table(name, 'by_type')}") == [(truth.by_namespace[next(iter(NAMESPACES))],)]


def test_tables_of_every_writer_are_whole(server, truth):
    status, _, body = server.client().request("POST", "/admin/fsck")
    report = json.loads(body)
    assert status == 200 and report["whole"], report
    rows = {table["table"]: table["rows"] for table in report["tables"]}
    for namespace in NAMESPACES:
        assert rows[f"{catalog_name(namespace)}.events"] == truth.by_namespace[namespace]


def test_a_store_that_stops_is_told_and_nothing_is_lost(tmp_path):
    store = SeaweedFS(tmp_path / "store").start()
    # Events are committed while the store is away, too, as often as it goes.
    arguments = ["--warehouse", f"s3://{store.BUCKET}/{PREFIX}", "--set", "commit.interval=1s"]
    server = Server(tmp_path / "icecore", arguments, store.environment()).start()
    client = server.client()
    try:
        send = lambda first: client.send([f'{{"id":"e{n}","type":"t"}}' for n in range(first, first + 10)])
        assert send(0)[0] == 200
        client.commit("default")
        store.stop()
        assert send(10)[0] == 200
        told = until(lambda: told_by(client, 503))
        assert "the warehouse cannot be used" in told and f"s3://{store.BUCKET}/{PREFIX}" in told
        assert send(20)[0] == 200
        store.start()
        until(lambda: told_by(client, 200))
        client.commit("default")
        assert client.sql("default", "SELECT count(*), count(DISTINCT id), min(id) FROM events") == [(30, 30, "e0")]
        server.kill()
        server.start()
        assert server.client().sql("default", "SELECT count(DISTINCT id) FROM events") == [(30,)]
    finally:
        server.kill()
        store.stop()


def told_by(client, status: int) -> str | None:
    answer, _, body = client.request("GET", "/readyz")
    return body.decode() if answer == status else None


def until(met):
    """What `met` gives once it gives something."""
    deadline = time.monotonic() + 120
    while not (found := met()):
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.2)
    return found


def test_everything_lies_in_the_bucket_and_survives_a_kill(server, store, truth):
    s3 = boto3.client("s3", endpoint_url=store.endpoint, aws_access_key_id=SeaweedFS.KEY, aws_secret_access_key=SeaweedFS.SECRET, region_name=store.REGION)
    keys = [item["Key"] for page in s3.get_paginator("list_objects_v2").paginate(Bucket=store.BUCKET) for item in page.get("Contents", ())]
    assert any(key.endswith(".parquet") for key in keys) and any(key.endswith(".metadata.json") for key in keys)
    assert all(key.startswith(PREFIX + "/") for key in keys)
    server.kill()
    server.start()
    check_ids(truth, lambda namespace: [row[0] for row in server.client().sql(namespace, "SELECT id FROM events")])
