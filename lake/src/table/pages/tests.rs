use super::{crc, header, put_field};
use crate::table::{encode, layout::FileLayout, partition};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use icecore_samples as sample;
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
    },
    basic::Encoding,
    column::page::{Page, PageReader},
    errors::ParquetError,
    file::{metadata::PageIndexPolicy, serialized_reader::SerializedPageReader},
};
use std::{ops::Range, sync::Arc};

fn layout() -> FileLayout {
    FileLayout::of(&sample::metadata(sample::events_table(), "file:///t"))
}

/// A file of `count` rows of one partition.
fn file(count: usize) -> Bytes {
    let rows = sample::events(count * 3, 1, 1, 11);
    // A later column has its id from the table alone.
    let fields = rows.schema_ref().fields().iter();
    let known: Vec<usize> = fields
        .enumerate()
        .filter_map(|(at, field)| partition::field_id(field).map(|_| at))
        .collect();
    let rows = rows.project(&known).unwrap();
    let split = partition::split(&layout(), &rows).unwrap();
    let part = &split.parts[0];
    let rows = split.rows.slice(part.rows.start, part.rows.len().min(count));
    let values = part.values.clone();
    encode::encode(&layout(), "file:///t/f".to_owned(), &rows, values, true).unwrap().bytes
}

/// Every page: its header and its frame.
fn pages(bytes: &Bytes) -> Vec<(usize, Range<usize>, Range<usize>)> {
    let metadata = ArrowReaderMetadata::load(bytes, ArrowReaderOptions::new()).unwrap();
    let mut found = Vec::new();
    for group in metadata.metadata().row_groups() {
        for (column, chunk) in group.columns().iter().enumerate() {
            let (start, length) = chunk.byte_range();
            let rows = usize::try_from(group.num_rows()).unwrap();
            let mut reader =
                SerializedPageReader::new(Arc::new(bytes.clone()), chunk, rows, None).unwrap();
            let mut at = usize::try_from(start).unwrap();
            while let Some(page) = reader.get_next_page().unwrap() {
                // The frame's length is in the header; the header's own follows from it.
                let end = (at..).find(|end| {
                    let frame = *end..*end + frame_length(&bytes[*end..]);
                    header(&page, &bytes[frame]).unwrap() == bytes[at..*end]
                });
                let end = end.unwrap();
                let frame = end..end + frame_length(&bytes[end..]);
                found.push((column, at..end, frame.clone()));
                at = frame.end;
            }
            assert_eq!(at as u64, start + length, "the pages fill the chunk");
        }
    }
    found
}

/// Bytes of the zstd frame at the start; none where there is none.
fn frame_length(bytes: &[u8]) -> usize {
    zstd::zstd_safe::find_frame_compressed_size(bytes).unwrap_or(0)
}

fn read(bytes: Bytes, column: usize, indexed: bool) -> Result<Vec<RecordBatch>, ParquetError> {
    let policy = if indexed { PageIndexPolicy::Required } else { PageIndexPolicy::Skip };
    let options = ArrowReaderOptions::new().with_page_index_policy(policy);
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options)?;
    let mask = ProjectionMask::leaves(reader.parquet_schema(), [column]);
    let reader = reader.with_projection(mask).build()?;
    reader.map(|batch| batch.map_err(|error| ParquetError::General(error.to_string()))).collect()
}

/// Flips one bit of each `step`-th byte of every frame and reads that column. A page header has no
/// checksum.
fn check_flips(bytes: &Bytes, step: usize, indexed: bool) {
    let (mut flips, mut errors) = (0, 0);
    for (column, _, frame) in pages(bytes) {
        let whole = read(bytes.clone(), column, indexed).unwrap();
        for at in frame.step_by(step) {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 1 << (at % 8);
            let found = read(Bytes::from(flipped), column, indexed);
            flips += 1;
            errors += usize::from(found.is_err());
            // One bit of a frame's header means nothing.
            assert!(found.is_err() || found.unwrap() == whole, "byte {at} of column {column}");
        }
    }
    assert!(flips - errors <= flips / 50, "{} of {flips} flips were not noticed", flips - errors);
}

#[test]
fn no_flipped_bit_of_a_page_is_read_as_a_value() {
    check_flips(&file(1), 1, false);
    check_flips(&file(90), 3, false);
}

#[test]
fn no_flipped_bit_of_a_file_with_an_index_of_pages_is_read_as_a_value() {
    let bytes = file(12_000);
    let metadata = ArrowReaderMetadata::load(
        &bytes,
        ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required),
    )
    .unwrap();
    let index = &metadata.metadata().offset_index().unwrap()[0];
    // Two by the number of rows; the texts of `id` have 348 KB, and a page has at most 128 KiB and a batch more.
    assert!(index.iter().any(|column| 2 < column.page_locations.len()));
    // What the index says of the pages is what the pages are.
    for (column, header, frame) in pages(&bytes) {
        let locations = &index[column].page_locations;
        let here = locations.iter().find(|page| page.offset == header.start as i64);
        if let Some(here) = here {
            assert_eq!(here.compressed_page_size as usize, frame.end - header.start);
        }
    }
    check_flips(&bytes, 40_009, true);
}

#[test]
fn each_page_has_its_crc() {
    let bytes = file(90);
    for (_, header, frame) in pages(&bytes) {
        let mut expected = Vec::new();
        put_field(&mut expected, crc(&bytes[frame]).cast_signed());
        let header = &bytes[header];
        // After type and two sizes, which take a field's header and one to three bytes each.
        assert!(header[6..18].windows(expected.len()).any(|part| part == expected));
    }
}

#[test]
fn a_header_is_what_the_format_says() {
    let page = Page::DictionaryPage {
        buf: Bytes::from_static(b"0123456789"),
        num_values: 300,
        encoding: Encoding::PLAIN,
        is_sorted: true,
    };
    // CRC-32 of "123456789" is 0xcbf43926 in every table of check values.
    let expected = [
        [0x15, 4].as_slice(),
        &[0x15, 20],
        &[0x15, 18],
        &[0x15, 0xb3, 0x9b, 0xde, 0xc0, 0x06],
        &[0x3c, 0x15, 0xd8, 0x04, 0x15, 0, 0x11, 0, 0],
    ];
    let found = header(&page, b"123456789").unwrap();
    assert_eq!(found, expected.concat());
}
