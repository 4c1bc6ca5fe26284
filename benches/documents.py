#!/usr/bin/env python3
"""Measures documents of a release binary beside DuckDB on the same files and prints a Markdown report. `benches/README.md` says how to read it.

    benches/documents.py --bin target/release/icecore [--dir FOLDER] [--documents 20000] [--changes 10] [--rounds 3]

`--documents 1000000` is what the goals are for. Needs DuckDB and PyIceberg (the client tests' Python packages have them). Ends with 1 if an answer differs.
"""
import argparse
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "clients"), str(ROOT / "benches")]

from engines import PyIceberg, connect_duckdb  # noqa: E402
from ingest import machine  # noqa: E402
from maintenance import BY_HAND, Bench  # noqa: E402
from query import family_cpu_seconds, own_cpu_seconds  # noqa: E402

COLLECTION, TABLE = "users", "cdc_users"
SIZE, COMMIT = 1_000, 200_000
# A replay of a long history may take longer than a query is allowed to by default.
PATIENT = ("--set", "sql.timeout_max=30min")
DELETED = 0.02
LOOK_UPS, HISTORIES = 200, 100
# One document of so many changes before a refresh.
CHANGED = 100
WINDOW = ("SELECT key, after AS doc, seq FROM (SELECT key, after, op, seq, row_number() OVER (PARTITION BY key ORDER BY seq DESC) AS newest "
          f"FROM read_parquet({{files}}, union_by_name = true, hive_partitioning = false) WHERE collection = '{COLLECTION}' AND op IN ('c', 'u', 'd')) WHERE newest = 1 AND op <> 'd'")
LAST = ("SELECT key, arg_max(doc, seq) AS doc, max(seq) AS seq, arg_max(op, seq) AS op FROM (SELECT key, doc, seq, op FROM read_parquet({base}, hive_partitioning = false) UNION ALL "
        f"SELECT key, after AS doc, seq, op FROM read_parquet({{files}}, union_by_name = true, hive_partitioning = false) WHERE collection = '{COLLECTION}' AND seq > {{after}}) GROUP BY key")


@dataclass
class Took:
    """Seconds of one step."""

    cpu: float
    wall: float

    def __str__(self) -> str:
        return f"{self.cpu:,.2f} | {self.wall:,.2f}"


