//! UTF-8 as an event stream needs it: every invalid sequence is a U+FFFD.

use std::borrow::Cow;

/// `bytes` as valid UTF-8; what is invalid is replaced as [`String::from_utf8_lossy`] replaces it.
/// Borrows what is valid.
#[must_use]
pub fn replaced(bytes: &[u8]) -> Cow<'_, [u8]> {
    // `from_utf8_lossy` alone would check valid text byte by byte, `from_utf8` checks it by words.
    match std::str::from_utf8(bytes) {
        Ok(_) => Cow::Borrowed(bytes),
        Err(_) => Cow::Owned(String::from_utf8_lossy(bytes).into_owned().into_bytes()),
    }
}
