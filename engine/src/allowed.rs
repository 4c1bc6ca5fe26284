//! The functions that a query may call: those of DataFusion that have been looked at.
//!
//! A new version of DataFusion brings functions that nobody here has seen; they stay out until they
//! are added. One whose answer can be larger than its arguments belongs in
//! [`crate::bounded_functions::GROWING`] too.
//!
//! Left out are functions with lambdas, and casts to any type of Arrow. Functions that make structs and maps,
//! whose types double with each query around them, and `range`, `array_repeat` and their like, whose answer is as
//! large as a number says, are there only where a query has a process of its own.

use crate::query_process::QueryProcess;
use datafusion::execution::{FunctionRegistry, session_state::SessionState};

/// Functions of one row's values.
#[rustfmt::skip]
pub const SCALAR: &[&str] = &[
    "abs", "acos", "acosh", "array_any_value", "array_append", "array_compact", "array_concat",
    "array_dims", "array_distance", "array_distinct", "array_element", "array_except", "array_has",
    "array_has_all", "array_has_any", "array_intersect", "array_length", "array_max", "array_min",
    "array_ndims", "array_pop_back", "array_pop_front", "array_position", "array_positions",
    "array_prepend", "array_remove", "array_remove_all", "array_remove_n", "array_replace",
    "array_replace_all", "array_replace_n", "array_reverse", "array_slice", "array_sort",
    "array_to_string", "array_union", "arrow_typeof", "ascii", "asin", "asinh", "atan", "atan2",
    "atanh", "bit_length", "btrim", "cardinality", "cbrt", "ceil", "character_length", "chr",
    "coalesce", "concat", "concat_ws", "contains", "cos", "cosh", "cosine_distance", "cot",
    "current_date", "current_time", "date_bin", "date_part", "date_trunc", "decode", "degrees",
    "digest", "empty", "encode", "ends_with", "exp", "factorial", "find_in_set", "flatten", "floor",
    "from_unixtime", "gcd", "get_field", "greatest", "initcap", "inner_product", "isnan", "iszero",
    "lcm", "least", "left", "levenshtein", "ln", "log", "log10", "log2", "lower", "lpad", "ltrim",
    "make_array", "make_date", "make_time", "md5", "nanvl", "now", "nullif", "nvl", "nvl2",
    "octet_length", "overlay", "pi", "power", "radians", "random", "regexp_count", "regexp_instr",
    "regexp_like", "regexp_match", "regexp_replace", "repeat", "replace", "reverse", "right",
    "round", "rpad", "rtrim", "sha224", "sha256", "sha384", "sha512", "signum", "sin", "sinh",
    "split_part", "sqrt", "starts_with", "string_to_array", "strpos", "substr", "substr_index",
    "tan", "tanh", "to_char", "to_date", "to_hex", "to_local_time", "to_time", "to_timestamp",
    "to_timestamp_micros", "to_timestamp_millis", "to_timestamp_nanos", "to_timestamp_seconds",
    "to_unixtime", "translate", "trunc", "upper", "uuid", "version",
];

/// Functions of one row's values whose answers or types have no bound.
#[rustfmt::skip]
pub const UNBOUNDED: &[&str] = &[
    "array_repeat", "array_resize", "generate_series", "map", "map_entries", "map_extract", "map_keys",
    "map_values", "named_struct", "range", "struct",
];

/// Functions that are tables, and have no bound either.
pub const TABLES: &[&str] = &["generate_series", "range"];

/// Functions of many rows.
#[rustfmt::skip]
pub const AGGREGATE: &[&str] = &[
    "approx_distinct", "approx_median", "approx_percentile_cont",
    "approx_percentile_cont_with_weight", "array_agg", "avg", "bit_and", "bit_or", "bit_xor",
    "bool_and", "bool_or", "corr", "count", "covar_pop", "covar_samp", "first_value", "grouping",
    "last_value", "max", "median", "min", "nth_value", "percentile_cont", "regr_avgx", "regr_avgy",
    "regr_count", "regr_intercept", "regr_r2", "regr_slope", "regr_sxx", "regr_sxy", "regr_syy",
    "stddev", "stddev_pop", "string_agg", "sum", "var", "var_pop",
];

/// Functions of a row's place among others.
#[rustfmt::skip]
pub const WINDOW: &[&str] = &[
    "cume_dist", "dense_rank", "first_value", "lag", "last_value", "lead", "nth_value", "ntile",
    "percent_rank", "rank", "row_number",
];

/// Takes every other function out of `state`, by where its queries run.
///
/// # Panics
/// Never: removing a function that is there is no error.
pub fn keep_only(state: &mut SessionState, process: QueryProcess) {
    let there = "a function that is there can be removed";
    let (unbounded, series): (&[&str], &[&str]) = match process {
        QueryProcess::Shared => (&[], &[]),
        QueryProcess::Own => (UNBOUNDED, TABLES),
    };
    for (name, function) in state.scalar_functions().clone() {
        if !SCALAR.contains(&function.name()) && !unbounded.contains(&function.name()) {
            state.deregister_udf(&name).expect(there);
        }
    }
    for (name, function) in state.aggregate_functions().clone() {
        if !AGGREGATE.contains(&function.name()) {
            state.deregister_udaf(&name).expect(there);
        }
    }
    for (name, function) in state.window_functions().clone() {
        if !WINDOW.contains(&function.name()) {
            state.deregister_udwf(&name).expect(there);
        }
    }
    for name in state.higher_order_function_names() {
        state.deregister_higher_order_function(&name).expect(there);
    }
    let tables: Vec<String> = state.table_functions().keys().cloned().collect();
    for name in tables.into_iter().filter(|name| !series.contains(&name.as_str())) {
        state.deregister_udtf(&name).expect(there);
    }
}

#[cfg(test)]
mod tests;
