//! Redis, Redis Cluster and memcached under the load, as Debian ships them: the checker passes where it must, and finds what is wrong
//! whatever they promise. Where a server is not installed, its tests say so and prove nothing.

#![allow(clippy::disallowed_methods, reason = "no runtime here: these threads wait for a process, with a deadline")]
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, missing_docs, reason = "tests")]

mod fake;

use std::{
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use fake::{Ran, command, told};
use redis::Commands;

const WITHIN: Duration = Duration::from_secs(60);

/// Writes, deletions and expiry of few keys, so that much overlaps.
const MIXTURE: [(&str, &str); 4] = [("SET_RATIO", "40"), ("DELETE_RATIO", "10"), ("KEYS", "50"), ("CONCURRENCY", "32")];

/// A server on loopback, killed when dropped.
struct Server {
    child: Child,
    port: u16,
    arguments: Vec<String>,
    folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Server {
    /// Nothing if there is no such program, which is said.
    fn start(program: &str, arguments: &[&str]) -> Option<Self> {
        if Command::new(program).arg("--version").output().is_err() {
            eprintln!("SKIPPED: {program} is not installed");
            return None;
        }
        let port = free_port();
        let (folder, port_text) = (tempfile::tempdir().unwrap(), port.to_string());
        let own: Vec<&str> = match program {
            "memcached" => vec!["-l", "127.0.0.1", "-p", &port_text, "-U", "0", "-u", "nobody"],
            _ => vec!["--port", &port_text, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
        };
        let arguments = [&[program][..], &own, arguments].concat().into_iter().map(str::to_owned).collect();
        let child = Command::new("true").spawn().unwrap();
        let mut server = Self { child, port, arguments, folder };
        server.restart();
        Some(server)
    }

    fn redis(arguments: &[&str]) -> Option<Self> {
        Self::start("redis-server", arguments)
    }

    fn restart(&mut self) {
        self.kill();
        let mut command = Command::new(&self.arguments[0]);
        command.args(&self.arguments[1..]).current_dir(self.folder.path());
        self.child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("a server to listen", || TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    /// As by `kill -9`.
    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn target(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Another client.
    fn oracle(&self) -> redis::Connection {
        redis::Client::open(self.target()).unwrap().get_connection().unwrap()
    }
}

/// A port that the system does not hand out by itself, and for a Redis Cluster the one that lies 10000 above.
fn free_port() -> u16 {
    loop {
        let port = 12_000 + rand::random_range(0..10_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return port;
        }
    }
}

fn eventually(what: &str, mut happens: impl FnMut() -> bool) {
    let began = Instant::now();
    while !happens() {
        assert!(began.elapsed() < WITHIN, "still waiting for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// One run with results.
fn run(targets: &str, settings: &[(&str, &str)]) -> Ran {
    run_and(targets, settings, || {})
}

/// One run with results; `meanwhile` is done once its load has begun.
fn run_and(targets: &str, settings: &[(&str, &str)], meanwhile: impl FnOnce()) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("results.json");
    let mut runner = command(targets, settings).env("RESULTS", &results).spawn().unwrap();
    let mut lines = BufReader::new(runner.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut printed: Vec<_> = lines.by_ref().take_while(|line| !line.contains(" keys/s")).collect();
    meanwhile();
    printed.extend(lines);
    let output = runner.wait_with_output().unwrap();
    let (code, out) = told(&Output { stdout: printed.join("\n").into_bytes(), ..output });
    let results = std::fs::read(&results).ok().and_then(|json| serde_json::from_slice(&json).ok());
    let results = results.unwrap_or_else(|| panic!("no results:\n{out}"));
    Ran { code, out, results }
}

/// Nothing is wrong, and something was done.
fn assert_sound(ran: &Ran) {
    assert_eq!(ran.code, 0, "{}", ran.out);
    assert_eq!(ran.results["verdict"]["correctness"], "PASS", "{}", ran.out);
    let found = ["wrong_object", "corrupt", "unwritten", "missing", "lost", "stale_quorum", "resurrected", "stale"];
    assert!(found.iter().all(|kind| ran.integrity(kind) == 0), "{}", ran.out);
    assert!(ran.totals("sets") > 100 && ran.totals("hits_local") > 100 && ran.totals("errors") == 0, "{}", ran.out);
    assert!(ran.results["setup"]["guarantee"] == "one_copy" && ran.results["sweep"]["unread"] == 0, "{}", ran.out);
}

#[test]
fn a_redis_server_passes_the_checker() {
    let Some(server) = Server::redis(&[]) else { return };
    assert_sound(&run(&server.target(), &MIXTURE));
    let ran = run(&server.target(), &[&MIXTURE[..], &[("SET_TTL_MS", "300"), ("RATE", "2000")]].concat());
    assert_sound(&ran);
    assert!(ran.totals("misses") > 0 && ran.results["sweep"]["expired"].as_u64().unwrap() > 0, "{}", ran.out);
    assert!(ran.results["cpu"]["node_us_per_op"][0].as_f64().unwrap() > 0.0, "{}", ran.out);
    // What is written can be read by another client.
    assert_sound(&run(&server.target(), &[("KEYS", "50"), ("VALUE_BYTES", "20000")]));
    let value: String = server.oracle().get("key-00000007").unwrap();
    assert!(value.starts_with("v:key-00000007:") && value.len() == 20_000, "{}", &value[..60]);
}

#[test]
fn a_password_logs_in_and_is_never_shown() {
    const PASSWORD: &str = "staple-in-the-wall";
    let Some(server) = Server::redis(&["--requirepass", PASSWORD]) else { return };
    let address = server.address();
    let inside = format!("redis://:{PASSWORD}@{address}");
    let named = format!("redis://default:{PASSWORD}@{address}");
    for (targets, password) in [(&inside, ""), (&named, ""), (&server.target(), PASSWORD)] {
        let ran = run(targets, &[("TARGET_PASSWORD", password), ("COMPAT", "on")]);
        assert_sound(&ran);
        assert!(!ran.out.contains(PASSWORD) && !ran.results.to_string().contains(PASSWORD), "{}", ran.out);
        assert!(ran.out.contains(&server.target()), "{}", ran.out);
    }
    for (targets, expected) in [
        (server.target(), "NOAUTH"),
        (format!("redis://:{PASSWORD}x@{address}"), "WRONGPASS"),
        (format!("redis://:{PASSWORD}@{address},x"), "expected http://host:port"),
        (format!("http://me:{PASSWORD}@{address}"), "only redis:// targets take them"),
    ] {
        let (code, out) = told(&command(&targets, &[]).output().unwrap());
        assert!(code == 2 && out.contains(expected) && !out.contains(PASSWORD), "{code} {out}");
    }
}

#[test]
fn what_is_wrong_is_broken_and_what_a_running_server_loses_too() {
    let Some(server) = Server::redis(&[]) else { return };
    let broken = |kind: &str, harm: &dyn Fn(&mut redis::Connection)| {
        let ran = run_and(&server.target(), &[("KEYS", "50"), ("SET_RATIO", "5"), ("DURATION", "2s")], || {
            harm(&mut server.oracle())
        });
        assert!(ran.code == 1 && ran.integrity(kind) > 0, "{kind}: {}", ran.out);
        assert_eq!(ran.results["verdict"]["correctness"], "BROKEN");
    };
    // A write of the load may come before the next read: what is wrong comes again and again.
    let put = |oracle: &mut redis::Connection, value: &str| {
        for _ in 0..20 {
            thread::sleep(Duration::from_millis(10));
            () = oracle.set("key-00000007", value).unwrap();
        }
    };
    broken("corrupt", &|oracle| put(oracle, "v:key-00000007:1:1:0"));
    broken("missing", &|oracle| redis::cmd("FLUSHALL").exec(oracle).unwrap());
    broken("wrong_object", &|oracle| {
        let other: String = oracle.get("key-00000008").unwrap();
        put(oracle, &other);
    });
    broken("stale_quorum", &|oracle| {
        let overwritten: String = oracle.get("key-00000007").unwrap();
        put(oracle, &overwritten);
    });
}

#[test]
fn what_a_restart_loses_is_counted_and_not_judged() {
    let Some(mut server) = Server::redis(&[]) else { return };
    let target = server.target();
    let settings = [("ERRORS_MAX_PERCENT", "100"), ("KEYS", "20000"), ("DURATION", "2s"), ("PREFILL", "true")];
    let ran = run_and(&target, &settings, || server.restart());
    assert_eq!((ran.code, &ran.results["verdict"]["correctness"]), (0, &"PASS".into()), "{}", ran.out);
    let lost = ran.results["integrity"]["explained"]["lost"].as_u64().unwrap();
    assert!(lost > 0 && ran.integrity("lost") == 0, "{}", ran.out);
    let sentence = "acknowledged writes lost: this target does not promise to keep them";
    assert!(fake::sentences(&ran.out).contains(sentence), "{}", ran.out);
    assert_eq!(ran.results["not_kept_because"], format!("{} was restarted", server.address()));
}

#[test]
fn memcached_passes_the_checker_and_evictions_explain_misses() {
    let Some(server) = Server::start("memcached", &["-m", "64"]) else { return };
    let Some(other) = Server::start("memcached", &["-m", "64"]) else { return };
    let target = |server: &Server| format!("memcached://{}", server.address());
    assert_sound(&run(&target(&server), &MIXTURE));
    let both = format!("{},{}", target(&server), target(&other));
    assert_sound(&run(&both, &[&MIXTURE[..], &[("SET_TTL_MS", "1000"), ("DURATION", "3s")]].concat()));
    assert_sound(&run(&target(&server), &[("KEYS", "50"), ("VALUE_BYTES", "20000")]));
    let oracle = memcache::connect(format!("memcache://{}", server.address())).unwrap();
    let value: String = oracle.get("key-00000007").unwrap().unwrap();
    assert!(value.starts_with("v:key-00000007:") && value.len() == 20_000, "{}", &value[..60]);
    let ran = run(&target(&server), &[("KEYS", "20000"), ("VALUE_BYTES", "8KiB")]);
    assert!(ran.code == 0 && ran.results["evicted"].as_u64().unwrap() > 0, "{}", ran.out);
}

#[test]
fn what_these_targets_cannot_do_is_refused_in_a_sentence() {
    let at_least_one_key = ("KEYS", "1");
    for (targets, setting, expected) in [
        ("redis://a:1,memcached://b:1", at_least_one_key, "expected one kind of target, not redis and memcached"),
        ("http://a:1,redis://b:1", at_least_one_key, "expected one kind of target, not http and redis"),
        (
            "redis://a:1",
            ("FAULTS", "at=100ms crash a"),
            "FAULTS=at=100ms crash a: expected none, because a redis target",
        ),
        (
            "redis://a:1",
            ("KILL_MODE", "random"),
            "KILL_MODE=random: expected none, because a redis target has no HTTP API",
        ),
        ("redis://a:1", ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"), "records no traces"),
        ("memcached://a:1", ("PROMETHEUS_URL", "http://p:9090"), "PROMETHEUS_URL=http://p:9090: expected none"),
        ("memcached://a:1", ("SET_TTL_MS", "1500"), "SET_TTL_MS=1500: expected whole seconds up to 30 days"),
        ("redis://127.0.0.1:1", at_least_one_key, "TARGETS: not reachable"),
    ] {
        let settings = [setting, ("KILL_TOKEN", "x"), ("KILL_AFTER", "100ms"), ("READY_WITHIN", "1s")];
        let (code, out) = told(&command(targets, &settings).output().unwrap());
        assert!(
            code == 2 && fake::sentences(&out).replace('\n', " ").contains(expected),
            "{targets} {setting:?}: {code} {out}"
        );
    }
}

/// A Redis Cluster of three masters with a replica each; nothing if there is no Redis.
fn cluster() -> Option<Vec<Server>> {
    let arguments = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--repl-diskless-sync-delay", "0"];
    let servers = (0..6).map(|_| Server::redis(&arguments)).collect::<Option<Vec<_>>>()?;
    let addresses: Vec<_> = servers.iter().map(Server::address).collect();
    let mut create = Command::new("redis-cli");
    create.args(["--cluster", "create"]).args(addresses).args(["--cluster-replicas", "1", "--cluster-yes"]);
    let output = create.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let told = |server: &Server, command: &str, about: &str| -> String {
        redis::cmd(command).arg(about).query(&mut server.oracle()).unwrap()
    };
    let knows_all = |server: &Server| told(server, "CLUSTER", "NODES").matches("slave ").count() == 3;
    let is_in_sync = |server: &&Server| told(server, "INFO", "replication").contains("master_link_status:up");
    eventually("all replicas to be in sync, and known to all", || {
        servers.iter().all(knows_all) && servers.iter().filter(is_in_sync).count() == 3
    });
    Some(servers)
}

/// What a node of the cluster says that it is: its id, and whether it is a master.
fn role(server: &Server) -> (String, bool) {
    let mut oracle = server.oracle();
    let id: String = redis::cmd("CLUSTER").arg("MYID").query(&mut oracle).unwrap();
    let info: String = redis::cmd("INFO").arg("replication").query(&mut oracle).unwrap();
    (id, info.contains("role:master"))
}

#[test]
fn a_redis_cluster_passes_the_checker_while_its_slots_move() {
    let Some(servers) = cluster() else { return };
    let masters: Vec<_> = servers.iter().map(role).filter(|(_, is_master)| *is_master).map(|(id, _)| id).collect();
    let reshard = || {
        let mut command = Command::new("redis-cli");
        command.args(["--cluster", "reshard", &servers[0].address(), "--cluster-from", &masters[0]]);
        command.args(["--cluster-to", &masters[1], "--cluster-slots", "300", "--cluster-yes"]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    };
    let settings = [("KEYS", "20000"), ("DURATION", "4s"), ("DELETE_RATIO", "10")];
    // Any node leads to all others.
    let ran = run_and(&servers[5].target(), &settings, reshard);
    assert_sound(&ran);
    assert_eq!(ran.results["setup"]["targets"].as_array().unwrap().len(), 6, "{}", ran.out);
    let rows = ran.results["rows"].as_array().unwrap().iter();
    let used = rows.filter(|row| row["table"] == "node" && row["label"].as_str().unwrap().starts_with("GET ")).count();
    assert_eq!(used, 3, "each master, and no replica: {}", ran.out);
}

#[test]
fn a_killed_masters_writes_are_found_lost_and_its_slots_served_again() {
    let Some(mut servers) = cluster() else { return };
    let victim = servers.iter().position(|server| role(server).1).unwrap();
    let target = servers.iter().find(|server| !role(server).1).unwrap().target();
    // Its replica takes nothing that the master acknowledges in its last seconds.
    let told: String = redis::cmd("INFO").arg("replication").query(&mut servers[victim].oracle()).unwrap();
    let port = told.split("port=").nth(1).unwrap().split(',').next().unwrap().to_owned();
    let replica = servers.iter().position(|server| server.port.to_string() == port).unwrap();
    let signal = |server: &Server, signal| {
        let pid = rustix::process::Pid::from_raw(server.child.id().cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    };
    let settings = [
        ("KEYS", "1000"),
        ("VALUE_BYTES", "128KiB"),
        ("SET_RATIO", "60"),
        ("DURATION", "4s"),
        // Until a replica has taken over.
        ("QUIESCENCE", "6s"),
        ("ERRORS_MAX_PERCENT", "100"),
        ("REQUEST_TIMEOUT", "1s"),
    ];
    let ran = run_and(&target, &settings, || {
        signal(&servers[replica], rustix::process::Signal::STOP);
        thread::sleep(Duration::from_secs(3));
        servers[victim].kill();
        signal(&servers[replica], rustix::process::Signal::CONT);
    });
    assert_eq!((ran.code, &ran.results["verdict"]["correctness"]), (0, &"PASS".into()), "{}", ran.out);
    let lost = ran.results["integrity"]["explained"]["lost"].as_u64().unwrap();
    assert!(lost > 0 && ran.integrity("lost") == 0, "{}", ran.out);
    assert!(ran.totals("errors") > 0, "{}", ran.out);
    assert_eq!(ran.results["sweep"]["unread"], 0, "a replica has taken over: {}", ran.out);
    assert!(ran.results["not_kept_because"].as_str().unwrap().ends_with(" went away"), "{}", ran.out);
}
