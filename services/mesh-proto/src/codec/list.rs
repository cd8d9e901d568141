//! Lists inside postcard bodies, read so that a count which a peer merely claims never decides how much is allocated.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize,
    de::{Deserializer, Error as _, SeqAccess, Visitor},
};

/// `deserialize_with` for a list of at most `MAX` elements; it stops at the first one too many.
pub(crate) fn capped_list<'de, T: Deserialize<'de>, D: Deserializer<'de>, const MAX: usize>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_seq(Capped::<T, MAX>(PhantomData))
}

struct Capped<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Capped<T, MAX> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MAX} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
        // No capacity from the claimed count: the list grows with what is really there.
        let mut list = Vec::new();
        while let Some(element) = elements.next_element()? {
            if list.len() == MAX {
                return Err(A::Error::invalid_length(list.len() + 1, &self));
            }
            list.push(element);
        }
        Ok(list)
    }
}

/// Key hashes and versions of slots, as 24 plain bytes each: shorter than as variable-length integers, which do not suit
/// hashes, and never larger in memory than a little more than on the wire.
pub(crate) mod slot_versions {
    use serde::{
        Deserialize, Serialize,
        de::Deserializer,
        ser::{SerializeSeq as _, Serializer},
    };

    use super::{Capped, Visitor, fmt};
    use crate::{KeyHash, SLOTS, Slot, Version};

    const ENTRY_BYTES: usize = 8 + 16;

    type Entries = Vec<(KeyHash, Version)>;

    pub(crate) fn serialize<S: Serializer>(slots: &[(Slot, Entries)], serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(slots.len()))?;
        for (slot, entries) in slots {
            list.serialize_element(&(slot, PackedRef(entries)))?;
        }
        list.end()
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(Slot, Entries)>, D::Error> {
        let list = deserializer.deserialize_seq(Capped::<(Slot, Packed), SLOTS>(std::marker::PhantomData))?;
        Ok(list.into_iter().map(|(slot, packed)| (slot, packed.0)).collect())
    }

    struct PackedRef<'a>(&'a [(KeyHash, Version)]);

    impl Serialize for PackedRef<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut bytes = Vec::with_capacity(self.0.len() * ENTRY_BYTES);
            for (hash, version) in self.0 {
                bytes.extend_from_slice(&hash.get().to_le_bytes());
                bytes.extend_from_slice(&version.get().to_le_bytes());
            }
            serializer.serialize_bytes(&bytes)
        }
    }

    struct Packed(Entries);

    impl<'de> Deserialize<'de> for Packed {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_bytes(PackedVisitor)
        }
    }

    struct PackedVisitor;

    impl Visitor<'_> for PackedVisitor {
        type Value = Packed;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "whole entries of {ENTRY_BYTES} bytes")
        }

        fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Packed, E> {
            let entry = |chunk: &[u8]| {
                let (hash, version) = chunk.split_first_chunk::<8>()?;
                let version = u128::from_le_bytes(version.try_into().ok()?);
                Some((KeyHash::new(u64::from_le_bytes(*hash)), Version::new(version)))
            };
            let entries: Option<Entries> = bytes.chunks(ENTRY_BYTES).map(entry).collect();
            entries.map(Packed).ok_or_else(|| E::invalid_length(bytes.len(), &self))
        }
    }
}
