"""Views that SQL stores, as other engines see them: listed everywhere, read where the engine reads a query that is not in its dialect."""
import json

import duckdb
import pytest
from engines import DuckDB, PyIceberg, Spark
from icecore import Client, send_all
from pyspark.errors import AnalysisException

NAMESPACE, CATALOG_NAMESPACE = "shop.example", "shop_example"
QUERY = "SELECT type, count(*) AS events FROM events GROUP BY type"
COUNTS = {"order.placed": 6, "rpc.call": 4}


@pytest.fixture(scope="module")
def viewed(server):
    """The server with events and a view over them."""
    types = ["order.placed"] * COUNTS["order.placed"] + ["rpc.call"] * COUNTS["rpc.call"]
    lines = [json.dumps({"id": f"e-{n}", "type": kind, "ns": NAMESPACE}) for n, kind in enumerate(types)]
    send_all(server.url, lines)
    client = Client(server.url)
    client.commit(NAMESPACE)
    assert client.sql(NAMESPACE, f"CREATE VIEW kinds AS {QUERY}") == [("kinds",)]
    assert dict(client.sql(NAMESPACE, "SELECT * FROM kinds")) == COUNTS
    return server


def test_pyiceberg_lists_the_view(viewed):
    catalog = PyIceberg(viewed.url + "/catalog").catalog
    assert (CATALOG_NAMESPACE, "kinds") in catalog.list_views(CATALOG_NAMESPACE)
    assert (CATALOG_NAMESPACE, "kinds") not in catalog.list_tables(CATALOG_NAMESPACE)


def test_spark_takes_the_query_for_its_own(viewed, spark_session):
    """Of a view without a query for Spark it reads the first one, as Spark's SQL. A Spark that refuses it says so; none answers something else."""
    spark = Spark(spark_session, viewed.url + "/catalog")
    try:
        rows = spark.rows(f"SELECT type, events FROM {spark.table(CATALOG_NAMESPACE, 'kinds')}")
    except AnalysisException as error:
        pytest.skip(f"this Spark does not read the view: {error}")
    assert dict(rows) == COUNTS


def test_duckdb_does_not_read_the_view(viewed):
    """A DuckDB that learns to read Iceberg views has the same rows."""
    duck = DuckDB(viewed.url + "/catalog")
    try:
        rows = duck.rows(f"SELECT * FROM {duck.table(CATALOG_NAMESPACE, 'kinds')}")
    except duckdb.Error as error:
        assert "kinds" in str(error)
        return
    assert dict(rows) == COUNTS
