"""Scans planned by the catalog instead of the client: PyIceberg reads the same rows either way."""
import json
from datetime import timedelta

import pyarrow
import pytest
from engines import PyIceberg
from pyiceberg.catalog import load_catalog
from pyiceberg.exceptions import BadRequestError
from pyiceberg.expressions import And, EqualTo, GreaterThanOrEqual, In, IsNull, LessThan, Not, NotEqualTo, NotNull, Or, StartsWith
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import BucketTransform, DayTransform, IdentityTransform
from pyiceberg.types import LongType, NestedField, StringType, TimestamptzType
from test_catalog import ARROW, NAMESPACE, START, rows

SCHEMA = Schema(NestedField(1, "id", StringType()), NestedField(2, "type", StringType()), NestedField(3, "ts", TimestamptzType()), NestedField(4, "n", LongType()))
SPEC = PartitionSpec(PartitionField(2, 1000, IdentityTransform(), "type"), PartitionField(3, 1001, DayTransform(), "dt"))
NOON = (START + timedelta(hours=14)).isoformat()
FILTERS = [
    None,
    EqualTo("type", "created"),
    In("type", ["created", "deleted"]),
    NotEqualTo("type", "created"),
    And(EqualTo("type", "updated"), LessThan("n", 300)),
    Or(LessThan("n", 40), GreaterThanOrEqual("n", 930)),
    GreaterThanOrEqual("ts", NOON),
    And(LessThan("ts", NOON), Not(EqualTo("type", "deleted"))),
    StartsWith("id", "a-9"),
    IsNull("n"),
    NotNull("n"),
    EqualTo("n", 5_000_000_000),
]


@pytest.fixture
def catalogs(server):
    """One that plans in the client, one that asks the server."""
    uri = f"{server.url}/catalog"
    return PyIceberg(uri).catalog, load_catalog("planned", type="rest", uri=uri, **{"scan-planning-mode": "server"})


def scanned(table, row_filter):
    scan = table.scan() if row_filter is None else table.scan(row_filter=row_filter)
    files = sorted(task.file.file_path for task in scan.plan_files())
    return files, sorted(scan.to_arrow().column("id").to_pylist())


# PyIceberg reads no plan with a missing partition value, so no row here has one.
def test_a_scan_planned_by_the_server_reads_what_the_client_would(catalogs):
    local, planned = catalogs
    assert planned.supports_server_side_planning() and not local.supports_server_side_planning()
    local.create_namespace_if_not_exists(NAMESPACE)
    table = local.create_table((NAMESPACE, "planned"), SCHEMA, partition_spec=SPEC)
    table.append(pyarrow.Table.from_pylist(rows("a", 1000), ARROW))
    with table.update_spec() as update:
        update.add_field("id", BucketTransform(8), "id_bucket")
        update.remove_field("dt")
    table.append(pyarrow.Table.from_pylist(rows("b", 100), ARROW))
    with table.update_schema() as update:
        update.rename_column("type", "kind")
    table.append(pyarrow.Table.from_pylist([{"id": "c-1", "kind": "created", "ts": START, "n": None}], ARROW.set(1, pyarrow.field("kind", pyarrow.string()))))
    with table.update_schema() as update:
        update.rename_column("kind", "type")
    mine, theirs = local.load_table((NAMESPACE, "planned")), planned.load_table((NAMESPACE, "planned"))
    for row_filter in FILTERS:
        (expected_files, expected), (files, found) = scanned(mine, row_filter), scanned(theirs, row_filter)
        assert found == expected, row_filter
        assert set(files) <= set(expected_files), f"{row_filter}: the server plans files that the client leaves out"
    everything = scanned(mine, None)[0]
    assert len(scanned(theirs, And(EqualTo("type", "created"), EqualTo("id", "b-3")))[0]) < len(everything) / 4
    past = mine.history()[0].snapshot_id
    assert sorted(theirs.scan(snapshot_id=past).to_arrow().column("id").to_pylist()) == sorted(row["id"] for row in rows("a", 1000))


def test_a_mistake_in_a_filter_is_told(catalogs):
    local, planned = catalogs
    local.create_namespace_if_not_exists(NAMESPACE)
    local.create_table((NAMESPACE, "mistaken"), SCHEMA)
    with pytest.raises(BadRequestError, match="there is no column `nothing`"):
        list(planned.load_table((NAMESPACE, "mistaken")).scan(row_filter=EqualTo("nothing", 1)).plan_files())


def test_a_scan_of_many_files_comes_in_parts(catalogs, server):
    local, planned = catalogs
    local.create_namespace_if_not_exists(NAMESPACE)
    table = local.create_table((NAMESPACE, "many"), SCHEMA, partition_spec=PartitionSpec(PartitionField(4, 1000, IdentityTransform(), "n")))
    batch = rows("m", 1020)
    for half in (batch[:510], batch[510:]):
        table.append(pyarrow.Table.from_pylist(half, ARROW))
    status, _, plan = server.client().request("POST", f"/catalog/v1/namespaces/{NAMESPACE}/tables/many/plan", b"{}")
    plan = json.loads(plan)
    assert status == 200 and plan["file-scan-tasks"] == [] and len(plan["plan-tasks"]) == 2, plan
    scan = planned.load_table((NAMESPACE, "many")).scan(row_filter=GreaterThanOrEqual("n", 500))
    tasks = list(scan.plan_files())
    assert len(tasks) == 520
    everything = planned.load_table((NAMESPACE, "many")).scan(selected_fields=("id",)).to_arrow()
    assert sorted(everything.column("id").to_pylist()) == sorted(row["id"] for row in batch)
