//! Collections in SQL: the documents that the changes in a namespace's `events` make, as a relation.
//!
//! `cdc_users` is made of a base, a table with the documents as an earlier event left them, and of the changes
//! since. A document without a change since comes out of the base as it is; the others are folded. Which base and
//! which events that are is decided where the view is taken. Its one invariant: with every base the answer is
//! the one that the changes alone have, but for deletes that a base forgot.

pub mod fold;
pub mod fold_arguments;
mod typed;

use crate::{aliases::RelationColumn, session::CATALOG, view::CollectionView};
use datafusion::{
    common::TableReference,
    datasource::ViewTable,
    error::DataFusionError,
    execution::{FunctionRegistry, session_state::SessionStateBuilder},
    prelude::SessionContext,
};
use icecore_lake::{
    collection::{COLUMNS, TABLE_PREFIX},
    table::typed_columns::TypedColumns,
};
use icecore_schemas::service_table::EVENTS_TABLE;
use std::sync::Arc;

/// What a relation's name begins with that is no name of a table: behind it is the collection, whatever its name.
const PATH_PREFIX: &str = "collections/";
/// What the names of views over changes end with.
const DELTAS_SUFFIX: &str = "_deltas";

/// Which events change a document of their collection, as a condition. The log counts from 1; a row of another engine
/// that is no change says so by a `seq` below. Nothing else tells its rows once they are compacted with the log's.
pub const IS_CHANGE: &str = "op IN ('c', 'u', 'd', 'r') AND key IS NOT NULL AND seq > 0";
/// Which events empty their collection.
pub const IS_TRUNCATE: &str = "type = 'cdc.truncate' AND key IS NULL";
/// The column that events have since documents can be patched.
const PATCH_COLUMN: &str = "patch";
/// What takes its place.
const NO_PATCH: &str = "CAST(NULL AS VARCHAR)";
/// Those of a change, as the aggregates take them, but for the patch.
const BEFORE_PATCH: &str = "seq, op, ts, after";
const BEHIND_PATCH: &str = "store, actor, bookmark, id";
/// Columns of the relation that are those of `events` unchanged, so that the aliases mean them.
const UNCHANGED: &[&str] = &["actor", "bookmark", "key", "op", "seq", "store"];

/// A collection as a statement names it in FROM, also where a table of a client has the name of its table:
/// `"collections/users"`.
#[must_use]
pub fn relation(collection: &str) -> String {
    quoted(&format!("{PATH_PREFIX}{collection}"))
}

/// The query of the documents of a collection, with the columns of [`COLUMNS`].
#[must_use]
pub fn documents_of(collection: &str) -> String {
    format!("SELECT {} FROM {}", columns_text(""), relation(collection))
}

/// The same, as the event with this `seq` left them.
#[must_use]
pub fn documents_at(collection: &str, seq: u64) -> String {
    format!("{} FOR SEQ AS OF {seq}", documents_of(collection))
}

/// The same of a branch, none for `main`, with typed columns behind the others, which the collection's table has.
#[must_use]
pub fn typed_documents_at(
    collection: &str,
    (branch, seq): (Option<&str>, u64),
    typed: &TypedColumns,
) -> String {
    let columns = with_names(&columns_text(""), "", typed);
    format!("SELECT {columns} FROM {}", relation_at(collection, branch, seq))
}

/// A collection as a statement names it in FROM, as the event with this `seq` of a branch left it; none for `main`.
#[must_use]
pub fn relation_at(collection: &str, branch: Option<&str>, seq: u64) -> String {
    let name = format!("{PATH_PREFIX}{collection}");
    match branch {
        None => format!("{} FOR SEQ AS OF {seq}", quoted(&name)),
        Some(branch) => {
            format!("{} FOR SEQ AS OF {seq} OF BRANCH {}", quoted(&name), literal(branch))
        }
    }
}

