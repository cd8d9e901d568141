//! Connections to peers: made, greeted, kept up and served.

pub(crate) mod bounds;
pub(crate) mod health;
pub(crate) mod link;
pub(crate) mod peer;
pub(crate) mod peers;
pub(crate) mod seldom;
pub(crate) mod serve;
