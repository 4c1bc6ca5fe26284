#!/usr/bin/env python3
"""Measures SQL of a release binary beside DuckDB and prints a Markdown report. `benches/README.md` says how to read it.

    benches/query.py --bin target/release/icecore [--dir FOLDER] [--events 2000000] [--commits 10] [--rounds 5] [--only WORD]
    benches/query.py --bin target/release/icecore --workers [--dir FOLDER] [--events 100000]

The second form measures what it costs that queries have processes of their own.

Needs DuckDB and PyIceberg (the client tests' Python packages have them). Ends with 1 if an answer differs.
"""
import argparse
import math
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "clients"), str(ROOT / "benches")]

from engines import DuckDB  # noqa: E402
from generate import generate  # noqa: E402
from icecore import BROKEN, Refused, send_all  # noqa: E402
from ingest import TICK, machine, percentile  # noqa: E402
from maintenance import BY_HAND, NAMESPACE, OWNER, Bench  # noqa: E402

# Events that are generated and sent at a time.
PART = 200_000
# How long an engine repeats a statement in a round, so that its CPU time is more than a few ticks of the clock.
ROUND_SECONDS = 0.25
REPEATS_MAX = 50
# Rows of a statement that has no aggregate, at most: larger answers measure the client.
ROWS_MAX = 1_000
FILES, CATALOG, SQL = "DuckDB, files", "DuckDB, catalog", "Icecore SQL"
CHANGE = "collection = 'users' AND op IN ('c', 'u', 'd')"
CURRENT = f"SELECT key, op, after, row_number() OVER (PARTITION BY key ORDER BY seq DESC) AS newest FROM {{events}} WHERE {CHANGE}"

