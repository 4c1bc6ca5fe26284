//! Methods of a wrapper that only call those of what it wraps, and of an operator with one input.

/// Writes methods that call the one of `self.inner` that has the same name and arguments.
macro_rules! forward {
    () => {};
    (fn $name:ident(&self $(, $arg:ident: $type:ty)*) -> $answer:ty; $($rest:tt)*) => {
        fn $name(&self $(, $arg: $type)*) -> $answer {
            self.inner.$name($($arg),*)
        }
        $crate::forward::forward! { $($rest)* }
    };
    (fn $name:ident(&mut self $(, $arg:ident: $type:ty)*) -> $answer:ty; $($rest:tt)*) => {
        fn $name(&mut self $(, $arg: $type)*) -> $answer {
            self.inner.$name($($arg),*)
        }
        $crate::forward::forward! { $($rest)* }
    };
}

/// Writes what an operator is called, and that its input is `self.inner`.
macro_rules! one_input {
    ($name:literal) => {
        fn name(&self) -> &'static str {
            $name
        }

        fn children(&self) -> Vec<&std::sync::Arc<dyn datafusion::physical_plan::ExecutionPlan>> {
            vec![&self.inner]
        }
    };
}

/// Has plans show operators by their names.
macro_rules! shown_by_name {
    ($($operator:ty),+) => {
        $(impl datafusion::physical_plan::DisplayAs for $operator {
            fn fmt_as(
                &self,
                _: datafusion::physical_plan::DisplayFormatType,
                f: &mut std::fmt::Formatter<'_>,
            ) -> std::fmt::Result {
                f.write_str(datafusion::physical_plan::ExecutionPlan::name(self))
            }
        })+
    };
}

pub(crate) use forward;
pub(crate) use one_input;
pub(crate) use shown_by_name;
