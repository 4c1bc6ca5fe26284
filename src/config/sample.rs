//! A settings file to begin with: every row of the table, commented out.

use crate::config::settings::SETTINGS;
use std::fmt::Write as _;

const HEAD: &str = "\
# Settings of Icecore. Each is commented out and shows its default: take the `#` away to set it.
# Icecore reads `icecore.toml` in the folder in which it is started, or the file that --config names.
# An environment variable such as ICECORE_COMMIT_INTERVAL takes precedence over the file, and the
# command line over both. `icecore config` shows the values in effect and where they come from.
#
# A time is written 500ms, 5s, 10min, 1h or 7d, a size 64KiB, 10MiB or 1GiB.
";

/// A file with every setting, its default and its meaning. Each line that begins with `#` and a key
/// can be uncommented by itself.
#[must_use]
pub fn sample() -> String {
    let mut text = HEAD.to_owned();
    for (key, default, meaning) in SETTINGS {
        // Dotted keys: a section's head would have to be uncommented too.
        write!(text, "\n# {meaning}\n#{key} = {}\n", value(default))
            .expect("a String takes any text");
    }
    text
}

/// Numbers and booleans as TOML has them, everything else quoted.
fn value(text: &str) -> String {
    let is_plain = text.parse::<f64>().is_ok() || text.parse::<bool>().is_ok();
    if is_plain { text.to_owned() } else { toml::Value::String(text.to_owned()).to_string() }
}
