//! What others may not do to a table that this server writes.
//!
//! Its one invariant: after any call that passes, the table is where the service looks for it and the
//! service's rows fit it. Rows may be added, changed, deleted and compacted by anybody, and columns may
//! be added. Of a table whose rows the service computes, others read the rows and set tags.

use super::{Catalog, OwnColumn, OwnTable, TableChange};
use crate::{
    ancestors, commit,
    error::CatalogError,
    location::Location,
    metadata_file::refs::SnapshotRefs,
    names,
    retention::{self, expiry},
    row_sum,
    snapshot::{changes::SnapshotChanges, obsolete::FORKED},
    storage::access::FileAccess,
};
use iceberg::{
    TableIdent, TableUpdate,
    spec::{
        MAIN_BRANCH, NestedField, NestedFieldRef, PartitionSpec, PrimitiveType, SchemaRef,
        SnapshotReference, SnapshotRetention, TableMetadata, Type,
    },
};
use std::collections::HashMap;

/// Most bytes of a `fixed` column that is added.
const FIXED_BYTES_MAX: u64 = 1 << 20;
/// What the names of tables begin with that have the documents of a collection.
const COLLECTION_PREFIX: &str = "cdc_";

impl Catalog {
    /// Refuses to take the table away that this server writes, such as to have it `dropped`. One
    /// whose metadata does not read may go: it must be possible to get rid of it.
    pub(super) async fn check_stays(
        &self,
        table: &TableIdent,
        what: &str,
    ) -> Result<(), CatalogError> {
        match self.find(table).await {
            Ok(Some(found)) => check_stays(table, &found.metadata, what),
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// Refuses a view the name of a table that this server writes, which could then never be made. The
    /// namespaces with such tables have one level.
    pub(super) fn check_view_name(&self, view: &TableIdent) -> Result<(), CatalogError> {
        let levels: &Vec<String> = view.namespace.as_ref();
        let mut own = self.inner.options.reserved.tables.iter();
        if 1 < levels.len() || own.all(|own| own.name != view.name) {
            return Ok(());
        }
        Err(CatalogError::Invalid(format!(
            "`{}` is the name of a table that this server writes: give the view another name",
            view.name
        )))
    }

    /// Whether the service shows rows of this table by who asks, so that its files are not for everybody who may
    /// read it. Keys that open every table open that one, too.
    pub(crate) fn hides_rows(&self, table: &TableIdent) -> bool {
        let options = &self.inner.options;
        let levels: &Vec<String> = table.namespace.as_ref();
        let mut own = options.reserved.tables.iter();
        options.hides_rows
            && (*self.inner.storage.access() == FileAccess::StaticKeys
                || levels.len() == 1
                    && (own.any(|own| own.name == table.name)
                        || table.name.starts_with(COLLECTION_PREFIX)))
    }

    /// Refuses a client's new namespace a name that the service keeps for itself.
    pub(crate) fn check_namespace_name(&self, levels: &[String]) -> Result<(), CatalogError> {
        let [name] = levels else { return Ok(()) };
        if !self.inner.options.reserved.namespaces.contains(&name.to_lowercase().as_str()) {
            return Ok(());
        }
        Err(CatalogError::Invalid(format!(
            "the name `{name}` is reserved in SQL: choose another one for the namespace"
        )))
    }

    /// Refuses a client keys that the service sets in the properties of namespaces.
    pub(crate) fn check_namespace_keys<'a>(
        &self,
        mut keys: impl Iterator<Item = &'a String>,
    ) -> Result<(), CatalogError> {
        let reserved = self.inner.options.reserved.namespace_properties;
        let Some(key) = keys.find(|key| reserved.contains(&key.as_str())) else { return Ok(()) };
        Err(CatalogError::Invalid(format!("only this server sets the property `{key}`: remove it")))
    }
}

/// Refuses a dropped table a name that it must not come back under.
pub(super) fn check_comes_back(
    before: &TableIdent,
    now: &TableIdent,
    metadata: &TableMetadata,
) -> Result<(), CatalogError> {
    if before == now || !retention::is_managed(metadata) {
        return Ok(());
    }
    Err(CatalogError::Invalid(format!(
        "{before} was written by this server and comes back under that name only: omit the new one"
    )))
}

/// Refuses a commit that would keep our rows from fitting the table.
pub(super) fn check(
    table: &TableIdent,
    own: &[OwnTable],
    base: Option<&TableMetadata>,
    new: &TableMetadata,
) -> Result<(), CatalogError> {
    let Some(base) = base.filter(|base| retention::is_managed(base)) else { return Ok(()) };
    let refuse = |what: String| {
        Err(CatalogError::Invalid(format!("{table} is written by this server: {what}")))
    };
    let collection = retention::collection_of(base);
    if !retention::is_managed(new) || retention::collection_of(new) != collection {
        let marks = [retention::MANAGED, retention::COLLECTION].join("` and `");
        return refuse(format!("its properties `{marks}` stay as they are"));
    }
    if let Some(what) = changed_property(base, new) {
        return refuse(what);
    }
    if base.format_version() != new.format_version() {
        return refuse(format!("it stays at format version {}", base.format_version() as u8));
    }
    moved_away(base, new).map(str::to_owned).map_or(Ok(()), refuse)?;
    if base.location() != new.location() {
        return refuse(
            "its location cannot change; copy its rows to a table of your own".to_owned(),
        );
    }
    if shape(base.default_partition_spec()) != shape(new.default_partition_spec()) {
        return refuse(
            "its partition spec cannot change; to partition its rows differently, copy them to a \
             table of your own"
                .to_owned(),
        );
    }
    let schema = new.current_schema();
    let kept = |field: &NestedFieldRef| {
        schema.field_by_id(field.id).is_some_and(|new| {
            new.name == field.name
                // Where rows are computed, the service alone changes columns, and it widens some.
                && (collection.is_some() || new.field_type == field.field_type)
                && new.required == field.required
        })
    };
    let fields = base.current_schema().as_struct().fields();
    let own = own.iter().find(|own| own.name == table.name);
    let first = first_schema(base);
    let is_ours = |field: &&NestedFieldRef| match own {
        Some(own) => own.columns.iter().any(|column| column.is(field)),
        None => first.field_by_id(field.id).is_some(),
    };
    if let Some(lost) = fields.iter().filter(is_ours).find(|field| !kept(field)) {
        return refuse(format!(
            "the column `{}` must keep its name, its type and whether it is required; add a column \
             of your own instead",
            lost.name
        ));
    }
    check_case(table, base, schema)?;
    match unfit(base, schema) {
        Some(what) => refuse(what),
        None => Ok(()),
    }
}

/// Why a property may not change as it does.
fn changed_property(base: &TableMetadata, new: &TableMetadata) -> Option<String> {
    // It is all that says so once the snapshots that show a fork are gone, and the files that others
    // still list would be deleted.
    if base.properties().get(FORKED) != new.properties().get(FORKED) {
        return Some(format!("only the server sets and removes its property `{FORKED}`"));
    }
    let key = changed_branch(base, new)?;
    Some(format!(
        "only the server sets its property `{key}`, which says what a branch is; branches are made with \
         `POST /v1/{{namespace}}/branches`"
    ))
}

/// A property about a branch that is new or says something else, or is gone while the branch is there.
fn changed_branch<'a>(base: &'a TableMetadata, new: &'a TableMetadata) -> Option<&'a String> {
    let is_told = |key: &&String| key.starts_with(retention::BRANCHES);
    let (before, after) = (base.properties(), new.properties());
    let is_there = |key: &str| {
        let name = key.strip_prefix(retention::BRANCHES);
        name.is_some_and(|name| new.snapshot_for_ref(name).is_some())
    };
    let set = after.iter().find(|(key, text)| is_told(key) && before.get(*key) != Some(*text));
    let mut told = before.keys().filter(is_told);
    let lost = || told.find(|key| !after.contains_key(*key) && is_there(key));
    set.map(|(key, _)| key).or_else(lost)
}

/// Why our rows, which have no value for columns that they do not know, do not fit the columns that are
/// new or changed.
fn unfit(base: &TableMetadata, schema: &SchemaRef) -> Option<String> {
    let before = base.current_schema();
    let is_new = |field: &&NestedFieldRef| before.field_by_id(field.id).is_none();
    let added = schema.as_struct().fields().iter().filter(is_new).find(|field| field.required);
    let tightened = before.as_struct().fields().iter().find(|field| {
        !field.required && schema.field_by_id(field.id).is_some_and(|new| new.required)
    });
    if let Some(field) = added.or(tightened) {
        return Some(format!("the column `{}` must be optional", field.name));
    }
    let wide = new_wide(base, schema)?;
    Some(format!(
        "values of the column `{}` may have {FIXED_BYTES_MAX} bytes at most: use `binary`",
        wide.name
    ))
}

/// A new column, at any depth, whose values are too wide for rows that lack it: each takes as much.
fn new_wide<'a>(base: &TableMetadata, schema: &'a SchemaRef) -> Option<&'a NestedFieldRef> {
    let is_known = |id: i32| base.schemas_iter().any(|known| known.field_by_id(id).is_some());
    let ids = schema.field_id_to_name_map().keys();
    ids.filter_map(|id| schema.field_by_id(*id)).find(|field| match field.field_type.as_ref() {
        Type::Primitive(PrimitiveType::Fixed(bytes)) => {
            FIXED_BYTES_MAX < *bytes && !is_known(field.id)
        }
        _ => false,
    })
}

