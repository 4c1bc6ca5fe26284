use super::*;
use crate::metastore::tests::stores;

fn lease(snapshot_id: i64, until_ms: i64, line_until_ms: i64) -> SnapshotLease {
    SnapshotLease { snapshot_id, until_ms, line_until_ms }
}

#[tokio::test]
async fn a_lease_only_becomes_longer_and_ends_by_its_time() {
    let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
    for (_folder, store) in stores().await {
        store.lease_snapshots(one, &[lease(-7, 100, 100), lease(8, 90, 0)]).await.unwrap();
        store.lease_snapshots(one, &[lease(-7, 50, 0), lease(8, 95, 60)]).await.unwrap();
        store.lease_snapshots(other, &[lease(-7, 10, 10)]).await.unwrap();
        let both = [lease(-7, 100, 100), lease(8, 95, 60)];
        assert_eq!(store.snapshot_leases(one, 94).await.unwrap(), both);
        assert_eq!(store.snapshot_leases(one, 95).await.unwrap(), both[..1]);
        assert_eq!(store.snapshot_leases(one, 100).await.unwrap(), []);
        store.forget_leases(95).await.unwrap();
        assert_eq!(store.snapshot_leases(one, 0).await.unwrap(), both[..1]);
        assert_eq!(store.snapshot_leases(other, 0).await.unwrap(), []);
    }
}
