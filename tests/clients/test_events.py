"""Generated events, sent by concurrent senders that retry, are in every engine exactly once.

Compared with what the generator knows: counts by type, by day, by namespace, by type and day, and a checksum over the ids.
"""
import json
import zlib
from collections import Counter
from datetime import datetime, timezone
from functools import reduce

import pytest
from engines import DuckDB, PyIceberg, Spark
from generate import BAD_KINDS, NAMESPACES, generate
from icecore import catalog_name, send_all

EVENTS, SPOILED_EVENTS = 200_000, 20_000


def id_crc(ids) -> int:
    """What the generator keeps of the ids: the same for any order, another for any lost or changed one."""
    return reduce(lambda crc, id: crc ^ zlib.crc32(id.encode()), ids, 0)


@pytest.fixture(scope="module")
def truth(server):
    """The first test's input: sent, acknowledged and committed."""
    lines, truth = generate(EVENTS, datetime.now(timezone.utc), seed=7, late=0.05, dup=0.03)
    sent = send_all(server.url, lines, workers=8, size=1000)
    assert set(sent.replies) == {200}, sent.errors[:3]
    # A batch that had to be sent again may have been taken the first time; then all of it is a repeat.
    assert sent.duplicates == truth.repeats or (sent.retries and truth.repeats < sent.duplicates)
    return truth


@pytest.fixture(scope="module")
def committed(server, truth):
    for namespace in NAMESPACES:
        assert server.client().commit(namespace)["snapshots"]
    return truth


def check(truth, counts, ids) -> None:
    """`counts(namespace, by)` are an engine's counts by an expression over type and day; `ids(namespace)` its ids."""
    by_type, by_day, by_type_day, by_namespace = Counter(), Counter(), Counter(), Counter()
    for namespace in NAMESPACES:
        for (event_type, day), count in counts(namespace).items():
            by_type[event_type] += count
            by_day[day] += count
            by_type_day[f"{namespace}|{event_type}|{day}"] += count
            by_namespace[namespace] += count
    assert by_namespace == truth.by_namespace
    assert by_type == truth.by_type
    assert by_day == truth.by_day
    assert by_type_day == truth.by_type_day
    for namespace in NAMESPACES:
        found = ids(namespace)
        assert len(set(found)) == len(found) == truth.by_namespace[namespace]
        assert id_crc(found) == truth.id_crc[namespace]


def test_sql_sees_every_acknowledged_event_once(server, truth):
    client = server.client()

    def counts(namespace):
        rows = client.sql(namespace, "SELECT type, to_char(ts, '%Y-%m-%d') AS day, count(*) FROM events GROUP BY 1, 2")
        return {(event_type, day): count for event_type, day, count in rows}

    check(truth, counts, lambda namespace: [row[0] for row in client.sql(namespace, "SELECT id FROM events")])


def test_duckdb_sees_every_event_once(catalog_uri, committed):
    duck = DuckDB(catalog_uri)

    def counts(namespace):
        table = duck.table(catalog_name(namespace), "events")
        return {(kind, str(day)): n for kind, day, n in duck.rows(f"SELECT type, ts::DATE, count(*) FROM {table} GROUP BY 1, 2")}

    check(committed, counts, lambda namespace: duck.ids(catalog_name(namespace), "events"))


def test_pyiceberg_sees_every_event_once(catalog_uri, committed):
    lake = PyIceberg(catalog_uri)

    def counts(namespace):
        rows = lake.load(catalog_name(namespace), "events").scan(selected_fields=("type", "ts")).to_arrow().to_pydict()
        return Counter(zip(rows["type"], (f"{ts:%Y-%m-%d}" for ts in rows["ts"])))

    check(committed, counts, lambda namespace: lake.ids(catalog_name(namespace), "events"))


def test_spark_sees_every_event_once(catalog_uri, spark_session, committed):
    spark = Spark(spark_session, catalog_uri)

    def counts(namespace):
        table = spark.table(catalog_name(namespace), "events")
        return {(kind, str(day)): n for kind, day, n in spark.rows(f"SELECT type, to_date(ts), count(*) FROM {table} GROUP BY 1, 2")}

    check(committed, counts, lambda namespace: spark.ids(catalog_name(namespace), "events"))


def test_columns_keep_what_the_events_said(catalog_uri, committed):
    """A filter on each kind of column, in an engine that prunes by our statistics."""
    duck = DuckDB(catalog_uri)
    for namespace in NAMESPACES:
        table = duck.table(catalog_name(namespace), "events")
        changes = sum(n for key, n in committed.by_type_day.items() if key.startswith(f"{namespace}|cdc."))
        assert duck.rows(f"SELECT count(*), count(DISTINCT lsn), max(lsn) FROM {table} WHERE op IN ('c', 'u', 'd')") == [(changes,) * 3]
        assert duck.rows(f"SELECT count(*) FROM {table} WHERE ns <> '{namespace}' OR ingested_at IS NULL") == [(0,)]
        calls = sum(n for key, n in committed.by_type_day.items() if key.startswith(f"{namespace}|rpc.call|"))
        assert duck.rows(f"SELECT count(method), count(duration_ms), count(success), count(do_class) FROM {table} WHERE type = 'rpc.call'") == [(calls,) * 4]
        total = committed.by_namespace[namespace]
        assert duck.rows(f"SELECT count(DISTINCT seq), min(seq) > 0 FROM {table}") == [(total, True)]


