//! Addresses that nobody else uses: every node gets a loopback address of its own, so that the receiver of a packet can
//! tell by its source which node sent it.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    sync::atomic::{AtomicU16, Ordering},
};

/// One address in 127.0.0.0/8, with a supply of free ports.
#[derive(Clone, Copy, Debug)]
pub struct Loopback(Ipv4Addr);

/// Below the range that the system hands out by itself, or an outgoing connection could take a port before the node does.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

impl Loopback {
    /// An address that no other call in this or another running process returns.
    pub fn fresh() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(1);
        let [_, _, high, low] = std::process::id().to_be_bytes();
        // Relaxed: only uniqueness matters.
        let host = NEXT.fetch_add(1, Ordering::Relaxed);
        let host = u8::try_from(host).expect("one process makes at most 255 addresses");
        Self(Ipv4Addr::new(127, high | 0x40, low, host))
    }

    /// The address itself.
    pub const fn ip(self) -> IpAddr {
        IpAddr::V4(self.0)
    }

    /// A port that is free for both TCP and UDP.
    pub fn free_port(self) -> SocketAddr {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        for _ in PORTS {
            // Relaxed: only uniqueness matters.
            let offset = NEXT.fetch_add(1, Ordering::Relaxed) % (PORTS.end - PORTS.start);
            let addr = SocketAddr::new(self.ip(), PORTS.start + offset);
            if TcpListener::bind(addr).is_ok() && UdpSocket::bind(addr).is_ok() {
                return addr;
            }
        }
        panic!("no free port on {}", self.0);
    }
}

#[test]
fn addresses_differ_and_are_loopback() {
    let (one, two) = (Loopback::fresh(), Loopback::fresh());
    assert_ne!(one.ip(), two.ip());
    assert!(one.ip().is_loopback() && two.ip().is_loopback());
    assert_ne!(one.free_port(), one.free_port());
}
