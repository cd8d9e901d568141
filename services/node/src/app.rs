//! What all requests of a node share.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::http::HeaderValue;
use mesh::{MemberView, Node, Readiness, Worker};
use observability::{MemoryUse, MeshView, NodeSample, PeerSample, Telemetry};

use crate::{
    admission::Admission,
    authorization::Authorization,
    body::BodyBudget,
    headers,
    last_minute::Minute,
    pause::Pause,
    process,
    settings::{HttpSettings, Settings},
    shutdown::Shutdown,
    tls::HttpTls,
    token::Token,
};

/// What an HTTP connection takes in this process, estimated: its task and its buffers; and TLS on top.
const CONNECTION_BYTES: u64 = 16 << 10;
const TLS_BYTES: u64 = 16 << 10;

/// Bounds of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The longest key, in bytes.
    pub(crate) key_bytes_max: usize,
    /// The largest value, in bytes.
    pub(crate) value_bytes_max: usize,
    /// Time for a request's body.
    pub(crate) request_timeout: Duration,
}

/// One node, as HTTP sees it.
pub struct App {
    pub(crate) node: Node,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) limits: Limits,
    pub(crate) bodies: Arc<BodyBudget>,
    pub(crate) kill_token: Option<Token>,
    pub(crate) authorization: Authorization,
    /// Nothing if clients speak plain HTTP.
    pub(crate) tls: Option<Arc<HttpTls>>,
    pub(crate) pause: Pause,
    pub(crate) shutdown: Shutdown,
    pub(crate) started: Instant,
    /// `X-Mesh-Node` of whatever this node answers itself.
    pub(crate) id_header: HeaderValue,
    pub(crate) in_flight: Gauge,
    pub(crate) connections: Gauge,
    /// Updated once a second, read by `/stats` and `/metrics`.
    minute: Mutex<Minute>,
    /// The gates of all threads.
    admissions: Mutex<Vec<Arc<Admission>>>,
    requests_max: usize,
    queue_delay_max: Duration,
}

impl App {
    /// Puts HTTP in front of `node`.
    #[must_use]
    pub fn new(node: Node, telemetry: Arc<Telemetry>, settings: &Settings, shutdown: Shutdown) -> Self {
        telemetry.align(node.epoch());
        let HttpSettings { request_timeout, request_bytes_max, requests_max, queue_delay_max, kill_token, .. } =
            &settings.http;
        Self {
            telemetry,
            limits: Limits {
                key_bytes_max: settings.mesh.key_bytes_max,
                value_bytes_max: settings.mesh.value_bytes_max,
                request_timeout: *request_timeout,
            },
            bodies: BodyBudget::new(*request_bytes_max),
            kill_token: kill_token.clone(),
            authorization: Authorization::new(&settings.http),
            tls: settings.http.tls.clone(),
            pause: Pause::default(),
            shutdown,
            started: Instant::now(),
            id_header: headers::text(&node.id().to_string()),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            minute: Mutex::new(Minute::new(Instant::now())),
            admissions: Mutex::default(),
            requests_max: *requests_max,
            queue_delay_max: *queue_delay_max,
            node,
        }
    }

    /// From now on a certificate that changes is read again, on this thread.
    pub fn reload_tls(&self) {
        self.tls.iter().for_each(|tls| drop(tokio::spawn(Arc::clone(tls).reload_for_ever())));
    }

    /// What the metrics sample. How the node sees its mesh is not cheap: it asks every connection.
    #[must_use]
    pub fn sample(&self) -> NodeSample {
        NodeSample { view: self.view(), ..self.figures() }
    }

    /// What `/stats` shows: the sample without a view of the mesh.
    pub(crate) fn figures(&self) -> NodeSample {
        let stats = self.node.stats();
        NodeSample {
            last_minute: self.last_minute().until(Instant::now(), &stats.store),
            stats,
            hints_by_peer: self.node.hints(),
            in_flight: self.in_flight.get() as u64,
            connections: self.connections.get() as u64,
            queue_delay: self.queue_delay(),
            cpu: observability::process::cpu(),
            memory: self.memory(),
            uptime: self.started.elapsed(),
            certificate_expires_unix_s: self.tls.as_ref().map(|tls| tls.expires_unix_s()),
            view: MeshView::default(),
        }
    }

