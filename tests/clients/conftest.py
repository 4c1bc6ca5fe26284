"""What the client tests share. `./check` runs them; by hand, with its folder of Python packages and jars:

    ICECORE_JARS=<cache>/jars <cache>/venv/bin/python -m pytest tests/clients [-k NAME] [--kills 200]
"""
import pytest
from icecore import Client
from server import SeaweedFS, Server


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=8, help="how often the crash test ends the server at a random moment (default 8)")
    parser.addoption("--statements", type=int, default=250, help="how many statements are compared with DuckDB (default 250)")
    parser.addoption("--seed", type=int, default=1, help="where their generator starts (default 1)")


@pytest.fixture(scope="session")
def spark_session():
    from engines import start_spark

    session = start_spark()
    yield session
    session.stop()


@pytest.fixture(scope="module")
def clickhouse_session():
    """There is one for a process, and it is loaded only when a test asks for it."""
    from chdb.session import Session

    session = Session()
    yield session
    # Before the catalog ends: it asks each database's once more, and for a minute when there is no answer.
    for name in str(session.query("SELECT name FROM system.databases WHERE engine = 'DataLakeCatalog'", "TabSeparated")).split():
        session.query(f"DROP DATABASE {name}")
    session.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One server for a file's tests, with local files."""
    server = Server(tmp_path_factory.mktemp("icecore"))
    yield server.start()
    server.stop()


@pytest.fixture(scope="module")
def catalog_uri(server):
    return server.url + "/catalog"


@pytest.fixture(scope="module")
def client(server):
    return Client(server.url)


@pytest.fixture(scope="module")
def catalog(request, catalog_uri):
    """The catalog of PyIceberg, with the namespace that a file's tests call `NAMESPACE`."""
    from engines import PyIceberg

    catalog = PyIceberg(catalog_uri).catalog
    catalog.create_namespace(request.module.NAMESPACE)
    return catalog


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = SeaweedFS(tmp_path_factory.mktemp("s3"))
    try:
        yield store.start()
    finally:
        store.stop()


def pytest_terminal_summary(terminalreporter):
    count = {kind: len(terminalreporter.stats.get(kind, ())) for kind in ("passed", "failed", "error", "skipped")}
    line = f"engines: {count['passed']} passed, {count['failed'] + count['error']} failed"
    terminalreporter.write_line(line + (f", {count['skipped']} skipped" if count["skipped"] else ""))
