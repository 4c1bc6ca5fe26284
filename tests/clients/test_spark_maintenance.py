"""Spark's own maintenance of our tables, beside ingest and our jobs: nothing is lost, nothing comes back, and tags stay readable."""
import itertools
import json
import os
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from engines import DuckDB, PyIceberg, Spark
from icecore import Client, Sent, send_until_taken
from server import Server
from test_access import Guarded, open_spark

TYPES, BATCH, RETRIES = 3, 30, 20
# Between two rounds of ingest: at the begin of each statement of Spark, and at most.
PAUSE_S, PAUSE_MAX_S = 0.5, 15
# Longest that the job may take to merge anything of a table that nobody else touches.
MERGED_S_MAX = 300
# Between two rounds of our jobs by hand.
MAINTENANCE_PAUSE_S = 5
# Longer than Spark leaves files alone that nothing names.
OLD_S = 10 * 24 * 3600
# What Spark says where ingest itself was faster: it merges manifests, too.
LOST = ("could not be found in the latest snapshot",)


def lines(numbers) -> list[str]:
    return [json.dumps({"id": f"e{n}", "type": f"t{n % TYPES}", "actor": f"a{n % 7}"}) for n in numbers]


def post(client: Client, path: str) -> dict:
    status, _, raw = client.request("POST", path, b"", {"content-type": "application/json"})
    assert status in (200, 429), raw
    return json.loads(raw)


def again(attempt, lost=LOST) -> None:
    """Until the race is won."""
    for left in reversed(range(RETRIES)):
        try:
            attempt()
            return
        except Exception as error:  # noqa: BLE001 - Spark's errors have no class of their own
            if not left or not any(word in str(error) for word in lost):
                raise


def read_anew(spark, namespace: str) -> list[tuple]:
    table = spark.table(namespace, "events")
    spark.rows(f"REFRESH TABLE {table}")
    return spark.rows(f"SELECT id, actor FROM {table}")


def check(client: Client, uri: str, namespace: str, spark, wanted: dict) -> None:
    """Every engine has these rows, and whoever checks finds nothing."""
    client.commit(namespace)
    duck, lake = DuckDB(uri), PyIceberg(uri).load(namespace, "events").scan(selected_fields=("id", "actor")).to_arrow()
    read = {
        "icecore": client.sql(namespace, "SELECT id, actor FROM events"),
        "duckdb": duck.rows(f"SELECT id, actor FROM {duck.table(namespace, 'events')}"),
        "pyiceberg": list(zip(lake["id"].to_pylist(), lake["actor"].to_pylist())),
        "spark": read_anew(spark, namespace),
    }
    for engine, rows in read.items():
        assert Counter(map(tuple, rows)) == Counter(wanted.items()), engine
    assert post(client, f"/v1/{namespace}/audit/events")["agrees"]
    checked = post(client, f"/admin/fsck?namespace={namespace}")
    assert checked["whole"], checked


def compactions(client: Client, namespace: str) -> set[int]:
    """The snapshots in which files were merged."""
    _, _, raw = client.request("GET", f"/catalog/v1/namespaces/{namespace}/tables/events")
    return {it["snapshot-id"] for it in json.loads(raw)["metadata"]["snapshots"] if it["summary"].get("icecore.compaction")}


class Background:
    """Ingest into namespaces, and our jobs one after the other, until the block is left. The job `compact` goes on by itself."""

    def __init__(self, server: Server, namespaces: list[str], first: int):
        self.server, self.namespaces, self.next, self.pause_s = server, namespaces, first, PAUSE_S
        self.over, self.failures, self.threads = threading.Event(), [], []

    def ingest(self) -> None:
        client = self.server.client()
        while not self.over.wait(self.pause_s):
            for namespace in self.namespaces:
                send_until_taken(client, lines(range(self.next, self.next + BATCH)), Sent(), namespace)
                client.commit(namespace)
            self.next += BATCH
            # Spark's commit has its turn as well where it takes longer than a pause.
            self.pause_s = min(1.1 * self.pause_s, PAUSE_MAX_S)

    def maintain(self) -> None:
        client = self.server.client()
        while not self.over.wait(MAINTENANCE_PAUSE_S):
            for job, namespace in itertools.product(("expire", "orphans", "retention"), self.namespaces):
                post(client, f"/admin/jobs/{job}?namespace={namespace}")

    def guard(self, job) -> None:
        try:
            job()
        except Exception as failure:  # noqa: BLE001 - raised at the end of the block
            self.failures.append(failure)

    def __enter__(self) -> "Background":
        self.threads = [threading.Thread(target=self.guard, args=(job,), daemon=True) for job in (self.ingest, self.maintain)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, kind, *_) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join(300)
        if kind is None and self.failures:
            raise self.failures[0]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("icecore"), ["--set", "wal.disk_free_min=0.001", "--set", "compaction.files_max=4"])
    yield server.start()
    server.stop()


