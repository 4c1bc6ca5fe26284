//! Views that SQL stores in the catalog: Iceberg views whose query is in the dialect `icecore`.
//!
//! Its one invariant: what is stored was planned. So a view is readable when it is made, with the columns that it
//! says; whether it stays so depends on what it reads.

use crate::sql::{Sql, view_query};
use arrow::datatypes::{DataType, Field, FieldRef, Schema as ArrowSchema, TimeUnit};
use iceberg::{
    NamespaceIdent, TableIdent, ViewUpdate,
    arrow::arrow_schema_to_schema_auto_assign_ids,
    spec::{Schema, ViewVersion},
};
use icecore_catalog::{
    access::Principal,
    catalog::{Catalog, CreateView, LoadedView, ViewChange},
    error::CatalogError,
    metastore::Levels,
    view::ViewRequirement,
};
use icecore_engine::{
    draws,
    error::SqlError,
    guard,
    metadata_tables::MetadataTable,
    references::{self, QueryScope, StatementTables, WantedTables},
};
use icecore_schemas::query::SqlRequest;
use serde_json::json;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// The dialect of views that are made here.
pub const DIALECT: &str = "icecore";

/// In a change of a view: the schema and the version that it adds.
const LAST_ADDED: i32 = -1;
/// Digits of the largest integer of 64 bits without a sign, which Iceberg does not have.
const U64_DIGITS: u8 = 20;

/// Why a view is not stored, or not shown.
#[derive(Debug, thiserror::Error)]
pub enum ViewStoreError {
    /// Its query is not valid here.
    #[error(transparent)]
    Query(#[from] SqlError),
    /// The catalog does not take it, or does not have it.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

/// A view that is to be stored.
#[derive(Clone, Copy, Debug)]
pub struct NewStoredView<'a> {
    /// The namespace, where names in the query are looked for, too.
    pub levels: &'a Levels,
    /// Its name.
    pub name: &'a str,
    /// Its query.
    pub sql: &'a str,
    /// Whether it takes the place of a view of this name.
    pub replaces: bool,
}

/// A view as the catalog has it.
#[derive(Clone, Debug)]
pub struct StoredView {
    /// Its query: that in our dialect if it has one, else the first.
    pub sql: String,
    /// The dialect of that.
    pub dialect: String,
    /// Name and Iceberg type of each column.
    pub columns: Vec<(String, String)>,
    /// The number of its version.
    pub version: i32,
}

impl Sql {
    /// Stores a view by `catalog`, once its query is planned with the rights of `principal`. Durable on return.
    ///
    /// # Errors
    /// [`ViewStoreError`]; `AlreadyExists` for a view or table of this name, `CommitFailed` when another change
    /// of the view was first.
    pub async fn store_view(
        &self,
        catalog: &Catalog,
        principal: &Principal,
        view: NewStoredView<'_>,
    ) -> Result<StoredView, ViewStoreError> {
        let ident = ident(view.levels, view.name)?;
        check_versions(catalog, view, &check_query(view)?).await?;
        let request =
            SqlRequest { sql: view.sql.to_owned(), limit: Some(0), ..SqlRequest::default() };
        let asked = self.query(view.levels, QueryScope::Namespace, Some(principal), request);
        let schema = columns_of(&Box::pin(asked).await?.schema)?;
        let stored = match catalog.views().load(&ident).await {
            Ok(_) if !view.replaces => {
                return Err(CatalogError::AlreadyExists(format!(
                    "View already exists: {ident}; CREATE OR REPLACE VIEW takes its place"
                ))
                .into());
            }
            Ok(loaded) => {
                let uuid = loaded.metadata.uuid();
                let view_version = version(catalog, view, LAST_ADDED)?;
                let change = ViewChange {
                    view: ident,
                    requirements: vec![ViewRequirement::UuidMatch { uuid }],
                    updates: vec![
                        ViewUpdate::AddSchema { schema, last_column_id: None },
                        ViewUpdate::AddViewVersion { view_version },
                        ViewUpdate::SetCurrentViewVersion { view_version_id: LAST_ADDED },
                    ],
                };
                Box::pin(catalog.views().commit(change)).await?
            }
            Err(CatalogError::NoSuchView(_)) => {
                let new = CreateView {
                    name: view.name.to_owned(),
                    version: version(catalog, view, schema.schema_id())?,
                    schema,
                    location: None,
                    properties: HashMap::new(),
                };
                Box::pin(catalog.views().create(view.levels, new)).await?
            }
            Err(cause) => return Err(cause.into()),
        };
        Ok(shown(&stored))
    }

    /// A view of the catalog, whoever made it.
    ///
    /// # Errors
    /// `NoSuchView`, and those of a load.
    pub async fn stored_view(
        &self,
        levels: &Levels,
        name: &str,
    ) -> Result<StoredView, CatalogError> {
        Ok(shown(&self.inner.catalog.views().load(&ident(levels, name)?).await?))
    }

