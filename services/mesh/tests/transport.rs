//! What every transport has to do. QUIC runs it over loopback in real time, the simulated network under paused time.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use mesh::transport::{Accepted, ClusterSecret, Credentials, DialError, QuicConfig, QuicTransport, Transport};
use mesh_proto::NodeId;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout},
};

mod networks;

use networks::{Harness, Quic, SILENCE_MAX, TestNode, connect, expect_silence_to_be_noticed, stream};

networks::conformance! {
    each_side_learns_who_the_other_is
    another_node_than_expected_is_refused
    bytes_go_both_ways_on_many_streams
    parts_sent_apart_arrive_as_one_and_end
    what_is_sent_apart_ends_with_its_reader
    a_sound_network_loses_nothing_of_a_large_transfer
    a_slow_reader_holds_the_writer_back
    the_end_of_a_stream_is_seen
    datagrams_arrive
    a_close_is_seen_at_once
    a_crash_is_seen_after_the_idle_timeout
    dropping_an_endpoint_is_a_crash
    silence_breaks_connections_and_ends
    a_workers_connection_outlives_a_silence
    a_restarted_node_is_reached_at_its_old_address
    nobody_answers
    a_closed_endpoint_accepts_and_dials_no_more
    an_endpoint_that_only_dials_accepts_nobody
    the_path_has_figures
}

async fn each_side_learns_who_the_other_is(harness: &impl Harness) {
    let (a, b) = (harness.node("a"), harness.node("b"));
    let (near, far) = connect(&a, &b).await;
    assert_eq!((near.peer(), far.peer()), (b.id, a.id));
    assert_eq!(near.remote_addr(), b.addr);
    // A seed is known by its address only.
    let (near, far) = tokio::join!(b.endpoint.dial(&a.addr, None), a.accept());
    assert_eq!((near.unwrap().peer(), far.peer()), (a.id, b.id));
}

async fn another_node_than_expected_is_refused(harness: &impl Harness) {
    let (a, b) = (harness.node("a"), harness.node("b"));
    let expected = NodeId::from_name("c");
    let (dialled, accepted) = tokio::join!(a.endpoint.dial(&b.addr, Some(expected)), b.endpoint.accept());
    assert!(matches!(dialled.err(), Some(DialError::Untrusted { addr, .. }) if addr == b.addr));
    assert!(matches!(accepted, Some(Accepted::Refused { reason, .. }) if reason.contains("does not trust")));
    connect(&a, &b).await;
}

async fn bytes_go_both_ways_on_many_streams(harness: &impl Harness) {
    let (a, b) = (harness.node("a"), harness.node("b"));
    let (near, far) = connect(&a, &b).await;
    let echo = tokio::spawn(async move {
        while let Ok((mut send, mut receive)) = far.accept_stream().await {
            tokio::spawn(async move {
                tokio::io::copy(&mut receive, &mut send).await.unwrap();
                send.shutdown().await.unwrap();
            });
        }
    });
    // More than may be open at a time: they make room for each other.
    let streams: Vec<_> = (0..200_u8)
        .map(|number| {
            let near = Arc::clone(&near);
            tokio::spawn(async move {
                let (mut send, mut receive) = near.open_stream().await.unwrap();
                let sent = vec![number; 10_000 + usize::from(number)];
                send.write_all(&sent).await.unwrap();
                send.shutdown().await.unwrap();
                let mut received = Vec::new();
                receive.read_to_end(&mut received).await.unwrap();
                assert!(received == sent, "stream {number} came back changed");
            })
        })
        .collect();
    for stream in streams {
        stream.await.unwrap();
    }
    near.close("done");
    echo.await.unwrap();
}

