"""What users of the earlier files ask, by their paths and names, has the answers of DuckDB over the table's columns.

Each pair is a statement for Icecore and the same question for DuckDB, which reads the table through the catalog. Who
asks Icecore has a token that may only read. The file `earlier_statements.sql` has statements as users wrote them.
"""
import json
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import pytest
from engines import DuckDB
from generate import generate
from icecore import Client, catalog_name, send_all
from server import Server

NAMESPACE = "shop.example"
# The events that the statements of the file are about.
EARLIER = "startups.studio"
EVENTS = 8_000
# The generator spreads events over the three days before.
START = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)

PAIRS = {
    "history": (
        "SELECT type, docId, doc, prev, bookmark FROM read_json_auto('r2://events/2026/**/*.jsonl') WHERE \"table\" = 'users' AND docId LIKE '%-1' ORDER BY bookmark",
        "SELECT type, key, after, before, bookmark FROM {t} WHERE collection = 'users' AND key LIKE '%-1' ORDER BY bookmark",
    ),
    "between bookmarks": (
        "SELECT count(*) FROM (SELECT * FROM read_json_auto('r2://events/2026/**/*.jsonl') WHERE bookmark > '00000003' AND bookmark <= '00000030')",
        "SELECT count(*) FROM {t} WHERE bookmark > '00000003' AND bookmark <= '00000030'",
    ),
    "latency by method": (
        "SELECT method, COUNT(*), AVG(durationMs), P95(durationMs) FROM read_parquet('r2://b/events/2026/11/**/*.parquet', filename=true) WHERE type = 'rpc.call' GROUP BY method ORDER BY method",
        "SELECT method, count(*), avg(duration_ms), quantile_cont(duration_ms, 0.95) FROM {t} WHERE type = 'rpc.call' GROUP BY method ORDER BY method",
    ),
    "latency by class": (
        "SELECT \"do\".class, PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY durationMs) AS p50, MAX(durationMs) FROM events WHERE type = 'rpc.call' GROUP BY \"do\".class ORDER BY 1",
        "SELECT do_class, quantile_cont(duration_ms, 0.5), max(duration_ms) FROM {t} WHERE type = 'rpc.call' GROUP BY do_class ORDER BY 1 NULLS LAST",
    ),
    "one hour": (
        "SELECT type, COUNT(*) AS count FROM read_parquet('r2://b/events/2026/11/19/14/*.parquet') GROUP BY type ORDER BY type",
        "SELECT type, count(*) FROM {t} WHERE ts >= '2026-11-19 14:00:00+00' AND ts < '2026-11-19 15:00:00+00' GROUP BY type ORDER BY type",
    ),
    "one hour of each day": (
        "SELECT COUNT(*) FROM read_parquet('events/2026/11/*/14/*.parquet')",
        "SELECT count(*) FROM {t} WHERE year(ts) = 2026 AND month(ts) = 11 AND hour(ts) = 14",
    ),
    "both formats": (
        "SELECT count(*) FROM (SELECT * FROM read_parquet('events/2026/11/19/*/*.parquet') UNION ALL SELECT * FROM read_json_auto('events/2026/11/19/*/*.jsonl'))",
        "SELECT 2 * count(*) FROM {t} WHERE CAST(ts AS date) = '2026-11-19'",
    ),
    "deltas": (
        "SELECT op, pk, data, prev FROM read_parquet('r2://b/cdc/w/users/deltas/*.parquet') ORDER BY bookmark",
        "SELECT op, key, after, before FROM {t} WHERE collection = 'users' AND op IS NOT NULL ORDER BY bookmark",
    ),
    "versions": (
        "SELECT rowid, id, type, collection, op FROM things ORDER BY rowid",
        "SELECT seq, key, coalesce(after ->> '$.type', before ->> '$.type', collection), collection, op FROM {t} WHERE op IS NOT NULL AND key IS NOT NULL AND collection IS NOT NULL ORDER BY seq",
    ),
    "members": (
        "SELECT doc ->> 'v', count(*) FROM events WHERE doc ->> 'v' IS NOT NULL GROUP BY 1 ORDER BY 1",
        "SELECT after ->> 'v', count(*) FROM {t} WHERE (after ->> 'v') IS NOT NULL GROUP BY 1 ORDER BY 1",
    ),
    "errors by URL": (
        "SELECT url, statusCode, COUNT(*) AS errors FROM events WHERE status_code >= 400 GROUP BY url, statusCode ORDER BY errors DESC, url, statusCode LIMIT 20",
        "SELECT url, status_code, count(*) AS errors FROM {t} WHERE status_code >= 400 GROUP BY url, status_code ORDER BY errors DESC, url, status_code LIMIT 20",
    ),
    "series": (
        "SELECT range * 2 AS n FROM range(1, 6) WHERE range % 2 = 0 ORDER BY n",
        "SELECT range * 2 AS n FROM range(1, 6) WHERE range % 2 = 0 ORDER BY n",
    ),
    "lists in FROM": (
        "SELECT u.unnest, g.i FROM unnest([3, 1, 2]) AS u, generate_series(1, 2) AS g(i) ORDER BY 1, 2",
        "SELECT u.unnest, g.i FROM unnest([3, 1, 2]) AS u, generate_series(1, 2) AS g(i) ORDER BY 1, 2",
    ),
    "structs": (
        "SELECT s.n, s['t'], struct_extract(s, 'n') + 1 AS m FROM (SELECT {'n': seq, 't': type} AS s FROM events) ORDER BY 1 LIMIT 20",
        "SELECT s.n, s['t'], struct_extract(s, 'n') + 1 AS m FROM (SELECT {{'n': seq, 't': type}} AS s FROM {t}) ORDER BY 1 LIMIT 20",
    ),
    "maps and packed structs": (
        "SELECT map_keys(MAP {'a': 1, 'b': 2}) AS k, struct_extract(struct_pack(x := 1, y := 'b'), 'y') AS y, range(2, 4) AS r",
        "SELECT map_keys(MAP {{'a': 1, 'b': 2}}) AS k, struct_extract(struct_pack(x := 1, y := 'b'), 'y') AS y, range(2, 4) AS r",
    ),
    "lengths": (
        "SELECT len('Åb') AS t, len([1, 2, NULL]) AS l, len(MAP {'a': 1}) AS m, max(len(type)) AS s FROM events",
        "SELECT len('Åb') AS t, len([1, 2, NULL]) AS l, cardinality(MAP {{'a': 1}}) AS m, max(len(type)) AS s FROM {t}",
    ),
    "patterns from columns": (
        "SELECT count(*) FROM events WHERE type ~ ('^' || split_part(type, '.', 1) || '[.]')",
        "SELECT count(*) FROM {t} WHERE regexp_matches(type, '^' || split_part(type, '.', 1) || '[.]')",
    ),
    "one name of two tables": (
        "SELECT a.docId, b.docId FROM events a JOIN events b ON a.seq = b.seq WHERE a.docId IS NOT NULL ORDER BY a.seq LIMIT 20",
        "SELECT a.key, b.key FROM {t} a JOIN {t} b ON a.seq = b.seq WHERE a.key IS NOT NULL ORDER BY a.seq LIMIT 20",
    ),
    "daily volume": (
        "SELECT DATE(DATE_TRUNC('day', timestamp)) AS day, type, COUNT(*) AS count FROM events GROUP BY day, type ORDER BY day, type",
        "SELECT CAST(ts AS date), type, count(*) FROM {t} GROUP BY 1, 2 ORDER BY 1, 2",
    ),
}