/// The events up to the one with this `seq` of a branch, as a statement names them in FROM; none for `main`.
#[must_use]
pub fn events_at(branch: Option<&str>, seq: u64) -> String {
    match branch {
        None => format!("{EVENTS_TABLE} FOR SEQ AS OF {seq}"),
        Some(branch) => {
            format!("{EVENTS_TABLE} FOR SEQ AS OF {seq} OF BRANCH {}", literal(branch))
        }
    }
}

/// The query of the versions of a document since its collection was emptied last. It has one row, whose one column
/// `versions` is a list of structs with the columns of [`COLUMNS`] but for the key, in order of `seq`; `doc` is
/// null where the document was deleted.
#[must_use]
pub fn versions_of(collection: &str, key: &str) -> String {
    versions("events", collection, key)
}

/// The same up to the event with this `seq` of a branch.
#[must_use]
pub fn versions_of_branch(collection: &str, key: &str, branch: &str, seq: u64) -> String {
    versions(&events_at(Some(branch), seq), collection, key)
}

fn versions(events: &str, collection: &str, key: &str) -> String {
    format!(
        "SELECT document_versions({BEFORE_PATCH}, {PATCH_COLUMN}, {BEHIND_PATCH}) AS versions FROM {events} \
         WHERE {} AND key = {}",
        changes_of(events, &literal(collection)),
        literal(key),
    )
}

/// The query of the anomalies among the changes since a collection was emptied last, for its first `limit` keys under a
/// condition, such as ` AND key > $1`: a row for each of them, in their order, with `key` and a list `anomalies` of structs with `seq`,
/// `kind` and `reason`. Its work follows the changes of these keys, and one look at the keys of the others.
#[must_use]
pub fn anomalies_of(collection: &str, condition: &str, limit: usize) -> String {
    let changes = format!("{}{condition}", changes_of(EVENTS_TABLE, &literal(collection)));
    format!(
        "SELECT key, anomalies FROM (SELECT e.key AS key, document_anomalies(e.seq, e.op, e.ts, e.after, e.{PATCH_COLUMN}, e.store, e.actor, \
         e.bookmark, e.id, e.before, e.lsn, e.version) AS anomalies \
         FROM (SELECT DISTINCT key FROM events WHERE {changes} ORDER BY key LIMIT {limit}) AS k \
         JOIN (SELECT key, {BEFORE_PATCH}, {PATCH_COLUMN}, {BEHIND_PATCH}, before, lsn, version FROM events \
         WHERE {changes}) AS e ON k.key = e.key GROUP BY e.key) AS found ORDER BY key"
    )
}

/// Which of these events change a document of a collection since it was emptied last, as a condition.
fn changes_of(events: &str, collection: &str) -> String {
    format!(
        "{} AND seq > coalesce((SELECT max(seq) FROM {events} WHERE {}), 0)",
        is_change(collection),
        is_truncate(collection),
    )
}

/// Whether a name is that of a collection whatever tables there are.
#[must_use]
pub fn is_path(name: &str) -> bool {
    name.strip_prefix(PATH_PREFIX).is_some_and(|collection| !collection.is_empty())
}

/// The collection that a name stands for where no table and no view has it.
#[must_use]
pub fn collection_of(name: &str) -> Option<&str> {
    let of_table = || {
        let collection = name.strip_prefix(TABLE_PREFIX)?;
        (!collection.ends_with(DELTAS_SUFFIX)).then_some(collection)
    };
    let collection = name.strip_prefix(PATH_PREFIX).or_else(of_table)?;
    Some(collection).filter(|collection| !collection.is_empty())
}

/// The name under which a view has the events of a relation: `name` is what the statement calls a version of
/// `table`. None where `table` can be no collection.
#[must_use]
pub fn events_name(name: &str, table: &str) -> Option<String> {
    if !table.starts_with(TABLE_PREFIX) && !is_path(table) {
        return None;
    }
    Some(format!("{EVENTS_TABLE}{}", name.strip_prefix(table)?))
}

