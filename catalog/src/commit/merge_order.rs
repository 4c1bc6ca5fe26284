//! The order that a table asks its merged files to have.

use iceberg::spec::Schema;

/// The table property with the names of one column or two, such as `key` or `key,user_id`; empty for none.
pub const MERGE_ORDER: &str = "icecore.compaction.zorder";

/// The columns that the property names, by their field ids: none, one or two different ones.
///
/// # Errors
/// Says what to write.
pub fn columns(text: &str, schema: &Schema) -> Result<Vec<i32>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let column = |name: &str| {
        let field = schema.field_by_name(name.trim())?;
        field.field_type.is_primitive().then_some(field.id)
    };
    let ids: Option<Vec<i32>> = text.split(',').map(column).collect();
    match ids.as_deref() {
        Some([id]) => Ok(vec![*id]),
        Some([one, other]) if one != other => Ok(vec![*one, *other]),
        _ => Err(format!(
            "its property `{MERGE_ORDER}` is `{text}`: name one column or two columns of the table with \
             single values, spelled as there, with a comma between them, or leave it empty for none"
        )),
    }
}
