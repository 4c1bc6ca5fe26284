#!/usr/bin/env python3
"""Measures what many quiet namespaces cost a release binary and prints a Markdown report. `benches/README.md` says how to read it.

    benches/namespaces.py --bin target/release/icecore [--dir FOLDER] [--namespaces 1000] [--seconds 660] [--loads 10] [--runs alone one batches loads]

Each namespace gets one event a second, all of them spread evenly over the second, over a few connections. The control sends as many requests a second to
one namespace.
"""
import argparse
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "clients"), str(ROOT / "benches")]

from icecore import BROKEN, catalog_name  # noqa: E402
from ingest import cpu_seconds, machine, percentile  # noqa: E402
from server import Server  # noqa: E402

# Threads of the sender; a request takes a millisecond or two.
SENDERS = 4
# A sender that is so far behind has lost the rate, and the run says nothing.
BEHIND_MAX = 60.0
# Events of a request where there are several in one.
BATCH = 100


@dataclass(frozen=True)
class Run:
    """One of the measurements, each on a server of its own; all send as many events a second."""

    title: str
    # Namespaces that the events are of.
    namespaces: int
    # Events of a request.
    batch: int
    loads: float


class Load:
    """So many events a second, each for its namespace, and a client that loads tables now and then."""

    def __init__(self, server: Server, namespaces: list[str], run: Run, events: int):
        self.server, self.namespaces, self.loads = server, namespaces, run.loads
        # The namespaces of a second's events, request by request.
        targets = [namespaces[at % len(namespaces)] for at in range(events)]
        self.groups = [targets[start : start + run.batch] for start in range(0, events, run.batch)]
        self.took, self.failures, self.sent, self.loaded, self.behind = [], [], [0] * SENDERS, 0, 0.0
        self.ends = threading.Event()

    def send(self, part: int, seconds: float) -> None:
        client, own = self.server.client(), list(enumerate(self.groups))[part::SENDERS]
        began = time.perf_counter()
        for beat in range(int(seconds)):
            for at, group in own:
                due = began + beat + at / len(self.groups)
                pause = due - time.perf_counter()
                if pause > 0:
                    time.sleep(pause)
                self.behind = max(self.behind, -pause)
                if pause < -BEHIND_MAX:
                    self.failures.append(f"the sender is {-pause:.1f} s behind")
                    return
                events = [{"id": f"{beat}-{at}-{n}", "type": "beat", "ns": namespace, "data": {"beat": beat}} for n, namespace in enumerate(group)]
                lines = [json.dumps(event) for event in events]
                started = time.perf_counter()
                try:
                    status, answer = client.send(lines)
                except BROKEN as cause:
                    status, answer = 0, cause
                self.took.append(time.perf_counter() - started)
                if status != 200:
                    self.failures.append(f"{status} {answer}")
                    return
                self.sent[part] += len(lines)

    def load(self) -> None:
        """Loads tables in turn, so many a second, until the run ends."""
        client, at = self.server.client(), 0
        while self.loads and not self.ends.wait(1 / self.loads):
            namespace = catalog_name(self.namespaces[at % len(self.namespaces)])
            status, _, raw = client.request("GET", f"/catalog/v1/namespaces/{namespace}/tables/events")
            # Its first rows may not be committed yet.
            if status not in (200, 404):
                self.failures.append(f"load: {status} {raw[:200]!r}")
                return
            at, self.loaded = at + 1, self.loaded + 1

    def run(self, seconds: float) -> tuple[float, float]:
        """CPU seconds of the server, and seconds, of the whole run."""
        threads = [threading.Thread(target=self.send, args=(part, seconds)) for part in range(SENDERS)]
        loader = threading.Thread(target=self.load)
        before, started = cpu_seconds(self.server.process.pid), time.perf_counter()
        for thread in (*threads, loader):
            thread.start()
        for thread in threads:
            thread.join()
        wall, cpu = time.perf_counter() - started, cpu_seconds(self.server.process.pid) - before
        self.ends.set()
        loader.join()
        assert not self.failures, self.failures[:3]
        return cpu, wall


def commits(server: Server) -> float:
    """Snapshots that were committed so far."""
    _, _, raw = server.client().request("GET", "/metrics")
    lines = [line for line in raw.decode().splitlines() if line.startswith("icecore_flush_commit_seconds_count")]
    return float(lines[0].split()[-1]) if lines else 0.0


def measure(folder: Path, given, run: Run) -> dict:
    # The job that tests turn off is on.
    server = Server(folder, ["--set", "compaction.hour_cron=5 * * * *"])
    try:
        return measure_on(server.start(), given, run)
    finally:
        # Its folder is removed whatever went wrong.
        server.kill()


