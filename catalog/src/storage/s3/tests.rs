use crate::{
    error::CatalogError,
    storage::{S3Options, Storage, probe::ProbeFailure},
};
use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};
use tokio::task::JoinSet;

/// A store that knows no `POST ?delete`.
#[derive(Default)]
struct PlainStore {
    /// By the path of the request, encoded as it came.
    objects: HashMap<String, Bytes>,
    /// What it answers to `DELETE` in the place of doing it, the last one first; the text of a redirect is
    /// where it goes.
    refusals: Vec<(u16, &'static str)>,
    /// Requests to delete something.
    asked: Vec<String>,
}

impl PlainStore {
    fn answer(&mut self, method: &Method, uri: &Uri, headers: &HeaderMap, body: Bytes) -> Response {
        let is_signed = headers["authorization"]
            .to_str()
            .is_ok_and(|text| text.contains("/us-east-1/s3/aws4_request"));
        assert!(is_signed, "{method} {uri}");
        let path = uri.path().to_owned();
        match method.as_str() {
            "PUT" => {
                self.objects.insert(path, body);
                [(header::ETAG, "\"e\"")].into_response()
            }
            "GET" => match self.objects.get(&path) {
                Some(bytes) => ([(header::ETAG, "\"e\"")], bytes.clone()).into_response(),
                None => {
                    (StatusCode::NOT_FOUND, "<Error><Code>NoSuchKey</Code></Error>").into_response()
                }
            },
            "DELETE" => {
                self.asked.push(format!("DELETE {path}"));
                if let Some((status, text)) = self.refusals.pop() {
                    if (300..400).contains(&status) && !text.is_empty() {
                        let to = [(header::LOCATION, text)];
                        return (StatusCode::from_u16(status).unwrap(), to).into_response();
                    }
                    return (StatusCode::from_u16(status).unwrap(), text).into_response();
                }
                self.objects.remove(&path);
                StatusCode::NO_CONTENT.into_response()
            }
            _ => {
                self.asked.push(format!("{method} {uri}"));
                let text = "<Error><Code>NotImplemented</Code></Error>";
                (StatusCode::NOT_IMPLEMENTED, text).into_response()
            }
        }
    }
}

/// The warehouse `s3://bucket/prefix` on such a store.
struct House {
    store: Arc<Mutex<PlainStore>>,
    storage: Storage,
    _server: JoinSet<std::io::Result<()>>,
}

impl House {
    async fn new(refusals: &[(u16, &'static str)]) -> Self {
        let refusals = refusals.iter().rev().copied().collect();
        let store = Arc::new(Mutex::new(PlainStore { refusals, ..PlainStore::default() }));
        let played = Arc::clone(&store);
        let answer = move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
            let played = Arc::clone(&played);
            async move { played.lock().unwrap().answer(&method, &uri, &headers, body) }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/", listener.local_addr().unwrap());
        let mut server = JoinSet::new();
        let router = Router::new().fallback(answer);
        server.spawn(async move { axum::serve(listener, router).await });
        let options = S3Options {
            endpoint: Some(endpoint),
            access_key_id: Some("id".to_owned()),
            secret_access_key: Some("secret".to_owned()),
            ..S3Options::default()
        };
        let storage = Storage::open("s3://bucket/prefix", &options).unwrap();
        Self { store, storage, _server: server }
    }

    fn asked(&self) -> Vec<String> {
        self.store.lock().unwrap().asked.clone()
    }

    fn is_empty(&self) -> bool {
        self.store.lock().unwrap().objects.is_empty()
    }
}

#[tokio::test]
async fn a_store_without_deletes_of_many_objects_takes_one_for_each() {
    let house = House::new(&[]).await;
    house.storage.probe("probe").await.unwrap();
    assert!(house.is_empty());
    assert_eq!(house.asked(), ["DELETE /bucket/prefix/probe"]);
    // What is deleted has the name that was written, whatever is in it.
    for name in ["a b+c", "100%", "é~_-.(1)", "type=x%2Fy/dt=1", "a?b#c&d"] {
        let location = format!("s3://bucket/prefix/{name}");
        house.storage.put(&location, Bytes::from_static(b"x")).await.unwrap();
        assert!(!house.is_empty());
        house.storage.delete(&location).await.unwrap();
        assert!(house.is_empty(), "{name}: {:?}", house.asked());
    }
}

#[tokio::test]
async fn a_refusal_is_told_at_once_as_the_store_said_it() {
    for (status, code, told) in [
        (403, "<Error><Code>AccessDenied</Code></Error>", "403 Forbidden AccessDenied"),
        (
            405,
            "<Error><Code>MethodNotAllowed</Code></Error>",
            "405 Method Not Allowed MethodNotAllowed",
        ),
        (501, "<Error><Code>NotImplemented</Code></Error>", "501 Not Implemented NotImplemented"),
        (501, "", "501 Not Implemented"),
    ] {
        let house = House::new(&[(status, code); 2]).await;
        let reason = format!("s3://bucket/prefix does not let this server delete files: {told}");
        let expected = ProbeFailure { reason, is_refusal: true };
        assert_eq!(house.storage.probe("probe").await, Err(expected.clone()));
        assert_eq!(house.asked().len(), 1, "waiting does not mend it");
        // So it is told where another reason is noted.
        house.storage.note_outage(Some("it did not answer".to_owned()));
        assert_eq!(house.storage.probe("probe").await, Err(expected));
    }
}

#[tokio::test]
async fn what_may_pass_is_asked_again_and_a_missing_object_is_gone() {
    let slow = (503, "<Error><Code>SlowDown</Code></Error>");
    let missing = (404, "<Error><Code>NoSuchKey</Code></Error>");
    let house = House::new(&[slow, slow, missing]).await;
    house.storage.delete("s3://bucket/prefix/a").await.unwrap();
    assert_eq!(house.asked().len(), 3);
}

#[tokio::test]
async fn what_the_store_did_not_answer_itself_deletes_nothing() {
    let page = "<html>Sign in</html>";
    for (status, text) in [(200, page), (202, page), (404, page), (404, "")] {
        let house = House::new(&[(status, text)]).await;
        let location = "s3://bucket/prefix/a";
        house.storage.put(location, Bytes::from_static(b"x")).await.unwrap();
        house.storage.delete(location).await.unwrap();
        assert_eq!(house.asked().len(), 2, "{status}: it is asked again");
        assert!(house.is_empty());
    }
    let house = House::new(&[(200, "")]).await;
    house.storage.delete("s3://bucket/prefix/a").await.unwrap();
    assert_eq!(house.asked().len(), 1);
    // It comes every time, and without the address that it should have.
    for (status, text, tries) in [(404, page, 6), (302, "", 1)] {
        let house = House::new(&[(status, text); 6]).await;
        let failed = house.storage.delete("s3://bucket/prefix/a").await;
        assert!(matches!(failed, Err(CatalogError::Storage { .. })), "{failed:?}");
        assert_eq!(house.asked().len(), tries);
    }
}

#[tokio::test]
async fn no_redirect_is_followed_and_the_error_names_it() {
    for status in [301, 302, 303, 307, 308] {
        let house = House::new(&[(status, "/bucket/prefix/other")]).await;
        for name in ["a", "other"] {
            let location = format!("s3://bucket/prefix/{name}");
            house.storage.put(&location, Bytes::from_static(b"x")).await.unwrap();
        }
        let failed = house.storage.delete("s3://bucket/prefix/a").await.unwrap_err();
        assert!(matches!(failed, CatalogError::Storage { .. }), "{failed:?}");
        let told = crate::error::with_causes(&failed);
        assert!(told.contains(&format!("({status} ")), "{told}");
        assert!(told.contains("to `/bucket/prefix/other`"), "{told}");
        assert_eq!(house.asked(), ["DELETE /bucket/prefix/a"]);
        assert_eq!(house.store.lock().unwrap().objects.len(), 2, "{status}");
    }
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_an_outage_and_no_missing_object() {
    let house = House::new(&[(404, "<Error><Code>NoSuchBucket</Code></Error>")]).await;
    let refused = house.storage.delete("s3://bucket/prefix/a").await;
    assert!(matches!(refused, Err(CatalogError::WarehouseOutage(_))), "{refused:?}");
    assert!(house.storage.outage().unwrap().contains("NoSuchBucket"));
}
