//! What comes again: tables and views that had left, requests that are repeated.

use super::{id, levels, swap, with_table};
use crate::{
    error::CatalogError,
    metastore::{
        AnsweredTable, ChangeOrigin, ChangeSet, DropTerms, FeedRetention, Metastore, NameKind,
        NewTable, Properties, RecordedAnswer, RequestKey, SwapOutcome, TableOrigin,
    },
};
use std::sync::Arc;

/// What a commit was built on before a table or view left is not what is there once it is back,
/// even if it is back with the same metadata file.
pub(crate) async fn no_version_comes_back(store: &Metastore) {
    let a = levels("a");
    store.create_namespace(&a, &Properties::new()).await.unwrap();
    for (number, kind) in [(1, NameKind::Table), (2, NameKind::View)] {
        let new = NewTable {
            kind,
            levels: a.clone(),
            name: "n".to_owned(),
            uuid: id(number),
            metadata_location: "m1".to_owned(),
            location: format!("s3://b/{number}"),
            snapshots: Vec::new(),
            comes: TableOrigin::Registered { needs: Vec::new() },
            changes: ChangeSet::default(),
        };
        let mut seen = Vec::new();
        for way in 0..4 {
            match (way, kind) {
                (3, NameKind::Table) => store.undrop(&new).await.unwrap(),
                _ => {
                    let added = store.commit_with_new(std::slice::from_ref(&new), &[]).await;
                    assert_eq!(added.unwrap(), SwapOutcome::Done);
                }
            }
            for before in &seen {
                let late = store.commit(&[swap(id(number), *before, "late")]).await.unwrap();
                assert_eq!(late, SwapOutcome::Lost(id(number)), "{way}: {before}");
            }
            let version = store.table_by_uuid(id(number)).await.unwrap().unwrap().version;
            seen.push(version);
            if way == 1 {
                let moved = store.commit(&[swap(id(number), version, "m2")]).await.unwrap();
                assert_eq!(moved, SwapOutcome::Done);
                seen.push(version + 1);
            }
            let trash = DropTerms { dropped_ms: 0, until_ms: 1, purge: false };
            match (way, kind) {
                (_, NameKind::View) => store.drop_view(&a, "n").await.unwrap(),
                (2, NameKind::Table) => store.trash_table(&a, "n", &trash).await.unwrap(),
                (_, NameKind::Table) => store.drop_table(&a, "n").await.unwrap(),
            };
        }
        assert!(seen.is_sorted_by(|one, next| one < next), "{seen:?}");
    }
}

pub(crate) async fn remembered_requests(store: &Metastore) {
    let made = |uuid, file: &str| AnsweredTable { uuid, metadata_location: file.to_owned() };
    let key = |n: u128, answer| RequestKey { id: id(n), fingerprint: n.to_string(), answer };
    let asked = |at_ms, n, answer| {
        let request = Some(Arc::new(key(n, answer)));
        store.on_behalf_of(ChangeOrigin {
            actor: "a".into(),
            call: None,
            request,
            now: Arc::new(move || at_ms),
        })
    };
    asked(10, 1, RecordedAnswer::View).keep_request(Some((id(9), "m"))).await.unwrap();
    let twice = asked(20, 1, RecordedAnswer::Empty).keep_request(None).await;
    assert!(matches!(twice, Err(CatalogError::Repeated)));
    let done = store.request(id(1)).await.unwrap().unwrap();
    assert_eq!((done.status, done.answer, done.table), {
        (200, RecordedAnswer::View, Some(made(id(9), "m")))
    });
    // The table that left is what an answer can hold.
    let left = with_table(store, 9).await;
    asked(20, 2, RecordedAnswer::Commit).drop_table(&levels("a"), "t9").await.unwrap();
    let done = store.request(id(2)).await.unwrap().unwrap();
    assert_eq!((done.answer, done.table), (RecordedAnswer::Commit, Some(made(left, "m1"))));
    store.keep_request(None).await.unwrap();
    asked(15, 6, RecordedAnswer::Staged("{}".to_owned())).keep_request(None).await.unwrap();
    let staged = store.request(id(6)).await.unwrap().unwrap();
    assert_eq!(staged.answer, RecordedAnswer::Staged("{}".to_owned()));
    for n in 3..6 {
        let at_ms = i64::try_from(n).unwrap() * 10;
        let asked = asked(at_ms, n, RecordedAnswer::Empty);
        let kept = asked.refuse_request(&key(n, RecordedAnswer::Empty), 404, "{}").await.unwrap();
        assert_eq!(kept.unwrap().status, 404);
    }
    let kept = async |requests_since_ms, without_effect| {
        let remembered =
            FeedRetention { requests_since_ms, without_effect, events: 100, event_bytes: 1 << 20 };
        store.forget_records(remembered).await.unwrap();
        let mut kept = Vec::new();
        for n in 1..7 {
            if store.request(id(n)).await.unwrap().is_some() {
                kept.push(n);
            }
        }
        kept
    };
    assert_eq!(kept(10, 10).await, [1, 2, 3, 4, 5, 6]);
    assert_eq!(kept(10, 3).await, [1, 2, 3, 4, 5]);
    assert_eq!(kept(10, 1).await, [1, 2, 5], "the newest refusal, and what was carried out");
    assert_eq!(kept(20, 0).await, [2]);
}
