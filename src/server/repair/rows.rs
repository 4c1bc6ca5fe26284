//! What only the rows of a table say: the text of its namespace, and how far it is where no snapshot says.

use crate::server::StartError;
use arrow::{array::AsArray, datatypes::Int64Type};
use futures::TryStreamExt;
use icecore_catalog::{
    catalog::{
        Catalog,
        recovery::{RecoveredCatalog, RecoveredTable, RecoveryNote},
    },
    metastore::Levels,
    scan::{Deadline, ManifestSource, filter::Filter, manifests::ManifestCache},
};
use icecore_lake::{
    table::reader::{self, DeleteHandling, ReadError, ReadRequest},
    wal::{RecordRef, marks::NotedMarks},
};
use icecore_schemas::{
    names::{NAMESPACE_TEXT, Namespace},
    service_table::{ServiceTable, known_tables},
};
use std::{collections::BTreeSet, pin::pin};

/// Gives each namespace with tables of the service its text, where no list of names has it: from the log, or
/// from the rows.
///
/// # Errors
/// [`StartError`] of a store that does not answer.
pub(super) async fn name_namespaces(
    catalog: &Catalog,
    found: &mut RecoveredCatalog,
    noted: &NotedMarks,
    records: &[RecordRef],
) -> Result<(), StartError> {
    let RecoveredCatalog { names, notes, .. } = found;
    let texts: BTreeSet<&Namespace> = noted
        .tables
        .keys()
        .map(|(_, namespace)| namespace)
        .chain(records.iter().map(|record| &record.namespace))
        .collect();
    for table in &names.tables {
        let levels = &table.returning.table.levels;
        let properties = names.namespaces.entry(levels.clone()).or_default();
        let is_named = Namespace::from_properties(levels, properties).is_some();
        let [name] = levels.as_slice() else { continue };
        if !table.is_managed || is_named {
            continue;
        }
        let mut known = texts.iter().filter(|text| text.name() == name);
        let text = match (known.next(), known.next()) {
            (Some(only), None) => Some(only.text().to_owned()),
            _ => text_in_rows(catalog, table, levels, notes).await?,
        };
        let text = text.unwrap_or_else(|| {
            let text =
                "does not say how its namespace is written: the catalog's name is taken for it";
            notes.push(note(table, text));
            name.clone()
        });
        properties.insert(NAMESPACE_TEXT.to_owned(), text);
    }
    Ok(())
}

/// The last `seq` of a table's rows, whoever added them, or what was `noted` where that is higher.
///
/// # Errors
/// [`StartError`] of a store that does not answer.
pub(super) async fn last_seq(
    catalog: &Catalog,
    table: &RecoveredTable,
    ours: &ServiceTable,
    noted: u64,
    notes: &mut Vec<RecoveryNote>,
) -> Result<u64, StartError> {
    let mut last = noted;
    if ours.has_seq() {
        let read = each(catalog, table, ours, "seq", |rows| {
            let highest = arrow::compute::max(rows.as_primitive::<Int64Type>()).unwrap_or(0);
            last = last.max(u64::try_from(highest).unwrap_or(0));
            true
        });
        if let Err(cause) = read.await? {
            notes.push(note(table, format!("does not read: {cause}")));
        }
    }
    let text = format!(
        "has no snapshot of the log's: it is taken to have the log up to {last}, by its rows and the notes \
         beside the log"
    );
    notes.push(note(table, text));
    Ok(last)
}

async fn text_in_rows(
    catalog: &Catalog,
    table: &RecoveredTable,
    levels: &Levels,
    notes: &mut Vec<RecoveryNote>,
) -> Result<Option<String>, StartError> {
    let name = table.returning.table.name.as_str();
    let Some(ours) = known_tables().find(|ours| ours.name == name) else { return Ok(None) };
    let mut text = None;
    let read = each(catalog, table, ours, "ns", |rows| {
        let mut texts = rows.as_string::<i32>().iter().flatten();
        // Rows of other engines may say anything.
        text = texts
            .find(|text| Namespace::parse(text).is_ok_and(|found| levels == &[found.name()]))
            .map(str::to_owned);
        text.is_none()
    });
    if let Err(cause) = read.await? {
        notes.push(note(table, format!("does not read: {cause}")));
    }
    Ok(text)
}

/// Shows the parts of a column of the current snapshot until `goes_on` says that it is enough. The inner
/// error is of the table's files.
async fn each(
    catalog: &Catalog,
    table: &RecoveredTable,
    ours: &ServiceTable,
    column: &str,
    mut goes_on: impl FnMut(&arrow::array::ArrayRef) -> bool,
) -> Result<Result<(), ReadError>, StartError> {
    let location = &table.returning.table.metadata_location;
    let metadata = catalog.recovery().metadata(location).await?;
    let id = ours.column(column).and_then(|column| column.id);
    let (Some(snapshot_id), Some(id)) = (metadata.current_snapshot_id(), id) else {
        return Ok(Ok(()));
    };
    let cache = ManifestCache::default();
    let (storage, until) = (catalog.storage(), Deadline::NONE);
    let source = ManifestSource { storage, cache: &cache, metadata: &metadata, until };
    let request = ReadRequest {
        snapshot_id,
        columns: vec![id],
        filter: Filter::True,
        deletes: DeleteHandling::Ignored,
    };
    let rows = match reader::rows(source, request).await {
        Ok(rows) => rows,
        Err(cause) => return Ok(Err(cause)),
    };
    let mut rows = pin!(rows);
    loop {
        match rows.try_next().await {
            Ok(Some(part)) if goes_on(part.column(0)) => (),
            Ok(_) => return Ok(Ok(())),
            Err(cause) => return Ok(Err(cause)),
        }
    }
}

fn note(table: &RecoveredTable, text: impl Into<String>) -> RecoveryNote {
    let location = table.returning.table.metadata_location.clone();
    RecoveryNote { location, text: text.into() }
}
