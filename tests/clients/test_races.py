"""Engines that write to `events` between one another's read and commit: no deleted row comes back, and none is lost or there twice."""
import json
import re
import threading

import duckdb
import pyarrow
import pytest
from engines import DuckDB, PyIceberg, Spark
from proxy import Proxy, is_commit
from pyiceberg.exceptions import CommitFailedException, ValidationException

NAMESPACE = "races"
ROWS = 6
SPARK_ROUNDS = 2


class HoldingProxy(Proxy):
    """Holds each of the next commits until what it has to wait for is done, and keeps what was asked and answered."""

    def __init__(self, server_url: str):
        self.steps, self.commits, self.failures = [], [], []
        super().__init__(server_url)

    def hold(self, steps) -> None:
        self.steps, self.commits, self.failures = list(steps), [], []

    def answer(self, method, path, body, forward):
        if not is_commit(method, path):
            return forward()
        if self.steps:
            try:
                self.steps.pop(0)()
            except BaseException as failure:  # This thread is not the test's.
                self.failures.append(failure)
        status, headers, content = forward()
        self.commits.append((json.loads(body), status, json.loads(content)))
        return status, headers, content


class Race:
    """The table, what it should hold, and the engines. Each step acts on ids of the newest files."""

    def __init__(self, server, spark_session):
        self.server, self.client = server, server.client()
        self.lake = PyIceberg(server.url + "/catalog")
        self.ducks = [DuckDB(server.url + "/catalog") for _ in range(2)]
        self.spark = Spark(spark_session, server.url + "/catalog")
        self.proxy = HoldingProxy(server.url)
        self.late_spark = Spark(spark_session, self.proxy.url + "/catalog")
        self.expected, self.next, self.lost = {}, 0, 0
        self.grow()
        # The steps make the races, not our own compaction between them.
        self.spark.rows(f"ALTER TABLE {self.spark_table} SET TBLPROPERTIES ('write.delete.mode'='merge-on-read','write.update.mode'='merge-on-read','icecore.compaction'='off')")

    @property
    def spark_table(self):
        return self.spark.table(NAMESPACE, "events")

    def grow(self):
        """Some events as one file; gives their ids."""
        ids = [f"e{n:04}" for n in range(self.next, self.next + ROWS)]
        self.next += ROWS
        assert self.client.send([json.dumps({"id": id, "type": "a"}) for id in ids], NAMESPACE)[0] == 200
        self.client.commit(NAMESPACE)
        self.expected |= {id: None for id in ids}
        return ids

    def done(self, id, actor=None):
        """What a step does to its row, if that is still there."""
        if actor and id in self.expected:
            self.expected[id] = actor
        else:
            self.expected.pop(id, None)

    def attempt(self, step, id, actor=None):
        """A step that loses its race has done nothing."""
        try:
            step()
        except (duckdb.Error, CommitFailedException, ValidationException) as error:
            # DuckDB names the status so; a bare `500` may be part of a snapshot's id.
            assert not re.search(r"[A-Za-z]_5\d\d\b", str(error)), error
            self.lost += 1
        except Exception as error:
            assert any(word in str(error) for word in ("CommitFailed", "Cannot commit", "onflict", "Missing required files")), error
            self.lost += 1
        else:
            self.done(id, actor)

    def check(self, what):
        rows = self.client.sql(NAMESPACE, "SELECT id, actor FROM events")
        assert len(rows) == len({id for id, _ in rows}), f"{what}: a row is there twice"
        assert dict(rows) == self.expected, what

    def check_all(self):
        table = self.lake.load(NAMESPACE, "events").scan(selected_fields=("id", "actor")).to_arrow()
        read = {
            "duckdb": self.ducks[0].rows(f"SELECT id, actor FROM {self.ducks[0].table(NAMESPACE, 'events')}"),
            "pyiceberg": list(zip(table["id"].to_pylist(), table["actor"].to_pylist())),
            "spark": self.spark.rows(f"SELECT id, actor FROM {self.spark_table}"),
        }
        for engine, rows in read.items():
            assert sorted(rows, key=str) == sorted(self.expected.items(), key=str), engine

    # What an engine does at once.
    def duck(self, statement, at=1):
        self.ducks[at].rows(statement.format(table=self.ducks[at].table(NAMESPACE, "events")))

    def changed(self, id, column, value):
        """A row as a table, with another value in a column."""
        row = self.lake.load(NAMESPACE, "events").scan(row_filter=f"id == '{id}'").to_arrow()
        at = row.schema.get_field_index(column)
        return row.set_column(at, row.schema.field(at), pyarrow.array([value], row.schema.field(at).type))

    def replacement(self, id):
        return self.changed(id, "actor", "p")

    def append(self, id):
        """PyIceberg adds a row like one that is there."""
        new = f"e{self.next:04}"
        self.lake.load(NAMESPACE, "events").append(self.changed(id, "id", new))
        self.next += 1
        self.expected[new] = None

    def middle(self, kind, id):
        steps = {
            "duck delete": (lambda: self.duck(f"DELETE FROM {{table}} WHERE id = '{id}'"), id, None),
            "duck update": (lambda: self.duck(f"UPDATE {{table}} SET actor = 'd' WHERE id = '{id}'"), id, "d"),
            "pyiceberg delete": (lambda: self.lake.load(NAMESPACE, "events").delete(f"id == '{id}'"), id, None),
            "pyiceberg overwrite": (lambda: self.lake.load(NAMESPACE, "events").overwrite(self.replacement(id), f"id == '{id}'"), id, "p"),
            "spark delete": (lambda: self.spark.rows(f"DELETE FROM {self.spark_table} WHERE id = '{id}'"), id, None),
            "spark rewrite": (self.rewrite, None, None),
            "ingest": (self.grow, None, None),
            "pyiceberg append": (lambda: self.append(id), None, None),
        }
        self.attempt(*steps[kind])

    def rewrite(self, spark=None):
        spark = spark or self.spark
        spark.rows(f"CALL `{spark.catalog}`.system.rewrite_data_files(table => '{NAMESPACE}.events', "
                   "options => map('rewrite-all','true','partial-progress.enabled','false'))")

    # What an engine reads for before the middle and commits after it.
    def outer(self, kind, id, middle):
        duck, lake = self.ducks[0], self.lake.load(NAMESPACE, "events")
        if kind.startswith("duck"):
            update = kind == "duck update"
            duck.rows("BEGIN")
            self.duck(f"UPDATE {{table}} SET actor = 'o' WHERE id = '{id}'" if update else f"DELETE FROM {{table}} WHERE id = '{id}'", 0)
            middle()
            self.attempt(lambda: duck.rows("COMMIT"), id, "o" if update else None)
            if not update and id in self.expected or update and self.expected.get(id) != "o":
                duck.connection.close()
                self.ducks[0] = DuckDB(self.server.url + "/catalog")
            return
        transaction = lake.transaction()
        if kind == "pyiceberg overwrite":
            transaction.overwrite(self.replacement(id), f"id == '{id}'")
        else:
            transaction.delete(f"id == '{id}'")
        middle()
        self.attempt(transaction.commit_transaction, id, "p" if kind == "pyiceberg overwrite" else None)

    # What Spark reads for before the others commit, and commits after them.
    def late(self, kind, id, middles):
        """Spark's statement, each attempt to commit held until the next of the others has committed; whether it stands."""
        table, lost = self.late_spark.table(NAMESPACE, "events"), self.lost
        steps = {
            "delete": (lambda: self.late_spark.rows(f"DELETE FROM {table} WHERE id = '{id}'"), id, None),
            "update": (lambda: self.late_spark.rows(f"UPDATE {table} SET actor = 's' WHERE id = '{id}'"), id, "s"),
            "rewrite": (lambda: self.rewrite(self.late_spark), None, None),
        }
        self.proxy.hold(middles)
        self.attempt(*steps[kind])
        assert not self.proxy.failures, self.proxy.failures
        return self.lost == lost

    def check_commits(self, kind, head, refusals, stands):
        """Each of Spark's commits was clearly refused, but the last one if it stands, and the first was made before those of the others."""
        commits = self.proxy.commits
        assert {"type": "assert-ref-snapshot-id", "ref": "main", "snapshot-id": head} in commits[0][0]["requirements"]
        for request, status, answer in commits:
            summary = next(update["snapshot"]["summary"] for update in request["updates"] if update["action"] == "add-snapshot")
            assert summary["operation"] == "replace" if kind == "rewrite" else summary["added-position-deletes"] == "2", summary
            if status != 200:
                error = answer["error"]
                assert (status, error["type"]) == (409, "CommitFailedException") and "branch main has changed" in error["message"], answer
        statuses = [status for _, status, _ in commits]
        refused = statuses.index(200) if stands else len(statuses)
        assert refusals <= refused and statuses[refused:] == [200] * stands, statuses

    def unopposed(self, kind, id):
        """A step that nobody is in the way of."""
        lost, head = self.lost, self.head()
        self.middle(kind, id)
        assert self.lost == lost and self.head() != head, f"{kind} has committed"

    def head(self):
        return self.lake.load(NAMESPACE, "events").metadata.current_snapshot_id


