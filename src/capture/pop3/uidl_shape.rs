//! The form of the UIDLs of a maildrop gives away a counter, or Maildir file names: [`UidlShape`].
//!
//! A form counts only where every UIDL of the maildrop has it. One that a sender chose (mailutils
//! and Qpopper obey `X-UIDL`) then says nothing beside the others.
//!
//! A counter needs more than one witness: the one UIDL of a popa3d maildrop is 16 digits of a hash,
//! and every second such hash ends like a UIDVALIDITY of Dovecot's.
//!
//! A server that counts has given at least the highest number seen: all up to that is spent. POP3
//! does not tell how much further it had counted, for messages deleted since, and we make nothing
//! up: whatever copied a mailbox that goes on under the old UIDVALIDITY carried its next UID over
//! too.
#![forbid(unsafe_code)]

use crate::format::UidlFormat;
use crate::maildrop::Counter;
use crate::uidl::Uidl;

/// The forms of servers that count, and whether their number is the IMAP UID: Dovecot's default,
/// Cyrus's, and Courier's, which counts apart from UIDs (Plesk has Dovecot continue it).
const COUNTING: [(&str, bool); 3] = [("%08Xu%08Xv", true), ("%v.%u", true), ("UID%u-%v", false)];

/// A UIDVALIDITY is a time from 1989 to 2049; hexadecimal digits of a hash are seldom so.
const TIMES: std::ops::RangeInclusive<u32> = 600_000_000..=2_500_000_000;

/// What the form of all UIDLs of a maildrop gives away.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct UidlShape {
    /// The UIDVALIDITY, of servers that count.
    pub uidvalidity: Option<u32>,
    /// How they count; its `next` is one above the highest seen.
    pub counter: Option<Counter>,
    /// Whether the number in a UIDL is its IMAP UID.
    is_uid: bool,
    /// Whether they are Maildir base file names (qmail-pop3d, Dovecot's `%f`).
    pub are_file_names: bool,
}

impl UidlShape {
    /// The form of `uidls`; none where there are none.
    pub fn of(uidls: &[Uidl]) -> Self {
        let Some(first) = uidls.first() else { return Self::default() };
        let has_witnesses = uidls.iter().any(|uidl| uidl != first);
        for (format, is_uid) in COUNTING.into_iter().filter(|_| has_witnesses) {
            let Some(uidvalidity) = uidvalidity_in(format, first.as_bytes()) else { continue };
            let format = UidlFormat::parse(format).expect("a format of Dovecot's");
            let highest = uidls.iter().try_fold(0, |highest, uidl| {
                Some(format.number_of(uidl.as_bytes(), uidvalidity)?.max(highest))
            });
            if let Some(next) = highest.and_then(|highest| highest.checked_add(1)) {
                let counter = Some(Counter { format, next });
                return Self {
                    uidvalidity: Some(uidvalidity),
                    counter,
                    is_uid,
                    are_file_names: false,
                };
            }
        }
        let are_file_names = uidls.iter().all(|uidl| is_file_name(uidl.as_bytes()));
        Self { are_file_names, ..Self::default() }
    }

    /// The IMAP UID that is in `uidl`.
    pub fn uid_of(&self, uidl: &Uidl) -> Option<u32> {
        let counter = self.counter.as_ref().filter(|_| self.is_uid)?;
        counter.format.number_of(uidl.as_bytes(), self.uidvalidity?)
    }
}

/// The UIDVALIDITY of a UIDL of that form, if it is one.
fn uidvalidity_in(format: &str, uidl: &[u8]) -> Option<u32> {
    let uidl = std::str::from_utf8(uidl).ok()?;
    let uidvalidity = match format {
        "%08Xu%08Xv" if uidl.len() == 16 => u32::from_str_radix(uidl.get(8..)?, 16).ok()?,
        "%v.%u" => uidl.split_once('.')?.0.parse().ok()?,
        "UID%u-%v" => uidl.split_once('-')?.1.parse().ok()?,
        _ => return None,
    };
    TIMES.contains(&uidvalidity).then_some(uidvalidity)
}

/// Whether it is named as deliveries into a Maildir are: `time.unique.host`, the time in seconds.
fn is_file_name(uidl: &[u8]) -> bool {
    let mut parts = uidl.splitn(3, |&octet| octet == b'.');
    let (time, unique, host) = (parts.next(), parts.next(), parts.next());
    let is_time =
        |time: &[u8]| (9..=10).contains(&time.len()) && time.iter().all(u8::is_ascii_digit);
    time.is_some_and(is_time)
        && [unique, host].iter().all(|part| part.is_some_and(|part| !part.is_empty()))
        && !uidl.contains(&b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(uidls: &[&str]) -> UidlShape {
        let uidls: Vec<Uidl> =
            uidls.iter().map(|uidl| Uidl::new(uidl.as_bytes()).unwrap()).collect();
        UidlShape::of(&uidls)
    }

    #[test]
    fn a_server_that_counts_has_spent_all_up_to_the_highest() {
        for (uidls, uidvalidity, next, uid) in [
            (["0000000a6b04afcb", "000000096b04afcb"], 0x6b04_afcb, 11, Some(10)),
            (["1795469142.1", "1795469142.12"], 1_795_469_142, 13, Some(1)),
            (["UID7-1795468718", "UID3-1795468718"], 1_795_468_718, 8, None),
        ] {
            let shape = shape(&uidls);
            assert_eq!(shape.uidvalidity, Some(uidvalidity), "{uidls:?}");
            assert_eq!(shape.counter.as_ref().unwrap().next, next, "{uidls:?}");
            assert_eq!(shape.uid_of(&Uidl::new(uidls[0].as_bytes()).unwrap()), uid, "{uidls:?}");
            assert!(!shape.are_file_names);
        }
    }

    #[test]
    fn one_uidl_of_another_form_is_enough_to_say_nothing() {
        for uidls in [
            &["000000016b04afcb", "000000026b04afcc"][..],
            &["000000016b04afcb", "from.the.sender"],
            &["000000016B04AFCB"],
            &["1795469142.1", "1795469142.1x"],
            &["UID7"],
            &["UID7-17"],
            // popa3d made these: a time in them would be chance.
            &["c2bd1ba5f0c11a41", "4111b7c0d8c11a42"],
            &["1714990000.20000.old.example.com", "000000016b04afcb"],
            &["ffffffff6b04afcb"],
            &[],
        ] {
            assert_eq!(shape(uidls), UidlShape::default(), "{uidls:?}");
        }
    }

    #[test]
    fn one_uidl_however_often_it_is_given_is_no_counter() {
        // The second is one that popa3d could make; it gives copies the same.
        for uidl in ["0000000a6b04afcb", "0123456763b0b25e", "1795469142.1", "UID7-1795468718"] {
            assert_eq!(shape(&[uidl]), UidlShape::default(), "{uidl}");
            assert_eq!(shape(&[uidl, uidl, uidl]), UidlShape::default(), "{uidl}");
        }
        assert_eq!(shape(&["0000000a6b04afcb", "0000000b6b04afcb"]).counter.unwrap().next, 12);
    }

    #[test]
    fn a_uidl_is_a_file_name_where_all_are() {
        assert!(
            shape(&["1714990000.M1P2V3I4_0.old.example.com,S=407", "999999999.1.h"]).are_file_names
        );
        for other in ["1714990000.1", "1714990000..h", "oldserver.4711.abc", "1714990000.1."] {
            assert!(!shape(&["1714990000.20000.h", other]).are_file_names, "{other}");
        }
    }
}
