//! Conditions on rows, bound to a schema, without any engine's types.
//!
//! Negations are pushed down to the tests, so every part of a filter is one that a row has to
//! meet. Its one invariant: what is not understood is [`Filter::Unknown`], which no file and no
//! partition ever decides.

use iceberg::{
    spec::{Datum, PrimitiveLiteral, PrimitiveType, Schema, Transform, Type},
    transform::create_transform_function,
};
use std::cmp::Ordering;

/// A condition on rows.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// Every row meets it.
    True,
    /// No row meets it.
    False,
    /// Any row may or may not meet it.
    Unknown,
    /// Both hold.
    And(Box<Filter>, Box<Filter>),
    /// One of both holds.
    Or(Box<Filter>, Box<Filter>),
    /// A value passes a check.
    Test(FilterTest),
}

/// A check of one value of a row.
#[derive(Clone, Debug, PartialEq)]
pub struct FilterTest {
    /// Which value.
    pub term: Term,
    /// What must be true of it.
    pub check: ValueCheck,
}

/// A column's value, or what a transform makes of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// The column's full name.
    pub name: String,
    /// Its field id.
    pub field_id: i32,
    /// Its type.
    pub source: PrimitiveType,
    /// What is done to it before the check.
    pub transform: Transform,
    /// The type of the outcome.
    pub result: PrimitiveType,
}

/// What must be true of a value. None but `IsNull` need be true of a missing one.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueCheck {
    /// It is missing.
    IsNull,
    /// It is there.
    NotNull,
    /// It is not a number.
    IsNan,
    /// It is a number, or of another type.
    NotNan,
    /// It stands in this relation to a value.
    Compare(Comparison, Datum),
    /// It is one of these.
    In(Vec<Datum>),
    /// It is none of these.
    NotIn(Vec<Datum>),
    /// It starts with this text.
    StartsWith(String),
    /// It does not start with this text.
    NotStartsWith(String),
}

/// A relation between two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `=`
    Equal,
    /// `<>`
    NotEqual,
}

/// What is known of a condition for a set of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterVerdict {
    /// No row meets it.
    Never,
    /// Some rows may.
    Maybe,
    /// Every row meets it.
    Always,
}

impl Filter {
    /// Both; shorter where one decides.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::False, _) | (_, Self::False) => Self::False,
            (Self::True, filter) | (filter, Self::True) => filter,
            (left, right) => Self::And(Box::new(left), Box::new(right)),
        }
    }

    /// One of both; shorter where one decides.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::True, _) | (_, Self::True) => Self::True,
            (Self::False, filter) | (filter, Self::False) => filter,
            (left, right) => Self::Or(Box::new(left), Box::new(right)),
        }
    }

    /// The opposite.
    #[must_use]
    pub fn negate(self) -> Self {
        match self {
            Self::True => Self::False,
            Self::False => Self::True,
            Self::Unknown => Self::Unknown,
            Self::And(left, right) => left.negate().or(right.negate()),
            Self::Or(left, right) => left.negate().and(right.negate()),
            Self::Test(FilterTest { term, check }) => {
                Self::Test(FilterTest { term, check: check.negate() })
            }
        }
    }

    /// What holds for a set of rows of which `known` tells each test's verdict.
    pub fn verdict(&self, known: &impl Fn(&FilterTest) -> FilterVerdict) -> FilterVerdict {
        match self {
            Self::True => FilterVerdict::Always,
            Self::False => FilterVerdict::Never,
            Self::Unknown => FilterVerdict::Maybe,
            Self::And(left, right) => left.verdict(known).and(right.verdict(known)),
            Self::Or(left, right) => {
                left.verdict(known).negate().and(right.verdict(known).negate()).negate()
            }
            Self::Test(test) => known(test),
        }
    }

    /// What is left to check on each of those rows.
    pub fn residual(&self, known: &impl Fn(&FilterTest) -> FilterVerdict) -> Self {
        match self {
            Self::And(left, right) => left.residual(known).and(right.residual(known)),
            Self::Or(left, right) => left.residual(known).or(right.residual(known)),
            Self::Test(test) => match known(test) {
                FilterVerdict::Never => Self::False,
                FilterVerdict::Always => Self::True,
                FilterVerdict::Maybe => self.clone(),
            },
            Self::True | Self::False | Self::Unknown => self.clone(),
        }
    }
}

