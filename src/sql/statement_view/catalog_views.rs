//! Views of the catalog that a statement names: their queries, with the names in them looked for in the same way.

use crate::sql::{
    points::without_versions,
    statement_view::{NameHome, ViewDraft},
    view::{ResolvedNamespace, internal},
    view_query,
};
use futures::{FutureExt, future::BoxFuture};
use iceberg::{NamespaceIdent, TableIdent, spec::ViewMetadata};
use icecore_catalog::error::CatalogError;
use icecore_engine::{
    error::SqlError,
    metadata_tables::MetadataTable,
    references::{self, QualifiedName, QueryScope, WantedTables},
    session::CATALOG,
    view::{CatalogView, RewrittenName},
};

/// Deepest that views read one another.
const VIEW_DEPTH_MAX: usize = 16;
/// Most views that one statement reads, with those behind them.
const VIEWS_MAX: usize = 64;

/// What the error of a view begins with.
const VIEW: &str = "view `";

impl ViewDraft<'_> {
    /// A view of the catalog with what it reads; false where there is none of this name.
    pub(super) fn add_view<'b>(
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
            let points = self.reader.points;
            // The words of the point that what it reads is read at, also where it is behind another view.
            let (stored, words) = match self.points(schema).versions.get(name) {
                Some((stored, _)) => (stored.clone(), name.strip_prefix(stored.as_str())),
                None => (name.to_owned(), points.words_of(schema)),
            };
            let words = words.unwrap_or_default().to_owned();
            if !words.is_empty() && !points.behind_views.contains_key(&words) {
                return Ok(false);
            }
            let ident = TableIdent::new(levels, stored);
            let metadata = match self.sources.catalog.views().load(&ident).await {
                Ok(loaded) => loaded.metadata,
                Err(CatalogError::NoSuchView(_)) => return Ok(false),
                Err(cause) => return Err(internal(&cause)),
            };
            self.check_open(schema, name)?;
            self.open.push((schema.to_owned(), name.to_owned()));
            let view = self.view_of((schema, space), name, &metadata, &words).await;
            self.open.pop();
            let view = view.map_err(|cause| {
                within(
                    (schema.strip_suffix(words.as_str()).unwrap_or(schema), &ident.name),
                    &words,
                    cause,
                )
            })?;
            // A session has the schema of every view.
            let _ = self.view.namespace_mut(schema);
            self.view.catalog_views.push(view);
            Ok(true)
        }
        .boxed()
    }

    /// The error for a view with a version in its name, such as `v@v4`; none where there is no such view.
    pub(super) async fn version_in_name(
        &self,
        space: &ResolvedNamespace,
        name: &str,
    ) -> Result<Option<SqlError>, SqlError> {
        let Some((view, version)) = name.rsplit_once('@') else { return Ok(None) };
        if view.is_empty() || !space.has_view(self.sources, view).await? {
            return Ok(None);
        }
        Ok(Some(SqlError::Invalid(format!(
            "{VIEW}{view}` takes no version in its name, as `@{version}` is of one table: write FOR SEQ AS OF, FOR TIMESTAMP AS OF or FOR VERSION AS OF behind it"
        ))))
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
        (schema, space): (&str, &ResolvedNamespace),
        name: &str,
        metadata: &ViewMetadata,
        words: &str,
    ) -> Result<CatalogView, SqlError> {
        let statement = view_query::of(metadata)?;
        let version = metadata.current_version();
        let levels: &[String] = version.default_namespace();
        let levels = if levels.is_empty() { space.levels.as_slice() } else { levels };
        let plain_home = match levels == space.levels {
            true => schema.strip_suffix(words).unwrap_or(schema).to_owned(),
            false => levels.join("."),
        };
        let home = format!("{plain_home}{words}");
        if !words.is_empty() && home == self.view.namespace {
            return Err(SqlError::Invalid(format!(
                "the tables that it reads at the point are called as namespace `{home}` is; ask in another namespace"
            )));
        }
        let tables = references::wanted(&statement.statement, &home, QueryScope::Namespace)?;
        if tables.wanted == WantedTables::All {
            let text = "it reads information_schema, which tells of who asks; write its query";
            return Err(SqlError::Invalid(text.to_owned()));
        }
        let own = self.readable(levels).await?;
        if levels != space.levels
            && let Some(other) = self.find(&plain_home).await?
            && other.levels != levels
        {
            return Err(SqlError::Invalid(format!(
                "`{plain_home}`, where it looks for tables, is another namespace in SQL, of {} levels; write its query",
                other.levels.len()
            )));
        }
        for table in &tables.named {
            let Some(own) = &own else {
                let (schema, table) = (plain_home.clone(), table.clone());
                let name = QualifiedName { catalog: None, schema, table };
                return Err(references::outside(&name, &self.view.namespace));
            };
            self.add(&home, own, table).await?;
        }
        let catalog = version.default_catalog().map(String::as_str);
        let names = NameHome { schema: &home, space: own.as_ref(), catalog };
        let rewritten = match words.is_empty() {
            true => self.add_qualified(&tables.qualified, &names).await?,
            false => self.add_at_point(&tables.qualified, catalog, words).await?,
        };
        let columns = metadata.schema_by_id(version.schema_id());
        let columns = columns.map_or_else(Vec::new, |schema| {
            schema.as_struct().fields().iter().map(|field| field.name.clone()).collect()
        });
        let (namespace, name) = (schema.to_owned(), name.to_owned());
        Ok(CatalogView { namespace, name, statement, columns, home, rewritten })
    }

    /// The tables that a view with a point names with their namespaces: they are read at the point. `catalog` is
    /// another name of our catalog.
    async fn add_at_point(
        &mut self,
        names: &[QualifiedName],
        catalog: Option<&str>,
        words: &str,
    ) -> Result<Vec<RewrittenName>, SqlError> {
        let mut rewritten = Vec::new();
        for name in names {
            let is_ours = |written: &str| written == CATALOG || Some(written) == catalog;
            let is_table = name.catalog.as_deref().is_none_or(is_ours);
            if !is_table || MetadataTable::parse(&name.table).is_some() {
                return Err(without_versions(&name.to_string()));
            }
            let Some(space) = self.find(&name.schema).await? else {
                return Err(references::outside(name, &self.view.namespace));
            };
            let (schema, table) = (format!("{}{words}", name.schema), name.table.clone());
            self.add(&schema, &space, &table).await?;
            rewritten.push(RewrittenName { written: name.parts(), schema, table });
        }
        Ok(rewritten)
    }
}

/// The error of what a view reads, for who named the view with the words of its point behind it.
fn within((schema, name): (&str, &str), words: &str, cause: SqlError) -> SqlError {
    match cause {
        // The innermost view is the one to mend.
        SqlError::Invalid(text) if !text.starts_with(VIEW) => {
            SqlError::Invalid(format!("{VIEW}{schema}.{name}`{words} cannot be read: {text}"))
        }
        other => other,
    }
}
