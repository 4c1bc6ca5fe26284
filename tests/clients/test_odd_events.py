"""What odd but well-formed events leave in the table is read by other engines: JSON that DuckDB's functions take, and times that Python can hold."""
from engines import DuckDB, PyIceberg

NAMESPACE = "odd"
EVENTS = [
    r'{"id":"1","type":"t","actor":"x\ud800y","after":{"a":"\udc00","b":1},"data":{"c":"\ud800"},"odd":"\ud800","d":7}',
    '{"id":"2","type":"t","ts":"0001-01-01T00:00:00Z","error":{"code":"E1"},"version":"1.2.3"}',
    '{"id":"3","type":"t","ts":"9999-12-31T23:59:59.999999Z","after":["x"],"big":123456789012345678901234567890}',
]


def test_other_engines_read_what_odd_events_left(server, catalog_uri):
    client = server.client()
    assert client.send(EVENTS, NAMESPACE, "?backfill=true")[0] == 200
    client.commit(NAMESPACE)
    duck = DuckDB(catalog_uri)
    # DuckDB fails a whole query on one JSON text that it does not take.
    rows = duck.rows(
        "SELECT id, actor, json_extract_string(after, '$.b'), json_extract_string(payload, '$.d'), json_extract_string(payload, '$.big'), "
        f"json_valid(data) FROM {duck.table(NAMESPACE, 'events')} ORDER BY id"
    )
    assert rows == [
        ("1", "x\\ud800y", "1", "7", None, True),
        ("2", None, None, None, None, None),
        ("3", None, None, None, "123456789012345678901234567890", None),
    ]
    table = PyIceberg(catalog_uri).load(NAMESPACE, "events")
    read = table.scan(selected_fields=("id", "ts", "error", "version")).to_arrow().sort_by("id").to_pylist()
    assert [row["ts"].year for row in read[1:]] == [1, 9999]
    assert (read[1]["error"], read[1]["version"]) == ('{"code":"E1"}', None)
