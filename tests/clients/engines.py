"""DuckDB, PyIceberg, Daft, Spark and ClickHouse on a catalog. Nothing is downloaded when they run.

`namespace` and `table` are catalog names everywhere.
"""
import importlib
import logging
import os
import warnings
from pathlib import Path

import duckdb
import pyarrow
import pyarrow.compute
from pyiceberg.catalog import load_catalog
from pyspark.sql import SparkSession

WAREHOUSE = "icecore"
logging.getLogger("pyiceberg").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="pyiceberg")
SPARK_SETTINGS = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.memory": "1g",
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
}


class DuckDB:
    """DuckDB with the catalog attached as `lake`."""

    name = "duckdb"

    def __init__(self, catalog_uri: str, token: str | None = None):
        self.uri = catalog_uri
        self.connection = connect_duckdb()
        access = "AUTHORIZATION_TYPE 'none'"
        if token:
            self.connection.execute(f"CREATE SECRET lake_secret (TYPE iceberg, TOKEN '{token}')")
            access = "SECRET lake_secret"
        self.connection.execute(f"ATTACH '{WAREHOUSE}' AS lake (TYPE iceberg, ENDPOINT '{catalog_uri}', {access})")

    def table(self, namespace: str, table: str) -> str:
        return f'lake."{namespace}"."{table}"'

    def rows(self, sql: str) -> list[tuple]:
        return self.connection.execute(sql).fetchall()

    def counts(self, namespace: str, table: str, by: str) -> dict:
        return dict(self.rows(f"SELECT {by}, count(*) FROM {self.table(namespace, table)} GROUP BY 1"))

    def ids(self, namespace: str, table: str) -> list[str]:
        return [row[0] for row in self.rows(f"SELECT id FROM {self.table(namespace, table)}")]


def connect_duckdb(extensions=("avro", "httpfs", "iceberg")) -> duckdb.DuckDBPyConnection:
    """DuckDB whose extensions come from their wheels."""
    connection = duckdb.connect()
    connection.execute("SET autoinstall_known_extensions = false; SET autoload_known_extensions = false; SET TimeZone = 'UTC'; SET enable_progress_bar = false")
    for name in extensions:
        wheel = Path(importlib.import_module(f"duckdb_extension_{name}").__file__).parent
        connection.execute(f"LOAD '{wheel}/extensions/v{duckdb.__version__}/{name}.duckdb_extension'")
    return connection


class PyIceberg:
    """PyIceberg; answers are counted with Arrow."""

    name = "pyiceberg"

    def __init__(self, catalog_uri: str):
        self.uri = catalog_uri
        self.catalog = load_catalog("lake", type="rest", uri=catalog_uri, warehouse=WAREHOUSE)

    def load(self, namespace: str, table: str):
        return self.catalog.load_table((namespace, table))

    def column(self, namespace: str, table: str, name: str):
        return self.load(namespace, table).scan(selected_fields=(name,)).to_arrow()[name]

    def counts(self, namespace: str, table: str, by: str) -> dict:
        """`by` is a column, or `day` for the day of `ts`."""
        values = self.column(namespace, table, "ts" if by == "day" else by)
        if by == "day":
            values = pyarrow.compute.strftime(values, "%Y-%m-%d")
        return {entry["values"]: entry["counts"] for entry in values.value_counts().to_pylist()}

    def ids(self, namespace: str, table: str) -> list[str]:
        return self.column(namespace, table, "id").to_pylist()


class Daft:
    """Daft on tables that PyIceberg loads."""

    name = "daft"

    def __init__(self):
        # It would send what is called to its makers.
        os.environ |= {"DAFT_ANALYTICS_ENABLED": "0", "DO_NOT_TRACK": "true"}
        self.daft = importlib.import_module("daft")
        logging.getLogger("daft").setLevel(logging.ERROR)

    def rows(self, table, columns: list[str], snapshot: int | None = None) -> list[tuple]:
        frame = self.daft.read_iceberg(table, snapshot_id=snapshot).select(*columns)
        return [tuple(row[name] for name in columns) for row in frame.to_pylist()]


class Spark:
    """Spark SQL with the catalog as `lake_PORT`: one session serves all servers of a run."""

    name = "spark"

    def __init__(self, session: SparkSession, catalog_uri: str, cached: bool = False):
        """`cached` as Spark is by itself: without, a statement that reads and writes fails when anybody commits meanwhile."""
        self.session = session
        self.catalog = "lake_" + catalog_uri.split(":")[2].split("/")[0]
        settings = {"": "org.apache.iceberg.spark.SparkCatalog", ".type": "rest", ".uri": catalog_uri, ".warehouse": WAREHOUSE,
                    ".cache-enabled": str(cached).lower(), ".header.X-Iceberg-Access-Delegation": "vended-credentials"}
        for name, value in settings.items():
            session.conf.set(f"spark.sql.catalog.{self.catalog}{name}", value)

    def table(self, namespace: str, table: str) -> str:
        return f"`{self.catalog}`.`{namespace}`.`{table}`"

    def rows(self, sql: str) -> list[tuple]:
        return [tuple(row) for row in self.session.sql(sql).collect()]

    def counts(self, namespace: str, table: str, by: str) -> dict:
        return dict(self.rows(f"SELECT {by}, count(*) FROM {self.table(namespace, table)} GROUP BY 1"))

    def ids(self, namespace: str, table: str) -> list[str]:
        return [row[0] for row in self.rows(f"SELECT id FROM {self.table(namespace, table)}")]


class ClickHouse:
    """ClickHouse in this process (chdb), with the catalog as the database `lake_PORT`."""

    name = "clickhouse"

    def __init__(self, session, catalog_uri: str):
        self.session = session
        self.catalog = "lake_" + catalog_uri.split(":")[2].split("/")[0]
        session.query("SET allow_experimental_database_iceberg = 1")
        session.query("SET allow_insert_into_iceberg = 1")
        session.query(f"CREATE DATABASE IF NOT EXISTS {self.catalog} ENGINE = DataLakeCatalog('{catalog_uri}/v1', 'Parquet') "
                      f"SETTINGS catalog_type = 'rest', warehouse = '{WAREHOUSE}'")

    def table(self, namespace: str, table: str) -> str:
        return f"`{self.catalog}`.`{namespace}.{table}`"

    def ids(self, namespace: str, table: str) -> list[str]:
        answer = self.session.query(f"SELECT id FROM {self.table(namespace, table)}", "TabSeparated")
        return str(answer).splitlines()


def start_spark() -> SparkSession:
    """A local session with the Iceberg runtime from the jars in $ICECORE_JARS."""
    jars = sorted(str(path) for path in Path(os.environ["ICECORE_JARS"]).glob("*.jar"))
    if not jars:
        raise RuntimeError("no jars in $ICECORE_JARS; ./check puts them there")
    os.environ |= {"AWS_EC2_METADATA_DISABLED": "true", "SPARK_LOCAL_IP": "127.0.0.1"}
    builder = SparkSession.builder.master("local[2]").appName("icecore").config("spark.jars", ",".join(jars))
    for name, value in SPARK_SETTINGS.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    return session
