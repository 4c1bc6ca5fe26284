"""A disk that is really full: nothing acknowledged is lost, reads go on, and writes come back with the space.

The disk is a small tmpfs in a mount namespace of its own, so this file runs itself as a program in there: it needs
root, or user namespaces. Where neither is allowed the test fails and says so.
"""
import errno
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

from engines import DuckDB, PyIceberg
from icecore import BROKEN, Client, Refused
from server import Server

DISK = 64 << 20
BALLAST = 24 << 20
SEGMENT = 2 << 20
NAMESPACE, TABLE = "disk.example", "disk_example"
SETTINGS = ["--set", "wal.segment_bytes=2MiB", "--set", "commit.interval=1s", "--set", "wal.disk_free_min=0.05"]
# As a namespace of root, as one of another user, and without one.
WAYS = [["unshare", "-m"], ["unshare", "-rm"], []]
PATIENCE = 60


def test_a_full_disk_loses_nothing_and_recovers_without_a_restart(tmp_path):
    run_on_small_disk("fill_and_recover", tmp_path)


def test_a_log_that_nearly_filled_its_disk_is_drained_while_nobody_makes_room(tmp_path):
    run_on_small_disk("drain_without_room", tmp_path)


def test_a_start_on_a_full_disk_has_the_room_that_it_needs(tmp_path):
    run_on_small_disk("start_without_room", tmp_path)


