//! The load client: HTTP/1.1 by hand over kept-alive connections, because it shares the machine with what it measures. A
//! general client costs two to three times the CPU per request.

mod health;
mod last;
mod patience;
mod pool;
mod response;
mod target;
mod timing;

pub(crate) use health::{TargetHealth, probe_for_ever};
pub(crate) use last::{LastRequest, Try, TryResult};
pub(crate) use target::{HttpClient, HttpOptions};
