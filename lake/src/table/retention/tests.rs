use super::*;
use crate::table::lake::{TestLake, optional, schema};
use iceberg::spec::{
    DataContentType, DataFileBuilder, Datum, PrimitiveType, Struct, UnboundPartitionSpec,
};
use std::collections::HashMap;

const TODAY: i32 = 20_010;
const NOW_MS: i64 = TODAY as i64 * DAY_MS;
const TYPE: i32 = 1;
const TIME: i32 = 2;
const OP: i32 = 3;
const SEQ: i32 = 4;

/// A table like `events`.
fn events() -> TestLake {
    let columns = schema([
        optional(TYPE, "type", PrimitiveType::String),
        optional(TIME, "ts", PrimitiveType::Timestamptz),
        optional(OP, "op", PrimitiveType::String),
        optional(SEQ, "seq", PrimitiveType::Long),
    ]);
    let spec =
        UnboundPartitionSpec::builder().add_partition_field(TYPE, "type", Transform::Identity);
    let spec = spec.unwrap().add_partition_field(TIME, "dt", Transform::Day).unwrap();
    TestLake::new(columns, spec.build())
}

/// A table like `dead_letters`.
fn letters() -> TestLake {
    let columns = schema([
        optional(TYPE, "id", PrimitiveType::String),
        optional(TIME, "received_at", PrimitiveType::Timestamptz),
    ]);
    let spec = UnboundPartitionSpec::builder().add_partition_field(TIME, "dt", Transform::Day);
    TestLake::new(columns, spec.unwrap().build())
}

fn of_type(event_type: &str, day: i32) -> Struct {
    Struct::from_iter([Some(Literal::string(event_type)), Some(Literal::date(day))])
}

/// A file of ten rows without `op`, with the numbers from `day * 100` on.
async fn file(lake: &mut TestLake, event_type: &str, day: i32) -> DataFileBuilder {
    let mut file = lake.put(b"rows".to_vec()).await;
    let first = i64::from(day) * 100;
    file.partition(of_type(event_type, day))
        .record_count(10)
        .null_value_counts([(OP, 10)].into())
        .lower_bounds([(SEQ, Datum::long(first))].into())
        .upper_bounds([(SEQ, Datum::long(first + 9))].into());
    file
}

fn rules() -> RetentionRules {
    "a.*=5d".parse().unwrap()
}

async fn survey_of(lake: &TestLake, kept: KeptRows<'_>) -> AgeSurvey {
    let id = lake.metadata.current_snapshot_id().unwrap();
    survey(lake.source(), id, kept, NOW_MS).await.unwrap()
}

/// What goes, by the paths, and the summary of the snapshot without it.
async fn removed(lake: &TestLake, kept: KeptRows<'_>) -> (Vec<String>, BTreeMap<String, String>) {
    let id = lake.metadata.current_snapshot_id().unwrap();
    let survey = survey_of(lake, kept).await;
    let old = old_files(lake.source(), id, kept, NOW_MS, &survey).await.unwrap();
    let new = old.removal(id, "c".to_owned());
    assert_eq!((new.operation, new.read, new.mark.is_none()), (Operation::Delete, Some(id), true));
    let mut paths: Vec<String> =
        new.removed.iter().map(|file| file.file_path().to_owned()).collect();
    paths.sort_unstable();
    (paths, new.summary)
}

fn paths(files: &[&DataFile]) -> Vec<String> {
    files.iter().map(|file| file.file_path().to_owned()).collect()
}

#[tokio::test]
async fn a_file_goes_once_its_whole_day_is_old_and_nothing_says_otherwise() {
    let mut lake = events();
    let old = [
        file(&mut lake, "a.x", TODAY - 7).await.build().unwrap(),
        file(&mut lake, "a.x", TODAY - 6).await.build().unwrap(),
    ];
    let mut all = old.to_vec();
    // Its last rows are five days old only when the day after has ended.
    all.push(file(&mut lake, "a.x", TODAY - 5).await.build().unwrap());
    all.push(file(&mut lake, "b", 1).await.build().unwrap());
    let mut with_op = file(&mut lake, "a.y", TODAY - 9).await;
    all.push(with_op.null_value_counts([(OP, 9)].into()).build().unwrap());
    let mut untold = file(&mut lake, "a.y", TODAY - 9).await;
    all.push(untold.null_value_counts(HashMap::new()).build().unwrap());
    let mut later = file(&mut lake, "a.z", TODAY - 8).await;
    let yesterday = Datum::timestamptz_micros((NOW_MS - DAY_MS) * 1_000);
    all.push(later.upper_bounds([(TIME, yesterday)].into()).build().unwrap());
    lake.commit(all).await;

    let rules = rules();
    let found = survey_of(&lake, KeptRows::Events(&rules)).await;
    assert_eq!(found.all, RemovalTotals { files: 2, bytes: 8, rows: 20 });
    assert_eq!(
        found.skipped,
        [
            "data files that have rows with `op`, or do not say that they have none stay (2)",
            "data files whose bounds have later times than their day stay (1)",
        ]
    );
    let (gone, summary) = removed(&lake, KeptRows::Events(&rules)).await;
    assert_eq!(gone, paths(&[&old[0], &old[1]]));
    let day = i64::from(TODAY);
    for (key, value) in [
        (REASON, REASON_RETENTION.to_owned()),
        (REMOVED_ROWS, "20".to_owned()),
        (REMOVED_FIRST_SEQ, ((day - 7) * 100).to_string()),
        (REMOVED_LAST_SEQ, ((day - 6) * 100 + 9).to_string()),
    ] {
        assert_eq!(summary[key], value, "{key}");
    }
    let none = RetentionRules::default();
    assert_eq!(removed(&lake, KeptRows::Events(&none)).await.0, Vec::<String>::new());
}

