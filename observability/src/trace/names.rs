//! The names of the request path's spans but those of HTTP requests, which are called after method and route. Those of the program's own
//! `tracing` spans stand where they are made; docs/OBSERVABILITY.md lists all.

pub(super) const CLIENT_QUEUE: &str = "client.queue";
pub(super) const HTTP_QUEUE: &str = "http.queue";
pub(super) const MESH_GET: &str = "mesh.get";
pub(super) const MESH_SET: &str = "mesh.set";
pub(super) const MESH_DELETE: &str = "mesh.delete";
pub(super) const MESH_LEG: &str = "mesh.leg";
pub(super) const MESH_QUEUE: &str = "mesh.queue";
pub(super) const MESH_SERVE: &str = "mesh.serve";
