//! Lists of names, at once or in pages.
//!
//! A page is cut by the metastore. Its token stands for the key of its last item, so a list that
//! changes meanwhile neither repeats nor skips what stays in it.

use super::{
    RestState,
    error::RestError,
    request::{NamespacePath, ObjectName},
};
use crate::metastore::{NameKind, NamePage};
use axum::Json;
use serde::{Deserialize, Serialize};

/// Most items of a page, whatever size a client asks for.
pub(super) const PAGE_ITEMS_MAX: usize = 10_000;

/// The names of a namespace's tables or views.
#[derive(Debug, Serialize)]
pub(super) struct NamesAnswer {
    identifiers: Vec<ObjectName>,
    #[serde(rename = "next-page-token")]
    next_page_token: Option<String>,
}

/// Which part of a list is asked for.
#[derive(Debug, Default, Deserialize)]
pub(super) struct PageParameters {
    #[serde(rename = "pageToken")]
    token: Option<String>,
    #[serde(rename = "pageSize")]
    size: Option<String>,
}

/// What a list is cut to.
pub(super) struct ListWindow {
    /// The key of the item before the first.
    pub(super) after: String,
    /// Most items; none when no token was sent, not even an empty one, which as the specification
    /// has it asks for everything.
    size: Option<usize>,
}

/// The tables or views of a namespace.
pub(super) async fn names(
    rest: &RestState,
    kind: NameKind,
    path: NamespacePath,
    page: &PageParameters,
) -> Result<Json<NamesAnswer>, RestError> {
    let wanted = page.wanted()?;
    let page = NamePage { after: &wanted.after, limit: wanted.limit() };
    let names = rest.catalog.metastore().names(kind, &path.0, page).await?;
    let (names, next_page_token) = wanted.cut(names, String::as_str);
    let name = |name| ObjectName { namespace: path.0.clone(), name };
    let identifiers = names.into_iter().map(name).collect();
    Ok(Json(NamesAnswer { identifiers, next_page_token }))
}

impl PageParameters {
    pub(super) fn wanted(&self) -> Result<ListWindow, RestError> {
        let size = match self.size.as_deref() {
            None | Some("") => PAGE_ITEMS_MAX,
            Some(size) => size.parse().ok().filter(|size| *size > 0).ok_or_else(|| {
                RestError::bad_request(format!("pageSize is not a positive number: {size}"))
            })?,
        };
        let Some(token) = &self.token else {
            return Ok(ListWindow { after: String::new(), size: None });
        };
        let after = key_of_token(token).ok_or_else(|| {
            RestError::bad_request(format!("pageToken was not issued by this catalog: {token}"))
        })?;
        Ok(ListWindow { after, size: Some(size.min(PAGE_ITEMS_MAX)) })
    }
}

impl ListWindow {
    /// How many items to read: one more than the page has tells whether there is another page.
    pub(super) fn limit(&self) -> usize {
        self.size.map_or(usize::MAX, |size| size + 1)
    }

    /// The page's items and the token of the next page.
    pub(super) fn cut<T>(
        &self,
        mut items: Vec<T>,
        key: impl Fn(&T) -> &str,
    ) -> (Vec<T>, Option<String>) {
        let size = self.size.unwrap_or(usize::MAX);
        let more = items.len() > size;
        items.truncate(size);
        let next = items.last().filter(|_| more).map(|item| token_of_key(key(item)));
        (items, next)
    }
}

/// Hexadecimal, so that a token needs no escaping and nobody takes it for a name.
fn token_of_key(key: &str) -> String {
    hex::encode(key)
}

fn key_of_token(token: &str) -> Option<String> {
    let key = String::from_utf8(hex::decode(token).ok()?).ok()?;
    // A key with a zero byte is nobody's, and not every database takes one.
    (!key.contains('\0')).then_some(key)
}
