use super::*;
use crate::audit;
use crate::metastore::{
    Metastore, Properties,
    tests::{database, sqlite, stores},
};
use std::sync::atomic::{AtomicI64, Ordering};

const START_MS: i64 = 1_800_000_000_000;

/// Access control over a new database, and the clock it goes by.
async fn access(store: Metastore) -> (AccessControl, Arc<AtomicI64>) {
    let clock = Arc::new(AtomicI64::new(START_MS));
    let read = Arc::clone(&clock);
    (AccessControl::on(store, Arc::new(move || read.load(Ordering::Relaxed)), None), clock)
}

fn request(scopes: &[&str]) -> TokenRequest {
    TokenRequest {
        name: "nightly".to_owned(),
        home: None,
        scopes: scopes.iter().map(|scope| scope.parse().unwrap()).collect(),
        lifetime: None,
    }
}

async fn mint(control: &TokenControl, request: TokenRequest) -> Result<IssuedToken, CatalogError> {
    make_token(control.store(), request, control.now_ms()).await
}

fn call() -> Arc<AuditedCall> {
    AuditedCall::new(entry("a"), Arc::new(|| START_MS))
}

async fn identify(control: &TokenControl, token: &str) -> Result<Principal, IdentityError> {
    control.identify(Some(&format!("Bearer {token}"))).await
}

#[test]
fn a_scope_covers_its_namespace_and_what_is_below_and_nothing_else() {
    let principal = |scopes: &[&str]| {
        Principal::new("p", scopes.iter().map(|scope| scope.parse().unwrap()).collect(), None)
    };
    let levels = |path: &str| -> Levels { path.split('/').map(str::to_owned).collect() };
    use crate::metastore::Levels;
    use Action::{Admin, Ingest, Read, Write};
    let check = |scopes: &[&str], action, namespace: &str, expected: bool| {
        let may = principal(scopes).may(action, &levels(namespace));
        assert_eq!(may, expected, "{scopes:?} {action:?} {namespace}");
    };
    check(&["read:shop"], Read, "shop", true);
    check(&["read:shop"], Read, "shop/eu", true);
    check(&["read:shop"], Read, "shop2", false);
    check(&["read:shop/eu"], Read, "shop", false);
    check(&["read:shop"], Write, "shop", false);
    check(&["write:shop"], Read, "shop", true);
    check(&["write:shop"], Ingest, "shop", false);
    check(&["ingest:shop"], Read, "shop", false);
    check(&["admin:shop"], Ingest, "shop", true);
    check(&["read:*"], Read, "any", true);
    check(&["read:*"], Admin, "any", false);
    check(&[], Read, "any", false);

    let nested = principal(&["read:a/b"]);
    assert!(nested.sees(&levels("a")) && nested.sees(&levels("a/b/c")));
    assert!(!nested.sees(&levels("a/c")) && !nested.may_everywhere(Read));
    assert!(!principal(&["ingest:a"]).sees(&levels("a")));
    assert_eq!(principal(&["ingest:a", "read:b"]).home(), Some("a"));
    assert_eq!(principal(&["ingest:a", "ingest:b"]).home(), None);
    assert_eq!(principal(&["ingest:*"]).home(), None);

    let admin = principal(&["admin:a"]);
    let scopes = |texts: &[&str]| -> Vec<AccessScope> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    };
    assert!(admin.governs(&scopes(&["read:a", "admin:a/b"])));
    assert!(!admin.governs(&scopes(&["read:a", "read:b"])) && !admin.governs(&scopes(&["read:*"])));
    assert!(!admin.governs(&[]));
}

#[test]
fn a_text_that_is_no_scope_is_refused_with_what_to_change() {
    let check = |text: &str, expected: &str| {
        let problem = text.parse::<AccessScope>().unwrap_err().to_string();
        assert!(problem.starts_with(&format!("scope `{text}` {expected}")), "{problem}");
    };
    check("read", "names no namespace");
    check("drop:a", "does not begin with");
    check("drop", "does not begin with");
    check("read:shop.example", "has a dot");
    for text in ["read:", "read:a//b", "read:/", "read:a b", "read:a*", "read:a\u{1f}b"] {
        check(text, "has no valid namespace");
    }
    for text in ["read:*", "admin:a/b", "ingest:shop_example"] {
        assert_eq!(text.parse::<AccessScope>().unwrap().to_string(), text);
    }
}

