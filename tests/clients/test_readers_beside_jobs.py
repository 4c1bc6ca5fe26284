"""Readers never meet a missing file: engines read the table and its snapshots while rows come and every job works, deletion of files included.

A snapshot expires a second after the next one came, which is far less than anybody would set. The server's clock is a day ahead of what it was when the
first files became obsolete, so they are deleted beside the readers. `LARGE=1` has more days, and more time on each, in which snapshots are thinned, too.
"""
import json
import math
import os
import random
import re
import threading
import time
from datetime import datetime, timedelta, timezone

import pytest
from clock_ahead import clock_ahead
from engines import DuckDB, PyIceberg
from icecore import Client, Refused
from server import Server

NAMESPACE, TABLE = "beside", "events"
LARGE = os.environ.get("LARGE") == "1"
# The job that deletes files looks every 30 s, and first so long after a start.
DAYS, SECONDS = (4, 120) if LARGE else (1, 34)
COMMITS_BEFORE, KEPT, OLD = 16, 12, 4
SETTINGS = ["wal.disk_free_min=0.001", "compaction.files_max=4", "retention.events=old.*=30d", "retention.cron=", "expire.cron=", "orphans.cron=", "compaction.day_cron="]
JOBS = ["compact", "retention", "expire", "orphans", "compact-hour", "compact-day"]
# What an error names that is about a file.
A_FILE = re.compile(r"\.parquet|\.avro|\.metadata\.json|no such file", re.IGNORECASE)


class Writer:
    """Sends rows that stay and rows that are too old already, and commits them; knows how many of the first are committed."""

    def __init__(self, client: Client):
        self.client, self.sent = client, 0

    def commit(self) -> None:
        old = (datetime.now(timezone.utc) - timedelta(days=40)).isoformat()
        events = [{"id": f"kept-{n}", "type": f"kept.{n % 3}", "ns": NAMESPACE} for n in range(self.sent, self.sent + KEPT)]
        events += [{"id": f"old-{self.sent}-{n}", "type": "old.call", "ns": NAMESPACE, "ts": old} for n in range(OLD)]
        status, _, raw = self.client.request("POST", "/ingest?backfill=true", json.dumps({"events": events}).encode(), {"content-type": "application/json"})
        assert status == 200, raw
        self.client.commit(NAMESPACE)
        self.sent += KEPT


class Seen:
    """How many rows that stay each snapshot was seen with, and how often who read. All have to see the same."""

    def __init__(self):
        self.rows, self.reads, self.lock = {}, {}, threading.Lock()

    def note(self, reader: str, snapshot: int, rows: int) -> None:
        with self.lock:
            self.reads[reader] = self.reads.get(reader, 0) + 1
            first = self.rows.setdefault(snapshot, rows)
        assert first == rows, f"{reader} reads {rows} rows of snapshot {snapshot}, which had {first}"


def rows_that_stay(ids) -> int:
    kept = [id for id in ids if id.startswith("kept-")]
    assert len(kept) == len(set(kept)), "a row is there twice"
    return len(kept)


class Readers:
    """Reads as every engine does, now and at a snapshot that is retained."""

    def __init__(self, url: str, writer: Writer, seen: Seen, over: threading.Event):
        self.url, self.writer, self.seen, self.over = url, writer, seen, over

    def snapshots(self, until_ms: float = math.inf) -> list[int]:
        snapshots = PyIceberg(self.url + "/catalog").load(NAMESPACE, TABLE).snapshots()
        return [snapshot.snapshot_id for snapshot in snapshots if snapshot.timestamp_ms <= until_ms]

    def sql(self, client: Client, **more) -> list[str]:
        return [row[0] for row in client.sql(NAMESPACE, "SELECT id FROM events", **more)]

    def duckdb(self, at: str = "") -> list[str]:
        duck = DuckDB(self.url + "/catalog")
        try:
            return [row[0] for row in duck.rows(f"SELECT id FROM {duck.table(NAMESPACE, TABLE)}{at}")]
        finally:
            duck.connection.close()

    def now(self, name: str, read) -> None:
        """What was committed before is there."""
        committed = self.writer.sent
        found = rows_that_stay(read())
        assert committed <= found, f"{name} reads {found} rows of {committed}"

    def then(self, name: str, read, until_ms: float = math.inf) -> None:
        """Rows of a snapshot. One that expired meanwhile may be refused, but not for a file."""
        snapshot = random.choice(self.snapshots(until_ms))
        try:
            found = rows_that_stay(read(snapshot))
        except Exception as refused:  # noqa: BLE001 - raised again where it should not be
            text = refused.body.decode() if isinstance(refused, Refused) else str(refused)
            if A_FILE.search(text) or snapshot in self.snapshots():
                raise
            return
        self.seen.note(name, snapshot, found)

    def read_sql(self) -> None:
        client = Client(self.url)
        while not self.over.is_set():
            self.now("SQL", lambda: self.sql(client))
            self.then("SQL", lambda snapshot: self.sql(client, as_of=str(snapshot)))

    def read_duckdb(self) -> None:
        """Of the snapshots that tags keep: DuckDB sees none that is later than its own time, and the server's clock is ahead."""
        while not self.over.is_set():
            self.then("DuckDB", lambda snapshot: self.duckdb(f" AT (VERSION => {snapshot})"), time.time() * 1000)

    def read_pyiceberg(self) -> None:
        """It goes on with the metadata that it loaded, whatever expires meanwhile."""
        while not self.over.is_set():
            committed = self.writer.sent
            table = PyIceberg(self.url + "/catalog").load(NAMESPACE, TABLE)
            scan = lambda **at: table.scan(selected_fields=("id",), **at).to_arrow()["id"].to_pylist()  # noqa: E731
            assert committed <= rows_that_stay(scan())
            for snapshot in random.sample([one.snapshot_id for one in table.snapshots()], k=min(2, len(table.snapshots()))):
                self.seen.note("PyIceberg", snapshot, rows_that_stay(scan(snapshot_id=snapshot)))