def test_rewrites_deletes_and_merges_of_spark_meet_our_jobs(server, spark_session):
    namespace, other, client = "both", "alone", server.client()
    for first in range(0, 4 * BATCH, BATCH):
        for each in (namespace, other):
            send_until_taken(client, lines(range(first, first + BATCH)), Sent(), each)
            client.commit(each)
    body = json.dumps({"name": "before", "type": "tag"}).encode()
    assert client.request("POST", f"/v1/{namespace}/tables/events/refs", body, {"content-type": "application/json"})[0] == 200
    # An engine was about to commit to it before, so our job leaves it a quarter of an hour, however slow this machine is.
    known = {"x-client-version": "Apache Iceberg 1.10.1"}
    assert client.request("GET", f"/catalog/v1/namespaces/{namespace}/tables/events", b"", known)[0] == 200
    spark = Spark(spark_session, server.url + "/catalog", cached=True)
    table, changed, gone = spark.table(namespace, "events"), {}, set()
    procedure = f"CALL `{spark.catalog}`.system."
    # Ingest still comes between its last look and its commit, which it then sends again.
    spark.rows(f"ALTER TABLE {table} SET TBLPROPERTIES ('write.delete.isolation-level'='snapshot', 'write.merge.isolation-level'='snapshot', "
               f"'commit.retry.num-retries'='{RETRIES}', 'commit.retry.max-wait-ms'='1000')")
    merged, merged_there = compactions(client, namespace), compactions(client, other)
    with Background(server, [namespace, other], 4 * BATCH) as beside:
        def rows(sql: str) -> None:
            beside.pause_s = PAUSE_S
            spark.rows(sql)

        for turn, mode in enumerate(("merge-on-read", "copy-on-write")):
            modes = ", ".join(f"'write.{what}.mode'='{mode}'" for what in ("delete", "update", "merge"))
            rows(f"ALTER TABLE {table} SET TBLPROPERTIES ({modes})")
            # None of these is tried twice.
            rows(f"DELETE FROM {table} WHERE id IN ('e{10 * turn}', 'e{10 * turn + 1}')")
            gone |= {f"e{10 * turn}", f"e{10 * turn + 1}"}
            source = f"SELECT 'e{10 * turn + 2}' AS id, 'new-{turn}' AS actor UNION ALL SELECT 'e{10 * turn + 3}', 'gone'"
            rows(f"MERGE INTO {table} t USING ({source}) s ON t.id = s.id WHEN MATCHED AND s.actor = 'gone' THEN DELETE "
                 "WHEN MATCHED THEN UPDATE SET t.actor = s.actor")
            changed[f"e{10 * turn + 2}"] = f"new-{turn}"
            gone.add(f"e{10 * turn + 3}")
            if mode == "merge-on-read":
                rows(f"{procedure}rewrite_position_delete_files(table => '{namespace}.events', options => map('rewrite-all', 'true'))")
                rows(f"{procedure}rewrite_data_files(table => '{namespace}.events', options => map('min-input-files', '2'))")
        again(lambda: spark.rows(f"{procedure}rewrite_manifests(table => '{namespace}.events', use_caching => false)"))
        left_alone = compactions(client, namespace) <= merged
        until = time.monotonic() + MERGED_S_MAX
        while not compactions(client, other) - merged_there and time.monotonic() < until:
            beside.over.wait(1)
    assert left_alone, "the job merged files of a table that Spark was writing"
    assert compactions(client, other) - merged_there, "it merged nothing of the table beside it"
    wanted = {f"e{n}": f"a{n % 7}" for n in range(beside.next)} | changed
    wanted = {id: actor for id, actor in wanted.items() if id not in gone}
    check(client, server.url + "/catalog", namespace, spark, wanted)
    # By hand it waits for nobody.
    post(client, f"/admin/jobs/compact?namespace={namespace}")
    assert compactions(client, namespace) - merged
    check(client, server.url + "/catalog", namespace, spark, wanted)
    tagged = client.sql(namespace, "SELECT id FROM events", as_of="before")
    assert sorted(tagged) == sorted((f"e{n}",) for n in range(4 * BATCH))
    assert sorted(spark.rows(f"SELECT id FROM {table} VERSION AS OF 'before'")) == sorted(tagged)


