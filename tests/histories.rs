//! Random histories of a new server, which model clients live through: whatever is copied, delivered,
//! deleted, lost or full, in whatever order, none ever misses a message that is new to it, and none
//! downloads twice what the keys could tell.

mod resolve_support;

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use resolve_support::{Disk, Held, Mail, Server, captured, mail, uidl};
use uidl_keep::format::UidlFormat;
use uidl_keep::index::merge::merge;
use uidl_keep::uidl::Uidl;

type Listing = Vec<(Uidl, Held)>;

/// How a client remembers what it has downloaded, and finds what it has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Every UIDL that it ever saw.
    RemembersAll,
    /// Those of the last listing, as fetchmail, mpop and Thunderbird.
    RemembersTheLast,
    /// Those too, and it looks for the first new one by halves, as fetchmail's `fastuidl`.
    SearchesByHalves,
}

struct Client {
    kind: Kind,
    known: HashSet<Uidl>,
    /// What its user has seen.
    seen: HashSet<(u8, u8)>,
}

impl Client {
    /// One that has polled the old server.
    fn new(kind: Kind, old: &[(&str, &Mail)]) -> Self {
        Self {
            kind,
            known: old.iter().map(|(text, _)| uidl(text)).collect(),
            seen: old.iter().map(|(_, mail)| mail.content()).collect(),
        }
    }

    /// Downloads what it takes for new, and returns that.
    fn poll<'a>(&mut self, listing: &'a Listing, by_halves: bool) -> Vec<&'a Held> {
        let start = match self.kind {
            Kind::SearchesByHalves if by_halves => {
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
        // Where a download fails, the session ends; what was not downloaded is tried again.
        let new: Vec<_> = new.take_while(|(_, held)| held.readable).collect();
        self.seen.extend(new.iter().map(|(_, held)| held.mail.content()));
        if self.kind != Kind::RemembersAll {
            self.known.retain(|known| listing.iter().any(|(uidl, _)| uidl == known));
        }
        self.known.extend(new.iter().map(|(uidl, _)| uidl.clone()));
        new.into_iter().map(|(_, held)| held).collect()
    }

    /// What is there, the client has not seen, and takes for known.
    fn missed<'a>(&self, listing: &'a Listing) -> Option<&'a Held> {
        let mut unseen =
            listing.iter().filter(|(_, held)| !self.seen.contains(&held.mail.content()));
        let missed = unseen.find(|(uidl, _)| self.known.contains(uidl));
        missed.map(|(_, held)| held)
    }
}

/// What happens on the new server between two polls.
#[derive(Debug, Clone)]
enum Step {
    Copy {
        old: usize,
        by: By,
    },
    Deliver {
        old: usize,
        like: Like,
        same_size: bool,
    },
    CopyWithin {
        held: usize,
    },
    Delete {
        held: usize,
    },
    TrashAndBack {
        held: usize,
    },
    Unreadable {
        held: usize,
        readable: bool,
    },
    Poll,
    Delta {
        without: usize,
    },
    Finalise,
    LoseUidvalidity,
    LoseLedger,
    LoseBoth,
    /// An older list of UIDs is put back, and Dovecot's indexes are gone.
    NumberAnew {
        back_to: u32,
    },
    /// The last rsync brings the list of UIDs of the old server.
    ListFromElsewhere {
        back_to: u32,
    },
    Disk(Disk),
    /// The operator finds that the index was built with a wrong format, and builds the right one.
    ForgetAndBuild,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    File,
    Content,
    Redelivery,
}

/// What a new message has in common with an old one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Like {
    Nothing,
    /// Its header, and not its body.
    Header,
    /// Every octet.
    Everything,
}

