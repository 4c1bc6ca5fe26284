//! `GET /v1/{ns}/search` and `/facets`: things by their properties, answered by a statement over `things` as
//! anybody could send it. Its texts are bound as parameters.
//!
//! Its one invariant: everything is bounded. A page ends after so many things or bytes, a statement has so many
//! conditions, and the query has the limits of every query.

use crate::http::{
    AppState,
    error::ApiError,
    guard::CatalogNamespace,
    json, query,
    query_string::{QueryParameters, exact_page_size},
    rows::{PAGE_BYTES_MAX, integer_at, number_at, text_at},
};
use arrow::record_batch::RecordBatch;
use axum::{
    extract::{Extension, State},
    response::Response,
};
use chrono::{DateTime, SecondsFormat};
use futures::StreamExt;
use icecore_catalog::access::Principal;
use icecore_schemas::{
    error_code::ErrorCode,
    query::SqlRequest,
    search::{FacetValue, FoundThing, FoundThings, ThingFacets},
};
use serde_json::Value;
use std::{cmp::Reverse, collections::BTreeMap, str::FromStr};

/// Things of a page that names no limit, and most of any page.
const PAGE_THINGS: usize = 50;
const PAGE_THINGS_MAX: usize = 500;
/// Values of a facet where the request names no limit, and most of any.
const FACET_VALUES: usize = 20;
const FACET_VALUES_MAX: usize = 100;
/// Most conditions on properties, and most properties to count by.
const PROPERTIES_MAX: usize = 8;
/// Longest text of a parameter, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// Things as they are now: the newest version of each, unless that deleted it.
const NEWEST: &str = "SELECT rowid, id, type, collection, data, ts FROM (\
     SELECT rowid, id, type, collection, data, ts, \
     row_number() OVER (PARTITION BY collection, id ORDER BY rowid DESC) AS age FROM things\
     ) AS versions WHERE age = 1 AND data IS NOT NULL";

/// Facets that every answer has.
const OWN_FACETS: &[&str] = &["type", "collection"];

/// `GET /v1/{ns}/search?q=&type=&property=NAME:VALUE&after=&limit=`: those that changed last first.
///
/// # Errors
/// 400, 404 for a namespace that is not there, 422 and 429 as queries.
pub(super) async fn search(
    State(app): State<AppState>,
    Extension(principal): Extension<Principal>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
    QueryParameters(parameters): QueryParameters<Vec<(String, String)>>,
) -> Result<Response, ApiError> {
    let wanted = ThingQuery::read(parameters, &["after"])?;
    let limit = exact_page_size(wanted.limit, PAGE_THINGS, PAGE_THINGS_MAX)?;
    let mut page = FoundThings { things: Vec::new(), next: None };
    if !Box::pin(app.sql.has_things(&levels)).await? {
        return Ok(json(200, &page));
    }
    let (sql, params) = wanted.page(limit + 1);
    let request = SqlRequest { sql, params, ..SqlRequest::default() };
    let mut answer = Box::pin(query::ask(&app, &principal, &levels, request)).await?;
    let mut bytes = 0;
    'rows: while let Some(batch) = answer.batches.next().await {
        let batch = batch?;
        for row in 0..batch.num_rows() {
            let Some((thing, length)) = thing_at(&batch, row) else { continue };
            let is_full = limit <= page.things.len() || PAGE_BYTES_MAX < bytes + length;
            if is_full && !page.things.is_empty() {
                page.next = page.things.last().map(|last| last.seq);
                break 'rows;
            }
            bytes += length;
            page.things.push(thing);
        }
    }
    Ok(json(200, &page))
}

/// `GET /v1/{ns}/facets?q=&type=&property=NAME:VALUE&by=NAME&limit=`: how many things there are, by their type, their
/// collection and the properties in `by`.
///
/// # Errors
/// 400, 404 for a namespace that is not there, 422 and 429 as queries.
pub(super) async fn facets(
    State(app): State<AppState>,
    Extension(principal): Extension<Principal>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
    QueryParameters(parameters): QueryParameters<Vec<(String, String)>>,
) -> Result<Response, ApiError> {
    let wanted = ThingQuery::read(parameters, &["by"])?;
    let limit = exact_page_size(wanted.limit, FACET_VALUES, FACET_VALUES_MAX)?;
    let mut found = ThingFacets { count: 0, facets: BTreeMap::new() };
    let names: Vec<&str> =
        OWN_FACETS.iter().copied().chain(wanted.by.iter().map(String::as_str)).collect();
    for name in &names {
        found.facets.insert((*name).to_owned(), Vec::new());
    }
    if !Box::pin(app.sql.has_things(&levels)).await? {
        return Ok(json(200, &found));
    }
    let (sql, params) = wanted.counts(limit);
    let request = SqlRequest { sql, params, ..SqlRequest::default() };
    let mut answer = Box::pin(query::ask(&app, &principal, &levels, request)).await?;
    while let Some(batch) = answer.batches.next().await {
        let batch = batch?;
        for row in 0..batch.num_rows() {
            let (facet, count) = (number_at(&batch, "facet", row), number_at(&batch, "n", row));
            let (Some(facet), Some(count)) = (facet, count) else { continue };
            let value = text_at(&batch, "value", row);
            match usize::try_from(facet).ok().and_then(|facet| names.get(facet)) {
                Some(name) => {
                    found
                        .facets
                        .entry((*name).to_owned())
                        .or_default()
                        .push(FacetValue { value, count });
                }
                // The count of all stands behind the facets.
                None => found.count = count,
            }
        }
    }
    for values in found.facets.values_mut() {
        values.sort_by(|one, other| {
            (Reverse(one.count), &one.value).cmp(&(Reverse(other.count), &other.value))
        });
    }
    Ok(json(200, &found))
}

