use super::*;
use crate::storage::access::FileAccess;

const OWN: &str = "s3://lake/wh/a/t";

fn options() -> S3Options {
    S3Options {
        endpoint: Some("http://127.0.0.1:8333".to_owned()),
        access_key_id: Some("id".to_owned()),
        secret_access_key: Some("secret".to_owned()),
        session_token: Some("token".to_owned()),
        access: FileAccess::RemoteSigning,
        ..S3Options::default()
    }
}

fn request(method: &str, path: &str) -> SignRequest {
    SignRequest {
        uri: format!("http://127.0.0.1:8333{path}"),
        method: method.to_owned(),
        headers: HeaderValues::new(),
    }
}

fn sign(scope: FileScope, request: SignRequest) -> Result<SignedRequest, CatalogError> {
    let storage = Storage::open("s3://lake/wh", &options()).unwrap();
    storage.sign(&Location::parse(OWN).unwrap(), scope, request)
}

#[track_caller]
fn refused(request: SignRequest) {
    let text = format!("{request:?}");
    let refused = sign(FileScope::Write, request);
    assert!(matches!(refused, Err(CatalogError::LocationForbidden(_))), "{text}");
}

#[test]
fn what_stays_inside_the_table_is_signed() {
    let own = [
        "/lake/wh/a/t/data/x.parquet",
        "/lake/wh/a/t/data/type=a%252Fb/x",
        "/lake/wh/a/t/data/a%20b+c",
        "/lake/wh/a/t/data/k=%252F..%252F..%252Fx/x",
        "/lake/wh/a/t/data/k=C%3A%255Clogs/x",
        "/lake/wh/a/t/data/k=%5C..%5Cu/x",
        "/lake/wh/a/t//x",
        "/lake/wh/a/t/data/x?x-id=GetObject",
    ];
    for path in own {
        for method in ["GET", "HEAD"] {
            sign(FileScope::Read, request(method, path)).unwrap();
        }
        for method in ["PUT", "DELETE"] {
            sign(FileScope::Write, request(method, path)).unwrap();
            let denied = sign(FileScope::Read, request(method, path));
            assert!(matches!(denied, Err(CatalogError::LocationForbidden(_))), "{method} {path}");
        }
    }
    for (method, path) in [
        ("POST", "/lake/wh/a/t/data/x?uploads"),
        ("PUT", "/lake/wh/a/t/data/x?partNumber=1&uploadId=u"),
        ("POST", "/lake/wh/a/t/data/x?uploadId=u"),
        ("DELETE", "/lake/wh/a/t/data/x?uploadId=u"),
    ] {
        sign(FileScope::Write, request(method, path)).unwrap();
    }
    for path in [
        "/lake?list-type=2&prefix=wh/a/t/",
        "/lake/?list-type=2&prefix=wh%2Fa%2Ft%2Fdata&max-keys=5",
        "/lake?list-type=2&prefix=wh/a/t/data/&delimiter=/",
    ] {
        sign(FileScope::Read, request("GET", path)).unwrap();
    }
}

#[test]
fn what_leaves_the_table_or_does_more_is_refused() {
    let paths = [
        "/",
        "/lake",
        "/lake/",
        "/lake/wh/a/t",
        "/lake/wh/a/t/",
        "/lake/wh/a/t/x/",
        "/lake/wh/a/t2/x",
        "/lake/wh/a/u/x",
        "/other/wh/a/t/x",
        "/lake/wh/a/t/../u/x",
        "/lake/wh/a/t/%2e%2e/u/x",
        "/lake/wh/a/t/%2E%2E%2Fu/x",
        "/lake/wh/a/t/%252e%252e/u/x",
        "/lake/wh/a/t/./x",
        "/lake/wh/a/t/x%00",
        "/lake/wh/a/t/x%0a",
        "/lake/wh/a/t%5c..%5cu",
        "/lake/wh/a/t/%ff",
        "/lake%2fwh/a/t/x",
        "//lake/wh/a/t/x",
        "/lake/wh/a/t/x?acl",
        "/lake/wh/a/t/x?tagging",
        "/lake/wh/a/t/x?versionId=1",
        "/lake/wh/a/t/x?policy",
        "/lake/wh/a/t/x#y",
        "/lake/wh/a/t/x?X-Amz-Expires=1",
    ];
    for path in paths {
        for method in ["GET", "HEAD", "PUT", "POST", "DELETE"] {
            refused(request(method, path));
        }
    }
}

