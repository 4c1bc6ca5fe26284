"""SQL filters on columns with odd names: those that a table is partitioned or bucketed by, and those of every kind of type."""
from decimal import Decimal

import pytest
from icecore import BROKEN, Refused
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.transforms import BucketTransform, IdentityTransform
from pyiceberg.types import BinaryType, DecimalType, ListType, LongType, MapType, NestedField, StringType, StructType
from test_field_ids import ODD, append, create

NAMESPACE = "odd"
# The type, two values of which the first is greater, and how SQL writes them.
KINDS = {
    "string": (StringType(), ["n", "m"], ["'n'", "'m'"]),
    "long": (LongType(), [6, 5], ["6", "5"]),
    "decimal": (DecimalType(10, 2), [Decimal("1.25"), Decimal("-2.50")], ["1.25", "-2.50"]),
    "binary": (BinaryType(), [b"\xff\0", b"ab"], ["x'ff00'", "x'6162'"]),
}
# What is asked of a column, and which rows have it: the third one's value is NULL.
CONDITIONS = {
    "{column} = {one}": [1], "{column} <> {one}": [2], "{column} > {two}": [1], "{column} < {one}": [2], "{column} BETWEEN {two} AND {one}": [1, 2],
    "{column} IN ({one}, {two})": [1, 2], "{column} NOT IN ({one})": [2], "{column} IS NULL": [3], "{column} IS NOT NULL": [1, 2],
    "{column} = {one} OR {column} IS NULL": [1, 3], "{column} = {two} AND plain = 2": [2], "{column} = {two} AND plain = 1": [],
    "{column} IS DISTINCT FROM {one}": [2, 3],
}
# In test_field_ids.py.
DONE = {("string", "none"), ("long", "none")}
TRANSFORMS = {"none": None, "identity": IdentityTransform(), "bucket": BucketTransform(4)}


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def make(catalog, table: str, column: str, kind, values, transform=None) -> None:
    """A table of three rows, whose column `column` has these values."""
    name = column if isinstance(transform, IdentityTransform) else f"{column}_bucket"
    spec = PartitionSpec(PartitionField(2, 1000, transform, name)) if transform else PartitionSpec()
    made = create(catalog, table, ("plain", LongType()), (column, kind), namespace=NAMESPACE, spec=spec)
    append(made, plain=[1, 2, 3], **{column: values})


def faults(client, table: str, conditions: dict) -> list[str]:
    """The conditions for which other rows are found; the first one's are counted, too."""
    (first, rows), *_ = conditions.items()
    asked = {f"SELECT count(*) FROM {table} WHERE {first}": [(len(rows),)]}
    asked |= {f"SELECT plain FROM {table} WHERE {condition} ORDER BY plain": [(row,) for row in rows] for condition, rows in conditions.items()}
    wrong = []
    for statement, expected in asked.items():
        try:
            found = client.sql(NAMESPACE, statement)
        except (Refused, *BROKEN) as error:
            found = str(error)
        if found != expected:
            wrong.append(f"{statement}: {found}, not {expected}")
    return wrong


@pytest.mark.parametrize("kind,transform", [(kind, transform) for kind in KINDS for transform in TRANSFORMS if (kind, transform) not in DONE])
def test_filters_on_what_a_table_is_partitioned_by(catalog, client, kind, transform):
    of, values, (one, two) = KINDS[kind]
    wrong = []
    for at, odd in enumerate(ODD):
        table = f"{kind}_{transform}_{at}"
        make(catalog, table, odd, of, [*values, None], TRANSFORMS[transform])
        column = quoted(odd)
        wrong += faults(client, table, {text.format(column=column, one=one, two=two): rows for text, rows in CONDITIONS.items()})
        groups = client.sql(NAMESPACE, f"SELECT count(*), count({column}), count(DISTINCT {column}) FROM {table}")
        if groups != [(3, 2, 2)]:
            wrong.append(f"{table}: {groups}")
    assert not wrong, "\n".join(wrong)


def test_filters_on_lists_structs_and_maps_with_odd_names(catalog, client):
    """The fields of the structs and the keys of the maps have these names, too."""
    wrong = []
    for at, odd in enumerate(ODD):
        column = quoted(odd)
        pair = StructType(NestedField(10, odd, LongType(), required=False), NestedField(11, "q", StringType(), required=False))
        kinds = {
            "list": (ListType(10, StringType(), element_required=False), [["x", "y"], [], None], [["x", "y"], [], None],
                     {f"{column}[1] = 'x'": [1], f"{column}[1] IS NULL": [2, 3], f"array_length({column}) = 2": [1]}),
            "struct": (pair, [{odd: 1, "q": "x"}, {odd: 2, "q": None}, None], [{odd: 1, "q": "x"}, {odd: 2, "q": None}, None],
                       {f"{column}['{odd}'] = 1": [1], f"{column}['{odd}'] > 1": [2], f"{column}['q'] IS NULL": [2, 3]}),
            "map": (MapType(10, StringType(), 11, LongType(), value_required=False), [[(odd, 1)], [("k", 2)], None], [{odd: 1}, {"k": 2}, None],
                    {f"{column}['{odd}'] = 1": [1], f"{column}['k'] = 2": [2], f"cardinality({column}) = 1": [1, 2]}),
        }
        for kind, (of, values, shown, conditions) in kinds.items():
            table = f"nested_{kind}_{at}"
            make(catalog, table, odd, of, values)
            found = client.sql(NAMESPACE, f"SELECT {column} FROM {table} ORDER BY plain")
            if found != [(value,) for value in shown]:
                wrong.append(f"{table}: {found}")
            wrong += faults(client, table, conditions | {f"{column} IS NULL": [3], f"{column} IS NOT NULL": [1, 2]})
    assert not wrong, "\n".join(wrong)
