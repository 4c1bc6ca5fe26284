use crate::{
    access::{
        Action, Scope,
        audit::{Check, Entry, Head},
    },
    metastore::{
        Levels, Metastore, Properties,
        sql::{
            SqlMetastore,
            access::{ACCESS_TOKENS_MAX, NewAccessToken, NewToken},
            audit::Writing,
            tests::{database, sqlite},
        },
    },
};

/// The databases there are, each with what keeps it.
async fn stores() -> Vec<(Option<tempfile::TempDir>, SqlMetastore)> {
    let (folder, sqlite) = sqlite().await;
    let mut stores = vec![(Some(folder), sqlite)];
    if let Some(url) = database().await {
        stores.push((None, SqlMetastore::postgres(&url).await.unwrap()));
    }
    stores
}

fn token(id: &str, scopes: &[&str]) -> NewToken {
    NewToken {
        id: id.to_owned(),
        hash: "h".to_owned(),
        name: "nightly".to_owned(),
        home: Some("Shop".to_owned()),
        scopes: scopes.iter().map(|scope| scope.parse().unwrap()).collect(),
        created_ms: 1,
        expires_ms: Some(500),
    }
}

fn access_token(id: &str, created_ms: i64) -> NewAccessToken {
    NewAccessToken {
        id: id.to_owned(),
        parent: "a".to_owned(),
        hash: "h2".to_owned(),
        created_ms,
        expires_ms: created_ms + 10_000,
    }
}

