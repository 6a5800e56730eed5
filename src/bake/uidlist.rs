//! A `dovecot-uidlist` that is changed and written again: [`BakedList`].
//!
//! It is read as strictly as Dovecot reads it, and nothing in it is lost: of each line only `P` and
//! `O` can be set, and of the header the next UID. Every other field stays as it was, in its place,
//! those that we do not know among them. Learnt from dovecot core
//! `src/lib-storage/index/maildir/maildir-uidlist.c` (`maildir_uidlist_next`,
//! `maildir_uidlist_read_v3_header`, `maildir_uidlist_write_fd`); the form is shown in
//! [`capture::disk::dovecot`](crate::capture::disk::dovecot).
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io::Write as _;

use crate::capture::disk::maildir::base_name;
use crate::encoding::{Hex, decimal};

/// Why Dovecot would not take the list as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct BadList {
    /// Which line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: &'static str,
}

/// A `dovecot-uidlist`, to be changed. It is written as version 3, whichever it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BakedList {
    uidvalidity: u32,
    next: u32,
    /// The fields of the header, each with its key, in their order. The next UID's has no number.
    header: Vec<Box<[u8]>>,
    lines: Vec<ListLine>,
}

/// One message of a [`BakedList`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListLine {
    uid: u32,
    /// The fields, each with its key, in their order.
    fields: Vec<Box<[u8]>>,
    /// The file name, as it stands there: some lists have flags in it.
    file: Box<[u8]>,
}

/// UIDL and order number of a message, each as it stands in the list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoredUidl {
    /// `P`. An empty one stands for the base file name.
    pub uidl: Option<Box<[u8]>>,
    /// `O`.
    pub order: Option<Box<[u8]>>,
}

impl StoredUidl {
    /// The pair of a message that is baked.
    pub fn baked(uidl: &[u8], order: u32) -> Self {
        let order = order.to_string().into_bytes().into();
        Self { uidl: Some(uidl.into()), order: Some(order) }
    }

    /// The pair with this UIDL, where the old order is not kept: whatever order is there stays.
    pub fn with_uidl(&self, uidl: &[u8]) -> Self {
        Self { uidl: Some(uidl.into()), order: self.order.clone() }
    }

    /// The number by which Dovecot sorts the message in a POP3 listing: without an `O`, last.
    pub fn place(&self) -> u32 {
        let digits = self.order.as_deref().and_then(|order| std::str::from_utf8(order).ok());
        digits.and_then(|digits| digits.parse().ok()).unwrap_or(u32::MAX)
    }
}

impl BakedList {
    /// The list of a mailbox that has none yet.
    pub fn new(uidvalidity: u32, guid: [u8; 16]) -> Self {
        let header = [format!("V{uidvalidity}"), "N".to_owned(), format!("G{}", Hex(&guid))];
        let header = header.map(|field| field.into_bytes().into()).into();
        Self { uidvalidity, next: 1, header, lines: Vec::new() }
    }

    /// Parses a list, which must end in a whole line. One pass. `guid` is for a list of version 1,
    /// which has none.
    ///
    /// # Errors
    ///
    /// [`BadList`] for the first line that Dovecot would not read, or that it would repair: UIDs
    /// that do not go up, a file name that comes twice.
    pub fn parse(octets: &[u8], guid: [u8; 16]) -> Result<Self, BadList> {
        let bad = |line, what| BadList { line, what };
        let mut lines = (1..).zip(octets.split_inclusive(|&octet| octet == b'\n'));
        let (_, header) = lines.next().ok_or(bad(1, "there is no header"))?;
        let header = whole(header).map_err(|what| bad(1, what))?;
        let (version, mut list) = parse_header(header, guid).map_err(|what| bad(1, what))?;
        let mut line_of_file: HashMap<&[u8], usize> = HashMap::new();
        for (at, line) in lines {
            let line = whole(line).map_err(|what| bad(at, what))?;
            let (line, file) = parse_line(version, line).map_err(|what| bad(at, what))?;
            if list.lines.last().is_some_and(|before| before.uid >= line.uid) {
                return Err(bad(at, "its UID is not above the one before"));
            }
            if version == 1 && line.uid >= list.next {
                return Err(bad(at, "its UID is not below the next one"));
            }
            if line_of_file.insert(base_name(file), at).is_some() {
                return Err(bad(at, "its file name stands in a line before"));
            }
            list.next = list.next.max(line.uid + 1);
            list.lines.push(line);
        }
        Ok(list)
    }

