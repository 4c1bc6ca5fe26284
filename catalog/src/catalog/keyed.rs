//! Changes under an idempotency key for callers in process, as [`crate::rest`] has them for its clients.

use super::{Catalog, LoadedTable};
use crate::{
    error::CatalogError,
    metastore::{RecordedAnswer, RequestKey},
};
use uuid::Uuid;

/// What is known of a request with an idempotency key.
#[derive(Debug)]
pub enum KeyedRequest {
    /// Nothing. This catalog is for its one change to a table, whose transaction keeps the key.
    New(Box<Catalog>),
    /// It was carried out. The table is as it made it, or as it is now where that file is gone; none where the
    /// table is gone.
    Done(Option<LoadedTable>),
    /// Its key was used for another request.
    Other,
}

/// What is known of a request for a view with an idempotency key.
#[derive(Debug)]
pub enum KeyedViewRequest {
    /// Nothing. This catalog is for its one change to a view, whose transaction keeps the key.
    New(Box<Catalog>),
    /// It was carried out.
    Done,
    /// Its key was used for another request.
    Other,
}

impl Catalog {
    /// Looks whether a request was carried out before. `fingerprint` names its contents and its sender.
    ///
    /// # Errors
    /// `Metastore`, `Storage`, and for a table that is there what loading it gives.
    pub async fn keyed(&self, id: Uuid, fingerprint: &str) -> Result<KeyedRequest, CatalogError> {
        let Some(done) = self.metastore().request(id).await? else {
            let (fingerprint, answer) = (fingerprint.to_owned(), RecordedAnswer::Commit);
            let catalog = self.for_request(RequestKey { id, fingerprint, answer });
            return Ok(KeyedRequest::New(Box::new(catalog)));
        };
        if done.fingerprint != fingerprint {
            return Ok(KeyedRequest::Other);
        }
        let Some(made) = done.table else { return Ok(KeyedRequest::Done(None)) };
        if let Ok(table) = self.tables().load_file(made.uuid, &made.metadata_location).await {
            return Ok(KeyedRequest::Done(Some(table)));
        }
        let Some(now) = self.metastore().table_by_uuid(made.uuid).await? else {
            return Ok(KeyedRequest::Done(None));
        };
        let table = self.tables().load_file(made.uuid, &now.metadata_location).await?;
        Ok(KeyedRequest::Done(Some(table)))
    }

    /// The same for a request that makes a view, or changes one.
    ///
    /// # Errors
    /// `Metastore`.
    pub async fn keyed_view(
        &self,
        id: Uuid,
        fingerprint: &str,
    ) -> Result<KeyedViewRequest, CatalogError> {
        Ok(match self.metastore().request(id).await? {
            Some(done) if done.fingerprint == fingerprint => KeyedViewRequest::Done,
            Some(_) => KeyedViewRequest::Other,
            None => {
                let (fingerprint, answer) = (fingerprint.to_owned(), RecordedAnswer::View);
                let catalog = self.for_request(RequestKey { id, fingerprint, answer });
                KeyedViewRequest::New(Box::new(catalog))
            }
        })
    }
}