fn step() -> impl Strategy<Value = Step> {
    let by = prop_oneof![3 => Just(By::File), 2 => Just(By::Content), 1 => Just(By::Redelivery)];
    let like = prop_oneof![
        3 => Just(Like::Nothing), 2 => Just(Like::Header), 1 => Just(Like::Everything)
    ];
    let disk = prop_oneof![
        2 => Just(Disk::Writable), 1 => Just(Disk::Full), 1 => Just(Disk::NotOurs)
    ];
    prop_oneof![
        12 => (0..12usize, by).prop_map(|(old, by)| Step::Copy { old, by }),
        6 => (0..12usize, like, any::<bool>())
            .prop_map(|(old, like, same_size)| Step::Deliver { old, like, same_size }),
        2 => (0..20usize).prop_map(|held| Step::CopyWithin { held }),
        4 => (0..20usize).prop_map(|held| Step::Delete { held }),
        2 => (0..20usize).prop_map(|held| Step::TrashAndBack { held }),
        2 => (0..20usize, any::<bool>())
            .prop_map(|(held, readable)| Step::Unreadable { held, readable }),
        10 => Just(Step::Poll),
        1 => (0..12usize).prop_map(|without| Step::Delta { without }),
        2 => Just(Step::Finalise),
        1 => Just(Step::LoseUidvalidity),
        1 => Just(Step::LoseLedger),
        1 => Just(Step::LoseBoth),
        1 => (1..12u32).prop_map(|back_to| Step::NumberAnew { back_to }),
        1 => (1..12u32).prop_map(|back_to| Step::ListFromElsewhere { back_to }),
        2 => disk.prop_map(Step::Disk),
        1 => Just(Step::ForgetAndBuild),
    ]
}

/// What the two servers and their operator are like.
#[derive(Debug, Clone)]
struct World {
    /// Header and body of each old message.
    old: Vec<(u8, u8)>,
    /// How many of the UIDLs of the old server stand at two messages.
    repeated: usize,
    own: &'static str,
    bakes: bool,
    origin: bool,
    /// The old server's UIDVALIDITY, which the new one has too.
    same_uidvalidity: bool,
    /// Old entries without a `message` key, as a capture of headers alone has them.
    headers_only: bool,
}

fn world() -> impl Strategy<Value = World> {
    let own = prop_oneof![Just("%08Xu%08Xv"), Just("UID%u-%v"), Just("%u"), Just("%g")];
    (
        prop::collection::vec((0..6u8, 0..3u8), 1..12),
        0..3usize,
        own,
        any::<bool>(),
        any::<bool>(),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.2),
    )
        .prop_map(|(old, repeated, own, bakes, origin, same_uidvalidity, headers_only)| {
            World { old, repeated, own, bakes, origin, same_uidvalidity, headers_only }
        })
}

/// A history, and what must hold of it.
struct History {
    server: Server,
    old: Vec<Mail>,
    clients: Vec<Client>,
    /// A final index was in use when clients were told something, and that is recorded: from then on
    /// even a message with an old header must not be hidden.
    closed: bool,
    delivered: usize,
    /// How often each old message is there, and in which ways it came.
    copies: HashMap<usize, Vec<By>>,
    /// Old messages of which something happened that no key outlives.
    unlucky: HashSet<usize>,
    /// Where the last listing had what is still there.
    last: Vec<(Uidl, String)>,
    headers_only: bool,
    /// Clients were told something that could not be recorded, not to this day.
    told_unrecorded: bool,
    /// UIDs are of another list, and no listing was made of it yet.
    list_from_elsewhere: bool,
    /// Whether there was any listing yet.
    was_listed: bool,
    /// Some client stopped at a message that could not be read, at the last poll.
    stopped_early: bool,
}

