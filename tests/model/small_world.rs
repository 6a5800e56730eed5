//! All histories of a small world, up to so many steps: two old messages (one that names itself,
//! one that does not), new ones of the same content, two names, one change of UIDVALIDITY, and each
//! copy of the memory lost or old, one of them in a history. After each step a client polls, and
//! misses nothing.
//!
//! `UIDL_KEEP_STEPS=7` looks further than every run does.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use crate::support::rules::{
    CAPTURED_AT, Disk, Mail, NAMELESS, Server, Storage, capture, captured, mail,
};
use uidl_keep::format::UidlFormat;
use uidl_keep::ledger::{Ledger, Mark};
use uidl_keep::maildrop::Counter;
use uidl_keep::uidl::Uidl;

/// A thing that may happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Poll,
    /// The operator holds the client, and rehearses its next listing.
    Rehearse,
    UndoRehearsal,
    /// The message that names itself comes by file.
    CopyFile,
    /// It comes by IMAP.
    CopyContent,
    /// The one that does not name itself comes by file.
    CopyNameless,
    /// A new mail, equal to it in every octet.
    DeliverNameless,
    DeliverOther,
    /// The first message goes to another folder and comes back.
    ThereAndBack,
    DeleteFirst,
    DeleteLast,
    Backup,
    DiskFull,
    DiskWritable,
    LoseLedger,
    LoseMark,
    LoseStored,
    LoseList,
    PutBack {
        ledger: bool,
        mark: bool,
        list: bool,
    },
    Travel,
}

impl Step {
    const ALL: [Self; 26] = [
        Self::Poll,
        Self::Rehearse,
        Self::UndoRehearsal,
        Self::CopyFile,
        Self::CopyContent,
        Self::CopyNameless,
        Self::DeliverNameless,
        Self::DeliverOther,
        Self::ThereAndBack,
        Self::DeleteFirst,
        Self::DeleteLast,
        Self::Backup,
        Self::DiskFull,
        Self::DiskWritable,
        Self::LoseLedger,
        Self::LoseMark,
        Self::LoseStored,
        Self::LoseList,
        Self::PutBack { ledger: true, mark: false, list: false },
        Self::PutBack { ledger: false, mark: true, list: false },
        Self::PutBack { ledger: false, mark: false, list: true },
        Self::PutBack { ledger: true, mark: true, list: false },
        Self::PutBack { ledger: true, mark: false, list: true },
        Self::PutBack { ledger: false, mark: true, list: true },
        Self::PutBack { ledger: true, mark: true, list: true },
        Self::Travel,
    ];

    fn is_fault(self) -> bool {
        matches!(
            self,
            Self::DiskFull
                | Self::LoseLedger
                | Self::LoseMark
                | Self::LoseStored
                | Self::LoseList
                | Self::PutBack { .. }
                | Self::Travel
        )
    }
}

/// No world has more messages at a time.
const MOST_MESSAGES: usize = 4;

#[derive(Clone)]
struct World {
    server: Server,
    /// The clients: one remembers all that it saw, one the last listing.
    known: [HashSet<Uidl>; 2],
    seen: [HashSet<String>; 2],
    backup: Option<Backup>,
    faulted: bool,
    delivered: usize,
    /// UIDs by name, with `P` and `O`.
    history: Vec<Step>,
}

type Line = (String, u32, Option<Uidl>, Option<u32>);

#[derive(Clone)]
struct Backup {
    ledger: Option<Ledger>,
    mark: Option<Mark>,
    uidvalidity: u32,
    next_uid: u32,
    list: Vec<Line>,
}

fn old() -> [Mail; 2] {
    [mail("a", 1, 1), mail("b", NAMELESS, 2)]
}

impl World {
    fn new(storage: Storage, native: &str) -> Self {
        let [a, b] = old();
        let format = UidlFormat::parse("UID%u-%v").unwrap();
        let mut maildrop = captured(&[("UID1-17", &a), ("UID2-17", &b)]);
        maildrop.counter = Some(Counter { format, next: 3 });
        maildrop.captures = vec![capture(CAPTURED_AT, Some(3))];
        let known: HashSet<Uidl> =
            maildrop.entries.iter().map(|entry| entry.uidl.clone()).collect();
        let seen = HashSet::from([a.name.clone(), b.name.clone()]);
        let mut server = Server::new(maildrop);
        server.storage = storage;
        server.native = UidlFormat::parse(native).unwrap();
        Self {
            server,
            known: [known.clone(), known],
            seen: [seen.clone(), seen],
            backup: None,
            faulted: false,
            delivered: 0,
            history: Vec::new(),
        }
    }

