//! The text form of captured maildrops: [`Reader`], [`scan`], [`outline`] and [`write_maildrop`].
//!
//! docs/listing.md describes it for people who write one by hand or from a database. The reader
//! gives back exactly what the writer wrote. It refuses a block that was cut short, as
//! `qmail-newu.c` does with its lone `.`.
#![forbid(unsafe_code)]

mod check;
mod error;
mod form;
mod read;
mod write;

pub use error::{Excerpt, ListingError, ListingFault};
pub use form::{MAX_LINE_OCTETS, VERSION};
pub use read::{Block, BlockReader, BlockScan, Reader, outline, scan};
pub use write::write_maildrop;

#[cfg(test)]
mod tests {
    use std::io::{self, Read};

    use proptest::prelude::*;

    use super::*;
    use crate::format::UidlFormat;
    use crate::key::{FileKey, Fingerprint};
    use crate::listing::check::{check_counter, check_entry};
    use crate::maildrop::{Capture, Counter, Entry, Maildrop, Name, State};
    use crate::uidl::Uidl;

    /// A listing with one of everything, as the writer writes it.
    const ALICE: &str = "\
uidl-keep-listing 1
maildrop alice@example.com
state captured
source courier /var/qmail/mailnames/example.com/alice/Maildir
keys 1
uidvalidity 1714990000
counter 13 UID%u-%v
remark line 3 of courierpop3dsizelist: no number: 1714...
spent UID9-1714990000
1 UID1-1714990000 uid=1 octets=420 file=1714990000.20000.old%20name guid=d35d6b0a \
  header=000102030405060708090a0b0c0d0e0f message=ffffffffffffffffffffffffffffffff \
  origin=101112131415161718191a1b1c1d1e1f
2 UID2-1714990000 file-hash=000102030405060708090a0b0c0d0e0f10111213 \
  guid-hash=ffffffffffffffffffffffffffffffffffffffff
.
";

    fn read(text: &[u8]) -> Result<Vec<Maildrop>, ListingError> {
        Reader::new(text).collect()
    }

    fn written(maildrop: &Maildrop) -> Vec<u8> {
        let mut out = Vec::new();
        write_maildrop(&mut out, maildrop).unwrap();
        out
    }

    /// The error of `text`, which a scan must find too.
    fn error_in(text: &str) -> String {
        let error = read(text.as_bytes()).unwrap_err().to_string();
        let scanned: Result<Vec<_>, _> = scan(text.as_bytes()).collect();
        assert_eq!(scanned.unwrap_err().to_string(), error);
        error
    }

    #[test]
    fn reads_a_block_and_writes_it_the_same() {
        let read = read(ALICE.as_bytes()).unwrap();
        let [maildrop] = read.as_slice() else { panic!("{read:?}") };
        assert_eq!(String::from_utf8(written(maildrop)).unwrap(), ALICE);
        let entry = &maildrop.entries[0];
        assert_eq!(maildrop.user, "alice@example.com");
        assert_eq!(maildrop.counter.as_ref().map(|counter| counter.next), Some(13));
        assert_eq!(maildrop.spent, [Uidl::new(*b"UID9-1714990000").unwrap()]);
        assert_eq!((entry.uid, entry.octets), (Some(1), Some(420)));
        assert_eq!(entry.file, Some(Name::Spelled((*b"1714990000.20000.old name").into())));
        assert_eq!(entry.message, Some(Fingerprint([0xFF; 16])));
        assert_eq!(
            maildrop.entries[1].guid,
            Some(Name::Key(FileKey { cut: [0xFF; 16], whole: [0xFF; 4] }))
        );
    }

    /// A maildrop of two captures, as the writer writes it.
    const MERGED: &str = "\
uidl-keep-listing 1
maildrop alice@example.com
state captured
source dovecot /home/alice/Maildir
capture 1 1714990000 - - courier /home/alice/Maildir
capture 2 - 13 1714990000
uidvalidity 1714990000
counter 13 UID%u-%v
1 UID1-1714990000 file=a last=1
2 UID2-1714990000 file=b first=2
3 UID3-1714990000 file=c earlier=UID9=1 earlier=UID8%20
.
";