impl History {
    fn new(world: &World) -> Self {
        let old: Vec<Mail> = (world.old.iter().enumerate())
            .map(|(n, &(header, body))| mail(&format!("old{n}"), header, body))
            .collect();
        let names: Vec<String> = (0..old.len())
            .map(|n| format!("UID{}-17", if n < world.repeated { 1 } else { n + 1 }))
            .collect();
        let listed: Vec<(&str, &Mail)> = names.iter().map(String::as_str).zip(&old).collect();
        let mut server = Server::new(captured(&listed));
        if world.headers_only {
            server.captured.entries.iter_mut().for_each(|entry| entry.message = None);
        }
        server.is_final = false;
        server.own = UidlFormat::parse(world.own).unwrap();
        server.keys.origin = world.origin;
        server.baked = world.bakes.then(HashMap::new);
        server.uidvalidity = if world.same_uidvalidity { 17 } else { 99 };
        let kinds = [Kind::RemembersAll, Kind::RemembersTheLast, Kind::SearchesByHalves];
        let clients = kinds.map(|kind| Client::new(kind, &listed)).into();
        let unlucky = match world.same_uidvalidity {
            true => (0..old.len()).collect(),
            false => (0..world.repeated.min(old.len())).collect(),
        };
        Self {
            server,
            clients,
            closed: false,
            delivered: 0,
            copies: HashMap::new(),
            unlucky,
            last: Vec::new(),
            headers_only: world.headers_only,
            told_unrecorded: false,
            list_from_elsewhere: false,
            was_listed: false,
            stopped_early: false,
            old,
        }
    }

    fn pick(&self, held: usize) -> Option<usize> {
        (!self.server.held.is_empty()).then(|| held % self.server.held.len())
    }

    fn which_old(&self, mail: &Mail) -> Option<usize> {
        self.old.iter().position(|old| old.name == mail.name)
    }

    fn moved(&mut self, name: &str) {
        self.last.retain(|(_, other)| other != name);
    }

    /// Two faults at once are beyond anybody: what is not recorded, Dovecot does not know any more
    /// either.
    fn is_beyond(&self, step: &Step) -> bool {
        match step {
            Step::LoseUidvalidity
            | Step::LoseBoth
            | Step::NumberAnew { .. }
            | Step::ListFromElsewhere { .. } => self.told_unrecorded || !self.is_order_known(),
            Step::LoseLedger => self.list_from_elsewhere,
            _ => false,
        }
    }

    /// Whether the order of the last listing is known, and every client got to its end: otherwise one
    /// that searches by halves must look at everything, as it does now and then by itself.
    fn is_order_known(&self) -> bool {
        let is_recorded = self.server.ledger.is_some() && !self.told_unrecorded;
        !self.was_listed || (is_recorded && !self.stopped_early)
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        if self.is_beyond(step) {
            return Ok(());
        }
        match *step {
            Step::Copy { old, by } => self.copy(old % self.old.len(), by),
            Step::Deliver { old, like, same_size } => {
                self.deliver(old % self.old.len(), like, same_size);
            }
            Step::CopyWithin { held } => {
                if let Some(at) = self.pick(held).filter(|_| self.mail_can_come()) {
                    let Held { mail, name, .. } = self.server.held[at].clone();
                    self.unlucky.extend(twins(&self.old, mail.header));
                    // A copy in a dbox keeps its GUID, in a Maildir it gets a name of its own.
                    let is_dbox = self.server.baked.is_none();
                    let name = if is_dbox { name } else { self.server.new_name() };
                    self.server.put(mail, name);
                }
            }
            Step::Delete { held } => {
                if let Some(at) = self.pick(held) {
                    self.remove(at);
                }
            }
            Step::TrashAndBack { held } => {
                if let Some(at) = self.pick(held).filter(|_| self.mail_can_come()) {
                    let gone = self.remove(at);
                    self.server.put(gone.mail, gone.name);
                }
            }
            Step::Unreadable { held, readable } => {
                if let Some(at) = self.pick(held) {
                    self.server.held[at].readable = readable;
                    self.unlucky.extend(self.which_old(&self.server.held[at].mail.clone()));
                }
            }
            Step::Poll => self.poll()?,
            Step::Delta { without } => self.delta(without),
            Step::Finalise => self.server.is_final = true,
            Step::LoseUidvalidity => {
                self.server.uidvalidity += 1;
                self.server.number_anew(1);
                self.forget_numbers();
            }
            Step::LoseLedger => self.server.ledger = None,
            Step::LoseBoth => {
                self.server.ledger = None;
                self.server.uidvalidity += 1;
                self.server.number_anew(1);
                self.forget_numbers();
            }
            Step::NumberAnew { back_to } => {
                self.server.number_anew(back_to);
                self.last.clear();
            }
            Step::ListFromElsewhere { back_to } => {
                self.server.list_from_elsewhere(back_to);
                self.list_from_elsewhere = true;
                self.last.clear();
            }
            Step::Disk(disk) => self.server.disk = disk,
            Step::ForgetAndBuild => self.forget_and_build()?,
        }
        if matches!(step, Step::LoseLedger | Step::LoseBoth) {
            self.last.clear();
        }
        Ok(())
    }

