//! A mesh of HTTP nodes that share one register per key and can be told to misbehave. Everything runs in the test's own
//! process. What they do well and badly to a key is in `register`.

#![allow(dead_code, unused_imports, reason = "each test binary uses a part of it")]

mod books;
mod laid;
mod ran;
mod register;

use std::{
    io::{BufRead, BufReader, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use books::Books;
use laid::Laid;
pub use ran::{Ran, command, misbehaving, run, sentences, told};
use register::Registers;

/// What a node does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Returns another key's value, now and then.
    WrongObject,
    /// Returns a value with a changed byte, now and then.
    Corrupt,
    /// Acknowledges some writes without making them.
    LoseWrites,
    /// Claims versions older than all others', except to a quorum.
    Behind,
    /// Returns a value that would have been written later, now and then.
    Forge,
    /// Says now and then that it has nothing.
    Forget,
    /// Says always that it has nothing, except to a quorum.
    Evict,
    /// Acknowledges some writes under a version below the key's.
    Rewind,
    /// Returns a value under a version that nobody gave it, now and then.
    ChangeVersion,
    /// Tells a quorum the value before the newest, now and then.
    StaleQuorum,
    /// Does not care what a session has seen, now and then.
    ForgetSession,
    /// Brings back what was deleted, as something new.
    Resurrect,
    /// Never lets a value expire.
    Outlive,
    /// Answers 503.
    Unavailable,
    /// Answers 503 and says that it has too much to do.
    Overloaded,
    /// Closes the connection instead of answering.
    Close,
    /// Never answers.
    Hang,
    /// Does one operation after the other, each in its time, also those that nobody waits for any more.
    Busy(Duration),
    /// Does at most one operation in so long, whatever comes: a token bucket without a burst.
    Bucket(Duration),
    /// Counts every operation twice.
    Overcount,
    /// Counts nothing.
    Undercount,
}

const OVERLOADED: &str = r#"{"type":"urn:problem-type:mesh:overloaded","status":503,"detail":"too much to do"}"#;

/// What is asked for, besides the path.
struct Request {
    line: String,
    body: String,
    /// `X-Mesh-Min-Version`.
    least: u128,
    /// `traceparent`; empty without one.
    trace: String,
    /// `Host`.
    host: String,
}

/// KILL_TOKEN of every node, and as a query has it.
pub const KILL_TOKEN: &str = "to ken";
const TOKEN: &str = "to%20ken";

/// Three nodes.
pub struct FakeMesh {
    pub nodes: Vec<Arc<FakeNode>>,
}

pub struct FakeNode {
    pub port: u16,
    fault: Mutex<Fault>,
    /// Obeys `/kill` and `/fault`; else it only says so.
    pub mortal: AtomicBool,
    /// Knows no KILL_TOKEN.
    pub forbids: AtomicBool,
    dead: AtomicBool,
    laid: Mutex<Laid>,
    evictions: AtomicU64,
    requests: AtomicU64,
    books: Books,
    /// Every traced request: its trace, and its first line with its body.
    traced: Mutex<Vec<(String, String)>>,
    /// The traces that it was asked to keep.
    kept: Mutex<Vec<String>>,
    registers: Arc<Mutex<Registers>>,
    /// Held by the operation that a busy node is at.
    busy: Mutex<()>,
    /// When there is a token again.
    token_at: Mutex<Option<Instant>>,
    /// The members that it knows, as JSON.
    members: Mutex<String>,
    /// The WRITE_CONCERN that it reports; none if 0.
    pub concern: AtomicU64,
}

impl FakeMesh {
    pub fn start() -> Self {
        let registers = Arc::<Mutex<Registers>>::default();
        let nodes = (0..3).map(|_| FakeNode::start(Arc::clone(&registers))).collect();
        Self { nodes }
    }

    pub fn targets(&self) -> String {
        self.nodes.iter().map(|node| format!("http://127.0.0.1:{}", node.port)).collect::<Vec<_>>().join(",")
    }
}

impl FakeNode {
    fn start(registers: Arc<Mutex<Registers>>) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let node = Arc::new(Self {
            port: listener.local_addr().unwrap().port(),
            fault: Mutex::new(Fault::None),
            mortal: AtomicBool::new(true),
            forbids: AtomicBool::new(false),
            laid: Mutex::default(),
            dead: AtomicBool::new(false),
            evictions: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            books: Books::default(),
            traced: Mutex::default(),
            kept: Mutex::default(),
            registers,
            busy: Mutex::default(),
            token_at: Mutex::default(),
            members: Mutex::new("[]".to_owned()),
            concern: AtomicU64::new(0),
        });
        let accepting = Arc::clone(&node);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let node = Arc::clone(&accepting);
                thread::spawn(move || node.serve(&stream));
            }
        });
        node
    }

    pub fn misbehave(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }

    /// The request of this trace, if it came here, and whether it was to be kept.
    pub fn traced(&self, trace: &str) -> Option<(String, bool)> {
        let traced = self.traced.lock().unwrap();
        let (_, request) = traced.iter().find(|(id, _)| id == trace)?;
        Some((request.clone(), self.kept.lock().unwrap().iter().any(|id| id == trace)))
    }

    /// It and nobody else is in its mesh.
    pub fn is_alone(&self) {
        *self.members.lock().unwrap() = format!("[{{\"id\":\"{:016x}\",\"state\":\"alive\"}}]", self.port);
    }

    /// How it sees another one from now on.
    pub fn sees(&self, other: &Self, state: &str) {
        *self.members.lock().unwrap() = format!("[{{\"id\":\"{:016x}\",\"state\":\"{state}\"}}]", other.port);
    }

    pub fn evict(&self, count: u64) {
        self.evictions.store(count, Ordering::Relaxed);
    }

    /// How many keys the mesh has.
    pub fn written(&self) -> usize {
        self.registers.lock().unwrap().len()
    }

    /// The orders for faults that it got, and how often it was healed.
    pub fn ordered(&self) -> (Vec<serde_json::Value>, usize) {
        let laid = self.laid.lock().unwrap();
        (laid.orders.clone(), laid.healed)
    }

    pub fn die(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }

    fn serve(&self, stream: &TcpStream) {
        stream.set_nodelay(true).unwrap();
        let mut reader = BufReader::new(stream);
        while let Some(request) = read_request(&mut reader) {
            thread::sleep(self.laid.lock().unwrap().pause_left());
            let dead = self.dead.load(Ordering::Relaxed);
            let response = if dead { None } else { self.answer(&request) };
            let Some(response) = response else {
                let _ = stream.shutdown(Shutdown::Both);
                return;
            };
            if (&mut &*stream).write_all(response.as_bytes()).is_err() {
                return;
            }
        }
    }

    fn answer(&self, request: &Request) -> Option<String> {
        let fault = *self.fault.lock().unwrap();
        let path = request.line.split(' ').nth(1).unwrap_or_default();
        let sometimes = self.requests.fetch_add(1, Ordering::Relaxed) % 50 == 49;
        if let Some(trace) = request.trace.split('-').nth(1) {
            self.traced.lock().unwrap().push((trace.to_owned(), format!("{} {}", request.line.trim(), request.body)));
        }
        let is_load = matches!(path.split('?').next(), Some("/get" | "/set" | "/del"));
        if let (Fault::Busy(time), true) = (fault, is_load) {
            let _turn = self.busy.lock().unwrap();
            thread::sleep(time);
        }
        if let (Fault::Bucket(every), true) = (fault, is_load) {
            let at = {
                let mut token_at = self.token_at.lock().unwrap();
                let at = token_at.unwrap_or_else(Instant::now).max(Instant::now());
                *token_at = Some(at + every);
                at
            };
            thread::sleep(at.saturating_duration_since(Instant::now()));
        }
        if request.host != format!("127.0.0.1:{}", self.port) {
            return Some(respond("421 Misdirected Request", "", &request.host));
        }
        let response = self.answer_with(request, path, fault, sometimes)?;
        let times = match fault {
            Fault::Overcount => 2,
            Fault::Undercount => 0,
            _ => 1,
        };
        self.books.enter(path.split('?').next().unwrap_or_default(), &response, times);
        Some(response)
    }

    fn answer_with(&self, request: &Request, path: &str, fault: Fault, sometimes: bool) -> Option<String> {
        match path.split('?').next().unwrap_or_default() {
            "/trace/keep" => {
                self.kept.lock().unwrap().extend(request.body.lines().map(str::to_owned));
                Some(respond("204 No Content", "", ""))
            }
            "/metrics" => Some(respond("200 OK", "", &self.books.metrics())),
            "/ready" => Some(respond("200 OK", "", "{}")),
            "/cluster" => Some(respond("200 OK", "", &self.view())),
            "/stats" => Some(respond("200 OK", "", &self.stats())),
            "/fault" | "/kill" if self.forbids.load(Ordering::Relaxed) => {
                Some(respond("403 Forbidden", "", r#"{"detail":"killing is off"}"#))
            }
            "/fault" if parameter(path, "token") != Some(TOKEN) => {
                Some(respond("401 Unauthorized", "", r#"{"detail":"`token` must be the node's KILL_TOKEN"}"#))
            }
            "/fault" => {
                let mut laid = self.laid.lock().unwrap();
                if request.line.starts_with("DELETE") {
                    laid.heal();
                } else {
                    laid.lay(&request.body, self.mortal.load(Ordering::Relaxed));
                }
                Some(respond("200 OK", "", "[]"))
            }
            "/kill" if self.mortal.load(Ordering::Relaxed) => {
                match parameter(path, "for_ms") {
                    Some(ms) => self.laid.lock().unwrap().pause(Duration::from_millis(ms.parse().unwrap())),
                    None => self.die(),
                }
                Some(respond("200 OK", "", "bye"))
            }
            "/kill" => Some(respond("200 OK", "", "bye")),
            _ if fault == Fault::Unavailable => Some(respond("503 Service Unavailable", "", "no quorum")),
            _ if fault == Fault::Overloaded => {
                Some(respond("503 Service Unavailable", "Retry-After: 1\r\n", OVERLOADED))
            }
            _ if fault == Fault::Close => None,
            _ if fault == Fault::Hang => {
                thread::sleep(Duration::from_secs(30));
                None
            }
            "/get" => {
                let consistency = parameter(path, "consistency").unwrap_or("one");
                let key = parameter(path, "k").unwrap_or_default();
                let registers = self.registers.lock().unwrap();
                Some(found(registers.get(key, consistency, request.least, fault, sometimes), key))
            }
            "/set" => Some(self.set(&request.body, fault, sometimes)),
            "/del" => {
                let key = parameter(path, "k").unwrap_or_default();
                Some(written(self.registers.lock().unwrap().delete(key)))
            }
            _ => Some(respond("404 Not Found", "", "")),
        }
    }

    fn view(&self) -> String {
        let unix_ms = self.laid.lock().unwrap().unix_ms();
        let members = self.members.lock().unwrap();
        let concern = match self.concern.load(Ordering::Relaxed) {
            0 => String::new(),
            concern => format!(",\"write_concern\":{concern}"),
        };
        let id = self.port;
        format!("{{\"id\":\"{id:016x}\",\"members\":{members},\"unix_ms\":{unix_ms}{concern}}}")
    }

    fn stats(&self) -> String {
        let evictions = self.evictions.load(Ordering::Relaxed);
        let packets = self.laid.lock().unwrap().packets();
        format!(
            "{{\"Hits\":7,\"Misses\":1,\"Evictions\":{evictions},\"Size\":3,\"Capacity\":9,\
            \"mesh\":{{\"cpu_ms\":1,{packets}}}}}"
        )
    }

    fn set(&self, body: &str, fault: Fault, sometimes: bool) -> String {
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let (key, value) = (body["k"].as_str().unwrap(), body["v"].as_str().unwrap());
        let ttl = u64::try_from(body["ttl_ms"].as_i64().unwrap()).ok().filter(|ttl_ms| *ttl_ms > 0);
        let ttl = ttl.map(Duration::from_millis);
        written(self.registers.lock().unwrap().set(key, value, ttl, fault, sometimes))
    }
}

fn parameter<'a>(path: &'a str, name: &str) -> Option<&'a str> {
    let pairs = path.split_once('?')?.1.split('&');
    pairs.filter_map(|pair| pair.split_once('=')).find(|(known, _)| *known == name).map(|(_, value)| value)
}

fn found((version, value): (u128, Option<String>), key: &str) -> String {
    let version = format!("X-Mesh-Version: {version:032x}\r\nX-Mesh-Node: 00000000000000ab\r\n");
    let cache = if key.ends_with(['0', '1', '2']) { "HIT_REMOTE" } else { "HIT_LOCAL" };
    value.map_or_else(
        || respond("404 Not Found", &format!("X-Cache: MISS\r\n{version}"), ""),
        |value| respond("200 OK", &format!("X-Cache: {cache}\r\n{version}"), &value),
    )
}

fn written(version: u128) -> String {
    respond("200 OK", &format!("X-Mesh-Version: {version:032x}\r\n"), "OK")
}

fn respond(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn read_request(reader: &mut impl BufRead) -> Option<Request> {
    let mut request = String::new();
    reader.read_line(&mut request).ok().filter(|read| *read > 0)?;
    let (mut length, mut least, mut trace, mut host) = (0, 0, String::new(), String::new());
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("host:") {
            value.trim().clone_into(&mut host);
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("traceparent:") {
            trace = value.trim().to_owned();
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("x-mesh-min-version:") {
            least = u128::from_str_radix(value.trim(), 16).unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { line: request, body: String::from_utf8(body).unwrap(), least, trace, host })
}