/// Refuses to add a file with a name that the service gives. The rows of one that was merged are in another
/// file, and those of one that is live would be there twice.
pub(super) fn check_added(
    table: &TableMetadata,
    own: &Location,
    changes: &SnapshotChanges,
) -> Result<(), CatalogError> {
    if !retention::is_managed(table) {
        return Ok(());
    }
    let data = format!("{own}/data/");
    let is_ours = |path: &&String| {
        let location = own.admit(path);
        let name = location.as_ref().ok().and_then(|file| file.as_str().strip_prefix(&data));
        name.is_some_and(names::is_own_file)
    };
    match changes.added_paths.iter().find(is_ours) {
        Some(path) => Err(CatalogError::Invalid(format!(
            "`{path}` has a name that this server gives: its rows are in the table, or were deleted from \
             it. To have them once more, add a copy of it under another name"
        ))),
        None => Ok(()),
    }
}

/// Refuses a column whose name differs from another one's by case only: many engines take the two for
/// one, and some cannot load the table then.
fn check_case(
    table: &TableIdent,
    base: &TableMetadata,
    schema: &SchemaRef,
) -> Result<(), CatalogError> {
    let fields = schema.as_struct().fields();
    for field in fields {
        let before = base.current_schema().field_by_id(field.id);
        if before.is_some_and(|before| before.name == field.name) {
            continue;
        }
        let name = field.name.to_lowercase();
        let same =
            |other: &&NestedFieldRef| other.id != field.id && other.name.to_lowercase() == name;
        if let Some(other) = fields.iter().find(same) {
            return Err(CatalogError::Invalid(format!(
                "{table} is written by this server: the column `{}` differs from `{}` by case only, \
                 and many engines take the two for one; give it another name",
                field.name, other.name
            )));
        }
    }
    Ok(())
}

