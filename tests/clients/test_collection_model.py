"""Documents are those of a model in memory, at any event, over every way to read them and in every engine; and so they stay whatever maintenance does.

A random history of two collections in three namespaces goes over HTTP in rounds. After each round the tables `cdc_…` are refreshed and tagged. Then the API,
/sql and restores are compared at random points, and the engines at tags and snapshots; once more after compaction, expiry and an erasure, on a clock that
is set ahead. Branches begin at random events, are written, read, and merged into one another and into `main`. In the end collections are put back to random
points, one after the other. `LARGE=1` has 10 000 changes, 200 points and as many restores, with Spark.
"""
import json
import os
import random
import time
from datetime import datetime, timedelta, timezone
from urllib.parse import quote

import polars
import pytest
from clock_ahead import clock_ahead
from collection_model import END, Change, History, Model, merge_of, restore_counts
from engines import ClickHouse, Daft, DuckDB, PyIceberg, Spark
from icecore import Client, catalog_name
from server import Server

LARGE = os.environ.get("LARGE") == "1"
CHANGES, ROUNDS, POINTS, POINTS_LATER, INTO = (10_000, 4, 200, 60, 20) if LARGE else (2_000, 2, 22, 4, 2)
# Pairs of branches, of which one is merged into the other, each with a branch that is merged into `main`.
PAIRS = 10 if LARGE else 2
# Restores in place, at the end.
RESTORES = 200 if LARGE else 12
KEYS, DAYS_AHEAD = 40, 40
# Longest wait for an erasure, in seconds; what it takes is no matter here.
PATIENCE = 600
NAMESPACES, COLLECTIONS = ["model-a", "model.b", "model_c"], ["users", "orders"]
COLUMNS = ["key", "doc", "version", "seq"]
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# Nothing goes or is merged by itself. A snapshot without a tag goes after a day, once others came.
SETTINGS = ["compaction.enabled=off", "compaction.day_cron=", "retention.cron=", "expire.cron=", "orphans.cron="]


def call(client: Client, method: str, path: str, body=None) -> bytes:
    raw = b"" if body is None else json.dumps(body).encode()
    status, _, answer = client.request(method, path, raw, {"content-type": "application/json"})
    assert status in (200, 201, 202), (method, path, body, status, answer[:2000])
    return answer