#[tokio::test]
async fn only_the_whole_secret_of_a_token_that_lives_identifies() {
    let (_folder, store) = sqlite().await;
    let (access, clock) = access(store.clone()).await;
    let control = access.control().unwrap();
    let lifetime = Some(Duration::from_secs(60));
    let made = mint(control, TokenRequest { lifetime, ..request(&["read:a"]) }).await.unwrap();
    assert_eq!(identify(control, &made.text).await.unwrap().id(), format!("token:{}", made.id));

    let other = mint(control, request(&["read:a"])).await.unwrap();
    let swapped = format!("ice_{}_{}", made.id, other.text.rsplit('_').next().unwrap());
    let upper = made.text.to_uppercase();
    let short = &made.text[..made.text.len() - 1];
    for wrong in [&swapped, &upper, short, "", "ice__", "ice_0000000000000000_x", "a.b.c"] {
        let answer = identify(control, wrong).await;
        assert!(matches!(answer, Err(IdentityError::BadToken)), "{wrong}");
    }
    for none in [None, Some("Bearer"), Some("Digest eDp5"), Some(made.text.as_str())] {
        assert!(matches!(control.identify(none).await, Err(IdentityError::NoToken)), "{none:?}");
    }
    let basic = async |text: &str| {
        let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
        control.identify(Some(&format!("Basic {encoded}"))).await
    };
    let secret = made.text.rsplit('_').next().unwrap();
    for whole in [
        format!("{}:", made.text),
        format!("anybody:{}", made.text),
        format!("{}:{secret}", made.id),
    ] {
        assert_eq!(basic(&whole).await.unwrap().id(), format!("token:{}", made.id));
    }
    for wrong in ["x:y", "", "x", &swapped] {
        assert!(matches!(basic(wrong).await, Err(IdentityError::BadToken)), "{wrong}");
    }
    assert!(!format!("{made:?}").contains(&made.text));
    let stored = store.find_token(&made.id).await.unwrap().unwrap();
    assert!(!made.text.contains(&stored.hash), "only a hash is stored");

    clock.fetch_add(59_999, Ordering::Relaxed);
    assert!(identify(control, &made.text).await.is_ok());
    clock.fetch_add(1, Ordering::Relaxed);
    assert!(matches!(identify(control, &made.text).await, Err(IdentityError::BadToken)));
}

/// Two processes have two caches of one database.
#[tokio::test]
async fn a_revoked_token_is_refused_within_a_second_by_every_process() {
    let (_folder, sqlite) = sqlite().await;
    let mut stores = vec![(sqlite.clone(), sqlite)];
    if let Some(url) = database().await {
        let open = async || Metastore::postgres(&url).await.unwrap();
        stores.push((open().await, open().await));
    }
    for (one, other) in stores {
        let ((here, _), (there, _)) = (access(one).await, access(other).await);
        let (here, there) = (here.control().unwrap(), there.control().unwrap());
        let made = mint(here, request(&["read:a"])).await.unwrap();
        let session =
            there.log_in(Some(&made.id), &made.text, audit::AuditEntry::default()).await.unwrap();
        for token in [&made.text, &session.text] {
            assert!(identify(here, token).await.is_ok() && identify(there, token).await.is_ok());
        }

        assert!(here.revoke_token(&made.id, &call()).await.unwrap());
        let revoked_at = Instant::now();
        for token in [&made.text, &session.text] {
            assert!(identify(here, token).await.is_err(), "at once where it was revoked");
        }
        for token in [&made.text, &session.text] {
            loop {
                let asked = revoked_at.elapsed();
                if identify(there, token).await.is_err() {
                    break;
                }
                assert!(asked < Duration::from_secs(1));
                tokio::task::yield_now().await;
            }
        }
        assert!(
            there.log_in(Some(&made.id), &made.text, audit::AuditEntry::default()).await.is_err()
        );
    }
}

