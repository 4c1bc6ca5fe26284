//! Parameters and answers of the routes of a collection's schema, which is a JSON Schema.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How a schema is registered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SchemaParameters {
    /// Whether nothing is changed, and only told what would be.
    #[serde(default)]
    pub dry_run: bool,
}

/// A column of a collection's table that has a property of its documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TypedColumnEntry {
    /// The name of the column.
    pub column: String,
    /// The property.
    pub property: String,
    /// What its values are: `boolean`, `int`, `long`, `float`, `double`, `decimal(10,2)`, `string`, `uuid`, `date`,
    /// `timestamptz`, `object` or `array`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether a document may have null there.
    pub nullable: bool,
    /// Whether every document should have it.
    pub required: bool,
}

/// A column that comes or gets wider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ColumnChange {
    /// The name of the column.
    pub column: String,
    /// What its values were; null for a new one.
    pub before: Option<String>,
    /// What they are then.
    pub now: String,
}

/// The schema of a collection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CollectionSchema {
    /// The collection.
    pub collection: String,
    /// The JSON Schema as it was registered.
    pub schema: Value,
    /// The columns that it makes.
    pub columns: Vec<TypedColumnEntry>,
}

/// What a schema changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SchemaRegistration {
    /// The collection.
    pub collection: String,
    /// The columns of its table with it.
    pub columns: Vec<TypedColumnEntry>,
    /// Those that came or got wider.
    pub changes: Vec<ColumnChange>,
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// Why the rows of the table do not have their values yet, which a later refresh gives them; left out where they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<String>,
}
