//! Random histories of an old and a new server, which model clients live through: whatever is
//! copied, delivered, deleted, lost, put back or full, in whatever order, none ever misses a
//! message that is new to it, and none downloads twice a message that the keys could tell.
//!
//! At most one thing is lost or put back in a history: `docs/design.md` names what no rule can
//! hold.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, UNIX_EPOCH};

use crate::support::rules::{
    CAPTURED_AT, DAY, Disk, HEADERLESS, Held, Mail, NAMELESS, Server, Storage, capture, captured,
    mail, uidl,
};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use uidl_keep::format::UidlFormat;
use uidl_keep::index::merge::merge;
use uidl_keep::ledger::{Ledger, Mark};
use uidl_keep::maildrop::{Counter, Entry, Maildrop, State};
use uidl_keep::resolve::{Outcome, Purpose, Undecidable};
use uidl_keep::site::change::Change;
use uidl_keep::site::roster::{Gate, RosterLine};
use uidl_keep::uidl::Uidl;

type Listing = Vec<(Uidl, Held)>;

/// The way in which a client remembers what it has downloaded, and finds what it has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientKind {
    /// It remembers every UIDL that it ever saw.
    RemembersAll,
    /// It remembers the UIDLs of the last listing, as fetchmail, mpop and Thunderbird do.
    RemembersTheLast,
    /// It remembers those too, and looks for the first new one by halves, as fetchmail's
    /// `fastuidl`.
    SearchesByHalves,
}

/// The place of the first client that searches by halves. So does the one behind it, which comes to
/// the new server alone.
const BY_HALVES: usize = 2;

struct Client {
    kind: ClientKind,
    known: HashSet<Uidl>,
    /// The mails, by their own names, that its user has seen.
    seen: HashSet<String>,
}

impl Client {
    /// Downloads what it takes for new, and returns that.
    fn poll<'a>(&mut self, listing: &'a Listing, by_halves: bool) -> Vec<&'a Held> {
        let start = match self.kind {
            ClientKind::SearchesByHalves if by_halves => {
                let (mut low, mut high) = (0, listing.len() + 1);
                while high - low > 1 {
                    let middle = (low + high) / 2;
                    let is_known = self.known.contains(&listing[middle - 1].0);
                    *(if is_known { &mut low } else { &mut high }) = middle;
                }
                high - 1
            }
            _ => 0,
        };
        let new = listing[start..].iter().filter(|(uidl, _)| !self.known.contains(uidl));
        // The session ends at a download that fails; what was not downloaded is tried again.
        let new: Vec<_> = new.take_while(|(_, held)| held.readable).collect();
        self.seen.extend(new.iter().map(|(_, held)| held.mail.name.clone()));
        if self.kind != ClientKind::RemembersAll {
            self.known.retain(|known| listing.iter().any(|(uidl, _)| uidl == known));
        }
        self.known.extend(new.iter().map(|(uidl, _)| uidl.clone()));
        new.into_iter().map(|(_, held)| held).collect()
    }

    /// Returns a message that is there, that the client has not seen, and that it takes for known.
    fn missed<'a>(&self, listing: &'a Listing) -> Option<&'a Held> {
        let mut unseen = listing.iter().filter(|(_, held)| !self.seen.contains(&held.mail.name));
        unseen.find(|(uidl, _)| self.known.contains(uidl)).map(|(_, held)| held)
    }
}

/// A thing that happens between two polls.
#[derive(Debug, Clone)]
enum Step {
    Copy {
        old: usize,
        by: By,
    },
    Deliver {
        old: usize,
        like: Like,
    },
    CopyWithin {
        held: usize,
    },
    Delete {
        held: usize,
    },
    ThereAndBack {
        held: usize,
    },
    Unreadable {
        held: usize,
        readable: bool,
    },
    Poll,
    /// One of the clients that look at the whole listing does not poll: the place of an old message
    /// that comes behind a new one can suit only who has seen that.
    PollWithout {
        client: usize,
    },
    /// The session is killed once the clients have their listing: nothing more is written.
    PollAndBeKilled,
    /// A mail comes to the old server, and every client fetches it there.
    OldServerGoesOn {
        number_of_new: bool,
    },
    /// Another capture is taken, and built upon the index.
    Capture {
        renamed: usize,
        without: usize,
    },
    Finalise,
    Hold,
    Rehearse,
    UndoRehearsal,
    Backup,
    Disk(Disk),
    Fault(Fault),
    /// The operator finds that the index was built with a wrong format, and builds the right one.
    ForgetAndBuild,
    /// The operator gives `pop3_uidl_format` another value: the old server's, or one of these.
    SetFormat {
        format: usize,
    },
}

/// A thing that is lost, put back from the last backup, or comes from elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Lose {
        ledger: bool,
        mark: bool,
    },
    /// `P` and `O` are gone from the list.
    LoseStored,
    /// UIDs and UIDVALIDITY are given anew.
    LoseList {
        stored: bool,
    },
    /// ... and later the list that was there before comes back.
    ListComesBack,
    PutBack {
        ledger: bool,
        mark: bool,
        list: bool,
    },
    /// An older index comes: logins are refused until the last one is there again.
    PutBackIndex,
    /// Other messages have the UIDs.
    ListFromElsewhere {
        back_to: u32,
    },
    /// The mail goes to another storage by dsync, with the plugin or without; the ledger stays.
    Travel {
        plugin: bool,
        uids: bool,
        storage: bool,
    },
    /// Another front end has an index of its own.
    AnotherIndex,
    /// The roster is put back, and does not say any more which rehearsals are void.
    PutBackRoster,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    File,
    /// The mail comes by IMAP: the storage gives a name, and keeps the time of arrival or not.
    Content {
        keeps_time: bool,
    },
    Redelivery,
}

