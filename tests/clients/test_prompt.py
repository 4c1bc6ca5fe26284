"""The prompt of `icecore sql` as a person at a terminal meets it: a process on a pseudo-terminal, keys in and text out."""
import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time

import pytest
from server import binary, plain_environment

NAMESPACE = "shop.example"
PATIENCE = 60
COLUMNS = 80
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ENDLESS = "SELECT count(*) FROM events a, events b, events c WHERE a.seq + b.seq + c.seq < 0;"


class Terminal:
    """A prompt, or another command, and all that it has shown."""

    def __init__(self, server, home, arguments=None, columns=COLUMNS):
        self.shown, self.read_to = "", 0
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        environment = plain_environment() | {"TERM": "xterm", "HOME": str(home), "XDG_DATA_HOME": str(home / "data")}
        command = [binary(), *(arguments or ["sql", "--ns", NAMESPACE]), "--url", server.url]
        # Ctrl-C is a signal only for processes whose terminal it is.
        own = lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        self.process = subprocess.Popen(command, env=environment, cwd=home, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, preexec_fn=own)
        os.close(slave)
        if arguments is None:
            self.wait(rf"{re.escape(NAMESPACE)}> ")

    def wait(self, pattern: str) -> str:
        """Reads until the pattern is in what was not waited for yet; gives all of that."""
        deadline = time.monotonic() + PATIENCE
        while True:
            text = CONTROL.sub("", self.shown[self.read_to:])
            if re.search(pattern, text):
                self.read_to = len(self.shown)
                return text
            assert time.monotonic() < deadline, f"no {pattern!r} in {text!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.shown += os.read(self.master, 65536).decode(errors="replace")
                except OSError:
                    raise AssertionError(f"the prompt ended before {pattern!r}: {text!r}") from None

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def ask(self, line: str, pattern: str) -> str:
        self.type(line + "\r")
        return self.wait(pattern)

    def leave(self, line: str = "\\q") -> int:
        """The exit code."""
        self.type(line + "\r")
        deadline = time.monotonic() + PATIENCE
        # What is not read would keep the process from ending.
        while self.process.poll() is None and time.monotonic() < deadline:
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    os.read(self.master, 65536)
                except OSError:
                    break
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.fixture(scope="module")
def shop(server):
    # As many as keep a join of three busy for long.
    for start in range(0, 3000, 1000):
        lines = [json.dumps({"id": f"e-{n}", "type": "Order.placed", "ns": NAMESPACE, "data": {"n": n}}) for n in range(start, start + 1000)]
        assert server.client().send(lines)[0] == 200
    return server


@pytest.fixture
def terminal(shop, tmp_path):
    terminal = Terminal(shop, tmp_path)
    yield terminal
    terminal.close()


def test_commands(terminal):
    assert "\\timing" in terminal.ask("\\?", "Tab completes")
    assert re.search(r"\| events +\|", terminal.ask("\\dt", r"-- \d+ rows?"))
    described = terminal.ask("\\d events", r"-- \d+ rows")
    assert re.search(r"\| seq +\| bigint +\|", described), described
    assert NAMESPACE in terminal.ask("\\ns", rf"{re.escape(NAMESPACE)}\r\n")
    assert "is no command" in terminal.ask("\\nothing", "shows the commands")
    terminal.ask("\\ns nosuch.example", "icecore: ask the server: 404")
    assert terminal.ask("SELECT 20 + 22 AS n;", r"\| +42 \|")
    assert terminal.leave("exit") == 0


