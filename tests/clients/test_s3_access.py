"""What clients get to open a table's files on S3: nothing, keys, or signatures of their requests."""
import http.client
import json
from urllib.parse import urlsplit

import boto3
import pyarrow
import pytest
from botocore.exceptions import ClientError
from engines import DuckDB, PyIceberg, Spark
from icecore import Client, Sent, send_until_taken
from server import SeaweedFS, Server

NAMESPACE, EVENTS = "shop", 500


def serve(folder, store, prefix, access, **more):
    arguments = ["--warehouse", f"s3://{store.BUCKET}/{prefix}"]
    server = Server(folder, arguments, store.environment() | {"ICECORE_STORAGE_ACCESS": access} | more).start()
    lines = [f'{{"id":"{prefix}-{n}","type":"order"}}' for n in range(EVENTS)]
    send_until_taken(server.client(), lines, Sent(), NAMESPACE)
    server.client().commit(NAMESPACE)
    return server


@pytest.fixture(scope="module")
def signing(tmp_path_factory, store):
    server = serve(tmp_path_factory.mktemp("icecore"), store, "signed", "remote-signing")
    yield server
    server.stop()


def ask(server, method, path, body=None, headers=None):
    status, headers, raw = server.client().request(method, f"/catalog/v1/{path}", body and json.dumps(body), headers or {})
    return status, headers, json.loads(raw)


def load(server, table, headers=None):
    status, answered, body = ask(server, "GET", f"namespaces/{NAMESPACE}/tables/{table}", headers=headers)
    assert status == 200, body
    return answered, body


def test_none_tells_clients_nothing(tmp_path, store):
    server = serve(tmp_path, store, "own-keys", "none")
    try:
        wants = {"x-iceberg-access-delegation": "vended-credentials"}
        _, body = load(server, "events", wants)
        assert body["config"] == {} and "storage-credentials" not in body
        assert ask(server, "GET", f"namespaces/{NAMESPACE}/tables/events/credentials")[2] == {"storage-credentials": []}
        status, _, body = ask(server, "POST", f"namespaces/{NAMESPACE}/tables/events/sign", {"uri": store.endpoint, "method": "GET", "headers": {}})
        assert status == 406, body
    finally:
        server.stop()


def test_vended_keys_come_with_their_prefix_and_another_etag(tmp_path, store):
    server = serve(tmp_path, store, "vended", "vended")
    try:
        plain, body = load(server, "events")
        wants = {"x-iceberg-access-delegation": "vended-credentials,remote-signing"}
        answered, delegated = load(server, "events", wants)
        assert plain["etag"] != answered["etag"]
        (credential,) = delegated["storage-credentials"]
        assert credential["prefix"] == body["metadata"]["location"] + "/"
        assert credential["config"] == delegated["config"] == body["config"]
        assert credential["config"]["s3.access-key-id"] == SeaweedFS.KEY
        assert ask(server, "GET", f"namespaces/{NAMESPACE}/tables/events/credentials")[2] == {"storage-credentials": [credential]}
        again = server.client().request("GET", f"/catalog/v1/namespaces/{NAMESPACE}/tables/events", headers=wants | {"if-none-match": answered["etag"]})
        assert again[0] == 304
        assert "catalog clients get the configured S3 keys" in server.log_tail()
    finally:
        server.stop()


@pytest.fixture(scope="module")
def assuming(tmp_path_factory, store):
    server = serve(tmp_path_factory.mktemp("icecore"), store, "role", "vended", ICECORE_STORAGE_ROLE_ARN=store.ROLE)
    yield server
    server.stop()


def test_keys_of_a_role_open_one_table_and_nothing_else(assuming, store):
    _, body = load(assuming, "events", {"x-iceberg-access-delegation": "vended-credentials"})
    (credential,) = body["storage-credentials"]
    assert credential["config"]["s3.access-key-id"] != store.KEY
    s3 = open_store(credential["config"])
    bucket, own = store.BUCKET, credential["prefix"].removeprefix(f"s3://{store.BUCKET}/")
    assert own.endswith("/")
    metadata = body["metadata-location"].removeprefix(f"s3://{bucket}/")
    assert json.loads(s3.get_object(Bucket=bucket, Key=metadata)["Body"].read())["location"] + "/" == credential["prefix"]
    s3.put_object(Bucket=bucket, Key=f"{own}data/new", Body=b"x")
    assert [item["Key"] for item in s3.list_objects_v2(Bucket=bucket, Prefix=f"{own}data/new")["Contents"]] == [f"{own}data/new"]
    s3.delete_object(Bucket=bucket, Key=f"{own}data/new")
    # Another table, one whose name begins alike, the folder above, the other warehouses of the bucket.
    _, _, made = ask(assuming, "POST", f"namespaces/{NAMESPACE}/tables", {"name": "other", "schema": {"type": "struct", "schema-id": 0, "fields": []}})
    other = made["metadata-location"].removeprefix(f"s3://{bucket}/")
    for key in [other, f"{own[:-1]}2/x", own.split("/")[0] + "/x", "x"]:
        check_forbidden(lambda: s3.get_object(Bucket=bucket, Key=key))
        check_forbidden(lambda: s3.put_object(Bucket=bucket, Key=key, Body=b"x"))
        check_forbidden(lambda: s3.delete_object(Bucket=bucket, Key=key))
    for prefix in ["", "role/", other.rsplit("/", 1)[0] + "/", own[:-1]]:
        check_forbidden(lambda: s3.list_objects_v2(Bucket=bucket, Prefix=prefix))


