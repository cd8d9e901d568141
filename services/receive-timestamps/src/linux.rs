//! Reading with `recvmsg` and `recvmmsg`, which bring timestamps along.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::{AsFd, AsRawFd},
    sync::atomic::{AtomicUsize, Ordering},
};

use nix::{
    cmsg_space,
    libc::{c_int, in_pktinfo, in6_pktinfo},
    sys::{
        socket::{
            ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, recvmsg, setsockopt,
            sockopt::ReceiveTimestampns,
        },
        time::{TimeSpec, TimeValLike},
    },
};
use tokio::{io::Interest, net::TcpStream};

use crate::{Datagram, KernelTime};

/// Room for one timestamp.
#[derive(Debug)]
pub(crate) struct Control(Vec<u8>);

impl Control {
    /// Asks for timestamps of what the socket receives from now on; nothing if the system has none.
    pub(crate) fn enable(stream: &TcpStream) -> Option<Self> {
        setsockopt(stream, ReceiveTimestampns, &true).ok()?;
        Some(Self(cmsg_space!(TimeSpec)))
    }

    /// Reads without waiting: how many bytes, and when the last of them were received.
    pub(crate) fn read(&mut self, stream: &TcpStream, room: &mut [u8]) -> io::Result<(usize, KernelTime)> {
        let (mut read, room_bytes) = (None, room.len());
        let result = stream.try_io(Interest::READABLE, || {
            let mut room = [IoSliceMut::new(room)];
            let message = recvmsg::<()>(stream.as_raw_fd(), &mut room, Some(&mut self.0), MsgFlags::empty())?;
            let stamp = message.cmsgs().ok().and_then(|mut messages| {
                messages.find_map(|message| match message {
                    ControlMessageOwned::ScmTimestampns(stamp) => Some(stamp.num_nanoseconds()),
                    _ => None,
                })
            });
            read = Some((message.bytes, KernelTime::from_nanos(stamp.unwrap_or(0))));
            // As tokio's own reads do: one that does not fill the room has emptied the socket, and nobody need ask again before more has
            // come. That spares a call of the system for each request.
            if (1..room_bytes).contains(&message.bytes) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match read {
            Some(read) => Ok(read),
            None => result.map(|()| (0, KernelTime::default())),
        }
    }
}

/// How many buffers are offered to a read at first, and once those did not do.
const ROOMS_MIN: usize = 4;
const ROOMS_MAX: usize = 32;

/// Reads datagrams with the kernel's word when it received them.
#[derive(Debug)]
pub struct DatagramReader {
    /// How many buffers the next read is offered: the headers for each of them are made anew each time.
    rooms: AtomicUsize,
}

impl DatagramReader {
    /// Asks for timestamps of what the socket receives from now on; nothing if the system has none.
    pub fn enable(socket: &impl AsFd) -> Option<Self> {
        setsockopt(socket, ReceiveTimestampns, &true).ok()?;
        Some(Self { rooms: AtomicUsize::new(ROOMS_MIN) })
    }

    /// Reads into `rooms` without waiting: how many of them were used, whether that was all that there was, and when the kernel
    /// received the first and the last. `tell` is given what is in each.
    ///
    /// # Errors
    /// As the system says; `WouldBlock` if there is nothing.
    pub fn read(
        &self,
        socket: &impl AsRawFd,
        rooms: &mut [IoSliceMut<'_>],
        mut tell: impl FnMut(usize, Datagram),
    ) -> io::Result<(usize, bool, [KernelTime; 2])> {
        let offered = self.rooms.load(Ordering::Relaxed).min(rooms.len());
        // Room for all control messages of an IPv4 packet on an IPv6 socket, which has the most.
        let control = cmsg_space!(TimeSpec, in6_pktinfo, in_pktinfo, c_int, u8, c_int);
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(offered, Some(control));
        let mut slices: Vec<_> = rooms[..offered].iter_mut().map(|room| [IoSliceMut::new(room)]).collect();
        let messages = recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None)?;
        let (mut count, mut times) = (0, [KernelTime::default(); 2]);
        for message in messages {
            // A datagram without a sender counts as empty; the others are still read.
            let from = sender(message.address);
            let bytes = if from.is_some() { message.bytes } else { 0 };
            let from = from.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
            let mut datagram = Datagram { bytes, stride: message.bytes, from, to: None, class: 0 };
            for told in message.cmsgs().into_iter().flatten() {
                match told {
                    ControlMessageOwned::ScmTimestampns(stamp) => {
                        times[1] = KernelTime::from_nanos(stamp.num_nanoseconds());
                        times[0] = if count == 0 { times[1] } else { times[0] };
                    }
                    ControlMessageOwned::UdpGroSegments(stride) => {
                        datagram.stride = usize::try_from(stride).unwrap_or(1).max(1);
                    }
                    ControlMessageOwned::Ipv4PacketInfo(info) => {
                        datagram.to = Some(IpAddr::from(info.ipi_addr.s_addr.to_ne_bytes()));
                    }
                    ControlMessageOwned::Ipv6PacketInfo(info) => {
                        datagram.to = Some(IpAddr::from(info.ipi6_addr.s6_addr));
                    }
                    ControlMessageOwned::Ipv4Tos(class) => datagram.class = class,
                    ControlMessageOwned::Ipv6TClass(class) => datagram.class = class as u8,
                    _ => {}
                }
            }
            tell(count, datagram);
            count += 1;
        }
        // Relaxed: a guess.
        self.rooms.store(if count < ROOMS_MIN { ROOMS_MIN } else { ROOMS_MAX }, Ordering::Relaxed);
        Ok((count, count < offered, times))
    }
}

fn sender(address: Option<SockaddrStorage>) -> Option<SocketAddr> {
    let address = address?;
    let v4 = address.as_sockaddr_in().map(|address| SocketAddr::V4((*address).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| SocketAddr::V6((*address).into())))
}
