use crate::config::{Config, Origin, access::AccessConfig, units};
use std::time::Duration;

fn load(
    file: &str,
    environment: &[(&str, &str)],
    flags: &[(&str, &str)],
) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("icecore.toml");
    std::fs::write(&path, file).unwrap();
    let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let flags: Vec<(&str, String)> = flags.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
    Config::from_sources(Some(&path), environment, &flags)
        .map_err(|error| error.to_string().replace(&path.display().to_string(), "FILE"))
}

#[test]
fn the_command_line_wins_over_the_environment_over_the_file() {
    let file = "[commit]\ninterval = \"1s\"\nbytes_max = \"2MiB\"\n[sql]\nrows_max = 7\n";
    let config = load(
        file,
        &[("COMMIT_INTERVAL", "2s"), ("COMMIT_BYTES_MAX", "3MiB")],
        &[("commit.interval", "3s")],
    )
    .unwrap();
    assert_eq!(config.commit_interval, Duration::from_secs(3));
    assert_eq!(config.commit_bytes_max, 3 << 20);
    assert_eq!(config.sql.rows_max, 7);
    let origin = |key: &str| config.effective.iter().find(|(k, ..)| *k == key).unwrap().2.clone();
    assert_eq!(origin("commit.interval"), Origin::Flag);
    assert_eq!(
        origin("commit.bytes_max"),
        Origin::Environment("ICECORE_COMMIT_BYTES_MAX".to_owned())
    );
    assert!(matches!(origin("sql.rows_max"), Origin::File(_)));
    assert_eq!(origin("listen"), Origin::Default);
}

#[test]
fn a_wrong_setting_is_named_with_its_origin() {
    let check = |file: &str, environment: &[(&str, &str)], expected: &str| {
        let error = load(file, environment, &[]).unwrap_err();
        assert_eq!(error, expected);
    };
    check(
        "colour = 1",
        &[],
        "unknown setting `colour` in FILE; `icecore config` lists all of them",
    );
    check(
        "",
        &[("COLOUR", "1")],
        "unknown setting `COLOUR` in the environment; `icecore config` lists all of them",
    );
    check(
        "",
        &[("COMMIT_INTERVAL", "1ms")],
        "setting `commit.interval` from ICECORE_COMMIT_INTERVAL: `1ms` is not a time such as 500ms, 5s, 1h or 7d from 100ms to 600s",
    );
    check(
        "listen = \"0.0.0.0:8181\"",
        &[],
        "setting `listen` from FILE: `0.0.0.0:8181` is not a loopback address, and with `auth = off` the server answers only there: set `auth = on` and make a token with `icecore token create --admin NAME`",
    );
    check(
        "metastore = \"mysql://x\"",
        &[],
        "setting `metastore` from FILE: `mysql://x` is neither sqlite://FILE nor postgres://…",
    );
    check(
        "catalog.namespace_separator = \"/\"",
        &[],
        "setting `catalog.namespace_separator` from FILE: `/` is not one of . ~ : ; , | ! $ + *",
    );
}

#[test]
fn a_catalogs_name_fits_into_its_paths() {
    for name in ["icecore", "Lake 1", "shop.example", "café", "a:b"] {
        assert_eq!(load("", &[("CATALOG_NAME", name)], &[]).unwrap().catalog_name, name);
    }
    let long = "x".repeat(129);
    for name in
        ["", "a/b", "s3://b", "namespaces", "config", "oauth", ".", "..", "a\nb", "a%2Fb", &long]
    {
        let problem = load("", &[("CATALOG_NAME", name)], &[]).unwrap_err();
        assert!(
            problem.starts_with("setting `catalog.name` from ICECORE_CATALOG_NAME"),
            "{problem}"
        );
    }
}

#[test]
fn secrets_are_not_shown() {
    let config = load("", &[("S3_SECRET_ACCESS_KEY", "hush")], &[]).unwrap();
    assert_eq!(config.s3.secret_access_key.as_deref(), Some("hush"));
    assert!(config.effective.iter().all(|(_, text, _)| !text.contains("hush")));
}

#[test]
fn units_read_as_people_write_them() {
    let durations = [
        ("500ms", Some(500)),
        ("5s", Some(5_000)),
        ("10min", Some(600_000)),
        ("7 d", Some(604_800_000)),
        ("5", None),
        ("x", None),
        ("5 weeks", None),
    ];
    for (text, expected) in durations {
        assert_eq!(units::parse_duration(text), expected.map(Duration::from_millis), "{text}");
    }
    let sizes = [
        ("4096", Some(4096)),
        ("64KiB", Some(65_536)),
        ("1 GB", Some(1_000_000_000)),
        ("-1", None),
        ("9999999999999TiB", None),
    ];
    for (text, expected) in sizes {
        assert_eq!(units::parse_bytes(text), expected, "{text}");
    }
}

#[test]
fn with_access_control_any_address_will_do() {
    let config = load("listen = \"0.0.0.0:8181\"\nauth = \"on\"", &[], &[]).unwrap();
    assert_eq!(config.listen.to_string(), "0.0.0.0:8181");
    assert!(matches!(config.access, AccessConfig::On(None)));
    assert!(matches!(load("", &[], &[]).unwrap().access, AccessConfig::Off));
}

#[test]
fn a_token_is_not_shown() {
    let config = load("", &[("TOKEN", "ice_secret")], &[]).unwrap();
    assert_eq!(config.token.as_deref(), Some("ice_secret"));
    let shown = config.effective.iter().find(|(key, ..)| *key == "token").unwrap();
    assert_eq!(shown.1, "(hidden)");
    assert!(!format!("{:?}", config.effective).contains("ice_secret"));
}

#[test]
fn jwts_are_let_in_only_with_everything_pinned() {
    let key = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    let check = |changes: &[(&str, &str)], expected: Result<(), &str>| {
        let mut settings = vec![
            ("AUTH", "on"),
            ("OIDC_ISSUER", "https://id.example"),
            ("OIDC_AUDIENCE", "icecore"),
            ("OIDC_JWKS", key),
            ("OIDC_GRANTS", "admins=admin:*; readers=read:shop,read:other"),
        ];
        settings.extend(changes);
        match (load("", &settings, &[]), expected) {
            (Ok(config), Ok(())) => assert!(matches!(config.access, AccessConfig::On(Some(_)))),
            (Err(problem), Err(expected)) => assert!(problem.contains(expected), "{problem}"),
            (loaded, _) => panic!("{changes:?}: {:?}", loaded.map(|_| ())),
        }
    };
    check(&[], Ok(()));
    check(&[("OIDC_AUDIENCE", "")], Err("say what `aud` has to be"));
    check(&[("OIDC_JWKS", "/nowhere/jwks.json")], Err("no file to read"));
    check(&[("OIDC_ALGORITHMS", "RS256,HS256")], Err("`HS256` is none of"));
    check(&[("OIDC_ALGORITHMS", "none")], Err("`none` is none of"));
    check(&[("OIDC_GRANTS", "admins=all")], Err("scope `all` names no namespace"));
    check(&[("OIDC_GRANTS", "")], Err("no claim grants any scope"));
    check(&[("AUTH", "maybe")], Err("is neither on nor off"));
}
