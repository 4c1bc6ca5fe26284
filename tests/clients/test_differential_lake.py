"""Generated statements over tables as they are in a lake have DuckDB's answers, and each predicate divides the rows of a table.

Of the events some are in snapshots and some in the log when Icecore is asked; DuckDB reads the same tables through the catalog, after a commit,
in the long form with each statement.
That has 5 000 statements, and asks each once more after the commit:  LARGE=1 ./check engines tests/clients/test_differential_lake.py [--seed 7]
"""
import json
import os
import random
from collections import Counter
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import duckdb
import pyarrow
import pytest
from answers import ask, listed_refusals, plain
from engines import DuckDB, PyIceberg
from generate_lake_sql import EVOLVED, NESTED, LakeGenerator
from generate_sql import Statement
from icecore import Client
from pyiceberg.schema import Schema
from pyiceberg.transforms import BucketTransform, DayTransform
from pyiceberg.types import (
    BinaryType, BooleanType, DateType, DecimalType, DoubleType, FloatType, IntegerType, ListType, LongType, MapType, NestedField, StringType, StructType, TimestamptzType, UUIDType,
)
from server import Server

NAMESPACE = "lake"
LARGE = "LARGE" in os.environ
STATEMENTS, PREDICATES = (5_000, 1_500) if LARGE else (120, 40)
TEXTS = ["ab", "Ab", "", "abc", " b ", "ba", "zz", "Ünï", "日本", "a.b.c", "t1"]
START = datetime(2024, 1, 15, tzinfo=timezone.utc)
MOMENTS = [datetime(2024, 2, 29, 23, 30), datetime(2024, 3, 31, 1, 30), datetime(2023, 12, 31, 23, 59, 59, 999999), datetime(2024, 12, 30), datetime(1969, 12, 31, 23)]


