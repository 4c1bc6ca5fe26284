use super::*;
use icecore_engine::collections::documents_at;

#[test]
fn documents_are_asked_for_bucket_by_bucket() {
    let some = ChangedBuckets::These([3, 1].into());
    let sql = documents_sql("it's", (None, 17), &TypedColumns::default(), (4, &some));
    let end = " WHERE bucket(4, key) IN (1, 3) ORDER BY bucket(4, key), key";
    assert_eq!(sql, format!("{}{end}", documents_at("it's", 17)));
    let all =
        documents_sql("orders", (None, 17), &TypedColumns::default(), (4, &ChangedBuckets::All));
    assert!(all.ends_with("17 ORDER BY bucket(4, key), key"), "{all}");
    let at = (Some("trial"), 17);
    let of_branch =
        documents_sql("orders", at, &TypedColumns::default(), (4, &ChangedBuckets::All));
    let end = " FOR SEQ AS OF 17 OF BRANCH 'trial' ORDER BY bucket(4, key), key";
    assert!(of_branch.ends_with(end), "{of_branch}");
    assert_eq!((some.count(4), ChangedBuckets::All.count(4)), (2, 4));
    assert!(ChangedBuckets::These(BTreeSet::new()).is_empty());
    assert!(!ChangedBuckets::All.is_empty());
}