impl Term {
    /// A column as it is.
    ///
    /// # Errors
    /// What is wrong with the name: it is no column, or not one with single values.
    pub fn column(schema: &Schema, name: &str, case_sensitive: bool) -> Result<Self, String> {
        let field = if case_sensitive {
            schema.field_by_name(name)
        } else {
            schema.field_by_name_case_insensitive(name)
        };
        let field = field.ok_or_else(|| format!("there is no column `{name}`"))?;
        let Type::Primitive(source) = field.field_type.as_ref() else {
            return Err(format!("column `{name}` has no single values to compare"));
        };
        // Values inside lists and maps have no place in a row of their own.
        if schema.accessor_by_field_id(field.id).is_none() {
            return Err(format!("column `{name}` is inside a list or a map"));
        }
        let name = schema.name_by_field_id(field.id).unwrap_or(name).to_owned();
        Ok(Self {
            name,
            field_id: field.id,
            source: source.clone(),
            transform: Transform::Identity,
            result: source.clone(),
        })
    }

    /// What `transform` makes of this column.
    ///
    /// # Errors
    /// The transform does not take the column's type.
    pub fn transformed(self, transform: Transform) -> Result<Self, String> {
        let made = transform.result_type(&Type::Primitive(self.source.clone()));
        match made.ok().and_then(|made| made.as_primitive_type().cloned()) {
            Some(result) if transform != Transform::Unknown => {
                Ok(Self { transform, result, ..self })
            }
            _ => {
                Err(format!("`{transform}` does not take `{}` of type {}", self.name, self.source))
            }
        }
    }
}

impl ValueCheck {
    fn negate(self) -> Self {
        match self {
            Self::IsNull => Self::NotNull,
            Self::NotNull => Self::IsNull,
            Self::IsNan => Self::NotNan,
            Self::NotNan => Self::IsNan,
            Self::Compare(comparison, value) => Self::Compare(comparison.negate(), value),
            Self::In(values) => Self::NotIn(values),
            Self::NotIn(values) => Self::In(values),
            Self::StartsWith(prefix) => Self::NotStartsWith(prefix),
            Self::NotStartsWith(prefix) => Self::StartsWith(prefix),
        }
    }
}

impl Comparison {
    fn negate(self) -> Self {
        match self {
            Self::Less => Self::GreaterOrEqual,
            Self::LessOrEqual => Self::Greater,
            Self::Greater => Self::LessOrEqual,
            Self::GreaterOrEqual => Self::Less,
            Self::Equal => Self::NotEqual,
            Self::NotEqual => Self::Equal,
        }
    }
}

impl FilterVerdict {
    /// What holds for both conditions together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Never, _) | (_, Self::Never) => Self::Never,
            (Self::Always, Self::Always) => Self::Always,
            (Self::Maybe, _) | (_, Self::Maybe) => Self::Maybe,
        }
    }

    /// The more decided of two verdicts on the same condition.
    #[must_use]
    pub(crate) fn or_else(self, other: impl FnOnce() -> Self) -> Self {
        if self == Self::Maybe { other() } else { self }
    }

    fn negate(self) -> Self {
        match self {
            Self::Never => Self::Always,
            Self::Maybe => Self::Maybe,
            Self::Always => Self::Never,
        }
    }
}

