//! How a document differs from the one before it, as a merge patch (RFC 7396). Numbers stay the texts that they are.

use serde_json::value::{RawValue, to_raw_value};
use std::collections::BTreeMap;

/// Deepest member that is compared by itself; below it a member is compared as a whole. A new one that is deeper has no
/// patch: patches make documents of any depth.
const DEPTH_MAX: usize = 64;

/// The members of an object; of a name that is there twice, the last one.
type ObjectMembers<'a> = BTreeMap<String, &'a RawValue>;

/// What makes `new` of `old`. None where one of them is no object, and where a member becomes null, which a merge
/// patch cannot say.
pub(super) fn merge_patch(old: &RawValue, new: &RawValue) -> Option<Box<RawValue>> {
    let patch = difference(&members(old)?, &members(new)?, 0)?;
    to_raw_value(&patch).ok()
}

fn members(value: &RawValue) -> Option<ObjectMembers<'_>> {
    serde_json::from_str(value.get()).ok()
}

fn difference(
    old: &ObjectMembers<'_>,
    new: &ObjectMembers<'_>,
    depth: usize,
) -> Option<BTreeMap<String, Box<RawValue>>> {
    let mut patch = BTreeMap::new();
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        patch.insert(name.clone(), to_raw_value(&()).ok()?);
    }
    for (name, value) in new {
        let before = old.get(name);
        if before.is_some_and(|before| before.get() == value.get()) {
            continue;
        }
        let inner = before.filter(|_| depth < DEPTH_MAX).copied().and_then(members);
        let change = match inner.zip(members(value)) {
            Some((before, after)) => {
                let inner = difference(&before, &after, depth + 1)?;
                if inner.is_empty() {
                    continue;
                }
                to_raw_value(&inner).ok()?
            }
            None if has_null(value, 0) => return None,
            None => (*value).to_owned(),
        };
        patch.insert(name.clone(), change);
    }
    Some(patch)
}

/// Whether a patch that has this value as it is would remove something: it is null, or an object with a null. One that
/// is deeper than is looked into counts as such.
fn has_null(value: &RawValue, depth: usize) -> bool {
    if value.get() == "null" {
        return true;
    }
    members(value).is_some_and(|members| {
        DEPTH_MAX <= depth || members.values().any(|value| has_null(value, depth + 1))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::rows::json_of;

    fn check(old: &str, new: &str, expected: Option<&str>) {
        let patch = merge_patch(&json_of(old), &json_of(new));
        assert_eq!(patch.as_ref().map(|patch| patch.get()), expected, "{old} to {new}");
    }

    #[test]
    fn a_patch_has_what_is_different_alone() {
        check("{\"a\":1,\"b\":2}", "{\"b\":2,\"a\":1}", Some("{}"));
        check("{\"a\":1,\"b\":2}", "{\"a\":3}", Some("{\"a\":3,\"b\":null}"));
        check(
            "{\"a\":{\"x\":1,\"y\":[1]},\"n\":null}",
            "{\"a\":{\"x\":1, \"y\":[1,2]},\"n\":null}",
            Some("{\"a\":{\"y\":[1,2]}}"),
        );
        check("{\"a\":1}", "{\"a\":{\"x\":1}}", Some("{\"a\":{\"x\":1}}"));
        check("{}", "{\"n\":12345678901234567890123}", Some("{\"n\":12345678901234567890123}"));
    }

    #[test]
    fn what_a_merge_patch_cannot_say_has_none() {
        check("{\"a\":1}", "{\"a\":null}", None);
        check("{}", "{\"a\":{\"x\":null}}", None);
        check("{\"a\":{\"x\":1}}", "{\"a\":{\"x\":null}}", None);
        check("[1]", "{}", None);
        check("{}", "1", None);
    }

    #[test]
    fn a_member_of_any_depth_is_looked_into_so_far_alone() {
        let nested = |levels: usize| {
            format!("{{\"n\":{}1{}}}", "{\"a\":".repeat(levels), "}".repeat(levels))
        };
        let shallow = nested(DEPTH_MAX);
        check("{}", &shallow, Some(&shallow));
        check("{}", &nested(50_000), None);
    }
}
