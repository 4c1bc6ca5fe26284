"""Generated statements against DuckDB over the same rows: equal answers, or a refusal that docs/sql.md lists.

The short form runs with the others. The long one:  ./check engines tests/clients/test_differential.py --statements 3000 [--seed 7]
"""
import random
from collections import Counter
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import duckdb
import pyarrow
import pytest
from answers import ask, ask_duck, listed_refusals
from engines import PyIceberg
from generate_sql import Generator, Statement
from icecore import Client

NAMESPACE = "diff"
SCHEMA = pyarrow.schema([
    ("id", pyarrow.int64()), ("i", pyarrow.int32()), ("n", pyarrow.int64()), ("k", pyarrow.int64()), ("x", pyarrow.float64()), ("y", pyarrow.float64()),
    ("s", pyarrow.string()), ("c", pyarrow.string()), ("b", pyarrow.bool_()), ("d", pyarrow.decimal128(12, 2)),
    ("ts", pyarrow.timestamp("us")), ("tz", pyarrow.timestamp("us", tz="UTC")),
])


def rows(random_, first, count):
    """Small values, so that joins and groups meet; one in six is NULL. Floats are exact in binary, so the order of a sum is no matter."""
    maybe = lambda value: None if random_.random() < 1 / 6 else value  # noqa: E731
    start = datetime(2024, 1, 15)
    times = [start + timedelta(minutes=random_.randint(0, 200_000), microseconds=random_.choice([0, 123456])) for _ in range(count)]
    times[:6] = [datetime(1601, 1, 1), datetime(9960, 12, 31, 23, 59), datetime(2024, 2, 29, 23, 30), datetime(2024, 3, 31, 1, 30), datetime(2024, 10, 27, 0, 30), datetime(2023, 12, 31)]
    odd = [float("nan"), float("nan"), float("inf"), float("-inf"), -0.0, 0.0]
    return pyarrow.Table.from_pylist([{
        "id": first + at, "i": maybe(random_.randint(0, 9)), "n": maybe(random_.randint(-1000, 100_000)), "k": maybe(random_.randint(0, 5)),
        "x": maybe(random_.choice([*odd, *[number / 4 for number in range(-8, 20)]])), "y": maybe(random_.randint(-8, 20) / 4),
        "s": maybe(random_.choice(["ab", "Ab", "", "abc", " b ", "%x", "ba", "zz", "Ünï", "日本", "a!b"])), "c": maybe(random_.choice(["1", "a", "2", "x"])),
        "b": maybe(random_.random() < 0.5), "d": maybe(Decimal(random_.randint(-5000, 5000)) / 100), "ts": maybe(times[at]),
        "tz": maybe(times[at].replace(tzinfo=timezone.utc)),
    } for at in range(count)], schema=SCHEMA)


# Answered wrong once.
FOUND = [
    "SELECT max(a.n), min(a.i + a.n) FROM u a",
    "SELECT a.id, b.id, b.k FROM t a LEFT JOIN u b ON a.x = b.x WHERE abs(b.k) IS NULL",
    "SELECT trim('Ab') AS c0, count(*) FROM t a WHERE a.ts > '9999-12-31' GROUP BY 1",
    "SELECT a.id, avg(a.x) OVER (ORDER BY a.id ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING) FROM t a",
    "SELECT a.id FROM t a WHERE a.i IS DISTINCT FROM a.k OR a.b",
    "SELECT a.id FROM t a WHERE a.i NOT IN (SELECT a.i FROM u a WHERE a.i > 3)",
    "SELECT a.k, max(a.x), min(a.x) FROM t a GROUP BY 1",
    "SELECT a.s, max(a.i) FROM t a WHERE a.i IS NULL GROUP BY a.s ORDER BY 2 DESC NULLS LAST LIMIT 30",
    "SELECT a.id, (a.i IN (4, NULL) AND a.i NOT IN (NULL, 5)) IS TRUE, (a.i NOT IN (1, NULL) OR a.i NOT IN (2, 3)) IS NULL FROM t a",
    "SELECT k FROM (VALUES (1), (3)) a(k) FULL JOIN (VALUES (2), (3)) b(k) USING (k)",
    "SELECT i, sum(i) OVER (ORDER BY i RANGE BETWEEN 2 PRECEDING AND 1 PRECEDING) FROM (VALUES (1), (2), (10), (11)) v(i)",
    "SELECT a.id, min(a.n) OVER (ORDER BY a.id ROWS BETWEEN CURRENT ROW AND CURRENT ROW) FROM t a",
    "SELECT (a.x * 'inf'::double) > 1, count(*) FROM t a GROUP BY 1",
    "SELECT a.id, CAST(a.ts AS date) + INTERVAL '30 hours' FROM t a",
    "SELECT a.id, CAST(a.ts AS date) - date '2024-02-28' FROM t a",
]


