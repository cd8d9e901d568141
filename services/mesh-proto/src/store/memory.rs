//! What segments are written into. A full-sized one is a piece of a region of huge pages: a look-up reads records all over the
//! store, and with pages of 4 KiB each such read begins with a search for where the page is, which takes longer than the read
//! (docs/STORE.md has the figures). A piece that is given back goes to the next segment or to the system, so that what is resident
//! is what is held.

use mmap_rs::{MmapFlags, MmapMut, MmapOptions};
use parking_lot::Mutex;

use super::segments::SEGMENT_BYTES_MAX;

/// Bytes of a region: several huge pages, since not every system lets it begin with one. They are taken as they are written to.
const REGION_BYTES: usize = 8 << 20;

/// So many pieces are handed out at most, over all stores of the process; what is needed beyond comes from the allocator. The system
/// lists at most 65 530 mappings of a process, and a piece whose neighbours were given back is one.
const PIECES_MAX: usize = 32_768;

/// So many pieces are kept for the next segments rather than given back to the system: 512 KiB.
const PIECES_KEPT_MAX: usize = 8;

/// The regions of the process, of which pieces are cut.
static REGIONS: Mutex<Regions> = Mutex::new(Regions { rest: None, kept: Vec::new(), out: 0, is_refused: false });

#[derive(Debug)]
struct Regions {
    /// What is left of the newest region.
    rest: Option<MmapMut>,
    /// Pieces that were given back.
    kept: Vec<MmapMut>,
    /// How many pieces there are, those kept included.
    out: usize,
    /// Whether the system has no such memory to give, or no more.
    is_refused: bool,
}

impl Regions {
    fn take(&mut self) -> Option<MmapMut> {
        if let Some(piece) = self.kept.pop() {
            return Some(piece);
        }
        if self.out == PIECES_MAX || self.is_refused {
            return None;
        }
        let piece = self.cut();
        self.is_refused = piece.is_none();
        self.out += usize::from(piece.is_some());
        piece
    }

    fn cut(&mut self) -> Option<MmapMut> {
        let mut rest = match self.rest.take() {
            Some(rest) => rest,
            None => {
                MmapOptions::new(REGION_BYTES).ok()?.with_flags(MmapFlags::TRANSPARENT_HUGE_PAGES).map_mut().ok()?
            }
        };
        if rest.size() == SEGMENT_BYTES_MAX {
            return Some(rest);
        }
        let piece = rest.split_to(SEGMENT_BYTES_MAX).ok()?;
        self.rest = Some(rest);
        Some(piece)
    }

    /// Takes a piece back. What is returned is for the caller to drop without the lock, which gives it to the system.
    fn give_back(&mut self, piece: MmapMut) -> Option<MmapMut> {
        if self.kept.len() < PIECES_KEPT_MAX {
            self.kept.push(piece);
            return None;
        }
        self.out -= 1;
        Some(piece)
    }
}

/// A piece of a region, of [`SEGMENT_BYTES_MAX`] bytes.
#[derive(Debug)]
pub(super) struct Piece(Option<MmapMut>);

impl Piece {
    fn take() -> Option<Self> {
        REGIONS.lock().take().map(|piece| Self(Some(piece)))
    }

    fn bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.0.as_deref_mut().unwrap_or_default()
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(piece) = self.0.take() {
            let surplus = REGIONS.lock().give_back(piece);
            drop(surplus);
        }
    }
}

/// The memory of one segment: bytes that are written from the first on, as into a `Vec`.
#[derive(Debug)]
pub(super) enum SegmentMemory {
    /// From the allocator: smaller segments, and those that still grow.
    Allocated(Vec<u8>),
    /// A piece, of which so many bytes are written.
    Region(Piece, usize),
}

impl Default for SegmentMemory {
    fn default() -> Self {
        Self::Allocated(Vec::new())
    }
}

impl SegmentMemory {
    /// Bytes that are written.
    pub(super) fn written(&self) -> &[u8] {
        match self {
            Self::Allocated(bytes) => bytes,
            Self::Region(piece, len) => &piece.bytes()[..*len],
        }
    }

