"""Random statements over two small tables, each in Icecore's spelling and in DuckDB's.

Where the two dialects differ on purpose the generator says it in both ways: whole numbers are divided with `/` here and `//` there,
`max` and `min` are not asked of floats with NaN (a known fault in docs/sql.md), NULLs have an explicit place in every ORDER BY, and `count_if` counts here (there it is NULL where every condition is).
"""
import random
from dataclasses import dataclass

INTS, FLOATS, TEXTS = ["i", "n", "k"], ["x", "y"], ["s", "c"]
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"]


@dataclass
class Statement:
    kind: str
    ours: str
    duck: str
    ordered: bool


class Pair(str):
    """A piece of SQL; `duck` is its other spelling where that differs."""

    duck: str

    def __new__(cls, ours, duck=None):
        made = super().__new__(cls, ours)
        made.duck = ours if duck is None else duck
        return made


def join(template, *parts):
    """A piece made of pieces, in both spellings."""
    return Pair(template.format(*map(str, parts)), template.format(*[getattr(part, "duck", part) for part in parts]))


class Generator:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def pick(self, *choices):
        return self.random.choice(choices)

    def chance(self, probability):
        return self.random.random() < probability

    # Expressions over the columns of a table that is called `a` (or `b`).

    def number(self, t, depth=2):
        r = self.random
        if depth == 0 or self.chance(0.4):
            return Pair(self.pick(f"{t}.{self.pick(*INTS)}", str(r.randint(-5, 20)), f"{t}.{self.pick(*INTS)}"))
        left, right = self.number(t, depth - 1), self.number(t, depth - 1)
        kind = r.randrange(9)
        if kind < 3:
            return join("({} " + self.pick("+", "-", "*") + " {})", left, right)
        if kind == 3:
            return self.division(left, r.randint(1, 7))
        if kind == 4:
            return join("({} % {})", left, r.randint(2, 7))
        if kind == 5:
            return join("coalesce({}, {})", left, right)
        if kind == 6:
            return join("CASE WHEN {} THEN {} ELSE {} END", self.condition(t, depth - 1), left, right)
        if kind == 7:
            return join("abs({})", left)
        return join(self.pick("nullif({}, {})", "greatest({}, {})", "least({}, {})", "mod({}, nullif(abs({}), 0))"), left, right)

    @staticmethod
    def division(left, by):
        return Pair(f"({left} / {by})", f"({left.duck} // {by})")

    def real(self, t, depth=1):
        if depth == 0 or self.chance(0.5):
            return Pair(f"{t}.{self.pick(*FLOATS)}")
        return join(self.pick("({} + {})", "({} - {})", "({} * 0.5 + {})", "coalesce({}, {})"), self.real(t, depth - 1), self.real(t, depth - 1))

    def text(self, t, depth=2):
        if depth == 0 or self.chance(0.4):
            return Pair(self.pick(f"{t}.{self.pick(*TEXTS)}", "'Ab'", f"{t}.{self.pick(*TEXTS)}"))
        inner = self.text(t, depth - 1)
        return join(self.pick("upper({})", "lower({})", "trim({})", "reverse({})", "substr({}, 2)", "substr({}, 1, 2)", "replace({}, 'a', 'zz')", "left({}, 2)",
                              "right({}, 2)", "({} || 'q')", "coalesce({}, 'none')", "lpad({}, 4, '*')", "concat({}, '-')", "split_part({}, 'a', 1)", "nullif({}, 'Ab')"), inner)

    def moment(self, t):
        column = f"{t}.ts"
        return Pair(self.pick(column, f"date_trunc('{self.pick('hour', 'day', 'week', 'month', 'quarter', 'year')}', {column})",
                              f"({column} + INTERVAL '{self.random.randint(1, 40)} days')", f"({column} - INTERVAL '{self.random.randint(1, 90)} minutes')",
                              f"time_bucket(INTERVAL '{self.pick('15 minutes', '6 hours', '3 days', '1 month')}', {column})",
                              f"({column} + INTERVAL '{self.random.randint(1, 14)} months')"))

    def part(self, t):
        name = self.pick("year", "month", "day", "hour", "minute", "quarter", "week", "doy", "dow")
        return Pair(f"extract({name} FROM {t}.ts)")

    def scalar(self, t):
        return self.pick(self.number, self.number, self.real, self.text, self.moment, self.part, self.flag, self.decimal, self.conversion)(t)

    def flag(self, t):
        return self.condition(t, 1)

    def decimal(self, t):
        return Pair(self.pick(f"{t}.d", f"({t}.d + 1.25)", f"({t}.d * 2)", f"({t}.d - {t}.d)", f"abs({t}.d)", f"coalesce({t}.d, 0.5)"))

    def conversion(self, t):
        return Pair(self.pick(f"CAST({t}.i AS varchar)", f"CAST({t}.n AS double)", f"CAST({t}.s AS varchar)", f"TRY_CAST({t}.c AS bigint)", f"CAST({t}.ts AS date)",
                              f"CAST(floor({t}.x) AS bigint)", f"CAST({t}.d AS double)", f"{t}.i::varchar || '!'", f"length(CAST({t}.n AS varchar))",
                              f"strftime({t}.ts, '%Y-%m-%d %H')", f"CAST({t}.i AS decimal(12,2))", f"CAST({t}.b AS int)"))

    # Conditions, with every position of NULL.

    def condition(self, t, depth=2):
        if 0 < depth and self.chance(0.45):
            left, right = self.condition(t, depth - 1), self.condition(t, depth - 1)
            return join(self.pick("({} AND {})", "({} OR {})", "(NOT ({}) OR {})", "(({}) IS TRUE AND {})", "(({}) IS NOT FALSE OR {})"), left, right)
        r = self.random
        kind = r.randrange(12)
        compare = self.pick("=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM", "IS NOT DISTINCT FROM")
        if kind < 3:
            return join("{} " + compare + " {}", self.number(t, 1), self.number(t, 1))
        if kind == 3:
            return join("{} IS " + self.pick("", "NOT ") + "NULL", self.pick(self.number(t, 1), self.text(t, 1), self.real(t)))
        if kind == 4:
            return join("{} " + self.pick("", "NOT ") + "IN ({})", f"{t}.{self.pick(*INTS)}", ", ".join(self.pick(str(r.randint(0, 9)), "NULL", str(r.randint(0, 9))) for _ in range(3)))
        if kind == 5:
            return join("{} " + self.pick("", "NOT ") + "BETWEEN {} AND {}", self.number(t, 1), r.randint(-3, 5), self.pick(r.randint(3, 12), "NULL"))
        if kind == 6:
            return join("{} " + self.pick("", "NOT ") + "LIKE {}", self.text(t, 1), self.pick("'a%'", "'%b%'", "'_b%'", "'%'", "'A_'", "'!%%' ESCAPE '!'"))
        if kind == 7:
            return join("{} " + compare + " {}", self.text(t, 1), self.pick("'ab'", "'Ab'", "''", f"{t}.c"))
        if kind == 8:
            return join("{} " + compare + " {}", self.real(t), self.pick("1", "0", "2.5", f"{t}.y", "'NaN'::double"))
        if kind == 9:
            return Pair(f"{t}.ts {self.pick('<', '<=', '>', '>=', '=', '<>')} {self.pick(chr(39) + '2024-03-01' + chr(39), chr(39) + '9999-12-31' + chr(39), 'timestamp ' + chr(39) + '1600-01-01' + chr(39), 'date ' + chr(39) + '2024-02-29' + chr(39))}")
        if kind == 10:
            return Pair(f"({t}.ts - timestamp '2024-02-01') {self.pick('<', '>')} INTERVAL '{self.pick('1 day', '400 hours', '0 days', '45 days')}'")
        return Pair(f"{t}.b")

    def query_of_one(self, kind):
        """A query for IN, ANY or ALL: of numbers or texts, with and without NULLs, or of no rows."""
        column = {"number": self.pick("b.i", "b.k", "b.n"), "text": self.pick("b.s", "b.c")}[kind]
        where = self.pick("", "", f" WHERE {column} IS NOT NULL", " WHERE b.i > 100", " WHERE b.i < 4", " WHERE b.b")
        return f"SELECT {column} FROM u b{where}"

    def over_query(self, t, correlated=True):
        kind = self.pick("number", "number", "text")
        value = {"number": self.pick(f"{t}.i", f"{t}.k", "3", "NULL", f"{t}.i + 1"), "text": self.pick(f"{t}.s", f"{t}.c", "'ab'")}[kind]
        query = self.query_of_one(kind)
        form = self.random.randrange(8)
        if form < 4:
            return Pair(f"{value} {self.pick('IN', 'NOT IN', 'NOT IN')} ({query})")
        if form < 6:
            return Pair(f"{value} {self.pick('=', '<>', '<', '<=', '>', '>=')} {self.pick('ANY', 'ALL')} ({query})")
        if not correlated:
            return Pair(f"{t}.i {self.pick('<', '>', '=')} (SELECT {self.pick('max', 'min')}(b.i) FROM u b)")
        return Pair(f"{self.pick('', 'NOT ')}EXISTS (SELECT 1 FROM u b WHERE b.{self.pick('i', 'k')} = {t}.{self.pick('i', 'k')}{self.pick('', ' AND b.b', f' AND b.n > {t}.n')})")

    def aggregate(self, t):
        r = self.random
        argument = self.pick(self.number(t, 1), self.number(t, 1), self.real(t), self.decimal(t))
        filter_ = join(" FILTER (WHERE {})", self.condition(t, 1)) if self.chance(0.25) else ""
        kind = r.randrange(12)
        if kind == 0:
            return join("count(*){}", filter_)
        if kind == 1:
            return join("count({}){}", argument, filter_)
        if kind == 2:
            return join("count(DISTINCT {}){}", argument, filter_)
        if kind < 6:
            return join("sum({}){}", argument, filter_)
        if kind == 6:
            return join("avg(CAST({} AS double)){}", argument, filter_)
        if kind == 7:
            return join(self.pick("bool_and", "bool_or") + "({}){}", self.condition(t, 1), filter_)
        if kind == 8:
            return join(self.pick("min", "max") + "({}){}", self.pick(self.number(t, 1), self.decimal(t), Pair(f"{t}.y"), self.text(t, 1), self.moment(t)), filter_)
        if kind == 9:
            return Pair(f"sum(DISTINCT {t}.i)")
        if kind == 10:
            count_if = Pair(f"count_if({t}.i > 3)", f"count(*) FILTER (WHERE {t}.i > 3)")
            made = self.pick(f"max_by({t}.id, {t}.n * 1000 + {t}.id)", f"min_by({t}.id, {t}.id)", count_if, f"median({t}.i)", f"quantile_cont({t}.x, 0.25)", f"string_agg({t}.s, ',' ORDER BY {t}.id)")
            return made if isinstance(made, Pair) else Pair(made)
        return join("max({}) - min({})", self.number(t, 1), self.number(t, 1))

    # Statements.

    def statement(self):
        kinds = [self.plain, self.plain, self.grouped, self.grouped, self.joined, self.nested, self.nested, self.combined, self.windowed, self.limited, self.zoned, self.with_cte]
        make = self.random.choice(kinds)
        piece, ordered = make()
        return Statement(make.__name__, str(piece), piece.duck, ordered)

    def source(self):
        return self.pick("t a", "t a", "u a")

    def plain(self):
        columns = [self.scalar("a") for _ in range(self.random.randint(1, 4))]
        listed = join(", ".join(["{} AS c%d" % at for at in range(len(columns))]), *columns)
        return join("SELECT a.id, {} FROM {} WHERE {} ORDER BY a.id", listed, self.source(), self.condition("a")), True

    def grouped(self):
        keys = [self.pick(self.number("a", 1), self.text("a", 1), self.flag("a"), self.moment("a"), Pair("a.c"), Pair("a.b"), self.real("a")) for _ in range(self.random.randint(0, 2))]
        aggregates = [self.aggregate("a") for _ in range(self.random.randint(1, 3))]
        listed = join(", ".join(["{} AS c%d" % at for at in range(len(keys) + len(aggregates))]), *keys, *aggregates)
        piece = join("SELECT {} FROM {} WHERE {}", listed, self.source(), self.condition("a", 1) if self.chance(0.5) else "true")
        if keys:
            piece = join("{} GROUP BY {}", piece, ", ".join(str(at + 1) for at in range(len(keys))))
            if self.chance(0.3):
                piece = join("{} HAVING {}", piece, self.pick("count(*) > 1", "sum(a.i) > 3", "max(a.s) IS NOT NULL"))
        return piece, False

    def joined(self):
        kind = self.pick("JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "JOIN")
        key = self.pick("a.i = b.i", "a.s = b.s", "a.k = b.k AND a.b = b.b", "a.i IS NOT DISTINCT FROM b.i", "a.x = b.x", "a.i = b.k + 1")
        if kind in ("JOIN", "LEFT JOIN") and self.chance(0.4):
            key += self.pick(" AND a.n > b.n", " AND b.i < 5", " AND a.y <= b.y")
        where = join(" WHERE {}", self.pick(self.condition("a", 1), self.condition("b", 1))) if self.chance(0.5) else ""
        if self.chance(0.3):
            return join("SELECT count(*), sum(a.i), sum(b.n), min(b.s) FROM t a {} u b ON {}{}", kind, key, where), False
        return join("SELECT a.id, b.id, {} FROM t a {} u b ON {}{}", self.pick(self.number("b", 1), self.text("a", 1)), kind, key, where), False

    def nested(self):
        kind = self.random.randrange(6)
        test = self.over_query("a")
        if kind == 0:
            return join("SELECT a.id, {} AS c FROM t a ORDER BY a.id", self.over_query("a", correlated=False)), True
        if kind == 1:
            return join("SELECT a.id FROM t a WHERE {} OR {} ORDER BY a.id", test, self.condition("a", 1)), True
        if kind == 2:
            return join("SELECT a.id FROM t a WHERE NOT ({}) AND {} ORDER BY a.id", test, self.condition("a", 1)), True
        if kind == 3:
            return join("SELECT a.id FROM t a WHERE ({}) IS NULL ORDER BY a.id", self.over_query("a", correlated=False)), True
        if kind == 4:
            return join("SELECT a.id, (SELECT {} FROM u b WHERE b.i = a.i) AS c FROM t a ORDER BY a.id", self.pick("count(*)", "sum(b.n)", "max(b.s)", "count(b.x)")), True
        return join("SELECT a.id FROM t a WHERE {} AND {} ORDER BY a.id", test, self.over_query("a")), True

    def combined(self):
        column = self.pick("i", "s", "c", "k", "b", "x", "d", "ts")
        operator = self.pick("UNION", "UNION ALL", "INTERSECT", "EXCEPT", "EXCEPT ALL", "INTERSECT ALL", "INTERSECT", "EXCEPT")
        more = self.pick("", "", ", b", ", c")
        left, right = join("SELECT {}{} FROM t a WHERE {}", column, more, self.condition("a", 1)), join("SELECT {}{} FROM u a WHERE {}", column, more, self.condition("a", 1))
        return join("{} {} {}", left, operator, right), False

    def windowed(self):
        over = self.pick("PARTITION BY a.c ORDER BY a.id", "ORDER BY a.id", "PARTITION BY a.b ORDER BY a.n NULLS FIRST, a.id", "PARTITION BY a.i % 3 ORDER BY a.id DESC")
        frame = self.pick("", " ROWS BETWEEN 2 PRECEDING AND CURRENT ROW", " ROWS BETWEEN UNBOUNDED PRECEDING AND 1 FOLLOWING", " ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING")
        call = self.pick(f"sum(a.i) OVER ({over}{frame})", f"count(a.s) OVER ({over}{frame})", f"min(a.n) OVER ({over}{frame})", f"avg(a.x) OVER ({over}{frame})",
                         f"row_number() OVER ({over})", f"rank() OVER (PARTITION BY a.c ORDER BY a.i NULLS LAST)", f"dense_rank() OVER (ORDER BY a.k NULLS FIRST)",
                         f"lag(a.n) OVER ({over})", f"lead(a.s, 2) OVER ({over})", f"first_value(a.n) OVER ({over})", f"sum(a.d) OVER ({over}{frame})", f"ntile(3) OVER ({over})",
                         f"max(a.s) OVER (PARTITION BY a.b)", "percent_rank() OVER (ORDER BY a.id)")
        if self.chance(0.25):
            return Pair(f"SELECT a.id, a.c FROM t a QUALIFY row_number() OVER (PARTITION BY a.c ORDER BY a.id) = {self.random.randint(1, 2)} ORDER BY a.id"), True
        return join("SELECT a.id, {} AS w FROM t a WHERE {} ORDER BY a.id", call, self.condition("a", 1)), True

    def limited(self):
        key = self.pick("a.i", "a.s", "a.x", "a.n DESC", "a.ts", "a.d DESC", "upper(a.s)", "a.b")
        nulls = self.pick("NULLS FIRST", "NULLS LAST")
        shown = self.pick("", ", " + key.split()[0])
        if self.chance(0.2):
            return join("SELECT DISTINCT ON (a.c) a.c, a.id FROM t a WHERE {} ORDER BY a.c NULLS LAST, a.id", self.condition("a", 1)), True
        if self.chance(0.2):
            return join("SELECT DISTINCT {} FROM {} WHERE {}", self.pick("a.c, a.b", "a.i", "a.s", "a.x"), self.source(), self.condition("a", 1)), False
        return join("SELECT a.id{} FROM t a WHERE {} ORDER BY {} {}, a.id LIMIT {} OFFSET {}", shown, self.condition("a", 1), key, nulls, self.random.randint(1, 9), self.random.randint(0, 4)), True

    def zoned(self):
        zone = self.pick(*ZONES)
        kind = self.random.randrange(3)
        if kind == 0:
            return Pair(f"SELECT a.id, a.tz AT TIME ZONE '{zone}' AS c FROM t a ORDER BY a.id"), True
        if kind == 1:
            return Pair(f"SELECT a.id, a.ts AT TIME ZONE '{zone}' AS c FROM t a ORDER BY a.id"), True
        unit = self.pick("hour", "day", "month")
        return Pair(f"SELECT date_trunc('{unit}', a.tz AT TIME ZONE '{zone}') AS c, count(*) FROM t a GROUP BY 1"), False

    def with_cte(self):
        aggregate = self.aggregate("a")
        where = self.condition("a", 1)
        return join("WITH q AS (SELECT a.c AS g, {} AS v FROM t a WHERE {} GROUP BY 1) SELECT q.g, q.v, r.v FROM q LEFT JOIN q r ON q.g = r.g WHERE q.g IS NOT NULL", aggregate, where), False