class Work:
    """Threads that go on until the time is over or one of them fails."""

    def __init__(self, over: threading.Event):
        self.over, self.failures, self.threads = over, [], []

    def start(self, job) -> None:
        def run():
            try:
                job()
            except Exception as failure:  # noqa: BLE001 - raised by `end`
                self.failures.append(failure)
                self.over.set()

        self.threads.append(threading.Thread(target=run, daemon=True))
        self.threads[-1].start()

    def end(self, seconds: float) -> None:
        self.over.wait(seconds)
        self.over.set()
        for thread in self.threads:
            thread.join(120)
        if self.failures:
            raise self.failures[0]


def run_job(client: Client, job: str, done: dict) -> None:
    status, _, raw = client.request("POST", f"/admin/jobs/{job}?namespace={NAMESPACE}", b"", {"content-type": "application/json"})
    # The server compacts by itself, too.
    assert status in (200, 429), raw
    if status == 200:
        done[job] = done.get(job, 0) + json.loads(raw)["files"]["before"]


def deletions(client: Client) -> list[dict]:
    """Runs of this server that deleted files."""
    jobs = json.loads(client.request("GET", "/admin/jobs")[2])["jobs"]
    runs = next(job for job in jobs if job["name"] == "delete-obsolete")["recent_runs"]
    return [run for run in runs if run["outcome"] == "worked"]


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path / "icecore", [part for setting in SETTINGS for part in ("--set", setting)])
    yield server.start()
    server.kill()


def prepare(server: Server, writer: Writer, done: dict) -> None:
    """Snapshots that are gone and files that are merged, which nobody needs from then on, and a tag."""
    client = server.client()
    for commit in range(COMMITS_BEFORE):
        writer.commit()
        if commit in (3, 9):
            body = json.dumps({"name": f"kept-{commit}", "type": "tag"}).encode()
            assert client.request("POST", f"/v1/{NAMESPACE}/tables/{TABLE}/refs", body, {"content-type": "application/json"})[0] == 200
    # By the protocol alone: a client that loads the table holds what it was given for an hour.
    change = {"requirements": [], "updates": [{"action": "set-properties", "updates": {"history.expire.max-snapshot-age-ms": "1000"}}]}
    path = f"/catalog/v1/namespaces/{NAMESPACE}/tables/{TABLE}"
    assert client.request("POST", path, json.dumps(change).encode(), {"content-type": "application/json"})[0] == 200
    time.sleep(1.1)
    for job in JOBS:
        run_job(client, job, done)
    assert done["compact"] and done["retention"] and done["expire"], done


def test_readers_meet_no_missing_file_while_every_job_works(server, tmp_path):
    writer, seen, done = Writer(server.client()), Seen(), {}
    prepare(server, writer, done)
    folder = server.folder / "data" / "warehouse"
    for day in range(1, DAYS + 1):
        # No reader is older than the day that files are left for.
        writer.client.close()
        server.stop()
        before = {path for path in folder.rglob("*.parquet")}
        server.start(clock_ahead(tmp_path, 25 * day))
        over = threading.Event()
        work, readers, client = Work(over), Readers(server.url, writer, seen, over), server.client()

        def write():
            while not over.is_set():
                writer.commit()

        def maintain():
            while not over.is_set():
                for job in JOBS:
                    run_job(client, job, done)

        for job in (write, maintain, readers.read_sql, readers.read_duckdb, readers.read_pyiceberg):
            work.start(job)
        work.end(SECONDS)
        assert any(not path.exists() for path in before) and deletions(server.client()), "no file was deleted beside the readers"
    assert all(2 < seen.reads.get(reader, 0) for reader in ("SQL", "DuckDB", "PyIceberg")), seen.reads
    verify(server, writer)


def verify(server: Server, writer: Writer) -> None:
    """All rows are there once, tags are where they were, and whoever checks finds nothing."""
    client, lake = server.client(), PyIceberg(server.url + "/catalog")
    wanted = {f"kept-{n}" for n in range(writer.sent)}
    for ids in ([row[0] for row in client.sql(NAMESPACE, "SELECT id FROM events")], lake.ids(NAMESPACE, TABLE)):
        assert rows_that_stay(ids) == len(wanted) and wanted <= set(ids)
    for commit in (3, 9):
        ids = [row[0] for row in client.sql(NAMESPACE, "SELECT id FROM events", as_of=f"kept-{commit}")]
        assert rows_that_stay(ids) == (commit + 1) * KEPT and len(ids) == (commit + 1) * (KEPT + OLD), "of a tag nothing goes"
    for path, member in ((f"/v1/{NAMESPACE}/audit/events", "agrees"), (f"/admin/fsck?namespace={NAMESPACE}", "whole")):
        status, _, raw = client.request("POST", path, b"", {"content-type": "application/json"})
        assert status == 200 and json.loads(raw)[member], raw
