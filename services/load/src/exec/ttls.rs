//! How long written values live: all alike, or each as long as one of a list by their weights.

use std::{
    fmt::{Display, Formatter},
    str::FromStr,
    time::Duration,
};

use rand::Rng;

use super::weights::Weighted;

/// Expiry of written values in milliseconds (SET_TTL_MS): -1 never, 0 as the node is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueTtls {
    /// Of all.
    Fixed(i64),
    /// Each one of these, as often as its weight says; none is 0.
    Weighted(Weighted<i64>),
}

impl ValueTtls {
    /// That of one value.
    #[must_use]
    pub fn choose(&self, rng: &mut impl Rng) -> i64 {
        match self {
            Self::Fixed(ttl_ms) => *ttl_ms,
            Self::Weighted(list) => list.choose(rng),
        }
    }

    /// The longest lifetime of those values of which it is known when they expire; nothing if there are none.
    #[must_use]
    pub fn longest(&self) -> Option<Duration> {
        self.all().filter_map(lifetime).max()
    }

    /// Each of them, as SET_TTL_MS has it.
    pub fn all(&self) -> impl Iterator<Item = i64> {
        let (fixed, list) = match self {
            Self::Fixed(ttl_ms) => (Some(*ttl_ms), None),
            Self::Weighted(list) => (None, Some(list.entries())),
        };
        fixed.into_iter().chain(list.into_iter().flatten())
    }
}

/// How long a value written with this TTL lives; nothing if for ever, or as long as the node is configured.
pub(super) fn lifetime(ttl_ms: i64) -> Option<Duration> {
    u64::try_from(ttl_ms).ok().filter(|ttl_ms| *ttl_ms > 0).map(Duration::from_millis)
}

impl FromStr for ValueTtls {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.contains(':') {
            return settings::ttl_ms(text).map(Self::Fixed);
        }
        // The checker has to know which values may be gone.
        let entry = |text: &str| settings::ttl_ms(text.trim()).ok().filter(|ttl_ms| *ttl_ms != 0);
        Weighted::parse(text, entry).map(Self::Weighted).ok_or_else(|| {
            "expected at most 64 lifetimes, each -1 (for ever) or milliseconds above 0, with whole weights above 0 such as \
             1000:20,60000:30,-1:50"
                .to_owned()
        })
    }
}

impl Display for ValueTtls {
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(ttl_ms) => write!(out, "{ttl_ms}"),
            Self::Weighted(list) => list.fmt(out),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use rand::{SeedableRng, rngs::SmallRng};

    use super::*;

    fn ttls(text: &str) -> ValueTtls {
        text.parse().unwrap()
    }

    #[test]
    fn lifetimes_come_as_often_as_they_should() {
        let (mix, mut rng) = (ttls("1000:20,60000:30,-1:50"), SmallRng::seed_from_u64(7));
        let thrown: Vec<_> = (0..100_000).map(|_| mix.choose(&mut rng)).collect();
        for (ttl_ms, expected) in [(1000, 20_000_i32), (60_000, 30_000), (-1, 50_000)] {
            let share = thrown.iter().filter(|thrown| **thrown == ttl_ms).count() as i32;
            assert!((share - expected).abs() < 700, "{ttl_ms}: {share}");
        }
        let mut again = SmallRng::seed_from_u64(7);
        assert!(thrown.iter().all(|ttl_ms| *ttl_ms == mix.choose(&mut again)), "by seed");
    }

    #[test]
    fn the_longest_is_of_those_that_expire() {
        let longest = |text| ttls(text).longest();
        assert_eq!((longest("-1"), longest("0"), longest("-1:3")), (None, None, None));
        assert_eq!(longest("5"), Some(Duration::from_millis(5)));
        assert_eq!(longest("5:1,70:1,-1:1"), Some(Duration::from_millis(70)));
    }

    #[test]
    fn lifetimes_are_read_and_shown_or_explained() {
        for text in ["-1", "0", "250", "1000:20,-1:80"] {
            assert_eq!(ttls(text).to_string(), text);
        }
        for bad in ["", "x", "-2", "1.5", "0:1,5:1", "5:0", "5:1,", "5:1,7", ":1", "-2:1"] {
            let message = bad.parse::<ValueTtls>().unwrap_err();
            assert!(message.starts_with("expected "), "{bad}: {message}");
        }
    }
}