    #[test]
    fn a_block_says_when_it_was_captured_and_needs_not() {
        let text = ALICE.replace("keys 1", "taken 1794749400\nkeys 1");
        let maildrop = read(text.as_bytes()).unwrap().remove(0);
        assert_eq!(String::from_utf8(written(&maildrop)).unwrap(), text);
        assert_eq!(maildrop.captures, [Capture::of(&maildrop, Some(1_794_749_400))]);
        assert_eq!(maildrop.captures[0].next, Some(13));
        assert_eq!(maildrop.last_entries().count(), 2);
        let untimed = read(ALICE.as_bytes()).unwrap().remove(0);
        assert_eq!(untimed.captures, [Capture::of(&untimed, None)]);
    }

    #[test]
    fn several_captures_stand_in_a_block_with_what_each_said() {
        let maildrop = read(MERGED.as_bytes()).unwrap().remove(0);
        assert_eq!(String::from_utf8(written(&maildrop)).unwrap(), MERGED);
        let [first, second] = &maildrop.captures[..] else { panic!("{maildrop:?}") };
        assert_eq!((first.taken, first.next, first.uidvalidity), (Some(1_714_990_000), None, None));
        assert_eq!(first.source, "courier /home/alice/Maildir");
        assert_eq!((second.taken, second.next), (None, Some(13)));
        assert_eq!((second.uidvalidity, second.source.as_str()), (Some(1_714_990_000), ""));
        let of = |entry: &Entry| (entry.first_capture, entry.last_capture);
        assert_eq!(maildrop.entries.iter().map(of).collect::<Vec<_>>(), [(0, 0), (1, 1), (0, 1)]);
        let earlier: Vec<_> = maildrop.entries[2].earlier.iter().map(Uidl::to_string).collect();
        assert_eq!(earlier, ["UID9=1", "UID8%20"]);
        assert_eq!(maildrop.last_entries().count(), 2);
    }

    #[test]
    fn a_fault_in_what_is_said_of_captures_names_line_and_next_step() {
        for (was, is, error) in [
            ("capture 2", "capture 3", "6: capture \"3\" where capture 2 must stand; number them"),
            ("capture 1", "capture x", "5: capture \"x\" where capture 1 must stand"),
            ("capture 1 1714990000 - -", "capture 1 1714990000 -", "5: bad number \"courier\""),
            ("- 13 1714990000", "- 4294967296 1714990000", "6: bad number \"4294967296\" for \"ca"),
            ("- 13 1714990000", "", "6: bad number \"\" for \"capture\""),
            ("capture 1", "taken 1\ncapture 1", "10: \"taken\" beside \"capture\" lines"),
            (
                "last=1",
                "last=0",
                "9: bad number \"0\" for \"last\"; it wants one of the captures, 1 to 2",
            ),
            ("last=1", "last=3", "9: bad number \"3\" for \"last\""),
            ("last=1", "first=2 last=1", "9: bad number \"2\" for \"first\""),
            ("last=1", "last=1 last=1", "9: second \"last\""),
            ("earlier=UID9=1", "earlier=", "11: "),
        ] {
            assert!(MERGED.contains(was), "{was}");
            let found = error_in(&MERGED.replacen(was, is, 1));
            assert!(found.starts_with(error), "{was:?} -> {is:?}: {found}");
        }
        for (is, error) in
            [("taken x", "5: bad number \"x\""), ("taken 1\ntaken 2", "6: second \"taken\"")]
        {
            let found = error_in(&ALICE.replacen("keys 1", is, 1));
            assert!(found.starts_with(error), "{is:?}: {found}");
        }
        let mut maildrop = read(MERGED.as_bytes()).unwrap().remove(0);
        maildrop.entries[0].last_capture = 2;
        let refused = write_maildrop(&mut Vec::new(), &maildrop).unwrap_err();
        assert!(refused.to_string().starts_with("bad number \"3\" for \"last\""), "{refused}");
    }

