//! The rows of an answer that a terminal shows: the first and the last ones, however many there are.

use crate::cli::{
    CliError,
    sql::text::{first_letters, printable},
};
use arrow::{
    buffer::Buffer,
    ipc::reader::StreamDecoder,
    record_batch::RecordBatch,
    util::display::{ArrayFormatter, FormatOptions},
};
use bytes::Bytes;
use icecore_engine::output::type_name;
use std::collections::VecDeque;

/// Rows of an answer that are shown at its beginning, and as many at its end.
pub(super) const ROWS_SHOWN_MAX: usize = 20;
/// The same of a list that a person wants whole, such as the columns of a table.
pub(super) const ROWS_LISTED_MAX: usize = 10_000;
/// Characters of a value that are kept.
const VALUE_LETTERS_MAX: usize = 10_000;

/// A column of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ShownColumn {
    pub(super) name: String,
    /// Its type as the JSON answers name it.
    pub(super) kind: String,
    pub(super) is_number: bool,
}

/// What a terminal shows of an answer: texts that it cannot take for commands.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ShownRows {
    pub(super) columns: Vec<ShownColumn>,
    pub(super) first: Vec<Vec<String>>,
    pub(super) last: VecDeque<Vec<String>>,
    /// How many rows the answer has.
    pub(super) count: usize,
}

impl ShownRows {
    /// How many rows between the first and the last ones are left out.
    pub(super) fn left_out(&self) -> usize {
        self.count - self.first.len() - self.last.len()
    }

    /// Keeps what is shown where `ends` rows are, at either end.
    fn push(&mut self, batch: &RecordBatch, ends: usize) -> Result<(), CliError> {
        let options = FormatOptions::new().with_null("NULL");
        let columns = batch.columns().iter();
        let columns: Vec<_> = columns
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
            .collect::<Result<_, _>>()?;
        let texts = |row: usize| -> Vec<String> {
            let value = |column: &ArrayFormatter<'_>| {
                first_letters(&printable(&column.value(row).to_string()), VALUE_LETTERS_MAX)
            };
            columns.iter().map(value).collect()
        };
        let rows = batch.num_rows();
        self.count += rows;
        let first = rows.min(ends - self.first.len());
        self.first.extend((0..first).map(texts));
        // Of a batch no more than the last rows can be among the last ones of the answer.
        for row in first.max(rows.saturating_sub(ends))..rows {
            if self.last.len() == ends {
                self.last.pop_front();
            }
            self.last.push_back(texts(row));
        }
        Ok(())
    }
}

/// Reads an Arrow stream as it comes and keeps what is shown of it.
#[derive(Debug)]
pub(super) struct RowReader {
    decoder: StreamDecoder,
    rows: ShownRows,
    /// How many rows are kept at either end.
    ends: usize,
}

impl RowReader {
    /// A reader that keeps so many rows at either end.
    pub(super) fn new(ends: usize) -> Self {
        Self { decoder: StreamDecoder::new(), rows: ShownRows::default(), ends }
    }

    /// Takes the next bytes of the stream.
    ///
    /// # Errors
    /// [`CliError::Arrow`] when they are not of an Arrow stream.
    pub(super) fn push(&mut self, bytes: Bytes) -> Result<(), CliError> {
        let mut bytes = Buffer::from(bytes);
        while !bytes.is_empty() {
            if let Some(batch) = self.decoder.decode(&mut bytes)? {
                self.rows.push(&batch, self.ends)?;
            }
        }
        Ok(())
    }

    /// How many rows have come.
    pub(super) fn count(&self) -> usize {
        self.rows.count
    }

    /// What is shown, once the stream has ended.
    ///
    /// # Errors
    /// [`CliError::Arrow`] when the stream ends early.
    pub(super) fn finish(mut self) -> Result<ShownRows, CliError> {
        self.decoder.finish()?;
        if let Some(schema) = self.decoder.schema() {
            let columns = schema.fields().iter().map(|field| ShownColumn {
                name: printable(field.name()),
                kind: type_name(field.data_type()),
                is_number: field.data_type().is_numeric(),
            });
            self.rows.columns = columns.collect();
        }
        Ok(self.rows)
    }
}

#[cfg(test)]
mod tests;
