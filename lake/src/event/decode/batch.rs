//! The parts of `{"events":[…],"batchId"}`: its events, and its id wherever it stands.
//! Leaves reading the events to `decode`.

use crate::event::{
    json::{EventParts, JsonError, JsonKind, JsonMember, JsonScanner, JsonValue, NESTING_MAX},
    names, normalize,
};
use icecore_schemas::point::MAIN_BRANCH;
use std::borrow::Cow;

/// Why a batch among others names no branch.
pub(super) const BRANCH_OF_ALL: &str = "a batch on a line or before other values names no `branch`, as all of a body goes to one; \
    name it in the query parameter `branch`, or send the batch alone as application/json";

/// Members that make an object an event, even without a type: then `events` is one of its columns.
const EVENT_MEMBERS: &[usize] = &[
    names::TYPE,
    names::OP,
    names::STORE,
    names::COLLECTION,
    names::BEFORE,
    names::AFTER,
    names::PATCH,
    names::EVENT_TYPE,
    names::SPEC_VERSION,
    names::column("event"),
];
/// The same for members without a column: of AWS EventBridge and of calls of analytics libraries.
const EVENT_MEMBER_NAMES: &[&str] =
    &["\"detail-type\"", "\"messageId\"", "\"properties\"", "\"traits\""];
/// What batches of the libraries have beside their calls. `batchId` is known by its slot.
const BATCH_MEMBER_NAMES: &[&str] = &[
    "\"context\"",
    "\"integrations\"",
    "\"receivedAt\"",
    "\"sentAt\"",
    "\"timestamp\"",
    "\"writeKey\"",
];

/// What the members of an object other than its list say of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BatchSigns<'a> {
    /// It has members of an event. `__op` and the like are those of a flattened row.
    pub(super) is_event: bool,
    /// It has members that a batch does not have, which nobody would keep.
    pub(super) has_others: bool,
    /// A namespace, which none of its events would get.
    namespace: Option<JsonValue<'a>>,
    /// The branch that its events go to.
    branch: Option<JsonValue<'a>>,
    has_second_branch: bool,
    /// It has a list of events, and maybe a second one with events, which nobody would read.
    has_list: bool,
    has_second_list: bool,
}

impl<'a> BatchSigns<'a> {
    /// Notes a member; `text` begins with its value.
    pub(super) fn add(&mut self, name: JsonValue<'_>, text: &'a str) {
        let slot = slot(name);
        let is_list = slot == Some(names::EVENT_LIST) && text.trim_ascii_start().starts_with('[');
        self.has_second_list |= is_list && self.has_list && !is_empty_list(text);
        self.has_list |= is_list;
        if slot == Some(names::NS) {
            let value = JsonScanner::new(text).value(NESTING_MAX).ok();
            self.namespace = value.filter(|it| it.kind != JsonKind::Null && it.raw != "\"\"");
        }
        if name.text().is_some_and(|name| name == "branch") {
            self.has_second_branch |= self.branch.is_some();
            self.branch = JsonScanner::new(text).value(NESTING_MAX).ok();
        }
        let is_of_list = matches!(slot, Some(names::EVENT_LIST | names::BATCH_ID));
        self.is_event |= slot.is_some_and(|slot| EVENT_MEMBERS.contains(&slot))
            || EVENT_MEMBER_NAMES.contains(&name.raw)
            || name.raw.starts_with("\"__");
        self.has_others |= !is_of_list && !BATCH_MEMBER_NAMES.contains(&name.raw);
    }

    /// Whether the object is an event. One with an empty list is a batch only if nothing is lost by
    /// that.
    pub(super) fn are_of_event(self, is_empty: bool) -> bool {
        self.is_event || is_empty && self.has_others
    }

    /// The branch that the batch names.
    pub(super) fn branch(self) -> Option<String> {
        self.branch?.text().map(Cow::into_owned)
    }

    /// Refuses a batch that asks for what the events of its list would not get. Those that name no
    /// namespace get `default`.
    pub(super) fn check(self, list: &str, default: &str) -> Result<(), String> {
        let is_right =
            |ns: JsonValue<'_>| ns.text().is_some_and(|ns| ns == default || are_all_of(list, &ns));
        let reason = if self.has_second_list {
            "a batch has one list of events, not two; send them as one list, or in two requests"
        } else if self.namespace.is_some_and(|ns| !is_right(ns)) {
            "an `ns` beside the list of events does not count; give it to each event, or send the \
             header X-Namespace"
        } else if self.has_second_branch {
            "a batch names one branch, not two; leave out one `branch`"
        } else if self.branch.is_some_and(|branch| !is_name(branch)) {
            "`branch` beside the list of events is no text; name one branch, or leave it out for `main`"
        } else {
            return Ok(());
        };
        Err(reason.to_owned())
    }

    /// Refuses a batch on a line that names another branch than `main`.
    pub(super) fn check_line(self) -> Result<(), String> {
        match self.branch().is_none_or(|branch| branch == MAIN_BRANCH) {
            true => Ok(()),
            false => Err(BRANCH_OF_ALL.to_owned()),
        }
    }
}

/// Whether a value names a branch, or says that none is named.
fn is_name(branch: JsonValue<'_>) -> bool {
    matches!(branch.kind, JsonKind::Null | JsonKind::Plain | JsonKind::Escaped)
}

/// A batch whose members were read.
pub(super) struct BatchMembers<'a> {
    /// The text of its list.
    pub(super) list: &'a str,
    pub(super) batch_id: Option<String>,
    /// Whether it is one of an analytics library.
    pub(super) is_call_list: bool,
    pub(super) signs: BatchSigns<'a>,
}

