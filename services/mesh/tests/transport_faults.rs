//! Faults by rule: both transports break, and heal, in the same way.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod networks;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use mesh::transport::Connection;
use mesh_proto::{Direction, FaultPeer, FaultRule, LinkFault};
use networks::{Harness, SILENCE_MAX, TestNode, connect, expect_silence_to_be_noticed, stream};
use tokio::time::{Instant, timeout};

networks::conformance! {
    a_cut_peer_is_silent_until_it_heals
    a_fault_ends_by_itself
    a_cut_of_one_way_only_is_one
    others_hear_nothing_of_a_fault
    a_delay_is_a_delay
    some_datagrams_are_lost_and_some_arrive_twice
    a_stranger_is_cut_off_with_everybody
}

const LONG: Duration = Duration::from_secs(60);

fn rule(at: &TestNode, peer: FaultPeer, direction: Direction, fault: LinkFault, time: Duration) -> FaultRule {
    let from = at.transport.faults().now();
    FaultRule { peer, direction, fault, from, until: from + time, flap: None }
}

fn lay(at: &TestNode, peer: FaultPeer, direction: Direction, fault: LinkFault, time: Duration) {
    at.transport.faults().add(&[rule(at, peer, direction, fault, time)]).unwrap();
}

async fn can_connect(from: &TestNode, to: &TestNode) -> bool {
    let (dialled, _) = tokio::join!(from.endpoint.dial(&to.addr, Some(to.id)), async {
        let _ = timeout(Duration::from_millis(2500), to.endpoint.accept()).await;
    });
    dialled.is_ok()
}

async fn a_cut_peer_is_silent_until_it_heals(harness: &impl Harness) {
    let (a, b) = (harness.node("a"), harness.node("b"));
    let (near, far) = connect(&a, &b).await;
    let ((_send, receive), _at_b) = stream(&near, &far).await;
    lay(&a, FaultPeer::Node(b.id), Direction::Both, LinkFault::CUT, LONG);
    expect_silence_to_be_noticed(&near, receive).await;
    timeout(SILENCE_MAX, far.closed()).await.expect("the other side gives up, too");
    // The peer dials from a port of its own, which the fault must know as well.
    assert!(!can_connect(&a, &b).await, "outwards");
    assert!(!can_connect(&b, &a).await, "inwards");
    assert_eq!(a.transport.faults().rules().len(), 1);
    a.transport.faults().heal();
    assert!(a.transport.faults().rules().is_empty());
    connect(&a, &b).await;
    connect(&b, &a).await;
}

async fn a_fault_ends_by_itself(harness: &impl Harness) {
    let (a, b) = (harness.node("a"), harness.node("b"));
    let (near, far) = connect(&a, &b).await;
    lay(&a, FaultPeer::Node(b.id), Direction::Both, LinkFault::CUT, Duration::from_secs(1));
    near.send_datagram(Bytes::from_static(b"lost"));
    assert!(timeout(Duration::from_millis(200), far.receive_datagram()).await.is_err());
    // Less than the idle timeout, so that the connection lives on.
    let (_, _) = stream(&near, &far).await;
    assert!(a.transport.faults().rules().is_empty());
}

async fn a_cut_of_one_way_only_is_one(harness: &impl Harness) {
    let (a, b) = (harness.node("a"), harness.node("b"));
    let (near, far) = connect(&a, &b).await;
    lay(&a, FaultPeer::Node(b.id), Direction::Out, LinkFault::CUT, LONG);
    far.send_datagram(Bytes::from_static(b"heard"));
    near.send_datagram(Bytes::from_static(b"lost"));
    assert_eq!(near.receive_datagram().await.unwrap(), "heard");
    assert!(timeout(Duration::from_millis(300), far.receive_datagram()).await.is_err());
    timeout(SILENCE_MAX, far.closed()).await.expect("it hears nothing");
    timeout(SILENCE_MAX, near.closed()).await.expect("it hears nothing since the other side gave up");
}

