//! What a JSON Schema says of a collection's documents: a part of draft 2020-12.
//!
//! A schema makes columns. It refuses no document, so keywords that only bound values are kept and not looked at.

use crate::table::typed_columns::{TypedKind, TypedMember};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Map, Value, value::RawValue};
use std::{
    collections::{HashMap, HashSet},
    fmt,
};

/// Most properties of a schema: each is a column of every row.
const PROPERTIES_MAX: usize = 200;
/// Longest schema, in bytes: it is a property of the table, whose metadata is written with each commit.
const SCHEMA_BYTES_MAX: usize = 32 << 10;
/// Longest name of a property that becomes a column's, in bytes.
const NAME_BYTES_MAX: usize = 128;
/// Most digits of a decimal, by Iceberg's specification.
const DIGITS_MAX: u8 = 38;

const NO_TYPE: &str =
    "has no type of a column: give it `type`, such as \"string\" or [\"string\", \"null\"]";
const SEVERAL_TYPES: &str = "has several types: give it one, with \"null\" beside it if you like";
const UNKNOWN_TYPE: &str =
    "has an unknown type: use boolean, integer, number, string, object or array";
const NO_DECIMAL: &str =
    "is a decimal without digits: give it `precision`, 1 to 38, and `scale`, 0 to `precision`";
const NO_DECIMAL_TYPE: &str =
    "has the format decimal and another type: give it the type \"number\" or \"string\"";

/// Why a JSON Schema makes no columns.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// It is not of an object with properties.
    #[error(
        "the schema is of no object with properties: write {{\"type\": \"object\", \"properties\": {{\"name\": {{\"type\": \"string\"}}}}}}"
    )]
    Form,
    /// It has more properties than a table gets columns.
    #[error("the schema has more than {max} properties: name those that queries use", max = PROPERTIES_MAX)]
    TooMany,
    /// What it says of `required` is no list of names.
    #[error("`required` is no list of names: write {{\"required\": [\"name\"]}}, or leave it out")]
    Required,
    /// It names a property twice.
    #[error("property `{0}` is there twice: leave one of the two out")]
    Repeated(String),
    /// It is too long.
    #[error("the schema is longer than {max} bytes: leave descriptions out", max = SCHEMA_BYTES_MAX)]
    TooLong,
    /// A property's name is too long.
    #[error("the name of property `{0}` is longer than {max} bytes: leave it out", max = NAME_BYTES_MAX)]
    Name(String),
    /// A property makes no column.
    #[error("property `{member}` {problem}")]
    Property {
        /// Its name.
        member: String,
        /// What is wrong with it, and what to change.
        problem: &'static str,
    },
}

/// A schema that makes columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentSchema {
    text: String,
    /// By name.
    members: Vec<TypedMember>,
}

impl DocumentSchema {
    /// Reads a JSON Schema.
    ///
    /// # Errors
    /// [`SchemaError`] says what to change.
    pub fn parse(schema: &Value) -> Result<Self, SchemaError> {
        let whole = schema.as_object().ok_or(SchemaError::Form)?;
        let is_object = whole.get("type").and_then(Value::as_str) == Some("object");
        let properties = whole.get("properties").and_then(Value::as_object);
        let Some(properties) = properties.filter(|it| is_object && !it.is_empty()) else {
            return Err(SchemaError::Form);
        };
        if PROPERTIES_MAX < properties.len() {
            return Err(SchemaError::TooMany);
        }
        let text = schema.to_string();
        if SCHEMA_BYTES_MAX < text.len() {
            return Err(SchemaError::TooLong);
        }
        let required = required_names(whole.get("required")).ok_or(SchemaError::Required)?;
        let mut members = Vec::with_capacity(properties.len());
        for (name, property) in properties {
            if NAME_BYTES_MAX < name.len() {
                return Err(SchemaError::Name(name.clone()));
            }
            let (kind, nullable) = typed(property)
                .map_err(|problem| SchemaError::Property { member: name.clone(), problem })?;
            let required = required.contains(name.as_str());
            members.push(TypedMember { member: name.clone(), kind, nullable, required });
        }
        members.sort_by(|one, other| one.member.cmp(&other.member));
        Ok(Self { text, members })
    }

    /// It as JSON text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The members that it names, by name.
    #[must_use]
    pub fn members(&self) -> &[TypedMember] {
        &self.members
    }
}

