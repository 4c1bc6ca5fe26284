use super::*;
use axum::{Router, http::Method, middleware, routing::post};
use std::convert::Infallible;
use tower::ServiceExt;

const PATIENT: MinBodyRate = MinBodyRate { grace: Duration::from_secs(3600), bytes_per_second: 1 };
const BYTES_MAX: usize = 8 << 10;

async fn read(headers: HeaderMap, body: Body) -> Result<String, (StatusCode, String)> {
    let bytes = whole(&headers, body, BYTES_MAX).await;
    bytes.map(|bytes| bytes.len().to_string()).map_err(|cause| (cause.status(), cause.to_string()))
}

fn router(room: &BodyMemory) -> Router {
    let route = post(|headers: HeaderMap, body: Body| async { read(headers, body).await });
    Router::new().route("/", route).layer(middleware::from_fn_with_state(room.clone(), bounded))
}

/// Sends a body in these parts, and then nothing more, without an end.
fn unfinished(parts: &[usize]) -> Body {
    let parts: Vec<_> = parts.iter().map(|bytes| Bytes::from(vec![0; *bytes])).collect();
    let parts = stream::iter(parts.into_iter().map(Ok::<_, Infallible>));
    Body::from_stream(parts.chain(stream::pending()))
}

async fn send(router: &Router, body: Body) -> u16 {
    let request = Request::builder().method(Method::POST).uri("/").body(body).unwrap();
    router.clone().oneshot(request).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_body_that_stops_coming_is_given_up() {
    let pace = MinBodyRate { grace: Duration::from_millis(20), bytes_per_second: 1 << 20 };
    let router = router(&BodyMemory::new(1 << 20, pace));
    for parts in [&[][..], &[1], &[4096]] {
        assert_eq!(send(&router, unfinished(parts)).await, 408, "{parts:?}");
    }
    assert_eq!(send(&router, Body::from(vec![0; BYTES_MAX])).await, 200);
}

#[test]
fn what_comes_buys_time() {
    let since = Instant::now();
    let after = |bytes: usize| (MinBodyRate::SLOWEST.deadline(since, bytes) - since).as_secs();
    assert_eq!((after(0), after(16 << 10), after(10 << 20)), (10, 11, 650));
}

#[tokio::test]
async fn bodies_of_all_requests_together_are_bounded() {
    let room = BodyMemory::new(10 << 10, PATIENT);
    let router = router(&room);
    // It holds its share for as long as it is waited for.
    let mut held = Box::pin(send(&router, unfinished(&[3000, 3000])));
    assert!(futures::poll!(&mut held).is_pending());
    assert_eq!(room.units.available_permits(), 4);
    assert_eq!(send(&router, Body::from(vec![0; 4096])).await, 200);
    assert_eq!(send(&router, Body::from(vec![0; 4097])).await, 503);
    assert_eq!(room.take(5000).unwrap_err(), BodyReadError::NoRoom);
    assert!(room.take(0).is_ok());
    drop(held);
    assert_eq!(room.units.available_permits(), 10, "whoever goes away gives it back");
    assert_eq!(send(&router, Body::from(vec![0; 4097])).await, 200);
    assert_eq!(room.units.available_permits(), 10);
}

#[tokio::test]
async fn a_body_is_as_long_as_its_route_takes() {
    let router = router(&BodyMemory::new(1 << 20, PATIENT));
    assert_eq!(send(&router, Body::from(vec![0; BYTES_MAX + 1])).await, 413);
    assert_eq!(send(&router, unfinished(&[BYTES_MAX, 1])).await, 413, "the rest is not waited for");
    let announced =
        Request::post("/").header("content-length", BYTES_MAX + 1).body(unfinished(&[])).unwrap();
    assert_eq!(router.oneshot(announced).await.unwrap().status(), 413, "nothing is waited for");
}

#[tokio::test]
async fn a_client_that_breaks_off_is_told_apart_from_one_that_is_slow() {
    let router = router(&BodyMemory::new(1 << 20, PATIENT));
    let broken = stream::iter([Ok(Bytes::from_static(b"x")), Err(std::io::Error::other("gone"))]);
    assert_eq!(send(&router, Body::from_stream(broken)).await, 400);
}

#[test]
fn what_is_wrong_with_an_object_is_told_without_words_of_the_code() {
    #[derive(Debug, serde::Deserialize)]
    #[expect(dead_code, reason = "only what does not fit is looked at")]
    struct Inner {
        a: String,
    }
    #[derive(Debug, serde::Deserialize)]
    #[expect(dead_code, reason = "only what does not fit is looked at")]
    struct Outer {
        inner: Inner,
        n: u8,
    }
    for (text, expected) in [
        (r#"["select 1"]"#, "it is a list, not an object"),
        (
            r#""select 1""#,
            "invalid type: string \"select 1\", expected an object at line 1 column 10",
        ),
        (r#"{"inner":7}"#, "invalid type: integer `7`, expected an object at line 1 column 10"),
        (r#"{"inner":[]}"#, "invalid length 0, expected an object at line 1 column 11"),
        (r#"{"n":1}"#, "missing field `inner` at line 1 column 7"),
        ("", "EOF while parsing a value at line 1 column 0"),
    ] {
        let found = parse_object::<Outer>(text.as_bytes()).unwrap_err();
        assert_eq!(found, expected, "{text}");
    }
}