/// What these members are as a batch, if they are one.
pub(super) fn batch_members<'a>(members: &[JsonMember<'a>]) -> Option<BatchMembers<'a>> {
    let mut signs = BatchSigns::default();
    if let Some(list) = changefeed_members(members) {
        return Some(BatchMembers { list, batch_id: None, is_call_list: false, signs });
    }
    let first = members.iter().find(|member| {
        member.value.kind == JsonKind::Array && slot(member.name) == Some(names::EVENT_LIST)
    })?;
    for member in members {
        signs.add(member.name, member.value.raw);
    }
    if signs.are_of_event(is_empty_list(first.value.raw)) {
        return None;
    }
    let batch_id = members.iter().find_map(|member| {
        (slot(member.name) == Some(names::BATCH_ID)).then(|| batch_id_of(member.value)).flatten()
    });
    let (list, is_call_list) = (first.value.raw, is_call_list(first.name));
    Some(BatchMembers { list, batch_id, is_call_list, signs })
}

/// Whether the array that a text begins with has no elements.
fn is_empty_list(text: &str) -> bool {
    let inside = text.trim_ascii_start().strip_prefix('[');
    inside.is_some_and(|inside| inside.trim_ascii_start().starts_with(']'))
}

/// Whether every event of a list names this namespace itself.
fn are_all_of(list: &str, namespace: &str) -> bool {
    let mut scan = JsonScanner::new(list);
    let mut parts = EventParts::default();
    scan.take(b'[');
    loop {
        parts.top.clear();
        if scan.object(NESTING_MAX, &mut parts).is_err() {
            return false;
        }
        let named = parts.top.iter().rfind(|member| slot(member.name) == Some(names::NS));
        if named.and_then(|member| member.value.text()).as_deref() != Some(namespace) {
            return false;
        }
        if !scan.take(b',') {
            return true;
        }
    }
}

/// The messages of what CockroachDB's webhook sink sends, if these are its members: `payload` and how
/// many messages it has. `payload` of other events is what their sender put there.
pub(super) fn changefeed_members<'a>(members: &[JsonMember<'a>]) -> Option<&'a str> {
    if members.len() != 2 {
        return None;
    }
    let value = |name: &str| members.iter().find(|it| it.name.raw == name).map(|it| it.value);
    let (messages, length) = (value("\"payload\"")?, value("\"length\"")?);
    let is_it = messages.kind == JsonKind::Array && length.kind == JsonKind::Number;
    is_it.then_some(messages.raw)
}

/// Whether a body is one of CockroachDB's webhook sink.
pub(super) fn is_changefeed(body: &str) -> bool {
    let mut parts = EventParts::default();
    // A broken body is found to be one where it is read.
    let _broken = JsonScanner::new(body).object(NESTING_MAX, &mut parts);
    changefeed_members(&parts.top).is_some()
}

/// Whether the list of events is one of an analytics library.
pub(super) fn is_call_list(name: JsonValue<'_>) -> bool {
    name.raw == "\"batch\""
}

/// Whether a text is what Kafka Connect sends for a key that was deleted: it is taken and says nothing
/// that is stored.
pub(super) fn is_tombstone(text: &str) -> bool {
    text.trim_ascii() == "null"
}

/// What a member of this name means.
pub(super) fn slot(name: JsonValue<'_>) -> Option<usize> {
    names::find(&name.text()?).map(|known| known.slot)
}

/// A text or a number that is a batch's id.
pub(super) fn batch_id_of(value: JsonValue<'_>) -> Option<String> {
    normalize::identifier(value).map(Cow::into_owned)
}

/// Longest id of a batch, which each of its events and dead letters has.
const BATCH_ID_BYTES_MAX: usize = 1024;

/// Refuses a batch id that is too long.
pub(super) fn check_batch_id(batch_id: Option<&str>) -> Result<(), String> {
    match batch_id.map_or(0, str::len) {
        ..=BATCH_ID_BYTES_MAX => Ok(()),
        bytes => Err(format!(
            "`batchId` has {bytes} bytes, at most {BATCH_ID_BYTES_MAX} are allowed; send a shorter one"
        )),
    }
}

/// The batch id after the events, guessed from what follows the last bracket of the text: mostly
/// right, so that the events need not be read twice. Wrong is harmless: it is compared later.
pub(super) fn guess(text: &str) -> Option<String> {
    let tail = &text[text.rfind(']')? + 1..];
    rest_of_batch(&mut JsonScanner::new(tail), BatchSigns::default()).ok()?.batch_id
}

/// The batch id after the events, with the scan at their array.
pub(super) fn look_ahead(mut scan: JsonScanner<'_>) -> Option<String> {
    let start = scan.at();
    scan.skip_blindly(start).ok()?;
    rest_of_batch(&mut scan, BatchSigns::default()).ok()?.batch_id
}

/// What stands in a batch behind its events.
pub(super) struct BatchRest<'a> {
    /// Its id, if that is there.
    pub(super) batch_id: Option<String>,
    /// What all members but the list say.
    pub(super) signs: BatchSigns<'a>,
}

/// Goes to the end of a batch whose events were read; `signs` are those of the members before.
pub(super) fn rest_of_batch<'a>(
    scan: &mut JsonScanner<'a>,
    signs: BatchSigns<'a>,
) -> Result<BatchRest<'a>, JsonError> {
    let mut rest = BatchRest { batch_id: None, signs };
    while scan.take(b',') {
        let name = scan.name()?;
        scan.expect(b':')?;
        rest.signs.add(name, scan.rest());
        let value = scan.value(NESTING_MAX)?;
        if slot(name) == Some(names::BATCH_ID) && rest.batch_id.is_none() {
            rest.batch_id = batch_id_of(value);
        }
    }
    scan.expect(b'}')?;
    Ok(rest)
}
