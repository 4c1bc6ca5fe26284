"""A store that refuses: keys that are wrong or may only read, a bucket that is not there. No server starts on it, and `doctor`
and the start say what the store said; a server that runs says so when it is asked whether it is ready.
"""
import json
import subprocess

import pytest
from proxy import Proxy
from server import SeaweedFS, Server, binary, plain_environment
from test_s3 import told_by, until

WRONG_SECRET = {"ICECORE_S3_SECRET_ACCESS_KEY": "notthesecret"}
UNKNOWN_KEY = {"ICECORE_S3_ACCESS_KEY_ID": "nobody"}
READER = {"ICECORE_S3_ACCESS_KEY_ID": SeaweedFS.READER_KEY, "ICECORE_S3_SECRET_ACCESS_KEY": SeaweedFS.READER_SECRET}
# SeaweedFS makes a bucket that an administrator writes to; this one is none.
WRITER = {"ICECORE_S3_ACCESS_KEY_ID": SeaweedFS.WRITER_KEY, "ICECORE_S3_SECRET_ACCESS_KEY": SeaweedFS.WRITER_SECRET}
# The bucket, the environment, and what the store may say.
REFUSED = {
    "wrong secret": (SeaweedFS.BUCKET, WRONG_SECRET, ["SignatureDoesNotMatch"]),
    "unknown key": (SeaweedFS.BUCKET, UNKNOWN_KEY, ["InvalidAccessKeyId"]),
    "read-only": (SeaweedFS.BUCKET, READER, ["AccessDenied"]),
    "no bucket": ("nowhere", WRITER, ["NoSuchBucket", "AccessDenied"]),
}


@pytest.fixture(params=REFUSED, ids=lambda name: name.replace(" ", "-"))
def refused(request, store):
    """The warehouse, the environment, and what is to be said."""
    bucket, environment, codes = REFUSED[request.param]
    return f"s3://{bucket}/refused", store.environment() | environment, codes


def doctor(folder, warehouse, environment) -> tuple[int, dict]:
    """How it ended, and its checks by name."""
    settings = [f"data_dir={folder}", "listen=127.0.0.1:0", f"warehouse={warehouse}", "wal.disk_free_min=0"]
    command = [binary(), "doctor", "--json", *(word for setting in settings for word in ("--set", setting))]
    done = subprocess.run(command, env=plain_environment() | environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    return done.returncode, {check["check"]: check for check in json.loads(done.stdout)["checks"]}


def check_told(text: str, warehouse: str, codes: list, environment: dict) -> None:
    """It has the place, what failed, and the store's own word for it; and no secret."""
    assert f"{warehouse} does not let this server write files: 40" in text, text
    assert any(code in text for code in codes), text
    assert environment["ICECORE_S3_SECRET_ACCESS_KEY"] not in text


def test_a_server_does_not_start_and_says_why(tmp_path, refused):
    warehouse, environment, codes = refused
    server = Server(tmp_path, ["--warehouse", warehouse], environment)
    server.spawn()
    try:
        # Told by the store at once; nobody waits for a refusal to go away.
        assert server.process.wait(timeout=30) == 1
        told = server.log_tail()
        assert "the warehouse cannot be used" in told and "s3.*" in told, told
        check_told(told, warehouse, codes, environment)
        assert "listening on" not in told
    finally:
        server.kill()


def test_doctor_says_why(tmp_path, refused):
    warehouse, environment, codes = refused
    code, checks = doctor(tmp_path / "data", warehouse, environment)
    failed = [name for name, check in checks.items() if not check["ok"]]
    assert (code, failed) == (1, ["warehouse"]), checks
    check_told(checks["warehouse"]["text"], warehouse, codes, environment)


def test_the_same_warehouse_is_fine_with_keys_that_may_write(tmp_path, store):
    """So it is the keys that were refused; one that may write and is no administrator is enough."""
    warehouse, environment = f"s3://{store.BUCKET}/refused", store.environment() | WRITER
    code, checks = doctor(tmp_path / "data", warehouse, environment)
    assert code == 0 and checks["warehouse"]["text"] == f"{warehouse}: written, read and deleted", checks
    server = Server(tmp_path, ["--warehouse", warehouse], environment).start()
    try:
        client = server.client()
        assert client.send(['{"id":"e","type":"t"}'])[0] == 200
        client.commit("default")
        assert client.sql("default", "SELECT id FROM events") == [("e",)]
    finally:
        server.stop()


class PlainStore(Proxy):
    """Before a store: it does not know some requests, and counts those that it passes on."""

    def __init__(self, store, *unknown):
        self.unknown, self.passed, self.refused = unknown, [], []
        super().__init__(store.endpoint)

    def answer(self, method, path, body, forward):
        request = f"{method} ?delete" if "?delete" in path else method
        if request in self.unknown:
            self.refused.append(request)
            return 501, [("content-type", "application/xml")], b"<Error><Code>NotImplemented</Code></Error>"
        self.passed.append(request)
        return forward()


@pytest.fixture
def plain(request, store):
    proxy = PlainStore(store, *request.param)
    yield proxy, store.environment() | {"ICECORE_S3_ENDPOINT": proxy.url}
    proxy.close()


@pytest.mark.parametrize("plain", [["POST ?delete"]], indirect=True)
def test_a_store_that_deletes_one_object_a_request_is_enough(tmp_path, store, plain):
    proxy, environment = plain
    server = Server(tmp_path, ["--warehouse", f"s3://{store.BUCKET}/plain"], environment).start()
    try:
        client = server.client()
        until(lambda: told_by(client, 200))
        assert client.send(['{"id":"e","type":"t"}'])[0] == 200
        client.commit("default")
        assert client.sql("default", "SELECT id FROM events") == [("e",)]
        assert "DELETE" in proxy.passed and not proxy.refused
    finally:
        server.stop()


@pytest.mark.parametrize("plain", [["POST ?delete", "DELETE"]], indirect=True)
def test_a_store_that_deletes_nothing_is_told_at_the_start(tmp_path, store, plain):
    _, environment = plain
    warehouse = f"s3://{store.BUCKET}/kept"
    server = Server(tmp_path, ["--warehouse", warehouse], environment)
    server.spawn()
    try:
        assert server.process.wait(timeout=30) == 1
        assert f"{warehouse} does not let this server delete files: 501 Not Implemented NotImplemented" in server.log_tail()
    finally:
        server.kill()


def test_keys_that_are_replaced_under_a_server_are_told_and_nothing_is_lost(tmp_path):
    store = SeaweedFS(tmp_path / "store").start()
    arguments = ["--warehouse", f"s3://{store.BUCKET}/replaced", "--set", "commit.interval=1s"]
    server = Server(tmp_path / "icecore", arguments, store.environment()).start()
    client = server.client()

    def send(first):
        assert client.send([f'{{"id":"e{n}","type":"t"}}' for n in range(first, first + 10)])[0] == 200

    try:
        send(0)
        client.commit("default")
        store.stop()
        store.SECRET = "replacedsecret"
        store.start()
        send(10)
        # While the store was away another reason was told.
        told = until(lambda: (text := told_by(client, 503)) and "SignatureDoesNotMatch" in text and text)
        assert "the warehouse cannot be used, events wait in the log" in told and "403 Forbidden" in told
        send(20)
        store.stop()
        del store.SECRET
        store.start()
        until(lambda: told_by(client, 200))
        client.commit("default")
        assert client.sql("default", "SELECT count(*), count(DISTINCT id) FROM events") == [(30, 30)]
    finally:
        server.kill()
        store.stop()
