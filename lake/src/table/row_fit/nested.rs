//! Lists, structs and maps among the columns of rows: their types in a table, and their values.
//!
//! Its one invariant: each element, member, key and value is under the field id that its table has for it.

use crate::table::row_fit::{self, FitError, can_cast, column_type, file_type, is_assignable};
use arrow::{
    array::{Array, ArrayRef, AsArray, ListArray, MapArray, StructArray, new_null_array},
    compute::cast,
    datatypes::{DataType, Field, FieldRef},
    error::ArrowError,
};
use iceberg::{
    arrow::type_to_arrow_type,
    spec::{ListType, MapType, NestedField, StructType, Type},
};
use std::{collections::HashSet, sync::Arc};

/// Field ids of a new table that are given out.
#[derive(Debug)]
pub(super) struct FieldIds {
    last: i32,
}

impl FieldIds {
    /// Those behind this one.
    pub(super) fn behind(last: i32) -> Self {
        Self { last }
    }

    fn next(&mut self) -> i32 {
        self.last = self.last.saturating_add(1);
        self.last
    }
}

/// The type of the new column `column` for values of this type. Nothing within it is required but keys of maps.
pub(super) fn new_type(
    column: &str,
    kind: &DataType,
    ids: &mut FieldIds,
) -> Result<Type, FitError> {
    let refused = || FitError::NoType { column: column.to_owned(), kind: kind.clone() };
    if let Some(item) = element(kind) {
        if !can_cast(kind, &DataType::List(Arc::clone(item))) {
            return Err(refused());
        }
        let id = ids.next();
        let inner = new_type(column, item.data_type(), ids)?;
        return Ok(Type::List(ListType::new(NestedField::list_element(id, inner, false).into())));
    }
    match kind {
        DataType::Struct(members) if !members.is_empty() => {
            let mut names = HashSet::new();
            let mut fields = Vec::with_capacity(members.len());
            for member in members {
                let name = member.name();
                if name.is_empty() || !names.insert(name.to_lowercase()) {
                    return Err(FitError::Members(column.to_owned()));
                }
                let id = ids.next();
                let inner = new_type(column, member.data_type(), ids)?;
                fields.push(NestedField::optional(id, name, inner).into());
            }
            Ok(Type::Struct(StructType::new(fields)))
        }
        DataType::Map(entries, _) => {
            let (key, value) = entry(entries).ok_or_else(refused)?;
            let (key_id, value_id) = (ids.next(), ids.next());
            let key = new_type(column, key.data_type(), ids)?;
            let value = new_type(column, value.data_type(), ids)?;
            Ok(Type::Map(MapType::optional(key_id, key, value_id, value)))
        }
        flat => {
            let found = column_type(flat);
            let found = found.filter(|it| file_type(it).is_some_and(|it| can_cast(flat, &it)));
            found.map(Type::Primitive).ok_or_else(refused)
        }
    }
}

/// The type in our files of a table's column; none where something of it is not written.
pub(super) fn written_type(kind: &Type) -> Option<DataType> {
    match kind {
        Type::Primitive(kind) => file_type(kind),
        Type::Struct(_) | Type::List(_) | Type::Map(_) => {
            if is_written(kind) {
                type_to_arrow_type(kind).ok()
            } else {
                None
            }
        }
    }
}

fn is_written(kind: &Type) -> bool {
    match kind {
        Type::Primitive(kind) => file_type(kind).is_some(),
        Type::Struct(members) => {
            let members = members.fields();
            // Parquet has no struct without members.
            !members.is_empty() && members.iter().all(|member| is_written(&member.field_type))
        }
        Type::List(list) => is_written(&list.element_field.field_type),
        Type::Map(map) => {
            is_written(&map.key_field.field_type) && is_written(&map.value_field.field_type)
        }
    }
}

