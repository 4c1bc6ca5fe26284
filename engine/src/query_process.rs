//! What a statement may do by where it runs: in a process of its own, or in one that does other work.
//!
//! A process of its own has bounds that the system keeps and an end that others set, so what outgrows memory
//! or time there costs its query alone. In the server's process it would cost ingest: what no code here bounds
//! is refused there.

use crate::error::SqlError;
use datafusion::sql::sqlparser::ast::{
    Expr, Function, ObjectName, ObjectNamePart, Statement, TableFactor, Visit, Visitor,
};
use std::ops::ControlFlow;

/// Where a query runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryProcess {
    /// In a process that does other work.
    Shared,
    /// In a process that does nothing else, within bounds that the system keeps.
    Own,
}

/// Functions whose answer can be larger than memory whatever their input.
const UNBOUNDED: &[&str] = &[
    "array_repeat",
    "array_resize",
    "generate_series",
    "list_repeat",
    "list_resize",
    "range",
    "unnest",
];

/// Whether a function is one of these.
#[must_use]
pub fn is_unbounded(name: &ObjectName) -> bool {
    let name = name.0.last().and_then(ObjectNamePart::as_ident);
    name.is_some_and(|name| UNBOUNDED.contains(&name.value.to_lowercase().as_str()))
}

/// What makes them available.
const REMEDY: &str = "it is available with sql.workers = on";

impl QueryProcess {
    /// Refuses what has no bound where the query runs.
    ///
    /// # Errors
    /// [`SqlError::Invalid`] names it.
    pub fn check(self, statement: &Statement) -> Result<(), SqlError> {
        let found = match self {
            Self::Own => return Ok(()),
            Self::Shared => statement.visit(&mut UnboundedSearch),
        };
        match found {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(reason) => Err(SqlError::Invalid(reason)),
        }
    }
}

struct UnboundedSearch;

impl Visitor for UnboundedSearch {
    type Break = String;

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<String> {
        let name = match factor {
            TableFactor::Function { name, .. } => name.to_string(),
            TableFactor::UNNEST { .. } => "unnest".to_owned(),
            _ => return ControlFlow::Continue(()),
        };
        ControlFlow::Break(format!(
            "table function `{name}` is not supported here: its result can exceed memory; {REMEDY}"
        ))
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<String> {
        match expr {
            Expr::Function(Function { name, .. }) => {
                let name = name.to_string().to_lowercase();
                if UNBOUNDED.contains(&name.as_str()) {
                    return ControlFlow::Break(format!(
                        "function `{name}` is not available: its result can exceed memory; {REMEDY}"
                    ));
                }
                ControlFlow::Continue(())
            }
            // Their types double with each query around them.
            Expr::Struct { .. } | Expr::Dictionary(_) | Expr::Map(_) => {
                ControlFlow::Break(format!(
                    "structs and maps cannot be created here: their types can exceed memory; {REMEDY}"
                ))
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard;

    #[test]
    fn what_has_no_bound_is_refused_in_a_process_that_does_other_work() {
        for (sql, told) in [
            ("SELECT id FROM events WHERE Range(9) = ''", "function `range`"),
            ("SELECT id, unnest([1, 2]) FROM events", "function `unnest`"),
            ("EXPLAIN SELECT array_repeat(1, 1000000000)", "function `array_repeat`"),
            ("SELECT * FROM events, unnest([1, 2])", "table function `unnest`"),
            ("SELECT * FROM generate_series(1, 10)", "table function `generate_series`"),
            ("SELECT (SELECT max(range) FROM range(3))", "table function `range`"),
            ("SELECT {'a': id} FROM events", "structs and maps"),
            ("SELECT MAP {'a': id} FROM events", "structs and maps"),
        ] {
            let statement = guard::check(sql).unwrap().statement;
            QueryProcess::Own.check(&statement).unwrap();
            let error = QueryProcess::Shared.check(&statement).unwrap_err().to_string();
            assert!(error.contains(told) && error.contains("sql.workers"), "{sql}: {error}");
        }
        let plain = guard::check("SELECT \"range\", [1] FROM events").unwrap().statement;
        QueryProcess::Shared.check(&plain).unwrap();
    }
}