async fn others_hear_nothing_of_a_fault(harness: &impl Harness) {
    let (a, b, c) = (harness.node("a"), harness.node("b"), harness.node("c"));
    let (to_b, _at_b) = connect(&a, &b).await;
    let (to_c, at_c) = connect(&a, &c).await;
    lay(&a, FaultPeer::Node(b.id), Direction::Both, LinkFault::CUT, LONG);
    timeout(SILENCE_MAX, to_b.closed()).await.expect("b is cut off");
    stream(&to_c, &at_c).await;
    connect(&c, &a).await;
}

async fn a_delay_is_a_delay(harness: &impl Harness) {
    const DELAY: Duration = Duration::from_millis(300);
    let (a, b) = (harness.node("a"), harness.node("b"));
    let (near, far) = connect(&a, &b).await;
    let took = async |sender: &Arc<dyn Connection>, receiver: &Arc<dyn Connection>| {
        let begun = Instant::now();
        sender.send_datagram(Bytes::from_static(b"x"));
        timeout(Duration::from_secs(5), receiver.receive_datagram()).await.expect("it arrives").unwrap();
        begun.elapsed()
    };
    // The best of some: a busy machine delays, too, but not every time.
    let best = async |sender: &Arc<dyn Connection>, receiver: &Arc<dyn Connection>| {
        let mut best = Duration::MAX;
        for _ in 0..4 {
            best = best.min(took(sender, receiver).await);
        }
        best
    };
    let slow = LinkFault { delay: DELAY, ..LinkFault::default() };
    for direction in [Direction::Out, Direction::In] {
        lay(&a, FaultPeer::Node(b.id), direction, slow, LONG);
        let (out, into) = (best(&near, &far).await, best(&far, &near).await);
        assert_eq!((out >= DELAY, into >= DELAY), (direction == Direction::Out, direction == Direction::In));
        a.transport.faults().heal();
    }
    assert!(a.transport.faults().counts().delayed > 0);
}

async fn some_datagrams_are_lost_and_some_arrive_twice(harness: &impl Harness) {
    const SENT: usize = 300;
    let (a, b) = (harness.node("a"), harness.node("b"));
    let (near, far) = connect(&a, &b).await;
    let count = async |fault| {
        lay(&a, FaultPeer::Node(b.id), Direction::Out, fault, LONG);
        let before = a.transport.faults().counts();
        for _ in 0..SENT {
            near.send_datagram(Bytes::from_static(b"x"));
            // One packet for each: many would share one.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        a.transport.faults().heal();
        let mut arrived = 0;
        while timeout(Duration::from_millis(300), far.receive_datagram()).await.is_ok() {
            arrived += 1;
        }
        let after = a.transport.faults().counts();
        (arrived, after.dropped - before.dropped, after.duplicated - before.duplicated)
    };
    let (arrived, dropped, _) = count(LinkFault { loss: 0.5, ..LinkFault::default() }).await;
    assert!((1..SENT).contains(&arrived) && dropped >= 5, "{arrived} of {SENT} arrived, {dropped} were dropped");
    let (arrived, _, twice) = count(LinkFault { duplicate: 0.5, ..LinkFault::default() }).await;
    // The shares themselves are tested where the dice are. QUIC throws the second copy away; the simulated network hands it over.
    assert!(arrived >= SENT - 20 && twice >= 5, "{arrived} of {SENT} arrived, {twice} packets were doubled");
}

async fn a_stranger_is_cut_off_with_everybody(harness: &impl Harness) {
    let (a, b) = (harness.node("a"), harness.node("b"));
    lay(&a, FaultPeer::Everybody, Direction::Both, LinkFault::CUT, LONG);
    assert!(!can_connect(&b, &a).await, "nobody knew b's port");
    assert!(!can_connect(&a, &b).await);
    a.transport.faults().heal();
    connect(&b, &a).await;
}
