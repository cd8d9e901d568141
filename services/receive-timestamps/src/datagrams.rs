//! Datagrams that are read many at a time, with the times at which the kernel received the first and the last of them.

use std::net::{IpAddr, SocketAddr};

/// One buffer of datagrams from one sender, as the kernel describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// How many bytes of the buffer they take.
    pub bytes: usize,
    /// How long each of them is, in bytes; the last one may be shorter.
    pub stride: usize,
    /// Their sender.
    pub from: SocketAddr,
    /// The address that they were sent to, if the socket was asked to tell it.
    pub to: Option<IpAddr>,
    /// Type of service or traffic class, whose lowest two bits are ECN's; 0 if the socket was not asked to tell it.
    pub class: u8,
}

#[cfg(target_os = "linux")]
pub use crate::linux::DatagramReader;

/// There is none here.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub enum DatagramReader {}

#[cfg(not(target_os = "linux"))]
impl DatagramReader {
    /// Nothing: this system tells no times of receipt.
    pub fn enable<S>(_socket: &S) -> Option<Self> {
        None
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub fn read<S>(
        &self,
        _socket: &S,
        _rooms: &mut [std::io::IoSliceMut<'_>],
        _tell: impl FnMut(usize, Datagram),
    ) -> std::io::Result<(usize, bool, [crate::KernelTime; 2])> {
        match *self {}
    }
}

#[cfg(all(test, target_os = "linux"))]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use std::{
        io::{ErrorKind, IoSliceMut},
        net::UdpSocket,
        time::{Duration, Instant},
    };

    use super::*;
    use crate::KernelTime;

    type Told = (Vec<(Datagram, Vec<u8>)>, bool, [KernelTime; 2]);

    /// One read, with room for so many.
    fn read(reader: &DatagramReader, socket: &UdpSocket, rooms: usize) -> std::io::Result<Told> {
        let mut buffers = vec![[0; 2048]; rooms];
        let mut told = Vec::new();
        let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
        let (count, is_all, times) =
            reader.read(socket, &mut slices, |index, datagram| told.push((index, datagram)))?;
        assert!(told.iter().map(|(index, _)| *index).eq(0..count));
        let filled = told.into_iter().zip(&buffers).map(|((_, told), buffer)| (told, buffer[..told.bytes].to_vec()));
        Ok((filled.collect(), is_all, times))
    }

    fn pair(addr: &str) -> (UdpSocket, UdpSocket, DatagramReader) {
        let (sender, receiver) = (UdpSocket::bind(addr).unwrap(), UdpSocket::bind(addr).unwrap());
        let reader = DatagramReader::enable(&receiver).unwrap();
        receiver.set_nonblocking(true).unwrap();
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        // The kernel begins to take timestamps a moment after the first socket has asked for them, and gives what came
        // before that the time of its reading.
        for _ in 0..1000 {
            sender.send(b"first").unwrap();
            let sent = Instant::now();
            sleep(3);
            let received = read(&reader, &receiver, 1).unwrap().2[0].at(Instant::now());
            if received.is_some_and(|received| received < sent + Duration::from_millis(1)) {
                break;
            }
        }
        (sender, receiver, reader)
    }

    #[expect(clippy::disallowed_methods, reason = "this thread is to be late")]
    fn sleep(ms: u64) {
        std::thread::sleep(Duration::from_millis(ms));
    }

    #[test]
    fn the_first_and_the_last_say_since_when_they_waited() {
        for addr in ["127.0.0.1:0", "[::1]:0"] {
            let (sender, receiver, reader) = pair(addr);
            for waits in [0, 40, 5] {
                let before = Instant::now();
                sender.send(b"one").unwrap();
                let after = Instant::now();
                sleep(waits);
                let later = Instant::now();
                sender.send(b"another").unwrap();
                let (told, is_all, [first, last]) = read(&reader, &receiver, 8).unwrap();
                assert!(is_all);
                assert!(told.iter().map(|(_, bytes)| &bytes[..]).eq([&b"one"[..], b"another"]));
                let (told, addr) = (told[0].0, sender.local_addr().unwrap());
                assert_eq!(told, Datagram { bytes: 3, stride: 3, from: addr, to: None, class: 0 });
                let received = first.at(Instant::now()).unwrap();
                let slack = Duration::from_millis(1);
                assert!((before - slack..after + slack).contains(&received), "{:?}", received.elapsed());
                assert!(last.at(Instant::now()).unwrap() >= later - slack);
                assert_eq!(read(&reader, &receiver, 8).unwrap_err().kind(), ErrorKind::WouldBlock);
            }
        }
    }

    #[test]
    fn more_than_there_is_room_for_comes_in_turn() {
        let (sender, receiver, reader) = pair("127.0.0.1:0");
        (0..101_u8).for_each(|number| assert_eq!(sender.send(&[number]).unwrap(), 1));
        let (mut numbers, mut is_all) = (Vec::new(), false);
        while !is_all {
            let told = read(&reader, &receiver, 50).unwrap();
            numbers.extend(told.0.into_iter().map(|(_, bytes)| bytes[0]));
            is_all = told.1;
        }
        assert!(numbers.into_iter().eq(0..101));
    }
}
