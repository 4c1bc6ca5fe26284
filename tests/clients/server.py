"""Servers of a test: Icecore itself, and SeaweedFS as an S3 store. All listen on 127.0.0.1 and end with the test."""
import base64
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from icecore import BROKEN, Client

ROOT = Path(__file__).resolve().parents[2]
LISTENING = re.compile(r"listening on (?:\x1b\[[0-9;]*m)*(http://[0-9.]+:[0-9]+)")


def binary() -> str:
    """The server to test: $ICECORE_BIN, else the dev build."""
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    return os.environ.get("ICECORE_BIN") or str(target / "debug" / "icecore")


def plain_environment() -> dict:
    """The environment without ours: Icecore takes every ICECORE_ variable for a setting, and refuses unknown ones.

    A test passes on a machine whose disk is nearly full too: by default 5 % of the disk must be free. No table of a
    collection and no tag of a day appears because a test takes long."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("ICECORE_")}
    return others | {"ICECORE_WAL_DISK_FREE_MIN": "0", "ICECORE_COLLECTIONS_REFRESH_INTERVAL": "24h",
                     "ICECORE_COLLECTIONS_DAILY_TAGS": "0", "ICECORE_COLLECTIONS_MONTHLY_TAGS": "0"}


class Server:
    """One `icecore serve` on a data folder; may be killed and started again."""

    def __init__(self, folder: Path, arguments=(), environment=None):
        self.folder, self.arguments = Path(folder), list(arguments)
        self.environment = environment or {}
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log_path = self.folder / "server.log"
        self.process = None
        self.port = 0
        self.url = ""

    def spawn(self, environment=None) -> None:
        """Starts the process and returns at once. A restart listens where it listened before."""
        # No files are merged because a test runs when an hour is over.
        command = [binary(), "serve", "--listen", f"127.0.0.1:{self.port}", "--data-dir", str(self.folder / "data"), "--set", "compaction.hour_cron=", *self.arguments]
        self.log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(command, env=plain_environment() | self.environment | (environment or {}), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait_ready(self, patience: float = 60) -> bool:
        """Waits until the server takes writes; false when the process has ended instead."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                return False
            found = LISTENING.search(self.log_tail())
            if found:
                self.url = found.group(1)
                self.port = int(self.url.rsplit(":", 1)[1])
                if self.is_ready():
                    return True
            time.sleep(0.02)
        raise TimeoutError(f"not ready after {patience} s:\n{self.log_tail()[-3000:]}")

    def is_ready(self) -> bool:
        client = Client(self.url, timeout=5)
        try:
            return client.request("GET", "/readyz")[0] == 200
        except BROKEN:
            return False
        finally:
            client.close()

    def start(self, environment=None) -> "Server":
        self.spawn(environment)
        if not self.wait_ready():
            raise RuntimeError(f"the server ended with {self.process.returncode}:\n{self.log_tail()[-3000:]}")
        return self

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self, patience: float = 30) -> int:
        """A graceful stop; its exit code."""
        if self.process is None or self.process.poll() is not None:
            return self.process.returncode if self.process else 0
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(f"no stop within {patience} s:\n{self.log_tail()[-3000:]}") from None

    def log_tail(self) -> str:
        """What the process wrote since it was last started."""
        with open(self.log_path, "rb") as log:
            log.seek(self.log_start)
            return log.read().decode(errors="replace")

    def client(self) -> Client:
        return Client(self.url)

    def run(self, *arguments) -> str:
        """Runs another command of the binary; what it printed."""
        done = subprocess.run([binary(), *arguments], env=plain_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert done.returncode == 0, f"`icecore {' '.join(arguments)}` ended with {done.returncode}:\n{done.stderr[-3000:]}"
        return done.stdout


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class SeaweedFS:
    """An S3 store with one bucket, keys of its administrator, of a writer and of a reader, and a role that may be assumed and opens all of it."""

    KEY, SECRET, BUCKET, REGION = "lakekey", "lakesecret", "lake", "us-east-1"
    WRITER_KEY, WRITER_SECRET = "writerkey", "writersecret"
    READER_KEY, READER_SECRET = "readerkey", "readersecret"
    ROLE = "arn:aws:iam::role/tables"

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.process = None
        self.endpoint = ""

    def start(self) -> "SeaweedFS":
        """Starts it; again at the address that it had."""
        (self.folder / "volumes").mkdir(parents=True, exist_ok=True)
        (self.folder / "s3.json").write_text(json.dumps({"identities": self.identities()}))
        (self.folder / "roles.json").write_text(json.dumps(self.roles()))
        # Each service also listens for gRPC on its port + 10000. Below 32768 no connection takes one of them meanwhile.
        if not self.endpoint:
            port = next(port for port in iter(lambda: free_port() % 2700 + 20000, None) if all(map(is_free, range(port, port + 4))))
            self.endpoint = f"http://127.0.0.1:{port}"
        port = int(self.endpoint.rsplit(":", 1)[1])
        weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        command = [weed, "mini", f"-dir={self.folder / 'volumes'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-admin.ui=false", "-webdav=false",
                   "-master.telemetry=false", "-s3.port.lance=0", "-s3.port.iceberg=0", f"-s3.port={port}", f"-master.port={port + 1}",
                   f"-volume.port={port + 2}", f"-filer.port={port + 3}", "-s3.config=s3.json", "-s3.iam.config=roles.json", f"-bucket={self.BUCKET}"]
        self.log_path = self.folder / "weed.log"
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while b"All enabled components" not in self.log_path.read_bytes():
            if self.process.poll() is not None or deadline < time.monotonic():
                raise RuntimeError(f"SeaweedFS did not start:\n{self.log_path.read_text()[-3000:]}")
            time.sleep(0.1)
        return self

    def identities(self) -> list[dict]:
        """Who has keys, and what they may do."""

        def identity(name, key, secret, *actions) -> dict:
            return {"name": name, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}

        return [identity("lake", self.KEY, self.SECRET, "Admin", "Read", "Write", "List", "Tagging"),
                identity("writer", self.WRITER_KEY, self.WRITER_SECRET, "Read", "Write", "List", "Tagging"),
                identity("reader", self.READER_KEY, self.READER_SECRET, "Read", "List")]

    def roles(self) -> dict:
        """The store's token service and its one role."""

        def policy(**statement) -> dict:
            return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **statement}]}

        role = {"roleName": "tables", "roleArn": self.ROLE, "attachedPolicies": ["all"], "trustPolicy": policy(Principal="*", Action=["sts:AssumeRole"])}
        key = base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
        return {"sts": {"tokenDuration": "1h", "maxSessionLength": "12h", "issuer": "store", "signingKey": key},
                "policy": {"defaultEffect": "Deny", "storeType": "memory"},
                "policies": [{"name": "all", "document": policy(Action=["s3:*"], Resource=["*"])}],
                "roles": [role]}

    def environment(self) -> dict:
        """What Icecore needs to use it."""
        return {"ICECORE_S3_ENDPOINT": self.endpoint, "ICECORE_S3_REGION": self.REGION,
                "ICECORE_S3_ACCESS_KEY_ID": self.KEY, "ICECORE_S3_SECRET_ACCESS_KEY": self.SECRET}

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def is_free(port: int) -> bool:
    with socket.socket() as probe, socket.socket() as grpc:
        try:
            probe.bind(("127.0.0.1", port))
            grpc.bind(("127.0.0.1", port + 10000))
        except OSError:
            return False
    return True