# Each statement by its name; `{events}` is the table, the other names are values of `Marks`.
SHAPES = {
    "count": "SELECT count(*) FROM {events}",
    "least and greatest": "SELECT min(seq), max(seq), min(ts), max(ts) FROM {events}",
    "group by type": "SELECT type, count(*) FROM {events} GROUP BY type",
    "group by day": "SELECT date_trunc('day', ts) AS day, count(*) FROM {events} GROUP BY day",
    "distinct ids by type": "SELECT type, count(*), count(DISTINCT id) FROM {events} GROUP BY type",
    "one id": "SELECT id, type, seq, data FROM {events} WHERE id = '{id}'",
    "no such id": "SELECT id, type, seq, data FROM {events} WHERE id = '{id}x'",
    "one key": "SELECT seq, op, before, after FROM {events} WHERE collection = 'users' AND key = '{key}'",
    "one bookmark": "SELECT seq, key, op, after FROM {events} WHERE bookmark = '{bookmark}'",
    "one seq": "SELECT id, type, data FROM {events} WHERE seq = {seq}",
    "last 100": "SELECT seq, id, type FROM {events} ORDER BY seq DESC LIMIT 100",
    "last 100 by time": "SELECT ts, seq, type FROM {events} ORDER BY ts DESC, seq DESC LIMIT 100",
    "last 100 of a type": "SELECT ts, seq, method FROM {events} WHERE type = 'rpc.call' ORDER BY ts DESC, seq DESC LIMIT 100",
    "an hour": "SELECT type, count(*) FROM {events} WHERE ts >= '{hour}' AND ts < '{hour_end}' GROUP BY type",
    "a type": "SELECT count(*), avg(duration_ms), max(duration_ms) FROM {events} WHERE type = 'rpc.call'",
    "filter without bounds": "SELECT count(*), max(seq) FROM {events} WHERE correlation_id LIKE '%f00%'",
    "current state by window": f"SELECT count(*), min(key), max(key) FROM ({CURRENT}) WHERE newest = 1 AND op <> 'd'",
}
EARLIER = {
    "history of a document": "SELECT seq, type, key, after, before, bookmark FROM {events} WHERE collection = 'users' AND key = '{key}' ORDER BY seq",
    "between two bookmarks": "SELECT seq, key, op, bookmark FROM {events} WHERE bookmark > '{bookmark}' AND bookmark <= '{bookmark_end}' ORDER BY bookmark LIMIT 1000",
    "latency by method": "SELECT method, avg(duration_ms), count(*) FROM {events} WHERE type = 'rpc.call' GROUP BY method",
    "type and collection": "SELECT count(*), max(seq) FROM {events} WHERE type = 'cdc.update' AND collection = 'users'",
    "type and hour": "SELECT type, date_trunc('hour', ts) AS hour, count(*) AS count FROM {events} WHERE ts > '{day}' GROUP BY type, hour",
    "audit by actor": "SELECT seq, type, data FROM {events} WHERE actor = 'User/Noor' ORDER BY seq DESC LIMIT 100",
    "latency percentiles": "SELECT do_class, method, count(*), avg(duration_ms), max(duration_ms), percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_ms), "
                           "percentile_cont(0.95) WITHIN GROUP (ORDER BY duration_ms) FROM {events} WHERE type = 'rpc.call' GROUP BY do_class, method",
    "failed requests": "SELECT url, status_code, count(*) AS n FROM {events} WHERE status_code >= 400 GROUP BY url, status_code ORDER BY n DESC, url LIMIT 20",
    "daily volume": "SELECT date_trunc('day', ts) AS day, type, count(*) FROM {events} GROUP BY day, type",
}
PAYLOADS = {
    "LIKE over JSON": "SELECT count(*) FROM {events} WHERE data LIKE '%\"customerId\":\"cust_77%'",
    "LIKE over documents": "SELECT count(*) FROM {events} WHERE after LIKE '%\"name\":\"Noor\"%'",
    "group by a member": "SELECT json_extract_string(after, '$.name') AS name, count(*) FROM {events} WHERE collection = 'users' GROUP BY name",
    "sum of a member": "SELECT type, sum(CAST(json_extract_string(data, '$.amount') AS DOUBLE)) FROM {events} WHERE type IN ('Order.placed', 'Invoice.overdue') GROUP BY type",
    "top of a member": "SELECT json_extract_string(data, '$.customerId') AS customer, count(*) AS n FROM {events} WHERE type = 'Order.placed' GROUP BY customer ORDER BY n DESC, customer LIMIT 10",
    "distinct members": "SELECT count(DISTINCT json_extract_string(data, '$.connectionId')) FROM {events} WHERE type = 'ws.message'",
    "span of a member": "SELECT json_extract_string(after, '$.name') AS name, max(ts) - min(ts) < INTERVAL '1 hour', count(*) FROM {events} WHERE op = 'u' GROUP BY name",
}
AGGREGATES = {
    "sums": "SELECT sum(length(id)), avg(seq), count(method) FROM {events}",
    "distinct keys": "SELECT count(DISTINCT key) FROM {events}",
    "distinct objects": "SELECT count(DISTINCT do_id) FROM {events}",
    "many groups": "SELECT key, count(*) AS n FROM {events} WHERE key IS NOT NULL GROUP BY key ORDER BY n DESC, key LIMIT 10",
    "many groups of two": "SELECT type, correlation_id, count(*) AS n FROM {events} GROUP BY type, correlation_id ORDER BY n DESC, type, correlation_id LIMIT 10",
    "groups by colo and class": "SELECT do_colo, do_class, count(*), count(DISTINCT do_id), avg(duration_ms) FROM {events} WHERE do_class IS NOT NULL GROUP BY do_colo, do_class",
    "text filter and sort": "SELECT url, count(*) AS n FROM {events} WHERE url LIKE '%/v1/1%' GROUP BY url ORDER BY n DESC, url LIMIT 10",
    "rare filter": "SELECT seq, error FROM {events} WHERE success = false AND duration_ms > 100 ORDER BY seq LIMIT 100",
    "minutes of a day": "SELECT date_trunc('minute', ts) AS minute, count(*) AS n FROM {events} WHERE ts >= '{day}' GROUP BY minute ORDER BY n DESC, minute LIMIT 10",
    "wide rows": "SELECT * FROM {events} WHERE type = 'Order.placed' AND ts >= '{hour}' AND ts < '{hour_end}' ORDER BY seq LIMIT 100",
}
# What a process of its own costs is seen where a query itself takes little.
BARE = {
    "SELECT 1": "SELECT 1",
    "small aggregation": "SELECT type, count(*), avg(duration_ms) FROM events GROUP BY type",
}
# How often each of them runs, on each server in turn, and how often before that.
BARE_CALLS, BARE_CALLS_BEFORE = 400, 20
# Events of that measurement, unless it is told otherwise, and of the other one.
BARE_EVENTS, EVENTS = 100_000, 2_000_000
GROUPS = {"Shapes": SHAPES, "Statements of the earlier layout": EARLIER, "Payloads": PAYLOADS, "Aggregates": AGGREGATES}


