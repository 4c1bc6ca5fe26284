use super::*;
use iceberg::spec::{DataContentType, DataFileBuilder, DataFileFormat, Struct};

type SequenceNumbers = (Option<i64>, Option<i64>);

/// The sequence numbers of the rows and of the file that an entry has in a manifest of this number.
fn inherits(status: ManifestStatus, manifest: i64, own: SequenceNumbers) -> SequenceNumbers {
    let file = DataFileBuilder::default()
        .content(DataContentType::Data)
        .file_path("file:///w/t/data/f".to_owned())
        .file_format(DataFileFormat::Parquet)
        .record_count(1)
        .file_size_in_bytes(1)
        .partition(Struct::empty())
        .partition_spec_id(0)
        .build()
        .unwrap();
    let entry = ManifestEntry {
        status,
        snapshot_id: None,
        sequence_number: own.0,
        file_sequence_number: own.1,
        data_file: file,
    };
    let manifest = ManifestFile {
        manifest_path: "file:///w/t/metadata/m".to_owned(),
        manifest_length: 1,
        partition_spec_id: 0,
        content: ManifestContentType::Data,
        sequence_number: manifest,
        min_sequence_number: 0,
        added_snapshot_id: 7,
        added_files_count: None,
        existing_files_count: None,
        deleted_files_count: None,
        added_rows_count: None,
        existing_rows_count: None,
        deleted_rows_count: None,
        partitions: None,
        key_metadata: None,
        first_row_id: None,
    };
    let entry = inherited(entry, &manifest);
    assert_eq!(entry.snapshot_id, Some(7));
    (entry.sequence_number, entry.file_sequence_number)
}

#[test]
fn an_entry_takes_what_it_does_not_say_from_its_manifest() {
    use ManifestStatus::{Added, Existing};
    for (status, manifest, own, expected) in [
        (Added, 5, (None, None), (Some(5), Some(5))),
        (Added, 5, (Some(3), None), (Some(3), Some(5))),
        (Existing, 5, (Some(3), Some(4)), (Some(3), Some(4))),
        (Existing, 5, (Some(3), None), (Some(3), Some(3))),
        // Nothing tells, and such a manifest is not merged.
        (Existing, 5, (None, None), (None, None)),
        // Of a table that was of version 1.
        (Existing, 0, (None, None), (Some(0), Some(0))),
    ] {
        assert_eq!(inherits(status, manifest, own), expected, "{status:?} {manifest} {own:?}");
    }
}
