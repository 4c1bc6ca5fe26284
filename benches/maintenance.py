#!/usr/bin/env python3
"""Measures compaction of a release binary and prints a Markdown report. `benches/README.md` says how to read it.

    benches/maintenance.py --bin target/release/icecore [--dir FOLDER] [--events 400000] [--commits 200] [--rounds 5] [--long-files 20]

Needs DuckDB and PyIceberg (the client tests' Python packages have them).
"""
import argparse
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import statistics
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "clients"), str(ROOT / "benches")]

from engines import DuckDB, PyIceberg  # noqa: E402
from generate import generate, iso  # noqa: E402
from ingest import bytes_below, cpu_seconds, machine, peak_mib  # noqa: E402
from server import Server  # noqa: E402

NAMESPACE = "bench"
# Most events of a request.
SIZE = 1_000
# The namespace of an event as it is generated.
OWNER = re.compile(r'"ns":"[^"]*"')
# Events of a long file, and the milliseconds of the day that all of them are of.
LONG_ROWS, DAY_MS = 50_000, 86_400_000
# Nothing is merged or committed by itself.
BY_HAND = ("--set", "compaction.enabled=off", "--set", "commit.interval=10min")
GROUP_BY = "SELECT type, count(*), count(DISTINCT id) FROM {table} GROUP BY type ORDER BY type"


