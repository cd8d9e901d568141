//! The caller's trace, as it travels with every leg of an operation. The ids of an operation's spans follow from one number,
//! so that nothing has to be kept for them while it runs.

/// 26 bytes that join the work on a peer to the caller's trace: version (0), trace id (16), span id (8), flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext(pub [u8; 26]);

impl TraceContext {
    /// The W3C flag that says: the caller has decided to keep this trace.
    const SAMPLED: u8 = 1;

    /// A context whose span is the parent of whatever is done with it.
    #[must_use]
    pub fn new(trace: u128, span: u64, sampled: bool) -> Self {
        let mut bytes = [0; 26];
        bytes[1..17].copy_from_slice(&trace.to_be_bytes());
        bytes[17..25].copy_from_slice(&span.to_be_bytes());
        bytes[25] = u8::from(sampled) * Self::SAMPLED;
        Self(bytes)
    }

    /// The trace's id; not zero in a trace that means anything.
    #[must_use]
    pub fn trace_id(self) -> u128 {
        self.0[1..17].iter().fold(0, |id, byte| (id << 8) | u128::from(*byte))
    }

    /// The id of the span that this context stands for.
    #[must_use]
    pub fn span_id(self) -> u64 {
        self.0[17..25].iter().fold(0, |id, byte| (id << 8) | u64::from(*byte))
    }

    /// Whether it was decided before the work began that this trace is kept.
    #[must_use]
    pub const fn is_sampled(self) -> bool {
        self.0[25] & Self::SAMPLED != 0
    }

    /// The span of the operation itself, a child of this one.
    #[must_use]
    pub const fn operation_span(span: u64) -> u64 {
        span.wrapping_add(1)
    }

    /// The span of the operation's leg number `leg`.
    #[must_use]
    pub const fn leg_span(span: u64, leg: usize) -> u64 {
        span.wrapping_add(2 + leg as u64)
    }

    /// What travels with leg number `leg` of any attempt. A leg that the flight record has no room for would be a child of
    /// the operation.
    #[must_use]
    pub fn of_leg(self, leg: usize) -> Self {
        let span = self.span_id();
        let span = if leg < crate::LEGS_MAX { Self::leg_span(span, leg) } else { Self::operation_span(span) };
        Self::new(self.trace_id(), span, self.is_sampled())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let context = TraceContext::new(u128::MAX - 1, 7, true);
        assert_eq!((context.trace_id(), context.span_id(), context.is_sampled()), (u128::MAX - 1, 7, true));
        assert_eq!(context.0[0], 0);
        assert!(!TraceContext::new(1, 2, false).is_sampled());
    }

    #[test]
    fn every_leg_has_a_span_of_its_own_until_the_record_is_full() {
        let context = TraceContext::new(1, u64::MAX - 3, false);
        let spans: std::collections::HashSet<u64> =
            (0..crate::LEGS_MAX).map(|leg| context.of_leg(leg).span_id()).collect();
        assert_eq!(spans.len(), crate::LEGS_MAX);
        let operation = TraceContext::operation_span(context.span_id());
        assert!(!spans.contains(&operation) && !spans.contains(&context.span_id()));
        assert_eq!(context.of_leg(crate::LEGS_MAX).span_id(), operation);
        assert_eq!(context.of_leg(0).trace_id(), 1);
    }
}
