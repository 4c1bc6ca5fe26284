"""Queries run in processes of their own: hostile statements never reach the server's, and answers are the same without them."""
import json
import os
import signal
import statistics
import subprocess
import threading
import time

import pytest
from generate_hostile import KNOWN
from icecore import Refused
from server import Server, binary, plain_environment

EVENTS = 3_000
SAME = [
    "SELECT * FROM events ORDER BY seq LIMIT 50",
    "SELECT type, count(*), sum(duration_ms) FROM events GROUP BY type ORDER BY type",
    "SELECT id, data FROM events WHERE seq % 97 = 0 ORDER BY seq",
    "SELECT max(ts) - min(ts) FROM events WHERE seq < 100",
    "SELECT a.type, count(*) FROM events a JOIN events b ON a.seq = b.seq GROUP BY a.type ORDER BY 1",
    "SHOW TABLES",
    "EXPLAIN SELECT id FROM events WHERE type = 't1'",
    "SELECT 1/0",
]


def send(server, first, last):
    events = [json.dumps({"id": f"e{n}", "type": f"t{n % 3}", "data": {"n": n, "durationMs": n / 8}}) for n in range(first, last)]
    assert server.client().send(events, "shop.example")[0] == 200


def workers(server) -> set[int]:
    found = set()
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and b"sql-worker" in open(f"/proc/{name}/cmdline", "rb").read():
                state, parent = open(f"/proc/{name}/stat").read().rsplit(")", 1)[1].split()[:2]
                if int(parent) == server.process.pid and state != "Z":
                    found.add(int(name))
        except OSError:
            pass
    return found


def outcome(client, statement, **more):
    try:
        return client.sql("shop.example", statement, **more)
    except Refused as refused:
        answer = json.loads(refused.body)
        return refused.status, answer["code"], answer["error"]


