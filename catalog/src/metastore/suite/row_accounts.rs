//! The account of a table's rows.

use super::{id, levels, swap, with_table};
use crate::{
    metastore::{
        ChangeSet, Metastore, NameKind, NewTable, PointerSwap, RowAccount, RowCheckpoint,
        SwapOutcome, TableOrigin, Watermark,
    },
    row_sum::RowSum,
};

fn rows(hashes: &[u128]) -> RowSum {
    let mut sum = RowSum::default();
    hashes.iter().for_each(|hash| sum.add(*hash));
    sum
}

/// The rows of the holder are counted with the watermark, once each, and outlive a dropped table.
pub(crate) async fn row_accounts(store: &Metastore) {
    let one = with_table(store, 1).await;
    assert_eq!(store.row_account(one).await.unwrap(), Some((1, RowAccount::default())));
    assert_eq!(store.row_account(id(99)).await.unwrap(), None);
    let moved = |version, position, acked| PointerSwap {
        watermark: Some(Watermark { epoch: 1, position, last_seq: position }),
        acked: Some(acked),
        ..swap(one, version, &format!("m{position}"))
    };
    store.commit(&[moved(1, 1, rows(&[u128::MAX, 5]))]).await.unwrap();
    let lost = store.commit(&[moved(1, 2, rows(&[7]))]).await.unwrap();
    assert_eq!(lost, SwapOutcome::Lost(one));
    let found = RowCheckpoint {
        basis: 77,
        rows: rows(&[1]),
        opening: rows(&[2, 3]),
        foreign: rows(&[]),
        removed: rows(&[u128::MAX]),
    };
    store.note_rows(one, None, &found).await.unwrap();
    let late = RowCheckpoint { basis: 76, ..found };
    store.note_rows(one, None, &late).await.unwrap();
    store.commit(&[moved(2, 2, rows(&[7]))]).await.unwrap();
    store.commit(&[swap(one, 3, "m3")]).await.unwrap();
    let account = RowAccount { acked: rows(&[u128::MAX, 5, 7]), checkpoint: Some(found) };
    assert_eq!(store.row_account(one).await.unwrap(), Some((4, account)));
    let next = RowCheckpoint { basis: 78, ..found };
    store.note_rows(one, Some(found), &next).await.unwrap();
    let account = RowAccount { checkpoint: Some(next), ..account };
    assert_eq!(store.row_account(one).await.unwrap(), Some((4, account)));

    store.drop_table(&levels("a"), "t1").await.unwrap();
    assert_eq!(store.row_account(one).await.unwrap(), None);
    let back = with_table(store, 1).await;
    let (_, again) = store.row_account(back).await.unwrap().unwrap();
    assert_eq!(again, account);

    let first = NewTable {
        kind: NameKind::Table,
        levels: levels("a"),
        name: "first".to_owned(),
        uuid: id(3),
        metadata_location: "m1".to_owned(),
        location: "s3://b/first".to_owned(),
        snapshots: Vec::new(),
        comes: TableOrigin::OfHolder {
            watermark: Watermark { epoch: 1, position: 1, last_seq: 2 },
            acked: Some(rows(&[8, 9])),
            namespace: None,
        },
        changes: ChangeSet::default(),
    };
    let made = store.commit_with_new(std::slice::from_ref(&first), &[]).await.unwrap();
    assert_eq!(made, SwapOutcome::Done);
    let (_, account) = store.row_account(id(3)).await.unwrap().unwrap();
    assert_eq!(account, RowAccount { acked: rows(&[8, 9]), checkpoint: None });

    // `main` goes back, and what was found of the snapshots after that is forgotten.
    let back = PointerSwap { acked_anew: Some(rows(&[8])), ..swap(id(3), 1, "m2") };
    store.note_rows(id(3), None, &found).await.unwrap();
    store.commit(&[back]).await.unwrap();
    let (_, account) = store.row_account(id(3)).await.unwrap().unwrap();
    assert_eq!(account, RowAccount { acked: rows(&[8]), checkpoint: None });
}
