//! Tables with a version in the statement that they stand in: what their columns are called by, and what they
//! are not.

use crate::versions::TableVersion;
use datafusion::sql::sqlparser::ast::{
    ObjectName, Query, Select, Statement, TableAlias, TableFactor, VisitMut, VisitorMut,
};
use std::{collections::HashMap, ops::ControlFlow};

/// Gives each table with a version the name that the statement calls its columns by, where it has no alias.
///
/// # Errors
/// A common table expression has its name there, or another table of the same FROM. The text says what to
/// change.
pub fn name_tables(statement: &mut Statement, versions: &[TableVersion]) -> Result<(), String> {
    if versions.is_empty() {
        return Ok(());
    }
    let mut scopes = VersionScopes { versions, queries: Vec::new(), inner: HashMap::new() };
    match VisitMut::visit(statement, &mut scopes) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(reason) => Err(reason),
    }
}

/// An open query.
struct NameScope {
    /// Its common table expressions.
    names: Vec<String>,
    /// How many of them are known at this place: each one knows those before it.
    known: usize,
}

struct VersionScopes<'a> {
    versions: &'a [TableVersion],
    queries: Vec<NameScope>,
    /// Which one of its common table expressions a query is, by its address.
    inner: HashMap<usize, usize>,
}

fn address(query: &Query) -> usize {
    std::ptr::from_ref(query).addr()
}

impl VersionScopes<'_> {
    fn version(&self, name: &ObjectName) -> Option<&TableVersion> {
        let last = name.0.last()?.as_ident()?;
        self.versions.iter().find(|version| version.name == last.value)
    }

    fn is_common(&self, name: &str) -> bool {
        let known = |scope: &NameScope| scope.names[..scope.known].iter().any(|it| it == name);
        self.queries.iter().any(known)
    }

    /// What the columns of a table are called by.
    fn called(&self, factor: &TableFactor) -> Option<String> {
        let ident = match factor {
            TableFactor::Table { alias: Some(alias), .. }
            | TableFactor::Derived { alias: Some(alias), .. } => &alias.name,
            TableFactor::Table { name, .. } => match self.version(name) {
                Some(version) => &version.alias,
                None => name.0.last()?.as_ident()?,
            },
            _ => return None,
        };
        Some(match ident.quote_style {
            Some(_) => ident.value.clone(),
            None => ident.value.to_lowercase(),
        })
    }

    /// Refuses a version whose table another one of the same FROM is called as.
    fn check_aliases(&self, select: &Select) -> Result<(), String> {
        let factors = select.from.iter().flat_map(|table| {
            let joined = table.joins.iter().map(|join| &join.relation);
            std::iter::once(&table.relation).chain(joined)
        });
        let called: Vec<(Option<String>, &TableFactor)> =
            factors.map(|factor| (self.called(factor), factor)).collect();
        for (name, factor) in &called {
            let (Some(name), TableFactor::Table { name: table, alias: None, .. }) = (name, factor)
            else {
                continue;
            };
            let Some(version) = self.version(table) else { continue };
            if 1 < called.iter().filter(|(other, _)| other.as_ref() == Some(name)).count() {
                return Err(format!(
                    "two tables of one FROM are called `{name}`; give one an alias: {} AS old",
                    version.name.trim_end()
                ));
            }
        }
        Ok(())
    }
}

impl VisitorMut for VersionScopes<'_> {
    type Break = String;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<String> {
        let place = self.inner.remove(&address(query));
        if let (Some(known), Some(around)) = (place, self.queries.last_mut()) {
            around.known = known;
        }
        let tables = query.with.iter().flat_map(|with| with.cte_tables.iter());
        let mut names = Vec::new();
        for (at, table) in tables.enumerate() {
            self.inner.insert(address(&table.query), at);
            let name = &table.alias.name;
            names.push(match name.quote_style {
                Some(_) => name.value.clone(),
                None => name.value.to_lowercase(),
            });
        }
        let known = names.len();
        self.queries.push(NameScope { names, known });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<String> {
        self.queries.pop();
        // The next common table expression says for itself how many are known.
        if let Some(around) = self.queries.last_mut() {
            around.known = around.names.len();
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<String> {
        match self.check_aliases(select) {
            Ok(()) => ControlFlow::Continue(()),
            Err(reason) => ControlFlow::Break(reason),
        }
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<String> {
        let TableFactor::Table { name, alias, .. } = factor else {
            return ControlFlow::Continue(());
        };
        let Some(version) = self.version(name) else { return ControlFlow::Continue(()) };
        if name.0.len() == 1 && self.is_common(&version.table) {
            return ControlFlow::Break(format!(
                "`{}` is a common table expression here, and has no versions; give that another name, or its tables the version",
                version.table
            ));
        }
        if alias.is_none() {
            let (name, columns) = (version.alias.clone(), Vec::new());
            *alias = Some(TableAlias { explicit: true, name, columns, at: None });
        }
        ControlFlow::Continue(())
    }
}
