//! Avro's binary values to JSON text, within a bound of bytes and depth.

use crate::event::json;
use apache_avro::{
    Schema,
    schema::{Name, NamesRef, Namespace},
};
use chrono::{DateTime, Days, NaiveDate, SecondsFormat};
use std::fmt::Write;

const ENDS: &str = "it ends in the middle of a value";
const TOO_LARGE: &str = "an event is too large";

/// Bytes still to be read.
#[derive(Debug)]
pub(super) struct DatumReader<'a> {
    rest: &'a [u8],
}

impl<'a> DatumReader<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(ENDS)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A zigzag number: seven bits a byte, the lowest first.
    pub(super) fn long(&mut self) -> Result<i64, &'static str> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((number >> 1) as i64 ^ -((number & 1) as i64));
            }
        }
        Err("a number is too long")
    }

    /// Bytes after their length.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], &'static str> {
        let length = usize::try_from(self.long()?).map_err(|_| "a length is negative")?;
        self.take(length)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        Ok(self.take(N)?.try_into().expect("as many bytes as taken"))
    }
}

/// Writes one event.
#[derive(Debug)]
pub(super) struct JsonWriter<'s> {
    names: &'s NamesRef<'s>,
    out: String,
    bytes_max: usize,
    depth_left: usize,
}

impl<'s> JsonWriter<'s> {
    pub(super) fn new(names: &'s NamesRef<'s>, bytes_max: usize, depth_left: usize) -> Self {
        Self { names, out: String::new(), bytes_max, depth_left }
    }

    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    pub(super) fn since(&self, start: usize) -> &str {
        &self.out[start..]
    }

    /// Puts `text` in place of everything from `start` on.
    pub(super) fn replace(&mut self, start: usize, text: &str) {
        self.out.truncate(start);
        self.out.push_str(text);
    }

    pub(super) fn finish(self) -> String {
        self.out
    }

