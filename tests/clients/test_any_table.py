"""SQL reads the tables of other writers: format version 1, partitions that change, nested columns that change below them."""
import itertools
import random
from datetime import datetime, timedelta, timezone

import pyarrow
import pytest
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import BucketTransform, IdentityTransform
from pyiceberg.types import DoubleType, FloatType, IntegerType, ListType, LongType, NestedField, StringType, StructType, TimestamptzType

NAMESPACE = "any"


def create(catalog, name, version, *, partitioned):
    item = StructType(NestedField(11, "sku", StringType(), required=False), NestedField(12, "price", FloatType(), required=False))
    schema = Schema(
        NestedField(1, "id", IntegerType(), required=False), NestedField(2, "kind", StringType(), required=False),
        NestedField(3, "items", ListType(10, item, element_required=False), required=False),
    )
    spec = PartitionSpec(PartitionField(source_id=2, field_id=1000, transform=IdentityTransform(), name="kind")) if partitioned else PartitionSpec()
    return catalog.create_table(f"{NAMESPACE}.{name}", schema, partition_spec=spec, properties={"format-version": str(version)})


def append(table, rows):
    table.append(pyarrow.Table.from_pylist(rows, schema=table.schema().as_arrow()))


@pytest.mark.parametrize("version", [1, 2])
def test_partitions_that_change(catalog, client, version):
    name = f"moved_v{version}"
    table = create(catalog, name, version, partitioned=True)
    append(table, [{"id": n, "kind": f"k{n % 2}"} for n in range(6)])
    with table.update_spec() as update:
        update.add_field("id", BucketTransform(4), "id_bucket")
    append(table, [{"id": n, "kind": f"k{n % 2}"} for n in range(6, 12)])
    # In version 1 a field is not removed but made void: its value is NULL, and that of the column is not.
    with table.update_spec() as update:
        update.remove_field("kind")
    assert [str(field.transform) for field in table.spec().fields] == (["void", "bucket[4]"] if version == 1 else ["bucket[4]"])
    append(table, [{"id": n, "kind": f"k{n % 2}"} for n in range(12, 18)])
    for condition, expected in [("true", 18), ("kind = 'k1'", 9), ("id = 7", 1), ("id = 1 AND kind = 'k1'", 1), ("kind = 'k0' AND id > 11", 3), ("kind IS NULL", 0)]:
        assert client.sql(NAMESPACE, f"SELECT count(*) FROM {name} WHERE {condition}") == [(expected,)], condition
    assert client.sql(NAMESPACE, f"SELECT sum(record_count) FROM {name}.partitions") == [(18,)]


@pytest.mark.parametrize("version", [1, 2])
def test_columns_that_change_inside_of_lists(catalog, client, version):
    name = f"nested_v{version}"
    table = create(catalog, name, version, partitioned=False)
    append(table, [{"id": 1, "kind": "a", "items": [{"sku": "x", "price": 1.5}]}])
    with table.update_schema() as update:
        update.rename_column(("items", "element", "sku"), "code")
        update.update_column(("items", "element", "price"), DoubleType())
        update.update_column("id", LongType())
        update.rename_column("kind", "sort")
    append(table, [{"id": 2**40, "sort": "b", "items": [{"code": "y", "price": 2.5}, None]}, {"id": 3, "sort": None, "items": None}])
    rows = client.sql(NAMESPACE, f'SELECT id, "sort", items FROM {name} ORDER BY id')
    # PyIceberg writes a list that is NULL as an empty one.
    assert rows == [(1, "a", [{"code": "x", "price": 1.5}]), (3, None, []), (2**40, "b", [{"code": "y", "price": 2.5}, None])]
    assert client.sql(NAMESPACE, f"""SELECT id FROM {name} WHERE "sort" = 'a'""") == [(1,)]


def test_aggregates_are_the_same_whether_manifests_have_them_or_rows(catalog, client):
    schema = Schema(
        NestedField(1, "id", IntegerType(), required=False), NestedField(2, "kind", StringType(), required=False),
        NestedField(3, "moment", TimestamptzType(), required=False), NestedField(4, "score", DoubleType(), required=False),
    )
    spec = PartitionSpec(PartitionField(source_id=2, field_id=1000, transform=IdentityTransform(), name="kind"))
    table = catalog.create_table(f"{NAMESPACE}.aggregates", schema, partition_spec=spec)
    start = datetime(2026, 3, 1, tzinfo=timezone.utc)
    scores = [1.5, -0.0, 0.0, None, float("nan"), -7.25, float("inf")]

    def rows(numbers, kind="kind"):
        return [
            {"id": None if n % 11 == 0 else n, kind: [None, "", "a", "b" * 40][n % 4], "moment": start + timedelta(hours=n) if n % 13 else None, "score": scores[n % 7]}
            for n in numbers
        ]

    append(table, rows(range(1, 30)))
    append(table, rows(range(30, 36)))
    with table.update_schema() as update:
        update.update_column("id", LongType())
        update.rename_column("kind", "sort")
        update.add_column("extra", StringType())
    append(table, rows(range(36, 60), "sort"))
    with table.update_spec() as update:
        update.remove_field("kind")
    append(table, rows(range(60, 70), "sort"))
    groups = ["", '"sort"', "extra", "date_trunc('day', moment)", "CAST(moment AS DATE)", "id"]
    measures = ["count(*), count(id), count(score)", "min(id), max(id)", "min(moment), max(moment), count(*)", "min(score), max(score)", 'min("sort"), max("sort"), count(extra)']
    conditions = [
        "true", "\"sort\" = 'a'", "\"sort\" IS NULL", "extra IS NULL", "id > 0", "id BETWEEN 30 AND 35", "id >= 36 AND \"sort\" <> 'a'", "score > 0", "score <= 0 OR id < 1000",
        "moment >= '2026-03-02' AND moment < '2026-03-03'", "moment IS NOT NULL AND id IS NOT NULL",
    ]
    cases = list(itertools.product(groups, measures, conditions))
    # Manifests have most of what is asked of all rows.
    whole = [case for case in cases if case[0] in ("", '"sort"') and case[2] == "true"]
    for group, measure, condition in whole + random.Random(68).sample([case for case in cases if case not in whole], 80):
        columns = f"{group} AS grouped, {measure}" if group else measure
        behind = f"FROM aggregates WHERE {condition}" + (" GROUP BY grouped" if group else "")
        # A sum over an expression needs the rows.
        expected = [row[:-1] for row in client.sql(NAMESPACE, f"SELECT {columns}, sum(id % 3) AS rest {behind}")]
        statement = f"SELECT {columns} {behind}"
        assert sorted(map(repr, client.sql(NAMESPACE, statement))) == sorted(map(repr, expected)), statement
