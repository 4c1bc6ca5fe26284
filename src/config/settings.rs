//! The table of settings: what there is, its default, what it means.

use crate::config::webhooks;

/// Every setting: its key in `icecore.toml` (the environment has `ICECORE_` and the key in upper
/// case with `_` for `.` and `-`), its default, and what it means.
pub(crate) const SETTINGS: &[(&str, &str, &str)] = &[
    (
        "listen",
        "127.0.0.1:8181",
        "address of the HTTP server, HOST:PORT; port 0 takes a free one, no host is 127.0.0.1",
    ),
    ("data_dir", "./icecore-data", "folder of the log, the metastore and the default warehouse"),
    ("warehouse", "", "file:///folder or s3://bucket/prefix; empty: <data_dir>/warehouse"),
    (
        "metastore",
        "",
        "sqlite://FILE or postgres://USER:PASSWORD@HOST/DATABASE; empty: <data_dir>/icecore.db",
    ),
    ("catalog.name", "icecore", "the warehouse name that Iceberg clients use"),
    ("catalog.undrop_window", "7d", "how long a dropped table can be restored, 0s to 365d"),
    (
        "catalog.purge",
        "false",
        "whether the files of a table that a client drops with purge are deleted after that time",
    ),
    (
        "catalog.foreign_files",
        "refuse",
        "commits that reference files outside the table's location, or move it: refuse or allow",
    ),
    (
        "catalog.verify_at_load",
        "local",
        "whether a load first checks that the metadata file exists: always (on S3 one more request per load), local (on local disk only), never",
    ),
    (
        "catalog.namespace_separator",
        "",
        "separator of namespace levels in catalog URLs, as announced to clients, such as . ; empty: %1F",
    ),
    (
        "catalog.snapshot_lease",
        "1h",
        "how long a snapshot stays that was current when a client of the catalog loaded its table, 10min to 24h",
    ),
    ("s3.endpoint", "", "URL of an S3-compatible server, http://HOST:PORT; empty: AWS"),
    ("s3.region", "us-east-1", "region"),
    ("s3.access_key_id", "", "access key"),
    ("s3.secret_access_key", "", "secret key"),
    ("s3.session_token", "", "session token of temporary keys"),
    ("storage.access", "vended", "how clients access files on S3: none, vended, remote-signing"),
    (
        "storage.role_arn",
        "",
        "role whose keys are vended, limited to one table each; empty: the s3 keys",
    ),
    ("storage.sts_endpoint", "", "address of the role's token service; empty: the store's"),
    ("storage.keys_lifetime", "1h", "how long a role's keys are valid, 15min to 1h"),
    (
        "commit.interval",
        "5s",
        "longest an acknowledged event waits for its snapshot while clients of the catalog read its table, 100ms to 10min; below 5s, also while none does",
    ),
    (
        "commit.interval_max",
        "5min",
        "longest it waits while none does, 100ms to 1h; less than commit.interval counts as that",
    ),
    ("commit.bytes_max", "64MiB", "uncommitted size at which a table is committed at once"),
    (
        "compaction.enabled",
        "on",
        "whether small data files of the service's tables are merged by themselves: on, off",
    ),
    ("compaction.file_bytes", "100MB", "about how long a merged file is, 1MB to 128MiB"),
    ("compaction.file_rows", "1000000", "most rows of a merged file, 1000 to 1000000000"),
    (
        "compaction.files_max",
        "16",
        "small files of a type and day that are left alone while rows still come, 2 to 1000; at most twice as many are there for long",
    ),
    (
        "compaction.days_back",
        "7",
        "closed days that are merged however few files they have, 0 to 36500",
    ),
    ("compaction.cpu_share", "0.25", "share of one processor that compaction takes, 0.01 to 1"),
    (
        "compaction.hour_cron",
        "5 * * * *",
        "when the files are merged that were committed before the hour: minute hour day month weekday, UTC; empty: by hand alone",
    ),
    (
        "compaction.day_cron",
        "0 0 * * *",
        "when the files of days that are over are merged: minute hour day month weekday, UTC; empty: by hand alone",
    ),
    (
        "orphans.cron",
        "30 3 * * *",
        "when files of tables are removed that no metadata names: minute hour day month weekday, UTC; empty: by hand alone",
    ),
    (
        "orphans.grace",
        "24h",
        "how old such a file has to be, and how long it has to be known, before it is removed, 24h to 30d",
    ),
    (
        "retention.events",
        "",
        "how long events are kept, by type: TYPE=DAYS, such as webhook.*=30d, rpc.*=7d; the first that a type meets holds, events of other types stay; empty: all",
    ),
    (
        "retention.cron",
        "0 2 * * *",
        "when old events are taken out: minute hour day month weekday, UTC; empty: by hand alone",
    ),
    ("dead_letters.retention", "30d", "how long dead letters are kept, 1d to 36500d"),
    (
        "dead_letters.cron",
        "30 2 * * *",
        "when old dead letters are taken out: minute hour day month weekday, UTC; empty: by hand alone",
    ),
    (
        "expire.cron",
        "15 * * * *",
        "when snapshots, branches and tags whose time is over are removed: minute hour day month weekday, UTC; empty: by hand alone",
    ),
    (
        "collections.refresh_interval",
        "60s",
        "how often the table of a collection with new changes follows them, 1s to 24h",
    ),
    (
        "collections.cpu_share",
        "0.1",
        "part of the time that refreshes of the table of a collection take, 0.01 to 1: it rests after one that took long",
    ),
    (
        "collections.daily_tags",
        "30",
        "how many tags daily-YYYY-MM-DD of events and the tables of collections are kept, to 100; 0: none are set",
    ),
    (
        "collections.monthly_tags",
        "12",
        "how many tags monthly-YYYY-MM of events and the tables of collections are kept, to 100; 0: none are set",
    ),
    ("ingest.body_bytes_max", "10MiB", "largest body, before and after decompression"),
    ("ingest.event_bytes_max", "1MiB", "largest event, 64KiB to 1MiB"),
    ("ingest.batch_events_max", "10000", "most events in a body"),
    ("ingest.types_max", "1000", "most distinct types of a namespace"),
    ("ingest.ts_past", "7d", "how far an event's time may lie before its arrival"),
    ("ingest.ts_future", "1h", "how far an event's time may lie after its arrival"),
    (
        "ingest.redact",
        "on",
        "whether credentials are removed from Tail Worker events (types tail and tail.*): on, off",
    ),
    ("ingest.queue_bytes_max", "256MiB", "most bytes of requests in progress; beyond it 503"),
    ("dedup.window", "7d", "how long an id is remembered, at least; 24h or more"),
    (
        "dedup.cron",
        "17 * * * *",
        "when it is told how many ids left that window: minute hour day month weekday, UTC; empty: by hand alone",
    ),
    ("wal.segment_bytes", "64MiB", "size of a log segment"),
    ("wal.bytes_max", "8GiB", "most uncommitted log; beyond it 503"),
    ("wal.disk_free_min", "0.05", "share of the disk that must stay free; below it 503"),
    ("sql.memory_bytes_max", "1GiB", "memory of all queries together"),
    ("sql.timeout_max", "60s", "longest a query may run"),
    ("sql.rows_max", "1000000", "most rows of an answer"),
    ("sql.concurrent_max", "16", "concurrent queries, 1 to 256"),
    ("sql.concurrent_per_namespace", "8", "concurrent queries of one namespace"),
    ("sql.concurrent_per_token", "8", "concurrent queries of one token"),
    (
        "sql.workers",
        "on",
        "whether queries run in processes of their own, without files and network: on, off",
    ),
    (
        "sql.spill_bytes_max",
        "0B",
        "most disk in <data_dir>/spill of one query that needs more memory than there is, with sql.workers on; 0B: none, it fails",
    ),
    (
        "visibility.filter",
        "off",
        "whether SQL shows rows with another visibility than public only to tokens with a scope for them (read.user, read.org, read.team): on, off",
    ),
    ("http.connections_max", "1024", "concurrent connections"),
    (
        "auth",
        "off",
        "on: every call needs a token; off: no token needed, on a loopback address only",
    ),
    ("audit.retention", "365d", "how long a record of the audit log is kept, 1d to 36500d"),
    ("token", "", "the token that commands send to a server"),
    ("oidc.issuer", "", "issuer of JWTs that are also accepted; empty: none"),
    ("oidc.audience", "", "what the JWTs' aud must be or contain"),
    ("oidc.algorithms", "RS256,ES256", "some of RS256, RS384, RS512, ES256, ES384, EdDSA"),
    ("oidc.jwks", "", "the issuer's keys: a file, or the JWK set itself"),
    ("oidc.principal_claim", "sub", "the claim that names the caller"),
    ("oidc.scope_claim", "scope", "the claim whose values grant scopes"),
    ("oidc.grants", "", "what each value grants: VALUE=read:*,ingest:shop; OTHER=admin:*"),
    ("webhooks.github.secret", "", webhooks::SECRET),
    ("webhooks.stripe.secret", "", webhooks::SECRET),
    ("webhooks.slack.secret", "", webhooks::SECRET),
    ("webhooks.svix.secret", "", webhooks::SECRET),
    ("webhooks.standard-webhooks.secret", "", webhooks::SECRET),
    ("webhooks.shopify.secret", "", webhooks::SECRET),
    ("webhooks.linear.secret", "", webhooks::SECRET),
    ("webhooks.workos.secret", "", webhooks::SECRET),
    ("webhooks.generic.secret", "", webhooks::SECRET),
    (
        "log",
        "info",
        "what is logged: error, warn, info, debug, trace, off, or a filter such as icecore=debug",
    ),
    ("log_format", "text", "format of the log on stderr: text, or json with one object a line"),
    ("failpoints", "", "for tests: point=abort|error|delay:MS[@SKIP][*TIMES];…"),
    ("trial_columns", "0", "for tests: number of additional columns in events; a release has none"),
    ("trial_table", "0", "for tests: number of columns in a table of changes; a release has none"),
];

/// Settings whose values are not shown.
const SECRETS: &[&str] = &["s3.secret_access_key", "s3.session_token", "token"];

/// Whether a setting's value is not shown.
pub(super) fn is_secret(key: &str) -> bool {
    SECRETS.contains(&key) || webhooks::provider(key).is_some()
}
