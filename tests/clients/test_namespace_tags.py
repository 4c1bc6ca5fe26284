"""A tag that all tables of a namespace got in one commit is read by other engines."""
import json

from engines import DuckDB, PyIceberg

NAMESPACE = "tagged"
TABLES = ["cdc_users", "events"]


def change(op, number, name):
    return json.dumps({"id": f"{op}-{number}-{name}", "type": "user", "op": op, "collection": "users", "key": f"u-{number}", "after": {"name": name}})


def post(client, path, body):
    status, _, raw = client.request("POST", path, json.dumps(body).encode(), {"content-type": "application/json"})
    assert status in (200, 201), raw
    return json.loads(raw)


def test_a_tag_of_two_tables_is_one_state_in_other_engines(server):
    client = server.client()
    assert client.send([change("c", n, f"n{n}") for n in range(20)], NAMESPACE)[0] == 200
    post(client, f"/v1/{NAMESPACE}/collections/users/refresh", {})
    tag = post(client, f"/v1/{NAMESPACE}/tags", {"name": "release-1"})
    assert (tag["seq"], [it["table"] for it in tag["tables"]]) == (20, TABLES), tag
    assert client.send([change("u", n, "other") for n in range(20)], NAMESPACE)[0] == 200
    post(client, f"/v1/{NAMESPACE}/collections/users/refresh", {})
    post(client, f"/v1/{NAMESPACE}/commit", {})

    snapshots = {it["table"]: it["snapshot"] for it in tag["tables"]}
    lake = PyIceberg(server.url + "/catalog")
    duck = DuckDB(server.url + "/catalog")
    for table, now in (("cdc_users", 20), ("events", 40)):
        loaded = lake.load(NAMESPACE, table)
        assert loaded.snapshot_by_name("release-1").snapshot_id == snapshots[table]
        at_tag = f"{duck.table(NAMESPACE, table)} AT (VERSION => {snapshots[table]})"
        assert duck.rows(f"SELECT count(*) FROM {at_tag}") == [(20,)]
        assert duck.rows(f"SELECT count(*) FROM {duck.table(NAMESPACE, table)}") == [(now,)]
    at_tag = f"{duck.table(NAMESPACE, 'cdc_users')} AT (VERSION => {snapshots['cdc_users']})"
    changed = f"SELECT count(*) FROM {at_tag} WHERE doc LIKE '%other%'"
    assert duck.rows(changed) == [(0,)]
