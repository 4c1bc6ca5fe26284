"""Answers of Icecore and of DuckDB in one form, so that they can be compared."""
import base64
import json
import math
import re
from datetime import date, datetime, timezone
from decimal import Decimal
from uuid import UUID

import duckdb
from server import ROOT


def listed_refusals():
    """What docs/sql.md says about refusals: the texts in its first column of tables under `## Refused`."""
    page = (ROOT / "docs" / "sql.md").read_text().split("## Refused")[1]
    return re.findall(r"^\| `([^`]+)`", page, re.MULTILINE)


def plain(value, kind=""):
    """A value of either engine in one form: numbers by value to ten digits, and to twelve behind the point, times as microseconds."""
    if isinstance(value, (dict, list)) and not kind.startswith("interval"):
        return json.dumps(deep(value), sort_keys=True, ensure_ascii=False)
    if isinstance(value, (bytes, UUID)):
        return deep(value)
    if value is None or isinstance(value, (bool, str)) and not kind.startswith(("timestamp", "date", "decimal")):
        return value
    if kind.startswith("decimal"):
        value = Decimal(value)
    if kind.startswith("timestamp"):
        value = datetime.fromisoformat(value.replace("Z", "+00:00"))
    if kind.startswith("date"):
        value = date.fromisoformat(value)
    if isinstance(value, datetime):
        value = value.astimezone(timezone.utc).replace(tzinfo=None) if value.tzinfo else value
        return ("time", str(value))
    if isinstance(value, date):
        return ("date", str(value))
    if isinstance(value, (float, Decimal)):
        if math.isnan(value) or math.isinf(value):
            return None  # JSON has no such number.
        value = 0 if abs(value) < 1e-12 else value
        return int(value) if value == int(value) and abs(value) < 1e15 else f"{float(value):.10g}"
    return value


def deep(value):
    """What JSON has for a value of DuckDB, at every depth."""
    if isinstance(value, dict):
        return {str(name): deep(member) for name, member in value.items()}
    if isinstance(value, list):
        return [deep(member) for member in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime):
        value = value.astimezone(timezone.utc) if value.tzinfo else value
        return value.replace(tzinfo=None).isoformat() + "Z"
    if isinstance(value, float):
        return (int(value) if value == int(value) else value) if math.isfinite(value) else None
    return str(value) if isinstance(value, (date, Decimal, UUID)) else value


def ask(client, namespace, sql):
    """Rows in plain form, or the error."""
    headers = {"content-type": "application/json", "accept": "application/json"}
    try:
        status, _, raw = client.request("POST", f"/v1/{namespace}/sql", json.dumps({"sql": sql}), headers)
        answer = json.loads(raw)
    except Exception as broken:  # noqa: BLE001 - an error behind the head of the answer
        return None, f"the answer broke off: {broken!r}"
    if status != 200 or "error" in answer:
        return None, answer["error"]
    kinds = [column["type"] for column in answer["columns"]]
    return [tuple(plain(value, kind) for value, kind in zip(row, kinds)) for row in answer["rows"]], None


def ask_duck(duck, sql):
    try:
        return [tuple(plain(value) for value in row) for row in duck.execute(sql).fetchall()], None
    except duckdb.Error as error:
        return None, str(error)
