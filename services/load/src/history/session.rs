//! What one session has met: per key the highest version it has read or written. A bounded table; where two keys meet in one
//! place the later one stays, and the session remembers less than it could, never more.

use crate::{WriteVersion, exec::KeyIndex};

/// Keys that one session remembers at most: 2 MiB.
pub(super) const SESSION_KEYS_MAX: u32 = 65_536;

/// One session, owned by its task.
#[derive(Clone, Debug)]
pub struct Session {
    seen: Box<[(KeyIndex, WriteVersion)]>,
}

impl Session {
    /// One that has met nothing of `keys` keys.
    #[must_use]
    pub fn new(keys: u32) -> Self {
        let places = keys.clamp(1, SESSION_KEYS_MAX) as usize;
        Self { seen: vec![(KeyIndex::new(0), WriteVersion::ZERO); places].into() }
    }

    /// The highest version of a key that it has met; zero if none.
    #[must_use]
    pub fn floor(&self, key: KeyIndex) -> WriteVersion {
        let (seen, version) = self.seen[key.get() % self.seen.len()];
        if seen == key { version } else { WriteVersion::ZERO }
    }

    /// Meets a version.
    pub(crate) fn note(&mut self, key: KeyIndex, version: Option<WriteVersion>) {
        let place = key.get() % self.seen.len();
        let Some(version) = version.filter(|version| *version > self.floor(key)) else { return };
        self.seen[place] = (key, version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_remembers_the_highest_version_of_each_key() {
        let mut session = Session::new(3);
        let key = KeyIndex::new(2);
        session.note(key, Some(WriteVersion::new(5)));
        session.note(key, Some(WriteVersion::new(4)));
        session.note(key, None);
        assert_eq!((session.floor(key), session.floor(KeyIndex::new(1))), (WriteVersion::new(5), WriteVersion::ZERO));
    }

    #[test]
    fn keys_that_meet_in_one_place_forget_each_other() {
        let mut session = Session::new(KeyIndex::new(u32::MAX).get() as u32);
        let (one, other) = (KeyIndex::new(7), KeyIndex::new(7 + SESSION_KEYS_MAX));
        session.note(one, Some(WriteVersion::new(5)));
        session.note(other, Some(WriteVersion::new(3)));
        assert_eq!((session.floor(one), session.floor(other)), (WriteVersion::ZERO, WriteVersion::new(3)));
    }
}
