//! A JSON file as requests: the elements of its array or of its member `events`, or its values.
//!
//! The file is read whole. What is not JSON goes to the server as it is, which says what is wrong.

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
///
/// # Errors
/// Why a batch is refused by a request to this namespace.
pub(super) fn parts(
    text: &[u8],
    identity: &InputIdentity,
    start: u64,
    namespace: &str,
) -> Result<Option<Vec<InputPart>>, String> {
    let values: Result<Vec<&RawValue>, _> =
        serde_json::Deserializer::from_slice(text).into_iter().collect();
    let Ok(values) = values else { return Ok(None) };
    let mut elements = Vec::new();
    for value in values {
        let text = value.get().as_bytes();
        if let Ok(list) = serde_json::from_slice::<Vec<&RawValue>>(text) {
            elements.extend(list);
        } else if is_batch(value.get(), namespace)?
            && let Ok(body) = serde_json::from_slice::<IngestBody<'_>>(text)
            // Beside an empty list may be one of calls.
            && !body.events.is_empty()
        {
            if body.batch_id.is_some() {
                return Ok(None);
            }
            elements.extend(body.events);
        } else {
            elements.push(value);
        }
    }
    let mut parts = Vec::new();
    let mut part = InputPart::default();
    for (number, element) in (1..).zip(elements).skip(usize::try_from(start).unwrap_or(usize::MAX))
    {
        if part.is_full() {
            parts.push(std::mem::take(&mut part));
        }
        // JSON has line ends between its tokens only, and here one ends an event.
        let line: Vec<u8> = element
            .get()
            .bytes()
            .map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte })
            .collect();
        push_with_id(&mut part.body, &line, |it| identity.id(number, it));
        part.places.push(number);
        part.next = number;
    }
    if !part.places.is_empty() {
        parts.push(part);
    }
    Ok(Some(parts))
}
