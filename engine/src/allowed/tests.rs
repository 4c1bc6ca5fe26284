use super::*;
use crate::bounded_functions::GROWING;
use datafusion::execution::session_state::SessionStateBuilder;

#[test]
fn what_is_named_is_there_and_nothing_else_is() {
    let mut state = SessionStateBuilder::new_with_default_features().build();
    assert!(state.scalar_functions().contains_key("array_repeat"));
    keep_only(&mut state, QueryProcess::Shared);
    for name in SCALAR {
        assert!(state.scalar_functions().contains_key(*name), "`{name}` is not there");
    }
    for name in AGGREGATE {
        assert!(state.aggregate_functions().contains_key(*name), "`{name}` is not there");
    }
    for name in WINDOW {
        assert!(state.window_functions().contains_key(*name), "`{name}` is not there");
    }
    for name in ["array_repeat", "list_repeat", "range", "struct", "row", "map", "arrow_cast"] {
        assert!(!state.scalar_functions().contains_key(name), "`{name}` is still there");
    }
    assert!(state.scalar_functions().values().all(|function| SCALAR.contains(&function.name())));
    assert!(state.higher_order_function_names().is_empty());
    assert!(state.table_functions().is_empty());
    let ours = crate::time::all();
    let is_there = |name: &&str| {
        let is_ours = || ours.iter().any(|function| function.name() == *name);
        SCALAR.contains(name) || UNBOUNDED.contains(name) || is_ours()
    };
    assert!(GROWING.iter().all(is_there), "a bound for what is not there");
}

#[test]
fn a_process_of_its_own_has_what_outgrows_memory_too() {
    let mut state = SessionStateBuilder::new_with_default_features().build();
    keep_only(&mut state, QueryProcess::Own);
    for name in UNBOUNDED {
        assert!(state.scalar_functions().contains_key(*name), "`{name}` is not there");
    }
    for name in TABLES {
        assert!(state.table_functions().contains_key(*name), "`{name}` is not there");
    }
    assert_eq!(state.table_functions().len(), TABLES.len());
    assert!(!state.scalar_functions().contains_key("arrow_cast"));
    assert!(state.higher_order_function_names().is_empty());
}
