//! The pages of our Parquet files: each is a zstd frame with a content checksum and has a CRC.
//!
//! The parquet crate writes neither. Row groups are therefore encoded without compression, and
//! their pages are compressed here. Every reader checks a frame's checksum when it decompresses the
//! page, without any setting; the CRC of the page header is looked at only by readers that are told
//! to. Page headers, indexes, bloom filters and the footer have no checksum.

use bytes::Bytes;
use parquet::{
    basic::{Compression, ZstdLevel},
    bloom_filter::Sbbf,
    column::{
        page::{Page, PageReader},
        writer::ColumnCloseResult,
    },
    errors::{ParquetError, Result},
    file::{
        metadata::ParquetMetaData, page_index::column_index::ColumnIndexMetaData,
        properties::WriterPropertiesPtr, serialized_reader::SerializedPageReader,
        writer::SerializedFileWriter,
    },
    schema::types::TypePtr,
};
use std::sync::Arc;
use zstd::bulk::Compressor;

/// Higher levels take longer than what they save is worth in a flush.
const LEVEL: i32 = 1;

/// Bytes of a block of a bloom filter.
const BLOOM_BLOCK_BYTES: usize = 32;

/// Types of Thrift's compact protocol, as they stand in the header of a field.
mod thrift {
    pub(super) const STOP: u8 = 0;
    pub(super) const TRUE: u8 = 1;
    pub(super) const FALSE: u8 = 2;
    pub(super) const I32: u8 = 5;
    pub(super) const STRUCT: u8 = 12;
}

/// A Parquet file and what its footer says.
pub(super) type PlainFile = (Bytes, ParquetMetaData);

/// Where a column of a copied row group comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ColumnSource {
    /// This column of the stored file.
    Stored(usize),
    /// This column of the file with rows of nulls.
    Null(usize),
}

/// A file that is made of row groups which are encoded without compression, or copied as they are stored.
pub(super) struct PagedFile {
    file: SerializedFileWriter<Vec<u8>>,
    compressor: Compressor<'static>,
}

impl std::fmt::Debug for PagedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PagedFile").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

impl PagedFile {
    /// A file without rows.
    pub(super) fn new(schema: TypePtr, properties: WriterPropertiesPtr) -> Result<Self> {
        let mut compressor = Compressor::new(LEVEL)?;
        compressor.include_checksum(true)?;
        Ok(Self { file: SerializedFileWriter::new(Vec::new(), schema, properties)?, compressor })
    }

    /// Adds the row groups of a file and compresses their pages.
    pub(super) fn append(&mut self, plain: &PlainFile) -> Result<()> {
        for group in 0..plain.1.num_row_groups() {
            let mut writer = self.file.next_row_group()?;
            for column in 0..plain.1.row_group(group).num_columns() {
                let (pages, close) = column_chunk(plain, group, column, &mut self.compressor)?;
                writer.append_column(&pages, close)?;
            }
            writer.close()?;
        }
        Ok(())
    }

    /// Adds a row group of another file as it is stored there. Its columns come in the order of this file's;
    /// those without values come from `nulls`, which has one row group of as many rows.
    pub(super) fn copy(
        &mut self,
        stored: &PlainFile,
        group: usize,
        columns: &[ColumnSource],
        nulls: Option<&PlainFile>,
    ) -> Result<()> {
        let mut writer = self.file.next_row_group()?;
        for column in columns {
            match (*column, nulls) {
                (ColumnSource::Stored(leaf), _) => {
                    writer.append_column(&stored.0, stored_chunk(stored, group, leaf)?)?;
                }
                (ColumnSource::Null(at), Some(nulls)) => {
                    let (pages, close) = column_chunk(nulls, 0, at, &mut self.compressor)?;
                    writer.append_column(&pages, close)?;
                }
                (ColumnSource::Null(_), None) => {
                    let text = "a column that is left out has no rows of nulls";
                    return Err(ParquetError::General(text.to_owned()));
                }
            }
        }
        writer.close()?;
        Ok(())
    }

    /// How long it is without its footer.
    pub(super) fn bytes(&self) -> usize {
        self.file.bytes_written()
    }

    /// The whole file, and what its footer says.
    pub(super) fn finish(mut self) -> Result<PlainFile> {
        let metadata = self.file.finish()?;
        Ok((Bytes::from(std::mem::take(self.file.inner_mut())), metadata))
    }
}

