//! Which live entry goes when room is needed: SIEVE (Zhang et al., "SIEVE is Simpler than LRU", NSDI 2024). A queue in
//! order of insertion and a hand that moves from the oldest to the newest: it spares an entry once for having been
//! visited, and evicts the first that was not. A look-up sets a bit and moves nothing.

use super::{
    list::List,
    slab::{NIL, Slab},
};

/// The queue and the hand.
#[derive(Debug)]
pub(super) struct Sieve {
    queue: List,
    /// Where the search for the next victim starts; [`NIL`] is the oldest.
    hand: u32,
}

impl Sieve {
    pub(super) const EMPTY: Self = Self { queue: List::EMPTY, hand: NIL };

    pub(super) const fn len(&self) -> u64 {
        self.queue.len()
    }

    pub(super) fn insert(&mut self, slab: &mut Slab, at: u32) {
        self.queue.push_front(slab, at);
    }

    pub(super) fn remove(&mut self, slab: &mut Slab, at: u32) {
        if self.hand == at {
            self.hand = slab[at].links.prev;
        }
        self.queue.unlink(slab, at);
    }

    /// The entry to evict next; the caller removes it.
    pub(super) fn victim(&mut self, slab: &mut Slab) -> Option<u32> {
        let oldest = self.queue.back();
        if oldest == NIL {
            return None;
        }
        let or_oldest = |at: u32| if at == NIL { oldest } else { at };
        let mut at = or_oldest(self.hand);
        // Ends within one round, as every step clears a bit.
        while slab[at].visited {
            slab[at].visited = false;
            at = or_oldest(slab[at].links.prev);
        }
        self.hand = at;
        Some(at)
    }

    /// The entry that was number `from` is now number `to`.
    pub(super) fn handle_move(&mut self, slab: &mut Slab, from: u32, to: u32) {
        if self.hand == from {
            self.hand = to;
        }
        self.queue.handle_move(slab, to);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::{super::slab::tests::entry, *};

    /// Entries are not taken out of the slab here, so numbers stay what they are.
    fn sieve(len: u64) -> (Slab, Sieve) {
        let (mut slab, mut sieve) = (Slab::default(), Sieve::EMPTY);
        for number in 0..len {
            let at = slab.push(entry(number, b""));
            sieve.insert(&mut slab, at);
        }
        (slab, sieve)
    }

    fn evict(slab: &mut Slab, sieve: &mut Sieve) -> Option<u32> {
        let victim = sieve.victim(slab)?;
        sieve.remove(slab, victim);
        Some(victim)
    }

    #[test]
    fn unvisited_entries_go_in_order_of_insertion() {
        let (mut slab, mut sieve) = sieve(4);
        let order: Vec<u32> = std::iter::from_fn(|| evict(&mut slab, &mut sieve)).collect();
        assert_eq!(order, [0, 1, 2, 3]);
        assert_eq!(sieve.len(), 0);
    }

    #[test]
    fn a_visit_spares_once_and_the_hand_goes_on_from_where_it_was() {
        // The example of the paper's figure 1 in small: 0 and 2 are hot.
        let (mut slab, mut sieve) = sieve(5);
        slab[0].visited = true;
        slab[2].visited = true;
        assert_eq!(evict(&mut slab, &mut sieve), Some(1));
        assert_eq!(evict(&mut slab, &mut sieve), Some(3));
        let newest = slab.push(entry(5, b""));
        sieve.insert(&mut slab, newest);
        assert_eq!(evict(&mut slab, &mut sieve), Some(4), "the hand does not go back to 0");
        assert_eq!(evict(&mut slab, &mut sieve), Some(5));
        assert_eq!(evict(&mut slab, &mut sieve), Some(0), "after the newest comes the oldest");
    }

    #[test]
    fn even_if_all_are_visited_one_is_found() {
        let (mut slab, mut sieve) = sieve(3);
        (0..3).for_each(|at| slab[at].visited = true);
        assert_eq!(evict(&mut slab, &mut sieve), Some(0));
        assert!((1..3).all(|at| !slab[at].visited));
    }

    #[test]
    fn removing_the_entry_under_the_hand_moves_the_hand_on() {
        let (mut slab, mut sieve) = sieve(4);
        slab[0].visited = true;
        assert_eq!(sieve.victim(&mut slab), Some(1));
        sieve.remove(&mut slab, 1);
        assert_eq!(sieve.victim(&mut slab), Some(2));
    }
}
