use crate::config::{
    Config, SETTINGS, SettingOrigin, access::AccessConfig, environment, sample, units,
};
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
        &[("ICECORE_COMMIT_INTERVAL", "2s"), ("ICECORE_COMMIT_BYTES_MAX", "3MiB")],
        &[("commit.interval", "3s")],
    )
    .unwrap();
    assert_eq!(config.commit_interval, Duration::from_secs(3));
    assert_eq!(config.commit_bytes_max, 3 << 20);
    assert_eq!(config.sql.rows_max, 7);
    let origin = |key: &str| config.effective.iter().find(|(k, ..)| *k == key).unwrap().2.clone();
    assert_eq!(origin("commit.interval"), SettingOrigin::Flag);
    assert_eq!(
        origin("commit.bytes_max"),
        SettingOrigin::Environment("ICECORE_COMMIT_BYTES_MAX".to_owned())
    );
    assert!(matches!(origin("sql.rows_max"), SettingOrigin::File(_)));
    assert_eq!(origin("listen"), SettingOrigin::Default);
}

#[test]
fn an_empty_variable_counts_as_one_that_is_not_set() {
    let file = "listen = \"127.0.0.1:1\"\n";
    for name in ["ICECORE_LISTEN", "ICECORE_NO_SUCH_SETTING"] {
        let config = load(file, &[(name, "")], &[]).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:1");
        assert_eq!(config.warnings, Vec::<String>::new());
    }
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
        "[commit]\nintervall = \"1s\"",
        &[],
        "unknown setting `commit.intervall` in FILE; did you mean `commit.interval`? `icecore config` lists all of them",
    );
    check(
        "",
        &[("ICECORE_COMMIT_INTERVAL", "1ms")],
        "setting `commit.interval` from ICECORE_COMMIT_INTERVAL: `1ms` is below the minimum, 100ms",
    );
    check(
        "",
        &[("ICECORE_COMMIT_INTERVAL", "1h")],
        "setting `commit.interval` from ICECORE_COMMIT_INTERVAL: `1h` is above the maximum, 10min",
    );
    check(
        "",
        &[("ICECORE_COMMIT_INTERVAL", "soon")],
        "setting `commit.interval` from ICECORE_COMMIT_INTERVAL: `soon` is not a time such as 500ms, 5s, 1h or 7d, from 100ms to 10min",
    );
    check(
        "listen = \"0.0.0.0:8181\"",
        &[],
        "setting `listen` from FILE: `0.0.0.0:8181` is not a loopback address, and with `auth = off` the server listens on loopback only: set `auth = on` and create a token with `icecore token create --admin NAME`",
    );
    check(
        "warehouse = \"/tmp/lake\"",
        &[],
        "setting `warehouse` from FILE: `/tmp/lake` is not a URL; did you mean file:///tmp/lake?",
    );
    check(
        "[s3]\nendpoint = \"127.0.0.1:28333\"",
        &[],
        "setting `s3.endpoint` from FILE: `127.0.0.1:28333` needs http:// or https:// before it, as in http://127.0.0.1:28333",
    );
    check(
        "listen = \"9000\"",
        &[],
        "setting `listen` from FILE: `9000` is not HOST:PORT such as 127.0.0.1:8181, localhost:8181 or :8181",
    );
    for filter in ["json", "verbose", "info,nonsense", "icecore=verbose"] {
        check(
            "",
            &[("ICECORE_LOG", filter)],
            &format!(
                "setting `log` from ICECORE_LOG: `{filter}` must be a level (error, warn, info, debug, trace, off) or a filter such as icecore=debug,warn; log_format sets the format of the lines"
            ),
        );
    }
    check(
        "metastore = \"mysql://x\"",
        &[],
        "setting `metastore` from FILE: `mysql://x` must be sqlite://FILE or postgres://…",
    );
    check(
        "catalog.namespace_separator = \"/\"",
        &[],
        "setting `catalog.namespace_separator` from FILE: `/` must be one of . ~ : ; , | ! $ + *",
    );
}

