//! What common clients send: curl, nc, proxies, and the libraries of other languages.

use std::{
    io::{Read, Write},
    time::{Duration, Instant},
};

use reqwest::StatusCode;
use serde_json::json;

use super::{DEADLINE, NodeProcess, assert_problem, header};

#[tokio::test]
async fn what_common_clients_send_is_understood() {
    let node = NodeProcess::start(&[]).await;
    // curl -d says that JSON is a form, and form encoding says that a space is a plus.
    let form = "application/x-www-form-urlencoded";
    assert_eq!(node.post("/set", form, r#"{"k":"a b","v":"spaced"}"#).await.status(), StatusCode::OK);
    assert_eq!(node.post("/set", "text/plain", r#"{"k":"a+b","v":"plus"}"#).await.status(), StatusCode::OK);
    for (path, value) in [("/get?k=a+b", "spaced"), ("/get?k=a%20b", "spaced"), ("/get?k=a%2Bb", "plus")] {
        assert_eq!(node.get(path).await.text().await.unwrap(), value, "{path}");
    }
}

#[tokio::test]
async fn a_request_names_one_host() {
    let node = NodeProcess::start(&[]).await;
    for (head, status) in [
        ("GET /get?k=a HTTP/1.1\r\nConnection: close\r\n\r\n", "HTTP/1.1 400 "),
        ("GET /get?k=a HTTP/1.1\r\nHost: a\r\nHost: a\r\nConnection: close\r\n\r\n", "HTTP/1.1 400 "),
        ("GET http://x/get?k=a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 404 "),
        ("GET /get?k=a HTTP/1.0\r\n\r\n", "HTTP/1.0 404 "),
    ] {
        let answer = node.raw(head.as_bytes());
        assert!(answer.starts_with(status), "{head}: {answer}");
    }
}

#[tokio::test]
async fn each_answer_says_where_its_time_went() {
    let node = NodeProcess::start(&[]).await;
    let deadline = Instant::now() + DEADLINE;
    loop {
        let answer = node.get("/get?k=a").await;
        let timing = header(&answer, "server-timing");
        let names: Vec<_> = timing.split(", ").filter_map(|part| part.split_once(";dur=")).map(|part| part.0).collect();
        if !cfg!(target_os = "linux") {
            assert_eq!(names, ["mesh", "handler"], "{timing}");
            break;
        }
        // The kernel begins to take timestamps a moment after the first socket has asked for them.
        if names == ["queue", "mesh", "handler"] {
            break;
        }
        assert_eq!(names, ["mesh", "handler"], "{timing}");
        assert!(Instant::now() < deadline, "no timestamps within {DEADLINE:?}");
    }
}

#[tokio::test]
async fn a_head_that_is_too_long_is_told_so() {
    let node = NodeProcess::start(&[]).await;
    let path = format!("GET /get?k={} HTTP/1.1\r\nHost: x\r\n\r\n", "k".repeat(70_000));
    let headers = format!("GET /get?k=a HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(1000));
    for (head, status) in [(path, "HTTP/1.1 431 "), (headers, "HTTP/1.1 431 ")] {
        let answer = node.raw(head.as_bytes());
        assert!(answer.starts_with(status), "{answer}");
    }
}

/// As `nc -N` and some proxies do.
#[tokio::test]
async fn a_client_that_sends_no_more_is_answered() {
    let node = NodeProcess::start(&[]).await;
    let value = "v".repeat(1 << 20);
    let head = format!(
        "POST /set?k=large HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\n\r\n",
        value.len()
    );
    let half_closed = |request: &[u8]| {
        let mut stream = node.connect();
        stream.write_all(request).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    };
    let answer = half_closed(&[head.as_bytes(), value.as_bytes()].concat());
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    for consistency in ["one", "quorum"] {
        for _ in 0..20 {
            let get = format!("GET /get?k=large&consistency={consistency} HTTP/1.1\r\nHost: x\r\n\r\n");
            let answer = half_closed(get.as_bytes());
            assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(&value), "{} bytes", answer.len());
        }
    }
    // Half a request is none.
    let started = Instant::now();
    let answer = half_closed(b"POST /set HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc");
    assert!(!answer.contains(" 200 "), "{answer}");
    assert!(started.elapsed() < Duration::from_secs(5), "after {:?}", started.elapsed());
}

#[tokio::test]
async fn a_session_from_the_future_is_told_so() {
    let node = NodeProcess::start(&[]).await;
    assert_eq!(node.set(json!({"k": "a", "v": "x"})).await.status(), StatusCode::OK);
    for key in ["a", "none"] {
        let url = node.url(&format!("/get?k={key}&consistency=session"));
        let response = node.client.get(url).header("X-Mesh-Min-Version", "f".repeat(32)).send().await.unwrap();
        assert_problem(response, 400, "ahead of this node's clock").await;
    }
}
