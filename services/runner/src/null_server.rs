//! The bare responder: answers every HTTP request with the same bytes and looks at as little of it as it can. What it
//! reaches is the most that any server could reach on this machine, so it is the yardstick for the nodes.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    thread,
};

use socket2::{Domain, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime,
};

/// Answers up to so many bytes are written together, where several requests came at once.
const COPIED_BYTES_MAX: usize = 4096;

/// A request's head and body must fit.
const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// Answers for ever with `value_bytes` bytes, on `threads` threads that share the port.
///
/// # Errors
/// If the port cannot be bound.
pub(crate) fn serve(port: u16, threads: u16, value_bytes: usize) -> Result<(), String> {
    let response: Arc<[u8]> = response(value_bytes).into();
    let bound = |error| format!("PORT={port}: cannot listen on 127.0.0.1:{port}: {error}");
    let mut running = Vec::new();
    for _ in 0..threads {
        let socket = listen(port).map_err(bound)?;
        let response = Arc::clone(&response);
        running.push(thread::spawn(move || -> Result<(), String> {
            let runtime = runtime::Builder::new_current_thread().enable_io().build();
            let runtime = runtime.map_err(|error| format!("cannot start a runtime: {error}"))?;
            runtime.block_on(accept(socket, response)).map_err(|error| format!("cannot accept connections: {error}"))
        }));
    }
    load::say(&format!("listening on 127.0.0.1:{port}"));
    for thread in running {
        thread.join().map_err(|_| "a thread has panicked".to_owned())??;
    }
    Ok(())
}

fn response(value_bytes: usize) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nX-Cache: HIT_LOCAL\r\nContent-Length: {value_bytes}\r\n\r\n");
    [head.as_bytes(), &vec![b'x'; value_bytes]].concat()
}

fn listen(port: u16) -> std::io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

async fn accept(listener: std::net::TcpListener, response: Arc<[u8]>) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(answer(stream, Arc::clone(&response)));
    }
}

async fn answer(mut stream: TcpStream, response: Arc<[u8]>) {
    let mut buffer = Vec::with_capacity(4096);
    let mut responses = Vec::with_capacity(4096);
    while buffer.len() < REQUEST_BYTES_MAX {
        if !stream.read_buf(&mut buffer).await.is_ok_and(|read| read > 0) {
            return;
        }
        let mut used = 0;
        responses.clear();
        while let Some(length) = request_length(&buffer[used..]) {
            used += length;
            if response.len() <= COPIED_BYTES_MAX {
                responses.extend_from_slice(&response);
            } else if stream.write_all(&response).await.is_err() {
                return;
            }
        }
        buffer.drain(..used);
        if !responses.is_empty() && stream.write_all(&responses).await.is_err() {
            return;
        }
    }
}

/// How long the first request in `buffer` is; nothing while it is not whole.
fn request_length(buffer: &[u8]) -> Option<usize> {
    let head = buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let body = if buffer.starts_with(b"GET ") { 0 } else { content_length(&buffer[..head]) };
    (buffer.len() >= head + body).then_some(head + body)
}

fn content_length(head: &[u8]) -> usize {
    const NAME: &[u8] = b"\r\ncontent-length:";
    let at = head.windows(NAME.len()).position(|window| window.eq_ignore_ascii_case(NAME));
    let digits = at.map(|at| &head[at + NAME.len()..]).unwrap_or_default();
    let digits = digits.split(|byte| *byte == b'\r').next().unwrap_or_default();
    std::str::from_utf8(digits).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_request_has_its_answer_whatever_its_size() {
        for value_bytes in [24, 1 << 20] {
            let listener = listen(0).expect("a port");
            let mut stream =
                TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
            tokio::spawn(accept(listener, response(value_bytes).into()));
            stream.write_all(&b"GET / HTTP/1.1\r\n\r\n".repeat(3)).await.expect("three requests");
            let mut answers = vec![0; 3 * response(value_bytes).len()];
            stream.read_exact(&mut answers).await.expect("three answers");
            assert_eq!(answers, response(value_bytes).repeat(3));
        }
    }

    #[test]
    fn requests_end_where_they_say() {
        let get = b"GET / HTTP/1.1\r\n\r\n";
        let post = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(request_length(&get[..17]), None);
        assert_eq!(request_length(&[&get[..], b"GET"].concat()), Some(18));
        assert_eq!(request_length(&post[..post.len() - 1]), None);
        assert_eq!(request_length(post), Some(post.len()));
    }
}
