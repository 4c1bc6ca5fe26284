use super::*;
use crate::{
    batch::{IngestParameters, IngestReply},
    branch_merge::{BranchDiff, BranchDiffParameters, BranchMergeReport, NewBranchMerge},
    branches::{BranchDropped, BranchEntry, BranchList, BranchSquashed, NewBranch},
    collection_refresh::{RefreshParameters, RefreshReply},
    collection_schema::{CollectionSchema, SchemaParameters, SchemaRegistration},
    collections::{
        AnomalyList, AnomalyPage, CollectionDiff, CollectionList, CollectionPage,
        CollectionParameters, CollectionReply, DiffParameters, DocumentHistory, DocumentList,
        DocumentPage, DocumentReply, EventList, EventPage, HistoryPage, PointParameters,
        PointRequest, ResolvedPoint, ThingParameters,
    },
    columns::DEAD_LETTERS,
    conservation::EventsAudit,
    dead_letters::{
        DiscardLetters, DiscardReply, LetterList, LetterPage, RetryLetters, RetryParameters,
        RetryReply,
    },
    erasure::{ErasureList, ErasureReport, NewErasure},
    error_code::ErrorBody,
    fsck::{FsckParameters, FsckReport},
    holds::{HoldEntry, HoldList, HoldRemoved, NewHold},
    jobs::{JobList, JobParameters, JobReport},
    materialized::{MaterializedEntry, MaterializedRemoved, NewMaterialized},
    namespace_tags::{NamespaceTag, NamespaceTagDropped, NamespaceTagList, NewNamespaceTag},
    query::SqlRequest,
    restore::{
        CollectionRestore, DocumentParameters, DocumentWritten, NamespaceRestore, RestoreReport,
    },
    search::{FacetParameters, FoundThings, SearchParameters, ThingFacets},
    snapshot_id::SnapshotIds,
    tables::{
        CommitAllReply, CommitReply, DropRef, DropTable, DroppedList, FastForward, NamespaceList,
        NewRef, NewTableName, ProtectedList, Protection, RefDropped, RefList, RefReply, Rollback,
        SnapshotList, SnapshotPage, TableDropped, TableList, TableName, TablePurging, TableStats,
    },
    tokens::{AuditPage, AuditRecords, NewToken, TokenList, TokenReply, TokenRevoked},
    version::Version,
    views::{NewView, ViewEntry, ViewRemoved},
    webhooks::{DeliveryTarget, NewSecret, WebhookDeleted, WebhookEntry, WebhookList},
};
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::Map;
use std::{collections::HashSet, fs, path::Path};

/// The file is what `text` says; `UPDATE=1` makes it so.
fn check(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, text, "{file} is not what the code says; run the test with UPDATE=1");
}

#[test]
fn the_files_are_what_the_columns_say() {
    check("iceberg/events.json", &iceberg_schema(EVENTS));
    check("iceberg/dead_letters.json", &iceberg_schema(DEAD_LETTERS));
    check("avro/event.avsc", &avro_event_schema());
}

/// Name and schema of a type.
fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> (String, Value) {
    (T::schema_name().into_owned(), T::json_schema(generator).into())
}

type BodySchema = fn(&mut SchemaGenerator) -> (String, Value);

/// What stands behind the `?` of a path.
const PARAMETERS: &[BodySchema] = &[
    schema_of::<AnomalyPage>,
    schema_of::<AuditPage>,
    schema_of::<BranchDiffParameters>,
    schema_of::<CollectionPage>,
    schema_of::<CollectionParameters>,
    schema_of::<DeliveryTarget>,
    schema_of::<DiffParameters>,
    schema_of::<DiscardLetters>,
    schema_of::<DocumentPage>,
    schema_of::<DocumentParameters>,
    schema_of::<DropRef>,
    schema_of::<DropTable>,
    schema_of::<EventPage>,
    schema_of::<FacetParameters>,
    schema_of::<FsckParameters>,
    schema_of::<HistoryPage>,
    schema_of::<IngestParameters>,
    schema_of::<JobParameters>,
    schema_of::<LetterPage>,
    schema_of::<PointParameters>,
    schema_of::<RefreshParameters>,
    schema_of::<RetryParameters>,
    schema_of::<SchemaParameters>,
    schema_of::<SearchParameters>,
    schema_of::<SnapshotPage>,
    schema_of::<ThingParameters>,
];

/// Bodies of requests.
const SENT: &[BodySchema] = &[
    schema_of::<CollectionRestore>,
    schema_of::<FastForward>,
    schema_of::<NamespaceRestore>,
    schema_of::<NewBranch>,
    schema_of::<NewBranchMerge>,
    schema_of::<NewErasure>,
    schema_of::<NewHold>,
    schema_of::<NewMaterialized>,
    schema_of::<NewNamespaceTag>,
    schema_of::<NewRef>,
    schema_of::<NewSecret>,
    schema_of::<NewTableName>,
    schema_of::<NewToken>,
    schema_of::<NewView>,
    schema_of::<PointRequest>,
    schema_of::<RetryLetters>,
    schema_of::<Rollback>,
    schema_of::<SqlRequest>,
];