def rfc3339(us: int) -> str:
    return (EPOCH + timedelta(microseconds=us)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def rows_of_model(model: Model, collection: str, seq: int) -> list[tuple]:
    return sorted((key, document.text, document.version, document.seq) for key, document in model.at(collection, seq).items())


def things_of_model(model: Model, collection: str, seq: int) -> list[tuple]:
    """The versions up to an event: what events have whole, also where a snapshot read an older one again, and what patches made."""
    known, rows = model.versions.get(collection, {}), []
    made = {at: document.text for versions in known.values() for at, document in versions if document is not None}
    for at, change in model.changes:
        if at <= seq and change.collection == collection and change.key in known:
            text = made.get(at) if change.after is None else change.after
            if text is not None:
                rows.append((at, change.key, text))
    return rows


class Refreshed:
    """A state of a collection's table: its snapshot, its tag, and the last event that it has."""

    def __init__(self, namespace: str, collection: str, snapshot: int, tag: str, seq: int):
        self.namespace, self.collection, self.snapshot, self.tag, self.seq = namespace, collection, snapshot, tag, seq


class World:
    """A server with the history, and the model beside it."""

    def __init__(self, server: Server, seed: int):
        self.server, self.random = server, random.Random(seed)
        self.models = {namespace: Model() for namespace in NAMESPACES}
        self.history = History(seed, NAMESPACES, COLLECTIONS, KEYS, int(time.time() * 1000) - 3_600_000)
        self.refreshed: list[Refreshed] = []
        # When each event was acknowledged, in microseconds.
        self.acknowledged: dict[str, dict[int, int]] = {}
        self.is_ahead = False

    def restart_ahead(self, folder, hours: int) -> None:
        """Goes on with a clock that is so far ahead of everybody else's."""
        self.server.stop()
        self.server.start(clock_ahead(folder, hours))
        self.is_ahead = True

    @property
    def client(self) -> Client:
        return self.server.client()

    def send(self, changes: int) -> None:
        client, before = self.client, self.history.count
        while self.history.count - before < changes:
            batch = self.history.batch(self.random.choice([1, 3, 20, 60]))
            namespace, lines = batch[0].namespace, [change.line() for change in batch]
            status, reply = client.send(lines, namespace)
            assert (status, reply["duplicates"]) == (200, 0), reply
            first, last = reply["seq"]["first"], reply["seq"]["last"]
            assert last - first + 1 == len(batch), reply
            for seq, change in zip(range(first, last + 1), batch):
                self.models[namespace].apply(seq, change)
            if self.random.random() < 0.1:
                # A client that got no answer sends it again.
                status, reply = client.send(lines, namespace)
                assert (status, reply["duplicates"]) == (200, len(batch)), reply
            if self.random.random() < 0.1:
                client.commit(namespace)

    def refresh(self, tag: str) -> None:
        """Has all tables follow their events, and tags them."""
        for namespace in NAMESPACES:
            for collection in COLLECTIONS:
                done = json.loads(call(self.client, "POST", f"/v1/{namespace}/collections/{collection}/refresh"))
                wanted = self.models[namespace].at(collection, done["applied_seq"])
                assert done["documents"] == len(wanted), (namespace, collection, done)
                call(self.client, "POST", f"/v1/{namespace}/tables/cdc_{collection}/refs", {"name": tag, "type": "tag"})
                self.refreshed.append(Refreshed(namespace, collection, int(done["snapshot"]), tag, done["applied_seq"]))

    def read_times(self) -> None:
        for namespace in NAMESPACES:
            rows = self.client.sql(namespace, "SELECT seq, CAST(ingested_at AS bigint) FROM events ORDER BY seq", limit=10 * CHANGES)
            self.acknowledged[namespace] = dict(rows)
            assert [seq for seq, _ in self.models[namespace].changes] == [seq for seq in self.acknowledged[namespace]]

    def wanted(self, namespace: str, collection: str, seq: int) -> list[tuple]:
        return rows_of_model(self.models[namespace], collection, seq)

    def seq_with_documents(self, namespace: str, collection: str) -> int:
        """A random event after which the collection has documents: SQL does not know a collection that never had one."""
        model = self.models[namespace]
        return next(seq for seq in iter(lambda: self.random.choice(model.changes)[0], None) if model.at(collection, seq))

    def point(self, namespace: str) -> tuple[str, str, int]:
        """A random point as the API writes it, the parameters that it needs, and its `seq` by the model."""
        model = self.models[namespace]
        seq, change = self.random.choice(model.changes)
        kind = self.random.choice(["seq", "bookmark", "commit", "event"])
        if kind == "bookmark":
            marked = [(seq, change.bookmark) for seq, change in model.changes if change.bookmark]
            if marked:
                seq, bookmark = self.random.choice(marked)
                return f"bookmark:{bookmark}", "", seq
        if kind == "commit":
            us = self.acknowledged[namespace][seq] + self.random.choice([0, 1])
            last = max(seq for seq, at in self.acknowledged[namespace].items() if at <= us)
            return f"time:{rfc3339(us)}", "", last
        if kind == "event":
            return f"time:{rfc3339(change.ts_ms * 1000)}", "&basis=event", model.seq_at_event_time(change.ts_ms)
        return f"seq:{seq}", "", seq


class Branch:
    """A branch of a namespace that begins at an event of `main`, and the model beside it."""

    def __init__(self, world: World, namespace: str, name: str, fork: int):
        self.world, self.client, self.namespace, self.name, self.fork = world, world.client, namespace, name, fork
        self.model = Model()
        for seq, change in world.models[namespace].changes:
            if seq <= fork:
                self.model.apply(seq, change)
        made = json.loads(call(self.client, "POST", f"/v1/{namespace}/branches", {"name": name, "at": f"seq:{fork}"}))
        assert (made["fork_seq"], made["head_seq"]) == (fork, fork), made

    def send(self, changes: int) -> None:
        batch = []
        while len(batch) < changes:
            batch += self.world.history.step(self.namespace)
        status, reply = self.client.send([change.line() for change in batch], self.namespace, f"?branch={self.name}")
        assert (status, reply["duplicates"]) == (200, 0), reply
        for seq, change in enumerate(batch, reply["seq"]["first"]):
            self.model.apply(seq, change)
        assert reply["seq"]["last"] == self.model.last_seq(), reply

    def seq_with_documents(self, collection: str) -> int:
        seqs = [seq for seq, _ in self.model.changes if self.model.at(collection, seq)]
        return self.world.random.choice(seqs)

    def drop(self) -> None:
        call(self.client, "DELETE", f"/v1/{self.namespace}/branches/{self.name}")


class Ways:
    """Every way of the server's own to read documents at a point."""

    def __init__(self, world: World):
        self.world, self.client = world, world.client

    def check(self, namespace: str, collection: str, point: str, parameters: str, seq: int) -> None:
        wanted = self.world.wanted(namespace, collection, seq)
        place = (namespace, collection, point, seq)
        listed, raw = self.listed(namespace, collection, point, parameters)
        assert [(entry["key"], entry["version"], entry["seq"]) for entry in listed] == [(key, version, at) for key, _, version, at in wanted], place
        assert all(f'"doc":{text}' in raw for _, text, _, _ in wanted), place
        sql = f"SELECT {', '.join(COLUMNS)} FROM cdc_{collection} FOR SEQ AS OF {seq}"
        assert sorted(self.client.sql(namespace, sql)) == wanted, place
        self.things(self.world.models[namespace], namespace, collection, seq, "")
        # A restore knows times of commits alone. It asks for two states and counts them, which is most of the time here.
        if not parameters and (LARGE or self.world.random.random() < 0.4):
            self.dry_run(namespace, collection, point, {key: text for key, text, _, _ in wanted})

    def check_branch(self, branch: Branch, collection: str, seq: int) -> None:
        wanted = rows_of_model(branch.model, collection, seq)
        place = (branch.namespace, collection, branch.name, branch.fork, seq)
        listed, raw = self.listed(branch.namespace, collection, f"seq:{seq}", "", f"&branch={branch.name}")
        assert [(entry["key"], entry["version"], entry["seq"]) for entry in listed] == [(key, version, at) for key, _, version, at in wanted], place
        assert all(f'"doc":{text}' in raw for _, text, _, _ in wanted), place
        sql = f"SELECT {', '.join(COLUMNS)} FROM cdc_{collection} FOR SEQ AS OF {seq} OF BRANCH '{branch.name}'"
        assert sorted(self.client.sql(branch.namespace, sql)) == wanted, place
        self.things(branch.model, branch.namespace, collection, seq, f" OF BRANCH '{branch.name}'")

    def things(self, model: Model, namespace: str, collection: str, seq: int, branch: str) -> None:
        sql = f"SELECT rowid, id, data FROM things FOR SEQ AS OF {seq}{branch} WHERE collection = '{collection}' AND data IS NOT NULL ORDER BY rowid"
        assert self.client.sql(namespace, sql, limit=10 * CHANGES) == things_of_model(model, collection, seq), (namespace, collection, seq, branch)

    def merge(self, trial: Branch, staging: Branch, policy: str) -> None:
        """What a branch changed since the last event in common comes to another one, member by member."""
        common = min(trial.fork, staging.fork)
        wanted, conflicting = merge_of(COLLECTIONS, (trial.model, common), trial.model, staging.model, policy)
        path = f"/v1/{trial.namespace}/branches/{trial.name}/merge"
        report = json.loads(call(self.client, "POST", path, {"into": staging.name, "policy": policy}))
        place = (trial.namespace, trial.name, trial.fork, staging.fork, policy, report)
        assert (report["conflicting"], report["into_common_seq"]) == (conflicting, common), place
        head = json.loads(call(self.client, "GET", f"/v1/{staging.namespace}/branches/{staging.name}"))["head_seq"]
        for collection in COLLECTIONS:
            listed, _ = self.listed(staging.namespace, collection, f"seq:{head}", "", f"&branch={staging.name}")
            assert {entry["key"]: entry["doc"] for entry in listed} == wanted[collection], place

    def merge_into_main(self, trial: Branch, policy: str) -> None:
        """What a branch changed comes to `main`, by events that are part of the history from then on."""
        namespace, model = trial.namespace, self.world.models[trial.namespace]
        wanted, conflicting = merge_of(COLLECTIONS, (trial.model, trial.fork), trial.model, model, policy)
        report = json.loads(call(self.client, "POST", f"/v1/{namespace}/branches/{trial.name}/merge", {"policy": policy}))
        place = (namespace, trial.name, trial.fork, policy, report)
        assert report["conflicting"] == conflicting, place
        if report.get("seq"):
            first, last = report["seq"]["first"], report["seq"]["last"]
            sql = ("SELECT seq, op, collection, key, after, CAST(ts AS bigint), CAST(ingested_at AS bigint) FROM events "
                   f"WHERE seq BETWEEN {first} AND {last} AND op IS NOT NULL ORDER BY seq")
            for seq, op, collection, key, after, ts, at in self.client.sql(namespace, sql, limit=10 * CHANGES):
                # Its time has microseconds. The model's whole millisecond behind it is before whatever comes later.
                model.apply(seq, Change(namespace, collection, op, key, ts // 1000 + 1, f"merge-{seq}", after=after))
                self.world.acknowledged[namespace][seq] = at
        for collection in COLLECTIONS:
            now = {key: text for key, text, _, _ in self.world.wanted(namespace, collection, END)}
            assert {key: json.loads(text) for key, text in now.items()} == wanted[collection], place
            self.check_documents(namespace, collection, now)

    def check_documents(self, namespace: str, collection: str, wanted: dict) -> None:
        """What a collection has now, by keys and texts."""
        assert sorted(self.client.sql(namespace, f"SELECT key, doc FROM cdc_{collection}")) == sorted(wanted.items()), (namespace, collection)

    def restore(self, namespace: str, collection: str, point: str, seq: int, now: dict) -> dict:
        """Puts a collection back in place, and now and then undoes that; gives the documents behind it. `now` are those before."""
        past = {key: text for key, text, _, _ in self.world.wanted(namespace, collection, seq)}
        path = f"/v1/{namespace}/collections/{collection}/restore"
        report = json.loads(call(self.client, "POST", path, {"at": point}))
        wanted = restore_counts(past, now)
        assert {name: report[name] for name in wanted} == wanted, (namespace, collection, point)
        self.check_documents(namespace, collection, past)
        if self.world.random.random() < 0.7:
            return past
        call(self.client, "POST", path, {"at": f"bookmark:{report['undo_bookmark']}"})
        self.check_documents(namespace, collection, now)
        return now

    def listed(self, namespace: str, collection: str, point: str, parameters: str, branch: str = "") -> tuple[list, str]:
        entries, text, after, at = [], "", "", point
        while True:
            page = f"/v1/{namespace}/collections/{collection}/docs?at={quote(at, safe='')}{parameters}{branch}&limit=30{after}"
            raw = call(self.client, "GET", page).decode()
            answer = json.loads(raw)
            entries, text = entries + answer["docs"], text + raw
            if answer.get("next") is None:
                return entries, text
            at, parameters, after = f"seq:{answer['basis']['seq']}", "", f"&after={quote(answer['next'], safe='')}"

    def dry_run(self, namespace: str, collection: str, point: str, past: dict) -> None:
        body = {"at": point, "dry_run": True}
        report = json.loads(call(self.client, "POST", f"/v1/{namespace}/collections/{collection}/restore", body))
        now = {key: text for key, text, _, _ in self.world.wanted(namespace, collection, END)}
        wanted = restore_counts(past, now)
        assert {name: report[name] for name in wanted} == wanted, (namespace, collection, point)

    def into(self, namespace: str, collection: str, seq: int) -> None:
        """A restore into a collection that there was not has the same documents."""
        other = f"{collection}_at_{seq}_"
        report = json.loads(call(self.client, "POST", f"/v1/{namespace}/collections/{collection}/restore", {"at": f"seq:{seq}", "into": other}))
        past = [(key, text) for key, text, _, _ in self.world.wanted(namespace, collection, seq)]
        assert report["inserted"] == len(past), report
        assert sorted(self.client.sql(namespace, f"SELECT key, doc FROM cdc_{other}")) == past, (namespace, collection, seq)


class Engines:
    """Other engines on the tables of collections."""

    def __init__(self, world: World, clickhouse, spark):
        uri = world.server.url + "/catalog"
        self.world, self.duck, self.lake = world, DuckDB(uri), PyIceberg(uri)
        self.house, self.daft, self.spark = ClickHouse(clickhouse, uri), Daft(), spark and Spark(spark, uri)

    def check(self, at: Refreshed) -> None:
        namespace, name = catalog_name(at.namespace), f"cdc_{at.collection}"
        wanted = self.world.wanted(at.namespace, at.collection, at.seq)
        table = self.lake.load(namespace, name)
        assert table.refs()[at.tag].snapshot_id == at.snapshot
        assert table.snapshot_by_id(at.snapshot).summary["icecore.applied-seq"] == str(at.seq)
        columns = ", ".join(COLUMNS)
        read = {
            "duckdb": lambda: self.duck.rows(f"SELECT {columns} FROM {self.duck.table(namespace, name)} AT (VERSION => {at.snapshot})"),
            "pyiceberg": lambda: rows_of(table.scan(snapshot_id=at.snapshot, selected_fields=tuple(COLUMNS)).to_arrow()),
            "polars": lambda: polars.scan_iceberg(table, snapshot_id=at.snapshot).select(COLUMNS).collect().rows(),
            "clickhouse": lambda: self.clickhouse(namespace, name, f" SETTINGS iceberg_snapshot_id = {at.snapshot}"),
            "daft": lambda: self.daft.rows(table, COLUMNS, at.snapshot),
        }
        if self.spark is not None:
            read["spark"] = lambda: self.spark.rows(f"SELECT {columns} FROM {self.spark.table(namespace, name)} VERSION AS OF '{at.tag}'")
        for engine, rows in read.items():
            assert sorted(rows()) == wanted, (engine, at.namespace, at.collection, at.tag)

    def check_head(self, namespace: str, collection: str, seq: int) -> None:
        """What the table has now."""
        wanted = self.world.wanted(namespace, collection, seq)
        for engine, rows in self.head(namespace, collection).items():
            assert sorted(rows()) == wanted, (engine, namespace, collection)

    def check_documents(self, namespace: str, collection: str, wanted: dict) -> None:
        """The same by keys and texts alone."""
        for engine, rows in self.head(namespace, collection).items():
            assert sorted(row[:2] for row in rows()) == sorted(wanted.items()), (engine, namespace, collection)

    def head(self, namespace: str, collection: str) -> dict:
        """How each engine reads the table as it is now."""
        place = (catalog_name(namespace), f"cdc_{collection}")
        table = self.lake.load(*place)
        read = {
            "pyiceberg": lambda: rows_of(table.scan(selected_fields=tuple(COLUMNS)).to_arrow()),
            "polars": lambda: polars.scan_iceberg(table).select(COLUMNS).collect().rows(),
            "clickhouse": lambda: self.clickhouse(*place),
            "daft": lambda: self.daft.rows(table, COLUMNS),
        }
        if self.spark is not None:
            read["spark"] = lambda: self.spark.rows(f"SELECT {', '.join(COLUMNS)} FROM {self.spark.table(*place)}")
        # It sees no snapshot that is later than its own time.
        if not self.world.is_ahead:
            read["duckdb"] = lambda: self.duck.rows(f"SELECT {', '.join(COLUMNS)} FROM {self.duck.table(*place)}")
        return read

    def clickhouse(self, namespace: str, name: str, settings: str = "") -> list[tuple]:
        sql = f"SELECT {', '.join(COLUMNS)} FROM {self.house.table(namespace, name)}{settings}"
        lines = str(self.house.session.query(sql, "JSONCompactEachRow")).split("\n")
        rows = [json.loads(line) for line in lines if line]
        return [(key, doc, int(version), int(seq)) for key, doc, version, seq in rows]


def rows_of(arrow) -> list[tuple]:
    return [tuple(row[name] for name in COLUMNS) for row in arrow.to_pylist()]


def job(client: Client, name: str, namespace: str) -> None:
    done = json.loads(call(client, "POST", f"/admin/jobs/{name}?namespace={namespace}"))
    assert not done.get("errors"), done


def erase(client: Client, namespace: str, collection: str, key: str) -> None:
    """Returns once no row is there any more; files wait for their time."""
    begun = json.loads(call(client, "POST", f"/v1/{namespace}/erase", {"subject": {"key": key, "collection": collection}}))
    deadline = time.monotonic() + PATIENCE
    while (report := json.loads(call(client, "GET", f"/v1/{namespace}/erase/{begun['erasure']}")))["status"] not in ("files", "proof", "done"):
        assert report["status"] != "failed" and time.monotonic() < deadline, report
        time.sleep(0.1)


@pytest.fixture(scope="module")
def world(tmp_path_factory, request):
    server = Server(tmp_path_factory.mktemp("icecore"), [part for setting in SETTINGS for part in ("--set", setting)])
    server.start()
    try:
        world = World(server, request.config.getoption("--seed"))
        for number in range(ROUNDS):
            world.send(CHANGES // ROUNDS)
            world.refresh(f"round-{number}")
        # What came last is in no table of a collection.
        world.send(CHANGES // 20)
        world.read_times()
        yield world
    finally:
        server.stop()


def check_points(world: World, count: int) -> None:
    ways = Ways(world)
    for _ in range(count):
        namespace, collection = world.random.choice(NAMESPACES), world.random.choice(COLLECTIONS)
        ways.check(namespace, collection, *world.point(namespace))


@pytest.fixture(scope="module")
def engines(world, clickhouse_session, request):
    # It opens local files below the current folder only.
    before = os.getcwd()
    os.chdir("/")
    spark = request.getfixturevalue("spark_session") if LARGE else None
    yield lambda: Engines(world, clickhouse_session, spark)
    os.chdir(before)


def test_documents_are_those_of_the_model_at_any_point(world):
    check_points(world, POINTS)
    ways = Ways(world)
    for _ in range(INTO):
        namespace, collection = world.random.choice(NAMESPACES), world.random.choice(COLLECTIONS)
        ways.into(namespace, collection, world.seq_with_documents(namespace, collection))


def test_branches_are_read_and_merged_as_the_model_says(world):
    ways = Ways(world)
    for number in range(PAIRS):
        namespace = world.random.choice(NAMESPACES)
        # By then each collection had documents: one that never had any is unknown to a branch.
        changes = world.models[namespace].changes[40:]
        forks = [world.random.choice(changes)[0] for _ in range(2)]
        trial, staging = (Branch(world, namespace, f"{name}-{number}", fork) for name, fork in zip(("trial", "staging"), forks))
        for branch in (trial, staging, trial):
            branch.send(world.random.choice([3, 20, 60]))
        for branch in (trial, staging):
            for collection in COLLECTIONS:
                ways.check_branch(branch, collection, branch.seq_with_documents(collection))
        ways.merge(trial, staging, world.random.choice(["ours", "theirs"]))
        home = Branch(world, namespace, f"home-{number}", world.random.choice(changes)[0])
        home.send(world.random.choice([3, 20, 60]))
        ways.merge_into_main(home, world.random.choice(["ours", "theirs"]))
        # What follows is about `main` alone.
        for branch in (trial, staging, home):
            branch.drop()


def test_every_engine_reads_the_documents_at_tags_and_snapshots(world, engines):
    read = engines()
    for at in world.refreshed:
        read.check(at)
    for at in world.refreshed[-len(NAMESPACES) * len(COLLECTIONS):]:
        read.check_head(at.namespace, at.collection, at.seq)


def test_documents_stay_when_files_are_merged_and_snapshots_go(world, engines, tmp_path_factory):
    """On a clock that is ahead; the folders of before are read by engines that begin anew."""
    world.restart_ahead(tmp_path_factory.mktemp("clock"), DAYS_AHEAD * 24)
    client = world.client
    for namespace in NAMESPACES:
        client.commit(namespace)
        for name in ("compact", "expire", "orphans"):
            job(client, name, namespace)
    check_points(world, POINTS_LATER)
    read = engines()
    for at in world.refreshed[::3]:
        read.check(at)
    checked = json.loads(call(client, "POST", "/admin/fsck", {}))
    assert checked["whole"], checked


def test_an_erased_document_was_never_there(world, engines, tmp_path_factory):
    # An erasure waits for what the engines loaded before, which stays an hour for them.
    world.restart_ahead(tmp_path_factory.mktemp("clock"), DAYS_AHEAD * 24 + 3)
    client, namespace, collection = world.client, NAMESPACES[0], COLLECTIONS[0]
    model = world.models[namespace]
    key = next(iter(model.at(collection, model.last_seq()) or model.versions[collection]))
    model.erase(collection, key)
    erase(client, namespace, collection, key)
    done = json.loads(call(client, "POST", f"/v1/{namespace}/collections/{collection}/refresh"))
    assert done["documents"] == len(world.wanted(namespace, collection, END)), done
    ways = Ways(world)
    for _ in range(POINTS_LATER):
        seq = world.random.choice(model.changes)[0]
        ways.check(namespace, collection, f"seq:{seq}", "", seq)
    read = engines()
    read.check_head(namespace, collection, END)
    # Tags of the others have what they had.
    for at in [at for at in world.refreshed if at.namespace != namespace][1::3]:
        read.check(at)


def test_a_collection_is_put_back_to_any_point(world, engines):
    """Restores in place, one after the other: from here on `main` is not what the model has at its end."""
    ways, now = Ways(world), {}
    for _ in range(RESTORES):
        namespace, collection = world.random.choice(NAMESPACES), world.random.choice(COLLECTIONS)
        point, parameters, seq = world.point(namespace)
        # A restore knows times of commits alone, and the events of an erased document are no points but by their `seq`.
        if parameters or namespace == NAMESPACES[0]:
            point = f"seq:{seq}"
        place = (namespace, collection)
        before = now.get(place)
        if before is None:
            before = {key: text for key, text, _, _ in world.wanted(namespace, collection, END)}
        now[place] = ways.restore(namespace, collection, point, seq, before)
    read = engines()
    for (namespace, collection), documents in now.items():
        done = json.loads(call(world.client, "POST", f"/v1/{namespace}/collections/{collection}/refresh"))
        assert done["documents"] == len(documents), (namespace, collection, done)
        read.check_documents(namespace, collection, documents)
