//! Functions that take a value out of JSON text by keys, as `datafusion-functions-json` names them, and what
//! the operators `->` and `->>` are planned as.
//!
//! A key is the name of a member or, of a list, a number: from 0, and from the end where it is negative.
//! A text that begins with `$.` or `$[` is a path. What is not there, or is of another type than the function
//! gives, is null.

use crate::functions::{JsonPath, PathStep, known_path, of_mended, returned, shown};
use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, ListBuilder,
        StringBuilder, StringViewArray,
    },
    datatypes::{DataType, Field, Int64Type},
};
use datafusion::{
    common::plan_err,
    error::DataFusionError,
    logical_expr::{
        ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
    },
    sql::sqlparser::ast::BinaryOperator,
};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::{collections::HashSet, fmt, sync::Arc};

/// What a function gives of the value that it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum JsonAnswer {
    /// Its text: of a string without quotes, of null nothing.
    Text,
    /// Its JSON text.
    Json,
    /// A string.
    String,
    /// A whole number.
    Integer,
    /// A number.
    Float,
    /// True or false.
    Boolean,
    /// The JSON texts of a list's elements.
    Elements,
    /// Whether it is there.
    Presence,
    /// How many elements or members it has.
    Length,
    /// The names of its members.
    Names,
}

/// Every function of this module, and what it gives.
const FUNCTIONS: &[(&str, JsonAnswer)] = &[
    ("json_get", JsonAnswer::Text),
    ("json_as_text", JsonAnswer::Text),
    ("json_get_json", JsonAnswer::Json),
    ("json_get_str", JsonAnswer::String),
    ("json_get_int", JsonAnswer::Integer),
    ("json_get_float", JsonAnswer::Float),
    ("json_get_bool", JsonAnswer::Boolean),
    ("json_get_array", JsonAnswer::Elements),
    ("json_contains", JsonAnswer::Presence),
    ("json_length", JsonAnswer::Length),
    ("json_object_keys", JsonAnswer::Names),
];

/// The functions.
pub fn all() -> impl Iterator<Item = ScalarUDF> {
    let signature = || Signature::user_defined(Volatility::Immutable);
    FUNCTIONS.iter().map(move |&(name, answer)| {
        ScalarUDF::from(JsonFunction { name, answer, signature: signature() })
    })
}

/// The call that an operator of JSON stands for, of `__x` and `__y`.
#[must_use]
pub fn of_operator(operator: &BinaryOperator) -> Option<&'static str> {
    match operator {
        BinaryOperator::Arrow => Some("json_get_json(__x, __y)"),
        BinaryOperator::LongArrow => Some("json_get(__x, __y)"),
        _ => None,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonFunction {
    name: &'static str,
    answer: JsonAnswer,
    signature: Signature,
}

impl ScalarUDFImpl for JsonFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(match self.answer {
            JsonAnswer::Text | JsonAnswer::Json | JsonAnswer::String => DataType::Utf8View,
            JsonAnswer::Integer | JsonAnswer::Length => DataType::Int64,
            JsonAnswer::Float => DataType::Float64,
            JsonAnswer::Boolean | JsonAnswer::Presence => DataType::Boolean,
            JsonAnswer::Elements | JsonAnswer::Names => {
                DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)))
            }
        })
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>, DataFusionError> {
        let Some((_, keys)) = types.split_first() else {
            return plan_err!("`{}` needs a JSON text", self.name);
        };
        let keys = keys.iter().map(|kind| match kind {
            kind if kind.is_integer() => DataType::Int64,
            _ => DataType::Utf8View,
        });
        Ok([DataType::Utf8View].into_iter().chain(keys).collect())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        // The keys are the same for all rows nearly always.
        let are_constant = args.args[1..].iter().all(|key| matches!(key, ColumnarValue::Scalar(_)));
        let answer = of_mended(arrays[0].as_string_view(), |texts| {
            self.answer.of_keys(texts, &arrays[1..], are_constant)
        })?;
        returned(&args.args, answer)
    }
}

impl JsonAnswer {
    /// The answers for the keys of each row, and whether a text may have half of a surrogate pair.
    fn of_keys(
        self,
        texts: &StringViewArray,
        keys: &[ArrayRef],
        are_constant: bool,
    ) -> Result<(ArrayRef, bool), DataFusionError> {
        let (mut path, mut has_lone_surrogate) = (None, false);
        let mut found = Vec::with_capacity(texts.len());
        for (row, text) in texts.iter().enumerate() {
            if row == 0 || !are_constant {
                path = path_of(keys, row)?;
            }
            let (Some(text), Some(path)) = (text, &path) else {
                found.push(None);
                continue;
            };
            let searched = path.find(text)?;
            has_lone_surrogate |= searched.has_lone_surrogate;
            found.push(searched.found);
        }
        Ok((self.of(texts, &found), has_lone_surrogate))
    }

