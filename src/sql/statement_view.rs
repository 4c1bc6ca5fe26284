//! The view of one statement: its namespace, others that its sender may read, metadata tables, views.
//!
//! A name is looked for where it can be: first as a table, then as a metadata table of one, then as a view
//! of the catalog, whose own names are looked for in the same way, then as a view over changes, and then as a
//! collection. Its one invariant: of a namespace that the sender may not read nothing is asked, so it answers as
//! one that is not there.

mod catalog_views;
mod change_views;
mod collections;
mod readable_namespaces;

use crate::sql::{
    points::{QueryPoints, of_other_namespace, without_versions},
    view::{ResolvedNamespace, ViewSources, end_together, internal},
    view_query, visibility,
};
use icecore_catalog::access::{Action, Principal};
use icecore_engine::{
    branches::BRANCHES_TABLE,
    change_views as engine_views,
    collections::collection_of,
    error::SqlError,
    guard::RELATIONS_MAX,
    metadata_tables::MetadataTable,
    references::{self, QualifiedName, StatementTables, WantedTables},
    session::CATALOG,
    view::{RewrittenName, TableView, View},
    visibility::VisibleRows,
};
use icecore_lake::wal::LogPin;
use icecore_schemas::names::Namespace;

/// Who asks, and from where.
#[derive(Clone, Copy, Debug)]
pub struct StatementReader<'a> {
    /// The levels of the query's namespace.
    pub levels: &'a [String],
    /// Whose rights decide on other namespaces; with none there are no others.
    pub principal: Option<&'a Principal>,
    /// Which states are read.
    pub points: &'a QueryPoints,
    /// Whether the principal sees only the rows whose visibility its scopes name.
    pub filters_rows: bool,
}

