//! SHOW SCHEMAS, SHOW FUNCTIONS and SHOW CREATE as statements that the planner has: queries of what there is, and
//! the description of a table, of which its definition is made.
//!
//! What the sender may learn of is decided where the view of the query is taken: nothing else is looked at here.

use crate::{
    aliases::folded,
    allowed::{AGGREGATE, SCALAR, UNBOUNDED, WINDOW},
    dialect,
    error::SqlError,
    output::type_name,
    session::CATALOG,
    view::View,
};
use arrow::datatypes::{DataType, Schema};
use datafusion::{
    error::DataFusionError,
    logical_expr::{LogicalPlan, LogicalPlanBuilder, col, lit},
    sql::sqlparser::{
        ast::{
            DescribeAlias, ShowCreateObject, ShowStatementFilter, ShowStatementFilterPosition,
            ShowStatementOptions, Statement,
        },
        dialect::GenericDialect,
        parser::Parser,
    },
};
use std::collections::BTreeSet;

/// Functions of this engine that no other list has.
const OWN_SCALARS: &[&str] = &[
    "bucket",
    "json_as_text",
    "json_contains",
    "json_extract",
    "json_extract_string",
    "json_get",
    "json_get_array",
    "json_get_bool",
    "json_get_float",
    "json_get_int",
    "json_get_json",
    "json_get_str",
    "json_length",
    "json_object_keys",
    "json_valid",
    "strftime",
    "struct_extract",
    "struct_pack",
    "time_bucket",
];
/// The same of many rows.
const OWN_AGGREGATES: &[&str] = &["document_anomalies", "document_versions"];

/// The columns of the answer to SHOW CREATE.
const DEFINITION_COLUMNS: [&str; 4] = ["table_catalog", "table_schema", "table_name", "definition"];

const NAMESPACES_FORM: &str = "write SHOW SCHEMAS or SHOW DATABASES, with LIKE 'pattern' or ILIKE 'pattern' behind it for some of them";
const FUNCTIONS_FORM: &str =
    "write SHOW FUNCTIONS, with LIKE 'pattern' or ILIKE 'pattern' behind it for some of them";

/// What SHOW CREATE shows the definition of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefinitionKind {
    /// A table.
    Table,
    /// A view of the catalog.
    View,
}

/// Makes a query of SHOW SCHEMAS, SHOW DATABASES and SHOW FUNCTIONS, and DESCRIBE of SHOW CREATE, whose kind is the
/// answer. Other statements stay as they are.
///
/// # Errors
/// The statement has a form that is not supported. The text says what to write.
///
/// # Panics
/// Never: the queries are SQL.
pub fn rewrite(statement: &mut Statement) -> Result<Option<DefinitionKind>, String> {
    let sql = match &*statement {
        Statement::ShowSchemas { terse: false, history: false, show_options }
        | Statement::ShowDatabases { terse: false, history: false, show_options } => {
            namespaces(show_options)?
        }
        Statement::ShowSchemas { .. } | Statement::ShowDatabases { .. } => {
            return Err(NAMESPACES_FORM.to_owned());
        }
        Statement::ShowFunctions { filter } => functions(filter.as_ref())?,
        Statement::ShowCreate { obj_type, obj_name } => {
            let kind = match obj_type {
                ShowCreateObject::Table => DefinitionKind::Table,
                ShowCreateObject::View => DefinitionKind::View,
                ShowCreateObject::Event
                | ShowCreateObject::Function
                | ShowCreateObject::Procedure
                | ShowCreateObject::Trigger => {
                    return Err("SHOW CREATE shows tables and views: write SHOW CREATE TABLE or SHOW CREATE VIEW".to_owned());
                }
            };
            let table_name = obj_name.clone();
            *statement = Statement::ExplainTable {
                describe_alias: DescribeAlias::Describe,
                hive_format: None,
                has_table_keyword: false,
                table_name,
            };
            return Ok(Some(kind));
        }
        _ => return Ok(None),
    };
    let parsed = Parser::parse_sql(&GenericDialect {}, &sql).expect("it is SQL");
    *statement = parsed.into_iter().next().expect("it is one statement");
    Ok(None)
}

