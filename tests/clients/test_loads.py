"""Engines read with their first statement after the ack what was acknowledged: their load of the table has it committed."""
import json
import time

import pytest
from engines import DuckDB, PyIceberg, Spark

# A load within a second of a commit for another load of the same table is answered with what is there.
COMMIT_EVERY = 1.0


class Sender:
    """Sends events to some namespaces in turn, each of which was not read for a second."""

    def __init__(self, client, name: str, namespaces: int):
        self.client, self.sent, self.read = client, {}, {}
        for number in range(namespaces):
            namespace = f"{name}_{number}"
            self.sent[namespace] = 0
            self.send(namespace, 1)
            # An engine looks for a table that is there.
            client.commit(namespace)

    def send(self, namespace: str, count: int) -> None:
        first = self.sent[namespace]
        events = [json.dumps({"id": f"e{n}", "type": "order.placed", "data": {"n": n}}) for n in range(first, first + count)]
        assert self.client.send(events, namespace)[0] == 200
        self.sent[namespace] += count

    def check(self, turn: int, count) -> None:
        """`count` gives the rows that an engine reads of a namespace's `events`."""
        namespace = list(self.sent)[turn % len(self.sent)]
        time.sleep(max(0.0, self.read.get(namespace, float("-inf")) + COMMIT_EVERY - time.monotonic()))
        self.send(namespace, 1 + turn % 3)
        read = count(namespace)
        self.read[namespace] = time.monotonic()
        assert read == self.sent[namespace], f"statement {turn}"


def test_duckdb_reads_every_acknowledged_event_at_once(server):
    sender = Sender(server.client(), "duck_loads", 4)
    # Attached once; each statement is a transaction of its own.
    duck = DuckDB(server.url + "/catalog")
    for turn in range(20):
        sender.check(turn, lambda namespace: duck.rows(f"SELECT count(*) FROM {duck.table(namespace, 'events')}")[0][0])


def test_pyiceberg_reads_every_acknowledged_event_at_once(server):
    sender, lake = Sender(server.client(), "py_loads", 4), PyIceberg(server.url + "/catalog")
    for turn in range(12):
        sender.check(turn, lambda namespace: len(lake.ids(namespace, "events")))


def test_spark_reads_every_acknowledged_event_at_once(server, spark_session):
    sender, spark = Sender(server.client(), "spark_loads", 3), Spark(spark_session, server.url + "/catalog")
    for turn in range(6):
        sender.check(turn, lambda namespace: len(spark.ids(namespace, "events")))


@pytest.mark.parametrize("engine", [DuckDB, PyIceberg], ids=lambda engine: engine.name)
def test_a_table_that_is_not_there_yet_is_made_by_its_first_load(engine, server):
    namespace, client = f"first_{engine.name}", server.client()
    # The namespace is there, and its table of rejected events is not.
    assert client.send([json.dumps({"id": "e", "type": "a"})], namespace)[0] == 200
    client.commit(namespace)
    assert client.send([json.dumps({"id": "bad", "type": "no type"})], namespace)[0] == 400
    status, _, raw = client.request("GET", f"/catalog/v1/namespaces/{namespace}/tables/dead_letters")
    assert status == 200, raw
    assert len(engine(server.url + "/catalog").ids(namespace, "dead_letters")) == 1