    /// The mailbox's UIDVALIDITY.
    pub fn uidvalidity(&self) -> u32 {
        self.uidvalidity
    }

    /// The next UID: the header's, or what follows the highest UID.
    pub fn next(&self) -> u32 {
        self.next
    }

    /// Raises the next UID to this one, unless it is as high already.
    pub fn raise_next(&mut self, next: u32) {
        self.next = self.next.max(next);
    }

    /// The messages by UID.
    pub fn lines(&self) -> &[ListLine] {
        &self.lines
    }

    /// Adds a message behind all others.
    ///
    /// # Panics
    ///
    /// When its UID is not above all others, or its name is one that no list can have: see
    /// [`can_be_listed`].
    pub fn push(&mut self, uid: u32, file: &[u8]) {
        assert!(self.lines.last().is_none_or(|last| last.uid < uid), "UIDs go up");
        assert!(can_be_listed(file), "a name that a list can have");
        self.lines.push(ListLine { uid, fields: Vec::new(), file: file.into() });
        self.next = self.next.max(uid + 1);
    }

    /// The message with this UID, where it has this base file name.
    pub fn find(&self, uid: u32, file: &[u8]) -> Option<&ListLine> {
        self.place(uid, file).map(|at| &self.lines[at])
    }

    /// Sets UIDL and order number of the message with this UID and this base file name; `None`
    /// takes one away. `false`: there is no such message.
    pub fn set(&mut self, uid: u32, file: &[u8], stored: &StoredUidl) -> bool {
        let Some(at) = self.place(uid, file) else { return false };
        let fields = &mut self.lines[at].fields;
        set_field(fields, b'P', stored.uidl.as_deref());
        set_field(fields, b'O', stored.order.as_deref());
        true
    }

    fn place(&self, uid: u32, file: &[u8]) -> Option<usize> {
        let at = self.lines.binary_search_by_key(&uid, |line| line.uid).ok()?;
        (self.lines[at].base() == file).then_some(at)
    }

    /// The octets of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = b"3".to_vec();
        for field in &self.header {
            out.push(b' ');
            match field.first() {
                // Writing to a vector cannot fail.
                Some(b'N') => drop(write!(out, "N{}", self.next)),
                _ => out.extend_from_slice(field),
            }
        }
        out.push(b'\n');
        for line in &self.lines {
            let _ = write!(out, "{}", line.uid);
            for field in &line.fields {
                out.push(b' ');
                out.extend_from_slice(field);
            }
            out.extend_from_slice(b" :");
            out.extend_from_slice(&line.file);
            out.push(b'\n');
        }
        out
    }
}

impl ListLine {
    /// Its UID.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Its base file name.
    pub fn base(&self) -> &[u8] {
        base_name(&self.file)
    }

    /// Its UIDL and its order number.
    pub fn stored(&self) -> StoredUidl {
        StoredUidl { uidl: self.field(b'P'), order: self.field(b'O') }
    }

    /// Dovecot takes the first field of a key.
    fn field(&self, key: u8) -> Option<Box<[u8]>> {
        let mut fields = self.fields.iter();
        fields.find(|field| field[0] == key).map(|field| field[1..].into())
    }
}

/// Whether a list can have a message of this base file name.
pub fn can_be_listed(file: &[u8]) -> bool {
    !file.is_empty() && !file.iter().any(|octet| matches!(octet, b'\n' | b'\r' | b'/' | 0))
}

