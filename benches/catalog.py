#!/usr/bin/env python3
"""Measures the catalog of a release binary beside other catalogs in one run and prints a Markdown report. `benches/README.md` says how to read it.

    benches/catalog.py --bin target/release/icecore [--dir FOLDER] [--scale 1] [--jars FOLDER] [--only icecore,pyiceberg,seaweedfs,java]

Needs PyIceberg and SeaweedFS (the client tests' Python packages have both). With --jars, a folder of jars that holds iceberg-open-api's
test fixtures and what they need, Iceberg's reference server takes part. The load comes from one process on the same machine. The full run
takes some minutes; --scale 0.05 shows that everything works.
"""
import argparse
import http.client
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "clients"), str(ROOT / "benches")]

from ingest import cpu_seconds, fdatasync_probe, machine, percentile  # noqa: E402
from server import Server, free_port, is_free, plain_environment  # noqa: E402

NAMESPACE, CONNECTIONS, SPREAD_TABLES, START_TABLES = "bench", 8, 100, 1_000
COMMITS, WARM_UP, LOADS, HOT_COMMITS, GROWTH_COMMITS = 300, 50, 3_000, 240, 15
GROWTH, SNAPSHOTS_A_BODY = (10, 1_000, 10_000), 1_000
PATIENCE = 60
SCHEMA = {"type": "struct", "schema-id": 0, "fields": [
    {"id": number, "name": f"column_{number}", "type": kind, "required": False}
    for number, kind in enumerate(("long", "string", "timestamptz", "double", "string", "string", "long", "boolean"), 1)]}


class Conflict(Exception):
    """A 409: another commit was faster."""


class Failed(Exception):
    """What a peer answered instead of doing what it was asked."""


def snapshot(snapshot_id: int, parent: int | None, sequence: int, manifest_list: str, now_ms: int) -> dict:
    """An append of another snapshot; all point to one manifest list that is there already."""
    summary = {"operation": "append", "added-data-files": "1", "added-records": "1000", "total-records": str(1000 * sequence)}
    return {"snapshot-id": snapshot_id, **({"parent-snapshot-id": parent} if parent else {}), "sequence-number": sequence,
            "timestamp-ms": now_ms + sequence, "manifest-list": manifest_list, "summary": summary, "schema-id": 0}


def change(parent: int | None, added: list[dict]) -> dict:
    """A commit that adds these snapshots, if `parent` is the newest."""
    known = {"type": "assert-ref-snapshot-id", "ref": "main", "snapshot-id": parent}
    moved = {"action": "set-snapshot-ref", "ref-name": "main", "type": "branch", "snapshot-id": added[-1]["snapshot-id"]}
    return {"requirements": [known], "updates": [*({"action": "add-snapshot", "snapshot": one} for one in added), moved]}


def changes(first: int, last: int, manifest_list: str, now_ms: int) -> dict:
    """A commit that adds the `first` to the `last` snapshot of a table with one writer, who numbers them from 1001."""
    def parent(number):
        return 999 + number if number > 1 else None

    return change(parent(first), [snapshot(1000 + number, parent(number), number, manifest_list, now_ms) for number in range(first, last + 1)])