async fn parts_sent_apart_arrive_as_one_and_end(harness: &impl Harness) {
    let (a, b) = (harness.node("a"), harness.node("b"));
    let (near, far) = connect(&a, &b).await;
    let parts = [Bytes::from_static(b"head"), Bytes::from((0..=250).collect::<Vec<u8>>().repeat(8000))];
    let expected = parts.concat();
    let echo = async {
        let (mut send, mut receive) = far.accept_stream().await.unwrap();
        let mut received = Vec::new();
        receive.read_to_end(&mut received).await.unwrap();
        send.write_all(b"got it").await.unwrap();
        send.shutdown().await.unwrap();
        received
    };
    let send = async {
        let mut reply = Vec::new();
        near.send_apart(parts).await.unwrap().read_to_end(&mut reply).await.unwrap();
        reply
    };
    let (received, reply) = tokio::join!(echo, send);
    assert!(received == expected, "{} bytes came of {}", received.len(), expected.len());
    assert_eq!(reply, b"got it");
}

async fn what_is_sent_apart_ends_with_its_reader(harness: &impl Harness) {
    let (a, b) = (harness.node("a"), harness.node("b"));
    let (near, far) = connect(&a, &b).await;
    // More than any window.
    let parts = [Bytes::from_static(b"head"), Bytes::from(vec![7; 48 << 20])];
    let sending = tokio::spawn(async move { near.send_apart(parts).await.map(drop) });
    let (send, mut receive) = far.accept_stream().await.unwrap();
    receive.read_exact(&mut [0; 4]).await.unwrap();
    drop((send, receive));
    assert!(sending.await.unwrap().is_err(), "nobody read it");
}