    /// To be called once a second with what was sampled.
    pub(crate) fn look(&self, sample: &NodeSample) {
        self.last_minute().look(Instant::now(), &sample.stats.store);
    }

    fn last_minute(&self) -> MutexGuard<'_, Minute> {
        self.minute.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn memory(&self) -> MemoryUse {
        let (resident, code) = observability::process::resident_bytes();
        let (flight_records, spans) = self.telemetry.memory();
        let connection_bytes = CONNECTION_BYTES + if self.tls.is_some() { TLS_BYTES } else { 0 };
        MemoryUse {
            resident,
            code,
            allocator: process::allocator_use(),
            request_bodies: self.bodies.taken() as u64,
            connections: self.connections.get() as u64 * connection_bytes,
            flight_records,
            spans,
        }
    }

    /// How late the latest thread is.
    pub(crate) fn queue_delay(&self) -> Duration {
        let admissions = self.admissions.lock().unwrap_or_else(PoisonError::into_inner);
        admissions.iter().map(|admission| admission.queue_delay()).max().unwrap_or_default()
    }

    fn view(&self) -> MeshView {
        let view = self.node.view();
        let own = view.members.iter().find(|member| member.id == view.id);
        let in_state = |state: &str| view.members.iter().filter(|member| member.state == state).count() as u64;
        let peer = |member: &MemberView| PeerSample {
            id: member.id.clone(),
            addr: member.addr.clone(),
            in_flight: member.in_flight as u64,
            rtt: member.rtt_us.map(Duration::from_micros),
            cwnd_bytes: member.path.map_or(0, |path| path.cwnd_bytes),
            sent_packets: member.path.map_or(0, |path| path.sent_packets),
            lost_packets: member.path.map_or(0, |path| path.lost_packets),
            congestion_events: member.path.map_or(0, |path| path.congestion_events),
        };
        MeshView {
            ring_hash: u64::from_str_radix(&view.ring, 16).unwrap_or_default(),
            ring_weight: own.map_or(0, |own| own.weight.into()),
            slots_owned: view.sync.slots_owned as u64,
            slots_in_sync: view.sync.slots_in_sync as u64,
            ready: self.node.readiness() == Readiness::Ready,
            members_joining: in_state("joining"),
            members_unreachable: view.members.iter().filter(|member| member.unreachable.is_some()).count() as u64,
            members_leaving: in_state("leaving"),
            unix_ms: view.unix_ms,
            peers: view.members.iter().filter(|member| member.id != view.id).map(peer).collect(),
        }
    }
}

/// What the requests of one thread share.
pub(crate) struct HttpWorker {
    pub(crate) app: Arc<App>,
    pub(crate) mesh: Worker,
    pub(crate) admission: Arc<Admission>,
}

impl HttpWorker {
    pub(crate) fn new(app: &Arc<App>, mesh: Worker) -> Self {
        let admission = Arc::new(Admission::new(app.requests_max, app.queue_delay_max));
        app.admissions.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&admission));
        Self { app: Arc::clone(app), mesh, admission }
    }
}

/// How many of something there are now.
#[derive(Default)]
pub(crate) struct Gauge(AtomicUsize);

impl Gauge {
    /// One more until the guard is dropped.
    pub(crate) fn enter(&self) -> GaugeGuard<'_> {
        // Relaxed here and below: a count that orders nothing.
        GaugeGuard { others: self.0.fetch_add(1, Ordering::Relaxed), gauge: self }
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// See [`Gauge::enter`].
pub(crate) struct GaugeGuard<'a> {
    gauge: &'a Gauge,
    others: usize,
}

impl GaugeGuard<'_> {
    /// How many there were before this one.
    pub(crate) const fn others(&self) -> usize {
        self.others
    }
}

impl Drop for GaugeGuard<'_> {
    fn drop(&mut self) {
        self.gauge.0.fetch_sub(1, Ordering::Relaxed);
    }
}