class Documents:
    """A namespace with one collection."""

    def __init__(self, bench: Bench, namespace: str, documents: int, threads: int):
        self.bench, self.namespace, self.documents, self.threads = bench, namespace, documents, threads
        self.random, self.sent = random.Random(documents), 0
        self.process = bench.server.process.pid
        # Which documents there are, so that an operation says what it does.
        self.there = bytearray(documents)

    def line(self, number: int) -> str:
        self.sent += 1
        op = "d" if self.there[number] and self.random.random() < DELETED else "u" if self.there[number] else "c"
        self.there[number] = op != "d"
        after = "" if op == "d" else (f',"after":{{"name":"user {number}","visits":{self.sent},"city":"{self.random.choice(("Rome", "Oslo", "Lima"))}",'
                                      f'"email":"user-{number}@example.com","score":{self.random.random():.6f}}}')
        return f'{{"id":"{self.namespace}-{self.sent}","collection":"{COLLECTION}","key":"u-{number:09}","op":"{op}"{after}}}'

    def send(self, numbers) -> None:
        """One change of each of these documents, and commits."""
        lines, waiting = [], 0
        for number in numbers:
            lines.append(self.line(number))
            if len(lines) == SIZE:
                waiting += self.flush(lines)
                if COMMIT <= waiting:
                    self.bench.client.commit(self.namespace)
                    waiting = 0
        self.flush(lines)
        self.bench.client.commit(self.namespace)

    def flush(self, lines: list[str]) -> int:
        count = len(lines)
        if lines:
            status, reply = self.bench.client.send(lines, self.namespace)
            assert status == 200, reply
            lines.clear()
        return count

    def any(self, count: int):
        return (self.random.randrange(self.documents) for _ in range(count))

    def call(self, method: str, path: str, body=None) -> dict:
        raw = b"" if body is None else json.dumps(body).encode()
        status, _, answer = self.bench.client.request(method, path, raw, {"content-type": "application/json"})
        assert status == 200, (path, status, answer[:500])
        return json.loads(answer)

    def files(self, table: str) -> list[str]:
        files = PyIceberg(self.bench.server.url + "/catalog").load(self.namespace, table).inspect.files()
        return sorted(path.removeprefix("file://") for path in files["file_path"].to_pylist())

    def took(self, step) -> tuple[Took, dict]:
        """What a step of the server needs, its query workers included."""
        # The server has closed a connection that waited for the other parts.
        self.bench.client.close()
        cpu, started = family_cpu_seconds(self.process), time.perf_counter()
        answer = step()
        wall = time.perf_counter() - started
        return Took(family_cpu_seconds(self.process) - cpu, wall), answer

    def refresh(self) -> tuple[Took, dict]:
        return self.took(lambda: self.call("POST", f"/v1/{self.namespace}/collections/{COLLECTION}/refresh"))

    def restore(self, **body) -> tuple[Took, dict]:
        return self.took(lambda: self.call("POST", f"/v1/{self.namespace}/collections/{COLLECTION}/restore", body))

    def duckdb(self, sql: str, target: Path) -> Took:
        """What DuckDB needs to write the rows of a query."""
        duck = connect_duckdb(())
        duck.execute(f"SET threads = {self.threads}; SET parquet_metadata_cache = true")
        cpu, started = own_cpu_seconds(), time.perf_counter()
        duck.execute(f"COPY ({sql}) TO '{target}' (FORMAT parquet, COMPRESSION zstd)")
        took = Took(own_cpu_seconds() - cpu, time.perf_counter() - started)
        duck.close()
        # The server closes one that is quiet for so long.
        self.bench.client.close()
        return took

    def differs(self, written: Path) -> str | None:
        """Whether what DuckDB wrote is another state than what the server reads."""
        [theirs] = connect_duckdb(()).execute(f"SELECT count(*), sum(strlen(doc)), sum(seq) FROM '{written}'").fetchall()
        [ours] = self.bench.client.sql(self.namespace, f"SELECT count(*), sum(octet_length(doc)), sum(seq) FROM {TABLE}")
        return None if tuple(map(int, theirs)) == tuple(map(int, ours)) else f"{self.namespace}: DuckDB has {theirs}, Icecore {ours}"

    def milliseconds(self, count: int, end: str) -> float:
        """The median of look-ups of documents that are there."""
        there, taken = [number for number in self.any(20 * count) if self.there[number]][:count], []
        for number in there:
            path = f"/v1/{self.namespace}/collections/{COLLECTION}/docs/{quote(f'u-{number:09}')}{end}"
            started = time.perf_counter()
            self.call("GET", path)
            taken.append(time.perf_counter() - started)
        return 1e3 * statistics.median(taken)


def fastest(rounds: int, step) -> Took:
    return min((step() for _ in range(rounds)), key=lambda took: took.cpu)


def row(name: str, ours: Took, theirs: Took | None, goal: str) -> None:
    ratio = f"{ours.cpu / max(theirs.cpu, 1e-3):.2f}" if theirs else "–"
    print(f"| {name} | {ours} | {theirs or '– | –'} | {ratio} | {goal} |")


