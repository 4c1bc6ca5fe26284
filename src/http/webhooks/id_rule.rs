//! Where the id of a delivery stands whose provider has no rule of its own.
//!
//! Its one invariant: a rule is kept with the provider's way to sign, and what reads that alone finds
//! it as before.

use crate::http::error::ApiError;
use axum::http::{HeaderMap, HeaderName};
use icecore_schemas::error_code::ErrorCode;
use serde_json::Value;

/// Longest path to a member, in bytes.
const MEMBER_BYTES_MAX: usize = 256;

/// Where a delivery's id is looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum IdRule {
    /// In one of the usual headers; a hash of the signed bytes stands for one that has none.
    #[default]
    Usual,
    /// In this header.
    Header(String),
    /// In this member of the JSON body: names with dots between them.
    Member(String),
    /// Nowhere: each delivery is an event of its own.
    Nowhere,
}

/// What somebody who sets a secret says of it.
#[derive(Debug)]
pub(super) struct IdRuleChoice {
    pub(super) header: Option<String>,
    pub(super) member: Option<String>,
    pub(super) is_nowhere: bool,
}

impl IdRuleChoice {
    /// The rule; none where nothing is said.
    ///
    /// # Errors
    /// 400.
    pub(super) fn rule(self) -> Result<Option<IdRule>, ApiError> {
        let wrong = |text: String| Err(ApiError::new(ErrorCode::InvalidRequest, text));
        match self {
            Self { header: None, member: None, is_nowhere: false } => Ok(None),
            Self { header: None, member: None, is_nowhere: true } => Ok(Some(IdRule::Nowhere)),
            Self { header: Some(name), member: None, is_nowhere: false } => {
                match name.parse::<HeaderName>() {
                    Ok(name) => Ok(Some(IdRule::Header(name.as_str().to_owned()))),
                    Err(_) => wrong(format!("`{name}` is not a header name")),
                }
            }
            Self { header: None, member: Some(path), is_nowhere: false } => {
                let is_path = path.split('.').all(|name| !name.is_empty());
                match is_path && path.len() <= MEMBER_BYTES_MAX {
                    true => Ok(Some(IdRule::Member(path))),
                    false => wrong(format!("`{path}` is not a path to a member, such as event.id")),
                }
            }
            _ => wrong("set only one of id_header, id_member and no_id".to_owned()),
        }
    }
}

impl IdRule {
    /// The name of a way to sign and the rule beside it.
    pub(super) fn split(text: &str) -> (&str, Self) {
        let (scheme, rule) = text.split_once(' ').unwrap_or((text, ""));
        let rule = match rule.split_once('=') {
            Some(("id-header", name)) => Self::Header(name.to_owned()),
            Some(("id-member", path)) => Self::Member(path.to_owned()),
            _ if rule == "no-id" => Self::Nowhere,
            _ => Self::Usual,
        };
        (scheme, rule)
    }

    /// What [`IdRule::split`] reads.
    pub(super) fn beside(&self, scheme: &str) -> String {
        match self {
            Self::Usual => scheme.to_owned(),
            Self::Header(name) => format!("{scheme} id-header={name}"),
            Self::Member(path) => format!("{scheme} id-member={path}"),
            Self::Nowhere => format!("{scheme} no-id"),
        }
    }

    /// In words.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Usual => "usual headers, else the signed bytes".to_owned(),
            Self::Header(name) => format!("header {name}, else the signed bytes"),
            Self::Member(path) => format!("member {path}, else the signed bytes"),
            Self::Nowhere => "none, each delivery is an event".to_owned(),
        }
    }

    /// The id of a delivery; `usual` is the one that its provider's way to sign knows.
    pub(super) fn find(
        &self,
        usual: Option<String>,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Option<String> {
        let found = match self {
            Self::Usual => usual,
            Self::Header(name) => headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(|id| id.trim().to_owned()),
            Self::Member(path) => member(body, path),
            Self::Nowhere => None,
        };
        found.filter(|id| !id.is_empty())
    }
}

fn member(body: &[u8], path: &str) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    match path.split('.').try_fold(&body, |value, name| value.get(name))? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}