#[tokio::test]
async fn credentials_are_taken_in_each_form_that_clients_send() {
    let (_folder, store) = sqlite().await;
    let (access, _) = access(store).await;
    let control = access.control().unwrap();
    let made = mint(control, request(&["read:a"])).await.unwrap();
    let secret = made.text.rsplit('_').next().unwrap();
    let full_id = format!("ice_{}", made.id);
    for (id, secret) in [
        (Some(made.id.as_str()), secret),
        (Some(full_id.as_str()), secret),
        (Some(made.id.as_str()), made.text.as_str()),
        (None, made.text.as_str()),
    ] {
        let session = control.log_in(id, secret, audit::AuditEntry::default()).await.unwrap();
        assert_eq!(
            identify(control, &session.text).await.unwrap(),
            identify(control, &made.text).await.unwrap()
        );
        assert!(control.exchange(&session.text, audit::AuditEntry::default()).await.is_ok());
    }
    assert!(control.log_in(None, secret, audit::AuditEntry::default()).await.is_err());
    assert!(
        control
            .log_in(Some("0000000000000000"), &made.text, audit::AuditEntry::default())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn an_access_token_ends_after_an_hour() {
    let (_folder, store) = sqlite().await;
    let (access, clock) = access(store.clone()).await;
    let control = access.control().unwrap();
    let made = mint(control, request(&["read:a"])).await.unwrap();
    let session = control.log_in(None, &made.text, audit::AuditEntry::default()).await.unwrap();
    clock.fetch_add(3_600_000, Ordering::Relaxed);
    assert!(identify(control, &session.text).await.is_err());
    assert!(identify(control, &made.text).await.is_ok());
    control.tick().await.unwrap();
    assert_eq!(store.find_token(&session.id).await.unwrap(), None);
    let listed = store.tokens().await.unwrap();
    assert_eq!(listed[0].last_used_ms, Some(START_MS + 3_600_000));
}

#[tokio::test]
async fn the_use_of_a_token_is_written_at_most_once_a_minute() {
    let (_folder, store) = sqlite().await;
    let (access, clock) = access(store.clone()).await;
    let control = access.control().unwrap();
    let made = mint(control, request(&["read:a"])).await.unwrap();
    let mut written = Vec::new();
    for _ in 0..4 {
        identify(control, &made.text).await.unwrap();
        control.tick().await.unwrap();
        written.push(store.tokens().await.unwrap()[0].last_used_ms.unwrap() - START_MS);
        clock.fetch_add(25_000, Ordering::Relaxed);
    }
    assert_eq!(written, [0, 0, 0, 75_000]);
}

#[tokio::test]
async fn a_token_is_made_only_of_what_can_be_kept() {
    let (_folder, store) = sqlite().await;
    let check = async |request: TokenRequest, expected: &str| {
        let problem = make_token(&store, request, START_MS).await.unwrap_err().to_string();
        assert!(problem.contains(expected), "{problem}");
    };
    check(request(&[]), "1 to 64 scopes").await;
    check(request(&["read:a"; 65]), "1 to 64 scopes").await;
    let name = |name: String| TokenRequest { name, ..request(&["read:a"]) };
    check(name(String::new()), "1 to 128 bytes").await;
    check(name("n".repeat(129)), "1 to 128 bytes").await;
    check(name("a\nb".to_owned()), "control characters").await;
    let lifetime = Some(Duration::ZERO);
    check(TokenRequest { lifetime, ..request(&["read:a"]) }, "longer than zero").await;
}

fn entry(object: &str) -> audit::AuditEntry {
    audit::AuditEntry {
        principal: "token:a".to_owned(),
        action: "POST /v1/namespaces".to_owned(),
        object: object.to_owned(),
        ..audit::AuditEntry::default()
    }
}

#[tokio::test]
async fn a_call_whose_caller_goes_away_is_recorded_as_unanswered() {
    let (_folder, store) = sqlite().await;
    let (access, _) = access(store.clone()).await;
    let recorder = access.recorder().unwrap();
    drop(recorder.begin(entry("nul\0and long".repeat(9999).as_str())).unwrap());
    recorder.begin(entry("b")).unwrap().end(204).await;
    let records = store.audit(0, 10).await.unwrap();
    let outcomes: Vec<&str> = records.iter().map(|one| one.entry.outcome.as_str()).collect();
    assert_eq!(outcomes, ["unanswered", "204"]);
    assert_eq!(records[0].entry.time_ms, START_MS);
    let object = &records[0].entry.object;
    assert!(object.len() <= 64 << 10 && !object.contains('\0') && object.ends_with("… (cut)"));
}

/// The change goes on without its caller, before or after the record that says so.
#[tokio::test]
async fn a_change_that_outlives_its_caller_is_recorded_once() {
    for store in stores().await {
        let (access, _) = access(store.1.clone()).await;
        let recorder = access.recorder().unwrap();
        let change = async |call: &Arc<AuditedCall>, name: &str| {
            let levels = vec![name.to_owned()];
            let store = store.1.for_call(call);
            store.create_namespace(&levels, &Properties::new()).await.unwrap();
        };
        for (name, is_told_first) in [("early", true), ("late", false)] {
            let recording = recorder.begin(entry(name)).unwrap();
            let call = Arc::clone(recording.call());
            drop(recording);
            if is_told_first {
                access.tick().await.unwrap();
            }
            change(&call, name).await;
            access.tick().await.unwrap();
        }
        let records = store.1.audit(0, 10).await.unwrap();
        let told: Vec<_> = records
            .iter()
            .map(|one| (one.entry.object.as_str(), one.entry.outcome.as_str()))
            .collect();
        assert_eq!(told, [("early", "unanswered"), ("late", "done")]);
    }
}

#[tokio::test]
async fn records_that_cannot_be_written_are_kept_and_at_last_refuse_new_calls() {
    let (_folder, store) = sqlite().await;
    let (access, _) = access(store.clone()).await;
    let recorder = access.recorder().unwrap();
    store.tamper("ALTER TABLE audit RENAME TO away").await;
    let mut taken = 0;
    while let Some(recording) = recorder.begin(entry("a")) {
        drop(recording);
        taken += 1;
    }
    assert_eq!(taken, 1024);
    assert!(access.tick().await.is_err());
    assert!(recorder.begin(entry("a")).is_none());

    store.tamper("ALTER TABLE away RENAME TO audit").await;
    access.tick().await.unwrap();
    assert!(recorder.begin(entry("a")).is_some());
    assert_eq!(store.audit_ends().await.unwrap().head.number, taken);
}

#[tokio::test]
async fn a_flood_of_refused_calls_is_a_few_records_that_count_them() {
    let (_folder, store) = sqlite().await;
    let (access, clock) = access(store.clone()).await;
    let recorder = access.recorder().unwrap();
    for n in 0..1000 {
        recorder.begin(entry("a")).unwrap().end(if n % 2 == 0 { 403 } else { 404 }).await;
        recorder.count_unknown("10.0.0.1");
        recorder.count_unknown(&format!("10.0.1.{n}"));
    }
    access.tick().await.unwrap();
    assert_eq!(store.audit_ends().await.unwrap().head.number, 20, "the first of the caller's");
    // What is not refused is recorded however much there is of it.
    recorder.begin(entry("a")).unwrap().end(409).await;
    clock.fetch_add(60_000, Ordering::Relaxed);
    access.tick().await.unwrap();
    access.tick().await.unwrap();
    let records = store.audit(20, 100).await.unwrap();
    let told: Vec<_> = records
        .iter()
        .map(|one| {
            let entry = &one.entry;
            (entry.principal.as_str(), entry.address.as_str(), entry.object.as_str())
        })
        .collect();
    assert!(
        told.contains(&("token:a", "", "980")) && told.contains(&("unknown", "10.0.0.1", "1000"))
    );
    assert!(told.contains(&("unknown", "others", "969")), "{told:?}");
    assert_eq!(told.len(), 1 + 1 + 33, "one call, one caller, 32 addresses and the others");
    assert_eq!(records[1].entry.outcome, "refused");
    // The next minute begins anew; what it counts is told at the latest when the server stops.
    recorder.begin(entry("a")).unwrap().end(403).await;
    recorder.count_unknown("10.0.0.1");
    access.finish().await.unwrap();
    assert_eq!(store.audit(20 + 35, 100).await.unwrap().len(), 2);
}
