"""Statements that cost a lot of memory, time or stack, or ask for what no query gets. The same seed gives the same ones."""
import random

# Each of these once ended a process, or asks for what no query gets.
KNOWN = [
    "SELECT " + " + ".join(["1"] * 5_000),
    "SELECT range(0, 1000000000000)",
    "SELECT count(*) FROM range(1000000000000) a, range(1000000000000) b",
    "SELECT count(u) FROM (SELECT unnest(range(1000000000)) AS u)",
    "SELECT unnest(unnest(array_repeat(array_repeat('abc', 100000), 100000)))",
    "SELECT count(*) FROM events WHERE id ~ repeat('(a|b)', seq::int) OR id ~ ('(' || repeat('x?', 500) || '){9}' || seq)",
    "SELECT " + "{'a': " * 60 + "1" + "}" * 60 + " AS s",
    "SELECT count(*) FROM events WHERE " + " OR ".join(f"seq = {n}" for n in range(5_000)),
    " UNION ALL ".join(["SELECT 1"] * 3_000),
    "SELECT " + "(" * 2_000 + "1" + ")" * 2_000,
    "SELECT repeat('x', 2000000000)",
    "SELECT length(repeat(id, 100000000)) FROM events",
    "SELECT array_repeat(1, 1000000000)",
    "SELECT lpad('x', 2000000000, 'y')",
    "SELECT string_agg(repeat(a.id, 1000), ',') FROM events a, events b",
    "SELECT array_agg(a.id || b.id) FROM events a, events b",
    "SELECT a.id || b.id AS x FROM events a, events b, events c ORDER BY x",
    "SELECT count(DISTINCT a.id || b.id || c.id) FROM events a, events b, events c",
    "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM '/etc/passwd'",
    "COPY events TO '/tmp/stolen.parquet'",
    "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
    "SET datafusion.execution.batch_size = 1",
    "SHOW ALL",
    "SELECT * FROM other.events",
    "SELECT * FROM system.audit_log",
    "SELECT regexp_replace(repeat('a', 30), '(a*)*b', 'c') FROM events",
]

# What opens something: files, addresses, devices.
PLACES = ["/etc/passwd", "/proc/self/environ", "/proc/self/mem", "/dev/zero", "../../icecore.db", "file:///etc/shadow", "http://127.0.0.1:1/x.parquet",
          "http://169.254.169.254/latest/meta-data", "s3://bucket/x.parquet", "r2://../../etc/passwd", "/proc/self/fd/0", "events/../../../etc/passwd", "\\\\host\\share",
          "data/wal", "~/.ssh/id_rsa", "/etc/passwd\u0000.parquet", "events/2026/11/20/14/../../../../../etc/*.parquet"]
READERS = ["read_csv", "read_parquet", "parquet_scan", "read_json", "read_json_auto", "read_ndjson", "read_text", "read_blob", "glob", "sniff_csv", "parquet_metadata", "sqlite_scan",
           "iceberg_scan", "delta_scan", "url", "file", "s3", "remote", "mysql", "postgres_scan"]
CALLS = ["pg_read_file('{}')", "pg_ls_dir('{}')", "lo_import('{}')", "load_extension('{}')", "getenv('HOME')", "system('{}')", "current_setting('data_directory')", "version()",
         "pg_sleep(100)", "sleep(100)", "query('SELECT 1')", "input_file_name()", "pg_backend_pid()", "dblink('{}')", "xpath('{}', 'x')", "readfile('{}')", "current_database()"]
SETTINGS = ["datafusion.execution.target_partitions", "datafusion.catalog.location", "memory_limit", "temp_directory", "enable_external_access", "role", "search_path",
            "session_authorization", "statement_timeout", "datafusion.runtime.memory_limit", "s3_secret_access_key", "ALL", "time zone", "data_directory"]
