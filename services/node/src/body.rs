//! Bodies in memory. Those of requests are bounded three ways before they are in memory: bytes of one body, time of one body, and
//! bytes of all bodies of the process together. Large values count as long as anything of this node refers to them: a write to a slow
//! owner goes on after the write was acknowledged, and a client may be slow to read.

use std::{
    fmt::Display,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    body::HttpBody,
    http::{HeaderMap, StatusCode, header},
};
use bytes::Bytes;
use http_body_util::BodyExt;
use observability::Shed;
use tokio::time::timeout;

use crate::problem::Problem;

/// How much of a refused body is read and thrown away, so that a client that is still sending gets to read the answer
/// rather than a reset connection.
const DISCARD_BYTES_MAX: usize = 8 << 20;

/// How long a refused body is waited for.
const DISCARD_PATIENCE: Duration = Duration::from_millis(100);

/// Values above this count against the budget until the last reference to them is gone. Smaller ones are bounded by the number of
/// requests in flight.
const LARGE_BYTES: usize = 8 << 10;

/// How much longer than key and value a JSON body may be: an eighth of the value for escapes, and this for the rest.
const JSON_EXTRA_BYTES: usize = 4096;

/// The longest body of a write with keys and values of these lengths.
pub(crate) const fn body_bytes_max(key_bytes_max: usize, value_bytes_max: usize) -> usize {
    value_bytes_max + value_bytes_max / 8 + key_bytes_max + JSON_EXTRA_BYTES
}

/// Bytes of bodies in memory, over the whole process.
pub(crate) struct BodyBudget {
    bytes_max: usize,
    free: AtomicUsize,
    /// What is not free because of answers.
    answers: AtomicUsize,
}

impl BodyBudget {
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, free: AtomicUsize::new(bytes_max), answers: AtomicUsize::new(0) })
    }

    /// The value of an answer, which counts until it is dropped; nothing if answers have half of the budget already, or nothing is left.
    pub(crate) fn answer(self: &Arc<Self>, value: Bytes) -> Option<Bytes> {
        let bytes = value.len();
        // One alone may be larger.
        let more = |taken: usize| (taken == 0 || taken + bytes <= self.bytes_max / 2).then_some(taken + bytes);
        // Relaxed here and below: a count that orders nothing.
        self.answers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        if !self.take(bytes) {
            self.answers.fetch_sub(bytes, Ordering::Relaxed);
            return None;
        }
        Some(Bytes::from_owner(Held { value, taken: bytes, is_answer: true, budget: Arc::clone(self) }))
    }

    /// Bytes of bodies in memory now.
    pub(crate) fn taken(&self) -> usize {
        self.bytes_max.saturating_sub(self.free.load(Ordering::Relaxed))
    }

    fn take(&self, bytes: usize) -> bool {
        self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(bytes)).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.free.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A request's body, in a box or not.
pub(crate) trait RequestBody: HttpBody<Data = Bytes, Error: Display> + Unpin {}

impl<B: HttpBody<Data = Bytes, Error: Display> + Unpin> RequestBody for B {}

/// A value that counts against the budget until it is dropped.
struct Held {
    value: Bytes,
    taken: usize,
    is_answer: bool,
    budget: Arc<BodyBudget>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.value
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.is_answer {
            self.budget.answers.fetch_sub(self.taken, Ordering::Relaxed);
        }
        self.budget.give_back(self.taken);
    }
}

/// A whole body. Its bytes count against the budget until it is dropped.
pub(crate) struct Payload<'a> {
    bytes: Bytes,
    /// The bytes are in a buffer that has nothing else in it.
    is_alone: bool,
    taken: usize,
    budget: &'a Arc<BodyBudget>,
}

impl<'a> Payload<'a> {
    /// Reads a body of at most `bytes_max` bytes within `patience`.
    pub(crate) async fn read(
        mut body: impl RequestBody,
        headers: &HeaderMap,
        bytes_max: usize,
        patience: Duration,
        budget: &'a Arc<BodyBudget>,
    ) -> Result<Self, Problem> {
        let mut payload = Self { bytes: Bytes::new(), is_alone: false, taken: 0, budget };
        let read = timeout(patience, payload.fill(&mut body, bytes_max)).await.unwrap_or_else(|_| {
            let detail = format!("the body did not arrive within {} ms", patience.as_millis());
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body-timeout", detail).closing())
        });
        match read {
            Ok(()) => Ok(payload),
            Err(problem) => {
                // Not for a client that waits to be told to go on: reading would tell it so.
                if !headers.contains_key(header::EXPECT) {
                    discard(&mut body).await;
                }
                Err(problem)
            }
        }
    }

