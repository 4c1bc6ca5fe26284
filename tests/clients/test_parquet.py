"""Parquet both ways: DuckDB reads what SQL answers, and what DuckDB wrote is ingested."""
import json

from engines import connect_duckdb

NAMESPACE = "parquet.example"
EVENTS = 20_000


def test_duckdb_reads_an_answer_in_parquet(server, tmp_path):
    client = server.client()
    lines = [json.dumps({"id": f"p-{n}", "type": "parquet.row", "duration_ms": n / 4, "data": {"n": n}}) for n in range(EVENTS)]
    for at in range(0, EVENTS, 5_000):
        assert client.send(lines[at:at + 5_000], NAMESPACE)[0] == 200
    body = json.dumps({"sql": "SELECT * FROM events"})
    headers = {"content-type": "application/json", "accept": "application/vnd.apache.parquet"}
    status, headers, raw = client.request("POST", f"/v1/{NAMESPACE}/sql", body, headers)
    assert status == 200 and headers["content-type"] == "application/vnd.apache.parquet", (status, headers)
    file = tmp_path / "answer.parquet"
    file.write_bytes(raw)
    duck = connect_duckdb()
    answer = duck.execute(f"SELECT count(*), count(DISTINCT id), sum(duration_ms), min(seq), max(seq), typeof(any_value(ts)) FROM '{file}'").fetchone()
    assert answer == (EVENTS, EVENTS, sum(range(EVENTS)) / 4, 1, EVENTS, "TIMESTAMP WITH TIME ZONE"), answer
    assert duck.execute(f"SELECT DISTINCT compression FROM parquet_metadata('{file}')").fetchall() == [("ZSTD",)]


def test_a_file_that_duckdb_wrote_is_ingested_once(server, tmp_path):
    file = tmp_path / "foreign.parquet"
    connect_duckdb().execute(f"""
        COPY (SELECT 'foreign.row' AS type, TIMESTAMP '2024-01-01 00:00:00' + to_seconds(n) AS ts, n % 3 = 0 AS success,
                     {{'n': n, 'tags': [n, n + 1]}} AS data, (n / 8)::DECIMAL(12, 3) AS price, n::DOUBLE AS duration_ms
              FROM range({EVENTS}) AS numbers(n))
        TO '{file}' (FORMAT parquet, ROW_GROUP_SIZE 2048)""")
    command = ["ingest", str(file), "--url", server.url, "--ns", "foreign.example"]
    assert f"{EVENTS} events sent: {EVENTS} new, 0 duplicates, 0 rejected" in server.run(*command)
    assert f"{EVENTS} events sent: 0 new, {EVENTS} duplicates, 0 rejected" in server.run(*command)
    statement = """SELECT count(*), count(DISTINCT id), sum(duration_ms), min(ts), max(ts), count(CASE WHEN success THEN 1 END),
                          max(CASE WHEN duration_ms = 5 THEN data END), max(CASE WHEN duration_ms = 5 THEN payload END) FROM events"""
    *numbers, data, payload = server.client().sql("foreign.example", statement)[0]
    assert numbers == [EVENTS, EVENTS, sum(range(EVENTS)), "2024-01-01T00:00:00Z", "2024-01-01T05:33:19Z", (EVENTS + 2) // 3], numbers
    assert json.loads(data) == {"n": 5, "tags": [5, 6]}
    # A column that no column of ours holds is a member that nobody knows; decimals are texts.
    assert json.loads(payload)["price"] == "0.625", payload