    /// Of UIDs that are given anew only names can tell: two messages of one name are told no more.
    fn forget_numbers(&mut self) {
        if self.server.baked.is_none() {
            self.last.clear();
        }
    }

    fn mail_can_come(&self) -> bool {
        self.server.disk != Disk::Full
    }

    fn copy(&mut self, old: usize, by: By) {
        if !self.mail_can_come() {
            return;
        }
        let ways = self.copies.entry(old).or_default();
        ways.push(by);
        if by != By::File {
            // It may take the UIDL of any that has its header.
            self.unlucky.extend(twins(&self.old, self.old[old].header));
        }
        let mut mail = self.old[old].clone();
        mail.relayed = by == By::Redelivery;
        if ways.len() > 1 {
            self.unlucky.insert(old);
            if by == By::File && self.server.held.iter().any(|held| held.name == mail.name) {
                return;
            }
        }
        let name = if by == By::File { mail.name.clone() } else { self.server.new_name() };
        self.server.put(mail, name);
    }

    /// Before the cutoff a new message with an old header, and nothing else that was captured of the
    /// old one, cannot be told from it: such a message comes only later.
    fn deliver(&mut self, old: usize, like: Like, same_size: bool) {
        if !self.mail_can_come() {
            return;
        }
        self.delivered += 1;
        let name = format!("new{}", self.delivered);
        let old = &self.old[old];
        let (header, body) = match like {
            Like::Everything if !self.headers_only => old.content(),
            Like::Header if self.closed => (old.header, 100 + self.delivered as u8),
            _ => (200, self.delivered as u8),
        };
        let mut new = mail(&name, header, body);
        if same_size {
            new.octets = old.octets;
        }
        if like == Like::Everything {
            self.unlucky.extend(twins(&self.old, header));
        }
        self.server.put(new, name);
    }

    fn remove(&mut self, at: usize) -> Held {
        let gone = self.server.held.remove(at);
        self.moved(&gone.name);
        self.server.baked.iter_mut().for_each(|baked| _ = baked.remove(&gone.name));
        gone
    }

    /// A later capture, which no longer lists one of the messages.
    fn delta(&mut self, without: usize) {
        let mut later = self.server.captured.clone();
        later.entries.remove(without % later.entries.len());
        let earlier = self.server.captured.clone();
        let captured = merge(earlier, later).unwrap().maildrop;
        assert_eq!(captured.entries.len(), self.server.captured.entries.len());
        self.server.captured = captured;
    }

    fn forget_and_build(&mut self) -> Result<(), TestCaseError> {
        // Whoever polls must have seen what came under the index that was wrong.
        self.server.held.iter_mut().for_each(|held| held.readable = true);
        self.server.disk = Disk::Writable;
        if self.poll_all()?.is_err() {
            return Ok(());
        }
        self.server.forgotten += 1;
        let captured = &mut self.server.captured;
        captured.spent.extend(captured.entries.iter().map(|entry| entry.uidl.clone()));
        for (n, entry) in captured.entries.iter_mut().enumerate() {
            entry.uidl = uidl(&format!("right{n}.{}", self.server.forgotten));
        }
        self.closed = false;
        self.unlucky.extend(0..self.old.len());
        self.last.clear();
        Ok(())
    }

    fn poll(&mut self) -> Result<(), TestCaseError> {
        self.poll_all().map(|_| ())
    }