def test_the_text_of_an_event_is_kept_where_columns_do_not_hold_all_of_it(catalog_uri, committed):
    duck, payloads = DuckDB(catalog_uri), {}
    for namespace in NAMESPACES:
        table = duck.table(catalog_name(namespace), "events")
        payloads |= dict(duck.rows(f"SELECT id, payload FROM {table} WHERE payload IS NOT NULL"))
    assert payloads == committed.foreign_lines


def test_a_point_look_up_finds_its_event_in_every_engine(server, catalog_uri, spark_session, committed):
    namespace = next(iter(NAMESPACES))
    wanted = server.client().sql(namespace, "SELECT id, type, seq FROM events ORDER BY seq LIMIT 1 OFFSET 777")
    statement = f"SELECT id, type, seq FROM {{}} WHERE id = '{wanted[0][0]}'"
    name = catalog_name(namespace)
    duck, spark, lake = DuckDB(catalog_uri), Spark(spark_session, catalog_uri), PyIceberg(catalog_uri)
    assert server.client().sql(namespace, statement.format("events")) == wanted
    assert duck.rows(statement.format(duck.table(name, "events"))) == wanted
    assert spark.rows(statement.format(spark.table(name, "events"))) == wanted
    found = lake.load(name, "events").scan(row_filter=f"id == '{wanted[0][0]}'", selected_fields=("id", "type", "seq")).to_arrow().to_pylist()
    assert [(row["id"], row["type"], row["seq"]) for row in found] == wanted


def test_columns_that_most_files_lack_are_null_there_in_every_engine(server, catalog_uri, spark_session, committed):
    """A file has no column that would be empty in it."""
    duck, spark, lake = DuckDB(catalog_uri), Spark(spark_session, catalog_uri), PyIceberg(catalog_uri)
    for namespace in NAMESPACES:
        name = catalog_name(namespace)
        total = committed.by_namespace[namespace]
        changes = sum(n for key, n in committed.by_type_day.items() if key.startswith(f"{namespace}|cdc."))
        for statement, expected in [
            ("SELECT count(op), count(lsn), count(user_id), count(*) FROM {}", (changes, changes, 0, total)),
            ("SELECT count(*), count(before) FROM {} WHERE op IS NULL", (total - changes, 0)),
            ("SELECT count(*) FROM {} WHERE user_id IS NULL AND (op = 'c' OR op <> 'c')", (changes,)),
            ("SELECT count(*) FROM {} WHERE coalesce(op, user_id, 'none') = 'none'", (total - changes,)),
            ("SELECT count(*) FROM {} WHERE user_id = 'u' OR bookmark = 'b'", (0,)),
        ]:
            assert server.client().sql(namespace, statement.format("events")) == [expected], statement
            assert duck.rows(statement.format(duck.table(name, "events"))) == [expected], statement
            assert spark.rows(statement.format(spark.table(name, "events"))) == [expected], statement
        events = lake.load(name, "events")
        assert events.scan(row_filter="op is null", selected_fields=("id", "op", "user_id")).to_arrow().num_rows == total - changes
        assert events.scan(row_filter="user_id is not null", selected_fields=("id",)).to_arrow().num_rows == 0
        found = events.scan(selected_fields=("op", "user_id", "lsn")).to_arrow()
        assert [len(found) - found[column].null_count for column in ("op", "user_id", "lsn")] == [changes, 0, changes]


def test_broken_events_are_refused_and_kept_whole(server, catalog_uri, committed):
    """1 % broken in five ways: refused with its code, its text in dead_letters, everything else taken."""
    before = {namespace: server.client().sql(namespace, "SELECT count(*) FROM events")[0][0] for namespace in NAMESPACES}
    lines, truth = generate(SPOILED_EVENTS, datetime.now(timezone.utc), seed=11, late=0.05, bad=0.01)
    home = next(iter(NAMESPACES))
    sent = send_all(server.url, lines, workers=8, size=500, namespace=home)
    assert set(sent.replies) <= {200, 207}
    assert Counter(error["code"] for error in sent.errors) == truth.refused
    assert set(truth.refused) == set(filter(None, BAD_KINDS.values()))
    assert all(error["status"] == "rejected" and error["deadLetter"] for error in sent.errors)

    client, letters = server.client(), []
    for namespace in NAMESPACES:
        letters += client.sql(namespace, "SELECT id, detail, reason, payload FROM dead_letters")
        count, distinct = client.sql(namespace, "SELECT count(*), count(DISTINCT id) FROM events")[0]
        assert count == distinct == before[namespace] + truth.by_namespace[namespace]
    assert Counter(letter[3] for letter in letters) == Counter(truth.refused_lines)
    assert {letter[0] for letter in letters} == {error["deadLetter"] for error in sent.errors}

    duck, payloads = DuckDB(catalog_uri), Counter()
    for namespace in NAMESPACES:
        client.commit(namespace)
    for (namespace,) in duck.rows("SELECT schema FROM (SHOW ALL TABLES) WHERE database = 'lake' AND name = 'dead_letters'"):
        payloads.update(row[0] for row in duck.rows(f"SELECT payload FROM {duck.table(namespace, 'dead_letters')}"))
    assert payloads == Counter(truth.refused_lines)


def test_the_same_id_with_another_body_is_a_conflict(server, committed):
    client = server.client()
    event = {"id": "taken", "type": "order.placed", "ns": "shop.example", "data": {"total": 1}}
    assert client.send([json.dumps(event)])[0] == 200
    assert client.send([json.dumps(event)])[1]["duplicates"] == 1
    status, reply = client.send([json.dumps(event | {"data": {"total": 2}})])
    assert (status, reply["errors"][0]["status"]) == (400, "conflict")
    assert client.sql("shop.example", "SELECT count(*) FROM events WHERE id = 'taken'") == [(1,)]