    /// A digest of what makes it another world than one that was looked at.
    fn digest(&self) -> u64 {
        let Server { ledger, mark, disk, uidvalidity, next_uid, index_id, held, stamps, .. } =
            &self.server;
        let undone = self.server.undone;
        let mut hasher = DefaultHasher::new();
        let backup = self.backup.as_ref().map(|b| {
            format!("{:?} {:?} {} {} {:?}", b.ledger, b.mark, b.uidvalidity, b.next_uid, b.list)
        });
        let sorted = |set: &HashSet<String>| {
            let mut sorted: Vec<String> = set.iter().cloned().collect();
            sorted.sort();
            sorted
        };
        let texts = |set: &HashSet<Uidl>| sorted(&set.iter().map(Uidl::to_string).collect());
        let clients = self.known.each_ref().map(texts);
        let seen = self.seen.each_ref().map(sorted);
        format!(
            "{ledger:?} {mark:?} {disk:?} {uidvalidity} {next_uid} {index_id} {held:?} {stamps:?} \
             {undone} {backup:?} {} {clients:?} {seen:?}",
            self.faulted,
        )
        .hash(&mut hasher);
        hasher.finish()
    }

    /// The world after one more step. `None` if the step changes nothing or is beyond any rule.
    fn after(&self, step: Step) -> Option<Self> {
        if step.is_fault() && self.faulted {
            return None;
        }
        let mut world = self.clone();
        world.history.push(step);
        world.faulted |= step.is_fault();
        let server = &mut world.server;
        let is_full = server.held.len() >= MOST_MESSAGES;
        let [a, b] = old();
        let is_there = |name: &str| self.server.held.iter().any(|held| held.name == name);
        match step {
            Step::Poll => world.poll(),
            Step::Rehearse => {
                let stamp = server.undone + 1;
                // A refusal is what a client would hear.
                let _ = server.rehearse(stamp);
            }
            Step::UndoRehearsal if server.undone < 2 => server.undone += 1,
            Step::CopyFile if !is_full && !is_there("a") => _ = server.copy(&a, true),
            Step::CopyContent if !is_full => _ = server.copy(&a, false),
            Step::CopyNameless if !is_full && !is_there("b") => _ = server.copy(&b, true),
            Step::DeliverNameless | Step::DeliverOther if !is_full => {
                world.delivered += 1;
                let name = format!("new{}", world.delivered);
                let is_other = step == Step::DeliverOther;
                let (header, body) =
                    if is_other { (100 + world.delivered as u8, 9) } else { b.content() };
                let new = Mail { received: CAPTURED_AT, ..mail(&name, header, body) };
                server.put(new, name);
            }
            Step::ThereAndBack if !server.held.is_empty() => {
                let gone = server.held.remove(0);
                let guid = gone.name.split_whitespace().last().unwrap_or_default().to_owned();
                let name = match server.storage {
                    Storage::Maildir => format!("{} {guid}", server.new_name()),
                    Storage::Dbox => gone.name,
                };
                server.put(gone.mail, name);
            }
            Step::DeleteFirst if !server.held.is_empty() => _ = server.held.remove(0),
            Step::DeleteLast if server.held.len() > 1 => _ = server.held.pop(),
            Step::Backup if self.backup.is_none() && server.ledger.is_some() => {
                world.backup = Some(world.back_up());
            }
            Step::DiskFull => server.disk = Disk::Full,
            Step::DiskWritable if server.disk == Disk::Full => server.disk = Disk::Writable,
            Step::LoseLedger if server.ledger.is_some() => server.ledger = None,
            Step::LoseMark if server.mark.is_some() => server.mark = None,
            Step::LoseStored if server.storage == Storage::Maildir => {
                for held in &mut server.held {
                    (held.stored, held.stored_order) = (None, None);
                }
            }
            Step::LoseList => {
                server.uidvalidity += 1;
                server.number_anew(1);
            }
            Step::PutBack { ledger, mark, list } => {
                let backup = self.backup.as_ref()?;
                let is_all_old = ledger && mark && (list || server.storage == Storage::Dbox);
                if ledger {
                    server.ledger = backup.ledger.clone();
                }
                if mark {
                    server.mark = backup.mark.clone();
                }
                if list {
                    put_back(server, backup);
                }
                // Then only the operator can know it.
                server.stamps.restored += u64::from(is_all_old);
            }
            // The baked UIDLs go along, and nothing else.
            Step::Travel if server.storage == Storage::Maildir => {
                server.storage = Storage::Dbox;
                for held in &mut server.held {
                    held.name = held.name.split_whitespace().last().unwrap_or_default().to_owned();
                }
                server.index_id += 1;
                server.lose_memory();
            }
            _ => return None,
        }
        Some(world)
    }

