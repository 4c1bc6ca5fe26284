//! Functions beyond DataFusion's: values out of JSON text, as DuckDB names and answers them.

pub mod members;

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, StringViewArray, StringViewBuilder},
    datatypes::DataType,
};
use datafusion::{
    common::{ScalarValue, exec_datafusion_err},
    error::DataFusionError,
    logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf},
};
use icecore_lake::{
    event::json::{JsonSearch, find_member, without_lone_surrogates},
    table::promoted::json::member_of,
};
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt, sync::Arc};

/// Most characters of a text that an error shows.
const SHOWN_MAX: usize = 40;

/// Every function of this module.
///
/// - `json_extract(json, path)`: the JSON text at the path.
/// - `json_extract_string(json, path)`: the same, a JSON string without quotes and escapes, and SQL
///   null for JSON null.
///
/// - `json_valid(json)`: whether a text is JSON.
///
/// - `json_get(json, key, …)` and its like: see [`members`].
///
/// A path is `$.member[0]."odd name"`, or one member's name alone; in a name in quotes `\"` is a quote and `\\` a
/// backslash. What is not there is null; a text that is not JSON is an error.
#[must_use]
pub fn all() -> Vec<ScalarUDF> {
    let text = || DataType::Utf8View;
    let function = |name: &str, unquote: bool| {
        let body = move |arguments: &[ColumnarValue]| extract(arguments, unquote);
        create_udf(name, vec![text(), text()], text(), Volatility::Immutable, Arc::new(body))
    };
    let valid = create_udf(
        "json_valid",
        vec![text()],
        DataType::Boolean,
        Volatility::Immutable,
        Arc::new(are_valid),
    );
    let of_paths = [function("json_extract", false), function("json_extract_string", true)];
    of_paths.into_iter().chain([valid]).chain(members::all()).collect()
}

fn are_valid(arguments: &[ColumnarValue]) -> Result<ColumnarValue, DataFusionError> {
    let arrays = ColumnarValue::values_to_arrays(arguments)?;
    let is_json = |text: &str| {
        find_member(text, &[]).is_some() || serde_json::from_str::<&RawValue>(text).is_ok()
    };
    let found = arrays[0].as_string_view().iter().map(|text| text.map(is_json));
    returned(arguments, Arc::new(found.collect::<BooleanArray>()))
}

/// Texts in which half of a surrogate pair is its escape, as in those of events: JSON has such halves, and text
/// has none. None where no text has one.
fn mended(texts: &StringViewArray) -> Option<StringViewArray> {
    let mend = |text: &str| {
        let may_have_one = text.contains("\\u") && serde_json::from_str::<&RawValue>(text).is_ok();
        may_have_one.then(|| without_lone_surrogates(text)).flatten()
    };
    texts.iter().flatten().find_map(mend)?;
    let mended = texts
        .iter()
        .map(|text| text.map(|text| mend(text).map_or(Cow::Borrowed(text), Cow::Owned)));
    Some(mended.collect())
}

/// What a function answers for these texts; where one has half of a surrogate pair, for their [`mended`] form. The
/// function says with its answer whether one may have it, so texts are not searched for it beforehand.
fn of_mended<A>(
    texts: &StringViewArray,
    answer: impl Fn(&StringViewArray) -> Result<(A, bool), DataFusionError>,
) -> Result<A, DataFusionError> {
    let (answered, has_lone_surrogate) = answer(texts)?;
    match has_lone_surrogate.then(|| mended(texts)).flatten() {
        Some(mended) => Ok(answer(&mended)?.0),
        None => Ok(answered),
    }
}

fn extract(arguments: &[ColumnarValue], unquote: bool) -> Result<ColumnarValue, DataFusionError> {
    let arrays = ColumnarValue::values_to_arrays(arguments)?;
    let (texts, paths) = (arrays[0].as_string_view(), arrays[1].as_string_view());
    let values = of_mended(texts, |texts| extracted(texts, paths, unquote))?;
    returned(arguments, Arc::new(values))
}

/// The values, and whether a text may have half of a surrogate pair.
fn extracted(
    texts: &StringViewArray,
    paths: &StringViewArray,
    unquote: bool,
) -> Result<(StringViewArray, bool), DataFusionError> {
    let mut values = StringViewBuilder::with_capacity(texts.len());
    let mut has_lone_surrogate = false;
    // The path is the same for all rows nearly always, so the last one is kept.
    let mut last = ("$", JsonPath::default());
    for (text, path) in texts.iter().zip(paths.iter()) {
        let (Some(text), Some(path)) = (text, path) else {
            values.append_null();
            continue;
        };
        if last.0 != path {
            last = (path, JsonPath::new(known_path(path)?));
        }
        let searched = last.1.find(text)?;
        has_lone_surrogate |= searched.has_lone_surrogate;
        values.append_option(searched.found.and_then(|raw| shown(raw, unquote)));
    }
    Ok((values.finish(), has_lone_surrogate))
}

/// What a function answers: one value if all its arguments are one.
///
/// # Errors
/// None for arrays of types that functions make.
pub(super) fn returned(
    arguments: &[ColumnarValue],
    array: ArrayRef,
) -> Result<ColumnarValue, DataFusionError> {
    let is_scalar = arguments.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
    if is_scalar && array.len() == 1 {
        return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?));
    }
    Ok(ColumnarValue::Array(array))
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum PathStep {
    /// A member of an object.
    Key(String),
    /// An element of an array, from 0.
    Index(usize),
    /// An element of an array, from its end: 1 is the last one.
    FromEnd(usize),
}

