//! A cluster: two back ends with one mail store and one site, as behind a load balancer. Clients
//! and deliveries come to both at once; each tells what the other tells.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Mutex;
use std::thread;

use crate::support::dovecot::{Config, Dovecot, Store, mail_at};
use crate::support::helper;
use crate::support::host::{Host, Line};
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming, make_owned};
use crate::support::pop3::Refused;
use crate::support::scenario::{LATER, Listing, MOVING, USER, uidl, uidl_of};

/// So many messages were captured, and have to be read to be known. The first listing takes long
/// enough for others to come meanwhile.
const CAPTURED: u32 = 600;
/// A client that was told to come back does so at most this often.
const TRIES: usize = 20;

/// Where the back ends have their indexes of a Maildir.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Indexes {
    /// In the Maildir, both the same.
    Shared,
    /// On a disk of its own, each.
    OwnEach,
}

/// The back ends. The first has the site and the homes; the second finds them there.
struct Cluster {
    back_ends: [Dovecot; 2],
    /// The captured UIDLs in the old order, which is not that of arrival.
    kept: Vec<String>,
    /// The subject of each new message that somebody was told, by its UIDL.
    told: Mutex<BTreeMap<String, String>>,
}

impl Cluster {
    fn start(store: Store, indexes: Indexes) -> Option<Self> {
        let host = Host::dovecot(Line::subject())?;
        let config = Config::default().store(store).with_plugin();
        let mut back_ends =
            [Dovecot::start(&host, config.clone())?, Dovecot::start(&host, config)?];
        let (site, homes) = (back_ends[0].site(), back_ends[0].dir().join("home"));
        for back_end in &mut back_ends {
            if indexes == Indexes::OwnEach {
                let own = back_end.dir().join("index");
                make_owned(&own);
                let (line, own) = (Line::subject(), back_end.inside(&own).display().to_string());
                let user = if line == Line::V23 { "%u" } else { "%{user}" };
                let places = [("INDEX", &*format!("{own}/{user}"))];
                back_end.restart_with(&mail_at(line, "maildir", "~/Maildir", &places));
            }
        }
        let of_second = back_ends[1].dir().join("home");
        fs::remove_dir(&of_second).unwrap();
        symlink(host.inside(&homes), &of_second).unwrap();
        fs::remove_dir(back_ends[1].site()).unwrap();
        symlink(host.inside(&site), back_ends[1].site()).unwrap();

        let old = Maildir::create(back_ends[0].dir().join("old/Maildir"));
        let mut messages: Vec<Message> = (1..=CAPTURED).map(Message::plain).collect();
        for (number, message) in (1..).zip(&messages) {
            old.deliver(message, Naming::Dovecot, number);
        }
        messages.rotate_left(CAPTURED as usize / 2);
        let listing = Listing::of_contents(&messages);
        let path = back_ends[0].dir().join("listing");
        fs::write(&path, listing.text()).unwrap();
        helper::build_site(&site, &path);
        match store {
            Store::Maildir => drop(old.copy_mail_to(&back_ends[0].mail(USER))),
            _ => back_ends[0].import(USER, old.path()),
        }
        Some(Self { back_ends, kept: uidl_of(1..=CAPTURED), told: Mutex::default() })
    }

    fn say(&self, command: &[&str]) {
        let mut helper = helper::uidl_keep();
        helper.args(command).args(["example.com", "--no-check", "--site"]);
        helper::run(helper.arg(self.back_ends[0].site()));
    }

    /// Delivers a new message through a back end.
    fn deliver(&self, at: usize, number: u32) {
        let message = format!("Subject: new {number}\r\n\r\nbody\r\n");
        self.back_ends[at].deliver(USER, message.as_bytes());
    }

    /// One session at a back end. Insists that it is told what everybody is told.
    fn listing(&self, at: usize) -> Result<Vec<String>, Refused> {
        let mut session = self.back_ends[at].login(USER)?;
        let listing = session.uidl()?;
        let kept = self.kept.len();
        assert_eq!(listing[..kept], self.kept, "back end {at}");
        for (number, uidl) in (1..).zip(&listing).skip(kept) {
            let top = session.lines(&format!("TOP {number} 0"))?;
            let subject = top.iter().find(|line| line.starts_with(b"Subject: ")).unwrap();
            let subject = String::from_utf8(subject.clone()).unwrap();
            let mut told = self.told.lock().unwrap();
            let known = told.entry(uidl.clone()).or_insert_with(|| subject.clone());
            assert_eq!(*known, subject, "back end {at}: {uidl} is another message");
        }
        session.quit()?;
        Ok(listing)
    }

    /// Comes back as often as it is told to.
    fn listing_at_last(&self, at: usize) -> Vec<String> {
        for _ in 0..TRIES {
            match self.listing(at) {
                Ok(listing) => return listing,
                Err(Refused(line)) => assert_eq!(line, LATER, "{}", self.back_ends[at].log()),
            }
        }
        panic!("told to come back {TRIES} times:\n{}", self.back_ends[at].log());
    }

