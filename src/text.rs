//! Makes text for a person from octets that others wrote.
#![forbid(unsafe_code)]

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The most octets of a foreign file that are shown at once.
pub const MAX_SHOWN: usize = 120;

/// Octets of a foreign file, made fit for a line on a terminal: ASCII only, on one line, and not
/// too long.
pub fn printable(octets: &[u8]) -> String {
    printable_up_to(octets, MAX_SHOWN)
}

/// As [`printable`], but shows no more than `most` octets.
pub fn printable_up_to(octets: &[u8], most: usize) -> String {
    let mut text = String::with_capacity(octets.len().min(most));
    for &octet in octets.iter().take(most) {
        match octet {
            b'\\' => text.push_str("\\\\"),
            0x20..=0x7E => text.push(char::from(octet)),
            _ => text.push_str(&format!("\\x{octet:02x}")),
        }
    }
    if octets.len() > most {
        text.push_str("...");
    }
    text
}

/// A path that holds names chosen by others, made fit for a terminal.
pub fn printable_path(path: &Path) -> String {
    // The path is shown whole: the operator has to find it.
    path.as_os_str().as_bytes().chunks(MAX_SHOWN).map(printable).collect()
}

/// The longest sentence, in octets: room for the longest path, and something about it.
const MAX_SENTENCE_OCTETS: usize = 5000;

/// Makes text fit for a terminal when it has names that others chose. Control characters become
/// `\x` and their number, so they cannot begin a line or act on the terminal. The text is also cut
/// when it is too long.
pub fn on_one_line(text: impl fmt::Display) -> String {
    let mut shown = String::new();
    for char in text.to_string().chars() {
        if shown.len() > MAX_SENTENCE_OCTETS {
            shown.push_str("...");
            break;
        }
        if char.is_control() {
            shown.push_str(&format!("\\x{:02x}", u32::from(char)));
        } else {
            shown.push(char);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_foreign_octets_as_ascii_and_not_at_length() {
        assert_eq!(printable(b"a b\\\x1b[31m\xe6\n"), "a b\\\\\\x1b[31m\\xe6\\x0a");
        assert_eq!(printable(&[b'x'; 121]).len(), 123);
        assert_eq!(printable(&[b'x'; 120]).len(), 120);
        assert_eq!(printable_up_to(b"\x00\x01\x02", 2), "\\x00\\x01...");
    }

    #[test]
    fn a_sentence_stays_on_its_line_and_keeps_its_letters() {
        assert_eq!(on_one_line("J\u{fc}rgen\n\x1b[1m\u{85}"), "J\u{fc}rgen\\x0a\\x1b[1m\\x85");
        assert_eq!(on_one_line("x".repeat(9000)).len(), MAX_SENTENCE_OCTETS + 4);
    }
}
