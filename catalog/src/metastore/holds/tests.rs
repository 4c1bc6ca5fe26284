use super::*;
use crate::metastore::{Properties, suite::levels, tests::stores};

fn hold(namespace: &str, name: &str, reason: Option<&str>, since_ms: i64) -> LegalHold {
    let reason = reason.map(str::to_owned);
    LegalHold { levels: levels(namespace), name: name.to_owned(), reason, since_ms }
}

#[tokio::test]
async fn a_hold_is_there_from_its_first_call_until_it_is_removed() {
    for (_folder, store) in stores().await {
        store.create_namespace(&levels("shop"), &Properties::new()).await.unwrap();
        store.set_hold(&hold("shop", "case-7", None, 5)).await.unwrap();
        store.set_hold(&hold("shop", "audit", Some("2026"), 6)).await.unwrap();
        store.set_hold(&hold("shop", "case-7", Some("court"), 9)).await.unwrap();
        let expected =
            [hold("shop", "audit", Some("2026"), 6), hold("shop", "case-7", Some("court"), 5)];
        assert_eq!(store.holds(&levels("shop")).await.unwrap(), expected);
        assert!(store.remove_hold(&levels("shop"), "audit").await.unwrap());
        assert!(!store.remove_hold(&levels("shop"), "audit").await.unwrap());
        assert_eq!(store.holds(&levels("shop")).await.unwrap(), expected[1..]);
        assert_eq!(store.holds(&levels("other")).await.unwrap(), []);
        // What nothing can be called is asked for in vain.
        assert_eq!(store.holds(&levels("a\0b")).await.unwrap(), []);
        assert!(!store.remove_hold(&levels("shop"), "a\0").await.unwrap());
    }
}

#[tokio::test]
async fn a_hold_covers_what_is_below_its_namespace_and_needs_it() {
    for (_folder, store) in stores().await {
        let missing = store.set_hold(&hold("shop", "x", None, 1)).await;
        assert!(matches!(missing, Err(CatalogError::NoSuchNamespace(_))), "{missing:?}");
        for name in ["shop", "shop.eu", "shop2"] {
            store.create_namespace(&levels(name), &Properties::new()).await.unwrap();
        }
        let held = hold("shop", "x", None, 1);
        store.set_hold(&held).await.unwrap();
        for (name, covers) in [("shop", true), ("shop.eu", true), ("shop2", false), ("s", false)] {
            let found = store.hold_over(&levels(name)).await.unwrap();
            assert_eq!(found, covers.then(|| held.clone()), "{name}");
        }
        // It outlives the namespace, which may come back.
        store.drop_namespace(&levels("shop.eu")).await.unwrap();
        store.drop_namespace(&levels("shop")).await.unwrap();
        assert_eq!(store.hold_over(&levels("shop")).await.unwrap(), Some(held));
    }
}
