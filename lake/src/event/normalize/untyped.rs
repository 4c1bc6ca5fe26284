//! What to do about an event without a type, where its members tell who sends it.

use super::find;
use crate::event::json::{JsonKind, JsonMember};

/// Why the event is refused, and what to change.
pub(super) fn reason(top: &[JsonMember<'_>]) -> String {
    let has = |name: &str| find(top, name).is_some();
    let is_object =
        |name: &str| find(top, name).is_some_and(|value| value.kind == JsonKind::Object);
    let is_list = |name: &str| {
        let found = find(top, name).filter(|value| value.kind == JsonKind::Array);
        found.is_some_and(|list| list.raw.contains('{'))
    };
    let advice = if is_object("message") && has("subscription") {
        "; it is wrapped by Google Pub/Sub: enable payload unwrapping for the push subscription"
    } else if has("TopicArn") && has("SubscribeURL") {
        "; to confirm this Amazon SNS subscription, open the event's SubscribeURL"
    } else if has("TopicArn") && has("Message") {
        "; it is wrapped by Amazon SNS: enable raw message delivery for the subscription"
    } else if has("requestId") && has("records") {
        "; Amazon Data Firehose's HTTP endpoint format is not supported: send its records as events"
    } else if has("__crdb__") {
        "; set envelope=wrapped on the changefeed"
    } else if has("date") && (has("log") || has("message")) {
        "; in Fluent Bit the filter `modify` with `Add type NAME` adds one"
    } else if has("source_type") && has("timestamp") {
        "; in Vector a transform `remap` with `.type = \"NAME\"` adds one"
    } else if is_list("events") || is_list("batch") {
        "; a batch cannot stand in a list: send its events there, or the batch alone"
    } else {
        "; add one, such as \"type\":\"order.placed\""
    };
    format!("the event has no `type`{advice}")
}
