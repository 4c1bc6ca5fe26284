//! `GET /v1/{ns}/things/{thing}`: a document by its address, now or as it was.
//!
//! An address is `collection/key`, or a key that one collection alone has. Behind an `@` may stand which version is
//! meant, or which branch. An `@` of a key is written `%40`: the path is taken apart as it came.

use crate::http::{
    AppState,
    collections::{DocumentPlace, NAME_BYTES_MAX, check_collection, reply},
    error::ApiError,
    guard::CatalogNamespace,
    json,
    points::{FoundPoint, ReadCaller, parse, statement, texts},
    query_string::QueryParameters,
};
use axum::{
    extract::{Extension, State},
    http::Uri,
    response::Response,
};
use icecore_catalog::access::Principal;
use icecore_engine::collections::IS_CHANGE;
use icecore_schemas::{
    collections::{DocumentReply, ThingParameters, TimeBasis},
    error_code::ErrorCode,
    point::HistoryPoint,
};
use percent_encoding::percent_decode_str;
use serde_json::json;

/// Most collections that are looked into for a key.
const COLLECTIONS_MAX: usize = 20;
/// What stands before the address in a path: `/v1/{namespace}/things/`.
const PARTS_BEFORE: usize = 4;

/// `GET /v1/{ns}/things/{collection}/{key}`, `/things/{key}`, each with `@version` or `?v=`.
///
/// # Errors
/// 400 for what is no version, 404 where there is no such document then, 409 for a key that several collections
/// have, 410 for a point that was removed, 422 and 429 as queries.
pub(super) async fn thing(
    State(app): State<AppState>,
    Extension(principal): Extension<Principal>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
    uri: Uri,
    QueryParameters(ThingParameters { v, branch }): QueryParameters<ThingParameters>,
) -> Result<Response, ApiError> {
    let caller = ReadCaller { app: &app, principal: &principal, levels: &levels };
    let path = uri.path().splitn(PARTS_BEFORE + 1, '/').nth(PARTS_BEFORE).unwrap_or_default();
    let wanted = ThingAddress::read(path, v.as_deref())?;
    caller.check_events().await?;
    let (branch, now) = (branch.as_deref(), HistoryPoint::Now);
    // A branch that is not there is told, as against a version that may be a part of the key.
    Box::pin(caller.find_on(branch, &now, TimeBasis::Commit)).await?;
    for address in &wanted {
        if let Some(found) = Box::pin(caller.thing(branch, address)).await? {
            return Ok(json(200, &found));
        }
    }
    let address = wanted.first().map(|address| address.id.as_str()).unwrap_or_default();
    let text = format!(
        "there is no document `{address}` then: write collection/key, or a key that one collection alone has"
    );
    Err(ApiError::new(ErrorCode::NotFound, text))
}

/// What an address may mean.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ThingAddress {
    /// What stands before the version.
    id: String,
    /// The collection, where a `/` of the path tells it.
    place: Option<(String, String)>,
    point: HistoryPoint,
}

impl ThingAddress {
    /// The meanings of a path below `things/`, as it came; the first one that is there counts.
    fn read(path: &str, version: Option<&str>) -> Result<Vec<Self>, ApiError> {
        let both = || {
            let text = "the version is there twice: write `@…` or `?v=…`";
            ApiError::new(ErrorCode::InvalidRequest, text)
        };
        let given = match version.map(|version| parse("v", Some(version))).transpose()? {
            Some(HistoryPoint::Number(seq)) => Some(HistoryPoint::Seq(seq)),
            given => given,
        };
        let (before, mark) = match path.rsplit_once('@') {
            Some((before, mark)) if !before.is_empty() => (before, Some(decoded(mark))),
            _ => (path, None),
        };
        let point = mark.as_deref().and_then(HistoryPoint::of_address);
        let Some(mark) = mark else {
            return Ok(vec![Self::of(path, given.unwrap_or(HistoryPoint::Now))]);
        };
        match (point, given) {
            (Some(_), Some(_)) => Err(both()),
            (Some(point), None) => Ok(vec![Self::of(before, point)]),
            // The form does not tell: it may be a part of the key, as in an address of mail.
            (None, Some(given)) => Ok(vec![Self::of(path, given)]),
            (None, None) => Ok(vec![
                Self::of(path, HistoryPoint::Now),
                Self::of(before, HistoryPoint::Named(mark)),
            ]),
        }
    }

    fn of(path: &str, point: HistoryPoint) -> Self {
        let place =
            path.split_once('/').map(|(collection, key)| (decoded(collection), decoded(key)));
        Self { id: decoded(path), place, point }
    }

    /// The collection and key that the text of the address may be.
    fn split(&self) -> Option<(&str, &str)> {
        let place = match &self.place {
            Some((collection, key)) => Some((collection.as_str(), key.as_str())),
            None => self.id.split_once('/'),
        };
        // A key may begin with the sign, as a path does.
        place.filter(|(collection, _)| !collection.is_empty())
    }
}

/// A part of a path; paths are UTF-8 when they come here.
fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

