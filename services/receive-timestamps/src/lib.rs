//! When the kernel received what a program reads later (SO_TIMESTAMPNS, Linux): the time from then on was spent in this host's queue,
//! and not on the network. Elsewhere, or if it is turned off, nothing is known.

mod clock;
mod datagrams;
#[cfg(target_os = "linux")]
mod linux;
mod received;
mod stream;

pub use datagrams::{Datagram, DatagramReader};
pub use received::{KernelTime, Received};
pub use stream::TimestampedStream;
