"""Random statements over small tables, and one of many row groups and pages, each in Icecore's spelling and in DuckDB's.

Where the two dialects differ on purpose the generator says it in both ways: whole numbers are divided with `/` here and `//` there,
digits of decimal quotients are not asked for, and functions that DuckDB refuses for NaN are asked of `y`, which has none; NULLs have an explicit place in every ORDER BY, and `count_if` counts here (there it is NULL where every condition is).
"""
import random
from dataclasses import dataclass

INTS, FLOATS, TEXTS = ["i", "n", "k"], ["x", "y"], ["s", "c"]
# From the earliest to the latest; a frame begins at one and ends at the same or a later one.
BOUNDS = ["UNBOUNDED PRECEDING", "3 PRECEDING", "1 PRECEDING", "CURRENT ROW", "1 FOLLOWING", "2 FOLLOWING", "UNBOUNDED FOLLOWING"]
ODD_TEXTS = {"bigint": ["+5", "007", "-0", "abc", "", "9223372036854775808", "--1"], "double": [".5", "5.", "1e3", "-inf", "NaN", "x", "1e", ""],
             "boolean": ["t", "f", "TRUE", "no", "x", "2"], "date": ["2024-02-30", "2024-2-3", "0001-01-01", "x", "2024-13-01"]}
