//! What a server's reply means, whatever its protocol.

/// What a reply means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning<'a> {
    Value(&'a [u8]),
    /// There is no such key.
    Nothing,
    /// It is written, or deleted.
    Done,
    /// Nothing was done, for this reason.
    Refused(&'a [u8]),
}
