"""Tables of other writers read right in SQL: columns by field id at every depth, odd names, promoted types, NaN, UUIDs."""
import json
import urllib.request
import uuid
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from engines import DuckDB
from icecore import BROKEN, Refused
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.types import (
    BinaryType, BooleanType, DateType, DecimalType, DoubleType, FixedType, FloatType, IntegerType, ListType, LongType, MapType, NestedField,
    StringType, StructType, TimestamptzType, UUIDType,
)

NAMESPACE = "lake"


def create(catalog, name, *fields, namespace=NAMESPACE, spec=PartitionSpec(), properties=None):
    """An empty table; a spec names the columns by their places from 1."""
    columns = [NestedField(at + 1, name, kind, required=False) for at, (name, kind) in enumerate(fields)]
    return catalog.create_table(f"{namespace}.{name}", Schema(*columns), partition_spec=spec, properties=properties or {})


def append(table, **columns):
    schema = table.schema().as_arrow()
    rows = len(next(iter(columns.values())))
    table.append(pyarrow.Table.from_arrays([array(columns.get(field.name, [None] * rows), field.type) for field in schema], schema=schema))


def array(values, kind):
    if isinstance(kind, pyarrow.ExtensionType):  # UUIDs
        return kind.wrap_array(pyarrow.array([value and value.bytes for value in values], type=kind.storage_type))
    return pyarrow.array(values, type=kind)


ODD = ["created At", "a-b", "a.b", "a/b", "$data", 'qu"ote', "größe", "日本", "1st", "order", "%41", "a+b"]


@pytest.mark.parametrize("kind,values", [
    (StringType(), ["n", "m", None]), (LongType(), [5, 6, None]), (DoubleType(), [1.5, -2.5, None]), (BooleanType(), [True, False, None]),
], ids=str)
def test_columns_with_odd_names(catalog, client, kind, values):
    name = f"odd_{kind}"
    table = create(catalog, name, ("plain", LongType()), *[(odd, kind) for odd in ODD])
    append(table, plain=[1, 2, 3], **{odd: values for odd in ODD})
    for odd in ODD:
        quoted = '"' + odd.replace('"', '""') + '"'
        assert client.sql(NAMESPACE, f"SELECT plain, {quoted} FROM {name} ORDER BY plain") == list(zip([1, 2, 3], values)), odd
        assert client.sql(NAMESPACE, f"SELECT count({quoted}) FROM {name}") == [(2,)]
        assert client.sql(NAMESPACE, f"SELECT plain FROM {name} WHERE {quoted} IS NULL") == [(3,)]
        literal = {str: f"'{values[0]}'"}.get(type(values[0]), str(values[0]))
        assert client.sql(NAMESPACE, f"SELECT plain FROM {name} WHERE {quoted} = {literal}") == [(1,)]


def test_structs_by_field_id(catalog, client):
    inner = StructType(NestedField(10, "p", LongType(), required=False), NestedField(11, "q", StringType(), required=False))
    table = create(catalog, "st", ("id", LongType()), ("st", inner))
    append(table, id=[1], st=[{"p": 1, "q": "x"}])
    with table.update_schema() as update:
        update.rename_column(("st", "p"), "pp")
    assert client.sql(NAMESPACE, "SELECT st FROM st") == [({"pp": 1, "q": "x"},)]
    assert client.sql(NAMESPACE, "SELECT id FROM st WHERE st['pp'] = 1") == [(1,)]
    with table.update_schema() as update:
        update.delete_column(("st", "q"))
    with table.update_schema() as update:
        update.add_column(("st", "q"), IntegerType())
    assert client.sql(NAMESPACE, "SELECT st FROM st") == [({"pp": 1, "q": None},)]
    append(table, id=[2, 3], st=[{"pp": 2, "q": 7}, None])
    assert client.sql(NAMESPACE, "SELECT id, st FROM st ORDER BY id") == [(1, {"pp": 1, "q": None}), (2, {"pp": 2, "q": 7}), (3, None)]
    assert client.sql(NAMESPACE, "SELECT id FROM st WHERE st['q'] IS NULL ORDER BY id") == [(1,), (3,)]
    assert client.sql(NAMESPACE, "SELECT count(*) FROM st WHERE st IS NULL") == [(1,)]