/// The namespaces that the view of the query has: those that its sender may read.
fn namespaces(options: &ShowStatementOptions) -> Result<String, String> {
    let ShowStatementOptions { show_in, starts_with, limit, limit_from, filter_position } = options;
    let is_plain =
        show_in.is_none() && starts_with.is_none() && limit.is_none() && limit_from.is_none();
    let filter = filter_position.as_ref().map(|position| match position {
        ShowStatementFilterPosition::Infix(filter)
        | ShowStatementFilterPosition::Suffix(filter) => filter,
    });
    let condition = condition("schema_name", filter).filter(|_| is_plain);
    let condition = condition.ok_or(NAMESPACES_FORM)?;
    Ok(format!(
        "SELECT \"schema_name\" FROM information_schema.schemata WHERE \"schema_name\" <> 'information_schema'{condition} ORDER BY \"schema_name\""
    ))
}

/// The functions that a statement may call.
fn functions(filter: Option<&ShowStatementFilter>) -> Result<String, String> {
    let condition = condition("function_name", filter).ok_or(FUNCTIONS_FORM)?;
    let scalars = [SCALAR, UNBOUNDED, dialect::SCALARS, OWN_SCALARS];
    let aggregates = [AGGREGATE, dialect::AGGREGATES, OWN_AGGREGATES];
    let of_kind = |lists: &[&[&'static str]], kind: &'static str| -> Vec<_> {
        lists.iter().flat_map(|list| list.iter()).map(|name| (*name, kind)).collect()
    };
    let mut found: BTreeSet<(&str, &str)> = BTreeSet::new();
    found.extend(of_kind(&scalars, "scalar"));
    found.extend(of_kind(&aggregates, "aggregate"));
    found.extend(of_kind(&[WINDOW], "window"));
    let rows: Vec<String> =
        found.iter().map(|(name, kind)| format!("('{name}', '{kind}')")).collect();
    Ok(format!(
        "SELECT \"function_name\", \"function_type\" FROM (VALUES {}) AS f(\"function_name\", \"function_type\") WHERE \"function_type\" <> ''{condition} ORDER BY \"function_name\", \"function_type\"",
        rows.join(", ")
    ))
}

/// What is added to a condition for the filter of a statement; none for a filter that is not supported.
pub(crate) fn condition(column: &str, filter: Option<&ShowStatementFilter>) -> Option<String> {
    let (operator, pattern) = match filter {
        None => return Some(String::new()),
        Some(ShowStatementFilter::Like(pattern)) => ("LIKE", pattern),
        Some(ShowStatementFilter::ILike(pattern)) => ("ILIKE", pattern),
        Some(ShowStatementFilter::Where(_) | ShowStatementFilter::NoKeyword(_)) => return None,
    };
    Some(format!(" AND \"{column}\" {operator} '{}'", pattern.replace('\'', "''")))
}

/// The table or view whose definition is shown.
#[derive(Debug)]
pub struct TableDefinition {
    namespace: String,
    name: String,
    /// The query of a view.
    query: Option<String>,
}

impl TableDefinition {
    /// What a statement describes, by the names of what it stands for.
    ///
    /// # Errors
    /// [`SqlError::Invalid`] for a table where a view is asked for, and the other way round.
    pub fn of(kind: DefinitionKind, statement: &Statement, view: &View) -> Result<Self, SqlError> {
        let Statement::ExplainTable { table_name, .. } = statement else {
            return Err(invalid("SHOW CREATE takes the name of a table or a view"));
        };
        let mut parts = table_name.0.iter().rev().filter_map(|part| part.as_ident()).map(folded);
        let name = parts.next().unwrap_or_default();
        let namespace = parts.next().unwrap_or_else(|| view.namespace.clone());
        let mut views = view.catalog_views.iter();
        let found = views.find(|seen| seen.namespace == namespace && seen.name == name);
        let query = match (kind, found) {
            (DefinitionKind::Table, None) => None,
            (DefinitionKind::View, Some(seen)) => Some(seen.statement.text.clone()),
            (DefinitionKind::Table, Some(_)) => {
                return Err(invalid(format!(
                    "`{namespace}.{name}` is a view; write SHOW CREATE VIEW"
                )));
            }
            (DefinitionKind::View, None) => {
                return Err(invalid(format!(
                    "`{namespace}.{name}` is no view of the catalog; write SHOW CREATE TABLE"
                )));
            }
        };
        Ok(Self { namespace, name, query })
    }

    /// The plan of the description of this table or view as one row with its definition.
    ///
    /// # Errors
    /// DataFusion's.
    pub fn shown(self, plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
        let LogicalPlan::DescribeTable(described) = &plan else { return Ok(plan) };
        let name = format!("{}.{}", quoted(&self.namespace), quoted(&self.name));
        let text = match &self.query {
            Some(query) => format!("CREATE VIEW {name} AS {query}"),
            None => format!("CREATE TABLE {name} ({})", columns_of(&described.schema)),
        };
        let row = vec![
            lit(CATALOG),
            lit(self.namespace.as_str()),
            lit(self.name.as_str()),
            lit(text.as_str()),
        ];
        let names = DEFINITION_COLUMNS.iter().enumerate();
        let columns = names.map(|(at, name)| col(format!("column{}", at + 1)).alias(*name));
        LogicalPlanBuilder::values(vec![row])?.project(columns.collect::<Vec<_>>())?.build()
    }
}

/// The columns of a table, each with its type.
fn columns_of(schema: &Schema) -> String {
    let columns = schema.fields().iter().map(|field| {
        let constraint = if field.is_nullable() { "" } else { " NOT NULL" };
        format!("{} {}{constraint}", quoted(field.name()), full_type(field.data_type()))
    });
    columns.collect::<Vec<_>>().join(", ")
}

/// The name of a type with those of what is in it.
fn full_type(data_type: &DataType) -> String {
    match data_type {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => format!("{}[]", full_type(item.data_type())),
        DataType::Struct(fields) => {
            let members = fields
                .iter()
                .map(|field| format!("{} {}", quoted(field.name()), full_type(field.data_type())));
            format!("struct({})", members.collect::<Vec<_>>().join(", "))
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) => {
                let parts = fields.iter().map(|field| full_type(field.data_type()));
                format!("map({})", parts.collect::<Vec<_>>().join(", "))
            }
            _ => type_name(data_type),
        },
        _ => type_name(data_type),
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn invalid(text: impl Into<String>) -> SqlError {
    SqlError::Invalid(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard;
    use arrow::datatypes::{Field, Fields};

    #[test]
    fn namespaces_and_functions_are_queries() {
        for (sql, expected) in [
            ("SHOW SCHEMAS", "information_schema.schemata"),
            ("SHOW DATABASES LIKE 'it''s%'", "\"schema_name\" LIKE 'it''s%'"),
            ("show schemas ilike 'A%'", "ILIKE 'A%'"),
            ("SHOW FUNCTIONS", "('json_get', 'scalar'), ('json_get_array', 'scalar')"),
            ("SHOW FUNCTIONS LIKE 'p%'", "\"function_name\" LIKE 'p%'"),
        ] {
            let checked = guard::check(sql).unwrap();
            let shown = checked.statement.to_string();
            assert!(shown.contains(expected), "{sql}: {shown}");
            assert!(!checked.is_query && checked.definition.is_none(), "{sql}");
        }
        for sql in [
            "SHOW SCHEMAS FROM lake",
            "SHOW TERSE SCHEMAS",
            "SHOW SCHEMAS LIMIT 3",
            "SHOW FUNCTIONS WHERE true",
            "SHOW FUNCTIONS 'a%'",
            "SHOW CREATE FUNCTION f",
        ] {
            let refused = guard::check(sql).unwrap_err().to_string();
            assert!(refused.contains("write SHOW"), "{sql}: {refused}");
        }
    }

    #[test]
    fn a_definition_has_its_kind_and_the_name() {
        let checked = guard::check("SHOW CREATE TABLE Bank.\"T\"").unwrap();
        assert_eq!(checked.definition, Some(DefinitionKind::Table));
        let view = View::of("shop".to_owned());
        let of = |kind| TableDefinition::of(kind, &checked.statement, &view);
        let found = of(DefinitionKind::Table).unwrap();
        assert_eq!((found.namespace.as_str(), found.name.as_str()), ("bank", "T"));
        let refused = of(DefinitionKind::View).unwrap_err().to_string();
        assert!(refused.contains("`bank.T` is no view"), "{refused}");
        let checked = guard::check("SHOW CREATE VIEW v").unwrap();
        assert_eq!(checked.definition, Some(DefinitionKind::View));
    }

    #[test]
    fn columns_are_shown_with_all_of_their_types() {
        let inner = Fields::from(vec![Field::new("x y", DataType::Int32, true)]);
        let item = Field::new("item", DataType::Struct(inner), true);
        let schema = Schema::new(vec![
            Field::new("id", DataType::Utf8View, false),
            Field::new("list", DataType::List(item.into()), true),
        ]);
        let expected = "\"id\" varchar NOT NULL, \"list\" struct(\"x y\" integer)[]";
        assert_eq!(columns_of(&schema), expected);
    }
}
