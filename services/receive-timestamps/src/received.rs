//! The time at which the bytes that were read last were received.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Instant,
};

/// When bytes were received, by the kernel's clock, if it told. Bytes of several requests that were read at once have one time, that of
/// the last segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelTime {
    /// Nanoseconds since 1970; 0 if it did not tell.
    nanos: i64,
}

impl KernelTime {
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "nothing is known there"))]
    pub(crate) const fn from_nanos(nanos: i64) -> Self {
        Self { nanos }
    }

    /// The same by the monotonic clock, which says `now`; nothing if the kernel did not tell, or the wall clock has just been set.
    #[must_use]
    pub fn at(self, now: Instant) -> Option<Instant> {
        (self.nanos > 0).then(|| crate::clock::monotonic(self.nanos, now)).flatten()
    }
}

/// When the bytes that were read last from a stream were received; its clones tell the same.
#[derive(Clone, Debug, Default)]
pub struct Received(Arc<AtomicI64>);

impl Received {
    /// As it stands.
    #[must_use]
    pub fn get(&self) -> KernelTime {
        // Relaxed: a stream and its readers are one task.
        KernelTime { nanos: self.0.load(Ordering::Relaxed) }
    }

    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "nothing is known there"))]
    pub(crate) fn set(&self, time: KernelTime) {
        self.0.store(time.nanos, Ordering::Relaxed);
    }
}
