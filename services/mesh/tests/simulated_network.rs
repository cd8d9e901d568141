//! What only the simulated network can do: faults of single links, and the same course of events from the same seed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use mesh::transport::{Accepted, Connection, Endpoint, LinkFault, ReceiveHalf, SendHalf};
use mesh_proto::NodeId;
use mesh_sim::SimulatedNetwork;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout},
};

struct TestNode {
    id: NodeId,
    addr: String,
    endpoint: Arc<dyn Endpoint>,
}

impl TestNode {
    async fn accept(&self) -> Arc<dyn Connection> {
        match self.endpoint.accept().await.expect("the endpoint is open") {
            Accepted::Connection(connection) => connection,
            Accepted::Refused { addr, reason } => panic!("{addr} was refused: {reason}"),
        }
    }
}

fn node(network: &SimulatedNetwork, name: &str) -> TestNode {
    let (id, addr) = (NodeId::from_name(name), format!("{name}:5011"));
    let endpoint = network.transport(id, &addr).open(true).unwrap();
    TestNode { id, addr, endpoint }
}

async fn connect(from: &TestNode, to: &TestNode) -> (Arc<dyn Connection>, Arc<dyn Connection>) {
    let (dialled, accepted) = tokio::join!(from.endpoint.dial(&to.addr, Some(to.id)), to.accept());
    (dialled.unwrap(), accepted)
}

/// A stream that carried its first byte, as its opener and its accepter see it.
async fn stream(
    opener: &Arc<dyn Connection>,
    accepter: &Arc<dyn Connection>,
) -> ((SendHalf, ReceiveHalf), (SendHalf, ReceiveHalf)) {
    let mut near = opener.open_stream().await.unwrap();
    near.0.write_all(b"h").await.unwrap();
    let mut far = accepter.accept_stream().await.unwrap();
    assert_eq!(far.1.read_u8().await.unwrap(), b'h');
    (near, far)
}

#[tokio::test(start_paused = true)]
async fn a_cut_holds_streams_back_and_loses_datagrams() {
    let network = SimulatedNetwork::new(1);
    let (a, b) = (node(&network, "a"), node(&network, "b"));
    let (near, far) = connect(&a, &b).await;
    let ((mut send, _), (_, mut receive)) = stream(&near, &far).await;
    network.set_fault(a.id, b.id, LinkFault { cut: true, ..LinkFault::default() });
    send.write_all(b"held").await.unwrap();
    near.send_datagram(Bytes::from_static(b"lost"));
    let mut buf = [0; 4];
    assert!(timeout(Duration::from_millis(1500), receive.read_exact(&mut buf)).await.is_err());
    network.heal();
    timeout(Duration::from_millis(1), receive.read_exact(&mut buf)).await.unwrap().unwrap();
    assert_eq!(&buf, b"held");
    assert!(timeout(Duration::from_secs(5), far.receive_datagram()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_into_a_cut_is_lost_with_its_sender() {
    let network = SimulatedNetwork::new(1);
    let (a, b) = (node(&network, "a"), node(&network, "b"));
    let (near, far) = connect(&a, &b).await;
    let ((mut send, _receive), (_send, mut receive)) = stream(&near, &far).await;
    network.set_fault(a.id, b.id, LinkFault { cut: true, ..LinkFault::default() });
    send.write_all(b"lost").await.unwrap();
    near.close("given up");
    network.heal();
    let mut buf = [0; 4];
    assert!(receive.read_exact(&mut buf).await.is_err(), "{buf:?}");
}

#[tokio::test(start_paused = true)]
async fn a_partition_breaks_what_crosses_it_at_both_ends() {
    let network = SimulatedNetwork::new(1);
    let (a, b, c) = (node(&network, "a"), node(&network, "b"), node(&network, "c"));
    let (ab, ba) = connect(&a, &b).await;
    let (bc, cb) = connect(&b, &c).await;
    network.partition(&[&[a.id], &[b.id, c.id]]);
    let begun = Instant::now();
    tokio::join!(ab.closed(), ba.closed());
    assert_eq!(begun.elapsed().as_secs(), 30, "a worker has dialled it");
    stream(&bc, &cb).await;
    assert!(a.endpoint.dial(&c.addr, None).await.is_err());
    assert!(c.endpoint.dial(&a.addr, None).await.is_err());
    // A dial that is under way when the partition heals gets through, as a retransmission would.
    let (dialled, _, ()) = tokio::join!(a.endpoint.dial(&b.addr, None), b.accept(), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        network.heal();
    });
    assert!(dialled.is_ok());
}

#[tokio::test(start_paused = true)]
async fn delays_losses_and_copies_follow_from_the_seed() {
    const FAULT: LinkFault = LinkFault {
        delay: Duration::from_millis(10),
        jitter: Duration::from_millis(20),
        loss: 0.2,
        duplicate: 0.2,
        cut: false,
    };
    let run = async |seed| {
        let network = SimulatedNetwork::new(seed);
        let (a, b) = (node(&network, "a"), node(&network, "b"));
        let (near, far) = connect(&a, &b).await;
        network.set_fault(a.id, b.id, FAULT);
        let begun = Instant::now();
        for number in 0..100 {
            near.send_datagram(Bytes::from(vec![number]));
        }
        let mut arrived = Vec::new();
        while let Ok(datagram) = timeout(Duration::from_secs(1), far.receive_datagram()).await {
            arrived.push((datagram.unwrap()[0], begun.elapsed()));
        }
        arrived
    };
    let arrived = run(7).await;
    assert_eq!(arrived, run(7).await);
    assert_ne!(arrived, run(8).await);
    let distinct: BTreeSet<u8> = arrived.iter().map(|&(number, _)| number).collect();
    assert!((60..=95).contains(&distinct.len()), "about a fifth is lost: {}", distinct.len());
    assert!(arrived.len() > distinct.len() + 5, "about a fifth comes twice");
    assert!(!arrived.is_sorted_by_key(|&(number, _)| number), "some overtake others");
    assert!(arrived.iter().all(|&(_, after)| after >= FAULT.delay && after <= Duration::from_millis(32)));
}

#[tokio::test(start_paused = true)]
async fn streams_keep_their_order_over_a_bad_link() {
    let network = SimulatedNetwork::new(3);
    let (a, b) = (node(&network, "a"), node(&network, "b"));
    let (near, far) = connect(&a, &b).await;
    let jitter = Duration::from_millis(50);
    network.set_fault(a.id, b.id, LinkFault { jitter, loss: 0.3, ..LinkFault::default() });
    let ((mut send, _), (_, mut receive)) = stream(&near, &far).await;
    for number in 0..200 {
        send.write_all(&[number]).await.unwrap();
    }
    send.shutdown().await.unwrap();
    let mut received = Vec::new();
    receive.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, (0..200).collect::<Vec<u8>>());
}

#[tokio::test(start_paused = true)]
async fn a_simulated_address_belongs_to_one_transport_at_a_time() {
    let network = SimulatedNetwork::new(1);
    let a = node(&network, "a");
    let second = network.transport(a.id, &a.addr);
    assert!(second.open(true).is_err());
    a.endpoint.close(false);
    assert!(second.open(true).is_ok());
}

/// Tasks that outlive their connections would keep a long simulation busy for ever.
#[tokio::test(start_paused = true)]
async fn helper_tasks_end_with_their_connection() {
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let network = SimulatedNetwork::new(1);
    let (a, b) = (node(&network, "a"), node(&network, "b"));
    for _ in 0..10 {
        let (near, far) = connect(&a, &b).await;
        let streams = stream(&near, &far).await;
        drop((near, far, streams));
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), before);
}
