//! Which of the queries of a catalog's view is read: one view may have one for each dialect.

use iceberg::spec::{ViewMetadata, ViewRepresentation};
use icecore_engine::{
    catalog_views,
    error::SqlError,
    guard::{self, CheckedStatement},
};

/// Dialects of a view's query, the nearest to ours first. Others come last.
const DIALECTS: &[&str] = &["icecore", "datafusion", "duckdb", "trino", "spark"];

/// The query of a view, in the nearest dialect that is read here.
///
/// # Errors
/// [`SqlError::Invalid`] says why the nearest is not.
pub(super) fn of(metadata: &ViewMetadata) -> Result<CheckedStatement, SqlError> {
    let representations = metadata.current_version().representations().iter();
    let mut queries: Vec<_> = representations.map(|ViewRepresentation::Sql(query)| query).collect();
    queries.sort_by_key(|query| {
        let known = DIALECTS.iter().position(|name| name.eq_ignore_ascii_case(&query.dialect));
        known.unwrap_or(DIALECTS.len())
    });
    let mut refused = None;
    for query in queries {
        let checked = guard::check(&query.sql);
        let same = || catalog_views::check_dialect(&query.dialect, &query.sql);
        match checked.and_then(|checked| same().map(|()| checked)) {
            Ok(checked) if checked.is_query && checked.placeholders == 0 => return Ok(checked),
            Ok(_) => {
                refused.get_or_insert_with(|| "its text is no query without parameters".to_owned());
            }
            Err(cause) => {
                let text = || format!("its query in the dialect `{}`: {cause}", query.dialect);
                refused.get_or_insert_with(text);
            }
        }
    }
    Err(SqlError::Invalid(refused.unwrap_or_else(|| "it has no query in SQL".to_owned())))
}
