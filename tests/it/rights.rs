//! Every route outside the catalog with every kind of token: who is let in is what the table says.

use crate::access::{Guarded, well_formed};
use icecore::http::{
    guard::RouteNeed,
    routes::{ROUTES, Route},
};
use icecore_catalog::access::Action;
use serde_json::{Value, json};

/// The namespace that is asked for in every path.
const ASKED: &str = "shop";

/// What the guard says to a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing: the handler answers.
    LetIn,
    /// 401
    Unknown,
    /// 403, to who may know that the namespace is there.
    Forbidden,
    /// 404, to who may not.
    NotThere,
}

/// What a token may do, and in which namespace; `*` is all of them.
#[derive(Clone, Copy, Debug)]
struct Grant {
    action: Action,
    namespace: &'static str,
}

/// Whether a right includes another: all include what is needed to use them, `admin` everything.
fn includes(granted: Action, needed: Action) -> bool {
    granted == needed
        || granted == Action::Admin
        || (granted, needed) == (Action::Write, Action::Read)
}

fn expected(need: RouteNeed, grant: Option<Grant>) -> Verdict {
    if need == RouteNeed::Open {
        return Verdict::LetIn;
    }
    let Some(Grant { action, namespace }) = grant else { return Verdict::Unknown };
    let reaches = ["*", ASKED].contains(&namespace);
    let may = |needed| includes(action, needed);
    let is_let_in = match need {
        RouteNeed::Open | RouteNeed::AnyToken => true,
        RouteNeed::In(needed) | RouteNeed::InCatalog(needed) => may(needed) && reaches,
        RouteNeed::Somewhere(needed) => may(needed),
        RouteNeed::Everywhere(needed) => may(needed) && namespace == "*",
    };
    match need {
        _ if is_let_in => Verdict::LetIn,
        // Who may only send events does not learn which namespaces there are.
        RouteNeed::In(_) | RouteNeed::InCatalog(_) if !(reaches && may(Action::Read)) => {
            Verdict::NotThere
        }
        _ => Verdict::Forbidden,
    }
}

fn verdict(status: u16, answer: &Value) -> Verdict {
    let text = answer["error"].as_str().unwrap_or_default();
    match status {
        401 => Verdict::Unknown,
        403 => Verdict::Forbidden,
        404 if text.starts_with("Namespace does not exist")
            || text.starts_with("the token may only send events to namespace") =>
        {
            Verdict::NotThere
        }
        _ => Verdict::LetIn,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_asks_for_the_right_that_the_table_names() {
    let guarded = Guarded::with_events().await;
    let mut callers = vec![(None, String::new())];
    for action in [Action::Ingest, Action::Read, Action::Write, Action::Admin] {
        for namespace in [ASKED, "mine", "*"] {
            let scope = format!("{}:{namespace}", action.name());
            let token = guarded.token(&json!({"name": scope, "scopes": [scope]})).await;
            callers.push((Some(Grant { action, namespace }), token));
        }
    }
    for Route { method, path: route, need, .. } in ROUTES {
        // What is not there cannot be changed, so every caller finds the same.
        let path = route.replace("{namespace}", ASKED).replace("{table}", "absent");
        let path = path.replace("{uuid}", "00000000-0000-0000-0000-000000000000");
        let path = path.replace("{name}", "main").replace("{id}", "none");
        let path = path.replace("{provider}", "none");
        for (grant, token) in &callers {
            let (status, answer) =
                guarded.call(method.parse().unwrap(), token, &path, &well_formed(route)).await;
            let expected = expected(*need, *grant);
            // The signature stands for the token, and the path has none.
            if *route == "/webhooks/{provider}" && expected == Verdict::LetIn {
                continue;
            }
            assert_eq!(verdict(status, &answer), expected, "{method} {route} {grant:?}: {answer}");
        }
    }
    let stranger = guarded.token(&json!({"name": "t", "scopes": ["read:elsewhere"]})).await;
    let (_, listed) = guarded.get(&stranger, "/v1/namespaces").await;
    assert_eq!(listed["namespaces"], json!([]));
    guarded.server.stop().await;
}
