//! `*` over joins whose sides share columns.
//!
//! Of the columns that USING or NATURAL join, DataFusion 54 shows the one whose table has the first name.
//! Behind a LEFT JOIN that may be the right side's, which is null in rows without a partner.

use super::{ClauseVerdict, FINE, refuse};
use datafusion::sql::sqlparser::ast::{
    Ident, JoinConstraint, JoinOperator, Select, SelectItem, TableFactor, TableWithJoins,
};

/// What is refused.
const STAR: &str = "`*` over a LEFT JOIN with USING or NATURAL whose right side has a name before the left \
                    side's (name the columns, or give the right side an alias that sorts behind)";

/// Refuses `*` where it would show the right side's column.
pub(super) fn check(select: &Select) -> ClauseVerdict {
    let is_star = |item: &SelectItem| matches!(item, SelectItem::Wildcard(_));
    let mut shows_right = false;
    for from in &select.from {
        names(from, &mut shows_right);
    }
    if shows_right && select.projection.iter().any(is_star) { refuse(STAR) } else { FINE }
}

/// The names of the tables that are joined; none for one that has no plain name.
fn names(joined: &TableWithJoins, shows_right: &mut bool) -> Vec<Option<String>> {
    let mut names = names_of(&joined.relation, shows_right);
    for join in &joined.joins {
        let right = names_of(&join.relation, shows_right);
        let is_before = |left: &Option<String>| {
            let is_before =
                |right| left.as_ref().zip(right).is_some_and(|(left, right)| left < right);
            right.iter().map(Option::as_ref).all(is_before)
        };
        *shows_right |= shares_columns(&join.join_operator) && !names.iter().all(is_before);
        names.extend(right);
    }
    names
}

fn names_of(factor: &TableFactor, shows_right: &mut bool) -> Vec<Option<String>> {
    let alias = match factor {
        TableFactor::Table { alias, .. }
        | TableFactor::Derived { alias, .. }
        | TableFactor::NestedJoin { alias, .. } => alias.as_ref(),
        _ => None,
    };
    match (factor, alias) {
        (_, Some(alias)) => vec![Some(text(&alias.name))],
        (TableFactor::Table { name, .. }, None) => match name.0.as_slice() {
            [part] => vec![part.as_ident().map(text)],
            _ => vec![None],
        },
        (TableFactor::NestedJoin { table_with_joins, .. }, None) => {
            names(table_with_joins, shows_right)
        }
        _ => vec![None],
    }
}

fn shares_columns(operator: &JoinOperator) -> bool {
    let (JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint)) = operator else {
        return false;
    };
    matches!(constraint, JoinConstraint::Using(_) | JoinConstraint::Natural)
}

/// As DataFusion compares names.
fn text(name: &Ident) -> String {
    match name.quote_style {
        Some(_) => name.value.clone(),
        None => name.value.to_lowercase(),
    }
}