def test_keys_of_a_reader_write_nothing(tmp_path, store):
    environment = store.environment() | {"ICECORE_STORAGE_ROLE_ARN": store.ROLE, "ICECORE_AUTH": "on"}
    server = Server(tmp_path, ["--warehouse", f"s3://{store.BUCKET}/readers"], environment).start()
    try:
        found = {}
        for scope in ("write", "read"):
            token = server.run("token", "create", scope, "--ns", NAMESPACE, "--scope", scope, "--data-dir", str(server.folder / "data")).strip()
            client = Client(server.url, token=token)
            if scope == "write":
                client.request("POST", "/catalog/v1/namespaces", json.dumps({"namespace": [NAMESPACE]}))
                client.request("POST", f"/catalog/v1/namespaces/{NAMESPACE}/tables", json.dumps({"name": "t", "schema": {"type": "struct", "schema-id": 0, "fields": []}}))
            status, _, raw = client.request("GET", f"/catalog/v1/namespaces/{NAMESPACE}/tables/t", headers={"x-iceberg-access-delegation": "vended-credentials"})
            assert status == 200, raw
            found[scope] = json.loads(raw)
        where = urlsplit(found["read"]["metadata-location"])
        bucket, metadata = where.netloc, where.path[1:]
        writer, reader = (open_store(found[scope]["config"]) for scope in ("write", "read"))
        writer.put_object(Bucket=bucket, Key=metadata + ".copy", Body=reader.get_object(Bucket=bucket, Key=metadata)["Body"].read())
        check_forbidden(lambda: reader.put_object(Bucket=bucket, Key=metadata, Body=b"x"))
        check_forbidden(lambda: reader.delete_object(Bucket=bucket, Key=metadata + ".copy"))
    finally:
        server.stop()


def open_store(keys: dict):
    """The store with keys that the catalog handed out."""
    return boto3.client("s3", endpoint_url=keys["s3.endpoint"], aws_access_key_id=keys["s3.access-key-id"], region_name=keys["s3.region"],
                        aws_secret_access_key=keys["s3.secret-access-key"], aws_session_token=keys["s3.session-token"])


def check_forbidden(call) -> None:
    with pytest.raises(ClientError) as refused:
        call()
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_engines_read_and_write_with_keys_of_a_role(assuming, spark_session):
    lake, duck = PyIceberg(assuming.url + "/catalog"), DuckDB(assuming.url + "/catalog")
    spark = Spark(spark_session, assuming.url + "/catalog")
    written = lake.catalog.create_table((NAMESPACE, "written"), pyarrow.schema([("id", pyarrow.string())]))
    written.append(pyarrow.table({"id": ["pyiceberg"]}))
    duck.rows(f"INSERT INTO {duck.table(NAMESPACE, 'written')} VALUES ('duckdb')")
    spark.rows(f"INSERT INTO {spark.table(NAMESPACE, 'written')} VALUES ('spark')")
    for engine in (lake, duck, spark):
        assert len(set(engine.ids(NAMESPACE, "events"))) == EVENTS, engine.name
        assert sorted(engine.ids(NAMESPACE, "written")) == ["duckdb", "pyiceberg", "spark"], engine.name


def send(store, method, uri, headers, body=None):
    parts = urlsplit(uri)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
    connection.request(method, parts.path + (f"?{parts.query}" if parts.query else ""), body, {name: ",".join(values) for name, values in headers.items()})
    response = connection.getresponse()
    return response.status, response.read()


