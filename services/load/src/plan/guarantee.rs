//! What targets promise, which is what their answers are judged by.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::Serialize;

use crate::history::Order;

/// What targets promise.
#[derive(BorshDeserialize, BorshSerialize, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Guarantee {
    /// That of the mesh: several nodes hold each key, versions tell which write is the later one, and acknowledged writes survive.
    #[default]
    Mesh,
    /// That of Redis and memcached: one server answers for each key, with the last write that it has acknowledged, as long as it runs.
    /// What a restart or a fail-over loses was never promised.
    OneCopy,
}

impl Guarantee {
    /// Whether each node is asked for each key after the load.
    pub(crate) const fn has_replicas(self) -> bool {
        matches!(self, Self::Mesh)
    }

    /// What tells which of two writes is the later one.
    pub(crate) const fn order(self) -> Order {
        match self {
            Self::Mesh => Order::Versions,
            Self::OneCopy => Order::Times,
        }
    }
}
