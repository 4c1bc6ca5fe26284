"""Icecore over HTTP, with nothing but the standard library: send, query, commit; and senders that do not give up."""
import http.client
import json
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

RETRY_STATUS = {429, 500, 503}
BROKEN = (OSError, http.client.HTTPException)


class Refused(Exception):
    """An answer that is an error and that no retry will change."""

    def __init__(self, status: int, body: bytes):
        super().__init__(f"{status} {body[:500]!r}")
        self.status, self.body = status, body


class Client:
    """One kept-alive connection; not for use by two threads."""

    def __init__(self, url: str, timeout: float = 120, token: str | None = None):
        parts = urlsplit(url)
        self.host, self.port, self.timeout = parts.hostname, parts.port, timeout
        self.authorization = {"authorization": f"Bearer {token}"} if token else {}
        self.connection = None

    def request(self, method: str, path: str, body=None, headers=None) -> tuple[int, dict, bytes]:
        """One attempt: status, headers (names in lower case), body. Raises what is in `BROKEN`."""
        if self.connection is None:
            self.connection = http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)
        try:
            self.connection.request(method, path, body, self.authorization | (headers or {}))
            response = self.connection.getresponse()
            raw = response.read()
        except BROKEN:
            self.close()
            raise
        return response.status, {name.lower(): value for name, value in response.getheaders()}, raw

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def send(self, lines, namespace=None, query="") -> tuple[int, dict]:
        """One attempt to send NDJSON lines: status and reply."""
        headers = {"content-type": "application/x-ndjson"}
        if namespace:
            headers["x-namespace"] = namespace
        status, _, raw = self.request("POST", f"/ingest{query}", "\n".join(lines).encode(), headers)
        if status in (200, 207, 400) and raw.startswith(b"{"):
            reply = json.loads(raw)
            if status != 400 or "errors" in reply:
                return status, reply
        if status in RETRY_STATUS:
            return status, {}
        raise Refused(status, raw)

    def sql(self, namespace: str, statement: str, **more) -> list[tuple]:
        """The rows of a query."""
        body = json.dumps({"sql": statement, **more})
        path = f"/v1/{quote(namespace, safe='')}/sql"
        status, _, raw = self.request("POST", path, body, {"content-type": "application/json", "accept": "application/json"})
        if status != 200:
            raise Refused(status, raw)
        return [tuple(row) for row in json.loads(raw)["rows"]]

    def commit(self, namespace: str) -> dict:
        """Makes everything acknowledged so far visible to other engines."""
        status, _, raw = self.request("POST", f"/v1/{quote(namespace, safe='')}/commit", b"", {"content-type": "application/json"})
        if status != 200:
            raise Refused(status, raw)
        return json.loads(raw)


@dataclass
class Sent:
    """What senders were told."""

    replies: Counter = field(default_factory=Counter)
    duplicates: int = 0
    retries: int = 0
    errors: list = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, status: int, reply: dict) -> None:
        with self.lock:
            self.replies[status] += 1
            self.duplicates += reply.get("duplicates", 0)
            self.errors += reply.get("errors", [])


def send_until_taken(client: Client, lines, sent: Sent, namespace=None, query="", patience: float = 120) -> dict:
    """Sends a batch again and again until the server has taken it or refused it for good."""
    deadline, pause = time.monotonic() + patience, 0.05
    while True:
        try:
            status, reply = client.send(lines, namespace, query)
            if status not in RETRY_STATUS:
                sent.note(status, reply)
                return reply
        except BROKEN as error:
            status = error
        if deadline < time.monotonic():
            raise TimeoutError(f"a batch was not taken in {patience} s, last answer: {status!r}")
        with sent.lock:
            sent.retries += 1
        time.sleep(pause * random.uniform(0.5, 1))
        pause = min(1, pause * 2)


def batches(lines, size: int, bytes_max: int = 4 << 20):
    """Cuts lines into batches of at most `size` lines and about `bytes_max` characters."""
    batch, length = [], 0
    for line in lines:
        if batch and (len(batch) == size or bytes_max < length + len(line)):
            yield batch
            batch, length = [], 0
        batch.append(line)
        length += len(line)
    if batch:
        yield batch


def send_all(url: str, lines, workers: int = 8, size: int = 500, namespace=None, query="", token: str | None = None) -> Sent:
    """Sends all lines as batches over this many connections at once."""
    sent, queue, lock, failures = Sent(), batches(lines, size), threading.Lock(), []

    def work():
        client = Client(url, token=token)
        while not failures:
            with lock:
                batch = next(queue, None)
            if batch is None:
                break
            try:
                send_until_taken(client, batch, sent, namespace, query)
            except Exception as failure:  # noqa: BLE001 - handed to the caller's thread
                failures.append(failure)
        client.close()

    in_parallel([work] * workers)
    if failures:
        raise failures[0]
    return sent


def in_parallel(jobs) -> list:
    """Runs the jobs in threads of their own; their results, or the first failure."""
    results, failures = [None] * len(jobs), []

    def run(at, job):
        try:
            results[at] = job()
        except Exception as failure:  # noqa: BLE001 - handed to the caller's thread
            failures.append(failure)

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return results


def catalog_name(namespace: str) -> str:
    """The catalog's name of a namespace."""
    return "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in namespace.lower())