#[tokio::test]
async fn what_empties_a_collection_stays_with_its_changes() {
    let mut lake = events();
    let truncate = file(&mut lake, TRUNCATE_TYPE, TODAY - 9).await.build().unwrap();
    let other = file(&mut lake, "cdc.other", TODAY - 9).await.build().unwrap();
    lake.commit(vec![truncate, other.clone()]).await;
    let rules: RetentionRules = "cdc.*=5d".parse().unwrap();
    let found = survey_of(&lake, KeptRows::Events(&rules)).await;
    assert_eq!(found.skipped, ["data files that empty collections stay (1)"]);
    assert_eq!(removed(&lake, KeptRows::Events(&rules)).await.0, paths(&[&other]));
}

#[tokio::test]
async fn delete_files_go_that_delete_nothing_any_more() {
    let mut lake = events();
    let whole = file(&mut lake, "a.x", TODAY - 9).await.build().unwrap();
    let gone = file(&mut lake, "a.y", TODAY - 9).await.build().unwrap();
    let mut stays = file(&mut lake, "a.y", TODAY - 9).await;
    let stays = stays.null_value_counts([(OP, 0)].into()).build().unwrap();
    lake.commit(vec![whole.clone(), gone.clone(), stays.clone()]).await;
    let mut deletes = Vec::new();
    for event_type in ["a.x", "a.y"] {
        let mut delete = lake.put(b"keys".to_vec()).await;
        delete
            .content(DataContentType::EqualityDeletes)
            .equality_ids(Some(vec![SEQ]))
            .partition(of_type(event_type, TODAY - 9));
        deletes.push(delete.build().unwrap());
    }
    for about in [&gone, &stays] {
        let mut delete = lake.put(b"places".to_vec()).await;
        delete
            .content(DataContentType::PositionDeletes)
            .referenced_data_file(Some(about.file_path().to_owned()))
            .partition(of_type("a.y", TODAY - 9));
        deletes.push(delete.build().unwrap());
    }
    lake.commit(deletes.clone()).await;
    let rules = rules();
    let (found, summary) = removed(&lake, KeptRows::Events(&rules)).await;
    assert_eq!(found, paths(&[&whole, &gone, &deletes[0], &deletes[2]]));
    assert_eq!(summary[REMOVED_ROWS], "20");
}

#[tokio::test]
async fn no_letter_loses_a_row_before_one_that_is_older() {
    let mut lake = letters();
    let mut all = Vec::new();
    for day in [TODAY - 9, TODAY - 8, TODAY - 7] {
        let mut file = lake.put(b"rows".to_vec()).await;
        file.partition(Struct::from_iter([Some(Literal::date(day))]));
        all.push(file);
    }
    let first = all[0].build().unwrap();
    let today = Datum::timestamptz_micros(NOW_MS * 1_000);
    all[1].upper_bounds([(TIME, today)].into());
    lake.commit(all.iter().map(|file| file.build().unwrap()).collect()).await;
    let kept = KeptRows::DeadLetters { kept_ms: 5 * DAY_MS };
    assert_eq!(removed(&lake, kept).await.0, paths(&[&first]));
    let skipped = survey_of(&lake, kept).await.skipped;
    assert!(skipped.iter().any(|why| why.contains("older rows go first")), "{skipped:?}");
}

#[tokio::test]
async fn a_file_that_is_live_twice_stays_and_keeps_all_letters() {
    let rules = rules();
    let mut lake = events();
    let twice = file(&mut lake, "a.x", TODAY - 9).await.build().unwrap();
    let once = file(&mut lake, "a.x", TODAY - 8).await.build().unwrap();
    lake.commit(vec![twice.clone(), once.clone()]).await;
    lake.commit(vec![twice]).await;
    assert_eq!(removed(&lake, KeptRows::Events(&rules)).await.0, paths(&[&once]));

    let mut lake = letters();
    let mut letter = async |day| {
        let mut file = lake.put(b"rows".to_vec()).await;
        file.partition(Struct::from_iter([Some(Literal::date(day))])).build().unwrap()
    };
    let (twice, once) = (letter(TODAY - 8).await, letter(TODAY - 9).await);
    lake.commit(vec![twice.clone(), once]).await;
    lake.commit(vec![twice]).await;
    let kept = KeptRows::DeadLetters { kept_ms: 5 * DAY_MS };
    assert_eq!(removed(&lake, kept).await.0, Vec::<String>::new());
    let (id, survey) = (lake.metadata.current_snapshot_id().unwrap(), survey_of(&lake, kept).await);
    let old = old_files(lake.source(), id, kept, NOW_MS, &survey).await.unwrap();
    assert_eq!(old.skipped.unwrap(), "data files that are live twice stay (1)");
}

#[test]
fn a_commit_takes_the_oldest_days_and_at_least_one() {
    let check = |files: &[u64], last_day: Option<i32>, is_more: bool| {
        let days = (1..).zip(files);
        let days =
            days.map(|(day, files)| (day, RemovalTotals { files: *files, bytes: 0, rows: 0 }));
        let tally = AgeTally { days: days.collect(), ..AgeTally::default() };
        let found = tally.survey(KeptRows::DeadLetters { kept_ms: 0 });
        assert_eq!((found.last_day, found.is_more), (last_day, is_more), "{files:?}");
        assert_eq!(found.all.files, files.iter().sum::<u64>());
    };
    check(&[], None, false);
    check(&[1, 2, 3], Some(3), false);
    check(&[FILES_MAX - 1, FILES_MAX, 1], Some(2), true);
    check(&[3 * FILES_MAX, 1], Some(1), true);
}
