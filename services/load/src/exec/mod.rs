//! How load is made: the keys and values of operations, their schedule, the threads that send them, and the stages of a run.

mod compare;
mod judged;
mod keys;
mod progress;
mod run;
mod schedule;
mod session;
mod sizes;
mod stages;
mod sweep;
mod together;
mod value;
mod worker;

pub(crate) use self::{
    compare::Divergence,
    judged::Times,
    keys::{Distribution, KEYS_MAX, KeyIndex, KeySpace},
    progress::Sample,
    run::EXPIRY_ALLOWANCE,
    session::Observed,
    sizes::ValueSizes,
    worker::Thread,
};
pub use self::{
    progress::say,
    run::Run,
    session::run_session,
    together::all_of,
    value::{Proof, Stamp, Writer, prove, write_value},
};
