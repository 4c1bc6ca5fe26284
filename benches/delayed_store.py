#!/usr/bin/env python3
"""Measures SQL over a bucket whose every request takes 50 ms longer, beside the same table on the local disk. `benches/README.md` says how to read it.

    benches/delayed_store.py --bin target/release/icecore [--dir FOLDER] [--events 200000] [--commits 10] [--rounds 5] [--delay-ms 50] [--only WORD]

Needs DuckDB, PyIceberg and SeaweedFS (the client tests' Python packages have them). Ends with 1 if an answer differs.
"""
import argparse
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "clients"), str(ROOT / "benches")]

from generate import generate  # noqa: E402
from ingest import machine  # noqa: E402
from maintenance import BY_HAND, NAMESPACE, OWNER, Bench  # noqa: E402
from proxy import Proxy  # noqa: E402
from query import GROUPS, Files, answer, first_difference, geomean, marks  # noqa: E402
from server import SeaweedFS  # noqa: E402

LOCAL, STORE = "local disk", "bucket"
# What is wanted at most: of the time over the bucket beside that of the local disk, once it is warm.
GOAL = 1.5


class Delayed(Proxy):
    """Holds each request for some time before the store gets it, and counts them."""

    # Connections that begin at the same time, none of which waits for another.
    request_queue_size = 256

    def __init__(self, url: str):
        self.seconds, self.requests, self.lock = 0.0, 0, threading.Lock()
        super().__init__(url)

    def answer(self, method: str, path: str, body, forward):
        with self.lock:
            self.requests += 1
        time.sleep(self.seconds)
        return forward()


class Measured:
    """One statement: what it took the first time and later, and how many requests the store got."""

    def __init__(self, name: str, text: str, values: dict):
        self.name, self.text = name, text.format(events="events", **values)
        self.first: dict[str, float] = {}
        self.warm: dict[str, list[float]] = {LOCAL: [], STORE: []}
        self.requests_first, self.requests_warm = 0, []
        self.problems: list[str] = []

    def begin(self, benches: dict, delayed: Delayed) -> None:
        answers = {}
        for label, bench in benches.items():
            before = delayed.requests
            self.first[label], rows = timed(bench, self.text)
            if label == STORE:
                self.requests_first = delayed.requests - before
            # When a row was taken differs.
            is_ordered = "ORDER BY" in self.text.rsplit(")", 1)[-1]
            answers[label] = [len(rows)] if "SELECT *" in self.text else answer(rows, is_ordered)
        if answers[LOCAL] != answers[STORE]:
            self.problems.append(f"{self.name}: {first_difference(answers[LOCAL], answers[STORE])}")

    def round(self, benches: dict, delayed: Delayed) -> None:
        for label, bench in benches.items():
            before = delayed.requests
            self.warm[label].append(timed(bench, self.text)[0])
            if label == STORE:
                self.requests_warm.append(delayed.requests - before)

    def ratio(self) -> float:
        local, store = (statistics.median(self.warm[label]) for label in (LOCAL, STORE))
        return store / local

    def line(self) -> str:
        local, store = (statistics.median(self.warm[label]) * 1e3 for label in (LOCAL, STORE))
        return (f"| {self.name} | {local:,.1f} | {self.first[STORE] * 1e3:,.1f} | {self.requests_first:,} | {store:,.1f} "
                f"| {statistics.median(self.requests_warm):,.0f} | {self.ratio():.2f} |")


def timed(bench: Bench, text: str) -> tuple[float, list[tuple]]:
    started = time.perf_counter()
    rows = bench.client.sql(NAMESPACE, text)
    return time.perf_counter() - started, rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--dir", type=Path, help="where the data folders go; the disk to measure (default: a temporary folder)")
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--commits", type=int, default=10, help="snapshots that the events come in")
    parser.add_argument("--rounds", type=int, default=5, help="of each statement, after the first; the median is told")
    parser.add_argument("--delay-ms", type=float, default=50, help="added to each request to the store")
    parser.add_argument("--threads", type=int, default=2, help="of DuckDB, which looks up what is asked for")
    parser.add_argument("--only", default="", help="statements with this in their name")
    given = parser.parse_args()
    os.environ["ICECORE_BIN"] = str(Path(given.bin).resolve())
    folder = Path(tempfile.mkdtemp(prefix="icecore-bench-", dir=given.dir))
    try:
        return report(given, folder)
    finally:
        shutil.rmtree(folder)


def report(given, folder: Path) -> int:
    print(f"Machine: {machine(folder)}. The client, a proxy in the same process, SeaweedFS and both servers share it; files are in the page cache.")
    print("Durability: one fdatasync per group before the answer; the store syncs nothing by default.\n")
    store = SeaweedFS(folder / "s3")
    with ExitStack() as running:
        running.callback(store.stop)
        delayed = Delayed(store.start().endpoint)
        running.callback(delayed.close)
        benches = {LOCAL: Bench(folder / "local")}
        running.callback(benches[LOCAL].server.stop)
        bucket = (*BY_HAND, "--warehouse", f"s3://{store.BUCKET}/bench")
        benches[STORE] = Bench(folder / "bucket", bucket, store.environment() | {"ICECORE_S3_ENDPOINT": delayed.url})
        running.callback(benches[STORE].server.stop)
        return measure(given, benches, delayed)


def measure(given, benches: dict, delayed: Delayed) -> int:
    lines, truth = generate(given.events, datetime.now(timezone.utc), seed=11)
    lines = [OWNER.sub(f'"ns":"{NAMESPACE}"', line, count=1) for line in lines]
    for bench in benches.values():
        # One after the other, so that both give each event the same `seq`.
        bench.send(lines, given.commits)
        bench.compact()
    local = benches[LOCAL]
    values = marks(Files(local.server.url + "/catalog", local.live_files(), given.threads))
    statements = [Measured(name, text, values) for texts in GROUPS.values() for name, text in texts.items() if given.only in name]
    length = sum(len(line.encode()) for line in lines) / len(lines)
    print(f"{truth.events:,} events of {length:.0f} B as JSON in {given.commits:,} commits, compacted. Each request to the store takes {given.delay_ms:g} ms longer.\n")
    # Only queries are slowed down.
    delayed.seconds = given.delay_ms / 1e3
    for bench in benches.values():
        # The server has closed a connection that waited.
        bench.client.close()
    for statement in statements:
        statement.begin(benches, delayed)
    for _ in range(given.rounds):
        for statement in statements:
            statement.round(benches, delayed)
    print("| ms | local disk, warm | bucket, first | requests | bucket, warm | requests | warm: bucket / local |\n|---|---|---|---|---|---|---|")
    for statement in statements:
        print(statement.line())
    print(f"| *geometric mean* | | | | | | {geomean(statement.ratio() for statement in statements):.2f} |\n")
    over = [statement.name for statement in statements if GOAL < statement.ratio()]
    print(f"Wanted: at most {GOAL} × once warm; over it: {', '.join(over) or 'none'}.")
    problems = [problem for statement in statements for problem in statement.problems]
    print("\n" + ("\n".join(f"- {problem}" for problem in problems) if problems else "All answers are equal."))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
