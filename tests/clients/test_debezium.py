"""A stream of Debezium lands as the tables of the database: row by row what a PostgreSQL has that took the same statements.

Random statements go to a PostgreSQL whose triggers note every row that they change, as its log does. `debezium.py` writes of that what the connectors for
PostgreSQL and MySQL would; `LARGE=1` has 3 000 statements. Needs the server that TEST_POSTGRES names, which `./check` starts, and `psql`; passes without it but in CI.
"""
import glob
import json
import os
import random
import shutil
import subprocess
import uuid
from decimal import Decimal
from urllib.parse import urlsplit

import pytest
from debezium import COLUMNS, SQL_TYPES, Connector, sent_again

ROUNDS, STATEMENTS = (20, 150) if os.environ.get("LARGE") == "1" else (4, 60)
# How `id` is called in each table.
KEYS = {"orders": "bigint", "accounts": "text"}
FULL = {"accounts"}
BATCH = 40
SCHEMA = """
CREATE TABLE noted (n bigserial PRIMARY KEY, tx bigint DEFAULT txid_current(), tbl text, statement text, old json, new json);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO noted (tbl, statement, new) VALUES (TG_TABLE_NAME, TG_OP, row_to_json(NEW));
    ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO noted (tbl, statement, old, new) VALUES (TG_TABLE_NAME, TG_OP, row_to_json(OLD), row_to_json(NEW));
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO noted (tbl, statement, old) VALUES (TG_TABLE_NAME, TG_OP, row_to_json(OLD));
    ELSE
        INSERT INTO noted (tbl, statement) VALUES (TG_TABLE_NAME, TG_OP);
    END IF;
    RETURN NULL;
END $$;
"""