    /// Removes a view by `catalog`. Durable on return.
    ///
    /// # Errors
    /// `NoSuchView`
    pub async fn drop_stored_view(
        &self,
        catalog: &Catalog,
        levels: &Levels,
        name: &str,
    ) -> Result<(), CatalogError> {
        catalog.views().drop(&ident(levels, name)?).await
    }
}

fn ident(levels: &Levels, name: &str) -> Result<TableIdent, CatalogError> {
    let namespace = NamespaceIdent::from_vec(levels.clone())
        .map_err(|_| CatalogError::NoSuchNamespace(levels.join(".")))?;
    Ok(TableIdent::new(namespace, name.to_owned()))
}

/// Refuses what a view of the catalog cannot be read with later. Gives the names of its query.
fn check_query(view: NewStoredView<'_>) -> Result<StatementTables, SqlError> {
    let NewStoredView { levels, name, sql, .. } = view;
    let refused = |reason: &str| refused(view, reason);
    let checked = guard::check(sql)?;
    if let Some(reason) = view_query::unread(&checked) {
        return Err(refused(reason));
    }
    if draws::is_drawn(&checked.statement) {
        return Err(refused("it draws values, as random() and uuid() do"));
    }
    let home = levels.join(".");
    let tables = references::wanted(&checked.statement, &home, QueryScope::Namespace)?;
    if tables.wanted == WantedTables::All {
        return Err(refused("it reads information_schema, which tells of who asks"));
    }
    if tables.named.iter().any(|named| named == name) {
        return Err(refused("it reads itself; give it another name"));
    }
    Ok(tables)
}

/// Refuses versions of tables that stand in their names.
async fn check_versions(
    catalog: &Catalog,
    view: NewStoredView<'_>,
    tables: &StatementTables,
) -> Result<(), ViewStoreError> {
    let home = view.levels;
    let mut names: Vec<(Levels, &str)> =
        tables.named.iter().map(|name| (home.clone(), name.as_str())).collect();
    for name in &tables.qualified {
        // A namespace, or a table before its metadata table.
        names.push((name.schema.split('.').map(str::to_owned).collect(), name.table.as_str()));
        if MetadataTable::parse(&name.table).is_some() {
            names.push((home.clone(), name.schema.as_str()));
        }
    }
    for (levels, name) in names {
        if view_query::gives_version(catalog, &levels, name).await? {
            return Err(refused(view, view_query::VERSION).into());
        }
    }
    Ok(())
}

fn refused(view: NewStoredView<'_>, reason: &str) -> SqlError {
    SqlError::Invalid(format!("view `{}` cannot be stored: {reason}", view.name))
}

fn version(
    catalog: &Catalog,
    view: NewStoredView<'_>,
    schema_id: i32,
) -> Result<ViewVersion, SqlError> {
    // The crate has no way to make representations but to read them.
    let form = json!({
        "version-id": 1,
        "schema-id": schema_id,
        "timestamp-ms": catalog.now_ms(),
        "summary": { "engine-name": DIALECT, "engine-version": env!("CARGO_PKG_VERSION") },
        "default-namespace": view.levels,
        "representations": [{ "type": "sql", "sql": view.sql, "dialect": DIALECT }],
    });
    serde_json::from_value(form).map_err(|cause| {
        tracing::error!(error = &cause as &dyn std::error::Error, "a view has no version");
        SqlError::Internal("the view cannot be written".to_owned())
    })
}

/// The columns of an answer as Iceberg has them.
fn columns_of(answer: &ArrowSchema) -> Result<Schema, SqlError> {
    let mut names = HashSet::new();
    let mut fields = Vec::new();
    for field in answer.fields() {
        if !names.insert(field.name()) {
            return Err(SqlError::Invalid(format!(
                "the query of the view has two columns `{}`: give one of them another name with AS",
                field.name()
            )));
        }
        let stored = stored_field(field);
        let alone = ArrowSchema::new(vec![Arc::clone(&stored)]);
        if let Err(cause) = arrow_schema_to_schema_auto_assign_ids(&alone) {
            tracing::debug!(error = &cause as &dyn std::error::Error, "a column has no type");
            return Err(SqlError::Invalid(format!(
                "column `{}` of the view has the type {}, which Iceberg does not have: cast it, such as to text",
                field.name(),
                field.data_type()
            )));
        }
        fields.push(stored);
    }
    arrow_schema_to_schema_auto_assign_ids(&ArrowSchema::new(fields))
        .map_err(|cause| SqlError::Invalid(format!("the view has no schema: {}", cause.message())))
}

/// A column in the type that Iceberg has for it.
fn stored_field(field: &FieldRef) -> FieldRef {
    Arc::new(Field::new(field.name(), stored_type(field.data_type()), field.is_nullable()))
}

fn stored_type(kind: &DataType) -> DataType {
    match kind {
        DataType::UInt64 => DataType::Decimal128(U64_DIGITS, 0),
        DataType::Null => DataType::Utf8,
        DataType::Float16 => DataType::Float32,
        DataType::Date64 => DataType::Date32,
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::List(item) => DataType::List(stored_field(item)),
        DataType::LargeList(item) => DataType::LargeList(stored_field(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(stored_field).collect()),
        other => other.clone(),
    }
}

fn shown(view: &LoadedView) -> StoredView {
    let current = view.metadata.current_version();
    let queries = || view_query::texts(&view.metadata);
    let ours = queries().find(|query| query.dialect.eq_ignore_ascii_case(DIALECT));
    let query = ours.or_else(|| queries().next());
    let (sql, dialect) =
        query.map(|query| (query.sql.clone(), query.dialect.clone())).unwrap_or_default();
    let schema = view.metadata.schema_by_id(current.schema_id());
    let columns = schema.map_or_else(Vec::new, |schema| {
        let fields = schema.as_struct().fields().iter();
        fields.map(|field| (field.name.clone(), field.field_type.to_string())).collect()
    });
    StoredView { sql, dialect, columns, version: current.version_id() }
}
