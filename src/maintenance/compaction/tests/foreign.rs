//! Tables of other engines: who has them merged, and that nothing of them is lost.

use super::*;

/// A catalog whose `table` is another engine's, with this value of the property of compaction.
async fn other_engines(switch: Option<&str>) -> House {
    let mut house = House::new().await;
    let mut table = icecore_samples::events_table();
    table.name = "others".to_owned();
    table.properties.remove("icecore.managed");
    let switch = switch.map(|value| ("icecore.compaction".to_owned(), value.to_owned()));
    table.properties.extend(switch);
    house.catalog.tables().create(&vec!["a".to_owned()], table).await.unwrap();
    house.table = TableIdent::from_strs(["a", "others"]).unwrap();
    house
}

/// Adds rows as a client does: no log knows them.
async fn add(house: &mut House, count: usize) {
    let before = house.head_rows(house.head().await);
    let first = house.seq + 1;
    house.seq += count as u64;
    let rows = icecore_samples::events(count, 2, first.cast_signed(), first);
    let loaded = house.load().await;
    let storage = house.catalog.storage();
    let files = writer::write(storage, &loaded.metadata, vec![rows], &house.ids).await.unwrap();
    let append = NewSnapshot { added: files, ..NewSnapshot::default() };
    let now = house.catalog.add_snapshot(&house.table, append).await.unwrap();
    house.clock.advance_ms(1_000);
    let mut rows = before;
    rows.extend((first..=house.seq).map(|seq| (seq.cast_signed(), 1)));
    house.model.insert(now.metadata.current_snapshot_id().unwrap(), rows);
}

async fn live_files(house: &House) -> usize {
    let loaded = house.load().await;
    house.planned(&loaded.metadata, house.head().await).await.len()
}

/// A run that names the table.
fn named() -> CompactionRequest {
    let (levels, table) = (Some(vec!["a".to_owned()]), Some("others".to_owned()));
    CompactionRequest { levels, table, ..now() }
}

#[tokio::test]
async fn a_table_of_another_engine_is_merged_where_it_is_named() {
    let mut house = other_engines(None).await;
    for _ in 0..6 {
        add(&mut house, 30).await;
    }
    house.delete(&mut StdRng::seed_from_u64(3)).await;
    let version = house.load().await.version;
    let left = house.compaction.run(&now()).await.unwrap();
    let told = |report: &JobReport, text: &str| {
        report.skipped.iter().any(|it| it.table == "a.others" && it.reason.contains(text))
    };
    assert!(told(&left, "name it with its namespace"), "{left:?}");
    assert_eq!((left.files.before, house.load().await.version), (0, version));

    let dry = CompactionRequest { dry_run: true, ..named() };
    let dry = house.compaction.run(&dry).await.unwrap();
    assert!(0 < dry.files.before && dry.not_copied.is_empty(), "{dry:?}");
    let rows = house.head_rows(house.head().await);
    let before = live_files(&house).await;
    let done = house.compaction.run(&named()).await.unwrap();
    assert_eq!((done.tables, done.files.before), (1, dry.files.before), "{done:?}");
    assert_eq!(
        live_files(&house).await as u64 + done.files.before,
        before as u64 + done.files.after
    );
    let head = house.head().await;
    house.model.insert(head, rows);
    // The snapshots before are read as well.
    house.check().await;
    let again = house.compaction.run(&named()).await.unwrap();
    assert_eq!(again.files.before, 0, "{again:?}");
}

#[tokio::test]
async fn the_job_takes_a_table_whose_property_asks_for_it_and_no_other() {
    for (switch, is_merged) in [(None, false), (Some("off"), false), (Some("on"), true)] {
        let mut house = other_engines(switch).await;
        for _ in 0..10 {
            add(&mut house, 30).await;
        }
        let before = live_files(&house).await;
        let mut job = CompactTables::new(house.compaction.clone());
        for _ in 0..4 {
            job.tick().await.unwrap();
            house.clock.advance_ms(60_000);
        }
        assert_eq!(live_files(&house).await < before, is_merged, "{switch:?}");
        let counts = house.read(&house.load().await.metadata, house.head().await).await;
        assert_eq!(counts.len(), 300, "{switch:?}");
        house.check().await;
    }
}

