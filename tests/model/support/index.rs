//! A small index of made-up maildrops with everything in them that the format can hold.

use std::io::Cursor;

use uidl_keep::format::UidlFormat;
use uidl_keep::index::Writer;
use uidl_keep::key::{FileKey, Fingerprint};
use uidl_keep::maildrop::{Capture, Counter, Entry, Maildrop, Name, State};
use uidl_keep::uidl::Uidl;

/// The users of [`maildrops`], in order.
pub const USERS: &[&str] = &[
    "",
    "alice@example.com",
    "bob@example.com",
    "carol@example.com",
    "dave@example.com",
    "eve@example.com",
    "frank@example.com",
    "grace@example.com",
    "heidi@example.com",
    "j\u{fc}rgen@example.com",
];

/// Users who are not among them.
pub const ABSENT: &[&str] = &["alice", "alice@example.con", "zoe@example.com", "x"];

/// Maildrops in which every field is there and is not there.
pub fn maildrops() -> Vec<Maildrop> {
    USERS.iter().enumerate().map(|(n, user)| maildrop(n as u32, user)).collect()
}

fn maildrop(n: u32, user: &&str) -> Maildrop {
    let counts = n % 3 == 1;
    let (state, messages) = match n % 5 {
        3 => (State::Empty, 0),
        4 => (State::Failed, n % 2),
        _ => (State::Captured, n + 1),
    };
    let captured = Maildrop {
        source: format!("courier /var/qmail/mailnames/example.com/{n}/Maildir"),
        uidvalidity: (n % 3 != 0).then_some(1_127_468_410 + n),
        counter: counts
            .then(|| Counter { format: UidlFormat::parse("UID%u-%v").unwrap(), next: 94 + n }),
        entries: (0..messages).map(|message| entry(n, message)).collect(),
        spent: (0..n % 3).map(|gone| uidl(&format!("gone-{n}-{gone}"))).collect(),
        ..Maildrop::new(*user, state)
    };
    with_history(captured, n)
}

/// The same maildrop, made of as many captures as `n` says: none, one, or more that are not alike.
fn with_history(mut maildrop: Maildrop, n: u32) -> Maildrop {
    let taken = |capture: u32| (n % 4 != 2).then_some(1_794_749_400 + u64::from(capture));
    maildrop.captures = (1..n.min(3))
        .map(|capture| Capture {
            taken: taken(capture),
            source: if n % 2 == 1 { "mbox /var/mail/old".into() } else { String::new() },
            uidvalidity: (capture == 2).then_some(7),
            next: (n % 3 == 0).then_some(300),
        })
        .collect();
    if n > 0 {
        maildrop.captures.push(Capture::of(&maildrop, taken(n)));
    }
    let count = maildrop.captures.len() as u32;
    for (message, entry) in (0..).zip(&mut maildrop.entries) {
        entry.last_capture = count.saturating_sub(1);
        if message % 3 == 1 && count > 1 {
            entry.first_capture = message % count;
            entry.last_capture = entry.first_capture + (count - 1 - entry.first_capture) / 2;
            entry.earlier =
                (0..message % 4).map(|at| uidl(&format!("old-{message}-{at}"))).collect();
        }
    }
    maildrop
}

fn entry(n: u32, message: u32) -> Entry {
    let has = |bit: u32| ((n * 7 + message * 13 + 1) >> bit) & 1 == 1;
    let name =
        |kind: &str| Name::Key(FileKey::of_name(format!("{kind}{n}.{message},S=5").as_bytes()));
    let fingerprint = |octet: u8| Fingerprint([octet ^ (n * 16 + message) as u8; 16]);
    Entry {
        uid: has(0).then_some(message * 1000 + 1),
        octets: has(1).then_some(if message == 1 { 1 << 33 } else { 700 * u64::from(message) }),
        file: has(2).then(|| name("M")),
        guid: has(3).then(|| name("G")),
        header: has(4).then(|| fingerprint(1)),
        message: has(5).then(|| fingerprint(2)),
        origin: has(6).then(|| fingerprint(4)),
        ..Entry::new(uidl(&format!("UID{message}-{}", 1_127_468_410 + n)))
    }
}

fn uidl(text: &str) -> Uidl {
    Uidl::new(text.as_bytes()).unwrap()
}

/// An index of `maildrops`.
pub fn index_of(maildrops: &[Maildrop], is_final: bool) -> Vec<u8> {
    let mut writer = Writer::new(Cursor::new(Vec::new()), is_final).unwrap();
    for maildrop in maildrops {
        writer.push(maildrop).unwrap();
    }
    writer.finish().unwrap().0.into_inner()
}

/// An index of [`maildrops`].
pub fn small_index() -> Vec<u8> {
    index_of(&maildrops(), true)
}
