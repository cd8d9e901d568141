//! What one replica does with a record and with a comparison: answers of the real [`Store`], worked out once for all pairs of
//! versions.

use std::sync::LazyLock;

use bytes::Bytes;
use mesh_proto::{
    Applied, ApplyOrigin, Body, Digest, Expiry, Found, KeyHash, Record, Slot, Store, StoreConfig, UnixMillis, Version,
};

use crate::state::Stamp;

/// Versions that can be told apart.
const STAMPS: usize = 56;

const KEY: &[u8] = b"key";

const NOW: UnixMillis = UnixMillis::new(1);

struct Table {
    /// What is held after one was held and another offered.
    held: [[Stamp; STAMPS]; STAMPS],
    /// The same for a record that comes by repair.
    repaired: [[Stamp; STAMPS]; STAMPS],
    digests: [Digest; STAMPS],
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let after = |held: usize, offered: usize, origin| {
        let store = holding(held);
        if offered > 0 {
            let applied = store.apply(&record(offered), origin, NOW);
            let newer = Version::new(held as u128);
            assert!(applied == Applied::Stored || applied == Applied::Stale { newer }, "{applied:?}");
        }
        stamp(&store)
    };
    let all = |origin| std::array::from_fn(|held| std::array::from_fn(|offered| after(held, offered, origin)));
    Table {
        held: all(ApplyOrigin::Write),
        repaired: all(ApplyOrigin::Repair),
        digests: std::array::from_fn(|held| holding(held).digest(Slot::of(KeyHash::of(KEY)))),
    }
});

fn record(stamp: usize) -> Record {
    Record {
        hash: KeyHash::of(KEY),
        key: Bytes::from_static(KEY),
        version: Version::new(stamp as u128),
        expiry: Expiry::NEVER,
        body: Body::Value(Bytes::from_static(b"value")),
    }
}

fn holding(stamp: usize) -> Store {
    let config = StoreConfig {
        bytes_max: 1 << 20,
        entries_max: 1000,
        tombstones_max: 1000,
        tombstone_age_min: std::time::Duration::from_secs(1),
    };
    let store = Store::new(&config);
    if stamp > 0 {
        assert_eq!(store.apply(&record(stamp), ApplyOrigin::Write, NOW), Applied::Stored);
    }
    store
}

fn stamp(store: &Store) -> Stamp {
    match store.peek(KeyHash::of(KEY), KEY, NOW) {
        Found::Value { version, .. } => Stamp::try_from(version.get()).expect("one of these"),
        _ => 0,
    }
}

/// What is held once a write was offered.
pub fn written(held: Stamp, offered: Stamp) -> Stamp {
    TABLE.held[usize::from(held)][usize::from(offered)]
}

/// What is held once a repair was offered.
pub fn repaired(held: Stamp, offered: Stamp) -> Stamp {
    TABLE.repaired[usize::from(held)][usize::from(offered)]
}

/// Whether a comparison finds nothing to pull: `resync::resync_from`.
pub fn is_settled(ours: Stamp, theirs: Stamp) -> bool {
    let digest = |stamp: Stamp| TABLE.digests[usize::from(stamp)];
    digest(theirs) == Digest::default() || digest(ours) == digest(theirs)
}
