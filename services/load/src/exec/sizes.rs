//! How large written values are: all alike, anything between two bounds, or sizes of a list by their weights.

use std::{
    fmt::{Display, Formatter},
    io::{self, Read, Write},
    str::FromStr,
};

use borsh::{BorshDeserialize, BorshSerialize};
use rand::Rng;

use super::weights::Weighted;

/// The largest value a load may write; nodes refuse what is larger than their VALUE_BYTES_MAX.
const VALUE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// What values are padded to (VALUE_BYTES). A value that says which key and write it is of takes about 45 bytes; a smaller
/// size leaves it as short as that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueSizes {
    /// All to this many bytes.
    Fixed(usize),
    /// To any number of bytes from the first to the second, all alike.
    Uniform(usize, usize),
    /// Each to one of these sizes, as often as its weight says.
    Weighted(Weighted<usize>),
}

impl ValueSizes {
    /// The size of one value.
    #[must_use]
    pub fn choose(&self, rng: &mut impl Rng) -> usize {
        match self {
            Self::Fixed(size) => *size,
            Self::Uniform(min, max) => rng.random_range(*min..=*max),
            Self::Weighted(sizes) => sizes.choose(rng),
        }
    }

    /// The largest that may be chosen.
    #[must_use]
    pub fn largest(&self) -> usize {
        match self {
            Self::Fixed(size) | Self::Uniform(_, size) => *size,
            Self::Weighted(sizes) => sizes.entries().max().unwrap_or_default(),
        }
    }
}

/// As it is written in settings.
impl BorshSerialize for ValueSizes {
    fn serialize<W: Write>(&self, to: &mut W) -> io::Result<()> {
        BorshSerialize::serialize(&self.to_string(), to)
    }
}

impl BorshDeserialize for ValueSizes {
    fn deserialize_reader<R: Read>(from: &mut R) -> io::Result<Self> {
        String::deserialize_reader(from)?.parse().map_err(io::Error::other)
    }
}

impl FromStr for ValueSizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = if text.contains(':') {
            Weighted::parse(text, bytes).map(Self::Weighted)
        } else if let Some((min, max)) = text.split_once('-') {
            bytes(min).zip(bytes(max)).filter(|(min, max)| min <= max).map(|(min, max)| Self::Uniform(min, max))
        } else {
            bytes(text).map(Self::Fixed)
        };
        parsed.ok_or_else(|| {
            "expected bytes from 0 to 2MiB, as one size such as 100 or 64KiB, a range such as 100-4KiB, or at most 64 sizes \
             with whole weights above 0 such as 100:70,1KiB:25,64KiB:5"
                .to_owned()
        })
    }
}

impl Display for ValueSizes {
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(size) => write!(out, "{size}"),
            Self::Uniform(min, max) => write!(out, "{min}-{max}"),
            Self::Weighted(sizes) => sizes.fmt(out),
        }
    }
}

/// Bytes, as every size is written.
fn bytes(text: &str) -> Option<usize> {
    settings::byte_size(text.trim())?.try_into().ok().filter(|bytes| *bytes <= VALUE_BYTES_MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use rand::{SeedableRng, rngs::SmallRng};

    use super::{super::weights::ENTRIES_MAX, *};

    fn thrown(text: &str, count: usize) -> Vec<usize> {
        let (sizes, mut rng) = (ValueSizes::from_str(text).unwrap(), SmallRng::seed_from_u64(7));
        (0..count).map(|_| sizes.choose(&mut rng)).collect()
    }

    #[test]
    fn sizes_come_as_often_as_they_should() {
        assert_eq!(thrown("1KiB", 3), [1024; 3]);
        let range = thrown("10-19", 100_000);
        for size in 10..20 {
            let share = range.iter().filter(|thrown| **thrown == size).count();
            assert!((9_500..10_500).contains(&share), "{size}: {share}");
        }
        let list = thrown("100:70,1KiB:25,64KiB:5", 100_000);
        for (size, expected) in [(100, 70_000_i32), (1024, 25_000), (65_536, 5_000)] {
            let share = list.iter().filter(|thrown| **thrown == size).count() as i32;
            assert!((share - expected).abs() < 700, "{size}: {share}");
        }
    }

    #[test]
    fn sizes_are_read_and_shown_or_explained() {
        for (text, shown) in [
            ("0", "0"),
            ("2MiB", "2097152"),
            ("100 - 4KiB", "100-4096"),
            ("7-7", "7-7"),
            ("100:70,1KiB:25", "100:70,1024:25"),
            ("1:1", "1:1"),
        ] {
            assert_eq!(ValueSizes::from_str(text).unwrap().to_string(), shown);
        }
        for bad in
            ["", "x", "-1", "3MiB", "1KB", "5-4", "1-2-3", "1:0", "1:1,", "1:1,2", "1:-1", "1:1.5", "1-2:3", ":1"]
        {
            assert!(ValueSizes::from_str(bad).is_err(), "{bad}");
        }
        let many = |count| vec!["1:1"; count].join(",");
        assert!(
            ValueSizes::from_str(&many(ENTRIES_MAX)).is_ok() && ValueSizes::from_str(&many(ENTRIES_MAX + 1)).is_err()
        );
    }
}
