#!/usr/bin/env python3
"""Measures what many commits at full speed leave behind while every job runs, and prints a Markdown report. `benches/README.md` says how to read it.

    benches/many_commits.py --bin target/release/icecore [--dir FOLDER] [--commits 10000] [--events 10] [--types 5] [--control 3000]

Needs DuckDB and PyIceberg (the client tests' Python packages have them), and `cc`, which makes the library that sets a server's clock ahead.
"""
import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "clients"), str(ROOT / "benches")]

from clock_ahead import clock_ahead  # noqa: E402
from engines import PyIceberg  # noqa: E402
from icecore import Client  # noqa: E402
from ingest import Connection, bytes_below, cpu_seconds, machine, percentile  # noqa: E402
from maintenance import NAMESPACE, Bench  # noqa: E402

# Windows of commits that are told apart.
WINDOWS = 10
# Acknowledged events a second beside everything else, and for how long nothing else happens before.
PROBE_RATE, QUIET_S = 100, 20
# A burst counts as worked off when the number of files has stayed for so long; the longest wait for that.
STEADY_S, STEADY_MAX_S = 30, 240
# Longest wait for files to be deleted, and for a job that is busy.
PATIENCE_S = 600
# A disk that others have filled up is not what is measured. The job that tests turn off is on.
SETTINGS = ("--set", "wal.disk_free_min=0.001", "--set", "compaction.hour_cron=5 * * * *")
# The control: the jobs that merge files are off. The history is thinned all the same.
WITHOUT_COMPACTION = ("--set", "wal.disk_free_min=0.001", "--set", "compaction.enabled=off")


@dataclass
class TableState:
    """A table as its metadata and its folder are."""

    metadata_bytes: int
    snapshots: int
    files: int
    files_max: int
    live_bytes: int
    disk_bytes: int
    disk_files: int

    @classmethod
    def of(cls, url: str) -> "TableState":
        table = PyIceberg(url + "/catalog").load(NAMESPACE, "events")
        sizes = table.inspect.files()["file_size_in_bytes"].to_pylist()
        folder = Path(table.location().removeprefix("file://"))
        return cls(metadata_bytes=os.path.getsize(table.metadata_location.removeprefix("file://")), snapshots=len(table.metadata.snapshots),
                   files=len(sizes), files_max=max(table.inspect.partitions()["file_count"].to_pylist()), live_bytes=sum(sizes),
                   disk_bytes=bytes_below(folder), disk_files=sum(1 for _ in folder.rglob("*.parquet")))

    def row(self, name: str) -> str:
        return (f"| {name} | {self.metadata_bytes / 1e3:,.0f} kB | {self.snapshots:,} | {self.files:,} | {self.files_max:,} | {self.live_bytes / 1e6:.2f} MB "
                f"| {self.disk_files:,} | {self.disk_bytes / 1e6:.2f} MB | {self.disk_bytes / self.live_bytes:.2f} |")


def probe(port: int, name: str, stop, answer) -> None:
    """Single events at a fixed rate over one connection until `stop`; answers when each was due, and the seconds from then to its ack."""
    connection, took, started = Connection(port), [], time.perf_counter()
    while not stop.is_set():
        due = started + len(took) / PROBE_RATE
        time.sleep(max(0, due - time.perf_counter()))
        body = f'{{"id":"{name}-{len(took)}","type":"probe.ack","ns":"probe","data":{{"n":{len(took)}}}}}'.encode()
        head = f"POST /ingest HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.send(head.encode() + body, due)
        while not connection.receive():
            pass
        took.append((due, time.perf_counter() - due))
    answer.send(took)


def probe_disk(folder: Path, stop, answer) -> None:
    """The same of a bare write of 4 KiB and its fdatasync into a file of fixed length: what an ack waits for at least."""
    path, block, took = folder / "probe", os.urandom(4096), []
    with open(path, "w+b") as file:
        file.write(bytes(16 << 20))
        os.fsync(file.fileno())
        started = time.perf_counter()
        while not stop.is_set():
            due = started + len(took) / PROBE_RATE
            time.sleep(max(0, due - time.perf_counter()))
            os.pwrite(file.fileno(), block, len(took) % 4096 * 4096)
            os.fdatasync(file.fileno())
            took.append((due, time.perf_counter() - due))
    path.unlink()
    answer.send(took)


class Probe:
    """`work` in a process of its own, for as long as a block takes; then `took` has what it answers."""

    def __init__(self, work, *args):
        context = multiprocessing.get_context("fork")
        self.stop, (self.answer, other), self.took = context.Event(), context.Pipe(False), []
        self.process = context.Process(target=work, args=(*args, self.stop, other), daemon=True)
        self.process.start()
        other.close()

    def __enter__(self) -> "Probe":
        return self

    def __exit__(self, kind, *_) -> None:
        self.stop.set()
        if kind is None:
            # A probe that failed has closed its end, and said why.
            self.took = self.answer.recv()
        self.process.join(PATIENCE_S)


