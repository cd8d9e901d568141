//! What is still being spread. News rides on messages that are sent anyway (SWIM, section 4.1), the least-told first, and
//! dies after enough tellings to have reached everyone with high probability.

use super::{Member, roster::Roster};
use crate::NodeId;

/// Each claim is told this often times the logarithm of the number of members.
const TELLINGS_PER_DOUBLING: u32 = 3;

/// More claims than this are exchanged as whole lists: a datagram holds some forty, so a round of gossip would not tell each of them once.
const BY_DATAGRAMS_MAX: usize = 256;

/// Ids of members whose claim is news; the claim itself is looked up when it is told, so it is always the newest.
#[derive(Debug, Default)]
pub(super) struct News {
    items: Vec<Item>,
}

#[derive(Debug)]
struct Item {
    tellings: u32,
    about: NodeId,
}

impl News {
    /// The claim about this member has changed. At most one item per member: bounded as the roster is.
    pub(super) fn announce(&mut self, about: NodeId) {
        self.items.retain(|item| item.about != about);
        self.items.insert(0, Item { tellings: 0, about });
    }

    /// Whether the claim about this member is still being spread.
    pub(super) fn is_fresh(&self, about: NodeId) -> bool {
        self.items.iter().any(|item| item.about == about)
    }

    /// Whether there is so much news that whole lists are to be exchanged.
    pub(super) fn is_a_flood(&self) -> bool {
        self.items.len() > BY_DATAGRAMS_MAX
    }

    /// All news is told to one member by a list.
    pub(super) fn told_by_list(&mut self) {
        self.items.iter_mut().for_each(|item| item.tellings += 1);
    }

    /// Adds claims to a message to `to` as long as they fit in `room` bytes.
    pub(super) fn fill(&mut self, updates: &mut Vec<Member>, mut room: usize, to: NodeId, roster: &Roster) {
        if self.items.is_empty() {
            return;
        }
        let tellings_max = tellings_max(1 + roster.present().count());
        self.items.sort_by_key(|item| item.tellings);
        for item in self.items.iter_mut().filter(|item| item.about != to) {
            let Some(claim) = roster.get(item.about) else {
                item.tellings = tellings_max; // forgotten meanwhile
                continue;
            };
            let Some(left) = room.checked_sub(claim.encoded_bytes_max()) else { break };
            room = left;
            item.tellings += 1;
            updates.push(claim.clone());
        }
        self.items.retain(|item| item.tellings < tellings_max);
    }
}

/// 3 ⌈log₂(n + 1)⌉.
fn tellings_max(members: usize) -> u32 {
    TELLINGS_PER_DOUBLING * (members + 1).next_power_of_two().ilog2()
}
