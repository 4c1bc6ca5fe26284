//! Typed columns of documents that no table has: computed of the documents, in one look at each.

use crate::{
    collections::{columns_text, literal, quoted},
    functions::returned,
};
use arrow::{array::AsArray, datatypes::DataType};
use datafusion::{
    error::DataFusionError,
    logical_expr::{
        ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
    },
};
use icecore_lake::table::typed_columns::TypedColumns;
use std::sync::Arc;

const FUNCTION: &str = "document_values";

/// The function that makes a struct with the typed columns of a document.
pub(super) fn document_values(typed: &TypedColumns) -> ScalarUDF {
    let signature = Signature::exact(vec![DataType::Utf8View], Volatility::Immutable);
    ScalarUDF::from(DocumentValues { typed: typed.clone(), signature })
}

/// A query of documents, with their typed columns behind the others.
pub(super) fn with_values(typed: &TypedColumns, documents: String) -> String {
    if typed.is_empty() {
        return documents;
    }
    let columns = columns_text("");
    let members = typed
        .names()
        .map(|name| format!(", get_field(typed, {}) AS {}", literal(name), quoted(name)));
    let members: String = members.collect();
    format!(
        "SELECT {columns}{members} FROM \
         (SELECT {columns}, {FUNCTION}(doc) AS typed FROM ({documents}) AS documents) AS documents"
    )
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct DocumentValues {
    typed: TypedColumns,
    signature: Signature,
}

impl ScalarUDFImpl for DocumentValues {
    fn name(&self) -> &'static str {
        FUNCTION
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(DataType::Struct(self.typed.fields()))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let values = self.typed.values(arrays[0].as_string_view())?;
        returned(&args.args, Arc::new(values))
    }
}
