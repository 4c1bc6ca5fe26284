//! A JSON file as requests: the elements of its array or of its member `events`, or its values.
//!
//! The file is read whole. What is not JSON from its start goes to the server as it is, which says what is
//! wrong.
//! Of a file with a batch that a server refuses nothing is sent: it may be corrected in any way that
//! moves the events behind it, which then get other ids.

use crate::cli::ingest::{InputPart, identity::InputIdentity, lines::push_with_id};
use icecore_lake::event::decode::file_ids::{is_batch, values_of};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Why a batch of a branch is not sent.
const WITHOUT_BATCH_ID: &str = "a batch that names a `branch` is sent whole: give it a `batchId`, so that it is taken once; nothing of the file is sent";

/// A body as `POST /ingest` takes it.
#[derive(Deserialize)]
struct IngestBody<'a> {
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
    #[serde(rename = "batchId")]
    batch_id: Option<&'a RawValue>,
    branch: Option<&'a RawValue>,
}

/// The requests of a JSON text from element `start` on; none where the text has to be sent whole:
/// it is not JSON, or has a batch whose own id says what a repeat of it is.
pub(super) fn parts(
    text: &[u8],
    identity: &InputIdentity,
    start: u64,
    namespace: &str,
) -> Option<Vec<InputPart>> {
    let elements = match elements(text, namespace)? {
        Ok(elements) => elements,
        Err(unsent) => return Some(vec![InputPart { unsent, ..InputPart::default() }]),
    };
    let mut parts = Vec::new();
    let mut part = InputPart::default();
    for (number, element) in (1..).zip(elements).skip(usize::try_from(start).unwrap_or(usize::MAX))
    {
        if part.is_full() {
            parts.push(std::mem::take(&mut part));
        }
        part.next = number;
        // JSON has line ends between its tokens only, and here one ends an event.
        let line: Vec<u8> = element
            .get()
            .bytes()
            .map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte })
            .collect();
        push_with_id(&mut part.body, &line, |it| identity.id(number, it));
        part.places.push(number);
    }
    if part.next != 0 {
        parts.push(part);
    }
    Some(parts)
}

/// Places of batches, and why each is refused.
type RefusedBatches = Vec<(u64, String)>;

/// The elements of a JSON text; or its batches that a request to this namespace does not take, by their
/// places, and why.
fn elements<'a>(
    text: &'a [u8],
    namespace: &str,
) -> Option<Result<Vec<&'a RawValue>, RefusedBatches>> {
    let (values, broken) = values_of(str::from_utf8(text).ok()?);
    let mut elements: Vec<&RawValue> = Vec::new();
    let mut refused = Vec::new();
    let mut has_batch_id = false;
    if values.is_empty() && !broken.is_empty() {
        return None;
    }
    for text in values {
        let value: &RawValue = serde_json::from_str(text).ok()?;
        if let Ok(list) = serde_json::from_str::<Vec<&RawValue>>(text) {
            elements.extend(list);
            continue;
        }
        let body = match is_batch(text, namespace) {
            Ok(true) => serde_json::from_str::<IngestBody<'_>>(text).ok(),
            Ok(false) => None,
            Err(reason) => {
                let reason = format!("{reason}; nothing of the file is sent");
                refused.push((elements.len() as u64 + 1, reason));
                None
            }
        };
        // Beside an empty list may be one of calls.
        match body.filter(|body| !body.events.is_empty()) {
            Some(body) => {
                has_batch_id |= body.batch_id.is_some();
                // Its events would come to `main` as lines, and twice on the branch where an answer is lost.
                let is_of_branch = body.branch.is_some_and(|it| it.get() != "\"main\"");
                if is_of_branch && body.batch_id.is_none() {
                    refused.push((elements.len() as u64 + 1, WITHOUT_BATCH_ID.to_owned()));
                }
                elements.extend(body.events);
            }
            None => elements.push(value),
        }
    }
    // A server would take the events before it, which have no ids.
    if !broken.is_empty() {
        let reason = "not JSON; nothing of the file is sent".to_owned();
        refused.push((elements.len() as u64 + 1, reason));
    }
    if !refused.is_empty() {
        return Some(Err(refused));
    }
    (!has_batch_id).then_some(Ok(elements))
}