/// Refuses the text of a schema that names a property twice: only the second of the two is in the parsed schema.
///
/// # Errors
/// [`SchemaError::Repeated`]
pub fn check_names(text: &[u8]) -> Result<(), SchemaError> {
    let Ok(whole) = serde_json::from_slice::<HashMap<String, &RawValue>>(text) else {
        return Ok(());
    };
    let names = whole.get("properties").map(|properties| serde_json::from_str(properties.get()));
    let Some(Ok(MemberNames(names))) = names else { return Ok(()) };
    let mut seen = HashSet::with_capacity(names.len());
    match names.iter().find(|name| !seen.insert(name.as_str())) {
        Some(name) => Err(SchemaError::Repeated(name.clone())),
        None => Ok(()),
    }
}

/// The names of an object's members, as often as they are there.
struct MemberNames(Vec<String>);

impl<'de> Deserialize<'de> for MemberNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(NamesVisitor)
    }
}

struct NamesVisitor;

impl<'de> Visitor<'de> for NamesVisitor {
    type Value = MemberNames;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<MemberNames, A::Error> {
        let mut names = Vec::new();
        while let Some((name, IgnoredAny)) = members.next_entry()? {
            names.push(name);
        }
        Ok(MemberNames(names))
    }
}

/// The names of a list; none where it is no such list.
fn required_names(list: Option<&Value>) -> Option<HashSet<&str>> {
    match list {
        None => Some(HashSet::new()),
        Some(list) => list.as_array()?.iter().map(Value::as_str).collect(),
    }
}

/// What the values of a property are, and whether they may be null.
fn typed(property: &Value) -> Result<(TypedKind, bool), &'static str> {
    let schema = property.as_object().ok_or(NO_TYPE)?;
    let names: Vec<&str> = match (schema.get("type"), schema.get("anyOf")) {
        (Some(Value::String(name)), _) => vec![name.as_str()],
        (Some(Value::Array(names)), _) => names.iter().filter_map(Value::as_str).collect(),
        // What some generators of schemas write for a type or null.
        (None, Some(Value::Array(choices))) => return choice(choices),
        _ => return Err(NO_TYPE),
    };
    let nullable = names.contains(&"null");
    let mut others = names.into_iter().filter(|name| *name != "null");
    let name = others.next().ok_or(NO_TYPE)?;
    if others.next().is_some() {
        return Err(SEVERAL_TYPES);
    }
    let format = schema.get("format").and_then(Value::as_str);
    let kind = match (name, format) {
        ("string" | "number", Some("decimal")) => decimal(schema)?,
        (_, Some("decimal")) => return Err(NO_DECIMAL_TYPE),
        ("boolean", _) => TypedKind::Boolean,
        ("integer", Some("int32")) => TypedKind::Int,
        ("integer", _) => TypedKind::Long,
        ("number", Some("float")) => TypedKind::Float,
        ("number", _) => TypedKind::Double,
        ("string", Some("date-time")) => TypedKind::Timestamptz,
        ("string", Some("date")) => TypedKind::Date,
        ("string", Some("uuid")) => TypedKind::Uuid,
        ("string", _) => TypedKind::String,
        ("object", _) => TypedKind::Object,
        ("array", _) => TypedKind::Array,
        _ => return Err(UNKNOWN_TYPE),
    };
    Ok((kind, nullable))
}

/// One schema, with one of null beside it.
fn choice(choices: &[Value]) -> Result<(TypedKind, bool), &'static str> {
    let is_null = |choice: &&Value| choice.get("type").and_then(Value::as_str) == Some("null");
    let others: Vec<&Value> = choices.iter().filter(|choice| !is_null(choice)).collect();
    match others[..] {
        [one] => {
            let (kind, nullable) = typed(one)?;
            Ok((kind, nullable || others.len() < choices.len()))
        }
        [] => Err(NO_TYPE),
        _ => Err(SEVERAL_TYPES),
    }
}

fn decimal(schema: &Map<String, Value>) -> Result<TypedKind, &'static str> {
    let digits = |name: &str| schema.get(name).and_then(Value::as_u64);
    let precision = digits("precision").and_then(|digits| u8::try_from(digits).ok());
    let precision =
        precision.filter(|digits| (1..=DIGITS_MAX).contains(digits)).ok_or(NO_DECIMAL)?;
    let scale = match schema.get("scale") {
        None => Some(0),
        Some(_) => digits("scale").and_then(|digits| u8::try_from(digits).ok()),
    };
    let scale = scale.filter(|digits| *digits <= precision).ok_or(NO_DECIMAL)?;
    Ok(TypedKind::Decimal { precision, scale })
}