/// A view that is being taken.
struct ViewDraft<'a> {
    sources: ViewSources<'a>,
    reader: StatementReader<'a>,
    /// Which states of tables of other namespaces are read that have no points of their own.
    elsewhere: QueryPoints,
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
    /// [`SqlError::NoNamespace`]; [`SqlError::NotFound`] when a point is not there;
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
        let elsewhere = reader.points.elsewhere();
        let open = Vec::new();
        let mut draft = ViewDraft { sources: self, reader, elsewhere, view, open, behind_views: 0 };
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
        if tables.lists_namespaces {
            draft.add_namespaces().await?;
        }
        end_together(&mut draft.view.tables, reader.points);
        for other in &mut draft.view.others {
            let points = reader.points.within(&other.namespace);
            end_together(&mut other.tables, points.unwrap_or(&draft.elsewhere));
        }
        let log = self.owner.check_owner().is_ok().then(|| self.owner.origin());
        collections::choose_bases(&mut draft.view, log.as_deref());
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
                    // What is not there is found out when the statement is planned. A base is there under the
                    // name of its collection.
                    if !self.has(schema, name) || collection_of(name).is_some() {
                        self.find_and_add(schema, space, name).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// All tables of a namespace.
    async fn add_all(&mut self, schema: &str, space: &ResolvedNamespace) -> Result<(), SqlError> {
        let mut names = space.table_names(self.sources).await?;
        names.extend(self.points(schema).versions.keys().cloned());
        for name in names {
            if self.has(schema, &name) {
                continue;
            }
            match self.add_table(schema, space, &name).await {
                // Dropped since the names were listed, or not there yet at that time.
                Ok(_) => (),
                // Who asks what there is gets told of it; reading it is an error.
                Err(
                    error @ (SqlError::Unreadable(_)
                    | SqlError::Withheld(_)
                    | SqlError::Forbidden(_)),
                ) => {
                    self.view.namespace_mut(schema).1.push((name, error));
                }
                Err(cause) => return Err(cause),
            }
        }
        Ok(())
    }

    /// Which states of a namespace's tables are read.
    fn points(&self, schema: &str) -> &QueryPoints {
        if schema == self.view.namespace {
            return self.reader.points;
        }
        self.reader.points.within(schema).unwrap_or(&self.elsewhere)
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
        Err(self.unknown(schema, space, name).await?)
    }

    /// The error for a name that nothing in the namespace has.
    async fn unknown(
        &self,
        schema: &str,
        space: &ResolvedNamespace,
        name: &str,
    ) -> Result<SqlError, SqlError> {
        let (table, _) = self.points(schema).of(name)?;
        if table != name {
            let is_derived = MetadataTable::split(table).is_some()
                || engine_views::is_view(table)
                || table == BRANCHES_TABLE
                || space.has_view(self.sources, table).await?;
            if is_derived {
                return Ok(without_versions(table));
            }
        }
        match self.version_in_name(space, table).await? {
            Some(error) => Ok(error),
            None => space.unknown_table(self.sources, table).await,
        }
    }

    /// Adds what is called so; false where there is nothing of this name.
    async fn find_and_add(
        &mut self,
        schema: &str,
        space: &ResolvedNamespace,
        name: &str,
    ) -> Result<bool, SqlError> {
        if self.add_based_collection(schema, space, name).await? {
            return Ok(true);
        }
        let is_there = match MetadataTable::split(name) {
            Some((table, kind)) => self.add_generated(schema, space, table, kind).await?,
            None => self.has(schema, name) || self.add_table(schema, space, name).await?,
        };
        if is_there || self.add_view(schema, space, name).await? {
            return Ok(true);
        }
        Ok(self.add_change_view(schema, space, name).await?
            || self.add_folded_collection(schema, space, name).await?
            || self.add_branches(schema, space, name).await?)
    }

    async fn add_table(
        &mut self,
        schema: &str,
        space: &ResolvedNamespace,
        name: &str,
    ) -> Result<bool, SqlError> {
        let points = self.points(schema);
        // What an earlier answer had no table for was something else to it.
        if !points.has(name) {
            return Ok(false);
        }
        let found = Box::pin(space.at_point(self.sources, name, points)).await;
        let is_own = schema == self.view.namespace;
        let named = |cause| if is_own { cause } else { of_other_namespace(&space.name(), cause) };
        let Some(table) = found.map_err(named)? else { return Ok(false) };
        if !self.open.is_empty() {
            let named = view_query::gives_version(self.sources.catalog, &space.levels, name).await;
            if named.map_err(|cause| internal(&cause))? {
                return Err(SqlError::Invalid(view_query::VERSION.to_owned()));
            }
        }
        self.count_behind_views()?;
        self.hide_rows(schema, space, &table)?;
        self.view.namespace_mut(schema).0.push(table);
        Ok(true)
    }

    /// Counts a table or a collection that is read, where a view reads it.
    fn count_behind_views(&mut self) -> Result<(), SqlError> {
        self.behind_views += usize::from(!self.open.is_empty());
        if RELATIONS_MAX < self.behind_views {
            return Err(SqlError::Invalid(format!(
                "the views of the statement read more than {RELATIONS_MAX} tables"
            )));
        }
        Ok(())
    }

    /// Notes which rows of a table are seen, before it is in the view.
    fn hide_rows(
        &mut self,
        schema: &str,
        space: &ResolvedNamespace,
        table: &TableView,
    ) -> Result<(), SqlError> {
        let Some(values) = self.values_seen(space) else { return Ok(()) };
        visibility::check_table(table)?;
        let is_noted = self.view.visible.iter().any(|noted| noted.namespace == schema);
        if visibility::is_told(table) && !is_noted {
            self.view.visible.push(VisibleRows { namespace: schema.to_owned(), values });
        }
        Ok(())
    }

    /// The values of visibility whose rows are seen of a namespace; none for every row. The service itself sees all.
    fn values_seen(&self, space: &ResolvedNamespace) -> Option<Vec<String>> {
        let principal = self.reader.principal.filter(|_| self.reader.filters_rows)?;
        visibility::values_seen(principal, &space.levels)
    }

    /// Refuses what has no versions behind a view of the catalog with a point.
    fn check_has_versions(&self, schema: &str, name: &str) -> Result<(), SqlError> {
        if self.points(schema).every.is_some() {
            return Err(without_versions(name));
        }
        Ok(())
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
        self.check_has_versions(schema, &kind.of(table))?;
        let is_hiding = self.values_seen(space).is_some();
        let (tables, _) = self.view.namespace_mut(schema);
        let Some(table) = tables.iter_mut().find(|known| known.name == table) else {
            return Ok(false);
        };
        if is_hiding && visibility::is_told(table) {
            visibility::check_metadata(table, kind)?;
        }
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
            (None, false, Some(space)) => Err(self.unknown(schema, &space, table).await?),
            (None, false, None) => Err(self.outside(name, home)),
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
            None => Err(self.outside(name, home)),
        }
    }

    /// The error for a name of a namespace that is not there, or may not be read: both have the same.
    fn outside(&self, name: &QualifiedName, home: &NameHome<'_>) -> SqlError {
        let points = self.reader.points.others.get(&name.schema);
        let version = points.and_then(|points| points.versions.get(&name.table));
        let Some((table, _)) = version else { return references::outside(name, home.schema) };
        if MetadataTable::parse(table).is_some() {
            return without_versions(&format!("{}.{table}", name.schema));
        }
        references::outside(&QualifiedName { table: table.clone(), ..name.clone() }, home.schema)
    }

    /// The namespace that is written so, if it is there and may be read.
    async fn find(&mut self, written: &str) -> Result<Option<ResolvedNamespace>, SqlError> {
        // Tables behind a view with a point are called so, which are others.
        if self.reader.points.words_of(written).is_some() {
            return Ok(None);
        }
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
        // What another text with the same name in the catalog means, unless a namespace is called as it is written.
        let mut nearest = None;
        for levels in candidates {
            let Some(found) = self.readable(&levels).await? else { continue };
            let is_named = levels == self.reader.levels
                || levels.join(".") == written
                || found.name() == written;
            if is_named {
                nearest = Some((levels, found));
                break;
            }
            nearest = nearest.or(Some((levels, found)));
        }
        let Some((levels, found)) = nearest else { return Ok(None) };
        if levels != self.reader.levels {
            self.view.other_levels.insert(levels);
        }
        Ok(Some(found))
    }

    async fn readable(&self, levels: &[String]) -> Result<Option<ResolvedNamespace>, SqlError> {
        let may = |principal: &Principal| principal.may(Action::Read, levels);
        let is_own = levels == self.reader.levels;
        if !is_own && !self.reader.principal.is_some_and(may) {
            return Ok(None);
        }
        ResolvedNamespace::find(self.sources, levels).await
    }
}
