//! Tables of a statement at points of their history: `events FOR VERSION AS OF 'nightly'`.
//!
//! Each dialect spells a version in its own way, and the parser knows some of the spellings in some of its
//! dialects. So a version is taken out of the tokens before they are parsed ([`spelling`]): the table and its
//! version become one name in quotes, which is the text of both. Behind it the table keeps the name that the
//! statement calls its columns by. Its one invariant: one name means one table at one point, and the words behind the
//! table's name in it mean that point.

pub mod differences;
mod place;
pub mod scopes;
pub mod spelling;

use crate::error::SqlError;
use datafusion::sql::sqlparser::ast::{
    DataType, Expr, Ident, TimezoneInfo, TypedString, UnaryOperator, Value, Visit, VisitMut,
    VisitorMut, visit_expressions,
};
use icecore_lake::table::row_fit::wall_clock;
use serde_json::Value as Json;
use std::{convert::Infallible, ops::ControlFlow};

/// An expression of a point.
pub type PointExpr = Expr;

/// Most tables with a version in one statement: each may be looked up before the statement is planned.
pub const VERSIONS_MAX: usize = 32;

/// A table of a statement at a point of its history.
#[derive(Clone, Debug, PartialEq)]
pub struct TableVersion {
    /// What the statement calls it once the version is taken out.
    pub name: String,
    /// The namespace that is written before it.
    pub schema: Option<String>,
    /// The table, without its namespace.
    pub table: String,
    /// The same as it is written: its columns are called by it.
    pub alias: Ident,
    /// The point.
    pub point: VersionPoint,
}

impl TableVersion {
    /// The words of the point in the name: no other point of the statement has the same.
    #[must_use]
    pub fn words(&self) -> &str {
        self.name.strip_prefix(self.table.as_str()).unwrap_or_default()
    }
}

/// A point in a table's history as a statement has it: an expression of constants.
#[derive(Clone, Debug, PartialEq)]
pub enum VersionPoint {
    /// What was current at this time.
    Time(Expr),
    /// A snapshot's id, or the name of a tag or a branch.
    Version(Expr),
    /// The event with this bookmark, and those before it.
    Bookmark(Expr),
    /// The events up to this `seq`.
    Seq(Expr),
    /// The events of a branch up to this `seq`, and the branch.
    BranchSeq(Box<Expr>, Box<Expr>),
    /// The events from one `seq` up to another.
    SeqRange(Box<Expr>, Box<Expr>),
}

impl VersionPoint {
    fn parts(&self) -> Vec<&Expr> {
        match self {
            Self::Time(part) | Self::Version(part) | Self::Bookmark(part) | Self::Seq(part) => {
                vec![part]
            }
            Self::BranchSeq(first, last) | Self::SeqRange(first, last) => {
                vec![first.as_ref(), last.as_ref()]
            }
        }
    }

    fn parts_mut(&mut self) -> Vec<&mut Expr> {
        match self {
            Self::Time(part) | Self::Version(part) | Self::Bookmark(part) | Self::Seq(part) => {
                vec![part]
            }
            Self::BranchSeq(first, last) | Self::SeqRange(first, last) => {
                vec![first.as_mut(), last.as_mut()]
            }
        }
    }

    /// The point with the request's values in the places for them.
    ///
    /// # Errors
    /// [`SqlError::Invalid`] for a place without a value that can stand there.
    pub fn with_params(&self, params: &[Json]) -> Result<Self, SqlError> {
        let mut point = self.clone();
        for part in point.parts_mut() {
            let filled = VisitMut::visit(part, &mut ParamFiller(params));
            if let ControlFlow::Break(name) = filled {
                return Err(SqlError::Invalid(format!(
                    "the version of a table names {name}, and `params` has no number or text there"
                )));
            }
        }
        Ok(point)
    }
}

/// The highest number of a request's value that a version names.
#[must_use]
pub fn params_max(versions: &[TableVersion]) -> usize {
    let mut most = 0;
    for part in versions.iter().flat_map(|version| version.point.parts()) {
        let ControlFlow::Continue(()) = visit_expressions(part, |part| {
            most = most.max(number_of(part).unwrap_or(0));
            ControlFlow::<Infallible>::Continue(())
        });
    }
    most
}

/// Which of the request's values an expression is.
fn number_of(expr: &Expr) -> Option<usize> {
    let Expr::Value(literal) = expr else { return None };
    let Value::Placeholder(name) = &literal.value else { return None };
    name.strip_prefix('$')?.parse().ok()
}

struct ParamFiller<'a>(&'a [Json]);

impl VisitorMut for ParamFiller<'_> {
    type Break = String;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<String> {
        let Expr::Value(literal) = expr else { return ControlFlow::Continue(()) };
        let Value::Placeholder(name) = &literal.value else { return ControlFlow::Continue(()) };
        let number = name.strip_prefix('$').and_then(|number| number.parse::<usize>().ok());
        let given = number.and_then(|number| self.0.get(number.checked_sub(1)?));
        literal.value = match given {
            Some(Json::String(text)) => Value::SingleQuotedString(text.clone()),
            Some(Json::Number(number)) => Value::Number(number.to_string(), false),
            _ => return ControlFlow::Break(name.clone()),
        };
        ControlFlow::Continue(())
    }
}

/// An expression whose literals are of the zone that is in their text: `TIMESTAMP '… +01:00'` is a wall
/// clock's time elsewhere in a statement, whatever stands behind it, and a table that is an hour off is
/// not noticed.
#[must_use]
pub fn with_zones(expr: &PointExpr) -> PointExpr {
    let mut expr = expr.clone();
    let ControlFlow::Continue(()) = VisitMut::visit(&mut expr, &mut ZonedLiterals);
    expr
}

struct ZonedLiterals;

impl VisitorMut for ZonedLiterals {
    type Break = Infallible;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Infallible> {
        if let Expr::TypedString(TypedString { data_type, value, .. }) = expr
            && let DataType::Timestamp(_, zone) = data_type
            && let Value::SingleQuotedString(text) = &value.value
            && wall_clock::without_zone(text).len() < text.len()
        {
            *zone = TimezoneInfo::Tz;
        }
        ControlFlow::Continue(())
    }
}

/// The text in quotes that an expression is.
#[must_use]
pub fn text_of(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Nested(inner) => text_of(inner),
        Expr::Value(literal) => match &literal.value {
            Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

/// The whole number that an expression is.
#[must_use]
pub fn whole_number_of(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Nested(inner) => whole_number_of(inner),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => whole_number_of(expr)?.checked_neg(),
        Expr::Value(literal) => match &literal.value {
            Value::Number(digits, _) => digits.parse().ok(),
            _ => None,
        },
        _ => None,
    }
}

/// Whether an expression names columns or has queries in it, so that it is no constant.
#[must_use]
pub fn is_of_rows(expr: &impl Visit) -> bool {
    let found = visit_expressions(expr, |part| match part {
        Expr::Identifier(_)
        | Expr::CompoundIdentifier(_)
        | Expr::Subquery(_)
        | Expr::InSubquery { .. }
        | Expr::Exists { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
}

#[cfg(test)]
mod tests;
