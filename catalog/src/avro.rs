//! Avro files, read value by value, and with some of their values changed. Everything else, schema and
//! header included, stays byte for byte: what this program does not know of a manifest is not lost.

mod codec;
#[cfg(test)]
mod tests;

use codec::BlockCodec;
use serde_json::Value;
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

/// What a file begins with.
const MAGIC: &[u8] = b"Obj\x01";
/// The member of the header that names the compression.
const CODEC: &[u8] = b"avro.codec";
/// How deep a schema may be; Iceberg's are below ten.
const DEPTH_MAX: usize = 32;
/// Most types of a schema, those that it names several times counted each time.
const TYPES_MAX: usize = 10_000;
/// Longest schema that is kept for the next file.
const LAST_SCHEMA_BYTES_MAX: usize = 64 << 10;
/// Most bytes of a block, unpacked.
const BLOCK_BYTES_MAX: usize = 128 << 20;
/// Most bytes of a file, unpacked.
const UNPACKED_BYTES_MAX: usize = 1 << 30;
/// Most values of a file beside those that its bytes allow: a few bytes may claim any number of
/// values that take none.
const EMPTY_VALUES_MAX: u64 = 100_000;
/// Most values that a byte allows: itself and what it is in.
const VALUES_PER_BYTE: u64 = 8;

/// Sees values, and may change them. A path is the names of the fields that lead to a value; arrays
/// and unions have none.
pub(crate) trait ValueEdit {
    /// Another text for this one.
    fn text(&mut self, path: &[&str], value: &str) -> Option<String>;
    /// Another number for this one.
    fn number(&mut self, _path: &[&str], _value: i64) -> Option<i64> {
        None
    }
    /// Other bytes for these.
    fn bytes(&mut self, _path: &[&str], _value: &[u8]) -> Option<Vec<u8>> {
        None
    }
    /// A record of the file is complete.
    fn end(&mut self) {}
}

#[derive(Debug)]
enum AvroShape {
    Nothing,
    /// This many bytes.
    Fixed(usize),
    /// An integer of any width, or the number of an enum's symbol.
    Number,
    Text,
    Bytes,
    Array(Box<AvroShape>),
    Map(Box<AvroShape>),
    Union(Vec<AvroShape>),
    Record(Vec<(String, AvroShape)>),
}

/// The file with its values as `edit` wants them.
pub(crate) fn rewrite(file: &[u8], edit: &mut dyn ValueEdit) -> Result<Vec<u8>, String> {
    let header = AvroFileHeader::parse(file)?;
    let schema = AvroSchema::parse(header.schema)?;
    let mut out = file[..file.len() - header.blocks.len()].to_vec();
    header.each_block(&schema, edit, |count, records| {
        header.codec.pack(records)?;
        put_long(&mut out, count);
        put_sized(&mut out, records);
        out.extend(header.sync);
        Ok(())
    })?;
    Ok(out)
}

/// The file with its blocks compressed by deflate, which every reader of Iceberg knows: it is the default of
/// the Java library. A file of compressed blocks stays as it is.
pub(crate) fn deflated(file: &[u8]) -> Result<Vec<u8>, String> {
    let mut header = AvroFileHeader::parse(file)?;
    if header.codec != BlockCodec::Null {
        return Ok(file.to_vec());
    }
    header.members.insert(CODEC, b"deflate");
    let mut out = MAGIC.to_vec();
    put_long(&mut out, i64::try_from(header.members.len()).map_err(|_| "it has too many members")?);
    for text in header.members.iter().flat_map(|(name, value)| [*name, *value]) {
        put_sized(&mut out, text);
    }
    put_long(&mut out, 0);
    out.extend(header.sync);
    let mut blocks = header.unpacked();
    while let Some(AvroBlock { count, records }) = blocks.next()? {
        let mut records = records.into_owned();
        BlockCodec::Deflate.pack(&mut records)?;
        put_long(&mut out, count);
        put_sized(&mut out, &records);
        out.extend(header.sync);
    }
    Ok(out)
}

