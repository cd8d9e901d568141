//! Reading with `recvmsg`, which brings the timestamp along.

use std::{
    io::{self, IoSliceMut},
    os::fd::AsRawFd,
};

use nix::{
    cmsg_space,
    sys::{
        socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt::ReceiveTimestampns},
        time::{TimeSpec, TimeValLike},
    },
};
use tokio::{io::Interest, net::TcpStream};

/// Room for one timestamp.
#[derive(Debug)]
pub(crate) struct Control(Vec<u8>);

impl Control {
    /// Asks for timestamps of what the socket receives from now on; nothing if the system has none.
    pub(crate) fn enable(stream: &TcpStream) -> Option<Self> {
        setsockopt(stream, ReceiveTimestampns, &true).ok()?;
        Some(Self(cmsg_space!(TimeSpec)))
    }

    /// Reads without waiting: how many bytes, and the wall clock's time at which the last of them were received, in nanoseconds since
    /// 1970; 0 if that is not told.
    pub(crate) fn read(&mut self, stream: &TcpStream, room: &mut [u8]) -> io::Result<(usize, i64)> {
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
            read = Some((message.bytes, stamp.unwrap_or(0)));
            // As tokio's own reads do: one that does not fill the room has emptied the socket, and nobody need ask again before more has
            // come. That spares a call of the system for each request.
            if (1..room_bytes).contains(&message.bytes) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match read {
            Some(read) => Ok(read),
            None => result.map(|()| (0, 0)),
        }
    }
}
