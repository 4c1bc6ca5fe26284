"""Real events: the answers of every engine are those of DuckDB over the raw files.

Flights of January and July by default (56 000); ICECORE_FULL=1 takes the whole year (336 776).
"""
import json
import os
from collections import Counter
from decimal import Decimal

import pytest
from engines import DuckDB, Spark, connect_duckdb
from icecore import send_all
from real import flights, github, write

MONTHS = range(1, 13) if os.environ.get("ICECORE_FULL") == "1" else (1, 7)
NAMESPACE, SCHEMA = "flights.example", "flights_example"
COLUMNS = """{id: 'VARCHAR', type: 'VARCHAR', ts: 'TIMESTAMPTZ', event: 'VARCHAR', actor: 'VARCHAR', source: 'VARCHAR',
              duration_ms: 'DOUBLE', op: 'VARCHAR', collection: 'VARCHAR', key: 'VARCHAR', after: 'JSON'}"""
# Each question in the words that all three dialects share; `{}` is the table.
BY_TYPE = "SELECT type, count(*) FROM {} GROUP BY type ORDER BY type"
BUSIEST_ROUTES = "SELECT event, count(*) AS flights FROM {} GROUP BY event ORDER BY flights DESC, event LIMIT 20"
AIR_TIME = """SELECT actor, extract(month FROM ts) AS month, count(duration_ms), sum(duration_ms) FROM {}
              WHERE type = 'flight.departed' GROUP BY 1, 2 ORDER BY 1, 2"""
ONE_DAY = """SELECT source, count(*) FROM {} WHERE TIMESTAMP '2013-07-04 00:00:00' <= ts AND ts < TIMESTAMP '2013-07-05 00:00:00'
             GROUP BY source ORDER BY source"""
QUESTIONS = {"by_type": BY_TYPE, "busiest_routes": BUSIEST_ROUTES, "air_time": AIR_TIME, "one_day": ONE_DAY}
# The delay stands in the record's JSON; each engine has its own way to read it from there.
DELAYS = """SELECT actor, extract(month FROM ts) AS month, count(*), sum(CAST({delay} AS BIGINT))
            FROM {table} WHERE type = 'flight.departed' GROUP BY 1, 2 ORDER BY 1, 2"""
DUCKDB_DELAY = "json_extract_string(after, '$.dep_delay')"
SPARK_DELAY = "get_json_object(after, '$.dep_delay')"
OUR_DELAY = DUCKDB_DELAY


def plain(rows) -> list[tuple]:
    """Rows with every number as a float: engines differ in the type of a sum."""
    return [tuple(float(value) if isinstance(value, int | Decimal) else value for value in row) for row in rows]


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """The events as a file, and DuckDB with a view `raw` over it."""
    path = tmp_path_factory.mktemp("real") / "flights.ndjson"
    assert write(flights(MONTHS), path) == (336_776 if len(MONTHS) == 12 else 56_429)
    duck = connect_duckdb(extensions=())
    duck.execute(f"CREATE VIEW raw AS SELECT * FROM read_json('{path}', format = 'newline_delimited', columns = {COLUMNS})")
    return path, duck


@pytest.fixture(scope="module")
def ingested(server, raw):
    """All flights in Icecore, by its own command and twice: the second time nothing may be added."""
    for _ in range(2):
        server.run("ingest", str(raw[0]), "--url", server.url)
    server.client().commit(NAMESPACE)
    return raw[1]


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
def test_sql_answers_about_flights_as_duckdb_does_over_the_file(server, ingested, question):
    expected = plain(ingested.execute(question.format("raw")).fetchall())
    assert expected
    assert plain(server.client().sql(NAMESPACE, question.format("events"))) == expected


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
def test_engines_answer_about_flights_as_duckdb_does_over_the_file(catalog_uri, spark_session, ingested, question):
    expected = plain(ingested.execute(question.format("raw")).fetchall())
    duck, spark = DuckDB(catalog_uri), Spark(spark_session, catalog_uri)
    assert plain(duck.rows(question.format(duck.table(SCHEMA, "events")))) == expected
    assert plain(spark.rows(question.format(spark.table(SCHEMA, "events")))) == expected


def test_delays_by_carrier_and_month_agree_in_all_engines(server, catalog_uri, spark_session, ingested):
    expected = plain(ingested.execute(DELAYS.format(delay=DUCKDB_DELAY, table="raw")).fetchall())
    duck, spark = DuckDB(catalog_uri), Spark(spark_session, catalog_uri)
    assert plain(duck.rows(DELAYS.format(delay=DUCKDB_DELAY, table=duck.table(SCHEMA, "events")))) == expected
    assert plain(spark.rows(DELAYS.format(delay=SPARK_DELAY, table=spark.table(SCHEMA, "events")))) == expected
    assert plain(server.client().sql(NAMESPACE, DELAYS.format(delay=OUR_DELAY, table="events"))) == expected


def test_records_come_back_byte_for_byte(server, raw, ingested):
    with open(raw[0], encoding="utf-8") as lines:
        some = [next(lines) for _ in range(200)]
    sent = {json.loads(line)["id"]: line.split('"after":', 1)[1].rstrip("\n")[:-1] for line in some}
    ids = ", ".join(f"'{id}'" for id in sent)
    assert dict(server.client().sql(NAMESPACE, f"SELECT id, after FROM events WHERE id IN ({ids})")) == sent


def test_github_payloads_keep_their_types_and_bodies(server, catalog_uri, spark_session):
    events = list(github())
    lines = [json.dumps(event, ensure_ascii=False, separators=(",", ":")) for event in events]
    sent = send_all(server.url, lines, workers=4, size=50)
    assert set(sent.replies) == {200}, sent.errors[:3]
    by_type = Counter(event["type"] for event in events)
    client = server.client()
    assert dict(client.sql("github.example", "SELECT type, count(*) FROM events GROUP BY type")) == by_type
    client.commit("github.example")
    duck, spark = DuckDB(catalog_uri), Spark(spark_session, catalog_uri)
    assert duck.counts("github_example", "events", "type") == by_type
    assert spark.counts("github_example", "events", "type") == by_type
    payloads = dict(duck.rows(f"SELECT id, data FROM {duck.table('github_example', 'events')}"))
    assert {id: json.loads(data) for id, data in payloads.items()} == {event["id"]: event["data"] for event in events}
