//! The MD5 of what stays the same in the header of a message in an mbox.
//!
//! popa3d made it up (`mailbox.c`, `mailbox_parse`): the first `Received` field, every
//! `Delivered-To` and `X-Delivery-ID`, and `Date` and `Message-ID` where they stand before that
//! `Received`. Dovecot took it over for the GUIDs of mbox messages (`mbox-md5-apop3d.c`), of the
//! values alone.
#![forbid(unsafe_code)]

use md5::{Digest, Md5};

/// Which octets the MD5 is computed of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DigestOf {
    /// Whole lines, as they are in the file: popa3d.
    Lines,
    /// Values, without blanks before them and without line ends: Dovecot.
    Values,
}

/// An MD5 that is being computed.
#[derive(Debug, Clone)]
pub struct HeaderDigest {
    of: DigestOf,
    md5: Md5,
    /// Whether anything is in it.
    is_fed: bool,
    is_received_seen: bool,
    /// Whether the field that is being read is in it.
    is_fixed: bool,
}

impl HeaderDigest {
    /// Begins the MD5 of a header that has not been read yet.
    pub fn new(of: DigestOf) -> Self {
        Self { of, md5: Md5::new(), is_fed: false, is_received_seen: false, is_fixed: false }
    }

    /// Takes a line of the header with its end, or the next piece of a long one.
    pub fn update(&mut self, piece: &[u8], starts_line: bool) {
        let is_folded = matches!(piece.first(), Some(b' ' | b'\t'));
        let begins_field = starts_line && !is_folded;
        let mut value = 0;
        if begins_field {
            let name = piece.iter().position(|&octet| octet == b':');
            let name = name.map_or(&piece[..0], |colon| &piece[..colon]);
            self.is_fixed = self.takes(name);
            value = (name.len() + 1).min(piece.len());
        }
        if !self.is_fixed {
            return;
        }
        self.is_fed = true;
        match self.of {
            DigestOf::Lines => self.md5.update(piece),
            DigestOf::Values => {
                let value = if begins_field { trim_blanks(&piece[value..]) } else { piece };
                let value = value.strip_suffix(b"\n").unwrap_or(value);
                self.md5.update(value.strip_suffix(b"\r").unwrap_or(value));
            }
        }
    }

    fn takes(&mut self, name: &[u8]) -> bool {
        // popa3d wants the colon right behind the name.
        let name = if self.of == DigestOf::Values { name.trim_ascii_end() } else { name };
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        if is(b"Received") {
            return !std::mem::replace(&mut self.is_received_seen, true);
        }
        // popa3d looks for a capital X.
        let is_delivery_id =
            is(b"X-Delivery-ID") && (self.of == DigestOf::Values || name.starts_with(b"X"));
        is(b"Delivered-To")
            || is_delivery_id
            || (is(b"Date") || is(b"Message-ID")) && !self.is_received_seen
    }

    /// The digest; `None` when nothing of the header is in it, for then it is that of many.
    pub fn finish(self) -> Option<[u8; 16]> {
        self.is_fed.then(|| self.md5.finalize().into())
    }

    /// The digest of a header that has nothing fixed in it.
    pub fn of_nothing() -> [u8; 16] {
        Md5::new().finalize().into()
    }
}

fn trim_blanks(value: &[u8]) -> &[u8] {
    let blanks = value.iter().take_while(|&&octet| octet == b' ' || octet == b'\t').count();
    &value[blanks..]
}