/// The pages of one column of a row group, compressed, and what the footer says about them.
fn column_chunk(
    (plain, metadata): &PlainFile,
    group: usize,
    column: usize,
    compressor: &mut Compressor<'_>,
) -> Result<(Bytes, ColumnCloseResult)> {
    let rows = metadata.row_group(group).num_rows();
    let chunk = metadata.row_group(group).column(column);
    let mut reader =
        SerializedPageReader::new(Arc::new(plain.clone()), chunk, usize::try_from(rows)?, None)?;
    let mut bytes = Vec::new();
    let mut uncompressed = 0;
    let mut dictionary = None;
    // Offset and length of each data page with its header.
    let mut pages: Vec<(usize, usize)> = Vec::new();
    while let Some(page) = reader.get_next_page()? {
        let offset = bytes.len();
        let frame = compressor.compress(page.buffer())?;
        bytes.extend(header(&page, &frame)?);
        uncompressed += bytes.len() - offset + page.buffer().len();
        bytes.extend(frame);
        match page {
            Page::DictionaryPage { .. } => dictionary = Some(offset),
            Page::DataPage { .. } | Page::DataPageV2 { .. } => {
                pages.push((offset, bytes.len() - offset));
            }
        }
    }
    let first = pages.first().map_or(0, |(offset, _)| *offset);
    let offset_index = metadata.offset_index().map(|index| index[group][column].clone());
    let offset_index = offset_index.map(|mut index| {
        assert_eq!(index.page_locations.len(), pages.len(), "the index has each page");
        for (location, (offset, length)) in index.page_locations.iter_mut().zip(&pages) {
            location.offset = *offset as i64;
            location.compressed_page_size = i32::try_from(*length).unwrap_or(i32::MAX);
        }
        index
    });
    let column_index = metadata.column_index().map(|index| index[group][column].clone());
    let close = ColumnCloseResult {
        bytes_written: bytes.len() as u64,
        rows_written: u64::try_from(rows)?,
        bloom_filter: worth_its_bytes(
            bloom_filter(plain, chunk.bloom_filter_offset(), chunk.bloom_filter_length())?,
            bytes.len(),
        ),
        column_index: column_index.filter(|index| *index != ColumnIndexMetaData::NONE),
        offset_index,
        metadata: chunk
            .clone()
            .into_builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(LEVEL)?))
            .set_total_compressed_size(bytes.len() as i64)
            .set_total_uncompressed_size(uncompressed as i64)
            .set_dictionary_page_offset(dictionary.map(|offset| offset as i64))
            .set_data_page_offset(first as i64)
            .build()?,
    };
    Ok((Bytes::from(bytes), close))
}

/// What the footer of a stored file says about one column of a row group. Its offsets are in that file.
fn stored_chunk(
    (stored, metadata): &PlainFile,
    group: usize,
    leaf: usize,
) -> Result<ColumnCloseResult> {
    let rows = metadata.row_group(group).num_rows();
    let chunk = metadata.row_group(group).column(leaf);
    let column_index = metadata.column_index().map(|index| index[group][leaf].clone());
    Ok(ColumnCloseResult {
        bytes_written: u64::try_from(chunk.compressed_size())?,
        rows_written: u64::try_from(rows)?,
        bloom_filter: bloom_filter(
            stored,
            chunk.bloom_filter_offset(),
            chunk.bloom_filter_length(),
        )?,
        column_index: column_index.filter(|index| *index != ColumnIndexMetaData::NONE),
        offset_index: metadata.offset_index().map(|index| index[group][leaf].clone()),
        metadata: chunk.clone(),
    })
}

fn bloom_filter(file: &Bytes, offset: Option<i64>, length: Option<i32>) -> Result<Option<Sbbf>> {
    let (Some(offset), Some(length)) = (offset, length) else { return Ok(None) };
    let (offset, length) = (usize::try_from(offset)?, usize::try_from(length)?);
    let bytes = offset.checked_add(length).and_then(|end| file.get(offset..end));
    let Some(bytes) = bytes else {
        return Err(ParquetError::EOF("a bloom filter ends behind its file".to_owned()));
    };
    Sbbf::from_bytes(bytes).map(Some)
}

/// A bloom filter that is shorter than the values which it is about. A reader that looks for one value reads
/// a longer one for nothing: it has the values with fewer bytes.
fn worth_its_bytes(filter: Option<Sbbf>, chunk_bytes: usize) -> Option<Sbbf> {
    filter.filter(|filter| filter.num_blocks() * BLOOM_BLOCK_BYTES < chunk_bytes)
}

/// The header of a page: Parquet's `PageHeader` in Thrift's compact protocol.
fn header(page: &Page, frame: &[u8]) -> Result<Vec<u8>> {
    let (page_type, uncompressed) = (page.page_type() as i32, page.buffer().len());
    let mut bytes = Vec::with_capacity(32);
    put_field(&mut bytes, page_type);
    put_field(&mut bytes, i32::try_from(uncompressed)?);
    put_field(&mut bytes, i32::try_from(frame.len())?);
    put_field(&mut bytes, crc(frame).cast_signed());
    let count = i32::try_from(page.num_values())?;
    match page {
        Page::DataPage { encoding, def_level_encoding, rep_level_encoding, .. } => {
            // `data_page_header`, which comes right after the CRC.
            bytes.push(1 << 4 | thrift::STRUCT);
            put_field(&mut bytes, count);
            for encoding in [encoding, def_level_encoding, rep_level_encoding] {
                put_field(&mut bytes, *encoding as i32);
            }
        }
        Page::DictionaryPage { encoding, is_sorted, .. } => {
            // `dictionary_page_header`, three fields on.
            bytes.push(3 << 4 | thrift::STRUCT);
            put_field(&mut bytes, count);
            put_field(&mut bytes, *encoding as i32);
            bytes.push(1 << 4 | if *is_sorted { thrift::TRUE } else { thrift::FALSE });
        }
        Page::DataPageV2 { .. } => {
            return Err(ParquetError::NYI("compress pages of the second version".to_owned()));
        }
    }
    bytes.extend([thrift::STOP, thrift::STOP]);
    Ok(bytes)
}

/// The checksum that Parquet has for a page as it is stored.
fn crc(frame: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(frame);
    crc.sum()
}

/// A number in the field after the last one.
fn put_field(bytes: &mut Vec<u8>, value: i32) {
    bytes.push(1 << 4 | thrift::I32);
    let mut rest = ((value << 1) ^ (value >> 31)).cast_unsigned();
    while 0x80 <= rest {
        bytes.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

#[cfg(test)]
mod tests;