OUTER = ["duck delete", "duck update", "pyiceberg delete", "pyiceberg overwrite"]
MIDDLE = ["duck delete", "duck update", "pyiceberg delete", "pyiceberg overwrite", "spark delete", "spark rewrite", "ingest"]
# Rows of a case: the one that Spark changes, others of its file, of which one is deleted before, and one of another file.
OWN, BESIDE, GONE, ELSEWHERE = 0, 1, 2, ROWS
# What others do before a commit of Spark arrives, one before each attempt, and to which row.
BETWEEN = {
    "ingest": [("ingest", None)],
    "append": [("pyiceberg append", BESIDE)],
    "pyiceberg delete elsewhere": [("pyiceberg delete", ELSEWHERE)],
    "pyiceberg delete beside": [("pyiceberg delete", BESIDE)],
    "pyiceberg delete of its row": [("pyiceberg delete", OWN)],
    "duck delete beside": [("duck delete", BESIDE)],
    "duck delete of its row": [("duck delete", OWN)],
    "duck update of its row": [("duck update", OWN)],
    "spark delete beside": [("spark delete", BESIDE)],
    "spark rewrite": [("spark rewrite", None)],
    "ingest then duck delete beside": [("ingest", None), ("duck delete", BESIDE)],
}
# Where nothing speaks against Spark's commit, its next attempt stands.
STANDS = {
    "delete": ["ingest", "append", "pyiceberg delete elsewhere", "duck delete beside", "duck delete of its row", "spark delete beside",
               "ingest then duck delete beside"],
    "update": ["ingest", "append", "pyiceberg delete elsewhere"],
    "rewrite": ["ingest", "append"],
}
# Where something does, Spark may give up. If it does not, the rows must be as if it had come after the others.
MAY_GIVE_UP = {
    "delete": ["pyiceberg delete beside", "duck update of its row", "spark rewrite"],
    "update": ["pyiceberg delete of its row", "duck delete of its row", "duck update of its row", "spark delete beside"],
    "rewrite": ["pyiceberg delete beside", "duck delete beside", "spark delete beside", "spark rewrite"],
}
LATE = [(late, between) for late in STANDS for between in STANDS[late] + MAY_GIVE_UP[late]]


