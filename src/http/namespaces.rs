//! Which namespaces there are, for a caller who named one that is not there.
//!
//! Its one invariant: nobody learns of a namespace that they may not read.

use crate::http::{AppState, error::ApiError, guard};
use icecore_catalog::{
    access::{Action, Principal},
    error::CatalogError,
    metastore::NamePage,
};
use icecore_schemas::names::Namespace;
use serde_json::json;
use std::collections::BTreeSet;

/// Most namespaces that an error names.
const NAMED_MAX: usize = 5;
/// Most scopes of a token that are looked up for it.
const SCOPES_MAX: usize = 10;

/// The error with the namespaces that the caller may read, where there are any. They are also in
/// `details`, for programs.
pub async fn with_others(app: &AppState, principal: &Principal, error: ApiError) -> ApiError {
    let mut names = match readable(app, principal).await {
        Ok(names) => names,
        // The error is true without them.
        Err(cause) => {
            tracing::debug!(error = &cause as &dyn std::error::Error, "no list of namespaces");
            return error;
        }
    };
    if names.is_empty() {
        return error;
    }
    let more = if NAMED_MAX < names.len() { ", …" } else { "" };
    names.truncate(NAMED_MAX);
    let verb = if names.len() == 1 { "is" } else { "are" };
    let text = format!("{error}; there {verb}: {}{more}", names.join(", "));
    error.with_text(text).with_details(json!({ "namespaces": names }))
}

/// The first namespaces that the caller may read, as their events name them: more than are named, if
/// there are so many.
async fn readable(app: &AppState, principal: &Principal) -> Result<Vec<String>, CatalogError> {
    let metastore = app.catalog.metastore();
    let limit = NAMED_MAX + 1;
    let may_read = |levels: &[String]| principal.may(Action::Read, levels);
    // Before the catalog is asked: what is committed meanwhile is gone from the log.
    let waiting = app.wal.pending().into_iter().map(|pending| pending.namespace);
    let waiting = waiting.filter(|namespace| may_read(&guard::levels(namespace)));
    let mut found: BTreeSet<String> =
        waiting.map(|namespace| namespace.text().to_owned()).collect();
    let candidates = if principal.may_everywhere(Action::Read) {
        metastore.namespaces_of(&Vec::new(), NamePage { after: "", limit }).await?
    } else {
        let scopes = principal.namespaces(Action::Read).filter(|levels| levels.len() == 1);
        scopes.take(SCOPES_MAX).cloned().collect()
    };
    for levels in candidates {
        if let Some(properties) = metastore.namespace(&levels).await? {
            let noted = Namespace::from_properties(&levels, &properties);
            found.insert(noted.map_or_else(|| levels.join("."), |noted| noted.text().to_owned()));
        }
    }
    Ok(found.into_iter().collect())
}
