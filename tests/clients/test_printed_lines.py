"""What the README and `icecore quickstart` tell people to paste works as it stands.

Only two things differ here: the port, and that DuckDB's extensions come from packages, so `INSTALL` and `LOAD` are left out.
"""
import json
import re
import signal
import subprocess
import time

import pytest
from engines import connect_duckdb
from server import ROOT, Server, binary, plain_environment

README = (ROOT / "README.md").read_text()
TYPES = {"cdc.insert", "cdc.update", "rpc.call", "webhook.stripe", "Order.placed", "Customer.created"}


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """What a quickstart that goes on serving has printed."""
    folder = tmp_path_factory.mktemp("quickstart")
    output = folder / "printed"
    command = [binary(), "quickstart", "--events", "2000", "--listen", "127.0.0.1:0", "--data-dir", str(folder / "data")]
    with open(output, "wb") as stdout, open(folder / "log", "wb") as log:
        process = subprocess.Popen(command, env=plain_environment(), stdin=subprocess.DEVNULL, stdout=stdout, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while "Serving until Ctrl-C." not in output.read_text():
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, output.read_text()
            time.sleep(0.05)
        yield output.read_text()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()


def printed(text: str, heading: str) -> str:
    """The indented lines below a heading."""
    found = re.search(rf"^{heading}\n((?:  .*\n)+)", text, re.M)
    assert found, f"no lines for {heading} in:\n{text}"
    return "\n".join(line[2:] for line in found.group(1).splitlines())


def readme_block(after: str, language: str) -> str:
    found = re.search(rf"{re.escape(after)}.*?```{language}\n(.*?)```", README, re.S)
    assert found, f"no {language} block after {after!r}"
    return found.group(1)


def paste_into_duckdb(lines: str) -> list[tuple]:
    """The answer to the last statement."""
    connection = connect_duckdb()
    assert lines.startswith("INSTALL iceberg; LOAD iceberg;\n"), lines
    rows = []
    for statement in lines.removeprefix("INSTALL iceberg; LOAD iceberg;\n").split(";"):
        if statement.strip():
            rows = connection.execute(statement).fetchall()
    return rows


def paste_into_python(lines: str):
    """The value of the last line."""
    *before, last = lines.strip().splitlines()
    names: dict = {}
    exec("\n".join(before), names)
    return eval(last, names)


def test_quickstart_time_travel(quickstart):
    now, then = (re.search(rf"^{heading}.*?\| (\d+) +\| (\d+) +\|", quickstart, re.M | re.S).groups() for heading in ["Now, ", "Time travel: "])
    assert now == ("2000", "2000") and then == ("1000", "1000")


def test_quickstart_duckdb(quickstart):
    rows = dict(paste_into_duckdb(printed(quickstart, "DuckDB")))
    assert set(rows) == TYPES and sum(rows.values()) == 2000


def test_quickstart_pyiceberg(quickstart):
    assert paste_into_python(printed(quickstart, "PyIceberg")).num_rows == 2000


def test_quickstart_spark(quickstart, spark_session):
    lines = printed(quickstart, "Spark")
    settings = dict(re.findall(r"--conf (\S+?)=(\S+)", lines))
    assert "org.apache.iceberg:iceberg-spark-runtime-3.5_2.12:" in lines
    # A catalog of its own name, because the session serves other tests as well.
    for name, value in settings.items():
        spark_session.conf.set(name.replace(".lake", ".printed"), value)
    statement = re.search(r"SELECT .*?;", lines).group(0).rstrip(";").replace("lake.", "printed.")
    assert {row[0] for row in spark_session.sql(statement).collect()} == TYPES


def test_readme(tmp_path):
    server = Server(tmp_path).start()
    try:
        here = lambda text: text.replace("localhost:8181", f"127.0.0.1:{server.port}").replace("127.0.0.1:8181", f"127.0.0.1:{server.port}")
        send = readme_block("## Send events", "sh")
        curl = send[send.index("curl"):]
        reply = run(here(curl))
        assert reply == json.loads(readme_block("## Send events", "json"))
        query, *_ = [line for line in readme_block("## Query", "sh").splitlines() if line.startswith("curl")]
        assert [row[0] for row in run(here(query))["rows"]] == ["o-1", "o-2"]
        run(here(re.search(r"`(curl -X POST \S+/commit)`", README).group(1)))
        assert dict(paste_into_duckdb(here(readme_block("DuckDB:", "sql")))) == {"Order.placed": 1, "cdc.update": 1}
        assert paste_into_python(here(readme_block("PyIceberg:", "python")))["id"].to_pylist() == ["o-1"]
    finally:
        server.stop()


def run(command: str):
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
