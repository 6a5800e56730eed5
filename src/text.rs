//! Makes text for a person from octets that others wrote.
#![forbid(unsafe_code)]

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The most octets of a foreign file that are shown at once.
pub const MAX_SHOWN: usize = 120;

/// Octets of a foreign file, made fit for a line on a terminal: ASCII only, on one line, and not
/// too long.
pub fn printable(octets: &[u8]) -> String {
    let mut text = String::with_capacity(octets.len().min(MAX_SHOWN));
    for &octet in octets.iter().take(MAX_SHOWN) {
        match octet {
            b'\\' => text.push_str("\\\\"),
            0x20..=0x7E => text.push(char::from(octet)),
            _ => text.push_str(&format!("\\x{octet:02x}")),
        }
    }
    if octets.len() > MAX_SHOWN {
        text.push_str("...");
    }
    text
}

/// A path that holds names chosen by others, made fit for a terminal.
pub fn printable_path(path: &Path) -> String {
    // The path is shown whole: the operator has to find it.
    path.as_os_str().as_bytes().chunks(MAX_SHOWN).map(printable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_foreign_octets_as_ascii_and_not_at_length() {
        assert_eq!(printable(b"a b\\\x1b[31m\xe6\n"), "a b\\\\\\x1b[31m\\xe6\\x0a");
        assert_eq!(printable(&[b'x'; 121]).len(), 123);
        assert_eq!(printable(&[b'x'; 120]).len(), 120);
    }
}
