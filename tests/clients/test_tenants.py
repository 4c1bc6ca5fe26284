"""What one tenant is told does not depend on the data of another: answers, errors and EXPLAIN text are those of a server that has its data alone.

`LARGE=1` has the long form, of 1 000 statements. Another seed: --seed 7.
"""
import difflib
import json
import os
import random
import re
from collections import Counter
from urllib.parse import quote

import pyarrow
import pytest
from engines import WAREHOUSE
from generate_hostile import Hostile
from generate_lake_sql import EVENTS, LakeGenerator
from icecore import Client
from pyiceberg.catalog import load_catalog
from server import Server

OURS, THEIRS = "shop.example", "bank.example"
STATEMENTS = 1_000 if "LARGE" in os.environ else 100
SECRET = "n0bodys-business"
# Tables, namespaces, versions and documents of the other tenant, by every name that somebody may try.
NAMES = ["bank_example.events", '"bank.example".events', '"bank.example"."events@nightly"', "bank_example.accounts", "accounts", "bank_example.events.files", '"bank_example"."events$snapshots"', "bank_example.things",
         '"bank.example".cdc_users_deltas', "events.accounts", '"events@nightly"', "events FOR VERSION AS OF 'nightly'", "bank_example.dead_letters", "BANK_EXAMPLE.EVENTS", "bank_exampl.events", "nobody_here.events",
         "system.audit_log", "system.events", "lake.bank_example.events", "icecore.bank_example.accounts", "information_schema.tables", "information_schema.columns", "information_schema.schemata", "information_schema.views",
         "read_parquet('events/2024/**/*.parquet')", "read_json_auto('r2://bank/events/2024/**/*.jsonl')", "read_parquet('r2://bank/cdc/w/users/deltas/*.parquet')", "things", "cdc_users_deltas", "dead_letters"]
OWN_TABLES = ["events.snapshots", "events.history", "events.refs", "events.files", "events.manifests", "events.partitions", "events.entries", "events.all_files", "events.metadata_log_entries", "dead_letters.files"]
PATHS = ["/v1/namespaces", "/v1/{own}/tables", "/v1/{own}/tables/events/refs", "/v1/{own}/dead-letters", "/v1/{own}/holds", "/v1/{own}/erase", "/v1/{other}/tables", "/v1/{other}/tables/events/snapshots",
         "/v1/{other}/tables/accounts/stats", "/v1/{other}/tables/events/refs", "/v1/{other}/tables/nothing/refs", "/v1/{other}/tables/accounts", "/v1/{other}/dead-letters", "/v1/{other}/holds", "/v1/{other}/erase",
         "/v1/{other}/commit", "/v1/{other}/nothing", "/v1/nobody.example/tables", "/admin/tokens", "/admin/webhooks", "/admin/webhooks/{other}/github", "/admin/jobs", "/admin/audit",
         "/catalog/v1/config?warehouse=icecore", "/catalog/v1/namespaces", "/catalog/v1/namespaces?parent={other_name}", "/catalog/v1/namespaces/{own_name}/tables", "/catalog/v1/namespaces/{own_name}/views",
         "/catalog/v1/namespaces/{other_name}", "/catalog/v1/namespaces/{other_name}/tables", "/catalog/v1/namespaces/{other_name}/tables/events", "/catalog/v1/namespaces/{other_name}/tables/accounts",
         "/catalog/v1/namespaces/{other_name}/views", "/catalog/v1/namespaces/nobody/tables/x"]
# What changes with each request, process and folder; replaced in this order.
CHANGING = [
    (re.compile(r'"elapsedMs":\s*[\d.]+'), '"elapsedMs":0'),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "UUID"),
    (re.compile(r"\b[0-9A-HJKMNP-TV-Z]{26}\b"), "ULID"),
    (re.compile(r"\b\d{13,19}\b"), "ID"),
    (re.compile(r"\b20(?:2[5-9]|[3-9]\d)-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)?"), "TIME"),
    (re.compile(r"\b\d+(?:\.\d+)?\s?(?:ns|µs|ms|s|[KMG]i?B|[KMG]|B|bytes)\b"), "MEASURE"),
    (re.compile(r"metrics=\[[^\]]*\]"), "metrics"),
    # The folder of a file is by chance, and so is where a file is cut for two readers.
    (re.compile(r"/data/[0-9a-f]{2}/"), "/data/HH/"),
    (re.compile(r"\.parquet:\d+\.\.\d+"), ".parquet"),
    (re.compile(r"((?:size|sizes|length|compute|bytes|time|memory)\w*[\"']?\s*[:=]\s*)\d+(?:\.\d+)?"), r"\1N"),
]