impl ReadCaller<'_> {
    /// The document of a branch that an address means, if it is there.
    async fn thing(
        self,
        branch: Option<&str>,
        address: &ThingAddress,
    ) -> Result<Option<DocumentReply>, ApiError> {
        // Versions are counted in each document, up to the head.
        let now = HistoryPoint::Now;
        let (point, back) = match &address.point {
            HistoryPoint::Back(back) => (&now, Some(*back)),
            point => (point, None),
        };
        let found = match Box::pin(self.find_on(branch, point, TimeBasis::Commit)).await {
            Ok(found) => found,
            Err(error) if error.code() == ErrorCode::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if let Some((collection, key)) = address.split() {
            let place = DocumentPlace::new(collection, key)?;
            let thing = Box::pin(self.thing_at(place, collection, (&found, back))).await?;
            if thing.is_some() {
                return Ok(thing);
            }
        }
        let sql = format!(
            "SELECT DISTINCT collection FROM {} WHERE key = $1 \
             AND octet_length(collection) BETWEEN 1 AND {NAME_BYTES_MAX} \
             AND {IS_CHANGE} ORDER BY collection LIMIT {}",
            found.events_of_branch(),
            COLLECTIONS_MAX + 1
        );
        let key = address.id.as_str();
        let answer = self.ask(statement(&sql, vec![key.into()])).await?;
        let mut names = texts(answer, "collection").await?;
        // Senders may write names that no path has. The document of another collection is found all the same.
        names.retain(|name| check_collection(name).is_ok());
        if COLLECTIONS_MAX < names.len() {
            return Err(ambiguous(key, &names));
        }
        let mut things = Vec::new();
        for name in &names {
            let place = DocumentPlace::new(name, key)?;
            things.extend(Box::pin(self.thing_at(place, name, (&found, back))).await?);
        }
        match things.len() {
            0 | 1 => Ok(things.pop()),
            _ => {
                let names: Vec<String> = things.into_iter().map(|it| it.collection).collect();
                Err(ambiguous(key, &names))
            }
        }
    }

    async fn thing_at(
        self,
        place: DocumentPlace<'_>,
        collection: &str,
        (point, back): (&FoundPoint, Option<u32>),
    ) -> Result<Option<DocumentReply>, ApiError> {
        let found = match back {
            Some(back) => Box::pin(self.version_back(place, point, back)).await,
            None => Ok(point.clone()),
        };
        let found = match found {
            Ok(found) => found,
            Err(error) if error.code() == ErrorCode::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let (document, basis) = Box::pin(self.document(place, found)).await?;
        Ok(document.map(|document| reply(collection, document, basis)))
    }
}

/// The error for a key that several collections have.
fn ambiguous(key: &str, names: &[String]) -> ApiError {
    let list: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    let text = format!(
        "several collections have a document `{key}`: {}; write one of them before it, as in {}/KEY",
        list.join(", "),
        names.first().map_or("COLLECTION", String::as_str)
    );
    let details = json!({ "collections": names });
    ApiError::new(ErrorCode::Conflict, text).with_details(details)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str, version: Option<&str>) -> Vec<(String, HistoryPoint)> {
        let meanings = ThingAddress::read(path, version).unwrap();
        meanings
            .into_iter()
            .map(|it| {
                let (collection, key) = it.split().unwrap_or(("-", it.id.as_str()));
                (format!("{collection} {key}"), it.point.clone())
            })
            .collect()
    }

    #[test]
    fn an_address_is_a_place_and_a_version() {
        let one = |place: &str, point| vec![(place.to_owned(), point)];
        for (path, version, expected) in [
            ("users/u-1", None, one("users u-1", HistoryPoint::Now)),
            ("u-1", None, one("- u-1", HistoryPoint::Now)),
            ("users%2Fu-1", None, one("users u-1", HistoryPoint::Now)),
            ("%2Fu-1", None, one("- /u-1", HistoryPoint::Now)),
            ("a%2Fb/c%2Fd", None, one("a/b c/d", HistoryPoint::Now)),
            ("users/u-1@main", None, one("users u-1", HistoryPoint::Branch("main".to_owned()))),
            ("users/u-1@v17", None, one("users u-1", HistoryPoint::Seq(17))),
            ("users/u-1@~1", None, one("users u-1", HistoryPoint::Back(1))),
            ("users/u-1@%7E1", None, one("users u-1", HistoryPoint::Back(1))),
            ("users/u-1", Some("17"), one("users u-1", HistoryPoint::Seq(17))),
            ("users/a%40v1", None, one("users a@v1", HistoryPoint::Now)),
            ("users/a@b.example", Some("seq:3"), one("users a@b.example", HistoryPoint::Seq(3))),
        ] {
            assert_eq!(read(path, version), expected, "{path}");
        }
        let named = HistoryPoint::Named("nightly".to_owned());
        let both = [("users a@nightly", HistoryPoint::Now), ("users a", named)];
        let both = both.map(|(place, point)| (place.to_owned(), point));
        assert_eq!(read("users/a@nightly", None), both);
    }

    #[test]
    fn a_version_is_said_once() {
        let error = ThingAddress::read("users/a@v1", Some("2")).unwrap_err();
        assert!(error.to_string().contains("there twice"), "{error}");
    }
}
