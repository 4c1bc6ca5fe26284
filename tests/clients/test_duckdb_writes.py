"""DuckDB writes to `events` as to any other table: without settings, beside an ingest that never stops."""
import json
import threading

import duckdb
import pytest
from engines import DuckDB, PyIceberg, Spark
from server import Server

DELETES = 30
ACTOR = "fünfzehn Zeichßen und mehr"


def events(numbers, kind="order.placed"):
    return [json.dumps({"id": f"e{n}", "type": kind, "data": {"n": n}}) for n in numbers]


@pytest.fixture
def busy(tmp_path):
    """A server whose table changes all the time."""
    server = Server(tmp_path / "busy", environment={"ICECORE_COMMIT_INTERVAL": "200ms"})
    yield server.start()
    server.stop()


def test_duckdb_inserts_updates_deletes_and_merges_without_settings(server, spark_session):
    client = server.client()
    assert client.send(events(range(10)) + events(range(10, 20), "rpc.call"), "duck.writes")[0] == 200
    client.commit("duck.writes")
    duck = DuckDB(server.url + "/catalog")
    table = duck.table("duck_writes", "events")
    insert = f"INSERT INTO {table} (id, type, ts, ns, seq, ingested_at) VALUES ('own', 'order.placed', now(), 'duck.writes', 0, now())"
    assert duck.rows(insert) == [(1,)]
    assert duck.rows(f"UPDATE {table} SET actor = 'me' WHERE id IN ('e1', 'e11')") == [(2,)]
    assert duck.rows(f"DELETE FROM {table} WHERE id IN ('e2', 'e12', 'e3')") == [(3,)]
    merge = f"""MERGE INTO {table} AS t USING (SELECT 'e4' AS id UNION ALL SELECT 'new') AS u ON t.id = u.id
        WHEN MATCHED THEN UPDATE SET actor = 'merged'
        WHEN NOT MATCHED THEN INSERT (id, type, ts, ns, seq, ingested_at) VALUES (u.id, 'rpc.call', now(), 'duck.writes', 0, now())"""
    assert duck.rows(merge) == [(2,)]
    # Ours go on.
    assert client.send(events(range(20, 25)), "duck.writes")[0] == 200
    client.commit("duck.writes")
    gone, actors = {"e2", "e3", "e12"}, {"e1": "me", "e11": "me", "e4": "merged"}
    ids = {f"e{n}" for n in range(25)} - gone | {"own", "new"}
    wanted = sorted((id, actors.get(id)) for id in ids)
    pyiceberg = PyIceberg(server.url + "/catalog").load("duck_writes", "events").scan(selected_fields=("id", "actor")).to_arrow()
    spark = Spark(spark_session, server.url + "/catalog")
    read = {
        "icecore": client.sql("duck.writes", "SELECT id, actor FROM events"),
        "duckdb": duck.rows(f"SELECT id, actor FROM {table}"),
        "pyiceberg": list(zip(pyiceberg["id"].to_pylist(), pyiceberg["actor"].to_pylist())),
        "spark": spark.rows(f"SELECT id, actor FROM {spark.table('duck_writes', 'events')}"),
    }
    for engine, rows in read.items():
        assert sorted(rows, key=str) == sorted(wanted, key=str), engine


def test_deletes_beside_a_busy_ingest_do_not_fail(busy):
    client = busy.client()
    assert client.send(events(range(2000)), "n")[0] == 200
    client.commit("n")
    duck = DuckDB(busy.url + "/catalog")
    # DuckDB cuts its bounds of texts after 16 bytes, within a character if need be; later commits merge its manifest with others.
    insert = f"INSERT INTO {duck.table('n', 'events')} (id, type, ts, ns, seq, ingested_at, actor)"
    assert duck.rows(f"{insert} VALUES ('own', 'order.placed', now(), 'n', 0, now(), '{ACTOR}')") == [(1,)]
    ended, sent = threading.Event(), []

    def ingest():
        sender, n = busy.client(), 2000
        while not ended.is_set():
            assert sender.send(events(range(n, n + 50)), "n")[0] == 200
            n += 50
        sent.append(n)

    thread = threading.Thread(target=ingest)
    thread.start()
    try:
        failed = []
        for n in range(DELETES):
            try:
                assert duck.rows(f"DELETE FROM {duck.table('n', 'events')} WHERE id = 'e{n}'") == [(1,)]
            except duckdb.Error as error:
                failed.append(str(error))
    finally:
        ended.set()
        thread.join()
    assert failed == []
    client.commit("n")
    left = sent[0] + 1 - DELETES
    assert client.sql("n", f"SELECT id FROM events WHERE actor = '{ACTOR}'") == [("own",)]
    assert client.sql("n", "SELECT count(*), count(DISTINCT id) FROM events") == [(left, left)]
    assert duck.rows(f"SELECT count(*), count(DISTINCT id) FROM {duck.table('n', 'events')}") == [(left, left)]
    status, _, raw = client.request("GET", "/catalog/v1/namespaces/n/tables/events")
    snapshots = json.loads(raw)["metadata"]["snapshots"]
    moved = [one for one in snapshots if "icecore.moved-from" in one["summary"]]
    assert status == 200 and moved, "nothing was committed between a delete and what it was built on"