/// The columns of a relation.
#[must_use]
pub fn columns(view: &CollectionView) -> Vec<RelationColumn> {
    let column = |name: &str| RelationColumn {
        name: name.to_owned(),
        is_of_events: UNCHANGED.contains(&name),
    };
    COLUMNS.iter().map(|it| it.name).chain(view.typed.names()).map(column).collect()
}

/// The columns of a relation whose names may be written in another case. Statements of the service name collections by
/// their paths, and give names of their own, which no member of a document may change.
#[must_use]
pub fn names_in_any_case(view: &CollectionView) -> Vec<String> {
    let typed = view.typed.names().filter(|_| !is_path(&view.name));
    COLUMNS.iter().map(|it| it.name).chain(typed).map(str::to_owned).collect()
}

/// Shows a session the collections that its query names, in the place of their bases.
///
/// # Errors
/// The table `events` of the namespace lacks columns that they read.
pub async fn show(
    context: &SessionContext,
    collections: &[CollectionView],
) -> Result<(), DataFusionError> {
    for collection in collections {
        let CollectionView { namespace, name, events, .. } = collection;
        let place = |table: &str| TableReference::full(CATALOG, namespace.as_str(), table);
        let has_patch = match events {
            Some(events) => {
                let provider = context.table_provider(place(events)).await?;
                provider.schema().column_with_name(PATCH_COLUMN).is_some()
            }
            None => false,
        };
        let state = context.state();
        let config = state.config().clone().with_default_catalog_and_schema(CATALOG, namespace);
        let mut state = SessionStateBuilder::new_from_existing(state).with_config(config).build();
        // Known to this plan alone.
        state.register_udaf(Arc::new(fold::fold_changes()))?;
        state.register_udf(Arc::new(typed::document_values(&collection.typed)))?;
        let plan = Box::pin(state.create_logical_plan(&query_of(collection, has_patch))).await?;
        context.register_table(place(name.as_str()), Arc::new(ViewTable::new(plan, None)))?;
    }
    Ok(())
}

/// The query of a relation over its base and its events.
fn query_of(view: &CollectionView, has_patch: bool) -> String {
    let base = view.applied_seq.map(|applied| (quoted(&view.name), applied));
    let typed = &view.typed;
    let of_base = || {
        let name = quoted(&view.name);
        match view.has_typed {
            true => format!("SELECT {} FROM {name}", with_names(&columns_text(""), "", typed)),
            false => typed::with_values(typed, format!("SELECT {} FROM {name}", columns_text(""))),
        }
    };
    let Some(events) = &view.events else {
        return of_base();
    };
    let events = EventsPart {
        events: quoted(events),
        collection: literal(&view.collection),
        range: range(view),
        has_patch,
    };
    match base {
        // No event came since.
        Some((_, applied)) if view.until == Some(applied) => of_base(),
        Some((base, _)) => events.with_base(&base, typed, view.has_typed),
        None => typed::with_values(typed, events.alone()),
    }
}

/// The events that count beside the base, as a condition.
fn range(view: &CollectionView) -> String {
    let above = view.applied_seq.map(|applied| format!(" AND seq > {applied}"));
    let until = view.until.map(|until| format!(" AND seq <= {until}"));
    format!("{}{}", above.unwrap_or_default(), until.unwrap_or_default())
}

/// The events of a relation, in pieces of SQL.
struct EventsPart {
    events: String,
    collection: String,
    range: String,
    /// Whether they have the column, which older states have not.
    has_patch: bool,
}

impl EventsPart {
    /// The last event that emptied the collection. What was before it is gone, a base too.
    fn floor(&self) -> String {
        let Self { events, collection, range, .. } = self;
        let is_truncate = is_truncate(collection);
        format!("coalesce((SELECT max(seq) FROM {events} WHERE {is_truncate}{range}), 0)")
    }

    fn is_change(&self) -> String {
        format!("{}{}", is_change(&self.collection), self.range)
    }

