"""Every command line of the README and of the documents below works as it stands, or is listed here with the reason why it is not run.

A line is pasted into bash in a folder with an `icecore.toml`, which has the port that the server got, and with an `icecore` in the path. What stands
for something else (`NS`, `…`, an address of this machine) is replaced.
"""
import json
import os
import re
import shlex
import signal
import subprocess
import time
import urllib.error
import urllib.request

import pytest
from server import LISTENING, ROOT, binary, plain_environment

SPAN = re.compile(r"(icecore|curl|cargo|chmod|\./check|[A-Z_]+=\S+) ")
EVENT = '{"id":"p-1","type":"Order.placed","ns":"shop.example"}'


def commands(text: str) -> list[str]:
    """The command lines of a document: those of its sh blocks, then those between backticks."""
    found, line = [], ""
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.S | re.M):
        for part in block.splitlines():
            line = f"{line}\n{part}" if line else part
            if not goes_on(line):
                found.append(line)
                line = ""
    prose = re.sub(r"^```.*?^```\n", "", text, flags=re.S | re.M)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    return list(dict.fromkeys(found + [span for span in spans if SPAN.match(span)]))


def goes_on(line: str) -> bool:
    try:
        shlex.split(line, comments=True)
    except ValueError:
        return True
    return line.endswith("\\")


