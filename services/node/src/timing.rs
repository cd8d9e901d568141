//! `Server-Timing` (W3C): where a request's time went on this node, for a client that measured all of it from outside.

use std::time::Duration;

use arrayvec::ArrayVec;
use axum::http::HeaderValue;
use mesh_proto::{LEGS_MAX, LegOutcome, LegRecord, OpRecord};

/// The legs of an operation that took longer are listed, too. Below it they would cost more than they explain.
const LEGS_FROM: Duration = Duration::from_millis(1);

/// Three figures and `LEGS_MAX` legs fit.
const BYTES_MAX: usize = 108 + 112 * LEGS_MAX;

/// `queue;dur=…` for the time from the kernel's receipt of the request to its handler, if that is known, `mesh;dur=…` for the mesh's part, if there was one, `handler;dur=…` for all from a request's head to its answer, and
/// `leg;dur=…;desc="peer outcome";queue=…;peer-queue=…` for each leg of a slow operation, with what of it was spent in this node's and in
/// the peer's queue, if that is known; in milliseconds.
pub(crate) fn header(queued: Option<Duration>, handler: Duration, record: Option<&OpRecord>) -> HeaderValue {
    let mut out = ArrayVec::new();
    if let Some(queued) = queued {
        push(&mut out, b"queue;dur=");
        push_millis(&mut out, queued);
        push(&mut out, b", ");
    }
    if let Some(record) = record {
        push(&mut out, b"mesh;dur=");
        push_millis(&mut out, record.took);
        push(&mut out, b", ");
    }
    push(&mut out, b"handler;dur=");
    push_millis(&mut out, handler);
    if let Some(record) = record.filter(|record| record.took > LEGS_FROM) {
        record.legs.iter().for_each(|leg| push_leg(&mut out, leg));
    }
    HeaderValue::from_bytes(&out).unwrap_or(HeaderValue::from_static(""))
}

fn push_leg(out: &mut ArrayVec<u8, BYTES_MAX>, leg: &LegRecord) {
    push(out, b", leg;dur=");
    push_millis(out, leg.ended.saturating_sub(leg.started));
    push(out, b";desc=\"");
    let id = leg.peer.get();
    (0..16).rev().for_each(|digit| push(out, &[b"0123456789abcdef"[(id >> (4 * digit) & 15) as usize]]));
    push(out, if leg.hedged { b" hedge " } else { b" " });
    push(out, outcome(leg.outcome));
    push(out, b"\"");
    let (own, peer) = leg.queued();
    for (name, queued) in [(&b";queue="[..], own), (b";peer-queue=", peer)] {
        if !queued.is_zero() {
            push(out, name);
            push_millis(out, queued);
        }
    }
}

const fn outcome(outcome: LegOutcome) -> &'static [u8] {
    match outcome {
        LegOutcome::Won => b"won",
        LegOutcome::Lost => b"lost",
        LegOutcome::Cancelled => b"cancelled",
        LegOutcome::TimedOut => b"timed out",
        LegOutcome::Failed => b"failed",
        LegOutcome::Pending => b"pending",
    }
}

/// Milliseconds with three decimals.
fn push_millis(out: &mut ArrayVec<u8, BYTES_MAX>, took: Duration) {
    // Beyond what a request can take, digits would only need room.
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).min(999_999_999_999);
    let mut digits = [b'0'; 13];
    let (mut rest, mut at) = (micros, digits.len());
    while at > digits.len() - 5 || rest > 0 {
        at -= 1;
        if at == digits.len() - 4 {
            digits[at] = b'.';
        } else {
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }
    push(out, &digits[at..]);
}

/// What does not fit is left out, which the bound on legs prevents.
fn push(out: &mut ArrayVec<u8, BYTES_MAX>, bytes: &[u8]) {
    let fits = out.try_extend_from_slice(bytes);
    debug_assert!(fits.is_ok());
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use mesh_proto::{KeyHash, LegQueues, Micros, Monotonic, NodeId, OpOutcome, OperationKind};

    use super::*;

    fn record(took: Duration, legs: usize) -> OpRecord {
        let leg = LegRecord {
            peer: NodeId::new(0xabc),
            hedged: true,
            outcome: LegOutcome::Cancelled,
            started: Duration::from_millis(1),
            ended: Duration::MAX,
            queues: LegQueues::default(),
        };
        OpRecord {
            op: OperationKind::Get,
            outcome: OpOutcome::HitRemote,
            took,
            started: Monotonic::default(),
            hash: KeyHash::of(b"k"),
            version: None,
            trace: None,
            legs: std::iter::repeat_n(leg, legs).collect(),
        }
    }

    #[test]
    fn timings_are_milliseconds_with_three_decimals() {
        for (micros, expected) in [
            (0, "handler;dur=0.000"),
            (7, "handler;dur=0.007"),
            (123, "handler;dur=0.123"),
            (1_000, "handler;dur=1.000"),
            (3_045_600, "handler;dur=3045.600"),
            (u64::MAX, "handler;dur=999999999.999"),
        ] {
            assert_eq!(header(None, Duration::from_micros(micros), None), expected);
        }
    }

    #[test]
    fn a_fast_operation_shows_its_duration_and_no_legs() {
        let handler = Duration::from_micros(500);
        let of_mesh = record(Duration::from_micros(400), 1);
        assert_eq!(header(None, handler, Some(&of_mesh)), "mesh;dur=0.400, handler;dur=0.500");
        assert_eq!(header(None, handler, None), "handler;dur=0.500");
        let queued = Some(Duration::from_micros(30));
        assert_eq!(header(queued, handler, Some(&of_mesh)), "queue;dur=0.030, mesh;dur=0.400, handler;dur=0.500");
    }

    #[test]
    fn a_slow_operation_shows_its_legs_and_all_fit() {
        let shown = header(None, Duration::from_secs(3), Some(&record(Duration::from_millis(2), 1)));
        let expected =
            "mesh;dur=2.000, handler;dur=3000.000, leg;dur=999999999.999;desc=\"0000000000000abc hedge cancelled\"";
        assert_eq!(shown, expected);
        let mut all = record(Duration::MAX, LEGS_MAX);
        for leg in &mut all.legs {
            leg.queues = LegQueues { own: Micros::new(u32::MAX), peer: Micros::new(u32::MAX) };
        }
        let shown = header(Some(Duration::MAX), Duration::MAX, Some(&all));
        assert_eq!(shown.to_str().unwrap().matches("leg;").count(), LEGS_MAX);
        assert!(shown.to_str().unwrap().ends_with("cancelled\";queue=4294967.295;peer-queue=4294967.295"));
        // At most as long as the leg, and the own queue first.
        (all.legs[0].ended, all.legs[0].queues.own) = (Duration::from_millis(10), Micros::new(2500));
        let shown = header(None, Duration::ZERO, Some(&all));
        assert!(
            shown
                .to_str()
                .unwrap()
                .contains("leg;dur=9.000;desc=\"0000000000000abc hedge cancelled\";queue=2.500;peer-queue=6.500,"),
            "{shown:?}"
        );
    }
}
