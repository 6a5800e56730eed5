//! The normaliser: fingerprints do not depend on slices, line ends, blanks or a store's fields.

use uidl_keep::key::{Depth, Fingerprinter, Fingerprints, Wants};

/// The first octet says how to slice the rest, which is a message.
pub fn check(octets: &[u8]) {
    let Some((&step, message)) = octets.split_first() else { return };
    let step = usize::from(step % 64) + 1;
    let of_message = fingerprints(Depth::Message, message.chunks(message.len().max(1)));
    let of_header = fingerprints(Depth::Header, message.chunks(message.len().max(1)));

    let is_message = |how: &str, message: &[u8]| {
        assert_eq!(fingerprints(Depth::Message, message.chunks(step)), of_message, "{how}");
        assert_eq!(fingerprints(Depth::Header, message.chunks(step)), of_header, "{how}");
    };
    is_message("slices", message);
    let plain: Vec<u8> = message.iter().copied().filter(|&octet| octet != b'\r').collect();
    is_message("LF", &plain);
    is_message("CRLF", &with_line_ends(&plain, b"\r\n"));
    is_message("CR CR LF", &with_line_ends(&plain, b"\r\r\n"));

    assert_eq!((of_message.header, of_message.origin), (of_header.header, of_header.origin));
    assert_eq!(of_message.header_ended, of_header.header_ended);
    assert_eq!((of_header.message, of_header.body), (None, None));
    assert!(of_message.body.is_some());
    assert_eq!(of_message.names_itself, of_header.names_itself);
    assert!(!of_message.names_itself || of_message.header.is_some());
    assert!(!of_message.origin_names_itself || of_message.names_itself);
    assert!(!of_message.origin_names_itself || of_message.origin.is_some());
    assert!(of_message.header.is_none() || of_message.message.is_some());
    assert!(of_message.header.is_some() || of_message.origin.is_none());
    // Header and origin are the same octets under different keys: never the same fingerprint.
    assert!(of_message.header.is_none() || of_message.header != of_message.origin);

    let of = |message: &[u8]| fingerprints(Depth::Message, message.chunks(4096));
    // Dovecot hands out 0x80 when a message has NUL.
    assert_eq!(of(&changed(message, |octet| if octet == 0 { 0x80 } else { octet })), of_message);
    if of_message.header_ended {
        assert_eq!(of(&[message, b"\n\r\n"].concat()), of_message, "line ends at the end");
        // A tab replaces a blank, and a field that only a store writes is put above. It is not put
        // above a folded line, which would belong to it.
        if !matches!(plain.first(), Some(b' ' | b'\t')) {
            for field in [b"X-UID: 7\n\tx\n".as_slice(), b"Message-Id: <7@imapsync>\r\n"] {
                assert_eq!(of(&[field, message].concat()), of_message, "a store's field");
            }
        }
        let received = [b"Received: x\n".as_slice(), message].concat();
        assert!(
            matches!(plain.first(), Some(b' ' | b'\t'))
                || of(&received).origin == of_message.origin
        );
        assert_ne!(of(&received).header, of_message.header);
    }
}

fn fingerprints<'a>(depth: Depth, slices: impl Iterator<Item = &'a [u8]>) -> Fingerprints {
    let mut fingerprinter = Fingerprinter::new(depth);
    let mut wants = Wants::More;
    for slice in slices {
        let now = fingerprinter.update(slice);
        assert!(wants == Wants::More || now == Wants::Nothing, "more after nothing");
        assert!(depth == Depth::Header || now == Wants::More);
        wants = now;
    }
    fingerprinter.finish()
}

fn changed(message: &[u8], change: impl Fn(u8) -> u8) -> Vec<u8> {
    message.iter().map(|&octet| change(octet)).collect()
}

fn with_line_ends(plain: &[u8], end: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(plain.len() + plain.len() / 16);
    for &octet in plain {
        match octet {
            b'\n' => message.extend(end),
            _ => message.push(octet),
        }
    }
    message
}