class Bench:
    """A server that merges nothing by itself, unless its settings say so; its time is taken from the processes' own counters."""

    def __init__(self, folder: Path, arguments=BY_HAND, environment=None):
        self.server = Server(folder, arguments, environment).start()
        self.client = self.server.client()
        self.client.timeout = 3_600
        self.warehouse = folder / "data" / "warehouse"

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *_) -> None:
        self.client.close()
        self.server.kill()

    def send(self, lines: list[str], commits: int) -> None:
        """The events in their order, so many of them a snapshot."""
        step = -(-len(lines) // commits)
        for start in range(0, len(lines), step):
            part = lines[start : start + step]
            for at in range(0, len(part), SIZE):
                status, answer = self.client.send(part[at : at + SIZE], NAMESPACE, "?backfill=true")
                assert status == 200, answer
            self.client.commit(NAMESPACE)

    def compact(self) -> tuple[dict, float, float]:
        """What a run did, its seconds, and the CPU seconds of the server."""
        self.client.close()
        before, started = cpu_seconds(self.server.process.pid), time.perf_counter()
        status, _, raw = self.client.request("POST", f"/admin/jobs/compact?namespace={NAMESPACE}", b"", {"content-type": "application/json"})
        seconds = time.perf_counter() - started
        assert status == 200, raw
        return json.loads(raw), seconds, cpu_seconds(self.server.process.pid) - before

    def live_files(self) -> list[str]:
        table = PyIceberg(self.server.url + "/catalog").load(NAMESPACE, "events")
        return [path.removeprefix("file://") for path in table.inspect.files()["file_path"].to_pylist()]

    def sql_seconds(self, rounds: int) -> float:
        return median(rounds, lambda: self.client.sql(NAMESPACE, GROUP_BY.format(table="events")))

    def duckdb_seconds(self, rounds: int) -> float:
        def read():
            duck = DuckDB(self.server.url + "/catalog")
            duck.rows(GROUP_BY.format(table=duck.table(NAMESPACE, "events")))

        return median(rounds, read)

    def pyiceberg_seconds(self, rounds: int) -> float:
        def read():
            PyIceberg(self.server.url + "/catalog").load(NAMESPACE, "events").scan(selected_fields=("type", "id")).to_arrow()

        return median(rounds, read)

    def scans(self, rounds: int) -> dict:
        # The server has closed a connection that waited for the other parts.
        self.client.close()
        return {"SQL": self.sql_seconds(rounds), "DuckDB": self.duckdb_seconds(rounds), "PyIceberg": self.pyiceberg_seconds(rounds)}


def median(rounds: int, call) -> float:
    took = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        took.append(time.perf_counter() - started)
    return statistics.median(took)


def duckdb_copy(files: list[str], target: str) -> tuple[int, int, float, float, float]:
    """The same files sorted as ours are, a file a type and day, by DuckDB on one thread: rows, bytes, seconds, CPU seconds, peak MiB of this process."""
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET enable_progress_bar = false; SET threads = 1; SET memory_limit = '1GiB'; SET preserve_insertion_order = true")
    connection.execute(f"SET temp_directory = '{target}.tmp'")
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    read = f"SELECT *, CAST(ts AS DATE) AS dt FROM read_parquet({files!r}, union_by_name = true) ORDER BY type, dt, ts, seq"
    copied = connection.execute(f"COPY ({read}) TO '{target}' (FORMAT parquet, COMPRESSION zstd, PARTITION_BY (type, dt), WRITE_PARTITION_COLUMNS true)").fetchall()
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return copied[0][0], bytes_below(Path(target), ".parquet"), seconds, cpu, after.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--dir", type=Path, help="where the data folders go; the disk to measure (default: a temporary folder)")
    parser.add_argument("--events", type=int, default=400_000)
    parser.add_argument("--commits", type=int, default=200, help="snapshots that the events come in")
    parser.add_argument("--rounds", type=int, default=5, help="of each query; the median is told")
    parser.add_argument("--long-files", type=int, default=20, help=f"files of {LONG_ROWS:,} events in the order of time, which are copied")
    given = parser.parse_args()
    os.environ["ICECORE_BIN"] = str(Path(given.bin).resolve())
    folder = Path(tempfile.mkdtemp(prefix="icecore-bench-", dir=given.dir))
    try:
        report(given, folder)
    finally:
        shutil.rmtree(folder)


def report(given, folder: Path) -> None:
    print(f"Machine: {machine(folder)}. Engines and server share it; files are in the page cache.\n", flush=True)
    with Bench(folder / "small") as bench, Bench(folder / "fresh") as fresh:
        report_small(given, folder, bench, fresh)
    with Bench(folder / "long") as bench:
        report_copies(given, folder, bench)


def long_rows(count: int) -> list[str]:
    """Events of one type and of yesterday, in the order of their times. 32 bytes of each do not compress, so that 50,000 have more than 1 MiB."""
    rnd, first_ms = random.Random(12), (int(time.time() * 1000) // DAY_MS - 1) * DAY_MS

    def line(at: int) -> str:
        data = {"n": at, "token": f"{rnd.getrandbits(256):064x}"}
        return json.dumps({"id": f"row-{at:09d}", "type": "backfill.row", "timestamp": iso(first_ms + DAY_MS * at // count), "data": data})

    return [line(at) for at in range(count)]


def report_copies(given, folder: Path, bench: Bench) -> None:
    """Files whose rows follow one another, with row groups that are long enough to be copied as they are stored."""
    count = given.long_files * LONG_ROWS
    bench.send(long_rows(count), given.long_files)
    files = bench.live_files()
    size = sum(map(os.path.getsize, files))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        duck_rows, duck_bytes, duck_seconds, duck_cpu, _ = pool.apply(duckdb_copy, (files, str(folder / "duckdb-long")))
    done, seconds, cpu = bench.compact()
    merged = bench.live_files()
    merged_bytes = sum(map(os.path.getsize, merged))
    assert duck_rows == count, (duck_rows, count)
    rows = bench.client.sql(NAMESPACE, "SELECT count(*), count(DISTINCT id) FROM events")[0]
    assert tuple(rows) == (count, count), rows

    print(f"\n{count:,} events of one type in the order of their times, in {len(files):,} files of {size / len(files) / 1e6:.1f} MB. "
          f"Compaction copied {done['copied_files']:,} of the {done['files']['before']:,} that it merged.\n")
    for told in done["not_copied"]:
        print(f"Not copied: {told['reason']}.\n")
    rate, duck_rate = done["rows"] / cpu, duck_rows / duck_cpu
    mb_rate, duck_mb_rate = done["bytes"]["before"] / 1e6 / cpu, size / 1e6 / duck_cpu
    print("| | Icecore, `compact` | DuckDB, sorted `COPY` of the same files | ratio; of the first two 5 is wanted |")
    print("|---|---|---|---|")
    print(f"| rows per CPU second | {rate:,.0f} | {duck_rate:,.0f} | {rate / duck_rate:.2f} |")
    print(f"| MB read per CPU second | {mb_rate:.2f} | {duck_mb_rate:.2f} | {mb_rate / duck_mb_rate:.2f} |")
    print(f"| seconds | {seconds:.1f} | {duck_seconds:.1f} (one thread) | {seconds / duck_seconds:.2f} |")
    print(f"| bytes per event | {merged_bytes / count:.1f} | {duck_bytes / count:.1f} | {merged_bytes / duck_bytes:.2f} |")
    print(f"| files | {len(merged):,} | {sum(1 for _ in (folder / 'duckdb-long').rglob('*.parquet')):,} | |")


def report_small(given, folder: Path, bench: Bench, fresh: Bench) -> None:
    """Many small files, which compaction writes anew."""
    lines, truth = generate(given.events, datetime.now(timezone.utc), seed=11)
    lines = [OWNER.sub(f'"ns":"{NAMESPACE}"', line, count=1) for line in lines]
    bench.send(lines, given.commits)
    fresh.send(lines, 1)
    files = bench.live_files()
    small_bytes, small_scans, fresh_scans = sum(map(os.path.getsize, files)), bench.scans(given.rounds), fresh.scans(given.rounds)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        duck_rows, duck_bytes, duck_seconds, duck_cpu, duck_peak = pool.apply(duckdb_copy, (files, str(folder / "duckdb")))
    done, seconds, cpu = bench.compact()
    peak, merged = peak_mib(bench.server.process.pid), bench.live_files()
    merged_bytes, merged_scans = sum(map(os.path.getsize, merged)), bench.scans(given.rounds)
    duck_files = sum(1 for _ in (folder / "duckdb").rglob("*.parquet"))
    assert duck_rows == truth.events, (duck_rows, truth.events)
    rows = bench.client.sql(NAMESPACE, "SELECT count(*), count(DISTINCT id) FROM events")[0]
    assert tuple(rows) == (truth.events, truth.events), rows

    print(f"{truth.events:,} events of {small_bytes / truth.events:.0f} B each in {len(files):,} files of {given.commits:,} commits. Of them compaction wrote {done['rows']:,} rows anew.\n")
    mb = done["bytes"]["before"] / 1e6
    print("| | Icecore, `compact` | DuckDB, sorted `COPY` of the same files | ratio |")
    print("|---|---|---|---|")
    print(f"| rows per CPU second | {done['rows'] / cpu:,.0f} | {duck_rows / duck_cpu:,.0f} | {done['rows'] / cpu / (duck_rows / duck_cpu):.2f} |")
    print(f"| MB read per CPU second | {mb / cpu:.2f} | {small_bytes / 1e6 / duck_cpu:.2f} | {mb / cpu / (small_bytes / 1e6 / duck_cpu):.2f} |")
    print(f"| seconds | {seconds:.1f} | {duck_seconds:.1f} (one thread) | {seconds / duck_seconds:.2f} |")
    print(f"| files | {len(merged):,} | {duck_files:,} | |")
    print(f"| bytes per event | {merged_bytes / truth.events:.1f} | {duck_bytes / truth.events:.1f} | {merged_bytes / duck_bytes:.2f} |")
    print(f"| peak memory of the process | {peak:.0f} MiB | {duck_peak:.0f} MiB | {peak / duck_peak:.2f} |")
    print("\n| `GROUP BY type` with a distinct count, median | small files | merged | one commit of the same events | merged / one commit |")
    print("|---|---|---|---|---|")
    for engine, small in small_scans.items():
        after, one = merged_scans[engine], fresh_scans[engine]
        print(f"| {engine} | {small * 1e3:,.0f} ms | {after * 1e3:,.0f} ms | {one * 1e3:,.0f} ms | {after / one:.2f} |", flush=True)


if __name__ == "__main__":
    main()