/// Bodies of answers.
const ANSWERED: &[BodySchema] = &[
    schema_of::<AnomalyList>,
    schema_of::<AuditRecords>,
    schema_of::<BranchDiff>,
    schema_of::<BranchDropped>,
    schema_of::<BranchEntry>,
    schema_of::<BranchList>,
    schema_of::<BranchMergeReport>,
    schema_of::<BranchSquashed>,
    schema_of::<CollectionDiff>,
    schema_of::<CollectionList>,
    schema_of::<CollectionReply>,
    schema_of::<CollectionSchema>,
    schema_of::<CommitAllReply>,
    schema_of::<CommitReply>,
    schema_of::<DiscardReply>,
    schema_of::<DocumentHistory>,
    schema_of::<DocumentList>,
    schema_of::<DocumentReply>,
    schema_of::<DocumentWritten>,
    schema_of::<DroppedList>,
    schema_of::<ErasureList>,
    schema_of::<ErasureReport>,
    schema_of::<ErrorBody>,
    schema_of::<EventList>,
    schema_of::<EventsAudit>,
    schema_of::<FoundThings>,
    schema_of::<FsckReport>,
    schema_of::<HoldEntry>,
    schema_of::<HoldList>,
    schema_of::<HoldRemoved>,
    schema_of::<IngestReply>,
    schema_of::<JobList>,
    schema_of::<JobReport>,
    schema_of::<LetterList>,
    schema_of::<MaterializedEntry>,
    schema_of::<MaterializedRemoved>,
    schema_of::<NamespaceList>,
    schema_of::<NamespaceTag>,
    schema_of::<NamespaceTagDropped>,
    schema_of::<NamespaceTagList>,
    schema_of::<ProtectedList>,
    schema_of::<Protection>,
    schema_of::<RefDropped>,
    schema_of::<RefList>,
    schema_of::<RefReply>,
    schema_of::<RefreshReply>,
    schema_of::<ResolvedPoint>,
    schema_of::<RestoreReport>,
    schema_of::<RetryReply>,
    schema_of::<SchemaRegistration>,
    schema_of::<SnapshotIds>,
    schema_of::<SnapshotList>,
    schema_of::<TableDropped>,
    schema_of::<TableList>,
    schema_of::<TableName>,
    schema_of::<TablePurging>,
    schema_of::<TableStats>,
    schema_of::<ThingFacets>,
    schema_of::<TokenList>,
    schema_of::<TokenReply>,
    schema_of::<TokenRevoked>,
    schema_of::<Version>,
    schema_of::<ViewEntry>,
    schema_of::<ViewRemoved>,
    schema_of::<WebhookDeleted>,
    schema_of::<WebhookEntry>,
    schema_of::<WebhookList>,
];

/// The schemas of all bodies, as the description of the API has them. A member that may be left out of a
/// request is always in an answer, so each side has schemas of its own.
#[test]
fn the_file_of_types_is_what_the_types_say() {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
    });
    let mut sent = settings.clone().into_generator();
    let mut answered = settings.for_serialize().into_generator();
    let all = |types: &[BodySchema], generator: &mut SchemaGenerator| -> Map<String, Value> {
        types.iter().map(|schema_of| schema_of(generator)).collect()
    };
    let parameters = all(PARAMETERS, &mut sent);
    let mut schemas = Map::new();
    let found = [
        all(SENT, &mut sent),
        sent.take_definitions(true),
        all(ANSWERED, &mut answered),
        answered.take_definitions(true),
    ];
    for (name, schema) in found.into_iter().flatten() {
        let other = schemas.insert(name.clone(), schema.clone());
        assert!(other.is_none_or(|other| other == schema), "{name} has two forms");
    }
    let types = json!({ "parameters": parameters, "schemas": schemas });
    check("openapi/types.json", &pretty(&types));
}

#[test]
fn the_columns_of_the_first_version_have_field_ids_and_the_later_ones_come_after_them() {
    for (columns, first_version) in [(EVENTS, 54), (DEAD_LETTERS, 12)] {
        for (position, column) in columns.iter().enumerate() {
            let id = (position < first_version).then(|| i32::try_from(position + 1).unwrap());
            assert_eq!(column.id, id, "{}", column.name);
            assert!(id.is_some() || !column.required, "{}", column.name);
            assert!(!column.doc.is_empty());
        }
        let names: HashSet<_> = columns.iter().map(|column| column.name).collect();
        assert_eq!(names.len(), columns.len());
    }
}
