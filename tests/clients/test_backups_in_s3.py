"""Backups whose files are objects, of a warehouse on disk and of one in a bucket: made under load, damaged, killed, restored elsewhere."""
import json
import subprocess
import threading

import boto3
import pytest
from engines import DuckDB
from server import SeaweedFS, Server, binary, plain_environment

NAMESPACE = "shop.example"
COUNT = "SELECT count(*), count(DISTINCT id) FROM events"


def send(server: Server, first: int, count: int) -> int:
    """How many of the events were known."""
    lines = [f'{{"id": "e-{n}", "type": "order.placed", "data": {{"n": {n}}}}}' for n in range(first, first + count)]
    status, reply = server.client().send(lines, NAMESPACE)
    assert status == 200, reply
    return reply["duplicates"]


def commit(server: Server) -> None:
    assert server.client().request("POST", f"/v1/{NAMESPACE}/commit")[0] == 200


class Bucket:
    """The store's objects, and the command line with its keys."""

    def __init__(self, store):
        self.store = store
        self.s3 = boto3.client("s3", endpoint_url=store.endpoint, aws_access_key_id=SeaweedFS.KEY, aws_secret_access_key=SeaweedFS.SECRET, region_name=store.REGION)

    def url(self, prefix: str) -> str:
        return f"s3://{self.store.BUCKET}/{prefix}"

    def keys(self, prefix: str) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.store.BUCKET, Prefix=prefix + "/")
        return [item["Key"] for page in pages for item in page.get("Contents", ())]

    def get(self, key: str) -> bytes:
        return self.s3.get_object(Bucket=self.store.BUCKET, Key=key)["Body"].read()

    def put(self, key: str, body: bytes) -> None:
        self.s3.put_object(Bucket=self.store.BUCKET, Key=key, Body=body)

    def delete(self, prefix: str) -> None:
        for key in self.keys(prefix):
            self.s3.delete_object(Bucket=self.store.BUCKET, Key=key)

    def icecore(self, *arguments) -> subprocess.CompletedProcess:
        return subprocess.run([binary(), *arguments], env=plain_environment() | self.store.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True)

    def done(self, *arguments) -> dict:
        done = self.icecore(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def refused(self, *arguments) -> str:
        done = self.icecore(*arguments)
        assert done.returncode == 1, done.stdout
        return done.stderr


@pytest.fixture
def bucket(store):
    return Bucket(store)


def restored(bucket: Bucket, backup: str, folder, warehouse=None) -> Server:
    """A server on what a backup restores."""
    arguments = ["--warehouse", warehouse] if warehouse else []
    server = Server(folder, arguments, bucket.store.environment())
    bucket.done("backup", "restore", backup, "--data-dir", str(server.folder / "data"), *arguments)
    return server.start()


def flip(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1:]


def test_a_warehouse_on_disk_is_backed_up_to_a_bucket_under_load(tmp_path, bucket):
    server = Server(tmp_path / "server", (), bucket.store.environment()).start()
    data = ["--data-dir", str(server.folder / "data")]
    send(server, 0, 2_000)
    commit(server)
    send(server, 2_000, 500)
    sent, stop = [2_500], threading.Event()

    def load():
        while not stop.is_set():
            send(server, sent[0], 50)
            sent[0] += 50
            commit(server)

    thread = threading.Thread(target=load)
    thread.start()
    place = bucket.url("backups/b1")
    try:
        made = bucket.done("backup", "create", place, *data, "--url", server.url)
    finally:
        stop.set()
        thread.join()
    assert not made["has_log"] and made["objects"] == 0, made
    assert len(bucket.keys("backups/b1")) == made["files"] + 1
    assert not list((server.folder / "data").glob("backup-*")), "nothing is left behind"
    assert "not empty" in bucket.refused("backup", "create", place, *data, "--url", server.url)
    assert "in the warehouse" in bucket.refused("backup", "create", str(server.folder / "data" / "warehouse" / "b"), *data)
    for listed in (bucket.done("backup", "list", *data), bucket.done("backup", "list", bucket.url("backups"))):
        [row] = listed["backups"]
        assert (row["id"], row["state"], row["place"], row["holds"]) == (made["id"], "whole", place, False), row
    server.stop()

    # Each kind of file, one bit of it.
    for end in (".parquet", ".avro", ".metadata.json", "icecore.db"):
        key = next(key for key in bucket.keys("backups/b1") if key.endswith(end))
        whole = bucket.get(key)
        bucket.put(key, flip(whole))
        assert "is not what was backed up" in bucket.refused("backup", "restore", place, "--dry-run"), key
        assert "is not what was backed up" in bucket.refused("backup", "restore", place, "--data-dir", str(tmp_path / end)), key
        assert not (tmp_path / end / "icecore.db").exists(), key
        bucket.put(key, whole)

    # To a folder, and to a bucket, where other engines read it.
    for warehouse in (None, bucket.url("restored")):
        folder = tmp_path / ("in-bucket" if warehouse else "on-disk")
        again = restored(bucket, place, folder, warehouse)
        try:
            [(count, distinct)] = again.client().sql(NAMESPACE, COUNT)
            assert 2_500 <= count == distinct <= sent[0], (count, distinct, sent)
            duck = DuckDB(again.url + "/catalog")
            assert duck.rows('SELECT count(*), count(DISTINCT id) FROM lake."shop_example"."events"') == [(count, distinct)]
            assert send(again, 0, sent[0]) == count
            commit(again)
            assert again.client().sql(NAMESPACE, COUNT) == [(sent[0], sent[0])]
        finally:
            again.stop()
    forgotten = bucket.done("backup", "forget", place, *data)
    assert forgotten["ids"] == [made["id"]]
    assert bucket.done("backup", "list", *data)["backups"] == []


def test_a_warehouse_in_a_bucket_is_named_or_copied(tmp_path, bucket):
    arguments = ["--warehouse", bucket.url("named")]
    server = Server(tmp_path / "server", arguments, bucket.store.environment()).start()
    data = ["--data-dir", str(server.folder / "data"), *arguments]
    send(server, 0, 1_000)
    commit(server)
    send(server, 1_000, 10)
    named, copied = bucket.url("named-backup"), bucket.url("copied-backup")
    made = bucket.done("backup", "create", named, *data, "--url", server.url)
    assert made["objects"] > 3 and made["files"] == 1, made
    whole = bucket.done("backup", "create", copied, *data, "--url", server.url, "--copy")
    assert whole["objects"] == 0 and whole["files"] == made["objects"] + 1, whole
    holds = {row["place"]: row["holds"] for row in bucket.done("backup", "list", *data)["backups"]}
    assert holds == {named: True, copied: False}
    server.stop()
    bucket.done("backup", "restore", named, "--dry-run", *data)

    # An object of the same size with other bytes; then all objects are gone.
    key = next(key for key in bucket.keys("named") if key.endswith(".parquet"))
    body = bucket.get(key)
    bucket.put(key, flip(body))
    assert "is not what was backed up" in bucket.refused("backup", "restore", named, "--dry-run", *data)
    assert "with --copy" in bucket.refused("backup", "restore", named, "--data-dir", str(tmp_path / "elsewhere"))
    bucket.delete("named")
    assert bucket.url("named") in bucket.refused("backup", "restore", named, "--dry-run", *data)
    for n, warehouse in enumerate((bucket.url("elsewhere"), None, bucket.url("named"))):
        again = restored(bucket, copied, tmp_path / f"restored-{n}", warehouse)
        try:
            assert again.client().sql(NAMESPACE, COUNT) == [(1_010, 1_010)]
            assert send(again, 0, 1_020) == 1_010
            commit(again)
            duck = DuckDB(again.url + "/catalog")
            assert duck.rows('SELECT count(*), count(DISTINCT id) FROM lake."shop_example"."events"') == [(1_020, 1_020)]
        finally:
            again.stop()
    # A warehouse that has something is not written into.
    taken = ["--data-dir", str(tmp_path / "taken"), "--warehouse", bucket.url("elsewhere")]
    assert "is not empty" in bucket.refused("backup", "restore", copied, *taken)


def test_a_backup_to_a_bucket_that_is_killed_is_no_backup(tmp_path, bucket):
    server = Server(tmp_path / "server", (), bucket.store.environment()).start()
    data = ["--data-dir", str(server.folder / "data")]
    for n in range(5):
        send(server, n * 100, 100)
        commit(server)
    server.stop()
    interrupted = 0
    for n in range(12):
        prefix = f"killed/{n}"
        command = [binary(), "backup", "create", bucket.url(prefix), *data]
        process = subprocess.Popen(command, env=plain_environment() | bucket.store.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(bucket.keys(prefix)) <= 3 * n:
            pass
        process.kill()
        if process.wait() == 0:
            break
        tried = bucket.icecore("backup", "restore", bucket.url(prefix), "--data-dir", str(tmp_path / f"new-{n}"))
        if tried.returncode == 0:
            continue  # The list was on its way already.
        interrupted += 1
        assert "not finished" in tried.stderr
        rows = {row["place"]: row for row in bucket.done("backup", "list", *data)["backups"]}
        assert (rows[bucket.url(prefix)]["state"], rows[bucket.url(prefix)]["holds"]) == ("incomplete", True), rows
    assert interrupted >= 2
    states = {row["place"]: row["state"] for row in bucket.done("backup", "list", bucket.url("killed"))["backups"]}
    assert list(states.values()).count("incomplete") == interrupted, states
    for n in range(12):
        if bucket.icecore("backup", "forget", bucket.url(f"killed/{n}"), *data).returncode != 0:
            break
    assert not list((server.folder / "data").glob("backup-*"))
    # Nothing is in the way of the next one.
    place = bucket.url("killed-not")
    assert bucket.done("backup", "create", place, *data)["has_log"]
    again = restored(bucket, place, tmp_path / "restored")
    try:
        assert again.client().sql(NAMESPACE, COUNT) == [(500, 500)]
    finally:
        again.stop()