/// Refuses to take snapshots, branches or tags from a table of the service, and to have them expire,
/// to who may not: they are how everybody reads an earlier state.
pub(super) fn check_history(
    change: &TableChange,
    base: &TableMetadata,
    refs: &SnapshotRefs,
) -> Result<(), CatalogError> {
    if !change.keeps_history || !retention::is_managed(base) {
        return Ok(());
    }
    let refuse = |what: String| {
        let table = &change.table;
        Err(CatalogError::Forbidden(format!(
            "{table} is written by this server, and {what} needs the scope `admin` for its namespace"
        )))
    };
    for update in &change.updates {
        match update {
            TableUpdate::RemoveSnapshots { .. } => {
                return refuse("removing snapshots of it".to_owned());
            }
            TableUpdate::RemoveSnapshotRef { ref_name } if refs.contains_key(ref_name) => {
                return refuse(format!("removing its branch or tag `{ref_name}`"));
            }
            TableUpdate::SetSnapshotRef { ref_name, reference } => {
                let moves = |from| takes_from(base, change, from, ref_name, reference);
                if refs.get(ref_name).is_some_and(moves) {
                    return refuse(format!("moving or shortening its branch or tag `{ref_name}`"));
                }
            }
            TableUpdate::SetProperties { updates }
                if updates.keys().any(|key| is_about_expiry(key)) =>
            {
                return refuse("changing when its snapshots or rows expire".to_owned());
            }
            TableUpdate::RemoveProperties { removals }
                if removals.iter().any(|key| is_about_expiry(key)) =>
            {
                return refuse("changing when its snapshots or rows expire".to_owned());
            }
            _ => (),
        }
    }
    Ok(())
}