def measure_on(server: Server, given, run: Run) -> dict:
    namespaces = [f"device-{n}" for n in range(run.namespaces)]
    # Tables are made once, with the first rows; that is another figure.
    client = server.client()
    for namespace in namespaces:
        status, answer = client.send([json.dumps({"id": "first", "type": "beat", "data": {}})], namespace, "?ack=committed")
        assert status == 200, answer
    time.sleep(5)
    before, began = cpu_seconds(server.process.pid), time.perf_counter()
    time.sleep(20)
    idle = (cpu_seconds(server.process.pid) - before) / (time.perf_counter() - began)
    made, load = commits(server), Load(server, namespaces, run, given.namespaces)
    cpu, wall = load.run(given.seconds)
    made = commits(server) - made
    # The connection of before was quiet for too long by now.
    jobs = json.loads(server.client().request("GET", "/admin/jobs")[2])["jobs"]
    runs = {job["name"]: (job["last_run"] or {}).get("usage") or {} for job in jobs}
    events = sum(load.sent)
    return {"idle": idle, "share": cpu / wall, "per_event": cpu / events, "per_request": cpu / len(load.took), "p50": percentile(load.took, 0.5),
            "p99": percentile(load.took, 0.99), "requests": len(load.took), "events": events, "commits": made, "loads": load.loaded, "behind": load.behind, "runs": runs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--dir", type=Path, help="where the data folders go; the disk to measure (default: a temporary folder)")
    parser.add_argument("--namespaces", type=int, default=1_000)
    parser.add_argument("--seconds", type=int, default=660, help="of each run; tables that nobody reads are committed every five minutes")
    parser.add_argument("--loads", type=float, default=10, help="loadTable calls a second in the run with loads")
    parser.add_argument("--runs", nargs="+", choices=["alone", "one", "batches", "loads"], default=["alone", "one", "batches", "loads"], help="which of them")
    given = parser.parse_args()
    runs = {
        "alone": Run("nobody reads", given.namespaces, 1, 0),
        "one": Run("control: as many requests for one namespace", 1, 1, 0),
        "batches": Run(f"nobody reads, {BATCH} events in a request", given.namespaces, BATCH, 0),
        "loads": Run(f"{given.loads:g} loads a second", given.namespaces, 1, given.loads),
    }
    os.environ["ICECORE_BIN"] = str(Path(given.bin).resolve())
    folder = Path(tempfile.mkdtemp(prefix="icecore-bench-", dir=given.dir))
    try:
        print(f"Machine: {machine(folder)}. The sender shares it.\n")
        print(f"{given.namespaces:,} namespaces with one event a second each, {given.seconds} s a run, each on a server of its own.", flush=True)
        found = {}
        for name in dict.fromkeys(given.runs):
            found[name] = measure(folder / name, given, runs[name])
            tell(runs[name].title, found[name])
        if "one" in found:
            tell_differences(runs, found)
    finally:
        shutil.rmtree(folder)


def tell_differences(runs: dict[str, Run], found: dict[str, dict]) -> None:
    """What many namespaces cost beyond the same requests for one."""
    base = found["one"]
    print("\n| beside the control | share of a core | more than the control | CPU per event | more per event | CPU per request | commits |")
    print("|---|---|---|---|---|---|---|")
    for name, run in found.items():
        more, each = (run["share"] - base["share"]) * 100, (run["per_event"] - base["per_event"]) * 1e6
        print(f"| {runs[name].title} | {run['share'] * 100:.1f} % | {more:+.1f} % | {run['per_event'] * 1e6:,.0f} µs | {each:+,.0f} µs "
              f"| {run['per_request'] * 1e6:,.0f} µs | {run['commits']:,.0f} |")
    sys.stdout.flush()


def tell(title: str, run: dict) -> None:
    """Prints a run at once: the next one may fail."""
    print(f"\n| | {title} |")
    print("|---|---|")
    rows = [
        ("share of a core", lambda run: f"{run['share'] * 100:.1f} %"),
        ("the same with these tables there and no event", lambda run: f"{run['idle'] * 100:.1f} %"),
        ("CPU per event", lambda run: f"{run['per_event'] * 1e6:,.0f} µs"),
        ("CPU per request", lambda run: f"{run['per_request'] * 1e6:,.0f} µs"),
        ("events", lambda run: f"{run['events']:,}"),
        ("requests", lambda run: f"{run['requests']:,}"),
        ("commits in the run", lambda run: f"{run['commits']:,.0f}"),
        ("loads", lambda run: f"{run['loads']:,}"),
        ("ack p50", lambda run: f"{run['p50'] * 1e3:.2f} ms"),
        ("ack p99", lambda run: f"{run['p99'] * 1e3:.2f} ms"),
        ("most that a sender was behind", lambda run: f"{run['behind']:.2f} s"),
    ]
    for name, told in rows:
        print(f"| {name} | {told(run)} |")
    print(f"\n| last run of a job: CPU | {title} |")
    print("|---|---|")
    for name, usage in run["runs"].items():
        print(f"| {name} | {usage.get('cpu_ms', 0)} ms |")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
