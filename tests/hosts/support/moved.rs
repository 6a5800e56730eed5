//! A maildrop that moves: its mail as the old server had it, and what clients know of that.

use std::fs;
use std::path::{Path, PathBuf};

use super::dovecot::Dovecot;
use super::mail::{self, Message};
use super::maildir::{Maildir, Naming};
use super::{helper, imap};

/// Whose it is.
pub const USER: &str = "alice@example.com";

/// How many messages are in it: every odd kind, and a pair of copies.
pub const COUNT: u32 = 30;

/// Which keys its capture has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// File names and fingerprints.
    File,
    /// Fingerprints alone, as a capture over POP3 has them.
    Header,
}

/// How mail comes to the new server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// `cur` and `new`, file by file.
    Files,
    /// `doveadm import`: saved anew, the names kept as GUIDs.
    Import,
    /// IMAP APPEND: saved anew, the names lost.
    Append,
}

/// A maildrop of the old server, after its last session there.
pub struct Moved {
    /// What clients know, in the order that they know: not that of the UIDs on the new server.
    pub uidls: Vec<String>,
    /// The messages in that order.
    pub messages: Vec<Message>,
    maildir: Maildir,
    listing: String,
    _dir: tempfile::TempDir,
}

impl Moved {
    /// One whose UIDLs are `UID1-17` and so on.
    pub fn new(keys: Keys) -> Self {
        Self::with_uidls(keys, |number| format!("UID{number}-17"))
    }

    /// One whose message-number N has the UIDL that `uidl` says.
    pub fn with_uidls(keys: Keys, uidl: impl Fn(usize) -> String) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let maildir = Maildir::create(dir.path().join("Maildir"));
        let mut by_mtime: Vec<(u64, Message, PathBuf)> = Vec::new();
        for (number, message) in (0..).zip(mail::maildrop(COUNT)) {
            let file = maildir.deliver(&message, Naming::Qmail, number);
            // The old order is by mtime; a permutation without a pattern that a server could share.
            let mtime = 1_714_000_000 + u64::from(number * 617 % 1000);
            maildir.set_mtime(&file, mtime);
            by_mtime.push((mtime, message, file));
        }
        by_mtime.sort_by_key(|(mtime, ..)| *mtime);
        let uidls: Vec<String> = (1..=by_mtime.len()).map(uidl).collect();
        let mut capture = helper::uidl_keep();
        capture.args(["capture", "qmail", "--user", USER]).arg(maildir.path());
        let captured = String::from_utf8(helper::run(&mut capture)).expect("text");
        let listing = relisted(&captured, &uidls, keys);
        let messages = by_mtime.into_iter().map(|(_, message, _)| message).collect();
        Self { uidls, messages, maildir, listing, _dir: dir }
    }

    /// The message-number of the first of two messages that are equal in every octet: those that are
    /// captured with fingerprints of their bodies too.
    pub fn first_copy(&self) -> usize {
        let copies = |at: usize| self.messages[at + 1..].contains(&self.messages[at]);
        (0..self.messages.len()).find(|&at| copies(at)).expect("a pair") + 1
    }

    /// What the capture says, to be changed before the site is built.
    pub fn listing_mut(&mut self) -> &mut String {
        &mut self.listing
    }

    /// Builds the site of a new server.
    pub fn build_site(&self, new: &Dovecot) {
        let file = new.dir().join("alice.uidl");
        fs::write(&file, &self.listing).expect("our directory");
        helper::build_site(&new.site(), &file);
    }

    /// Copies the mail to a new server.
    pub fn copy_to(&self, new: &Dovecot, way: Way) {
        match way {
            Way::Files => drop(self.maildir.copy_mail_to(&new.mail(USER))),
            Way::Import => {
                let copy = self.maildir.copy_mail_to(&new.dir().join("old/Maildir"));
                let source = format!("maildir:{}", new.inside(copy.path()).display());
                new.doveadm_ok(["import", "-u", USER, &source, "", "mailbox", "INBOX", "all"]);
            }
            Way::Append => {
                let wire: Vec<Vec<u8>> = (self.maildir.files().iter())
                    .map(|file| Message { octets: fs::read(file).expect("mail") }.on_the_wire())
                    .collect();
                imap::append(new.imap(), USER, wire.iter().map(Vec::as_slice));
            }
        }
    }

    /// Both at once: a server that this has moved to.
    pub fn move_to(&self, new: &Dovecot, way: Way) {
        self.build_site(new);
        self.copy_to(new, way);
    }
}

/// The captured listing with other UIDLs, and with those keys alone.
fn relisted(captured: &str, uidls: &[String], keys: Keys) -> String {
    let mut next = uidls.iter();
    let mut listing = String::new();
    for line in captured.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match &words[..] {
            [number, _, rest @ ..] if number.parse::<u32>().is_ok() => {
                let uidl = next.next().expect("a UIDL a message");
                listing += &format!("{number} {uidl}");
                for word in rest.iter().filter(|w| keys == Keys::File || !w.starts_with("file=")) {
                    listing += &format!(" {word}");
                }
            }
            _ => listing += line,
        }
        listing.push('\n');
    }
    assert_eq!(next.next(), None, "a message a UIDL:\n{captured}");
    listing
}

/// Every file below a directory.
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut next = vec![dir.to_owned()];
    while let Some(path) = next.pop() {
        if path.is_dir() {
            next.extend(fs::read_dir(&path).expect("a directory").map(|e| e.expect("one").path()));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}
