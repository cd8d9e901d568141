//! The mesh's only way to be seen: whoever counts, logs or traces implements [`Observer`].

use mesh_proto::{Event, OpRecord};

/// Is told what happens. Called on the request path, so it must not block.
pub trait Observer: Send + Sync {
    /// Something rare happened.
    fn event(&self, event: &Event);

    /// An operation ended.
    fn operation(&self, record: &OpRecord);
}

/// Looks away.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoObserver;

impl Observer for NoObserver {
    fn event(&self, _event: &Event) {}

    fn operation(&self, _record: &OpRecord) {}
}
