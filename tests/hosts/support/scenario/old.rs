//! A maildrop of an old server: its mail as it was after the last session there, and the UIDLs that
//! clients know.

use std::any::Any;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::USER;
use crate::shared::tree::below;
use crate::support::dovecot::Dovecot;
use crate::support::mail::{self, Message};
use crate::support::maildir::{Maildir, Naming};
use crate::support::{helper, imap};

/// The keys that a capture has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// File names and fingerprints.
    File,
    /// Fingerprints alone, as a capture over POP3 has them.
    Header,
}

/// The way in which mail comes to the new server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// `cur` and `new`, file by file, without the old server's own files.
    Files,
    /// `doveadm import` of a copied Maildir: it is saved anew, and the names are kept as GUIDs.
    Import,
    /// IMAP APPEND, in another order than it had, as it comes over the wire: the names are lost.
    Append,
}

/// A maildrop of the old server, after its last session there.
pub struct OldMaildrop {
    /// The UIDLs that clients know, in their order: that is not the order of the UIDs on the new
    /// server.
    pub uidls: Vec<String>,
    /// The Maildir with the mail.
    pub maildir: Maildir,
    /// The arguments after `uidl-keep capture` that capture it.
    capture: Vec<OsString>,
    /// The text of the capture, if a test has changed it.
    listing: Option<String>,
    /// It must not be removed before the mail has been copied.
    _alive: Box<dyn Any>,
}

impl OldMaildrop {
    /// Makes one that listed these UIDLs. `capture` follows `uidl-keep capture`; `alive` is dropped
    /// last.
    pub fn new(
        uidls: Vec<String>,
        maildir: Maildir,
        capture: Vec<OsString>,
        alive: impl Any,
    ) -> Self {
        Self { uidls, maildir, capture, listing: None, _alive: Box::new(alive) }
    }

    /// The listing of qmail-pop3d with every odd kind of message, and a pair of copies: base file
    /// names, by mtime. (`qmail-pop3d.c`, `getlist` and `printfn`; Debian has no qmail to ask.)
    pub fn qmail(count: u32) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let maildir = Maildir::create(dir.path().join("Maildir"));
        for (number, message) in (0..).zip(mail::maildrop(count)) {
            let file = maildir.deliver(&message, Naming::Qmail, number);
            // This permutation has no pattern that a server could share.
            maildir.set_mtime(&file, 1_714_000_000 + u64::from(number * 617 % 1000));
        }
        let uidls = by_mtime(&maildir).iter().map(|file| super::base(file).to_owned()).collect();
        let mut capture = words("qmail --user");
        capture.extend([USER.into(), maildir.path().into()]);
        Self::new(uidls, maildir, capture, dir)
    }

    /// Makes the same 30 messages under other UIDLs, `UID1-17` the first, and with those keys
    /// alone.
    pub fn numbered(keys: Keys) -> Self {
        Self::with_uidls(keys, |number| format!("UID{number}-17"))
    }

    /// Makes the same, where message-number N has the UIDL that `uidl` says.
    pub fn with_uidls(keys: Keys, uidl: impl Fn(usize) -> String) -> Self {
        let mut old = Self::qmail(30);
        let uidls: Vec<String> = (1..=old.uidls.len()).map(uidl).collect();
        old.listing = Some(relisted(&old.captured(), &uidls, keys));
        old.uidls = uidls;
        old
    }

    /// The messages, in the order that clients know.
    pub fn messages(&self) -> Vec<Message> {
        let files = by_mtime(&self.maildir);
        files.iter().map(|file| Message { octets: fs::read(file).expect("mail") }).collect()
    }

    /// The message-number of the first of two messages that are equal in every octet: those are
    /// captured with fingerprints of their bodies too.
    pub fn first_copy(&self) -> usize {
        let messages = self.messages();
        let copies = |at: usize| messages[at + 1..].contains(&messages[at]);
        (0..messages.len()).find(|&at| copies(at)).expect("a pair") + 1
    }

    /// The text of the capture, to be changed before the site is built.
    pub fn listing_mut(&mut self) -> &mut String {
        let captured = self.listing.take().unwrap_or_else(|| self.captured());
        self.listing.insert(captured)
    }

    /// Returns what the helper captures; insists that the old server was left alone.
    fn captured(&self) -> String {
        let before = state_of(self.maildir.path());
        let mut capture = helper::uidl_keep();
        capture.arg("capture").args(&self.capture);
        let listing = String::from_utf8(helper::run(&mut capture)).expect("text");
        assert_eq!(state_of(self.maildir.path()), before, "capture only reads");
        listing
    }

    /// Builds the site of a new server.
    pub fn build_site(&self, new: &Dovecot) {
        let listing = self.listing.clone().unwrap_or_else(|| self.captured());
        let file = new.dir().join("alice.uidl");
        fs::write(&file, listing).expect("our directory");
        helper::build_site(&new.site(), &file);
    }

    /// Copies the mail to a new server.
    pub fn copy_to(&self, new: &Dovecot, way: Way) {
        match way {
            Way::Files => drop(self.maildir.copy_mail_to(&new.mail(USER))),
            Way::Import => {
                let copy = self.maildir.copy_mail_to(&new.dir().join("old/Maildir"));
                new.import(USER, copy.path());
            }
            Way::Append => {
                let mut files = self.maildir.files();
                files.sort_by_cached_key(|file| {
                    blake3::hash(file.as_os_str().as_encoded_bytes()).to_string()
                });
                let wire: Vec<Vec<u8>> = files
                    .iter()
                    .map(|file| Message { octets: fs::read(file).expect("mail") }.on_the_wire())
                    .collect();
                imap::append(new.imap(), USER, wire.iter().map(Vec::as_slice));
            }
        }
    }

    /// Does both at once, and makes a server to which this has moved.
    pub fn move_to(&self, new: &Dovecot, way: Way) {
        self.build_site(new);
        self.copy_to(new, way);
    }
}

/// Words of a command line.
pub fn words(words: &str) -> Vec<OsString> {
    words.split(' ').map(OsString::from).collect()
}

/// The files in the order of qmail-pop3d.
fn by_mtime(maildir: &Maildir) -> Vec<PathBuf> {
    let mut files = maildir.files();
    files.sort_by_key(|file| file.metadata().expect("mail").mtime());
    files
}

/// Every path below a directory: name, content, owner, mode and mtime, without times of reading.
fn state_of(dir: &Path) -> Vec<String> {
    let state = |path: &PathBuf| {
        let meta = path.symlink_metadata().expect("just listed");
        let content = match meta.is_dir() {
            true => String::new(),
            false => blake3::hash(&fs::read(path).expect("a file")).to_string(),
        };
        let (uid, mode) = (meta.uid(), meta.mode());
        let changed = (meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec());
        format!("{} {content} {uid} {mode:o} {changed:?}", path.display())
    };
    below(dir).iter().chain([&dir.to_owned()]).map(state).collect()
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