@dataclass
class Took:
    """Seconds of one run of a statement, a value a round."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def add(self, cpu: float, wall: float) -> None:
        self.cpu.append(cpu)
        self.wall.append(wall)


class Files:
    """DuckDB on the table's data files, opened by their names."""

    def __init__(self, uri: str, files: list[str], threads: int):
        self.engine, self.table = DuckDB(uri), "events"
        prepare(self.engine, threads)
        self.engine.connection.execute(f"CREATE VIEW events AS SELECT * FROM read_parquet({files!r}, union_by_name = true, hive_partitioning = false)")

    def rows(self, statement: str) -> list[tuple]:
        return self.engine.rows(statement)

    def cpu(self) -> float:
        return own_cpu_seconds()


class Catalog(Files):
    """DuckDB on the table as the catalog has it."""

    def __init__(self, uri: str, threads: int):
        self.engine = DuckDB(uri)
        prepare(self.engine, threads)
        self.table = self.engine.table(NAMESPACE, "events")


class Endpoint:
    """The SQL endpoint of the server; CPU of the server and of all processes that it started."""

    def __init__(self, bench: Bench):
        self.client, self.process, self.table = bench.client, bench.server.process.pid, "events"

    def rows(self, statement: str) -> list[tuple]:
        return self.client.sql(NAMESPACE, statement)

    def cpu(self) -> float:
        return family_cpu_seconds(self.process)


def prepare(engine: DuckDB, threads: int) -> None:
    """The same number of threads as the server's queries have, and footers that are kept."""
    engine.connection.execute(f"SET threads = {threads}; SET parquet_metadata_cache = true")


def own_cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def family_cpu_seconds(pid: int) -> float:
    """User and system time of a process, of those that it started, and of those of them that have ended."""
    parents, ticks = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue  # It has just ended.
        process = int(path.parent.name)
        parents[process], ticks[process] = int(fields[1]), sum(map(int, fields[11:15]))

    def is_of_family(process: int) -> bool:
        while process in parents and process != pid:
            process = parents[process]
        return process == pid

    return sum(ticks[process] for process in ticks if is_of_family(process)) / TICK


