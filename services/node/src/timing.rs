//! `Server-Timing` (W3C): where a request's time went on this node, for whoever measured all of it from outside. The mesh tells
//! of every operation on the thread that answers it, so what it said last waits here for the answer to be made.

use std::{cell::RefCell, time::Duration};

use arrayvec::ArrayVec;
use axum::http::HeaderValue;
use mesh_proto::{LEGS_MAX, LegOutcome, LegRecord, OpRecord};

/// An operation that took longer tells of its legs, too. Below it they would cost more than they explain.
const LEGS_FROM: Duration = Duration::from_millis(1);

/// Two figures and `LEGS_MAX` legs fit.
const BYTES_MAX: usize = 80 + 64 * LEGS_MAX;

thread_local! {
    static LAST: RefCell<Last> = const { RefCell::new(Last { took: None, legs: ArrayVec::new_const() }) };
}

struct Last {
    took: Option<Duration>,
    legs: ArrayVec<LegRecord, LEGS_MAX>,
}

/// An operation has ended on this thread. Its answer is made right behind it, with nothing awaited in between.
pub(crate) fn note(record: &OpRecord) {
    LAST.with_borrow_mut(|last| {
        last.took = Some(record.took);
        last.legs.clear();
        if record.took > LEGS_FROM {
            last.legs.clone_from(&record.legs);
        }
    });
}

/// `mesh;dur=…` for the mesh's part, if there was one, `handler;dur=…` for all from a request's head to its answer, and
/// `leg;dur=…;desc="peer outcome"` for each leg of a slow operation; in milliseconds.
pub(crate) fn header(handler: Duration) -> HeaderValue {
    let mut out = ArrayVec::new();
    LAST.with_borrow_mut(|last| {
        if let Some(took) = last.took.take().filter(|took| *took <= handler) {
            push(&mut out, b"mesh;dur=");
            push_millis(&mut out, took);
            push(&mut out, b", ");
        }
        push(&mut out, b"handler;dur=");
        push_millis(&mut out, handler);
        last.legs.drain(..).for_each(|leg| push_leg(&mut out, &leg));
    });
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
    use mesh_proto::{KeyHash, Monotonic, NodeId, Op, OpOutcome};

    use super::*;

    fn record(took: Duration, legs: usize) -> OpRecord {
        let leg = LegRecord {
            peer: NodeId::new(0xabc),
            hedged: true,
            outcome: LegOutcome::Cancelled,
            started: Duration::from_millis(1),
            ended: Duration::MAX,
        };
        OpRecord {
            op: Op::Get,
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
            assert_eq!(header(Duration::from_micros(micros)), expected);
        }
    }

    #[test]
    fn what_the_mesh_did_is_told_once() {
        let handler = Duration::from_micros(500);
        note(&record(Duration::from_micros(400), 1));
        assert_eq!(header(handler), "mesh;dur=0.400, handler;dur=0.500");
        assert_eq!(header(handler), "handler;dur=0.500");
        note(&record(Duration::from_micros(501), 0));
        assert_eq!(header(handler), "handler;dur=0.500", "another request's");
    }

    #[test]
    fn slow_operations_tell_of_their_legs_and_all_fit() {
        note(&record(Duration::from_millis(2), 1));
        let told = header(Duration::from_secs(3));
        let expected =
            "mesh;dur=2.000, handler;dur=3000.000, leg;dur=999999999.999;desc=\"0000000000000abc hedge cancelled\"";
        assert_eq!(told, expected);
        note(&record(Duration::MAX, LEGS_MAX));
        let told = header(Duration::MAX);
        assert_eq!(told.to_str().unwrap().matches("leg;").count(), LEGS_MAX);
        assert!(told.to_str().unwrap().ends_with('"'));
    }
}
