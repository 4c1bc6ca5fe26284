//! Sample events: a small shop's changes, calls, webhooks and domain events.

use icecore_lake::ids::IdGenerator;
use serde_json::{Value, json};

/// Namespace of the samples.
pub const NAMESPACE: &str = "shop.example";

/// The `n`th sample event, with a time some seconds before `now_ms`.
#[must_use]
pub fn event(n: u64, now_ms: i64, ids: &IdGenerator) -> Value {
    let ts = now_ms - 60_000 + i64::try_from(n % 60_000).unwrap_or(0);
    let customer = format!("cust-{}", n * 7 % 500);
    let method = ["getCart", "checkout", "search"][(n % 3) as usize];
    let colo = ["FRA", "ORD", "SIN"][(n % 3) as usize];
    let mut event = match n % 10 {
        0..=3 => change(n),
        4..=6 => json!({
            "type": "rpc.call",
            "data": {
                "method": method,
                "durationMs": 2.0 + (n * 31 % 97) as f64 * 1.5,
                "success": n % 50 != 4,
                "do": { "class": "Cart", "id": format!("{:016x}", n % 40), "colo": colo },
            },
        }),
        7 => {
            json!({ "type": "webhook.stripe", "data": { "provider": "stripe", "eventType": "invoice.paid", "verified": true, "deliveryId": format!("evt_{n}") } })
        }
        8 => {
            json!({ "type": "Order.placed", "actor": format!("User/{customer}"), "data": { "order": n, "amount": (n * 13 % 9_000) as f64 / 100.0 } })
        }
        _ => {
            json!({ "type": "Customer.created", "actor": "User/signup", "data": { "customer": customer } })
        }
    };
    event["id"] = ids.mint().to_string().into();
    event["ts"] = ts.into();
    event["ns"] = NAMESPACE.into();
    event
}

/// Each order is created, paid, shipped: updates carry the record before and after.
fn change(n: u64) -> Value {
    let (order, step) = (n / 30, n / 10 % 3);
    let customer = format!("cust-{}", order * 7 % 500);
    let states = ["new", "paid", "shipped"];
    let document =
        |step: u64| json!({ "id": order, "customer": customer, "state": states[step as usize] });
    json!({
        "type": if step == 0 { "cdc.insert" } else { "cdc.update" },
        "op": if step == 0 { "c" } else { "u" },
        "collection": "orders",
        "key": format!("order-{order}-{}", n % 10),
        "before": (0 < step).then(|| document(step - 1)),
        "after": document(step),
        "lsn": n,
    })
}
