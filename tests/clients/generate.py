#!/usr/bin/env python3
"""Makes events with known totals: the same arguments give the same bytes.

    generate.py -n 10000 --start 2026-11-20T12:00:00Z [--seed 1] [--late 0.05] [--dup 0.03] [--bad 0.01]
                [--out events.ndjson] [--truth truth.json]

Events arrive evenly over the three days before --start (default: now). Shares:
--late  events whose own time is one hour to three days before their arrival;
--dup   lines that are byte for byte a line sent shortly before;
--bad   extra lines broken in one of the ways of BAD_KINDS. A line without id is not refused: it gets
        an id from the server, so it counts as accepted.
"""
import argparse
import json
import random
import sys
import zlib
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

NAMESPACES = {"startups.example": 40, "shop.example": 30, "chat.example": 20, "iot.example": 10}
SPAN_MS = 3 * 24 * 3600 * 1000
HOUR_MS = 3600 * 1000
REPEAT_WINDOW = 500
# Events with a member that nobody knows: their whole text has to be kept.
FOREIGN_SHARE = 0.02
# Each way a line can be broken, and the code of the refusal; none means that it is accepted.
BAD_KINDS = {
    "not_json": "INVALID_JSON",
    "no_id": None,
    "no_type": "MISSING_TYPE",
    "bad_timestamp": "INVALID_TIMESTAMP",
    "empty_id": "INVALID_EVENT",
}
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
NAMES = ["Noor", "Tomás", "Ying", "Åsa", "Kofi", "Lena", "Ravi", "Zoë", "Иван", "さくら"]
ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass
class Truth:
    """What a table must hold once every line was sent at least once."""

    events: int = 0
    repeats: int = 0
    late: int = 0
    minted: int = 0
    by_type: Counter = field(default_factory=Counter)
    by_day: Counter = field(default_factory=Counter)
    by_namespace: Counter = field(default_factory=Counter)
    by_type_day: Counter = field(default_factory=Counter)
    foreign_lines: dict = field(default_factory=dict)
    id_crc: Counter = field(default_factory=Counter)
    refused: Counter = field(default_factory=Counter)
    refused_lines: list = field(default_factory=list)

    def take(self, event: dict, namespace: str) -> None:
        """Counts one accepted event; of its id only when it brings one."""
        day = event["timestamp"][:10]
        self.events += 1
        self.by_type[event["type"]] += 1
        self.by_day[day] += 1
        self.by_namespace[namespace] += 1
        self.by_type_day[f"{namespace}|{event['type']}|{day}"] += 1
        if "id" in event:
            self.id_crc[namespace] ^= zlib.crc32(event["id"].encode())
        else:
            self.minted += 1


def ulid(ms: int, entropy: int) -> str:
    """A ULID of this time and these 80 bits."""
    value = ms << 80 | entropy
    return "".join(CROCKFORD[value >> shift & 31] for shift in range(125, -1, -5))