class Rows:
    """Small values, so that joins and groups meet; one in six is NULL."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def maybe(self, value):
        return None if self.random.random() < 1 / 6 else value

    def number(self, first=-5, last=9):
        return self.maybe(self.random.randint(first, last))

    def real(self):
        return self.maybe(self.random.randint(-8, 40) / 4)

    def text(self):
        return self.maybe(self.random.choice(TEXTS))

    def moment(self, at):
        known = MOMENTS[at].replace(tzinfo=timezone.utc) if at < len(MOMENTS) else None
        return known or START + timedelta(minutes=self.random.randint(0, 200_000), microseconds=self.random.choice([0, 0, 123456]))

    def event(self, n):
        """An event as a sender has it: members that are NULL are left out."""
        kind = self.random.choice(["t1", "t2", "page.view", "rpc.call", "cdc.update"])
        data = {"n": self.number(), "price": self.real(), "city": self.text(), "flag": self.random.choice([True, False]), "list": [self.number(0, 4), self.number(0, 4)], "deep": {"a b": self.text()}}
        if self.random.random() < 0.5:
            data["deep"] = None
        event = {"id": f"e{n:04}", "type": kind, "ts": self.moment(n).isoformat(), "source": self.text(), "actor": self.text(), "data": self.maybe(data), "method": self.maybe(self.random.choice(["get", "list", "put"])),
                 "durationMs": self.real(), "success": self.maybe(self.random.random() < 0.5), "statusCode": self.maybe(self.random.choice([200, 204, 404, 500])),
                 "url": self.maybe(f"https://ex.example/{self.random.randint(1, 30)}?q=%20"), "error": self.maybe("TimeoutError"), "verified": self.maybe(self.random.random() < 0.5)}
        if kind == "cdc.update":
            event |= {"op": "u", "collection": self.random.choice(["users", "orders"]), "key": f"k{self.random.randint(1, 9)}", "after": {"name": self.text(), "n": self.number()}}
        return json.dumps({name: value for name, value in event.items() if value is not None}, ensure_ascii=False)

    def nested(self, at):
        struct = {"n": self.number(), "x": self.real(), "s": self.text(), "b": self.maybe(self.random.random() < 0.5), "d": self.maybe(Decimal(self.random.randint(-900, 900)) / 100), "in": self.maybe({"z": self.number()})}
        pairs = [{"p": self.text(), "q": self.number()} for _ in range(self.random.randint(0, 3))]
        return {"id": at, "i": self.number(), "x": self.maybe(self.random.choice([float("nan"), float("inf"), 0.0, 1.25, -2.5])), "f": self.real(), "s": self.text(), "b": self.maybe(self.random.random() < 0.5),
                "tz": self.maybe(self.moment(at)), "d": self.maybe(Decimal(self.random.randint(-5000, 5000)) / 100), "day": self.maybe(date(2024, 1, 29) + timedelta(days=self.random.randint(0, 40))),
                "u": self.maybe(UUID(int=self.random.randint(0, 5) << 64)), "bin": self.maybe(bytes(self.random.choices(range(256), k=3))), "st": self.maybe(struct),
                "l": [self.number(0, 4) for _ in range(self.random.randint(0, 4))], "ts": [self.text() for _ in range(self.random.randint(0, 3))], "ls": pairs,
                "m": {key: self.number() for key in self.random.sample("abc", self.random.randint(0, 3))}}


def append(table, rows):
    schema = table.schema().as_arrow()

    def column(field):
        values = [row.get(field.name) for row in rows]
        if isinstance(field.type, pyarrow.ExtensionType):
            return field.type.wrap_array(pyarrow.array([value and value.bytes for value in values], type=field.type.storage_type))
        return pyarrow.array([list(value.items()) if isinstance(value, dict) and pyarrow.types.is_map(field.type) else value for value in values], type=field.type)

    table.append(pyarrow.Table.from_arrays([column(field) for field in schema], schema=schema))


def optional(first, /, **kinds):
    return [NestedField(first + at, name, kind, required=False) for at, (name, kind) in enumerate(kinds.items())]


def make_nested(catalog, rows):
    struct = StructType(*optional(30, n=LongType(), x=DoubleType(), s=StringType(), b=BooleanType(), d=DecimalType(6, 2), **{"in": StructType(*optional(40, z=LongType()))}))
    item = StructType(*optional(50, p=StringType(), q=LongType()))
    fields = optional(1, id=LongType(), i=IntegerType(), x=DoubleType(), f=FloatType(), s=StringType(), b=BooleanType(), tz=TimestamptzType(), d=DecimalType(12, 2), day=DateType(), u=UUIDType(), bin=BinaryType(), st=struct,
                      l=ListType(60, LongType(), element_required=False), ts=ListType(61, StringType(), element_required=False), ls=ListType(62, item, element_required=False),
                      m=MapType(63, StringType(), 64, LongType(), value_required=False))
    table = catalog.create_table(f"{NAMESPACE}.{NESTED.name}", Schema(*fields))
    for first in (0, 40):
        append(table, [rows.nested(at) for at in range(first, first + 40)])


def make_evolved(catalog, rows):
    """Columns are renamed, widened, added, dropped and added anew under their names; partitions change; rows are deleted."""

    def some(first, **more):
        made = []
        for at in range(first, first + 30):
            row = {"id": at, "n": rows.number(), "k": rows.number(0, 3), "x": rows.real(), "kind": rows.maybe(rows.random.choice(["t1", "t2", "u"])), "b": rows.maybe(rows.random.random() < 0.5),
                   "tz": rows.maybe(rows.moment(at)), "d": rows.maybe(Decimal(rows.random.randint(-5000, 5000)) / 100), "day": rows.maybe(date(2024, 2, 27) + timedelta(days=rows.random.randint(0, 9)))}
            made.append(row | {name: make() for name, make in more.items()})
        return made

    fields = optional(1, id=LongType(), grown=IntegerType(), wide=FloatType(), old_name=StringType(), again=LongType(), n=LongType(), k=LongType(), x=DoubleType(), kind=StringType(), b=BooleanType(),
                      tz=TimestamptzType(), d=DecimalType(9, 2), day=DateType(), st=StructType(*optional(30, first=IntegerType(), gone=StringType())))
    table = catalog.create_table(f"{NAMESPACE}.{EVOLVED.name}", Schema(*fields))
    append(table, some(0, grown=rows.number, wide=rows.real, old_name=rows.text, again=rows.number, st=lambda: rows.maybe({"first": rows.number(), "gone": rows.text()})))
    with table.update_schema() as update:
        update.rename_column("old_name", "name")
        update.update_column("grown", LongType())
        update.update_column("wide", DoubleType())
        update.update_column("d", DecimalType(12, 2))
        update.delete_column("again")
        update.rename_column(("st", "first"), "renamed")
        update.update_column(("st", "first"), LongType())
        update.delete_column(("st", "gone"))
        update.add_column("added", StringType())
    with table.update_schema() as update:
        update.add_column("again", StringType())
        update.add_column(("st", "added"), LongType())
    with table.update_spec() as update:
        update.add_identity("kind")
    newer = {"grown": lambda: rows.maybe(rows.random.choice([5, 2**40])), "wide": rows.real, "name": rows.text, "again": rows.text, "added": rows.text,
             "st": lambda: rows.maybe({"renamed": rows.number(), "added": rows.number()})}
    append(table, some(30, **newer))
    with table.update_spec() as update:
        update.add_field("id", BucketTransform(3), "id_bucket")
        update.add_field("tz", DayTransform(), "tz_day")
    append(table, some(60, **newer))
    table.delete("id > 20 AND id < 26")


class Lake:
    """A server with the tables, and DuckDB on its catalog once everything is committed."""

    def __init__(self, server):
        self.server, self.client, self.duck = server, Client(server.url, timeout=600), None

    def attach(self):
        self.client.commit(NAMESPACE)
        self.client.close()  # The server would, while DuckDB is asked.
        engine = DuckDB(self.server.url + "/catalog")
        self.duck = engine.connection
        for name in ("events", NESTED.name, EVOLVED.name):
            # In the short form the tables are read once.
            self.duck.execute(f"CREATE {'VIEW' if LARGE else 'TABLE'} {name} AS SELECT * FROM {engine.table(NAMESPACE, name)}")
        # In one transaction the tables' metadata is loaded once.
        self.duck.execute("BEGIN")

    def ask_duck(self, sql):
        try:
            cursor = self.duck.execute(sql)
            return [tuple(plain(value) for value in row) for row in cursor.fetchall()], None
        except duckdb.Error as error:
            self.duck.execute("ROLLBACK; BEGIN")
            return None, str(error)


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    settings = ("commit.interval=10min", "commit.interval_max=10min", "compaction.enabled=off", "wal.disk_free_min=0.001", "sql.timeout_max=10min")
    server = Server(tmp_path_factory.mktemp("icecore"), [word for setting in settings for word in ("--set", setting)]).start()
    try:
        yield filled(Lake(server))
    finally:
        server.stop()


def filled(lake):
    """The tables; a third of the events is in the log alone."""
    rows = Rows(4711)
    for first in (0, 80, 160):
        status, reply = lake.client.send([rows.event(n) for n in range(first, first + 80)], NAMESPACE, "?backfill=true")
        assert status == 200, reply
        if first < 160:
            lake.client.commit(NAMESPACE)
    catalog = PyIceberg(lake.server.url + "/catalog").catalog
    make_nested(catalog, rows)
    make_evolved(catalog, rows)
    return lake


def judged(statement, ours, theirs, refusals):
    """What became of a statement, and whether it is a fault."""
    (rows, error), (expected, duck_error) = ours, theirs
    if error is None and duck_error is None:
        same = rows == expected if statement.ordered else Counter(rows) == Counter(expected)
        return ("equal", False) if same else ("different", True)
    if error is not None and duck_error is not None:
        return "both refuse", False
    if error is None:
        return "only DuckDB refuses", True
    reason = next((text for text in refusals if text in error), None)
    return (f"refused: {reason}", False) if reason else ("refused without a reason that is listed", True)


def test_answers_are_duckdbs_through_the_catalog(lake, request):
    seed, refusals = request.config.getoption("--seed"), listed_refusals()
    generator = LakeGenerator(seed)
    statements: list[Statement] = [generator.statement() for _ in range(STATEMENTS)]
    committed = sum(count for (count,) in lake.client.sql(NAMESPACE, "SELECT record_count FROM events.files"))
    first = [ask(lake.client, NAMESPACE, statement.ours) for statement in statements]
    assert (committed, lake.client.sql(NAMESPACE, "SELECT count(*) FROM events")) == (160, [(240,)])
    lake.attach()
    outcomes, wrong = Counter(), []
    for statement, ours in zip(statements, first):
        theirs = lake.ask_duck(statement.duck)
        tries = [ours, ask(lake.client, NAMESPACE, statement.ours)] if LARGE else [ours]
        for answer in tries:
            outcome, fault = judged(statement, answer, theirs, refusals)
            outcomes[outcome] += 1
            if fault:
                wrong.append((outcome, statement, answer, theirs))
    print(f"\nseed {seed}, {STATEMENTS} statements: {dict(outcomes.most_common())}")
    shown = "\n".join(f"{outcome}, {s.kind}: {s.ours}\n  ours {(ours[0] or [])[:5]} {ours[1]}\n  duck {(theirs[0] or [])[:5]} {theirs[1]}" for outcome, s, ours, theirs in wrong[:30])
    assert not wrong, f"{len(wrong)} of {STATEMENTS}: {dict(outcomes)}\n{shown}"
    assert outcomes["equal"] > len(statements) * 0.8


def test_each_predicate_divides_the_rows(lake, request):
    """Rows where it is true, false and NULL are all rows, once each, and those that it has where no scan takes it."""
    generator, refusals, outcomes, wrong = LakeGenerator(request.config.getoption("--seed") + 1), listed_refusals(), Counter(), []
    for _ in range(PREDICATES):
        source, keys, test = generator.partition()
        parts = " UNION ALL ".join(f"SELECT {keys.replace('b.id', 'b.id AS other')}, {at} AS part FROM {source} WHERE {condition}" for at, condition in enumerate([f"{test}", f"NOT ({test})", f"({test}) IS NULL"]))
        together = f"SELECT {keys.replace('b.id', 'b.id AS other')}, CASE WHEN {test} THEN 0 WHEN NOT ({test}) THEN 1 ELSE 2 END AS part FROM {source}"
        (divided, error), (whole, other_error) = ask(lake.client, NAMESPACE, parts), ask(lake.client, NAMESPACE, together)
        if error is None and other_error is None:
            same = Counter(divided) == Counter(whole)
            outcomes["equal" if same else "different"] += 1
            if not same:
                wrong.append(f"{test} of {source}\n  only divided {list((Counter(divided) - Counter(whole)).elements())[:5]}, only whole {list((Counter(whole) - Counter(divided)).elements())[:5]}")
            continue
        unlisted = [text for text in (error, other_error) if text and not any(reason in text for reason in refusals)]
        outcomes["refused"] += 1
        if unlisted:
            wrong.append(f"{test} of {source}\n  {unlisted}")
    print(f"\n{PREDICATES} predicates: {dict(outcomes)}")
    assert not wrong, f"{len(wrong)} of {PREDICATES}:\n" + "\n".join(wrong[:20])
    assert outcomes["equal"] > PREDICATES * 0.7