    /// In the end every client has seen everything.
    fn mend_all_and_poll(&mut self) -> Result<(), TestCaseError> {
        self.server.held.iter_mut().for_each(|held| held.readable = true);
        self.server.disk = Disk::Writable;
        if self.poll_all()?.is_err() {
            // What is lost for good, only the operator can give up.
            self.server.forgotten += 1;
            self.unlucky.extend(0..self.old.len());
            prop_assert!(self.poll_all()?.is_ok());
        }
        for client in &self.clients {
            for held in &self.server.held {
                let seen = client.seen.contains(&held.mail.content());
                prop_assert!(seen, "a client that {:?} never sees {:?}", client.kind, held);
            }
        }
        Ok(())
    }

    fn poll_all(&mut self) -> Result<Result<(), ()>, TestCaseError> {
        let is_order_known = self.is_order_known();
        let Ok(listing) = self.server.try_to_list() else { return Ok(Err(())) };
        for client in &mut self.clients {
            let downloads = client.poll(&listing, is_order_known);
            if client.kind == Kind::RemembersAll {
                for held in downloads {
                    let old = self.old.iter().position(|old| old.name == held.mail.name);
                    let lucky = old.filter(|old| !self.unlucky.contains(old));
                    let by_file = lucky.filter(|old| self.copies[old] == [By::File]);
                    prop_assert!(by_file.is_none(), "{:?} is downloaded twice", held);
                }
            }
            let missed = client.missed(&listing);
            prop_assert!(missed.is_none(), "a client that {:?} misses {:?}", client.kind, missed);
        }
        let now: Vec<(Uidl, String)> =
            (listing.iter()).map(|(uidl, held)| (uidl.clone(), held.name.clone())).collect();
        let in_order = |of: &[(Uidl, String)], other: &[(Uidl, String)]| -> Vec<(Uidl, String)> {
            let once = |pair: &&(Uidl, String)| of.iter().filter(|p| p == pair).count() == 1;
            of.iter().filter(once).filter(|pair| other.contains(pair)).cloned().collect()
        };
        // What was there all the time stays, and stays in its order.
        let is_recorded = self.server.disk == Disk::Writable;
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
        }
        self.last = if is_recorded && !undecided { now } else { Vec::new() };
        self.closed |= self.server.is_final && is_recorded;
        let recorded_below = self.server.ledger.as_ref().map_or(0, |ledger| ledger.next_uid);
        self.told_unrecorded |= !is_recorded;
        self.told_unrecorded &= !is_recorded || recorded_below < self.server.next_uid;
        self.stopped_early = undecided;
        self.was_listed = true;
        self.list_from_elsewhere = false;
        Ok(Ok(()))
    }
}

/// The old messages with that header.
fn twins(old: &[Mail], header: u8) -> Vec<usize> {
    (0..old.len()).filter(|&n| old[n].header == header).collect()
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

    /// What the keys can tell is kept: distinct old messages, copied in any order and any way while
    /// the index is open, all keep their UIDLs.
    #[test]
    fn every_message_that_its_keys_can_tell_keeps_its_uidl(
        count in 1..30usize,
        seed in any::<u64>(),
        late in 0..30usize,
    ) {
        let old: Vec<Mail> =
            (0..count).map(|n| mail(&format!("old{n}"), n as u8, n as u8)).collect();
        let names: Vec<String> = (0..count).map(|n| format!("UID{}-17", n + 1)).collect();
        let listed: Vec<(&str, &Mail)> = names.iter().map(String::as_str).zip(&old).collect();
        let mut server = Server::new(captured(&listed));
        server.is_final = false;
        server.keys.origin = true;
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by_key(|&n| (n as u64 + 1).wrapping_mul(seed | 1).rotate_left(17));
        for (nth, &n) in order.iter().enumerate() {
            if nth == late {
                server.log_in();
            }
            let mut copy = old[n].clone();
            copy.relayed = (seed >> (n % 61)) & 3 == 3;
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

/// The costs are a few passes: a maildrop of ten thousand is resolved in one go, whatever repeats in it.
#[test]
fn ten_thousand_messages_keep_their_uidls_and_their_order() {
    let old: Vec<Mail> = (0..10_000u32)
        .map(|n| mail(&format!("old{n}"), (n % 251) as u8, (n / 251) as u8))
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
