//! What all load clients are made of: connections that carry one request at a time, and deadlines without a timer for each.

mod connection;
mod deadlines;
mod stream;

pub(crate) use connection::{ClientConnection, not_dialled};
pub(crate) use deadlines::{Deadline, Deadlines, TICK, ticks};
