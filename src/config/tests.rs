use crate::config::{Config, Origin, units};
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
    assert_eq!(config.sql_rows_max, 7);
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
        "setting `listen` from FILE: `0.0.0.0:8181` is not a loopback address, and without access control the server answers only there",
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