#[tokio::test]
async fn a_token_is_found_with_its_grants_until_it_is_revoked() {
    for (_folder, store) in stores().await {
        store.add_token(&token("a", &["read:shop", "admin:*", "write:shop/eu"])).await.unwrap();
        store.add_token(&token("b", &[])).await.unwrap();
        let found = store.find_token("a").await.unwrap().unwrap();
        assert_eq!((found.owner.as_str(), found.home.as_deref()), ("a", Some("Shop")));
        let mut scopes: Vec<String> = found.scopes.iter().map(Scope::to_string).collect();
        scopes.sort_unstable();
        assert_eq!(scopes, ["admin:*", "read:shop", "write:shop/eu"]);
        assert_eq!(store.find_token("b").await.unwrap().unwrap().scopes, []);
        assert_eq!(store.find_token("c").await.unwrap(), None);

        store.note_token_use(&[("a".to_owned(), 77)]).await.unwrap();
        let listed = store.tokens().await.unwrap();
        assert_eq!(listed.iter().map(|token| token.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((listed[0].last_used_ms, listed[0].scopes.len()), (Some(77), 3));

        assert!(store.revoke_token("a").await.unwrap());
        assert!(!store.revoke_token("a").await.unwrap());
        assert_eq!(store.find_token("a").await.unwrap(), None);
    }
}

#[tokio::test]
async fn an_access_token_has_what_its_api_token_has_now_and_goes_with_it() {
    for (_folder, store) in stores().await {
        store.add_token(&token("a", &["read:shop"])).await.unwrap();
        assert!(store.add_access_token(&access_token("x", 1)).await.unwrap());
        let found = store.find_token("x").await.unwrap().unwrap();
        assert_eq!((found.owner.as_str(), found.hash.as_str()), ("a", "h2"));
        assert_eq!(found.expires_ms, Some(500), "the earlier end of both");
        assert_eq!(found.scopes, [Scope { action: Action::Read, namespace: vec!["shop".into()] }]);
        assert_eq!(store.tokens().await.unwrap().len(), 1, "it is not listed");
        assert!(!store.revoke_token("x").await.unwrap(), "it is revoked with its API token only");

        store.revoke_token("a").await.unwrap();
        assert_eq!(store.find_token("x").await.unwrap(), None);
        assert!(!store.add_access_token(&access_token("y", 1)).await.unwrap());
    }
}

#[tokio::test]
async fn access_tokens_are_bounded_and_forgotten_at_their_end() {
    let (_folder, store) = sqlite().await;
    store.add_token(&token("a", &[])).await.unwrap();
    for n in 0..=ACCESS_TOKENS_MAX {
        assert!(store.add_access_token(&access_token(&format!("x{n}"), n)).await.unwrap());
    }
    assert_eq!(store.find_token("x0").await.unwrap(), None);
    assert!(store.find_token("x1").await.unwrap().is_some());
    store.forget_ended_tokens(10_001).await.unwrap();
    assert_eq!(store.find_token("x1").await.unwrap(), None);
    assert!(store.find_token("x2").await.unwrap().is_some());
    assert!(store.find_token("a").await.unwrap().is_some(), "API tokens stay listed");
}

#[tokio::test]
async fn a_namespace_that_is_made_again_inherits_no_grant() {
    for (_folder, store) in stores().await {
        let (shop, other): (Levels, Levels) = (vec!["shop".into()], vec!["shop2".into()]);
        for levels in [&shop, &other] {
            store.create_namespace(levels, &Properties::new()).await.unwrap();
        }
        let scopes = ["read:shop", "write:shop", "read:shop2", "ingest:*"];
        store.add_token(&token("a", &scopes)).await.unwrap();
        store.drop_namespace(&shop).await.unwrap();
        store.create_namespace(&shop, &Properties::new()).await.unwrap();
        let left = store.find_token("a").await.unwrap().unwrap().scopes;
        let mut left: Vec<String> = left.iter().map(Scope::to_string).collect();
        left.sort_unstable();
        assert_eq!(left, ["ingest:*", "read:shop2"]);
    }
}

fn writing(n: usize) -> Writing {
    let entry = Entry {
        time_ms: 5,
        principal: "token:a".to_owned(),
        address: "127.0.0.1".to_owned(),
        request: format!("r{n}"),
        action: "POST /v1/namespaces".to_owned(),
        object: "shop".to_owned(),
        outcome: "200".to_owned(),
        details: String::new(),
    };
    Writing { key: format!("key-{n}"), was_tried: false, entry }
}

/// Whether the whole chain holds, read in small pages.
async fn verify(store: &SqlMetastore) -> Result<i64, String> {
    verify_with(store, None).await
}

async fn verify_with(store: &SqlMetastore, expected: Option<Head>) -> Result<i64, String> {
    let mut check = Check::new(store.audit_head().await.unwrap(), expected);
    loop {
        let records = store.audit(check.after(), 3).await.unwrap();
        if !check.page(&records).map_err(|broken| broken.to_string())? {
            break;
        }
    }
    check.finish().map(|head| head.number).map_err(|broken| broken.to_string())
}

#[tokio::test]
async fn a_head_that_was_kept_shows_a_chain_that_was_written_anew() {
    let (_folder, store) = sqlite().await;
    store.append_audit(&[1, 2, 3, 4].map(writing)).await.unwrap();
    let kept = Head { number: 3, hash: store.audit(2, 1).await.unwrap()[0].hash.clone() };
    assert_eq!(verify_with(&store, Some(kept.clone())).await, Ok(4));
    store.tamper("DELETE FROM audit; UPDATE audit_head SET number = 0, hash = ''").await;
    let anew = "record 3 has not the hash that is expected of it";
    assert_eq!(verify_with(&store, Some(kept.clone())).await.unwrap_err(), anew);
    store.append_audit(&[5, 6, 7, 8].map(writing)).await.unwrap();
    assert_eq!(verify(&store).await, Ok(4));
    assert_eq!(verify_with(&store, Some(kept)).await.unwrap_err(), anew);
}

#[tokio::test]
async fn many_processes_write_one_chain() {
    for (_folder, store) in stores().await {
        let writers = (0..8).map(|n| {
            let store = store.clone();
            async move { store.append_audit(&[writing(2 * n), writing(2 * n + 1)]).await }
        });
        for written in futures::future::join_all(writers).await {
            written.unwrap();
        }
        assert_eq!(verify(&store).await, Ok(16));
    }
}

#[tokio::test]
async fn a_record_whose_commit_had_no_answer_is_not_written_twice() {
    for (_folder, store) in stores().await {
        store.append_audit(&[writing(1)]).await.unwrap();
        let again = Writing { was_tried: true, ..writing(1) };
        store.append_audit(&[again, writing(2)]).await.unwrap();
        assert_eq!(verify(&store).await, Ok(2));
    }
}

#[tokio::test]
async fn a_changed_removed_or_moved_record_breaks_the_chain() {
    let damages = [
        ("UPDATE audit SET outcome = '403' WHERE number = 2", "record 2 or the one before it was"),
        ("UPDATE audit SET time_ms = 6 WHERE number = 3", "record 3 or the one before it was"),
        ("UPDATE audit SET hash = 'ff' WHERE number = 1", "record 1 or the one before it was"),
        ("DELETE FROM audit WHERE number = 2", "record 2 is missing: the next one there has"),
        ("DELETE FROM audit WHERE number = 1", "record 1 is missing"),
        ("DELETE FROM audit WHERE number = 4", "the log ends at record"),
        (
            "DELETE FROM audit WHERE number = 2; UPDATE audit SET number = number - 1 \
             WHERE number > 2",
            "record 2 or the one before it was",
        ),
        (
            "UPDATE audit SET number = 9 WHERE number = 2; \
             UPDATE audit SET number = 2 WHERE number = 3; \
             UPDATE audit SET number = 3 WHERE number = 9",
            "record 2 or the one before it was",
        ),
        ("UPDATE audit_head SET hash = 'ff'", "the log ends at record"),
    ];
    for (damage, expected) in damages {
        let (_folder, store) = sqlite().await;
        store.append_audit(&[1, 2, 3, 4].map(writing)).await.unwrap();
        assert_eq!(verify(&store).await, Ok(4));
        store.tamper(damage).await;
        let found = verify(&store).await.unwrap_err();
        assert!(found.starts_with(expected), "{damage}: {found}");
    }
}
