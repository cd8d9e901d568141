//! How load is made: the keys and values of operations, their schedule, the threads that send them, and the stages of a run.

mod climb;
mod compare;
mod find_max;
mod interrupts;
mod interval;
mod judged;
mod keys;
mod lifecycle;
pub(crate) mod program;
mod progress;
mod run;
mod sampler;
mod schedule;
mod shown;
mod sizes;
mod stages;
mod standstill;
mod sweep;
mod together;
mod ttls;
mod value;
mod weights;
mod worker;

#[cfg(test)]
pub(crate) use self::interval::IntervalMark;
#[cfg(feature = "alone")]
pub(crate) use self::schedule::Pacer;
pub(crate) use self::{
    compare::Divergence,
    find_max::{FIRST_RATE, is_narrow},
    interval::Interval,
    judged::Times,
    keys::{Distribution, KEYS_MAX, KeyIndex, KeySpace},
    lifecycle::{Milestones, Observed},
    progress::{emit, show},
    run::EXPIRY_ALLOWANCE,
    sampler::{OpSample, SAMPLE_EVERY, Sample},
    shown::Progress,
    sizes::ValueSizes,
    standstill::Standstill,
    worker::Thread,
};
pub use self::{
    interrupts::Interrupts,
    lifecycle::run_plan,
    program::{block_on, exit_code},
    progress::{complain, say},
    run::Run,
    together::all_of,
    ttls::ValueTtls,
    value::{Proof, Stamp, Writer, prove, write_value},
};
