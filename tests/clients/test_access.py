"""A server that asks for tokens: engines with a token, with client credentials, and with neither."""
import json
import time

import duckdb
import pyarrow
import pytest
from engines import WAREHOUSE, connect_duckdb
from icecore import Client, Refused
from pyiceberg.catalog import load_catalog
from pyiceberg.exceptions import ForbiddenError, NoSuchNamespaceError, NoSuchTableError, UnauthorizedError
from server import Server

WRONG = "ice_0123456789abcdef_" + "0" * 64
WAYS = ["token", "credentials"]


class Guarded:
    """The server, and a token for each of namespaces `a` and `b`."""

    def __init__(self, server: Server):
        self.server = server
        self.tokens = {ns: self.make(ns, "--ns", ns, "--scope", "ingest", "--scope", "write") for ns in ("a", "b")}

    def make(self, *arguments) -> str:
        return self.server.run("token", "create", *arguments, "--data-dir", str(self.server.folder / "data")).strip()

    @property
    def uri(self) -> str:
        return self.server.url + "/catalog"

    def client(self, namespace: str) -> Client:
        return Client(self.server.url, token=self.tokens[namespace])


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("guarded"), ["--set", "auth=on"]).start()
    guarded = Guarded(server)
    for namespace in ("a", "b"):
        client = guarded.client(namespace)
        status, reply = client.send([json.dumps({"id": f"{namespace}-{n}", "type": "made"}) for n in range(5)])
        assert (status, reply["namespace"]) == (200, namespace), reply
        client.commit(namespace)
    yield guarded
    server.stop()


def parts(token: str) -> tuple[str, str]:
    """Client id and secret of a token."""
    _, client, secret = token.split("_")
    return client, secret


def open_duckdb(guarded, token: str, way: str) -> duckdb.DuckDBPyConnection:
    connection = connect_duckdb()
    if way == "token":
        secret = f"TOKEN '{token}'"
    else:
        client, text = parts(token)
        secret = f"CLIENT_ID '{client}', CLIENT_SECRET '{text}', OAUTH2_SERVER_URI '{guarded.uri}/v1/oauth/tokens'"
    connection.execute(f"CREATE SECRET lake_secret (TYPE iceberg, {secret})")
    connection.execute(f"ATTACH '{WAREHOUSE}' AS lake (TYPE iceberg, ENDPOINT '{guarded.uri}', SECRET lake_secret)")
    return connection


def open_pyiceberg(guarded, token: str, way: str):
    how = {"token": token} if way == "token" else {"credential": ":".join(parts(token))}
    return load_catalog("lake", type="rest", uri=guarded.uri, warehouse=WAREHOUSE, **how)


def open_spark(session, guarded, token: str, way: str) -> str:
    """The name of a catalog with this identity."""
    name = f"lake_{way}_{parts(token)[0]}"
    settings = {"": "org.apache.iceberg.spark.SparkCatalog", ".type": "rest", ".uri": guarded.uri, ".warehouse": WAREHOUSE, ".cache-enabled": "false"}
    if way == "token":
        settings[".token"] = token
    else:
        settings |= {".credential": ":".join(parts(token)), ".oauth2-server-uri": f"{guarded.uri}/v1/oauth/tokens"}
    for key, value in settings.items():
        session.conf.set(f"spark.sql.catalog.{name}{key}", value)
    return name


@pytest.mark.parametrize("way", WAYS)
def test_duckdb_reads_and_writes_its_namespace_and_does_not_see_the_other(guarded, way):
    lake = open_duckdb(guarded, guarded.tokens["a"], way)
    assert lake.execute("SELECT count(*) FROM lake.a.events").fetchall() == [(5,)]
    lake.execute(f"CREATE TABLE lake.a.duck_{way} (n BIGINT)")
    lake.execute(f"INSERT INTO lake.a.duck_{way} VALUES (1), (2)")
    assert lake.execute(f"SELECT sum(n) FROM lake.a.duck_{way}").fetchall() == [(3,)]
    with pytest.raises(duckdb.Error, match="does not exist|not found"):
        lake.execute("SELECT count(*) FROM lake.b.events")
    schemas = lake.execute("SELECT DISTINCT schema_name FROM duckdb_schemas() WHERE database_name = 'lake'").fetchall()
    assert ("a",) in schemas and ("b",) not in schemas


@pytest.mark.parametrize("way", WAYS)
def test_pyiceberg_reads_and_writes_its_namespace_and_does_not_see_the_other(guarded, way):
    lake = open_pyiceberg(guarded, guarded.tokens["a"], way)
    assert lake.load_table("a.events").scan().count() == 5
    rows = pyarrow.table({"n": pyarrow.array([1, 2], pyarrow.int64())})
    lake.create_table(f"a.py_{way}", rows.schema).append(rows)
    assert lake.load_table(f"a.py_{way}").scan().count() == 2
    assert lake.list_namespaces() == [("a",)]
    for foreign in ("b.events", "missing.events"):
        with pytest.raises(NoSuchTableError):
            lake.load_table(foreign)
    for foreign in ("b", "missing"):
        with pytest.raises(NoSuchNamespaceError):
            lake.list_tables(foreign)


