//! Entries of a list, each as often as its weight says: the sizes and the lifetimes of values. As text `ENTRY:WEIGHT,ENTRY:WEIGHT`.

use std::fmt::{Display, Formatter};

use rand::Rng;

/// The most entries a list may have.
pub(super) const ENTRIES_MAX: usize = 64;

/// Entries with their weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weighted<V>(Vec<(V, u32)>);

impl<V: Copy + Default> Weighted<V> {
    /// Reads a list whose entries `entry` reads; nothing if one of them, or a weight, is none.
    pub(super) fn parse(text: &str, entry: impl Fn(&str) -> Option<V>) -> Option<Self> {
        let weighted = |text: &str| {
            let (value, weight) = text.split_once(':')?;
            Some((entry(value)?, weight.trim().parse().ok().filter(|weight| *weight > 0)?))
        };
        let list: Option<Vec<_>> = text.split(',').map(weighted).collect();
        list.filter(|list| list.len() <= ENTRIES_MAX).map(Self)
    }

    /// One of them.
    pub(super) fn choose(&self, rng: &mut impl Rng) -> V {
        let mut thrown = rng.random_range(0..self.0.iter().map(|(_, weight)| u64::from(*weight)).sum());
        let hit = self.0.iter().find(|(_, weight)| {
            let is_hit = thrown < u64::from(*weight);
            thrown = thrown.saturating_sub(u64::from(*weight));
            is_hit
        });
        hit.map_or_else(V::default, |(value, _)| *value)
    }

    /// All of them, in their order.
    pub(super) fn entries(&self) -> impl Iterator<Item = V> {
        self.0.iter().map(|(value, _)| *value)
    }
}

impl<V: Display> Display for Weighted<V> {
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        for (place, (value, weight)) in self.0.iter().enumerate() {
            write!(out, "{}{value}:{weight}", if place == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}