DEFINITIONS = ["CREATE TABLE {x} (a int)", "DROP TABLE events", "DROP SCHEMA public CASCADE", "ALTER TABLE events ADD COLUMN {x} int", "DELETE FROM events", "UPDATE events SET id = 'x'",
               "INSERT INTO events VALUES (1)", "TRUNCATE events", "CREATE FUNCTION {x}() RETURNS int LANGUAGE c AS '{p}', 'f'", "CREATE EXTENSION {x}", "INSTALL httpfs", "LOAD '{p}'",
               "ATTACH '{p}' AS {x}", "DETACH lake", "CREATE EXTERNAL TABLE {x} STORED AS PARQUET LOCATION '{p}'", "CREATE SECRET (TYPE s3)", "EXPORT DATABASE '{p}'", "IMPORT DATABASE '{p}'",
               "COPY events TO '{p}'", "COPY (SELECT 1) TO PROGRAM 'sh'", "COPY events FROM '{p}'", "PREPARE {x} AS SELECT 1", "EXECUTE {x}", "BEGIN", "COMMIT", "ROLLBACK", "LOCK TABLE events",
               "VACUUM", "ANALYZE events", "CHECKPOINT", "KILL 1", "GRANT ALL ON events TO public", "CALL {x}()", "DO 'x'", "LISTEN {x}", "DECLARE c CURSOR FOR SELECT 1", "USE system",
               "MERGE INTO events USING events e ON true WHEN MATCHED THEN DELETE", "REFRESH MATERIALIZED VIEW {x}", "PRAGMA database_list", "SELECT 1 INTO OUTFILE '{p}'", "SELECT 1 INTO {x}",
               "UNLOAD (SELECT 1) TO '{p}'", "EXPLAIN ANALYZE DELETE FROM events", "EXPLAIN COPY events TO '{p}'", "CREATE VIEW {x} AS SELECT * FROM read_csv('{p}')", "SHOW {s}", "RESET {s}"]
TEXTS = ["\u0000", "\u202e\u2066", "\ufeff", "'", '"', "\\", "\r\n", "💣" * 40, "ﬁ" * 40, "\u0300" * 400, "`", "$$", "--", "/*", "*/", ";", "{}", "%n%s%x", "\ud7ff", "İ" * 30, "\x1b[2J", "Ω" * 300, "a\u0000b"]
ODD_NUMBERS = ["9223372036854775807", "-9223372036854775808", "1e308", "1e-308", "1e999", "0.1e-400", "9" * 400, "0." + "1" * 400, "99999999999999999999999999999999999999.9", "-0", "0x7fffffffffffffff", "1_0"]