@pytest.fixture(scope="module")
def both(server, catalog_uri):
    """The same rows in Icecore, each table in two files, and in DuckDB."""
    catalog, duck = PyIceberg(catalog_uri).catalog, duckdb.connect()
    duck.execute("SET TimeZone = 'UTC'")
    catalog.create_namespace(NAMESPACE)
    random_ = random.Random(4711)
    for name, count in (("t", 60), ("u", 24), ("w", 1600)):
        parts = [rows(random_, 1, count // 2), rows(random_, 1 + count // 2, count // 2)]
        properties = {}
        if name == "w":  # Sorted, so that bounds of row groups and pages leave some out.
            parts = [part.sort_by("n") for part in parts]
            properties = {"write.parquet.row-group-limit": "200", "write.parquet.page-row-limit": "20"}
        table = catalog.create_table(f"{NAMESPACE}.{name}", SCHEMA, properties=properties)
        for part in parts:
            table.append(part)
        whole = pyarrow.concat_tables(parts)
        duck.register("rows_" + name, whole)
        duck.execute(f"CREATE TABLE {name} AS SELECT * FROM rows_{name}")
    return Client(server.url), duck


def test_answers_are_duckdbs_or_refused_with_a_reason_that_is_written_down(both, request):
    client, duck = both
    statements, seed = request.config.getoption("--statements"), request.config.getoption("--seed")
    generator, refusals = Generator(seed), listed_refusals()
    outcomes, wrong, refused = Counter(), [], Counter()
    found = [Statement("found", sql, sql, ordered=False) for sql in FOUND]
    for statement in [*found, *(generator.statement() for _ in range(statements))]:
        expected, duck_error = ask_duck(duck, statement.duck)
        rows, error = ask(client, NAMESPACE, statement.ours)
        if error is None and duck_error is None:
            same = rows == expected if statement.ordered else Counter(rows) == Counter(expected)
            outcomes["equal" if same else "different"] += 1
            if not same:
                wrong.append((statement, rows[:6], expected[:6]))
        elif error is not None and duck_error is not None:
            outcomes["both refuse"] += 1
        elif error is not None:
            reason = next((text for text in refusals if text in error), None)
            outcomes["refused" if reason else "refused without a reason that is listed"] += 1
            refused[reason or error[:120]] += 1
            if not reason:
                wrong.append((statement, error, expected[:6]))
        else:
            outcomes["only DuckDB refuses"] += 1
            wrong.append((statement, rows[:6], duck_error))
    print(f"\nseed {seed}, {statements} statements: {dict(outcomes)}; refused: {dict(refused)}")
    shown = "\n".join(f"{s.kind}: {s.ours}\n  ours {ours}\n  duck {theirs}" for s, ours, theirs in wrong[:25])
    assert not wrong, f"{len(wrong)} of {statements}: {dict(outcomes)}\n{shown}"
    assert outcomes["equal"] > statements * 0.8
