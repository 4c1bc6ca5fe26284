//! What SHOW TABLES and DESCRIBE tell of tables, in the words that answers use.

use crate::{
    audit, failure::wording::in_sql, functions::returned, output::type_name, show_statements,
};
use arrow::{
    array::{AsArray, StringArray},
    datatypes::DataType,
};
use datafusion::{
    common::{Column, tree_node::Transformed},
    error::DataFusionError,
    logical_expr::{
        ColumnarValue, Expr, LogicalPlan, LogicalPlanBuilder, ScalarUDF, Volatility, col,
        create_udf, lit,
    },
    sql::sqlparser::{
        ast::{ObjectName, ShowStatementFilterPosition, Statement},
        dialect::GenericDialect,
        parser::Parser,
    },
};
use std::sync::Arc;

/// The column of `information_schema.columns` with the types.
const TYPE_COLUMN: &str = "data_type";

/// SHOW TABLES as a query for the tables of the namespace, and then those that belong to none; with FROM or
/// IN for the tables of that namespace, and with LIKE or ILIKE for some of them.
///
/// # Panics
/// Never: the query is SQL.
pub fn show_tables(statement: &mut Statement) {
    let Statement::ShowTables { show_options, .. } = &*statement else { return };
    let place = show_options.show_in.as_ref();
    let written = place.map_or_else(String::new, |place| format!(" {place}"));
    let has_kind = place.is_some_and(|place| place.parent_type.is_some());
    let filter = show_options.filter_position.as_ref().map(|position| match position {
        ShowStatementFilterPosition::Infix(filter)
        | ShowStatementFilterPosition::Suffix(filter) => filter,
    });
    let pattern = filter.map_or_else(String::new, |filter| format!(" {filter}"));
    let Some(filtered) = show_statements::condition("table_name", filter) else { return };
    // Nothing but the namespace and the pattern is given.
    if has_kind || statement.to_string() != format!("SHOW TABLES{written}{pattern}") {
        return;
    }
    let condition = match place.and_then(|place| place.parent_name.as_ref()) {
        None => "<> 'information_schema'".to_owned(),
        Some(name) => format!("= '{}'", namespace_of(name).replace('\'', "''")),
    };
    let sql = format!(
        "SELECT * FROM information_schema.tables WHERE table_schema {condition}{filtered} ORDER BY table_schema = '{}', table_name",
        audit::SCHEMA
    );
    let parsed = Parser::parse_sql(&GenericDialect {}, &sql).expect("it is SQL");
    *statement = parsed.into_iter().next().expect("it is one statement");
}

/// The namespace that a name means: its levels with points between.
fn namespace_of(name: &ObjectName) -> String {
    let levels = name.0.iter().filter_map(|part| part.as_ident());
    let levels = levels.map(|ident| match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_ascii_lowercase(),
    });
    levels.collect::<Vec<_>>().join(".")
}

/// The plan with types as answers call them, where it describes a table.
///
/// # Errors
/// DataFusion's.
pub fn with_type_names(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let LogicalPlan::DescribeTable(described) = &plan else {
        return plan.transform_up_with_subqueries(of_columns).map(|done| done.data);
    };
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

/// The rows of `information_schema.columns`, which SHOW COLUMNS reads too.
fn of_columns(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>, DataFusionError> {
    let is_it = matches!(&plan, LogicalPlan::TableScan(scan)
        if scan.table_name.schema() == Some("information_schema") && scan.table_name.table() == "columns");
    if !is_it {
        return Ok(Transformed::no(plan));
    }
    let columns = plan.schema().iter().map(|(table, field)| {
        let column = Expr::Column(Column::new(table.cloned(), field.name()));
        match field.name().as_str() {
            TYPE_COLUMN => {
                type_in_sql().call(vec![column]).alias_qualified(table.cloned(), TYPE_COLUMN)
            }
            _ => column,
        }
    });
    let columns: Vec<Expr> = columns.collect();
    Ok(Transformed::yes(LogicalPlanBuilder::from(plan).project(columns)?.build()?))
}

/// Arrow's name of a type as SQL writes it.
fn type_in_sql() -> ScalarUDF {
    let body = |arguments: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        let names = arrays[0].as_string::<i32>().iter();
        let names: StringArray = names.map(|name| name.map(in_sql)).collect();
        returned(arguments, Arc::new(names))
    };
    let kind = DataType::Utf8;
    create_udf("type_in_sql", vec![kind.clone()], kind, Volatility::Immutable, Arc::new(body))
}
