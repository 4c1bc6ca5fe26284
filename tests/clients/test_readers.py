"""Whoever queries while events arrive and are committed sees each acknowledged event, once."""
import json
import threading
import time

from engines import WAREHOUSE, DuckDB, PyIceberg
from icecore import Client, send_until_taken, Sent, in_parallel
from pyiceberg.catalog import load_catalog

NAMESPACE, SECONDS, BATCH, WRITERS, TURNS_MAX = "readers.example", 12, 50, 3, 400


class Progress:
    """What every writer has begun to send and what of it is acknowledged, as batches."""

    def __init__(self):
        self.begun, self.acknowledged = [0] * WRITERS, [0] * WRITERS
        self.done = threading.Event()


def write(url: str, progress: Progress, writer: int) -> None:
    """Batch after batch; `lsn` tells which of the writer's batches an event is of."""
    client, sent = Client(url), Sent()
    for turn in range(TURNS_MAX):
        if progress.done.is_set():
            break
        lines = [json.dumps({"id": f"{writer}-{turn}-{n}", "type": f"reading.{n % 5}", "actor": f"w{writer}", "lsn": turn}) for n in range(BATCH)]
        progress.begun[writer] = turn + 1
        send_until_taken(client, lines, sent, NAMESPACE)
        progress.acknowledged[writer] = turn + 1
        time.sleep(0.01)


def commit(url: str, progress: Progress) -> None:
    client = Client(url)
    while not progress.done.is_set():
        client.commit(NAMESPACE)


def read(url: str, progress: Progress) -> int:
    """Queries until the time is over; how often."""
    client, queries, deadline = Client(url), 0, time.monotonic() + SECONDS
    statement = "SELECT actor, lsn, count(*), count(DISTINCT id), count(DISTINCT seq) FROM events WHERE actor IS NOT NULL GROUP BY actor, lsn"
    try:
        # On a slow machine it takes longer until they mean anything.
        while time.monotonic() < deadline or queries < 5:
            acknowledged = list(progress.acknowledged)
            seen = {}
            for actor, turn, count, ids, seqs in client.sql(NAMESPACE, statement):
                assert count == ids == seqs <= BATCH, f"an event of batch {turn} of {actor} was seen twice"
                seen[int(actor[1:]), turn] = count
            begun = list(progress.begun)
            for writer, turns in enumerate(acknowledged):
                missing = [turn for turn in range(turns) if seen.get((writer, turn)) != BATCH]
                assert not missing, f"acknowledged batches {missing[:5]} of writer {writer} were not seen whole"
            assert all(turn < begun[writer] for writer, turn in seen), "an event was seen that nobody sent"
            queries += 1
    finally:
        progress.done.set()
    return queries


def test_no_query_misses_an_acknowledged_event_or_sees_one_twice(server):
    progress = Progress()
    # The namespace has to exist before it can be queried.
    send_until_taken(server.client(), ['{"id": "first", "type": "reading.0"}'], Sent(), NAMESPACE)
    jobs = [lambda writer=writer: write(server.url, progress, writer) for writer in range(WRITERS)]
    results = in_parallel([*jobs, lambda: commit(server.url, progress), lambda: read(server.url, progress), lambda: read(server.url, progress)])
    assert 10 <= results[-1] + results[-2], "too few queries to mean anything"
    assert 10 <= sum(progress.acknowledged)


def test_an_acknowledged_event_is_in_the_very_next_query(server):
    client = server.client()
    for turn in range(50):
        send_until_taken(client, [json.dumps({"id": f"next-{turn}", "type": "reading.next"})], Sent(), NAMESPACE)
        assert client.sql(NAMESPACE, f"SELECT count(*) FROM events WHERE id = 'next-{turn}'") == [(1,)]


def test_a_commit_shows_an_event_to_other_engines_at_once(server, catalog_uri):
    client, duck = server.client(), DuckDB(catalog_uri)
    for turn in range(10):
        send_until_taken(client, [json.dumps({"id": f"other-{turn}", "type": "reading.other"})], Sent(), NAMESPACE)
        snapshot = client.commit(NAMESPACE)["snapshots"]["events"]
        table = duck.table("readers_example", "events")
        assert duck.rows(f"SELECT count(*) FROM {table} WHERE id = 'other-{turn}'") == [(1,)]
        assert duck.rows(f"SELECT count(*) FROM {table} AT (VERSION => {snapshot}) WHERE type = 'reading.other'") == [(turn + 1,)]


def test_a_client_loads_a_table_without_its_earlier_snapshots(server, catalog_uri):
    client = server.client()
    for turn in range(3):
        send_until_taken(client, [json.dumps({"id": f"short-{turn}", "type": "reading.short"})], Sent(), NAMESPACE)
        client.commit(NAMESPACE)
    short = load_catalog("short", type="rest", uri=catalog_uri, warehouse=WAREHOUSE, **{"snapshot-loading-mode": "refs"}).load_table(("readers_example", "events"))
    whole = PyIceberg(catalog_uri).load("readers_example", "events")
    assert len(short.metadata.snapshots) == 1 < len(whole.metadata.snapshots)
    assert short.current_snapshot() in whole.metadata.snapshots
    ids = short.scan(row_filter="type = 'reading.short'", selected_fields=("id",)).to_arrow()["id"].to_pylist()
    assert sorted(ids) == [f"short-{turn}" for turn in range(3)]


def test_a_reader_of_a_snapshot_keeps_its_answer_while_events_arrive(server):
    client = server.client()
    snapshot = client.commit(NAMESPACE)["snapshots"]["events"]
    before = client.sql(NAMESPACE, "SELECT count(*) FROM events", as_of=snapshot)
    send_until_taken(client, ['{"id": "later", "type": "reading.later"}'], Sent(), NAMESPACE)
    client.commit(NAMESPACE)
    assert client.sql(NAMESPACE, "SELECT count(*) FROM events", as_of=snapshot) == before
    assert client.sql(NAMESPACE, "SELECT count(*) FROM events")[0][0] == before[0][0] + 1
