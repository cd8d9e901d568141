//! How replicas that lack something get it: by comparison, by hints, and by handover; and what is collected when all have it.

pub(crate) mod collect;
pub(crate) mod handover;
pub(crate) mod hints;
pub(crate) mod pull;
pub(crate) mod resync;
pub(crate) mod spans;