fn set_field(fields: &mut Vec<Box<[u8]>>, key: u8, value: Option<&[u8]>) {
    let place = fields.iter().position(|field| field[0] == key);
    let Some(value) = value else {
        fields.retain(|field| field[0] != key);
        return;
    };
    let field: Box<[u8]> = [&[key], value].concat().into();
    match place {
        Some(at) => fields[at] = field,
        None => fields.push(field),
    }
}

/// A line before its LF or CR LF, as Dovecot cuts lines. It has no other CR: one before the line
/// end would be lost where the line is written again.
fn whole(line: &[u8]) -> Result<&[u8], &'static str> {
    let line = line.strip_suffix(b"\n").ok_or("it has no end")?;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.contains(&b'\r') { Err("a CR stands in it") } else { Ok(line) }
}

fn number(digits: &[u8]) -> Option<u32> {
    decimal(digits).and_then(|number| u32::try_from(number).ok()).filter(|&number| number > 0)
}

/// The version, and a list without messages.
fn parse_header(line: &[u8], guid: [u8; 16]) -> Result<(u8, BakedList), &'static str> {
    const NO_HEADER: &str = "it is no header of version 1 or 3";
    let (version, rest) = line.split_first().ok_or(NO_HEADER)?;
    let rest = rest.strip_prefix(b" ").ok_or(NO_HEADER)?;
    let words = rest.split(|&octet| octet == b' ');
    match version {
        b'1' => {
            let numbers: Vec<u32> = words.map_while(number).collect();
            let [uidvalidity, next] = numbers[..] else { return Err(NO_HEADER) };
            let mut list = BakedList::new(uidvalidity, guid);
            list.next = next;
            Ok((1, list))
        }
        b'3' => {
            let words = words.filter(|word| !word.is_empty());
            let mut header: Vec<Box<[u8]>> = words.map(Box::from).collect();
            let value = |key: u8| {
                let mut values = header.iter().filter(|field| field[0] == key);
                values.next().filter(|_| values.next().is_none()).and_then(|f| number(&f[1..]))
            };
            let (Some(uidvalidity), Some(next)) = (value(b'V'), value(b'N')) else {
                return Err("it has no UIDVALIDITY, or no next UID");
            };
            // The number is written anew.
            header.iter_mut().filter(|field| field[0] == b'N').for_each(|f| *f = b"N"[..].into());
            Ok((3, BakedList { uidvalidity, next, header, lines: Vec::new() }))
        }
        _ => Err(NO_HEADER),
    }
}

/// A message, and its file name.
fn parse_line(version: u8, line: &[u8]) -> Result<(ListLine, &[u8]), &'static str> {
    let digits = line.iter().take_while(|octet| octet.is_ascii_digit()).count();
    let uid = number(&line[..digits]).filter(|&uid| uid < u32::MAX - 1);
    let uid = uid.ok_or("it has no UID")?;
    let rest = line[digits..].strip_prefix(b" ").ok_or("no blank follows its UID")?;
    let mut rest = without_blanks(rest);
    let mut fields: Vec<Box<[u8]>> = Vec::new();
    if version == 3 {
        while !rest.is_empty() && rest[0] != b':' {
            if !rest[0].is_ascii_uppercase() {
                return Err("it has a field that is none");
            }
            let end = rest.iter().position(|&octet| octet == b' ').unwrap_or(rest.len());
            fields.push(rest[..end].into());
            rest = without_blanks(&rest[end..]);
        }
        rest = rest.strip_prefix(b":").ok_or("it has no file name")?;
    }
    if !can_be_listed(base_name(rest)) || rest.contains(&b'/') || rest.contains(&0) {
        return Err("its file name is none");
    }
    Ok((ListLine { uid, fields, file: rest.into() }, rest))
}

