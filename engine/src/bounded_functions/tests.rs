use super::*;
use arrow::{array::StringArray, datatypes::Field};
use datafusion::{
    common::config::ConfigOptions,
    execution::memory_pool::GreedyMemoryPool,
    functions::{string, unicode},
};
use std::time::Duration;

const POOL_BYTES: usize = 64 << 20;

struct Bench {
    pool: Arc<dyn MemoryPool>,
    growth: Arc<FunctionMemory>,
    deadline: Instant,
}

impl Bench {
    fn new() -> Self {
        Self::of(QueryProcess::Shared)
    }

    fn of(process: QueryProcess) -> Self {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(POOL_BYTES));
        let growth = FunctionMemory::new(Arc::clone(&pool), process);
        Self { pool, growth, deadline: Instant::now() + Duration::from_secs(600) }
    }

    fn call(
        &self,
        function: &ScalarUDF,
        args: Vec<ColumnarValue>,
        rows: usize,
    ) -> Result<ColumnarValue, DataFusionError> {
        let bounded = self.growth.bound(Arc::new(function.clone()), self.deadline);
        let field = |data_type| Arc::new(Field::new("x", data_type, true));
        let is_test = function.name() == "regexp_like";
        let returns = if is_test { DataType::Boolean } else { DataType::Utf8 };
        bounded.invoke_with_args(ScalarFunctionArgs {
            arg_fields: args.iter().map(|value| field(value.data_type())).collect(),
            args,
            number_rows: rows,
            return_field: field(returns),
            config_options: Arc::new(ConfigOptions::default()),
        })
    }
}

fn texts(text: &str, rows: usize) -> ColumnarValue {
    ColumnarValue::Array(Arc::new(StringArray::from(vec![text; rows])))
}

fn text(text: &str) -> ColumnarValue {
    ColumnarValue::Scalar(ScalarValue::Utf8(Some(text.to_owned())))
}

fn number(number: i64) -> ColumnarValue {
    ColumnarValue::Scalar(ScalarValue::Int64(Some(number)))
}

#[test]
fn a_process_of_its_own_makes_larger_constants() {
    let arguments = |count| vec![text("x"), number(count)];
    let (shared, own) = (Bench::new(), Bench::of(QueryProcess::Own));
    shared.call(&string::repeat(), arguments(100_000), 1).unwrap_err();
    let made = own.call(&string::repeat(), arguments(100_000), 1).unwrap();
    let ColumnarValue::Scalar(made) = made else { panic!("it is a constant") };
    assert_eq!(scalar_bytes(&made), 100_000);
    let error = own.call(&string::repeat(), arguments(1 << 40), 1).unwrap_err();
    assert!(error.to_string().contains("shorten its arguments"), "{error}");
    assert_eq!(own.pool.reserved(), 0, "what was reserved is given back");
}

#[test]
fn what_fits_is_made_in_pieces_and_counted_while_it_is_held() {
    let bench = Bench::new();
    // It could be 1 000 times as long, and is in fact 50 times as long.
    let long = "some text with an é".repeat(10);
    let args = vec![texts(&long, 1_000), text("é"), text(&"-".repeat(1_000))];
    let made = bench.call(&string::replace(), args, 1_000).unwrap();
    let ColumnarValue::Array(array) = made else { panic!("it is an array") };
    assert_eq!(array.len(), 1_000);
    let expected = long.replace('é', &"-".repeat(1_000));
    assert!(array.as_string::<i32>().iter().all(|made| made == Some(expected.as_str())));
    let held = bench.pool.reserved();
    assert!(array.get_array_memory_size() <= held, "{held} bytes are reserved");
    drop(array);
    bench.growth.sweep();
    assert_eq!(bench.pool.reserved(), 0);
}