    #[test]
    fn only_fingerprints_need_the_version_of_the_rules() {
        let text = "uidl-keep-listing 1\nmaildrop a\nstate captured\n1 x file=a\n.\n";
        let maildrop = read(text.as_bytes()).unwrap().remove(0);
        assert_eq!(String::from_utf8(written(&maildrop)).unwrap(), text);
    }

    #[test]
    fn takes_what_people_write_by_hand() {
        let by_hand = "# from the old billing system\r\n\r\n\x20 uidl-keep-listing   1\r\n\
            state\tcaptured\n\nmaildrop m%C3%BCller@example.com  \n# a remark to ourselves\n\
            10  a  file=x%3d  uid=7\n30 b guid=y\n\t.\r\n\n# the end";
        let read = read(by_hand.as_bytes()).unwrap();
        assert_eq!(read[0].user, "m\u{fc}ller@example.com");
        assert_eq!(read[0].entries[0].file, Some(Name::Spelled((*b"x=").into())));
        assert_eq!(read[0].entries.len(), 2);
        assert_eq!(read[0].source, "");
        assert_eq!(
            outlined(by_hand.as_bytes()),
            scan(by_hand.as_bytes()).map(Result::unwrap).collect::<Vec<_>>()
        );
    }

    /// The blocks that an outline finds, whatever is in its buffer at a time.
    fn outlined(text: &[u8]) -> Vec<Block> {
        let found: Vec<Block> = outline(text).collect::<Result<_, _>>().unwrap();
        for room in [1, 7, 64, 4096] {
            let some = outline(io::BufReader::with_capacity(room, text));
            assert_eq!(some.collect::<Result<Vec<_>, _>>().unwrap(), found, "{room}");
        }
        found
    }

    #[test]
    fn an_outline_has_users_and_states_and_leaves_the_rest_to_whoever_reads_a_block() {
        for (was, is) in [
            ("uid=1 ", "uid=x "),
            ("2 UID2-1714990000", "1 UID2-1714990000"),
            ("2 UID2-1714990000", "2 \u{e9}"),
            ("keys 1\n", "keys 2\n"),
            ("source courier", "source %2"),
            ("counter 13 UID%u-%v", "counter 13 %f"),
        ] {
            assert!(ALICE.contains(was), "{was}");
            let text = ALICE.replacen(was, is, 1);
            let found = outlined(text.as_bytes());
            assert_eq!((found.len(), found[0].entries), (1, 2), "{is}");
            assert_eq!(found[0].len_octets, text.len() as u64);
            error_in(&text);
        }
        let failed = "uidl-keep-listing 1\nmaildrop a\nstate failed\nremark x\n.\n";
        assert_eq!(
            outline(failed.as_bytes()).with_heads().next().unwrap().unwrap().1.state,
            State::Failed
        );
        for (was, is, error) in [
            ("\n.\n", "\n", "11: no \".\" line at the end of maildrop \"alice@example.com\""),
            ("state captured", "state empty", "10: message in a maildrop of state empty"),
            ("maildrop alice", "maildrop %ff", "2: \"maildrop\" is not UTF-8"),
            ("\n.\n", "\nspent x\n.\n", "12: \"spent\" line behind the first message"),
            ("guid=d35d6b0a", &"x".repeat(MAX_LINE_OCTETS), "10: line of more than 65536 octets"),
            ("guid-hash=", &"x".repeat(MAX_LINE_OCTETS), "11: line of more than 65536 octets"),
        ] {
            assert!(ALICE.contains(was), "{was}");
            let text = ALICE.replacen(was, is, 1);
            let found = outline(text.as_bytes()).next().unwrap().unwrap_err().to_string();
            assert!(found.starts_with(error), "{is:?}: {found}");
            assert_eq!(found, error_in(&text));
        }
    }