class Shell:
    """Where the lines of one document are pasted."""

    def __init__(self, folder, document: str):
        self.folder, self.left = folder, commands((ROOT / document).read_text())
        self.listen_at(0)
        (folder / "bin").mkdir()
        (folder / "bin" / "icecore").symlink_to(os.path.abspath(binary()))
        self.environment = plain_environment() | {"HOME": str(folder), "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
        self.process = None

    def listen_at(self, port: int) -> None:
        """What the lines take for the server's port; a server takes a free one for 0."""
        self.port = port
        (self.folder / "icecore.toml").write_text(f'listen = "127.0.0.1:{port}"\n')

    def take(self, start: str) -> str:
        """The line that begins so, which is done with."""
        line = next((line for line in sorted(self.left, key=len) if line.startswith(start)), None)
        assert line, f"no line begins with `{start}`; the document has: {self.left}"
        self.left.remove(line)
        return line

    def filled(self, line: str, words: dict) -> str:
        here = f"127.0.0.1:{self.port}"
        places = {"localhost:8181": here, "0.0.0.0:8181": here, " /backups/": f" {self.folder}/backups/"}
        for word, meant in (words | places).items():
            line = line.replace(word, meant)
        return line

    def paste(self, start: str, words: dict | None = None) -> str:
        """Runs the line that begins so; what it printed."""
        return self.bash(self.filled(self.take(start), words or {}))

    def bash(self, line: str) -> str:
        done = subprocess.run(["bash", "-c", line], cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{line}\nended with {done.returncode}:\n{done.stdout[-1000:]}{done.stderr[-1000:]}"
        return done.stdout + done.stderr

    def serve(self, line: str) -> None:
        """Runs a line that goes on serving, until it listens."""
        self.listen_at(0)
        log = self.folder / "server.log"
        with open(log, "wb") as output:
            self.process = subprocess.Popen(["bash", "-c", f"exec env {self.filled(line, {}).removesuffix(' &')}"], cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        deadline = time.monotonic() + 60
        while not (found := LISTENING.search(log.read_text())):
            assert self.process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        self.listen_at(int(found.group(1).rsplit(":", 1)[1]))

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(60) == 0
        self.process = None

    def post(self, path: str, body: str) -> dict:
        headers = {"content-type": "application/json"}
        if "ICECORE_TOKEN" in self.environment:
            headers["authorization"] = f"Bearer {self.environment['ICECORE_TOKEN']}"
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body.encode(), headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"{}")

    def end(self, excused: dict) -> None:
        """All of the document was pasted, but for these."""
        for start in excused:
            self.take(start)
        assert not self.left, "lines that nobody pastes"


@pytest.fixture
def shell(tmp_path, request):
    shell = Shell(tmp_path, request.param)
    try:
        yield shell
        shell.stop()
    finally:
        if shell.process is not None:
            shell.process.kill()


def of(document: str):
    return pytest.mark.parametrize("shell", [document], indirect=True)


@of("README.md")
def test_readme(shell):
    shell.serve(shell.take("icecore serve"))
    assert json.loads(shell.paste("curl -s localhost:8181/ingest"))["received"] == 2
    shell.paste("curl -X POST localhost:8181/v1/shop.example/commit")
    shell.environment["SECRET"] = "It's a secret"
    assert "signs as github" in shell.paste("printf %s \"$SECRET\" | icecore webhooks set github")
    assert "Order.placed" in shell.paste("icecore sql --ns shop.example \"SELECT type")
    assert "2" in shell.paste("echo \"SELECT count(*) FROM events; SELECT max(seq)").split()
    assert json.loads(shell.paste("curl -s localhost:8181/v1/shop.example/sql -d '{"))["rowCount"] == 2
    assert json.loads(shell.paste("curl -s localhost:8181/v1/shop.example/sql -d \""))["rows"] == [[2]]
    assert json.loads(shell.paste("curl -s localhost:8181/v1/shop.example/collections"))["doc"] == {"state": "paid"}
    assert "paid" in shell.paste("icecore history orders")
    assert "1 document added" in shell.paste("icecore diff orders")
    # Without a terminal there is no prompt, and stdin has no statement.
    assert shell.paste("icecore sql --ns shop.example") == ""
    assert "would be restored to seq 1" in shell.paste("icecore restore orders")
    (shell.folder / "events.ndjson").write_text(EVENT)
    assert "1 new" in shell.paste("icecore ingest FILE…", {"FILE…": "events.ndjson"})
    shell.paste("icecore doctor")
    shell.end({
        "icecore deadletters": "names a command; test_events runs its lines",
        "icecore fsck": "names a command; test_maintenance runs its lines",
        "icecore audit events": "the same",
        "icecore repair": "the same",
        "icecore restore": "names a command; test_restore runs its lines",
        "cargo run --release -- quickstart --exit": "builds; `icecore quickstart` is run by test_printed_lines.py",
        "./check  ": "runs this test",
        "./check fast": "the same",
        "./check engines -k crash --kills 200": "hours",
        "ICECORE_FULL=1 ./check engines -k real": "downloads",
        "cargo install --path .": "builds",
        "cargo run --release --": "builds",
    })


@of("docs/operations.md")
def test_operations(shell):
    import pyarrow
    from pyiceberg.catalog import load_catalog

    shell.serve("icecore serve")
    shell.post("/ingest", EVENT)
    shell.post("/v1/shop.example/commit", "")
    rows = pyarrow.table({"n": [1]})
    table = load_catalog("lake", type="rest", uri=f"http://127.0.0.1:{shell.port}/catalog").create_table("shop_example.mine", schema=rows.schema)
    table.append(rows)
    first = str(table.current_snapshot().snapshot_id)
    table.append(rows)
    words = {"NS": "shop.example", "TABLE": "mine", "NAME": "yours", "ID": first}
    for start in ["icecore tables --ns", "icecore snapshots TABLE", "icecore catalog stats", "icecore tags create TABLE", "icecore catalog rollback",
                  "icecore catalog protect TABLE"]:
        shell.paste(start, words)
    shell.paste("icecore tags create NAME --namespace", words | {"NAME": "all"})
    assert "mine" in shell.paste("icecore catalog protected")
    shell.bash("icecore catalog unprotect mine --ns shop.example")
    shell.paste("icecore catalog rename", words)
    shell.paste("icecore catalog drop TABLE", words | {"TABLE": "yours"})
    dropped = shell.paste("icecore catalog dropped")
    assert "yours" in dropped
    page = re.search(r"--after (\S+)", shell.bash("icecore catalog events --limit 3")).group(1)
    assert "drop-table" in shell.paste("icecore catalog events", {"TOKEN": page})
    words["TABLE"] = "events"
    shell.paste("icecore branches …", {"…": "list events --ns shop.example"})
    shell.paste("icecore branches create NAME", words | {"NAME": "try"})
    shell.paste("icecore audit events --ns", words)
    shell.paste("icecore compact --ns", words)
    shell.paste("icecore fsck --ns", words)
    shell.paste("icecore erase --ns NS --user-id VALUE", words | {"VALUE": "nobody"})
    shell.paste("icecore restore COLLECTION", words | {"COLLECTION": "users", "POINT": "seq:1"})
    for start in ["icecore branches diff NAME", "icecore branches merge NAME"]:
        shell.paste(start, words | {"NAME": "try"})
    assert json.loads(shell.paste("curl -s localhost:8181/admin/jobs"))["jobs"]
    shell.paste("icecore jobs  ")
    shell.paste("icecore jobs run NAME", words | {"NAME": "compact-day"})
    shell.paste("icecore jobs run compact-day")
    shell.paste("icecore jobs")
    shell.paste("icecore catalog check")
    shell.paste("icecore sql --ns NS", words | {"…": "SELECT 1"})
    rollup = "SELECT type, count(*) AS n FROM events GROUP BY type"
    assert "rollup" in shell.paste("icecore materialize NAME", words | {"NAME": "rollup", "…": rollup})
    shell.paste("icecore help COMMAND", {"COMMAND": "serve"})
    folder = shell.folder / "bucket" / "events" / "2026" / "11" / "20" / "14"
    folder.mkdir(parents=True)
    (folder / "a.jsonl").write_text('{"type":"Order.placed","ns":"shop.example"}\n')
    shell.paste("icecore import --layout r2 ./bucket --dry-run")
    shell.paste("icecore import --layout r2 ./bucket")
    shell.paste("icecore export --layout r2")
    assert list(shell.folder.glob("copy/events/*/*/*/*/*.parquet"))
    for start in ["icecore config", "icecore config --sample", "icecore doctor", "icecore version", "icecore man", "icecore completions bash"]:
        shell.paste(start)
    shell.paste("icecore man FOLDER", {"FOLDER": "pages"})
    for start in ["mkdir -p ~", "icecore completions bash >", "icecore completions fish >", "icecore completions zsh >", "icecore man ~"]:
        shell.paste(start)
    shell.stop()

    # Access control, with no server before it.
    token = re.search(r"ice_\S+", shell.paste("icecore token create --admin root"))
    shell.serve(shell.take("ICECORE_AUTH=on icecore serve"))
    shell.environment["ICECORE_TOKEN"] = exported(shell.take("export ICECORE_TOKEN"), token)
    token = re.search(r"ice_\S+", shell.paste("icecore token create shop-writer"))
    shell.environment["TOKEN"] = exported(shell.take("export TOKEN"), token)
    assert json.loads(shell.paste("curl -s localhost:8181/ingest"))["received"] == 1
    shell.paste("icecore audit list")
    assert "token" in shell.paste("icecore sql \"SELECT time")
    shell.paste("icecore audit verify")
    shell.stop()

    # What is done without a server.
    for start in ["chmod 711", "chmod 700", "icecore wal inspect", "icecore wal quarantine", "icecore wal accept-loss --all", "icecore wal accept-loss --ns"]:
        shell.paste(start)
    for start in ["icecore catalog relocate --data-dir", "icecore backup create /backups/today", "icecore backup restore /backups/today"]:
        shell.paste(start)
    shell.end({
        "ICECORE_BUILD=": "builds",
        "ICECORE_S3_ENDPOINT=": "needs a store; test_s3.py starts a server with these variables",
        "icecore collections": "names commands; test_readme runs some, and tests/it/collections_api.rs all",
        "icecore collections COLLECTION": "names a command; test_collections runs it",
        "icecore import": "names a command, whose lines are run above",
        "icecore wal take-over": "needs PostgreSQL; tests/it/owner.rs runs it",
        "icecore wal export": "needs two servers on PostgreSQL; tests/it/owner.rs runs it",
        "icecore backup create s3://": "needs a store; test_backups_in_s3.py runs it",
        "icecore catalog relocate --from": "names a flag; tests/it/moved.rs uses it",
        "icecore repair metastore": "names a command; the lines of docs/maintenance.md are run below",
    })


@of("docs/maintenance.md")
def test_maintenance(shell):
    shell.serve("icecore serve")
    shell.post("/ingest", EVENT)
    shell.post("/v1/shop.example/commit", "")
    words = {"NS": "shop.example"}
    shell.paste("icecore compact --dry-run")
    shell.paste("curl -s -X POST \"localhost:8181/admin/jobs/compact", words)
    assert json.loads(shell.paste("curl -s -X POST \"localhost:8181/admin/jobs/retention", words))["job"] == "retention"
    assert json.loads(shell.paste("curl -s -X PUT localhost:8181/v1/NS/holds", words))["name"] == "case-7"
    assert len(json.loads(shell.paste("curl -s localhost:8181/v1/NS/holds", words))["holds"]) == 1
    assert json.loads(shell.paste("curl -s -X DELETE localhost:8181/v1/NS/holds", words))["removed"] == "case-7"
    shell.post("/ingest", '{"id":"p-2","type":"user","ns":"shop.example","op":"c","collection":"users","key":"1","after":{"a":1}}')
    shell.paste("icecore jobs run refresh", words)
    assert json.loads(shell.paste("curl -s -X POST localhost:8181/v1/NS/collections/users/refresh", words))["documents"] == 1
    erased = words | {"ann": "nobody", '"7"': '"nobody"'}
    for start in ["icecore erase --ns NS --user-id ann --dry-run", "icecore erase --ns NS --user-id ann"]:
        assert "erasure" in shell.paste(start, erased)
    assert json.loads(shell.paste("curl -s -X POST localhost:8181/v1/NS/erase", erased))["status"]
    shell.paste("icecore jobs run orphans")
    shell.paste("icecore fsck   ")
    assert json.loads(shell.paste("curl -s -X POST \"localhost:8181/admin/fsck", words))["whole"]
    assert json.loads(shell.paste("icecore audit events --json", words).splitlines()[0])["agrees"]
    assert json.loads(shell.paste("curl -s -X POST localhost:8181/v1/NS/audit/events", words))["agrees"]
    shell.stop()

    # What is done without a server.
    shell.paste("icecore repair table shop")
    for lost in (shell.folder / "icecore-data").glob("icecore.db*"):
        lost.unlink()
    for start in ["icecore repair metastore --dry-run", "icecore repair metastore  "]:
        assert "events" in shell.paste(start)
    shell.end({
        "icecore doctor": "names a command, which test_operations runs",
        "icecore wal accept-loss": "names a command; tests/it/restores.rs runs it",
        "icecore wal quarantine": "names a command, which test_operations runs",
        "icecore compact": "names a command, whose lines are run above",
        "icecore fsck": "names a command, whose lines are run above",
        "icecore repair metastore": "names a command, whose lines are run above",
        "icecore repair table": "names a command, whose line is run above",
    })


def exported(line: str, token: re.Match) -> str:
    """What a line exports in place of `ice_…`."""
    return shlex.split(line, comments=True)[1].split("=", 1)[1].replace("ice_…", token.group(0))


@of("docs/backup.md")
def test_backup(shell):
    shell.serve("icecore serve")
    shell.post("/ingest", EVENT)
    shell.paste("icecore backup create /backups/2026-11-28")
    listed = shell.paste("icecore backup list --data-dir")
    shell.paste("icecore backup forget ID", {"ID": listed.splitlines()[1].split()[0]})
    shell.paste("icecore backup restore")
    shell.stop()
    shell.serve(shell.take("icecore serve --data-dir ./restored"))
    assert "Order.placed" in shell.bash("icecore sql --ns shop.example 'SELECT type FROM events'")
    shell.stop()
    # A folder that was moved.
    (shell.folder / "icecore-data").rename(shell.folder / "away")
    (shell.folder / "restored").rename(shell.folder / "icecore-data")
    shell.paste("icecore catalog relocate --data-dir ./icecore-data --dry-run")
    shell.paste("icecore catalog relocate --data-dir ./icecore-data")
    shell.serve("icecore serve")
    assert "Order.placed" in shell.bash("icecore sql --ns shop.example 'SELECT type FROM events'")
    shell.end({
        "icecore backup create s3://": "needs a store; test_backups_in_s3.py runs it",
        "icecore backup list s3://": "needs a store; test_backups_in_s3.py runs it",
        "icecore wal accept-loss": "names a command; tests/it/restores.rs runs it",
    })


@of("docs/events.md")
def test_events(shell):
    shell.serve("icecore serve")
    shell.post("/ingest", EVENT)
    with pytest.raises(urllib.error.HTTPError):
        shell.post("/ingest", '{"id":"p-2","ns":"shop.example"}')
    listed = shell.paste("icecore deadletters list")
    assert '"ns":"shop.example"' in shell.paste("icecore deadletters show", {" ID": " " + listed.splitlines()[1].split()[0]})
    shell.paste("icecore deadletters retry")
    shell.paste("icecore deadletters purge")
    shell.environment["SECRET"] = "It's a secret"
    for start in ["printf %s \"$SECRET\" | icecore webhooks set github", "printf %s \"$SECRET\" | icecore webhooks set resend", "icecore webhooks list"]:
        shell.paste(start)
    shell.end({"icecore ingest": "names a command, which test_readme runs"})


@of("docs/collections.md")
def test_collections(shell):
    shell.serve("icecore serve")
    order = {"ns": "shop.example", "collection": "orders", "op": "c", "key": "1", "after": {"total": 12.5, "paid": True}}
    shell.post("/ingest", json.dumps(order))
    assert len(json.loads(shell.paste("curl -s -X PUT localhost"))["changes"]) == 3
    assert json.loads(shell.paste("curl -s localhost"))["schema"]["required"] == ["total"]
    assert "12.50" in shell.paste("icecore sql --ns shop.example \"SELECT key, total")
    assert "decimal" in shell.paste("icecore collections orders --ns shop.example --schema")
    shell.end({"icecore collections orders --set-schema FILE --dry-run": "FILE is the schema; tests/it runs the route"})


@of("docs/restore.md")
def test_restore(shell):
    shell.serve("icecore serve")
    user = {"ns": "shop.example", "collection": "users", "key": "u-1"}
    for op in ["c", "u", "d"]:
        shell.post("/ingest", json.dumps(user | {"op": op, "after": None if op == "d" else {"op": op}}))
    assert "users/u-1 inserted" in shell.paste("icecore restore users --ns shop.example --at seq:2 --dry-run")
    assert "bookmark:" in shell.paste("icecore restore users --ns shop.example --at seq:2 --yes")
    shell.paste("icecore restore users --ns shop.example --at seq:2 --into")
    assert json.loads(shell.paste("curl -s localhost:8181"))["unchanged"] == 1
    shell.paste("icecore restore --namespace")
    assert "events" in shell.paste("icecore tags create release-1")
    assert "events" in shell.paste("icecore tags create stable")
    assert json.loads(shell.paste("curl -s -X POST localhost:8181/v1/shop.example/tags"))["tables"]
    assert "release-1" in shell.paste("icecore tags list")
    assert "events" in shell.paste("icecore tags drop release-2 --namespace --ns shop.example --dry-run")
    assert "is dropped" in shell.paste("icecore tags drop release-2")
    shell.end({"icecore restore": "names the command"})


@of("docs/branch-merge.md")
def test_branch_merge(shell):
    shell.serve("icecore serve")
    user = {"ns": "shop.example", "collection": "users", "key": "u-1", "op": "u"}
    shell.post("/ingest", json.dumps(user | {"after": {"n": 1}}))
    shell.post("/v1/shop.example/commit", "")
    shell.post("/v1/shop.example/branches", '{"name":"trial"}')
    shell.post("/ingest?branch=trial", json.dumps(user | {"after": {"n": 2}}))
    assert "1 changed" in shell.paste("icecore branches diff trial")
    assert "users/u-1 updated" in shell.paste("icecore branches merge trial --ns shop.example --dry-run")
    assert "fast-forward" in shell.paste("icecore branches merge trial --ns shop.example --policy")
    assert json.loads(shell.paste("curl -s 'localhost"))["docs"] == []
    assert json.loads(shell.paste("curl -s localhost"))["updated"] == 0
    shell.end({"icecore branches merge": "names the command"})


@of("docs/branches.md")
def test_branches(shell):
    shell.serve("icecore serve")
    shell.post("/ingest", EVENT)
    assert "prices begins at seq 1" in shell.paste("icecore branches create prices --ns shop.example")
    assert json.loads(shell.paste("curl -s 'localhost:8181/ingest?branch=prices'"))["ok"]
    assert "prices" in shell.paste("icecore branches list --ns shop.example")
    shell.paste("icecore branches squash prices --ns shop.example")
    shell.paste("icecore branches drop prices --ns shop.example")
    shell.end({
        "icecore branches list TABLE": "names commands, which docs/operations.md has",
        "icecore branches diff": "names the command",
        "icecore branches merge": "names the command",
    })


@of("docs/outbox.md")
def test_outbox(shell):
    shell.serve("icecore serve")
    for start, version in [("curl -s -X PUT localhost", 1), ("curl -s -X PUT 'localhost", 2), ("curl -s -X DELETE", 3)]:
        assert json.loads(shell.paste(start))["version"] == version
    shell.end({"icecore wal export": "names the command"})
