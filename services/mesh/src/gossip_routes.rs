//! Which connection a gossip datagram leaves by: upkeep's own to that peer, or else the one the peer last spoke on. Apart
//! from data connections, so that gossip never waits behind data.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use mesh_proto::NodeId;
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
}

impl GossipRoutes {
    /// Sends if there is a way; drops the datagram otherwise, as a network would.
    pub(crate) fn send(&self, to: NodeId, datagram: Bytes) {
        let connection = {
            let routes = self.routes.lock();
            routes.get(&to).and_then(|route| route.dialled.clone().or_else(|| route.accepted.clone()))
        };
        if let Some(connection) = connection {
            connection.send_datagram(datagram);
        }
    }

    pub(crate) fn set_dialled(&self, peer: NodeId, connection: Option<Arc<dyn Connection>>) {
        self.routes.lock().entry(peer).or_default().dialled = connection;
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