def run_on_small_disk(scenario: str, folder: Path) -> None:
    command = [*way_to_mount(folder), sys.executable, __file__, scenario, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def way_to_mount(folder: Path) -> list[str]:
    """What to put before a command so that it may mount."""
    problems = []
    for way in WAYS:
        if way and not shutil.which(way[0]):
            problems.append(f"{way[0]} is not installed")
            continue
        probe = subprocess.run([*way, "sh", "-c", f"mount -t tmpfs -o size=1m none '{folder}' && umount '{folder}'"], capture_output=True, text=True)
        if probe.returncode == 0:
            return way
        problems.append(f"{' '.join(way) or 'mount'}: {probe.stderr.strip()}")
    raise AssertionError("no way to mount a small disk here (run as root, or allow user namespaces): " + "; ".join(problems))


def write_until_full(path: Path, limit: int = DISK) -> int:
    """Writes zeros until the disk has no byte left; how many."""
    written = 0
    with open(path, "wb", buffering=0) as file:
        try:
            while written < limit:
                written += file.write(bytes(min(1 << 16, limit - written)))
        except OSError as problem:
            assert problem.errno == errno.ENOSPC, problem
    return written


class Sender:
    """Sends batches that hardly compress, and remembers what was acknowledged."""

    def __init__(self, url: str):
        self.client, self.turn, self.batches, self.random = Client(url, timeout=30), 0, [], random.Random(7)

    def batch(self) -> list[str]:
        self.turn += 1
        return [json.dumps({"id": f"{self.turn}-{n}", "type": "disk.fill", "data": self.random.randbytes(500).hex()}) for n in range(100)]

    def send(self, lines: list[str]) -> tuple[int, dict, dict]:
        headers = {"content-type": "application/x-ndjson", "x-namespace": NAMESPACE}
        status, headers, raw = self.client.request("POST", "/ingest", "\n".join(lines).encode(), headers)
        if status == 200:
            self.batches.append(lines)
        return status, headers, json.loads(raw)

    def send_until_full(self) -> None:
        while True:
            lines = self.batch()
            status, headers, reply = self.send(lines)
            if status != 200:
                assert status == 503, (status, reply)
                assert headers["retry-after"], headers
                assert reply["code"] == "UNAVAILABLE", reply
                return

    def ids(self) -> set[str]:
        return {json.loads(line)["id"] for lines in self.batches for line in lines}


def fill_and_recover(folder: Path) -> None:
    disk = folder / "data"
    ballast = disk / "ballast"
    write_until_full(ballast, BALLAST)
    server = Server(folder, SETTINGS).start()
    sender = Sender(server.url)
    try:
        # However fast the disk fills, the table is there before.
        assert sender.send(sender.batch())[0] == 200
        sender.client.commit(NAMESPACE)
        sender.send_until_full()
        check_reads(sender)

        # Somebody else takes the rest, to the last byte.
        fill_up(disk, sender)
        refuse_namespaces(sender)
        check_reads(sender)
        # A repeat needs no room.
        assert sender.client.send(sender.batches[0], NAMESPACE)[1]["duplicates"] == len(sender.batches[0])
        server.kill()
        restart(server, sender)
        check_reads(sender)
        assert server.stop() == 0
        restart(server, sender)
        check_reads(sender)
        fill_up(disk, sender)
        check_reads(sender)

        # With room again, writes come back on their own.
        for filler in disk.glob("filler-*"):
            filler.unlink()
        ballast.unlink()
        deadline = time.monotonic() + PATIENCE
        while (answer := sender.send(sender.batch()))[0] != 200:
            assert time.monotonic() < deadline, answer
            time.sleep(0.1)
        for _ in range(20):
            assert sender.send(sender.batch())[0] == 200
        made = sender.client.request("POST", "/catalog/v1/namespaces", b'{"namespace":["after"]}', {"content-type": "application/json"})
        assert made[0] == 200, made
        server.kill()
        restart(server, sender)
        for lines in sender.batches:
            assert sender.client.send(lines, NAMESPACE)[1]["duplicates"] == len(lines)
        drain(sender)
        check_reads(sender)
        check_engines(server, sender)
        assert server.stop() == 0
    except BaseException:
        tell(disk, server, sender)
        raise
    finally:
        server.kill()


def drain_without_room(folder: Path) -> None:
    """Nothing is sent any more once the disk is nearly full, so nothing but the drain itself can make room."""
    disk = folder / "data"
    write_until_full(disk / "ballast", BALLAST)
    server = Server(folder, ["--set", "wal.segment_bytes=2MiB", "--set", "commit.interval=10min", "--set", "wal.disk_free_min=0.05"]).start()
    sender = Sender(server.url)
    try:
        while 3 * DISK // 40 < free(disk):
            status, _, reply = sender.send(sender.batch())
            assert status == 200, (status, reply)
        logged = log_bytes(disk)
        drain(sender)
        check_reads(sender)
        # Beside its segments it keeps some files to make new ones of, which give way to a commit that lacks room.
        segments = sum(file.stat().st_size for file in (disk / "wal").glob("*.seg"))
        assert segments <= 4 * SEGMENT and log_bytes(disk) <= logged // 2, f"{logged} bytes of log became {log_bytes(disk)}, {segments} in segments"
        # What was freed is there for what comes next.
        for _ in range(20):
            assert sender.send(sender.batch())[0] == 200
        drain(sender)
        check_engines(server, sender)
        assert server.stop() == 0
    except BaseException:
        tell(disk, server, sender)
        raise
    finally:
        server.kill()


def start_without_room(folder: Path) -> None:
    """However a server ended, and however much of the metastore is in its journal alone, the next one starts."""
    disk = folder / "data"
    server = Server(folder, SETTINGS).start()
    sender = Sender(server.url)
    try:
        assert sender.send(sender.batch())[0] == 200
        sender.client.commit(NAMESPACE)
        for turn, end in enumerate([server.kill, server.stop, server.kill, server.kill, server.stop, server.kill]):
            # More than fits into what the metastore's file has free, every time.
            for number in range(30):
                body = json.dumps({"namespace": [f"turn{turn}_{number}"], "properties": {"text": "x" * 20_000}})
                assert sender.client.request("POST", "/catalog/v1/namespaces", body, {"content-type": "application/json"})[0] == 200
            write_until_full(disk / "filler")
            end()
            write_until_full(disk / "more")
            assert free(disk) == 0
            restart(server, sender)
            check_reads(sender)
            for filler in ("filler", "more"):
                (disk / filler).unlink()
            server.kill()
            restart(server, sender)
    except BaseException:
        print(shutil.disk_usage(disk))
        subprocess.run(["find", str(disk), "-maxdepth", "1", "-type", "f", "-printf", "%s %p\n"])
        print(server.log_tail()[-6000:])
        raise
    finally:
        server.kill()


def check_engines(server: Server, sender: Sender) -> None:
    """Each acknowledged event is there once for engines that read the catalog."""
    for engine in (DuckDB(server.url + "/catalog"), PyIceberg(server.url + "/catalog")):
        ids = engine.ids(TABLE, "events")
        assert len(ids) == len(set(ids)), f"{engine.name}: an event is there twice"
        assert set(ids) == sender.ids(), f"{engine.name}: an acknowledged event is lost"


def tell(disk: Path, server: Server, sender: Sender) -> None:
    """How things were when a test failed."""
    print(shutil.disk_usage(disk), len(sender.batches), "batches")
    subprocess.run(["find", str(disk), "-type", "f", "-size", "+100k", "-printf", "%s %p\n"])
    print(server.log_tail()[-6000:])


def log_bytes(disk: Path) -> int:
    return sum(file.stat().st_size for file in (disk / "wal").rglob("*") if file.is_file())


def fill_up(disk: Path, sender: Sender) -> None:
    """Leaves no byte free and no room in the log: its last segment takes what fits, and a drain may still free some."""
    deadline = time.monotonic() + PATIENCE
    while True:
        write_until_full(disk / f"filler-{time.monotonic_ns()}")
        sender.send_until_full()
        if free(disk) == 0:
            return
        assert time.monotonic() < deadline, "the disk does not fill up"


def restart(server: Server, sender: Sender) -> None:
    """Returns once the server answers: while its log has no room it says that it is not ready."""
    server.spawn()
    # Its connection ended with the process.
    sender.client.close()
    deadline = time.monotonic() + PATIENCE
    while True:
        assert server.process.poll() is None, f"the server ended: {server.log_tail()[-3000:]}"
        try:
            status, _, _ = sender.client.request("GET", "/healthz")
            assert status == 200, status
            return
        except BROKEN:
            sender.client.close()
        assert time.monotonic() < deadline, "the server does not answer"
        time.sleep(0.02)


def free(disk: Path) -> int:
    return shutil.disk_usage(disk).free


def drain(sender: Sender) -> None:
    """Waits until the log is in the tables, which frees it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return sender.client.commit(NAMESPACE)
        except Refused as problem:
            assert problem.status in (500, 503), problem
            assert time.monotonic() < deadline, f"the log is not drained: {problem}"
            time.sleep(0.1)


def check_reads(sender: Sender) -> None:
    """SQL sees what was acknowledged, each event once."""
    rows = sender.client.sql(NAMESPACE, "SELECT count(*), count(DISTINCT id) FROM events")
    assert rows == [(len(sender.ids()),) * 2], (rows, len(sender.ids()))


def refuse_namespaces(sender: Sender) -> None:
    """The metastore takes nothing more either, says so, and goes on answering."""
    for number in range(10_000):
        body = json.dumps({"namespace": [f"space{number}"], "properties": {"text": "x" * 20_000}})
        status, _, _ = sender.client.request("POST", "/catalog/v1/namespaces", body, {"content-type": "application/json"})
        if status != 200:
            assert status in (500, 503), status
            break
    else:
        raise AssertionError("the metastore wrote to a full disk")
    status, _, raw = sender.client.request("GET", "/catalog/v1/namespaces")
    assert status == 200 and TABLE in raw.decode(), raw


if __name__ == "__main__":
    scenario, folder = sys.argv[1], Path(sys.argv[2])
    (folder / "data").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(folder / "data")], check=True)
    try:
        globals()[scenario](folder)
    finally:
        os.chdir("/")
        subprocess.run(["umount", "--lazy", str(folder / "data")], check=True)
