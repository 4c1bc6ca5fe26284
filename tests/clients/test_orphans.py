"""Files of engines that were never committed: found, kept while they are young or just seen, and still there for a late commit."""
import json
import os
import time
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from engines import PyIceberg
from server import Server

NAMESPACE = "foreign"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("icecore"), ["--set", "compaction.enabled=off", "--set", "wal.disk_free_min=0.001"])
    yield server.start()
    server.stop()


def orphans(client, query=""):
    status, _, raw = client.request("POST", f"/admin/jobs/orphans?namespace={NAMESPACE}{query}", b"", {"content-type": "application/json"})
    assert status == 200, raw
    return json.loads(raw)


def test_a_late_commit_of_another_engine_finds_its_files(server):
    client, catalog = server.client(), PyIceberg(server.url + "/catalog").catalog
    catalog.create_namespace_if_not_exists(NAMESPACE)
    rows = pyarrow.table({"id": pyarrow.array(range(100), pyarrow.int64())})
    table = catalog.create_table(f"{NAMESPACE}.t", schema=rows.schema)
    table.append(rows)
    table.append(rows.slice(0, 10))
    table.delete("id = 3")
    location = Path(table.location().removeprefix("file://"))
    late = location / "data" / "late.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"id": pyarrow.array(range(100, 110), pyarrow.int64())}), late)
    (location / "data" / "_SUCCESS").touch()
    assert orphans(client)["files"]["before"] == 0, "it is young"
    old = time.time() - 49 * 3600
    for file in location.rglob("*"):
        os.utime(file, (old, old))

    report = orphans(client, "&dry_run=true")
    assert (report["files"]["before"], report["files"]["after"]) == (1, 1), report
    assert report["bytes"]["before"] == late.stat().st_size
    assert [it["table"] for it in report["skipped"]] == [f"{NAMESPACE}.t"] and "_SUCCESS" in report["skipped"][0]["reason"], report
    for _ in range(2):
        report = orphans(client)
        assert (report["files"]["before"], report["files"]["after"], report["tables"]) == (1, 1, 0), report
    table.refresh()
    table.add_files([f"file://{late}"])
    assert orphans(client)["files"]["before"] == 0
    assert sorted(table.scan().to_arrow()["id"].to_pylist())[-10:] == list(range(100, 110))