/// Files of two partition specs: by type and day, and then by type alone.
async fn two_specs() -> House {
    let mut house = other_engines(Some("on")).await;
    for _ in 0..3 {
        add(&mut house, 30).await;
    }
    let kind = house.load().await.metadata.current_schema().field_by_name("type").unwrap().id;
    let spec = UnboundPartitionSpec::builder();
    let spec = spec.add_partition_field(kind, "kind", Transform::Identity).unwrap().build();
    let change = TableChange {
        table: house.table.clone(),
        requirements: Vec::new(),
        updates: vec![TableUpdate::AddSpec { spec }, TableUpdate::SetDefaultSpec { spec_id: -1 }],
        keeps_history: true,
    };
    house.catalog.commit(change).await.unwrap();
    for _ in 0..3 {
        add(&mut house, 30).await;
    }
    house
}

/// By a filter that reaches into both specs, peers merged all files of the earlier one.
#[tokio::test]
async fn a_condition_takes_partitions_of_each_spec_and_no_others() {
    let house = two_specs().await;
    let (loaded, head) = (house.load().await, house.head().await);
    let (before, rows) = (house.planned(&loaded.metadata, head).await, house.head_rows(head));
    let wanted = before[0].partition.fields()[0].clone();
    let Some(Literal::Primitive(PrimitiveLiteral::String(kind))) = &wanted else {
        panic!("{wanted:?}")
    };
    let condition = Some(PartitionCondition::parse(&format!("type = '{kind}'")).unwrap());
    let request = CompactionRequest { condition, ..named() };
    let done = house.compaction.run(&request).await.unwrap();
    let is_wanted = |file: &&Arc<PlannedFile>| file.partition.fields()[0] == wanted;
    assert_eq!(done.files.before, before.iter().filter(is_wanted).count() as u64, "{done:?}");
    let (loaded, head) = (house.load().await, house.head().await);
    let after = house.planned(&loaded.metadata, head).await;
    let others = |files: &[Arc<PlannedFile>]| -> BTreeSet<String> {
        let others = files.iter().filter(|file| !is_wanted(file));
        others.map(|file| file.location.clone()).collect()
    };
    assert_eq!(others(&after), others(&before));
    let specs: BTreeSet<i32> = after.iter().filter(is_wanted).map(|file| file.spec_id).collect();
    assert_eq!(specs.len(), 2, "{specs:?}");
    assert_eq!(house.read(&loaded.metadata, head).await, rows);
}

#[tokio::test]
async fn files_of_an_earlier_partition_spec_stay_in_it() {
    let mut house = two_specs().await;
    let before = live_files(&house).await;
    assert!(0 < house.compact().await.files.before);
    let loaded = house.load().await;
    let files = house.planned(&loaded.metadata, house.head().await).await;
    assert!(files.len() < before, "{} of {before}", files.len());
    let specs: BTreeSet<i32> = files.iter().map(|file| file.spec_id).collect();
    assert_eq!(specs.len(), 2, "{specs:?}");
    for file in &files {
        let fields = loaded.metadata.partition_spec_by_id(file.spec_id).unwrap().fields().len();
        assert_eq!(file.partition.fields().len(), fields, "{file:?}");
    }
    house.check().await;
}

#[tokio::test]
async fn a_delete_that_was_begun_before_has_the_compaction_taken_back() {
    let mut house = other_engines(Some("on")).await;
    for _ in 0..6 {
        add(&mut house, 30).await;
    }
    let merged = house.delete_late(&mut StdRng::seed_from_u64(5), 0).await;
    house.check().await;
    assert!(merged < live_files(&house).await);
    assert!(0 < house.compact().await.files.before);
    house.check().await;
}

#[tokio::test]
async fn random_sequences_of_another_engine_keep_every_row() {
    for seed in 0..2 {
        let mut house = other_engines(Some("on")).await;
        let mut random = StdRng::seed_from_u64(seed);
        add(&mut house, 20).await;
        for _ in 0..12 {
            match random.random_range(0..8) {
                0..=3 => add(&mut house, random.random_range(1..40)).await,
                4 => {
                    let highest = i64::try_from(house.seq).unwrap();
                    let seqs = [random.random_range(1..=highest), random.random_range(1..=highest)];
                    house.delete_by_value(&seqs, None).await;
                }
                5 => house.delete(&mut random).await,
                6 => {
                    house.delete_late(&mut random, 0).await;
                }
                _ => {
                    house.compact().await;
                }
            }
            house.check().await;
        }
        house.compact().await;
        house.check().await;
    }
}