/// How two values of one column compare, whichever width each has; none when they do not.
///
/// Bounds keep the type of the schema they were written with, which may be narrower than today's.
pub(crate) fn compare(left: &Datum, right: &Datum) -> Option<Ordering> {
    use PrimitiveLiteral::{Double, Float, Int, Long};
    let (left_type, right_type) = (left.data_type(), right.data_type());
    match (left.literal(), right.literal()) {
        (Int(a), Long(b)) if is_integer(left_type) && is_integer(right_type) => {
            Some(i64::from(*a).cmp(b))
        }
        (Long(a), Int(b)) if is_integer(left_type) && is_integer(right_type) => {
            Some(a.cmp(&i64::from(*b)))
        }
        (Float(a), Float(b)) => a.0.partial_cmp(&b.0),
        (Double(a), Double(b)) => a.0.partial_cmp(&b.0),
        (Float(a), Double(b)) => f64::from(a.0).partial_cmp(&b.0),
        (Double(a), Float(b)) => a.0.partial_cmp(&f64::from(b.0)),
        (a, b) if is_same_kind(left_type, right_type) => a.partial_cmp(b),
        _ => None,
    }
}

fn is_integer(kind: &PrimitiveType) -> bool {
    matches!(kind, PrimitiveType::Int | PrimitiveType::Long)
}

/// Whether values of the types compare as they are stored.
fn is_same_kind(left: &PrimitiveType, right: &PrimitiveType) -> bool {
    use PrimitiveType::{Binary, Decimal, Fixed, Uuid};
    match (left, right) {
        (Decimal { scale: left, .. }, Decimal { scale: right, .. }) => left == right,
        // Some writers compared these as signed numbers, so no order can be relied on.
        (Uuid | Fixed(_) | Binary, _) => false,
        _ => left == right,
    }
}

/// Whether the two are the same value; none when they do not compare.
pub(crate) fn is_equal(left: &Datum, right: &Datum) -> Option<bool> {
    match compare(left, right) {
        Some(ordering) => Some(ordering == Ordering::Equal),
        None if left.data_type() == right.data_type() && !left.is_nan() && !right.is_nan() => {
            Some(left.literal() == right.literal())
        }
        None => None,
    }
}

/// What `transform` makes of a value; none when it does not take it.
pub(crate) fn transformed(transform: Transform, value: &Datum) -> Option<Datum> {
    create_transform_function(&transform).ok()?.transform_literal(value).ok()?
}

/// A stored value with its type; none where they do not fit.
#[must_use]
pub fn datum(value: &PrimitiveLiteral, kind: &PrimitiveType) -> Option<Datum> {
    use PrimitiveLiteral as L;
    Some(match (kind, value) {
        (PrimitiveType::Boolean, L::Boolean(value)) => Datum::bool(*value),
        (PrimitiveType::Int, L::Int(value)) => Datum::int(*value),
        // A column that was widened keeps narrow values in its old files.
        (PrimitiveType::Long, L::Int(value)) => Datum::long(i64::from(*value)),
        (PrimitiveType::Long, L::Long(value)) => Datum::long(*value),
        (PrimitiveType::Float, L::Float(value)) => Datum::float(value.0),
        (PrimitiveType::Double, L::Float(value)) => Datum::double(f64::from(value.0)),
        (PrimitiveType::Double, L::Double(value)) => Datum::double(value.0),
        (PrimitiveType::Date, L::Int(value)) => Datum::date(*value),
        (PrimitiveType::Time, L::Long(value)) => Datum::time_micros(*value).ok()?,
        (PrimitiveType::Timestamp, L::Long(value)) => Datum::timestamp_micros(*value),
        (PrimitiveType::Timestamptz, L::Long(value)) => Datum::timestamptz_micros(*value),
        (PrimitiveType::TimestampNs, L::Long(value)) => Datum::timestamp_nanos(*value),
        (PrimitiveType::TimestamptzNs, L::Long(value)) => Datum::timestamptz_nanos(*value),
        (PrimitiveType::String, L::String(value)) => Datum::string(value),
        (PrimitiveType::Uuid, L::UInt128(value)) => Datum::uuid(uuid::Uuid::from_u128(*value)),
        (PrimitiveType::Fixed(_), L::Binary(value)) => {
            Datum::try_from_bytes(value, kind.clone()).ok()?
        }
        (PrimitiveType::Binary, L::Binary(value)) => Datum::binary(value.iter().copied()),
        (PrimitiveType::Decimal { .. }, L::Int128(value)) => {
            Datum::try_from_bytes(&value.to_be_bytes(), kind.clone()).ok()?
        }
        _ => return None,
    })
}
