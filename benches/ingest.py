#!/usr/bin/env python3
"""Measures ingest of a release binary and prints a Markdown report. `benches/README.md` says how to read it.

    benches/ingest.py --bin target/release/icecore [--dir FOLDER] [--events 300000] [--single 30000]
                      [--connections 64] [--wal-mb 256] [--commits 10000]

Needs DuckDB (the client tests' Python packages have it). The load comes from one process on the same machine.
"""
import argparse
import json
import multiprocessing
import os
import platform
import resource
import selectors
import shutil
import socket
import sys
import tempfile
import time
from collections import defaultdict
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "clients"))

from generate import NAMESPACES, generate  # noqa: E402
from icecore import BROKEN, Refused  # noqa: E402
from server import Server  # noqa: E402

TICK = os.sysconf("SC_CLK_TCK")
# Requests that are sent one at a time.
ALONE_REQUESTS = 300
# Commits of which the mean time is taken together.
WINDOW = 500
# Flushing fails for as long as this is set, so that the log keeps everything.
NO_FLUSH = {"ICECORE_FAILPOINTS": "flush.before_write=error*4000000000"}


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def peak_mib(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def bytes_below(folder: Path, suffix: str = "") -> int:
    return sum(path.stat().st_size for path in folder.rglob(f"*{suffix}") if path.is_file())


def fdatasync_probe(folder: Path, seconds: float = 3) -> list[float]:
    """Seconds that a 4 KiB write and its fdatasync take on this disk, without making the file longer."""
    path, block, took = folder / "probe", os.urandom(4096), []
    with open(path, "w+b") as probe:
        probe.write(bytes(16 << 20))
        os.fsync(probe.fileno())
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            started = time.perf_counter()
            os.pwrite(probe.fileno(), block, len(took) % 4096 * 4096)
            os.fdatasync(probe.fileno())
            took.append(time.perf_counter() - started)
    path.unlink()
    return took


def requests(lines: list[str], size: int) -> list[bytes]:
    """Whole HTTP requests of `size` events, each of one namespace, as real senders make them."""
    by_namespace = defaultdict(list)
    for line in lines:
        by_namespace[line.split('"ns":"', 1)[1].split('"', 1)[0]].append(line)
    made = []
    for own in by_namespace.values():
        for at in range(0, len(own), size):
            body = "\n".join(own[at : at + size]).encode()
            head = f"POST /ingest HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\ncontent-length: {len(body)}\r\n\r\n"
            made.append(head.encode() + body)
    # The namespaces take turns, as they would in life.
    step = max(1, len(made) // 997)
    return [request for start in range(step) for request in made[start::step]]


class Connection:
    """One kept-alive connection that has at most one request on its way."""

    def __init__(self, port: int):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.due = 0.0

    def send(self, request: bytes, due: float) -> None:
        self.due = due
        self.socket.sendall(request)

    def receive(self) -> bool:
        """Takes what has come; true when it is a whole answer, which has to be a 200."""
        part = self.socket.recv(1 << 16)
        if not part:
            raise ConnectionError("the server closed a connection")
        self.received += part
        head, found, body = self.received.partition(b"\r\n\r\n")
        if not found:
            return False
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        if len(body) < length:
            return False
        if not head.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(f"{head[:60]!r} {body[:300]!r}")
        self.received = b""
        return True


def load(port: int, sending: list[bytes], connections: int, rate: float | None) -> tuple[float, list[float]]:
    """Sends every request; seconds in all, and per request from when it was due to its answer.

    Without `rate` a request is due when a connection is free; with it, this many a second are, free or not.
    """
    selector, idle = selectors.DefaultSelector(), [Connection(port) for _ in range(connections)]
    for connection in idle:
        selector.register(connection.socket, selectors.EVENT_READ, connection)
    took, at, started = [], 0, time.perf_counter()
    while len(took) < len(sending):
        now = time.perf_counter()
        while idle and at < len(sending) and (rate is None or started + at / rate <= now):
            idle.pop().send(sending[at], now if rate is None else started + at / rate)
            at += 1
        wait = None
        if rate is not None and idle and at < len(sending):
            wait = max(0, started + at / rate - time.perf_counter())
        for key, _ in selector.select(wait):
            if key.data.receive():
                took.append(time.perf_counter() - key.data.due)
                idle.append(key.data)
    return time.perf_counter() - started, took


def load_elsewhere(*arguments):
    """`load` in a process of its own, so that its time is not the server's nor ours."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(load, arguments)


def commit_all(server: Server) -> None:
    """Returns when everything acknowledged is in a snapshot."""
    client = server.client()
    for namespace in NAMESPACES:
        try:
            client.commit(namespace)
        except Refused as refusal:
            if refusal.status != 404:
                raise


def measure_rate(folder: Path, size: int, lines: list[str], half: int, connections: int) -> dict:
    """`half` of the events at full speed, up to committed rows; as many at half that speed and the rest one request at a time, for the delays."""
    server = Server(folder / f"rate-{size}").start()
    before = cpu_seconds(server.process.pid)
    seconds, _ = load_elsewhere(server.port, requests(lines[:half], size), connections, None)
    acknowledged = cpu_seconds(server.process.pid) - before
    commit_all(server)
    committed = cpu_seconds(server.process.pid) - before
    sending = requests(lines[half : 2 * half], size)
    _, took = load_elsewhere(server.port, sending, connections, half / seconds / 2 / size)
    commit_all(server)
    _, alone = load_elsewhere(server.port, requests(lines[2 * half :], size), 1, None)
    found = {
        "size": size, "alone": percentile(alone, 0.5), "rate": half / seconds, "requests": half / seconds / size, "per_core": half / acknowledged, "committed": half / committed,
        "p50": percentile(took, 0.5), "p99": percentile(took, 0.99), "peak": peak_mib(server.process.pid),
    }
    server.stop()
    return found


def measure_committed(folder: Path, path: Path, lines: list[str], connections: int) -> dict:
    """CPU from request to committed rows, and what the rows take on disk."""
    server = Server(folder / "committed").start()
    before = cpu_seconds(server.process.pid)
    load_elsewhere(server.port, requests(lines, 1000), connections, None)
    commit_all(server)
    cpu = cpu_seconds(server.process.pid) - before
    peak = peak_mib(server.process.pid)
    files = sum(1 for _ in (server.folder / "data" / "warehouse").rglob("*.parquet"))
    stored = bytes_below(server.folder / "data" / "warehouse", ".parquet")
    metadata = bytes_below(server.folder / "data" / "warehouse") - stored
    server.stop()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        duck_cpu, duck_bytes, duck_peak = pool.apply(duckdb_copy, (str(path), str(folder / "duckdb.parquet")))
    return {"cpu": cpu, "stored": stored, "files": files, "metadata": metadata, "peak": peak, "duck_cpu": duck_cpu, "duck_bytes": duck_bytes, "duck_peak": duck_peak}


def duckdb_copy(source: str, target: str) -> tuple[float, int, float]:
    """The same file to Parquet by DuckDB: CPU seconds, bytes, peak MiB of this process."""
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET enable_progress_bar = false")
    before = resource.getrusage(resource.RUSAGE_SELF)
    connection.execute(f"COPY (SELECT * FROM read_json('{source}', format = 'newline_delimited')) TO '{target}' (FORMAT parquet, COMPRESSION zstd)")
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, os.path.getsize(target), after.ru_maxrss / 1024


def measure_commits(folder: Path, count: int) -> dict:
    """Commits of one event each into one table, one after the other: seconds and the server's CPU seconds of each window."""
    server = Server(folder / "commits").start()
    connection, took, windows = Connection(server.port), [], []
    for start in range(0, count, WINDOW):
        before = cpu_seconds(server.process.pid)
        window = []
        for number in range(start, min(start + WINDOW, count)):
            body = f'{{"id":"{number}","type":"bench.commit","ns":"bench","data":{{"n":{number}}}}}'.encode()
            head = f"POST /ingest?ack=committed HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            sent = time.perf_counter()
            connection.send(head.encode() + body, sent)
            while not connection.receive():
                pass
            window.append(time.perf_counter() - sent)
        took += window
        windows.append((start, window, (cpu_seconds(server.process.pid) - before) / len(window)))
    newest = max((server.folder / "data" / "warehouse").rglob("*.metadata.json"), key=lambda path: path.stat().st_mtime)
    found = {"windows": windows, "first": took[:100], "metadata": newest.stat().st_size, "snapshots": len(json.loads(newest.read_text())["snapshots"])}
    server.stop()
    return found


def report_commits(folder: Path, count: int) -> None:
    found = measure_commits(folder, count)
    first, windows = found["first"], found["windows"]
    mean = lambda values: sum(values) / len(values)  # noqa: E731
    print(f"\n{count:,} commits of one event each with `ack=committed` on one table; at the end metadata.json of {found['metadata'] / 1000:.0f} kB with {found['snapshots']} snapshots.\n")
    print("| commits | mean | p50 | p99 | mean / first hundred's | p50 / first hundred's | CPU each |")
    print("|---|---|---|---|---|---|---|")
    print(f"| the first hundred | {mean(first) * 1e3:.2f} ms | {percentile(first, 0.5) * 1e3:.2f} ms | {percentile(first, 0.99) * 1e3:.1f} ms | 1.00 | 1.00 | |")
    for start, window, cpu in windows:
        print(f"| {start:,} to {start + len(window):,} | {mean(window) * 1e3:.2f} ms | {percentile(window, 0.5) * 1e3:.2f} ms | {percentile(window, 0.99) * 1e3:.1f} ms "
              f"| {mean(window) / mean(first):.2f} | {percentile(window, 0.5) / percentile(first, 0.5):.2f} | {cpu * 1e3:.2f} ms |")
    worst = max(mean(window) for _, window, _ in windows) / mean(first)
    print(f"\nSlowest window: {worst:.2f} × the first hundred.", flush=True)


def measure_recovery(folder: Path, wanted_mib: int, connections: int) -> tuple[int, float, float]:
    """Events in a log of which nothing was committed, MiB of the JSON they came as, and the seconds from start to ready over it.

    The size of the log's files says nothing: they are preallocated.
    """
    server = Server(folder / "recovery").start(NO_FLUSH)
    events, sent = 0, 0
    while sent < wanted_mib << 20:
        lines, _ = generate(50_000, datetime.now(timezone.utc), seed=1000 + events)
        try:
            load_elsewhere(server.port, requests(lines, 1000), connections, None)
        except BROKEN as full:
            print(f"the log took no more: {full}", file=sys.stderr)
            break
        events += len(lines)
        sent += sum(len(line) for line in lines)
    server.kill()
    size = sent / (1 << 20)
    # What was just written would be read from memory; dropping the page cache needs root, so this is a warm start.
    started = time.perf_counter()
    server.start()
    seconds = time.perf_counter() - started
    server.kill()
    return events, size, seconds


def machine(folder: Path) -> str:
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), platform.machine())
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / (1 << 20)
    mounts = [line.split()[:3] for line in Path("/proc/mounts").read_text().splitlines()]
    mount = max((m for m in mounts if str(folder.resolve()).startswith(m[1])), key=lambda m: len(m[1]))
    return f"{os.cpu_count()} × {cpu}, {memory:.0f} GiB, Linux {platform.release()}, {mount[2]} on {mount[0]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--dir", type=Path, help="where the data folders go; the disk to measure (default: a temporary folder)")
    parser.add_argument("--events", type=int, default=300_000, help="for each run with 100 and 1 000 events a request, and for the committed rows")
    parser.add_argument("--single", type=int, default=30_000, help="for the run with one event a request")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--wal-mb", type=int, default=256)
    parser.add_argument("--commits", type=int, default=10_000, help="commits of one event each on one table")
    args = parser.parse_args()
    os.environ["ICECORE_BIN"] = str(Path(args.bin).resolve())
    folder = Path(tempfile.mkdtemp(prefix="icecore-bench-", dir=args.dir))
    try:
        report(args, folder)
    finally:
        shutil.rmtree(folder)


