//! Whether a namespace has things that can be searched.

use crate::sql::{Sql, view::ResolvedNamespace};
use icecore_engine::error::SqlError;

/// The view of them, and what takes its place.
const THINGS: &str = "things";

impl Sql {
    /// Whether a namespace has events, whose changes are the built-in view `things`, or a table or view of this
    /// name. A namespace that is not there counts as one that has: a query of it says so.
    ///
    /// # Errors
    /// The catalog's.
    pub async fn has_things(&self, levels: &[String]) -> Result<bool, SqlError> {
        let sources = self.inner.sources();
        let Some(space) = ResolvedNamespace::find(sources, levels).await? else { return Ok(true) };
        let is_table = |name: &String| name == THINGS;
        Ok(space.has_events
            || space.table_names(sources).await?.iter().any(is_table)
            || space.has_view(sources, THINGS).await?)
    }
}
