"""A warehouse that moved: after `icecore catalog relocate` every engine reads it, deletes and history included."""
import json
import random
import shutil
import subprocess

import polars
import pyarrow.parquet
from engines import DuckDB, connect_duckdb
from icecore import Client
from server import Server, binary, plain_environment

NAMESPACE = "shop.example"
EVENTS = 2_000


def send(server: Server, first: int, count: int) -> None:
    lines = [f'{{"id": "e-{n}", "type": "order.placed", "data": {{"n": {n}}}}}' for n in range(first, first + count)]
    status, reply = server.client().send(lines, NAMESPACE)
    assert status == 200, reply
    assert server.client().request("POST", f"/v1/{NAMESPACE}/commit")[0] == 200


def iceberg(server: Server):
    from pyiceberg.catalog import load_catalog

    return load_catalog("lake", type="rest", uri=server.url + "/catalog", warehouse="icecore")


def test_engines_read_a_relocated_warehouse(tmp_path):
    server = Server(tmp_path / "old").start()
    send(server, 0, EVENTS)
    send(server, EVENTS, EVENTS)
    duck = DuckDB(server.url + "/catalog")
    # A table of DuckDB's own with position deletes.
    duck.connection.execute("CREATE SCHEMA lake.own")
    duck.connection.execute("CREATE TABLE lake.own.numbers AS SELECT range AS n, 'v' || range AS v FROM range(1000)")
    duck.connection.execute("DELETE FROM lake.own.numbers WHERE n % 3 = 0")
    expected = duck.rows("SELECT count(*), sum(n) FROM lake.own.numbers")
    assert expected == [(666, sum(n for n in range(1000) if n % 3))], expected
    duck.connection.close()
    snapshots = [snapshot.snapshot_id for snapshot in iceberg(server).load_table("shop_example.events").snapshots()]
    server.stop()

    shutil.move(tmp_path / "old", tmp_path / "new")
    moved = Server(tmp_path / "new")
    moved.spawn()
    assert not moved.wait_ready(), "a moved folder must not start"
    assert "icecore catalog relocate" in moved.log_tail() and "drop" not in moved.log_tail(), moved.log_tail()
    moved.run("catalog", "relocate", "--data-dir", str(moved.folder / "data"))
    moved.start()
    try:
        duck = DuckDB(moved.url + "/catalog")
        assert duck.rows("SELECT count(*), sum(n) FROM lake.own.numbers") == expected
        assert duck.rows('SELECT count(*), count(DISTINCT id) FROM lake."shop_example"."events"') == [(2 * EVENTS, 2 * EVENTS)]
        duck.connection.execute("DELETE FROM lake.own.numbers WHERE n % 3 = 1")
        assert duck.rows("SELECT count(*) FROM lake.own.numbers") == [(333,)]
        table = iceberg(moved).load_table("shop_example.events")
        assert [snapshot.snapshot_id for snapshot in table.snapshots()] == snapshots
        for n, snapshot in enumerate(snapshots[-2:], 1):
            assert table.scan(snapshot_id=snapshot, selected_fields=("id",)).to_arrow().num_rows == n * EVENTS
        assert iceberg(moved).load_table("own.numbers").scan().to_arrow().num_rows == 333
        assert moved.client().sql("own", "SELECT count(*) FROM numbers") == [(333,)]
        assert "old/" not in str(table.metadata.model_dump_json()).replace("threshold/", "")
    finally:
        moved.stop()


def flips(path) -> list[int]:
    """Places in the first page of each column, in its last one, and in the checksum of that."""
    places = []
    metadata = pyarrow.parquet.ParquetFile(path).metadata
    for column in range(metadata.num_columns):
        chunk = metadata.row_group(0).column(column)
        start = chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset
        # After the page's header, the frame's, and the header of its first block.
        end = start + chunk.total_compressed_size
        places += [end - 2, end - 6] + ([start + 45] if 64 < end - start else [])
    return places


