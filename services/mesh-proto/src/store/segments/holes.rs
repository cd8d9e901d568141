//! Memory that holds nothing: where it is, so that it is given back.

use super::{
    super::record::{Kind, Stored},
    At, SegmentQueue, Segments,
};

impl Segments {
    /// Releases what is being filled and has nothing in it. Whether there was such a segment.
    pub(in crate::store) fn release_empty(&mut self) -> bool {
        let empty =
            |queue: &SegmentQueue| queue.order.back().copied().filter(|head| self.segments[*head].memory.len() == 0);
        let heads: Vec<usize> = self.queues.iter().filter_map(empty).collect();
        heads.iter().for_each(|head| self.release(*head));
        !heads.is_empty()
    }

    /// Of the segments that are full, the one with the most in holes, if one byte in `least` is, and all holes together are more than
    /// `holes_max` bytes.
    pub(in crate::store) fn sparsest(&self, holes_max: usize, least: usize) -> Option<usize> {
        let passed: usize = self.queues.iter().map(|queue| queue.cursor).sum();
        if self.written - self.live <= holes_max + passed {
            return None;
        }
        let is_full = |number: &usize| {
            let queue = &self.queues[self.segments[*number].queue as usize];
            let is_begun = queue.cursor > 0 && queue.order.front() == Some(number);
            self.segments[*number].live > 0 && queue.order.back() != Some(number) && !is_begun
        };
        let full = (0..self.segments.len()).filter(is_full);
        let sparsest = full.min_by_key(|number| self.segments[*number].live)?;
        (self.segments[sparsest].live <= self.segment_bytes - self.segment_bytes / least).then_some(sparsest)
    }

    /// The records of a segment that are not holes.
    pub(in crate::store) fn all_in(&self, number: usize) -> Vec<At> {
        let (mut all, mut offset) = (Vec::new(), 0);
        let bytes = self.segments[number].memory.written();
        while offset < bytes.len() {
            let record = Stored::at_start_of(&bytes[offset..]);
            if record.kind() != Kind::Hole {
                all.push(At::new(number, offset));
            }
            offset += record.len();
        }
        all
    }

    /// Bytes of records that are not holes, without large payloads.
    pub(in crate::store) const fn live(&self) -> usize {
        self.live
    }
}