#[test]
fn wrong_times_are_named_with_what_is_wrong_about_them() {
    let form = "is not five fields, minute hour day month weekday in UTC, such as `0 0 * * *` for each midnight or `*/15 * * * *` for each quarter of an hour: Invalid pattern: Pattern must have 5 fields when seconds are disallowed.";
    for times in ["daily", "0 0 0 * * *"] {
        let error = load(&format!("compaction.day_cron = \"{times}\""), &[], &[]).unwrap_err();
        assert_eq!(error, format!("setting `compaction.day_cron` from FILE: `{times}` {form}"));
    }
    let field = load("compaction.day_cron = \"5 25 * * *\"", &[], &[]).unwrap_err();
    let start = "setting `compaction.day_cron` from FILE: `5 25 * * *` has `25` for the hour: write 0 to 23, `*`, or lists,";
    assert!(field.starts_with(start), "{field}");
    let never = load("", &[("ICECORE_COMPACTION_DAY_CRON", "0 0 31 2 *")], &[]).unwrap_err();
    let start = "setting `compaction.day_cron` from ICECORE_COMPACTION_DAY_CRON: `0 0 31 2 *` names a day that never comes; `0 0 1 * *` is the first of each month";
    assert!(never.starts_with(start), "{never}");
}

#[test]
fn times_of_day_are_an_expression_or_never() {
    let times = |text: &str| {
        let config = load("", &[], &[("compaction.day_cron", text)]).unwrap();
        config.compaction.day_cron.map(|times| times.to_string())
    };
    assert_eq!(load("", &[], &[]).unwrap().compaction.day_cron.unwrap().to_string(), "0 0 * * *");
    assert_eq!(times(" 30 3 * * SUN "), Some("30 3 * * SUN".to_owned()));
    assert_eq!(times(""), None);
    let hours = |flags: &[(&str, &str)]| load("", &[], flags).unwrap().compaction.hour_cron;
    assert_eq!(hours(&[]).unwrap().to_string(), "5 * * * *");
    assert!(hours(&[("compaction.hour_cron", "")]).is_none());
}