# What a version of a document is, and the columns of `things`.
VERSIONS = ("SELECT seq, key, coalesce(after ->> '$.type', before ->> '$.type', collection), collection, after, op, ts FROM {t} "
            "WHERE op IS NOT NULL AND key IS NOT NULL AND collection IS NOT NULL AND (after IS NOT NULL OR op = 'd')")
NOVEMBER = "ts >= '2026-11-01 00:00:00+00' AND ts < '2026-12-01 00:00:00+00'"
THE_YEAR = "ts >= '2026-01-01 00:00:00+00' AND ts < '2027-01-01 00:00:00+00'"
THE_20TH = "ts >= '2026-11-20 00:00:00+00' AND ts < '2026-11-21 00:00:00+00'"
# For each statement of the file, what DuckDB is asked, and the columns that the rows are in the order of. `{now}` is
# the moment for which Icecore answered.
STATEMENTS = {
    "history of a document": (f"SELECT ts, type, key, after, before, bookmark FROM {{t}} WHERE {THE_YEAR} AND collection = 'users' AND key = 'user-0-1' ORDER BY ts", [0]),
    "changes between two bookmarks": (f"SELECT * FROM {{t}} WHERE {THE_YEAR} AND bookmark > 'B1' AND bookmark <= 'B2'", []),
    "latency by method of a month": (f"SELECT method, avg(duration_ms), quantile_cont(duration_ms, 0.95), count(*) FROM {{t}} WHERE {NOVEMBER} AND type = 'rpc.call' GROUP BY method", []),
    "updates of a collection": (f"SELECT * FROM {{t}} WHERE {THE_YEAR} AND type = 'collection.update' AND collection = 'users'", []),
    "one version": (f"{VERSIONS} AND seq = 1", []),
    "current state of a document": (f"{VERSIONS} AND key = 'acme' ORDER BY seq DESC", [0]),
    "created today in several namespaces": ("SELECT * FROM {t} WHERE type = 'Customer.created' AND CAST(ts AS date) = CAST(TIMESTAMPTZ '{now}' AS date) AND ns LIKE 'startups.%'", []),
    "by type and hour": ("SELECT type, date_trunc('hour', ts) AS hour, count(*) FROM {t} WHERE ts > TIMESTAMPTZ '{now}' - INTERVAL '24 hours' GROUP BY ALL ORDER BY hour DESC", [1]),
    "changes by an actor": ("SELECT * FROM {t} WHERE actor = 'User/ada' AND op IN ('c', 'u', 'd') ORDER BY ts DESC LIMIT 100", [2]),
    "names that hold everywhere": ("SELECT id, type, ts, concat(ns, '/', source), concat(ns, '/', collection), op, store, key, before, after, actor, data, correlation_id, meta FROM {t}", []),
    "a path with options": (f"SELECT * FROM {{t}} WHERE {NOVEMBER} AND type = 'rpc.call' ORDER BY ts DESC LIMIT 100", [2]),
    "two formats at once": (f"SELECT * FROM {{t}} WHERE {THE_20TH} UNION ALL SELECT * FROM {{t}} WHERE {THE_20TH} AND type = 'rpc.call' ORDER BY ts DESC", [2]),
    "one hour": ("SELECT type, count(*) AS n FROM {t} WHERE ts >= '2026-11-20 14:00:00+00' AND ts < '2026-11-20 15:00:00+00' GROUP BY type ORDER BY n DESC", [1]),
    "a member of an object": (f"SELECT ts, do_class, method, duration_ms, success FROM {{t}} WHERE {NOVEMBER} AND type = 'rpc.call' ORDER BY ts DESC LIMIT 1000", [0]),
    "changes from the files of deltas": ("SELECT ts, op, key, after FROM {t} WHERE collection = 'users' AND op IS NOT NULL AND key = 'user-0-1' ORDER BY ts", [0]),
    "latency percentiles": ("SELECT do_class, method, count(*) AS n, avg(duration_ms), quantile_cont(duration_ms, 0.5), quantile_cont(duration_ms, 0.95), quantile_cont(duration_ms, 0.99), max(duration_ms) "
                            f"FROM {{t}} WHERE {NOVEMBER} AND type = 'rpc.call' GROUP BY ALL ORDER BY n DESC", [2]),
    "state between two bookmarks": ("SELECT op, key, ts, after, before, bookmark FROM {t} WHERE collection = 'users' AND op IS NOT NULL AND bookmark > 'B1' AND bookmark <= 'B2' ORDER BY ts", [2]),
    "failed requests": (f"SELECT url, status_code, count(*) AS n FROM {{t}} WHERE {NOVEMBER} AND status_code >= 400 GROUP BY ALL ORDER BY n DESC LIMIT 20", [2]),
    "daily volume": (f"SELECT date_trunc('day', ts) AS day, type, count(*) AS n FROM {{t}} WHERE {THE_YEAR} GROUP BY ALL ORDER BY day DESC, n DESC", [0, 2]),
}


