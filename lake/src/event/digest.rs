//! What a JSON text says, as a number: two texts that say the same have the same digest.
//!
//! The order and spelling of members, white space, escapes and the way a number is written do not
//! matter, and a member that is null counts as one that is not there; of several members with one name
//! the last counts. Numbers are compared exactly, however large or small: never as floating point.

use crate::event::json::{self, JsonKind, JsonScanner, JsonValue};
use std::borrow::Cow;
use xxhash_rust::xxh3::xxh3_128;

/// Most digits of a number that is written without a power of ten as a name.
const NAME_DIGITS_MAX: usize = 40;

/// The digest of a value.
pub(crate) fn digest(value: JsonValue<'_>) -> u128 {
    match value.kind {
        JsonKind::Null => tagged(b'0', b""),
        JsonKind::Bool => tagged(b'b', value.raw.as_bytes()),
        JsonKind::Number => tagged(b'1', number(value.raw).as_bytes()),
        JsonKind::Plain | JsonKind::Escaped => tagged(b'"', text(value).as_bytes()),
        JsonKind::Array => array(value),
        JsonKind::Object => object(value, |_| true),
    }
}

/// The digest of an object's members, as far as `counts` takes them; of any other value its own.
pub(crate) fn object(value: JsonValue<'_>, mut counts: impl FnMut(&str) -> bool) -> u128 {
    if value.kind != JsonKind::Object {
        return digest(value);
    }
    let mut sum = tagged(b'{', b"");
    for member in json::last_of_each(&json::members_of(value)).iter() {
        let name = text(member.name);
        if member.value.kind != JsonKind::Null && counts(&name) {
            let mut pair = digest(member.value).to_le_bytes().to_vec();
            pair.extend_from_slice(name.as_bytes());
            sum = sum.wrapping_add(tagged(b':', &pair));
        }
    }
    sum
}

fn array(value: JsonValue<'_>) -> u128 {
    let mut elements = Vec::new();
    let mut scan = JsonScanner::new(value.raw);
    // The value was read before, so only its depth can end this early.
    let mut next = scan.take(b'[') && scan.peek() != Some(b']');
    while next {
        let Ok(element) = scan.value(json::NESTING_MAX) else { break };
        elements.extend_from_slice(&digest(element).to_le_bytes());
        next = scan.take(b',');
    }
    tagged(b'[', &elements)
}

/// A string's text. Half of a surrogate pair stands for no character, so such a string is what it is
/// written as.
pub(crate) fn text(value: JsonValue<'_>) -> Cow<'_, str> {
    match value.text() {
        Some(text) if value.kind == JsonKind::Plain || !text.contains('\u{fffd}') => text,
        _ => Cow::Borrowed(value.raw),
    }
}

/// A valid JSON number in one form: its digits without outer zeros, and the power of ten after them.
fn number(raw: &str) -> String {
    let (sign, rest) = raw.strip_prefix('-').map_or(("", raw), |rest| ("-", rest));
    let (digits, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{fraction}");
    let significant = all.trim_start_matches('0');
    let kept = significant.trim_end_matches('0');
    let Ok(exponent) = exponent.parse::<i64>() else {
        // A power of ten that no computer holds: the number is what it is written as.
        return raw.to_owned();
    };
    if kept.is_empty() {
        return "0".to_owned();
    }
    let zeros = (significant.len() - kept.len()) as i64;
    let power = exponent.saturating_sub(fraction.len() as i64).saturating_add(zeros);
    format!("{sign}{kept}e{power}")
}

/// The text of a valid JSON number as a name: one for all ways to write it, `10` for `1e1` and `10.0`.
pub(crate) fn name(raw: &str) -> Cow<'_, str> {
    let is_plain = raw.len() <= NAME_DIGITS_MAX && raw.bytes().all(|byte| byte.is_ascii_digit());
    if is_plain {
        return Cow::Borrowed(raw);
    }
    let exact = number(raw);
    let (sign, rest) = exact.strip_prefix('-').map_or(("", &*exact), |rest| ("-", rest));
    let parts =
        rest.split_once('e').and_then(|(digits, power)| Some((digits, power.parse().ok()?)));
    let Some((digits, power)) = parts else { return Cow::Owned(exact) };
    let power: i64 = power;
    // How many of the digits stand before the point.
    let whole = power.saturating_add(digits.len() as i64);
    let max = NAME_DIGITS_MAX as i64;
    let zeros = |count: i64| "0".repeat(usize::try_from(count).unwrap_or(0));
    let text = match usize::try_from(whole) {
        Ok(1..) if 0 <= power && whole <= max => format!("{digits}{}", zeros(power)),
        Ok(whole @ 1..) if power < 0 && digits.len() <= NAME_DIGITS_MAX => {
            format!("{}.{}", &digits[..whole], &digits[whole..])
        }
        _ if -max <= power && power < 0 && whole <= 0 => format!("0.{}{digits}", zeros(-whole)),
        _ => return Cow::Owned(exact),
    };
    Cow::Owned(format!("{sign}{text}"))
}

fn tagged(tag: u8, bytes: &[u8]) -> u128 {
    let mut short = [0; 128];
    if let Some(place) = short.get_mut(..=bytes.len()) {
        place[0] = tag;
        place[1..].copy_from_slice(bytes);
        return xxh3_128(place);
    }
    xxh3_128(&[&[tag], bytes].concat())
}

#[cfg(test)]
mod tests;