/// What is asked of things.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ThingQuery {
    text: Option<String>,
    kind: Option<String>,
    /// Paths of properties, and the values that they have.
    properties: Vec<(String, String)>,
    /// Names of properties that are counted by.
    by: Vec<String>,
    after: Option<i64>,
    limit: Option<usize>,
}

impl ThingQuery {
    /// The parameters of a request; beside those of both routes it may have `own`.
    fn read(parameters: Vec<(String, String)>, own: &[&str]) -> Result<Self, ApiError> {
        let mut read = Self::default();
        for (name, value) in parameters {
            let is_known = ["q", "type", "property", "limit"].contains(&name.as_str());
            if !is_known && !own.contains(&name.as_str()) {
                return Err(invalid(format!(
                    "unknown query parameter `{name}`; known are q, type, property, limit, {}",
                    own.join(", ")
                )));
            }
            if TEXT_BYTES_MAX < value.len() {
                return Err(wrong(&name, &format!("it is longer than {TEXT_BYTES_MAX} bytes")));
            }
            match name.as_str() {
                "q" => once(&name, &mut read.text, value)?,
                "type" => once(&name, &mut read.kind, value)?,
                "after" => once(&name, &mut read.after, number(&name, &value)?)?,
                "limit" => once(&name, &mut read.limit, number(&name, &value)?)?,
                "by" => {
                    path(&name, &value)?;
                    if OWN_FACETS.contains(&value.as_str()) || read.by.contains(&value) {
                        continue;
                    }
                    read.by.push(value);
                }
                _ => {
                    let (property, value) = value.split_once(':').ok_or_else(|| {
                        wrong(&name, "it must be NAME:VALUE, such as property=city:Paris")
                    })?;
                    read.properties.push((path(&name, property)?, value.to_owned()));
                }
            }
        }
        if PROPERTIES_MAX < read.properties.len() || PROPERTIES_MAX < read.by.len() {
            let text = format!("`property` and `by` may be there {PROPERTIES_MAX} times each");
            return Err(invalid(text));
        }
        Ok(read)
    }

    /// The conditions, with a place for each text.
    fn conditions(&self, params: &mut Vec<Value>) -> String {
        let mut place = |text: &str| {
            params.push(text.into());
            format!("CAST(${} AS text)", params.len())
        };
        let mut conditions = String::new();
        if let Some(text) = self.text.as_deref().filter(|text| !text.is_empty()) {
            let text = place(&text.to_lowercase());
            conditions.push_str(&format!(
                " AND (strpos(lower(id), {text}) > 0 OR strpos(lower(data), {text}) > 0)"
            ));
        }
        if let Some(kind) = &self.kind {
            conditions.push_str(&format!(" AND type = {}", place(kind)));
        }
        for (path, value) in &self.properties {
            let found = member(&place(path));
            conditions.push_str(&format!(" AND {found} = {}", place(value)));
        }
        conditions
    }

    /// The statement for a page, and its parameters.
    fn page(&self, limit: usize) -> (String, Vec<Value>) {
        let mut params = Vec::new();
        let mut conditions = self.conditions(&mut params);
        if let Some(after) = self.after {
            params.push(after.into());
            conditions.push_str(&format!(" AND rowid < CAST(${} AS bigint)", params.len()));
        }
        let sql = format!(
            "SELECT rowid, id, type, collection, data, CAST(ts AS bigint) AS ts_us \
             FROM ({NEWEST}) AS found WHERE true{conditions} ORDER BY rowid DESC LIMIT {limit}"
        );
        (sql, params)
    }

    /// The statement that counts, and its parameters: facets by their number, and behind them all.
    fn counts(&self, limit: usize) -> (String, Vec<Value>) {
        let mut params = Vec::new();
        let conditions = self.conditions(&mut params);
        let mut values: Vec<String> = OWN_FACETS.iter().map(|name| (*name).to_owned()).collect();
        for name in &self.by {
            params.push(json_path(name).into());
            values.push(member(&format!("CAST(${} AS text)", params.len())));
        }
        let mut parts: Vec<String> = values.iter().enumerate().map(|(facet, value)| {
            format!(
                "SELECT facet, value, n FROM (SELECT {facet} AS facet, value, count(*) AS n FROM \
                 (SELECT {value} AS value FROM found) AS of_{facet} GROUP BY value \
                 ORDER BY n DESC, value LIMIT {limit}) AS top_{facet}"
            )
        }).collect();
        let all = values.len();
        parts.push(format!("SELECT {all}, CAST(NULL AS text), count(*) FROM found"));
        let parts = parts.join(" UNION ALL ");
        let sql = format!(
            "WITH found AS (SELECT * FROM ({NEWEST}) AS newest WHERE true{conditions}) {parts}"
        );
        (sql, params)
    }
}

