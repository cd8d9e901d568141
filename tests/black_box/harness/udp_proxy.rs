//! A network cable that can be cut or made long: relays UDP to one node, and treats each sender by its IP address.
//!
//! A node advertises its proxy's address, so that all traffic *to* it comes through here; replies go back the same way.
//! Since each node dials from an address of its own, cutting one node off means: its own proxy drops everything, and the
//! other nodes' proxies drop what comes from it.

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

/// No QUIC packet is larger, and a read never cuts one off.
const PACKET_BYTES_MAX: usize = 65_535;

/// What happens to the packets between one sender and the node, in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// Nothing gets through.
    pub cut: bool,
    /// Each packet arrives this much later.
    pub delay: Duration,
}

#[derive(Debug, Default)]
struct Faults {
    everyone: Fault,
    by_sender: HashMap<IpAddr, Fault>,
    senders_seen: BTreeSet<IpAddr>,
}

/// One node's proxy. Stops when dropped.
#[derive(Debug)]
pub struct UdpProxy {
    // A plain lock: held for a look-up only, never across an await.
    faults: Arc<Mutex<Faults>>,
    relay: JoinHandle<()>,
}

impl UdpProxy {
    /// Listens at `listen` and relays to `target`.
    pub async fn start(listen: SocketAddr, target: SocketAddr) -> Self {
        let socket = Arc::new(UdpSocket::bind(listen).await.expect("the proxy's address is free"));
        let faults = Arc::new(Mutex::new(Faults::default()));
        let relay = tokio::spawn(relay(socket, target, Arc::clone(&faults)));
        Self { faults, relay }
    }

    /// From now on, for all senders that have no fault of their own.
    pub fn set(&self, fault: Fault) {
        self.faults.lock().unwrap().everyone = fault;
    }

    /// From now on, for this sender.
    pub fn set_for(&self, sender: IpAddr, fault: Fault) {
        self.faults.lock().unwrap().by_sender.insert(sender, fault);
    }

    /// Takes all faults back.
    pub fn heal(&self) {
        let mut faults = self.faults.lock().unwrap();
        faults.everyone = Fault::default();
        faults.by_sender.clear();
    }

    /// The clients that have sent something.
    pub fn senders_seen(&self) -> BTreeSet<IpAddr> {
        self.faults.lock().unwrap().senders_seen.clone()
    }
}

impl Drop for UdpProxy {
    fn drop(&mut self) {
        self.relay.abort();
    }
}

/// One sender's way to the node and back.
struct Flow {
    to_target: mpsc::UnboundedSender<(Instant, Vec<u8>)>,
    tasks: [JoinHandle<()>; 3],
}

