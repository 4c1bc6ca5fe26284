//! Where a change comes from: the members of Debezium's `source`, in each of the forms in which they
//! are sent. Leaves what they mean to `position`.

use crate::event::{
    json::{self, JsonKind, JsonMember, JsonValue},
    normalize::find,
};
use std::borrow::Cow;

/// How the attributes begin that Debezium's converter makes of `op` and `source`.
const ATTRIBUTE_PREFIX: &str = "iodebezium";
/// How the fields begin that the transformation `ExtractNewRecordState` adds to a row.
pub(super) const FIELD_PREFIX: &str = "__";

/// Where a change comes from.
pub(super) struct ChangeSource<'m, 'a> {
    form: SourceForm,
    members: Cow<'m, [JsonMember<'a>]>,
    /// The members of `transaction`.
    transaction: Vec<JsonMember<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SourceForm {
    /// The members of an envelope's `source`.
    Source,
    /// The attributes of a CloudEvent, among them those that Debezium's converter made of `source`:
    /// `txId` is `iodebeziumtxid` there, `ts_ms` is `iodebeziumtsms`.
    Attributes,
    /// The members of a flattened row: `lsn` is `__lsn` or `__source_lsn` there.
    Fields,
}

impl<'m, 'a> ChangeSource<'m, 'a> {
    /// Of an envelope with these values.
    pub(super) fn source(
        source: Option<JsonValue<'a>>,
        transaction: Option<JsonValue<'a>>,
    ) -> Self {
        let members = source.map(json::members_of).unwrap_or_default();
        Self::new(SourceForm::Source, Cow::Owned(members), transaction)
    }

    /// Of a CloudEvent with these attributes.
    pub(super) fn attributes(
        members: &'m [JsonMember<'a>],
        transaction: Option<JsonValue<'a>>,
    ) -> Self {
        Self::new(SourceForm::Attributes, Cow::Borrowed(members), transaction)
    }

    /// Of a flattened row.
    pub(super) fn fields(members: &'m [JsonMember<'a>]) -> Self {
        Self::new(SourceForm::Fields, Cow::Borrowed(members), None)
    }

    fn new(
        form: SourceForm,
        members: Cow<'m, [JsonMember<'a>]>,
        transaction: Option<JsonValue<'a>>,
    ) -> Self {
        let transaction = transaction.map(json::members_of).unwrap_or_default();
        Self { form, members, transaction }
    }

    /// Whether a CloudEvent says it by its attributes.
    pub(super) fn is_attributes(&self) -> bool {
        self.form == SourceForm::Attributes
    }

    /// The value of a member of `source`; null is none.
    pub(super) fn get(&self, name: &str) -> Option<JsonValue<'a>> {
        let found = match self.form {
            SourceForm::Source => return find(&self.members, name),
            SourceForm::Attributes => self.members.iter().find(|member| {
                attribute(member).is_some_and(|attribute| letters(name).eq(attribute.bytes()))
            }),
            SourceForm::Fields => {
                let called =
                    |wanted: &str| self.members.iter().find(|member| field(member) == Some(wanted));
                // A time that is not the source's is when the row was processed.
                let own = || called(name).filter(|_| !name.starts_with("ts_"));
                called(&format!("source_{name}")).or_else(own)
            }
        };
        found.map(|member| member.value).filter(|value| value.kind != JsonKind::Null)
    }

    /// The text of a member of `source`; a number is its text.
    pub(super) fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        self.get(name).map(text_of)
    }

    /// The text of a member of `transaction`.
    pub(super) fn transaction(&self, name: &str) -> Option<Cow<'a, str>> {
        let value = find(&self.transaction, name).or_else(|| match self.form {
            SourceForm::Source => None,
            SourceForm::Attributes => self.get(&format!("tx{name}")),
            SourceForm::Fields => self.get(&format!("transaction_{name}")),
        });
        value.map(text_of)
    }

    /// Every member of `source` that is no object or array, by name, in the order of the names.
    pub(super) fn all(&self) -> Vec<(Cow<'_, str>, Cow<'a, str>)> {
        let mut all: Vec<_> = self
            .members
            .iter()
            .filter(|member| {
                !matches!(member.value.kind, JsonKind::Null | JsonKind::Array | JsonKind::Object)
            })
            .filter_map(|member| {
                let name = match self.form {
                    SourceForm::Source => member.name.text()?,
                    SourceForm::Attributes => Cow::Borrowed(attribute(member)?),
                    SourceForm::Fields => {
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
pub(super) fn attribute<'a>(member: &JsonMember<'a>) -> Option<&'a str> {
    plain(member)?.strip_prefix(ATTRIBUTE_PREFIX)
}

/// What a field of a flattened row is called without its prefix; none for a column of the row.
pub(super) fn field<'a>(member: &JsonMember<'a>) -> Option<&'a str> {
    plain(member)?.strip_prefix(FIELD_PREFIX)
}

fn plain<'a>(member: &JsonMember<'a>) -> Option<&'a str> {
    member.name.raw.get(1..member.name.raw.len() - 1)
}

/// A string's text, or a value as it is written.
fn text_of(value: JsonValue<'_>) -> Cow<'_, str> {
    value.text().unwrap_or(Cow::Borrowed(value.raw))
}
