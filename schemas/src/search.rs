//! Parameters and answers of the routes that find things by their properties.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Which things are found. A thing is a document of a collection as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SearchParameters {
    /// A text in the id or the document, in any case.
    pub q: Option<String>,
    /// Only those of this type: member `type` of the document, else the collection.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// NAME:VALUE: only those whose document has this value there. A name with dots is of a member of a member. May
    /// be there up to 8 times.
    pub property: Option<String>,
    /// Only those that changed before this `seq`, which an earlier page gave as `next`.
    pub after: Option<u64>,
    /// Most of a page; 50 when left out.
    #[cfg_attr(test, schemars(range(min = 1, max = 500)))]
    pub limit: Option<usize>,
}

/// Which things are counted, and by what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FacetParameters {
    /// A text in the id or the document, in any case.
    pub q: Option<String>,
    /// Only those of this type: member `type` of the document, else the collection.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// NAME:VALUE: only those whose document has this value there. May be there up to 8 times.
    pub property: Option<String>,
    /// The name of a property that they are counted by, too. May be there up to 8 times.
    pub by: Option<String>,
    /// Most values of each facet; 20 when left out.
    #[cfg_attr(test, schemars(range(min = 1, max = 100)))]
    pub limit: Option<usize>,
}

/// A thing that was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FoundThing {
    /// Its key in the collection.
    pub id: String,
    /// The collection.
    pub collection: String,
    /// Member `type` of the document, else the collection.
    #[serde(rename = "type")]
    pub kind: String,
    /// The document; as a text where it is not JSON.
    pub data: serde_json::Value,
    /// When it changed last, RFC 3339.
    pub ts: String,
    /// The `seq` of that change.
    pub seq: u64,
}

/// A page of things, those that changed last first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FoundThings {
    /// The things.
    pub things: Vec<FoundThing>,
    /// What the next page comes after, while there may be more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// How many things have a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FacetValue {
    /// The value as text; null for those without one.
    pub value: Option<String>,
    /// How many.
    pub count: u64,
}

/// How many things there are, by their properties.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ThingFacets {
    /// All that were found.
    pub count: u64,
    /// By `type`, `collection` and each property that was asked for: the most frequent values, those first.
    pub facets: BTreeMap<String, Vec<FacetValue>>,
}
