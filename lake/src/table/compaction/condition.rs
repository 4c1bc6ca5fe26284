//! Which partitions somebody asks for: `type = 'a' AND dt >= '2026-11-01'`.
//!
//! A condition is parsed once, where it comes in, and bound to each table that it is about. It is asked
//! with what a partition spec says of a column, so it fits tables with any spec. A check that could not
//! leave out any partition is refused: whoever typed it expects that it does.
//!
//! Its one invariant: a partition is left out only if none of its rows can meet the condition.

mod parser;
#[cfg(test)]
mod tests;

use iceberg::spec::{PartitionField, PrimitiveType, Schema, TableMetadata, Transform};
use icecore_catalog::scan::{filter::Filter, json as expression};
use parser::ConditionParser;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Longest condition, in characters.
const CHARS_MAX: usize = 4096;
/// What a condition may say, for whoever typed another one.
const ALLOWED: &str = "allowed are partition columns with =, <>, <, <=, >, >=, IN, BETWEEN and \
     IS NULL, AND, OR, NOT and parentheses, as in: type = 'a' AND dt >= '2026-11-01'";

/// Why a condition is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    /// It is too long.
    #[error("the condition has more than {most} characters: use several runs", most = CHARS_MAX)]
    Length,
    /// It does not read.
    #[error(
        "the condition has {found} at character {at}, where {expected} must be; {allowed}",
        allowed = ALLOWED
    )]
    Syntax {
        /// Where, from 1.
        at: usize,
        /// What is there.
        found: String,
        /// What should be there.
        expected: &'static str,
    },
    /// It does not fit a table; the text says what to change.
    #[error("{0}")]
    Table(String),
}

/// A condition on partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionCondition(ConditionNode);

/// A part of a condition. Negations are pushed down to the checks.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ConditionNode {
    /// All of them hold.
    All(Vec<ConditionNode>),
    /// One of them holds.
    Any(Vec<ConditionNode>),
    /// A check of one column.
    Check(ColumnCheck),
}

/// A check of one column.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ColumnCheck {
    column: String,
    operator: CheckOperator,
    /// None for a check for NULL, one for a comparison.
    values: Vec<CheckValue>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CheckOperator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
    IsNull,
    NotNull,
}

/// A value as it is typed; its type is that of its column.
#[derive(Clone, Debug, PartialEq, Eq)]
enum CheckValue {
    /// In quotes, also of a date or time.
    Text(String),
    /// With its digits.
    Number(String),
    /// TRUE or FALSE.
    Boolean(bool),
}

impl PartitionCondition {
    /// Reads a condition.
    ///
    /// # Errors
    /// [`ConditionError::Length`], [`ConditionError::Syntax`].
    pub fn parse(text: &str) -> Result<Self, ConditionError> {
        if CHARS_MAX < text.chars().count() {
            return Err(ConditionError::Length);
        }
        Ok(Self(ConditionParser::of(text)?.condition()?))
    }

    /// The condition on the rows of a table, which its partitions decide.
    ///
    /// # Errors
    /// [`ConditionError::Table`]: a column by which the table is not partitioned, a check that its
    /// partitions do not decide, or a value of another type.
    pub fn bind(&self, table: &TableMetadata) -> Result<Filter, ConditionError> {
        self.0.bind(table)
    }
}

impl ConditionNode {
    fn negate(self) -> Self {
        let negated =
            |parts: Vec<Self>| -> Vec<Self> { parts.into_iter().map(Self::negate).collect() };
        match self {
            Self::All(parts) => Self::Any(negated(parts)),
            Self::Any(parts) => Self::All(negated(parts)),
            Self::Check(check) => {
                Self::Check(ColumnCheck { operator: check.operator.negate(), ..check })
            }
        }
    }

    fn bind(&self, table: &TableMetadata) -> Result<Filter, ConditionError> {
        match self {
            Self::All(parts) => parts
                .iter()
                .try_fold(Filter::True, |all, part| part.bind(table).map(|one| all.and(one))),
            Self::Any(parts) => parts
                .iter()
                .try_fold(Filter::False, |any, part| part.bind(table).map(|one| any.or(one))),
            Self::Check(check) => check.bind(table),
        }
    }
}