def test_a_delete_of_rows_that_another_deleted_is_refused_and_names_the_file(server):
    client = server.client()
    assert client.send(events(range(10)), "conflict")[0] == 200
    client.commit("conflict")
    first, second = DuckDB(server.url + "/catalog"), DuckDB(server.url + "/catalog")
    table = first.table("conflict", "events")
    for duck, id in [(first, "e1"), (second, "e2")]:
        duck.rows("BEGIN")
        assert duck.rows(f"DELETE FROM {table} WHERE id = '{id}'") == [(1,)]
    first.rows("COMMIT")
    with pytest.raises(duckdb.Error, match="another commit deleted rows of"):
        second.rows("COMMIT")
    assert client.sql("conflict", "SELECT count(*) FROM events") == [(9,)]


def test_a_delete_that_only_some_readers_would_apply_is_refused(server, spark_session):
    """DuckDB writes deletes under the newest partition spec, whatever that of their data file is."""
    PyIceberg(server.url + "/catalog").catalog.create_namespace_if_not_exists("specs")
    duck, client = DuckDB(server.url + "/catalog"), server.client()
    table = duck.table("specs", "t")
    duck.rows(f"CREATE TABLE {table} (id BIGINT, ts TIMESTAMP) PARTITIONED BY (day(ts))")
    duck.rows(f"INSERT INTO {table} VALUES (1, '2026-01-01 01:00'), (2, '2026-01-01 02:00'), (3, '2026-01-02 03:00')")
    assert duck.rows(f"DELETE FROM {table} WHERE id = 1") == [(1,)]
    duck.rows(f"ALTER TABLE {table} SET PARTITIONED BY (hour(ts))")
    with pytest.raises(duckdb.Error, match="partition spec"):
        duck.rows(f"DELETE FROM {table} WHERE id = 2")
    spark = Spark(spark_session, server.url + "/catalog")
    read = {
        "icecore": client.sql("specs", "SELECT id FROM t"),
        "duckdb": DuckDB(server.url + "/catalog").rows(f"SELECT id FROM {table}"),
        "pyiceberg": [(id,) for id in PyIceberg(server.url + "/catalog").load("specs", "t").scan().to_arrow()["id"].to_pylist()],
        "spark": spark.rows(f"SELECT id FROM {spark.table('specs', 't')}"),
    }
    for engine, rows in read.items():
        assert sorted(rows) == [(2,), (3,)], engine
    # A delete under the spec of its data file is one.
    duck.rows(f"INSERT INTO {table} VALUES (4, '2026-01-03 04:00'), (5, '2026-01-03 04:30')")
    assert duck.rows(f"DELETE FROM {table} WHERE id = 4") == [(1,)]
    assert sorted(client.sql("specs", "SELECT id FROM t")) == [(2,), (3,), (5,)]
    # Spark does it as the specification wants.
    spark.rows(f"ALTER TABLE {spark.table('specs', 't')} SET TBLPROPERTIES ('write.delete.mode' = 'merge-on-read')")
    spark.rows(f"DELETE FROM {spark.table('specs', 't')} WHERE id = 2")
    assert sorted(client.sql("specs", "SELECT id FROM t")) == [(3,), (5,)]


def test_a_refused_event_whose_dead_letter_was_deleted_is_kept_again(server):
    client = server.client()
    sent = ['{"id":"q1"}', '{"id":"q2"}']
    first = [error["deadLetter"] for error in client.send(sent, "duck.letters")[1]["errors"]]
    client.commit("duck.letters")
    duck = DuckDB(server.url + "/catalog")
    assert duck.rows(f"DELETE FROM {duck.table('duck_letters', 'dead_letters')} WHERE event_id = 'q1'") == [(1,)]
    for _ in range(2):
        again = [error["deadLetter"] for error in client.send(sent, "duck.letters")[1]["errors"]]
        assert again[0] != first[0] and again[1] == first[1]
        kept = client.sql("duck.letters", "SELECT id FROM dead_letters ORDER BY event_id")
        assert [row[0] for row in kept] == again
        client.commit("duck.letters")