async fn a_sound_network_loses_nothing_of_a_large_transfer(harness: &impl Harness) {
    let (a, b) = (harness.node("a"), harness.node("b"));
    let (near, far) = connect(&a, &b).await;
    let reader = tokio::spawn(async move {
        let mut bytes = 0;
        while let Ok((_send, mut receive)) = far.accept_stream().await {
            bytes += tokio::io::copy(&mut receive, &mut tokio::io::sink()).await.unwrap();
        }
        bytes
    });
    // By and by, QUIC finds out how large packets may be: bursts of large ones are what the kernel does not always take.
    for _ in 0..100 {
        drop(near.send_apart([Bytes::from_static(b"x"), Bytes::new()]).await.unwrap());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    for _ in 0..8 {
        let mut replies = near.send_apart([Bytes::new(), Bytes::from(vec![7; 2 << 20])]).await.unwrap();
        replies.read_to_end(&mut Vec::new()).await.unwrap();
    }
    let path = near.path();
    near.close("done");
    assert_eq!(reader.await.unwrap(), 100 + (16 << 20));
    assert!(path.lost_packets <= path.sent_packets / 1000, "{path:?}");
}

async fn a_slow_reader_holds_the_writer_back(harness: &impl Harness) {
    const AHEAD_MAX: usize = 40 << 20;
    const MORE: usize = 8 << 20;
    // Made before there is a connection: a test that keeps the runtime busy for long falls silent itself.
    let pattern: Vec<u8> = (0..=250).collect();
    let bytes = pattern.repeat((AHEAD_MAX + MORE) / pattern.len() + 1);
    let (a, b) = (harness.node("a"), harness.node("b"));
    let (near, far) = connect(&a, &b).await;
    let ((mut send, _), (_, mut receive)) = stream(&near, &far).await;

    let mut sent = 0;
    while let Ok(taken) = timeout(Duration::from_millis(500), send.write(&bytes[sent..sent + 60_000])).await {
        sent += taken.unwrap();
        assert!(sent < AHEAD_MAX, "{sent} bytes were taken that nobody reads");
    }
    assert!(sent >= 1 << 20, "only {sent} bytes fit");

    let writer = tokio::spawn({
        let rest = bytes[sent..sent + MORE].to_vec();
        async move {
            send.write_all(&rest).await.unwrap();
            send.shutdown().await.unwrap();
            send
        }
    });
    let mut received = Vec::new();
    receive.read_to_end(&mut received).await.unwrap();
    writer.await.unwrap();
    assert_eq!(received.len(), sent + MORE);
    assert!(received == bytes[..sent + MORE], "bytes were changed or swapped");
}

async fn the_end_of_a_stream_is_seen(harness: &impl Harness) {
    let (a, b) = (harness.node("a"), harness.node("b"));
    let (near, far) = connect(&a, &b).await;
    let ((send, receive), (mut far_send, mut far_receive)) = stream(&near, &far).await;
    drop(send);
    assert_eq!(far_receive.read(&mut [0; 8]).await.unwrap(), 0, "a dropped half ends in order");
    drop(receive);
    let deadline = Instant::now() + SILENCE_MAX;
    while far_send.write_all(b"x").await.is_ok() {
        assert!(Instant::now() < deadline, "nobody reads, and the writer is not told");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn datagrams_arrive(harness: &impl Harness) {
    let (a, b) = (harness.node("a"), harness.node("b"));
    let (near, far) = connect(&a, &b).await;
    let mut missing: BTreeSet<u8> = (0..20).collect();
    while !missing.is_empty() {
        // They may be lost, so what did not arrive is sent again.
        for &number in &missing {
            far.send_datagram(Bytes::from(vec![number; 1000]));
        }
        while let Ok(datagram) = timeout(Duration::from_millis(200), near.receive_datagram()).await {
            let datagram = datagram.unwrap();
            assert_eq!(datagram, vec![datagram[0]; 1000]);
            missing.remove(&datagram[0]);
        }
    }
}

async fn a_close_is_seen_at_once(harness: &impl Harness) {
    let (a, b) = (harness.node("a"), harness.node("b"));
    let (near, far) = connect(&a, &b).await;
    near.close("enough of it");
    let begun = Instant::now();
    let lost = far.closed().await;
    assert!(lost.reason.contains("enough of it"), "{lost}");
    assert!(begun.elapsed() < Duration::from_secs(1));

    let (near, _far) = connect(&a, &b).await;
    b.endpoint.close(true);
    b.endpoint.drained().await;
    let begun = Instant::now();
    assert!(near.closed().await.reason.contains("closed by the peer"));
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert!(near.open_stream().await.is_err());
}

async fn a_crash_is_seen_after_the_idle_timeout(harness: &impl Harness) {
    let (a, b) = (harness.node("a"), harness.node("b"));
    let (near, far) = connect(&a, &b).await;
    let ((_send, receive), mut at_b) = stream(&near, &far).await;
    b.endpoint.close(false);
    assert!(timeout(Duration::from_millis(500), at_b.1.read(&mut [0; 8])).await.unwrap().is_err());
    expect_silence_to_be_noticed(&near, receive).await;
}

async fn dropping_an_endpoint_is_a_crash(harness: &impl Harness) {
    let (a, b) = (harness.node("a"), harness.node("b"));
    let (near, far) = connect(&a, &b).await;
    let ((_send, receive), _at_b) = stream(&near, &far).await;
    drop(b);
    expect_silence_to_be_noticed(&near, receive).await;
}

async fn silence_breaks_connections_and_ends(harness: &impl Harness) {
    let (a, b) = (harness.node("a"), harness.node("b"));
    let (near, far) = connect(&a, &b).await;
    let ((_send, receive), _at_b) = stream(&near, &far).await;
    b.transport.set_silent(true);
    expect_silence_to_be_noticed(&near, receive).await;
    timeout(SILENCE_MAX, far.closed()).await.expect("the silent side gives up, too");
    assert!(matches!(a.endpoint.dial(&b.addr, None).await.err(), Some(DialError::Unreachable { .. })));
    b.transport.set_silent(false);
    connect(&a, &b).await;
}

/// Upkeep finds out who is silent: a worker's connection needs no packets for that.
async fn a_workers_connection_outlives_a_silence(harness: &impl Harness) {
    let (a, b) = (harness.node("a"), harness.node("b"));
    let (near, far) = tokio::join!(a.endpoint.dial(&b.addr, Some(b.id)), b.accept());
    let near = near.unwrap();
    let _streams = stream(&near, &far).await;
    b.transport.set_silent(true);
    let lost = async {
        tokio::select! {
            lost = near.closed() => lost,
            lost = far.closed() => lost,
        }
    };
    assert!(timeout(SILENCE_MAX, lost).await.is_err());
    b.transport.set_silent(false);
    stream(&near, &far).await;
}

async fn a_restarted_node_is_reached_at_its_old_address(harness: &impl Harness) {
    let (a, b) = (harness.node("a"), harness.node("b"));
    let (near, _far) = connect(&a, &b).await;
    b.endpoint.close(false);
    let b = harness.node_at("b", Some(&b.addr));
    let (again, far) = connect(&a, &b).await;
    assert_eq!(far.peer(), a.id);
    timeout(SILENCE_MAX, near.closed()).await.expect("the old connection breaks");
    stream(&again, &far).await;
}

async fn nobody_answers(harness: &impl Harness) {
    let (a, b) = (harness.node("a"), harness.node("b"));
    b.endpoint.close(true);
    b.endpoint.drained().await;
    let begun = Instant::now();
    let error = a.endpoint.dial(&b.addr, None).await.err().unwrap();
    assert!(matches!(&error, DialError::Unreachable { addr, .. } if *addr == b.addr), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(3));
}

async fn a_closed_endpoint_accepts_and_dials_no_more(harness: &impl Harness) {
    let (a, b) = (harness.node("a"), harness.node("b"));
    let (accepted, ()) = tokio::join!(a.endpoint.accept(), async {
        tokio::task::yield_now().await;
        a.endpoint.close(true);
    });
    assert!(accepted.is_none(), "one who waits is told");
    assert!(a.endpoint.accept().await.is_none());
    assert!(a.endpoint.dial(&b.addr, None).await.is_err());
}

async fn an_endpoint_that_only_dials_accepts_nobody(harness: &impl Harness) {
    let (a, b) = (harness.node("a"), harness.node("b"));
    let upkeep = a.transport.open(false).unwrap();
    let (near, far) = tokio::join!(upkeep.dial(&b.addr, None), b.accept());
    assert_eq!((near.unwrap().peer(), far.peer()), (b.id, a.id));
    let (accepted, ()) = tokio::join!(upkeep.accept(), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        upkeep.close(true);
    });
    assert!(accepted.is_none());
}

async fn the_path_has_figures(harness: &impl Harness) {
    let (a, b) = (harness.node("a"), harness.node("b"));
    let (near, far) = connect(&a, &b).await;
    near.send_datagram(Bytes::from_static(b"x"));
    stream(&near, &far).await;
    let path = near.path();
    assert!(path.sent_packets > 0);
    assert!(path.rtt < Duration::from_secs(1));
}

/// A killed process that is back at once finds peers that still talk to its predecessor. They are told.
#[tokio::test]
async fn a_restarted_quic_node_resets_the_connections_of_its_predecessor() {
    let (a, b) = (Quic.node("a"), Quic.node("b"));
    let (near, far) = connect(&a, &b).await;
    let ((mut send, _), _at_b) = stream(&near, &far).await;
    b.endpoint.close(false);
    let _b = Quic.node_at("b", Some(&b.addr));
    let begun = Instant::now();
    // Larger than a reset, which must not be the larger one of the two.
    send.write_all(&[0; 200]).await.unwrap();
    let lost = near.closed().await;
    assert!(lost.reason.contains("restarted"), "{lost}");
    assert!(begun.elapsed() < Duration::from_millis(1000), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn quic_listeners_share_a_port_and_each_is_reached() {
    const LISTENERS: usize = 3;
    let bind = "127.0.0.1:0".parse().unwrap();
    let credentials = Credentials::Secret(ClusterSecret::new("conformance"));
    let config = QuicConfig { listeners: LISTENERS, ..QuicConfig::new(NodeId::from_name("b"), bind, credentials) };
    let transport = QuicTransport::new(config).unwrap();
    let addr = transport.local_addr().to_string();
    let endpoints: Vec<_> = (0..LISTENERS).map(|_| transport.open(true).unwrap()).collect();
    assert!(transport.open(true).is_err(), "there are only as many as were announced");

    // The kernel picks a listener by the dialler's port, so enough diallers meet every one.
    let a = Quic.node("a");
    let (mut reached, mut diallers) = (BTreeSet::new(), Vec::new());
    for _ in 0..100 {
        let dialler = a.transport.open(false).unwrap();
        let near = dialler.dial(&addr, None).await.unwrap();
        for (index, endpoint) in endpoints.iter().enumerate() {
            if let Ok(Some(Accepted::Connection(far))) = timeout(Duration::from_millis(20), endpoint.accept()).await {
                stream(&near, &far).await;
                reached.insert(index);
            }
        }
        diallers.push((dialler, near));
        if reached.len() == LISTENERS {
            return;
        }
    }
    panic!("only {reached:?} of {LISTENERS} listeners were reached");
}

/// Packets wait in the sockets of a thread that does not look at them; both ends of a connection tell for how long.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn quic_tells_how_long_packets_waited() {
    let (a, b) = (Quic.node("a"), Quic.node("b"));
    let (near, far) = connect(&a, &b).await;
    let ((mut send, mut receive), (mut reply, mut request)) = stream(&near, &far).await;
    let mut byte = [0; 1];
    // The kernel begins to take timestamps a moment after the first socket has asked for them.
    // Of what is read together at least the last must be told: something else may have been sent after this thread was late.
    let (late, mut is_told) = (Duration::from_millis(40), false);
    for is_late in [false, false, true, false, true, true, true, true] {
        let began = Instant::now();
        send.write_all(b"?").await.unwrap();
        // The packet leaves with the next look at the connection, and this thread is all that there is.
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        if is_late {
            #[expect(clippy::disallowed_methods, reason = "this thread is to be late")]
            std::thread::sleep(late);
        }
        request.read_exact(&mut byte).await.unwrap();
        let waited = far.waited().unwrap();
        assert!(waited.at_least <= waited.at_most && waited.at_most <= began.elapsed(), "{waited:?}");
        assert!(!is_late || waited.at_most >= late * 9 / 10, "{waited:?} of {late:?}");
        is_told |= is_late && waited.at_least >= late * 9 / 10;
        reply.write_all(b"!").await.unwrap();
        receive.read_exact(&mut byte).await.unwrap();
        assert!(near.waited().unwrap().at_most <= began.elapsed());
    }
    assert!(is_told);
    let bind = "127.0.0.1:0".parse().unwrap();
    let credentials = Credentials::Secret(ClusterSecret::new("conformance"));
    let config = QuicConfig { are_timestamps: false, ..QuicConfig::new(NodeId::from_name("c"), bind, credentials) };
    let c = QuicTransport::new(config).unwrap();
    let dialler = c.open(false).unwrap();
    let quiet = dialler.dial(&b.addr, None).await.unwrap();
    assert_eq!(quiet.waited(), None);
}

#[tokio::test]
async fn quic_dials_names_and_both_families() {
    let v4 = Quic.node_at("v4", Some("0.0.0.0:0"));
    let port = |node: &TestNode| node.addr.rsplit_once(':').unwrap().1.to_owned();
    let a = Quic.node("a");
    let by_name = format!("localhost:{}", port(&v4));
    let (near, _far) = tokio::join!(a.endpoint.dial(&by_name, Some(v4.id)), v4.accept());
    assert_eq!(near.unwrap().remote_addr(), format!("127.0.0.1:{}", port(&v4)));
    let unknown = a.endpoint.dial("no-such-host.invalid:5011", None).await.err();
    assert!(matches!(unknown, Some(DialError::Resolve { .. })));
    let unreachable = a.endpoint.dial("[::1]:5011", None).await.err().unwrap();
    assert!(unreachable.to_string().contains("no address that can be reached"), "{unreachable}");

    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        eprintln!("this machine has no IPv6: the rest is not tested");
        return;
    }
    let both = Quic.node_at("both", Some("[::]:0"));
    let over_v4 = format!("127.0.0.1:{}", port(&both));
    let (near, far) = tokio::join!(a.endpoint.dial(&over_v4, Some(both.id)), both.accept());
    near.unwrap();
    assert!(far.remote_addr().starts_with("127.0.0.1:"), "{}", far.remote_addr());
    let (near, _far) = tokio::join!(both.endpoint.dial(&a.addr, Some(a.id)), a.accept());
    near.unwrap();
}