# The standard's patterns, and DuckDB's regular expressions.
SIMILAR = {"a%": "(?s)a.*", "%b": "(?s).*b", "_b": "(?s).b", "(a|A)b": "(a|A)b", "[^a]%": "(?s)[^a].*", "日_": "日.", "%!%": ".*!.*", "": ""}
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
                              "right({}, 2)", "({} || 'q')", "coalesce({}, 'none')", "lpad({}, 4, '*')", "concat({}, '-')", "split_part({}, 'a', 1)", "nullif({}, 'Ab')",
                              "substr({}, 2, 1)", "rpad({}, 3, 'é')", "translate({}, 'abÜ', 'xy')", "left({}, -1)", "repeat({}, 2)", "concat_ws('·', {}, 'z', NULL)"), inner)

    def moment(self, t):
        column = f"{t}.ts"
        return Pair(self.pick(column, f"date_trunc('{self.pick('hour', 'day', 'week', 'month', 'quarter', 'year')}', {column})",
                              f"({column} + INTERVAL '{self.random.randint(1, 40)} days')", f"({column} - INTERVAL '{self.random.randint(1, 90)} minutes')",
                              f"time_bucket(INTERVAL '{self.pick('15 minutes', '6 hours', '3 days', '1 month')}', {column})",
                              f"({column} + INTERVAL '{self.random.randint(1, 14)} months')"))

    def part(self, t):
        name = self.pick("year", "month", "day", "hour", "minute", "quarter", "week", "doy", "dow", "isodow", "isoyear")
        return Pair(f"extract({name} FROM {t}.ts)")

    def dated(self, t):
        """Dates near the ends of months and leap days, moved by intervals and compared."""
        day = self.pick(f"CAST({t}.ts AS date)", "date '2024-02-29'", "date '2023-12-31'", "date '2100-02-28'", f"(date '2024-01-31' + {t}.i)")
        span = f"INTERVAL '{self.random.randint(1, 25)} {self.pick('hours', 'days', 'months', 'years', 'minutes')}'"
        return Pair(self.pick(f"({day} + {span})", f"({day} - {span})", f"({day} - date '2024-02-28')", f"date_trunc('month', {day} + {span})", f"({day} + {span} > {t}.ts)",
                              f"extract(day FROM {day} + {span})", f"CAST({day} + {span} AS date)", f"({day} = CAST({t}.ts AS date))"))

    def odd_cast(self, t):
        kind = self.pick(*ODD_TEXTS)
        return Pair(f"TRY_CAST('{self.pick(*ODD_TEXTS[kind])}' AS {kind})")

    def scalar(self, t):
        return self.pick(self.number, self.number, self.real, self.text, self.moment, self.part, self.flag, self.decimal, self.conversion, self.dated, self.odd_cast)(t)

    def flag(self, t):
        return self.condition(t, 1)

    def decimal(self, t):
        return Pair(self.pick(f"{t}.d", f"({t}.d + 1.25)", f"({t}.d * 2)", f"({t}.d - {t}.d)", f"abs({t}.d)", f"coalesce({t}.d, CAST('0.5' AS decimal(12,2)))",
                              f"({t}.d * {t}.d)", f"({t}.d % 3)", f"CAST({t}.d AS decimal(10,1))", f"(-{t}.d)", f"greatest({t}.d, {t}.i)", f"nullif({t}.d, 1)", f"round({t}.d, 1)"))

    def conversion(self, t):
        return Pair(self.pick(f"CAST({t}.i AS varchar)", f"CAST({t}.n AS double)", f"CAST({t}.s AS varchar)", f"TRY_CAST({t}.c AS bigint)", f"CAST({t}.ts AS date)",
                              f"CAST(floor({t}.x) AS bigint)", f"CAST({t}.d AS double)", f"{t}.i::varchar || '!'", f"length(CAST({t}.n AS varchar))",
                              f"strftime({t}.ts, '%Y-%m-%d %H')", f"CAST({t}.i AS decimal(12,2))", f"CAST({t}.b AS int)", f"CAST({t}.d AS varchar)",
                              f"CAST({t}.s AS varchar) || CAST({t}.d AS varchar)", f"TRY_CAST({t}.s AS double)", f"TRY_CAST({t}.s AS date)"))

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
            return join("{} " + self.pick("", "NOT ") + "LIKE {}", self.text(t, 1), self.pick("'a%'", "'%b%'", "'_b%'", "'%'", "'A_'", "'!%%' ESCAPE '!'", "'日_'", "'_n%'",
                                                                               "'%!%!_%' ESCAPE '!'", "'a!!b' ESCAPE '!'", "'Ab'", "''", "NULL"))
        if kind == 7:
            return join("{} " + compare + " {}", self.text(t, 1), self.pick("'ab'", "'Ab'", "''", f"{t}.c"))
        if kind == 8 and self.chance(0.2):
            ours, duck = self.pick(*SIMILAR.items())
            return Pair(f"{t}.s SIMILAR TO '{ours}'", f"{t}.s SIMILAR TO '{duck}'")
        if kind == 8:
            left = self.pick(self.real(t), self.real(t), Pair(f"-{t}.x"), Pair(f"({t}.x * 'inf'::double)"), Pair(f"({t}.x - {t}.x)"))
            return join("{} " + compare + " {}", left, self.pick("1", "0", "2.5", f"{t}.y", "'NaN'::double", "'-inf'::double"))
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
        if form == 6 and correlated:
            inner = self.pick(f"b.k = {t}.k", f"b.k = {t}.k AND b.n > {t}.n", f"b.b = {t}.b AND b.i <> {t}.i", f"b.i IS NOT DISTINCT FROM {t}.i")
            return Pair(self.pick(f"{t}.i {self.pick('IN', 'NOT IN')} (SELECT b.i FROM u b WHERE {inner})",
                                  f"{t}.n {self.pick('<', '>', '=')} (SELECT {self.pick('max(b.n)', 'min(b.n)', 'avg(b.n)', 'count(*)', 'sum(b.i)')} FROM u b WHERE {inner})"))
        if not correlated:
            return Pair(f"{t}.i {self.pick('<', '>', '=')} (SELECT {self.pick('max', 'min')}(b.i) FROM u b)")
        return Pair(f"{self.pick('', 'NOT ')}EXISTS (SELECT 1 FROM u b WHERE b.{self.pick('i', 'k')} = {t}.{self.pick('i', 'k')}{self.pick('', ' AND b.b', f' AND b.n > {t}.n', f' AND b.x = {t}.x')})")

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
            return join(self.pick("min", "max") + "({}){}", self.pick(self.number(t, 1), self.decimal(t), self.real(t), self.text(t, 1), self.moment(t)), filter_)
        if kind == 9:
            return Pair(f"sum(DISTINCT {t}.i)")
        if kind == 10:
            count_if = Pair(f"count_if({t}.i > 3)", f"count(*) FILTER (WHERE {t}.i > 3)")
            made = self.pick(f"max_by({t}.id, {t}.n * 1000 + {t}.id)", f"min_by({t}.id, {t}.id)", count_if, f"median({t}.i)", f"quantile_cont({t}.y, 0.25)", f"string_agg({t}.s, ',' ORDER BY {t}.id)",
                             f"{self.pick('stddev', 'stddev_pop', 'var_samp', 'var_pop')}({t}.y)", f"nullif({self.pick('corr', 'covar_pop', 'covar_samp', 'regr_slope')}({t}.y, {t}.i), 'NaN'::double)",
                             f"{self.pick('bit_and', 'bit_or', 'bit_xor')}({t}.k)", f"string_agg(DISTINCT {t}.c, ',' ORDER BY {t}.c)", f"max({t}.x + {t}.y)", f"min(-{t}.x)")
            return made if isinstance(made, Pair) else Pair(made)
        return join("max({}) - min({})", self.number(t, 1), self.number(t, 1))

    # Statements.

    def statement(self):
        kinds = [self.plain, self.plain, self.grouped, self.grouped, self.joined, self.nested, self.nested, self.combined, self.combined, self.windowed, self.windowed, self.limited, self.zoned, self.with_cte,
                 self.sets, self.wide_join, self.ties, self.ctes]
        make = self.random.choice(kinds)
        piece, ordered = make()
        return Statement(make.__name__, str(piece), piece.duck, ordered)

    def source(self):
        return self.pick("t a", "t a", "t a", "u a", "w a")

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
                piece = join("{} HAVING {}", piece, self.pick("count(*) > 1", "sum(a.i) > 3", "max(a.s) IS NOT NULL", "max(a.x) > 2", "min(a.x) < 0 OR count(a.b) = 0", "count(DISTINCT a.k) > 1",
                                                                "sum(a.x) > 1 IS NOT TRUE", "avg(a.i) > (SELECT avg(b.i) FROM u b)", "NULL OR count(*) > 1"))
        return piece, False

    def sets(self):
        keys = self.random.sample(["a.c", "a.b", "a.k", "a.i % 3"], 2)
        group = self.pick("ROLLUP({}, {})", "CUBE({}, {})", "GROUPING SETS (({}), ({}), ())", "GROUPING SETS (({0}, {1}), ({1}))", "GROUPING SETS (({0}), ({0}, {1}))").format(*keys)
        having = self.pick("", " HAVING count(*) > 2", f" HAVING grouping({keys[0]}) = 1", " HAVING max(a.x) > 2")
        return join("SELECT {}, {}, {}, {}, {} FROM t a WHERE {} GROUP BY {}{}", *keys, self.aggregate("a"), self.aggregate("a"), f"grouping({keys[0]})",
                    self.pick(self.condition("a", 1), "false"), group, having), False

    def joined(self):
        kind = self.pick("JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "JOIN")
        key = self.pick("a.i = b.i", "a.s = b.s", "a.k = b.k AND a.b = b.b", "a.i IS NOT DISTINCT FROM b.i", "a.x = b.x", "a.i = b.k + 1")
        if kind in ("JOIN", "LEFT JOIN") and self.chance(0.4):
            key += self.pick(" AND a.n > b.n", " AND b.i < 5", " AND a.y <= b.y")
        where = join(" WHERE {}", self.pick(self.condition("a", 1), self.condition("b", 1))) if self.chance(0.5) else ""
        if self.chance(0.2):
            return join("SELECT * FROM {} {} {} ON {}{}", *self.pick(("t a", kind, "u b"), ("u a", kind, "t b")), key, where), False
        if self.chance(0.3):
            return join("SELECT count(*), sum(a.i), sum(b.n), min(b.s) FROM t a {} u b ON {}{}", kind, key, where), False
        return join("SELECT a.id, b.id, {} FROM t a {} u b ON {}{}", self.pick(self.number("b", 1), self.text("a", 1)), kind, key, where), False

    def wide_join(self):
        """Three tables with the same names of columns, conditions that no scan can take, USING and LATERAL."""
        kinds = [self.pick("JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN") for _ in range(2)]
        above = self.pick("abs(b.k) IS NULL", "abs(a.k) IS NULL", "coalesce(b.i, 7) > 5", "coalesce(d.i, a.i) IS NULL", "abs(d.n) > 5 OR b.s IS NULL", "true")
        form = self.random.randrange(5)
        if form == 0:
            return Pair(f"SELECT a.id, b.id, d.id FROM t a {kinds[0]} u b ON a.i = b.i {kinds[1]} u d ON b.k = d.k WHERE {above}"), False
        if form == 1:
            return Pair(f"SELECT * FROM u a {kinds[0]} (u b {kinds[1]} u d ON b.k = d.k) ON a.i = b.i WHERE {above}"), False
        if form == 2:
            key = self.pick("i", "k", "c", "k, c")
            shown = self.pick("*", f"{key}, t.id, u.id", "count(*)")
            return Pair(f"SELECT {shown} FROM t {kinds[0]} u USING ({key}) WHERE {self.pick('true', 'abs(u.n) IS NULL', 't.n > 500 OR t.n IS NULL')}"), False
        if form == 3:
            condition = self.pick("a.i > b.i AND a.k = b.k", "a.i < b.i", "a.n > b.n AND a.b", "a.x > b.y")
            return Pair(f"SELECT a.id, b.id, a.k, b.k FROM t a {self.pick('JOIN', 'LEFT JOIN', 'RIGHT JOIN')} u b ON {condition} WHERE {self.pick('true', 'abs(b.k) IS NULL', 'abs(a.k) IS NULL')}"), False
        value = self.pick("max(b.n)", "count(*)", "sum(b.i)", "min(b.s)")
        kind, on = self.pick((", LATERAL", ""), ("LEFT JOIN LATERAL", " ON true"), ("CROSS JOIN LATERAL", ""))
        return Pair(f"SELECT a.id, q.v FROM t a {kind} (SELECT {value} AS v FROM u b WHERE b.i = a.i) q{on}"), False

    def ties(self):
        """Rows that are equal in their order: which of them a LIMIT keeps shows in nothing but their key."""
        if self.chance(0.3):
            value = self.pick("max(a.i)", "min(a.i)", "max(a.x)", "min(a.x)", "max(a.s)", "min(a.n)", "count(a.i)", "sum(a.i)", "max(a.ts)")
            top = join("SELECT {} AS g, {} AS v FROM t a WHERE {} GROUP BY 1 ORDER BY 2 {} LIMIT {}", self.pick("a.s", "a.k", "a.c", "a.i"), value, self.condition("a", 1),
                       self.pick("DESC NULLS LAST", "NULLS LAST", "DESC NULLS FIRST", "NULLS FIRST"), self.random.randint(1, 8))
            return join("SELECT q.v FROM ({}) q", top), False
        key, nulls = self.pick("a.i", "a.s", "a.x", "a.k", "a.d"), self.pick("NULLS FIRST", "NULLS LAST")
        limit = f"LIMIT {self.random.randint(0, 30)}{self.pick('', f' OFFSET {self.random.randint(0, 40)}')}"
        if self.chance(0.3):
            return Pair(f"SELECT count(*), count(q.v), min(q.v) FROM (SELECT {key} AS v FROM t a ORDER BY 1 {nulls} {limit}) q"), False
        return join("SELECT {0} FROM {1} WHERE {2} ORDER BY {0}{3} {4} {5}", key, self.source(), self.condition("a", 1), self.pick("", " DESC"), nulls, limit), True

    def ctes(self):
        """Tables on tables, each read more than once."""
        inner = join("p AS (SELECT a.id, a.c, a.k, a.x, {} AS v FROM t a WHERE {})", self.number("a", 1), self.condition("a", 1))
        outer = join("q AS (SELECT a.c, a.k, {} AS w FROM p a GROUP BY 1, 2)", self.pick("count(*)", "max(a.x)", "sum(a.v)", "min(a.v)"))
        last = self.pick("SELECT p.id, q.w FROM p {} q ON p.c = q.c AND p.k = q.k", "SELECT p.id, q.w FROM q {} p ON p.c = q.c", "SELECT p.id, r.id FROM p {} p r ON p.k = r.k AND p.id < r.id")
        last = last.format(self.pick("JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"))
        if self.chance(0.3):
            last = "SELECT p.id FROM p WHERE p.k IN (SELECT q.k FROM q WHERE q.w > 1) AND NOT EXISTS (SELECT 1 FROM q WHERE q.c = p.c AND q.k IS NULL)"
        return join("WITH {}, {} {}", inner, outer, last), False

    def nested(self):
        kind = self.random.randrange(7)
        test = self.over_query("a")
        if kind == 6:
            found = f"{self.pick('', 'NOT ')}EXISTS (SELECT {self.pick('1', '*', 'b.id')} FROM u b WHERE b.{self.pick('i', 'k')} = a.{self.pick('i', 'k')}{self.pick('', ' AND b.b', ' AND b.n > 50000')})"
            return Pair(f"SELECT a.id, {self.pick(found, f'CASE WHEN {found} THEN 1 ELSE a.i END', f'{found} OR a.b')} AS c FROM t a ORDER BY a.id"), True
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
        more = self.pick("", "", *[f", {other}" for other in "bc" if other != column])
        left, right = join("SELECT {}{} FROM t a WHERE {}", column, more, self.condition("a", 1)), join("SELECT {}{} FROM u a WHERE {}", column, more, self.condition("a", 1))
        if self.chance(0.35):
            third = join("SELECT {}{} FROM t a WHERE {}", column, more, self.condition("a", 1))
            return join(self.pick("{} {} ({} {} {})", "({} {} {}) {} {}"), left, operator, right, self.pick("UNION ALL", "UNION", "EXCEPT ALL", "INTERSECT ALL", "EXCEPT"), third), False
        return join("{} {} {}", left, operator, right), False

    def frame(self, units):
        first = self.random.randrange(len(BOUNDS) - 1)
        last = self.random.randrange(max(first, 1), len(BOUNDS))
        return f"{units} BETWEEN {BOUNDS[first]} AND {BOUNDS[last]}"

    def framed(self):
        """An aggregate over a frame; what lies in it by distance or in groups does not depend on the order of equal rows."""
        call = self.pick("sum(a.i)", "count(a.s)", "count(*)", "min(a.n)", "max(a.n)", "min(a.x)", "max(a.x)", "avg(a.x)", "sum(a.d)", "min(a.s)", "max(a.s)", "stddev_pop(a.y)", "var_samp(a.y)",
                         "bool_and(a.b)", "bool_or(a.b)", "median(a.y)", "count(DISTINCT a.k)", "sum(DISTINCT a.i)", "corr(a.y, a.i)", "bit_or(a.k)", "min(a.ts)", "covar_pop(a.y, a.i)", "sum(a.y)")
        filter_ = self.pick("", "", "", " FILTER (WHERE a.b)", " FILTER (WHERE a.i > 4)")
        part = self.pick("", "PARTITION BY a.c ", "PARTITION BY a.b ")
        order = {"ROWS": ["a.id", "a.id DESC", "a.n NULLS LAST, a.id"], "GROUPS": ["a.i NULLS FIRST", "a.k DESC NULLS LAST", "a.x NULLS LAST", "a.s NULLS FIRST"],
                 "RANGE": ["a.i NULLS FIRST", "a.i NULLS LAST", "a.k DESC NULLS LAST", "a.y NULLS LAST", "a.n NULLS FIRST", "a.id"]}
        units = self.pick("ROWS", "ROWS", "RANGE", "GROUPS")
        value = f"{call}{filter_} OVER ({part}ORDER BY {self.pick(*order[units])} {self.frame(units)})"
        if call.startswith(("corr", "covar")):  # What is left of products that cancel out is rounding.
            value = f"nullif(round({value}, 6), 'NaN'::double)"  # Of one value DuckDB says NaN, PostgreSQL and we NULL.
        return Pair(f"SELECT a.id, {value} AS w FROM t a ORDER BY a.id"), True

    def windowed(self):
        if self.chance(0.5):
            return self.framed()
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
            return join("SELECT DISTINCT ON (a.c) a.c, a.id FROM {} WHERE {} ORDER BY a.c NULLS LAST, a.id", self.source(), self.condition("a", 1)), True
        if self.chance(0.2):
            return join("SELECT DISTINCT {} FROM {} WHERE {}", self.pick("a.c, a.b", "a.i", "a.s", "a.x"), self.source(), self.condition("a", 1)), False
        return join("SELECT a.id{} FROM {} WHERE {} ORDER BY {} {}, a.id LIMIT {} OFFSET {}", shown, self.source(), self.condition("a", 1), key, nulls, self.random.randint(1, 9), self.random.randint(0, 4)), True

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