@pytest.fixture(scope="module")
def race(server, spark_session):
    race = Race(server, spark_session)
    yield race
    race.proxy.close()


def test_no_deleted_row_comes_back_and_none_is_doubled_when_engines_race(race):
    for outer in OUTER:
        for middle in MIDDLE:
            ids = race.grow()
            race.outer(outer, ids[0], lambda: race.middle(middle, ids[1]))
            race.check(f"{middle} within {outer}")
    race.check_all()
    assert 0 < race.lost


def test_a_spark_rewrite_meets_the_deletes_of_others(race):
    for turn in range(SPARK_ROUNDS):
        ids, ended = race.grow(), []

        def rewrite():
            try:
                race.rewrite()
            except Exception as error:
                ended.append(error)

        thread = threading.Thread(target=rewrite)
        thread.start()
        for id in ids[:4]:
            race.middle(["duck delete", "pyiceberg delete"][turn % 2], id)
        race.grow()
        thread.join()
        race.check(f"rewrite {turn}")
    race.check_all()


@pytest.mark.parametrize(("late", "between"), LATE)
def test_a_late_commit_of_spark_is_made_anew_or_given_up(race, late, between):
    ids = race.grow() + race.grow()
    # Spark replaces its own file of position deletes with one that has the new ones too.
    race.unopposed("duck delete" if late == "rewrite" else "spark delete", ids[GONE])
    head = race.head()
    steps = [lambda kind=kind, at=at: race.unopposed(kind, None if at is None else ids[at]) for kind, at in BETWEEN[between]]
    stands = race.late(late, ids[OWN], steps)
    race.check(f"{between} within {late}")
    if stands:
        race.check_all()
    assert stands or between not in STANDS[late], "nothing spoke against it"
    race.check_commits(late, head, len(steps), stands)