/// Shows the values of the file to `edit`, if `check` lets its schema pass.
pub(crate) fn read(
    file: &[u8],
    check: impl FnOnce(&Value) -> Result<(), String>,
    edit: &mut dyn ValueEdit,
) -> Result<(), String> {
    let header = AvroFileHeader::parse(file)?;
    let schema = AvroSchema::parse(header.schema)?;
    check(&schema.json)?;
    header.each_block(&schema, edit, |_, _| Ok(()))
}

/// As [`read`], of files that mostly have one schema, with one `check` for all of them.
pub(crate) fn read_alike(
    file: &[u8],
    last: &LastSchema,
    check: impl FnOnce(&Value) -> Result<(), String>,
    edit: &mut dyn ValueEdit,
) -> Result<(), String> {
    let header = AvroFileHeader::parse(file)?;
    let schema = match last.get(header.schema) {
        Some(known) => known,
        None => {
            let schema = Arc::new(AvroSchema::parse(header.schema)?);
            check(&schema.json)?;
            last.set(&schema);
            schema
        }
    };
    header.each_block(&schema, edit, |_, _| Ok(()))
}

/// The schema that was read and checked last.
#[derive(Default)]
pub(crate) struct LastSchema(Mutex<Option<Arc<AvroSchema>>>);

impl LastSchema {
    fn get(&self, text: &[u8]) -> Option<Arc<AvroSchema>> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().filter(|it| it.text == text).cloned()
    }

    fn set(&self, schema: &Arc<AvroSchema>) {
        if schema.text.len() <= LAST_SCHEMA_BYTES_MAX {
            let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            *last = Some(Arc::clone(schema));
        }
    }
}

/// A schema that was read.
struct AvroSchema {
    text: Vec<u8>,
    json: Value,
    shape: AvroShape,
}

impl AvroSchema {
    fn parse(text: &[u8]) -> Result<Self, String> {
        let json: Value = serde_json::from_slice(text).map_err(|_| NO_SCHEMA)?;
        let shape = parse(&json, &mut NamedTypes::default(), 0)?;
        Ok(Self { text: text.to_vec(), json, shape })
    }
}

const NO_SCHEMA: &str = "it has no schema";

/// Refuses a file that others must not unpack, because it becomes too large. What is no Avro file is
/// theirs to refuse.
pub(crate) fn check_unpacked(file: &[u8]) -> Result<(), String> {
    let Ok(header) = AvroFileHeader::parse(file) else { return Ok(()) };
    if !header.codec.may_exceed(file.len(), BLOCK_BYTES_MAX) {
        return Ok(());
    }
    let mut blocks = header.unpacked();
    while blocks.next()?.is_some() {}
    Ok(())
}

/// What a file says of its records, and the records.
struct AvroFileHeader<'a> {
    members: BTreeMap<&'a [u8], &'a [u8]>,
    /// The text of its schema.
    schema: &'a [u8],
    codec: BlockCodec,
    sync: &'a [u8],
    blocks: &'a [u8],
}

impl<'a> AvroFileHeader<'a> {
    fn parse(file: &'a [u8]) -> Result<Self, String> {
        let mut input = file;
        if take(&mut input, MAGIC.len())? != MAGIC {
            return Err("it is no Avro file".to_owned());
        }
        let mut members: BTreeMap<&[u8], &[u8]> = BTreeMap::new();
        loop {
            let count = block_count(&mut input)?;
            if count == 0 {
                break;
            }
            for _ in 0..count {
                let name = sized(&mut input)?;
                members.insert(name, sized(&mut input)?);
            }
        }
        let sync = take(&mut input, 16)?;
        let schema = members.get(b"avro.schema".as_slice()).copied().ok_or(NO_SCHEMA)?;
        let codec = BlockCodec::named(members.get(CODEC).copied().unwrap_or(b"null"))?;
        Ok(Self { members, schema, codec, sync, blocks: input })
    }

