//! Which connection a gossip datagram leaves by: upkeep's own to that peer, or else the one the peer last spoke on. Apart
//! from data connections, so that gossip never waits behind data.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use mesh_proto::{Monotonic, NodeId};
use parking_lot::Mutex;

use crate::transport::Connection;

/// Connections by peer. The lock is held for a look-up only.
#[derive(Default)]
pub(crate) struct GossipRoutes {
    routes: Mutex<HashMap<NodeId, Route>>,
}

#[derive(Default)]
struct Route {
    dialled: Option<Arc<dyn Connection>>,
    accepted: Option<Arc<dyn Connection>>,
    /// Since when it is dialled for the first time, if it is.
    first_dialled: Option<Monotonic>,
}

/// How long a member that was never connected to may take for that before its silence counts.
const FIRST_DIAL_MAX: Duration = Duration::from_secs(10);

/// What has become of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It is on its way, or there is none.
    Away,
    /// There is no way yet, because many nodes are connecting at the same time: that says nothing about the peer.
    StillDialled,
}

impl GossipRoutes {
    /// Sends if there is a way; drops the datagram otherwise, as a network would.
    pub(crate) fn send(&self, to: NodeId, datagram: Bytes, now: Monotonic) -> Sent {
        let connection = {
            let routes = self.routes.lock();
            let Some(route) = routes.get(&to) else { return Sent::Away };
            match (route.dialled.clone().or_else(|| route.accepted.clone()), route.first_dialled) {
                (Some(connection), _) => connection,
                (None, Some(since)) if now.since(since) < FIRST_DIAL_MAX => return Sent::StillDialled,
                (None, _) => return Sent::Away,
            }
        };
        connection.send_datagram(datagram);
        Sent::Away
    }

    /// Keeps the routes of members, and of those that are connected and may become members.
    pub(crate) fn retain(&self, is_member: impl Fn(NodeId) -> bool) {
        let is_connected = |route: &Route| route.dialled.is_some() || route.accepted.is_some();
        self.routes.lock().retain(|peer, route| is_connected(route) || is_member(*peer));
    }

    /// A new member is about to be dialled.
    pub(crate) fn begin_dialling(&self, peer: NodeId, now: Monotonic) {
        self.routes.lock().entry(peer).or_default().first_dialled = Some(now);
    }

    /// A connection came up, or broke; whether the peer was dialled for the first time.
    pub(crate) fn set_dialled(&self, peer: NodeId, connection: Option<Arc<dyn Connection>>) -> bool {
        let mut routes = self.routes.lock();
        let route = routes.entry(peer).or_default();
        route.dialled = connection;
        route.first_dialled.take().is_some()
    }

    /// The peer has spoken on this connection, which it has dialled.
    pub(crate) fn set_accepted(&self, peer: NodeId, connection: &Arc<dyn Connection>) {
        let mut routes = self.routes.lock();
        let route = routes.entry(peer).or_default();
        if !route.accepted.as_ref().is_some_and(|known| Arc::ptr_eq(known, connection)) {
            route.accepted = Some(Arc::clone(connection));
        }
    }

    pub(crate) fn forget_accepted(&self, peer: NodeId, connection: &Arc<dyn Connection>) {
        let mut routes = self.routes.lock();
        if let Some(route) = routes.get_mut(&peer)
            && route.accepted.as_ref().is_some_and(|known| Arc::ptr_eq(known, connection))
        {
            route.accepted = None;
        }
    }
}
