use super::*;
use serde_json::json;

fn made(seed: u64) -> (Vec<u8>, serde_json::Value) {
    let mut random = StdRng::seed_from_u64(seed);
    let document = json!({"a": [1, 2, {"b": "text"}], "c": null});
    let bytes = mutate_bytes(&mut random, b"{\"a\":[1,2]}", &[b"[true]".to_vec()], 1_000);
    (bytes, mutate_json(&mut random, &document, &[json!({"d": 7})]))
}

#[test]
fn a_seed_makes_the_same_case_again_and_seeds_differ() {
    let all: Vec<_> = (0..500).map(made).collect();
    assert!(all.iter().enumerate().all(|(seed, case)| made(seed as u64) == *case));
    let mut different: Vec<_> =
        all.iter().map(|(bytes, json)| format!("{bytes:?}{json}")).collect();
    different.sort();
    different.dedup();
    assert!(450 < different.len(), "{}", different.len());
    assert!(all.iter().all(|(bytes, _)| bytes.len() <= 1_000));
}

#[test]
fn a_failing_case_is_told_with_its_seed_and_input() {
    let failed =
        catch_unwind(|| run(50, |random| random.random_range(0..10), |n, _| assert!(*n < 9)));
    let text = *failed.unwrap_err().downcast::<String>().unwrap();
    assert!(text.contains("FUZZ_SEED=") && text.ends_with("its input is 9"), "{text}");
}
