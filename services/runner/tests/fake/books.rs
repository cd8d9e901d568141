//! What a fake node counts of its operations, as a node does.

use std::{collections::BTreeMap, fmt::Write, sync::Mutex};

/// By operation and outcome.
#[derive(Debug, Default)]
pub struct Books(Mutex<BTreeMap<(&'static str, &'static str), u64>>);

impl Books {
    /// Counts an operation by its answer, or several as the node sees fit.
    pub fn enter(&self, path: &str, response: &str, times: u64) {
        let op = match path {
            "/get" => "get",
            "/set" => "set",
            "/del" => "delete",
            _ => return,
        };
        let outcome = match response.split(' ').nth(1) {
            Some("200") if op != "get" => "acknowledged",
            Some("200") if response.contains("HIT_LOCAL") => "hit_local",
            Some("200") => "hit_remote",
            Some("404") => "miss",
            _ if response.contains("mesh:overloaded") => "",
            _ => "unavailable",
        };
        *self.0.lock().unwrap().entry((op, outcome)).or_default() += times;
    }

    /// As `GET /metrics` tells it.
    pub fn metrics(&self) -> String {
        let mut text = String::from("process_start_time_seconds{node=\"fake\"} 1\n");
        for ((op, outcome), count) in &*self.0.lock().unwrap() {
            // What admission control shed is no operation.
            let series = match *outcome {
                "" => format!("mesh_http_requests_shed_total{{node=\"fake\",reason=\"{op}\"}}"),
                outcome => format!("mesh_requests_total{{node=\"fake\",op=\"{op}\",outcome=\"{outcome}\"}}"),
            };
            writeln!(text, "{series} {count}").unwrap();
        }
        text
    }
}
