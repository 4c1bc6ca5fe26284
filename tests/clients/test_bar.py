"""The progress bars of `icecore compact` and `icecore import` as a person at a terminal meets them."""
import json
import threading

import pytest
from proxy import Proxy
from server import Server
from test_prompt import PATIENCE, Terminal

COLUMNS = 200
COMMITS = 6


class SlowRun(Proxy):
    """A run of `compact` that is as far as a test says, and begins at the server once it is let go."""

    def __init__(self, server_url: str):
        self.progress, self.is_let_go = {}, threading.Event()
        super().__init__(server_url)

    def set_progress(self, groups: int, tables: int) -> None:
        done = {"tables_done": tables, "groups_done": groups, "bytes_done": 100 * groups}
        self.progress = done | {"tables": 2, "groups": 3, "bytes": 300}

    def answer(self, method, path, body, forward):
        if path.startswith("/admin/jobs/compact?"):
            self.is_let_go.wait(PATIENCE)
            return forward()
        status, headers, content = forward()
        if path == "/admin/jobs":
            listed = json.loads(content)
            for job in listed["jobs"]:
                if job["name"] == "compact":
                    job["progress"] = self.progress
            content = json.dumps(listed).encode()
        return status, headers, content


class HeldImport(Proxy):
    """The first events come to the server at once, and later ones once they are let go."""

    def __init__(self, server_url: str):
        self.requests, self.is_let_go = 0, threading.Event()
        super().__init__(server_url)

    def answer(self, method, path, body, forward):
        if path.startswith("/ingest"):
            self.requests += 1
            if 1 < self.requests:
                self.is_let_go.wait(PATIENCE)
        return forward()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The job would be faster than a test now and then, and does nothing on a disk that is nearly full."""
    arguments = ["--set", "compaction.enabled=off", "--set", "wal.disk_free_min=0.001"]
    server = Server(tmp_path_factory.mktemp("icecore"), arguments)
    yield server.start()
    server.stop()


@pytest.fixture
def run(server):
    run = SlowRun(server.url)
    run.set_progress(0, 0)
    yield run
    run.is_let_go.set()
    run.close()


def fill(server, namespace):
    for commit in range(COMMITS):
        events = [json.dumps({"id": f"e{commit}-{n}", "type": "a"}) for n in range(10)]
        assert server.client().send(events, namespace)[0] == 200
        server.client().commit(namespace)


def test_a_bar_shows_how_far_a_compaction_is(server, run, tmp_path):
    for namespace in ("one", "two"):
        fill(server, namespace)
    terminal = Terminal(run, tmp_path, ["compact"], COLUMNS)
    try:
        first = terminal.wait("0 of 3 groups, 0 of 2 tables")
        assert "compact " in first and "0 B/300 B" in first, first
        run.set_progress(2, 1)
        later = terminal.wait("2 of 3 groups, 1 of 2 tables")
        assert "200 B/300 B" in later and "=" in later, later
        run.is_let_go.set()
        terminal.wait(r"\d+ files became \d+, in 2 tables: ")
        assert terminal.process.wait(PATIENCE) == 0
    finally:
        terminal.close()


def test_ctrl_c_leaves_the_run_to_the_server(run, tmp_path):
    terminal = Terminal(run, tmp_path, ["compact"], COLUMNS)
    try:
        terminal.wait("0 of 3 groups, ")
        terminal.type("\x03")
        terminal.wait("the server goes on with the run")
        assert terminal.process.wait(PATIENCE) == 1
    finally:
        terminal.close()


def test_a_bar_shows_how_far_an_import_is(server, tmp_path):
    hour = tmp_path / "bucket" / "events/2026/11/20/14"
    hour.mkdir(parents=True)
    for file in ("a", "b"):
        events = [json.dumps({"id": f"{file}-{n}", "type": "a", "ns": "imported"}) for n in range(10)]
        (hour / f"{file}.jsonl").write_text("\n".join(events) + "\n")
    held = HeldImport(server.url)
    terminal = Terminal(held, tmp_path, ["import", "--layout", "r2", "bucket"], COLUMNS)
    try:
        # The first of two files of the same length.
        first = terminal.wait("10 events")
        assert "bucket " in first and "=" in first, first
        held.is_let_go.set()
        terminal.wait("20 events")
        assert terminal.process.wait(PATIENCE) == 0
    finally:
        held.is_let_go.set()
        terminal.close()
        held.close()
    assert server.client().sql("imported", "SELECT count(*) FROM events") == [(20,)]
