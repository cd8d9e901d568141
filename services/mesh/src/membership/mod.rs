//! Who is there, who can reach whom, and what a node does without being asked.

pub(crate) mod gossip_routes;
pub(crate) mod reach;
pub(crate) mod reached;
pub(crate) mod roster;
pub(crate) mod spans;
pub(crate) mod upkeep;