def send(bench: Bench, events: int, commits: int) -> int:
    """So many generated events in so many commits; how many they are in the end."""
    start, sent, made = datetime.now(timezone.utc), 0, 0
    step = -(-events // commits)
    while made < events:
        size = min(PART, step - made % step, events - made)
        # Another seed is other ids. All have the same days.
        lines, truth = generate(size, start, seed=11 + made)
        lines = [OWNER.sub(f'"ns":"{NAMESPACE}"', line, count=1) for line in lines]
        told = send_all(bench.server.url, lines, workers=2, size=1_000, namespace=NAMESPACE, query="?backfill=true")
        assert not told.errors, told.errors[:3]
        made, sent = made + size, sent + truth.events
        if made % step == 0 or made == events:
            bench.client.commit(NAMESPACE)
    return sent


def marks(files: Files) -> dict:
    """Values in the middle of the table that statements look for."""
    [(seq, event, moment)] = files.rows("SELECT seq, id, ts FROM events ORDER BY seq LIMIT 1 OFFSET (SELECT count(*) // 2 FROM events)")
    users = "FROM events WHERE collection = 'users' AND key IS NOT NULL"
    [(key, bookmark)] = files.rows(f"SELECT key, bookmark {users} ORDER BY seq LIMIT 1 OFFSET (SELECT count(*) // 2 {users})")
    [(bookmark_end,)] = files.rows(f"SELECT max(bookmark) FROM (SELECT bookmark FROM events WHERE bookmark > '{bookmark}' ORDER BY bookmark LIMIT 500)")
    hour = moment.astimezone(timezone.utc).replace(minute=0, second=0, microsecond=0)
    text = "%Y-%m-%dT%H:%M:%SZ"
    return {"id": event, "seq": seq, "key": key, "bookmark": bookmark, "bookmark_end": bookmark_end, "hour": hour.strftime(text),
            "hour_end": hour.replace(minute=59, second=59).strftime(text), "day": hour.replace(hour=0).strftime(text)}


def plain(value):
    """A value in a form that does not depend on who answered: times as microseconds, floats to nine digits."""
    if isinstance(value, str) and value.endswith("Z") and value[4:5] == "-" and value[10:11] == "T":
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        value = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
        return value.astimezone(timezone.utc).isoformat(timespec="microseconds")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, (float, Decimal)):
        return None if math.isnan(value) or math.isinf(value) else float(f"{value:.9g}")
    if isinstance(value, int) and not isinstance(value, bool):
        return float(f"{value:.9g}") if 1 << 53 < abs(value) else value
    return value


def answer(rows: list[tuple], is_ordered: bool) -> list:
    plain_rows = [tuple(map(plain, row)) for row in rows]
    return plain_rows if is_ordered else sorted(plain_rows, key=repr)


class Statement:
    """One statement and what each engine needed for it."""

    def __init__(self, name: str, text: str, values: dict):
        self.name, self.text, self.values = name, text, values
        self.took: dict[str, Took] = {}
        self.repeats: dict[str, int] = {}
        self.problems: list[str] = []

    def of(self, engine) -> str:
        return self.text.format(events=engine.table, **self.values)

    def warm(self, engines: dict) -> None:
        """Runs it once everywhere, compares the answers, and decides how often a round runs it."""
        expected, is_ordered = None, "ORDER BY" in self.text.rsplit(")", 1)[-1]
        for label, engine in engines.items():
            started = time.perf_counter()
            try:
                rows = engine.rows(self.of(engine))
            except Exception as failure:  # noqa: BLE001 - an engine that refuses a statement is a finding, not the end of the run
                self.problems.append(f"{label}: {type(failure).__name__}: {str(failure).splitlines()[0][:300]}")
                if isinstance(failure, BROKEN) and not isinstance(failure, Refused):
                    raise
                continue
            seconds = time.perf_counter() - started
            self.repeats[label] = min(REPEATS_MAX, max(1, math.ceil(ROUND_SECONDS / max(seconds, 1e-4))))
            self.took[label] = Took()
            assert len(rows) <= 10 * ROWS_MAX, (self.name, len(rows))
            # Columns of `*` that no file has are in the table all the same.
            got = [len(rows)] if "SELECT *" in self.text else answer(rows, is_ordered)
            if expected is None:
                expected = got
            elif expected != got:
                self.problems.append(f"{label} answers otherwise: {first_difference(expected, got)}")

    def round(self, engines: dict) -> None:
        for label, repeats in self.repeats.items():
            engine = engines[label]
            text, cpu, started = self.of(engine), engine.cpu(), time.perf_counter()
            for _ in range(repeats):
                engine.rows(text)
            wall, cpu = time.perf_counter() - started, engine.cpu() - cpu
            self.took[label].add(cpu / repeats, wall / repeats)

    def median(self, label: str, kind: str) -> float | None:
        took = self.took.get(label)
        return statistics.median(getattr(took, kind)) if took and took.cpu else None

    def ratio(self, other: str, kind: str) -> float | None:
        ours, theirs = self.median(SQL, kind), self.median(other, kind)
        return None if ours is None or not theirs else max(ours, 1e-5) / theirs