class SparkAs:
    """Spark SQL with a token."""

    def __init__(self, session, guarded: Guarded, token: str):
        self.session, self.catalog = session, open_spark(session, guarded, token, "token")

    def rows(self, sql: str) -> list[tuple]:
        return [tuple(row) for row in self.session.sql(sql).collect()]

    def table(self, namespace: str, table: str) -> str:
        return f"`{self.catalog}`.`{namespace}`.`{table}`"

    def expire(self, table: str) -> None:
        """Everything older than now, as far as the catalog and the refs let go of it."""
        now = self.rows("SELECT CAST(current_timestamp() AS STRING)")[0][0]
        self.rows(f"CALL `{self.catalog}`.system.expire_snapshots(table => '{table}', older_than => TIMESTAMP '{now}', retain_last => 1)")

    def remove_orphans(self, table: str) -> list[str]:
        found = self.rows(f"CALL `{self.catalog}`.system.remove_orphan_files(table => '{table}', prefix_mismatch_mode => 'IGNORE')")
        return [row[0] for row in found]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A server with tokens: of a writer in `a`, and of an admin."""
    server = Server(tmp_path_factory.mktemp("guarded"), ["--set", "auth=on", "--set", "wal.disk_free_min=0.001", "--set", "compaction.enabled=off"]).start()
    guarded = Guarded(server)
    guarded.tokens["admin"] = guarded.make("root", "--admin")
    yield guarded
    server.stop()


def leave_file(location: str) -> Path:
    """A file that nothing names, and that is old; so are all others of the table."""
    folder = Path(location.removeprefix("file://"))
    left = folder / "data" / "left.parquet"
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_bytes(b"nobody's")
    old = time.time() - OLD_S
    for file in folder.rglob("*"):
        if file.is_file():
            os.utime(file, (old, old))
    return left


def location_of(client: Client, namespace: str, table: str) -> str:
    status, _, raw = client.request("GET", f"/catalog/v1/namespaces/{namespace}/tables/{table}")
    assert status == 200, raw
    return json.loads(raw)["metadata"]["location"]


def test_an_admin_expires_snapshots_and_removes_orphans_of_our_table_with_spark(guarded, spark_session):
    admin, writer = (SparkAs(spark_session, guarded, guarded.tokens[who]) for who in ("admin", "a"))
    client = Client(guarded.server.url, token=guarded.tokens["admin"])
    for first in range(0, 5 * BATCH, BATCH):
        send_until_taken(client, lines(range(first, first + BATCH)), Sent(), "a")
        client.commit("a")
        kept = {BATCH: ("kept", "tag"), 2 * BATCH: ("side", "branch")}.get(first)
        if kept:
            body = json.dumps({"name": kept[0], "type": kept[1]}).encode()
            assert client.request("POST", "/v1/a/tables/events/refs", body, {"content-type": "application/json"})[0] == 200
        if first == 2 * BATCH:
            # The state after the next event, which is committed with the batch after it.
            marked = json.dumps({"id": "marked", "type": "t0", "bookmark": "b-1"})
            send_until_taken(client, [marked], Sent(), "a")
    post(client, "/admin/jobs/compact?namespace=a")
    send_until_taken(client, lines(range(5 * BATCH, 6 * BATCH)), Sent(), "a")
    # Before anybody loads the table: what is current then, and what comes after it, is not removed for an hour.
    client.commit("a")
    with pytest.raises(Exception) as refused:
        writer.expire("a.events")
    assert "needs the scope `admin`" in str(refused.value), refused.value
    snapshots = lambda: admin.rows(f"SELECT snapshot_id FROM {admin.table('a', 'events')}.snapshots")  # noqa: E731
    before = len(snapshots())
    admin.expire("a.events")
    # The head, the tag and the branch stay in any case.
    assert 3 <= len(snapshots()) < before
    left = leave_file(location_of(client, "a", "events"))
    # What is sent meanwhile, and not committed, is in no file yet.
    send_until_taken(client, lines(range(6 * BATCH, 7 * BATCH)), Sent(), "a")
    removed = admin.remove_orphans("a.events")
    assert any(path.endswith("left.parquet") for path in removed) and not left.exists(), removed
    client.commit("a")
    # Who loaded the table works with that snapshot, and Spark would delete its files at once.
    loaded = admin.rows(f"SELECT snapshot_id FROM {admin.table('a', 'events')}.refs WHERE name = 'main'")[0][0]
    send_until_taken(client, lines(range(7 * BATCH, 8 * BATCH)), Sent(), "a")
    client.commit("a")
    with pytest.raises(Exception) as refused:
        admin.expire("a.events")
    assert "leased until" in str(refused.value) and "expire only snapshots" in str(refused.value), refused.value
    ids = lambda batches: [(f"e{n}",) for n in range(batches * BATCH)]  # noqa: E731
    read = admin.rows(f"SELECT id FROM {admin.table('a', 'events')} VERSION AS OF {loaded}")
    assert sorted(read) == sorted(ids(7) + [("marked",)])
    for sql, more, wanted in (
        ("SELECT id FROM events", {}, ids(8) + [("marked",)]),
        ("SELECT id FROM events", {"as_of": "kept"}, ids(2)),
        ("SELECT id FROM events", {"as_of": "side"}, ids(3)),
        # A bookmark is of the table of now, whose snapshots of then are gone.
        ("SELECT id FROM events FOR BOOKMARK AS OF 'b-1'", {}, ids(3) + [("marked",)]),
    ):
        assert sorted(client.sql("a", sql, **more)) == sorted(wanted), (sql, more)
    assert sorted(admin.rows(f"SELECT id FROM {admin.table('a', 'events')}")) == sorted(ids(8) + [("marked",)])
    for job in ("compact", "expire", "orphans"):
        post(client, f"/admin/jobs/{job}?namespace=a")
    assert post(client, "/v1/a/audit/events")["agrees"]
    checked = post(client, "/admin/fsck?namespace=a")
    assert checked["whole"], checked


def test_a_writer_maintains_its_own_table_with_spark(guarded, spark_session):
    spark = SparkAs(spark_session, guarded, guarded.tokens["a"])
    client = Client(guarded.server.url, token=guarded.tokens["admin"])
    # There is no namespace before its first event.
    send_until_taken(client, lines(range(1)), Sent(), "a")
    own = spark.table("a", "own")
    spark.rows(f"CREATE TABLE {own} (n BIGINT) USING iceberg")
    for n in range(4):
        spark.rows(f"INSERT INTO {own} VALUES ({n}), ({n + 10})")
    spark.rows(f"ALTER TABLE {own} CREATE TAG kept")
    spark.rows(f"DELETE FROM {own} WHERE n = 12")
    for call in ("rewrite_data_files(table => 'a.own', options => map('min-input-files', '2'))", "rewrite_manifests(table => 'a.own', use_caching => false)"):
        spark.rows(f"CALL `{spark.catalog}`.system.{call}")
    spark.expire("a.own")
    assert len(spark.rows(f"SELECT snapshot_id FROM {own}.snapshots")) == 2
    left = leave_file(location_of(client, "a", "own"))
    assert any(path.endswith("left.parquet") for path in spark.remove_orphans("a.own")) and not left.exists()
    for job in ("orphans", "expire"):
        post(client, f"/admin/jobs/{job}?namespace=a")
    assert sorted(spark.rows(f"SELECT n FROM {own}")) == [(n,) for n in (0, 1, 2, 3, 10, 11, 13)]
    assert len(spark.rows(f"SELECT n FROM {own} VERSION AS OF 'kept'")) == 8
    spark.rows(f"INSERT INTO {own} VALUES (99)")
    assert post(client, "/admin/fsck?namespace=a")["whole"]
