//! The view of one statement: its namespace, others that its sender may read, metadata tables, views.
//!
//! A name is looked for where it can be: first as a table, then as a metadata table of one, then as a view
//! of the catalog, whose own names are looked for in the same way, then as a view over changes. Its one invariant: of a namespace that the
//! sender may not read nothing is asked, so it answers as one that is not there.

use crate::sql::{
    view::{ResolvedNamespace, ViewSources, internal},
    view_query,
};
use futures::{FutureExt, future::BoxFuture};
use iceberg::{NamespaceIdent, TableIdent, spec::ViewMetadata};
use icecore_catalog::{
    access::{Action, Principal},
    error::CatalogError,
};
use icecore_engine::{
    change_views,
    error::SqlError,
    guard::RELATIONS_MAX,
    metadata_tables::MetadataTable,
    references::{self, QualifiedName, QueryScope, StatementTables, WantedTables},
    session::CATALOG,
    view::{CatalogView, ChangeView, RewrittenName, View},
};
use icecore_lake::wal::LogPin;
use icecore_schemas::{as_of::AsOf, names::Namespace, service_table::EVENTS_TABLE};

/// Deepest that views read one another.
const VIEW_DEPTH_MAX: usize = 16;
/// Most views that one statement reads, with those behind them.
const VIEWS_MAX: usize = 64;

/// What the error of a view begins with.
const VIEW: &str = "view `";

/// Who asks, and from where.
#[derive(Clone, Copy, Debug)]
pub struct StatementReader<'a> {
    /// The levels of the query's namespace.
    pub levels: &'a [String],
    /// Whose rights decide on other namespaces; with none there are no others.
    pub principal: Option<&'a Principal>,
    /// The past, if that is read.
    pub as_of: Option<&'a AsOf>,
}

/// A view that is being taken.
struct ViewDraft<'a> {
    sources: ViewSources<'a>,
    reader: StatementReader<'a>,
    view: View,
    /// Views of the catalog whose names are being looked for, by namespace and name.
    open: Vec<(String, String)>,
    /// Tables that were taken for views.
    behind_views: usize,
}

/// Where names without a namespace are looked for.
struct NameHome<'a> {
    /// What its tables are called by.
    schema: &'a str,
    /// None where it is not there, or may not be read.
    space: Option<&'a ResolvedNamespace>,
    /// Another name of our catalog, in a view that an engine made.
    catalog: Option<&'a str>,
}

impl ViewSources<'_> {
    /// Takes the view of a statement, and the pin that keeps it readable.
    ///
    /// # Errors
    /// [`SqlError::NoNamespace`]; [`SqlError::NotFound`] when what `as_of` names is not there;
    /// [`SqlError::Invalid`] for a table or view that is not, or cannot be read.
    pub async fn of_statement(
        self,
        reader: StatementReader<'_>,
        tables: &StatementTables,
    ) -> Result<(View, LogPin), SqlError> {
        // Before anything is asked of the catalog, see `view`.
        let pin = self.wal.pin();
        let view = View::of(reader.levels.join("."));
        let schema = view.namespace.clone();
        let mut draft =
            ViewDraft { sources: self, reader, view, open: Vec::new(), behind_views: 0 };
        let names_own = tables.wanted != WantedTables::Named(Vec::new());
        let own = if names_own || !tables.qualified.is_empty() {
            ResolvedNamespace::find(self, reader.levels).await?
        } else {
            None
        };
        match (&own, names_own) {
            (None, true) => return Err(SqlError::NoNamespace(schema)),
            (Some(own), true) => draft.add_own(&schema, own, tables).await?,
            (_, false) => (),
        }
        let home = NameHome { schema: &schema, space: own.as_ref(), catalog: None };
        draft.view.rewritten = draft.add_qualified(&tables.qualified, &home).await?;
        for namespace in &tables.listed {
            if let Some(space) = draft.find(namespace).await? {
                draft.add_all(namespace, &space).await?;
            }
        }
        Ok((draft.view, pin))
    }
}