    /// Gives each block with its number of records.
    fn each_block(
        &self,
        schema: &AvroSchema,
        edit: &mut dyn ValueEdit,
        mut block: impl FnMut(i64, &mut Vec<u8>) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut values_left = EMPTY_VALUES_MAX;
        let mut blocks = self.unpacked();
        while let Some(AvroBlock { count, records }) = blocks.next()? {
            values_left += VALUES_PER_BYTE * records.len() as u64;
            let (mut rows, mut written) = (&*records, Vec::with_capacity(records.len()));
            let mut copy = ValueCopy {
                input: &mut rows,
                out: &mut written,
                edit,
                values_left: &mut values_left,
            };
            for _ in 0..count {
                copy.value(&schema.shape, &mut Vec::new())?;
                copy.edit.end();
            }
            block(count, &mut written)?;
        }
        Ok(())
    }

    fn unpacked(&self) -> UnpackedBlocks<'a> {
        let Self { codec, sync, blocks, .. } = *self;
        UnpackedBlocks { codec, sync, rest: blocks, left: UNPACKED_BYTES_MAX }
    }
}

/// Records, unpacked.
struct AvroBlock<'a> {
    count: i64,
    records: Cow<'a, [u8]>,
}

/// The blocks of a file, within the bounds.
struct UnpackedBlocks<'a> {
    codec: BlockCodec,
    sync: &'a [u8],
    rest: &'a [u8],
    left: usize,
}

impl<'a> UnpackedBlocks<'a> {
    fn next(&mut self) -> Result<Option<AvroBlock<'a>>, String> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let count = long(&mut self.rest)?;
        let packed = sized(&mut self.rest)?;
        if take(&mut self.rest, 16)? != self.sync {
            return Err("a block does not end with the file's marker".to_owned());
        }
        let records = self.codec.unpack(packed, BLOCK_BYTES_MAX.min(self.left))?;
        self.left = self.left.saturating_sub(records.len());
        Ok(Some(AvroBlock { count, records }))
    }
}

/// The records and fixed types that a schema may refer to by their names, and how many types it has.
#[derive(Default)]
struct NamedTypes<'a> {
    named: HashMap<&'a str, &'a Value>,
    count: usize,
}

fn parse<'a>(
    schema: &'a Value,
    named: &mut NamedTypes<'a>,
    depth: usize,
) -> Result<AvroShape, String> {
    named.count += 1;
    if DEPTH_MAX < depth || TYPES_MAX < named.count {
        return Err("its schema is too deep or too large".to_owned());
    }
    let parse_in = |member: &str, named: &mut NamedTypes<'a>| {
        parse(schema.get(member).unwrap_or(&Value::Null), named, depth + 1).map(Box::new)
    };
    let name = match schema {
        Value::Array(branches) => {
            let branches = branches.iter().map(|branch| parse(branch, named, depth + 1));
            return branches.collect::<Result<_, _>>().map(AvroShape::Union);
        }
        Value::String(name) => name.as_str(),
        Value::Object(members) => {
            if let Some(name) = members.get("name").and_then(Value::as_str) {
                named.named.insert(name, schema);
            }
            match members.get("type") {
                Some(Value::String(name)) => name,
                Some(inner) => return parse(inner, named, depth + 1),
                None => return Err("a type of its schema has no name".to_owned()),
            }
        }
        _ => return Err("its schema does not read".to_owned()),
    };
    Ok(match name {
        "null" => AvroShape::Nothing,
        "boolean" => AvroShape::Fixed(1),
        "float" => AvroShape::Fixed(4),
        "double" => AvroShape::Fixed(8),
        "int" | "long" | "enum" => AvroShape::Number,
        "string" => AvroShape::Text,
        "bytes" => AvroShape::Bytes,
        "fixed" => {
            let size = schema.get("size").and_then(Value::as_u64);
            AvroShape::Fixed(size.and_then(|size| size.try_into().ok()).ok_or("a size is missing")?)
        }
        "array" => AvroShape::Array(parse_in("items", named)?),
        "map" => AvroShape::Map(parse_in("values", named)?),
        "record" => {
            let fields = schema.get("fields").and_then(Value::as_array).ok_or("no fields")?;
            let fields = fields.iter().map(|field| {
                let name = field.get("name").and_then(Value::as_str).unwrap_or_default();
                let of = field.get("type").unwrap_or(&Value::Null);
                Ok((name.to_owned(), parse(of, named, depth + 1)?))
            });
            AvroShape::Record(fields.collect::<Result<_, String>>()?)
        }
        other => {
            let known = named.named.get(other).copied();
            let known = known.ok_or_else(|| format!("its type `{other}` is not known"))?;
            parse(known, named, depth + 1)?
        }
    })
}

