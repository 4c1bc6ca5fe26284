"""Random statements over tables as they are in a lake: events with JSON, a table of nested types, one whose schema and partitions changed.

A table is told by what can be asked of it: for each type, expressions over its columns. Spellings that differ are given twice (`Pair`); what the
dialects answer differently on purpose is not asked, and `DIFFERENCES` has each such rule with its reason.
"""
from dataclasses import dataclass

from generate_sql import Generator, Pair, Statement, join

# What is asked in another way, or not at all, because both answers are right; docs/sql.md names those that users meet.
DIFFERENCES = {
    "division of integers": "`/` here is `//` there (docs/sql.md)",
    "order of NULL": "every ORDER BY says NULLS FIRST or NULLS LAST (docs/sql.md)",
    "division and avg of decimals": "decimals are cast to a double before (docs/sql.md)",
    "floats as text": "their exponents are spelled differently: no float is cast to text",
    "sums of floats": "the order of adding shows in the last digits: floats are quarters, exact in any order",
    "real": "functions and arithmetic of it are in 32 bits (docs/sql.md): it is cast to a double before",
    "NaN and infinity": "null in JSON (docs/sql.md): compared as NULL",
    "length of a list": "`len` is of texts here, and of lists there too (docs/sql.md): asked by `array_length`, with 0 for an empty list",
    "lists": "NULL in a list is below values here (docs/sql.md): lists are not compared by `<`",
    "binary": "base64 in JSON: compared as such",
}


@dataclass(frozen=True)
class Table:
    """Expressions over a table's columns by type, with `{t}` for its alias; `key` is unique, of type `key_kind`."""

    name: str
    key: str
    kinds: dict
    duck: dict


def table(name, key, **kinds):
    """DuckDB's spelling of an expression, where it is another, stands behind ` @ `."""
    ours = {kind: [text.split(" @ ")[0] for text in texts] for kind, texts in kinds.items()}
    duck = {kind: [text.split(" @ ")[-1] for text in texts] for kind, texts in kinds.items()}
    return Table(name, key, ours, duck)


EVENTS = table(
    "events", "id",
    number=["{t}.seq", "{t}.status_code", "({t}.seq % 7)", "TRY_CAST(({t}.data ->> 'n') AS bigint)", "{t}.retries", "length({t}.data)", "TRY_CAST(({t}.data -> 'list' ->> 1) AS bigint)", "length({t}.url)"],
    real=["{t}.duration_ms", "TRY_CAST(({t}.data ->> 'price') AS double)", "({t}.duration_ms + 1)"],
    text=["{t}.type", "{t}.source", "{t}.collection", "{t}.op", "{t}.method", "{t}.actor", "({t}.data ->> 'city')", "{t}.url", "({t}.data -> 'deep' ->> 'a b')", "{t}.key", "({t}.after ->> 'name')", "{t}.error"],
    flag=["{t}.success", "{t}.verified", "(({t}.data ->> 'flag') = 'true')"],
    moment=["{t}.ts"],
    json=["{t}.data", "{t}.after"],
)
NESTED = table(
    "nested", "id",
    number=["{t}.id", "{t}.i", "{t}.st['n']", "{t}.l[1]", "{t}.l[2]", "{t}.m['a']", "coalesce(array_length({t}.l), 0) @ len({t}.l)", "{t}.ls[1]['q']", "{t}.st['in']['z']", "coalesce(array_length({t}.ls), 0) @ len({t}.ls)"],
    real=["{t}.x", "{t}.st['x']", "CAST({t}.f AS double)"],
    text=["{t}.s", "{t}.st['s']", "{t}.ts[1]", "{t}.u @ CAST({t}.u AS varchar)", "{t}.ls[1]['p']"],
    flag=["{t}.b", "array_contains({t}.l, 2) @ list_contains({t}.l, 2)", "{t}.st['b']", "array_contains({t}.ts, 'ab') @ list_contains({t}.ts, 'ab')"],
    moment=["{t}.tz"],
    decimal=["{t}.d", "{t}.st['d']"],
    day=["{t}.day"],
    whole=["{t}.st", "{t}.l", "{t}.ls", "{t}.m", "{t}.ts", "{t}.bin"],
)
EVOLVED = table(
    "evolved", "id",
    number=["{t}.id", "{t}.grown", "{t}.n", "{t}.k", "{t}.st['renamed']", "{t}.st['added']"],
    real=["{t}.wide", "{t}.x"],
    text=["{t}.name", "{t}.again", "{t}.kind", "{t}.added"],
    flag=["{t}.b"],
    moment=["{t}.tz"],
    decimal=["{t}.d"],
    day=["{t}.day"],
    whole=["{t}.st"],
)
TABLES = [EVENTS, EVENTS, NESTED, EVOLVED]
COMPARE = ["=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM", "IS NOT DISTINCT FROM"]
CONSTANTS = {
    "number": ["0", "1", "2", "5", "40", "200", "-3", "1000000", "NULL"], "real": ["0", "0.25", "2.5", "-1.75", "100", "'NaN'::double", "NULL"],
    "text": ["'ab'", "''", "'t1'", "'Ünï'", "'u'", "'cdc.update'", "'get'", "'zz'", "NULL"],
    "moment": ["TIMESTAMPTZ '2024-02-29 12:00:00+00'", "TIMESTAMPTZ '2024-03-31 01:30:00+00'", "TIMESTAMPTZ '2024-01-01 00:00:00+00'", "TIMESTAMPTZ '2025-01-01 02:00:00+02'"],
    "decimal": ["0", "1.25", "-20.5", "CAST('7.75' AS decimal(12,2))"], "day": ["DATE '2024-02-29'", "DATE '2024-01-31'", "DATE '1969-12-31'"],
}


