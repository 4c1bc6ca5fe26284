"""Tables that statements of ours make are everybody's: DuckDB and PyIceberg read them, and what PyIceberg adds we read."""
import json
from datetime import date, datetime, timezone
from decimal import Decimal

import pyarrow
import pytest
from engines import DuckDB, PyIceberg
from icecore import Refused
from server import Server

NAMESPACE = "shop"
EVENTS = 200


def event(number: int) -> str:
    ts = datetime(2024, 1, 1 + number // 100, 12, tzinfo=timezone.utc).isoformat()
    kind = "order" if number % 2 == 0 else "call"
    return json.dumps({"id": f"e{number}", "type": kind, "ts": ts, "data": {"n": number}})


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("icecore"), environment={"ICECORE_INGEST_TS_PAST": "10000d"})
    server.start()
    client = server.client()
    assert client.send([event(number) for number in range(EVENTS)], NAMESPACE)[0] == 200
    client.commit(NAMESPACE)
    yield server
    server.stop()


def write(client, sql: str) -> dict:
    status, _, raw = client.request("POST", f"/v1/{NAMESPACE}/sql", json.dumps({"sql": sql}), {"content-type": "application/json"})
    assert status == 200, raw
    return json.loads(raw)


def test_every_engine_reads_and_adds_to_a_table_of_a_statement(shop):
    client, uri = shop.client(), shop.url + "/catalog"
    made = write(client, "CREATE TABLE numbers AS SELECT id, CAST(json_extract_string(data, '$.n') AS bigint) AS n FROM events")
    assert made["rowCount"] == EVENTS
    added = write(client, f"INSERT INTO numbers (n, id) SELECT n + {EVENTS}, 'x' || CAST(n AS varchar) FROM numbers")
    assert added["rowCount"] == EVENTS and added["snapshot"] != made["snapshot"]
    table = PyIceberg(uri).load(NAMESPACE, "numbers")
    table.append(pyarrow.table({"id": pyarrow.array(["py"], pyarrow.string()), "n": pyarrow.array([-1], pyarrow.int64())}))
    write(client, "INSERT INTO numbers VALUES ('last', -2)")
    wanted = sorted([*range(2 * EVENTS), -1, -2])
    duck = DuckDB(uri)
    read = {
        "icecore": [row[0] for row in client.sql(NAMESPACE, "SELECT n FROM numbers")],
        "duckdb": [row[0] for row in duck.rows(f"SELECT n FROM {duck.table(NAMESPACE, 'numbers')}")],
        "pyiceberg": PyIceberg(uri).column(NAMESPACE, "numbers", "n").to_pylist(),
    }
    for engine, values in read.items():
        assert sorted(values) == wanted, engine
    # Bounds are true: each engine finds a row by them.
    assert duck.rows(f"SELECT id FROM {duck.table(NAMESPACE, 'numbers')} WHERE n = {EVENTS + 7}") == [("x7",)]
    found = PyIceberg(uri).load(NAMESPACE, "numbers").scan(row_filter=f"n == {EVENTS + 7}").to_arrow()
    assert found["id"].to_pylist() == ["x7"]


def test_values_of_each_type_are_the_same_everywhere(shop):
    client, uri = shop.client(), shop.url + "/catalog"
    write(client, """CREATE TABLE kinds AS SELECT true AS flag, CAST(7 AS int) AS small, CAST(8 AS bigint) AS large, CAST(1.5 AS real) AS short,
        CAST(2.5 AS double) AS long, CAST(12.34 AS decimal(9, 2)) AS price, CAST('12345678901234567890.5' AS decimal(30, 1)) AS wide,
        'é' AS text, DATE '2026-01-02' AS day, TIMESTAMP '2026-01-02 03:04:05.678901' AS wall, CAST('2026-01-02T03:04:05Z' AS timestamptz) AS instant""")
    wanted = {
        "flag": True, "small": 7, "large": 8, "short": 1.5, "long": 2.5, "price": Decimal("12.34"), "wide": Decimal("12345678901234567890.5"),
        "text": "é", "day": date(2026, 1, 2), "wall": datetime(2026, 1, 2, 3, 4, 5, 678901), "instant": datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
    }
    [row] = PyIceberg(uri).load(NAMESPACE, "kinds").scan().to_arrow().to_pylist()
    assert row == wanted
    duck = DuckDB(uri)
    columns = ", ".join(f'"{name}"' for name in wanted if name != "instant")
    [values] = duck.rows(f"SELECT {columns} FROM {duck.table(NAMESPACE, 'kinds')}")
    assert list(values) == [value for name, value in wanted.items() if name != "instant"]


def test_partitions_of_a_statement_are_those_of_iceberg(shop):
    client, uri = shop.client(), shop.url + "/catalog"
    write(client, "CREATE TABLE parts PARTITIONED BY (type, day(ts)) AS SELECT id, type, ts FROM events")
    table = PyIceberg(uri).load(NAMESPACE, "parts")
    assert [(field.name, str(field.transform)) for field in table.spec().fields] == [("type", "identity"), ("ts_day", "day")]
    assert len(list(table.scan().plan_files())) == 4
    assert len(list(table.scan(row_filter="type == 'call' and ts < '2024-01-02T00:00:00+00:00'").plan_files())) == 1
    duck = DuckDB(uri)
    assert duck.counts(NAMESPACE, "parts", "type") == {"order": EVENTS // 2, "call": EVENTS // 2}


def test_a_table_that_is_replaced_keeps_its_history_for_every_engine(shop):
    client, uri = shop.client(), shop.url + "/catalog"
    made = write(client, "CREATE TABLE again AS SELECT type, count(*) AS n FROM events GROUP BY type")
    write(client, "CREATE OR REPLACE TABLE again AS SELECT id, 'x' AS n FROM events")
    table = PyIceberg(uri).load(NAMESPACE, "again")
    rows = table.scan().to_arrow()
    assert (rows.column_names, rows.num_rows, set(rows["n"].to_pylist())) == (["id", "n"], EVENTS, {"x"})
    before = table.scan(snapshot_id=int(made["snapshot_str"])).to_arrow()
    assert sorted(before["n"].to_pylist()) == [EVENTS // 2, EVENTS // 2]
    duck = DuckDB(uri)
    assert duck.rows(f"SELECT count(*), min(n) FROM {duck.table(NAMESPACE, 'again')}") == [(EVENTS, "x")]


def test_lists_structs_and_maps_are_the_same_everywhere(shop):
    client, uri = shop.client(), shop.url + "/catalog"
    write(client, "CREATE TABLE nested AS SELECT [1, 2] AS several, {'a': 1, 'b': ['x']} AS parts, MAP {'k': 2} AS pairs")
    [row] = PyIceberg(uri).load(NAMESPACE, "nested").scan().to_arrow().to_pylist()
    assert (row["several"], row["parts"], dict(row["pairs"])) == ([1, 2], {"a": 1, "b": ["x"]}, {"k": 2})
    duck = DuckDB(uri)
    assert duck.rows(f"SELECT several, parts, map_values(pairs) FROM {duck.table(NAMESPACE, 'nested')}") == [([1, 2], {"a": 1, "b": ["x"]}, [2])]


def test_what_no_column_can_hold_is_refused(shop):
    client = shop.client()
    with pytest.raises(Refused) as refused:
        client.sql(NAMESPACE, "CREATE TABLE lengths AS SELECT ts - ts AS length FROM events")
    assert refused.value.status == 400 and b"`length`" in refused.value.body