/// The parts that a new message has in common with an old one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Like {
    Nothing,
    /// Both have its header, which does not name it, and its body: the next message of a script.
    NamelessEqual,
    /// Both have its header, which does not name it.
    NamelessHeader,
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        2 => (any::<bool>(), any::<bool>()).prop_map(|(ledger, mark)| Fault::Lose { ledger, mark }),
        1 => Just(Fault::LoseStored),
        2 => any::<bool>().prop_map(|stored| Fault::LoseList { stored }),
        2 => Just(Fault::ListComesBack),
        4 => (any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(ledger, mark, list)| Fault::PutBack { ledger, mark, list }),
        1 => Just(Fault::PutBackIndex),
        1 => (1..9u32).prop_map(|back_to| Fault::ListFromElsewhere { back_to }),
        3 => (any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(plugin, uids, storage)| Fault::Travel { plugin, uids, storage }),
        1 => Just(Fault::AnotherIndex),
        1 => Just(Fault::PutBackRoster),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let by = prop_oneof![
        3 => Just(By::File),
        2 => any::<bool>().prop_map(|keeps_time| By::Content { keeps_time }),
        1 => Just(By::Redelivery),
    ];
    let like = prop_oneof![
        3 => Just(Like::Nothing), 3 => Just(Like::NamelessEqual), 1 => Just(Like::NamelessHeader)
    ];
    prop_oneof![
        12 => (0..12usize, by).prop_map(|(old, by)| Step::Copy { old, by }),
        7 => (0..12usize, like).prop_map(|(old, like)| Step::Deliver { old, like }),
        2 => (0..20usize).prop_map(|held| Step::CopyWithin { held }),
        4 => (0..20usize).prop_map(|held| Step::Delete { held }),
        2 => (0..20usize).prop_map(|held| Step::ThereAndBack { held }),
        1 => (0..20usize, any::<bool>())
            .prop_map(|(held, readable)| Step::Unreadable { held, readable }),
        10 => Just(Step::Poll),
        5 => (0..BY_HALVES).prop_map(|client| Step::PollWithout { client }),
        3 => Just(Step::PollAndBeKilled),
        2 => any::<bool>().prop_map(|number_of_new| Step::OldServerGoesOn { number_of_new }),
        2 => (0..12usize, 0..12usize)
            .prop_map(|(renamed, without)| Step::Capture { renamed, without }),
        1 => Just(Step::Finalise),
        3 => Just(Step::Hold),
        4 => Just(Step::Rehearse),
        2 => Just(Step::UndoRehearsal),
        3 => Just(Step::Backup),
        1 => prop_oneof![Just(Disk::Writable), Just(Disk::Full)].prop_map(Step::Disk),
        4 => fault().prop_map(Step::Fault),
        1 => Just(Step::ForgetAndBuild),
        1 => (0..3usize).prop_map(|format| Step::SetFormat { format }),
    ]
}

/// The properties of the two servers and their operator.
#[derive(Debug, Clone)]
struct World {
    /// Header and body of each old message.
    old: Vec<(u8, u8)>,
    /// The number of UIDLs of the old server that stand at two messages.
    repeated: usize,
    old_format: &'static str,
    native: &'static str,
    storage: Storage,
    bakes: bool,
    origin: bool,
    /// The old server's UIDVALIDITY, which the new one has too.
    same_uidvalidity: bool,
    /// Old entries have a header without a `message` key.
    headers_only: bool,
    /// Old entries have no name, as after a capture over POP3.
    nameless_entries: bool,
}

fn world() -> impl Strategy<Value = World> {
    let format = || prop_oneof![Just("%08Xu%08Xv"), Just("UID%u-%v"), Just("%u"), Just("%g")];
    let header = prop_oneof![
        6 => 0..6u8, 3 => NAMELESS..NAMELESS + 2, 1 => HEADERLESS..HEADERLESS + 1
    ];
    (
        prop::collection::vec((header, 0..3u8), 1..10),
        0..3usize,
        (format(), format()),
        prop_oneof![Just(Storage::Maildir), Just(Storage::Dbox)],
        prop::bool::weighted(0.8),
        any::<bool>(),
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.3),
    )
        .prop_map(
            |(
                old,
                repeated,
                (old_format, native),
                storage,
                bakes,
                origin,
                same_uidvalidity,
                headers_only,
                nameless_entries,
            )| World {
                old,
                repeated,
                old_format: if old_format == "%g" { "UID%u-%v" } else { old_format },
                native,
                storage,
                bakes,
                origin,
                same_uidvalidity,
                headers_only,
                nameless_entries,
            },
        )
}

/// The content of a backup.
#[derive(Clone)]
struct Backup {
    ledger: Option<Ledger>,
    mark: Option<Mark>,
    list: List,
    captured: Maildrop,
    is_final: bool,
}

/// The list of UIDs, by name.
#[derive(Clone)]
struct List {
    uidvalidity: u32,
    next_uid: u32,
    of_name: HashMap<String, (u32, Option<Uidl>, Option<u32>)>,
}

