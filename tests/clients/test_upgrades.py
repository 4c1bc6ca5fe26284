"""Data folders of a release with fewer columns of `events`: after an upgrade with two more every engine reads old and new rows."""
import base64
import json
from pathlib import Path

import pyarrow
import pytest
from engines import DuckDB, PyIceberg, Spark
from server import ROOT, Server

NAMESPACE, TABLE_OF = "shop.example", "shop_example"
FOLDERS = ROOT / "tests" / "it" / "folders_before_columns"
NEW = 20
# The release that the folder meets: a dev build has columns to try upgrades with.
SETTINGS = {"ICECORE_TRIAL_COLUMNS": "2", "ICECORE_INGEST_TS_PAST": "10000d", "ICECORE_COMMIT_INTERVAL": "10min"}


def unpack(name: str, folder: Path) -> None:
    with pyarrow.input_stream(str(FOLDERS / f"{name}.json.zst"), compression="zstd") as packed:
        files = json.loads(packed.read())
    for path, content in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(content))


def new_event(n: int) -> str:
    return json.dumps({"id": f"new-{n:02}", "type": "order.placed", "attempt_number": n, "data": {"deployment_environment": f"env-{n}"}})


@pytest.mark.parametrize("name", ["plain", "foreign"])
def test_engines_read_old_and_new_rows_after_an_upgrade(name, tmp_path, spark_session):
    server = Server(tmp_path, environment=SETTINGS)
    unpack(name, tmp_path / "data")
    server.run("catalog", "relocate", "--data-dir", str(tmp_path / "data"))
    server.start()
    try:
        client, uri = server.client(), server.url + "/catalog"
        stored = 60 if name == "plain" else 61
        assert client.sql(NAMESPACE, "SELECT count(*), count(DISTINCT id) FROM events") == [(stored, stored)]
        status, reply = client.send([new_event(n) for n in range(NEW)], NAMESPACE)
        assert (status, reply["duplicates"]) == (200, 0), reply
        count = "SELECT count(*), count(DISTINCT id), count(deployment_environment), count(attempt_number), max(attempt_number) FROM {}"
        # A number has no place in another's column of text: `payload` has it.
        placed = (NEW, NEW, NEW - 1) if name == "plain" else (NEW + 1, 1, "first")
        expected = [(stored + NEW, stored + NEW, *placed)]
        assert client.sql(NAMESPACE, count.format("events")) == expected
        client.commit(NAMESPACE)
        assert client.sql(NAMESPACE, count.format("events")) == expected

        duck, spark = DuckDB(uri), Spark(spark_session, uri)
        row = "SELECT deployment_environment, attempt_number, payload FROM {} WHERE id = 'new-07'"
        old = "SELECT deployment_environment, attempt_number, payload LIKE '%attempt_number%' FROM {} WHERE id = 'e-40'"
        for engine in (duck, spark):
            table = engine.table(TABLE_OF, "events")
            assert engine.rows(count.format(table)) == expected, engine.name
            [(environment, attempt, payload)] = engine.rows(row.format(table))
            assert environment == "env-7", engine.name
            assert (attempt, payload) == (7, None) if name == "plain" else (attempt, json.loads(payload)["attempt_number"]) == (None, 7)
            assert engine.rows(old.format(table)) == [(None, None, True)], engine.name
        rows = PyIceberg(uri).load(TABLE_OF, "events").scan().to_arrow()
        assert rows.num_rows == stored + NEW
        values = set(rows["deployment_environment"].to_pylist()) - {None}
        assert values == {f"env-{n}" for n in range(NEW)} | ({"lab"} if name == "foreign" else set())
        if name == "foreign":
            assert duck.rows(f"SELECT note FROM {duck.table(TABLE_OF, 'events')} WHERE id = 'theirs'") == [("by hand",)]
        # Others go on writing: a row of theirs with a value in a column of ours.
        if name == "plain":
            table = spark.table(TABLE_OF, "events")
            spark.rows(f"DELETE FROM {table} WHERE attempt_number = 3")
            assert client.sql(NAMESPACE, count.format("events")) == [(stored + NEW - 1, stored + NEW - 1, NEW - 1, NEW - 1, NEW - 1)]
    finally:
        server.stop()
