"""Apache Iceberg's REST Compatibility Kit against Icecore.

Each metastore is a server of its own with a fresh data folder (and database). The kit reads and writes files itself, and
Kit*.java put what its tests call a custom location into the warehouse: the catalog accepts no other.
A failed test, a test that was skipped without being listed here, and a listed one that ran are failures, and so is a kit
with fewer tests than it is known to have.
"""
import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "clients"))
from server import Server  # noqa: E402

# Tests of the kit, those with parameters counted once for each.
TESTS = 157
# Tests that the kit skips, and why.
NO_EMPTY_NAMESPACE = "a namespace has at least one level"
SKIPPED = {
    "tables: createTableInUniqueLocation": "the kit itself disables it: it sets an option of the reference server",
    "tables: createAndDropEmptyNamespace": NO_EMPTY_NAMESPACE,
    "tables: listNamespacesWithEmptyNamespace": NO_EMPTY_NAMESPACE,
    "tables: listTablesInEmptyNamespace": NO_EMPTY_NAMESPACE,
    "tables: namespacePropertiesOnEmptyNamespace": NO_EMPTY_NAMESPACE,
    "views: listViewsInEmptyNamespace": NO_EMPTY_NAMESPACE,
}
# Longest run on one metastore.
PATIENCE_S = 900


def install(cache: Path) -> Path:
    """The class path's folder; filled by Maven once for each content of pom.xml and of our own classes."""
    pom = HERE / "pom.xml"
    folder = cache / "rck"
    done = folder / "done"
    sources = [pom, *sorted(HERE.glob("*.java"))]
    wanted = b"".join(source.read_bytes() for source in sources)
    if done.exists() and done.read_bytes() == wanted:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    copy = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
    command = ["mvn", "-B", "-q", "-U", "-f", str(pom), copy, f"-DoutputDirectory={folder}"]
    # Up to three times: what is far away does not always answer.
    if all(subprocess.run(command).returncode != 0 for _ in range(3)):
        sys.exit("Maven could not fetch what tests/rck/pom.xml lists: the compatibility kit did not run")
    # A compiler in a jar: the runtime that Spark needs brings none.
    compiler = ["java", "-cp", f"{folder}/*", "org.eclipse.jdt.internal.compiler.batch.Main", "-17", "-nowarn"]
    classes = os.pathsep.join(map(str, folder.glob("*.jar")))
    subprocess.run([*compiler, "-cp", classes, "-d", str(folder / "classes"), *map(str, sources[1:])], check=True)
    done.write_bytes(wanted)
    return folder


def new_database() -> str:
    """A database of this run on the server of the other tests."""
    server = os.environ.get("TEST_POSTGRES")
    if not server:
        sys.exit("TEST_POSTGRES names no PostgreSQL server; ./check starts one")
    name = f"rck_{uuid4().hex}"
    subprocess.run(["psql", "-q", server, "-c", f"CREATE DATABASE {name}"], check=True)
    return urlsplit(server)._replace(path=f"/{name}").geturl()


def run(metastore: str, jars: Path, folder: Path) -> bool:
    arguments = ["--metastore", new_database()] if metastore == "postgres" else []
    # The kit commits files that are nowhere, and makes tables where it has just dropped others.
    settings = ["--set", "catalog.foreign_files=allow", "--set", "catalog.undrop_window=0s"]
    server = Server(folder, [*arguments, *settings]).start()
    try:
        return judge(metastore, folder, kit(server, jars, folder))
    finally:
        server.stop()


def kit(server: Server, jars: Path, folder: Path) -> int:
    """Runs the whole suite; its exit code. What it says is in kit.log, what came out in `reports`."""
    place = folder / "data" / "warehouse" / "kit"
    place.mkdir(parents=True)
    options = {"uri": f"{server.url}/catalog", "warehouse": "icecore", "rck.local": "false", "rck.requires-namespace-create": "true",
               "rck.supports-serverside-retry": "true", "rck.overrides-requested-location": "false",
               "rck.supports-names-with-dot": "true", "kit.place": f"file://{place}", "java.io.tmpdir": str(place), "org.slf4j.simpleLogger.defaultLogLevel": "warn"}
    command = ["java", "-Xmx1g", *(f"-D{name}={value}" for name, value in options.items()), "-cp", f"{jars / 'classes'}{os.pathsep}{jars}/*",
               "org.junit.platform.console.ConsoleLauncher", "execute", "--select-class", "org.apache.iceberg.rest.KitTables", "--select-class", "org.apache.iceberg.rest.KitViews",
               "--details=none", "--disable-banner", f"--reports-dir={folder / 'reports'}"]
    with open(folder / "kit.log", "wb") as log:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, timeout=PATIENCE_S)
    return done.returncode


def judge(metastore: str, folder: Path, code: int) -> bool:
    """Prints what went wrong and whether the run passed."""
    cases = [case for report in (folder / "reports").glob("TEST-*.xml") for case in xml.parse(report).iter("testcase")]
    failed, skipped, wrong = [], set(), []
    for case in cases:
        broken = case.find("failure") if case.find("failure") is not None else case.find("error")
        if broken is not None:
            failed.append(f"{name_of(case)}\n      {text_of(broken)}")
        elif case.find("skipped") is not None:
            skipped.add(name_of(case))
    wrong += [f"failed: {name}" for name in sorted(failed)]
    wrong += [f"skipped without a reason: {name}" for name in sorted(skipped - SKIPPED.keys())]
    wrong += [f"listed as skipped, but it ran: {name}" for name in sorted(SKIPPED.keys() - skipped)]
    if len(cases) < TESTS:
        wrong.append(f"{len(cases)} tests ran, there are {TESTS}")
    if code != 0 and not failed:
        wrong.append(f"the launcher ended with {code}:\n{(folder / 'kit.log').read_text()[-3000:]}")
    for line in wrong:
        print(f"   {line}")
    print(f"compatibility kit, {metastore}: {len(cases) - len(failed) - len(skipped)} passed, {len(failed)} failed, {len(skipped)} skipped", flush=True)
    return not wrong


def name_of(case: xml.Element) -> str:
    kind = "views" if "View" in case.get("classname", "") else "tables"
    return f"{kind}: {re.sub(r'[({].*', '', case.get('name', ''))}"


def text_of(broken: xml.Element) -> str:
    text = broken.get("message") or broken.text or ""
    return "\n      ".join(text.strip().splitlines()[:12])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["sqlite", "postgres"], help="one metastore instead of both")
    parser.add_argument("--keep", type=Path, help="keep logs, reports and data in this folder")
    options = parser.parse_args()
    metastores = [options.only] if options.only else ["sqlite", "postgres"]
    cache = Path(os.environ.get("ICECORE_CACHE") or Path.home() / ".cache" / "icecore")
    jars = install(cache)
    with tempfile.TemporaryDirectory(prefix="rck-") as temporary:
        root = options.keep or Path(temporary)
        with ThreadPoolExecutor() as pool:
            passed = list(pool.map(lambda metastore: run(metastore, jars, root / metastore), metastores))
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