def started(folder, *settings):
    server = Server(folder, [word for setting in settings for word in ("--set", setting)])
    return server.start()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = started(tmp_path_factory.mktemp("icecore"), "sql.memory_bytes_max=128MiB", "sql.timeout_max=10s", "compaction.enabled=off", "wal.disk_free_min=0.001")
    send(server, 0, EVENTS // 2)
    server.client().commit("shop.example")
    send(server, EVENTS // 2, EVENTS)
    yield server
    server.stop()


def test_hostile_statements_do_not_reach_the_server(server):
    client, pid = server.client(), server.process.pid
    for statement in KNOWN:
        answer = outcome(client, statement, timeout_ms=500)
        # An answer, or an error that says whose fault it is.
        assert isinstance(answer, list) or answer[0] in (400, 404, 422, 500), f"{statement[:80]}: {answer}"
        assert client.sql("shop.example", "SELECT count(*) FROM events") == [(EVENTS,)], statement[:80]
    assert server.process.poll() is None and server.process.pid == pid


def test_a_worker_has_no_way_out(server):
    client = server.client()
    client.sql("shop.example", "SELECT count(*) FROM events")
    found = workers(server)
    assert found
    for worker in found:
        status = dict(line.split(":", 1) for line in open(f"/proc/{worker}/status").read().splitlines())
        environment = open(f"/proc/{worker}/environ", "rb").read()
        assert status["NoNewPrivs"].strip() == "1" and status["Seccomp"].strip() == "2"
        assert open(f"/proc/{worker}/oom_score_adj").read().strip() == "1000"
        assert b"ICECORE" not in environment and b"AWS" not in environment
        # What operators free is not given back to the system at once.
        assert b"MIMALLOC_PURGE_DELAY=100" in environment and b"MIMALLOC_PURGE_DECOMMITS=0" in environment
        # Its three pipes, and what the runtime made for itself; no file of the server.
        targets = {os.readlink(f"/proc/{worker}/fd/{name}") for name in os.listdir(f"/proc/{worker}/fd")}
        assert not [target for target in targets if str(server.folder) in target], targets


def test_calls_are_refused_by_the_system(server, tmp_path):
    events = str(server.folder / "data")
    calls = [f"list:{events}", f"read:{events}/icecore.db", "read:/etc/passwd", f"write:{tmp_path}/x", f"memory-of:{server.process.pid}",
             f"tcp-connect:127.0.0.1:{server.port}", "udp:127.0.0.1:0", "program:/bin/true"]
    command = [binary(), "sql-worker", "--memory-bytes-max=67108864", *(f"--probe={call}" for call in calls)]
    done = subprocess.run(command, env=plain_environment(), capture_output=True, text=True, check=True)
    # A part of Landlock and the list of calls refuse all of these.
    lines = [line for line in done.stdout.splitlines() if not (line.startswith("missing\t") and "a part of it" in line)]
    if any(line.startswith("missing\t") for line in lines):
        pytest.skip(f"this system does not lock processes in: {done.stdout}")
    for line in lines:
        call, _, told = line.partition("\t")
        assert "Permission denied" in told or "Operation not permitted" in told, line
    assert len(lines) == len(calls)


def test_a_killed_worker_costs_its_query_alone(server):
    pid, answers = server.process.pid, []
    endless = "SELECT count(*) FROM events a, events b, events c WHERE (a.seq + b.seq + c.seq) % 7 = 8"
    asking = threading.Thread(target=lambda: answers.append(outcome(server.client(), endless)))
    asking.start()
    while asking.is_alive():
        for worker in workers(server):
            os.kill(worker, signal.SIGKILL)
        asking.join(0.05)
    assert answers[0][0] in (422, 500), answers
    while left := workers(server):
        for worker in left:
            os.kill(worker, signal.SIGKILL)
        time.sleep(0.02)
    assert server.client().sql("shop.example", "SELECT count(*) FROM events") == [(EVENTS,)]
    assert server.process.poll() is None and server.process.pid == pid


def test_a_client_that_goes_away_ends_its_query_and_no_other(server):
    going, staying = server.client(), server.client()
    endless = json.dumps({"sql": "SELECT a.id FROM events a, events b, events c"})
    staying.sql("shop.example", "SELECT count(*) FROM events")
    connection = subprocess.Popen(["curl", "-sN", "-o", os.devnull, "-H", "content-type: application/json", "-d", endless, f"{server.url}/v1/shop.example/sql"])
    try:
        for _ in range(5):
            assert staying.sql("shop.example", "SELECT count(*) FROM events") == [(EVENTS,)]
    finally:
        connection.kill()
        connection.wait()
    deadline = time.monotonic() + 20
    while "icecore_queries_running 0" not in going.request("GET", "/metrics")[2].decode():
        assert time.monotonic() < deadline, "it runs on"
        time.sleep(0.05)
    assert staying.sql("shop.example", "SELECT count(*) FROM events") == [(EVENTS,)]


def test_answers_are_the_same_without_workers(tmp_path):
    settings = ("compaction.enabled=off", "commit.interval=10min", "wal.disk_free_min=0.001")
    server = started(tmp_path, *settings)
    send(server, 0, 1_000)
    server.client().commit("shop.example")
    send(server, 1_000, 1_500)
    assert workers(server)
    took, answers = [], []
    for statement in SAME:
        answers.append(outcome(server.client(), statement))
    client = server.client()
    for _ in range(40):
        begun = time.perf_counter()
        client.sql("shop.example", "SELECT 1")
        took.append((time.perf_counter() - begun) * 1000)
    server.stop()
    assert not workers(server)
    alone = started(tmp_path, *settings, "sql.workers=off")
    client, took_alone = alone.client(), []
    for statement, answer in zip(SAME, answers):
        assert outcome(client, statement) == answer, statement
    for _ in range(40):
        begun = time.perf_counter()
        client.sql("shop.example", "SELECT 1")
        took_alone.append((time.perf_counter() - begun) * 1000)
    assert not workers(alone)
    alone.stop()
    print(f"SELECT 1: {statistics.median(took):.1f} ms in a warm worker, {statistics.median(took_alone):.1f} ms in the server")
