//! Where a change comes from: the members of Debezium's `source`, in each of the forms in which they
//! are sent. Leaves what they mean to `position`.

use crate::event::{
    json::{self, Kind, Member, Value},
    normalize::find,
};
use std::borrow::Cow;

/// How the attributes begin that Debezium's converter makes of `op` and `source`.
const ATTRIBUTE_PREFIX: &str = "iodebezium";
/// How the fields begin that the transformation `ExtractNewRecordState` adds to a row.
pub(super) const FIELD_PREFIX: &str = "__";

/// Where a change comes from.
pub(super) struct Origin<'m, 'a> {
    form: Form,
    members: Cow<'m, [Member<'a>]>,
    /// The members of `transaction`.
    transaction: Vec<Member<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// The members of an envelope's `source`.
    Source,
    /// The attributes of a CloudEvent, among them those that Debezium's converter made of `source`:
    /// `txId` is `iodebeziumtxid` there, `ts_ms` is `iodebeziumtsms`.
    Attributes,
    /// The members of a flattened row: `lsn` is `__lsn` or `__source_lsn` there.
    Fields,
}

impl<'m, 'a> Origin<'m, 'a> {
    /// Of an envelope with these values.
    pub(super) fn source(source: Option<Value<'a>>, transaction: Option<Value<'a>>) -> Self {
        let members = source.map(json::members_of).unwrap_or_default();
        Self::new(Form::Source, Cow::Owned(members), transaction)
    }

    /// Of a CloudEvent with these attributes.
    pub(super) fn attributes(members: &'m [Member<'a>], transaction: Option<Value<'a>>) -> Self {
        Self::new(Form::Attributes, Cow::Borrowed(members), transaction)
    }

    /// Of a flattened row.
    pub(super) fn fields(members: &'m [Member<'a>]) -> Self {
        Self::new(Form::Fields, Cow::Borrowed(members), None)
    }

    fn new(form: Form, members: Cow<'m, [Member<'a>]>, transaction: Option<Value<'a>>) -> Self {
        let transaction = transaction.map(json::members_of).unwrap_or_default();
        Self { form, members, transaction }
    }

    /// Whether a CloudEvent says it by its attributes.
    pub(super) fn is_attributes(&self) -> bool {
        self.form == Form::Attributes
    }

    /// The value of a member of `source`; null is none.
    pub(super) fn get(&self, name: &str) -> Option<Value<'a>> {
        let found = match self.form {
            Form::Source => return find(&self.members, name),
            Form::Attributes => self.members.iter().find(|member| {
                attribute(member).is_some_and(|attribute| letters(name).eq(attribute.bytes()))
            }),
            Form::Fields => {
                let called =
                    |wanted: &str| self.members.iter().find(|member| field(member) == Some(wanted));
                // A time that is not the source's is when the row was processed.
                let own = || called(name).filter(|_| !name.starts_with("ts_"));
                called(&format!("source_{name}")).or_else(own)
            }
        };
        found.map(|member| member.value).filter(|value| value.kind != Kind::Null)
    }

    /// The text of a member of `source`; a number is its text.
    pub(super) fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        self.get(name).map(text_of)
    }

    /// The text of a member of `transaction`.
    pub(super) fn transaction(&self, name: &str) -> Option<Cow<'a, str>> {
        let value = find(&self.transaction, name).or_else(|| match self.form {
            Form::Source => None,
            Form::Attributes => self.get(&format!("tx{name}")),
            Form::Fields => self.get(&format!("transaction_{name}")),
        });
        value.map(text_of)
    }

    /// Every member of `source` that is no object or array, by name, in the order of the names.
    pub(super) fn all(&self) -> Vec<(Cow<'_, str>, Cow<'a, str>)> {
        let mut all: Vec<_> = self
            .members
            .iter()
            .filter(|member| !matches!(member.value.kind, Kind::Null | Kind::Array | Kind::Object))
            .filter_map(|member| {
                let name = match self.form {
                    Form::Source => member.name.text()?,
                    Form::Attributes => Cow::Borrowed(attribute(member)?),
                    Form::Fields => {
                        let field = field(member)?;
                        Cow::Borrowed(field.strip_prefix("source_").unwrap_or(field))
                    }
                };
                Some((name, text_of(member.value)))
            })
            .collect();
        all.sort();
        all
    }
}

/// The letters and digits that a name has in an attribute's name.
pub(super) fn letters(name: &str) -> impl Iterator<Item = u8> {
    name.bytes().filter(u8::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase())
}

/// Whether a CloudEvent's attribute is one that Debezium's converter adds.
pub(super) fn attribute<'a>(member: &Member<'a>) -> Option<&'a str> {
    plain(member)?.strip_prefix(ATTRIBUTE_PREFIX)
}

/// What a field of a flattened row is called without its prefix; none for a column of the row.
pub(super) fn field<'a>(member: &Member<'a>) -> Option<&'a str> {
    plain(member)?.strip_prefix(FIELD_PREFIX)
}

fn plain<'a>(member: &Member<'a>) -> Option<&'a str> {
    member.name.raw.get(1..member.name.raw.len() - 1)
}

/// A string's text, or a value as it is written.
fn text_of(value: Value<'_>) -> Cow<'_, str> {
    value.text().unwrap_or(Cow::Borrowed(value.raw))
}
