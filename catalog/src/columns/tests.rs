use super::*;
use serde_json::json;

#[test]
fn what_cannot_be_read_is_told_by_name() {
    let column = |kind: Value| {
        json!({"schema": {"type": "struct", "fields": [
        {"id": 1, "name": "a", "type": "long", "required": true},
        {"id": 2, "name": "b", "type": kind, "required": false}]}})
    };
    let said = |value: &Value| explain(value.to_string().as_bytes());
    for kind in ["variant", "unknown", "geometry(OGC:CRS84)", "geography", "decimal(x, 2)", "int32"]
    {
        let text = said(&column(json!(kind))).unwrap();
        assert!(text.contains("column `b`") && text.contains(&format!("`{kind}`")), "{text}");
    }
    let list =
        json!({"type": "list", "element-id": 3, "element": "variant", "element-required": true});
    assert!(said(&column(list)).unwrap().contains("`variant`"));
    let map = json!({"type": "map", "key-id": 3, "key": "string", "value-id": 4, "value": "unknown",
                     "value-required": true});
    assert!(said(&column(map)).unwrap().contains("the value of a"));
    let spec = |transform: &str| json!({"spec": {"fields": [{"name": "p", "source-id": 1, "transform": transform}]}});
    for transform in ["zorder", "bucket", "bucket[x]", "truncate[-1]"] {
        let text = said(&spec(transform)).unwrap();
        assert!(text.contains("`p`") && text.contains(&format!("`{transform}`")), "{text}");
    }
    for right in [
        column(json!("decimal(9, 2)")),
        column(json!("fixed[16]")),
        spec("bucket[16]"),
        spec("day"),
        json!({"name": "x", "type": "variant"}),
    ] {
        assert_eq!(said(&right), None, "{right}");
    }
    assert_eq!(explain(b"no json"), None);
}