    #[test]
    fn each_fault_names_line_and_next_step() {
        let with = |was: &str, is: &str| {
            assert!(ALICE.contains(was), "{was}");
            error_in(&ALICE.replacen(was, is, 1))
        };
        let long = "x".repeat(MAX_LINE_OCTETS);
        for (was, is, error) in [
            (
                "uidl-keep-listing 1\n",
                "",
                "1: found \"maildrop alice@example.com\" where a block must begin",
            ),
            ("uidl-keep-listing 1", "uidl-keep-listing 2", "1: listing of version \"2\", and only"),
            ("uidl-keep-listing 1", "uidl-keep-listing", "1: listing of version \"\", and only"),
            ("uidl-keep-listing 1", "+OK\u{1b}[2J", "1: found \"+OK\\x1b[2J\" where a block"),
            (
                "\n.\n",
                "\n",
                "11: no \".\" line at the end of maildrop \"alice@example.com\": the listing was \
                 cut short",
            ),
            ("\n.\n", "\n.", "12: no \".\" line at the end"),
            ("maildrop alice@example.com\n", "", "9: no \"maildrop\" line before this one"),
            ("state captured\n", "", "9: no \"state\" line before this one"),
            ("maildrop alice@example.com", "maildrop", "2: \"maildrop\" without a value"),
            ("maildrop alice@example.com", "maildrop al ice", "2: bad encoding in \"al ice\""),
            (
                "maildrop alice@example.com",
                "maildrop %ff",
                "2: \"maildrop\" is not UTF-8: \"\\xff\"",
            ),
            ("state captured", "state Captured", "3: unknown state \"Captured\""),
            ("state captured", "state empty", "10: message in a maildrop of state empty"),
            ("source ", "origin ", "4: unknown field \"origin\""),
            ("source courier", "state empty\nsource", "4: second \"state\""),
            ("source courier", "source %2", "4: bad encoding in \"%2 /var"),
            (
                "keys 1",
                "keys 2",
                "5: keys of version \"2\", and only version 1 can be compared; capture again",
            ),
            ("keys 1", "keys 1\nkeys 1", "6: second \"keys\""),
            ("keys 1\n", "", "9: \"header\" in a block without a \"keys\" line"),
            (
                "uidvalidity 1714990000",
                "uidvalidity 4294967296",
                "6: bad number \"4294967296\" for \"uidvalidity\"",
            ),
            ("uidvalidity 1714990000", "uidvalidity -1", "6: bad number \"-1\""),
            (
                "uidvalidity 1714990000\n",
                "",
                "9: counter for format UID%u-%v and no \"uidvalidity\"",
            ),
            ("UID%u-%v", "%f", "10: counter for format %f, which has no %u"),
            ("UID%u-%v", "%m%u", "7: unknown variable %m in UIDL format"),
            ("UID%u-%v", "\u{e9}%u", "7: bad encoding in \"13 \\xc3\\xa9%u\" for \"counter\""),
            ("counter 13 UID%u-%v", "counter 13", "7: \"counter\" without a value"),
            ("remark ", "remark \u{e9}", "8: bad encoding in "),
            ("remark ", "remark \u{7}", "8: bad encoding in "),
            ("spent UID9-1714990000", "spent UID9 1714990000", "9: unique-id has octet 0x20 at 4"),
            ("2 UID2-1714990000", "1 UID2-1714990000", "11: message 1 behind message 1;"),
            ("1 UID1-1714990000", "0 UID1-1714990000", "10: message 0 behind message 0;"),
            (
                "1 UID1-1714990000",
                "1x UID1-1714990000",
                "10: bad number \"1x\" for \"order number\"",
            ),
            (
                "1 UID1-1714990000",
                "99999999999999999999 x",
                "10: bad number \"99999999999999999999\"",
            ),
            ("2 UID2-1714990000", "2 \u{e9}", "11: unique-id has octet 0xc3 at 0"),
            ("2 UID2-1714990000 ", "2\n3 b ", "11: message 2 without a unique-id"),
            (
                "2 UID2-1714990000 ",
                "2 UID2\n3 b ",
                "11: message 2 has no key (file, guid, header, message, origin): it can never be \
                 found; write it as \"spent UID2\"",
            ),
            ("2 UID2-1714990000 ", "2 UID2 uid=7 octets=9\n3 b ", "11: message 2 has no key"),
            ("uid=1 ", "uid=4294967296 ", "10: bad number \"4294967296\" for \"uid\""),
            ("uid=1 ", "uid=1 uid=1 ", "10: second \"uid\""),
            ("uid=1 ", "uid= ", "10: bad number \"\" for \"uid\""),
            ("uid=1 ", "Uid=1 ", "10: unknown field \"Uid=1\""),
            ("uid=1 ", "uid ", "10: unknown field \"uid\""),
            ("file=1714990000.20000.old%20name", "file=", "10: \"file\" without a value"),
            (
                "old%20name",
                "old%2gname",
                "10: bad encoding in \"1714990000.20000.old%2gname\" for \"file\"",
            ),
            (
                "guid=d35d6b0a",
                "file-hash=d35d",
                "10: bad key \"d35d\" for \"file-hash\"; it wants 40",
            ),
            (
                "header=00",
                "header=0g",
                "10: bad key \"0g0102030405060708090a0b0c0d0e0f\" for \"header\"; it wants 32",
            ),
            ("file-hash=", "file=x file-hash=", "11: second \"file\""),
            ("\n.\n", "\nspent x\n.\n", "12: \"spent\" line behind the first message; move it"),
            ("\n.\n", "\n.\n.\n", "13: found \".\" where a block must begin"),
            ("\n.\n", "\nuidl-keep-listing 1\n.\n", "12: unknown field \"uidl-keep-listing\""),
            ("remark line", &format!("remark {long}"), "8: line of more than 65536 octets"),
        ] {
            let found = with(was, is);
            assert!(found.starts_with(error), "{was:?} -> {is:?}: {found}");
        }
        let cut = error_in(&ALICE.replacen("captured", &"x".repeat(300), 1));
        assert!(cut.starts_with(&format!("3: unknown state \"{}...\";", "x".repeat(60))), "{cut}");
        assert_eq!(error_in(""), "1: no maildrop in this listing; capture again");
        assert_eq!(error_in("\n# nothing\n"), "2: no maildrop in this listing; capture again");
        let failed = "uidl-keep-listing 1\nmaildrop a\nstate failed\n.\n";
        assert!(error_in(failed).starts_with("4: state failed without a \"remark\" line"));
        assert!(error_in(&format!("{ALICE}uidl-keep")).starts_with("13: no \".\" line"));
    }