class Hostile:
    """Draws statements, of each kind about as many."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def pick(self, *choices):
        return self.random.choice(choices)

    def size(self, most):
        """Sizes of every magnitude up to `most`."""
        return int(10 ** self.random.uniform(1, len(str(most)) - 1))

    def statement(self):
        return self.pick(self.nested, self.long, self.big_value, self.wide, self.endless, self.recursive, self.place, self.setting, self.definition, self.text, self.number, self.pattern,
                         self.comment, self.explained, self.call, self.broken, self.types, self.windowed, self.views)()

    def nested(self):
        n = self.size(20_000)
        return self.pick(f"SELECT {'(' * n}1{')' * n}", f"SELECT {'NOT ' * n}true", f"SELECT {'-' * 1}{' - ' * n}1", "SELECT 1 FROM " + "(SELECT 1 FROM " * n + "events" + ") q" * n,
                         f"SELECT {'CASE WHEN true THEN ' * n}1{' END' * n}", f"SELECT {'abs(' * n}1{')' * n}", f"SELECT {'[' * n}1{']' * n}", f"SELECT {'CAST(' * n}1{' AS int)' * n}",
                         "".join(f"WITH a{at} AS (" for at in range(n)) + "SELECT 1", f"SELECT * FROM {'(' * n}events{')' * n}", f"SELECT 1{' IN (SELECT 1' * n}{')' * n}",
                         f"SELECT {'EXISTS (SELECT 1 WHERE ' * n}true{')' * n}", f"SELECT {'{a: ' * n}1{'}' * n}", f"SELECT CAST(NULL AS {'int' + '[]' * n})", f"SELECT data {'-> 0 ' * n} FROM events",
                         f"SELECT '{'[' * n}{']' * n}' -> 0", f"SELECT CAST(NULL AS {'struct<a ' * n}int{'>' * n})")

    def long(self):
        n = self.size(100_000)
        return self.pick("SELECT " + self.pick(" + ", " || ", " * ", " AND ", " OR ", " = ", " - ").join(["1"] * n), "SELECT count(*) FROM events WHERE seq IN (" + ", ".join(map(str, range(n))) + ")",
                         self.pick(" UNION ALL ", " UNION ", " EXCEPT ", " INTERSECT ").join(["SELECT 1"] * min(n, 20_000)), "SELECT " + ", ".join(f"{at} AS c{at}" for at in range(n)),
                         "SELECT count(*) FROM " + ", ".join(f"events e{at}" for at in range(min(n, 2_000))), "VALUES " + ", ".join(f"({at})" for at in range(n)),
                         "SELECT " + "a" * n, "SELECT '" + "a" * n + "'", 'SELECT 1 AS "' + "a" * n + '"', "SELECT CASE " + " ".join(f"WHEN seq = {at} THEN {at}" for at in range(n)) + " END FROM events",
                         "SELECT 1 FROM events e0 " + " ".join(f"{self.pick('', 'LEFT ')}JOIN events e{at} ON e{at}.seq = e0.seq" for at in range(1, min(n, 400))), "SELECT 1 GROUP BY " + ", ".join(["1"] * n),
                         "SELECT count(*) FROM events GROUP BY CUBE(" + ", ".join(["type", "seq", "id", "data"] * min(n, 40)) + ")", "SELECT concat(" + ", ".join(["id"] * n) + ") FROM events",
                         "WITH " + ", ".join(f"q{at} AS (SELECT * FROM {'events' if at == 0 else f'q{at - 1} UNION ALL SELECT * FROM q{at - 1}'})" for at in range(min(n, 40))) + f" SELECT count(*) FROM q{min(n, 40) - 1}",
                         "SELECT 1" + "; SELECT 1" * n, "SELECT 1 ORDER BY " + ", ".join(["1"] * n), "SELECT coalesce(" + ", ".join(["NULL"] * n) + ")")

    def big_value(self):
        n = self.size(9_000_000_000)
        return self.pick(f"SELECT repeat('x', {n})", f"SELECT length(repeat(id, {n})) FROM events", f"SELECT array_repeat(1, {n})", f"SELECT array_repeat(array_repeat(id, 1000), {n}) FROM events",
                         f"SELECT lpad(id, {n}, 'y') FROM events", f"SELECT rpad(id, {n}, data) FROM events", f"SELECT range(0, {n})", f"SELECT generate_series(1, {n})", f"SELECT * FROM range({n})",
                         f"SELECT * FROM generate_series(1, {n})", f"SELECT unnest(array_repeat(id, {n})) FROM events", f"SELECT array_resize([1], {n}, 2)", f"SELECT space({n})",
                         f"SELECT replace(repeat('a', 10000), 'a', repeat('b', {min(n, 1_000_000)}))", f"SELECT string_agg(repeat(id, {n}), ',') FROM events", f"SELECT array_agg(repeat(id, {n})) FROM events",
                         f"SELECT {n}::text || repeat(repeat(repeat('x', 10000), 10000), 10000)", f"SELECT power({n}, {n})", f"SELECT factorial({n})", f"SELECT format('%{n}d', 1)", f"SELECT round(1.5, {n})",
                         f"SELECT 1 LIMIT {n} OFFSET {n}", f"SELECT ntile({n}) OVER (ORDER BY seq) FROM events", f"SELECT lag(seq, {n}) OVER (ORDER BY seq) FROM events", f"SELECT to_char(now(), repeat('Y', {n}))")

    def wide(self):
        """Joins and sorts that have far more rows than the tables."""
        tables = ", ".join(f"events e{at}" for at in range(self.random.randint(2, 6)))
        return self.pick(f"SELECT count(*) FROM {tables}", f"SELECT e0.* FROM {tables}", f"SELECT e0.id || e1.id AS x FROM {tables} ORDER BY x", f"SELECT DISTINCT e0.id, e1.id FROM {tables}",
                         f"SELECT e0.id, e1.id, count(*) FROM {tables} GROUP BY 1, 2", f"SELECT array_agg(e0.data) FROM {tables}", f"SELECT median(e0.seq * e1.seq) FROM {tables}",
                         f"SELECT max(sum(e0.seq)) OVER () FROM {tables} GROUP BY e0.id, e1.id", f"SELECT row_number() OVER (ORDER BY e0.id, e1.data) FROM {tables}", f"SELECT string_agg(e0.id, e1.id) FROM {tables}",
                         "SELECT count(*) FROM events a FULL JOIN events b ON a.seq <> b.seq", "SELECT count(*) FROM events a JOIN events b ON a.ns = b.ns JOIN events c ON b.ns = c.ns",
                         f"SELECT count(*) FROM (SELECT e0.id FROM {tables} UNION SELECT e0.type FROM {tables})", f"SELECT count(*) FROM events WHERE seq IN (SELECT e0.seq FROM {tables})")

    def endless(self):
        n = self.size(1_000_000)
        return self.pick(f"SELECT count(*) FROM events a, events b WHERE (a.seq * b.seq) % {n} = -1", f"SELECT sum(length(sha512(a.data || b.data))) FROM events a, events b LIMIT {n}",
                         "SELECT count(*) FROM events a, events b, events c WHERE levenshtein(repeat(a.id, 100), repeat(b.id, 100)) = -1",
                         "SELECT count(*) FROM events a WHERE (SELECT count(*) FROM events b, events c WHERE b.seq > a.seq) = -1", f"SELECT id FROM events ORDER BY sha256(repeat(data, {min(n, 10_000)}))")

    def recursive(self):
        return self.pick("WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT * FROM t", "WITH RECURSIVE t(x) AS (SELECT 'a' UNION ALL SELECT x || x FROM t) SELECT max(length(x)) FROM t",
                         "WITH RECURSIVE t AS (SELECT id FROM events UNION ALL SELECT t.id FROM t, events) SELECT count(*) FROM t", "WITH RECURSIVE t AS (SELECT * FROM t) SELECT * FROM t",
                         "WITH t AS (SELECT * FROM t) SELECT * FROM t", "WITH RECURSIVE a AS (SELECT * FROM b), b AS (SELECT * FROM a) SELECT * FROM a")

    def place(self):
        place, reader = self.pick(*PLACES), self.pick(*READERS)
        return self.pick(f"SELECT * FROM {reader}('{place}')", f"SELECT * FROM '{place}'", f'SELECT * FROM "{place}"', f"SELECT * FROM {reader}(['{place}', '{place}'])", f"TABLE '{place}'", f"FROM '{place}'",
                         f"SELECT (SELECT count(*) FROM {reader}('{place}')) FROM events", f"DESCRIBE '{place}'", f"SUMMARIZE '{place}'", f'SELECT * FROM lake."{place}".x', f'SELECT * FROM "{place}@main"',
                         f"SELECT * FROM events FOR VERSION AS OF '{place}'", f"SELECT * FROM events FOR BOOKMARK AS OF '{place}'", f'SHOW TABLES FROM "{place}"', f'SELECT * FROM "events${place}"',
                         f"EXPLAIN SELECT * FROM {reader}('{place}')", f"SELECT {reader}('{place}')")

    def setting(self):
        name, value = self.pick(*SETTINGS), self.pick("1", "'/tmp'", "DEFAULT", "off", "9999999999", "''")
        return self.pick(f"SET {name} = {value}", f"SET {name} TO {value}", f"SHOW {name}", f"RESET {name}", f"SET LOCAL {name} = {value}", f"SELECT current_setting('{name}')", f"ALTER SYSTEM SET {name} = {value}",
                         "SELECT * FROM information_schema.df_settings", "SELECT * FROM information_schema.routines", "SELECT * FROM pg_catalog.pg_settings", f"SELECT set_config('{name}', '1', false)",
                         "SHOW FUNCTIONS", "SHOW VARIABLES", "SELECT * FROM information_schema.parameters", f"SELECT * FROM {self.pick('duckdb_settings', 'duckdb_secrets', 'pg_stat_activity', 'sqlite_master')}()")

    def definition(self):
        return self.pick(*DEFINITIONS).format(x=self.pick("x", '"a b"', "events", "public.x", "system.x"), p=self.pick(*PLACES), s=self.pick(*SETTINGS))

    def text(self):
        text = self.pick(*TEXTS) + self.pick("", *TEXTS)
        plain = text.replace("'", "''")
        return self.pick(f"SELECT '{plain}'", f"SELECT {text}", f'SELECT "{text}" FROM events', f"SELECT id AS \"{text}\" FROM events", f"SELECT * FROM \"{text}\"", f"SELECT upper('{plain}') || lower('{plain}')",
                         f"SELECT count(*) FROM events WHERE id LIKE '%{plain}%'", f"SELECT * FROM events WHERE id = '{text}'", f"{text}SELECT 1", f"SELECT 1{text}", f"SELECT '{plain}'::json -> '{plain}'",
                         f"SELECT translate(id, '{plain}', 'x') FROM events", f"SELECT '{plain}'::timestamp", f"SELECT substr('{plain}', -5, {self.size(100_000)})", f"SELECT E'{text}'", f"SELECT $q${text}$q$",
                         f"SELECT reverse('{plain}')", f"SELECT json_extract('{plain}', '$.{plain}')", f"SELECT U&'\\{self.pick('0000', 'd800', 'FFFF', '+10ffff')}'", f"SELECT now() AT TIME ZONE '{plain}'")

    def number(self):
        one, other = self.pick(*ODD_NUMBERS), self.pick(*ODD_NUMBERS)
        return self.pick(f"SELECT {one} {self.pick('+', '-', '*', '/', '%', '<<', '>>', '|', '^')} {other}", f"SELECT CAST('{one}' AS {self.pick('int', 'bigint', 'double', 'decimal(38,38)', 'decimal(76,0)', 'date', 'timestamp', 'interval', 'varchar(1)')})",
                         f"SELECT sum(seq * {one}) FROM events", f"SELECT to_timestamp({one})", f"SELECT date '2024-01-01' + INTERVAL '{one} years'", f"SELECT id FROM events LIMIT {one} OFFSET {other}",
                         f"SELECT substr('abc', {one}, {other})", f"SELECT * FROM events FOR VERSION AS OF {one}", f"SELECT * FROM events BETWEEN SEQ {one} AND {other}", f"SELECT * FROM events FOR SEQ AS OF {one}",
                         f"SELECT ln({one}), exp({other}), power({one}, {other})", f"SELECT ${self.pick('0', '1', '99999999999', '-1')}", f"SELECT date_trunc('day', to_timestamp({one}))", f"SELECT ([1,2,3])[{one}]",
                         f"SELECT sum(seq) OVER (ORDER BY seq ROWS {one} PRECEDING) FROM events", f"SELECT quantile_cont(seq, {one}) FROM events", f"SELECT extract(year FROM INTERVAL '{one}')")

    def pattern(self):
        n = self.size(100_000)
        bad = self.pick("(a*)*b", "(a+)+$", "(" * min(n, 3_000) + ")" * min(n, 3_000), f"a{{{n}}}", f"((a{{1,100}}){{1,100}}){{1,{n}}}", "[", "\\", "(?P<x", "\\p{L}{1000}{1000}", "(?i)" + "ſ" * 40, ".*" * min(n, 5_000), "(x|" * min(n, 2_000))
        return self.pick(f"SELECT regexp_replace(repeat('a', 50), '{bad}', 'c') FROM events", f"SELECT id FROM events WHERE id ~ '{bad}'", f"SELECT 'a' SIMILAR TO '{bad}'", f"SELECT regexp_match(data, '{bad}') FROM events",
                         f"SELECT id FROM events WHERE data LIKE '{'%a' * min(n, 20_000)}'", f"SELECT regexp_count(repeat('ab', 10000), '{bad}') FROM events", f"SELECT id LIKE repeat('%_', {n}) FROM events", f"SELECT id ~ data FROM events")

    def comment(self):
        n = self.size(60_000)
        return self.pick("/*" * n + "*/" * n, "--" * n + "\nSELECT 1", "SELECT 1 /*" + "x" * n, "SELECT /* */ 1 -- " + "y" * n, "/* ; DROP TABLE events; */ SELECT 1; DROP TABLE events", "", " " * n, ";" * n,
                         "SELECT 1;" + "\n" * n, "SELECT 1 -- \r DROP TABLE events", "/*/**/SELECT 1", "#!" + "x" * n, "SELECT /*+ SET_VAR(memory=1) */ 1")

    def explained(self):
        return self.pick("EXPLAIN ", "EXPLAIN ANALYZE ", "EXPLAIN VERBOSE ", "EXPLAIN FORMAT TREE ", "EXPLAIN FORMAT GRAPHVIZ ", "EXPLAIN (ANALYZE, BUFFERS) ", "EXPLAIN EXPLAIN ", "DESCRIBE ", "EXPLAIN ANALYZE VERBOSE ") + self.pick(
            self.wide, self.nested, self.big_value, self.long, self.place, self.endless, self.definition)()

    def call(self):
        call = self.pick(*CALLS).format(self.pick(*PLACES))
        return self.pick(f"SELECT {call}", f"SELECT * FROM {call}", f"SELECT id FROM events WHERE {call} IS NULL", f"SELECT id FROM events ORDER BY {call}")

    def broken(self):
        """A statement with some of its characters changed, doubled or gone."""
        text = self.pick("SELECT type, count(*) FROM events WHERE seq > 5 GROUP BY type HAVING count(*) > 1 ORDER BY 2 DESC LIMIT 5", "WITH a AS (SELECT * FROM events) SELECT a.id FROM a JOIN events b USING (id)",
                         "SELECT id, row_number() OVER (PARTITION BY type ORDER BY seq) FROM events FOR VERSION AS OF 'main' AS e", "SELECT data ->> 'n', CAST(seq AS text) FROM \"events@main\" WHERE ts < now()")
        for _ in range(self.random.randint(1, 6)):
            at = self.random.randrange(len(text))
            text = self.pick(text[:at] + text[at + 1:], text[:at] + text[at] + text[at:], text[:at] + self.pick(*"()'\"*,;.-@$[]{}\\\u00e9\n") + text[at + 1:], text[:at], text[at:]) or "x"
        return text

    def types(self):
        kind = self.pick("decimal(0,0)", "decimal(38,39)", "decimal(-1,5)", "varchar(0)", "varchar(99999999999)", "timestamp(99)", "int[]", "struct(a int)", "map(int, int)", "interval", "xml", "regclass", "bytea", "json",
                         "uuid", "float(99)", "bit(9999999)", "time with time zone", "array<array<int>>", "enum('a')", "geometry", "oid", "tinyint unsigned")
        return self.pick(f"SELECT CAST(data AS {kind}) FROM events", f"SELECT CAST(NULL AS {kind})", f"SELECT TRY_CAST('x' AS {kind})", f"SELECT max(CAST(seq AS {kind})) FROM events", f"SELECT {kind} '1'", f"SELECT seq::{kind}::text FROM events")

    def windowed(self):
        n = self.size(10_000_000_000)
        return self.pick(f"SELECT array_agg(data) OVER (ORDER BY seq ROWS BETWEEN {n} PRECEDING AND {n} FOLLOWING) FROM events", "SELECT string_agg(data, ',') OVER (ORDER BY seq) FROM events",
                         f"SELECT median(a.seq) OVER (ORDER BY a.seq ROWS {n} PRECEDING) FROM events a, events b", f"SELECT sum(seq) OVER (ORDER BY seq RANGE BETWEEN {n} PRECEDING AND CURRENT ROW) FROM events",
                         f"SELECT mode(id) OVER (ORDER BY seq GROUPS {n} PRECEDING) FROM events", "SELECT " + ", ".join(f"sum(seq) OVER (ORDER BY seq ROWS {at} PRECEDING)" for at in range(min(n, 500))) + " FROM events")

    def views(self):
        return self.pick("SELECT * FROM events.files, events.entries, events.all_files, events.manifests", "SELECT * FROM \"events$snapshots$snapshots\"", "SELECT * FROM events.events.events.events.events",
                         "SELECT * FROM things a, things b, things c", "SELECT * FROM \"cdc_" + "x" * self.size(30_000) + "_deltas\"", "SELECT * FROM events AT (TIMESTAMP => now() - INTERVAL '999999 years')",
                         "SELECT * FROM \"events@~99999999999999999999\"", "SELECT * FROM events FOR SYSTEM_TIME AS OF (SELECT max(ts) FROM events)", "SELECT * FROM information_schema.tables a, information_schema.columns b",
                         "SELECT * FROM events FOR VERSION AS OF random()", "SELECT * FROM \"../events\"", "SELECT * FROM \"events/../../x\"", "SHOW TABLES FROM system", "SELECT * FROM events.files ORDER BY readable_metrics")
