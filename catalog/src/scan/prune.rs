//! Verdicts on a filter from what a manifest list says of a manifest, and a manifest of a file.

use super::{
    facts::{RowShare, TermFacts, has_nan},
    filter::{Comparison, Filter, FilterTest, FilterVerdict, Term, ValueCheck, datum, transformed},
    manifests::{ColumnBounds, PlannedFile},
    range::{self, RangeEnd},
};
use iceberg::spec::{
    Datum, FieldSummary, Literal, ManifestFile, PartitionField, PrimitiveType, TableMetadata,
    Transform, Type,
};

/// Whether a manifest may list a file with a row that meets the filter.
pub(super) fn may_list(metadata: &TableMetadata, manifest: &ManifestFile, filter: &Filter) -> bool {
    let Some(spec) = metadata.partition_spec_by_id(manifest.partition_spec_id) else {
        return true;
    };
    let summaries = manifest.partitions.as_deref().unwrap_or_default();
    if spec.fields().len() != summaries.len() {
        return true;
    }
    let known = |test: &FilterTest| {
        let fields = spec.fields().iter().zip(summaries);
        of_fields(test, fields, of_summary)
    };
    filter.verdict(&known) != FilterVerdict::Never
}

/// Whether a file may have a row that meets the filter.
pub(super) fn may_match(metadata: &TableMetadata, file: &PlannedFile, filter: &Filter) -> bool {
    let known =
        |test: &FilterTest| by_partition(metadata, file, test).or_else(|| by_bounds(file, test));
    filter.verdict(&known) != FilterVerdict::Never
}

/// Whether a file's partition may have a row that meets the filter, whatever is known of the file itself.
#[must_use]
pub fn partition_may_match(metadata: &TableMetadata, file: &PlannedFile, filter: &Filter) -> bool {
    filter.verdict(&|test: &FilterTest| by_partition(metadata, file, test)) != FilterVerdict::Never
}

/// What the file's partition leaves of the filter to check on its rows.
pub(super) fn residual(metadata: &TableMetadata, file: &PlannedFile, filter: &Filter) -> Filter {
    filter.residual(&|test| by_partition(metadata, file, test))
}

fn by_partition(metadata: &TableMetadata, file: &PlannedFile, test: &FilterTest) -> FilterVerdict {
    let Some(spec) = metadata.partition_spec_by_id(file.spec_id) else {
        return FilterVerdict::Maybe;
    };
    let fields = spec.fields().iter().zip(file.partition.iter());
    of_fields(test, fields, |field, value, source| {
        let Some(value) = value else { return Some(PartitionFacts::null()) };
        let Literal::Primitive(value) = value else { return None };
        let exact = if let Transform::Identity = field.transform {
            datum(value, source)
        } else {
            result_type(field.transform, source).and_then(|kind| datum(value, &kind))
        };
        let end = |end| range::end(field.transform, value, source, end);
        Some(PartitionFacts {
            of_field: exact.map_or_else(unknown_value, TermFacts::exactly),
            lower: end(RangeEnd::Lower),
            upper: end(RangeEnd::Upper),
        })
    })
}

/// What is known of a partition field, and of the column behind it.
struct PartitionFacts {
    of_field: TermFacts,
    lower: Option<Datum>,
    upper: Option<Datum>,
}

impl PartitionFacts {
    fn null() -> Self {
        Self { of_field: TermFacts::null(), lower: None, upper: None }
    }
}

fn unknown_value() -> TermFacts {
    TermFacts { nulls: RowShare::None, nans: RowShare::Some, lower: None, upper: None }
}

fn of_summary(
    field: &PartitionField,
    summary: &FieldSummary,
    source: &PrimitiveType,
) -> Option<PartitionFacts> {
    let kind = result_type(field.transform, source)?;
    let bound = |bytes: &[u8]| Datum::try_from_bytes(bytes, kind.clone()).ok();
    let lower = summary.lower_bound.as_ref().and_then(|bytes| bound(bytes));
    let upper = summary.upper_bound.as_ref().and_then(|bytes| bound(bytes));
    let nans = match (has_nan(&kind), summary.contains_nan) {
        (false, _) | (true, Some(false)) => RowShare::None,
        (true, None | Some(true)) => RowShare::Some,
    };
    let end = |bound: &Option<Datum>, end| {
        range::end(field.transform, bound.as_ref()?.literal(), source, end)
    };
    let hides = |highest: &Datum| range::may_hide_wrapped(field.transform, highest.literal());
    let is_whole = !upper.as_ref().is_some_and(hides);
    Some(PartitionFacts {
        lower: end(&lower, RangeEnd::Lower).filter(|_| is_whole),
        upper: end(&upper, RangeEnd::Upper),
        of_field: TermFacts {
            nulls: if summary.contains_null { RowShare::Some } else { RowShare::None },
            nans,
            lower,
            upper,
        },
    })
}