    pub(super) fn written_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Allocated(bytes) => bytes,
            Self::Region(piece, len) => &mut piece.bytes_mut()[..*len],
        }
    }

    pub(super) const fn len(&self) -> usize {
        match self {
            Self::Allocated(bytes) => bytes.len(),
            Self::Region(_, len) => *len,
        }
    }

    /// Bytes that it takes.
    pub(super) const fn capacity(&self) -> usize {
        match self {
            Self::Allocated(bytes) => bytes.capacity(),
            Self::Region(..) => SEGMENT_BYTES_MAX,
        }
    }

    /// Makes it so many bytes large, which must be more than it is.
    pub(super) fn grow(&mut self, capacity: usize) {
        let piece = if capacity == SEGMENT_BYTES_MAX { Piece::take() } else { None };
        let Self::Allocated(bytes) = self else { return };
        if let Some(mut piece) = piece {
            let len = bytes.len();
            piece.bytes_mut()[..len].copy_from_slice(bytes);
            *self = Self::Region(piece, len);
        } else {
            bytes.reserve_exact(capacity - bytes.len());
        }
    }

    /// The next so many bytes, to be written whole. They must be there: see [`SegmentMemory::grow`].
    pub(super) fn append(&mut self, len: usize) -> &mut [u8] {
        match self {
            Self::Allocated(bytes) => {
                let from = bytes.len();
                bytes.resize(from + len, 0);
                &mut bytes[from..]
            }
            Self::Region(piece, written) => {
                let from = *written;
                *written += len;
                &mut piece.bytes_mut()[from..from + len]
            }
        }
    }

    /// Nothing is written any more; the memory stays.
    pub(super) fn clear(&mut self) {
        match self {
            Self::Allocated(bytes) => bytes.clear(),
            Self::Region(_, len) => *len = 0,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn regions() -> Regions {
        Regions { rest: None, kept: Vec::new(), out: 0, is_refused: false }
    }

    #[test]
    fn what_is_written_stays_while_the_memory_grows() {
        let mut memory = SegmentMemory::default();
        let mut expected = Vec::new();
        for (round, capacity) in [2048, 4096, SEGMENT_BYTES_MAX].into_iter().enumerate() {
            memory.grow(capacity);
            assert_eq!(memory.capacity(), capacity);
            let len = capacity - memory.len() - round;
            memory.append(len).fill(round as u8 + 1);
            expected.resize(expected.len() + len, round as u8 + 1);
            assert_eq!((memory.len(), memory.written()), (expected.len(), &expected[..]));
        }
        assert!(matches!(memory, SegmentMemory::Region(..)), "{memory:?}");
        memory.clear();
        assert_eq!((memory.len(), memory.capacity()), (0, SEGMENT_BYTES_MAX));
        memory.append(3).copy_from_slice(b"new");
        memory.written_mut()[0] = b'N';
        assert_eq!(memory.written(), b"New");
    }

    #[test]
    fn pieces_do_not_overlap_and_are_aligned_to_pages() {
        let mut regions = regions();
        let count = REGION_BYTES / SEGMENT_BYTES_MAX + 1;
        let mut pieces: Vec<MmapMut> = (0..count).map(|_| regions.take().unwrap()).collect();
        for (n, piece) in pieces.iter_mut().enumerate() {
            assert_eq!((piece.size(), piece.start() % 4096), (SEGMENT_BYTES_MAX, 0));
            piece.as_mut_slice().fill(n as u8);
        }
        assert!(pieces.iter().enumerate().all(|(n, piece)| piece.iter().all(|byte| *byte == n as u8)));
    }

    #[test]
    fn pieces_go_back_to_the_system_but_for_a_few() {
        let mut regions = regions();
        let many = PIECES_KEPT_MAX + 5;
        let pieces: Vec<MmapMut> = (0..many).map(|_| regions.take().unwrap()).collect();
        assert_eq!(regions.out, many);
        let returned: Vec<MmapMut> = pieces.into_iter().filter_map(|piece| regions.give_back(piece)).collect();
        assert_eq!((returned.len(), regions.out, regions.kept.len()), (5, PIECES_KEPT_MAX, PIECES_KEPT_MAX));
        regions.take().unwrap();
        assert_eq!((regions.out, regions.kept.len()), (PIECES_KEPT_MAX, PIECES_KEPT_MAX - 1), "kept ones go first");
    }

    #[test]
    fn there_is_no_more_than_the_system_can_list_and_none_where_it_refuses() {
        let mut full = Regions { out: PIECES_MAX - 1, ..regions() };
        let last = full.take().unwrap();
        assert!(full.take().is_none() && !full.is_refused);
        full.give_back(last);
        assert!(full.take().is_some());
        assert!(Regions { is_refused: true, ..regions() }.take().is_none());
    }
}