def lines_of(commit: int, events: int, types: int) -> list[str]:
    numbers = range(commit * events, commit * events + events)
    return [json.dumps({"id": f"e{n}", "type": f"bench.t{n % types}", "ns": NAMESPACE, "actor": f"user-{n % 97}", "data": {"n": n, "amount": n * 7919 % 10_007}}) for n in numbers]


def commit_all(bench: Bench, given, looks: bool) -> list[dict]:
    """The commits, one after the other; of each window its seconds, when it began and ended, the server's CPU seconds a commit, and the table after it."""
    connection, windows, window = Connection(bench.server.port), [], max(1, given.commits // WINDOWS)
    for start in range(0, given.commits, window):
        before, took, began = cpu_seconds(bench.server.process.pid), [], time.perf_counter()
        for commit in range(start, min(start + window, given.commits)):
            body = "\n".join(lines_of(commit, given.events, given.types)).encode()
            head = f"POST /ingest?ack=committed HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\ncontent-length: {len(body)}\r\n\r\n"
            sent = time.perf_counter()
            connection.send(head.encode() + body, sent)
            while not connection.receive():
                pass
            took.append(time.perf_counter() - sent)
        span, cpu = (began, time.perf_counter()), (cpu_seconds(bench.server.process.pid) - before) / len(took)
        windows.append({"start": start, "took": took, "span": span, "cpu": cpu, "table": TableState.of(bench.server.url) if looks else None})
        print(f"{start + len(took):,} commits", file=sys.stderr, flush=True)
    return windows


@dataclass
class CommitRun:
    """Commits at full speed, and acks before and beside them."""

    windows: list[dict]
    quiet: list[float]
    # Of events that were due while commits were made, and not while the table was looked at between two windows.
    busy: list[tuple[float, float]]
    # The same of bare writes to the same disk.
    disk_quiet: list[float]
    disk_busy: list[float]

    @classmethod
    def of(cls, bench: Bench, given, looks: bool = True) -> "CommitRun":
        port, disk = bench.server.port, bench.server.folder
        with Probe(probe, port, "quiet") as quiet, Probe(probe_disk, disk) as disk_quiet:
            time.sleep(QUIET_S)
        with Probe(probe, port, "busy") as busy, Probe(probe_disk, disk) as disk_busy:
            windows = commit_all(bench, given, looks)
        spans = [window["span"] for window in windows]

        def beside(probe: Probe) -> list[tuple[float, float]]:
            return [(due, seconds) for due, seconds in probe.took if any(began <= due <= ended for began, ended in spans)]

        alone, disk_alone = [[seconds for _, seconds in probe.took] for probe in (quiet, disk_quiet)]
        return cls(windows=windows, quiet=alone, busy=beside(busy), disk_quiet=disk_alone, disk_busy=[seconds for _, seconds in beside(disk_busy)])

    def first(self, commits: int) -> "CommitRun":
        """The same as far as the windows of the first so many commits."""
        windows = [window for window in self.windows if window["start"] < commits]
        ended = windows[-1]["span"][1]
        return replace(self, windows=windows, busy=[(due, seconds) for due, seconds in self.busy if due <= ended])

    def took(self) -> list[float]:
        return [seconds for window in self.windows for seconds in window["took"]]

    def acks(self) -> list[float]:
        return [seconds for _, seconds in self.busy]

    def cpu(self) -> float:
        """The server's CPU seconds a commit."""
        return sum(window["cpu"] * len(window["took"]) for window in self.windows) / len(self.took())


def control_of(given, folder: Path, servers: list) -> CommitRun:
    """Fewer commits of the same events on a fresh server that merges no files."""
    bench = Bench(folder / "control", WITHOUT_COMPACTION)
    servers.append(bench.server)
    fewer = SimpleNamespace(commits=given.control, events=given.events, types=given.types)
    try:
        return CommitRun.of(bench, fewer, looks=False)
    finally:
        bench.client.close()
        bench.server.kill()


def wait_steady(url: str) -> float:
    """Waits until the number of live files stays; gives the seconds to its last change."""
    started = changed = time.perf_counter()
    count = TableState.of(url).files
    while time.perf_counter() < min(changed + STEADY_S, started + STEADY_MAX_S):
        time.sleep(3)
        now = TableState.of(url).files
        if now != count:
            count, changed = now, time.perf_counter()
    return changed - started


def answer(bench: Bench, method: str, path: str) -> dict:
    """What a call answers. A job that runs already is asked again."""
    deadline = time.monotonic() + PATIENCE_S
    # The server has closed a connection that waited.
    bench.client.close()
    while True:
        status, _, raw = bench.client.request(method, path, b"", {"content-type": "application/json"})
        if status == 200:
            return json.loads(raw)
        assert status == 429 and time.monotonic() < deadline, (path, status, raw)
        time.sleep(1)


def wait_deleted(bench: Bench) -> None:
    """Waits until the job that deletes obsolete files has had a look and found nothing, after now."""
    deadline, since_ms = time.monotonic() + PATIENCE_S, None
    while time.monotonic() < deadline:
        job = next(job for job in answer(bench, "GET", "/admin/jobs")["jobs"] if job["name"] == "delete-obsolete")
        run = job["last_run"] or {"started_ms": 0, "outcome": "none"}
        since_ms = run["started_ms"] if since_ms is None else since_ms
        if since_ms < run["started_ms"] and run["outcome"] == "idle":
            return
        time.sleep(1)
    raise TimeoutError(f"obsolete files were not deleted in {PATIENCE_S} s")


def restart_ahead(bench: Bench, ahead: dict) -> None:
    """The server goes on with a clock that is ahead; what is planned by the clock is done, and obsolete files are deleted."""
    bench.client.close()
    bench.server.stop()
    bench.server.start(ahead)
    for job in ("compact-day", "expire", "orphans"):
        answer(bench, "POST", f"/admin/jobs/{job}?namespace={NAMESPACE}")
    wait_deleted(bench)


def scans_ahead(bench: Bench, rounds: int, ahead: dict) -> dict:
    """`Bench.scans` by a process with the server's clock: DuckDB reads no state that is later than its transaction."""
    asked = [sys.executable, __file__, "--bin", os.environ["ICECORE_BIN"], "--scans", bench.server.url, "--rounds", str(rounds)]
    return json.loads(subprocess.run(asked, env=os.environ | ahead, check=True, stdout=subprocess.PIPE).stdout)


def check(bench: Bench, rows: int, when: str) -> list[str]:
    """Whether every event is there once, the accounts agree and `fsck` finds nothing; what is not so."""
    bench.client.close()
    found = tuple(bench.client.sql(NAMESPACE, "SELECT count(*), count(DISTINCT id) FROM events")[0])
    audit = answer(bench, "POST", f"/v1/{NAMESPACE}/audit/events")
    checked = answer(bench, "POST", f"/admin/fsck?namespace={NAMESPACE}")
    wrong = [f"{when}: (rows, ids) are {found}, not {(rows, rows)}"] if found != (rows, rows) else []
    wrong += [] if audit["agrees"] else [f"{when}: the audit disagrees: {audit}"]
    return wrong + ([] if checked["whole"] else [f"{when}: fsck finds {checked}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--dir", type=Path, help="where the data folders go; the disk to measure (default: a temporary folder)")
    parser.add_argument("--commits", type=int, default=10_000)
    parser.add_argument("--events", type=int, default=10, help="of each commit")
    parser.add_argument("--types", type=int, default=5, help="of the events; a commit writes a file for each")
    parser.add_argument("--rounds", type=int, default=5, help="of each query; the median is told")
    parser.add_argument("--control", type=int, default=3_000, help="commits of the control without compaction, on a server of its own; 0 for none")
    parser.add_argument("--scans", metavar="URL", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.scans:
        bench = Bench.__new__(Bench)
        bench.server, bench.client = SimpleNamespace(url=given.scans), Client(given.scans)
        print(json.dumps(bench.scans(given.rounds)))
        return
    os.environ["ICECORE_BIN"] = str(Path(given.bin).resolve())
    folder = Path(tempfile.mkdtemp(prefix="icecore-bench-", dir=given.dir))
    servers = []
    try:
        report(given, folder, servers)
    finally:
        for server in servers:
            server.kill()
        shutil.rmtree(folder)


def report(given, folder: Path, servers: list) -> None:
    print(f"Machine: {machine(folder)}. Clients and server share it; files are in the page cache. Every job is on, with its default settings.\n", flush=True)
    rows = given.commits * given.events
    control = control_of(given, folder, servers) if given.control else None
    bench = Bench(folder / "many", SETTINGS)
    servers.append(bench.server)
    run = CommitRun.of(bench, given)
    windows = run.windows
    at_once = bench.scans(given.rounds)
    steady_s = wait_steady(bench.server.url)
    report_commits(given, run)
    if control:
        report_control(run.first(given.control), control)
    wrong = check(bench, rows, "a moment after")
    states, scans = [("a moment after", TableState.of(bench.server.url))], [("right after", at_once), ("a moment after", bench.scans(given.rounds))]
    for hours in (24, 25):
        ahead = clock_ahead(folder, hours)
        restart_ahead(bench, ahead)
        wrong += check(bench, rows, f"{hours} h later")
        states.append((f"{hours} h later", TableState.of(bench.server.url)))
        scans.append((f"{hours} h later", scans_ahead(bench, given.rounds, ahead)))

    fresh = Bench(folder / "fresh")
    servers.append(fresh.server)
    fresh.send([line for commit in range(given.commits) for line in lines_of(commit, given.events, given.types)], 1)
    fresh.compact()
    wrong += check(fresh, rows, "in one commit")
    report_tables(windows, states, TableState.of(fresh.server.url), steady_s)
    report_scans(scans, fresh.scans(given.rounds))
    if wrong:
        sys.exit("\n".join(wrong))


def report_commits(given, run: CommitRun) -> None:
    print(f"{given.commits:,} commits of {given.events} events of {given.types} types each, one after the other.\n")
    print("| commits | p50 | p99 | slowest | p50 / first window's | p99 / first window's | CPU each, all jobs |")
    print("|---|---|---|---|---|---|---|")
    first = run.windows[0]["took"]
    for window in run.windows:
        took, start = window["took"], window["start"]
        p50, p99 = percentile(took, 0.5), percentile(took, 0.99)
        print(f"| {start:,} to {start + len(took):,} | {p50 * 1e3:.1f} ms | {p99 * 1e3:.1f} ms | {max(took) * 1e3:.0f} ms | {p50 / percentile(first, 0.5):.2f} "
              f"| {p99 / percentile(first, 0.99):.2f} | {window['cpu'] * 1e3:.1f} ms |")
    print(f"\n| {PROBE_RATE} a second | of | p50 | p99 | slowest |")
    print("|---|---|---|---|---|")
    for what, quiet, busy in (("acks of single events", run.quiet, run.acks()), ("bare fdatasync of 4 KiB", run.disk_quiet, run.disk_busy)):
        for name, took in (("nothing else", quiet), ("beside the commits", busy)):
            print(f"| {what}, {name} | {len(took):,} | {percentile(took, 0.5) * 1e3:.2f} ms | {percentile(took, 0.99) * 1e3:.2f} ms | {max(took) * 1e3:.0f} ms |")
        print(f"| ratio | | {percentile(busy, 0.5) / percentile(quiet, 0.5):.2f} | {percentile(busy, 0.99) / percentile(quiet, 0.99):.2f} | |", flush=True)


def report_control(run: CommitRun, control: CommitRun) -> None:
    """What the jobs that merge files do to commits and acks: both of as many commits, as far as the windows allow."""
    print("\n| first commits | commits | commit p50 | commit p99 | CPU each, all jobs | acks alone p50 | p99 | acks beside p50 | p99 | ratio of p50 | ratio of p99 |")
    print("|---" * 11 + "|")
    for name, one in (("every job on", run), ("control: compaction off", control)):
        took, acks = one.took(), one.acks()
        alone, beside = [[percentile(of, share) for share in (0.5, 0.99)] for of in (one.quiet, acks)]
        shown = " | ".join(f"{seconds * 1e3:.2f} ms" for seconds in (*alone, *beside))
        print(f"| {name} | {len(took):,} | {percentile(took, 0.5) * 1e3:.1f} ms | {percentile(took, 0.99) * 1e3:.1f} ms | {one.cpu() * 1e3:.1f} ms "
              f"| {shown} | {beside[0] / alone[0]:.2f} | {beside[1] / alone[1]:.2f} |")
    sys.stdout.flush()


def report_tables(windows: list[dict], states: list, fresh: TableState, steady_s: float) -> None:
    print(f"\nThe number of files last changed {steady_s:.0f} s after the last commit.\n")
    print("| table | metadata.json | snapshots | live files | most of a partition | live bytes | data files on disk | all bytes on disk | disk / live |")
    print("|---|---|---|---|---|---|---|---|---|")
    for window in windows:
        print(window["table"].row(f"after {window['start'] + len(window['took']):,} commits"))
    for name, state in states:
        print(state.row(name))
    print(fresh.row("the same rows in one commit, compacted"))


def report_scans(scans: list, fresh: dict) -> None:
    print("\n| `GROUP BY type` with a distinct count, median | " + " | ".join(name for name, _ in scans) + " | freshly compacted | ratio of each to that |")
    print("|---" * (len(scans) + 3) + "|")
    for engine, base in fresh.items():
        took = [found[engine] for _, found in scans]
        shown = " | ".join(f"{seconds * 1e3:,.0f} ms" for seconds in took)
        print(f"| {engine} | {shown} | {base * 1e3:,.0f} ms | {', '.join(f'{seconds / base:.2f}' for seconds in took)} |")


if __name__ == "__main__":
    main()
