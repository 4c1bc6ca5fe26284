use super::*;
use axum::response::IntoResponse;

#[test]
fn a_panic_while_decoding_fails_its_request_alone() {
    let failed = isolated::<()>(|| panic!("secret of the inside")).unwrap_err();
    assert!(!format!("{failed:?}").contains("secret"), "{failed:?}");
    assert_eq!(failed.into_response().status(), 500);
    assert_eq!(isolated(|| 7).unwrap(), 7);
}