/// A history, and the state that its checks need.
struct History {
    world: World,
    server: Server,
    old: Vec<Mail>,
    /// The UIDLs that the old server gives them now.
    old_uidls: Vec<Uidl>,
    old_format: UidlFormat,
    old_next: u32,
    clients: Vec<Client>,
    backup: Option<Backup>,
    /// The list as it was before it was lost.
    lost_list: Option<List>,
    faulted: bool,
    delivered: usize,
    /// The number of copies of each old message that are there, and the ways in which they came.
    copies: HashMap<usize, Vec<By>>,
    /// Old messages to which something happened that no key outlives.
    unlucky: HashSet<usize>,
    /// The place in the last listing of each message that is still there.
    last: Vec<(Uidl, String)>,
    /// The UIDLs that new messages were told before the ledger alone was lost: a mark, or what was
    /// baked, is enough for that.
    told_to_new: Vec<(Uidl, String)>,
    /// Clients were told something that could not be recorded.
    told_unrecorded: bool,
    /// The order of the last listing may be lost, or a client stopped before its end: a client that
    /// searches by halves must look at everything, as it does now and then by itself.
    order_unknown: bool,
    /// Ledger and mark are lost, and more old mail may be copied before the next listing: who knows
    /// it from the old server wants it before new mail, and a newcomer after all that it has.
    order_unknown_to_newcomer: bool,
    /// The mails that the newcomer was told of and could not download: one may go, and come back to
    /// its place, which is before what the newcomer has.
    told_to_newcomer_in_vain: HashSet<String>,
    /// A message came back or came twice since the last listing. Once the ledger is lost, nothing
    /// says which of them was told.
    is_order_blurred: bool,
    captures: u64,
    /// Whether clients are held, and what was rehearsed.
    line: RosterLine,
    /// Old messages that some capture has.
    captured: HashSet<usize>,
    /// Names that two messages have had: no name of these can tell, once UIDs are given anew.
    twinned: HashSet<String>,
}

impl History {
    fn new(world: &World) -> Self {
        let old: Vec<Mail> = (world.old.iter().enumerate())
            .map(|(n, &(header, body))| mail(&format!("old{n}"), header, body))
            .collect();
        let old_format = UidlFormat::parse(world.old_format).unwrap();
        let numbered = |n: usize| render(&old_format, n as u32 + 1);
        let old_uidls: Vec<Uidl> = (0..old.len())
            .map(|n| if n < world.repeated { numbered(0) } else { numbered(n) })
            .collect();
        let texts: Vec<String> = old_uidls.iter().map(Uidl::to_string).collect();
        let listed: Vec<(&str, &Mail)> = texts.iter().map(String::as_str).zip(&old).collect();
        let old_next = old.len() as u32 + 1;
        let mut maildrop = captured(&listed);
        leave_out_keys(world, &mut maildrop);
        maildrop.counter = Some(Counter { format: old_format.clone(), next: old_next });
        maildrop.captures = vec![capture(CAPTURED_AT, Some(old_next))];
        let mut server = Server::new(maildrop);
        server.is_final = false;
        server.native = UidlFormat::parse(world.native).unwrap();
        server.keys.origin = world.origin;
        server.storage = world.storage;
        server.bakes = world.bakes;
        server.uidvalidity = if world.same_uidvalidity { 17 } else { 99 };
        let kinds =
            [ClientKind::RemembersAll, ClientKind::RemembersTheLast, ClientKind::SearchesByHalves];
        let of_old_server = |kind| Client {
            kind,
            known: old_uidls.iter().cloned().collect(),
            seen: old.iter().map(|mail| mail.name.clone()).collect(),
        };
        let newcomer = Client {
            kind: ClientKind::SearchesByHalves,
            known: HashSet::new(),
            seen: HashSet::new(),
        };
        // Of messages with one UIDL it would download the first alone.
        let newcomer = Some(newcomer).filter(|_| world.repeated == 0);
        Self {
            world: world.clone(),
            server,
            clients: kinds.map(of_old_server).into_iter().chain(newcomer).collect(),
            unlucky: (0..world.repeated.min(old.len())).collect(),
            old,
            old_uidls,
            old_format,
            old_next,
            backup: None,
            lost_list: None,
            faulted: false,
            delivered: 0,
            copies: HashMap::new(),
            last: Vec::new(),
            told_to_new: Vec::new(),
            told_unrecorded: false,
            order_unknown: false,
            order_unknown_to_newcomer: false,
            told_to_newcomer_in_vain: HashSet::new(),
            is_order_blurred: false,
            captures: 0,
            line: RosterLine::new("alice@example.com", State::Captured, Gate::Held),
            captured: (0..world.old.len()).collect(),
            twinned: HashSet::new(),
        }
    }

    fn pick(&self, held: usize) -> Option<usize> {
        (!self.server.held.is_empty()).then(|| held % self.server.held.len())
    }

    fn which_old(&self, mail: &Mail) -> Option<usize> {
        self.old.iter().position(|old| old.name == mail.name)
    }