#[test]
fn the_variable_of_every_setting_is_a_name_that_shells_take() {
    let variable = "ICECORE_WEBHOOKS_STANDARD_WEBHOOKS_SECRET";
    let secret = [(variable, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")];
    let config = load("", &secret, &[]).unwrap();
    assert_eq!(config.warnings, Vec::<String>::new());
    assert_eq!(config.webhook_secrets["standard-webhooks"], [secret[0].1]);
    for (key, ..) in SETTINGS {
        let variable = environment::variable_of(key);
        let is_name = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        assert!(variable.bytes().all(is_name), "{variable}");
    }
}

/// Kubernetes puts these into every pod beside a service called `icecore`, or `icecore-blue`.
#[test]
fn variables_of_the_environment_that_are_no_settings_stop_nothing() {
    let of_kubernetes = [
        ("ICECORE_SERVICE_HOST", "10.0.0.1"),
        ("ICECORE_SERVICE_PORT", "8181"),
        ("ICECORE_SERVICE_PORT_HTTP", "8181"),
        ("ICECORE_PORT", "tcp://10.0.0.1:8181"),
        ("ICECORE_PORT_8181_TCP", "tcp://10.0.0.1:8181"),
        ("ICECORE_PORT_8181_TCP_ADDR", "10.0.0.1"),
        ("ICECORE_PORT_8181_TCP_PORT", "8181"),
        ("ICECORE_PORT_8181_TCP_PROTO", "tcp"),
        ("ICECORE_BLUE_SERVICE_HOST", "10.0.0.2"),
        ("ICECORE_BLUE_PORT", "udp://10.0.0.2:53"),
        ("ICECORE_BLUE_PORT_53_UDP_ADDR", "10.0.0.2"),
        ("PATH", "/bin"),
    ];
    assert_eq!(load("", &of_kubernetes, &[]).unwrap().warnings, Vec::<String>::new());
    let config = load(
        "",
        &[("ICECORE_COMIT_INTERVAL", "1s"), ("ICECORE_CACHE", "/c"), ("ICECORE_PORT", "9000")],
        &[],
    );
    let config = config.unwrap();
    assert_eq!(config.commit_interval, Duration::from_secs(5));
    assert_eq!(
        config.warnings,
        [
            "the environment variable ICECORE_COMIT_INTERVAL is not a setting and is ignored; did you mean ICECORE_COMMIT_INTERVAL?",
            "the environment variable ICECORE_CACHE is not a setting and is ignored",
            "the environment variable ICECORE_PORT is not a setting and is ignored",
        ]
    );
}

#[test]
fn the_variables_of_aws_count_for_a_warehouse_on_s3() {
    let aws = [
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9000"),
        ("AWS_REGION", "eu-west-1"),
    ];
    let on_s3 = load("warehouse = \"s3://lake/x\"", &aws, &[]).unwrap().s3;
    assert_eq!(on_s3.access_key_id.as_deref(), Some("key"));
    assert_eq!(on_s3.endpoint.as_deref(), Some("http://127.0.0.1:9000"));
    assert_eq!(on_s3.region.as_deref(), Some("eu-west-1"));
    assert_eq!(load("", &aws, &[]).unwrap().s3.access_key_id, None);
    // Keys are never put together from two places.
    let own = [("ICECORE_S3_ACCESS_KEY_ID", "mine"), ("AWS_SECRET_ACCESS_KEY", "secret")];
    let error = load("warehouse = \"s3://lake/x\"", &own, &[]).unwrap_err();
    assert_eq!(
        error,
        "setting `s3.secret_access_key` from default: `` is empty; the access key is set"
    );
}

#[test]
fn a_server_listens_on_names_and_ports_alone() {
    for (typed, expected) in [
        ("localhost:8181", "127.0.0.1:8181"),
        (":9000", "127.0.0.1:9000"),
        ("[::1]:9000", "[::1]:9000"),
        ("127.0.0.1:0", "127.0.0.1:0"),
    ] {
        let config = load("", &[], &[("listen", typed)]).unwrap();
        assert_eq!(config.listen.to_string(), expected, "{typed}");
    }
    for typed in ["localhost", "8181", "127.0.0.1:99999", ""] {
        assert!(load("", &[], &[("listen", typed)]).unwrap_err().contains("HOST:PORT"), "{typed}");
    }
}

#[test]
fn the_settings_in_force_show_the_places_that_empty_ones_stand_for() {
    let config = load("", &[], &[("data_dir", "/srv/ice")]).unwrap();
    let shown = |key: &str| config.effective.iter().find(|(k, ..)| *k == key).unwrap().1.clone();
    assert_eq!(shown("warehouse"), "file:///srv/ice/warehouse");
    assert_eq!(shown("metastore"), "sqlite:///srv/ice/icecore.db");
}

#[test]
fn folders_have_no_steps_up() {
    let config = load("", &[], &[("data_dir", "/nowhere/a/.././b")]).unwrap();
    assert_eq!(config.data_dir.to_str(), Some("/nowhere/b"));
    assert_eq!(config.warehouse, "file:///nowhere/b/warehouse");
    let config = load("", &[("ICECORE_WAREHOUSE", "file:///nowhere/a/../../w/")], &[]).unwrap();
    assert_eq!(config.warehouse, "file:///w");

    // Above a link is the folder of what it leads to.
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    std::fs::create_dir_all(root.join("far/off")).unwrap();
    std::os::unix::fs::symlink(root.join("far/off"), root.join("link")).unwrap();
    let above = root.join("link/../data");
    let config = load("", &[], &[("data_dir", above.to_str().unwrap())]).unwrap();
    assert_eq!(config.data_dir, root.join("far/data"));
}

#[test]
fn a_catalogs_name_fits_into_its_paths() {
    for name in ["icecore", "Lake 1", "shop.example", "café", "a:b"] {
        assert_eq!(load("", &[("ICECORE_CATALOG_NAME", name)], &[]).unwrap().catalog_name, name);
    }
    let long = "x".repeat(129);
    assert!(load("", &[], &[("catalog.name", "")]).is_err());
    for name in
        ["a/b", "s3://b", "namespaces", "config", "oauth", ".", "..", "a\nb", "a%2Fb", &long]
    {
        let problem = load("", &[("ICECORE_CATALOG_NAME", name)], &[]).unwrap_err();
        assert!(
            problem.starts_with("setting `catalog.name` from ICECORE_CATALOG_NAME"),
            "{problem}"
        );
    }
}

#[test]
fn a_secret_without_a_key_stops_the_start_and_is_not_shown() {
    // Of other providers, and without the mark, it is what somebody made up.
    for provider in ["SVIX", "STANDARD_WEBHOOKS", "GITHUB", "GENERIC"] {
        for plain in ["YQ==", "hunter2hunter2ab", "deadbeef"] {
            let variable = format!("ICECORE_WEBHOOKS_{provider}_SECRET");
            let config = load("", &[(&variable, plain)], &[]).unwrap();
            assert_eq!(config.webhook_secrets.values().next().unwrap(), &[plain]);
        }
    }
    for (bytes, is_taken) in [(1024, true), (1025, false)] {
        let list = format!(r#"["a", "{}"]"#, "s".repeat(bytes));
        for secret in [&list, &"s".repeat(bytes)] {
            let loaded = load("", &[("ICECORE_WEBHOOKS_GITHUB_SECRET", secret.as_str())], &[]);
            assert_eq!(loaded.is_ok(), is_taken, "{bytes}");
            let problem = loaded.err().unwrap_or_default();
            assert!(is_taken || problem.ends_with("`(hidden)` must have 1 to 1024 bytes"));
        }
    }
    for secret in ["whsec_", "whsec_c2VjcmV0", r#"["plain-text", "whsec_"]"#] {
        let variable = "ICECORE_WEBHOOKS_SVIX_SECRET";
        assert_eq!(
            load("", &[(variable, secret)], &[]).unwrap_err(),
            "setting `webhooks.svix.secret` from ICECORE_WEBHOOKS_SVIX_SECRET: `(hidden)` must have base64 of at least 24 bytes after `whsec_`"
        );
    }
}

#[test]
fn no_form_of_a_metastores_password_is_shown() {
    let shown = |metastore: &str| match load("", &[("ICECORE_METASTORE", metastore)], &[]) {
        Ok(config) => config.effective.into_iter().find(|(key, ..)| *key == "metastore").unwrap().1,
        Err(problem) => problem.split('`').nth(3).unwrap().to_owned(),
    };
    for (metastore, expected) in [
        ("postgres://u:hush@h:5432/d", "postgres://h:5432/d"),
        ("postgresql://u:hush@h/d", "postgresql://h/d"),
        ("postgres://u@h/d?password=hush", "postgres://h/d"),
        ("postgres://u@h/d?password=hu@hush", "(hidden)"),
        ("postgres://u:hu@hush@h/d", "postgres://h/d"),
        ("postgres://u:hush?hush@h/d", "(hidden)"),
        ("postgress://u:hush@h/d", "postgress://h/d"),
        ("mysql://u:hush@h/d?password=hush", "mysql://h/d"),
        ("postgres:u:hush@h/d", "(hidden)"),
        ("postgres:u:hush://x@h/d", "(hidden)"),
        ("host=h password=hush", "(hidden)"),
        ("h/d?password=hush", "(hidden)"),
        ("icecore.db", "icecore.db"),
        ("postgres://u:hush/db", "(hidden)"),
        ("postgres://u:hush%40h/d", "(hidden)"),
        ("postgres://u%3Ahush%40h/d", "(hidden)"),
        ("postgres://u:hush?host=h", "(hidden)"),
        ("postgres://h/d#p=hush", "(hidden)"),
        ("postgres:/u:hush/d", "(hidden)"),
        ("postgres//u:hush", "(hidden)"),
        ("u:hush", "(hidden)"),
        ("postgres://u:hu%40hush@h/d", "postgres://h/d"),
        ("postgres://u:hush@[::1]:5432/d", "postgres://[::1]:5432/d"),
        ("h:5432/d", "h:5432/d"),
        ("sqlite://u:hush@h/d", "sqlite://h/d"),
        ("sqlite://u:hu/sh@h/d", "sqlite://h/d"),
    ] {
        assert_eq!(shown(metastore), expected, "{metastore}");
    }
    for (warehouse, expected) in [
        ("s3://AK:hush@b/p", "s3://b/p"),
        ("s3://AK:hu/sh@b/p", "s3://b/p"),
        ("s3://AK:hush", "(hidden)"),
        ("s3:/AK:hush@b/p", "(hidden)"),
        ("s4://AK:hush@b/p", "s4://b/p"),
        ("s3:/b/p", "s3:/b/p"),
        ("file://AK:hush@h/p", "file://h/p"),
    ] {
        let problem = load("", &[], &[("warehouse", warehouse)]).unwrap_err();
        assert!(problem.contains(&format!("`{expected}` must be ")), "{problem}");
        assert!(!problem.contains("hush"), "{problem}");
    }
    let url = "postgress://u:hush@h/d";
    for problem in [
        load("", &[], &[("metastore", url)]),
        load("", &[], &[("listen", "u:hush@127.0.0.1:1")]),
        load("", &[], &[("listen", "u:hush@127.0.0.1")]),
        load(&format!("metastore = \"{url}\""), &[], &[]),
        load("", &[], &[("postgres://u:hush@h/d?sslmode", "on")]),
        load("", &[("ICECORE_S3_ENDPOINT", "u:hush@h:9000")], &[]),
        load("", &[("ICECORE_S3_ENDPOINT", "u:hush")], &[]),
        load("\"s3.secret_access_key:hush\" = 1", &[], &[]),
    ] {
        let problem = problem.unwrap_err();
        assert!(!problem.contains("hush"), "{problem}");
    }
    let unclosed = "[commit]\n\n[s3]\nsecret_access_key = \"hush\n";
    let problem = load(unclosed, &[], &[]).unwrap_err();
    assert!(problem.starts_with("`FILE` is not valid TOML at line 4: "), "{problem}");
    assert!(!problem.contains("hush"), "{problem}");
}

#[test]
fn secrets_are_not_shown() {
    for key in ["s3.secret_access_key", "webhooks.svix.secret"] {
        let typed = format!("{key}:whsec_hush");
        assert_eq!(
            load("", &[], &[(&typed, "")]).unwrap_err(),
            format!(
                "unknown setting `{key}…` in command line; did you mean `{key}`? `icecore config` lists all of them"
            )
        );
    }
    let config = load("", &[("ICECORE_S3_SECRET_ACCESS_KEY", "hush")], &[]).unwrap();
    assert_eq!(config.s3.secret_access_key.as_deref(), Some("hush"));
    assert!(config.effective.iter().all(|(_, text, ..)| !text.contains("hush")));
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
    let config = load("", &[("ICECORE_TOKEN", "ice_secret")], &[]).unwrap();
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
            ("ICECORE_AUTH", "on"),
            ("ICECORE_OIDC_ISSUER", "https://id.example"),
            ("ICECORE_OIDC_AUDIENCE", "icecore"),
            ("ICECORE_OIDC_JWKS", key),
            ("ICECORE_OIDC_GRANTS", "admins=admin:*; readers=read:shop,read:other"),
        ];
        settings.retain(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
        settings.extend(changes);
        match (load("", &settings, &[]), expected) {
            (Ok(config), Ok(())) => assert!(matches!(config.access, AccessConfig::On(Some(_)))),
            (Err(problem), Err(expected)) => assert!(problem.contains(expected), "{problem}"),
            (loaded, _) => panic!("{changes:?}: {:?}", loaded.map(|_| ())),
        }
    };
    check(&[], Ok(()));
    check(&[("ICECORE_OIDC_AUDIENCE", "")], Err("set the value that `aud` must have"));
    check(&[("ICECORE_OIDC_JWKS", "/nowhere/jwks.json")], Err("nor a readable file"));
    check(&[("ICECORE_OIDC_ALGORITHMS", "RS256,HS256")], Err("`HS256` must be one of"));
    check(&[("ICECORE_OIDC_ALGORITHMS", "none")], Err("`none` must be one of"));
    check(
        &[("ICECORE_OIDC_GRANTS", "admins=all")],
        Err(
            "scope `all` does not begin with ingest, read, read.user, read.org, read.team, write or admin",
        ),
    );
    check(&[("ICECORE_OIDC_GRANTS", "")], Err("no claim grants any scope"));
    check(&[("ICECORE_AUTH", "maybe")], Err("must be on or off"));
}

#[test]
fn rules_of_retention_are_read_at_the_start() {
    let retention = load("", &[], &[]).unwrap().retention;
    assert!(retention.events.is_empty(), "everything is kept");
    assert_eq!(retention.letters_kept, Duration::from_secs(30 * 86_400));
    assert!(retention.letters_cron.is_some() && retention.expire_cron.is_some());
    let never = [("retention.cron", ""), ("retention.events", "webhook.*=30d")];
    let retention = load("", &[], &never).unwrap().retention;
    assert_eq!(retention.events.days("webhook.github"), Some(30));
    assert!(retention.events_cron.is_none());
    for (key, value, problem) in [
        ("retention.events", "webhook.*", "is not a list of rules: `webhook.*` is not TYPE=DAYS"),
        ("retention.events", "a=30", "`30` is not a number of days"),
        ("dead_letters.retention", "1h", "is below the minimum"),
    ] {
        let refused = load("", &[], &[(key, value)]).unwrap_err();
        assert!(refused.contains(problem), "{refused}");
    }
}

#[test]
fn each_retry_of_a_library_is_logged_only_to_who_asks_for_it() {
    let filter = |log: &str| load("", &[], &[("log", log)]).unwrap().log.filter;
    for level in ["info", "debug"] {
        assert!(filter(level).contains("object_store=warn"), "{}", filter(level));
    }
    let asked = filter("info,object_store=info");
    assert!(asked.starts_with("info,object_store=info,") && !asked.contains("=warn"), "{asked}");
}

#[test]
fn the_sample_file_is_in_the_documentation_and_says_the_defaults() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/icecore.toml");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, sample()).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(found == sample(), "{path} is not what the settings say; run the test with UPDATE=1");

    let values = |file: &str| -> Vec<(&str, String)> {
        let config = load(file, &[], &[]).unwrap();
        config.effective.into_iter().map(|(key, value, ..)| (key, value)).collect()
    };
    let defaults = values("");
    assert_eq!(values(&found), defaults);
    let settings: Vec<&str> = found
        .lines()
        .filter_map(|line| {
            line.strip_prefix('#').filter(|text| text.starts_with(char::is_alphabetic))
        })
        .collect();
    assert_eq!(settings.len(), defaults.len());
    assert_eq!(values(&settings.join("\n")), defaults);
    let config = load(&settings.join("\n"), &[], &[]).unwrap();
    assert!(
        config.effective.iter().all(|(.., origin, _)| matches!(origin, SettingOrigin::File(_)))
    );
}

#[test]
fn the_folder_of_a_user_is_where_the_environment_says() {
    let check = |variables: &[(&str, &str)], expected: Option<&str>| {
        let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let found = environment::Environment::new(variables.collect()).user_folder();
        assert_eq!(found, expected.map(std::path::PathBuf::from));
    };
    check(&[("XDG_DATA_HOME", "/x"), ("HOME", "/home/u")], Some("/x/icecore"));
    check(&[("XDG_DATA_HOME", "x"), ("HOME", "/home/u")], Some("/home/u/.local/share/icecore"));
    check(&[("XDG_DATA_HOME", ""), ("HOME", "/home/u")], Some("/home/u/.local/share/icecore"));
    check(&[("HOME", "")], None);
    check(&[], None);
}
