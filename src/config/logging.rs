//! What is logged, and in which form: the settings `log` and `log_format`.

use super::{ConfigError, SettingTexts};

/// The words that stand for a level.
const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace", "off"];
/// What is left out of a log whose level is for all: libraries tell at `debug` and `trace` what
/// they do each second, and `object_store` at `info` of each retry, ten for a store that is away.
const LIBRARIES: &str = "sqlx=warn,object_store=warn,datafusion=info,datafusion_functions=info,datafusion_functions_nested=info,datafusion_expr=info,h2=info,hyper=info,hyper_util=info,reqwest=info";

/// What is left out of every log: a parameter of a metastore's URL that `sqlx` does not know, with its
/// value, which is a password where `Password` is written.
const PARAMETERS: &str = "sqlx_postgres::options=error";

/// How the log is written.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// The filter, in the form that `tracing` reads.
    pub filter: String,
    /// The form of a line.
    pub format: LogFormat,
    /// Whether a terminal may get colours; files and pipes never do.
    pub may_colour: bool,
}

/// The form of a line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

impl SettingTexts {
    /// # Errors
    /// A filter that would silence everything by mistake: `tracing` takes an unknown level for the
    /// name of a module.
    pub(super) fn log(&self) -> Result<LogOptions, ConfigError> {
        let filter = self.text("log");
        let is_directive = |part: &str| {
            let part = part.trim();
            LEVELS.iter().any(|level| part.eq_ignore_ascii_case(level)) || part.contains('=')
        };
        let is_level = |part: &str| LEVELS.iter().any(|level| part.eq_ignore_ascii_case(level));
        let is_filter = tracing_subscriber::EnvFilter::builder().parse(filter).is_ok();
        if !is_filter || !filter.split(',').all(is_directive) {
            let text = "must be a level (error, warn, info, debug, trace, off) or a filter such as icecore=debug,warn; log_format sets the format of the lines";
            return Err(self.wrong("log", text));
        }
        let format = match self.text("log_format") {
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            _ => return Err(self.wrong("log_format", "must be text or json")),
        };
        let filter = if is_level(filter) && !matches!(filter, "error" | "warn" | "off") {
            format!("{filter},{LIBRARIES},{PARAMETERS}")
        } else {
            format!("{filter},{PARAMETERS}")
        };
        Ok(LogOptions { filter, format, may_colour: true })
    }
}