def event(n, secret=""):
    random_ = random.Random(n)
    kind = random_.choice(["t1", "t2", "rpc.call", "cdc.update"])
    made = {"id": f"e{n}", "type": kind, "ts": f"2024-02-{1 + n % 28:02}T10:00:00Z", "source": f"s{n % 3}", "durationMs": n / 4, "data": {"n": n % 9, "city": secret or f"c{n % 4}"}, "statusCode": 200 + n % 3}
    if kind == "cdc.update":
        made |= {"op": "u", "collection": "users", "key": f"k{n % 9}", "after": {"name": secret or f"n{n}"}}
    return json.dumps(made)


class Tenant:
    """The server with one tenant's data, or with both; asked with that one's token."""

    def __init__(self, folder, others):
        settings = ("auth=on", "commit.interval=10min", "compaction.enabled=off", "wal.disk_free_min=0.001", "sql.timeout_max=10min")
        self.server = Server(folder, [word for setting in settings for word in ("--set", setting)]).start()
        self.token = self.make(OURS)
        self.client = Client(self.server.url, timeout=600, token=self.token)
        self.other = Client(self.server.url, timeout=600, token=self.make(THEIRS)) if others else None

    def fill(self):
        # The other tenant's requests are before, between and behind.
        for first in range(0, 120, 40):
            self.send_theirs(first)
            assert self.client.send([event(n) for n in range(first, first + 40)], OURS, "?backfill=true")[0] == 200
            if first < 80:
                self.client.commit(OURS)
        assert self.client.send(['{"id":"bad"}'], OURS)[0] == 400
        self.send_theirs(120)
        if self.other:
            self.more_of_theirs()
        return self

    def make(self, namespace):
        arguments = ["--ns", namespace, "--scope", "ingest", "--scope", "write"]
        return self.server.run("token", "create", namespace, *arguments, "--data-dir", str(self.server.folder / "data")).strip()

    def send_theirs(self, first):
        if self.other:
            assert self.other.send([event(n, SECRET) for n in range(first, first + 70)], THEIRS, "?backfill=true")[0] == 200
            self.other.commit(THEIRS)

    def more_of_theirs(self):
        """A table of their own, a tag of `events`, a dead letter."""
        catalog = load_catalog("lake", type="rest", uri=self.server.url + "/catalog", warehouse=WAREHOUSE, token=self.other.authorization["authorization"].split()[1])
        catalog.create_table("bank_example.accounts", pyarrow.schema([("owner", pyarrow.string())])).append(pyarrow.table({"owner": [SECRET]}))
        events = catalog.load_table("bank_example.events")
        events.manage_snapshots().create_tag(events.current_snapshot().snapshot_id, "nightly").commit()
        assert self.other.send([f'{{"id":"{SECRET}"}}'], THEIRS)[0] == 400

    def told(self, method, path, body=None):
        """Status and body, without what changes."""
        client = Client(self.server.url, timeout=600, token=self.token)  # A kept connection may have been idle for too long.
        status, headers, raw = client.request(method, path, body, {"content-type": "application/json", "accept": "application/json"})
        client.close()
        text = raw.decode(errors="replace").replace(str(self.server.folder), "FOLDER").replace(self.server.url, "URL").replace(headers.get("x-request-id", "no id"), "REQUEST")
        if text.startswith("{"):
            answer = json.loads(text)
            answer.pop("basis", None)
            if "ORDER BY" not in (body or "") and isinstance(answer.get("rows"), list):
                answer["rows"].sort(key=json.dumps)
            text = json.dumps(answer, ensure_ascii=False, indent=0)
        for pattern, instead in CHANGING:
            text = pattern.sub(instead, text)
        return status, text

    def ask(self, sql, namespace=OURS, **more):
        return self.told("POST", f"/v1/{quote(namespace, safe='')}/sql", json.dumps({"sql": sql, **more}))