fn is_about_expiry(key: &str) -> bool {
    let own = [expiry::GC_ENABLED, retention::ROWS_KEPT, retention::SERVICE_TAGS];
    key.starts_with("history.expire.") || own.contains(&key)
}

/// Whether a branch or tag that becomes `to` leaves something behind that it led to, or is to be
/// kept for another time. Of where `main` goes the rules for everybody say more.
fn takes_from(
    base: &TableMetadata,
    change: &TableChange,
    from: &SnapshotReference,
    name: &str,
    to: &SnapshotReference,
) -> bool {
    // Some clients leave the time out when they commit, which keeps it for longer if anything.
    let is_shorter = from.retention != to.retention
        && to.retention != SnapshotRetention::branch(None, None, None);
    if from.is_branch() != to.is_branch() || is_shorter {
        return true;
    }
    if !from.is_branch() {
        return from.snapshot_id != to.snapshot_id;
    }
    let added: HashMap<i64, Option<i64>> = commit::added(&change.updates)
        .map(|snapshot| (snapshot.snapshot_id(), snapshot.parent_snapshot_id()))
        .collect();
    let known = base.snapshots().len() + added.len();
    let parent = |id| match added.get(&id) {
        Some(parent) => *parent,
        None => base.snapshot_by_id(id)?.parent_snapshot_id(),
    };
    let mut line = ancestors::walk(Some(to.snapshot_id), known, parent);
    name != MAIN_BRANCH && !line.any(|id| id == from.snapshot_id)
}

impl OwnColumn {
    /// Whether a field of the table is this column.
    fn is(&self, field: &NestedField) -> bool {
        if let Some(id) = self.id {
            return field.id == id;
        }
        let has_type =
            field.field_type.as_primitive_type().is_some_and(|it| self.types.contains(it));
        field.name == self.name && !field.required && has_type
    }
}

/// The columns that a table was made with, which are ours where nobody said what it is. Where that
/// schema was removed the next one stands in, which has them as well.
fn first_schema(table: &TableMetadata) -> &SchemaRef {
    let first = table.schemas_iter().min_by_key(|schema| schema.schema_id());
    first.unwrap_or_else(|| table.current_schema())
}

/// Why the new head of `main` may not come after the one before.
fn moved_away(base: &TableMetadata, new: &TableMetadata) -> Option<&'static str> {
    let (before, head) = (base.current_snapshot_id(), new.current_snapshot_id());
    if before.is_some_and(|before| !ancestors::is_ancestor(new, before, head)) {
        return Some(
            "moving `main` elsewhere would lose acknowledged rows; read the earlier state with time \
             travel, or create a branch of it",
        );
    }
    let mut come = ancestors::of(new, head).take_while(|made| Some(made.snapshot_id()) != before);
    come.any(retention::is_of_branch).then_some(
        "rows of a branch have numbers that `main` gives to others; merge the branch with \
         `POST /v1/{namespace}/branches/{branch}/merge`",
    )
}