def earlier_events() -> list[dict]:
    """Some that each statement finds, some that it does not. No two of a kind have one time: orders are certain."""
    made, zone = [], timezone.utc

    def add(moment: datetime, **members) -> None:
        made.append({"id": f"s-{len(made)}", "ts": f"{moment:%Y-%m-%dT%H:%M:%SZ}"} | members)

    documents, began = {}, datetime(2026, 11, 19, 8, tzinfo=zone)

    def change(collection: str, key: str, op: str, doc: dict | None, **members) -> None:
        members |= {"collection": collection, "docId": key, "store": "document"}
        if (before := documents.get(key)) is not None:
            members["prev"] = before
        if doc is not None:
            members["doc"] = doc
        documents[key] = doc
        add(began + timedelta(minutes=len(made)), op=op, **members)

    change("users", "user-0-1", "c", {"name": "Ann", "type": "Person"}, bookmark="A1", actor="User/ada")
    change("users", "user-0-1", "u", {"name": "Bea"}, bookmark="B1")
    change("orders", "order-7", "c", {"total": 7}, bookmark="B1-a")
    change("users", "user-0-2", "c", {"name": "Cay"}, bookmark="B1-b")
    change("users", "user-0-1", "d", None, bookmark="B2")
    change("users", "user-0-2", "u", {"name": "Dan"}, bookmark="B3")
    change("customers", "acme", "c", {"name": "Acme", "type": "Company"}, bookmark="C1")
    change("customers", "acme", "u", {"name": "ACME"}, bookmark="C2")
    change("customers", "acme", "d", None, bookmark="C3")
    for collection in ("users", "users", "orders"):
        change(collection, f"{collection}-{len(made)}", "u", {"n": len(made)}, type="collection.update")
    for n in range(112):
        op = "cud"[n % 3]
        change("tasks", f"task-{n // 3}", op, None if op == "d" else {"step": op}, actor="User/ada")
    change("tasks", "task-of-eve", "c", {"step": "c"}, actor="User/eve")
    change("tasks", "task-read", "r", {"step": "r"}, actor="User/ada")
    # Other numbers of each class and method, and more than the limits of the statements.
    calls = 500 * [("Room", "get")] + 300 * [("Room", "list")] + 150 * [("Hall", "get")] + 55 * [("Hall", "put")]
    for n, (kind, method) in enumerate(calls):
        add(datetime(2026, 11, 20, 14, tzinfo=zone) + timedelta(seconds=7 * n), type="rpc.call", method=method, durationMs=n * 37 % 101 / 4, success=n % 20 != 0, do={"class": kind})
    for n, kind in enumerate(["Order.placed"] * 3 + ["Order.shipped"] * 2):
        add(datetime(2026, 11, 20, 14, 59, 2 + 2 * n, tzinfo=zone), type=kind, data={"n": n}, correlationId=f"r-{n}", _meta={"source": "shop"})
    # A URL fails as often as its number says; every one of them once does not.
    for n in range(1, 23):
        for failed in [False] + n * [True]:
            add(datetime(2026, 11, 18, 3, tzinfo=zone) + timedelta(seconds=len(made)), type="tail.request", url=f"/v1/{n}", statusCode=503 if failed else 200)
    # One day may end before a statement is run, and the next one begin.
    today = datetime.now(zone).replace(hour=12, minute=0, second=0, microsecond=0)
    for days in (-2, 0, 1):
        add(today + timedelta(days=days), type="Customer.created", data={"days": days})
        add(today + timedelta(days=days, seconds=1), type="Customer.left")
    # Another year is in none of the paths.
    add(datetime(2024, 11, 20, 14, 30, tzinfo=zone), type="rpc.call", method="get", durationMs=9_999, success=True, do={"class": "Room"}, url="/old", statusCode=500)
    return made


