//! What clients measured in their scans and commits: taken, kept for a while, and shown.

use super::{
    RestState,
    error::RestError,
    request::{JsonBody, TablePath},
};
use crate::{
    error::CatalogError,
    metastore::{Levels, MetricsReport},
};
use axum::{Json, extract::State, http::StatusCode};
use iceberg::TableIdent;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

/// Reports that a table keeps: the newest.
const REPORTS_MAX: u32 = 100;
/// Largest report in bytes; Spark's are a few KiB.
const REPORT_BYTES_MAX: usize = 64 << 10;

/// The one member that every report has.
#[derive(Deserialize)]
struct ReportKind {
    #[serde(rename = "report-type")]
    _report_type: String,
}

#[derive(Debug, Serialize)]
pub(super) struct ReportsAnswer {
    reports: Vec<ReceivedReport>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct ReceivedReport {
    received_ms: i64,
    report: Box<RawValue>,
}

/// `POST /namespaces/{namespace}/tables/{table}/metrics`
pub(super) async fn report(
    State(rest): State<RestState>,
    TablePath(table): TablePath,
    JsonBody(body): JsonBody<Box<RawValue>>,
) -> Result<StatusCode, RestError> {
    if body.get().len() > REPORT_BYTES_MAX {
        let text = format!("a report must have at most {REPORT_BYTES_MAX} bytes");
        return Err(RestError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "PayloadTooLargeException",
            text,
        ));
    }
    if let Err(cause) = serde_json::from_str::<ReportKind>(body.get()) {
        return Err(RestError::bad_request(format!("this is not a metrics report: {cause}")));
    }
    let uuid = identity(&rest, &table).await?;
    let report = MetricsReport { received_ms: rest.catalog.now_ms(), body: body.get().to_owned() };
    rest.catalog.metastore().add_report(uuid, &report, REPORTS_MAX).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /namespaces/{namespace}/tables/{table}/metrics`: an extension, the newest report first.
pub(super) async fn list(
    State(rest): State<RestState>,
    TablePath(table): TablePath,
) -> Result<Json<ReportsAnswer>, RestError> {
    let uuid = identity(&rest, &table).await?;
    let reports = rest.catalog.metastore().reports(uuid).await?.into_iter().map(|report| {
        let body = RawValue::from_string(report.body).expect("only JSON was stored");
        ReceivedReport { received_ms: report.received_ms, report: body }
    });
    Ok(Json(ReportsAnswer { reports: reports.collect() }))
}

async fn identity(rest: &RestState, table: &TableIdent) -> Result<Uuid, RestError> {
    let levels: &Levels = table.namespace().as_ref();
    let row = rest.catalog.metastore().table(levels, table.name()).await?;
    Ok(row.ok_or_else(|| CatalogError::NoSuchTable(table.to_string()))?.uuid)
}
