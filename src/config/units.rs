//! Times and sizes as people write them.

use icecore_catalog::catalog::NAMESPACE_SEPARATOR;
use std::time::Duration;

/// `500ms`, `5s`, `10min` (or `10m`), `1h`, `7d`; none for anything else.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let ms_per_unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(ms_per_unit)?))
}

/// `4096`, `64KiB`, `10MiB`, `1GiB` (or `KB`, `MB`, `GB` by thousands); none for anything else.
#[must_use]
pub fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    let bytes_per_unit = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return None,
    };
    number.checked_mul(bytes_per_unit)
}

/// As [`parse_duration`] reads it, in the largest unit that leaves no rest.
#[must_use]
pub fn write_duration(time: Duration) -> String {
    let ms = time.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s"), (1, "ms")];
    whole(ms, &units).unwrap_or_else(|| "0s".to_owned())
}

/// As [`parse_bytes`] reads it, in the largest unit that leaves no rest.
#[must_use]
pub fn write_bytes(bytes: u64) -> String {
    let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    whole(bytes.into(), &units).unwrap_or_else(|| format!("{bytes} bytes"))
}

/// In the first unit that leaves no rest; none where there is none, and for nothing.
fn whole(number: u128, units: &[(u128, &str)]) -> Option<String> {
    let (one, unit) = units.iter().find(|(one, _)| 0 < number && number.is_multiple_of(*one))?;
    Some(format!("{}{unit}", number / one))
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

/// The sign between a namespace's levels in a URL; empty means the one that all clients know.
pub(super) fn parse_separator(text: &str) -> Option<String> {
    match text {
        "" => Some(NAMESPACE_SEPARATOR.to_owned()),
        "." | "~" | ":" | ";" | "," | "|" | "!" | "$" | "+" | "*" => Some(text.to_owned()),
        _ => None,
    }
}