/// Refuses to take a table away, or its name.
fn check_stays(
    table: &TableIdent,
    metadata: &TableMetadata,
    what: &str,
) -> Result<(), CatalogError> {
    if !retention::is_managed(metadata) {
        return Ok(());
    }
    Err(CatalogError::Invalid(format!(
        "{table} is written by this server and cannot be {what}; copy its rows to a table of your \
         own, and delete those that shall go"
    )))
}

/// Refuses a client's snapshot that tells what this server tells of its own: the numbers and sums of its
/// rows, which would be taken for those of the log, and that it is compaction, which others pass over. What a
/// rebase puts before it is this server's own.
pub(super) fn check_summaries(
    change: &TableChange,
    base: &TableMetadata,
) -> Result<(), CatalogError> {
    if !retention::is_managed(base) {
        return Ok(());
    }
    let TableChange { table, updates, .. } = change;
    let own = [commit::FIRST_SEQ, commit::COMPACTION, retention::BRANCH];
    let is_ours = |key: &&String| own.contains(&key.as_str()) || row_sum::is_entry(key);
    let mut keys =
        commit::added(updates).flat_map(|snapshot| snapshot.summary().additional_properties.keys());
    match keys.find(is_ours) {
        Some(key) => Err(CatalogError::Invalid(format!(
            "{table} is written by this server: leave the entry `{key}` out of the summary of the \
             snapshot, which only the server's own have"
        ))),
        None => Ok(()),
    }
}

/// Refuses a client's change of what the service computes: rows of theirs would be gone with the next refresh,
/// and columns of theirs would have no values.
pub(super) fn check_computed(
    change: &TableChange,
    base: &TableMetadata,
) -> Result<(), CatalogError> {
    let Some(collection) = retention::collection_of(base) else { return Ok(()) };
    let is_own = |key: &String| key.starts_with(retention::COLLECTION);
    let is_refused = |update: &TableUpdate| match update {
        TableUpdate::AddSnapshot { .. }
        | TableUpdate::AddSchema { .. }
        | TableUpdate::SetCurrentSchema { .. }
        | TableUpdate::AddSpec { .. }
        | TableUpdate::SetDefaultSpec { .. }
        | TableUpdate::AddSortOrder { .. }
        | TableUpdate::SetDefaultSortOrder { .. } => true,
        TableUpdate::SetProperties { updates } => updates.keys().any(is_own),
        TableUpdate::RemoveProperties { removals } => removals.iter().any(is_own),
        _ => false,
    };
    if !change.updates.iter().any(is_refused) {
        return Ok(());
    }
    let table = &change.table;
    Err(CatalogError::Invalid(format!(
        "{table} has the documents of collection `{collection}`, which this server computes: send changes of \
         documents as events, or copy the rows to a table of your own"
    )))
}

/// Refuses the marks of our own tables on one of a client's: it would be thinned and locked, or read as the
/// documents of a collection.
pub(super) fn check_is_foreign(updates: &[TableUpdate]) -> Result<(), CatalogError> {
    let mark = updates.iter().find_map(|update| match update {
        TableUpdate::SetProperties { updates } => retention::mark_in(updates),
        _ => None,
    });
    let Some(mark) = mark else { return Ok(()) };
    Err(CatalogError::Invalid(format!(
        "the property `{mark}` marks tables that this server writes: remove it"
    )))
}

/// Refuses metadata with such a mark that a client wants adopted: our own tables cannot leave, so none
/// comes back that way.
pub(super) fn check_adopted(metadata: &TableMetadata) -> Result<(), CatalogError> {
    let Some(mark) = retention::mark_in(metadata.properties()) else { return Ok(()) };
    Err(CatalogError::Invalid(format!(
        "the property `{mark}` marks tables that a server like this one writes: copy the rows to a \
         table of your own, or register metadata without it"
    )))
}

/// What makes two specs the same, whatever their ids.
fn shape(spec: &PartitionSpec) -> Vec<(i32, &str, String)> {
    spec.fields()
        .iter()
        .map(|field| (field.source_id, field.name.as_str(), field.transform.to_string()))
        .collect()
}
