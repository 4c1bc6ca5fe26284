//! A member of an object, out of JSON text that is not parsed otherwise.

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt};

/// The member of this name of a JSON value; of several with the name the last, as other readers take it. None
/// where there is none, or the value is no object.
#[must_use]
pub fn member_of<'a>(value: &'a RawValue, name: &str) -> Option<&'a RawValue> {
    let mut json = serde_json::Deserializer::from_str(value.get());
    json.deserialize_map(MemberSearch(name)).ok()?
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