#[test]
fn lists_methods_and_addresses_that_are_not_the_tables_are_refused() {
    for path in [
        "/lake?list-type=2",
        "/lake?list-type=2&prefix=",
        "/lake?list-type=2&prefix=wh/a/t",
        "/lake?list-type=2&prefix=wh/a/t2/",
        "/lake?prefix=wh/a/t/",
        "/lake?list-type=2&prefix=wh/a/t/../u/",
        "/lake?list-type=2&prefix=wh/a/t/..",
        "/lake?list-type=2&prefix=wh/a/t/./x",
        "/lake?list-type=2&prefix=wh/a/t//",
        "/lake?list-type=2&prefix=wh/a/t/%2e%2e%2f%2e%2e%2fu/",
        "/lake?list-type=2&prefix=wh/a/t/%252e%252e/u/",
        "/lake?list-type=2&prefix=wh/a/t/x%00",
        "/lake?list-type=2&prefix=wh/a/t/&prefix=",
        "/lake?list-type=2&prefix=wh/a/t/&versions",
        "/lake?list-type=2&prefix=wh/a/t/&uploads",
        "/other?list-type=2&prefix=wh/a/t/",
        "/lake?policy",
        "/?list-type=2&prefix=wh/a/t/",
    ] {
        refused(request("GET", path));
    }
    for method in ["PATCH", "OPTIONS", "CONNECT", "get", "", "GET /"] {
        refused(request(method, "/lake/wh/a/t/x"));
    }
    for uri in [
        "http://127.0.0.1:8334/lake/wh/a/t/x",
        "https://127.0.0.1:8333/lake/wh/a/t/x",
        "http://user@127.0.0.1:8333/lake/wh/a/t/x",
        "http://127.0.0.1:8333@evil/lake/wh/a/t/x",
        "http://evil/lake/wh/a/t/x",
        "http://localhost:8333/lake/wh/a/t/x",
        "s3://lake/wh/a/t/x",
        "/lake/wh/a/t/x",
        "",
        "http://127.0.0.1:8333\\lake/wh/a/t/x",
    ] {
        refused(SignRequest { uri: uri.to_owned(), ..request("GET", "") });
    }
}

#[test]
fn a_header_that_does_more_is_refused() {
    for name in [
        "x-amz-copy-source",
        "X-Amz-Copy-Source-Range",
        "x-amz-acl",
        "x-amz-grant-read",
        "x-amz-tagging",
        "x-amz-website-redirect-location",
        "x-amz-server-side-encryption-customer-key",
        "x-amz-object-lock-mode",
        "x-amz-security-token",
        "x-amz-bypass-governance-retention",
        "x-amz-rename-source",
        "x-amz-unknown",
    ] {
        let headers = HeaderValues::from([(name.to_owned(), vec!["/lake/wh/a/u/x".to_owned()])]);
        refused(SignRequest { headers, ..request("PUT", "/lake/wh/a/t/x") });
    }
}

#[test]
fn a_request_whose_body_says_what_it_does_is_refused() {
    for path in [
        "/lake?delete",
        "/lake/?delete",
        "/lake?delete&x-id=DeleteObjects",
        "/lake/wh/a/t/x?select&select-type=2",
    ] {
        refused(request("POST", path));
    }
}

#[test]
fn a_signed_request_keeps_its_headers_and_gains_the_signature() {
    let headers = HeaderValues::from([
        ("Range".to_owned(), vec!["bytes=0-9".to_owned()]),
        ("Host".to_owned(), vec!["evil".to_owned()]),
        ("Authorization".to_owned(), vec!["other".to_owned()]),
        ("x-amz-date".to_owned(), vec!["19700101T000000Z".to_owned()]),
    ]);
    let signed =
        sign(FileScope::Read, SignRequest { headers, ..request("GET", "/lake/wh/a/t/x") }).unwrap();
    let names: Vec<&str> = signed.headers.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "Range",
            "authorization",
            "host",
            "x-amz-content-sha256",
            "x-amz-date",
            "x-amz-security-token"
        ]
    );
    assert_eq!(signed.headers["host"], ["127.0.0.1:8333"]);
    assert_eq!(signed.headers["x-amz-content-sha256"], ["UNSIGNED-PAYLOAD"]);
    let authorization = &signed.headers["authorization"][0];
    assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=id/"), "{authorization}");
    assert!(authorization.contains("/us-east-1/s3/aws4_request"), "{authorization}");
    assert!(!format!("{signed:?}").contains("secret"));
}

#[test]
fn a_warehouse_that_hands_out_keys_signs_nothing() {
    let storage =
        Storage::open("s3://lake/wh", &S3Options { access: FileAccess::StaticKeys, ..options() })
            .unwrap();
    let own = Location::parse(OWN).unwrap();
    let signed = storage.sign(&own, FileScope::Write, request("GET", "/lake/wh/a/t/x"));
    assert!(matches!(signed, Err(CatalogError::Invalid(_))));
}
