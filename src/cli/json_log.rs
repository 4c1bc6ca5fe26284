//! Lines of the log as JSON objects. The formatter of `tracing` leaves out what caused an error.

use crate::cli::with_causes;
use serde_json::{Map, Value};
use std::{error::Error, fmt};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    registry::{LookupSpan, Scope},
};

/// Writes an event with its spans, the outermost first.
pub(super) struct JsonFormat;

impl<S, N> FormatEvent<S, N> for JsonFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut line = LineMembers(Vec::new());
        line.put("timestamp", time);
        line.put("level", event.metadata().level().to_string());
        event.record(&mut line);
        // Records of the crate `log` have where they come from as fields, and no target of their own.
        let module = line.0.iter().find(|(name, _)| *name == "log.target");
        let target = module.map(|(_, module)| module.clone());
        line.0.retain(|(name, _)| !name.starts_with("log."));
        line.put("target", target.unwrap_or_else(|| event.metadata().target().into()));
        let scope = context.event_scope().into_iter().flat_map(Scope::from_root);
        let spans = scope.map(|span| {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<N>>();
            // They were written as an object.
            let members = fields.and_then(|found| serde_json::from_str(&found.fields).ok());
            let mut members: Map<String, Value> = members.unwrap_or_default();
            members.insert("name".to_owned(), span.name().into());
            Value::Object(members)
        });
        let spans: Vec<Value> = spans.collect();
        if let Some(span) = spans.last() {
            line.put("span", span.clone());
            line.put("spans", spans);
        }
        writeln!(writer, "{line}")
    }
}

/// The members of a line, in their order.
struct LineMembers(Vec<(&'static str, Value)>);

impl LineMembers {
    fn put(&mut self, name: &'static str, value: impl Into<Value>) {
        self.0.push((name, value.into()));
    }
}

impl Visit for LineMembers {
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.put(field.name(), with_causes(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field.name(), format!("{value:?}"));
    }
}

impl fmt::Display for LineMembers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members = self.0.iter().map(|(name, value)| format!("{}:{value}", Value::from(*name)));
        write!(f, "{{{}}}", members.collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests;
