"""Metadata tables in SQL say what PyIceberg's `inspect` and DuckDB's functions say of the same tables."""
import json
from datetime import datetime

import pyarrow
import pytest
from engines import connect_duckdb
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import BucketTransform, IdentityTransform
from pyiceberg.types import LongType, NestedField, StringType

NAMESPACE, TABLE = "lake", "t"


@pytest.fixture(scope="module")
def table(catalog):
    """Three appends, a deletion and a tag; its partitions changed after the second append."""
    schema = Schema(NestedField(1, "id", LongType(), required=False), NestedField(2, "kind", StringType(), required=False))
    spec = PartitionSpec(PartitionField(source_id=2, field_id=1000, transform=IdentityTransform(), name="kind"))
    table = catalog.create_table(f"{NAMESPACE}.{TABLE}", schema, partition_spec=spec)
    for first in (0, 10):
        append(table, first)
    with table.update_spec() as update:
        update.add_field("id", BucketTransform(4), "id_bucket")
    append(table, 20)
    table.delete("kind = 'k1'")
    table.manage_snapshots().create_tag(table.history()[0].snapshot_id, "first").commit()
    return table.refresh()


def append(table, first):
    rows = [{"id": n, "kind": f"k{n % 3}"} for n in range(first, first + 10)]
    table.append(pyarrow.Table.from_pylist(rows, schema=table.schema().as_arrow()))


def rows(client, sql):
    body = json.dumps({"sql": sql}).encode()
    status, _, raw = client.request("POST", f"/v1/{NAMESPACE}/sql", body, {"content-type": "application/json"})
    assert status == 200, raw
    return json.loads(raw)["rows"]


def same(client, name, arrow, columns):
    """The rows of a metadata table are those of PyIceberg."""
    expected = [[row[column] for column in columns] for row in arrow.to_pylist()]
    found = rows(client, f"SELECT {', '.join(columns)} FROM {TABLE}.{name}")
    assert sorted(found, key=repr) == sorted(expected, key=repr)


def test_tables_of_the_metadata(client, table):
    inspect = table.inspect
    same(client, "snapshots", inspect.snapshots(), ["snapshot_id", "parent_id", "operation", "manifest_list"])
    same(client, "history", inspect.history(), ["snapshot_id", "parent_id", "is_current_ancestor"])
    same(client, "refs", inspect.refs(), ["name", "type", "snapshot_id", "max_reference_age_in_ms", "min_snapshots_to_keep", "max_snapshot_age_in_ms"])
    same(client, "metadata_log_entries", inspect.metadata_log_entries(), ["file", "latest_snapshot_id", "latest_schema_id", "latest_sequence_number"])


def test_times_have_their_milliseconds(client, table):
    expected = sorted(time.replace(tzinfo=None) for time in table.inspect.snapshots()["committed_at"].to_pylist())
    found = rows(client, f"SELECT committed_at FROM {TABLE}.snapshots")
    assert sorted(datetime.fromisoformat(text.replace("Z", "+00:00")).replace(tzinfo=None) for text, in found) == expected


def test_tables_of_the_manifests(client, table):
    inspect = table.inspect
    counts = [f"{kind}_{what}_files_count" for kind in ("added", "existing", "deleted") for what in ("data", "delete")]
    same(client, "manifests", inspect.manifests(), ["content", "path", "length", "partition_spec_id", "added_snapshot_id", *counts])
    same(client, "files", inspect.files(), ["content", "file_path", "file_format", "spec_id", "record_count", "file_size_in_bytes", "sort_order_id"])
    same(client, "entries", inspect.entries(), ["status", "snapshot_id", "sequence_number", "file_sequence_number"])


def test_partitions_and_bounds(client, table):
    expected = {(row["partition"]["kind"], row["partition"].get("id_bucket"), row["spec_id"]): (row["record_count"], row["file_count"]) for row in table.inspect.partitions().to_pylist()}
    found = rows(client, f"SELECT partition['kind'], partition['id_bucket'], spec_id, record_count, file_count FROM {TABLE}.partitions")
    assert {tuple(row[:3]): tuple(row[3:]) for row in found} == expected
    bounds = {row["file_path"]: (row["readable_metrics"]["id"]["lower_bound"], row["readable_metrics"]["id"]["upper_bound"]) for row in table.inspect.files().to_pylist()}
    found = rows(client, f"SELECT file_path, readable_metrics['id']['lower_bound'], readable_metrics['id']['upper_bound'] FROM {TABLE}.files")
    assert {path: (lower, upper) for path, lower, upper in found} == bounds


def test_duckdb_says_the_same(client, table):
    duck, metadata = connect_duckdb(), table.metadata_location.removeprefix("file://")
    snapshots = duck.execute(f"SELECT snapshot_id, manifest_list FROM iceberg_snapshots('{metadata}')").fetchall()
    found = rows(client, f"SELECT snapshot_id, manifest_list FROM {TABLE}.snapshots")
    assert sorted(map(tuple, found)) == sorted((int(one), path) for one, path in snapshots)
    files = duck.execute(f"SELECT file_path, record_count FROM iceberg_metadata('{metadata}') WHERE status <> 'DELETED'").fetchall()
    assert sorted(map(tuple, rows(client, f"SELECT file_path, record_count FROM {TABLE}.files"))) == sorted(files)
