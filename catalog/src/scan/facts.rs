//! What metadata says of the values in a set of rows, and what follows for a test.
//!
//! Its one invariant: a verdict other than `Maybe` holds for every row, whatever is not known.

use super::filter::{Comparison, FilterVerdict, ValueCheck, compare, is_equal};
use iceberg::spec::{Datum, PrimitiveLiteral, PrimitiveType};
use std::cmp::Ordering;

/// How many of the rows are of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowShare {
    /// None of them.
    None,
    /// Some, or it is not known.
    Some,
    /// All of them.
    All,
}

/// What is known of one term in a set of rows.
#[derive(Clone, Debug)]
pub struct TermFacts {
    /// Rows without a value.
    pub nulls: RowShare,
    /// Values that are not a number, among those that are there.
    pub nans: RowShare,
    /// Not above any number.
    pub lower: Option<Datum>,
    /// Not below any number.
    pub upper: Option<Datum>,
}

impl TermFacts {
    /// Every row is without a value.
    pub(super) fn null() -> Self {
        Self { nulls: RowShare::All, nans: RowShare::None, lower: None, upper: None }
    }

    /// Every row has this value.
    pub(super) fn exactly(value: Datum) -> Self {
        if value.is_nan() {
            return Self { nulls: RowShare::None, nans: RowShare::All, lower: None, upper: None };
        }
        Self::between(Some(value.clone()), Some(value))
    }

    /// Every row has a value in this range.
    pub(super) fn between(lower: Option<Datum>, upper: Option<Datum>) -> Self {
        Self { nulls: RowShare::None, nans: RowShare::None, lower, upper }
    }

    /// What follows for a check.
    #[must_use]
    pub fn verdict(&self, check: &ValueCheck) -> FilterVerdict {
        match check {
            ValueCheck::IsNull => of_share(self.nulls),
            ValueCheck::NotNull => negate(of_share(self.nulls)),
            ValueCheck::IsNan if self.nulls == RowShare::All => FilterVerdict::Never,
            ValueCheck::IsNan => self.unless_null(of_share(self.nans)),
            ValueCheck::NotNan => self.unless_null(negate(of_share(self.nans))),
            ValueCheck::Compare(Comparison::NotEqual, value) => {
                self.unless_null(negate(self.equal(value)))
            }
            ValueCheck::NotIn(values) => self.unless_null(negate(self.any_equal(values))),
            ValueCheck::NotStartsWith(prefix) => self.unless_null(negate(self.starts_with(prefix))),
            // Nothing but a value is in a range or equal to another.
            _ if self.nulls == RowShare::All => FilterVerdict::Never,
            ValueCheck::Compare(comparison, value) => {
                self.possible(self.compared(*comparison, value))
            }
            ValueCheck::In(values) => self.possible(self.any_equal(values)),
            ValueCheck::StartsWith(prefix) => self.possible(self.starts_with(prefix)),
        }
    }

    /// A verdict on the values, as one on the rows: of a missing value engines disagree whether it
    /// differs from another.
    fn unless_null(&self, verdict: FilterVerdict) -> FilterVerdict {
        if self.nulls == RowShare::None { verdict } else { FilterVerdict::Maybe }
    }

    /// The same for a check that no missing value passes.
    fn possible(&self, verdict: FilterVerdict) -> FilterVerdict {
        if verdict == FilterVerdict::Always { self.unless_null(verdict) } else { verdict }
    }

