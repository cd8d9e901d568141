//! Settings of all binaries: each is a flag and an environment variable of the same name, declared with `clap`. This crate
//! holds what they share: one parser per kind of value, one report of all that is wrong, and one list of all names.
//!
//! The flag wins over the variable. An empty variable is an unset one.

mod help;
mod https;
mod memory;
mod mistakes;
mod near_names;
mod open_files;
mod otel;
mod packaging;
mod parse;
mod run_file;
mod table;
mod terminal;
mod values;

pub use https::{bearer_token, check_https_files};
pub use memory::{Memory, MemoryLimit};
pub use mistakes::{Exit, Mistake, Mistakes};
pub use near_names::meant;
pub use open_files::raise_file_limit;
pub use parse::{parse, started_with};
pub use run_file::flags_of_file;
pub use terminal::{COLUMNS, columns_of, fitted, wrapped};
pub use values::{
    Every, TTL_MS_MAX, boolean, byte_size, bytes, default_ttl, duration, hedge_delay, host_port, millis, millis_to,
    number, off_or, positive_duration, socket_addr, ttl_ms, url, whole,
};