/// Whether values of a type may be written to a column without being asked for. Structs have the same members in
/// the same order.
pub(super) fn fits(given: &DataType, wanted: &Type) -> bool {
    match (given, wanted) {
        (DataType::Null, _) => true,
        (given, Type::Primitive(kind)) => is_assignable(given, kind),
        (given, Type::List(list)) => element(given)
            .is_some_and(|item| fits(item.data_type(), &list.element_field.field_type)),
        (DataType::Struct(given), Type::Struct(wanted)) => {
            let wanted = wanted.fields();
            given.len() == wanted.len()
                && given.iter().zip(wanted).all(|(given, wanted)| {
                    *given.name() == wanted.name && fits(given.data_type(), &wanted.field_type)
                })
        }
        (DataType::Map(given, _), Type::Map(map)) => entry(given).is_some_and(|(key, value)| {
            fits(key.data_type(), &map.key_field.field_type)
                && fits(value.data_type(), &map.value_field.field_type)
        }),
        (_, Type::Struct(_) | Type::Map(_)) => false,
    }
}

/// Whether [`converted`] knows how to make one type of the other.
pub(super) fn can_convert(from: &DataType, to: &DataType) -> bool {
    if from == to || from.is_null() {
        return true;
    }
    match (from, to) {
        (DataType::Struct(from), DataType::Struct(to)) => {
            from.len() == to.len()
                && from
                    .iter()
                    .zip(to)
                    .all(|(from, to)| can_convert(from.data_type(), to.data_type()))
        }
        (DataType::Map(from, _), DataType::Map(to, _)) => {
            can_convert(from.data_type(), to.data_type())
        }
        (from, DataType::List(to)) => element(from).is_some_and(|item| {
            can_cast(from, &DataType::List(Arc::clone(item)))
                && can_convert(item.data_type(), to.data_type())
        }),
        (from, to) => !from.is_nested() && !to.is_nested() && can_cast(from, to),
    }
}

/// A column as one of a nested type. A value that does not fit is an error and not null.
pub(super) fn converted(column: &ArrayRef, kind: &DataType) -> Result<ArrayRef, ArrowError> {
    let nulls = column.nulls().cloned();
    let made: ArrayRef = match (column.data_type(), kind) {
        (DataType::Null, kind) => new_null_array(kind, column.len()),
        (DataType::Struct(_), DataType::Struct(fields)) => {
            let members = column.as_struct().columns().iter().zip(fields);
            let members =
                members.map(|(member, field)| row_fit::converted(member, field.data_type()));
            let members = members.collect::<Result<Vec<ArrayRef>, ArrowError>>()?;
            Arc::new(StructArray::try_new(fields.clone(), members, nulls)?)
        }
        (DataType::Map(..), DataType::Map(entries, is_ordered)) => {
            let map = column.as_map();
            let pairs: ArrayRef = Arc::new(map.entries().clone());
            let pairs = row_fit::converted(&pairs, entries.data_type())?;
            let (offsets, pairs) = (map.offsets().clone(), pairs.as_struct().clone());
            Arc::new(MapArray::try_new(Arc::clone(entries), offsets, pairs, nulls, *is_ordered)?)
        }
        (from, DataType::List(item)) => {
            let given = element(from).ok_or_else(|| no_cast(from, kind))?;
            let list = cast(column, &DataType::List(Arc::clone(given)))?;
            let list = list.as_list::<i32>();
            let values = row_fit::converted(list.values(), item.data_type())?;
            let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
            Arc::new(ListArray::try_new(Arc::clone(item), offsets, values, nulls)?)
        }
        (from, kind) => return Err(no_cast(from, kind)),
    };
    Ok(made)
}

fn no_cast(from: &DataType, to: &DataType) -> ArrowError {
    ArrowError::CastError(format!("{from} does not become {to}"))
}

/// What the elements of a list are.
fn element(kind: &DataType) -> Option<&FieldRef> {
    match kind {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => Some(item),
        _ => None,
    }
}

/// Key and value of a map's entries.
fn entry(entries: &Field) -> Option<(&FieldRef, &FieldRef)> {
    match entries.data_type() {
        DataType::Struct(fields) => match &fields[..] {
            [key, value] => Some((key, value)),
            _ => None,
        },
        _ => None,
    }
}
