#!/usr/bin/env python3
"""Measures queries beside ingest, and ingest beside queries, of a release binary. `benches/README.md` says how to read it.

    benches/beside.py --bin target/release/icecore [--dir FOLDER] [--events 500000] [--single 40000] [--seconds 20]

Needs DuckDB and PyIceberg (the client tests' Python packages have them). The load comes from one process, queries from another, on the same machine.
"""
import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "clients"), str(ROOT / "benches")]

from generate import generate  # noqa: E402
from ingest import commit_all, load, load_elsewhere, machine, percentile, requests  # noqa: E402
from maintenance import NAMESPACE, Bench  # noqa: E402
from query import SHAPES, Files, geomean, marks, send  # noqa: E402

# Statements of `query.py` that are asked in turn.
ASKED = ("count", "group by type", "one id", "one key", "last 100 by time", "an hour", "a type")
# How often each of them runs before it is measured.
CALLS_BEFORE = 5
# What is wanted at most: of the p95 of queries, and of the p99 of acknowledgements.
QUERY_GOAL, ACK_GOAL = 1.7, 2.0


def ask(client, statements: dict, is_over) -> dict[str, list[float]]:
    """Asks the statements in turn, over one connection, until it is over; the seconds of each call."""
    took = {name: [] for name in statements}
    while True:
        for name, text in statements.items():
            started = time.perf_counter()
            client.sql(NAMESPACE, text)
            took[name].append(time.perf_counter() - started)
        if is_over():
            return took


def ask_idle(client, statements: dict, seconds: float) -> dict[str, list[float]]:
    """Asks for some seconds while nothing else happens, once the statements have run before."""
    client.close()
    for text in statements.values():
        for _ in range(CALLS_BEFORE):
            client.sql(NAMESPACE, text)
    end = time.perf_counter() + seconds
    return ask(client, statements, lambda: end <= time.perf_counter())


def ask_beside(client, statements: dict, *arguments) -> tuple[dict[str, list[float]], list[float]]:
    """Asks for as long as `load` runs in a process of its own; what queries and acknowledgements took."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        sending = pool.apply_async(load, arguments)
        asked = ask(client, statements, sending.ready)
        _, acknowledged = sending.get()
    return asked, acknowledged


def single_events(count: int, seed: int) -> tuple[list[bytes], float]:
    """So many requests of one event, and the mean length of an event as JSON."""
    lines, _ = generate(count, datetime.now(timezone.utc), seed=seed)
    return requests(lines, 1), sum(len(line.encode()) for line in lines) / len(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--dir", type=Path, help="where the data folder goes; the disk to measure (default: a temporary folder)")
    parser.add_argument("--events", type=int, default=500_000, help="in the table that is queried")
    parser.add_argument("--commits", type=int, default=10, help="snapshots that they come in")
    parser.add_argument("--single", type=int, default=40_000, help="requests of one event at full speed, which tell the load")
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement")
    parser.add_argument("--connections", type=int, default=64, help="of the load")
    parser.add_argument("--threads", type=int, default=2, help="of DuckDB, which looks up what is asked for")
    given = parser.parse_args()
    os.environ["ICECORE_BIN"] = str(Path(given.bin).resolve())
    folder = Path(tempfile.mkdtemp(prefix="icecore-bench-", dir=given.dir))
    try:
        report(given, folder)
    finally:
        shutil.rmtree(folder)


def report(given, folder: Path) -> None:
    print(f"Machine: {machine(folder)}. Load: one process with {given.connections} connections, one event a request; queries: one process with one connection. All share the machine with the server.")
    print("Durability: one fdatasync per group before the answer. Ids are checked for repeats. Jobs and commits run as they do by default.\n")
    # With its own settings: commits and compaction are a part of what ingest costs.
    bench = Bench(folder / "server", ())
    try:
        sent = send(bench, given.events, given.commits)
        bench.compact()
        files = Files(bench.server.url + "/catalog", bench.live_files(), given.threads)
        values = marks(files)
        # Its threads would be in the process that makes the load, too.
        files.engine.connection.close()
        statements = {name: SHAPES[name].format(events="events", **values) for name in ASKED}
        # Before any load: afterwards its files are merged.
        idle = ask_idle(bench.client, statements, given.seconds)
        sending, length = single_events(given.single, seed=21)
        seconds, _ = load_elsewhere(bench.server.port, sending, given.connections, None)
        full = given.single / seconds
        print(f"{sent:,} events in the table that is queried. Load: {length:.0f} B an event as JSON, {full:,.0f} requests/s at full speed, {full / 2:,.0f} in what follows, into other namespaces.\n")
        measure(bench, statements, idle, given, full / 2)
    finally:
        bench.server.stop()


def measure(bench: Bench, statements: dict, idle: dict, given, rate: float) -> None:
    """The load alone, then with the queries; prints the tables."""
    count, client, port = max(1, round(rate * given.seconds)), bench.client, bench.server.port
    (first, _), (second, _) = (single_events(count, seed) for seed in (22, 23))
    commit_all(bench.server)
    _, alone = load_elsewhere(port, first, given.connections, rate)
    commit_all(bench.server)
    # The server has closed a connection that waited.
    client.close()
    beside, acknowledged = ask_beside(client, statements, port, second, given.connections, rate)

    print("| query, ms | idle: calls | p50 | p95 | beside ingest: calls | p50 | p95 | p95: beside / idle | goal |")
    print("|---|---|---|---|---|---|---|---|---|")
    ratios = []
    for name in statements:
        parts = [part for took in (idle[name], beside[name]) for part in (f"{len(took):,}", f"{percentile(took, 0.5) * 1e3:.1f}", f"{percentile(took, 0.95) * 1e3:.1f}")]
        ratios.append(percentile(beside[name], 0.95) / percentile(idle[name], 0.95))
        print(f"| {name} | {' | '.join(parts)} | {ratios[-1]:.2f} | {QUERY_GOAL} |")
    print(f"| *geometric mean* | | | | | | | {geomean(ratios):.2f} | {QUERY_GOAL} |\n")
    print("| acknowledgements, ms | without queries | beside queries | beside / without | goal |\n|---|---|---|---|---|")
    for name, share, goal in (("p50", 0.5, ""), ("p99", 0.99, ACK_GOAL)):
        before, now = percentile(alone, share), percentile(acknowledged, share)
        print(f"| {name} of {len(acknowledged):,} | {before * 1e3:.2f} | {now * 1e3:.2f} | {now / before:.2f} | {goal} |")


if __name__ == "__main__":
    main()
