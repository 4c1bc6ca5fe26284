"""The server may end or fail at any moment: what it acknowledged is in the tables, once.

Senders keep each batch until it is acknowledged, over any number of restarts. Afterwards every engine must hold
exactly their events, and every file that any snapshot refers to must be there.
The long form ends the server 200 times: `pytest tests/clients/test_crash.py --kills 200`.
"""
import json
import random
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from engines import DuckDB, PyIceberg
from icecore import BROKEN, Client, Refused, Sent, catalog_name, send_until_taken
from server import Server

NAMESPACES = ["north.example", "south.example"]
WRITERS, BATCH = 4, 20
# As in lake/src/faults.rs, in the order an event passes them.
POINTS = ["wal.before_write", "wal.after_write", "wal.after_sync", "wal.after_publish", "flush.before_write", "flush.after_data_file",
          "flush.before_commit", "flush.lost_answer", "flush.after_commit", "flush.before_trim", "wal.after_trim"]
FAULTS = ["abort", "error", "delay:300"]
PATIENCE = 90


class Load:
    """Writers that send without pause, and a committer, until stopped. They outlive the server."""

    def __init__(self, url: str, run: str):
        self.url, self.run = url, run
        self.acknowledged: dict[str, set] = {namespace: set() for namespace in NAMESPACES}
        self.batches = 0
        self.sent = Sent()
        self.lock = threading.Lock()
        self.over = threading.Event()
        self.failures: list = []
        jobs = [self.commit, *(lambda writer=writer: self.write(writer) for writer in range(WRITERS))]
        self.threads = [threading.Thread(target=self.guard, args=(job,), daemon=True) for job in jobs]
        for thread in self.threads:
            thread.start()

    def guard(self, job) -> None:
        try:
            job()
        except Exception as failure:  # noqa: BLE001 - raised again by `stop`
            self.failures.append(failure)

    def write(self, writer: int) -> None:
        client, turn = Client(self.url, timeout=20), 0
        namespace = NAMESPACES[writer % len(NAMESPACES)]
        while not self.over.is_set():
            ids = [f"{self.run}-{writer}-{turn}-{n}" for n in range(BATCH)]
            lines = [json.dumps({"id": id, "type": f"crash.{writer % 3}", "data": {"turn": turn}}) for id in ids]
            reply = send_until_taken(client, lines, self.sent, namespace, patience=PATIENCE)
            assert not reply.get("errors"), reply
            with self.lock:
                self.acknowledged[namespace].update(ids)
                self.batches += 1
            turn += 1

    def commit(self) -> None:
        """Commits far more often than the server would by itself, so that crashes meet commits."""
        client = Client(self.url, timeout=20)
        while not self.over.wait(0.1):
            for namespace in NAMESPACES:
                try:
                    client.commit(namespace)
                except (Refused, *BROKEN):
                    pass  # The server is down, or does not know the namespace yet; the next turn asks again.

    def wait_for(self, batches: int) -> None:
        """Waits until this many more batches are acknowledged."""
        goal, deadline = self.batches + batches, time.monotonic() + PATIENCE
        while self.batches < goal:
            self.check()
            assert time.monotonic() < deadline, "the load stands still"
            time.sleep(0.01)

    def check(self) -> None:
        if self.failures:
            raise self.failures[0]

    def stop(self) -> dict[str, set]:
        """Lets every writer finish its batch; all that was acknowledged."""
        self.over.set()
        for thread in self.threads:
            thread.join(PATIENCE + 30)
        self.check()
        return self.acknowledged


def verify(server: Server, acknowledged: dict[str, set]) -> None:
    """Exactly the acknowledged events, for our SQL, DuckDB and PyIceberg; no file missing."""
    client, duck, lake = server.client(), DuckDB(server.url + "/catalog"), PyIceberg(server.url + "/catalog")
    for namespace, wanted in acknowledged.items():
        client.commit(namespace)
        name = catalog_name(namespace)
        seqs = [row[0] for row in client.sql(namespace, "SELECT seq FROM events")]
        assert len(set(seqs)) == len(seqs), "a seq was given twice"
        for ids in ([row[0] for row in client.sql(namespace, "SELECT id FROM events")], duck.ids(name, "events"), lake.ids(name, "events")):
            assert len(ids) == len(set(ids)), "an event is there twice"
            assert set(ids) == wanted, "an acknowledged event is lost"
        for path in referenced_files(lake.load(name, "events")):
            assert path.exists(), f"{path} is missing"


def referenced_files(table):
    """Every file that any snapshot of the table needs."""
    yield local(table.metadata_location)
    seen = set()
    for snapshot in table.snapshots():
        yield local(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            if manifest.manifest_path in seen:
                continue
            seen.add(manifest.manifest_path)
            yield local(manifest.manifest_path)
            for entry in manifest.fetch_manifest_entry(table.io):
                yield local(entry.data_file.file_path)


def local(location: str) -> Path:
    """The file behind a location; Iceberg's locations are plain text, not percent-encoded."""
    return Path(urlsplit(location).path if location.startswith("file:") else location)


@pytest.fixture
def own_server(tmp_path):
    # The long form makes more rows than one answer has by default, and the check reads all of them.
    server = Server(tmp_path / "icecore", ["--set", "sql.rows_max=1000000000"]).start()
    yield server
    server.kill()


def test_kills_at_random_moments_lose_and_repeat_nothing(own_server, request):
    load = Load(own_server.url, "kill")
    for _ in range(request.config.getoption("--kills")):
        load.wait_for(10)
        time.sleep(random.uniform(0, 1))
        own_server.kill()
        own_server.start()
    load.wait_for(10)
    acknowledged = load.stop()
    verify(own_server, acknowledged)
    assert own_server.stop() == 0
    own_server.start()
    verify(own_server, acknowledged)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_any_point_loses_and_repeats_nothing(own_server, fault):
    """One load over all points: at each the server is started anew with that one fault planned."""
    load = Load(own_server.url, fault.split(":")[0])
    load.wait_for(10)
    for point in POINTS:
        own_server.kill()
        own_server.spawn({"ICECORE_FAILPOINTS": f"{point}={fault}@{random.randrange(4)}"})
        ready = own_server.wait_ready()
        if fault == "abort":
            if ready:
                wait_for_end(own_server, point)
            own_server.start()
        else:
            # A recovery may meet the fault as well, and then has the right to give up.
            if not ready:
                own_server.start()
            settle(own_server, load)
    acknowledged = load.stop()
    verify(own_server, acknowledged)


def wait_for_end(server: Server, point: str) -> None:
    """The load reaches the point soon; a point that is never reached tests nothing."""
    deadline = time.monotonic() + PATIENCE
    while server.process.poll() is None:
        assert time.monotonic() < deadline, f"{point} was not reached"
        time.sleep(0.02)


def settle(server: Server, load: Load) -> None:
    """After an error the server goes on by itself, or refuses everything (or ends) until it is started again."""
    before, deadline = load.batches, time.monotonic() + 10
    while load.batches < before + 20 and time.monotonic() < deadline and server.process.poll() is None:
        time.sleep(0.02)
    if load.batches < before + 20:
        server.kill()
        server.start()
        load.wait_for(20)
