"""What users of the earlier files ask, by their paths and names, has the answers of DuckDB over the table's columns.

Each pair is a statement for Icecore and the same question for DuckDB, which reads the table through the catalog.
"""
from datetime import date, datetime, timezone

import pytest
from engines import DuckDB
from generate import generate
from icecore import catalog_name, send_all

NAMESPACE = "shop.example"
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


@pytest.fixture(scope="module")
def duck(server, catalog_uri):
    """DuckDB, once the events are in a snapshot."""
    lines, _ = generate(EVENTS, START, seed=58)
    sent = send_all(server.url, lines, workers=2, size=1000, query="?backfill=true")
    assert set(sent.replies) == {200}, sent.errors[:3]
    server.client().commit(NAMESPACE)
    return DuckDB(catalog_uri)


def comparable(rows) -> list[tuple]:
    """Dates are text in JSON."""
    return [tuple(value.isoformat() if isinstance(value, date) else value for value in row) for row in rows]


@pytest.mark.parametrize("question", PAIRS)
def test_answers_are_those_of_duckdb(server, duck, question):
    ours, theirs = PAIRS[question]
    expected = comparable(duck.rows(theirs.format(t=duck.table(catalog_name(NAMESPACE), "events"))))
    found = server.client().sql(NAMESPACE, ours)
    assert expected and len(found) == len(expected)
    for row, wanted in zip(found, expected):
        assert list(row) == [pytest.approx(value) if isinstance(value, float) else value for value in wanted]


def test_a_summary_has_the_columns_and_values_of_duckdb(server, duck):
    table = duck.table(catalog_name(NAMESPACE), "events")
    of = "SELECT seq, type, duration_ms, success FROM {t}"
    theirs = duck.rows(f"SUMMARIZE {of.format(t=table)}")
    ours = server.client().sql(NAMESPACE, f"SUMMARIZE {of.format(t='events')}")
    assert len(ours) == len(theirs) == 4
    for row, wanted in zip(ours, theirs):
        assert len(row) == len(wanted) == 12 and row[0] == wanted[0]
        assert row[10] == wanted[10] and row[11] == pytest.approx(float(wanted[11]), abs=0.01)
        assert row[4] == pytest.approx(wanted[4], rel=0.2)
        if row[0] in ("seq", "type"):
            assert (row[2], row[3]) == (wanted[2], wanted[3])
        if row[0] == "duration_ms":
            assert list(row[5:7]) == [pytest.approx(float(value)) for value in wanted[5:7]]
    assert server.client().sql(NAMESPACE, "SUMMARIZE events")[0][0] == "id"
