"""The progress bar of `icecore compact` as a person at a terminal meets it."""
import json
import time

import pytest
from server import Server
from test_prompt import PATIENCE, Terminal

COLUMNS = 200
COMMITS = 6
# Each merge stands still before its commit, for longer than the bar takes to look a few times.
PAUSE = "failpoints=compact.before_commit=delay:3000*3"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The job would be faster than a test now and then, and does nothing on a disk that is nearly full."""
    arguments = ["--set", "compaction.enabled=off", "--set", "wal.disk_free_min=0.001", "--set", PAUSE]
    server = Server(tmp_path_factory.mktemp("icecore"), arguments)
    yield server.start()
    server.stop()


def fill(server, namespace):
    for commit in range(COMMITS):
        events = [json.dumps({"id": f"e{commit}-{n}", "type": "a"}) for n in range(10)]
        assert server.client().send(events, namespace)[0] == 200
        server.client().commit(namespace)


def test_a_bar_shows_how_far_a_compaction_is(server, tmp_path):
    for namespace in ("one", "two"):
        fill(server, namespace)
    terminal = Terminal(server, tmp_path, ["compact"], COLUMNS)
    try:
        first = terminal.wait(r"0 of [1-9]\d* groups, \d+ of [1-9]\d* tables")
        assert "compact " in first and "/" in first, first
        terminal.wait(r"[1-9]\d* of [1-9]\d* groups, [1-9]\d* of [1-9]\d* tables")
        terminal.wait(r"\d+ files became \d+, in 2 tables: ")
        assert terminal.process.wait(PATIENCE) == 0
    finally:
        terminal.close()


def test_ctrl_c_leaves_the_run_to_the_server(server, tmp_path):
    fill(server, "three")
    terminal = Terminal(server, tmp_path, ["compact", "--ns", "three"], COLUMNS)
    try:
        terminal.wait(r"0 of [1-9]\d* groups, ")
        terminal.type("\x03")
        terminal.wait("the server goes on with the run")
        assert terminal.process.wait(PATIENCE) == 1
    finally:
        terminal.close()
    deadline = time.monotonic() + PATIENCE
    while True:
        # 429 while it goes on.
        status, _, raw = server.client().request("POST", "/admin/jobs/compact?namespace=three", b"", {"content-type": "application/json"})
        if status == 200:
            break
        assert status == 429 and time.monotonic() < deadline, raw
        time.sleep(0.1)
    assert json.loads(raw)["files"]["before"] == 0, "it was done by then"
