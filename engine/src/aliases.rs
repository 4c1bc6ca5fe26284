//! The names of the columns of `events` that events themselves use: `docId` for `key`, `"do".class` for
//! `do_class`. `*` does not show them.
//!
//! They are resolved on the parsed statement, query by query, as only there it is known which tables a name can
//! be of. A column that has the name wins, wherever it comes from, and so does a name that the statement gives.
//! An alias means the column of `events` also where that comes out of a query in FROM.

mod durable_object;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectName, OrderBy, Query, Select, SelectItem, SelectItemQualifiedWildcardKind,
    SetExpr, Statement, TableAlias, TableFactor, TableWithJoins, VisitMut, VisitorMut,
};
use icecore_schemas::columns::{ALIASES, DURABLE_OBJECT, DURABLE_OBJECT_MEMBERS};
use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    ops::ControlFlow,
};

/// A column that a query can name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationColumn {
    /// Its name.
    pub name: String,
    /// Whether it is one of `events`, as it is there.
    pub is_of_events: bool,
}

/// The columns of each table, by the names of its namespace and its own.
pub type TableColumns = HashMap<(String, String), Vec<RelationColumn>>;

/// Writes aliases as the columns that they mean. Names of tables without a namespace are of `home`.
pub fn resolve(statement: &mut Statement, home: &str, tables: &TableColumns) {
    let mut resolver = AliasResolver { home, tables, queries: Vec::new(), scopes: Vec::new() };
    resolver.statement(statement);
}

/// Whether a name is one of the aliases, written as events have it.
#[must_use]
pub fn is_alias(name: &str) -> bool {
    ALIASES.iter().any(|(alias, _)| *alias == name)
}

/// What a name means to the planner.
pub(super) fn folded(name: &Ident) -> String {
    match name.quote_style {
        Some(_) => name.value.clone(),
        None => name.value.to_ascii_lowercase(),
    }
}

/// Whether an identifier is written for this name; without quotes in any case.
fn is_written(name: &Ident, exact: &str) -> bool {
    match name.quote_style {
        Some(_) => name.value == exact,
        None => name.value.eq_ignore_ascii_case(exact),
    }
}