class EventsGenerator(LakeGenerator):
    """Statements over events alone, over names of others, over what describes tables, and hostile ones that are answered at once."""

    def __init__(self, seed):
        super().__init__(seed)
        self.hostile = Hostile(seed)

    def source(self):
        return EVENTS

    def request(self):
        """A statement, and what its request has beside it."""
        made = self.pick(self.own, self.own, self.named, self.named, self.named, self.described, self.odd)()
        explained = self.pick("", "", "EXPLAIN ", "EXPLAIN ANALYZE ", "DESCRIBE ") if made.startswith(("SELECT", "WITH")) else ""
        return explained + made, self.pick({}, {}, {}, {"as_of": self.pick("main", "nightly", "2024-02-02T00:00:00Z", "7")}, {"limit": 100_000}, {"min_seq": self.pick(5, 10**9)} if self.chance(0.2) else {})

    def own(self):
        return str(self.statement().ours)

    def named(self):
        name = self.pick(*NAMES)
        return self.pick(f"SELECT * FROM {name} ORDER BY 1", f"SELECT count(*) FROM {name}", f"SELECT a.id FROM events a JOIN {name} b ON true ORDER BY 1 LIMIT 5", f"SELECT id FROM events WHERE id IN (SELECT id FROM {name})",
                         f"SELECT nothing FROM {name}", f"DESCRIBE {name}", f"SHOW TABLES FROM {name.split('.')[0]}", f"SHOW COLUMNS FROM {name}", f"INSERT INTO {name} SELECT * FROM events", f"CREATE VIEW {name} AS SELECT 1",
                         "SELECT table_schema, table_name FROM information_schema.tables WHERE table_schema = 'bank_example' ORDER BY 1, 2", "SELECT * FROM information_schema.columns WHERE table_name = 'accounts'",
                         "SELECT count(*) FROM information_schema.tables", f"SELECT id FROM events UNION SELECT id FROM {name}", "SHOW TABLES", "SHOW TABLES FROM bank_example", "SHOW SCHEMAS", "SHOW DATABASES")

    def described(self):
        name = self.pick(*OWN_TABLES)
        return self.pick(f"SELECT count(*) FROM {name}", f"DESCRIBE {name}", "SELECT sum(record_count) FROM events.files", "SELECT partition, record_count, file_count FROM events.partitions ORDER BY 2, 3, 1",
                         "SELECT operation, summary['added-records'], summary['icecore.first-seq'], summary['icecore.last-seq'] FROM events.snapshots ORDER BY committed_at", "SELECT name, type FROM events.refs ORDER BY 1",
                         "SELECT content, record_count, readable_metrics['seq'] FROM events.files ORDER BY 3", "SELECT max(seq), min(seq), count(*) FROM events", "SELECT reason, count(*) FROM dead_letters GROUP BY 1")

    def odd(self):
        hostile = self.hostile
        return self.pick(hostile.place, hostile.setting, hostile.definition, hostile.text, hostile.comment, hostile.broken, hostile.call, hostile.recursive)()


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    alone, beside = (Tenant(tmp_path_factory.mktemp(name), others=name == "beside") for name in ("alone", "beside"))
    try:
        yield alone.fill(), beside.fill()
    finally:
        alone.server.stop()
        beside.server.stop()


def differs(what, one, other):
    lines = difflib.unified_diff([f"{one[0]}", *one[1].splitlines()], [f"{other[0]}", *other[1].splitlines()], "alone", "beside", lineterm="", n=1)
    return f"{what}\n" + "\n".join(line[:400] for line in list(lines)[:25])


def test_statements_tell_nothing_of_others(both, request):
    alone, beside = both
    generator, wrong, outcomes = EventsGenerator(request.config.getoption("--seed")), [], Counter()
    for _ in range(STATEMENTS):
        statement, more = generator.request()
        namespace = generator.pick(OURS, OURS, OURS, OURS, OURS, OURS, OURS, THEIRS)
        one, other = alone.ask(statement, namespace, **more), beside.ask(statement, namespace, **more)
        outcomes[one[0]] += 1
        if one != other or SECRET in other[1]:
            wrong.append(differs(f"{statement[:500]} {more} in {namespace}", one, other))
    print(f"\n{STATEMENTS} statements: {dict(outcomes)}")
    assert not wrong, f"{len(wrong)} of {STATEMENTS}:\n" + "\n".join(wrong[:15])
    assert outcomes[200] > STATEMENTS / 5


def test_routes_tell_nothing_of_others(both):
    alone, beside = both
    for path in PATHS:
        for method in ("GET", "POST", "DELETE"):
            full = path.format(own=OURS, other=THEIRS, own_name="shop_example", other_name="bank_example")
            body = "{}" if method == "POST" else None
            if method != "GET" and (OURS in full or "shop_example" in full):
                continue
            one, other = alone.told(method, full, body), beside.told(method, full, body)
            assert one == other and SECRET not in other[1], differs(f"{method} {full}", one, other)


def test_the_other_tenant_has_what_it_sent(both):
    """The comparison means something: the data that is told of nowhere is there."""
    _, beside = both
    counted = beside.other.sql(THEIRS, f"SELECT count(*), count(*) FILTER (WHERE data ->> 'city' = '{SECRET}') FROM events")
    assert counted == [(190, 190)]
    assert beside.other.sql(THEIRS, "SELECT owner FROM accounts") == [(SECRET,)]