    /// The bytes. They may share memory with the connection's buffer: [`Payload::keep`] what is to live longer.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A part of the bytes to live longer: copied, unless that would be nearly all of a buffer of its own.
    pub(crate) fn keep(&self, part: &[u8]) -> Bytes {
        let is_most = part.len() >= self.bytes.len() / 8 * 7;
        if self.is_alone && is_most { self.bytes.slice_ref(part) } else { Bytes::copy_from_slice(part) }
    }

    /// Makes a value that was kept count in place of the body, if it is large.
    pub(crate) fn hold(mut self, value: Bytes) -> Bytes {
        if value.len() <= LARGE_BYTES {
            return value;
        }
        let taken = std::mem::take(&mut self.taken);
        Bytes::from_owner(Held { value, taken, is_answer: false, budget: Arc::clone(self.budget) })
    }

    /// So many bytes count now.
    fn count(&mut self, bytes: usize) -> Result<(), Problem> {
        if !self.budget.take(bytes.saturating_sub(self.taken)) {
            return Err(Problem::overloaded(Shed::Bytes).closing());
        }
        self.taken = self.taken.max(bytes);
        Ok(())
    }

    async fn fill(&mut self, body: &mut impl RequestBody, bytes_max: usize) -> Result<(), Problem> {
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > bytes_max {
            return Err(too_large(announced, bytes_max));
        }
        // Most bodies are one chunk, which is then not copied.
        let (mut collected, mut read): (Vec<u8>, usize) = (Vec::new(), 0);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                Problem::bad_request("body-broken", format!("the body broke off or is malformed: {error}")).closing()
            })?;
            let Ok(chunk) = frame.into_data() else { continue };
            read += chunk.len();
            if read > bytes_max {
                return Err(too_large(read, bytes_max));
            }
            self.count(read)?;
            if self.bytes.is_empty() && collected.is_empty() {
                self.bytes = chunk;
                continue;
            }
            if collected.is_empty() {
                self.count(announced)?;
                collected.reserve_exact(announced.max(read));
                collected.extend_from_slice(&std::mem::take(&mut self.bytes));
            }
            collected.extend_from_slice(&chunk);
        }
        if !collected.is_empty() {
            self.is_alone = collected.len() == collected.capacity();
            self.bytes = collected.into();
        }
        Ok(())
    }
}

impl Drop for Payload<'_> {
    fn drop(&mut self) {
        self.budget.give_back(self.taken);
    }
}

fn too_large(bytes: usize, bytes_max: usize) -> Problem {
    let detail = format!(
        "the body has {bytes} bytes or more, and {bytes_max} are allowed; values that grow when JSON-escaped can be \
         sent raw, \
         as application/octet-stream to /set?k=KEY"
    );
    Problem::too_large("value-too-large", detail).closing()
}

