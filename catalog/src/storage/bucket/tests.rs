use super::*;
use axum::{
    Router,
    http::{HeaderMap, StatusCode, Uri},
};
use tokio::task::JoinSet;

/// A store that answers a question of `bucket` with a status and a text.
async fn store(
    versioning: (u16, &'static str),
    object_lock: (u16, &'static str),
) -> (Storage, JoinSet<std::io::Result<()>>) {
    let answer = move |headers: HeaderMap, uri: Uri| async move {
        let is_signed = headers["authorization"]
            .to_str()
            .is_ok_and(|text| text.contains("/us-east-1/s3/aws4_request"));
        let (status, text) = match (is_signed, uri.path(), uri.query()) {
            (true, "/bucket", Some("versioning")) => versioning,
            (true, "/bucket", Some("object-lock")) => object_lock,
            _ => (400, "<Error><Code>Unexpected</Code></Error>"),
        };
        (StatusCode::from_u16(status).unwrap(), text)
    };
    let router = Router::new().fallback(answer);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(listener, router).await });
    let options = S3Options {
        endpoint: Some(endpoint),
        access_key_id: Some("id".to_owned()),
        secret_access_key: Some("secret".to_owned()),
        ..S3Options::default()
    };
    (Storage::open("s3://bucket/prefix", &options).unwrap(), server)
}

#[tokio::test]
async fn what_a_bucket_keeps_is_told() {
    let on =
        "<VersioningConfiguration xmlns=\"x\"><Status>Enabled</Status></VersioningConfiguration>";
    let rule = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule>\
        <DefaultRetention><Mode>GOVERNANCE</Mode><Days>30</Days></DefaultRetention></Rule>\
        </ObjectLockConfiguration>";
    let (storage, _server) = store((200, on), (200, rule)).await;
    let expected = BucketState {
        versioning: Ok(BucketVersioning::Enabled),
        object_lock: Ok(ObjectLock::On(Some("GOVERNANCE for 30 days".to_owned()))),
    };
    assert_eq!(storage.bucket_state().await, Some(expected));

    let never = "<VersioningConfiguration/>";
    let none = "<Error><Code>ObjectLockConfigurationNotFoundError</Code></Error>";
    let (storage, _server) = store((200, never), (404, none)).await;
    let expected =
        BucketState { versioning: Ok(BucketVersioning::Off), object_lock: Ok(ObjectLock::Off) };
    assert_eq!(storage.bucket_state().await, Some(expected));
}

#[tokio::test]
async fn what_a_store_does_not_say_is_not_known() {
    let denied = "<Error><Code>AccessDenied</Code><Message>a secret</Message></Error>";
    let list = "<ListBucketResult></ListBucketResult>";
    let (storage, _server) = store((403, denied), (200, list)).await;
    let state = storage.bucket_state().await.unwrap();
    assert_eq!(state.versioning, Err("the store answered 403 AccessDenied".to_owned()));
    assert_eq!(state.object_lock, Err("the store does not know the question".to_owned()));
    let unset = Storage::open("s3://bucket/prefix", &S3Options::default()).unwrap();
    let state = unset.bucket_state().await.unwrap();
    assert!(state.versioning.unwrap_err().contains("s3.access_key_id"));
}

#[tokio::test]
async fn a_folder_has_no_such_state() {
    let folder = tempfile::tempdir().unwrap();
    let warehouse = format!("file://{}", folder.path().display());
    let storage = Storage::open(&warehouse, &S3Options::default()).unwrap();
    assert_eq!(storage.bucket_state().await, None);
}
