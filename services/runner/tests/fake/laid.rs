//! The faults that were laid on a fake node: it counts packets it never had, and its clock and its silence are real.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

/// Packets that a fault is said to have met.
const PACKETS: u64 = 7;

#[derive(Debug, Default)]
pub struct Laid {
    pub orders: Vec<Value>,
    pub healed: usize,
    dropped: u64,
    delayed: u64,
    duplicated: u64,
    offset_ms: i64,
    offset_until: Option<Instant>,
    paused_until: Option<Instant>,
}

impl Laid {
    pub fn lay(&mut self, order: &str, obeys: bool) {
        let order: Value = serde_json::from_str(order).unwrap();
        if obeys {
            for link in order["links"].as_array().unwrap() {
                let is = |field: &str| link[field] != Value::Bool(false) && link[field].as_f64() != Some(0.0);
                self.dropped += if is("cut") || is("loss") { PACKETS } else { 0 };
                self.delayed += if is("delay_ms") || is("jitter_ms") { PACKETS } else { 0 };
                self.duplicated += if is("duplicate") { PACKETS } else { 0 };
            }
            self.delayed += if order["slow_ms"] == 0 { 0 } else { PACKETS };
            self.offset_ms = order["clock_offset_ms"].as_i64().unwrap();
            self.offset_until = Some(Instant::now() + Duration::from_millis(order["for_ms"].as_u64().unwrap()));
        }
        self.orders.push(order);
    }

    pub fn heal(&mut self) {
        self.healed += 1;
        self.offset_until = None;
    }

    pub fn pause(&mut self, time: Duration) {
        self.paused_until = Some(Instant::now() + time);
    }

    pub fn pause_left(&self) -> Duration {
        self.paused_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    /// What its clock says.
    pub fn unix_ms(&self) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let is_off = self.offset_until.is_some_and(|until| Instant::now() < until);
        i64::try_from(now).unwrap() + if is_off { self.offset_ms } else { 0 }
    }

    /// As in `/stats`.
    pub fn packets(&self) -> String {
        let Self { dropped, delayed, duplicated, .. } = self;
        format!(
            "\"fault_packets_dropped\":{dropped},\"fault_packets_delayed\":{delayed},\
            \"fault_packets_duplicated\":{duplicated}"
        )
    }
}
