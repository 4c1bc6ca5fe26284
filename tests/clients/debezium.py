"""Rows of PostgreSQL in the forms in which Debezium's connectors for PostgreSQL and MySQL write them to Kafka Connect as JSON.

A `Connector` turns what triggers noted of each row into records: envelopes of snapshot and stream, tombstones, truncates, transactions, heartbeats, and
changes of schema; bare or with the converter's schemas.
"""
import base64
import json
import time
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

UNAVAILABLE = "__debezium_unavailable_value"
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# Each column of a table, with its type here.
COLUMNS = {
    "name": "text", "price": "decimal", "ratio": "numeric", "weight": "double", "born": "date", "made": "timestamp", "seen": "timestamptz", "hour": "time", "ok": "boolean",
    "raw": "bytes", "doc": "json", "uid": "uuid", "tags": "text[]", "numbers": "int[]", "big": "text",
}
SQL_TYPES = {"decimal": "numeric(12,2)", "double": "double precision", "bytes": "bytea", "json": "jsonb"}
# The scale of `price`.
SCALE = 2
# A value of so many characters or elements is stored beside its row.
TOASTED = 500
# Kafka Connect's type of each and, where it is another one, its meaning.
CONNECT = {
    "text": ("string", None), "double": ("double", None), "date": ("int32", "io.debezium.time.Date"), "timestamp": ("int64", "io.debezium.time.MicroTimestamp"),
    "timestamptz": ("string", "io.debezium.time.ZonedTimestamp"), "time": ("int64", "io.debezium.time.MicroTime"), "boolean": ("boolean", None), "bytes": ("bytes", None),
    "json": ("string", "io.debezium.data.Json"), "uuid": ("string", "io.debezium.data.Uuid"), "text[]": ("array", None), "int[]": ("array", None), "bigint": ("int64", None),
}


def unscaled(number: Decimal, scale: int) -> str:
    """The number without its point as Java writes big integers, in base64."""
    whole = int(number.scaleb(scale))
    size = (whole if 0 <= whole else ~whole).bit_length() // 8 + 1
    return base64.b64encode(whole.to_bytes(size, "big", signed=True)).decode()