    /// Lets clients come to both back ends at once while mail comes in through both, and insists
    /// that all were told one and the same.
    fn is_busy(&self, first: u32) {
        const DELIVERIES: u32 = 8;
        let before = self.told.lock().unwrap().len();
        thread::scope(|scope| {
            for at in 0..2_usize {
                scope.spawn(move || {
                    let numbers = (first..first + DELIVERIES).skip(at).step_by(2);
                    numbers.for_each(|number| self.deliver(at, number));
                });
                for _ in 0..2 {
                    scope.spawn(move || {
                        let mut last = Vec::new();
                        for visit in 0..4 {
                            let now = self.listing_at_last((at + visit) % 2);
                            assert!(now.starts_with(&last), "{last:?}, then {now:?}");
                            last = now;
                        }
                    });
                }
            }
        });
        let both = [0, 1].map(|at| self.listing_at_last(at));
        assert_eq!(both[0], both[1], "the back ends tell one listing");
        let told = self.told.lock().unwrap();
        assert_eq!(told.len(), before + DELIVERIES as usize);
        assert_eq!(both[0].len(), self.kept.len() + told.len(), "each message has one UIDL");
    }

    /// Insists that a hold and a release are seen at the next login, wherever that is.
    fn is_held_everywhere(&self) {
        self.say(&["hold"]);
        for at in [0, 1] {
            let refused = self.back_ends[at].login(USER).unwrap().uidl().err();
            assert_eq!(refused, Some(Refused(MOVING.into())), "back end {at}");
        }
        self.say(&["release", "--unrehearsed"]);
        for at in [0, 1] {
            self.listing(at).unwrap_or_else(|refused| panic!("back end {at}: {refused:?}"));
        }
    }

    /// Insists that nothing went wrong that a client may not have noticed.
    fn is_in_order(&self) {
        for (at, back_end) in self.back_ends.iter().enumerate() {
            let log = back_end.log();
            for word in ["Panic", "Fatal", "bug:", "panicked", "Corrupted", "corrupted"] {
                let lines: Vec<&str> = log.lines().filter(|line| line.contains(word)).collect();
                assert!(lines.is_empty(), "back end {at}: {lines:#?}");
            }
        }
        let resolved = |back_end: &Dovecot| back_end.log().matches("first listing: ").count();
        let count: usize = self.back_ends.iter().map(resolved).sum();
        assert_eq!(count, 1, "one login resolves it, and the others wait for that");
    }
}

#[test]
fn two_back_ends_tell_one_listing_of_a_maildir_while_mail_comes_in_through_both() {
    for indexes in [Indexes::Shared, Indexes::OwnEach] {
        let Some(cluster) = Cluster::start(Store::Maildir, indexes) else { return };
        cluster.is_busy(1);
        cluster.is_held_everywhere();
        cluster.is_busy(100);
        // The one that did not list last knows what the other told.
        for number in 200..206 {
            let at = number as usize % 2;
            cluster.deliver(at, number);
            let told = cluster.listing_at_last(1 - at);
            assert_eq!(cluster.listing_at_last(at), told, "{indexes:?}");
        }
        cluster.is_in_order();
    }
}

#[test]
fn a_message_that_is_deleted_at_one_back_end_is_gone_at_the_other_and_its_uidl_is_spent() {
    for indexes in [Indexes::Shared, Indexes::OwnEach] {
        let Some(cluster) = Cluster::start(Store::Maildir, indexes) else { return };
        cluster.deliver(0, 1);
        let mut left = cluster.listing_at_last(0);
        let mut session = cluster.back_ends[1].login(USER).unwrap();
        assert_eq!(session.uidl().unwrap(), left);
        for number in [2, left.len()] {
            session.dele(number).unwrap();
        }
        session.quit().unwrap();
        let new = left.pop().unwrap();
        left.remove(1);
        // The captured one lies at the end of no listing again: another has its place.
        cluster.deliver(1, 2);
        for at in [0, 1] {
            let listing = cluster.back_ends[at].uidl(USER);
            assert_eq!(listing[..left.len()], left, "back end {at}, {indexes:?}");
            assert_eq!(listing.len(), left.len() + 1);
            let last = &listing[left.len()];
            assert!(*last != new && *last != uidl(2), "{last} was told of another");
        }
    }
}

#[test]
fn a_user_of_mdbox_who_is_served_by_one_back_end_at_a_time_finds_one_listing() {
    let Some(cluster) = Cluster::start(Store::Mdbox, Indexes::Shared) else { return };
    let mut last = Vec::new();
    for number in 1..=6 {
        let at = number as usize % 2;
        cluster.deliver(at, number);
        let now = cluster.listing_at_last(at);
        assert!(now.starts_with(&last), "{last:?}, then {now:?}");
        last = cluster.listing_at_last(1 - at);
        assert_eq!(last, now);
    }
    cluster.is_held_everywhere();
    assert_eq!(last.len(), cluster.kept.len() + 6);
    cluster.is_in_order();
}