class LakeGenerator(Generator):
    """As `Generator`, over the tables above."""

    def of(self, kind, t, source, depth=1):
        """An expression of this type over the table `source`, which is called `t`."""
        if kind not in source.kinds:
            kind = "number"
        at = self.random.randrange(len(source.kinds[kind]))
        leaf = Pair(source.kinds[kind][at].format(t=t), source.duck[kind][at].format(t=t))
        if depth == 0 or self.chance(0.4):
            return leaf
        again = lambda other=kind: self.of(other, t, source, depth - 1)  # noqa: E731
        made = getattr(self, "of_" + kind, None)
        return made(leaf, again, t, source, depth) if made else leaf

    def of_number(self, leaf, again, t, source, depth):
        form = self.random.randrange(11)
        if form < 3:
            return join("({} " + self.pick("+", "-", "*") + " {})", leaf, again())
        if form == 3:
            return self.division(leaf, self.random.randint(1, 7))
        if form == 4:
            return join("CASE WHEN {} THEN {} ELSE {} END", self.test(t, source, depth - 1), leaf, again())
        if form == 5:
            return join("length({})", again("text"))
        if form == 6:
            return join("extract(" + self.pick("year", "month", "day", "hour", "minute", "doy", "dow", "week", "quarter", "isodow", "isoyear") + " FROM {})", again("moment"))
        if form == 7:
            return join("CAST({} AS int)", again("flag"))
        return join(self.pick("coalesce({}, {})", "nullif({}, {})", "greatest({}, {})", "least({}, {})"), leaf, again())

    def of_real(self, leaf, again, t, source, depth):
        return join(self.pick("({} + {})", "({} - {})", "coalesce({}, {})", "(abs({}) + {})", "(floor({}) + {})", "(-{} + {})", "nullif({}, {})", "(CASE WHEN {} > 1 THEN 1.5 ELSE {} END)", "greatest({}, {})"), leaf, again())

    def of_text(self, leaf, again, t, source, depth):
        if self.chance(0.2):
            return join("CAST({} AS varchar)", self.pick(again("number"), again("flag"), again("day"), again("decimal")))
        if self.chance(0.1):
            return join("strftime({}, '%Y-%m-%d %H:%M')", again("moment"))
        return join(self.pick("upper({})", "lower({})", "trim({})", "reverse({})", "substr({}, 2, 3)", "replace({}, 'a', 'zz')", "left({}, 2)", "right({}, 3)", "({} || '·q')", "coalesce({}, 'none')", "lpad({}, 6, '*')",
                              "split_part({}, '.', 2)", "translate({}, 'abÜ', 'xy')", "concat_ws('-', {}, NULL, 'z')", "nullif({}, 'ab')", "md5({})", "repeat({}, 2)"), leaf)

    def of_moment(self, leaf, again, t, source, depth):
        n = self.random.randint(1, 40)
        return join(self.pick(f"({{}} + INTERVAL '{n} days')", f"({{}} - INTERVAL '{n} minutes')", f"({{}} + INTERVAL '{n} months')", f"date_trunc('{self.pick('hour', 'day', 'week', 'month', 'year')}', {{}})",
                              f"time_bucket(INTERVAL '{self.pick('15 minutes', '6 hours', '1 day')}', {{}})", "coalesce({}, TIMESTAMPTZ '2024-05-05 05:05:05+00')"), leaf)

    def of_decimal(self, leaf, again, t, source, depth):
        return join(self.pick("({} + 1.25)", "({} * 2)", "abs({})", "(-{})", "coalesce({}, 0.5)", "round({}, 1)", "CAST({} AS decimal(10,1))", "nullif({}, 1.5)"), leaf)

    def of_day(self, leaf, again, t, source, depth):
        return join(self.pick("({} + 31)", "({} - 1)", "CAST(date_trunc('month', {}) AS date)", "CAST({} + INTERVAL '1 month' AS date)", "coalesce({}, DATE '2024-02-29')"), leaf)

    def test(self, t, source, depth=2):
        """A condition, with every position of NULL."""
        if 0 < depth and self.chance(0.45):
            left, right = self.test(t, source, depth - 1), self.test(t, source, depth - 1)
            return join(self.pick("({} AND {})", "({} OR {})", "(NOT ({}) OR {})", "(({}) IS TRUE AND {})", "(({}) IS NOT FALSE OR {})", "(({}) IS NULL OR {})"), left, right)
        kind = self.pick(*[kind for kind in source.kinds if kind in CONSTANTS])
        value, form = self.of(kind, t, source, 1), self.random.randrange(12)
        if form < 5:
            return join("{} " + self.pick(*COMPARE) + " {}", value, self.pick(*CONSTANTS[kind]))
        if form == 5:
            return join("{} " + self.pick(*COMPARE) + " {}", value, self.of(kind, t, source, 1))
        if form == 6:
            return join("{} IS " + self.pick("", "NOT ") + "NULL", self.of(self.pick(*source.kinds), t, source, 0))
        if form == 7:
            return join("{} " + self.pick("", "NOT ") + "IN ({})", value, ", ".join(self.random.choices(CONSTANTS[kind], k=3)))
        if form == 8:
            return join("{} " + self.pick("", "NOT ") + "BETWEEN {} AND {}", value, *sorted(self.random.choices(CONSTANTS[kind], k=2)))
        if form < 11:
            return join("{} " + self.pick("", "NOT ") + "LIKE {}", self.of("text", t, source), self.pick("'t%'", "'%a%'", "'_b'", "'%'", "'cdc.%'", "'%!%%' ESCAPE '!'", "'%ï'", "''", "NULL", "'http%/1_'"))
        return self.of("flag", t, source, 0)

    def summary(self, t, source):
        """An aggregate."""
        filter_ = join(" FILTER (WHERE {})", self.test(t, source, 1)) if self.chance(0.25) else ""
        form = self.random.randrange(10)
        if form == 0:
            return join("count(*){}", filter_)
        if form == 1:
            return join("count({}){}", self.of(self.pick(*source.kinds), t, source), filter_)
        if form == 2:
            return join("count(DISTINCT {}){}", self.of(self.pick("number", "text", "moment", "flag"), t, source), filter_)
        if form < 5:
            return join("sum({}){}", self.of("number", t, source), filter_)
        if form == 5:
            return join("avg({}){}", self.pick(join("CAST({} AS double)", self.of("number", t, source)), self.of("real", t, source)), filter_)
        if form == 6:
            return join(self.pick("bool_and", "bool_or") + "({}){}", self.test(t, source, 1), filter_)
        if form == 7 and self.chance(0.4):
            return join("string_agg({}, ',' ORDER BY {}){}", self.of("text", t, source), f"{t}.{source.key}", filter_)
        if form == 7:
            return join("sum({}){}", self.of("real", t, source, 0), filter_)
        return join(self.pick("min", "max") + "({}){}", self.of(self.pick("number", "text", "moment", "real", "decimal", "day"), t, source), filter_)

    # Statements.

    def statement(self):
        make = self.random.choice([self.rows, self.rows, self.filtered, self.filtered, self.groups, self.groups, self.pairs, self.inner, self.united, self.over, self.top, self.whole, self.distinct, self.layers])
        piece, ordered = make()
        return Statement(make.__name__, str(piece), piece.duck, ordered)

    def kind(self, source):
        return self.pick(*[kind for kind in source.kinds if kind not in ("whole", "json")])

    def source(self):
        return self.pick(*TABLES)

    def rows(self):
        source = self.source()
        columns = [self.of(self.kind(source), "a", source, 2) for _ in range(self.random.randint(1, 4))]
        listed = join(", ".join(["{} AS c%d" % at for at in range(len(columns))]), *columns)
        return join("SELECT a.{0}, {1} FROM {2} a WHERE {3} ORDER BY a.{0}", source.key, listed, source.name, self.test("a", source, 1)), True

    def filtered(self):
        """What scans can take, of all tables and columns."""
        source = self.source()
        shown = self.pick(f"a.{source.key}", "count(*)", "count(*), min(a.%s), max(a.%s)" % (source.key, source.key))
        return join("SELECT {} FROM {} a WHERE {}", shown, source.name, self.test("a", source, 2)), False

    def groups(self):
        source = self.source()
        keys = [self.of(self.kind(source), "a", source) for _ in range(self.random.randint(0, 2))]
        values = [self.summary("a", source) for _ in range(self.random.randint(1, 3))]
        listed = join(", ".join(["{} AS c%d" % at for at in range(len(keys) + len(values))]), *keys, *values)
        piece = join("SELECT {} FROM {} a WHERE {}", listed, source.name, self.test("a", source, 1) if self.chance(0.5) else "true")
        if keys:
            group = ", ".join(str(at + 1) for at in range(len(keys)))
            piece = join("{} GROUP BY {}{}", piece, group, self.pick("", "", " HAVING count(*) > 2", f" HAVING max(a.{source.key}) IS NOT NULL"))
        return piece, False

    def pairs(self):
        left, right = self.source(), self.source()
        kind = self.pick("number", "number", "text", "day", "moment")
        on = join("{} = {}", self.of(kind, "a", left, 0), self.of(kind if kind in right.kinds and kind in left.kinds else "number", "b", right, 0)) if kind in left.kinds and kind in right.kinds else "a.id = b.id"
        if "a.id" in str(on) and "b.id" in str(on) and (left is EVENTS) != (right is EVENTS):
            on = join("{} = {}", self.of("number", "a", left, 0), self.of("number", "b", right, 0))
        how = self.pick("JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN")
        side, source = self.pick(("a", left), ("b", right))
        where = join(" WHERE {}", self.test(side, source, 1)) if self.chance(0.6) else ""
        shown = self.pick(Pair("count(*), count(a.id), count(b.id)"), join("count(*), {}", self.summary("a", left)), join("count(*), {}", self.summary("b", right)))
        return join("SELECT {} FROM {} a {} {} b ON {}{}", shown, left.name, how, right.name, on, where), False

    def inner(self):
        """Queries in expressions."""
        source, other = self.source(), self.source()
        kind = self.pick("number", "text")
        value, column = self.of(kind, "a", source, 0), self.of(kind, "b", other, 0)
        where = join(" WHERE {}", self.test("b", other, 1)) if self.chance(0.6) else ""
        test = self.pick(join("{} " + self.pick("IN", "NOT IN") + " (SELECT {} FROM {} b{})", value, column, other.name, where),
                         join(self.pick("", "NOT ") + "EXISTS (SELECT 1 FROM {} b WHERE {} = {})", other.name, column, value),
                         join("{} " + self.pick("<", ">", "=") + " (SELECT " + self.pick("max", "min") + "({}) FROM {} b{})", value, column, other.name, where))
        return join("SELECT a.{0} FROM {1} a WHERE {2} {3} {4} ORDER BY 1", source.key, source.name, test, self.pick("AND", "OR"), self.test("a", source, 1)), True

    def united(self):
        kind = self.pick("number", "text", "moment", "real")
        one, other = self.source(), self.source()
        parts = [join("SELECT {} AS v FROM {} a WHERE {}", self.of(kind, "a", source), source.name, self.test("a", source, 1)) for source in (one, other)]
        return join("{} {} {}", parts[0], self.pick("UNION", "UNION ALL", "INTERSECT", "EXCEPT", "EXCEPT ALL", "INTERSECT ALL"), parts[1]), False

    def over(self):
        source = self.source()
        part = join("PARTITION BY {} ", self.of(self.pick("text", "number", "flag"), "a", source, 0)) if self.chance(0.6) else ""
        order = self.pick(join("{} NULLS FIRST, a.{}", self.of(self.kind(source), "a", source, 0), source.key), Pair(f"a.{source.key}"), Pair(f"a.{source.key} DESC"))
        frame = self.pick("", " ROWS BETWEEN 2 PRECEDING AND CURRENT ROW", " ROWS BETWEEN 1 PRECEDING AND 2 FOLLOWING", " ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING")
        if self.chance(0.5):
            call, frame = self.pick(Pair("row_number()"), Pair("rank()"), Pair("dense_rank()"), join("lag({})", self.of("number", "a", source, 0)), join("lead({}, 2)", self.of("text", "a", source, 0)),
                                    join("first_value({})", self.of("number", "a", source, 0))), ""
        else:
            call = join(self.pick("sum", "min", "max", "count", "avg") + "({})", self.of("number", "a", source, 0))
        return join("SELECT a.{0}, {1} OVER ({2}ORDER BY {3}{4}) AS w FROM {5} a WHERE {6} ORDER BY a.{0}", source.key, call, part, order, frame, source.name, self.test("a", source, 1)), True

    def top(self):
        source = self.source()
        key = self.of(self.kind(source), "a", source)
        return join("SELECT a.{0}, {1} AS k FROM {2} a WHERE {3} ORDER BY k{4} NULLS {5}, a.{0} LIMIT {6} OFFSET {7}", source.key, key, source.name, self.test("a", source, 1), self.pick("", " DESC"),
                    self.pick("FIRST", "LAST"), self.random.randint(1, 12), self.random.randint(0, 5)), True

    def whole(self):
        """Structs, lists, maps, binaries and JSON as they are."""
        source = self.source()
        column = self.of("whole" if "whole" in source.kinds else "json", "a", source, 0)
        return join("SELECT a.{0}, {1} AS v FROM {2} a WHERE {3} ORDER BY a.{0}", source.key, column, source.name, self.test("a", source, 1)), True

    def distinct(self):
        source = self.source()
        return join("SELECT DISTINCT {} AS c0, {} AS c1 FROM {} a WHERE {}", self.of(self.kind(source), "a", source), self.of(self.kind(source), "a", source, 0), source.name, self.test("a", source, 1)), False

    def layers(self):
        """A query on a query that groups, read twice."""
        source = self.source()
        inner = join("SELECT {} AS g, {} AS v, count(*) AS n FROM {} a WHERE {} GROUP BY 1", self.of("text", "a", source, 0), self.summary("a", source), source.name, self.test("a", source, 1))
        return join("WITH q AS ({}) SELECT q.g, q.v, r.n FROM q {} q r ON q.g = r.g WHERE {}", inner, self.pick("JOIN", "LEFT JOIN", "FULL JOIN"), self.pick("true", "q.n > 1", "r.n IS NOT NULL OR q.g IS NULL")), False

    def partition(self):
        """Source and predicate: its rows are those where it is true, false and NULL."""
        source = self.source()
        if self.chance(0.3):
            other = self.source()
            key = join("{} = {}", self.of("number", "a", source, 0), self.of("number", "b", other, 0))
            side, one = self.pick(("a", source), ("b", other))
            return Pair(f"{source.name} a {self.pick('JOIN', 'LEFT JOIN', 'RIGHT JOIN', 'FULL JOIN')} {other.name} b ON {key}"), "a.id, b.id", self.test(side, one, 2)
        return Pair(f"{source.name} a"), f"a.{source.key}", self.test("a", source, 2)