    /// Whether each UIDL that was told stands beside the mail, for a login that has lost all else.
    fn is_baked(&self) -> bool {
        let is_told_to_be = self.server.storage == Storage::Maildir && self.server.bakes;
        is_told_to_be && !self.told_unrecorded && self.server.is_baked()
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Copy { old, by } => self.copy(old % self.old.len(), by),
            Step::Deliver { old, like } => self.deliver(old % self.old.len(), like),
            Step::CopyWithin { held } => {
                if let Some(at) = self.pick(held) {
                    self.copy_within(at);
                }
            }
            Step::Delete { held } => {
                if let Some(at) = self.pick(held) {
                    self.remove(at);
                }
            }
            Step::ThereAndBack { held } => {
                if let Some(at) = self.pick(held) {
                    let gone = self.remove(at);
                    self.put_again(gone);
                    self.blur_order();
                }
            }
            Step::Unreadable { held, readable } => {
                if let Some(at) = self.pick(held) {
                    self.server.held[at].readable = readable;
                    self.told_to_new.clear();
                    self.unlucky.extend(self.which_old(&self.server.held[at].mail.clone()));
                }
            }
            Step::Poll => _ = self.poll_all()?,
            Step::PollWithout { client } => _ = self.poll(|c| c != client)?,
            Step::PollAndBeKilled => {
                self.server.is_killed = true;
                let polled = self.poll_all();
                self.server.is_killed = false;
                _ = polled?;
            }
            Step::OldServerGoesOn { number_of_new } => self.old_server_goes_on(number_of_new),
            Step::Capture { renamed, without } => self.capture(renamed, without),
            Step::Finalise => self.server.is_final = true,
            Step::Hold => self.change(Change::Hold),
            Step::Rehearse => self.rehearse(),
            Step::UndoRehearsal => self.change(Change::UndoRehearsal),
            Step::Backup => self.backup = Some(self.back_up()),
            Step::Disk(disk) => {
                if disk == Disk::Writable || !std::mem::replace(&mut self.faulted, true) {
                    self.server.disk = disk;
                }
            }
            Step::Fault(fault) => self.fault(fault)?,
            Step::ForgetAndBuild => self.forget_and_build()?,
            Step::SetFormat { format } => {
                self.told_to_new.clear();
                let formats = [self.world.old_format, "%08Xu%08Xv", "UID%u-%v"];
                self.server.native = UidlFormat::parse(formats[format]).unwrap();
            }
        }
        Ok(())
    }

    fn change(&mut self, change: Change) {
        let now = UNIX_EPOCH + Duration::from_secs(self.now());
        self.line = change.after(&self.line, true, now);
        self.server.undone = self.line.undone;
    }

    fn blur_order(&mut self) {
        self.is_order_blurred = true;
        self.order_unknown_to_newcomer |= self.faulted;
    }

    /// Nobody but us hears what is listed.
    fn rehearse(&mut self) {
        if self.line.gate != Gate::Held {
            return;
        }
        self.line = self.line.clone().rehearsing(self.now());
        let listed = self.server.rehearse(self.line.rehearsal);
        self.line.rehearsed = listed.is_ok();
    }

    fn copy(&mut self, old: usize, by: By) {
        let now = self.now();
        let twins = twins(&self.old, &self.old[old]);
        if !twins.is_empty() || self.copies.contains_key(&old) {
            self.blur_order();
        }
        let ways = self.copies.entry(old).or_default();
        ways.push(by);
        if by != By::File {
            // Equal contents are interchangeable, and equal headers tell nothing.
            self.unlucky.extend(twins);
        }
        let mut mail = self.old[old].clone();
        if by == By::Redelivery {
            mail.relayed = self.delivered as u8 % 5 + 1;
            self.unlucky.insert(old);
        }
        if matches!(by, By::Redelivery | By::Content { keeps_time: false }) {
            mail.received = now;
        }
        if ways.len() > 1 {
            self.unlucky.insert(old);
            self.twinned.insert(mail.name.clone());
            if by == By::File && self.server.held.iter().any(|held| held.name == mail.name) {
                return;
            }
        }
        if by == By::File && self.server.captured.entries.iter().all(|entry| entry.file.is_none()) {
            self.unlucky.insert(old);
        }
        let name = if by == By::File { mail.name.clone() } else { self.server.new_name() };
        self.server.put(mail, name);
    }

    fn now(&self) -> u64 {
        CAPTURED_AT + self.captures * DAY
    }

    fn deliver(&mut self, old: usize, like: Like) {
        self.delivered += 1;
        let name = format!("new{}", self.delivered);
        let number = self.delivered as u8;
        let old = &self.old[old];
        let (header, body) = match like {
            Like::NamelessEqual if old.header >= NAMELESS => old.content(),
            Like::NamelessHeader if old.header >= NAMELESS => (old.header, 100 + number),
            Like::NamelessEqual => (NAMELESS + 3, 1),
            Like::NamelessHeader | Like::Nothing => (200, number),
        };
        let mut new = mail(&name, header, body);
        new.received = self.now();
        if header == 200 {
            new.header = 100 + number % 100;
        }
        let equal = new.header >= NAMELESS;
        if equal {
            self.unlucky.extend(twins(&self.old, &new));
        }
        self.server.put(new, name);
    }

    fn copy_within(&mut self, at: usize) {
        let Held { mail, name, stored, stored_order, .. } = self.server.held[at].clone();
        self.unlucky.extend(twins(&self.old, &mail));
        self.unlucky.extend(self.which_old(&mail));
        let guid = guid_of(&name).to_owned();
        self.twinned.insert(guid.clone());
        match self.server.storage {
            Storage::Maildir => {
                let file = self.server.new_name();
                self.server.put(mail, format!("{file} {guid}"));
            }
            // A copy in a dbox has all that lies with the mail.
            Storage::Dbox => {
                self.server.put(mail, name);
                let copy = self.server.held.last_mut().unwrap();
                (copy.stored, copy.stored_order) = (stored, stored_order);
            }
        }
    }

    fn put_again(&mut self, gone: Held) {
        match self.server.storage {
            Storage::Maildir => {
                let guid = gone.name.split_whitespace().last().unwrap_or_default().to_owned();
                let file = self.server.new_name();
                self.server.put(gone.mail, format!("{file} {guid}"));
            }
            Storage::Dbox => {
                self.server.put(gone.mail, gone.name);
                let back = self.server.held.last_mut().unwrap();
                (back.stored, back.stored_order) = (gone.stored, gone.stored_order);
            }
        }
    }

    fn remove(&mut self, at: usize) -> Held {
        let gone = self.server.held.remove(at);
        self.last.retain(|(_, other)| *other != gone.name);
        // In a dbox the last message tells whether UIDs still mean what the mark says.
        let is_dbox = self.server.storage == Storage::Dbox;
        self.told_to_new.retain(|(_, other)| !is_dbox && *other != gone.name);
        gone
    }

    fn old_server_goes_on(&mut self, number_of_new: bool) {
        // It gives a number that a client may hold from the new server only if it counts on.
        if self.server.is_final || self.old.len() >= 14 || !number_of_new {
            return;
        }
        let name = format!("old{}", self.old.len());
        let late = mail(&name, 50 + self.old.len() as u8, 1);
        let given = render(&self.old_format, self.old_next);
        self.old_next += 1;
        for client in &mut self.clients[..=BY_HALVES] {
            client.known.insert(given.clone());
            client.seen.insert(name.clone());
        }
        self.old.push(late);
        self.old_uidls.push(given);
    }

    /// A later capture is taken: one message may have another UIDL, which clients know by now, and
    /// one may be gone.
    fn capture(&mut self, renamed: usize, without: usize) {
        if self.server.is_final {
            return;
        }
        self.captures += 1;
        let renamed = renamed % self.old.len();
        if renamed % 3 == 0 && !self.unlucky.contains(&renamed) {
            let given = render(&self.old_format, self.old_next);
            self.old_next += 1;
            for client in &mut self.clients[..=BY_HALVES] {
                client.known.insert(given.clone());
            }
            self.old_uidls[renamed] = given;
        }
        let texts: Vec<String> = self.old_uidls.iter().map(Uidl::to_string).collect();
        let without = without % self.old.len();
        let listed: Vec<(&str, &Mail)> = texts
            .iter()
            .map(String::as_str)
            .zip(&self.old)
            .enumerate()
            .filter(|(n, _)| *n != without)
            .map(|(_, pair)| pair)
            .collect();
        self.captured.extend((0..self.old.len()).filter(|n| *n != without));
        let mut later = captured(&listed);
        leave_out_keys(&self.world, &mut later);
        for (entry, n) in
            later.entries.iter_mut().zip((0..self.old.len()).filter(|n| *n != without))
        {
            entry.uid = Some(n as u32 + 1);
        }
        later.counter = Some(Counter { format: self.old_format.clone(), next: self.old_next });
        later.captures = vec![capture(self.now(), Some(self.old_next))];
        self.line = self.line.clone().with_later_capture(self.now());
        self.server.undone = self.line.undone;
        let earlier = self.server.captured.clone();
        self.server.captured = merge(earlier, later).unwrap().maildrop;
    }

    fn list(&self) -> List {
        let of_name =
            self.server.held.iter().map(|held| {
                (held.name.clone(), (held.uid, held.stored.clone(), held.stored_order))
            });
        List {
            uidvalidity: self.server.uidvalidity,
            next_uid: self.server.next_uid,
            of_name: of_name.collect(),
        }
    }

    fn back_up(&self) -> Backup {
        Backup {
            ledger: self.server.ledger.clone(),
            mark: self.server.mark.clone(),
            list: self.list(),
            captured: self.server.captured.clone(),
            is_final: self.server.is_final,
        }
    }

    /// Each message that the list names has the UID that the list says; the rest get the next ones.
    fn put_back_list(&mut self, list: &List) {
        let server = &mut self.server;
        server.uidvalidity = list.uidvalidity;
        server.index_id += 1;
        let (mut next_uid, mut used) = (list.next_uid, HashSet::new());
        let is_list = server.storage == Storage::Maildir;
        for held in &mut server.held {
            match list.of_name.get(&held.name).filter(|(uid, ..)| used.insert(*uid)) {
                Some((uid, stored, order)) => {
                    held.uid = *uid;
                    if is_list {
                        (held.stored, held.stored_order) = (stored.clone(), *order);
                    }
                }
                None => {
                    held.uid = next_uid;
                    next_uid += 1;
                    if is_list {
                        (held.stored, held.stored_order) = (None, None);
                    }
                }
            }
        }
        server.next_uid = next_uid;
        server.held.sort_by_key(|held| held.uid);
    }

    fn fault(&mut self, fault: Fault) -> Result<(), TestCaseError> {
        let comes_back = fault == Fault::ListComesBack && self.lost_list.is_some();
        if self.told_unrecorded || (self.faulted && !comes_back) {
            return Ok(());
        }
        let is_baked = self.is_baked();
        let was_listed = self.server.ledger.is_some() || self.server.mark.is_some();
        match fault {
            Fault::Lose { ledger, mark } => {
                // No rule can help once all memory is lost and nothing is baked.
                if (ledger && mark && !is_baked) || !(ledger || mark) {
                    return Ok(());
                }
                if ledger && !mark {
                    self.expect_new_to_stay();
                }
                if ledger {
                    self.server.ledger = None;
                }
                if mark {
                    self.server.mark = None;
                }
                self.order_unknown_to_newcomer |= ledger && (mark || self.is_order_blurred);
                let is_placeless = mark && self.world.native == "%g";
                self.order_unknown |= ledger && is_placeless;
                if ledger {
                    self.last.clear();
                }
            }
            Fault::LoseStored => {
                if self.server.storage == Storage::Maildir {
                    for held in &mut self.server.held {
                        (held.stored, held.stored_order) = (None, None);
                    }
                }
            }
            Fault::LoseList { stored } => {
                self.lost_list = Some(self.list());
                self.server.uidvalidity += 1;
                let keep = self.server.held.clone();
                self.server.number_anew(1);
                if self.server.storage == Storage::Dbox && !stored {
                    // The index of a dbox is lost; the data that lies with the mail is not.
                    for (held, kept) in self.server.held.iter_mut().zip(keep) {
                        (held.stored, held.stored_order) = (kept.stored, kept.stored_order);
                    }
                }
                self.forget_twins();
            }
            Fault::ListComesBack => {
                let Some(list) = self.lost_list.take() else { return Ok(()) };
                self.put_back_list(&list);
                self.forget_twins();
            }
            Fault::PutBack { ledger, mark, list } => {
                let Some(backup) = self.backup.clone() else { return Ok(()) };
                if !(ledger || mark || list) {
                    return Ok(());
                }
                if ledger && !mark && !list {
                    self.expect_new_to_stay();
                }
                if ledger {
                    self.server.ledger = backup.ledger;
                    self.last.clear();
                    self.order_unknown_to_newcomer |= mark || self.is_order_blurred;
                }
                if mark {
                    self.server.mark = backup.mark;
                }
                if list {
                    self.put_back_list(&backup.list);
                    self.last.clear();
                }
                // On dbox nothing that is told stands with the mail.
                let all_old = ledger && mark && (list || !is_baked);
                if all_old {
                    self.server.stamps.restored += 1;
                }
                self.order_unknown |= (ledger && mark && !is_baked) || list;
            }
            Fault::PutBackIndex => {
                let Some(backup) = self.backup.clone() else { return Ok(()) };
                let last = (self.server.captured.clone(), self.server.is_final);
                let uidls = |maildrop: &Maildrop| {
                    let all = maildrop.entries.iter().flat_map(Entry::uidls);
                    all.chain(&maildrop.spent).collect::<HashSet<_>>().len()
                };
                let is_less =
                    uidls(&backup.captured) < uidls(&last.0) || (last.1 && !backup.is_final);
                // What was only rehearsed was told to nobody: no index is older than that.
                let is_told = |ledger: &Ledger| ledger.rehearsal == 0;
                let is_told = self.server.ledger.as_ref().is_some_and(is_told);
                if !is_less || !is_told || self.server.stamps.forgotten > 0 {
                    return Ok(());
                }
                let known = self.server.ledger.as_ref().unwrap().index;
                let is_known = known.uidls as usize == uidls(&last.0);
                (self.server.captured, self.server.is_final) = (backup.captured, backup.is_final);
                if known.is_final == last.1 && is_known {
                    let refused = self.server.outcome(Purpose::Listing { guarded: false });
                    let is_older =
                        matches!(refused, Outcome::Refused(Undecidable::OlderIndex { .. }));
                    prop_assert!(is_older || !self.server.asked_captured, "{refused:?}");
                }
                (self.server.captured, self.server.is_final) = last;
                return Ok(());
            }
            Fault::ListFromElsewhere { back_to } => {
                self.server.list_from_elsewhere(back_to);
                self.last.clear();
            }
            Fault::Travel { plugin, uids, storage } => {
                if !plugin && !is_baked && was_listed {
                    return Ok(());
                }
                self.travel(plugin, uids, storage);
            }
            Fault::AnotherIndex => self.server.index_id += 100,
            Fault::PutBackRoster => (self.line.undone, self.server.undone) = (0, 0),
        }
        self.faulted = true;
        Ok(())
    }

    fn expect_new_to_stay(&mut self) {
        let is_new = |name: &str| name.starts_with("new") && !self.twinned.contains(name);
        let is_told_of_uid = self.server.native.is_counting();
        let is_noted = match self.server.storage {
            Storage::Maildir => self.server.bakes && !self.told_unrecorded,
            Storage::Dbox => is_told_of_uid,
        };
        let last = self.server.held.last().map_or(0, |held| held.uid);
        let is_marked = self.server.mark.as_ref().is_some_and(|mark| {
            self.server.storage == Storage::Maildir || (mark.last_uid == last && !mark.has_derived)
        });
        let is_readable = self.server.held.iter().all(|held| held.readable);
        if is_noted && is_marked && is_readable {
            // A message that went and came back has the UIDL of the UID that it had.
            let is_native = |uidl: &Uidl, name: &str| {
                let held = self.server.held.iter().find(|held| held.name == name);
                held.is_some_and(|held| self.server.native_uidl(held) == *uidl)
            };
            let last = self.last.iter().filter(|(_, name)| is_new(name));
            let last = last.filter(|(uidl, name)| is_native(uidl, name));
            self.told_to_new = last.cloned().collect();
        }
    }

    /// Once UIDs are given anew, only names can tell: two messages of one name are told no more.
    fn forget_twins(&mut self) {
        let twinned = &self.twinned;
        self.last.retain(|(_, name)| !twinned.contains(guid_of(name)));
    }

    /// dsync carries mail, names, the `P` and `O` that `get_special` returns, and maybe UIDs.
    fn travel(&mut self, plugin: bool, uids: bool, storage: bool) {
        if plugin {
            let Outcome::Resolved(preview) = self.server.outcome(Purpose::Preview) else { return };
            for held in &mut self.server.held {
                let record = preview.ledger.records.iter().find(|record| record.uid == held.uid);
                held.stored = record.map(|record| record.uidl.clone());
                held.stored_order = record.map(|record| record.order);
            }
        }
        if !uids {
            self.server.uidvalidity += 7;
            for (uid, held) in (1..).zip(&mut self.server.held) {
                held.uid = uid;
            }
            self.server.next_uid = self.server.held.len() as u32 + 1;
        }
        for held in &mut self.server.held {
            held.name = held.name.split_whitespace().last().unwrap_or_default().to_owned();
        }
        if storage {
            self.server.storage = match self.server.storage {
                Storage::Maildir => Storage::Dbox,
                Storage::Dbox => Storage::Maildir,
            };
            if self.server.storage == Storage::Maildir {
                for held in &mut self.server.held {
                    let file = format!("moved{}", held.uid);
                    held.name = format!("{file} {}", held.name);
                }
            }
        }
        self.server.index_id += 1;
        self.server.lose_memory();
        self.order_unknown_to_newcomer = true;
        // A message that came back since it was told has a GUID that clients know, and no place.
        self.order_unknown |= self.world.native == "%g";
        self.last.clear();
    }

    fn forget_and_build(&mut self) -> Result<(), TestCaseError> {
        // Each client that polls must have seen what came under the wrong index.
        self.server.held.iter_mut().for_each(|held| held.readable = true);
        self.server.disk = Disk::Writable;
        if self.faulted || self.poll_all()?.is_err() {
            return Ok(());
        }
        self.faulted = true;
        self.server.stamps.forgotten += 1;
        let captured = &mut self.server.captured;
        // This is as `spend_entries` does: earlier captures are not known any more.
        captured.captures = vec![capture(CAPTURED_AT + self.captures * DAY + 30 * DAY, None)];
        self.captures += 30;
        let all = captured.entries.iter().flat_map(Entry::uidls).cloned();
        captured.spent.extend(all.collect::<Vec<_>>());
        for entry in &mut captured.entries {
            let n = entry.uid.unwrap() as usize - 1;
            entry.earlier.clear();
            entry.uidl = uidl(&format!("right{n}.{}", self.server.stamps.forgotten));
        }
        for entry in &captured.entries {
            self.old_uidls[entry.uid.unwrap() as usize - 1] = entry.uidl.clone();
        }
        self.unlucky.extend(0..self.old.len());
        self.order_unknown = true;
        self.last.clear();
        Ok(())
    }

    /// Mends everything; at the end every client has seen every message.
    fn mend_all_and_poll(&mut self) -> Result<(), TestCaseError> {
        self.server.held.iter_mut().for_each(|held| held.readable = true);
        self.server.disk = Disk::Writable;
        if self.poll_all()?.is_err() {
            // Only the operator can give up a message that is missing for good.
            self.server.stamps.unguarded += 1;
            prop_assert!(self.poll_all()?.is_ok());
        }
        for client in &self.clients {
            for held in &self.server.held {
                let seen = client.seen.contains(&held.mail.name);
                prop_assert!(seen, "a client that {:?} never sees {:?}", client.kind, held);
            }
        }
        Ok(())
    }

    fn poll_all(&mut self) -> Result<Result<(), ()>, TestCaseError> {
        self.poll(|_| true)
    }

    /// Those clients poll, one listing for all of them.
    fn poll(&mut self, polls: impl Fn(usize) -> bool) -> Result<Result<(), ()>, TestCaseError> {
        self.change(Change::Release);
        let Ok(listing) = self.server.try_to_list() else { return Ok(Err(())) };
        // A message that no capture has is new, and stays so.
        let here = listing.iter().filter_map(|(_, held)| self.which_old(&held.mail));
        let here: Vec<usize> = here.filter(|old| !self.captured.contains(old)).collect();
        self.unlucky.extend(here);
        // A listing that cannot be recorded shows an old message to a newcomer where the next one
        // may not: no rule can hold that.
        let is_recorded = self.server.disk == Disk::Writable;
        let polls = |c: usize| polls(c) && (c <= BY_HALVES || is_recorded);
        for (c, client) in self.clients.iter_mut().enumerate().filter(|(c, _)| polls(*c)) {
            let is_in_vain = |held: &Held| self.told_to_newcomer_in_vain.contains(&held.mail.name);
            let is_known_to_newcomer = !self.order_unknown_to_newcomer
                && !listing.iter().any(|(_, held)| is_in_vain(held));
            let is_order_known = !self.order_unknown && (c <= BY_HALVES || is_known_to_newcomer);
            let missed = client.missed(&listing).cloned();
            prop_assert!(missed.is_none(), "a client that {:?} misses {:?}", client.kind, missed);
            let downloads = client.poll(&listing, is_order_known);
            // Equal contents are interchangeable.
            let is_seen = |old: &&Mail| downloads.iter().any(|d| d.mail.content() == old.content());
            client.seen.extend(self.old.iter().filter(is_seen).map(|old| old.name.clone()));
            if c > BY_HALVES {
                let told = listing.iter().map(|(_, held)| &held.mail.name);
                self.told_to_newcomer_in_vain.extend(told.cloned());
                self.told_to_newcomer_in_vain.retain(|name| !client.seen.contains(name));
            }
            if client.kind == ClientKind::RemembersAll && !self.faulted {
                for held in downloads {
                    let old = self.old.iter().position(|old| old.name == held.mail.name);
                    let lucky = old.filter(|old| !self.unlucky.contains(old));
                    let by_file = lucky.filter(|old| self.copies[old] == [By::File]);
                    prop_assert!(by_file.is_none(), "{:?} is downloaded twice", held);
                }
            }
        }
        let now: Vec<(Uidl, String)> =
            (listing.iter()).map(|(uidl, held)| (uidl.clone(), held.name.clone())).collect();
        let in_order = |of: &[(Uidl, String)], other: &[(Uidl, String)]| -> Vec<(Uidl, String)> {
            let count = |of: &[(Uidl, String)], pair: &(Uidl, String)| {
                of.iter().filter(|p| *p == pair).count()
            };
            let once = |pair: &&(Uidl, String)| count(of, pair) == 1 && count(other, pair) == 1;
            of.iter().filter(once).cloned().collect()
        };
        // A message that was there all the time stays, and stays in its order.
        let undecided = listing.iter().any(|(_, held)| !held.readable);
        if is_recorded && !undecided {
            prop_assert_eq!(in_order(&self.last, &now), in_order(&now, &self.last));
            let still: Vec<&String> = self.last.iter().map(|(_, name)| name).collect();
            for (uidl, name) in &self.last {
                if still.iter().filter(|other| **other == name).count() == 1 {
                    let kept = now.iter().any(|(other, n)| n == name && other == uidl);
                    prop_assert!(kept, "{} of {} did not stay", uidl, name);
                }
            }
            for (uidl, name) in self.told_to_new.drain(..) {
                let now = now.iter().find(|(_, other)| *other == name);
                let stays = now.is_none_or(|(told, _)| *told == uidl);
                prop_assert!(stays, "{} was told {}, and now {:?}", name, uidl, now);
            }
            let is_warm = self.server.warm().is_some() || self.server.held.is_empty();
            prop_assert!(is_warm, "the next login is not warm");
        }
        self.last = if is_recorded && !undecided { now } else { Vec::new() };
        self.told_unrecorded |= !is_recorded;
        self.order_unknown = undecided || !is_recorded;
        (self.order_unknown_to_newcomer, self.is_order_blurred) = (false, false);
        Ok(Ok(()))
    }
}