    /// A verdict on the values that are there.
    fn compared(&self, comparison: Comparison, value: &Datum) -> FilterVerdict {
        let lower = self.lower.as_ref().and_then(|lower| compare(lower, value));
        let upper = self.upper.as_ref().and_then(|upper| compare(upper, value));
        // Engines disagree whether -0.0 is below 0.0, and most have NaN above every number.
        let is_zero = is_float_zero(value);
        let has_nan = self.nans != RowShare::None;
        let below = |bound: Option<Ordering>, or_equal: bool| match bound {
            Some(Ordering::Less) => true,
            Some(Ordering::Equal) => or_equal,
            _ => false,
        };
        let above =
            |bound: Option<Ordering>, or_equal: bool| below(bound.map(Ordering::reverse), or_equal);
        let (never, always) = match comparison {
            Comparison::Less => (above(lower, !is_zero), below(upper, false)),
            Comparison::LessOrEqual => (above(lower, false), below(upper, !is_zero)),
            Comparison::Greater => (below(upper, !is_zero) && !has_nan, above(lower, false)),
            Comparison::GreaterOrEqual => (below(upper, false) && !has_nan, above(lower, !is_zero)),
            Comparison::Equal => return self.equal(value),
            Comparison::NotEqual => return negate(self.equal(value)),
        };
        match (never, always) {
            (true, _) => FilterVerdict::Never,
            (_, true) if !has_nan => FilterVerdict::Always,
            _ => FilterVerdict::Maybe,
        }
    }

    fn equal(&self, value: &Datum) -> FilterVerdict {
        if value.is_nan() {
            return FilterVerdict::Maybe;
        }
        if let (Some(lower), Some(upper)) = (&self.lower, &self.upper) {
            let is_one = is_equal(lower, upper) == Some(true) && self.nans == RowShare::None;
            match is_equal(lower, value) {
                Some(true) if is_one && !is_float_zero(value) => return FilterVerdict::Always,
                Some(false) if is_one => return FilterVerdict::Never,
                _ => (),
            }
        }
        let lower = self.lower.as_ref().and_then(|lower| compare(lower, value));
        let upper = self.upper.as_ref().and_then(|upper| compare(upper, value));
        let is_outside = lower == Some(Ordering::Greater) || upper == Some(Ordering::Less);
        if is_outside || self.nans == RowShare::All {
            FilterVerdict::Never
        } else {
            FilterVerdict::Maybe
        }
    }

    fn any_equal(&self, values: &[Datum]) -> FilterVerdict {
        let mut verdict = FilterVerdict::Never;
        for value in values {
            match self.equal(value) {
                FilterVerdict::Always => return FilterVerdict::Always,
                FilterVerdict::Maybe => verdict = FilterVerdict::Maybe,
                FilterVerdict::Never => (),
            }
        }
        verdict
    }

    fn starts_with(&self, prefix: &str) -> FilterVerdict {
        let cut = |bound: &Option<Datum>| {
            let PrimitiveLiteral::String(text) = bound.as_ref()?.literal() else { return None };
            Some(text.as_bytes()[..text.len().min(prefix.len())].to_vec())
        };
        let (lower, upper) = (cut(&self.lower), cut(&self.upper));
        let prefix = prefix.as_bytes();
        if lower.as_deref().is_some_and(|lower| lower > prefix)
            || upper.as_deref().is_some_and(|upper| upper < prefix)
        {
            return FilterVerdict::Never;
        }
        // Everything between two texts with a prefix has it too.
        let has = |bound: &Option<Vec<u8>>| bound.as_deref() == Some(prefix);
        if has(&lower) && has(&upper) { FilterVerdict::Always } else { FilterVerdict::Maybe }
    }
}

/// Whether a column's type has NaN at all.
pub(super) fn has_nan(kind: &PrimitiveType) -> bool {
    matches!(kind, PrimitiveType::Float | PrimitiveType::Double)
}

fn is_float_zero(value: &Datum) -> bool {
    match value.literal() {
        PrimitiveLiteral::Float(value) => value.0 == 0.0,
        PrimitiveLiteral::Double(value) => value.0 == 0.0,
        _ => false,
    }
}

fn of_share(share: RowShare) -> FilterVerdict {
    match share {
        RowShare::None => FilterVerdict::Never,
        RowShare::Some => FilterVerdict::Maybe,
        RowShare::All => FilterVerdict::Always,
    }
}

fn negate(verdict: FilterVerdict) -> FilterVerdict {
    match verdict {
        FilterVerdict::Never => FilterVerdict::Always,
        FilterVerdict::Maybe => FilterVerdict::Maybe,
        FilterVerdict::Always => FilterVerdict::Never,
    }
}
