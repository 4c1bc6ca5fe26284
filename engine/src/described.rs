//! What SHOW TABLES and DESCRIBE tell of tables, in the words that answers use.

use crate::{audit, output::type_name};
use datafusion::{
    error::DataFusionError,
    logical_expr::{LogicalPlan, LogicalPlanBuilder, col, lit},
    sql::sqlparser::{ast::Statement, dialect::GenericDialect, parser::Parser},
};

/// SHOW TABLES as a query for the tables of the namespace, and then those that belong to none.
///
/// # Panics
/// Never: the query is SQL.
pub fn show_tables(statement: &mut Statement) {
    if !matches!(statement, Statement::ShowTables { .. }) || statement.to_string() != "SHOW TABLES"
    {
        return;
    }
    let sql = format!(
        "SELECT * FROM information_schema.tables WHERE table_schema <> 'information_schema' ORDER BY table_schema = '{}', table_name",
        audit::SCHEMA
    );
    let parsed = Parser::parse_sql(&GenericDialect {}, &sql).expect("it is SQL");
    *statement = parsed.into_iter().next().expect("it is one statement");
}

/// The plan with types as answers call them, where it describes a table.
///
/// # Errors
/// DataFusion's.
pub fn with_type_names(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let LogicalPlan::DescribeTable(described) = &plan else { return Ok(plan) };
    let rows = described.schema.fields().iter().map(|field| {
        let nullable = if field.is_nullable() { "YES" } else { "NO" };
        vec![lit(field.name().as_str()), lit(type_name(field.data_type())), lit(nullable)]
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return Ok(plan);
    }
    let names = described.output_schema.fields().iter().map(|field| field.name().clone());
    let columns = names.enumerate().map(|(at, name)| col(format!("column{}", at + 1)).alias(name));
    LogicalPlanBuilder::values(rows)?.project(columns.collect::<Vec<_>>())?.build()
}
