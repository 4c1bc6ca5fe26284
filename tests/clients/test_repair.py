"""A metastore that is deleted comes back: engines read every row once, old snapshots and their own tables, and write on.

`LARGE=1` has ten times as many events, 200 000."""
import json
import os
import subprocess
import time

from engines import DuckDB, PyIceberg
from server import Server, binary, plain_environment

NAMESPACE = "shop.example"
EVENTS = 200_000 if os.environ.get("LARGE") == "1" else 20_000
BATCH = 5_000
TABLE = 'lake."shop_example"."events"'


def lines(first: int, count: int) -> list[str]:
    return [json.dumps({"id": f"e-{n}", "type": f"t{n % 3}", "data": {"n": n}}) for n in range(first, first + count)]


def send(server: Server, first: int, count: int) -> dict:
    status, reply = server.client().send(lines(first, count), NAMESPACE)
    assert status == 200, reply
    return reply


def repair(server: Server, *arguments: str) -> dict:
    command = [binary(), "repair", "metastore", "--data-dir", str(server.folder / "data"), "--json", *arguments]
    done = subprocess.run(command, env=plain_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def lose_metastore(server: Server) -> None:
    files = list((server.folder / "data").glob("icecore.db*"))
    assert files
    for file in files:
        file.unlink()


def wait_for_name(server: Server, name: str) -> None:
    """The list of names in the warehouse is written within a second or so."""
    deadline = time.monotonic() + 60
    while not any(f'"{name}"' in file.read_text() for file in (server.folder / "data" / "warehouse" / ".icecore").glob("names-*.json")):
        assert time.monotonic() < deadline, server.log_tail()
        time.sleep(0.05)


def test_engines_read_and_write_on_after_the_metastore_was_rebuilt(tmp_path):
    server = Server(tmp_path / "server", ["--set", "commit.interval=10min"]).start()
    in_log = BATCH // 10
    for first in range(0, EVENTS - in_log, BATCH):
        send(server, first, min(BATCH, EVENTS - in_log - first))
        server.client().commit(NAMESPACE)
    send(server, EVENTS - in_log, in_log)
    duck = DuckDB(server.url + "/catalog")
    duck.connection.execute("CREATE SCHEMA lake.own")
    duck.connection.execute("CREATE TABLE lake.own.numbers AS SELECT range AS n FROM range(1000)")
    duck.connection.execute("DELETE FROM lake.own.numbers WHERE n % 3 = 0")
    numbers = duck.rows("SELECT count(*), sum(n) FROM lake.own.numbers")
    duck.connection.close()
    old = PyIceberg(server.url + "/catalog").load("shop_example", "events").metadata.snapshots
    count = "SELECT count(*), max(seq) FROM events"
    before = {it.snapshot_id: server.client().sql(NAMESPACE, count, as_of=str(it.snapshot_id)) for it in old}
    wait_for_name(server, "numbers")
    server.kill()

    lose_metastore(server)
    planned, report = repair(server, "--dry-run"), repair(server)
    assert planned["tables"] == report["tables"] and not report["notes"], report
    assert {(*table["ns"], table["table"]) for table in report["tables"]} == {("shop_example", "events"), ("own", "numbers")}
    server.start()
    try:
        for snapshot, rows in before.items():
            assert server.client().sql(NAMESPACE, count, as_of=str(snapshot)) == rows
        server.client().commit(NAMESPACE)
        duck = DuckDB(server.url + "/catalog")
        whole = f"SELECT count(*), count(DISTINCT id), count(DISTINCT seq), max(seq) FROM {TABLE}"
        assert duck.rows(whole) == [(EVENTS, EVENTS, EVENTS, EVENTS)]
        assert duck.rows("SELECT count(*), sum(n) FROM lake.own.numbers") == numbers
        duck.connection.execute("INSERT INTO lake.own.numbers VALUES (1)")
        assert duck.rows("SELECT count(*) FROM lake.own.numbers") == [(numbers[0][0] + 1,)]
        assert send(server, EVENTS - in_log, in_log + 100)["duplicates"] == in_log
        server.client().commit(NAMESPACE)
        assert DuckDB(server.url + "/catalog").rows(whole) == [(EVENTS + 100, EVENTS + 100, EVENTS + 100, EVENTS + 100)]
    finally:
        server.stop()