    /// The fold of all changes.
    fn alone(&self) -> String {
        let events = &self.events;
        let patch = if self.has_patch { PATCH_COLUMN } else { NO_PATCH };
        documents(&format!(
            "SELECT key, fold_changes({BEFORE_PATCH}, {patch}, {BEHIND_PATCH}, CAST(NULL AS BIGINT), ts) AS folded \
             FROM {events} WHERE {} AND seq > {} GROUP BY key",
            self.is_change(),
            self.floor(),
        ))
    }

    /// The base, with the fold of its documents that changed since in their place. The keys that changed are the
    /// build side of both joins: they are few beside the base. Where that lacks some of the typed columns, all of them
    /// are computed.
    fn with_base(&self, base: &str, typed: &TypedColumns, has_typed: bool) -> String {
        let (events, is_change, floor) = (&self.events, self.is_change(), self.floor());
        let no_patch = format!("{NO_PATCH} AS {PATCH_COLUMN}");
        let patch = if self.has_patch { PATCH_COLUMN } else { no_patch.as_str() };
        let changes = format!(
            "SELECT key, {BEFORE_PATCH}, {patch}, {BEHIND_PATCH}, \
             CAST(NULL AS BIGINT) AS known_version, ts AS known_since FROM {events} WHERE {is_change}"
        );
        let changed_keys = format!("SELECT DISTINCT key FROM {events} WHERE {is_change}");
        let of_base = format!(
            "SELECT b.key, b.seq, b.op, b.updated_at AS ts, b.doc AS after, {no_patch}, \
             b.store, b.actor, b.bookmark, b.event_id AS id, b.version AS known_version, \
             b.created_at AS known_since FROM ({changed_keys}) AS k RIGHT SEMI JOIN {base} AS b ON k.key = b.key"
        );
        let changed = documents(&format!(
            "SELECT key, fold_changes({BEFORE_PATCH}, patch, {BEHIND_PATCH}, known_version, known_since) AS folded \
             FROM ({changes} UNION ALL {of_base}) AS states WHERE seq > {floor} GROUP BY key"
        ));
        let changed = typed::with_values(typed, changed);
        let unchanged = |columns: &str| {
            format!(
                "SELECT {columns} FROM ({changed_keys}) AS k RIGHT ANTI JOIN {base} AS b ON k.key = b.key WHERE b.seq > {floor}"
            )
        };
        let unchanged = match has_typed {
            true => unchanged(&with_names(&columns_text("b."), "b.", typed)),
            false => typed::with_values(typed, unchanged(&columns_text("b."))),
        };
        let columns = with_names(&columns_text(""), "", typed);
        format!("SELECT {columns} FROM ({unchanged} UNION ALL {changed}) AS documents")
    }
}

/// The documents that a query of keys and what is folded of them has.
fn documents(folds: &str) -> String {
    let members = COLUMNS.iter().map(|column| match column.name {
        "key" => "key".to_owned(),
        name => format!("get_field(folded, '{name}') AS {name}"),
    });
    let members: Vec<String> = members.collect();
    format!("SELECT {} FROM ({folds}) AS folds WHERE folded IS NOT NULL", members.join(", "))
}

fn is_change(collection: &str) -> String {
    format!("collection = {collection} AND {IS_CHANGE}")
}

fn is_truncate(collection: &str) -> String {
    format!("collection = {collection} AND {IS_TRUNCATE}")
}

fn columns_text(qualifier: &str) -> String {
    let names: Vec<String> =
        COLUMNS.iter().map(|column| format!("{qualifier}{}", column.name)).collect();
    names.join(", ")
}

/// Columns with the names of typed ones behind them.
fn with_names(columns: &str, qualifier: &str, typed: &TypedColumns) -> String {
    let names = typed.names().map(|name| format!(", {qualifier}{}", quoted(name)));
    format!("{columns}{}", names.collect::<String>())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as it stands in a statement.
#[must_use]
pub fn literal(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

#[cfg(test)]
mod tests;
