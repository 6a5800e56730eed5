//! The journal of a capture over POP3: what a run finds that goes on where another was killed.

use std::collections::HashMap;
use std::io::Cursor;

use uidl_keep::capture::draft::Captured;
use uidl_keep::capture::fleet::{JournalFault, Resumed, WantedAccounts, read_journal};
use uidl_keep::listing::{scan, write_maildrop};
use uidl_keep::maildrop::State;

use super::check_message;

const SETTINGS: &str = "--keys header";

/// The accounts that the run is for.
const USERS: [&str; 3] = ["alice", "bob", "carol"];

/// The input as it is, and behind a first line that is right.
pub fn check(octets: &[u8]) {
    check_journal(octets);
    let head =
        format!("# journal 1 of uidl-keep capture pop3: {SETTINGS}, begun 2026-11-30T00:00:00Z\n");
    check_journal(&[head.as_bytes(), octets].concat());
}

fn check_journal(file: &[u8]) {
    let resumed = match read(file) {
        Ok(Some(resumed)) => resumed,
        Ok(None) => {
            return assert!(
                !file.contains(&b'\n') && b"# journal".starts_with(&file[..file.len().min(9)])
            );
        }
        Err(fault) => return check_message(fault),
    };
    let end = usize::try_from(resumed.end).expect("within the file");
    for (&at, block) in &resumed.captured {
        let offset = usize::try_from(block.offset).expect("within the file");
        let octets = usize::try_from(block.len_octets).expect("within the file");
        assert!(offset + octets <= end && end <= file.len());
        let block = scan(&file[offset..offset + octets]).next().expect("a block");
        assert_eq!(block.expect("a whole one").user, USERS[at]);
    }
    // The run cuts off what is not whole, and appends what it captures.
    let mut failed = Captured::failed("carol".into(), "pop3 carol".into(), "x".into());
    failed.maildrop.state = State::Empty;
    let mut next = file[..end].to_vec();
    write_maildrop(&mut next, &failed.maildrop).expect("a block");
    let again = read(&next).expect("no worse than it was").expect("a journal");
    assert_eq!((again.end, again.cut_short), (next.len() as u64, None));
    assert_eq!(again.captured[&2].offset, end as u64);
    assert_eq!((again.begun, again.dropped), (resumed.begun, resumed.dropped));
    let others =
        |captured: &HashMap<usize, _>| [captured.get(&0).copied(), captured.get(&1).copied()];
    assert_eq!(others(&again.captured), others(&resumed.captured));
}

fn read(file: &[u8]) -> Result<Option<Resumed>, JournalFault> {
    let by_user = (0..).zip(USERS).map(|(at, user)| (user, at)).collect();
    let sources = |at: usize| format!("pop3 {}", USERS[at]);
    let wanted = WantedAccounts { by_user: &by_user, sources: &sources };
    read_journal(Cursor::new(file), SETTINGS, &wanted)
}