fn meant(name: &Ident, aliases: &[(&str, &'static str)]) -> Option<&'static str> {
    aliases.iter().find(|(alias, _)| is_written(name, alias)).map(|(_, column)| *column)
}

/// Names that more than one item of a select list would have.
pub(super) fn repeated_names(items: &[SelectItem]) -> HashSet<String> {
    let mut seen = HashSet::new();
    let names = items.iter().filter_map(|item| match item {
        SelectItem::UnnamedExpr(expr) => last_name(expr).map(folded),
        SelectItem::ExprWithAlias { alias, .. } => Some(folded(alias)),
        _ => None,
    });
    names.filter(|name| !seen.insert(name.clone())).collect()
}

/// What stands under one name in FROM.
#[derive(Clone, Debug, Default)]
struct Relation {
    name: Option<String>,
    columns: Vec<RelationColumn>,
}

struct AliasResolver<'a> {
    home: &'a str,
    tables: &'a TableColumns,
    /// The columns of common table expressions that can be named here, the nearest last.
    queries: Vec<(String, Vec<RelationColumn>)>,
    /// What stands in the FROM of each open query, the innermost last.
    scopes: Vec<Vec<Relation>>,
}

impl AliasResolver<'_> {
    fn statement(&mut self, statement: &mut Statement) {
        match statement {
            Statement::Query(query) => drop(self.query(query)),
            Statement::Explain { statement, .. } => self.statement(statement),
            _ => (),
        }
    }

    /// Resolves the names in a query. The answer is what it has of columns with names.
    fn query(&mut self, query: &mut Query) -> Vec<RelationColumn> {
        let known = self.queries.len();
        for cte in query.with.iter_mut().flat_map(|with| with.cte_tables.iter_mut()) {
            let columns = renamed(self.query(&mut cte.query), &cte.alias);
            self.queries.push((folded(&cte.alias.name), columns));
        }
        let columns = match query.body.as_mut() {
            SetExpr::Select(select) => self.select(select, query.order_by.as_mut()),
            body => {
                let columns = self.body(body);
                // The order of a set operation names columns of the result.
                self.scopes.push(vec![Relation { name: None, columns: columns.clone() }]);
                self.expressions(&mut query.order_by, &HashSet::new());
                self.scopes.pop();
                columns
            }
        };
        self.queries.truncate(known);
        columns
    }

    fn body(&mut self, body: &mut SetExpr) -> Vec<RelationColumn> {
        match body {
            SetExpr::Select(select) => self.select(select, None),
            SetExpr::Query(query) => self.query(query),
            SetExpr::SetOperation { left, right, .. } => {
                let columns = self.body(left);
                self.body(right);
                columns
            }
            SetExpr::Values(values) => {
                self.expressions(values, &HashSet::new());
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn select(
        &mut self,
        select: &mut Select,
        order_by: Option<&mut OrderBy>,
    ) -> Vec<RelationColumn> {
        self.scopes.push(Vec::new());
        for table in &mut select.from {
            self.table_with_joins(table);
        }
        let nothing = HashSet::new();
        self.expressions(&mut select.selection, &nothing);
        self.expressions(&mut select.distinct, &nothing);
        self.expressions(&mut select.named_window, &nothing);
        let given = select.projection.iter().filter_map(|item| match item {
            SelectItem::ExprWithAlias { alias, .. } => Some(folded(alias)),
            _ => None,
        });
        let mut given: HashSet<String> = given.collect();
        self.expressions(&mut select.group_by, &given);
        self.expressions(&mut select.having, &given);
        self.expressions(&mut select.qualify, &given);
        let mut columns = Vec::new();
        let repeated = repeated_names(&select.projection);
        for item in &mut select.projection {
            self.item(item, &repeated, &mut columns);
        }
        given.extend(columns.iter().map(|column| column.name.clone()));
        if let Some(order_by) = order_by {
            self.expressions(order_by, &given);
        }
        self.scopes.pop();
        columns
    }

    /// Resolves an item of a select list, and adds what it has of columns. One that was named by an alias
    /// keeps that as its name, unless another one has it: the planner tells columns of two tables apart by
    /// their tables, and given names by nothing.
    fn item(
        &mut self,
        item: &mut SelectItem,
        repeated: &HashSet<String>,
        columns: &mut Vec<RelationColumn>,
    ) {
        match item {
            SelectItem::UnnamedExpr(expr) => {
                let written = last_name(expr).cloned();
                self.expressions(expr, &HashSet::new());
                let Some(written) = written else { return };
                let Some(column) = last_name(expr).cloned() else {
                    // The whole object keeps its name.
                    columns.push(RelationColumn { name: folded(&written), is_of_events: false });
                    *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: written };
                    return;
                };
                let is_of_events = self.is_of_events(expr);
                if repeated.contains(&folded(&written)) {
                    columns.push(RelationColumn { name: folded(&column), is_of_events });
                    return;
                }
                columns.push(RelationColumn {
                    name: folded(&written),
                    is_of_events: is_of_events && written.value == column.value,
                });
                if written.value != column.value {
                    *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: written };
                }
            }
            SelectItem::ExprWithAlias { expr, alias } => {
                self.expressions(expr, &HashSet::new());
                columns.push(RelationColumn { name: folded(alias), is_of_events: false });
            }
            SelectItem::Wildcard(options) => {
                self.expressions(options, &HashSet::new());
                columns.extend(self.relations(None).flat_map(|one| one.columns.clone()));
            }
            SelectItem::QualifiedWildcard(kind, _) => {
                let SelectItemQualifiedWildcardKind::ObjectName(name) = kind else { return };
                let name = last_part(name).map(folded);
                columns.extend(self.relations(name).flat_map(|one| one.columns.clone()));
            }
            SelectItem::ExprWithAliases { expr, .. } => self.expressions(expr, &HashSet::new()),
        }
    }

    /// What is in the innermost FROM; with a name, only what has it.
    fn relations(&self, name: Option<String>) -> impl Iterator<Item = &Relation> {
        let all = self.scopes.last().into_iter().flatten();
        all.filter(move |one| name.is_none() || one.name == name)
    }

    fn is_of_events(&self, expr: &Expr) -> bool {
        let (qualifier, name) = match expr {
            Expr::Identifier(name) => (None, name),
            Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                [.., table, name] => (Some(folded(table)), name),
                _ => return false,
            },
            _ => return false,
        };
        let mut columns = self.relations(qualifier).flat_map(|one| &one.columns);
        columns.any(|column| column.is_of_events && column.name == folded(name))
    }

    fn table_with_joins(&mut self, table: &mut TableWithJoins) {
        self.relation(&mut table.relation);
        for join in &mut table.joins {
            self.relation(&mut join.relation);
            self.expressions(&mut join.join_operator, &HashSet::new());
        }
    }

    fn relation(&mut self, factor: &mut TableFactor) {
        match factor {
            TableFactor::Table { name, alias, .. } => {
                let columns = self.columns_of(name);
                self.add(last_part(name).map(folded), columns, alias.as_ref());
            }
            TableFactor::Derived { subquery, alias, .. } => {
                let columns = self.query(subquery);
                self.add(None, columns, alias.as_ref());
            }
            TableFactor::NestedJoin { table_with_joins, alias: None } => {
                self.table_with_joins(table_with_joins);
            }
            TableFactor::NestedJoin { table_with_joins, alias } => {
                self.scopes.push(Vec::new());
                self.table_with_joins(table_with_joins);
                let inner = self.scopes.pop().unwrap_or_default();
                let columns = inner.into_iter().flat_map(|one| one.columns).collect();
                self.add(None, columns, alias.as_ref());
            }
            _ => (),
        }
    }

    fn add(
        &mut self,
        name: Option<String>,
        columns: Vec<RelationColumn>,
        alias: Option<&TableAlias>,
    ) {
        let relation = match alias {
            Some(alias) => {
                let name = Some(folded(&alias.name));
                Relation { name, columns: renamed(columns, alias) }
            }
            None => Relation { name, columns },
        };
        if let Some(scope) = self.scopes.last_mut() {
            scope.push(relation);
        }
    }

    fn columns_of(&self, name: &ObjectName) -> Vec<RelationColumn> {
        let parts: Option<Vec<String>> =
            name.0.iter().map(|part| part.as_ident().map(folded)).collect();
        let (namespace, table) = match parts.as_deref() {
            Some([table]) => (None, table),
            Some([.., namespace, table]) => (Some(namespace), table),
            _ => return Vec::new(),
        };
        let mut queries = self.queries.iter().rev().filter(|_| namespace.is_none());
        let found = match queries.find(|(query, _)| query == table) {
            Some((_, columns)) => Some(columns),
            None => {
                let namespace = namespace.map_or(self.home, String::as_str);
                self.tables.get(&(namespace.to_owned(), table.clone()))
            }
        };
        found.cloned().unwrap_or_default()
    }

    /// Resolves what is in a clause; `given` are names that it can have from the statement itself.
    fn expressions(&mut self, clause: &mut impl VisitMut, given: &HashSet<String>) {
        let mut visitor = ExprVisitor { resolver: self, given, queries: 0 };
        let ControlFlow::Continue(()) = clause.visit(&mut visitor);
    }

    fn expression(&self, expr: &mut Expr, given: &HashSet<String>) {
        let made = match &*expr {
            Expr::Identifier(name) if given.contains(&folded(name)) => None,
            Expr::Identifier(name) => self.column(&[], name).or_else(|| self.object(&[], name)),
            Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                [before @ .., object, member] if is_written(object, DURABLE_OBJECT) => self
                    .member(before, object, member)
                    .or_else(|| self.column(&parts[..parts.len() - 1], member)),
                [before @ .., name] => {
                    self.column(before, name).or_else(|| self.object(before, name))
                }
                [] => None,
            },
            Expr::CompoundFieldAccess { root, access_chain } => {
                match (names(root), access_chain.as_slice()) {
                    (Some([before @ .., object]), [access])
                        if is_written(object, DURABLE_OBJECT) =>
                    {
                        durable_object::accessed(access)
                            .and_then(|member| self.member(before, object, &member))
                    }
                    _ => None,
                }
            }
            _ => None,
        };
        if let Some(made) = made {
            *expr = made;
        }
    }

    /// The column that an alias means.
    fn column(&self, before: &[Ident], alias: &Ident) -> Option<Expr> {
        let column = meant(alias, ALIASES)?;
        self.place_of(before, alias, column).map(|before| named(&before, column))
    }

    /// The column that a member of the Durable Object means.
    fn member(&self, before: &[Ident], object: &Ident, member: &Ident) -> Option<Expr> {
        let is_table = |one: &Relation| one.name.as_deref() == Some(DURABLE_OBJECT);
        if before.is_empty() && self.scopes.iter().flatten().any(is_table) {
            return None;
        }
        let column = meant(member, DURABLE_OBJECT_MEMBERS)?;
        self.place_of(before, object, column).map(|before| named(&before, column))
    }

    /// The Durable Object with all its members; NULL for an event without one.
    fn object(&self, before: &[Ident], name: &Ident) -> Option<Expr> {
        let is_table = |one: &Relation| one.name.as_deref() == Some(DURABLE_OBJECT);
        if !is_written(name, DURABLE_OBJECT) || self.scopes.iter().flatten().any(is_table) {
            return None;
        }
        let members = DURABLE_OBJECT_MEMBERS.iter().filter_map(|(member, column)| {
            let before = self.place_of(before, name, column)?;
            // Every call has a method, also one of no object.
            Some((*member, named(&before, column), *column != "method"))
        });
        durable_object::whole(&members.collect::<Vec<_>>())
    }

    /// What stands before `column` of `events` in the nearest query that has it; none where a column there or
    /// nearer is called like the alias.
    fn place_of(&self, before: &[Ident], alias: &Ident, column: &str) -> Option<Vec<Ident>> {
        let table = before.last().map(folded);
        // Whether a column of another table is called so, and would be meant or make the name ambiguous.
        let mut is_hidden = false;
        for scope in self.scopes.iter().rev() {
            let seen = scope.iter().filter(|one| table.is_none() || one.name == table);
            let seen: Vec<&Relation> = seen.collect();
            let mut columns = seen.iter().flat_map(|one| &one.columns);
            if columns.any(|one| is_written(alias, &one.name)) {
                return None;
            }
            let (mut found, mut others) = (Vec::new(), 0);
            for relation in seen {
                match relation.columns.iter().find(|one| one.name == column) {
                    Some(RelationColumn { is_of_events: true, .. }) => found.push(relation),
                    Some(_) => others += 1,
                    None => (),
                }
            }
            is_hidden |= 0 < others;
            match found.as_slice() {
                [] => (),
                [one] if is_hidden && before.is_empty() => {
                    let name = one.name.as_ref()?;
                    return Some(vec![Ident::with_quote('"', name.as_str())]);
                }
                _ => return Some(before.to_vec()),
            }
        }
        None
    }
}

