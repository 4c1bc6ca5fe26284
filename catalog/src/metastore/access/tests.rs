use crate::{
    access::{AccessScope, Action},
    metastore::{
        Levels, Properties,
        access::{ACCESS_TOKENS_MAX, NewAccessToken, NewToken},
        tests::{sqlite, stores},
    },
};

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
        let mut scopes: Vec<String> = found.scopes.iter().map(AccessScope::to_string).collect();
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
        assert_eq!(
            found.scopes,
            [AccessScope { action: Action::Read, namespace: vec!["shop".into()] }]
        );
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
        // A grant may be older than its namespace.
        let below = ["read:shop/eu", "write:shop/eu/old"];
        let scopes = ["read:shop", "write:shop", "read:shop2", "read:shop!x", "ingest:*"];
        let scopes: Vec<&str> = scopes.into_iter().chain(below).collect();
        store.add_token(&token("a", &scopes)).await.unwrap();
        store.drop_namespace(&shop).await.unwrap();
        store.create_namespace(&shop, &Properties::new()).await.unwrap();
        let left = store.find_token("a").await.unwrap().unwrap().scopes;
        let mut left: Vec<String> = left.iter().map(AccessScope::to_string).collect();
        left.sort_unstable();
        assert_eq!(left, ["ingest:*", "read:shop!x", "read:shop2"]);
    }
}
