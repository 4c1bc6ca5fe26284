#!/usr/bin/env python3
"""Counts the instructions that release binaries need for a call and prints a Markdown table. `benches/README.md` says how to read it.

    benches/instructions.py --bin BEFORE --bin AFTER [--dir FOLDER]

Needs valgrind. Other work on the machine does not change the figures; a run takes about two minutes a binary.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "clients"), str(ROOT / "benches")]

from catalog import Rest, changes, manifest_list  # noqa: E402
from icecore import BROKEN, Client  # noqa: E402
from server import LISTENING, plain_environment  # noqa: E402

PATIENCE = 120


class Counter:
    """A server under callgrind, which counts between `count(True)` and `count(False)`."""

    def __init__(self, binary: str, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True)
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/counted", binary, "serve",
                   "--listen", "127.0.0.1:0", "--data-dir", str(folder / "data"), "--set", "commit.interval=10min"]
        with open(folder / "server.log", "wb") as log:
            self.process = subprocess.Popen(command, env=plain_environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE
        while not (found := LISTENING.search((folder / "server.log").read_text(errors="replace"))) or not self.is_ready(found.group(1)):
            if self.process.poll() is not None or deadline < time.monotonic():
                raise RuntimeError(f"no server:\n{(folder / 'server.log').read_text()[-2000:]}")
            time.sleep(0.2)

    def is_ready(self, url: str) -> bool:
        self.client = Client(url, timeout=PATIENCE)
        self.rest = Rest(f"{url}/catalog")
        try:
            return self.client.request("GET", "/readyz")[0] == 200
        except BROKEN:
            return False

    def count(self, is_on: bool) -> None:
        subprocess.run(["callgrind_control", "-i", "on" if is_on else "off", str(self.process.pid)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)

    def stop(self) -> int:
        self.process.terminate()
        self.process.wait(PATIENCE)
        counted = "".join(file.read_text() for file in self.folder.glob("counted*"))
        return sum(int(number) for number in re.findall(r"^totals: (\d+)", counted, re.MULTILINE))

    def send(self, events: list[dict], query: str = "") -> None:
        body = "\n".join(map(json.dumps, events)).encode()
        status, answer = self.client.request("POST", f"/ingest{query}", body, {"content-type": "application/x-ndjson"})[:2]
        assert status == 200, (status, answer)

    def bodies(self, first: int, last: int) -> list[bytes]:
        listed = manifest_list(self.location)
        return [self.rest.prepare(changes(number, number, listed, self.now_ms)) for number in range(first, last + 1)]

    def make_table(self) -> None:
        self.rest.create_namespace()
        self.location = self.rest.create("counted")
        self.now_ms = int(time.time() * 1000) + 1_000


def event(name: str, number: int) -> dict:
    data = {"n": number, "name": "some name", "list": [1, 2, 3], "flag": True, "text": f"a text of an event that has some words in it, {number}"}
    return {"id": name, "type": f"bench.t{number % 10}", "ns": "bench", "ts": 1_795_946_400_000 + number, "user_id": f"u{number % 97}", "data": data}


def events(counter: Counter, size: int, calls: int, query: str = "") -> None:
    sent = [[event(f"{call}-{number}", number) for number in range(size)] for call in range(-5, calls)]
    for call, batch in enumerate(sent, -5):
        if call == 0:
            counter.count(True)
        counter.send(batch, query)


def commits(counter: Counter, there: int, calls: int) -> None:
    counter.make_table()
    if there:
        counter.rest.commit("counted", counter.rest.prepare(changes(1, there, manifest_list(counter.location), counter.now_ms)))
    bodies = counter.bodies(there + 1, there + calls)
    counter.count(True)
    for body in bodies:
        counter.rest.commit("counted", body)


def loads(counter: Counter, calls: int) -> None:
    counter.make_table()
    for body in counter.bodies(1, 10):
        counter.rest.commit("counted", body)
    counter.rest.load("counted")
    counter.count(True)
    for _ in range(calls):
        counter.rest.load("counted")


CASES = [
    ("an event a request", 300, lambda counter: events(counter, 1, 300)),
    ("100 events a request", 40, lambda counter: events(counter, 100, 40)),
    ("1000 events a request", 8, lambda counter: events(counter, 1000, 8)),
    ("an event with `ack=committed`, mean of 100", 100, lambda counter: events(counter, 1, 100, "?ack=committed")),
    ("a client's commit, mean of the first 60 of a table", 60, lambda counter: commits(counter, 0, 60)),
    ("a client's commit with 1,000 snapshots there", 12, lambda counter: commits(counter, 1_000, 12)),
    ("loadTable, ten snapshots", 100, lambda counter: loads(counter, 100)),
]


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--bin", action="append", required=True)
    arguments.add_argument("--dir", default=None)
    given = arguments.parse_args()
    print("| thousand instructions a call |", " | ".join(os.path.basename(binary) for binary in given.bin), "|")
    print("|---|" + "---|" * len(given.bin))
    with tempfile.TemporaryDirectory(dir=given.dir) as folder:
        for at, (name, calls, run) in enumerate(CASES):
            counts = []
            for number, binary in enumerate(given.bin):
                counter = Counter(binary, Path(folder) / f"{at}-{number}")
                run(counter)
                counter.count(False)
                counts.append(counter.stop() / calls / 1000)
            shares = [f"{count:,.1f}" + (f" ({count / counts[0] - 1:+.1%})" if number else "") for number, count in enumerate(counts)]
            print(f"| {name} |", " | ".join(shares), "|", flush=True)


if __name__ == "__main__":
    main()