/// The most decided verdict of the partition fields that are made from the test's column.
fn of_fields<'a, V>(
    test: &FilterTest,
    fields: impl Iterator<Item = (&'a PartitionField, V)>,
    facts: impl Fn(&PartitionField, V, &PrimitiveType) -> Option<PartitionFacts>,
) -> FilterVerdict {
    let of_column = fields.filter(|(field, _)| {
        field.source_id == test.term.field_id
            && !matches!(field.transform, Transform::Void | Transform::Unknown)
    });
    of_column.fold(FilterVerdict::Maybe, |verdict, (field, value)| {
        verdict.or_else(|| match facts(field, value, &test.term.source) {
            Some(facts) => of_field(test, field.transform, facts),
            None => FilterVerdict::Maybe,
        })
    })
}

fn of_field(test: &FilterTest, transform: Transform, facts: PartitionFacts) -> FilterVerdict {
    let term = &test.term;
    if term.transform == transform {
        return facts.of_field.verdict(&test.check);
    }
    let PartitionFacts { of_field, lower, upper } = facts;
    let nulls = of_field.nulls;
    if let (Transform::Bucket(_), Transform::Identity) = (transform, term.transform) {
        let of_buckets = in_buckets(transform, &test.check).map(|check| of_field.verdict(&check));
        // A value that is in the bucket need not be the one that is looked for.
        if of_buckets == Some(FilterVerdict::Never) {
            return FilterVerdict::Never;
        }
    }
    // Only an identity field says which values are NaN.
    let nans = match (has_nan(&term.source), transform) {
        (true, Transform::Identity) => of_field.nans,
        (true, _) => RowShare::Some,
        (false, _) => RowShare::None,
    };
    of_source(term, TermFacts { nulls, nans, lower, upper }).verdict(&test.check)
}

/// A check of values as one of their buckets.
fn in_buckets(bucket: Transform, check: &ValueCheck) -> Option<ValueCheck> {
    match check {
        ValueCheck::Compare(Comparison::Equal, value) => {
            Some(ValueCheck::Compare(Comparison::Equal, transformed(bucket, value)?))
        }
        ValueCheck::In(values) => values
            .iter()
            .map(|value| transformed(bucket, value))
            .collect::<Option<_>>()
            .map(ValueCheck::In),
        _ => None,
    }
}

/// What is known of a term, from what is known of its column.
fn of_source(term: &Term, facts: TermFacts) -> TermFacts {
    if term.transform == Transform::Identity {
        return facts;
    }
    let is_one = facts.lower.is_some() && facts.lower == facts.upper;
    let apply = |bound: Option<Datum>| {
        // Buckets are in no order; those of one value are one.
        let keeps = term.transform.preserves_order() || is_one;
        bound.filter(|_| keeps).and_then(|bound| transformed(term.transform, &bound))
    };
    TermFacts {
        nulls: facts.nulls,
        nans: if has_nan(&term.result) { RowShare::Some } else { RowShare::None },
        lower: apply(facts.lower),
        upper: apply(facts.upper),
    }
}

fn by_bounds(file: &PlannedFile, test: &FilterTest) -> FilterVerdict {
    let Some(known) = file.column(test.term.field_id) else { return FilterVerdict::Maybe };
    let facts = of_column(file, known, &test.term.source);
    of_source(&test.term, facts).verdict(&test.check)
}

fn of_column(file: &PlannedFile, known: &ColumnBounds, kind: &PrimitiveType) -> TermFacts {
    let values = known.values.unwrap_or(file.rows);
    let nulls = match known.nulls {
        Some(0) => RowShare::None,
        Some(nulls) if nulls == values => RowShare::All,
        Some(_) | None => RowShare::Some,
    };
    let nans = match known.nans {
        _ if !has_nan(kind) => RowShare::None,
        Some(0) => RowShare::None,
        Some(nans) if nans + known.nulls.unwrap_or(0) == values => RowShare::All,
        Some(_) | None => RowShare::Some,
    };
    TermFacts { nulls, nans, lower: known.lower.clone(), upper: known.upper.clone() }
}

fn result_type(transform: Transform, source: &PrimitiveType) -> Option<PrimitiveType> {
    let made = transform.result_type(&Type::Primitive(source.clone())).ok()?;
    made.as_primitive_type().cloned()
}
