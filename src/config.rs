//! Settings: command line over environment over `icecore.toml` over defaults, each with its origin.
//!
//! This is the only module that reads the environment. Every setting is a row of `settings::SETTINGS`; the
//! typed [`Config`] is built once from their texts, so a wrong value is an error before anything
//! starts.

pub mod access;
mod catalog;
pub mod compaction;
pub mod cron;
pub mod environment;
mod file;
pub(crate) mod folder;
pub mod logging;
pub mod orphans;
pub(crate) mod redaction;
pub mod retention;
mod sample;
mod settings;
pub mod sql;
mod storage;
mod suggestion;
pub mod units;
mod webhooks;

use access::AccessConfig;
pub use catalog::MetastoreUrl;
use compaction::CompactionConfig;
use environment::Environment;
use folder::absolute;
use icecore_catalog::{catalog::CatalogOptions, storage::S3Options};
use icecore_lake::faults::Failpoints;
use icecore_schemas::service_table::ServiceTables;
use logging::LogOptions;
use orphans::OrphansConfig;
use redaction::{HIDDEN, after_sign_in, beginning_of_key, without_credentials};
use retention::{CollectionsConfig, RetentionConfig};
pub use sample::sample;
use settings::SETTINGS;
use sql::SqlConfig;
use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingOrigin {
    /// Nobody said anything.
    Default,
    /// The file.
    File(PathBuf),
    /// The environment variable.
    Environment(String),
    /// The command line.
    Flag,
}

impl fmt::Display for SettingOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::Flag => f.write_str("command line"),
        }
    }
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file named with `--config` cannot be read.
    #[error("read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("`{}` is not valid TOML at line {line}: {problem}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where it is not. The line itself may have a secret.
        line: usize,
        /// What is wrong there.
        problem: String,
    },
    /// A key nobody knows.
    #[error("unknown setting `{key}` in {origin}; {hint}`icecore config` lists all of them")]
    Unknown {
        /// The key.
        key: String,
        /// Where it stands.
        origin: String,
        /// The setting that may be meant, or nothing.
        hint: String,
    },
    /// A value that does not fit.
    #[error("setting `{key}` from {origin}: `{value}` {problem}")]
    Value {
        /// The key.
        key: String,
        /// Where it stands.
        origin: String,
        /// The value.
        value: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// The effective settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address of the HTTP server.
    pub listen: SocketAddr,
    /// Folder of the log and, by default, of everything else.
    pub data_dir: PathBuf,
    /// `file:///…` or `s3://…`.
    pub warehouse: String,
    /// The catalog's database.
    pub metastore: MetastoreUrl,
    /// The warehouse name that clients use.
    pub catalog_name: String,
    /// What the catalog allows, and what dropping a table means.
    pub catalog_options: CatalogOptions,
    /// The announced separator of a namespace's levels.
    pub namespace_separator: String,
    /// Keys and address of the S3 server.
    pub s3: S3Options,
    /// Longest an acknowledged event waits for its snapshot while clients read its table.
    pub commit_interval: Duration,
    /// Longest it waits while none does; less than `commit_interval` counts as that.
    pub commit_interval_max: Duration,
    /// A table with this many waiting bytes is committed at once.
    pub commit_bytes_max: u64,
    /// How data files are merged.
    pub compaction: CompactionConfig,
    /// How files are removed that no snapshot names.
    pub orphans: OrphansConfig,
    /// How long rows and snapshots stay.
    pub retention: RetentionConfig,
    /// How often the tables of collections follow their changes.
    pub collections: CollectionsConfig,
    /// Largest body.
    pub body_bytes_max: usize,
    /// Largest event.
    pub event_bytes_max: usize,
    /// Most events in a body.
    pub batch_events_max: usize,
    /// Most distinct types of a namespace.
    pub types_max: usize,
    /// How far an event's time may lie in the past.
    pub ts_past: Duration,
    /// How far an event's time may lie in the future.
    pub ts_future: Duration,
    /// Whether credentials in events of Tail Workers are taken out.
    pub redact: bool,
    /// Most bytes of requests in work.
    pub queue_bytes_max: usize,
    /// How long an id is remembered.
    pub dedup_window: Duration,
    /// When it is told how many ids left it; none for by hand alone.
    pub dedup_cron: Option<cron::CronTimes>,
    /// Size of a log segment.
    pub wal_segment_bytes: u64,
    /// Most uncommitted log.
    pub wal_bytes_max: u64,
    /// Share of the disk that must stay free.
    pub wal_disk_free_min: f64,
    /// Bounds of queries.
    pub sql: SqlConfig,
    /// Connections at once.
    pub http_connections_max: usize,
    /// Who is let in.
    pub access: AccessConfig,
    /// How long a record of the audit log is kept, at least.
    pub audit_retention: Duration,
    /// Secrets of webhook providers, for namespaces without their own.
    pub webhook_secrets: BTreeMap<String, Vec<String>>,
    /// The token that commands send to a server.
    pub token: Option<String>,
    /// What is logged, and how.
    pub log: LogOptions,
    /// What is odd about the settings and stops nothing.
    pub warnings: Vec<String>,
    /// The name of the build, as `main` knows it.
    pub build: Option<&'static str>,
    /// This program, if it is one that queries can run in.
    pub worker_program: Option<PathBuf>,
    /// What runs jobs; none for what runs the server.
    pub job_threads: Option<tokio::runtime::Handle>,
    /// The failpoint script.
    pub faults: Failpoints,
    /// The tables that the service writes.
    pub tables: ServiceTables,
    /// Each setting's text, origin and meaning; secrets blanked.
    pub effective: Vec<(&'static str, String, SettingOrigin, &'static str)>,
}