/// The GUID of a message: its last name.
fn guid_of(name: &str) -> &str {
    name.split_whitespace().last().unwrap_or_default()
}

/// Removes the keys that a capture of this world's kind does not have.
fn leave_out_keys(world: &World, maildrop: &mut Maildrop) {
    for entry in &mut maildrop.entries {
        // Messages whose header does not name them lose it too: a listing may be written by hand.
        if world.headers_only && entry.header.is_some() {
            entry.message = None;
        }
        if world.nameless_entries && entry.header.or(entry.message).is_some() {
            entry.file = None;
        }
    }
}

fn render(format: &UidlFormat, number: u32) -> Uidl {
    let fields = uidl_keep::format::Fields { uid: number, uidvalidity: 17, file: None, guid: None };
    format.render(&fields).unwrap()
}

/// The old messages that a copy of `mail` may be taken for: those of its content, or of its header.
fn twins(old: &[Mail], mail: &Mail) -> Vec<usize> {
    (0..old.len()).filter(|&n| old[n].header == mail.header && old[n].name != mail.name).collect()
}

/// Every run lives through the same histories, until it is asked for others or more:
/// `UIDL_KEEP_SEED=7 PROPTEST_CASES=20000`.
fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(otherwise)
}

proptest! {
    #![proptest_config(ProptestConfig {
        max_shrink_iters: 20_000,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(setting("UIDL_KEEP_SEED", 1)),
        ..ProptestConfig::with_cases(setting("PROPTEST_CASES", 3000) as u32)
    })]

    #[test]
    fn no_client_misses_what_is_new_or_downloads_what_the_keys_could_tell(
        world in world(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut history = History::new(&world);
        for step in &steps {
            history.step(step)?;
        }
        history.mend_all_and_poll()?;
    }

    /// The keys keep what they can tell: distinct old messages, copied in any order and any way,
    /// all keep their UIDLs.
    #[test]
    fn every_message_that_its_keys_can_tell_keeps_its_uidl(
        count in 1..30usize,
        seed in any::<u64>(),
        late in 0..30usize,
        is_final in any::<bool>(),
    ) {
        let old: Vec<Mail> =
            (0..count).map(|n| mail(&format!("old{n}"), n as u8, n as u8)).collect();
        let names: Vec<String> = (0..count).map(|n| format!("UID{}-17", n + 1)).collect();
        let listed: Vec<(&str, &Mail)> = names.iter().map(String::as_str).zip(&old).collect();
        let mut server = Server::new(captured(&listed));
        server.is_final = is_final;
        server.keys.origin = true;
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by_key(|&n| (n as u64 + 1).wrapping_mul(seed | 1).rotate_left(17));
        for (nth, &n) in order.iter().enumerate() {
            if nth == late {
                server.log_in();
            }
            let mut copy = old[n].clone();
            copy.relayed = u8::from((seed >> (n % 61)) & 3 == 3);
            let by_file = (seed >> (n % 64)) & 1 == 0;
            server.copy(&copy, by_file);
        }
        let listing = server.listing();
        prop_assert_eq!(listing.len(), count);
        for (uidl, held) in listing {
            let n = old.iter().position(|old| old.name == held.mail.name).unwrap();
            prop_assert_eq!(uidl.to_string(), &names[n][..]);
        }
    }
}

/// The costs are a few passes: a maildrop of ten thousand is resolved in one go, whatever repeats
/// in it.
#[test]
fn ten_thousand_messages_keep_their_uidls_and_their_order() {
    let old: Vec<Mail> = (0..10_000u32)
        .map(|n| mail(&format!("old{n}"), (n % 239) as u8, (n / 239) as u8))
        .collect();
    let names: Vec<String> = (0..old.len()).map(|n| format!("UID{n}-17")).collect();
    let listed: Vec<(&str, &Mail)> = names.iter().map(String::as_str).zip(&old).collect();
    for by_file in [true, false] {
        let mut server = Server::new(captured(&listed));
        for at in 0..old.len() {
            server.copy(&old[at * 7919 % old.len()], by_file);
        }
        assert_eq!(server.uidls(), names, "by file: {by_file}");
    }
}
