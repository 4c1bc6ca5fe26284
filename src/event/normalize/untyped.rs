//! What to do about an event without a type, where its members tell who sends it.

use super::find;
use crate::event::json::{JsonKind, JsonMember};

/// Why the event is refused, and what to change.
pub(super) fn reason(top: &[JsonMember<'_>]) -> String {
    let has = |name: &str| find(top, name).is_some();
    let is_object =
        |name: &str| find(top, name).is_some_and(|value| value.kind == JsonKind::Object);
    let advice = if is_object("message") && has("subscription") {
        "; it is wrapped by Google Pub/Sub: turn payload unwrapping on for the push subscription"
    } else if has("TopicArn") && has("SubscribeURL") {
        "; to confirm this subscription of Amazon SNS open the event's SubscribeURL"
    } else if has("TopicArn") && has("Message") {
        "; it is wrapped by Amazon SNS: turn raw message delivery on for the subscription"
    } else if has("requestId") && has("records") {
        "; Amazon Data Firehose's delivery to HTTP endpoints is not read here: send its records as events"
    } else if has("__crdb__") {
        "; let the changefeed have envelope=wrapped"
    } else if has("date") && (has("log") || has("message")) {
        "; in Fluent Bit the filter `modify` with `Add type NAME` adds one"
    } else if has("source_type") && has("timestamp") {
        "; in Vector a transform `remap` with `.type = \"NAME\"` adds one"
    } else {
        "; add one, such as \"type\":\"order.placed\""
    };
    format!("the event has no `type`{advice}")
}