    #[test]
    fn a_line_may_be_as_long_as_it_may_be() {
        let mut alice = read(ALICE.as_bytes()).unwrap().remove(0);
        alice.source = "x".repeat(MAX_LINE_OCTETS - "source ".len());
        let text = written(&alice);
        assert_eq!(read(&text).unwrap(), std::slice::from_ref(&alice));
        let longer = String::from_utf8(text).unwrap().replacen("xx", "xxx", 1);
        assert!(error_in(&longer).starts_with("4: line of more than 65536 octets"));
        alice.source.push('x');
        assert!(write_maildrop(&mut Vec::new(), &alice).is_err());
    }

    #[test]
    fn a_failed_read_is_not_an_end() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("bad disk"))
            }
        }
        let input = io::BufReader::new(ALICE.as_bytes().chain(Broken));
        let mut reader = Reader::new(input);
        assert!(reader.next().unwrap().is_ok());
        assert_eq!(reader.next().unwrap().unwrap_err().to_string(), "12: cannot read: bad disk");
        assert!(reader.next().is_none());
    }

    #[test]
    fn a_block_found_by_a_scan_is_read_from_its_place() {
        let bob = "# bob\n\nuidl-keep-listing 1\r\nmaildrop bob\nstate empty\nspent x\n.\n\n";
        let text = [ALICE, bob, ALICE].concat();
        let blocks: Vec<_> = scan(text.as_bytes()).collect::<Result<_, _>>().unwrap();
        let users: Vec<_> =
            blocks.iter().map(|block| (block.user.as_str(), block.entries)).collect();
        assert_eq!(users, [("alice@example.com", 2), ("bob", 0), ("alice@example.com", 2)]);
        for (block, maildrop) in blocks.iter().zip(read(text.as_bytes()).unwrap()) {
            let start = block.offset as usize;
            let alone = &text.as_bytes()[start..start + block.len_octets as usize];
            assert!(alone.starts_with(b"uidl-keep-listing") && alone.ends_with(b"\n.\n"));
            assert_eq!(Reader::at_block(alone, block).next().unwrap().unwrap(), maildrop);
            let cut = &alone[..alone.len() - 3];
            let error = Reader::at_block(cut, block).next().unwrap().unwrap_err();
            assert_eq!(
                error.line,
                block.line + cut.iter().filter(|&&octet| octet == b'\n').count() as u64
            );
        }
    }

    #[test]
    fn nothing_is_written_that_no_reader_takes() {
        let alice = read(ALICE.as_bytes()).unwrap().remove(0);
        let keyless = Entry { uid: Some(1), ..Entry::new(Uidl::new(*b"x").unwrap()) };
        for (bad, error) in [
            (Maildrop { user: String::new(), ..alice.clone() }, "\"maildrop\" without a value"),
            (
                Maildrop { state: State::Empty, ..alice.clone() },
                "message in a maildrop of state empty",
            ),
            (
                Maildrop { state: State::Failed, remarks: vec![], ..alice.clone() },
                "state failed without",
            ),
            (
                Maildrop { remarks: vec![String::new()], ..alice.clone() },
                "\"remark\" without a value",
            ),
            (Maildrop { uidvalidity: None, ..alice.clone() }, "counter for format UID%u-%v and no"),
            (Maildrop { entries: vec![keyless.clone()], ..alice.clone() }, "message 1 has no key"),
            (
                Maildrop { source: "x".repeat(MAX_LINE_OCTETS), ..alice.clone() },
                "line of more than",
            ),
        ] {
            let refused = write_maildrop(&mut Vec::new(), &bad).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
            assert!(refused.to_string().starts_with(error), "{refused}");
        }
    }

    #[test]
    fn a_repeated_uidl_is_taken_and_told() {
        let text = "uidl-keep-listing 1\nmaildrop a\nstate captured\n\
            1 x file=a\n2 y file=b\n3 x file=c\n4 x file=d\n.\n";
        let maildrop = read(text.as_bytes()).unwrap().remove(0);
        let repeated: Vec<_> = maildrop.repeated_uidls().iter().map(ToString::to_string).collect();
        assert_eq!(repeated, ["x"]);
    }

    fn uidl() -> impl Strategy<Value = Uidl> {
        "[!-~]{1,20}".prop_map(|text| Uidl::new(text.into_bytes()).unwrap())
    }

    fn name() -> impl Strategy<Value = Option<Name>> {
        let spelled = prop::collection::vec(any::<u8>(), 1..20);
        prop::option::of(prop_oneof![
            spelled.prop_map(|name| Name::Spelled(name.into())),
            any::<[u8; 20]>().prop_map(|octets| {
                let (cut, whole) = octets.split_at(16);
                Name::Key(FileKey {
                    cut: cut.try_into().unwrap(),
                    whole: whole.try_into().unwrap(),
                })
            }),
        ])
    }

    fn key() -> impl Strategy<Value = Option<Fingerprint>> {
        prop::option::of(any::<[u8; 16]>().prop_map(Fingerprint))
    }

    prop_compose! {
        fn entry()(
            uidl in uidl(), uid in any::<Option<u32>>(), octets in any::<Option<u64>>(),
            file in name(), guid in name(), header in key(), message in key(), origin in key(),
            otherwise in any::<[u8; 16]>(), earlier in prop::collection::vec(uidl(), 0..3),
        ) -> Entry {
            let of_message = Entry { uid, octets, file, guid, ..Entry::new(uidl) };
            let mut entry = Entry { earlier, header, message, origin, ..of_message };
            if check_entry(1, &(&entry).into()).is_err() {
                entry.header = Some(Fingerprint(otherwise));
            }
            entry
        }
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof!["[ -~]{1,20}", any::<String>().prop_map(|text| text + "\n")]
    }

    fn capture() -> impl Strategy<Value = Capture> {
        let source = prop_oneof![text(), Just(String::new())];
        (any::<Option<u64>>(), source, any::<Option<u32>>(), any::<Option<u32>>()).prop_map(
            |(taken, source, uidvalidity, next)| Capture { taken, source, uidvalidity, next },
        )
    }

    prop_compose! {
        fn maildrop()(
            user in text(), source in prop_oneof![text(), Just(String::new())],
            state in prop_oneof![Just(State::Captured), Just(State::Empty), Just(State::Failed)],
            uidvalidity in any::<Option<u32>>(), next in any::<Option<u32>>(),
            format in prop_oneof!["UID%u-%v", "%08Xu%08Xv", "%u", "%%%u[!-$&-~]{0,5}"],
            entries in prop::collection::vec(entry(), 0..5),
            spent in prop::collection::vec(uidl(), 0..3),
            remarks in prop::collection::vec(text(), 0..3),
            captures in prop::collection::vec(capture(), 0..4), taken in any::<Option<u64>>(),
            seen in prop::collection::vec(any::<[u32; 2]>(), 5),
        ) -> Maildrop {
            let format = UidlFormat::parse(&format).unwrap();
            let counter = next.map(|next| Counter { format, next });
            let made = Maildrop { source, uidvalidity, counter, ..Maildrop::new(user, state) };
            let mut maildrop = Maildrop { entries, spent, remarks, ..made };
            match state {
                State::Captured => {}
                State::Empty => maildrop.entries.clear(),
                State::Failed => maildrop.remarks.push("no such directory".into()),
            }
            if check_counter(&maildrop).is_err() {
                maildrop.counter = None;
            }
            maildrop.captures = captures;
            if maildrop.captures.is_empty() {
                maildrop.captures = vec![Capture::of(&maildrop, taken)];
            }
            let count = maildrop.captures.len() as u32;
            for (entry, [one, other]) in maildrop.entries.iter_mut().zip(seen) {
                let (one, other) = (one % count, other % count);
                (entry.first_capture, entry.last_capture) = (one.min(other), one.max(other));
            }
            maildrop
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(maildrops in prop::collection::vec(maildrop(), 1..4)) {
            let text: Vec<u8> = maildrops.iter().flat_map(written).collect();
            prop_assert!(text.iter().all(|octet| matches!(octet, b'\n' | b' '..=b'~')));
            let scanned = scan(text.as_slice()).collect::<Result<Vec<_>, _>>().unwrap();
            let scanned_octets: u64 = scanned.iter().map(|block| block.len_octets).sum();
            prop_assert_eq!(scanned_octets, text.len() as u64);
            prop_assert_eq!(outlined(&text), scanned);
            prop_assert_eq!(read(&text).unwrap(), maildrops);
        }

        #[test]
        fn what_is_cut_short_is_refused(
            before in prop::option::of(maildrop()), last in maildrop(),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut text: Vec<u8> = before.iter().flat_map(written).collect();
            let start = text.len();
            text.extend(written(&last));
            // Between two blocks a cut does not show; anywhere else it does.
            text.truncate(start + cut.index(text.len() - start));
            prop_assert_eq!(read(&text).is_err(), text.len() > start || start == 0);
        }

        #[test]
        fn no_text_panics(
            random in prop::collection::vec(any::<u8>(), 0..200),
            at in any::<prop::sample::Index>(), len in 0..20_usize,
        ) {
            let _ = read(&random).map_err(|error| error.to_string());
            let mut text = ALICE.as_bytes().to_vec();
            let start = at.index(text.len());
            text.splice(start..(start + len).min(ALICE.len()), random.iter().copied());
            let scanned: Result<Vec<_>, _> = scan(text.as_slice()).collect();
            if let Ok(scanned) = &scanned {
                prop_assert_eq!(&outlined(&text), scanned);
            }
            outline(random.as_slice()).for_each(drop);
            let scanned = scanned.map(|blocks| blocks.len()).map_err(|error| error.to_string());
            let read = read(&text).map(|read| read.len()).map_err(|error| error.to_string());
            prop_assert_eq!(read, scanned);
        }
    }
}
