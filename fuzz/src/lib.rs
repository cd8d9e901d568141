//! What the fuzz targets check, and what they start from. `frame`, `gossip` and `http` are included by the product's own
//! tests as well, which replay every committed input.

mod corpus;
pub mod frame;
pub mod gossip;
pub mod http;

pub use corpus::Corpus;

/// Whether the engine is guided by coverage (libFuzzer, see `run`), and finds its way past headers by itself.
pub const IS_GUIDED: bool = cfg!(fuzzing_libfuzzer);

/// The longest input of the engine. Without guidance it is a script for [`Corpus::damaged`], of four bytes a change.
pub const BYTES_MAX: usize = if IS_GUIDED { 4096 } else { 64 };