async fn discard(body: &mut impl RequestBody) {
    let mut discarded = 0;
    while let Ok(Some(Ok(frame))) = timeout(DISCARD_PATIENCE, body.frame()).await {
        discarded += frame.data_ref().map_or(0, Bytes::len);
        if discarded > DISCARD_BYTES_MAX {
            return;
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use std::{
        pin::Pin,
        task::{Context, Poll},
    };

    use axum::body::Body;
    use hyper::body::{Frame, SizeHint};

    use super::*;

    /// Yields its chunks, then stays silent for ever if `hangs`.
    struct Chunks {
        chunks: Vec<&'static [u8]>,
        hangs: bool,
    }

    impl HttpBody for Chunks {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            if self.chunks.is_empty() {
                return if self.hangs { Poll::Pending } else { Poll::Ready(None) };
            }
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(self.chunks.remove(0))))))
        }

        /// One that hangs has announced as much as is allowed.
        fn size_hint(&self) -> SizeHint {
            if self.hangs { SizeHint::with_exact(8) } else { SizeHint::default() }
        }
    }

    async fn read(chunks: &[&'static [u8]], hangs: bool, budget: &Arc<BodyBudget>) -> Result<Vec<u8>, String> {
        let body = Body::new(Chunks { chunks: chunks.to_vec(), hangs });
        let read = Payload::read(body, &HeaderMap::new(), 8, Duration::from_millis(20), budget).await;
        read.map(|payload| payload.bytes().to_vec()).map_err(|problem| format!("{problem:?}"))
    }

    #[tokio::test]
    async fn chunks_are_put_together_up_to_the_limit() {
        let budget = BodyBudget::new(100);
        assert_eq!(read(&[], false, &budget).await, Ok(vec![]));
        assert_eq!(read(&[b"abc"], false, &budget).await, Ok(b"abc".to_vec()));
        assert_eq!(read(&[b"abcd", b"ef", b"gh"], false, &budget).await, Ok(b"abcdefgh".to_vec()));
        assert!(read(&[b"abcd", b"efghi"], false, &budget).await.is_err_and(|problem| problem.contains("413")));
        // All of it was given back.
        assert!(budget.take(100) && !budget.take(1));
    }

    #[tokio::test]
    async fn what_is_nearly_all_of_a_buffer_is_not_copied() {
        let budget = BodyBudget::new(100);
        for (chunks, part, is_shared) in
            [(&[b"abcdef" as &[u8], b"gh"][..], 7, true), (&[b"abcdef", b"gh"], 6, false), (&[b"abcdefgh"], 7, false)]
        {
            let body = Body::new(Chunks { chunks: chunks.to_vec(), hangs: false });
            let payload = Payload::read(body, &HeaderMap::new(), 8, Duration::from_secs(1), &budget).await.unwrap();
            let part = &payload.bytes()[8 - part..];
            let kept = payload.keep(part);
            assert_eq!((&kept[..], kept.as_ptr() == part.as_ptr()), (part, is_shared), "{chunks:?}");
        }
    }

    #[tokio::test]
    async fn a_body_without_end_is_given_up() {
        let budget = BodyBudget::new(100);
        assert!(read(&[b"abc"], true, &budget).await.is_err_and(|problem| problem.contains("408")));
        assert!(budget.take(100));
    }

    #[tokio::test]
    async fn all_bodies_together_are_bounded() {
        let budget = BodyBudget::new(5);
        assert!(read(&[b"abc", b"def"], false, &budget).await.is_err_and(|problem| problem.contains("503")));
        assert_eq!(read(&[b"abc", b"de"], false, &budget).await, Ok(b"abcde".to_vec()));
    }

    #[tokio::test]
    async fn a_large_value_counts_until_its_last_reference_is_gone() {
        static LARGE: [u8; LARGE_BYTES + 1] = [7; LARGE_BYTES + 1];
        let budget = BodyBudget::new(2 * LARGE.len());
        let body = Body::new(Chunks { chunks: vec![&LARGE[..LARGE_BYTES], &LARGE[LARGE_BYTES..]], hangs: false });
        let bytes_max = LARGE.len();
        let read = Payload::read(body, &HeaderMap::new(), bytes_max, Duration::from_secs(1), &budget).await;
        let payload = read.unwrap();
        let value = payload.keep(payload.bytes());
        let value = payload.hold(value);
        let to_a_slow_owner = value.clone();
        drop(value);
        assert_eq!((&to_a_slow_owner[..], budget.taken()), (&LARGE[..], LARGE.len()));
        drop(to_a_slow_owner);
        assert_eq!(budget.taken(), 0);
    }

    #[tokio::test]
    async fn answers_leave_half_of_the_budget_to_requests() {
        let budget = BodyBudget::new(100);
        let value = Bytes::from_static(&[7; 25]);
        let mut answers: Vec<Bytes> = (0..2).map(|_| budget.answer(value.clone()).unwrap()).collect();
        assert!(budget.answer(value.clone()).is_none());
        assert_eq!(read(&[b"abc"], false, &budget).await, Ok(b"abc".to_vec()));
        answers.pop();
        assert_eq!(budget.answer(value.clone()), Some(value.clone()));
        drop(answers);
        assert!(budget.answer(Bytes::from_static(&[7; 60])).is_some(), "one alone");
        // What requests take is not the answers' half.
        assert!(budget.take(60));
        let answer = budget.answer(value.clone());
        assert!(answer.is_some() && budget.answer(value.clone()).is_none(), "all of it is taken");
        drop(answer);
        budget.give_back(60);
        assert_eq!((budget.taken(), budget.answers.load(Ordering::Relaxed)), (0, 0));
    }

    #[tokio::test]
    async fn what_is_announced_counts_once_there_is_room_for_it() {
        let budget = BodyBudget::new(100);
        let look = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            budget.taken()
        };
        let (read, taken) = tokio::join!(read(&[b"ab", b"cd"], true, &budget), look);
        assert!(read.is_err_and(|problem| problem.contains("408")));
        assert_eq!((taken, budget.taken()), (8, 0));
    }
}
