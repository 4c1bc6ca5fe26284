use super::*;
use crate::server::repair::tests::record;

#[track_caller]
fn check(kept: u64, had: u64, records: &[RecordRef], expected: Option<u64>) {
    let namespace = Namespace::parse("shop").unwrap();
    let kind = RecordKind::Events;
    let loss = SeqLoss { kind, namespace, kept, had, again: had + 1, mark: None };
    assert_eq!(loss.first_again(records).map(|record| record.position), expected);
}

#[test]
fn rows_come_again_where_the_log_has_all_from_there_on() {
    let records = [record(5, 11, 10), record(7, 21, 5), record(9, 26, 1)];
    check(10, 25, &records, Some(5));
    check(20, 25, &records, Some(7));
    check(20, 26, &records, Some(7));
    // Rows that no table has yet follow in any case, after a gap as well.
    check(20, 25, &[record(7, 21, 5), record(12, 40, 5)], Some(7));
    // The first are not in the log any more, some between are not, the last are not.
    check(9, 25, &records, Some(5));
    check(10, 26, &[record(5, 11, 10), record(9, 26, 1)], Some(9));
    check(20, 30, &records, None);
    // A record that the snapshot has in part would double rows.
    check(15, 25, &records, Some(7));
    check(15, 20, &records[..1], None);
    let other = RecordRef { namespace: Namespace::parse("other").unwrap(), ..record(7, 21, 5) };
    check(20, 25, &[other], None);
}
