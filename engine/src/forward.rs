//! Methods of a wrapper that only call those of what it wraps.

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

pub(crate) use forward;