class Rest:
    """The client of every REST catalog: one kept-alive connection a thread, bodies made before the clock starts."""

    def __init__(self, url: str):
        self.url, self.local = urlsplit(url), threading.local()

    def call(self, method: str, path: str, body: bytes | None = None) -> bytes:
        connection = getattr(self.local, "connection", None)
        if connection is None:
            connection = self.local.connection = http.client.HTTPConnection(self.url.hostname, self.url.port, timeout=PATIENCE)
            connection.connect()
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            connection.request(method, f"{self.url.path}/v1/{path}", body, {"content-type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
        except BaseException:
            connection.close()
            self.local.connection = None
            raise
        if answer.status == 409:
            raise Conflict
        if answer.status >= 300:
            raise Failed(f"{method} {path[:60]}: {answer.status} {content[:200]!r}")
        return content

    def create(self, table: str) -> str:
        """The new table's location."""
        body = {"name": table, "schema": SCHEMA}
        made = json.loads(self.call("POST", f"namespaces/{NAMESPACE}/tables", json.dumps(body).encode()))
        return made["metadata"]["location"]

    def create_namespace(self) -> None:
        self.call("POST", "namespaces", json.dumps({"namespace": [NAMESPACE], "properties": {}}).encode())

    def prepare(self, change: dict) -> bytes:
        return json.dumps(change).encode()

    def commit(self, table: str, prepared: bytes) -> None:
        self.call("POST", f"namespaces/{NAMESPACE}/tables/{table}", prepared)

    def newest(self, table: str) -> tuple[int | None, int]:
        """The newest snapshot and the last sequence number, read from a load without parsing it."""
        metadata = self.load(table)
        found = re.search(rb'"current-snapshot-id":\s*(\d+)', metadata)
        sequence = re.search(rb'"last-sequence-number":\s*(\d+)', metadata)
        return int(found.group(1)) if found else None, int(sequence.group(1))

    def snapshots(self, table: str) -> set[int]:
        return {one["snapshot-id"] for one in json.loads(self.load(table))["metadata"]["snapshots"]}

    def load(self, table: str) -> bytes:
        return self.call("GET", f"namespaces/{NAMESPACE}/tables/{table}")

    def exists(self, table: str) -> None:
        self.call("HEAD", f"namespaces/{NAMESPACE}/tables/{table}")

    def names(self) -> None:
        self.call("GET", f"namespaces/{NAMESPACE}/tables")


class Icecore:
    name, fsync = "Icecore", "metadata file and its folder synced, SQLite `synchronous=FULL`"

    def __init__(self, folder: Path):
        self.server = Server(folder)

    def start(self) -> Rest:
        self.server.start()
        self.pid = self.server.process.pid
        return Rest(f"{self.server.url}/catalog")

    def stop(self) -> None:
        self.server.stop()


class Process:
    """A peer that is a process of its own."""

    def __init__(self, folder: Path):
        self.folder, self.process, self.port = folder, None, None
        folder.mkdir(parents=True)

    def start(self) -> Rest:
        if self.port is None:
            self.port = next(port for port in iter(lambda: free_port() % 20000 + 20000, None) if all(map(is_free, range(port, port + 5))))
        with open(self.folder / "server.log", "ab") as log:
            self.process = subprocess.Popen(self.command(), cwd=self.folder, env=plain_environment() | self.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.pid = self.process.pid
        deadline, rest = time.monotonic() + PATIENCE, Rest(f"http://127.0.0.1:{self.port}")
        while True:
            try:
                rest.call("GET", "config")
                return rest
            except (OSError, http.client.HTTPException, Failed):
                if self.process.poll() is not None or deadline < time.monotonic():
                    raise Failed(f"{self.name} did not start: {(self.folder / 'server.log').read_text()[-2000:]}") from None
                time.sleep(0.01)

    def environment(self) -> dict:
        return {}

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(PATIENCE)


class SeaweedFS(Process):
    name, fsync = "SeaweedFS", "nothing synced (its default)"

    def command(self) -> list[str]:
        weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        (self.folder / "volumes").mkdir(exist_ok=True)
        ports = dict(zip(("s3.port.iceberg", "s3.port", "master.port", "volume.port", "filer.port"), range(self.port, self.port + 5)))
        return [weed, "mini", "-dir=volumes", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-admin.ui=false", "-webdav=false", "-master.telemetry=false",
                "-s3.port.lance=0", "-tableBucket=warehouse", *(f"-{name}={port}" for name, port in ports.items())]

    def start(self) -> Rest:
        rest = super().start()
        # The catalog answers before its bucket is there.
        deadline = time.monotonic() + PATIENCE
        while b"All enabled components" not in (self.folder / "server.log").read_bytes() and time.monotonic() < deadline:
            time.sleep(0.05)
        return rest


class Java(Process):
    name, fsync = "Iceberg's Java reference server", "SQLite's own default (`FULL`, rollback journal), metadata file not synced"
    jars = None

    def command(self) -> list[str]:
        return ["java", "-Xmx2g", "-cp", f"{self.jars}/*", "org.apache.iceberg.rest.RESTCatalogServer"]

    def environment(self) -> dict:
        return {"CATALOG_WAREHOUSE": f"file://{self.folder}/warehouse", "CATALOG_URI": f"jdbc:sqlite:{self.folder}/catalog.db",
                "CATALOG_CATALOG__IMPL": "org.apache.iceberg.jdbc.JdbcCatalog", "CATALOG_REST_PORT": str(self.port)}


class PyIceberg:
    """PyIceberg's SqlCatalog works in this process: there is no server and no HTTP."""

    name, fsync, pid = "PyIceberg SqlCatalog, in process", "SQLite's own default (`FULL`, rollback journal), metadata file not synced", None

    def __init__(self, folder: Path):
        self.folder, self.local = folder, threading.local()
        folder.mkdir(parents=True)

    def start(self) -> "PyIceberg":
        self.local = threading.local()
        return self

    def stop(self) -> None:
        pass

    def catalog(self):
        from pyiceberg.catalog.sql import SqlCatalog

        if not hasattr(self.local, "catalog"):
            self.local.catalog = SqlCatalog("bench", uri=f"sqlite:///{self.folder}/catalog.db", warehouse=f"file://{self.folder}/warehouse")
        return self.local.catalog

    def create_namespace(self) -> None:
        self.catalog().create_namespace(NAMESPACE)

    def create(self, table: str) -> str:
        from pyiceberg.schema import Schema

        return self.catalog().create_table((NAMESPACE, table), Schema.model_validate(SCHEMA)).location()

    def prepare(self, change: dict):
        from pyiceberg.table import CommitTableRequest

        return CommitTableRequest.model_validate({"identifier": {"namespace": [NAMESPACE], "name": "any"}, **change})

    def commit(self, table: str, prepared) -> None:
        from pyiceberg.exceptions import CommitFailedException

        try:
            self.catalog().commit_table(self.catalog().load_table((NAMESPACE, table)), prepared.requirements, prepared.updates)
        except CommitFailedException:
            raise Conflict from None

    def newest(self, table: str) -> tuple[int | None, int]:
        metadata = self.load(table).metadata
        return metadata.current_snapshot_id, metadata.last_sequence_number

    def snapshots(self, table: str) -> set[int]:
        return {one.snapshot_id for one in self.load(table).metadata.snapshots}

    def load(self, table: str):
        return self.catalog().load_table((NAMESPACE, table))

    def exists(self, table: str) -> None:
        if not self.catalog().table_exists((NAMESPACE, table)):
            raise Failed(table)

    def names(self) -> None:
        self.catalog().list_tables(NAMESPACE)


def manifest_list(location: str) -> str:
    """An empty manifest list in the table's folder; on S3 only a name, which no catalog here reads."""
    name = f"{location}/metadata/bench-list.avro"
    if location.startswith("file:"):
        from pyiceberg.io.pyarrow import PyArrowFileIO
        from pyiceberg.manifest import write_manifest_list

        Path(urlsplit(name).path).parent.mkdir(parents=True, exist_ok=True)
        with write_manifest_list(2, PyArrowFileIO().new_output(name), 1001, None, 1, "deflate") as writer:
            writer.add_manifests([])
    return name


def timed(work, items) -> list[float]:
    took = []
    for item in items:
        started = time.perf_counter()
        work(item)
        took.append(time.perf_counter() - started)
    return took


def at_once(work, items: list) -> float:
    """Seconds for all items, on as many connections as the benchmark has."""
    parts = [items[number::CONNECTIONS] for number in range(CONNECTIONS)]
    started = time.perf_counter()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(lambda part: [work(item) for item in part], parts))
    return time.perf_counter() - started


class Bench:
    """All figures of one peer. A figure that cannot be had is the reason why."""

    def __init__(self, peer, scale: float):
        self.peer, self.scale, self.found = peer, scale, {}

    def count(self, full: int, least: int = CONNECTIONS) -> int:
        return max(least, int(full * self.scale))

    def run(self) -> dict:
        try:
            self.rest = self.peer.start()
            self.rest.create_namespace()
            self.now_ms = int(time.time() * 1000) + 1_000
            for step in (self.one_table, self.reads, self.spread, self.hot, self.growth, self.restart):
                try:
                    step()
                except (Failed, Conflict, OSError, http.client.HTTPException, TimeoutError) as error:
                    print(f"{self.peer.name}, {step.__name__}: {error!r}", file=sys.stderr)
        finally:
            self.peer.stop()
        return self.found

    def bodies(self, location: str, numbers: range) -> list:
        listed = manifest_list(location)
        return [self.rest.prepare(changes(number, number, listed, self.now_ms)) for number in numbers]

    def one_table(self) -> None:
        for body in self.bodies(self.rest.create("warm"), range(1, self.count(WARM_UP) + 1)):
            self.rest.commit("warm", body)
        bodies = self.bodies(self.rest.create("one"), range(1, self.count(COMMITS) + 1))
        took = timed(lambda body: self.rest.commit("one", body), bodies)
        self.found["commits"] = len(took) / sum(took)
        self.found["commit_p50"] = percentile(took, 0.5)

    def reads(self) -> None:
        """A table of ten snapshots among a hundred tables."""
        listed = manifest_list(self.rest.create("read"))
        self.rest.commit("read", self.rest.prepare(changes(1, 10, listed, self.now_ms)))
        for number in range(self.count(SPREAD_TABLES)):
            self.rest.create(f"spread_{number}")
        loads = self.count(LOADS)
        if self.peer.pid is None:
            loads = max(CONNECTIONS, loads // 10)
        for key, work in (("load", self.rest.load), ("head", self.rest.exists), ("list", lambda _: self.rest.names())):
            timed(work, ["read"] * CONNECTIONS)
            took = timed(work, ["read"] * (loads if key != "list" else loads // 3))
            self.found[key] = len(took) / sum(took)
        if self.peer.pid is not None:
            before = cpu_seconds(self.peer.pid)
            seconds = at_once(self.rest.load, ["read"] * loads * 2)
            self.found["load_8"] = loads * 2 / seconds
            spent = cpu_seconds(self.peer.pid) - before
            self.found["load_core"] = loads * 2 / spent if spent > 0 else None

    def spread(self) -> None:
        tables, each = self.count(SPREAD_TABLES), self.count(4, 1)
        work = []
        for number in range(tables):
            table = f"wide_{number}"
            work.append((table, self.bodies(self.rest.create(table), range(1, each + 1))))

        def commit(item):
            for body in item[1]:
                self.rest.commit(item[0], body)

        self.found["spread"] = tables * each / at_once(commit, work)

    def hot(self) -> None:
        """Each writer commits on what it last saw; told of a conflict, it loads the table and tries again."""
        commits = self.count(HOT_COMMITS)
        listed = manifest_list(self.rest.create("hot"))
        conflicts = []

        def commit(snapshot_id):
            while True:
                parent, sequence = self.rest.newest("hot")
                added = snapshot(snapshot_id, parent, sequence + 1, listed, self.now_ms)
                try:
                    return self.rest.commit("hot", self.rest.prepare(change(parent, [added])))
                except Conflict:
                    conflicts.append(snapshot_id)

        made = list(range(1_000_000, 1_000_000 + commits))
        seconds = at_once(commit, made)
        lost = len(set(made) - self.rest.snapshots("hot"))
        if lost:
            raise Failed(f"{lost} of {commits} commits were acknowledged and are not there")
        self.found["hot"], self.found["conflicts"] = commits / seconds, len(conflicts) / commits

    def growth(self) -> None:
        listed, have = manifest_list(self.rest.create("growing")), 0
        most = 1_000 if self.peer.pid is None else max(GROWTH)
        for size in (size for size in GROWTH if size <= most * max(self.scale, 0.1)):
            while have < size:
                more = min(SNAPSHOTS_A_BODY, size - have)
                self.rest.commit("growing", self.rest.prepare(changes(have + 1, have + more, listed, self.now_ms)))
                have += more
            numbers = range(have + 1, have + 1 + GROWTH_COMMITS)
            bodies = [self.rest.prepare(changes(number, number, listed, self.now_ms)) for number in numbers]
            self.found[f"growth_{size}"] = statistics.median(timed(lambda body: self.rest.commit("growing", body), bodies))
            have += GROWTH_COMMITS

    def restart(self) -> None:
        """From the start of the process to the first load, with a thousand tables there."""
        if self.peer.pid is None:
            return
        at_once(self.rest.create, [f"start_{number}" for number in range(self.count(START_TABLES))])
        self.peer.stop()
        started = time.perf_counter()
        self.rest = self.peer.start()
        self.rest.load("start_0")
        self.found["start"] = time.perf_counter() - started


ROWS = (
    ("commits/s, one table, one writer", "commits", "{:,.0f}"),
    ("commit p50", "commit_p50", "ms"),
    (f"commits/s, spread over {SPREAD_TABLES} tables, {CONNECTIONS} writers", "spread", "{:,.0f}"),
    (f"commits/s, one hot table, {CONNECTIONS} writers", "hot", "{:,.0f}"),
    ("409s a commit on it", "conflicts", "{:.2f}"),
    ("loadTable/s, one connection", "load", "{:,.0f}"),
    (f"loadTable/s, {CONNECTIONS} connections", "load_8", "{:,.0f}"),
    ("loadTable per CPU second of the server", "load_core", "{:,.0f}"),
    ("HEAD/s", "head", "{:,.0f}"),
    (f"lists/s of some {SPREAD_TABLES} tables", "list", "{:,.0f}"),
    *((f"commit with {size:,} snapshots there", f"growth_{size}", "ms") for size in GROWTH),
    (f"start with {START_TABLES:,} tables, to the first load", "start", "{:.2f} s"),
)
HIGHER = {"commits", "spread", "hot", "load", "load_8", "load_core", "head", "list"}


def cell(found: dict, key: str, form: str) -> str:
    if found.get(key) is None:
        return "–"
    return f"{found[key] * 1e3:.1f} ms" if form == "ms" else form.format(found[key])


def ratio(ours: dict, other: dict, key: str) -> str:
    """How many times better ours is."""
    if not ours.get(key) or not other.get(key) or key == "conflicts":
        return ""
    times = ours[key] / other[key] if key in HIGHER else other[key] / ours[key]
    return f" ({times:.1f} ×)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--dir", type=Path, help="where the data folders go; the disk to measure (default: a temporary folder)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full number of operations")
    parser.add_argument("--jars", type=Path, help="folder of jars with Iceberg's reference server")
    parser.add_argument("--only", default="icecore,pyiceberg,seaweedfs,java")
    args = parser.parse_args()
    os.environ["ICECORE_BIN"] = str(Path(args.bin).resolve())
    peers = {"icecore": Icecore, "pyiceberg": PyIceberg, "seaweedfs": SeaweedFS, "java": Java}
    Java.jars = args.jars and args.jars.resolve()
    wanted = [name for name in args.only.split(",") if name != "java" or args.jars]
    folder = Path(tempfile.mkdtemp(prefix="icecore-bench-", dir=args.dir)).resolve()
    try:
        probe = percentile(fdatasync_probe(folder), 0.5)
        found = [(peers[name], Bench(peers[name](folder / name), args.scale).run()) for name in wanted]
        report(args, folder, probe, found)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def report(args, folder: Path, probe: float, found: list) -> None:
    print(f"Machine: {machine(folder)}; fdatasync of 4 KiB p50 {probe * 1e3:.3f} ms. Client: one Python process on the same machine, the same code and")
    print("kept-alive connections for every server, bodies made before the clock starts. A commit adds one snapshot that points to a manifest list")
    print(f"which is there already, and moves `main` to it. Share of the full run: {args.scale:g}.\n")
    for peer, _ in found:
        print(f"- {peer.name}: {peer.fsync}")
    first = found[0][1]
    print("\n| | " + " | ".join(peer.name for peer, _ in found) + " |")
    print("|---|" + "---|" * len(found))
    for title, key, form in ROWS:
        cells = [cell(figures, key, form) + (ratio(first, figures, key) if figures is not first else "") for _, figures in found]
        print(f"| {title} | " + " | ".join(cells) + " |")
    print(f"\nIn brackets: how many times better {found[0][0].name} is in this run.")
    for peer, figures in found:
        small, large = figures.get(f"growth_{GROWTH[0]}"), [figures.get(f"growth_{size}") for size in GROWTH[1:]]
        grown = [f"{one / small:.1f} × at {size:,}" for one, size in zip(large, GROWTH[1:]) if one and small]
        if grown:
            print(f"{peer.name}: commit time against {GROWTH[0]} snapshots {', '.join(grown)}.")


if __name__ == "__main__":
    main()