#[test]
fn what_does_not_fit_is_refused_before_it_is_made() {
    let bench = Bench::new();
    let refused = |made: Result<ColumnarValue, DataFusionError>| made.unwrap_err().to_string();
    let one = bench.call(&string::repeat(), vec![texts("xy", 1), number(2_000_000_000)], 1);
    assert!(refused(one).contains("`repeat` could produce a value of more than 134217728 bytes"));
    let fill = vec![texts("xy", 2), number(i64::MAX), text("é")];
    assert!(refused(bench.call(&unicode::lpad(), fill, 2)).contains("`lpad` could produce"));
    let constant = bench.call(&string::repeat(), vec![text("xy"), number(3_000)], 8_192);
    assert!(refused(constant).contains("more than 4096 bytes"));
    // Each value fits, all of them do not.
    let many = bench.call(&string::repeat(), vec![texts("xy", 100), number(1_000_000)], 100);
    assert!(refused(many).contains("Resources exhausted"));
    bench.growth.sweep();
    assert_eq!(bench.pool.reserved(), 0, "nothing is held of what failed");
}

#[test]
fn a_batch_is_left_when_its_query_has_ended() {
    let mut bench = Bench::new();
    bench.deadline = Instant::now() - Duration::from_secs(1);
    let args = || vec![texts("xy", 100), number(100_000)];
    let made = bench.call(&string::repeat(), args(), 100);
    assert!(made.unwrap_err().to_string().contains("the query has ended"));
}

#[test]
fn the_bound_on_an_answer_holds() {
    let case = |name: &str, args: Vec<ColumnarValue>, made: usize| {
        let most = most(name, &args, 1);
        assert!(made <= most, "`{name}` makes {made} bytes, not {most}");
    };
    case("replace", vec![texts("aaaa", 1), text(""), text("bbb")], 4 + 5 * 3);
    case("regexp_replace", vec![texts("aaaa", 1), text("a*"), text("$0$0")], 8);
    case("regexp_replace", vec![texts("ab", 1), text("x*"), text("bbb"), text("g")], 2 + 3 * 3);
    case("lpad", vec![texts("", 1), number(9), text("é")], 18);
    case("rpad", vec![texts("", 1), number(9), text("😀")], 36);
    case("repeat", vec![texts("abc", 1), number(7)], 21);
    case("upper", vec![texts("ŉŉ", 1)], 6);
    case("encode", vec![texts("abc", 1), text("hex")], 6);
    case("concat_ws", vec![text("--"), texts("a", 1), text("b"), text("c")], 7);
    case("to_char", vec![number(0), text("%c%c")], 48);
}

#[test]
fn what_takes_too_many_steps_is_refused_and_the_rest_goes_in_pieces() {
    let bench = Bench::new();
    let long = "x".repeat(100_000);
    let one = bench.call(&string::btrim(), vec![texts(&long, 1), text(&long)], 1);
    assert!(one.unwrap_err().to_string().contains("`btrim` would take more than"));
    let short = "x".repeat(900);
    let args = vec![texts(&short, 100), text(&short)];
    let made = bench.call(&string::btrim(), args, 100).unwrap();
    let ColumnarValue::Array(array) = made else { panic!("it is an array") };
    assert_eq!(array.len(), 100);
}

#[test]
fn a_regular_expression_over_long_texts_ends_with_its_query() {
    let mut bench = Bench::new();
    let function = datafusion::functions::regex::regexp_like();
    let args = || vec![texts(&"x".repeat(64 << 10), 1_000), text("y{1,20}(a|b)+z$")];
    let made = bench.call(&function, args(), 1_000).unwrap().into_array(1_000).unwrap();
    assert_eq!((made.len(), made.as_boolean().true_count()), (1_000, 0));
    assert_eq!(bench.pool.reserved(), 0);
    bench.deadline = Instant::now() - Duration::from_secs(1);
    let ended = bench.call(&function, args(), 1_000).unwrap_err();
    assert!(ended.to_string().contains("the query has ended"), "{ended}");
}