/// A column behind what stood before its alias.
fn named(before: &[Ident], column: &str) -> Expr {
    let column = Ident::new(column);
    match before {
        [] => Expr::Identifier(column),
        _ => Expr::CompoundIdentifier(before.iter().cloned().chain([column]).collect()),
    }
}

/// The columns as an alias of their table calls them.
fn renamed(mut columns: Vec<RelationColumn>, alias: &TableAlias) -> Vec<RelationColumn> {
    for (at, given) in alias.columns.iter().enumerate() {
        let column = RelationColumn { name: folded(&given.name), is_of_events: false };
        match columns.get_mut(at) {
            Some(place) => *place = column,
            None => columns.push(column),
        }
    }
    columns
}

fn last_part(name: &ObjectName) -> Option<&Ident> {
    name.0.last()?.as_ident()
}

/// The name that a column has of what it is taken from.
fn last_name(expr: &Expr) -> Option<&Ident> {
    names(expr)?.last()
}

/// The parts of a name, also of one in brackets.
fn names(expr: &Expr) -> Option<&[Ident]> {
    match expr {
        Expr::Identifier(name) => Some(std::slice::from_ref(name)),
        Expr::CompoundIdentifier(parts) => Some(parts),
        Expr::Nested(inner) => names(inner),
        _ => None,
    }
}

/// Resolves the names of one clause; queries in it have scopes of their own.
struct ExprVisitor<'r, 'a> {
    resolver: &'r mut AliasResolver<'a>,
    given: &'r HashSet<String>,
    /// Queries that are open here, all of which are resolved.
    queries: usize,
}

impl VisitorMut for ExprVisitor<'_, '_> {
    type Break = Infallible;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Self::Break> {
        if self.queries == 0 {
            self.resolver.query(query);
        }
        self.queries += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<Self::Break> {
        self.queries -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        if self.queries == 0 {
            self.resolver.expression(expr, self.given);
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests;