def earlier_statements() -> dict[str, str]:
    """The statements of the file by their names, without a letter changed."""
    parts = (Path(__file__).parent / "earlier_statements.sql").read_text().split("\n-- ")[1:]
    return {name: statement.strip() for name, _, statement in (part.partition("\n") for part in parts)}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server that asks for tokens."""
    server = Server(tmp_path_factory.mktemp("guarded"), ["--set", "auth=on"])
    yield server.start()
    server.stop()


def make_token(server, name: str, *scopes: str) -> str:
    words = [word for scope in scopes for word in ("--scope", scope)]
    return server.run("token", "create", name, *words, "--data-dir", str(server.folder / "data")).strip()


@pytest.fixture(scope="module")
def client(server):
    """Who may only read."""
    return Client(server.url, token=make_token(server, "reader", *(f"read:{catalog_name(name)}" for name in (NAMESPACE, EARLIER))))


@pytest.fixture(scope="module")
def duck(server, catalog_uri):
    """DuckDB, once the events are in a snapshot."""
    token = make_token(server, "sender", "ingest:*", "write:*")
    lines, _ = generate(EVENTS, START, seed=58)
    sent = send_all(server.url, lines, workers=2, size=1000, query="?backfill=true", token=token)
    assert set(sent.replies) == {200}, sent.errors[:3]
    sender = Client(server.url, token=token)
    status, reply = sender.send([json.dumps(event) for event in earlier_events()], EARLIER, "?backfill=true")
    assert status == 200, reply
    for namespace in (NAMESPACE, EARLIER):
        sender.commit(namespace)
    return DuckDB(catalog_uri, token)


def comparable(rows) -> list[tuple]:
    """Dates are text in JSON."""
    return [tuple(value.isoformat() if isinstance(value, date) else value for value in row) for row in rows]


@pytest.mark.parametrize("question", PAIRS)
def test_answers_are_those_of_duckdb(client, duck, question):
    ours, theirs = PAIRS[question]
    expected = comparable(duck.rows(theirs.format(t=duck.table(catalog_name(NAMESPACE), "events"))))
    found = client.sql(NAMESPACE, ours)
    assert expected and len(found) == len(expected)
    for row, wanted in zip(found, expected):
        assert list(row) == [pytest.approx(value) if isinstance(value, float) else value for value in wanted]


def test_no_statement_of_the_file_is_left_out():
    assert earlier_statements().keys() == STATEMENTS.keys() and len(STATEMENTS) == 19


@pytest.mark.parametrize("question", STATEMENTS)
def test_statements_of_the_earlier_files_run_as_they_were_written(client, duck, question):
    body = json.dumps({"sql": earlier_statements()[question]})
    status, _, raw = client.request("POST", f"/v1/{EARLIER}/sql", body, {"content-type": "application/json", "accept": "application/json"})
    assert status == 200, raw
    answer = json.loads(raw)
    theirs, ordered = STATEMENTS[question]
    wanted = comparable(duck.rows(theirs.format(t=duck.table(catalog_name(EARLIER), "events"), now=answer["basis"]["clock"])))
    moments = [at for at, column in enumerate(answer["columns"]) if column["type"].startswith("timestamp")]
    found = [tuple(datetime.fromisoformat(value.replace("Z", "+00:00")).isoformat() if at in moments and value else value for at, value in enumerate(row)) for row in answer["rows"]]
    assert wanted and len(found) == len(wanted)
    assert [[row[at] for at in ordered] for row in found] == [[row[at] for at in ordered] for row in wanted]
    # Rows that are equal in these columns have no order, and neither have those of a statement without one.
    for row, expected in zip(sorted(found, key=exact_values), sorted(wanted, key=exact_values)):
        assert list(row) == [pytest.approx(value) if isinstance(value, float) else value for value in expected]


def exact_values(row: tuple) -> list[str]:
    """What rows are sorted by: no numbers, because JSON has 25 where DuckDB has 25.0."""
    return [repr(value) for value in row if not isinstance(value, (int, float))]


def test_a_summary_has_the_columns_and_values_of_duckdb(client, duck):
    table = duck.table(catalog_name(NAMESPACE), "events")
    of = "SELECT seq, type, duration_ms, success FROM {t}"
    theirs = duck.rows(f"SUMMARIZE {of.format(t=table)}")
    ours = client.sql(NAMESPACE, f"SUMMARIZE {of.format(t='events')}")
    assert len(ours) == len(theirs) == 4
    for row, wanted in zip(ours, theirs):
        assert len(row) == len(wanted) == 12 and row[0] == wanted[0]
        assert row[10] == wanted[10] and row[11] == pytest.approx(float(wanted[11]), abs=0.01)
        assert row[4] == pytest.approx(wanted[4], rel=0.2)
        if row[0] in ("seq", "type"):
            assert (row[2], row[3]) == (wanted[2], wanted[3])
        if row[0] == "duration_ms":
            assert list(row[5:7]) == [pytest.approx(float(value)) for value in wanted[5:7]]
    assert client.sql(NAMESPACE, "SUMMARIZE events")[0][0] == "id"
