"""Engines read a table whose old rows went, at its head and before, and write to it beside that."""
import json
from collections import Counter
from datetime import datetime, timedelta, timezone

import pytest
from engines import DuckDB, PyIceberg
from server import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Nothing goes or is merged by itself."""
    settings = ["retention.cron=", "compaction.enabled=off", "retention.events=webhook.*=30d", "wal.disk_free_min=0.001"]
    server = Server(tmp_path_factory.mktemp("icecore"), [part for setting in settings for part in ("--set", setting)])
    yield server.start()
    server.stop()


def send(client, namespace, numbers, days):
    at = (datetime.now(timezone.utc) - timedelta(days=days)).isoformat()
    events = [{"id": f"e{n}", "type": "webhook.github" if n % 2 else "order.placed", "ns": namespace, "ts": at} for n in numbers]
    status, _, raw = client.request("POST", "/ingest?backfill=true", json.dumps({"events": events}).encode(), {"content-type": "application/json"})
    assert status == 200, raw
    client.commit(namespace)


def test_engines_read_and_write_beside_retention(server):
    namespace, client = "aged", server.client()
    send(client, namespace, range(20), 40)
    send(client, namespace, range(20, 40), 0)
    duck, lake = DuckDB(server.url + "/catalog"), PyIceberg(server.url + "/catalog")
    # Deletes of rows that go, and of rows that stay.
    duck.rows(f"DELETE FROM {duck.table(namespace, 'events')} WHERE id IN ('e1', 'e2', 'e21')")
    before = lake.load(namespace, "events").current_snapshot().snapshot_id
    status, _, raw = client.request("POST", f"/admin/jobs/retention?namespace={namespace}", b"", {"content-type": "application/json"})
    report = json.loads(raw)
    assert status == 200 and report["files"]["before"] == 1 and report["rows"] == 10, raw

    def ids(rows):
        return Counter(row[0] for row in rows)

    was = Counter(f"e{n}" for n in range(40) if n not in (1, 2, 21))
    wanted = Counter(f"e{n}" for n in range(40) if n not in (1, 2, 21) and not (n < 20 and n % 2))
    table = lake.load(namespace, "events")
    summary = table.current_snapshot().summary
    assert summary.operation.value == "delete" and summary["icecore.reason"] == "retention"
    read = {
        "icecore": lambda: client.sql(namespace, "SELECT id FROM events"),
        "duckdb": lambda: DuckDB(server.url + "/catalog").rows(f"SELECT id FROM {duck.table(namespace, 'events')}"),
        "pyiceberg": lambda: [(id,) for id in table.scan(selected_fields=("id",)).to_arrow()["id"].to_pylist()],
    }
    for engine, rows in read.items():
        assert ids(rows()) == wanted, engine
    assert ids(client.sql(namespace, "SELECT id FROM events", as_of=str(before))) == was
    assert Counter(table.scan(snapshot_id=before, selected_fields=("id",)).to_arrow()["id"].to_pylist()) == was

    # A delete that was planned before finds its rows gone or deletes them.
    duck.rows(f"DELETE FROM {duck.table(namespace, 'events')} WHERE id = 'e22'")
    send(client, namespace, range(40, 44), 0)
    wanted = wanted - Counter(["e22"]) + Counter(f"e{n}" for n in range(40, 44))
    assert ids(client.sql(namespace, "SELECT id FROM events")) == wanted
    assert ids(DuckDB(server.url + "/catalog").rows(f"SELECT id FROM {duck.table(namespace, 'events')}")) == wanted