def micros(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def encoded(kind: str, value, decimals: str):
    """A value of `row_to_json` as a connector with this `decimal.handling.mode` sends it."""
    if value is None:
        return None
    if kind in ("decimal", "numeric"):
        number = Decimal(value)
        if decimals == "string":
            return str(value)
        if decimals == "double":
            return float(number)
        scale = SCALE if kind == "decimal" else max(0, -number.as_tuple().exponent)
        return unscaled(number, scale) if kind == "decimal" else {"scale": scale, "value": unscaled(number, scale)}
    if kind == "double":
        return float(value)
    if kind == "date":
        return (date.fromisoformat(value) - date(1970, 1, 1)).days
    if kind == "timestamp":
        return micros(datetime.fromisoformat(value).replace(tzinfo=timezone.utc))
    if kind == "timestamptz":
        moment = datetime.fromisoformat(value).astimezone(timezone.utc)
        return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
    if kind == "time":
        return micros(datetime.fromisoformat(f"1970-01-01T{value}").replace(tzinfo=timezone.utc))
    if kind == "bytes":
        return base64.b64encode(bytes.fromhex(value.removeprefix("\\x"))).decode()
    if kind == "json":
        return json.dumps(value)
    return value


def unavailable(kind: str):
    """What stands for a value that is not in the log."""
    return {"text": UNAVAILABLE, "text[]": [UNAVAILABLE], "int[]": list(UNAVAILABLE.encode()), "bytes": base64.b64encode(UNAVAILABLE.encode()).decode()}[kind]


def is_toasted(value) -> bool:
    return isinstance(value, (str, list)) and TOASTED <= len(value)


class Connector:
    """A connector on the tables `keys`, which has the type of the column `id` of each; `full` are those with REPLICA IDENTITY FULL."""

    def __init__(self, kind: str, decimals: str, has_schemas: bool, keys: dict[str, str], full: set[str]):
        self.kind, self.decimals, self.has_schemas, self.keys, self.full = kind, decimals, has_schemas, keys, full
        self.position, self.row, self.transaction, self.orders = 24_000_000, 0, None, {}
        self.ms = int(time.time() * 1000) - 60_000
        self.changes = self.truncates = 0

    def row_of(self, table: str, row: dict | None) -> dict | None:
        if row is None:
            return None
        return {"id": row["id"]} | {name: encoded(kind, row[name], self.decimals) for name, kind in COLUMNS.items()}

    def snapshot(self, rows: dict[str, list[dict]], mode: str = "true") -> list:
        """Every row as it is read; `incremental` is a snapshot beside the stream."""
        self.position += 8
        found = [(table, row) for table, of_table in rows.items() for row in of_table]
        records = []
        for at, (table, row) in enumerate(found):
            is_last = at == len(found) - 1 and mode == "true"
            records.append(self.change(table, "r", None, self.row_of(table, row), "last" if is_last else mode))
        return records

    def stream(self, log: list[tuple]) -> list:
        """Records of what the database noted: transaction, table, statement, and the row before and after."""
        records = []
        for at, (transaction, table, statement, old, new) in enumerate(log):
            if transaction != self.transaction:
                records += self.end() + [self.boundary("BEGIN", transaction)]
                self.transaction, self.orders = transaction, {}
            self.step(is_same_statement=self.kind == "mysql" and at % 3 != 0)
            records += self.records_of(table, statement, old, new)
            if at % 25 == 7:
                records.append(self.wrapped("Heartbeat", {"ts_ms": self.tick()}))
        return records + self.end()

    def end(self) -> list:
        """The end of the transaction that there is."""
        if self.transaction is None:
            return []
        record = self.boundary("END", self.transaction)
        self.transaction = None
        return [record]

    def step(self, is_same_statement: bool) -> None:
        """Goes on in the log. Rows of one event of MySQL's log have one position and are counted."""
        if is_same_statement:
            self.row += 1
        else:
            self.position, self.row = self.position + 56, 0

    def records_of(self, table: str, statement: str, old: dict | None, new: dict | None) -> list:
        if statement == "TRUNCATE":
            self.truncates += 1
            envelope = {"source": self.source(table, "false"), "op": "t", "ts_ms": self.tick(), "transaction": self.order(table)}
            return [self.wrapped(table, envelope)]
        before, after = self.row_of(table, old), self.row_of(table, new)
        if self.kind == "postgresql" and table not in self.full and before is not None:
            # The log has the key alone.
            before = {name: value if name == "id" else None for name, value in before.items()}
        if statement == "INSERT":
            return [self.change(table, "c", None, after)]
        if statement == "DELETE":
            return [self.change(table, "d", before, None), self.tombstone()]
        if old["id"] != new["id"]:
            return [self.change(table, "d", before, None), self.tombstone(), self.change(table, "c", None, after)]
        if self.kind == "postgresql" and table not in self.full:
            before = None
            for name, kind in COLUMNS.items():
                if is_toasted(new[name]) and new[name] == old[name]:
                    after[name] = unavailable(kind)
        return [self.change(table, "u", before, after)]

    def change(self, table: str, op: str, before, after, snapshot: str = "false"):
        self.changes += 1
        order = None if op == "r" else self.order(table)
        envelope = {"before": before, "after": after, "source": self.source(table, snapshot), "op": op, "ts_ms": self.tick(), "transaction": order}
        return self.wrapped(table, envelope)

    def order(self, table: str) -> dict | None:
        if self.transaction is None:
            return None
        for name in ("", table):
            self.orders[name] = self.orders.get(name, 0) + 1
        return {"id": self.transaction_id(self.transaction), "total_order": self.orders[""], "data_collection_order": self.orders[table]}

    def transaction_id(self, transaction: int) -> str:
        return f"{transaction}:{self.first_position(transaction)}" if self.kind == "postgresql" else f"3e11fa47-71ca-11e1-9e33-c80aa9429562:{transaction}"

    def first_position(self, transaction: int) -> int:
        return 20_000_000 + transaction

    def source(self, table: str, snapshot: str) -> dict:
        source = {"version": "2.7.3.Final", "connector": self.kind, "name": "shop", "ts_ms": self.ms, "snapshot": snapshot, "db": "shop", "ts_us": self.ms * 1000, "ts_ns": self.ms * 1_000_000}
        if self.kind == "postgresql":
            sequence = json.dumps([str(self.position - 56), str(self.position)])
            return source | {"sequence": sequence, "schema": "public", "table": table, "txId": self.transaction or 499, "lsn": self.position, "xmin": None}
        is_stream = snapshot == "false"
        return source | {"sequence": None, "table": table, "server_id": 223344 if is_stream else 0, "gtid": self.transaction_id(self.transaction) if self.transaction else None,
                         "file": "mysql-bin.000003", "pos": self.position, "row": self.row, "thread": 7 if is_stream else None, "query": None}

    def boundary(self, status: str, transaction: int):
        counts = None
        if status == "END":
            counts = [{"data_collection": f"public.{name}", "event_count": count} for name, count in self.orders.items() if name]
        record = {"status": status, "id": self.transaction_id(transaction), "event_count": counts and self.orders[""], "data_collections": counts, "ts_ms": self.tick()}
        return self.wrapped("TransactionMetadata", record)

    def schema_change(self, table: str):
        """What the connector for MySQL writes when it meets a table."""
        columns = [{"name": name, "jdbcType": 12, "typeName": "VARCHAR", "position": at, "optional": True} for at, name in enumerate(COLUMNS, 1)]
        tables = [{"type": "CREATE", "id": f'"shop"."{table}"', "table": {"defaultCharsetName": "utf8mb4", "primaryKeyColumnNames": ["id"], "columns": columns}}]
        record = {"source": self.source(table, "true"), "ts_ms": self.tick(), "databaseName": "shop", "schemaName": None, "ddl": f"CREATE TABLE {table} (id bigint)", "tableChanges": tables}
        return self.wrapped("SchemaChangeValue", record)

    def tombstone(self):
        return {"schema": None, "payload": None} if self.has_schemas else None

    def tick(self) -> int:
        self.ms += 1
        return self.ms

    def wrapped(self, name: str, payload: dict):
        return {"schema": self.schema(name), "payload": payload} if self.has_schemas else payload

    def schema(self, name: str) -> dict:
        if name not in self.keys:
            return {"type": "struct", "fields": [], "optional": False, "name": f"io.debezium.connector.common.{name}"}

        def field_of(column: str, kind: str) -> dict:
            if kind in ("decimal", "numeric"):
                told = {"precise": ("bytes", "org.apache.kafka.connect.data.Decimal"), "string": ("string", None), "double": ("double", None)}[self.decimals]
                if kind == "numeric" and self.decimals == "precise":
                    told = ("struct", "io.debezium.data.VariableScaleDecimal")
            else:
                told = CONNECT[kind]
            field = {"type": told[0], "optional": column != "id", "field": column}
            return field | ({"name": told[1], "version": 1} if told[1] else {})

        row = [field_of("id", self.keys[name])] + [field_of(column, kind) for column, kind in COLUMNS.items()]
        images = [{"type": "struct", "fields": row, "optional": True, "name": f"shop.public.{name}.Value", "field": image} for image in ("before", "after")]
        more = [{"type": "string", "optional": False, "field": "op"}, {"type": "int64", "optional": True, "field": "ts_ms"}]
        return {"type": "struct", "fields": images + more, "optional": False, "name": f"shop.public.{name}.Envelope", "version": 2}


def sent_again(record, ms: int):
    """A record that a connector sends once more after its restart: it processes it at another time."""
    if not isinstance(record, dict):
        return record
    if isinstance(record.get("payload"), dict):
        return record | {"payload": sent_again(record["payload"], ms)}
    return record | {"ts_ms": ms} if "op" in record else record
