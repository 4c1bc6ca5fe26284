use super::*;
use axum::http::HeaderValue;

fn answer(uri: &str, host: Option<&str>, origins: &[&str]) -> Result<(), &'static str> {
    let mut headers = HeaderMap::new();
    if let Some(host) = host {
        headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
    }
    for origin in origins {
        headers.append(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
    }
    check(&uri.parse().unwrap(), &headers)
}

#[test]
fn only_names_of_the_machine_itself_are_answered() {
    let own = [
        "localhost",
        "LocalHost:8181",
        "localhost.:8181",
        "lake.localhost:8181",
        "127.0.0.1",
        "127.0.0.1:8181",
        "127.255.0.9:1",
        "[::1]",
        "[::1]:8181",
    ];
    for host in own {
        assert_eq!(answer("/healthz", Some(host), &[]), Ok(()), "{host}");
    }
    let foreign = [
        "",
        "evil.example",
        "evil.example:8181",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "notlocalhost",
        "127.0.0.1@evil.example",
        "evil.example@127.0.0.1.evil.example",
        "0.0.0.0:8181",
        "10.0.0.1",
        "169.254.169.254",
        "[::]:8181",
        "[::2]",
        "::1",
        "2130706433",
        "localhost evil.example",
    ];
    for host in foreign {
        assert_eq!(answer("/healthz", Some(host), &[]), Err(FOREIGN_HOST), "{host}");
    }
    assert_eq!(answer("/healthz", None, &[]), Err(FOREIGN_HOST));
    assert_eq!(answer("http://127.0.0.1:1/healthz", Some("127.0.0.1:1"), &[]), Ok(()));
    let elsewhere = answer("http://evil.example/healthz", Some("127.0.0.1:1"), &[]);
    assert_eq!(elsewhere, Err(FOREIGN_HOST));
}

#[test]
fn only_pages_of_this_server_are_answered() {
    let host = Some("127.0.0.1:8181");
    for origin in ["http://127.0.0.1:8181", "https://127.0.0.1:8181"] {
        assert_eq!(answer("/ingest", host, &[origin]), Ok(()), "{origin}");
    }
    let foreign = [
        "",
        "null",
        "http://127.0.0.1",
        "http://127.0.0.1:9000",
        "http://localhost:8181",
        "https://evil.example",
        "http://127.0.0.1:8181.evil.example",
        "127.0.0.1:8181",
    ];
    for origin in foreign {
        assert_eq!(answer("/ingest", host, &[origin]), Err(FOREIGN_PAGE), "{origin}");
    }
    let both = ["http://127.0.0.1:8181", "https://evil.example"];
    assert_eq!(answer("/ingest", host, &both), Err(FOREIGN_PAGE));
}

#[test]
fn a_load_balancer_may_ask_for_the_servers_health_without_a_host() {
    let probe = |version: Version, path: &str, header: Option<&str>| {
        let mut request = Request::builder().version(version).uri(path);
        if let Some(name) = header {
            request = request.header(name, "evil.example");
        }
        is_probe(&request.body(axum::body::Body::empty()).unwrap())
    };
    for path in ["/healthz", "/readyz"] {
        assert!(probe(Version::HTTP_10, path, None), "{path}");
        assert!(probe(Version::HTTP_10, path, Some("user-agent")), "{path}");
        for header in ["host", "origin"] {
            assert!(!probe(Version::HTTP_10, path, Some(header)), "{path} with {header}");
        }
        assert!(!probe(Version::HTTP_11, path, None), "{path}");
    }
    assert!(!probe(Version::HTTP_10, "/metrics", None));
}
