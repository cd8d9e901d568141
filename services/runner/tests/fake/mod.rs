//! A mesh of HTTP nodes that share one map and can be told to misbehave. Everything runs in the test's own process.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

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
    /// Claims versions older than all others'.
    Behind,
    /// Answers 503.
    Unavailable,
    /// Answers 503 and says that it has too much to do.
    Overloaded,
    /// Closes the connection instead of answering.
    Close,
    /// Never answers.
    Hang,
}

const OVERLOADED: &str = r#"{"type":"urn:problem-type:mesh:overloaded","status":503,"detail":"too much to do"}"#;

type Store = HashMap<String, (u128, String)>;

/// Three nodes.
pub struct FakeMesh {
    pub nodes: Vec<Arc<FakeNode>>,
}

pub struct FakeNode {
    pub port: u16,
    fault: Mutex<Fault>,
    /// Obeys `/kill`.
    pub mortal: AtomicBool,
    dead: AtomicBool,
    evictions: AtomicU64,
    requests: AtomicU64,
    store: Arc<Mutex<Store>>,
    version: Arc<AtomicU64>,
}

impl FakeMesh {
    pub fn start() -> Self {
        let (store, version) = (Arc::<Mutex<Store>>::default(), Arc::new(AtomicU64::new(1)));
        let nodes = (0..3).map(|_| FakeNode::start(Arc::clone(&store), Arc::clone(&version))).collect();
        Self { nodes }
    }

    pub fn targets(&self) -> String {
        self.nodes.iter().map(|node| format!("http://127.0.0.1:{}", node.port)).collect::<Vec<_>>().join(",")
    }
}

impl FakeNode {
    fn start(store: Arc<Mutex<Store>>, version: Arc<AtomicU64>) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let node = Arc::new(Self {
            port: listener.local_addr().unwrap().port(),
            fault: Mutex::new(Fault::None),
            mortal: AtomicBool::new(true),
            dead: AtomicBool::new(false),
            evictions: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            store,
            version,
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

    pub fn evict(&self, count: u64) {
        self.evictions.store(count, Ordering::Relaxed);
    }

    /// How many keys the mesh has.
    pub fn written(&self) -> usize {
        self.store.lock().unwrap().len()
    }

    pub fn die(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }

    fn serve(&self, stream: &TcpStream) {
        stream.set_nodelay(true).unwrap();
        let mut reader = BufReader::new(stream);
        while let Some((request, body)) = read_request(&mut reader) {
            let dead = self.dead.load(Ordering::Relaxed);
            let response = if dead { None } else { self.answer(&request, &body) };
            let Some(response) = response else {
                let _ = stream.shutdown(Shutdown::Both);
                return;
            };
            if (&mut &*stream).write_all(response.as_bytes()).is_err() {
                return;
            }
        }
    }

    fn answer(&self, request: &str, body: &str) -> Option<String> {
        let fault = *self.fault.lock().unwrap();
        let path = request.split(' ').nth(1).unwrap_or_default();
        let sometimes = self.requests.fetch_add(1, Ordering::Relaxed) % 50 == 49;
        match path.split('?').next().unwrap_or_default() {
            "/ready" => Some(respond("200 OK", "", "{}")),
            "/cluster" => Some(respond("200 OK", "", &format!("{{\"id\":\"{:016x}\",\"members\":[]}}", self.port))),
            "/stats" => {
                let evictions = self.evictions.load(Ordering::Relaxed);
                let stats = format!(
                    "{{\"Hits\":7,\"Misses\":1,\"Evictions\":{evictions},\"Size\":3,\"Capacity\":9,\
                    \"mesh\":{{\"cpu_ms\":1}}}}"
                );
                Some(respond("200 OK", "", &stats))
            }
            "/kill" if self.mortal.load(Ordering::Relaxed) => {
                self.die();
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
            "/get" => Some(self.get(path.split("k=").nth(1).unwrap_or_default(), fault, sometimes)),
            "/set" => Some(self.set(body, fault, sometimes)),
            _ => Some(respond("404 Not Found", "", "")),
        }
    }

    fn get(&self, key: &str, fault: Fault, sometimes: bool) -> String {
        let store = self.store.lock().unwrap();
        let Some((version, value)) = store.get(key) else {
            return respond("404 Not Found", "X-Cache: MISS\r\n", "");
        };
        let value = match fault {
            Fault::WrongObject if sometimes => {
                store.iter().find(|(other, _)| *other != key).map_or(value, |(_, (_, value))| value).clone()
            }
            Fault::Corrupt if sometimes => value.replacen("v:", "w:", 1),
            _ => value.clone(),
        };
        let version = if fault == Fault::Behind { 0 } else { *version };
        let cache = if key.ends_with(['0', '1', '2']) { "HIT_REMOTE" } else { "HIT_LOCAL" };
        respond("200 OK", &format!("X-Cache: {cache}\r\nX-Mesh-Version: {version:032x}\r\n"), &value)
    }

    fn set(&self, body: &str, fault: Fault, sometimes: bool) -> String {
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let (key, value) = (body["k"].as_str().unwrap(), body["v"].as_str().unwrap());
        let mut store = self.store.lock().unwrap();
        let version = u128::from(self.version.fetch_add(1, Ordering::Relaxed));
        // Of some keys every later write is lost, or chance would decide whether a key's last one is among the lost.
        let doomed = sometimes || (key.ends_with('3') && store.contains_key(key));
        if fault != Fault::LoseWrites || !doomed {
            store.insert(key.to_owned(), (version, value.to_owned()));
        }
        respond("200 OK", &format!("X-Mesh-Version: {version:032x}\r\n"), "OK")
    }
}

fn respond(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn read_request(reader: &mut impl BufRead) -> Option<(String, String)> {
    let mut request = String::new();
    reader.read_line(&mut request).ok().filter(|read| *read > 0)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((request, String::from_utf8(body).unwrap()))
}