def report(args, folder: Path) -> None:
    print(f"Machine: {machine(folder)}. Load: one Python process on the same machine, {args.connections} connections.")
    print("Durability: one fdatasync per group before the answer. Ids are checked for repeats.\n")
    probe = fdatasync_probe(folder)
    probe_p50 = percentile(probe, 0.5)
    print(f"fdatasync of 4 KiB on the same disk: p50 {probe_p50 * 1e3:.3f} ms, p99 {percentile(probe, 0.99) * 1e3:.3f} ms\n")

    print("| events a request | acknowledged events/s | requests/s | events per CPU second, to the ack | to committed rows | ack p50 at half load | ack p99 | p50 / fdatasync | one at a time p50 | peak memory |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    now = datetime.now(timezone.utc)
    for size, count in ((1, args.single), (100, args.events), (1000, args.events)):
        lines, _ = generate(2 * count + ALONE_REQUESTS * size, now, seed=size)
        found = measure_rate(folder, size, lines, count, args.connections)
        print(f"| {size} | {found['rate']:,.0f} | {found['requests']:,.0f} | {found['per_core']:,.0f} | {found['committed']:,.0f} | {found['p50'] * 1e3:.2f} ms "
              f"| {found['p99'] * 1e3:.2f} ms | {found['p50'] / probe_p50:.1f} × | {found['alone'] * 1e3:.2f} ms | {found['peak']:.0f} MiB |", flush=True)

    lines, truth = generate(args.events, now, seed=5)
    path = folder / "events.ndjson"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = measure_committed(folder, path, lines, args.connections)
    print(f"\n| {truth.events:,} events, {path.stat().st_size / truth.events:.0f} B each as JSON | Icecore, HTTP to committed rows | DuckDB, `COPY (read_json) TO` Parquet | ratio |")
    print("|---|---|---|---|")
    print(f"| CPU per event | {found['cpu'] / truth.events * 1e6:.2f} µs | {found['duck_cpu'] / truth.events * 1e6:.2f} µs | {found['cpu'] / found['duck_cpu']:.2f} |")
    print(f"| Parquet bytes per event | {found['stored'] / truth.events:.1f} | {found['duck_bytes'] / truth.events:.1f} | {found['stored'] / found['duck_bytes']:.2f} |")
    print(f"| Parquet files | {found['files']} | 1 | |")
    print(f"| metadata bytes per event | {found['metadata'] / truth.events:.2f} | – | – |")
    print(f"| peak memory | {found['peak']:.0f} MiB | {found['duck_peak']:.0f} MiB | {found['peak'] / found['duck_peak']:.2f} |", flush=True)

    report_commits(folder, args.commits)

    events, size, seconds = measure_recovery(folder, args.wal_mb, args.connections)
    print(f"\nStart after kill -9 with {events:,} events ({size:.0f} MiB as JSON) in the log alone: ready in {seconds:.2f} s ({size / seconds:.0f} MiB/s, files in the page cache)")


if __name__ == "__main__":
    main()
