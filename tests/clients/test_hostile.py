"""Hostile statements while events are ingested: each has an answer, the server stays the same process, and nothing acknowledged is lost.

`LARGE=1` has the long form, of 2 500 statements. Another seed: --seed 7.
"""
import http.client
import json
import os
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import pytest
from generate_hostile import KNOWN, Hostile
from icecore import Client
from server import ROOT, Server, binary

NAMESPACE = "shop.example"
STATEMENTS = 2_500 if "LARGE" in os.environ else 150
CLIENTS = 4
EVENTS, BATCH = 2_000, 10
MEMORY_MAX = 128 << 20
# Absolute paths and what else names a place on the machine.
PATH = re.compile(r"(?:file:)?/+(?:root|home|tmp|usr|var|etc|proc|dev|work|opt|rustc|private|Users)\b[^\s'\"`,)\]]*|[\w./-]+\.rs:\d+")
# Iceberg's metadata tables have the paths of files: that is what they are for.
WITH_PATHS = re.compile(r"\b(?:files|all_files|entries|manifests|snapshots|metadata_log_entries)\b")


def lines(first, count):
    return [json.dumps({"id": f"e{n}", "type": f"t{n % 3}", "data": {"n": n, "durationMs": n / 8, "note": "ünïcødé"}}) for n in range(first, first + count)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    settings = (f"sql.memory_bytes_max={MEMORY_MAX >> 20}MiB", "sql.spill_bytes_max=64MiB", "sql.timeout_max=10s", "compaction.enabled=off", "wal.disk_free_min=0.001")
    server = Server(tmp_path_factory.mktemp("icecore"), [word for setting in settings for word in ("--set", setting)]).start()
    client = server.client()
    assert client.send(lines(0, EVENTS // 2), NAMESPACE)[0] == 200
    client.commit(NAMESPACE)
    assert client.send(lines(EVENTS // 2, EVENTS // 2), NAMESPACE)[0] == 200
    yield server
    server.stop()


def memory(pid, name):
    """A line of the process's status, in bytes."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(name + ":"))


class Asking:
    """Sends statements, one batch of events beside each, and judges every answer."""

    def __init__(self, server):
        self.server, self.lock = server, Lock()
        self.sent, self.wrong, self.outcomes = EVENTS, [], Counter()
        # Where this server and this repository are; shown in no answer.
        self.places = [str(server.folder), str(ROOT), str(os.path.dirname(binary()))]

    def run(self, statements):
        client, sender = self.server.client(), self.server.client()
        with ThreadPoolExecutor(1) as pool:
            for statement in statements:
                with self.lock:
                    first, self.sent = self.sent, self.sent + BATCH
                taken = pool.submit(sender.send, lines(first, BATCH), NAMESPACE)
                self.judge(statement, *self.answer(client, statement))
                status, reply = taken.result()
                if status != 200 or reply["duplicates"]:
                    self.fault("a batch beside", statement, f"{status} {reply}")
                if client.request("GET", "/readyz")[0] != 200:
                    self.fault("not ready after", statement, "")

    def answer(self, client, statement):
        body = json.dumps({"sql": statement, "timeout_ms": 250, "limit": 200})
        try:
            status, _, raw = client.request("POST", f"/v1/{NAMESPACE}/sql", body, {"content-type": "application/json", "accept": "application/json"})
            return status, raw.decode()
        except (OSError, http.client.HTTPException) as broken:
            return 0, repr(broken)

    def judge(self, statement, status, text):
        try:
            answer = json.loads(text)
        except ValueError:
            return self.fault("an answer that is not JSON", statement, text)
        failed = status != 200 or "error" in answer
        code = answer.get("code") if failed else "rows"
        with self.lock:
            self.outcomes[f"{status} {code}"] += 1
        if failed and not (isinstance(code, str) and answer.get("error")):
            self.fault("an error without text and code", statement, text)
        if not failed and "rows" not in answer:
            self.fault("no rows", statement, text)
        if failed and status not in (200, 400, 403, 404, 413, 422, 429, 500, 503):
            self.fault(f"status {status}", statement, text)
        if not WITH_PATHS.search(statement):
            # What the statement says itself may come back, in whatever form the engine writes it.
            said = statement + statement.replace('"', "")
            named = [place for place in [*self.places, *PATH.findall(json.dumps(answer, ensure_ascii=False))] if place in text and place.split("\\")[0] not in said]
            if named:
                self.fault(f"an answer that names {named[:3]}", statement, text)
        return None

    def fault(self, what, statement, text):
        with self.lock:
            self.wrong.append(f"{what}: {statement[:300]!r} ({len(statement)} characters)\n  {text[:600]}")


def test_hostile_statements_beside_ingest(server, request):
    pid, asking, hostile = server.process.pid, Asking(server), Hostile(request.config.getoption("--seed"))
    statements = [*KNOWN, *(hostile.statement() for _ in range(STATEMENTS))]
    before = memory(pid, "VmHWM")
    with ThreadPoolExecutor(CLIENTS) as pool:
        for done in [pool.submit(asking.run, statements[at::CLIENTS]) for at in range(CLIENTS)]:
            done.result()
    more = memory(pid, "VmHWM") - before
    print(f"\n{len(statements)} statements: {dict(asking.outcomes.most_common())}; the server's memory grew by {more >> 20} MiB at most")
    assert not asking.wrong, f"{len(asking.wrong)} of {len(statements)}:\n" + "\n".join(asking.wrong[:25])
    assert server.process.poll() is None and server.process.pid == pid and server.is_ready()
    assert more < MEMORY_MAX
    # Every acknowledged event is there once, before and after a commit.
    for _ in range(2):
        counted = Client(server.url).sql(NAMESPACE, "SELECT count(*), count(DISTINCT id), min(seq), max(seq) FROM events")
        assert counted[0][:2] == (asking.sent, asking.sent), counted
        server.client().commit(NAMESPACE)