def test_lists_and_maps_of_structs_by_field_id(catalog, client):
    def pair(at):
        return StructType(NestedField(at, "a", IntegerType(), required=False), NestedField(at + 1, "b", StringType(), required=False))

    items = ListType(20, pair(21), element_required=False)
    table = create(catalog, "nested", ("id", LongType()), ("l", items), ("m", MapType(30, StringType(), 31, pair(32), value_required=False)))
    append(table, id=[1, 2], l=[[{"a": 1, "b": "x"}, None], []], m=[[("k", {"a": 2, "b": "y"})], []])
    with table.update_schema() as update:
        update.rename_column(("l", "element", "b"), "c")
        update.update_column(("l", "element", "a"), LongType())
        update.rename_column(("m", "value", "a"), "z")
    with table.update_schema() as update:
        update.add_column(("m", "value", "a"), StringType())
    rows = client.sql(NAMESPACE, "SELECT l, m FROM nested ORDER BY id")
    assert rows == [([{"a": 1, "c": "x"}, None], {"k": {"z": 2, "b": "y", "a": None}}), ([], {})]
    append(table, id=[3], l=[[{"a": 3_000_000_000, "c": "w"}]], m=[[("k", {"z": 4, "b": None, "a": "s"})]])
    assert client.sql(NAMESPACE, "SELECT l, m FROM nested WHERE id = 3") == [([{"a": 3_000_000_000, "c": "w"}], {"k": {"z": 4, "b": None, "a": "s"}})]


def test_columns_that_are_renamed_dropped_and_added_again(catalog, client, catalog_uri):
    table = create(catalog, "moved", ("a", StringType()), ("b", StringType()), ("n", IntegerType()), ("f", FloatType()), ("d", DecimalType(10, 2)))
    append(table, a=["a1", "a2"], b=["b1", "b2"], n=[1, 2], f=[1.5, 2.5], d=[Decimal("1.25"), Decimal("2.50")])
    with table.update_schema() as update:
        update.rename_column("a", "old")
        update.rename_column("b", "a")
        update.update_column("n", LongType())
        update.update_column("f", DoubleType())
        update.update_column("d", DecimalType(20, 2))
    with table.update_schema() as update:
        update.add_column("b", LongType())
    append(table, old=["a3"], a=["b3"], n=[3_000_000_000], f=[3.5], d=[Decimal("99999999999999.99")], b=[9])
    rows = client.sql(NAMESPACE, "SELECT old, a, b, n, f, d FROM moved ORDER BY old")
    assert rows == [("a1", "b1", None, 1, 1.5, "1.25"), ("a2", "b2", None, 2, 2.5, "2.50"), ("a3", "b3", 9, 3_000_000_000, 3.5, "99999999999999.99")]
    assert client.sql(NAMESPACE, "SELECT n FROM moved WHERE a = 'b2'") == [(2,)]
    assert client.sql(NAMESPACE, "SELECT a FROM moved WHERE n = 2 AND f = 2.5 AND d = 2.5") == [("b2",)]
    assert client.sql(NAMESPACE, "SELECT count(*) FROM moved WHERE b IS NULL") == [(2,)]
    # Rows that another engine deletes go by their place in the file, whatever its columns are called.
    duck = DuckDB(catalog_uri)
    duck.connection.execute(f"DELETE FROM {duck.table(NAMESPACE, 'moved')} WHERE old = 'a1'")
    assert client.sql(NAMESPACE, "SELECT old FROM moved ORDER BY old") == [("a2",), ("a3",)]
    assert client.sql(NAMESPACE, "SELECT old FROM moved WHERE n < 10") == [("a2",)]


def test_files_without_field_ids_are_read_by_the_name_mapping(catalog, client):
    table = create(catalog, "mapped", ("a", StringType()), ("s", StructType(NestedField(5, "x", LongType(), required=False))))
    path = table.location().removeprefix("file://") + "/data/plain.parquet"
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table({"s": [{"x": 1}, {"x": 2}], "a": ["one", "two"]}), path)
    table.add_files(["file://" + path], check_duplicate_files=False)
    with table.update_schema() as update:
        update.rename_column("a", "letters")
        update.rename_column(("s", "x"), "number")
    with table.update_schema() as update:
        update.add_column("later", LongType())
    assert "schema.name-mapping.default" in table.properties
    assert client.sql(NAMESPACE, "SELECT letters, s, later FROM mapped ORDER BY letters") == [("one", {"number": 1}, None), ("two", {"number": 2}, None)]
    assert client.sql(NAMESPACE, "SELECT letters FROM mapped WHERE s['number'] = 2") == [("two",)]


# As the specification writes them (Appendix C, "JSON single-value serialization"), and as SQL shows them.
DEFAULTS = [
    ("long", 7, 7), ("int", -3, -3), ("string", "x", "x"), ("boolean", True, True), ("double", 1.5, 1.5), ("float", 0.5, 0.5), ("date", "2024-02-29", "2024-02-29"),
    ("time", "10:11:12.500000", "10:11:12.500"), ("timestamp", "2024-02-29T10:11:12.123456", "2024-02-29T10:11:12.123456Z"), ("timestamptz", "2024-02-29T10:11:12.123456+00:00", "2024-02-29T10:11:12.123456Z"),
    ("decimal(10, 2)", "14.20", "14.20"), ("uuid", "f79c3e09-677c-4bbd-a479-3f349cb785e7", "f79c3e09-677c-4bbd-a479-3f349cb785e7"), ("binary", "cafe", "yv4="), ("fixed[3]", "00ff01", "AP8B"),
]


