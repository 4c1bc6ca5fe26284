//! Views over the changes in `events`, which every namespace has where no table is called so: `things`, one row a
//! version of a document, `cdc_{collection}_deltas`, as the earlier layout's files of changes were, and
//! `events_global` and `things_global`, whose names hold over all namespaces.

use crate::{aliases::RelationColumn, session::CATALOG, view::ChangeView};
use datafusion::{
    common::TableReference, datasource::ViewTable, error::DataFusionError,
    execution::session_state::SessionStateBuilder, prelude::SessionContext,
};
use icecore_schemas::service_table::EVENTS_TABLE;
use std::sync::Arc;

/// The versions of documents.
const THINGS: &str = "things";
/// Its columns, and its query. A document may have a type of its own; that of a deleted one is its last.
const THINGS_COLUMNS: &[&str] = &["rowid", "id", "type", "collection", "data", "op", "ts"];
const THINGS_SELECT: &str = "SELECT seq AS rowid, key AS id, coalesce(\
     CASE WHEN json_valid(after) THEN json_extract_string(after, '$.type') END, \
     CASE WHEN json_valid(before) THEN json_extract_string(before, '$.type') END, \
     collection) AS type, collection, after AS data, op, ts";
/// Of a patch the document is not known here, and a change that says nothing changes nothing: neither is a version.
const THINGS_ROWS: &str = " WHERE op IS NOT NULL AND collection IS NOT NULL \
     AND key IS NOT NULL AND (after IS NOT NULL OR op = 'd')";

/// Events under names that hold over all namespaces: a name with the namespace before it is a path of a URL.
const EVENTS_GLOBAL: &str = "events_global";
const EVENTS_GLOBAL_COLUMNS: &[&str] = &[
    "id",
    "type",
    "timestamp",
    "source",
    "table_url",
    "op",
    "store",
    "key",
    "before",
    "after",
    "actor",
    "data",
    "correlation_id",
    "_meta",
    "event_url",
];
const EVENTS_GLOBAL_SELECT: &str = "SELECT id, type, ts AS \"timestamp\", concat(ns, '/', source) AS source, \
     concat(ns, '/', collection) AS table_url, op, store, key, before, after, actor, data, correlation_id, \
     meta AS \"_meta\", concat(ns, '/', id) AS event_url";

/// The versions of documents under such names.
const THINGS_GLOBAL: &str = "things_global";
const THINGS_GLOBAL_COLUMNS: &[&str] =
    &["rowid", "id", "type", "collection", "data", "op", "ts", "table_url", "thing_url"];

/// Columns of the changes of a collection.
const DELTAS_COLUMNS: &[&str] = &["op", "pk", "ts", "data", "prev", "bookmark"];

/// Columns of the views that are those of `events` unchanged, so that the aliases mean them.
const UNCHANGED: &[&str] = &["bookmark", "collection", "op", "ts"];

/// The query of the changes of a collection.
#[must_use]
pub fn deltas_of(collection: &str) -> String {
    deltas(collection, EVENTS_TABLE)
}

fn deltas(collection: &str, events: &str) -> String {
    let collection = collection.replace('\'', "''");
    format!(
        "SELECT op, key AS pk, ts, after AS data, before AS prev, bookmark FROM {events} \
         WHERE op IS NOT NULL AND collection = '{collection}'"
    )
}

/// The collection whose changes a name stands for.
fn collection_of(name: &str) -> Option<&str> {
    let collection = name.strip_prefix("cdc_")?.strip_suffix("_deltas")?;
    Some(collection).filter(|collection| !collection.is_empty())
}

/// Whether a name is one of such a view.
#[must_use]
pub fn is_view(name: &str) -> bool {
    [THINGS, THINGS_GLOBAL, EVENTS_GLOBAL].contains(&name) || collection_of(name).is_some()
}

/// The name under which a query's view has the events of a view over changes: `name` is what the statement calls a
/// version of `view`. None where `view` is no such view.
#[must_use]
pub fn events_name(name: &str, view: &str) -> Option<String> {
    let point = name.strip_prefix(view).filter(|_| is_view(view))?;
    Some(format!("{EVENTS_TABLE}{point}"))
}

/// The columns of a view.
#[must_use]
pub fn columns(name: &str) -> Vec<RelationColumn> {
    let names = match name {
        THINGS => THINGS_COLUMNS,
        THINGS_GLOBAL => THINGS_GLOBAL_COLUMNS,
        EVENTS_GLOBAL => EVENTS_GLOBAL_COLUMNS,
        _ => DELTAS_COLUMNS,
    };
    let column = |name: &&str| RelationColumn {
        name: (*name).to_owned(),
        is_of_events: UNCHANGED.contains(name),
    };
    names.iter().map(column).collect()
}

/// The query of a view over these events.
fn query_of(view: &str, events: &str) -> String {
    let events = format!("\"{}\"", events.replace('"', "\"\""));
    match (view, collection_of(view)) {
        (_, Some(collection)) => deltas(collection, &events),
        (EVENTS_GLOBAL, None) => format!("{EVENTS_GLOBAL_SELECT} FROM {events}"),
        (THINGS_GLOBAL, None) => format!(
            "{THINGS_SELECT}, concat(ns, '/', collection) AS table_url, \
             concat(ns, '/', collection, '/', key) AS thing_url FROM {events}{THINGS_ROWS}"
        ),
        _ => format!("{THINGS_SELECT} FROM {events}{THINGS_ROWS}"),
    }
}

/// Shows a session the views that its query names.
///
/// # Errors
/// The table `events` of the namespace lacks columns that they read.
pub async fn show(context: &SessionContext, views: &[ChangeView]) -> Result<(), DataFusionError> {
    for ChangeView { namespace, name, view, events } in views {
        let sql = query_of(view, events);
        let state = context.state();
        let config = state.config().clone().with_default_catalog_and_schema(CATALOG, namespace);
        let state = SessionStateBuilder::new_from_existing(state).with_config(config).build();
        let plan = Box::pin(state.create_logical_plan(&sql)).await?;
        let table = Arc::new(ViewTable::new(plan, None));
        let place = TableReference::full(CATALOG, namespace.as_str(), name.as_str());
        context.register_table(place, table)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_whose_changes_it_stands_for() {
        assert!(is_view("things") && is_view("cdc_users_deltas") && is_view("cdc_a_b_deltas"));
        assert_eq!(collection_of("cdc_a_b_deltas"), Some("a_b"));
        assert!(is_view("things_global") && is_view("events_global"));
        for name in ["Things", "cdc_users", "cdc__deltas", "cdc_deltas", "events", "users_deltas"] {
            assert!(!is_view(name), "{name}");
        }
        assert!(deltas_of("o'x").ends_with("collection = 'o''x'"));
    }

    #[test]
    fn a_view_at_a_point_is_one_over_the_events_there() {
        assert_eq!(events_name("things@trial", "things").as_deref(), Some("events@trial"));
        let (name, view) = ("cdc_users_deltas FOR SEQ AS OF 3", "cdc_users_deltas");
        assert_eq!(events_name(name, view).as_deref(), Some("events FOR SEQ AS OF 3"));
        assert_eq!(events_name("users@trial", "users"), None);
        for view in ["things", "things_global", "events_global", "cdc_users_deltas"] {
            let sql = query_of(view, "events@tri\"al");
            assert_eq!(sql.matches("FROM \"events@tri\"\"al\"").count(), 1, "{sql}");
        }
    }
}