def test_engines_notice_a_flipped_bit(tmp_path):
    server = Server(tmp_path / "server").start()
    send(server, 0, EVENTS)
    server.stop()
    [file] = (tmp_path / "server" / "data" / "warehouse").rglob("*.parquet")
    whole = file.read_bytes()
    duck = connect_duckdb(())
    readers = {
        "duckdb": lambda path: duck.execute(f"SELECT * FROM read_parquet('{path}')").fetchall(),
        "pyarrow": lambda path: pyarrow.parquet.ParquetFile(path).read(),
        "polars": lambda path: polars.read_parquet(path),
    }
    expected = {name: read(file) for name, read in readers.items()}
    tried, noticed, bits = 0, 0, random.Random(7)
    for n, at in enumerate(flips(file)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << bits.randrange(8)
        copy = tmp_path / f"flipped-{n}.parquet"
        copy.write_bytes(damaged)
        for name, read in readers.items():
            tried += 1
            try:
                found = read(copy)
            except BaseException:  # Polars panics at some.
                noticed += 1
            else:
                # A few bits of a frame's header mean nothing.
                assert found == expected[name] if name == "duckdb" else found.equals(expected[name]), f"{name}, byte {at}"
    assert tried >= 45 and noticed >= 0.9 * tried, (noticed, tried)


def test_an_engine_reads_what_a_backup_restored(tmp_path):
    server = Server(tmp_path / "server").start()
    send(server, 0, EVENTS)
    data = str(server.folder / "data")
    server.run("backup", "create", str(tmp_path / "backup"), "--data-dir", data, "--url", server.url)
    send(server, EVENTS, 10)
    server.stop()
    restored = Server(tmp_path / "restored")
    restored.run("backup", "restore", str(tmp_path / "backup"), "--data-dir", str(restored.folder / "data"))
    restored.start()
    try:
        assert DuckDB(restored.url + "/catalog").rows('SELECT count(*), count(DISTINCT id) FROM lake."shop_example"."events"') == [(EVENTS, EVENTS)]
        client: Client = restored.client()
        assert client.sql(NAMESPACE, "SELECT count(*) FROM events") == [(EVENTS,)]
    finally:
        restored.stop()


def icecore(*arguments, environment=None) -> subprocess.CompletedProcess:
    return subprocess.run([binary(), *arguments], env=plain_environment() | (environment or {}), stdin=subprocess.DEVNULL, capture_output=True, text=True)


def test_a_relocation_that_is_killed_goes_on(tmp_path):
    server = Server(tmp_path / "old").start()
    for n in range(6):
        send(server, n * 100, 100)
    status, reply = server.client().send(['{"id": "o", "type": "a"}'], "other.example")
    assert status == 200 and server.client().request("POST", "/v1/other.example/commit")[0] == 200
    server.stop()
    shutil.move(tmp_path / "old", tmp_path / "new")
    moved = Server(tmp_path / "new")
    command = ["catalog", "relocate", "--data-dir", str(moved.folder / "data")]
    warehouse = moved.folder / "data" / "warehouse"
    kills = 0
    for files in range(1, 200, 3):
        process = subprocess.Popen([binary(), *command], env=plain_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # As soon as it has written so many.
        while process.poll() is None and sum("-moved-" in file.name for file in warehouse.rglob("*.avro")) < files:
            pass
        process.kill()
        if process.wait() == 0:
            break
        kills += 1
    done = icecore(*command)
    assert done.returncode == 0, done.stderr
    moved.start()
    try:
        assert kills >= 2, kills
        assert DuckDB(moved.url + "/catalog").rows('SELECT count(*), count(DISTINCT id) FROM lake."shop_example"."events"') == [(600, 600)]
        table = iceberg(moved).load_table("shop_example.events")
        counts = [table.scan(snapshot_id=snapshot.snapshot_id, selected_fields=("id",)).to_arrow().num_rows for snapshot in table.snapshots()]
        assert counts == [100, 200, 300, 400, 500, 600], counts
        assert moved.client().sql("other.example", "SELECT count(*) FROM events") == [(1,)]
    finally:
        moved.stop()


def test_a_backup_keeps_objects_until_it_is_forgotten(tmp_path, store):
    arguments, environment = ["--warehouse", f"s3://{store.BUCKET}/held"], store.environment()
    server = Server(tmp_path / "server", [*arguments, "--set", "catalog.undrop_window=0s", "--set", "catalog.purge=true"], environment).start()
    send(server, 0, EVENTS)
    duck = DuckDB(server.url + "/catalog")
    duck.connection.execute("CREATE SCHEMA lake.own")
    duck.connection.execute("CREATE TABLE lake.own.numbers AS SELECT range AS n FROM range(100)")
    duck.connection.close()
    data = ["--data-dir", str(server.folder / "data"), *arguments]
    made = icecore("backup", "create", str(tmp_path / "backup"), *data, "--url", server.url, "--json", environment=environment)
    assert made.returncode == 0, made.stderr
    backup = json.loads(made.stdout)
    assert backup["objects"] > 5 and backup["files"] == 1, backup
    [listed] = json.loads(icecore("backup", "list", *data, "--json", environment=environment).stdout)["backups"]
    assert listed["holds"] and listed["state"] == "whole", listed
    # What the table leaves behind when it is dropped waits for the backup to be forgotten.
    assert server.client().request("DELETE", "/v1/own/tables/numbers?purge=true")[0] == 200
    verify = ["backup", "restore", str(tmp_path / "backup"), "--dry-run", *data]
    assert icecore(*verify, environment=environment).returncode == 0
    server.stop()

    restored = Server(tmp_path / "restored", arguments, environment)
    other = ["--data-dir", str(restored.folder / "data"), *arguments]
    done = icecore("backup", "restore", str(tmp_path / "backup"), *other, environment=environment)
    assert done.returncode == 0, done.stderr
    restored.start()
    try:
        assert restored.client().sql(NAMESPACE, "SELECT count(*) FROM events") == [(EVENTS,)]
        assert restored.client().sql("own", "SELECT count(*) FROM numbers") == [(100,)]
    finally:
        restored.stop()
    assert icecore("backup", "forget", backup["id"], *data, environment=environment).returncode == 0
    assert json.loads(icecore("backup", "list", *data, "--json", environment=environment).stdout)["backups"] == []