def commit(table, catalog_uri, *updates):
    """A change that the library cannot make, as the REST protocol writes it."""
    namespace, name = table.name()
    body = json.dumps({"requirements": [{"type": "assert-table-uuid", "uuid": str(table.metadata.table_uuid)}], "updates": updates})
    request = urllib.request.Request(f"{catalog_uri}/v1/namespaces/{namespace}/tables/{name}", body.encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["metadata"]


def test_columns_have_their_initial_default_in_older_files(catalog, client, catalog_uri):
    inner = StructType(NestedField(10, "p", LongType(), required=False))
    table = create(catalog, "defaults", ("id", LongType()), ("st", inner), ("l", ListType(20, StructType(NestedField(21, "a", LongType(), required=False)), element_required=False)))
    append(table, id=[1, 2], st=[{"p": 1}, None], l=[[{"a": 1}, None], []])
    fields = json.loads(table.schema().model_dump_json())["fields"]
    fields[1]["type"]["fields"].append({"id": 30, "name": "q", "type": "string", "required": False, "initial-default": "in", "write-default": "later"})
    fields[1]["type"]["fields"].append({"id": 31, "name": "u", "type": "uuid", "required": True, "initial-default": DEFAULTS[11][1], "write-default": DEFAULTS[11][1]})
    fields[2]["type"]["element"]["fields"].append({"id": 32, "name": "b", "type": "int", "required": False, "initial-default": 9, "write-default": 9})
    for at, (kind, default, _) in enumerate(DEFAULTS):
        fields.append({"id": 40 + at, "name": f"c{at}", "type": kind, "required": at == 0, "initial-default": default, "write-default": default})
    fields.append({"id": 39, "name": "plain", "type": "long", "required": False, "write-default": 5})
    schema = {"type": "struct", "fields": fields, "schema-id": 1, "last-column-id": 60}
    commit(table, catalog_uri, {"action": "upgrade-format-version", "format-version": 3}, {"action": "add-schema", "schema": schema}, {"action": "set-current-schema", "schema-id": -1})
    columns = ", ".join(f"c{at}" for at in range(len(DEFAULTS)))
    shown = tuple(shown for _, _, shown in DEFAULTS)
    assert client.sql(NAMESPACE, f"SELECT {columns}, plain FROM defaults") == [(*shown, None)] * 2
    assert client.sql(NAMESPACE, "SELECT c0 FROM defaults") == [(7,), (7,)]
    uid = DEFAULTS[11][1]
    assert client.sql(NAMESPACE, "SELECT st, l FROM defaults ORDER BY id") == [
        ({"p": 1, "q": "in", "u": uid}, [{"a": 1, "b": 9}, None]), (None, [])]
    for at, (kind, default, _) in enumerate(DEFAULTS):
        literal = {"binary": "x'cafe'", "fixed[3]": "x'00ff01'"}.get(kind, f"'{default}'" if isinstance(default, str) else str(default))
        assert client.sql(NAMESPACE, f"SELECT count(*), count(c{at}) FROM defaults WHERE c{at} = {literal}") == [(2, 2)], kind
        assert client.sql(NAMESPACE, f"SELECT id FROM defaults WHERE c{at} IS NULL OR c{at} <> {literal}") == [], kind
    assert client.sql(NAMESPACE, "SELECT id FROM defaults WHERE st['q'] = 'in'") == [(1,)]
    assert client.sql(NAMESPACE, "SELECT id FROM defaults WHERE plain IS NULL ORDER BY id") == [(1,), (2,)]
    assert client.sql(NAMESPACE, "SELECT c2, count(*), max(c0), min(c6) FROM defaults GROUP BY 1") == [("x", 2, 7, "2024-02-29")]
    assert client.sql(NAMESPACE, "SELECT a.id FROM defaults a JOIN defaults b ON a.c0 = b.c0 AND a.id = b.id WHERE a.c5 < 1 ORDER BY 1") == [(1,), (2,)]


def test_nan_is_above_every_number_and_there_is_one_zero(catalog, client):
    nan = float("nan")
    table = create(catalog, "floats", ("id", LongType()), ("d", DoubleType()), ("f", FloatType()))
    append(table, id=[1, 2], d=[1.0, nan], f=[1.0, nan])
    append(table, id=[3], d=[nan], f=[nan])
    append(table, id=[4, 5], d=[-0.0, 60.0], f=[-0.0, 60.0])
    append(table, id=[6], d=[None], f=[None])
    for column in ("d", "f"):
        for condition, ids in {
            "{} = 1": [1], "{} < 50": [1, 4], "{} <= 1": [1, 4], "{} BETWEEN 1 AND 2": [1], "{} IN (1)": [1], "NOT {} <> 1": [1],
            "{} > 50": [2, 3, 5], "{} >= 60": [2, 3, 5], "{} = 0": [4], "{} < 0": [], "{} <> 0": [1, 2, 3, 5], "{} = 'NaN'": [2, 3],
            "{} IS NULL": [6], "isnan({})": [2, 3], "NOT {} < 50": [2, 3, 5], "-{} = 0": [4], "{} * -1 = 0": [4],
        }.items():
            condition = condition.format(column)
            assert client.sql(NAMESPACE, f"SELECT id FROM floats WHERE {condition} ORDER BY id") == [(n,) for n in ids], condition
        assert client.sql(NAMESPACE, f"SELECT id FROM floats WHERE {column} IS NOT NULL ORDER BY {column} DESC, id LIMIT 1") == [(2,)]
        assert client.sql(NAMESPACE, f"SELECT count(*) FROM floats a JOIN floats b ON a.{column} = b.{column}") == [(7,)]


def test_uuids_are_text(catalog, client):
    one, other = uuid.UUID("123e4567-e89b-12d3-a456-426614174000"), uuid.UUID(int=7)
    table = create(catalog, "uuids", ("id", LongType()), ("u", UUIDType()), ("b", FixedType(4)))
    append(table, id=[1, 2, 3], u=[one, other, None], b=[b"abcd", b"\0\1\2\3", None])
    assert client.sql(NAMESPACE, "SELECT u FROM uuids ORDER BY id") == [(str(one),), (str(other),), (None,)]
    for condition in (f"u = '{one}'", f"u = CAST('{str(one).upper()}' AS uuid)", f"cast(u AS varchar) = '{one}'", f"u IN ('{one}')", f"u = uuid '{one}'", "b = x'61626364'"):
        assert client.sql(NAMESPACE, f"SELECT id FROM uuids WHERE {condition}") == [(1,)], condition
    assert client.sql(NAMESPACE, "SELECT count(*) FROM uuids a JOIN uuids b ON a.u = b.u") == [(2,)]
    with pytest.raises((Refused, *BROKEN)):
        client.sql(NAMESPACE, "SELECT CAST('no' AS uuid)")


def test_a_name_that_differs_in_case_is_found_if_it_is_the_only_one(catalog, client):
    table = create(catalog, "cased", ("orderId", LongType()), ("aB", LongType()), ("Ab", LongType()), ("st", StructType(NestedField(9, "fieldName", LongType(), required=False))))
    append(table, orderId=[1, 2], aB=[3, 3], Ab=[4, 4], st=[{"fieldName": 5}, {"fieldName": 6}])
    assert client.sql(NAMESPACE, "SELECT orderId, c.ORDERID, count(*) AS n FROM cased c WHERE orderid > 1 GROUP BY orderId ORDER BY orderId") == [(2, 2, 1)]
    assert client.sql(NAMESPACE, "SELECT orderId AS orderId FROM cased ORDER BY ORDERID DESC LIMIT 1") == [(2,)]
    assert client.sql(NAMESPACE, 'SELECT count(*) FROM cased a JOIN cased b USING (orderId)') == [(2,)]
    assert client.sql(NAMESPACE, "SELECT c.st.fieldName FROM cased c ORDER BY 1") == [(5,), (6,)]
    with pytest.raises(Refused):
        client.sql(NAMESPACE, "SELECT ab FROM cased")


def test_other_types_keep_their_values(catalog, client):
    table = create(catalog, "types", ("id", LongType()), ("day", DateType()), ("at", TimestamptzType()), ("raw", BinaryType()), ("dec", DecimalType(38, 10)))
    day, at = date(1500, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=timezone.utc)
    append(table, id=[1], day=[day], at=[at], raw=[b"\xff\0"], dec=[Decimal("1234567890123456789012345678.0123456789")])
    assert client.sql(NAMESPACE, "SELECT day, at, raw, dec FROM types") == [
        ("1500-01-01", "9999-12-31T23:59:59.999999Z", "/wA=", "1234567890123456789012345678.0123456789")]
    assert client.sql(NAMESPACE, "SELECT date_trunc('year', at), at > '9999-01-01', day < '1600-01-01' FROM types") == [("9999-01-01T00:00:00Z", True, True)]
