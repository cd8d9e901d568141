//! Which keys the load touches, and how often each: uniformly, or a few of them most of the time.

use rand::Rng;

/// The most keys one run may use; the checker remembers 64 bytes for each.
pub const KEYS_MAX: u32 = 20_000_000;

/// A key's name: `key-` and eight digits, so that all keys cost the same.
pub type KeyName = [u8; 12];

/// One key of a run, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyIndex(u32);

impl KeyIndex {
    /// The key with this number.
    #[must_use]
    pub const fn new(index: u32) -> Self {
        Self(index)
    }

    /// Its place in a table of all keys.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0 as usize
    }

    /// Its name in the cache.
    #[must_use]
    pub fn name(self) -> KeyName {
        let mut name = *b"key-00000000";
        let mut rest = self.0;
        for digit in name[4..].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        name
    }
}

/// How often each key is chosen (DISTRIBUTION).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// All alike.
    Uniform,
    /// The n-th key in proportion to `1 / n^exponent`; the exponent is above 0 and below 1.
    Zipf(f64),
}

impl Distribution {
    /// Reads `uniform` or `zipf:EXPONENT`.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "uniform" {
            return Ok(Self::Uniform);
        }
        let exponent = text.strip_prefix("zipf:").and_then(|exponent| exponent.parse::<f64>().ok());
        match exponent {
            Some(exponent) if exponent > 0.0 && exponent < 1.0 => Ok(Self::Zipf(exponent)),
            _ => Err("expected uniform, or zipf: and an exponent between 0 and 1, such as zipf:0.99".to_owned()),
        }
    }
}

/// The keys of a run, and the dice that choose among them.
#[derive(Clone, Debug)]
pub struct KeySpace {
    count: u32,
    zipf: Option<Zipf>,
}

impl KeySpace {
    /// `count` keys, at least one.
    #[must_use]
    pub fn new(count: u32, distribution: Distribution) -> Self {
        let count = count.max(1);
        let zipf = match distribution {
            Distribution::Uniform => None,
            Distribution::Zipf(exponent) => Some(Zipf::new(count, exponent)),
        };
        Self { count, zipf }
    }

    /// How many keys there are.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Chooses a key.
    #[must_use]
    pub fn choose(&self, rng: &mut impl Rng) -> KeyIndex {
        match &self.zipf {
            None => KeyIndex(rng.random_range(0..self.count)),
            Some(zipf) => KeyIndex(zipf.choose(rng)),
        }
    }
}

/// Zipf-distributed numbers in constant time (Gray et al., "Quickly Generating Billion-Record Synthetic Databases", 1994).
#[derive(Clone, Debug)]
struct Zipf {
    count: u32,
    exponent: f64,
    alpha: f64,
    zeta: f64,
    eta: f64,
}

impl Zipf {
    fn new(count: u32, exponent: f64) -> Self {
        let zeta_of = |n: u32| (1..=n).map(|i| f64::from(i).powf(-exponent)).sum::<f64>();
        let zeta = zeta_of(count);
        let eta = (1.0 - (2.0 / f64::from(count)).powf(1.0 - exponent)) / (1.0 - zeta_of(count.min(2)) / zeta);
        Self { count, exponent, alpha: 1.0 / (1.0 - exponent), zeta, eta }
    }

    fn choose(&self, rng: &mut impl Rng) -> u32 {
        let u = rng.random::<f64>();
        let uz = u * self.zeta;
        if uz < 1.0 {
            return 0;
        }
        if uz < 1.0 + 0.5_f64.powf(self.exponent) {
            return 1.min(self.count - 1);
        }
        let rank = f64::from(self.count) * (self.eta * u - self.eta + 1.0).powf(self.alpha);
        (rank as u32).min(self.count - 1)
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::SmallRng};

    use super::*;

    #[test]
    fn names_have_one_width() {
        assert_eq!(&KeyIndex::new(1234).name(), b"key-00001234");
        assert_eq!(&KeyIndex::new(KEYS_MAX - 1).name(), b"key-19999999");
    }

    #[test]
    fn uniform_reaches_every_key_about_as_often() {
        let keys = KeySpace::new(10, Distribution::Uniform);
        let mut rng = SmallRng::seed_from_u64(7);
        let mut counts = [0_u32; 10];
        for _ in 0..100_000 {
            counts[keys.choose(&mut rng).get()] += 1;
        }
        assert!(counts.iter().all(|count| (9_000..11_000).contains(count)), "{counts:?}");
    }

    #[test]
    fn zipf_favours_the_first_keys_and_stays_in_range() {
        let keys = KeySpace::new(1000, Distribution::Zipf(0.99));
        let mut rng = SmallRng::seed_from_u64(7);
        let mut counts = vec![0_u32; 1000];
        for _ in 0..100_000 {
            counts[keys.choose(&mut rng).get()] += 1;
        }
        assert!((11_000..16_000).contains(&counts[0]), "{}", counts[0]);
        assert!(counts[0] > counts[9] * 5 && counts[9] > counts[900] * 5);
        let one = KeySpace::new(1, Distribution::Zipf(0.5));
        assert_eq!(one.choose(&mut rng).get(), 0);
    }

    #[test]
    fn a_distribution_is_read_or_explained() {
        assert_eq!(Distribution::parse("zipf:0.99"), Ok(Distribution::Zipf(0.99)));
        for bad in ["", "zipf", "zipf:", "zipf:1", "zipf:0", "zipf:nan", "normal"] {
            assert!(Distribution::parse(bad).is_err(), "{bad}");
        }
    }
}