class Postgres:
    """A database of this test's own."""

    def __init__(self, server: str):
        self.server, self.name = server, f"debezium_{uuid.uuid4().hex}"
        self.psql = shutil.which("psql") or sorted(glob.glob("/usr/lib/postgresql/*/bin/psql"))[-1]
        self.run(server, f"CREATE DATABASE {self.name}")
        self.url = urlsplit(server)._replace(path=f"/{self.name}").geturl()

    def drop(self) -> None:
        self.run(self.server, f"DROP DATABASE {self.name} WITH (FORCE)")

    def run(self, url: str, script: str) -> str:
        command = [self.psql, url, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"]
        environment = os.environ | {"PGTZ": "UTC", "PGCLIENTENCODING": "UTF8"}
        done = subprocess.run(command, input=script.encode(), env=environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()[-2000:]
        return done.stdout.decode()

    def json(self, sql: str) -> list:
        """The one column of a query, which is JSON. Numbers with a point keep their digits."""
        return [json.loads(line, parse_float=Decimal) for line in self.run(self.url, sql).splitlines() if line]

    def rows(self) -> dict[str, list[dict]]:
        return {table: self.json(f"SELECT row_to_json(t) FROM {table} t ORDER BY id") for table in KEYS}

    def noted(self, after: int) -> tuple[int, list[tuple]]:
        """What changed since, and up to where that is."""
        found = self.json(f"SELECT json_build_array(n, tx, tbl, statement, old, new) FROM noted WHERE n > {after} ORDER BY n")
        return (found[-1][0] if found else after), [tuple(row[1:]) for row in found]


class Statements:
    """Random statements. Values are written as SQL."""

    def __init__(self, seed: int):
        self.random, self.next = random.Random(seed), 1

    def script(self, count: int) -> str:
        lines = []
        while 0 < count:
            size = self.random.choice([1, 1, 1, 3, 6])
            lines += ["BEGIN;", *(self.statement() for _ in range(size)), self.random.choice(["COMMIT;"] * 6 + ["ROLLBACK;"])]
            count -= size
        return "\n".join(lines)

    def statement(self) -> str:
        table, dice = self.random.choice(sorted(KEYS)), self.random.random()
        if dice < 0.4:
            return self.insert(table)
        if dice < 0.7:
            names = self.random.sample(sorted(COLUMNS), self.random.randrange(1, 4))
            values = ", ".join(f"{name} = {self.value(name)}" for name in names)
            return f"UPDATE {table} SET {values} WHERE {self.some(table)};"
        if dice < 0.85:
            return f"DELETE FROM {table} WHERE {self.some(table)};"
        if dice < 0.985:
            # A large value that a log has not is not known of a new key, either, but with the whole row before.
            bound = "" if table in FULL else " AND coalesce(length(big), 0) < 500 AND coalesce(cardinality(numbers), 0) < 500"
            return f"UPDATE {table} SET id = {self.new_id(table)} WHERE {self.one(table)}{bound};"
        return f"TRUNCATE {self.random.choice(['orders', 'accounts', 'orders, accounts'])};"

    def insert(self, table: str) -> str:
        rows = [[self.new_id(table), *map(self.value, COLUMNS)] for _ in range(self.random.randrange(1, 5))]
        values = ", ".join(f"({', '.join(row)})" for row in rows)
        return f"INSERT INTO {table} (id, {', '.join(COLUMNS)}) VALUES {values};"

    def new_id(self, table: str) -> str:
        self.next += 1
        return str(self.next) if table == "orders" else quoted(f"acc {self.next}/ü")

    def one(self, table: str) -> str:
        return f"id = (SELECT id FROM {table} ORDER BY md5(id::text || '{self.random.randrange(1 << 30)}') LIMIT 1)"

    def some(self, table: str) -> str:
        if self.random.random() < 0.6:
            return self.one(table)
        return f"id IN (SELECT id FROM {table} ORDER BY md5(id::text || '{self.random.randrange(1 << 30)}') LIMIT 4)"

    def value(self, name: str) -> str:
        kind, pick = COLUMNS[name], self.random
        if pick.random() < 0.1:
            return "NULL"
        if name == "big":
            # Two of three are stored beside the row.
            return quoted(pick.choice("abcü") * pick.choice([3, 800, 3000]))
        moment = f"20{pick.randrange(10, 40)}-0{pick.randrange(1, 10)}-{pick.randrange(10, 29)} 1{pick.randrange(10)}:0{pick.randrange(10)}:3{pick.randrange(10)}.{pick.randrange(10 ** 6):06}"
        return {
            "text": lambda: quoted(pick.choice(["Ann", "", "O'Hara \"x\" \\ é", "line\nbreak", "null"])),
            "decimal": lambda: str(Decimal(pick.randrange(-10 ** 9, 10 ** 9)).scaleb(-2)),
            "numeric": lambda: str(Decimal(pick.randrange(-10 ** 12, 10 ** 12)).scaleb(-pick.randrange(0, 9)).quantize(Decimal(1).scaleb(-8))),
            "double": lambda: repr(pick.uniform(-1e6, 1e6)),
            "date": lambda: f"'{moment[:10]}'",
            "timestamp": lambda: f"'{moment}'",
            "timestamptz": lambda: f"'{moment}+02'",
            "time": lambda: f"'{moment[11:]}'",
            "boolean": lambda: pick.choice(["true", "false"]),
            "bytes": lambda: f"'\\x{pick.randbytes(pick.randrange(9)).hex()}'",
            "json": lambda: quoted(json.dumps(pick.choice([{"a": [1, "b", None]}, [], "text", {"größe": {"x": 1 << 60}}]))),
            "uuid": lambda: f"'{uuid.UUID(int=pick.getrandbits(128))}'",
            "text[]": lambda: f"ARRAY[{', '.join(map(quoted, pick.sample(['a', 'b c', 'ü,'], pick.randrange(4))))}]::text[]",
            "int[]": lambda: f"ARRAY(SELECT generate_series(1, {pick.choice([0, 3, 600])}) * {pick.randrange(1, 9)})",
        }[kind]()


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


class Landed:
    """A namespace that gets the records of a connector."""

    def __init__(self, client, namespace: str, connector: Connector, seed: int):
        self.client, self.namespace, self.connector, self.random = client, namespace, connector, random.Random(seed)
        self.records: list = []
        # For each look at the database the last event and the rows that it had.
        self.looks: list[tuple[int, dict]] = []

    def send(self, records: list) -> None:
        for start in range(0, len(records), BATCH):
            self.records += records[start:start + BATCH]
            self.post(records[start:start + BATCH])
            if self.random.random() < 0.2:
                # The connector was ended before it noted how far it was.
                again = self.records[-self.random.randrange(1, 90):]
                self.post([sent_again(record, self.connector.tick()) for record in again])

    def post(self, records: list) -> None:
        lines = [json.dumps(record, ensure_ascii=self.random.random() < 0.5, separators=(",", ":")) for record in records]
        status, reply = self.client.send(lines, self.namespace)
        assert status == 200 and not reply.get("errors"), reply

    def look(self, rows: dict) -> None:
        [(seq,)] = self.client.sql(self.namespace, "SELECT max(seq) FROM events")
        self.looks.append((seq, rows))

    def check(self) -> None:
        for seq, rows in self.looks:
            for table, of_table in rows.items():
                found = self.client.sql(self.namespace, f"SELECT key, doc FROM cdc_{table} FOR SEQ AS OF {seq}")
                wanted = {str(row["id"]): json.loads(json.dumps(self.connector.row_of(table, row))) for row in of_table}
                assert {key: json.loads(doc) for key, doc in found} == wanted, (self.namespace, table, seq)
        kinds = dict(self.client.sql(self.namespace, "SELECT CASE WHEN op IS NULL THEN type ELSE 'change' END AS kind, count(*) FROM events GROUP BY 1"))
        # What was sent again is there once.
        assert kinds.pop("change") == self.connector.changes, kinds
        assert kinds.pop("cdc.truncate", 0) == self.connector.truncates, kinds
        assert set(kinds) <= {"debezium.heartbeat", "debezium.transaction", "debezium.schema_change"}, kinds


@pytest.fixture
def postgres():
    server = os.environ.get("TEST_POSTGRES")
    if server is None:
        assert "CI" not in os.environ, "TEST_POSTGRES is not set"
        pytest.skip("TEST_POSTGRES names no PostgreSQL")
    database = Postgres(server)
    yield database
    database.drop()


def tables(postgres: Postgres) -> None:
    columns = ", ".join(f"{name} {SQL_TYPES.get(kind, kind)}" for name, kind in COLUMNS.items())
    for table, key in KEYS.items():
        postgres.run(postgres.url, f"CREATE TABLE {table} (id {key} PRIMARY KEY, {columns});")
    postgres.run(postgres.url, SCHEMA)
    for table in KEYS:
        postgres.run(postgres.url, f"CREATE TRIGGER note_rows AFTER INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION note();"
                                   f"CREATE TRIGGER note_truncate AFTER TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION note();")


def test_a_stream_lands_as_the_tables_of_the_database(server, postgres, request):
    seed, client = request.config.getoption("--seed"), server.client()
    tables(postgres)
    connectors = {
        "pg-precise": Connector("postgresql", "precise", True, KEYS, FULL),
        "pg-string": Connector("postgresql", "string", False, KEYS, FULL),
        "mysql-double": Connector("mysql", "double", True, KEYS, FULL),
    }
    landed = [Landed(client, namespace, connector, seed) for namespace, connector in connectors.items()]
    statements = Statements(seed)
    # What was there before the connectors began is in their first snapshot alone.
    postgres.run(postgres.url, "\n".join(statements.insert(table) for table in KEYS for _ in range(6)))
    (at, _), rows = postgres.noted(0), postgres.rows()
    for of in landed:
        of.send([of.connector.schema_change(table) for table in KEYS] if of.connector.kind == "mysql" else [])
        of.send(of.connector.snapshot(rows))
        of.look(rows)
    for number in range(ROUNDS):
        emptied = "TRUNCATE accounts;" + statements.insert("accounts") if number == 1 else ""
        postgres.run(postgres.url, statements.script(STATEMENTS) + emptied)
        (at, changes), rows = postgres.noted(at), postgres.rows()
        for of in landed:
            of.send(of.connector.stream(changes))
            if number == 1:
                of.send(of.connector.snapshot(rows, "incremental"))
            of.look(rows)
    for of in landed:
        of.check()
