//! The schema of a collection's documents, which gives the collection's table typed columns.
//!
//! It is kept with the table: its text is a property, and each column says what it has. Its one invariant: text and
//! columns change in one commit, on the very state that the schema was compared with. The rows get their values by
//! the next refresh; until then who reads the collection by SQL has them computed.

use crate::sql::{
    Sql,
    collection_refresh::base::{CollectionPlace, ReadBase},
    writes::{WriteFailure, target::invalid},
};
use icecore_catalog::{catalog::Catalog, error::CatalogError, retention, snapshot::NewSnapshot};
use icecore_lake::{
    collection::table_name,
    table::{
        documents::{self, AppliedChanges},
        schema::foreign_ident,
        typed_columns::{
            TypedColumns,
            evolution::{EvolutionError, SchemaEvolution},
            json_schema::DocumentSchema,
        },
    },
};
use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Most collections that are noted for the job; the rows of others wait for their next change.
const PENDING_MAX: usize = 10_000;
/// How often a schema is compared anew because another commit to the table came first: a refresh may.
const TRIES_MAX: usize = 5;

/// Why a schema is not registered.
#[derive(Debug, thiserror::Error)]
pub enum CollectionSchemaError {
    /// It does not follow the one that is there.
    #[error(transparent)]
    Evolution(#[from] EvolutionError),
    /// The table, or the commit.
    #[error(transparent)]
    Table(#[from] WriteFailure),
}

impl CollectionSchemaError {
    /// Whether nothing was registered; otherwise it may have been.
    #[must_use]
    pub fn is_definite(&self) -> bool {
        match self {
            Self::Table(WriteFailure::Catalog(cause)) => cause.is_definite(),
            Self::Evolution(_) | Self::Table(_) => true,
        }
    }
}

impl From<CatalogError> for CollectionSchemaError {
    fn from(cause: CatalogError) -> Self {
        Self::Table(cause.into())
    }
}

/// The schema that a collection has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredSchema {
    /// It as JSON.
    pub text: String,
    /// The columns that it makes.
    pub columns: TypedColumns,
}

impl RegisteredSchema {
    /// That of a collection; none where none was registered.
    ///
    /// # Errors
    /// [`WriteFailure`], of the catalog.
    pub async fn load(
        catalog: &Catalog,
        levels: &[String],
        collection: &str,
    ) -> Result<Option<Self>, WriteFailure> {
        let place = place_of(levels, collection)?;
        let table = match catalog.tables().load(&place.ident).await {
            Err(CatalogError::NoSuchTable(_)) => return Ok(None),
            found => found?,
        };
        if retention::collection_of(&table.metadata) != Some(collection) {
            return Ok(None);
        }
        let text = TypedColumns::registered(&table.metadata).map(str::to_owned);
        Ok(text.map(|text| Self { text, columns: TypedColumns::of(&table.metadata) }))
    }
}

/// Collections, by namespace, whose rows may lack values of columns that their tables have. A server that starts does
/// not need to know: it looks at all tables.
#[derive(Debug, Default)]
pub(in crate::sql) struct PendingValues(Mutex<BTreeSet<(Vec<String>, String)>>);

impl PendingValues {
    fn noted(&self) -> MutexGuard<'_, BTreeSet<(Vec<String>, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sql {
    /// Notes for the job `refresh` that a table may have columns without values, though nothing changed.
    pub fn note_pending_values(&self, levels: &[String], collection: &str) {
        let mut noted = self.inner.pending_values.noted();
        if noted.len() < PENDING_MAX {
            noted.insert((levels.to_vec(), collection.to_owned()));
        }
    }

    /// Takes the note back, once a refresh has written them.
    pub fn end_pending_values(&self, levels: &[String], collection: &str) {
        let of_collection = (levels.to_vec(), collection.to_owned());
        self.inner.pending_values.noted().remove(&of_collection);
    }

    /// The collections of a namespace that are noted.
    #[must_use]
    pub fn pending_values(&self, levels: &[String]) -> BTreeSet<String> {
        let noted = self.inner.pending_values.noted();
        let of_namespace = noted.iter().filter(|(of, _)| of.as_slice() == levels);
        of_namespace.map(|(_, collection)| collection.clone()).collect()
    }
}

/// Registers a schema, and makes the table of a collection that has none; or, as a dry run, tells what it would
/// change. Durable on return.
///
/// # Errors
/// [`CollectionSchemaError`]; nothing is changed then, but after `CommitStateUnknown`, which says so, and but for a
/// table without documents that may be there.
pub async fn register(
    catalog: &Catalog,
    levels: &[String],
    collection: &str,
    wanted: &DocumentSchema,
    dry_run: bool,
) -> Result<SchemaEvolution, CollectionSchemaError> {
    let place = place_of(levels, collection)?;
    let mut tries = 1;
    loop {
        let base = match Box::pin(ReadBase::load(catalog, &place)).await? {
            Some(base) => base,
            None if dry_run => {
                // A namespace that is not there is told.
                catalog.metastore().tables(&levels.to_vec()).await?;
                let new = documents::create(collection);
                let staged = catalog.tables().stage_first(&levels.to_vec(), new).await?;
                return Ok(SchemaEvolution::of(&staged, wanted)?);
            }
            None => {
                // The columns that it is made with nobody changes any more: typed ones come behind them.
                let new = documents::create(collection);
                match catalog.tables().create(&levels.to_vec(), new).await {
                    Ok(table) => {
                        let (snapshot, files) = (None, Vec::new());
                        ReadBase { table, snapshot, files, applied: None, branch: None }
                    }
                    // A refresh made it meanwhile.
                    Err(CatalogError::AlreadyExists(_)) if tries < TRIES_MAX => {
                        tries += 1;
                        continue;
                    }
                    Err(cause) => return Err(cause.into()),
                }
            }
        };
        let made = SchemaEvolution::of(&base.table.metadata, wanted)?;
        let operation = "set the schema of a collection";
        let change = made.evolution(&base.table.metadata);
        let change = change.map_err(|source| CatalogError::Iceberg { operation, source })?;
        if dry_run || change.is_none() {
            return Ok(made);
        }
        // The rows are what they were.
        let summary = base.applied.as_ref().map(AppliedChanges::summary).unwrap_or_default();
        let new = NewSnapshot { summary, evolution: change, ..base.without_files() };
        match Box::pin(catalog.add_snapshot(&place.ident, new)).await {
            Ok(_) => return Ok(made),
            Err(CatalogError::CommitFailed(_)) if tries < TRIES_MAX => tries += 1,
            Err(cause) => return Err(cause.into()),
        }
    }
}

fn place_of<'a>(
    levels: &'a [String],
    collection: &'a str,
) -> Result<CollectionPlace<'a>, WriteFailure> {
    if levels.len() != 1 {
        return Err(invalid("a namespace with collections has one level").into());
    }
    let ident = foreign_ident(levels, &table_name(collection))
        .ok_or_else(|| invalid("a namespace has a name"))?;
    Ok(CollectionPlace { levels, collection, ident })
}
