//! Settings from the process's environment.
//!
//! `ICECORE_*` variables are settings; an empty one counts as one that is not set. Others may put variables of that prefix there too:
//! Kubernetes adds `ICECORE_PORT=tcp://…` and `ICECORE_SERVICE_HOST` to every pod beside a service
//! called `icecore`. So a variable that is no setting is a warning, and none at all where it has
//! the form of Kubernetes' own. The credentials and the endpoint of AWS' tools count for an S3
//! warehouse that has no settings of its own for them.

use super::{ConfigError, SETTINGS, SettingOrigin, SettingTexts, suggestion::suggestion};
use std::path::{Path, PathBuf};

/// What the variables of this service begin with.
const PREFIX: &str = "ICECORE_";
/// AWS' variables of credentials, which belong together.
const AWS_KEYS: &[(&str, &str)] = &[
    ("s3.access_key_id", "AWS_ACCESS_KEY_ID"),
    ("s3.secret_access_key", "AWS_SECRET_ACCESS_KEY"),
    ("s3.session_token", "AWS_SESSION_TOKEN"),
];
/// AWS' variables of a place: the first that is set counts.
const AWS_PLACE: &[(&str, &[&str])] = &[
    ("s3.endpoint", &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]),
    ("s3.region", &["AWS_REGION", "AWS_DEFAULT_REGION"]),
];

/// The environment, as far as it is looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct Environment(Vec<(String, String)>);

impl Environment {
    /// These variables, with their full names.
    pub(super) fn new(variables: Vec<(String, String)>) -> Self {
        Self(variables)
    }

    /// The process's own. Variables that are not text are left out.
    pub(super) fn of_the_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self(std::env::vars_os().filter_map(text).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, value)| known == name && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    }

    /// The folder of this program among those of the user, see the XDG base directory specification:
    /// a relative path counts as one that is not set.
    pub(super) fn user_folder(&self) -> Option<PathBuf> {
        let absolute = |name: &str| self.get(name).map(Path::new).filter(|path| path.is_absolute());
        let data = absolute("XDG_DATA_HOME")
            .map(Path::to_owned)
            .or_else(|| Some(absolute("HOME")?.join(".local/share")))?;
        Some(data.join("icecore"))
    }

    /// Whether colours are unwanted, see <https://no-color.org>.
    pub(super) fn forbids_colour(&self) -> bool {
        self.get("NO_COLOR").is_some()
    }
}

/// Where programs keep what a user of this machine left with them, such as a history of input; none
/// for a user without a home.
#[must_use]
pub fn user_folder() -> Option<PathBuf> {
    Environment::of_the_process().user_folder()
}

impl SettingTexts {
    /// Puts the `ICECORE_*` variables in, and gives warnings of those that are no settings.
    pub(super) fn read_environment(&mut self, environment: &Environment) -> Vec<String> {
        let mut warnings = Vec::new();
        for (variable, value) in environment.0.iter().filter(|(_, value)| !value.is_empty()) {
            let Some(name) = variable.strip_prefix(PREFIX) else { continue };
            match setting_of(name) {
                Some(key) => {
                    self.0
                        .insert(key, (value.clone(), SettingOrigin::Environment(variable.clone())));
                }
                None if is_of_kubernetes(name, value) => (),
                None => {
                    let meant = suggestion(name, SETTINGS.iter().map(|(key, ..)| variable_of(key)));
                    let meant = meant.map_or_else(String::new, |meant| {
                        format!("; did you mean {PREFIX}{meant}?")
                    });
                    warnings.push(format!(
                        "the environment variable {variable} is not a setting and is ignored{meant}"
                    ));
                }
            }
        }
        warnings
    }

    /// Takes AWS' variables where the warehouse is on S3 and nothing else was said: the keys only
    /// together, since half of one pair and half of another opens nothing.
    ///
    /// # Errors
    /// One of the two keys is there without the other.
    pub(super) fn read_aws(&mut self, environment: &Environment) -> Result<(), ConfigError> {
        if !self.text("warehouse").starts_with("s3://") {
            return Ok(());
        }
        if AWS_KEYS.iter().all(|(key, _)| self.text(key).is_empty()) {
            for (key, variable) in AWS_KEYS {
                self.take_aws(environment, key, variable);
            }
        }
        for (key, variables) in AWS_PLACE {
            let is_open = matches!(self.0[key].1, SettingOrigin::Default);
            let set = variables.iter().find(|variable| environment.get(variable).is_some());
            if let (true, Some(variable)) = (is_open, set) {
                self.take_aws(environment, key, variable);
            }
        }
        let missing = |key: &str| self.text(key).is_empty();
        match (missing("s3.access_key_id"), missing("s3.secret_access_key")) {
            (true, false) => Err(self.wrong("s3.access_key_id", "is empty; the secret key is set")),
            (false, true) => {
                Err(self.wrong("s3.secret_access_key", "is empty; the access key is set"))
            }
            (true, true) | (false, false) => Ok(()),
        }
    }

    fn take_aws(&mut self, environment: &Environment, key: &'static str, variable: &str) {
        if let Some(value) = environment.get(variable) {
            let origin = SettingOrigin::Environment(variable.to_owned());
            self.0.insert(key, (value.to_owned(), origin));
        }
    }
}

pub(super) fn variable_of(key: &str) -> String {
    key.replace(['.', '-'], "_").to_uppercase()
}

fn setting_of(name: &str) -> Option<&'static str> {
    let known = SETTINGS.iter().map(|(key, ..)| *key);
    known.into_iter().find(|key| variable_of(key).eq_ignore_ascii_case(name))
}

/// Whether Kubernetes (or Docker's links, whose form it took over) makes such a variable for a
/// service whose name begins with `icecore`.
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    let is_address = ["tcp://", "udp://", "sctp://"].iter().any(|start| value.starts_with(start));
    let is_service = name.ends_with("SERVICE_HOST") || name.contains("SERVICE_PORT");
    let names_port = name == "PORT" || name.starts_with("PORT_") || name.contains("_PORT");
    is_service || names_port && (is_address || name.contains("_TCP") || name.contains("_UDP"))
}
