//! Asks a Prometheus that watches the nodes for their p99, for the comparison with what the client saw.

use std::time::Duration;

use load::Op;
use observability::p99_query;
use percent_encoding::utf8_percent_encode;
use reqwest::Client;
use serde_json::Value;

use crate::{
    access::{RESERVED, reason},
    traces::op_label,
};

/// How long after the load it is asked: its last scrape should be of a time after the load, and it scrapes every second.
const SCRAPE_EVERY: Duration = Duration::from_secs(1);

/// Where it is, and under what addresses it knows the nodes.
#[derive(Clone, Debug)]
pub(crate) struct Prometheus {
    pub(crate) url: String,
    pub(crate) instances: Vec<String>,
}

impl Prometheus {
    /// The nodes' p99 over the last `window`, by operation, in seconds.
    ///
    /// # Errors
    /// A sentence, for the summary.
    pub(crate) async fn p99(&self, client: &Client, window: Duration) -> Result<[Option<f64>; Op::ALL.len()], String> {
        tokio::time::sleep(SCRAPE_EVERY).await;
        let query = p99_query(&self.instances, window + SCRAPE_EVERY);
        let url = format!("{}/api/v1/query?query={}", self.url, utf8_percent_encode(&query, RESERVED));
        let failed = |reason: String| format!("PROMETHEUS_URL={}: {reason}", self.url);
        let response = client.get(url).send().await.map_err(|error| failed(reason(&error)))?;
        let status = response.status();
        let answer = response.json::<Value>().await.map_err(|_| failed(format!("{status}, and no answer in JSON")))?;
        parse(&answer).map_err(failed)
    }
}

fn parse(answer: &Value) -> Result<[Option<f64>; Op::ALL.len()], String> {
    if answer["status"] != "success" {
        return Err(format!("it says {}", answer["error"].as_str().unwrap_or("no success")));
    }
    let found = answer["data"]["result"].as_array().map_or(&[][..], Vec::as_slice);
    if found.is_empty() {
        return Err("it knows nothing of these nodes: does it scrape them, under the addresses in TARGETS?".to_owned());
    }
    let seconds = |op: Op| {
        let series = found.iter().find(|series| series["metric"]["op"] == op_label(op))?;
        series["value"][1].as_str()?.parse().ok().filter(|seconds: &f64| seconds.is_finite())
    };
    Ok(Op::ALL.map(seconds))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[test]
    fn an_answer_has_a_figure_for_every_operation_that_was_asked_for() {
        let result = json!([
            {"metric": {"op": "set"}, "value": [1.0, "0.0125"]},
            {"metric": {"op": "get"}, "value": [1.0, "0.001"]},
            {"metric": {"op": "delete"}, "value": [1.0, "NaN"]},
        ]);
        let answer = json!({"status": "success", "data": {"result": result}});
        assert_eq!(parse(&answer), Ok([Some(0.001), Some(0.0125), None]));
        let reason = |answer| parse(&answer).unwrap_err();
        assert!(reason(json!({"status": "success", "data": {"result": []}})).contains("does it scrape them"));
        assert_eq!(reason(json!({"status": "error", "error": "bad query"})), "it says bad query");
        assert_eq!(reason(json!(["other"])), "it says no success");
    }

    #[tokio::test]
    async fn a_server_that_is_no_prometheus_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 4096];
            let read = stream.read(&mut buffer).await.unwrap();
            stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno").await.unwrap();
            String::from_utf8_lossy(&buffer[..read]).into_owned()
        };
        let asked = Prometheus { url: url.clone(), instances: vec!["node1:8081".to_owned()] };
        let client = crate::access::Access::default().client().build().unwrap();
        let (request, found) = tokio::join!(serve, asked.p99(&client, Duration::from_secs(9)));
        assert!(request.starts_with("GET /api/v1/query?query=histogram_quantile%280.99"), "{request}");
        assert!(request.contains("node1%3A8081") && request.contains("%5B10s%5D"), "{request}");
        assert_eq!(found.unwrap_err(), format!("PROMETHEUS_URL={url}: 404 Not Found, and no answer in JSON"));
        let nobody = Prometheus { url: "http://127.0.0.1:1".to_owned(), ..asked };
        let reason = nobody.p99(&client, Duration::from_secs(9)).await.unwrap_err();
        assert!(reason.starts_with("PROMETHEUS_URL=http://127.0.0.1:1: "), "{reason}");
    }
}