@pytest.mark.parametrize("way", WAYS)
def test_spark_reads_and_writes_its_namespace_and_does_not_see_the_other(guarded, spark_session, way):
    lake = open_spark(spark_session, guarded, guarded.tokens["a"], way)
    rows = lambda sql: [tuple(row) for row in spark_session.sql(sql).collect()]
    assert rows(f"SELECT count(*) FROM {lake}.a.events") == [(5,)]
    rows(f"CREATE TABLE {lake}.a.spark_{way} (n BIGINT) USING iceberg")
    rows(f"INSERT INTO {lake}.a.spark_{way} VALUES (1), (2)")
    assert rows(f"SELECT sum(n) FROM {lake}.a.spark_{way}") == [(3,)]
    assert rows(f"SHOW NAMESPACES IN {lake}") == [("a",)]
    with pytest.raises(Exception, match="TABLE_OR_VIEW_NOT_FOUND|cannot be found"):
        rows(f"SELECT count(*) FROM {lake}.b.events")


@pytest.mark.parametrize("way", WAYS)
def test_a_wrong_token_is_refused(guarded, way):
    with pytest.raises(duckdb.Error):
        open_duckdb(guarded, WRONG, way).execute("SELECT count(*) FROM lake.a.events")
    with pytest.raises(Exception) as refused:
        open_pyiceberg(guarded, WRONG, way)
    assert isinstance(refused.value, UnauthorizedError) or "invalid_client" in str(refused.value)


def test_a_reader_is_told_that_it_may_not_write(guarded):
    lake = open_pyiceberg(guarded, guarded.make("reader", "--scope", "read:a"), "token")
    assert lake.load_table("a.events").scan().count() == 5
    with pytest.raises(ForbiddenError):
        lake.drop_table("a.events")


def test_the_same_token_sends_and_asks(guarded):
    client = guarded.client("a")
    assert client.sql("a", "SELECT count(*) FROM events") == [(5,)]
    with pytest.raises(Refused) as refused:
        client.sql("b", "SELECT count(*) FROM events")
    assert refused.value.status == 404
    with pytest.raises(Refused) as refused:
        Client(guarded.server.url, token=WRONG).sql("a", "SELECT 1")
    assert refused.value.status == 401


def test_a_revoked_token_ends_within_a_second_also_where_it_was_exchanged(guarded):
    token = guarded.make("short", "--scope", "read:a")
    lake = open_pyiceberg(guarded, token, "credentials")
    assert lake.load_table("a.events").scan().count() == 5
    data = ["--data-dir", str(guarded.server.folder / "data")]
    listed = guarded.server.run("token", "list", *data)
    assert "short" in listed and token not in listed
    guarded.server.run("token", "revoke", parts(token)[0], *data)
    revoked, client = time.monotonic(), Client(guarded.server.url, token=token)

    def until_refused(call):
        """Each token is remembered for a moment of its own."""
        asked = time.monotonic()
        while call() is None:
            assert asked - revoked < 1
            asked = time.monotonic()

    def load():
        try:
            lake.load_table("a.events")
        except Exception as refused:  # noqa: BLE001 - PyIceberg tries to log in again, and names that failure in its own way
            return str(refused).lower()

    until_refused(lambda: client.request("GET", "/v1/namespaces")[0] == 401 or None)
    until_refused(load)
    assert any(word in load() for word in ("oauth", "token", "invalid_client"))


def test_the_command_line_takes_the_token_and_the_audit_log_verifies(guarded):
    admin = guarded.make("operator", "--admin", "--expires", "1h")
    url = ["--url", guarded.server.url]
    assert "events" in guarded.server.run("tables", "--ns", "a", "--token", guarded.tokens["a"], *url)
    assert "reader2" in guarded.server.run("token", "create", "reader2", "--scope", "read:a", "--token", admin, *url) + guarded.server.run("token", "list", "--token", admin, *url)
    remote = guarded.server.run("audit", "verify", "--token", admin, *url)
    expected = remote.split("--expect ")[1].strip()
    local = guarded.server.run("audit", "verify", "--expect", expected, "--data-dir", str(guarded.server.folder / "data"))
    assert "none changed" in remote and "none changed" in local
    listed = guarded.server.run("audit", "list", "--limit", "1000", "--token", admin, *url)
    assert "POST /v1/namespaces/{}/tables" in listed and "token create" in listed
