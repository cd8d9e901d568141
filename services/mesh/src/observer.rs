//! The mesh's only way to be observed: counters, logs and traces implement [`Observer`].

use mesh_proto::{Event, OpRecord, ServeRecord};

/// Is told what happens. Called on the request path, so it must not block.
pub trait Observer: Send + Sync {
    /// Something rare happened.
    fn event(&self, event: &Event);

    /// An operation ended.
    fn operation(&self, record: &OpRecord);

    /// A peer's leg that carries a trace was served.
    fn served(&self, _record: &ServeRecord) {}

    /// A peer keeps this trace: what was and will be served for it is wanted.
    fn keep_trace(&self, _trace: u128) {}
}

/// Looks away.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoObserver;

impl Observer for NoObserver {
    fn event(&self, _event: &Event) {}

    fn operation(&self, _record: &OpRecord) {}
}