def test_a_signature_opens_the_table_and_nothing_else(signing, store):
    _, body = load(signing, "events")
    config, metadata = body["config"], body["metadata"]
    assert config["s3.remote-signing-enabled"] == "true" and "s3.access-key-id" not in config
    endpoint = config["s3.signer.endpoint"].removeprefix("v1/")
    key = body["metadata-location"].removeprefix("s3://")
    uri = f"{store.endpoint}/{key}"

    def sign(method, uri, **more):
        return ask(signing, "POST", endpoint, {"region": store.REGION, "uri": uri, "method": method, "headers": {}} | more)

    status, answered, signed = sign("GET", uri)
    assert status == 200 and answered["cache-control"] == "no-cache"
    status, raw = send(store, "GET", uri, signed["headers"])
    assert status == 200 and json.loads(raw)["table-uuid"] == metadata["table-uuid"]
    # The signature is of this object and this method.
    other = uri.replace("metadata.json", "metadata.jsox")
    assert send(store, "GET", other, signed["headers"])[0] == 403
    assert send(store, "DELETE", uri, signed["headers"])[0] == 403
    own = f"{store.endpoint}/{store.BUCKET}/{metadata['location'].split('/', 3)[3]}"
    # What the table's writer may do: put, list and delete there.
    _, _, put = sign("PUT", f"{own}/data/a%20b", headers={"content-type": ["text/plain"]})
    assert send(store, "PUT", f"{own}/data/a%20b", put["headers"], b"x")[0] == 200
    listing = f"{store.endpoint}/{store.BUCKET}?list-type=2&prefix={metadata['location'].split('/', 3)[3]}/data/a"
    status, _, listed = sign("GET", listing)
    assert status == 200
    status, raw = send(store, "GET", listing, listed["headers"])
    assert status == 200 and b"a b</Key>" in raw
    key = f"{metadata['location'].split('/', 3)[3]}/data/a b"
    xml = f"<Delete><Object><Key>{key}</Key></Object></Delete>"
    # The store does not compare a body with its digest, so that one may delete what it likes.
    assert sign("POST", f"{store.endpoint}/{store.BUCKET}?delete", body=xml)[0] == 403
    _, _, deleting = sign("DELETE", f"{own}/data/a%20b")
    assert send(store, "DELETE", f"{own}/data/a%20b", deleting["headers"])[0] == 204
    for method, foreign in [("GET", f"{store.endpoint}/{store.BUCKET}/other"), ("GET", f"{own}/../x"), ("GET", f"{own}2/x"),
                            ("PUT", f"{own}/x?acl"), ("GET", f"{store.endpoint}/{store.BUCKET}?list-type=2"), ("GET", "http://127.0.0.1:1/x")]:
        status, _, refused = sign(method, foreign)
        assert status == 403, (foreign, refused)


def test_spark_reads_and_writes_with_signed_requests(signing, spark_session):
    spark = Spark(spark_session, signing.url + "/catalog")
    assert len(spark.ids(NAMESPACE, "events")) == EVENTS
    table = spark.table(NAMESPACE, "copy")
    # Not in one statement: a table that is only staged is not in the catalog, and nothing is signed for it.
    spark.rows(f"CREATE TABLE {table} (id STRING, type STRING) USING iceberg")
    spark.rows(f"INSERT INTO {table} SELECT id, type FROM {spark.table(NAMESPACE, 'events')}")
    spark.rows(f"DELETE FROM {table} WHERE id < 'signed-3'")
    left = spark.rows(f"SELECT count(*) FROM {table}")[0][0]
    ids = [f"signed-{n}" for n in range(EVENTS)]
    assert left == sum(not id < "signed-3" for id in ids)
    # With PURGE Spark deletes the files itself, after the drop, and then nothing is signed any more.
    spark.rows(f"DROP TABLE {table}")


def test_pyiceberg_reads_and_writes_with_signed_requests(signing):
    """Its file IO for that is the one of s3fs, which the catalog names in the table's settings.

    PyIceberg 0.12 puts its signer on the client of s3fs. Newer versions of that pair lose it, and then a request goes out
    unsigned and the store refuses it: s3fs 2026.2.0 to 2026.4.0 makes its client anew before the first request, and from
    fsspec 2026.6.0 on threads share one client, from which PyIceberg takes the signer away for a moment whenever a thread opens a table.
    """
    lake = PyIceberg(signing.url + "/catalog")
    assert len(set(lake.ids(NAMESPACE, "events"))) == EVENTS
    table = lake.catalog.create_table((NAMESPACE, "signed"), pyarrow.schema([("id", pyarrow.string())]))
    assert "s3.access-key-id" not in table.io.properties
    for turn in range(3):
        table.append(pyarrow.table({"id": [f"{turn}-{n}" for n in range(10)]}))
    table.delete("id = '0-1'")
    assert len(set(lake.ids(NAMESPACE, "signed"))) == 29