/// The property of a document at a path, as text.
fn member(path: &str) -> String {
    format!("CASE WHEN json_valid(data) THEN json_extract_string(data, {path}) END")
}

/// The path of a property that is named in a parameter.
fn path(parameter: &str, name: &str) -> Result<String, ApiError> {
    if name.split('.').any(|part| part.is_empty() || part.contains('"')) {
        let text = format!(
            "`{name}` is no name of a property: write `city`, or `address.city` for a member of a member"
        );
        return Err(wrong(parameter, &text));
    }
    Ok(json_path(name))
}

/// The path of a name without quotes. A backslash is one of the name, so it is written twice.
fn json_path(name: &str) -> String {
    let parts = name.split('.').map(|part| format!(".\"{}\"", part.replace('\\', "\\\\")));
    std::iter::once("$".to_owned()).chain(parts).collect()
}

fn once<T>(name: &str, slot: &mut Option<T>, value: T) -> Result<(), ApiError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(wrong(name, "it may be there once")),
    }
}

fn number<N: FromStr>(name: &str, text: &str) -> Result<N, ApiError> {
    text.parse().map_err(|_| wrong(name, &format!("`{text}` is not a whole number that fits")))
}

fn wrong(parameter: &str, problem: &str) -> ApiError {
    invalid(format!("query parameter `{parameter}`: {problem}"))
}

fn invalid(text: String) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, text)
}

/// A thing of a page, and how long its document is; none for a row without its keys.
fn thing_at(batch: &RecordBatch, row: usize) -> Option<(FoundThing, usize)> {
    let data = text_at(batch, "data", row)?;
    let length = data.len();
    // It may lie before 1970.
    let ts = DateTime::from_timestamp_micros(integer_at(batch, "ts_us", row)?)?;
    let ts = ts.to_rfc3339_opts(SecondsFormat::Micros, true);
    let thing = FoundThing {
        id: text_at(batch, "id", row)?,
        collection: text_at(batch, "collection", row)?,
        kind: text_at(batch, "type", row)?,
        data: serde_json::from_str(&data).unwrap_or(Value::String(data)),
        ts,
        seq: number_at(batch, "rowid", row)?,
    };
    Some((thing, length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(parameters: &[(&str, &str)], own: &[&str]) -> Result<ThingQuery, String> {
        let parameters = parameters.iter();
        let parameters =
            parameters.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ThingQuery::read(parameters, own).map_err(|error| error.to_string())
    }

    #[test]
    fn texts_of_a_request_are_parameters_of_the_statement() {
        let hostile = "x' OR 1=1 --";
        let wanted = [("q", hostile), ("type", hostile), ("property", "a.b:c:d"), ("after", "7")];
        let (sql, params) = read(&wanted, &["after"]).unwrap().page(51);
        assert!(!sql.contains("1=1") && !sql.contains("c:d"), "{sql}");
        let lower = hostile.to_lowercase();
        assert_eq!(
            params,
            [json!(lower), json!(hostile), json!("$.\"a\".\"b\""), json!("c:d"), json!(7)]
        );
        assert!(icecore_engine::guard::check(&sql).is_ok());
        let by = [("by", "a.b"), ("by", "type"), ("by", "a.b"), ("property", "x:1")];
        let (sql, params) = read(&by, &["by"]).unwrap().counts(20);
        assert_eq!(params, [json!("$.\"x\""), json!("1"), json!("$.\"a\".\"b\"")]);
        assert!(icecore_engine::guard::check(&sql).is_ok(), "{sql}");
        assert_eq!(json_path(r"a\.b"), r#"$."a\\"."b""#);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let long = "x".repeat(TEXT_BYTES_MAX + 1);
        let many = vec![("property", "a:1"); PROPERTIES_MAX + 1];
        for (parameters, text) in [
            (
                vec![("Q", "a")],
                "unknown query parameter `Q`; known are q, type, property, limit, after",
            ),
            (vec![("by", "a")], "unknown query parameter `by`"),
            (vec![("q", long.as_str())], "query parameter `q`: it is longer than 1024 bytes"),
            (vec![("q", "a"), ("q", "b")], "query parameter `q`: it may be there once"),
            (vec![("property", "city")], "it must be NAME:VALUE"),
            (vec![("property", "a..b:1")], "`a..b` is no name of a property"),
            (vec![("property", "a\"b:1")], "is no name of a property"),
            (vec![("limit", "ten")], "query parameter `limit`: `ten` is not a whole number"),
            (many, "may be there 8 times each"),
        ] {
            let error = read(&parameters, &["after"]).unwrap_err();
            assert!(error.contains(text), "{parameters:?}: {error}");
        }
    }
}
