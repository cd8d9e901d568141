//! One state of the whole model: what three processes believe, hold and have under way, reduced to one slot with one key. All of
//! it is small and plain, so that millions of states can be kept and compared.

use crate::bounds::Bounds;

/// How many nodes there are: as many as a key has owners.
pub const NODES: usize = 3;

/// A set of nodes, one bit each. A ring is such a set, too: weights are equal, so its members make its hash.
pub type Nodes = u8;

/// All of them.
pub const ALL: Nodes = 0b111;

/// The set of one.
pub const fn only(node: usize) -> Nodes {
    1 << node
}

/// Whether a set contains a node.
pub const fn has(nodes: Nodes, node: usize) -> bool {
    nodes >> node & 1 == 1
}

/// Its members.
pub fn each(nodes: Nodes) -> impl Iterator<Item = usize> {
    (0..NODES).filter(move |node| has(nodes, *node))
}

/// A version: the time of a logical clock, and in the lowest bit the write. Zero is none; one is what was there at first.
pub type Stamp = u8;

/// What everybody holds at first, if anything.
pub const FIRST: Stamp = 1;

/// Whether a process runs, and how far it is with its stop. One that waits for its turn to leave (`handover::wait_for_turn`)
/// does nothing else than one that does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Life {
    /// There is none.
    #[default]
    Down,
    /// It runs.
    Up,
    /// It is out of the ring and hands over: `handover::hand_over`.
    Leaving,
    /// It has handed over, or its time is up, and has not told anybody yet: `handover::leave` has ended.
    HandedOver,
    /// It tells that it has left: `handover::say_that_it_has_left`.
    Left,
}

/// What is claimed of a member: `mesh_proto::Member` without address and weight. Suspects are present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// Nobody has said anything.
    #[default]
    Unknown,
    /// It runs and is about to enter the ring.
    Joining,
    /// It is in the ring, and has not been in sync yet.
    Syncing,
    /// It is in the ring, and has been in sync.
    Normal,
    /// It is out of the ring and hands over.
    Leaving,
    /// It does not answer.
    Dead,
    /// It has stopped gracefully.
    Left,
}

impl Status {
    /// `MemberState::is_present`.
    pub const fn is_present(self) -> bool {
        matches!(self, Self::Joining | Self::Syncing | Self::Normal | Self::Leaving)
    }
}

/// A claim with its incarnation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Claim {
    pub status: Status,
    pub incarnation: u8,
}

/// What one process believes of all: the projection of a `Membership`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct View {
    pub claims: [Claim; NODES],
    /// A claim that it was gone is news from this incarnation on.
    pub gone_after: u8,
}

/// The projection of a `RepairPlan` and a `SlotSync` on the slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sync {
    /// Zero as long as there was none.
    pub ring: Nodes,
    pub awaited: Nodes,
    pub confirmed: Nodes,
    pub owned: bool,
    pub was_alone: bool,
    pub in_sync: bool,
}

/// Why digests are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// They are not.
    #[default]
    Idle,
    /// `resync::resync_from`.
    Resync,
    /// `handover::take_over`.
    TakeOver,
}

/// A peer has shown what it holds; the answer is on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Comparison {
    pub reason: Reason,
    /// The ring that was in force at both when the peer answered.
    pub ring: Nodes,
    /// What the peer held.
    pub shown: Stamp,
}

/// A place and the process that runs there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    pub life: Life,
    pub view: View,
    /// `Core::ring`: members, and those about to enter.
    pub ring: Nodes,
    pub joining: Nodes,
    /// `RingChange::joining`.
    pub is_joining: bool,
    pub sync: Sync,
    /// `RingChange::has_list`, while it is joining.
    pub has_list: bool,
    /// `Rejoin::tried`, as long as that matters.
    pub tried: Nodes,
    pub held: Stamp,
    /// The highest time that its clock has given or met.
    pub clock: u8,
    /// Peers that it has a connection to.
    pub links: Nodes,
    pub comparisons: [Comparison; NODES],
    /// `RingChange::leavers`: under which ring all was taken over from a peer that leaves; zero for none.
    pub taken: [Nodes; NODES],
    /// `handover::is_taken_over`: the ring of this round, and who has said in it that it has taken over.
    pub drain_ring: Nodes,
    pub drained: Nodes,
}

/// An owner's answer to a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Answer {
    Applied,
    Unconfirmed,
    Stale { newer: Stamp, in_sync: bool },
    WrongRing,
}

/// One leg of a write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Leg {
    /// There is none.
    #[default]
    None,
    /// On its way to the owner.
    Sent,
    /// The owner has answered.
    Answered(Answer),
    /// It was never sent.
    NotSent,
    /// The connection broke.
    Lost,
}

/// How far a write has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Progress {
    /// Not begun.
    #[default]
    Idle,
    /// Legs are under way.
    Running,
    /// To be tried again.
    Again,
    /// Its caller was told that it is made.
    Acknowledged,
    /// Its caller was told anything else.
    Ended,
}

/// A write that is still under way to a node, and whose answer nobody waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Late {
    pub stamp: Stamp,
    pub ring: Nodes,
}

/// One write and its coordinator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Write {
    pub progress: Progress,
    pub coordinator: u8,
    pub attempt: u8,
    pub stamp: Stamp,
    /// Of the last attempt.
    pub ring: Nodes,
    /// Whether the next attempt is a second round, if the ring stays.
    pub is_second: bool,
    /// The newest version that had been acknowledged when it began.
    pub floor: Stamp,
    pub legs: [Leg; NODES],
    pub late: [Late; NODES],
}

/// What an owner says to a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Seen {
    /// Nothing yet.
    #[default]
    None,
    Unknown,
    Absent,
    Value {
        stamp: Stamp,
        in_sync: bool,
    },
    WrongRing,
}

/// A quorum read and its coordinator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Read {
    pub progress: Progress,
    pub coordinator: u8,
    pub ring: Nodes,
    pub floor: Stamp,
    pub seen: [Seen; NODES],
}

/// What must never be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Broken {
    #[default]
    Nothing,
    /// A quorum read missed a write that was acknowledged before it began (G2, G4).
    Read,
    /// A write was acknowledged below one that had been acknowledged before it began (G3).
    Order,
}

/// All of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct State {
    pub nodes: [Node; NODES],
    pub writes: [Write; 2],
    pub read: Read,
    /// Cut off from all others.
    pub cut: Nodes,
    /// Failed and not yet resynced.
    pub failed: Nodes,
    /// More have failed at a time than the guarantee allows: nothing is promised any more.
    pub lapsed: bool,
    /// The newest acknowledged version.
    pub acknowledged: Stamp,
    pub broken: Broken,
    /// What may still happen.
    pub left: Bounds,
}

impl State {
    /// Whether two processes can reach each other.
    pub fn connects(&self, one: usize, other: usize) -> bool {
        one != other
            && self.nodes[one].life != Life::Down
            && self.nodes[other].life != Life::Down
            && !has(self.cut, one)
            && !has(self.cut, other)
    }
}
