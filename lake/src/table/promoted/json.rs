//! Members of an object, out of JSON text that is not parsed otherwise, and what they are as values of a type.

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::{collections::HashMap, fmt};

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
        while let Some(is_it) = members.next_key_seed(NameTest(self.0))? {
            if is_it {
                found = Some(members.next_value()?);
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Whether a name is this one. No name is copied to be compared.
struct NameTest<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for NameTest<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, name: D) -> Result<Self::Value, D::Error> {
        name.deserialize_str(self)
    }
}

impl Visitor<'_> for NameTest<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(name == self.0)
    }
}

/// The place of a name, if it is one of these.
struct NamePlaces<'a>(&'a HashMap<String, usize>);

impl<'de> DeserializeSeed<'de> for NamePlaces<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, name: D) -> Result<Self::Value, D::Error> {
        name.deserialize_str(self)
    }
}

impl Visitor<'_> for NamePlaces<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.get(name).copied())
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
        while let Some(place) = members.next_key_seed(NamePlaces(self.0))? {
            if let Some(place) = place {
                found[place] = Some(members.next_value()?);
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}
