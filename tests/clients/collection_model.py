"""Random histories of collections, and a model in memory of the documents that they make: what docs/collections.md says, in the plainest way."""
import copy
import json
import random
from dataclasses import dataclass, field


def text_of(value) -> str:
    """JSON without blanks, as the documents of this file are written: a patch leaves none either."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


# Documents that are not written as a program would write them. No patch touches those, so they stay byte for byte.
ODD_TEXTS = ['{ "n" : 1.50,"s":"\\u00e9\\/" }', '{"big":123456789012345678901234567890,"e":1E+2}', '{"a":{"b":[ 1,2 , 3 ]},"z":-0.0}', '[1, "two", {"three":3.0}]']


@dataclass
class Change:
    """One event of a collection. `after` is the text of the document, `patch` that of a patch; `op` is t for a truncate."""

    namespace: str
    collection: str
    op: str
    key: str | None
    ts_ms: int
    id: str
    after: str | None = None
    patch: str | None = None
    bookmark: str | None = None

    def line(self) -> str:
        members = {"id": text_of(self.id), "collection": text_of(self.collection), "ts": str(self.ts_ms)}
        if self.op == "t":
            members["type"] = '"cdc.truncate"'
        else:
            members |= {"op": text_of(self.op), "key": text_of(self.key)}
        for name, value in (("after", self.after), ("patch", self.patch), ("bookmark", self.bookmark and text_of(self.bookmark))):
            if value is not None:
                members[name] = value
        return "{" + ",".join(f'"{name}":{value}' for name, value in members.items()) + "}"


@dataclass(frozen=True)
class Document:
    text: str
    version: int
    seq: int
    op: str
    ts_ms: int


class DoesNotFit(Exception):
    """A JSON Patch that is not applied."""


@dataclass
class Model:
    """The documents of one namespace at each of its events."""

    # For each collection and key its versions as (seq, document); None where it goes.
    versions: dict = field(default_factory=dict)
    changes: list = field(default_factory=list)

    def apply(self, seq: int, change: Change) -> None:
        assert not self.changes or self.changes[-1][0] < seq
        self.changes.append((seq, change))
        keys = self.versions.setdefault(change.collection, {})
        if change.op == "t":
            for versions in keys.values():
                if versions[-1][1] is not None:
                    versions.append((seq, None))
            return
        versions = keys.setdefault(change.key, [(0, None)])
        now = versions[-1][1]
        if change.op == "d":
            if now is not None:
                versions.append((seq, None))
            return
        if change.op == "r" and now is not None and now.op != "r" and change.ts_ms < now.ts_ms:
            return
        text = document_after(now and now.text, change)
        if text is not None:
            versions.append((seq, Document(text, 1 + (now.version if now else 0), seq, change.op, change.ts_ms)))

    def at(self, collection: str, seq: int) -> dict[str, Document]:
        """The documents after the event with this `seq`, by their keys."""
        found = {}
        for key, versions in self.versions.get(collection, {}).items():
            last = next(document for at, document in reversed(versions) if at <= seq)
            if last is not None:
                found[key] = last
        return found

    def erase(self, collection: str, key: str) -> None:
        """Nothing of the key was ever there."""
        self.versions[collection].pop(key, None)

    def last_seq(self) -> int:
        return self.changes[-1][0]

    def seq_at_event_time(self, ts_ms: int) -> int:
        """The last event before the first one that happened later."""
        later = next((seq for seq, change in self.changes if ts_ms < change.ts_ms), None)
        return self.last_seq() if later is None else later - 1


def document_after(before: str | None, change: Change) -> str | None:
    """The text after a change that makes a version; None of one that makes none."""
    if change.after is not None:
        return change.after
    if change.patch is None:
        return None
    patch = json.loads(change.patch)
    if isinstance(patch, dict):
        return text_of(merged(None if before is None else json.loads(before), patch))
    if before is None:
        return None
    try:
        return text_of(patched(json.loads(before), patch))
    except DoesNotFit:
        return before


# Behind every event.
END = 1 << 62
# What a side of a merge has where it has nothing.
MISSING = object()


def merged_sides(base, theirs, ours, policy: str, conflicts: list):
    """What a merge of branches makes of a value, as docs/branch-merge.md says: of it at the last event in common, on the merged branch, and on the other one."""
    if theirs == base or theirs == ours:
        return ours
    if all(isinstance(side, dict) for side in (base, theirs, ours)):
        names = ours | theirs
        members = {name: merged_sides(*(side.get(name, MISSING) for side in (base, theirs, ours)), policy, conflicts) for name in names}
        return {name: value for name, value in members.items() if value is not MISSING}
    if ours == base:
        return theirs
    conflicts.append((theirs, ours))
    return ours if policy == "ours" else theirs


def merge_of(collections: list[str], common: tuple[Model, int], theirs: Model, ours: Model, policy: str) -> tuple[dict, int]:
    """The documents of each collection after a merge of `theirs` into `ours`, and how many were in conflict. `common` is a model and its last event in common."""
    wanted, conflicting = {}, 0
    for collection in collections:
        base, seq = common
        sides = [base.at(collection, seq), theirs.at(collection, END), ours.at(collection, END)]
        wanted[collection] = {}
        for key in set().union(*sides):
            conflicts, texts = [], [side[key].text if key in side else None for side in sides]
            documents = [MISSING if text is None else json.loads(text) for text in texts]
            document = merged_sides(*documents, policy, conflicts)
            conflicting += bool(conflicts)
            if document is not MISSING:
                wanted[collection][key] = document
    return wanted, conflicting


def restore_counts(past: dict, now: dict) -> dict:
    """What a restore of these documents counts, by their keys and texts."""
    both = past.keys() & now.keys()
    unchanged = sum(past[key] == now[key] for key in both)
    return {"inserted": len(past.keys() - now.keys()), "deleted": len(now.keys() - past.keys()), "unchanged": unchanged, "updated": len(both) - unchanged}


def merged(target, patch):
    """`MergePatch` of RFC 7396, section 2."""
    if not isinstance(patch, dict):
        return patch
    target = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        else:
            target[name] = merged(target.get(name), value)
    return target


def patched(document, operations):
    """A document after a JSON Patch (RFC 6902)."""
    root = [copy.deepcopy(document)]
    for operation in operations:
        path, op = ["0", *tokens(operation["path"])], operation["op"]
        if op == "test":
            if look(root, path) != operation["value"]:
                raise DoesNotFit
        elif op == "remove":
            take(root, path)
        elif op == "replace":
            look(root, path)
            parent, last = look(root, path[:-1]), path[-1]
            parent[int(last) if isinstance(parent, list) else last] = operation["value"]
        elif op == "add":
            put(root, path, operation["value"])
        else:
            source = ["0", *tokens(operation["from"])]
            put(root, path, copy.deepcopy(look(root, source)) if op == "copy" else take(root, source))
    return root[0]


def tokens(pointer: str) -> list[str]:
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]


def look(root, path):
    value = root
    for token in path:
        if isinstance(value, list):
            if not token.isdigit() or len(value) <= int(token):
                raise DoesNotFit
            value = value[int(token)]
        elif isinstance(value, dict) and token in value:
            value = value[token]
        else:
            raise DoesNotFit
    return value


def take(root, path):
    value, parent, last = look(root, path), look(root, path[:-1]), path[-1]
    del parent[int(last) if isinstance(parent, list) else last]
    return value


def put(root, path, value) -> None:
    parent, last = look(root, path[:-1]), path[-1]
    if isinstance(parent, dict):
        parent[last] = value
    elif isinstance(parent, list):
        at = len(parent) if last == "-" else int(last) if last.isdigit() else len(parent) + 1
        if len(parent) < at:
            raise DoesNotFit
        parent.insert(at, value)
    else:
        raise DoesNotFit


class History:
    """Changes of some collections of some namespaces, by a seed. A change of a key is two of them."""

    def __init__(self, seed: int, namespaces: list[str], collections: list[str], keys: int, start_ms: int):
        self.random = random.Random(seed)
        self.namespaces, self.collections, self.keys = namespaces, collections, keys
        self.now_ms, self.count = start_ms, 0
        # What there is, so that most changes say what happened; the model does not know of it.
        self.there: dict[tuple[str, str], set[str]] = {}

    def batch(self, size: int) -> list[Change]:
        """So many changes of one namespace, or a few more."""
        namespace, changes = self.random.choice(self.namespaces), []
        while len(changes) < size:
            changes += self.step(namespace)
        return changes

    def step(self, namespace: str) -> list[Change]:
        collection, dice = self.random.choice(self.collections), self.random.random()
        there = self.there.setdefault((namespace, collection), set())
        key = self.key()
        if dice < 0.004:
            there.clear()
            return [self.change(namespace, collection, "t", None)]
        if dice < 0.06 and there:
            # A key that changes, as a database's log has it.
            old = self.random.choice(sorted(there))
            there.discard(old)
            there.add(key)
            return [self.change(namespace, collection, "d", old), self.change(namespace, collection, "c", key, after=self.document(key))]
        if dice < 0.2:
            # Of a key that there never was, too.
            there.discard(key)
            return [self.change(namespace, collection, "d", key)]
        if dice < 0.3:
            there.add(key)
            read = self.change(namespace, collection, "r", key, after=self.document(key))
            # A snapshot that took long: some of its rows are older than what the log had meanwhile.
            read.ts_ms -= self.random.choice([0, 0, 500, 60_000])
            return [read]
        if dice < 0.65 and not key.startswith("odd"):
            patch = self.json_patch() if self.random.random() < 0.5 else self.merge_patch()
            if patch.startswith("{"):
                there.add(key)
            return [self.change(namespace, collection, "u", key, patch=patch)]
        op = "u" if key in there else "c"
        there.add(key)
        return [self.change(namespace, collection, op, key, after=self.document(key))]

    def change(self, namespace, collection, op, key, **more) -> Change:
        self.count += 1
        # Clocks differ a little, so times of changes go back now and then.
        self.now_ms += self.random.choice([1, 7, 40, 40, 150])
        ts_ms = self.now_ms - self.random.choice([0] * 9 + [200])
        bookmark = f"mark {self.count}/ü" if self.random.random() < 0.15 else None
        return Change(namespace, collection, op, key, ts_ms, f"e-{self.count}", bookmark=bookmark, **more)

    def key(self) -> str:
        number = int(self.random.triangular(0, self.keys, 0))
        return f"odd-{number}" if number % 7 == 3 else f"ключ {number}/x" if number % 7 == 5 else f"k-{number:04}"

    def document(self, key: str) -> str:
        if key.startswith("odd"):
            return self.random.choice(ODD_TEXTS)
        return text_of({"n": self.random.randrange(1 << 60), "name": self.random.choice(["Ann", "Bea \"B\"", "Zoë\n", ""]), "tags": self.tags(),
                        "of": {"a/b": self.random.randrange(5), "größe": [self.random.randrange(9)]}})

    def tags(self) -> list[str]:
        return self.random.sample(["red", "green", "blue", "ünder"], self.random.randrange(4))

    def merge_patch(self) -> str:
        choices = [{"n": self.random.randrange(100)}, {"name": None}, {"of": {"a/b": None, "new": {"x": 1, "gone": None}}}, {"tags": self.tags(), "more": "é"}, {"of": 7}, {}]
        return text_of(self.random.choice(choices))

    def json_patch(self) -> str:
        number = self.random.randrange(5)
        operations = [
            {"op": "replace", "path": "/n", "value": number}, {"op": "add", "path": "/tags/-", "value": f"t{number}"}, {"op": "add", "path": "/tags/0", "value": "first"},
            {"op": "remove", "path": "/tags/0"}, {"op": "test", "path": "/of/a~1b", "value": number}, {"op": "add", "path": "/of/x", "value": {"y": [number]}},
            {"op": "copy", "from": "/tags", "path": "/copied"}, {"op": "move", "from": "/name", "path": "/of/name"}, {"op": "remove", "path": "/more"},
        ]
        return text_of(self.random.choices(operations, k=self.random.randrange(1, 4)))
