//! The envelope of a page: `{"items": […], "next_page_token": …, "complete_since": …}`.

use std::io;

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::super::query::Answer;
use super::super::storage::MatchingBatch;
use tapio_core::event::rfc3339;
use tapio_wire::{Batch, Item, WireError, decoded_json};

/// Renders items as a JSON array.
pub(super) fn array(items: impl Iterator<Item = Value>) -> io::Result<Vec<u8>> {
    serde_json::to_vec(&items.collect::<Vec<_>>()).map_err(io::Error::from)
}

/// Renders the events of batches, newest first, as a JSON array.
pub(super) fn event_array(found: &[MatchingBatch]) -> io::Result<Vec<u8>> {
    serde_json::to_vec(&events(found)?).map_err(io::Error::from)
}

/// The events of batches, newest first.
pub(super) fn events(found: &[MatchingBatch]) -> io::Result<Vec<Value>> {
    let mut events = Vec::new();
    for found in found {
        append_json(found, &mut events).map_err(io::Error::other)?;
    }
    Ok(events)
}

/// Appends the events of a batch, newest first. In the place of an event that can't be decoded
/// stands an object with the error.
fn append_json(found: &MatchingBatch, out: &mut Vec<Value>) -> Result<(), WireError> {
    let batch = Batch::parse(&found.batch).map_err(|(_, error)| error)?;
    let mut decoder = batch.display_decoder();
    let first = out.len();
    for item in batch.items() {
        if let Item::Event(raw) = item {
            out.push(match decoder.event(raw) {
                Ok(decoded) => decoded_json(&batch, &decoded),
                Err(error) => json!({"error": error.to_string()}),
            });
        }
    }
    out[first..].reverse();
    Ok(())
}

/// The response with a page, whose items are a JSON array.
pub(super) fn page(answer: Answer<Vec<u8>>) -> Response {
    let token = answer.next_page_token;
    let end = json!({
        "next_page_token": (!token.is_empty()).then_some(token),
        "complete_since":
            (answer.complete_since_ns > 0).then(|| rfc3339(answer.complete_since_ns)),
    })
    .to_string();
    // The items are rendered already, on a thread of their own.
    let mut body = br#"{"items":"#.to_vec();
    body.extend_from_slice(&answer.items);
    body.push(b',');
    body.extend_from_slice(&end.as_bytes()[1..]);
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}