def after_changes(of: Documents, folder: Path, rounds: int, problems: list[str]) -> None:
    """A refresh after one document of a hundred changed, and look-ups beside a fresh table."""
    ours, theirs, buckets = [], [], 0
    for number in range(rounds):
        base = of.files(TABLE)
        applied = of.call("POST", f"/v1/{of.namespace}/collections/{COLLECTION}/refresh")["applied_seq"]
        of.send(of.random.sample(range(of.documents), max(1, of.documents // CHANGED)))
        took, done = of.refresh()
        ours.append(took)
        buckets = done["buckets"]
        touched = sorted(set(base) - set(of.files(TABLE)))
        target = folder / f"{of.namespace}-{number}.parquet"
        last = LAST.format(base=touched, files=of.files("events"), after=applied)
        theirs.append(of.duckdb(f"SELECT key, doc, seq FROM ({last}) WHERE op <> 'd' ORDER BY key", target))
        if len(touched) == len(base):
            problems += filter(None, [of.differs(target)])
    middle = sorted(range(rounds), key=lambda at: ours[at].cpu)[rounds // 2]
    row(f"{of.namespace}: refresh after 1 % changed ({buckets} buckets)", ours[middle], theirs[middle], "1.2")
    document, history = of.milliseconds(LOOK_UPS, ""), of.milliseconds(HISTORIES, "/history")
    print(f"| {of.namespace}: one document, p50 | | {document / 1e3:.4f} | – | – | | 0.010 |")
    print(f"| {of.namespace}: its history, p50 | | {history / 1e3:.4f} | – | – | | 0.030 |")


def compact(of: Documents) -> None:
    of.bench.client.close()
    of.call("POST", f"/admin/jobs/compact?namespace={of.namespace}")


def replay(of: Documents, folder: Path, rounds: int, problems: list[str]) -> None:
    """The state of all changes without a table, then with one that is fresh."""
    files, head = of.files("events"), of.bench.client.sql(of.namespace, "SELECT max(seq) FROM events")[0][0]
    print(f"| {len(files):,} files of events, {sum(map(os.path.getsize, files)) / of.sent:.0f} bytes an event | | | | | | |")
    target = folder / "window.parquet"
    window = fastest(rounds, lambda: of.duckdb(WINDOW.format(files=files), target))
    at = {"at": f"seq:{head}"}
    full = fastest(rounds, lambda: of.restore(dry_run=True, **at)[0])
    row("dry run of a restore, by all changes", full, window, "")
    restored, report = of.restore(into="copied", **at)
    row(f"restore of {report['inserted']:,} documents, by all changes, with its events", restored, window, "1.3")
    of.bench.client.commit(of.namespace)
    made, _ = of.refresh()
    row("the table is made", made, window, "1.3")
    problems += filter(None, [of.differs(target)])
    fresh = fastest(rounds, lambda: of.restore(dry_run=True, **at)[0])
    row(f"dry run of a restore, from a fresh table: {fresh.cpu / max(full.cpu, 1e-3):.0%} of that by all changes", fresh, window, "")
    earlier(of, restored, window)


def earlier(of: Documents, replayed: Took, window: Took) -> None:
    """A restore to an earlier point, at which a table was fresh, beside changes that came since."""
    point = of.bench.client.sql(of.namespace, "SELECT max(seq) FROM events")[0][0]
    of.refresh()
    of.send(of.random.sample(range(of.documents), max(1, of.documents // CHANGED)))
    of.refresh()
    took, report = of.restore(into="earlier", at=f"seq:{point}")
    share = took.cpu / max(replayed.cpu, 1e-3)
    row(f"restore of {report['inserted']:,} documents to an earlier point, from a table that was fresh there: {share:.0%} of that by all changes", took, window, "10 %")
    of.bench.client.commit(of.namespace)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--dir", type=Path, help="where the data folder goes; the disk to measure (default: a temporary folder)")
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--changes", type=int, default=10, help="of each document in the long history, on average")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="of DuckDB")
    given = parser.parse_args()
    os.environ["ICECORE_BIN"] = str(Path(given.bin).resolve())
    folder = Path(tempfile.mkdtemp(prefix="icecore-bench-", dir=given.dir))
    try:
        return report(given, folder)
    finally:
        shutil.rmtree(folder)


def report(given, folder: Path) -> int:
    print(f"Machine: {machine(folder)}. Server, workers and DuckDB ({given.threads} threads) share it; data in {folder}, files are in the page cache.")
    print("Durability: one fdatasync per group before the answer; files of tables are written without one. CPU of the server is that of all its processes.\n")
    bench, problems = Bench(folder / "server", (*BY_HAND, *PATIENT)), []
    try:
        short, long = (Documents(bench, name, given.documents, given.threads) for name in ("short", "long"))
        for of, changes in ((short, 1), (long, given.changes)):
            of.send(range(given.documents))
            of.send(of.any((changes - 1) * given.documents))
            compact(of)
        print(f"{given.documents:,} documents; `short` has {short.sent:,} changes and `long` {long.sent:,}.\n")
        print("| step | CPU s: Icecore | s | CPU s: DuckDB | s | CPU: Icecore / DuckDB | goal |\n|---|---|---|---|---|---|---|")
        short.refresh()
        after_changes(short, folder, given.rounds, problems)
        replay(long, folder, given.rounds, problems)
        after_changes(long, folder, given.rounds, problems)
    finally:
        bench.server.stop()
    print("\n" + ("\n".join(f"- {problem}" for problem in problems) if problems else "All answers are equal."))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
