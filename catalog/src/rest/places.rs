//! Where a caller may put a table or view, or find one to adopt.
//!
//! Its one invariant: whoever may not write everywhere names only places in the folders of
//! namespaces that it may write. Everywhere else in the warehouse lies what is somebody else's, be it
//! only files of a table that was dropped, and an answer about such a place would tell what is
//! there. So this comes before anything is opened or looked up, and of a file that is to be adopted
//! nothing but its table's location is believed before that was checked, too.

use super::{RestState, access::TableCaller};
use crate::{
    access::{Action, Principal},
    catalog::folder_of,
    error::CatalogError,
    location::Location,
};

/// Refuses a place that the caller may not name, be it in a file that is to be adopted.
pub(super) fn check(
    rest: &RestState,
    caller: &TableCaller,
    place: &str,
) -> Result<(), CatalogError> {
    let storage = rest.catalog.storage();
    // What is no place in the warehouse is refused by the catalog, without being opened.
    let Ok(location) = storage.normalize(place) else { return Ok(()) };
    if is_allowed(caller.principal(), storage.root(), &location) {
        return Ok(());
    }
    let text = format!(
        "location `{place}` is not in the folder of a namespace that this token may write to: omit \
         the location, or ask someone who may write everywhere"
    );
    Err(CatalogError::Forbidden(text))
}

/// Whether two texts name one place.
pub(super) fn is_same(one: &str, other: &str) -> bool {
    Location::parse(one).is_some_and(|one| Some(one) == Location::parse(other))
}

fn is_allowed(principal: &Principal, root: &str, location: &Location) -> bool {
    principal.namespaces(Action::Write).any(|levels| {
        let folder = match levels.as_slice() {
            [] => return true,
            levels => Location::parse(&format!("{root}/{}", folder_of(levels))),
        };
        folder.is_some_and(|folder| location.is_inside(&folder))
    })
}

#[cfg(test)]
mod tests;