/// A path as it is followed in many texts.
#[derive(Debug, Default)]
struct JsonPath {
    /// The members that it begins with; they are looked for while the text is read.
    members: Vec<String>,
    /// What follows, from an element of an array on.
    rest: Vec<PathStep>,
}

impl JsonPath {
    fn new(steps: Vec<PathStep>) -> Self {
        let mut path = Self::default();
        for step in steps {
            match step {
                PathStep::Key(name) if path.rest.is_empty() => path.members.push(name),
                step => path.rest.push(step),
            }
        }
        path
    }

    /// What a text has at the end of the path.
    fn find<'a>(&self, text: &'a str) -> Result<JsonSearch<'a>, DataFusionError> {
        let searched = match find_member(text, &self.members) {
            Some(searched) => searched,
            // It is no JSON, or nested too deep for that search.
            None => {
                let whole = parsed(text)?;
                let found =
                    self.members.iter().try_fold(whole, |found, name| member_of(found, name));
                let has_lone_surrogate = text.contains("\\u");
                JsonSearch { found: found.map(RawValue::get), has_lone_surrogate }
            }
        };
        let found = searched.found.and_then(|raw| match self.rest.as_slice() {
            [] => Some(raw),
            rest => within(serde_json::from_str(raw).ok()?, rest).map(RawValue::get),
        });
        Ok(JsonSearch { found, ..searched })
    }
}

/// The one JSON value that a text is.
fn parsed(text: &str) -> Result<&RawValue, DataFusionError> {
    serde_json::from_str(text).map_err(|_| {
        let start: String = text.chars().take(SHOWN_MAX).collect();
        exec_datafusion_err!(
            "`{start}` is not JSON; CASE WHEN json_valid(x) THEN json_extract(x, path) END takes out of JSON alone"
        )
    })
}

/// The value at the end of the path, if it leads to one.
fn within<'a>(whole: &'a RawValue, path: &[PathStep]) -> Option<&'a RawValue> {
    path.iter().try_fold(whole, |found, step| match step {
        PathStep::Key(name) => member_of(found, name),
        PathStep::Index(index) => {
            let mut json = serde_json::Deserializer::from_str(found.get());
            json.deserialize_seq(ElementSearch(*index)).ok()?
        }
        PathStep::FromEnd(distance) => {
            let elements: Vec<&RawValue> = serde_json::from_str(found.get()).ok()?;
            elements.get(elements.len().checked_sub(*distance)?).copied()
        }
    })
}

/// A value's text. With `unquote` that of a string is without quotes and escapes, and null has none.
fn shown(raw: &str, unquote: bool) -> Option<Cow<'_, str>> {
    match raw.as_bytes().first()? {
        b'n' if unquote => None,
        b'"' if unquote && raw.contains('\\') => serde_json::from_str(raw).ok().map(Cow::Owned),
        b'"' if unquote => Some(Cow::Borrowed(raw.strip_prefix('"')?.strip_suffix('"')?)),
        _ => Some(Cow::Borrowed(raw)),
    }
}

/// Finds an element of an array.
struct ElementSearch(usize);

impl<'de> Visitor<'de> for ElementSearch {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let (mut at, mut found) = (0, None);
        while let Some(element) = elements.next_element::<&RawValue>()? {
            if at == self.0 {
                found = Some(element);
            }
            at += 1;
        }
        Ok(found)
    }
}

/// The steps of a path that a statement has.
fn known_path(path: &str) -> Result<Vec<PathStep>, DataFusionError> {
    parse_path(path).ok_or_else(|| {
        exec_datafusion_err!(
            "`{path}` is not a JSON path here; write $.member[0].\"odd name\", or a member's name"
        )
    })
}

/// `$`, `$.a`, `$.a[0]."b c"`, or one member's name; a pattern or a pointer is none.
fn parse_path(path: &str) -> Option<Vec<PathStep>> {
    let Some(mut rest) = path.strip_prefix('$') else {
        let is_name = !path.is_empty() && !path.starts_with('/');
        return is_name.then(|| vec![PathStep::Key(path.to_owned())]);
    };
    let mut nodes = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let (index, after) = after.split_once(']')?;
            nodes.push(PathStep::Index(index.parse().ok()?));
            rest = after;
        } else if let Some(after) = rest.strip_prefix(".\"") {
            let (name, after) = quoted_name(after)?;
            nodes.push(PathStep::Key(name));
            rest = after;
        } else {
            let after = rest.strip_prefix('.')?;
            let end = after.find(['.', '[']).unwrap_or(after.len());
            let (name, after) = after.split_at(end);
            if ["", "*"].contains(&name) {
                return None;
            }
            nodes.push(PathStep::Key(name.to_owned()));
            rest = after;
        }
    }
    Some(nodes)
}

/// A member's name up to the quote that ends it, and what follows that. `\"` is a quote in the name and `\\` a
/// backslash, as in PostgreSQL. A backslash before any other sign is itself: half of a surrogate pair is written so.
fn quoted_name(text: &str) -> Option<(String, &str)> {
    let (mut name, mut rest) = (String::new(), text);
    loop {
        let (plain, special) = rest.split_at(rest.find(['"', '\\'])?);
        name.push_str(plain);
        let (sign, after) = match special.as_bytes() {
            [b'"', ..] => return Some((name, &special[1..])),
            [b'\\', b'"', ..] => ('"', &special[2..]),
            [b'\\', b'\\', ..] => ('\\', &special[2..]),
            _ => ('\\', &special[1..]),
        };
        name.push(sign);
        rest = after;
    }
}

#[cfg(test)]
mod tests;
