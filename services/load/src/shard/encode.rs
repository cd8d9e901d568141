//! How types that are not ours are written into a shard's file.

/// A duration, in nanoseconds.
pub(crate) mod duration {
    use std::{
        io::{Read, Result, Write},
        time::Duration,
    };

    use borsh::{BorshDeserialize, BorshSerialize};

    pub(crate) fn write<W: Write>(time: &Duration, to: &mut W) -> Result<()> {
        u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).serialize(to)
    }

    pub(crate) fn read<R: Read>(from: &mut R) -> Result<Duration> {
        u64::deserialize_reader(from).map(Duration::from_nanos)
    }
}

/// A duration, or none.
pub(crate) mod option {
    use std::{
        io::{Read, Result, Write},
        time::Duration,
    };

    use borsh::{BorshDeserialize, BorshSerialize};

    pub(crate) fn write<W: Write>(time: &Option<Duration>, to: &mut W) -> Result<()> {
        time.map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)).serialize(to)
    }

    pub(crate) fn read<R: Read>(from: &mut R) -> Result<Option<Duration>> {
        Ok(Option::<u64>::deserialize_reader(from)?.map(Duration::from_nanos))
    }
}

/// What has a form in JSON.
pub(crate) mod json {
    use std::io::{Read, Result, Write};

    use borsh::{BorshDeserialize, BorshSerialize};
    use serde::{Serialize, de::DeserializeOwned};

    pub(crate) fn write<W: Write, T: Serialize>(value: &T, to: &mut W) -> Result<()> {
        BorshSerialize::serialize(&serde_json::to_vec(value)?, to)
    }

    pub(crate) fn read<R: Read, T: DeserializeOwned>(from: &mut R) -> Result<T> {
        Ok(serde_json::from_slice(&Vec::deserialize_reader(from)?)?)
    }
}

/// What is written and read as text.
pub(crate) mod text {
    use std::{
        fmt::Display,
        io::{Error, Read, Result, Write},
        str::FromStr,
    };

    use borsh::{BorshDeserialize, BorshSerialize};

    pub(crate) fn write<W: Write, T: Display>(value: &T, to: &mut W) -> Result<()> {
        value.to_string().serialize(to)
    }

    pub(crate) fn read<R: Read, T: FromStr<Err = String>>(from: &mut R) -> Result<T> {
        String::deserialize_reader(from)?.parse().map_err(Error::other)
    }
}
