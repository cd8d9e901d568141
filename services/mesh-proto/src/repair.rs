//! Which slots this node may speak for, and which ones it has to fetch from a peer.
/// TODO
#[derive(Debug)]
pub struct SlotSync {}
/// TODO
#[derive(Debug)]
pub struct RepairPlan {}
