use super::JsonFormat;
use serde_json::Value;
use std::{
    fs::File,
    io::{Read, Seek},
    sync::Arc,
};

/// The line that is written of what `log` says.
fn line_of(log: impl FnOnce()) -> Value {
    let mut file = tempfile::tempfile().unwrap();
    let written: Arc<File> = Arc::new(file.try_clone().unwrap());
    let subscriber =
        tracing_subscriber::fmt().with_writer(written).json().event_format(JsonFormat).finish();
    tracing::subscriber::with_default(subscriber, log);
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_record_of_the_crate_log_has_its_module_as_target() {
    // As `tracing-log` hands them on.
    let of_log = line_of(|| {
        tracing::warn!(
            log.target = "object_store::client",
            log.module_path = "object_store::client::retry",
            log.file = "retry.rs",
            log.line = 7,
            "away"
        );
    });
    assert_eq!(of_log["target"], "object_store::client");
    let mut names: Vec<&String> = of_log.as_object().unwrap().keys().collect();
    names.sort();
    assert_eq!(names, ["level", "message", "target", "timestamp"], "{of_log}");
    let of_ours = line_of(|| tracing::warn!(logged = 1, "here"));
    assert_eq!((&of_ours["target"], &of_ours["logged"]), (&module_path!().into(), &1.into()));
}
