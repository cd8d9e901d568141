//! A large value as an answer's body, in pieces: HTTP copies what it is given before it writes, and would hold a copy of the whole
//! for every client that does not read.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use crate::body::BodyBudget;

/// What is copied at a time, into a buffer that the connection keeps. Smaller values are given whole.
pub(crate) const PIECE_BYTES: usize = 32 << 10;

/// The body for a value; nothing if large answers that clients have not read yet take too much memory.
pub(crate) fn body(value: Bytes, budget: &Arc<BodyBudget>) -> Option<Body> {
    if value.len() <= PIECE_BYTES { Some(Body::from(value)) } else { Some(Body::new(Pieces(budget.answer(value)?))) }
}

/// What is left of a value.
struct Pieces(Bytes);

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.0.is_empty() {
            return Poll::Ready(None);
        }
        let bytes = self.0.len().min(PIECE_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.0.split_to(bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn pieces_make_the_whole() {
        for bytes in [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES] {
            let value = Bytes::from((0..bytes).map(|at| at.to_le_bytes()[0]).collect::<Vec<_>>());
            let mut body = body(value.clone(), &BodyBudget::new(6 * PIECE_BYTES)).unwrap();
            assert_eq!(body.size_hint().exact(), Some(bytes as u64));
            let mut whole = Vec::new();
            while let Some(frame) = body.frame().await {
                let piece = frame.unwrap().into_data().unwrap();
                assert!(piece.len() <= PIECE_BYTES);
                whole.extend_from_slice(&piece);
            }
            assert_eq!(whole, value);
        }
    }
}