def first_difference(expected: list, got: list) -> str:
    if len(expected) != len(got):
        return f"{len(got)} rows, not {len(expected)}"
    return next(f"{ours!r:.200}, not {theirs!r:.200}" for theirs, ours in zip(expected, got) if theirs != ours)


def geomean(values) -> float:
    values = [value for value in values if value is not None]
    return math.exp(statistics.fmean(map(math.log, values))) if values else math.nan


def text_of(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def measure(title: str, bench: Bench, given) -> list[str]:
    """Runs all statements on the table as it is now, prints the tables, and gives what differs."""
    files = bench.live_files()
    uri = bench.server.url + "/catalog"
    on_files = Files(uri, files, given.threads)
    engines = {FILES: on_files, CATALOG: Catalog(uri, given.threads), SQL: Endpoint(bench)}
    values = marks(on_files)
    megabytes = sum(map(os.path.getsize, files)) / 1e6
    print(f"## {title}: {len(files):,} files, {megabytes:,.0f} MB\n")
    groups = {group: [Statement(name, text, values) for name, text in texts.items() if given.only in name] for group, texts in GROUPS.items()}
    statements = [statement for group in groups.values() for statement in group]
    for statement in statements:
        statement.warm(engines)
    for _ in range(given.rounds):
        for statement in statements:
            statement.round(engines)
    for group, members in groups.items():
        if members:
            print_group(group, members)
    for other in (FILES, CATALOG):
        cpu, wall = (geomean(statement.ratio(other, kind) for statement in statements) for kind in ("cpu", "wall"))
        worst = max((statement for statement in statements if statement.ratio(other, "cpu")), key=lambda it: it.ratio(other, "cpu"), default=None)
        told = f"; the most is {worst.ratio(other, 'cpu'):.2f} × in *{worst.name}*" if worst else ""
        print(f"Beside {other}: {cpu:.2f} × the CPU, {wall:.2f} × the time (geometric means){told}.")
    problems = [f"{title}, {statement.name}: {problem}" for statement in statements for problem in statement.problems]
    print("\n" + "\n".join(f"- {problem}" for problem in problems) + "\n" if problems else "\nAll answers are equal.\n")
    return problems


def print_group(group: str, members: list[Statement]) -> None:
    print(f"| {group} | CPU ms: files | catalog | SQL | SQL / files | SQL / catalog | ms: files | catalog | SQL | SQL / files |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for it in members:
        cpu, wall = ([text_of(ms(it.median(label, kind)), ",.1f") for label in (FILES, CATALOG, SQL)] for kind in ("cpu", "wall"))
        ratios = [text_of(it.ratio(other, "cpu"), ".2f") for other in (FILES, CATALOG)]
        print(f"| {it.name} | {' | '.join(cpu)} | {' | '.join(ratios)} | {' | '.join(wall)} | {text_of(it.ratio(FILES, 'wall'), '.2f')} |")
    print(f"| *geometric mean* | | | | {geomean(it.ratio(FILES, 'cpu') for it in members):.2f} | {geomean(it.ratio(CATALOG, 'cpu') for it in members):.2f} "
          f"| | | | {geomean(it.ratio(FILES, 'wall') for it in members):.2f} |\n")


def ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--dir", type=Path, help="where the data folder goes; the disk to measure (default: a temporary folder)")
    parser.add_argument("--events", type=int, help=f"(default {EVENTS:,}, and {BARE_EVENTS:,} with --workers)")
    parser.add_argument("--commits", type=int, default=10, help="snapshots that the events come in")
    parser.add_argument("--rounds", type=int, default=5, help="of each statement; the median is told")
    parser.add_argument("--threads", type=int, default=2, help="of DuckDB")
    parser.add_argument("--only", default="", help="statements with this in their name")
    parser.add_argument("--workers", action="store_true", help="measure small queries with sql.workers on and off")
    given = parser.parse_args()
    given.events = given.events or (BARE_EVENTS if given.workers else EVENTS)
    os.environ["ICECORE_BIN"] = str(Path(given.bin).resolve())
    folder = Path(tempfile.mkdtemp(prefix="icecore-bench-", dir=given.dir))
    try:
        return report_workers(given, folder) if given.workers else report(given, folder)
    finally:
        shutil.rmtree(folder)


def report(given, folder: Path) -> int:
    print(f"Machine: {machine(folder)}. Engines and server share it; files are in the page cache, footers in memory.\n")
    bench = Bench(folder / "server")
    try:
        sent = send(bench, given.events, given.commits)
        [(rows, ids)] = bench.client.sql(NAMESPACE, "SELECT count(*), count(DISTINCT id) FROM events")
        assert (rows, ids) == (sent, sent), (rows, ids, sent)
        print(f"{sent:,} events in {given.commits:,} commits.\n")
        problems = measure("Fresh", bench, given)
        bench.compact()
        problems += measure("Compacted", bench, given)
    finally:
        bench.server.stop()
    return 1 if problems else 0


def report_workers(given, folder: Path) -> int:
    """Two servers with the same events answer in turns, over one kept-alive connection each."""
    print(f"Machine: {machine(folder)}. The client and both servers share it; files are in the page cache, processes for queries are warm.")
    print("Durability: one fdatasync per group before the answer; no events come while queries are measured.\n")
    benches = {"off": Bench(folder / "off", (*BY_HAND, "--set", "sql.workers=off")), "on": Bench(folder / "on")}
    problems = []
    try:
        sent = [send(bench, given.events, given.commits) for bench in benches.values()]
        for bench in benches.values():
            bench.compact()
        lines, _ = generate(1_000, datetime.now(timezone.utc), seed=11)
        length = sum(len(line.encode()) for line in lines) / len(lines)
        print(f"{sent[0]:,} events of about {length:.0f} B as JSON in {given.commits:,} commits, compacted; {BARE_CALLS:,} calls of each statement.\n")
        print("| over HTTP, ms | off: p50 | p95 | on: p50 | p95 | on / off | goal of the p50: off + 10 % + 5 ms |\n|---|---|---|---|---|---|---|")
        for name, text in BARE.items():
            problems += bare(name, text, {label: bench.client for label, bench in benches.items()})
    finally:
        for bench in benches.values():
            bench.server.stop()
    print("\n" + ("\n".join(f"- {problem}" for problem in problems) if problems else "All answers are equal."))
    return 1 if problems else 0


def bare(name: str, text: str, clients: dict) -> list[str]:
    """Prints what a statement takes with and without processes of their own, and gives how the answers differ."""
    answers, took = {}, {label: [] for label in clients}
    for label, client in clients.items():
        # The server has closed a connection that waited.
        client.close()
        for _ in range(BARE_CALLS_BEFORE):
            answers[label] = answer(client.sql(NAMESPACE, text), is_ordered=False)
    for _ in range(BARE_CALLS):
        for label, client in clients.items():
            started = time.perf_counter()
            client.sql(NAMESPACE, text)
            took[label].append((time.perf_counter() - started) * 1e3)
    off, on = (percentile(took[label], 0.5) for label in ("off", "on"))
    goal = 1.1 * off + 5
    print(f"| {name} | {off:.2f} | {percentile(took['off'], 0.95):.2f} | {on:.2f} | {percentile(took['on'], 0.95):.2f} | {on / off:.2f} "
          f"| {goal:.2f}: {'kept' if on <= goal else 'missed'} |", flush=True)
    return [] if answers["off"] == answers["on"] else [f"{name}: {first_difference(answers['off'], answers['on'])}"]


if __name__ == "__main__":
    sys.exit(main())