/// The texts of all settings before they are typed.
#[derive(Clone, Debug)]
struct SettingTexts(BTreeMap<&'static str, (String, SettingOrigin)>);

impl Config {
    /// Settings from `flags` (key and value), the process's environment and a file: `file`, or
    /// `icecore.toml` in the working folder if it is there.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting and where it stands.
    pub fn load(file: Option<&Path>, flags: &[(&str, String)]) -> Result<Self, ConfigError> {
        let default_file = Path::new("icecore.toml");
        let file = file.or_else(|| default_file.exists().then_some(default_file));
        Self::build(file, &Environment::of_the_process(), flags)
    }

    /// As [`Config::load`] with the environment passed in.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting and where it stands.
    pub fn from_sources(
        file: Option<&Path>,
        environment: Vec<(String, String)>,
        flags: &[(&str, String)],
    ) -> Result<Self, ConfigError> {
        Self::build(file, &Environment::new(environment), flags)
    }

    fn build(
        file: Option<&Path>,
        environment: &Environment,
        flags: &[(&str, String)],
    ) -> Result<Self, ConfigError> {
        let mut texts = SettingTexts::defaults();
        if let Some(path) = file {
            texts.read_file(path)?;
        }
        let warnings = texts.read_environment(environment);
        for (key, value) in flags {
            texts.set(key, value.clone(), SettingOrigin::Flag)?;
        }
        texts.read_aws(environment)?;
        let mut config = texts.typed()?;
        config.log.may_colour = !environment.forbids_colour();
        config.warnings = warnings;
        Ok(config)
    }
}

impl SettingTexts {
    fn defaults() -> Self {
        Self(
            SETTINGS
                .iter()
                .map(|(key, default, _)| (*key, ((*default).to_owned(), SettingOrigin::Default)))
                .collect(),
        )
    }

    fn set(&mut self, key: &str, value: String, origin: SettingOrigin) -> Result<(), ConfigError> {
        let Some((key, ..)) = SETTINGS.iter().find(|(known, ..)| *known == key) else {
            let key = beginning_of_key(key);
            let meant = suggestion::suggestion(
                &key,
                SETTINGS.iter().map(|(known, ..)| (*known).to_owned()),
            );
            let hint = meant.map_or_else(String::new, |meant| format!("did you mean `{meant}`? "));
            return Err(ConfigError::Unknown { key, origin: origin.to_string(), hint });
        };
        self.0.insert(key, (value, origin));
        Ok(())
    }

    /// The text of a setting; every key of the code is a row of [`SETTINGS`].
    fn text(&self, key: &str) -> &str {
        &self.0[key].0
    }

    /// The text of a setting as it may be shown.
    fn shown(&self, key: &str) -> String {
        let text = self.text(key);
        // A folder's name may have anything.
        let is_folder = text.starts_with("file:///")
            || text.starts_with('/')
            || (text.starts_with("file:") && !text.contains('@'));
        let is_plain_place = text
            .strip_prefix("s3:/")
            .is_some_and(|place| !place.contains([':', '@', '=', '?', '#', '%']));
        match key {
            _ if settings::is_secret(key) && !text.is_empty() => HIDDEN.to_owned(),
            "warehouse" if !is_folder && !is_plain_place => without_credentials(text),
            "metastore" | "s3.endpoint" | "storage.sts_endpoint" => without_credentials(text),
            "listen" => after_sign_in(text).to_owned(),
            _ => text.to_owned(),
        }
    }

    fn wrong(&self, key: &str, problem: &str) -> ConfigError {
        ConfigError::Value {
            key: key.to_owned(),
            origin: self.0[key].1.to_string(),
            value: self.shown(key),
            problem: problem.to_owned(),
        }
    }

    fn parsed<T: FromStr>(&self, key: &str, problem: &str) -> Result<T, ConfigError> {
        self.text(key).parse().map_err(|_| self.wrong(key, problem))
    }

    fn duration(&self, key: &str, min: Duration, max: Duration) -> Result<Duration, ConfigError> {
        let form = "is not a time such as 500ms, 5s, 1h or 7d";
        let value = units::parse_duration(self.text(key));
        self.within(key, value, (min, max), units::write_duration, form)
    }

    fn bytes(&self, key: &str, min: u64, max: u64) -> Result<u64, ConfigError> {
        let form = "is not a size such as 64KiB or 1GiB";
        let value = units::parse_bytes(self.text(key));
        self.within(key, value, (min, max), units::write_bytes, form)
    }

    /// A value that was read and keeps the bounds.
    fn within<T: Copy + PartialOrd>(
        &self,
        key: &str,
        value: Option<T>,
        (min, max): (T, T),
        write: fn(T) -> String,
        form: &str,
    ) -> Result<T, ConfigError> {
        let problem = match value {
            None => format!("{form}, from {} to {}", write(min), write(max)),
            Some(value) if value < min => format!("is below the minimum, {}", write(min)),
            Some(value) if max < value => format!("is above the maximum, {}", write(max)),
            Some(value) => return Ok(value),
        };
        Err(self.wrong(key, &problem))
    }

    fn size(&self, key: &str, min: u64, max: u64) -> Result<usize, ConfigError> {
        let bytes = self.bytes(key, min, max)?;
        usize::try_from(bytes).map_err(|_| self.wrong(key, "is more than this machine can address"))
    }

    fn switch(&self, key: &str) -> Result<bool, ConfigError> {
        match self.text(key) {
            "on" | "true" => Ok(true),
            "off" | "false" => Ok(false),
            _ => Err(self.wrong(key, "must be on or off")),
        }
    }

    fn count(&self, key: &str) -> Result<usize, ConfigError> {
        let count: usize = self.parsed(key, "is not a whole number")?;
        if count == 0 { Err(self.wrong(key, "must be 1 or more")) } else { Ok(count) }
    }

    fn optional(&self, key: &str) -> Option<String> {
        Some(self.text(key)).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    fn typed(&self) -> Result<Config, ConfigError> {
        let data_dir = absolute(Path::new(self.text("data_dir")))
            .map_err(|_| self.wrong("data_dir", "is not a path"))?;
        let warehouse = self.warehouse(&data_dir)?;
        let metastore = self.metastore(&data_dir)?;
        Ok(Config {
            listen: self.listen()?,
            effective: self.effective(&warehouse, &metastore),
            warehouse,
            metastore,
            data_dir,
            catalog_name: self.catalog_name()?,
            catalog_options: self.catalog_options()?,
            namespace_separator: self.namespace_separator()?,
            s3: self.s3()?,
            commit_interval: self.duration(
                "commit.interval",
                Duration::from_millis(100),
                Duration::from_secs(600),
            )?,
            commit_interval_max: self.duration(
                "commit.interval_max",
                Duration::from_millis(100),
                Duration::from_secs(3600),
            )?,
            commit_bytes_max: self.bytes("commit.bytes_max", 1 << 20, 1 << 30)?,
            compaction: self.compaction()?,
            orphans: self.orphans()?,
            retention: self.retention()?,
            collections: self.collections()?,
            body_bytes_max: self.size("ingest.body_bytes_max", 1 << 16, 1 << 28)?,
            event_bytes_max: self.size("ingest.event_bytes_max", 1 << 16, 1 << 20)?,
            batch_events_max: self.count("ingest.batch_events_max")?,
            types_max: self.count("ingest.types_max")?,
            ts_past: self.duration("ingest.ts_past", Duration::ZERO, DAY * 36_500)?,
            ts_future: self.duration("ingest.ts_future", Duration::ZERO, DAY * 36_500)?,
            redact: self.switch("ingest.redact")?,
            queue_bytes_max: self.size("ingest.queue_bytes_max", 1 << 20, 1 << 36)?,
            dedup_window: self.duration("dedup.window", DAY, DAY * 366)?,
            dedup_cron: self.cron("dedup.cron")?,
            wal_segment_bytes: self.bytes("wal.segment_bytes", 1 << 16, 1 << 32)?,
            wal_bytes_max: self.bytes("wal.bytes_max", 1 << 20, 1 << 44)?,
            wal_disk_free_min: self.free_share()?,
            sql: self.sql()?,
            http_connections_max: self.count("http.connections_max")?,
            access: self.access()?,
            audit_retention: self.duration("audit.retention", DAY, DAY * 36_500)?,
            webhook_secrets: self.webhook_secrets()?,
            token: self.optional("token"),
            log: self.log()?,
            warnings: Vec::new(),
            build: None,
            worker_program: None,
            job_threads: None,
            faults: Failpoints::parse(self.text("failpoints"))
                .map_err(|problem| self.wrong("failpoints", &problem))?,
            tables: self.tables()?,
        })
    }

    fn tables(&self) -> Result<ServiceTables, ConfigError> {
        let count: usize = self.parsed("trial_columns", "is not a whole number")?;
        let tables = ServiceTables::with_trial(count)
            .ok_or_else(|| self.wrong("trial_columns", "is more than this build has"))?;
        let count: usize = self.parsed("trial_table", "is not a whole number")?;
        tables
            .and_trial(count)
            .ok_or_else(|| self.wrong("trial_table", "is not what this build has"))
    }

    fn warehouse(&self, data_dir: &Path) -> Result<String, ConfigError> {
        let text = self.text("warehouse");
        if text.is_empty() {
            return Ok(format!("file://{}", data_dir.join("warehouse").display()));
        }
        let bucket = text.strip_prefix("s3://").and_then(|place| place.split('/').next());
        if bucket.is_some_and(|bucket| bucket.contains(['@', ':'])) {
            let problem =
                "must be s3://bucket/prefix; set s3.access_key_id and s3.secret_access_key";
            return Err(self.wrong("warehouse", problem));
        }
        if let Some(folder) = text.strip_prefix("file://").filter(|folder| folder.starts_with('/'))
        {
            let folder = absolute(Path::new(folder))
                .map_err(|_| self.wrong("warehouse", "is not a path"))?;
            return Ok(format!("file://{}", folder.display()).trim_end_matches('/').to_owned());
        }
        if bucket.is_some() {
            return Ok(text.trim_end_matches('/').to_owned());
        }
        let problem =
            if text.contains("://") || text.starts_with("s3:") || self.shown("warehouse") != text {
                "must be file:///folder or s3://bucket/prefix".to_owned()
            } else {
                let folder = absolute(Path::new(text)).unwrap_or_else(|_| PathBuf::from(text));
                format!("is not a URL; did you mean file://{}?", folder.display())
            };
        Err(self.wrong("warehouse", &problem))
    }

    fn free_share(&self) -> Result<f64, ConfigError> {
        let share: f64 = self.parsed("wal.disk_free_min", "is not a share such as 0.05")?;
        let wrong = || self.wrong("wal.disk_free_min", "must be at least 0 and below 1");
        (0.0..1.0).contains(&share).then_some(share).ok_or_else(wrong)
    }

    /// Every setting as it counts: where an empty one stands for a place, that place.
    fn effective(
        &self,
        warehouse: &str,
        metastore: &MetastoreUrl,
    ) -> Vec<(&'static str, String, SettingOrigin, &'static str)> {
        let shown = |key: &str| match key {
            "warehouse" => warehouse.to_owned(),
            "metastore" => metastore.to_string(),
            _ => self.shown(key),
        };
        SETTINGS
            .iter()
            .map(|(key, _, meaning)| (*key, shown(key), self.0[key].1.clone(), *meaning))
            .collect()
    }
}

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests;