fn without_blanks(line: &[u8]) -> &[u8] {
    &line[line.iter().take_while(|&&octet| octet == b' ').count()..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GUID: [u8; 16] = [7; 16];

    fn parsed(text: &str) -> Result<BakedList, BadList> {
        BakedList::parse(text.as_bytes(), GUID)
    }

    fn text(list: &BakedList) -> String {
        String::from_utf8(list.encode()).unwrap()
    }

    #[test]
    fn only_what_is_set_changes() {
        let odd = "3 V7 N20 G00 Xnew\n4 W12 P18 Zz S9 O3 :a,S=9\n9 Gg :b:2,S\n";
        let mut list = parsed(odd).unwrap();
        assert_eq!(text(&list), odd);
        assert_eq!((list.uidvalidity(), list.next()), (7, 20));
        assert_eq!(list.find(4, b"a,S=9").unwrap().stored().order.as_deref(), Some(&b"3"[..]));
        assert!(list.set(4, b"a,S=9", &StoredUidl::baked(b"UID1-17", 1 << 20)));
        assert!(list.set(9, b"b", &StoredUidl::baked(b"u", 1_048_577)));
        assert!(!list.set(9, b"a,S=9", &StoredUidl::default()));
        assert!(!list.set(5, b"b", &StoredUidl::default()));
        list.raise_next(65_600);
        list.raise_next(3);
        let baked = "3 V7 N65600 G00 Xnew\n4 W12 PUID1-17 Zz S9 O1048576 :a,S=9\n\
                     9 Gg Pu O1048577 :b:2,S\n";
        assert_eq!(text(&list), baked);
        assert!(list.set(9, b"b", &StoredUidl::default()));
        let was = StoredUidl { uidl: Some(Box::from(&b""[..])), order: None };
        assert!(list.set(4, b"a,S=9", &was));
        assert_eq!(list.find(4, b"a,S=9").unwrap().stored(), was);
        assert!(text(&list).ends_with("4 W12 P Zz S9 :a,S=9\n9 Gg :b:2,S\n"));
    }

    #[test]
    fn a_list_of_version_1_becomes_one_of_version_3_with_a_guid() {
        let list = parsed("1 7 20\r\n4 a\r\n9  b:2,S\r\n").unwrap();
        let guid = Hex(&GUID).to_string();
        assert_eq!(text(&list), format!("3 V7 N20 G{guid}\n4 :a\n9 :b:2,S\n"));
        let mut made = BakedList::new(7, GUID);
        made.push(4, b"a");
        assert_eq!(text(&made), format!("3 V7 N5 G{guid}\n4 :a\n"));
    }

    #[test]
    fn the_next_uid_is_behind_lines_that_were_appended() {
        assert_eq!(parsed("3 V7 N2 G00\n1 :a\n5 :b\n").unwrap().next(), 6);
    }

    #[test]
    fn what_dovecot_would_not_take_or_would_repair_is_refused_with_its_line() {
        for (list, line, what) in [
            ("", 1, "no header"),
            ("3 V7 N2", 1, "no end"),
            ("2 V7 N2\n", 1, "version"),
            ("3 V7\n", 1, "next UID"),
            ("3 V7 N2 N3\n", 1, "next UID"),
            ("3 V0 N2\n", 1, "UIDVALIDITY"),
            ("1 7\n", 1, "version"),
            ("1 7 3\n3 a\n", 2, "below the next"),
            ("3 V7 N9\n1 :a\n1 :b\n", 3, "above"),
            ("3 V7 N9\n2 :a\n1 :b\n", 3, "above"),
            ("3 V7 N9\n1 :a:2,S\n2 :a\n", 3, "before"),
            ("3 V7 N9\n1 :a\n2 :b", 3, "no end"),
            ("3 V7 N9\nx :a\n", 2, "no UID"),
            ("3 V7 N9\n4294967295 :a\n", 2, "no UID"),
            ("3 V7 N9\n4294967294 :a\n", 2, "no UID"),
            ("3 V7 N9\n1:a\n", 2, "no blank"),
            ("3 V7 N9\n1 pX :a\n", 2, "none"),
            ("3 V7 N9\n1 PX a\n", 2, "none"),
            ("3 V7 N9\n1 PX\n", 2, "no file name"),
            ("3 V7 N9\n1 :\n", 2, "file name is none"),
            ("3 V7 N9\n1 ::2,S\n", 2, "file name is none"),
            ("3 V7 N9\n1 :a/b\n", 2, "file name is none"),
            ("3 V7 N9\n1 :a:2,/b\n", 2, "file name is none"),
            ("3 V7 N9\n1 :a:2,S\r\r\n", 2, "CR"),
            ("3 V7 N9\n1 Pa\r :a\n", 2, "CR"),
            ("3 V7 N9 Xnew\r\r\n", 1, "CR"),
        ] {
            let error = parsed(list).expect_err(list);
            assert_eq!(error.line, line, "{list:?}: {error}");
            assert!(error.to_string().contains(what), "{list:?}: {error}");
        }
    }

    prop_compose! {
        fn a_line()(
            gap in 1..5_u32,
            fields in prop::collection::vec("[A-Z][!-~]{0,6}", 0..5),
            flags in prop::option::of("[A-Z]{0,3}"),
        ) -> (u32, Vec<String>, Option<String>) {
            (gap, fields, flags)
        }
    }

    proptest! {
        /// All but `P`, `O` and the next UID is as it was, octet for octet.
        #[test]
        fn parse_and_write_keeps_everything_else(
            lines in prop::collection::vec(a_line(), 0..20),
            extra in prop::collection::vec("[A-FH-MO-UW-Z][!-~]{0,6}", 0..3),
            baked in prop::collection::vec(any::<bool>(), 20),
        ) {
            let extra: String = extra.iter().map(|field| format!(" {field}")).collect();
            let without = |fields: &[String]| -> String {
                let kept = fields.iter().filter(|field| !field.starts_with(['P', 'O']));
                kept.map(|field| format!(" {field}")).collect()
            };
            let (mut before, mut after) = (String::new(), Vec::new());
            let mut uid = 0;
            for (gap, fields, flags) in &lines {
                uid += gap;
                let flags = flags.iter().map(|flags| format!(":2,{flags}"));
                let file = format!("m{uid}{}", flags.collect::<String>());
                let all: String = fields.iter().map(|field| format!(" {field}")).collect();
                before += &format!("{uid}{all} :{file}\n");
                after.push((uid, without(fields), file));
            }
            let header = |next: u32| format!("3 V5 N{next} G00{extra}\n");
            let text = header(uid + 1) + &before;
            let mut list = BakedList::parse(text.as_bytes(), GUID).unwrap();
            prop_assert_eq!(list.encode(), text.as_bytes());
            for ((uid, ..), is_baked) in after.iter().zip(&baked) {
                if *is_baked {
                    let stored = StoredUidl::baked(b"told", *uid);
                    let file = format!("m{uid}");
                    prop_assert!(list.set(*uid, file.as_bytes(), &stored));
                    prop_assert_eq!(list.find(*uid, file.as_bytes()).unwrap().stored(), stored);
                }
            }
            list.raise_next(9999);
            let written = list.encode();
            let again = BakedList::parse(&written, GUID).unwrap();
            prop_assert_eq!(&again, &list);
            let mut bare = again;
            for (uid, ..) in &after {
                bare.set(*uid, format!("m{uid}").as_bytes(), &StoredUidl::default());
            }
            let kept = after.iter().map(|(uid, fields, file)| format!("{uid}{fields} :{file}\n"));
            let kept: String = kept.collect();
            prop_assert_eq!(String::from_utf8(bare.encode()).unwrap(), header(9999) + &kept);
        }
    }
}
