//! Structs as DuckDB's functions make them.

use datafusion::sql::sqlparser::ast::{
    DictionaryField, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident,
};

/// `struct_pack(a := x, b := y)` as `{'a': x, 'b': y}`; none where an argument has no name.
#[must_use]
pub fn packed(call: &Function) -> Option<Expr> {
    let FunctionArguments::List(list) = &call.args else { return None };
    let fields = list.args.iter().map(|argument| match argument {
        FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), .. } => {
            let key = Ident::with_quote('\'', name.value.as_str());
            Some(DictionaryField { key, value: Box::new(value.clone()) })
        }
        _ => None,
    });
    fields.collect::<Option<Vec<_>>>().map(Expr::Dictionary)
}