    /// The answers for what was found in these texts.
    fn of(self, texts: &StringViewArray, found: &[Option<&str>]) -> ArrayRef {
        let values = found.iter().copied();
        match self {
            Self::Text => Arc::new(of_texts(values, true)),
            Self::Json => Arc::new(of_texts(values, false)),
            Self::String => {
                let strings = values.map(|value| value.filter(|raw| raw.starts_with('"')));
                Arc::new(of_texts(strings, true))
            }
            Self::Integer => {
                let numbers = values.map(|value| value?.parse::<i64>().ok());
                Arc::new(numbers.collect::<Int64Array>())
            }
            Self::Float => {
                let numbers = values.map(|value| value?.parse::<f64>().ok());
                Arc::new(numbers.collect::<Float64Array>())
            }
            Self::Boolean => {
                let truths = values.map(|value| value?.parse::<bool>().ok());
                Arc::new(truths.collect::<BooleanArray>())
            }
            Self::Elements => of_lists(values, |value| {
                let elements = serde_json::from_str::<Vec<&RawValue>>(value).ok()?;
                Some(elements.into_iter().map(|element| element.get().to_owned()).collect())
            }),
            Self::Presence => {
                let is_known = |(row, value): (usize, Option<&str>)| {
                    texts.is_valid(row).then_some(value.is_some())
                };
                Arc::new(values.enumerate().map(is_known).collect::<BooleanArray>())
            }
            Self::Length => Arc::new(values.map(|value| length(value?)).collect::<Int64Array>()),
            Self::Names => of_lists(values, member_names),
        }
    }
}

fn of_texts<'a>(values: impl Iterator<Item = Option<&'a str>>, unquote: bool) -> StringViewArray {
    values.map(|raw| shown(raw?, unquote)).collect()
}

fn of_lists<'a>(
    values: impl Iterator<Item = Option<&'a str>>,
    list: impl Fn(&'a str) -> Option<Vec<String>>,
) -> ArrayRef {
    let mut lists = ListBuilder::new(StringBuilder::new());
    for value in values {
        match value.and_then(&list) {
            Some(texts) => lists.append_value(texts.into_iter().map(Some)),
            None => lists.append_null(),
        }
    }
    Arc::new(lists.finish())
}

fn length(value: &str) -> Option<i64> {
    let count = match serde_json::from_str::<Vec<IgnoredAny>>(value) {
        Ok(elements) => elements.len(),
        Err(_) => member_names(value)?.len(),
    };
    i64::try_from(count).ok()
}

/// The names of an object's members, in their order. One that is there twice is one member: the last one counts.
fn member_names(value: &str) -> Option<Vec<String>> {
    serde_json::Deserializer::from_str(value).deserialize_map(NameList).ok()
}

struct NameList;

impl<'de> Visitor<'de> for NameList {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let (mut names, mut known) = (Vec::new(), HashSet::new());
        while let Some((name, _)) = members.next_entry::<String, IgnoredAny>()? {
            if known.insert(name.clone()) {
                names.push(name);
            }
        }
        Ok(names)
    }
}

/// The path that the keys of a row are; none where one of them is null.
fn path_of(keys: &[ArrayRef], row: usize) -> Result<Option<JsonPath>, DataFusionError> {
    let mut path = Vec::with_capacity(keys.len());
    for key in keys {
        if key.is_null(row) {
            return Ok(None);
        }
        match key.as_primitive_opt::<Int64Type>() {
            Some(numbers) => path.push(place(numbers.value(row))),
            None => path.extend(steps(key.as_string_view().value(row))?),
        }
    }
    Ok(Some(JsonPath::new(path)))
}

/// The element of this number. One that no list has is where none is.
fn place(number: i64) -> PathStep {
    let distance = usize::try_from(number.unsigned_abs()).unwrap_or(usize::MAX);
    if number < 0 { PathStep::FromEnd(distance) } else { PathStep::Index(distance) }
}