impl ColumnCheck {
    fn bind(&self, table: &TableMetadata) -> Result<Filter, ConditionError> {
        let schema = table.current_schema();
        let fields = partition_fields(table);
        let is_named = |name: &str| name.eq_ignore_ascii_case(&self.column);
        let by_name = fields.iter().copied().find(|field| is_named(&field.name));
        let source = |field: &&PartitionField| schema.name_by_field_id(field.source_id);
        let by_source = || fields.iter().copied().find(|field| source(field).is_some_and(is_named));
        let found = by_name.map(|field| (field, field.transform));
        let found = found.or_else(|| by_source().map(|field| (field, Transform::Identity)));
        let Some((field, transform)) = found else { return Err(self.unknown(&fields, schema)) };
        // Only fields whose column is there are among them.
        let column = source(&field).unwrap_or_default();
        let same = fields.iter().filter(|other| other.source_id == field.source_id);
        if !same.clone().any(|other| self.is_decided(transform, other.transform)) {
            let names: Vec<String> = same.map(|other| format!("`{}`", other.name)).collect();
            return Err(ConditionError::Table(format!(
                "`{column}` {} leaves out no partition, because the table is partitioned by {} of it; {ALLOWED}",
                self.operator.text(),
                names.join(", ")
            )));
        }
        let term = match transform {
            Transform::Identity => json!(column),
            made => json!({ "type": "transform", "transform": made.to_string(), "term": column }),
        };
        let kind = match transform {
            Transform::Identity => {
                let column = schema.field_by_id(field.source_id);
                column.and_then(|column| column.field_type.as_primitive_type())
            }
            _ => None,
        };
        let values: Vec<Value> = self.values.iter().map(|value| value.json(kind)).collect();
        let operator = self.operator.name();
        let check = match (self.operator, values.first()) {
            (CheckOperator::In | CheckOperator::NotIn, _) => {
                json!({ "type": operator, "term": term, "values": values })
            }
            (_, Some(value)) => json!({ "type": operator, "term": term, "value": value }),
            (_, None) => json!({ "type": operator, "term": term }),
        };
        expression::parse(&check, schema, true)
            .map_err(|why| ConditionError::Table(format!("`{}`: {why}", self.column)))
    }

    /// Whether partitions by one transform can be left out by a check of a term by another.
    fn is_decided(&self, term: Transform, field: Transform) -> bool {
        use CheckOperator::{Equal, In, IsNull, NotEqual, NotIn, NotNull};
        match (self.operator, field) {
            _ if term == field => true,
            (IsNull | NotNull, _) => true,
            (_, Transform::Bucket(_)) => {
                term == Transform::Identity && matches!(self.operator, Equal | In)
            }
            (operator, _) => !matches!(operator, NotEqual | NotIn),
        }
    }

    fn unknown(&self, fields: &[&PartitionField], schema: &Schema) -> ConditionError {
        if fields.is_empty() {
            return ConditionError::Table("the table has no partitions to choose from".to_owned());
        }
        let names = fields.iter().flat_map(|field| {
            [Some(field.name.as_str()), schema.name_by_field_id(field.source_id)]
        });
        let names: BTreeSet<&str> = names.flatten().collect();
        let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
        ConditionError::Table(format!(
            "`{}` is no partition column; this table's are {}; {ALLOWED}",
            self.column,
            names.join(", ")
        ))
    }
}

/// The partition fields that say something of a column that is there: those of the current spec first.
fn partition_fields(table: &TableMetadata) -> Vec<&PartitionField> {
    let current = table.default_partition_spec();
    let earlier = table.partition_specs_iter().filter(|spec| spec.spec_id() != current.spec_id());
    let fields = std::iter::once(current).chain(earlier).flat_map(|spec| spec.fields());
    let is_known = |field: &&PartitionField| {
        !matches!(field.transform, Transform::Void | Transform::Unknown)
            && table.current_schema().field_by_id(field.source_id).is_some()
    };
    fields.filter(is_known).collect()
}

impl CheckOperator {
    fn negate(self) -> Self {
        match self {
            Self::Equal => Self::NotEqual,
            Self::NotEqual => Self::Equal,
            Self::Less => Self::GreaterOrEqual,
            Self::LessOrEqual => Self::Greater,
            Self::Greater => Self::LessOrEqual,
            Self::GreaterOrEqual => Self::Less,
            Self::In => Self::NotIn,
            Self::NotIn => Self::In,
            Self::IsNull => Self::NotNull,
            Self::NotNull => Self::IsNull,
        }
    }

    /// As expressions of the REST specification have it.
    fn name(self) -> &'static str {
        match self {
            Self::Equal => "eq",
            Self::NotEqual => "not-eq",
            Self::Less => "lt",
            Self::LessOrEqual => "lt-eq",
            Self::Greater => "gt",
            Self::GreaterOrEqual => "gt-eq",
            Self::In => "in",
            Self::NotIn => "not-in",
            Self::IsNull => "is-null",
            Self::NotNull => "not-null",
        }
    }

    /// As it is typed.
    fn text(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "<>",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::In => "IN",
            Self::NotIn => "NOT IN",
            Self::IsNull => "IS NULL",
            Self::NotNull => "IS NOT NULL",
        }
    }
}

impl CheckValue {
    /// As expressions of the REST specification have it for a column of this type.
    fn json(&self, kind: Option<&PrimitiveType>) -> Value {
        use PrimitiveType::{Decimal, Timestamp, TimestampNs, Timestamptz, TimestamptzNs};
        match (self, kind) {
            (Self::Text(text), Some(Timestamp | Timestamptz | TimestampNs | TimestamptzNs)) => {
                let text = text.trim();
                match text.contains(['T', 't', ' ']) {
                    // A day stands for its first instant.
                    false => json!(format!("{text}T00:00:00")),
                    true => json!(text.replacen([' ', 't'], "T", 1)),
                }
            }
            (Self::Number(digits), Some(Decimal { .. })) => json!(digits),
            (Self::Number(digits), _) => serde_json::from_str(digits).unwrap_or(json!(digits)),
            (Self::Text(text), _) => json!(text),
            (Self::Boolean(value), _) => json!(value),
        }
    }
}
