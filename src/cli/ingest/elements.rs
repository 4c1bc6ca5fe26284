//! A JSON file as requests: the elements of its array or of its member `events`, or its values.
//!
//! The file is read whole. What is not JSON goes to the server as it is, which says what is wrong. A
//! batch that a server refuses stays where it is, and the rest is sent.

use crate::cli::ingest::{InputPart, identity::InputIdentity, lines::push_with_id};
use icecore_lake::event::decode::file_ids::is_batch;
use serde::Deserialize;
use serde_json::value::RawValue;

/// A body as `POST /ingest` takes it.
#[derive(Deserialize)]
struct IngestBody<'a> {
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
    #[serde(rename = "batchId")]
    batch_id: Option<&'a RawValue>,
}

/// The requests of a JSON text from element `start` on; none where the text has to be sent whole:
/// it is not JSON, or a batch whose own id says what a repeat of it is.
pub(super) fn parts(
    text: &[u8],
    identity: &InputIdentity,
    start: u64,
    namespace: &str,
) -> Option<Vec<InputPart>> {
    let elements = elements(text, namespace)?;
    let mut parts = Vec::new();
    let mut part = InputPart::default();
    for (number, element) in (1..).zip(elements).skip(usize::try_from(start).unwrap_or(usize::MAX))
    {
        if part.is_full() {
            parts.push(std::mem::take(&mut part));
        }
        part.next = number;
        let element = match element {
            Ok(element) => element,
            Err(reason) => {
                part.unsent.extend(reason.map(|reason| (number, reason)));
                continue;
            }
        };
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

/// The elements of a JSON text, or why a request to this namespace does not take the batch that they
/// are in, which the first of them has.
fn elements<'a>(
    text: &'a [u8],
    namespace: &str,
) -> Option<Vec<Result<&'a RawValue, Option<String>>>> {
    let values: Result<Vec<&RawValue>, _> =
        serde_json::Deserializer::from_slice(text).into_iter().collect();
    let mut elements = Vec::new();
    for value in values.ok()? {
        let text = value.get().as_bytes();
        if let Ok(list) = serde_json::from_slice::<Vec<&RawValue>>(text) {
            elements.extend(list.into_iter().map(Ok));
            continue;
        }
        let batch = is_batch(value.get(), namespace);
        let body = match batch {
            Ok(false) => None,
            Ok(true) | Err(_) => serde_json::from_slice::<IngestBody<'_>>(text).ok(),
        };
        // Beside an empty list may be one of calls.
        let body = body.filter(|body| !body.events.is_empty());
        match (batch, body) {
            (Err(reason), body) => {
                elements.push(Err(Some(reason)));
                // Corrected, it leaves the ids of what comes after it as they are.
                let others = body.map_or(0, |body| body.events.len() - 1);
                elements.extend(std::iter::repeat_n(Err(None), others));
            }
            (Ok(_), Some(body)) if body.batch_id.is_some() => return None,
            (Ok(_), Some(body)) => elements.extend(body.events.into_iter().map(Ok)),
            (Ok(_), None) => elements.push(Ok(value)),
        }
    }
    Some(elements)
}