def test_rows_fit_the_terminal(terminal):
    wide = terminal.ask("SELECT * FROM events ORDER BY seq;", r"-- 3000 rows, 40 shown; \d+ columns, \d+ shown \(\d+ ms\)")
    lines = [line for line in wide.splitlines() if line.startswith(("|", "+"))]
    assert {len(line) for line in lines} == {len(lines[0])} and len(lines[0]) <= COLUMNS, wide
    assert all("…" in line for line in lines if line.startswith("|")), wide
    assert re.search(r"\|  +n \|\r?\n\| bigint \|", terminal.ask("SELECT 1 AS n;", "-- 1 row"))
    assert "NULL" in terminal.ask("SELECT actor FROM events LIMIT 1;", "-- 1 row")
    terminal.ask("\\x", "blocks of lines")
    blocks = terminal.ask("SELECT id, type FROM events ORDER BY seq LIMIT 2;", "-- 2 rows")
    assert "-[ row 2 ]" in blocks and re.search(r"id +\| e-1\r?\n", blocks), blocks
    terminal.ask("\\timing", "hidden")
    assert "ms)" not in terminal.ask("SELECT 1;", "-- 1 row")


def test_errors_are_marked_and_the_prompt_goes_on(terminal):
    told = terminal.ask("SELECT 1 fro events;", r"\n +\^")
    assert "  SELECT 1 fro events" in told, told
    told = terminal.ask("SELECT typo FROM events;", r"\n +\^")
    assert re.search(r"\n  SELECT typo FROM events\r?\n         \^", told), told
    terminal.ask("SELECT 2 +", r"\.\.\.> ")
    assert terminal.ask("3 AS n; SELECT 'a;b' AS t;", r"a;b +\|(.|\n)*-- 1 row")


def test_lines_typed_ahead_of_the_prompt_run_in_their_order(terminal):
    # One write: the editor reads more than the line that it returns.
    terminal.type("SELECT 1 + 1 AS a;\rSELECT 20 + 22 AS b;\rSELECT 40 + 50 AS c;\r")
    assert re.search(r"\| +2 \|(.|\n)*\| +42 \|(.|\n)*\| +90 \|", terminal.wait(r"\| +90 \|(.|\n)*-- 1 row"))


def test_tab_completes_tables_and_keywords(terminal):
    terminal.type("SEL\t count(*) AS n FROM ev\t")
    terminal.wait("FROM events")
    assert re.search(r"\| +3000 \|", terminal.ask(";", "-- 1 row"))


def test_ctrl_c_cancels_the_query_alone(shop, terminal):
    terminal.ask(ENDLESS, "Ctrl-C cancels")
    assert "icecore_queries_running 1" in metrics(shop)
    terminal.type("\x03")
    terminal.wait(rf"cancelled\r\n(.|\n)*{re.escape(NAMESPACE)}> ")
    deadline = time.monotonic() + PATIENCE
    while "icecore_queries_running 0" not in metrics(shop):
        assert time.monotonic() < deadline, "the query goes on"
        time.sleep(0.1)
    assert terminal.ask("SELECT 20 + 22 AS n;", r"\| +42 ")
    # At the prompt it empties what is typed.
    terminal.ask("SELECT nonsense", r"\.\.\.> ")
    terminal.type("\x03")
    terminal.wait(rf"{re.escape(NAMESPACE)}> ")
    assert terminal.ask("SELECT 20 + 23 AS n;", r"\| +43 ")
    assert terminal.leave() == 0


def test_the_history_is_of_the_user_and_outlives_a_killed_prompt(shop, tmp_path):
    terminal = Terminal(shop, tmp_path)
    terminal.ask("SELECT 20 + 22 AS n;", r"\| +42 ")
    terminal.ask(" SELECT 'secret' AS n;", r"\| secret ")
    # Only its first line begins with a blank, and all of it is kept nowhere.
    terminal.ask(" SELECT 'hidden'", r"\.\.\.> ")
    terminal.ask("AS n;", r"\| hidden ")
    terminal.close()
    history = tmp_path / "data" / "icecore" / "sql-history"
    assert history.stat().st_mode & 0o777 == 0o600
    assert history.parent.stat().st_mode & 0o777 == 0o700
    assert "20 + 22" in history.read_text()
    assert not re.search("secret|hidden", history.read_text())
    terminal = Terminal(shop, tmp_path)
    assert terminal.ask("\x1b[A", r"\| +42 ")
    terminal.close()


def metrics(server) -> str:
    return server.client().request("GET", "/metrics")[2].decode()
