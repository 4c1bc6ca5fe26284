use super::*;
use crate::metastore::tests::stores;

const PAUSE_MS: i64 = 100;

#[tokio::test]
async fn loads_that_follow_one_another_have_one_begin() {
    let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
    for (_folder, store) in stores().await {
        let load = async |uuid, at_ms, is_refresh| {
            store.note_writer_load(uuid, WriterLoad { at_ms, is_refresh }, PAUSE_MS).await.unwrap();
            let WriterLoads { since_ms, loaded_ms, refreshed_ms } =
                store.writer_loads(uuid).await.unwrap().unwrap();
            (since_ms, loaded_ms, refreshed_ms)
        };
        assert_eq!(store.writer_loads(one).await.unwrap(), None);
        assert_eq!(load(one, 1_000, false).await, (1_000, 1_000, 0));
        assert_eq!(load(one, 1_100, true).await, (1_000, 1_100, 1_100));
        assert_eq!(load(one, 1_150, false).await, (1_000, 1_150, 1_100));
        assert_eq!(load(one, 1_251, false).await, (1_251, 1_251, 1_100), "after a pause");
        assert_eq!(load(other, 1_300, true).await, (1_300, 1_300, 1_300));
        assert_eq!(load(one, 900, false).await, (900, 900, 1_100), "the clock was set back");
        store.forget_writer_loads(1_300).await.unwrap();
        assert_eq!(store.writer_loads(one).await.unwrap(), None);
        assert!(store.writer_loads(other).await.unwrap().is_some());
    }
}
