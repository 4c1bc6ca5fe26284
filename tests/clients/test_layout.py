"""The earlier layout both ways: what DuckDB wrote into its folders is imported, and what is exported DuckDB reads with its globs."""
import json
import subprocess

from engines import connect_duckdb
from server import binary, plain_environment

EVENTS = 6_000
DAY = "events/2026/11/20"


def icecore(*arguments) -> dict:
    done = subprocess.run([binary(), *arguments], env=plain_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_a_folder_of_duckdb_is_imported_once_and_exported_as_it_was(server, tmp_path):
    bucket, copy, duck = tmp_path / "bucket", tmp_path / "copy", connect_duckdb()
    duck.execute(f"""
        CREATE TABLE sent AS
        SELECT CASE WHEN n % 2 = 0 THEN 'd-' || n END AS id, 'rpc.call' AS type, TIMESTAMP '2026-11-20 14:00:00' + to_seconds(n) AS ts,
               'layout.example' AS ns, (2 * n + 1) / 8 AS durationMs, {{'class': 'Cart', 'colo': NULL::VARCHAR}} AS do, {{'n': n}} AS data
        FROM range({EVENTS}) AS numbers(n)""")
    for hour in (14, 15):
        folder = bucket / DAY / str(hour)
        folder.mkdir(parents=True)
        rows = f"SELECT * FROM sent WHERE hour(ts) = {hour}"
        duck.execute(f"COPY ({rows} AND minute(ts) < 30) TO '{folder}/a.parquet' (FORMAT parquet)")
        duck.execute(f"COPY ({rows} AND 30 <= minute(ts)) TO '{folder}/b.jsonl' (FORMAT json)")
        duck.execute(f"COPY ({rows}) TO '{folder}/_compact_c.parquet' (FORMAT parquet, COMPRESSION zstd)")
    duck.execute(f"COPY sent TO '{bucket}/{DAY}/_compact_d.parquet' (FORMAT parquet)")
    command = ["import", "--layout", "r2", str(bucket), "--json", "--url", server.url]
    total = icecore(*command)["total"]
    assert (total["events"], total["accepted"], total["duplicates"]) == (3 * EVENTS, EVENTS, 2 * EVENTS), total
    total = icecore(*command)["total"]
    assert (total["accepted"], total["duplicates"]) == (0, 3 * EVENTS), total

    export = ["export", "--layout", "r2", "--ns", "layout.example", str(copy), "--json", "--url", server.url]
    assert icecore(*export)["events"] == EVENTS
    assert icecore(*export)["files"] == 0
    glob = f"read_parquet('{copy}/events/*/*/*/*/*.parquet')"
    answer = duck.execute(f"SELECT count(*), count(DISTINCT id), sum(duration_ms), epoch_us(min(ts)), epoch_us(max(ts)), min(do_class), typeof(any_value(ts)) FROM {glob}").fetchone()
    wanted = duck.execute("SELECT count(*), count(*), sum(durationMs), epoch_us(min(ts)), epoch_us(max(ts)) FROM sent").fetchone()
    assert answer == (*wanted, "Cart", "TIMESTAMP WITH TIME ZONE"), (answer, wanted)
    hour = f"read_parquet('{copy}/{DAY}/15/*.parquet')"
    assert duck.execute(f"SELECT count(*) FROM {hour}").fetchone() == (EVENTS - 3_600,)
    again = icecore("import", "--layout", "r2", str(copy), "--ns", "layout.other", "--json", "--url", server.url)["total"]
    assert again["accepted"] == EVENTS
    columns = "id, type, ts, duration_ms, do_class, data"
    client = server.client()
    for at in range(0, EVENTS, 1_000):
        statement = f"SELECT {columns} FROM events ORDER BY ts LIMIT 1000 OFFSET {at}"
        assert client.sql("layout.other", statement) == client.sql("layout.example", statement)