/// Copies the values of a block.
struct ValueCopy<'i, 'a> {
    input: &'i mut &'a [u8],
    out: &'i mut Vec<u8>,
    edit: &'i mut dyn ValueEdit,
    /// How many values may come.
    values_left: &'i mut u64,
}

impl ValueCopy<'_, '_> {
    fn value<'s>(&mut self, schema: &'s AvroShape, path: &mut Vec<&'s str>) -> Result<(), String> {
        let left = self.values_left.checked_sub(1);
        *self.values_left = left.ok_or("it has too many values that take no bytes")?;
        match schema {
            AvroShape::Nothing => {}
            AvroShape::Fixed(size) => self.out.extend(take(self.input, *size)?),
            AvroShape::Number => {
                let value = long(self.input)?;
                put_long(self.out, self.edit.number(path, value).unwrap_or(value));
            }
            AvroShape::Text => {
                let value = sized(self.input)?;
                let text = std::str::from_utf8(value).map_err(|_| "a text is not UTF-8")?;
                match self.edit.text(path, text) {
                    Some(other) => put_sized(self.out, other.as_bytes()),
                    None => put_sized(self.out, value),
                }
            }
            AvroShape::Bytes => {
                let value = sized(self.input)?;
                match self.edit.bytes(path, value) {
                    Some(other) => put_sized(self.out, &other),
                    None => put_sized(self.out, value),
                }
            }
            AvroShape::Array(items) => self.items(items, false, path)?,
            AvroShape::Map(values) => self.items(values, true, path)?,
            AvroShape::Union(branches) => {
                let branch = long(self.input)?;
                let chosen = usize::try_from(branch).ok().and_then(|branch| branches.get(branch));
                put_long(self.out, branch);
                self.value(chosen.ok_or("a union has no such branch")?, path)?;
            }
            AvroShape::Record(fields) => {
                for (name, field) in fields {
                    path.push(name);
                    self.value(field, path)?;
                    path.pop();
                }
            }
        }
        Ok(())
    }

    fn items<'s>(
        &mut self,
        items: &'s AvroShape,
        has_keys: bool,
        path: &mut Vec<&'s str>,
    ) -> Result<(), String> {
        loop {
            let count = block_count(self.input)?;
            put_long(self.out, count);
            if count == 0 {
                return Ok(());
            }
            for _ in 0..count {
                if has_keys {
                    put_sized(self.out, sized(self.input)?);
                }
                self.value(items, path)?;
            }
        }
    }
}

fn take<'a>(input: &mut &'a [u8], count: usize) -> Result<&'a [u8], String> {
    let (taken, rest) = input.split_at_checked(count).ok_or("it ends too soon")?;
    *input = rest;
    Ok(taken)
}

fn long(input: &mut &[u8]) -> Result<i64, String> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = take(input, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    Err("a number is too long".to_owned())
}

/// How many items follow; a negative count has their size in bytes after it, which is left out.
fn block_count(input: &mut &[u8]) -> Result<i64, String> {
    let count = long(input)?;
    if count < 0 {
        long(input)?;
        return count.checked_neg().ok_or_else(|| "a count is too large".to_owned());
    }
    Ok(count)
}

fn sized<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], String> {
    let count = usize::try_from(long(input)?).map_err(|_| "a length is negative")?;
    take(input, count)
}

fn put_long(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while 0x80 <= rest {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn put_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    put_long(out, bytes.len() as i64);
    out.extend(bytes);
}
