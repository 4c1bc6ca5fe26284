//! Series and lists in FROM, called as in DuckDB: `FROM range(3)` is a table `range` with a column `range`.
//!
//! They are no tables of a namespace, so their names are not looked for there.

use datafusion::sql::sqlparser::ast::{
    FunctionArg, Ident, ObjectName, Statement, TableAlias, TableAliasColumnDef, TableFactor,
    TableFunctionArgs, VisitMut, VisitorMut,
};
use std::{convert::Infallible, mem, ops::ControlFlow};

/// Functions that are tables of numbers or times.
const SERIES: [&str; 2] = ["generate_series", "range"];
/// What a list in FROM is called.
const UNNEST: &str = "unnest";

/// Whether a table function is known here.
#[must_use]
pub fn is_series(name: &ObjectName) -> bool {
    series_of(name).is_some()
}

fn series_of(name: &ObjectName) -> Option<&'static str> {
    let [part] = name.0.as_slice() else { return None };
    let name = part.as_ident()?;
    SERIES.into_iter().find(|series| name.value.eq_ignore_ascii_case(series))
}

/// Writes series as functions, and gives them and lists the names of DuckDB.
pub fn rewrite(statement: &mut Statement) {
    let ControlFlow::Continue(()) = VisitMut::visit(statement, &mut SeriesVisitor);
}

struct SeriesVisitor;

impl VisitorMut for SeriesVisitor {
    type Break = Infallible;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Infallible> {
        match factor {
            TableFactor::Table {
                name,
                alias,
                args: Some(TableFunctionArgs { args, settings: None }),
                with_hints,
                version: None,
                with_ordinality: false,
                partitions,
                json_path: None,
                sample: None,
                index_hints,
            } if with_hints.is_empty() && partitions.is_empty() && index_hints.is_empty() => {
                let is_plain = args.iter().all(|arg| matches!(arg, FunctionArg::Unnamed(_)));
                if let Some(series) = series_of(name).filter(|_| is_plain) {
                    let alias = Some(named(alias.take(), series));
                    let args = mem::take(args);
                    let name = ObjectName::from(vec![Ident::new(series)]);
                    let (lateral, with_ordinality) = (false, false);
                    *factor = TableFactor::Function { lateral, name, args, with_ordinality, alias };
                }
            }
            TableFactor::UNNEST { alias, array_exprs, .. } if array_exprs.len() == 1 => {
                *alias = Some(named(alias.take(), UNNEST));
            }
            _ => (),
        }
        ControlFlow::Continue(())
    }
}

/// The alias with a name for the column, where it has none.
fn named(alias: Option<TableAlias>, function: &str) -> TableAlias {
    let name = Ident::with_quote('"', function);
    let mut alias = alias.unwrap_or_else(|| TableAlias {
        explicit: true,
        name: name.clone(),
        columns: Vec::new(),
        at: None,
    });
    if alias.columns.is_empty() {
        alias.columns.push(TableAliasColumnDef { name, data_type: None });
    }
    alias
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::Grammar;
    use datafusion::sql::sqlparser::parser::Parser;

    #[test]
    fn a_series_and_its_column_are_called_like_the_function() {
        for (sql, expected) in [
            ("SELECT * FROM range(3)", "SELECT * FROM range(3) AS \"range\" (\"range\")"),
            (
                "SELECT * FROM Generate_Series(1, 3) g",
                "SELECT * FROM generate_series(1, 3) g (\"generate_series\")",
            ),
            ("SELECT * FROM range(3) t(i)", "SELECT * FROM range(3) t (i)"),
            ("SELECT * FROM unnest([1]) AS u", "SELECT * FROM UNNEST([1]) AS u (\"unnest\")"),
            // What would get lost is left for the one who refuses it.
            ("SELECT * FROM range(stop => 3)", "SELECT * FROM range(stop => 3)"),
            ("SELECT * FROM \"range\"", "SELECT * FROM \"range\""),
        ] {
            let mut statement = Parser::parse_sql(&Grammar::default(), sql).unwrap().remove(0);
            rewrite(&mut statement);
            assert_eq!(statement.to_string(), expected);
        }
    }
}
