//! Members of an object, out of JSON text that is not parsed otherwise, and what they are as values of a type.

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::{borrow::Cow, collections::HashMap, fmt};

/// The member of this name of a JSON value; of several with the name the last, as other readers take it. None
/// where there is none, or the value is no object.
#[must_use]
pub fn member_of<'a>(value: &'a RawValue, name: &str) -> Option<&'a RawValue> {
    let mut json = serde_json::Deserializer::from_str(value.get());
    json.deserialize_map(MemberSearch(name)).ok()?
}

/// The members of a JSON value that have these names, each at the place of its name; of several with one name the
/// last. None where the value is no object.
pub(in crate::table) fn members_of<'a>(
    value: &'a RawValue,
    places: &HashMap<String, usize>,
) -> Option<Vec<Option<&'a RawValue>>> {
    let mut json = serde_json::Deserializer::from_str(value.get());
    json.deserialize_map(MembersSearch(places)).ok()
}

/// The text of a string; none of another value, and of a string with half of a surrogate pair.
pub(in crate::table) fn text_of(value: &RawValue) -> Option<String> {
    let raw = value.get();
    if raw.starts_with('"') { serde_json::from_str::<String>(raw).ok() } else { None }
}

/// A number without fraction and exponent, of 64 bits.
pub(in crate::table) fn long_of(value: &RawValue) -> Option<i64> {
    value.get().parse().ok()
}

/// Any number, as the double nearest to it.
pub(in crate::table) fn double_of(value: &RawValue) -> Option<f64> {
    // A number beyond all doubles would be infinite, which JSON cannot say.
    value.get().parse::<f64>().ok().filter(|number| number.is_finite())
}

/// True or false.
pub(in crate::table) fn boolean_of(value: &RawValue) -> Option<bool> {
    value.get().parse().ok()
}

/// Finds a member of an object.
struct MemberSearch<'a>(&'a str);

impl<'de> Visitor<'de> for MemberSearch<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = members.next_key::<Cow<'de, str>>()? {
            if name == self.0 {
                found = Some(members.next_value()?);
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Finds several members of an object.
struct MembersSearch<'a>(&'a HashMap<String, usize>);

impl<'de> Visitor<'de> for MembersSearch<'_> {
    type Value = Vec<Option<&'de RawValue>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut found = vec![None; self.0.len()];
        while let Some(name) = members.next_key::<Cow<'de, str>>()? {
            if let Some(place) = self.0.get(&*name) {
                found[*place] = Some(members.next_value()?);
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}