    pub(super) fn push(&mut self, text: &str) -> Result<(), &'static str> {
        self.out.push_str(text);
        if self.out.len() > self.bytes_max { Err(TOO_LARGE) } else { Ok(()) }
    }

    pub(super) fn string(&mut self, text: &str) -> Result<(), &'static str> {
        json::push_string(&mut self.out, text);
        self.push("")
    }

    fn number(&mut self, number: impl std::fmt::Display) -> Result<(), &'static str> {
        write!(self.out, "{number}").expect("a string takes everything");
        self.push("")
    }

    /// A double; JSON has no NaN and no infinity, which are texts.
    fn double(&mut self, number: f64) -> Result<(), &'static str> {
        if number.is_nan() {
            return self.string("NaN");
        }
        if number.is_infinite() {
            return self.string(if 0.0 < number { "Infinity" } else { "-Infinity" });
        }
        write!(self.out, "{number:?}").expect("a string takes everything");
        self.push("")
    }

    /// Reads the next value of `data` and writes it.
    pub(super) fn value(
        &mut self,
        schema: &'s Schema,
        data: &mut DatumReader<'_>,
        namespace: &Namespace,
    ) -> Result<(), &'static str> {
        self.depth_left = self.depth_left.checked_sub(1).ok_or("an event is nested too deep")?;
        match schema {
            Schema::Null => self.push("null")?,
            Schema::Boolean => self.push(if data.take(1)?[0] == 0 { "false" } else { "true" })?,
            Schema::Int | Schema::Long | Schema::TimeMillis | Schema::TimeMicros => {
                self.number(data.long()?)?;
            }
            Schema::Float => self.double(f64::from(f32::from_le_bytes(data.array()?)))?,
            Schema::Double => self.double(f64::from_le_bytes(data.array()?))?,
            Schema::Bytes | Schema::BigDecimal | Schema::Decimal(_) => self.bytes(data.bytes()?)?,
            Schema::String | Schema::Uuid => self.text(data.bytes()?)?,
            Schema::Enum(symbols) => {
                let symbol =
                    usize::try_from(data.long()?).ok().and_then(|n| symbols.symbols.get(n));
                self.string(symbol.ok_or("an enum has no such symbol")?)?;
            }
            Schema::Fixed(fixed) => self.bytes(data.take(fixed.size)?)?,
            Schema::Duration => self.bytes(data.take(12)?)?,
            Schema::Union(union) => {
                let branch = usize::try_from(data.long()?).ok();
                let branch = branch.and_then(|branch| union.variants().get(branch));
                // A union is no level of its own.
                self.depth_left += 1;
                self.value(branch.ok_or("a union has no such branch")?, data, namespace)?;
                self.depth_left -= 1;
            }
            Schema::Record(record) => {
                let namespace = record.name.fully_qualified_name(namespace).namespace;
                self.push("{")?;
                for (number, field) in record.fields.iter().enumerate() {
                    self.push(if number > 0 { "," } else { "" })?;
                    self.string(&field.name)?;
                    self.push(":")?;
                    self.value(&field.schema, data, &namespace)?;
                }
                self.push("}")?;
            }
            Schema::Array(array) => self.items(&array.items, false, data, namespace)?,
            Schema::Map(map) => self.items(&map.types, true, data, namespace)?,
            Schema::Ref { name } => {
                let name: Name = name.fully_qualified_name(namespace);
                let schema = self.names.get(&name).copied().ok_or("a name is not defined")?;
                self.value(schema, data, &name.namespace)?;
            }
            _ => self.time(schema, data.long()?)?,
        }
        self.depth_left += 1;
        Ok(())
    }

    /// An array, or a map if the items have names.
    fn items(
        &mut self,
        schema: &'s Schema,
        is_map: bool,
        data: &mut DatumReader<'_>,
        namespace: &Namespace,
    ) -> Result<(), &'static str> {
        self.push(if is_map { "{" } else { "[" })?;
        let mut is_first = true;
        loop {
            let mut count = data.long()?;
            if count == 0 {
                break;
            }
            if count < 0 {
                // A negative count is followed by the size in bytes.
                data.long()?;
                count = count.checked_neg().ok_or("a count is too large")?;
            }
            // Every item writes at least one byte, so the bound on bytes ends this.
            for _ in 0..count {
                self.push(if is_first { "" } else { "," })?;
                is_first = false;
                if is_map {
                    self.text(data.bytes()?)?;
                    self.push(":")?;
                }
                self.value(schema, data, namespace)?;
            }
        }
        self.push(if is_map { "}" } else { "]" })
    }

    fn text(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
        self.string(std::str::from_utf8(bytes).map_err(|_| "a string is not UTF-8")?)
    }

    /// Avro's own JSON form of bytes: a character for each byte.
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
        let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
        self.string(&text)
    }

    /// Times as RFC 3339 text; a local one has no offset.
    fn time(&mut self, schema: &Schema, number: i64) -> Result<(), &'static str> {
        let time = match schema {
            Schema::TimestampMillis | Schema::LocalTimestampMillis => {
                DateTime::from_timestamp_millis(number)
            }
            Schema::TimestampMicros | Schema::LocalTimestampMicros => {
                DateTime::from_timestamp_micros(number)
            }
            Schema::TimestampNanos | Schema::LocalTimestampNanos => {
                Some(DateTime::from_timestamp_nanos(number))
            }
            Schema::Date => {
                let date = u64::try_from(number)
                    .ok()
                    .and_then(|days| NaiveDate::default().checked_add_days(Days::new(days)))
                    .or_else(|| {
                        NaiveDate::default().checked_sub_days(Days::new(number.unsigned_abs()))
                    });
                return self.string(&date.ok_or("a date is out of range")?.to_string());
            }
            _ => return Err("a type is not supported"),
        };
        let text =
            time.ok_or("a time is out of range")?.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        let is_local = matches!(
            schema,
            Schema::LocalTimestampMillis
                | Schema::LocalTimestampMicros
                | Schema::LocalTimestampNanos
        );
        self.string(if is_local { text.trim_end_matches('Z') } else { &text })
    }
}