    fn back_up(&self) -> Backup {
        let line = |held: &crate::support::rules::Held| {
            (held.name.clone(), held.uid, held.stored.clone(), held.stored_order)
        };
        Backup {
            ledger: self.server.ledger.clone(),
            mark: self.server.mark.clone(),
            uidvalidity: self.server.uidvalidity,
            next_uid: self.server.next_uid,
            list: self.server.held.iter().map(line).collect(),
        }
    }

    /// Every client lists, misses nothing, and downloads what is new to it.
    fn poll(&mut self) {
        let Ok(listing) = self.server.try_to_list() else { return };
        let uidls: HashSet<Uidl> = listing.iter().map(|(uidl, _)| uidl.clone()).collect();
        for (client, (known, seen)) in self.known.iter_mut().zip(&mut self.seen).enumerate() {
            for (uidl, held) in &listing {
                let is_hidden = known.contains(uidl) && !seen.contains(&held.mail.name);
                assert!(!is_hidden, "{uidl} hides {held:?} from {client}: {:?}", self.history);
                seen.insert(held.mail.name.clone());
            }
            if client == 1 {
                known.retain(|uidl| uidls.contains(uidl));
            }
            known.extend(uidls.iter().cloned());
        }
        if self.server.disk == Disk::Writable && !self.server.held.is_empty() {
            assert!(self.server.warm().is_some(), "not warm: {:?}", self.history);
            let again = self.server.clone().listing();
            assert!(
                again.iter().map(|(uidl, _)| uidl).eq(listing.iter().map(|(uidl, _)| uidl)),
                "another listing right after: {:?}",
                self.history
            );
        }
    }
}

fn put_back(server: &mut Server, backup: &Backup) {
    server.uidvalidity = backup.uidvalidity;
    server.index_id += 1;
    let mut next_uid = backup.next_uid;
    let is_list = server.storage == Storage::Maildir;
    for held in &mut server.held {
        let line = backup.list.iter().find(|(name, ..)| *name == held.name);
        held.uid = match line {
            Some((_, uid, ..)) => *uid,
            None => {
                next_uid += 1;
                next_uid - 1
            }
        };
        if is_list {
            (held.stored, held.stored_order) =
                line.map_or((None, None), |(_, _, stored, order)| (stored.clone(), *order));
        }
    }
    server.next_uid = next_uid;
    server.held.sort_by_key(|held| held.uid);
}

/// Returns the number of worlds after so many steps, each with a poll at its end. In some of them
/// the ledger alone says what new mail is told, while old messages may still come.
fn walk(start: &World, steps: usize) -> usize {
    let (mut seen, mut grown_beside_unclaimed) = (HashSet::new(), 0);
    let mut frontier = vec![start.clone()];
    for _ in 0..steps {
        let mut next = Vec::new();
        for world in &frontier {
            for step in Step::ALL {
                let Some(after) = world.after(step) else { continue };
                if seen.insert(after.digest()) {
                    let mut polled = after.clone();
                    polled.server.disk = Disk::Writable;
                    polled.poll();
                    grown_beside_unclaimed += polled.server.grown_beside_unclaimed;
                    next.push(after);
                }
            }
        }
        frontier = next;
    }
    let is_settled = start.server.native.is_counting() && start.server.native.has_uidvalidity();
    assert_eq!(grown_beside_unclaimed > 0, is_settled, "{grown_beside_unclaimed} logins");
    seen.len()
}

fn steps() -> usize {
    std::env::var("UIDL_KEEP_STEPS").ok().and_then(|steps| steps.parse().ok()).unwrap_or(4)
}

#[test]
fn no_history_of_a_small_maildir_hides_a_mail() {
    for native in ["%08Xu%08Xv", "%u", "UID%u-%v"] {
        let worlds = walk(&World::new(Storage::Maildir, native), steps());
        println!("{native}: {worlds} worlds within {} steps", steps());
        assert!(worlds > 1000);
    }
}

#[test]
fn no_history_of_a_small_dbox_hides_a_mail() {
    for native in ["%08Xu%08Xv", "%u", "%g"] {
        let worlds = walk(&World::new(Storage::Dbox, native), steps());
        println!("{native}: {worlds} worlds within {} steps", steps());
        assert!(worlds > 1000);
    }
}
