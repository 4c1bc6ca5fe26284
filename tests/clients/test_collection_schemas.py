"""Typed columns of a collection's table are read by every engine: those of the first schema, wider ones, and later ones in old rows."""
import json
from datetime import date, datetime, timezone
from decimal import Decimal

import polars
import pytest
from engines import DuckDB, PyIceberg, Spark

NAMESPACE, TABLE = "typed", "cdc_orders"
COLUMNS = ("key", "total", "count", "paid", "placed", "day", "lines", "doc_seq", "misfits")
UUID = "67e55044-10b1-426f-9247-bb680e5fe0c8"
TIME = datetime(2026, 11, 20, 10, 0, 0, 500_000, timezone.utc)


def order(key, after):
    return json.dumps({"id": f"o-{key}", "type": "order", "op": "c", "collection": "orders", "key": key, "after": after})


def register(client, schema):
    status, _, raw = client.request("PUT", f"/v1/{NAMESPACE}/collections/orders/schema", json.dumps(schema).encode(), {"content-type": "application/json"})
    assert status == 200, raw
    reply = json.loads(raw)
    assert "pending" not in reply, reply
    return reply


FIRST = {
    "type": "object",
    "properties": {
        "total": {"type": "string", "format": "decimal", "precision": 8, "scale": 2},
        "count": {"type": "integer", "format": "int32"},
        "paid": {"type": "boolean"},
        "placed": {"type": "string", "format": "date-time"},
    },
}
WIDER = {
    "type": "object",
    "properties": FIRST["properties"]
    | {
        "total": {"type": "string", "format": "decimal", "precision": 20, "scale": 2},
        "count": {"type": ["integer", "null"]},
        "day": {"type": "string", "format": "date"},
        "lines": {"type": "array"},
        "seq": {"type": "string", "format": "uuid"},
    },
}


@pytest.fixture(scope="module")
def filled(server):
    """Documents of before the first schema, between both, and of after the second one."""
    client = server.client()
    full = {"total": "12.50", "count": 3, "paid": True, "placed": "2026-11-20T12:00:00.5+02:00", "day": "2026-11-20", "lines": [1, {"a": 2}], "seq": UUID.upper()}
    assert client.send([order("a", full), order("b", {"total": "x", "count": 2**31})], NAMESPACE)[0] == 200
    assert len(register(client, FIRST)["columns"]) == 4
    assert client.send([order("c", full | {"total": "123456789.00"})], NAMESPACE)[0] == 200
    assert len(register(client, WIDER)["changes"]) == 5
    assert client.send([order("d", {"count": None, "paid": "no"})], NAMESPACE)[0] == 200
    status, _, raw = client.request("POST", f"/v1/{NAMESPACE}/collections/orders/refresh", b"", {"content-type": "application/json"})
    assert status == 200, raw
    return server


ROWS = [
    ("a", Decimal("12.50"), 3, True, TIME, date(2026, 11, 20), [1, {"a": 2}], UUID, 0),
    ("b", None, 2**31, None, None, None, None, None, 1),
    ("c", Decimal("123456789.00"), 3, True, TIME, date(2026, 11, 20), [1, {"a": 2}], UUID, 0),
    ("d", None, None, None, None, None, None, None, 1),
]


def shown(rows):
    """Rows with times in UTC and JSON as what it says."""
    found = []
    for key, total, count, paid, placed, day, lines, seq, misfits in rows:
        if placed is not None:
            placed = (placed if placed.tzinfo else placed.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)
        found.append((key, total, count, paid, placed, day, None if lines is None else json.loads(lines), seq, misfits))
    return sorted(found, key=lambda row: row[0])


def test_sql_has_the_same_rows(filled):
    rows = filled.client().sql(NAMESPACE, "SELECT key, total, count, doc_seq, misfits FROM cdc_orders ORDER BY key")
    assert [tuple(row) for row in rows] == [(row[0], None if row[1] is None else str(row[1]), row[2], row[7], row[8]) for row in ROWS]


def test_duckdb_reads_typed_columns(filled):
    duck = DuckDB(filled.url + "/catalog")
    table = duck.table(NAMESPACE, TABLE)
    # Its values of timestamptz need pytz in Python.
    columns = ", ".join(f"{name} AT TIME ZONE 'UTC'" if name == "placed" else f'"{name}"' for name in COLUMNS)
    assert shown(duck.rows(f"SELECT {columns} FROM {table}")) == ROWS
    assert duck.rows(f"SELECT sum(total) FROM {table} WHERE placed > TIMESTAMPTZ '2026-01-01 00:00:00Z'") == [(Decimal("123456801.50"),)]


def test_pyiceberg_and_polars_read_typed_columns(filled):
    table = PyIceberg(filled.url + "/catalog").load(NAMESPACE, TABLE)
    rows = table.scan(selected_fields=COLUMNS).to_arrow().select(list(COLUMNS)).to_pylist()
    assert shown(tuple(row[name] for name in COLUMNS) for row in rows) == ROWS
    assert table.scan(row_filter="misfits > 0", selected_fields=("key",)).to_arrow().num_rows == 2
    # The columns kept their ids as they got wider.
    first = next(schema for schema in table.schemas().values() if any(field.name == "total" for field in schema.fields))
    assert table.schema().find_field("total").field_id == first.find_field("total").field_id
    assert str(table.schema().find_field("count").field_type) == "long"
    frame = polars.scan_iceberg(table).select(COLUMNS).collect()
    assert shown(frame.rows()) == ROWS


def test_spark_reads_typed_columns(filled, spark_session):
    spark = Spark(spark_session, filled.url + "/catalog")
    table = spark.table(NAMESPACE, TABLE)
    assert shown(spark.rows(f"SELECT {', '.join(f'`{name}`' for name in COLUMNS)} FROM {table}")) == ROWS
    assert spark.rows(f"SELECT count(*) FROM {table} WHERE total > 100") == [(1,)]
