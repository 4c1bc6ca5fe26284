"""Engines read merged files as the files before, at every snapshot; races of compaction with their writes lose and double nothing."""
import json
import re
import threading
from collections import Counter

import duckdb
import pyarrow
import pytest
from engines import DuckDB, PyIceberg, Spark
from proxy import Proxy, is_commit
from pyiceberg.exceptions import BadRequestError, CommitFailedException, ValidationException
from server import Server

TYPES = 3


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The job would be faster than a test now and then, and does nothing on a disk that is nearly full."""
    server = Server(tmp_path_factory.mktemp("icecore"), ["--set", "compaction.enabled=off", "--set", "wal.disk_free_min=0.001"])
    yield server.start()
    server.stop()


def send(client, namespace, numbers):
    events = [json.dumps({"id": f"e{n}", "type": f"t{n % TYPES}", "actor": f"a{n % 7}"}) for n in numbers]
    assert client.send(events, namespace)[0] == 200
    client.commit(namespace)


def compact(client, namespace):
    status, _, raw = client.request("POST", f"/admin/jobs/compact?namespace={namespace}", b"", {"content-type": "application/json"})
    assert status == 200, raw
    return json.loads(raw)


def audited(client, namespace):
    status, _, raw = client.request("POST", f"/v1/{namespace}/audit/events", b"", {"content-type": "application/json"})
    answer = json.loads(raw)
    assert status == 200 and answer["agrees"], raw
    return answer["tables"]["events"]


def fsck(client, namespace):
    status, _, raw = client.request("POST", f"/admin/fsck?namespace={namespace}", b"", {"content-type": "application/json"})
    assert status == 200, raw
    return json.loads(raw)


def ids(rows):
    return Counter(row[0] for row in rows)


def test_rows_of_other_engines_are_accounted_for(server):
    """What DuckDB deletes and PyIceberg adds and deletes is told apart from what the log brought, also after a compaction."""
    namespace, client = "accounted", server.client()
    send(client, namespace, range(60))
    acked = audited(client, namespace)["acked"]
    duck, lake = DuckDB(server.url + "/catalog"), PyIceberg(server.url + "/catalog")
    duck.rows(f"DELETE FROM {duck.table(namespace, 'events')} WHERE actor = 'a3'")
    gone = sum(n % 7 == 3 for n in range(60))
    found = audited(client, namespace)
    assert found["acked"] == acked and found["table"]["rows"] == 60 - gone and not found["begins"], found
    assert found["removed"]["rows"] - found["foreign"]["rows"] == gone, found

    table = lake.load(namespace, "events")
    table.append(table.scan(row_filter="id = 'e0'").to_arrow())
    found = audited(client, namespace)
    assert found["table"]["rows"] == 61 - gone and found["acked"] == acked, found
    send(client, namespace, range(60, 90))
    compact(client, namespace)
    found = audited(client, namespace)
    assert found["acked"]["rows"] == 90 and found["table"]["rows"] == 91 - gone and not found["begins"], found
    assert found["table"] == found["expected"], found


def test_engines_read_columns_of_json_paths(server):
    """Rows from before have a value in the column once their file is merged."""
    namespace, client = "promoted", server.client()

    def pay(numbers):
        events = [json.dumps({"id": f"e{n}", "type": "paid", "data": {"amount": n / 4, "by": {"id": f"u{n}"}}}) for n in numbers]
        assert client.send(events, namespace)[0] == 200
        client.commit(namespace)

    pay(range(20))
    duck, lake = DuckDB(server.url + "/catalog"), PyIceberg(server.url + "/catalog")
    with lake.load(namespace, "events").transaction() as change:
        change.set_properties({"icecore.promoted-paths": "data.amount:double,data.by.id:string"})
    pay(range(20, 40))
    asked = f"SELECT count(*), count(data__by__id), sum(data__amount) FROM {duck.table(namespace, 'events')}"
    assert [tuple(row) for row in duck.rows(asked)] == [(40, 20, sum(range(20, 40)) / 4)]
    compact(client, namespace)
    assert [tuple(row) for row in duck.rows(asked)] == [(40, 40, sum(range(40)) / 4)]
    found = lake.load(namespace, "events").scan(row_filter="data__amount >= 9.5", selected_fields=("data__by__id",)).to_arrow()
    assert sorted(found.column("data__by__id").to_pylist()) == ["u38", "u39"]
    assert fsck(client, namespace)["whole"]


def test_every_engine_reads_merged_files_and_old_snapshots(server, spark_session):
    namespace, client = "merged", server.client()
    for commit in range(14):
        send(client, namespace, range(commit * 30, commit * 30 + 30))
    duck, lake, spark = DuckDB(server.url + "/catalog"), PyIceberg(server.url + "/catalog"), Spark(spark_session, server.url + "/catalog")
    duck.rows(f"DELETE FROM {duck.table(namespace, 'events')} WHERE actor = 'a3'")
    wanted = Counter(f"e{n}" for n in range(420) if n % 7 != 3)
    old = lake.load(namespace, "events").metadata.snapshots
    before = {it.snapshot_id: ids(client.sql(namespace, "SELECT id FROM events", as_of=str(it.snapshot_id))) for it in old}

    report = compact(client, namespace)
    assert report["files"]["before"] == 14 * TYPES and report["files"]["after"] == TYPES, report
    assert report["rows"] == sum(wanted.values())
    table = lake.load(namespace, "events")
    assert len(table.inspect.files()) == TYPES, "the deletes are carried out"
    read = {
        "icecore": lambda: client.sql(namespace, "SELECT id FROM events"),
        "duckdb": lambda: DuckDB(server.url + "/catalog").rows(f"SELECT id FROM {duck.table(namespace, 'events')}"),
        "pyiceberg": lambda: [(id,) for id in table.scan(selected_fields=("id",)).to_arrow()["id"].to_pylist()],
        "spark": lambda: spark.rows(f"SELECT id FROM {spark.table(namespace, 'events')}"),
    }
    for engine, rows in read.items():
        assert ids(rows()) == wanted, engine
    for snapshot, rows in before.items():
        assert ids(client.sql(namespace, "SELECT id FROM events", as_of=str(snapshot))) == rows
        arrow = table.scan(snapshot_id=snapshot, selected_fields=("id",)).to_arrow()
        assert Counter(arrow["id"].to_pylist()) == rows, snapshot
    assert compact(client, namespace)["files"]["before"] == 0


def test_races_with_writes_of_engines_lose_and_double_nothing(server):
    namespace, client = "busy", server.client()
    expected, next_id, stop, reports, failures = Counter(), 0, threading.Event(), [], []

    def merge():
        own = server.client()
        try:
            while not stop.is_set():
                reports.append(compact(own, namespace))
        except Exception as error:
            failures.append(error)

    for commit in range(4):
        send(client, namespace, range(next_id, next_id + 12))
        expected.update(f"e{n}" for n in range(next_id, next_id + 12))
        next_id += 12
    merger = threading.Thread(target=merge)
    merger.start()
    duck, lake, lost = DuckDB(server.url + "/catalog"), PyIceberg(server.url + "/catalog"), 0
    made = 0
    try:
        for step in range(12):
            send(client, namespace, range(next_id, next_id + 12))
            expected.update(f"e{n}" for n in range(next_id, next_id + 12))
            next_id += 12
            victim = f"e{step * 5}"
            try:
                if step % 3:
                    duck.rows(f"DELETE FROM {duck.table(namespace, 'events')} WHERE id = '{victim}'")
                else:
                    table = lake.load(namespace, "events")
                    row = table.scan(row_filter=f"id = '{victim}'").to_arrow()
                    changed = row.set_column(row.schema.get_field_index("actor"), "actor", pyarrow.array(["new"] * len(row), pyarrow.string()))
                    table.overwrite(changed.cast(table.schema().as_arrow()), overwrite_filter=f"id = '{victim}'")
            except (duckdb.Error, CommitFailedException, ValidationException) as error:
                lost += 1
                assert not re.search(r"\b50[0-9]\b|internal server error", str(error), re.IGNORECASE), error
            else:
                made += 1
                if step % 3:
                    del expected[victim]
            assert ids(client.sql(namespace, "SELECT id FROM events")) == expected, step
    finally:
        stop.set()
        merger.join()
    assert not failures, failures
    assert made, f"{lost} of 12 writes lost their race, and none was made"
    assert any(report["files"]["before"] for report in reports)
    compact(client, namespace)
    assert ids(client.sql(namespace, "SELECT id FROM events")) == expected
    assert ids(DuckDB(server.url + "/catalog").rows(f"SELECT id FROM {duck.table(namespace, 'events')}")) == expected


def test_a_merged_file_is_not_added_again(server):
    namespace, client = "added", server.client()
    for commit in range(3):
        send(client, namespace, range(commit * 30, commit * 30 + 30))
    lake = PyIceberg(server.url + "/catalog")
    merged = lake.load(namespace, "events").inspect.files()["file_path"].to_pylist()
    assert compact(client, namespace)["files"]["before"] == 3 * TYPES
    table = lake.load(namespace, "events")
    with pytest.raises(BadRequestError, match="has a name that this server gives"):
        table.add_files(merged[:1])
    assert client.sql(namespace, "SELECT count(*) FROM events") == [(90,)]


class HeldCommits(Proxy):
    """Does something before it passes the next commit on, and keeps what the commits were answered."""

    def __init__(self, server_url: str):
        self.step, self.statuses = None, []
        super().__init__(server_url)

    def answer(self, method, path, body, forward):
        if not is_commit(method, path):
            return forward()
        step, self.step = self.step, None
        if step:
            step()
        status, headers, content = forward()
        self.statuses.append(status)
        return status, headers, content


class Compacted:
    """A namespace with small files of each type, and what its rows should be."""

    def __init__(self, server, namespace):
        self.server, self.namespace, self.client, self.actors = server, namespace, server.client(), {}
        self.next = 0
        self.grow(3)

    def grow(self, commits=1):
        for _ in range(commits):
            send(self.client, self.namespace, range(self.next, self.next + 30))
            self.actors |= {f"e{n}": f"a{n % 7}" for n in range(self.next, self.next + 30)}
            self.next += 30

    def compact(self):
        """Each type has small files, and gets one."""
        report = compact(self.client, self.namespace)
        assert report["files"]["before"] > report["files"]["after"] == TYPES, report

    def replaced(self, id, actor):
        table = PyIceberg(self.server.url + "/catalog").load(self.namespace, "events")
        row = table.scan(row_filter=f"id = '{id}'").to_arrow()
        at = row.schema.get_field_index("actor")
        return row.set_column(at, row.schema.field(at), pyarrow.array([actor], row.schema.field(at).type))

    def files(self):
        """How many data files there are."""
        files = PyIceberg(self.server.url + "/catalog").load(self.namespace, "events").inspect.files()
        return sum(content == 0 for content in files["content"].to_pylist())

    def check(self, merged):
        """Every engine has the rows, and so it has after compaction has merged at least so many files anew."""
        for least in (merged, 0):
            uri = self.server.url + "/catalog"
            table = PyIceberg(uri).load(self.namespace, "events").scan(selected_fields=("id", "actor")).to_arrow()
            duck = DuckDB(uri)
            read = {
                "icecore": self.client.sql(self.namespace, "SELECT id, actor FROM events"),
                "duckdb": duck.rows(f"SELECT id, actor FROM {duck.table(self.namespace, 'events')}"),
                "pyiceberg": list(zip(table["id"].to_pylist(), table["actor"].to_pylist())),
            }
            for engine, rows in read.items():
                assert sorted(rows) == sorted(self.actors.items()), engine
            assert least <= compact(self.client, self.namespace)["files"]["before"]

    def before_head(self):
        """What compaction did in the snapshot before the newest."""
        table = PyIceberg(self.server.url + "/catalog").load(self.namespace, "events")
        before = table.snapshot_by_id(table.current_snapshot().parent_snapshot_id)
        # Nobody takes the rows of such a snapshot for another engine's, nor its files for new ones.
        sums = [table.snapshot_by_id(id).summary.additional_properties["icecore.rows-sum"] for id in (before.parent_snapshot_id, before.snapshot_id)]
        assert sums[0] == sums[1]
        audited(self.client, self.namespace)
        checked = fsck(self.client, self.namespace)
        assert checked["whole"], checked
        # Clients leave out some of what they add, DuckDB the bytes of its files: the totals count it.
        told = [(note.get("snapshot"), note["what"]) for of in checked["tables"] for note in of["notes"]]
        head = table.current_snapshot().snapshot_id
        assert not [what for at, what in told if at == before.snapshot_id or (at == head and "`total-" in what)], checked
        return before.summary.additional_properties.get("icecore.compaction")


def test_a_delete_of_duckdb_that_began_before_a_compaction_is_made(server):
    table = Compacted(server, "late_duck")
    duck = DuckDB(server.url + "/catalog")
    name = duck.table(table.namespace, "events")
    duck.rows("BEGIN")
    duck.rows(f"DELETE FROM {name} WHERE id = 'e3'")
    table.compact()
    duck.rows("COMMIT")
    assert table.before_head() == "taken-back"
    del table.actors["e3"]
    # Only the files of its type are as they were.
    assert table.files() == TYPES - 1 + 3
    table.check(3)
    duck = DuckDB(server.url + "/catalog")
    table.grow(3)
    duck.rows("BEGIN")
    duck.rows(f"UPDATE {name} SET actor = 'new' WHERE id = 'e4'")
    table.compact()
    table.grow()
    duck.rows("COMMIT")
    assert table.before_head() == "taken-back"
    table.actors["e4"] = "new"
    table.check(4)


def test_deletes_of_duckdb_that_began_before_an_erasure(server):
    table = Compacted(server, "late_erased")
    ducks = [DuckDB(server.url + "/catalog") for _ in range(2)]
    name = ducks[0].table(table.namespace, "events")
    # Of the same file as the one that is erased, and of another type.
    for duck, victim in zip(ducks, ("e6", "e4")):
        duck.rows("BEGIN")
        duck.rows(f"DELETE FROM {name} WHERE id = '{victim}'")
    path, headers = f"/v1/{table.namespace}/erase", {"content-type": "application/json"}
    status, _, raw = table.client.request("POST", path, json.dumps({"subject": {"id": "e3"}}).encode(), headers)
    assert status == 202, raw
    begun = json.loads(raw)["erasure"]
    while (report := json.loads(table.client.request("GET", f"{path}/{begun}")[2])).get("waits") is None:
        assert report["status"] in ("log", "count", "rewrite", "history") and not report.get("error"), report
    assert report["status"] == "history", report
    with pytest.raises(duckdb.Error, match="parquet. was removed or rewritten since"):
        ducks[0].rows("COMMIT")
    # What nobody touched is deleted from all the same: the snapshot that it began with is still there.
    ducks[1].rows("COMMIT")
    for gone in ("e3", "e4"):
        del table.actors[gone]
    read = table.client.sql(table.namespace, "SELECT id, actor FROM events")
    assert sorted(read) == sorted(table.actors.items())


def test_writes_of_pyiceberg_that_began_before_a_compaction_are_made(server):
    table = Compacted(server, "late_pyiceberg")
    lake = PyIceberg(server.url + "/catalog")
    transaction = lake.load(table.namespace, "events").transaction()
    transaction.delete("id == 'e3'")
    table.compact()
    table.grow()
    transaction.commit_transaction()
    assert table.before_head() == "taken-back"
    del table.actors["e3"]
    table.check(3)
    table.grow(3)
    transaction = lake.load(table.namespace, "events").transaction()
    transaction.overwrite(table.replaced("e100", "new"), "id == 'e100'")
    merged = compact(table.client, table.namespace)["files"]
    assert merged["before"] > merged["after"]
    transaction.commit_transaction()
    table.actors["e100"] = "new"
    table.check(2)


def test_a_write_that_deletes_from_what_another_changed_since_is_still_refused(server):
    table = Compacted(server, "late_twice")
    lake = PyIceberg(server.url + "/catalog")
    transactions = [lake.load(table.namespace, "events").transaction() for _ in range(2)]
    for transaction, id in zip(transactions, ("e3", "e6")):
        transaction.delete(f"id == '{id}'")
    table.compact()
    transactions[0].commit_transaction()
    del table.actors["e3"]
    with pytest.raises((CommitFailedException, ValidationException)):
        transactions[1].commit_transaction()
    table.check(3)


@pytest.mark.parametrize("mode", ["copy-on-write", "merge-on-read"])
def test_a_merge_of_spark_whose_commit_comes_after_a_compaction_is_made(server, spark_session, mode):
    table = Compacted(server, "late_spark_" + mode.replace("-", "_"))
    proxy = HeldCommits(server.url)
    try:
        spark = Spark(spark_session, proxy.url + "/catalog")
        name = spark.table(table.namespace, "events")
        spark.rows(f"ALTER TABLE {name} SET TBLPROPERTIES ('write.merge.mode'='{mode}')")
        proxy.statuses.clear()
        proxy.step = table.compact
        spark.rows(f"MERGE INTO {name} t USING (SELECT 'e3' AS id, 'new' AS actor) s ON t.id = s.id "
                   "WHEN MATCHED THEN UPDATE SET t.actor = s.actor")
        assert proxy.statuses == [200]
    finally:
        proxy.close()
    assert table.before_head() == "taken-back"
    table.actors["e3"] = "new"
    table.check(3)