def iso(ms: int) -> str:
    moment = datetime.fromtimestamp(ms // 1000, timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"


class World:
    """The senders: services, objects, sockets, and documents whose changes follow one another."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.documents: dict[tuple, dict] = {}
        self.lsn: Counter = Counter()
        self.kinds = [self.change, self.call, self.durable_object, self.socket, self.webhook, self.tail, self.domain]
        self.weights = [38, 30, 8, 10, 5, 4, 5]

    def event(self, namespace: str, arrival_ms: int) -> dict:
        """Type and members of the next event, its id and time apart."""
        return self.random.choices(self.kinds, self.weights)[0](namespace, arrival_ms)

    def change(self, namespace: str, arrival_ms: int) -> dict:
        rnd = self.random
        collection, store = rnd.choice([("users", "document"), ("orders", "relational"), ("follows", "graph")])
        known = self.documents.setdefault((namespace, collection), {})
        # A number that was never drawn, or whose document was deleted, is created.
        key = f"{collection}-{rnd.randrange(2 + 2 * len(known))}"
        before = known.pop(key, None)
        op = "c" if before is None else rnd.choices(["u", "d"], [8, 1])[0]
        after = None if op == "d" else self.document(key, 1 if before is None else before["v"] + 1)
        if after is not None:
            known[key] = after
        self.lsn[namespace] += 1
        lsn = self.lsn[namespace]
        event = {
            "type": {"c": "cdc.insert", "u": "cdc.update", "d": "cdc.delete"}[op],
            "op": op, "store": store, "table": collection, "key": key,
            "txid": f"tx-{lsn // 4}", "lsn": lsn,
            "bookmark": f"{lsn:08x}-00000000-{arrival_ms // 1000:08x}-{rnd.getrandbits(128):032x}",
        }
        if before is not None:
            event["before"] = before
        if after is not None:
            event["after"] = after
        return event

    def document(self, key: str, version: int) -> dict:
        rnd = self.random
        return {"_id": key, "v": version, "name": rnd.choice(NAMES), "total": rnd.randrange(100_000) / 100,
                "tags": [rnd.choice("abcdef") for _ in range(rnd.randrange(4))], "note": 'say "hi"\n\\o/ ✓'}

    def instance(self) -> dict:
        rnd = self.random
        return {"id": f"{rnd.getrandbits(64):016x}", "class": rnd.choice(["Cart", "Room", "Tenant"]), "colo": rnd.choice(["ARN", "GRU", "SIN"])}

    def call(self, _namespace: str, _arrival_ms: int) -> dict:
        rnd = self.random
        data = {"method": rnd.choice(["get", "list", "create", "checkout", "search", "join"]),
                "durationMs": round(rnd.lognormvariate(2.5, 1), 3), "success": 0.03 < rnd.random(), "do": self.instance()}
        if not data["success"]:
            data["error"] = "TimeoutError: no answer"
        return {"type": "rpc.call", "correlationId": f"req-{rnd.getrandbits(48):012x}", "data": data}

    def durable_object(self, _namespace: str, _arrival_ms: int) -> dict:
        return {"type": "do." + self.random.choice(["create", "alarm", "hibernate"]), "data": {"do": self.instance()}}

    def socket(self, _namespace: str, _arrival_ms: int) -> dict:
        rnd = self.random
        kind = rnd.choices(["message", "connect", "close"], [6, 2, 2])[0]
        data = {"connectionId": f"{rnd.getrandbits(40):010x}"}
        if kind == "close":
            data["code"] = rnd.choice([1000, 1001, 1006])
        return {"type": f"ws.{kind}", "data": data}

    def webhook(self, _namespace: str, _arrival_ms: int) -> dict:
        rnd = self.random
        provider, name = rnd.choice([("github", "push"), ("stripe", "invoice.paid"), ("slack", "message")])
        return {"type": f"webhook.{provider}.{name}", "provider": provider, "event_type": name, "verified": rnd.random() < 0.99,
                "delivery_id": f"{rnd.getrandbits(64):016x}", "data": {"amount": rnd.randrange(10_000), "note": "ünïcødé"}}

    def tail(self, _namespace: str, _arrival_ms: int) -> dict:
        rnd = self.random
        failed = rnd.random() < 0.05
        return {"type": "tail.request", "script_name": f"worker-{rnd.randrange(5)}", "outcome": "exception" if failed else "ok",
                "url": f"https://api.example/v1/{rnd.randrange(1000)}", "status_code": 500 if failed else 200}

    def domain(self, _namespace: str, _arrival_ms: int) -> dict:
        rnd = self.random
        return {"type": rnd.choice(["Customer.created", "Order.placed", "Order.shipped", "Invoice.overdue"]),
                "actor": f"User/{rnd.choice(NAMES)}", "visibility": rnd.choice(["user", "team", "public"]),
                "data": {"customerId": f"cust_{rnd.randrange(10_000)}", "amount": rnd.randrange(100_000) / 100}}


def spoil(event: dict, kind: str) -> str:
    """A line that is `event` broken in this way."""
    broken = dict(event)
    if kind == "not_json":
        return ENCODE(broken)[:-7]
    if kind == "no_id":
        del broken["id"]
    elif kind == "no_type":
        # What says that it is a change needs no type.
        for name in ("type", "op", "store", "table"):
            broken.pop(name, None)
    elif kind == "bad_timestamp":
        broken["timestamp"] = "the day before yesterday"
    else:
        broken["id"] = ""
    return ENCODE(broken)


def generate(n: int, start: datetime, seed: int = 1, late: float = 0.05, dup: float = 0.0, bad: float = 0.0) -> tuple[list[str], Truth]:
    """`n` distinct events as NDJSON lines, with repeats and broken lines among them, and the truth about them."""
    world, rnd, truth = World(seed), random.Random(f"times of {seed}"), Truth()
    names, weights = list(NAMESPACES), list(NAMESPACES.values())
    first_ms = int(start.timestamp() * 1000) - SPAN_MS
    lines: list[str] = []
    sound: deque[str] = deque(maxlen=REPEAT_WINDOW)
    for i in range(n):
        arrival_ms = first_ms + SPAN_MS * i // n
        namespace = rnd.choices(names, weights)[0]
        time_ms = arrival_ms - rnd.randrange(40)
        if rnd.random() < late:
            time_ms -= rnd.randrange(HOUR_MS, SPAN_MS)
            truth.late += 1
        event = {"id": ulid(arrival_ms, rnd.getrandbits(80)), "timestamp": iso(time_ms), "ns": namespace}
        event |= world.event(namespace, arrival_ms)
        event["_meta"] = {"schemaVersion": 1, "source": f"service-{rnd.randrange(40)}"}
        if rnd.random() < FOREIGN_SHARE:
            event["x-trace"] = f"{rnd.getrandbits(64):016x}"
        lines.append(ENCODE(event))
        sound.append(lines[-1])
        truth.take(event, namespace)
        if "x-trace" in event:
            truth.foreign_lines[event["id"]] = lines[-1]
        if rnd.random() < dup:
            lines.append(rnd.choice(sound))
            truth.repeats += 1
        if rnd.random() < bad:
            spoil_one(event, arrival_ms, rnd, lines, truth)
    return lines, truth


def spoil_one(event: dict, arrival_ms: int, rnd: random.Random, lines: list[str], truth: Truth) -> None:
    """Adds a broken line made from `event`."""
    kind = rnd.choice(list(BAD_KINDS))
    base = event | {"id": ulid(arrival_ms, rnd.getrandbits(80))}
    line = spoil(base, kind)
    lines.append(line)
    if BAD_KINDS[kind] is None:
        truth.take({key: value for key, value in base.items() if key != "id"}, event["ns"])
    else:
        truth.refused[BAD_KINDS[kind]] += 1
        truth.refused_lines.append(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=10_000)
    parser.add_argument("--start", type=datetime.fromisoformat, default=datetime.now(timezone.utc))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--late", type=float, default=0.05)
    parser.add_argument("--dup", type=float, default=0.0)
    parser.add_argument("--bad", type=float, default=0.0)
    parser.add_argument("--out", default="/dev/stdout")
    parser.add_argument("--truth")
    args = parser.parse_args()
    lines, truth = generate(args.n, args.start, args.seed, args.late, args.dup, args.bad)
    with open(args.out, "w", encoding="utf-8") as out:
        out.writelines(line + "\n" for line in lines)
    if args.truth:
        with open(args.truth, "w", encoding="utf-8") as out:
            json.dump(vars(truth), out, indent=1, ensure_ascii=False)
    print(f"{truth.events} events, {truth.late} late, {truth.repeats} repeats, {sum(truth.refused.values())} to refuse", file=sys.stderr)


if __name__ == "__main__":
    main()