impl ViewDraft<'_> {
    /// What a statement names of its own namespace.
    async fn add_own(
        &mut self,
        schema: &str,
        space: &ResolvedNamespace,
        tables: &StatementTables,
    ) -> Result<(), SqlError> {
        match &tables.wanted {
            WantedTables::Named(names) => {
                for name in names {
                    self.add(schema, space, name).await?;
                }
            }
            WantedTables::All => {
                self.add_all(schema, space).await?;
                for name in &tables.named {
                    // What is not there is found out when the statement is planned.
                    if !self.has(schema, name) {
                        self.find_and_add(schema, space, name).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// All tables of a namespace.
    async fn add_all(&mut self, schema: &str, space: &ResolvedNamespace) -> Result<(), SqlError> {
        for name in space.table_names(self.sources).await? {
            if self.has(schema, &name) {
                continue;
            }
            match self.add_table(schema, space, &name).await {
                // Dropped since the names were listed, or not there yet at that time.
                Ok(_) => (),
                // Who asks what there is gets told of it; reading it is an error.
                Err(error @ (SqlError::Unreadable(_) | SqlError::Withheld(_))) => {
                    self.view.namespace_mut(schema).1.push((name, error));
                }
                Err(cause) => return Err(cause),
            }
        }
        Ok(())
    }

    /// Whether the view has that table, or that it cannot be read.
    fn has(&mut self, schema: &str, name: &str) -> bool {
        let (tables, unreadable) = self.view.namespace_mut(schema);
        tables.iter().any(|table| table.name == name)
            || unreadable.iter().any(|(unreadable, _)| unreadable == name)
    }

    /// A table, a metadata table or a view of this name.
    async fn add(
        &mut self,
        schema: &str,
        space: &ResolvedNamespace,
        name: &str,
    ) -> Result<(), SqlError> {
        if self.find_and_add(schema, space, name).await? {
            return Ok(());
        }
        Err(space.unknown_table(self.sources, name).await?)
    }

    /// The same; false where there is nothing of this name.
    async fn find_and_add(
        &mut self,
        schema: &str,
        space: &ResolvedNamespace,
        name: &str,
    ) -> Result<bool, SqlError> {
        let is_there = match MetadataTable::split(name) {
            Some((table, kind)) => self.add_generated(schema, space, table, kind).await?,
            None => self.has(schema, name) || self.add_table(schema, space, name).await?,
        };
        if is_there || self.add_view(schema, space, name).await? {
            return Ok(true);
        }
        self.add_change_view(schema, space, name).await
    }

    /// A view over the changes of a namespace that has some.
    async fn add_change_view(
        &mut self,
        schema: &str,
        space: &ResolvedNamespace,
        name: &str,
    ) -> Result<bool, SqlError> {
        if !change_views::is_view(name) || !space.has_events {
            return Ok(false);
        }
        if !self.has(schema, EVENTS_TABLE) && !self.add_table(schema, space, EVENTS_TABLE).await? {
            return Ok(false);
        }
        let (namespace, name) = (schema.to_owned(), name.to_owned());
        let view = ChangeView { namespace, name };
        if !self.view.change_views.contains(&view) {
            self.view.change_views.push(view);
        }
        Ok(true)
    }

    async fn add_table(
        &mut self,
        schema: &str,
        space: &ResolvedNamespace,
        name: &str,
    ) -> Result<bool, SqlError> {
        let found = Box::pin(space.table(self.sources, name, self.reader.as_of)).await?;
        let Some(table) = found else { return Ok(false) };
        self.behind_views += usize::from(!self.open.is_empty());
        if RELATIONS_MAX < self.behind_views {
            return Err(SqlError::Invalid(format!(
                "the views of the statement read more than {RELATIONS_MAX} tables"
            )));
        }
        self.view.namespace_mut(schema).0.push(table);
        Ok(true)
    }

    async fn add_metadata(
        &mut self,
        schema: &str,
        space: &ResolvedNamespace,
        table: &str,
        kind: MetadataTable,
    ) -> Result<bool, SqlError> {
        if !self.has(schema, table) && !self.add_table(schema, space, table).await? {
            return Ok(false);
        }
        let (tables, _) = self.view.namespace_mut(schema);
        let Some(table) = tables.iter_mut().find(|known| known.name == table) else {
            return Ok(false);
        };
        if !table.inspected.contains(&kind) {
            table.inspected.push(kind);
        }
        Ok(true)
    }

    /// What the name of a metadata table stands for: a table of that name, if there is one.
    async fn add_generated(
        &mut self,
        schema: &str,
        space: &ResolvedNamespace,
        table: &str,
        kind: MetadataTable,
    ) -> Result<bool, SqlError> {
        let name = kind.of(table);
        Ok(self.has(schema, &name)
            || self.add_table(schema, space, &name).await?
            || self.add_metadata(schema, space, table, kind).await?)
    }

    /// What names of several parts mean, and the names that do not say so by themselves.
    async fn add_qualified(
        &mut self,
        names: &[QualifiedName],
        home: &NameHome<'_>,
    ) -> Result<Vec<RewrittenName>, SqlError> {
        let mut rewritten = Vec::new();
        for name in names {
            let meant = match name.catalog.as_deref() {
                None => self.add_partial(name, home).await?,
                Some(CATALOG) => {
                    self.add_foreign(name, &name.schema, &name.table, home).await?;
                    None
                }
                Some(catalog) if Some(catalog) == home.catalog => {
                    self.add_foreign(name, &name.schema, &name.table, home).await?;
                    Some((name.schema.clone(), name.table.clone()))
                }
                // `namespace.table.snapshots`.
                Some(namespace) => {
                    let kind = MetadataTable::parse(&name.table);
                    let kind = kind.ok_or_else(|| references::outside(name, home.schema))?;
                    let table = kind.of(&name.schema);
                    self.add_foreign(name, namespace, &table, home).await?;
                    Some((namespace.to_owned(), table))
                }
            };
            if let Some((schema, table)) = meant {
                rewritten.push(RewrittenName { written: name.parts(), schema, table });
            }
        }
        Ok(rewritten)
    }

    /// A table of another namespace, or a metadata table of one of this: `bank.events`, `events.snapshots`.
    async fn add_partial(
        &mut self,
        name: &QualifiedName,
        home: &NameHome<'_>,
    ) -> Result<Option<(String, String)>, SqlError> {
        let QualifiedName { schema, table, .. } = name;
        let mut of_home = None;
        if let (Some(kind), Some(space)) = (MetadataTable::parse(table), home.space)
            && self.add_generated(home.schema, space, schema, kind).await?
        {
            of_home = Some(kind.of(schema));
        }
        let other = self.find(schema).await?;
        let is_there = match &other {
            Some(space) => self.find_and_add(schema, space, table).await?,
            None => false,
        };
        match (of_home, is_there, other) {
            (Some(metadata), false, _) => Ok(Some((home.schema.to_owned(), metadata))),
            (None, true, _) => Ok(None),
            (Some(metadata), true, _) => Err(SqlError::Invalid(format!(
                "`{name}` means two tables: write `\"{metadata}\"` for the metadata table of `{schema}`, or `{CATALOG}.{name}` for the table of namespace `{schema}`"
            ))),
            (None, false, Some(space)) => Err(space.unknown_table(self.sources, table).await?),
            (None, false, None) => Err(references::outside(name, home.schema)),
        }
    }

    /// A table of a namespace that is named.
    async fn add_foreign(
        &mut self,
        name: &QualifiedName,
        schema: &str,
        table: &str,
        home: &NameHome<'_>,
    ) -> Result<(), SqlError> {
        if schema == home.schema
            && let Some(space) = home.space
        {
            return self.add(schema, space, table).await;
        }
        match self.find(schema).await? {
            Some(space) => self.add(schema, &space, table).await,
            None => Err(references::outside(name, home.schema)),
        }
    }

    /// The namespace that is written so, if it is there and may be read.
    async fn find(&self, written: &str) -> Result<Option<ResolvedNamespace>, SqlError> {
        let mut candidates = Vec::new();
        // What is called so has the tables of the query's own namespace.
        if written == self.view.namespace {
            candidates.push(self.reader.levels.to_vec());
        }
        candidates.push(vec![written.to_owned()]);
        // As events carry it, and as several levels.
        if let Ok(carried) = Namespace::parse(written) {
            candidates.push(vec![carried.name().to_owned()]);
        }
        candidates.push(written.split('.').map(str::to_owned).collect());
        candidates.dedup();
        for levels in candidates {
            if let Some(found) = self.readable(&levels).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    async fn readable(&self, levels: &[String]) -> Result<Option<ResolvedNamespace>, SqlError> {
        let may = |principal: &Principal| principal.may(Action::Read, levels);
        if levels != self.reader.levels && !self.reader.principal.is_some_and(may) {
            return Ok(None);
        }
        ResolvedNamespace::find(self.sources, levels).await
    }

    /// A view of the catalog with what it reads; false where there is none of this name.
    fn add_view<'b>(
        &'b mut self,
        schema: &'b str,
        space: &'b ResolvedNamespace,
        name: &'b str,
    ) -> BoxFuture<'b, Result<bool, SqlError>> {
        async move {
            let is_it = |known: &CatalogView| known.namespace == schema && known.name == name;
            if self.view.catalog_views.iter().any(is_it) {
                return Ok(true);
            }
            let Ok(levels) = NamespaceIdent::from_vec(space.levels.clone()) else {
                return Ok(false);
            };
            let ident = TableIdent::new(levels, name.to_owned());
            let metadata = match self.sources.catalog.views().load(&ident).await {
                Ok(loaded) => loaded.metadata,
                Err(CatalogError::NoSuchView(_)) => return Ok(false),
                Err(cause) => return Err(internal(&cause)),
            };
            self.check_open(schema, name)?;
            self.open.push((schema.to_owned(), name.to_owned()));
            let view = self.view_of(schema, space, name, &metadata).await;
            self.open.pop();
            let view = view.map_err(|cause| within(schema, name, cause))?;
            // A session has the schema of every view.
            let _ = self.view.namespace_mut(schema);
            self.view.catalog_views.push(view);
            Ok(true)
        }
        .boxed()
    }

    /// Refuses a view that reads itself, and one too many.
    fn check_open(&self, schema: &str, name: &str) -> Result<(), SqlError> {
        let is_it = |(namespace, view): &(String, String)| namespace == schema && view == name;
        if let Some(first) = self.open.iter().position(is_it) {
            let circle: Vec<String> =
                self.open[first..].iter().map(|(_, view)| format!("`{view}`")).collect();
            return Err(SqlError::Invalid(format!(
                "{VIEW}{schema}.{name}` reads itself, by way of {}; replace one of them",
                circle.join(", ")
            )));
        }
        if VIEW_DEPTH_MAX <= self.open.len() {
            return Err(SqlError::Invalid(format!(
                "{VIEW}{schema}.{name}` is more than {VIEW_DEPTH_MAX} levels below the view that is read; write its query instead"
            )));
        }
        if VIEWS_MAX <= self.view.catalog_views.len() + self.open.len() {
            return Err(SqlError::Invalid(format!(
                "the statement reads more than {VIEWS_MAX} views, with those behind them"
            )));
        }
        Ok(())
    }

    async fn view_of(
        &mut self,
        schema: &str,
        space: &ResolvedNamespace,
        name: &str,
        metadata: &ViewMetadata,
    ) -> Result<CatalogView, SqlError> {
        let statement = view_query::of(metadata)?;
        let version = metadata.current_version();
        let levels: &[String] = version.default_namespace();
        let levels = if levels.is_empty() { space.levels.as_slice() } else { levels };
        let home = if levels == space.levels { schema.to_owned() } else { levels.join(".") };
        let tables = references::wanted(&statement.statement, &home, QueryScope::Namespace)?;
        if tables.wanted == WantedTables::All {
            let text = "it reads information_schema, which tells of who asks; write its query";
            return Err(SqlError::Invalid(text.to_owned()));
        }
        let own = self.readable(levels).await?;
        if levels != space.levels
            && let Some(other) = self.find(&home).await?
            && other.levels != levels
        {
            return Err(SqlError::Invalid(format!(
                "`{home}`, where it looks for tables, is another namespace in SQL, of {} levels; write its query",
                other.levels.len()
            )));
        }
        for table in &tables.named {
            let Some(own) = &own else {
                let (schema, table) = (home.clone(), table.clone());
                let name = QualifiedName { catalog: None, schema, table };
                return Err(references::outside(&name, &self.view.namespace));
            };
            self.add(&home, own, table).await?;
        }
        let catalog = version.default_catalog().map(String::as_str);
        let names = NameHome { schema: &home, space: own.as_ref(), catalog };
        let rewritten = self.add_qualified(&tables.qualified, &names).await?;
        let columns = metadata.schema_by_id(version.schema_id());
        let columns = columns.map_or_else(Vec::new, |schema| {
            schema.as_struct().fields().iter().map(|field| field.name.clone()).collect()
        });
        let (namespace, name) = (schema.to_owned(), name.to_owned());
        Ok(CatalogView { namespace, name, statement, columns, home, rewritten })
    }
}

/// The error of what a view reads, for who named the view.
fn within(schema: &str, name: &str, cause: SqlError) -> SqlError {
    match cause {
        // The innermost view is the one to mend.
        SqlError::Invalid(text) if !text.starts_with(VIEW) => {
            SqlError::Invalid(format!("{VIEW}{schema}.{name}` cannot be read: {text}"))
        }
        other => other,
    }
}
