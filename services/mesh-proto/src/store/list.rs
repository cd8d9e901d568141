//! A doubly linked list through a shard's slab: the newest entry at the front, the oldest at the back. An entry is on
//! one list at a time, so its links live in the entry.

use super::slab::{Links, NIL, Slab};

/// The ends of a list.
#[derive(Debug)]
pub(super) struct List {
    front: u32,
    back: u32,
    len: u64,
}

impl List {
    pub(super) const EMPTY: Self = Self { front: NIL, back: NIL, len: 0 };

    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// The oldest, or [`NIL`].
    pub(super) const fn back(&self) -> u32 {
        self.back
    }

    pub(super) fn push_front(&mut self, slab: &mut Slab, at: u32) {
        slab[at].links = Links { prev: NIL, next: self.front };
        match self.front {
            NIL => self.back = at,
            front => slab[front].links.prev = at,
        }
        self.front = at;
        self.len += 1;
    }

    pub(super) fn unlink(&mut self, slab: &mut Slab, at: u32) {
        let links = slab[at].links;
        self.join(slab, links.prev, links.next);
        self.len -= 1;
    }

    /// The entry that is now number `to` had another number before: tell its neighbours.
    pub(super) fn handle_move(&mut self, slab: &mut Slab, to: u32) {
        let links = slab[to].links;
        self.join(slab, links.prev, to);
        self.join(slab, to, links.next);
    }

    /// Makes `prev` and `next` neighbours, where [`NIL`] stands for the list's end.
    fn join(&mut self, slab: &mut Slab, prev: u32, next: u32) {
        match prev {
            NIL => self.front = next,
            prev => slab[prev].links.next = next,
        }
        match next {
            NIL => self.back = prev,
            next => slab[next].links.prev = prev,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::slab::tests::entry, *};

    fn versions(list: &List, slab: &Slab) -> Vec<u128> {
        let mut at = list.front;
        let mut seen = Vec::new();
        let mut prev = NIL;
        while at != NIL {
            assert_eq!(slab[at].links.prev, prev, "both directions agree");
            seen.push(slab[at].version.get());
            (prev, at) = (at, slab[at].links.next);
        }
        assert_eq!(list.back, prev);
        assert_eq!(list.len, seen.len() as u64);
        seen
    }

    #[test]
    fn order_survives_unlinking_and_moving() {
        let (mut slab, mut list) = (Slab::default(), List::EMPTY);
        for number in 0..5 {
            let at = slab.push(entry(number, b""));
            list.push_front(&mut slab, at);
        }
        assert_eq!(versions(&list, &slab), [4, 3, 2, 1, 0]);
        for (at, moved, rest) in [(2, true, vec![4, 3, 1, 0]), (0, true, vec![4, 3, 1]), (2, false, vec![3, 1])] {
            list.unlink(&mut slab, at);
            slab.swap_remove(at);
            if moved {
                list.handle_move(&mut slab, at);
            }
            assert_eq!(versions(&list, &slab), rest);
        }
        list.unlink(&mut slab, 0);
        list.unlink(&mut slab, 1);
        assert_eq!(versions(&list, &slab), [0_u128; 0]);
    }
}