impl Drop for Flow {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn relay(socket: Arc<UdpSocket>, target: SocketAddr, faults: Arc<Mutex<Faults>>) {
    let mut flows: HashMap<SocketAddr, Flow> = HashMap::new();
    let mut packet = vec![0; PACKET_BYTES_MAX];
    loop {
        // An ICMP error of an earlier send may surface here; the next packet is unharmed by it.
        let Ok((bytes, sender)) = socket.recv_from(&mut packet).await else { continue };
        faults.lock().unwrap().senders_seen.insert(sender.ip());
        let Some(due) = due(&faults, sender.ip()) else { continue };
        let flow = match flows.entry(sender) {
            Entry::Occupied(flow) => flow.into_mut(),
            Entry::Vacant(place) => {
                place.insert(open_flow(Arc::clone(&socket), sender, target, Arc::clone(&faults)).await)
            }
        };
        // The flow lives as long as the map; a failed send means the test is over.
        let _ = flow.to_target.send((due, packet[..bytes].to_vec()));
    }
}

/// When a packet is to be delivered; nothing if never.
fn due(faults: &Mutex<Faults>, sender: IpAddr) -> Option<Instant> {
    let faults = faults.lock().unwrap();
    let fault = faults.by_sender.get(&sender).copied().unwrap_or(faults.everyone);
    (!(fault.cut || faults.everyone.cut)).then(|| Instant::now() + fault.delay)
}

#[expect(clippy::disallowed_methods, reason = "the sender's congestion window bounds what is under way")]
async fn open_flow(
    outside: Arc<UdpSocket>,
    sender: SocketAddr,
    target: SocketAddr,
    faults: Arc<Mutex<Faults>>,
) -> Flow {
    let own_ip = outside.local_addr().expect("a bound socket has an address").ip();
    let inside = Arc::new(UdpSocket::bind((own_ip, 0)).await.expect("a port for the flow"));
    let (to_target, queue) = mpsc::unbounded_channel();
    let (to_sender, back_queue) = mpsc::unbounded_channel();
    let forward = tokio::spawn(deliver(queue, Arc::clone(&inside), target));
    let back = tokio::spawn(deliver(back_queue, outside, sender));
    let receive = tokio::spawn(async move {
        let mut packet = vec![0; PACKET_BYTES_MAX];
        loop {
            // As above: an ICMP error, such as after the node was killed, ends nothing.
            let Ok(bytes) = inside.recv(&mut packet).await else { continue };
            if let Some(due) = due(&faults, sender.ip()) {
                let _ = to_sender.send((due, packet[..bytes].to_vec()));
            }
        }
    });
    Flow { to_target, tasks: [forward, back, receive] }
}

async fn deliver(mut queue: mpsc::UnboundedReceiver<(Instant, Vec<u8>)>, socket: Arc<UdpSocket>, to: SocketAddr) {
    while let Some((due, packet)) = queue.recv().await {
        if due > Instant::now() {
            sleep_until(due).await;
        }
        // UDP promises nothing, and neither does the proxy.
        let _ = socket.send_to(&packet, to).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::Loopback;
    use tokio::time::timeout;

    struct Echo {
        proxy: UdpProxy,
        at: SocketAddr,
    }

    async fn echo() -> Echo {
        let (server, at) = (Loopback::fresh().free_port(), Loopback::fresh().free_port());
        let socket = UdpSocket::bind(server).await.unwrap();
        tokio::spawn(async move {
            let mut packet = [0; 64];
            while let Ok((bytes, sender)) = socket.recv_from(&mut packet).await {
                socket.send_to(&packet[..bytes], sender).await.unwrap();
            }
        });
        Echo { proxy: UdpProxy::start(at, server).await, at }
    }

    /// How long the echo took, or nothing if there was none for a while.
    async fn ask(client: &UdpSocket, at: SocketAddr, word: &[u8]) -> Option<Duration> {
        let start = Instant::now();
        client.send_to(word, at).await.unwrap();
        let mut packet = [0; 64];
        let (bytes, from) = timeout(Duration::from_millis(400), client.recv_from(&mut packet)).await.ok()?.unwrap();
        assert_eq!((&packet[..bytes], from), (word, at));
        Some(start.elapsed())
    }

    async fn client() -> UdpSocket {
        UdpSocket::bind((Loopback::fresh().ip(), 0)).await.unwrap()
    }

    #[tokio::test]
    async fn relays_both_ways_and_tells_senders_apart() {
        let echo = echo().await;
        let (one, two) = (client().await, client().await);
        assert!(ask(&one, echo.at, b"one").await.is_some());
        assert!(ask(&two, echo.at, b"two").await.is_some());
        let seen = [&one, &two].map(|socket| socket.local_addr().unwrap().ip());
        assert_eq!(echo.proxy.senders_seen(), BTreeSet::from(seen));
    }

    #[tokio::test]
    async fn cuts_one_sender_or_all_and_heals() {
        let echo = echo().await;
        let (one, two) = (client().await, client().await);
        echo.proxy.set_for(one.local_addr().unwrap().ip(), Fault { cut: true, ..Fault::default() });
        assert!(ask(&one, echo.at, b"cut").await.is_none());
        assert!(ask(&two, echo.at, b"through").await.is_some());
        echo.proxy.set(Fault { cut: true, ..Fault::default() });
        assert!(ask(&two, echo.at, b"cut").await.is_none());
        echo.proxy.heal();
        assert!(ask(&one, echo.at, b"healed").await.is_some());
        assert!(ask(&two, echo.at, b"healed").await.is_some());
    }

    #[tokio::test]
    async fn delays_each_direction() {
        let echo = echo().await;
        let client = client().await;
        echo.proxy.set(Fault { delay: Duration::from_millis(50), ..Fault::default() });
        let took = ask(&client, echo.at, b"late").await.expect("late, not lost");
        assert!(took >= Duration::from_millis(100), "{took:?}");
    }
}
