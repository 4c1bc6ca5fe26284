//! Views over the changes in `events`, which every namespace has where no table is called so: `things`, one row a
//! version of a document, `cdc_{collection}_deltas`, as the earlier layout's files of changes were, and
//! `events_global` and `things_global`, whose names hold over all namespaces.

mod patched;

use crate::{
    aliases::RelationColumn,
    collections::{IS_CHANGE, IS_TRUNCATE},
    session::CATALOG,
    view::ChangeView,
};
use datafusion::{
    common::TableReference,
    datasource::ViewTable,
    error::DataFusionError,
    execution::{FunctionRegistry, session_state::SessionStateBuilder},
    prelude::SessionContext,
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
/// The versions that their events have whole, and the deletes. A change that says nothing changes nothing.
const THINGS_ROWS: &str = " WHERE op IS NOT NULL AND collection IS NOT NULL \
     AND key IS NOT NULL AND (after IS NOT NULL OR op = 'd')";
/// The column that events have since documents can be patched.
const PATCH_COLUMN: &str = "patch";
/// Events that patch a document. A row of a snapshot has no patch.
const IS_PATCH: &str = "patch IS NOT NULL AND after IS NULL AND op IN ('c', 'u') \
     AND collection IS NOT NULL AND key IS NOT NULL AND seq > 0";
/// The columns of a version that a patch made.
const PATCHED_SELECT: &str = "SELECT rowid, id, coalesce(\
     CASE WHEN json_valid(data) THEN json_extract_string(data, '$.type') END, \
     collection) AS type, collection, data, op, ts";

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

/// The versions that patches made, over these events. The changes of documents that were patched are read in the order
/// of `seq`, those of others are not: the keys that were patched are the build side of the join, and where there are none
/// nothing is read for it. A truncate deletes each of the documents.
fn patched_versions(events: &str) -> String {
    let keys = format!("SELECT DISTINCT collection, key FROM {events} WHERE {IS_PATCH}");
    let changes = format!(
        "SELECT e.ns, e.collection, e.key, e.seq, e.op, e.ts, e.after, e.patch FROM ({keys}) AS k RIGHT SEMI JOIN \
         (SELECT ns, collection, key, seq, op, ts, after, patch FROM {events} WHERE {IS_CHANGE}) AS e \
         ON k.collection = e.collection AND k.key = e.key"
    );
    let emptied = format!(
        "SELECT t.ns, k.collection, k.key, t.seq, CAST('d' AS VARCHAR) AS op, t.ts, CAST(NULL AS VARCHAR) AS after, \
         CAST(NULL AS VARCHAR) AS patch FROM ({keys}) AS k JOIN \
         (SELECT ns, collection, seq, ts FROM {events} WHERE {IS_TRUNCATE}) AS t ON k.collection = t.collection"
    );
    format!(
        "(SELECT ns, seq AS rowid, key AS id, collection, op, ts, {}(seq, op, CAST(ts AS BIGINT), after, patch) \
         OVER (PARTITION BY collection, key ORDER BY seq) AS data FROM ({changes} UNION ALL {emptied}) AS changes) \
         AS versions WHERE data IS NOT NULL",
        patched::PATCHED_DOCUMENT
    )
}

/// The query of the versions of documents over these events. `further` makes more columns of `ns`, `collection` and the
/// name that the key has.
fn things(events: &str, further: impl Fn(&str) -> String, applies_patches: bool) -> String {
    let whole = format!("{THINGS_SELECT}{} FROM {events}{THINGS_ROWS}", further("key"));
    if !applies_patches {
        return whole;
    }
    let patched = patched_versions(events);
    let patched = format!("{PATCHED_SELECT}{} FROM {patched}", further("id"));
    format!("SELECT * FROM ({whole} UNION ALL {patched}) AS things")
}

/// The query of a view over these events.
fn query_of(view: &str, events: &str, applies_patches: bool) -> String {
    let events = format!("\"{}\"", events.replace('"', "\"\""));
    match (view, collection_of(view)) {
        (_, Some(collection)) => deltas(collection, &events),
        (EVENTS_GLOBAL, None) => format!("{EVENTS_GLOBAL_SELECT} FROM {events}"),
        (THINGS_GLOBAL, None) => {
            let urls = |key: &str| {
                format!(
                    ", concat(ns, '/', collection) AS table_url, \
                     concat(ns, '/', collection, '/', {key}) AS thing_url"
                )
            };
            things(&events, urls, applies_patches)
        }
        _ => things(&events, |_| String::new(), applies_patches),
    }
}

/// Shows a session the views that its query names.
///
/// # Errors
/// The table `events` of the namespace lacks columns that they read.
pub async fn show(context: &SessionContext, views: &[ChangeView]) -> Result<(), DataFusionError> {
    for ChangeView { namespace, name, view, events, applies_patches } in views {
        let place = |table: &str| TableReference::full(CATALOG, namespace.as_str(), table);
        let has_patches = match *applies_patches {
            true => {
                let provider = context.table_provider(place(events)).await?;
                provider.schema().column_with_name(PATCH_COLUMN).is_some()
            }
            false => false,
        };
        let sql = query_of(view, events, has_patches);
        let state = context.state();
        let config = state.config().clone().with_default_catalog_and_schema(CATALOG, namespace);
        let mut state = SessionStateBuilder::new_from_existing(state).with_config(config).build();
        // Known to this plan alone.
        let memory = Arc::clone(&context.runtime_env().memory_pool);
        state.register_udwf(Arc::new(patched::patched_document(memory)))?;
        let plan = Box::pin(state.create_logical_plan(&sql)).await?;
        context.register_table(place(name), Arc::new(ViewTable::new(plan, None)))?;
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
            let is_of_things = view.starts_with("things");
            for (applies_patches, count) in [(false, 1), (true, if is_of_things { 5 } else { 1 })] {
                let sql = query_of(view, "events@tri\"al", applies_patches);
                assert_eq!(sql.matches("FROM \"events@tri\"\"al\"").count(), count, "{sql}");
            }
        }
    }
}
