//! DELETE: a write of a tombstone, whether or not the key is there.

use bytes::Bytes;
use mesh_proto::{Body, OpRecord, OperationKind};

use super::Worker;
use crate::{WriteError, WriteOptions, Written};

impl Worker {
    /// Deletes a key, whether or not it is there. `record` is filled at the end, and also if this future is dropped before it.
    ///
    /// # Errors
    /// [`WriteError`]; each variant says whether anything was written.
    pub async fn delete(
        &self,
        key: Bytes,
        options: WriteOptions,
        record: &mut Option<OpRecord>,
    ) -> Result<Written, WriteError> {
        self.write(OperationKind::Delete, (key, Body::Tombstone), options, record).await
    }
}