fn steps(key: &str) -> Result<Vec<PathStep>, DataFusionError> {
    if key != "$" && !key.starts_with("$.") && !key.starts_with("$[") {
        return Ok(vec![PathStep::Key(key.to_owned())]);
    }
    known_path(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::{mended, parsed, within};
    use arrow::datatypes::Float64Type;

    const TEXT: &str =
        r#"{"s":"x\"y","n":null,"i":7,"f":2.50,"b":true,"l":[1,"z",null],"$x":{"o":{}},"":0}"#;

    fn check(answer: JsonAnswer, key: &str, expected: &str) {
        let found = JsonPath::new(steps(key).unwrap()).find(TEXT).unwrap().found;
        let array = answer.of(&StringViewArray::from(vec![TEXT]), &[found]);
        let shown = match array.is_null(0) {
            true => "NULL".to_owned(),
            false => arrow::util::display::array_value_to_string(&array, 0).unwrap(),
        };
        assert_eq!(shown, expected, "{answer:?} of {key}");
    }

    #[test]
    fn a_value_is_given_as_the_type_of_the_function() {
        check(JsonAnswer::Text, "s", "x\"y");
        check(JsonAnswer::Json, "s", r#""x\"y""#);
        check(JsonAnswer::Text, "n", "NULL");
        check(JsonAnswer::Json, "n", "null");
        check(JsonAnswer::Text, "f", "2.50");
        check(JsonAnswer::String, "i", "NULL");
        check(JsonAnswer::String, "s", "x\"y");
        check(JsonAnswer::Integer, "i", "7");
        check(JsonAnswer::Integer, "f", "NULL");
        check(JsonAnswer::Float, "i", "7.0");
        check(JsonAnswer::Float, "s", "NULL");
        check(JsonAnswer::Boolean, "b", "true");
        check(JsonAnswer::Boolean, "s", "NULL");
        check(JsonAnswer::Presence, "n", "true");
        check(JsonAnswer::Presence, "none", "false");
        check(JsonAnswer::Length, "l", "3");
        check(JsonAnswer::Length, "$", "8");
        check(JsonAnswer::Length, "s", "NULL");
        check(JsonAnswer::Elements, "l", r#"[1, "z", null]"#);
        check(JsonAnswer::Names, "$x", "[o]");
        check(JsonAnswer::Names, "l", "NULL");
    }

    #[test]
    fn a_member_that_is_there_twice_is_one() {
        let text = r#"{"a":1,"b":2,"\u0061":3}"#;
        let texts = StringViewArray::from(vec![text]);
        let of = |answer: JsonAnswer| answer.of(&texts, &[Some(text)]);
        let names = of(JsonAnswer::Names);
        assert_eq!(arrow::util::display::array_value_to_string(&names, 0).unwrap(), "[a, b]");
        assert_eq!(of(JsonAnswer::Length).as_primitive::<Int64Type>(), &Int64Array::from(vec![2]));
    }

    #[test]
    fn a_key_is_a_name_a_number_or_a_path() {
        check(JsonAnswer::Text, "$.l[1]", "z");
        check(JsonAnswer::Json, "$x", r#"{"o":{}}"#);
        check(JsonAnswer::Text, "", "0");
        check(JsonAnswer::Text, "s.t", "NULL");
        assert!(steps("$.*").is_err());
        let at = |text, number| JsonPath::new(vec![place(number)]).find(text).unwrap().found;
        for (number, expected) in [(0, Some("1")), (-1, Some("3")), (3, None), (-4, None)] {
            assert_eq!(at("[1,2,3]", number), expected, "{number}");
        }
        assert!(at(TEXT, 0).is_none());
    }

    #[test]
    fn a_number_is_given_as_far_as_its_type_reaches() {
        let text = r#"{"a":9007199254740993,"b":9223372036854775808,"c":1e999,"d":-0,"e":1E2}"#;
        let at = |name: &str| JsonPath::new(steps(name).unwrap()).find(text).unwrap().found;
        let found = ["a", "b", "c", "d", "e", "f"].map(at);
        let texts = StringViewArray::from(vec![text; found.len()]);
        let integers = JsonAnswer::Integer.of(&texts, &found);
        let expected = [Some(9_007_199_254_740_993), None, None, Some(0), None, None];
        assert_eq!(integers.as_primitive::<Int64Type>(), &Int64Array::from(expected.to_vec()));
        let floats = JsonAnswer::Float.of(&texts, &found);
        let expected =
            [9007199254740992.0, 9223372036854775808.0, f64::INFINITY, -0.0, 100.0].map(Some);
        let expected = expected.into_iter().chain([None]).collect::<Float64Array>();
        assert_eq!(floats.as_primitive::<Float64Type>(), &expected);
        let shown = JsonAnswer::Text.of(&texts, &found);
        assert_eq!(shown.as_string_view().value(2), "1e999");
    }

    #[test]
    fn keys_and_texts_that_are_null_answer_their_own_rows_alone() {
        let texts = [Some(TEXT), None, Some(TEXT), Some(r#"{"i":[8],"\ud800":1}"#), Some("[]")];
        let texts = StringViewArray::from(texts.to_vec());
        let names = StringViewArray::from(vec![Some("i"), Some("i"), None, Some("i"), Some("i")]);
        let of = |answer: JsonAnswer, keys: &[ArrayRef]| {
            of_mended(&texts, |texts| answer.of_keys(texts, keys, false)).unwrap()
        };
        let names: ArrayRef = Arc::new(names);
        let presence = of(JsonAnswer::Presence, std::slice::from_ref(&names));
        let expected = vec![Some(true), None, Some(false), Some(true), Some(false)];
        assert_eq!(presence.as_boolean(), &BooleanArray::from(expected));

        let numbers = Int64Array::from(vec![Some(0), Some(0), Some(0), Some(-1), None]);
        let elements = of(JsonAnswer::Integer, &[names, Arc::new(numbers)]);
        let expected = vec![None, None, None, Some(8), None];
        assert_eq!(elements.as_primitive::<Int64Type>(), &Int64Array::from(expected));
    }

    #[test]
    fn every_function_answers_odd_texts_as_steps_of_a_parser_do() {
        let key = |name: &str| PathStep::Key(name.to_owned());
        let paths = [
            vec![],
            vec![key("a")],
            vec![key("a"), key("b")],
            vec![key("a"), place(-1)],
            vec![key("a"), place(1), key("b")],
            vec![place(-2)],
            vec![key(r"\ud800")],
            vec![key("x y")],
            vec![key("")],
        ];
        let deep = format!("{}{}", "[".repeat(600), "]".repeat(600));
        let texts = [
            TEXT.to_owned(),
            r#"{"a":{"b":1},"\u0061":{"\u0062":"\u00e9\/\n"},"x\u0020y":[]}"#.to_owned(),
            r#"{"a":[0,{"b":"\ud83d\ude00"}],"a":[0,{"b":"\ud83d","b":"\ude00\ud83d"}]}"#
                .to_owned(),
            r#"{"\ud800":1,"\\ud800":{"c":"\ud800"},"a":"\\ud800"}"#.to_owned(),
            r#"{"\ud800":[null],"a":{"\udfff":2,"b":true}}"#.to_owned(),
            "\t{ \"\" : -1e-7 , \"a\"\r\n: [ 1 , { \"b\" : null } ] } ".to_owned(),
            r#"["\udc00",{"a":1},[ ]]"#.to_owned(),
            format!(r#"{{"\ud800":"\udc00","a":[{deep},{{"b":"\ud800"}}]}}"#),
            format!(r#"{{"z":{deep},"a":{{"b":"x\u0020y"}},"x y":1e999}}"#),
            format!("{deep}]"),
            r#"{"a":"\ud800"} 1"#.to_owned(),
            r#"{"a":"\ud80"}"#.to_owned(),
            r#"{"a":1}{}"#.to_owned(),
            "\u{feff}{}".to_owned(),
            " ".to_owned(),
        ];
        for text in &texts {
            paths.iter().for_each(|path| check_with_parser(text, path));
        }
    }

    fn check_with_parser(text: &str, path: &[PathStep]) {
        let keys: Vec<ArrayRef> = path.iter().map(key_of).collect();
        let texts = StringViewArray::from(vec![text]);
        let readable = mended(&texts).unwrap_or_else(|| texts.clone());
        let whole = parsed(readable.value(0)).ok();
        let found = whole.map(|whole| within(whole, path).map(RawValue::get));
        for (name, answer) in FUNCTIONS {
            let expected = found.map(|found| answer.of(&readable, &[found]));
            let answered = of_mended(&texts, |texts| answer.of_keys(texts, &keys, true)).ok();
            assert_eq!(answered, expected, "{name} at {path:?} of {text:.80}");
        }
    }

    fn key_of(step: &PathStep) -> ArrayRef {
        let number = |number: usize| i64::try_from(number).unwrap();
        match step {
            PathStep::Key(name) => Arc::new(StringViewArray::from(vec![name.as_str()])),
            PathStep::Index(index) => Arc::new(Int64Array::from(vec![number(*index)])),
            PathStep::FromEnd(distance) => Arc::new(Int64Array::from(vec![-number(*distance)])),
        }
    }
}
