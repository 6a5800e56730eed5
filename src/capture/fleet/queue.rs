//! Whose turn it is: which account a connection that is free may log in to, and when.
//!
//! Servers have names, and several names may be of one address: a panel has a name for each of its
//! customers. Connections, refusals and silence count for the address, for panels ban addresses. A
//! certificate that is not for a name counts for that name alone.
//!
//! The queue knows no network and no clock: it is told of both.
#![forbid(unsafe_code)]

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::backoff::Backoff;
use crate::capture::workers::Next;

/// How hard an address may be asked.
#[derive(Debug, Clone, Copy)]
pub struct AddressLimits {
    /// Connections to one address at a time.
    pub connections: u32,
    /// An address is asked no more when it refuses so many accounts before it takes one; 0 is
    /// never.
    pub max_refusals: u32,
    /// How long an account is tried again, and how long an address may let nobody in.
    pub patience: Duration,
}

/// How a login, and what followed it, went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginResult {
    /// Captured.
    Well,
    /// Not now.
    Later,
    /// Not this account, whenever it is tried.
    Refused,
    /// Not this account, whenever it is tried, though it was let in.
    Unfit,
    /// No account of this server: it cannot be spoken to as asked.
    Hopeless,
}

impl LoginResult {
    fn is_let_in(self) -> bool {
        matches!(self, Self::Well | Self::Unfit)
    }
}

/// What becomes of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountFate {
    /// That was all.
    Settled,
    /// It is tried again after that pause; `is_first` where that is the first time.
    Again { pause: Duration, is_first: bool },
}

/// A server, or all at its address, are asked no more.
#[derive(Debug, PartialEq, Eq)]
pub struct ServerStopped {
    /// The server that showed it.
    pub server: usize,
    /// The accounts that are left: they were never tried, or wait to be tried again.
    pub left: Vec<usize>,
    pub why: StopReason,
}

/// Why a server is asked no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// So many accounts at its address were refused, and none was taken.
    Refusals(u32),
    /// It cannot be spoken to as asked, by this name.
    Hopeless,
    /// Nothing has worked at its address for as long as the patience.
    Silent,
}

/// The accounts that are to be captured, by number.
pub struct AccountQueue {
    limits: AddressLimits,
    addresses: Vec<AddressTurns>,
    servers: Vec<ServerTurns>,
    server_of: Vec<usize>,
    /// When an account that is tried again was first tried, and how often.
    tries: HashMap<usize, (Instant, u32)>,
    /// Accounts that wait at any address.
    left: usize,
    next_address: usize,
}

/// One name of an address.
struct ServerTurns {
    address: usize,
    has_let_in: bool,
    is_stopped: bool,
}

/// The accounts at one address.
#[derive(Default)]
struct AddressTurns {
    waiting: VecDeque<usize>,
    later: BTreeSet<(Instant, usize)>,
    running: u32,
    has_let_in: bool,
    refusals: u32,
    /// When the last row of "not now" began, and how many there were.
    laters: Option<(Instant, u32)>,
    quiet_until: Option<Instant>,
    is_stopped: bool,
}

/// The pauses before an account is tried again.
const PAUSES: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(120));

/// The pauses at an address, from the second "not now" in a row on.
const QUIET: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));

/// So many "not now" in a row are not those of single accounts.
const ROW_OF_LATERS: u32 = 10;

impl AccountQueue {
    /// A queue of accounts, in this order at each address. `server_of` has the server of every
    /// account there is, also of those that are not `wanted`, and `address_of` the address of every
    /// server.
    pub fn new(
        limits: AddressLimits,
        address_of: Vec<usize>,
        server_of: Vec<usize>,
        wanted: impl IntoIterator<Item = usize>,
    ) -> Self {
        let mut addresses: Vec<AddressTurns> = Vec::new();
        addresses
            .resize_with(address_of.iter().max().map_or(0, |last| last + 1), AddressTurns::default);
        let servers: Vec<_> = address_of
            .into_iter()
            .map(|address| ServerTurns { address, has_let_in: false, is_stopped: false })
            .collect();
        let mut left = 0;
        for at in wanted {
            addresses[servers[server_of[at]].address].waiting.push_back(at);
            left += 1;
        }
        let tries = HashMap::new();
        Self { limits, addresses, servers, server_of, tries, left, next_address: 0 }
    }

    /// Whether no account waits, now or later.
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// How many connections can be of use at a time.
    pub fn most_connections(&self) -> usize {
        let most = |turns: &AddressTurns| turns.waiting.len().min(self.limits.connections as usize);
        self.addresses.iter().map(most).sum()
    }

    /// How many accounts were tried in vain, and will be or are being tried again.
    pub fn tried_again(&self) -> usize {
        self.tries.len()
    }

    /// The next account: the addresses take turns.
    pub fn next(&mut self, now: Instant) -> Next {
        let mut earliest: Option<Instant> = None;
        for step in 0..self.addresses.len() {
            let address = (self.next_address + step) % self.addresses.len();
            match self.addresses[address].next(&self.limits, now) {
                Next::Go(at) => {
                    self.next_address = address + 1;
                    self.left -= 1;
                    return Next::Go(at);
                }
                Next::Wait(until) => earliest = earliest.into_iter().chain(until).min(),
            }
        }
        Next::Wait(earliest)
    }

    /// Takes back an account, and says what becomes of it and, at times, of its server.
    pub fn settle(
        &mut self,
        at: usize,
        went: LoginResult,
        now: Instant,
    ) -> (AccountFate, Option<ServerStopped>) {
        let server = self.server_of[at];
        let why = self.learn(server, went, now);
        let stop = why.map(|why| ServerStopped { server, left: self.stop(server, why), why });
        let address = &self.addresses[self.servers[server].address];
        let is_stopped = self.servers[server].is_stopped || address.is_stopped;
        let next = match went {
            LoginResult::Later if !is_stopped => self.again(at, now),
            _ => AccountFate::Settled,
        };
        if next == AccountFate::Settled {
            self.tries.remove(&at);
        }
        (next, stop)
    }

    /// Learns how an account of a server went, and says whether to ask no more there.
    fn learn(&mut self, server: usize, went: LoginResult, now: Instant) -> Option<StopReason> {
        let ServerTurns { address, has_let_in, is_stopped } = &mut self.servers[server];
        let why = self.addresses[*address].learn(&self.limits, went, now);
        *has_let_in |= went.is_let_in();
        let is_hopeless = went == LoginResult::Hopeless && !*has_let_in && !*is_stopped;
        if is_hopeless { Some(StopReason::Hopeless) } else { why }
    }

    /// Takes out the accounts that are not asked for any more.
    fn stop(&mut self, server: usize, why: StopReason) -> Vec<usize> {
        let turns = &mut self.addresses[self.servers[server].address];
        let left = if why == StopReason::Hopeless {
            self.servers[server].is_stopped = true;
            turns.drain(|at| self.server_of[at] == server)
        } else {
            turns.is_stopped = true;
            turns.drain(|_| true)
        };
        self.left -= left.len();
        left.iter().for_each(|at| {
            self.tries.remove(at);
        });
        left
    }

    /// Has an account tried again, within the patience.
    fn again(&mut self, at: usize, now: Instant) -> AccountFate {
        let (first, count) = self.tries.entry(at).or_insert((now, 0));
        let end = *first + self.limits.patience;
        if now >= end {
            return AccountFate::Settled;
        }
        let pause = PAUSES.pause(*count).min(end - now);
        *count += 1;
        let is_first = *count == 1;
        let address = self.servers[self.server_of[at]].address;
        self.addresses[address].later.insert((now + pause, at));
        self.left += 1;
        AccountFate::Again { pause, is_first }
    }
}

/// So many times the limit of refusals in a row are enough where an address has let somebody in.
/// Some passwords of a list are stale, but so many are a ban, or lead to one.
const TIMES_AS_MANY: u32 = 3;

impl AddressTurns {
    fn next(&mut self, limits: &AddressLimits, now: Instant) -> Next {
        // One at a time until the first is in, so that no more are refused than the limit allows.
        let connections = if self.has_let_in { limits.connections } else { 1 };
        if self.running >= connections {
            return Next::Wait(None);
        }
        let due = self.later.first().map(|(due, _)| *due);
        let work = if self.waiting.is_empty() { due } else { Some(now) };
        let Some(work) = work else { return Next::Wait(None) };
        let earliest = self.quiet_until.map_or(work, |until| until.max(work));
        if earliest > now {
            return Next::Wait(Some(earliest));
        }
        let again = if due.is_some_and(|due| due <= now) { self.later.pop_first() } else { None };
        let next = again.map(|(_, at)| at).or_else(|| self.waiting.pop_front());
        let at = next.expect("one of the two has something due");
        self.running += 1;
        Next::Go(at)
    }

    /// Learns how one of its accounts went, and says whether to ask no more.
    fn learn(
        &mut self,
        limits: &AddressLimits,
        went: LoginResult,
        now: Instant,
    ) -> Option<StopReason> {
        self.running -= 1;
        if went == LoginResult::Later {
            let (since, count) = self.laters.get_or_insert((now, 0));
            *count += 1;
            if *count > 1 {
                self.quiet_until = Some(now + QUIET.pause(*count - 2));
            }
            let is_silent = *count >= ROW_OF_LATERS && now - *since >= limits.patience;
            return (is_silent && !self.is_stopped).then_some(StopReason::Silent);
        }
        (self.laters, self.quiet_until) = (None, None);
        self.has_let_in |= went.is_let_in();
        match went {
            LoginResult::Well | LoginResult::Unfit => self.refusals = 0,
            LoginResult::Refused => self.refusals += 1,
            LoginResult::Hopeless | LoginResult::Later => return None,
        }
        let times = if self.has_let_in { TIMES_AS_MANY } else { 1 };
        let most = limits.max_refusals.saturating_mul(times);
        let is_enough = most > 0 && self.refusals >= most && !self.is_stopped;
        is_enough.then_some(StopReason::Refusals(self.refusals))
    }

    /// Takes out those that wait, in their order.
    fn drain(&mut self, is_out: impl Fn(usize) -> bool) -> Vec<usize> {
        let all = self.waiting.iter().copied().chain(self.later.iter().map(|(_, at)| *at));
        let mut out: Vec<usize> = all.filter(|at| is_out(*at)).collect();
        self.waiting.retain(|at| !is_out(*at));
        self.later.retain(|(_, at)| !is_out(*at));
        out.sort_unstable();
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: AddressLimits =
        AddressLimits { connections: 3, max_refusals: 3, patience: Duration::from_secs(60) };

    /// Accounts of these servers, each at an address of its own.
    fn queue(limits: AddressLimits, server_of: &[usize]) -> AccountQueue {
        let servers = server_of.iter().max().unwrap() + 1;
        AccountQueue::new(limits, (0..servers).collect(), server_of.to_vec(), 0..server_of.len())
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A queue whose server has let somebody in: account 0.
    fn open(limits: AddressLimits, accounts: usize) -> (AccountQueue, Instant) {
        let (mut queue, now) = (queue(limits, &vec![0; accounts]), Instant::now());
        assert_eq!(queue.next(now), Next::Go(0));
        assert_eq!(queue.settle(0, LoginResult::Well, now), (AccountFate::Settled, None));
        (queue, now)
    }

    #[test]
    fn one_at_a_time_until_the_first_is_in_and_then_as_many_as_the_limit_a_server() {
        let (mut queue, now) = (queue(LIMITS, &[0, 0, 0, 0, 0, 1]), Instant::now());
        assert_eq!(queue.next(now), Next::Go(0));
        assert_eq!(queue.next(now), Next::Go(5), "another server");
        assert_eq!(queue.next(now), Next::Wait(None));
        queue.settle(0, LoginResult::Well, now);
        for at in [1, 2, 3] {
            assert_eq!(queue.next(now), Next::Go(at));
        }
        assert_eq!(queue.next(now), Next::Wait(None));
        queue.settle(2, LoginResult::Refused, now);
        assert_eq!(queue.next(now), Next::Go(4));
        assert!(queue.is_empty());
    }

    #[test]
    fn an_account_that_is_in_use_is_tried_again_meanwhile_others_and_given_up_in_the_end() {
        let (mut queue, begun) = open(LIMITS, 3);
        assert_eq!(queue.next(begun), Next::Go(1));
        let again =
            |pause, is_first| (AccountFate::Again { pause: seconds(pause), is_first }, None);
        assert_eq!(queue.settle(1, LoginResult::Later, begun), again(5, true));
        assert_eq!(queue.next(begun), Next::Go(2), "the others meanwhile");
        queue.settle(2, LoginResult::Well, begun);
        assert_eq!(queue.next(begun), Next::Wait(Some(begun + seconds(5))));
        assert!(!queue.is_empty());
        let mut now = begun + seconds(5);
        for pause in [10, 20, 25] {
            assert_eq!(queue.next(now), Next::Go(1));
            assert_eq!(queue.settle(1, LoginResult::Later, now), again(pause, false));
            now += seconds(pause);
        }
        assert_eq!(now, begun + seconds(60), "the last time at the end of our patience");
        assert_eq!(queue.next(now), Next::Go(1));
        assert_eq!(queue.settle(1, LoginResult::Later, now), (AccountFate::Settled, None));
        assert!(queue.is_empty());
    }

    #[test]
    fn a_server_that_refuses_everybody_from_the_start_is_asked_no_more() {
        let (mut queue, now) = (queue(LIMITS, &[0; 6]), Instant::now());
        for at in [0, 1] {
            assert_eq!(queue.next(now), Next::Go(at));
            assert_eq!(queue.settle(at, LoginResult::Refused, now), (AccountFate::Settled, None));
        }
        assert_eq!(queue.next(now), Next::Go(2));
        let stop = ServerStopped { server: 0, left: vec![3, 4, 5], why: StopReason::Refusals(3) };
        assert_eq!(queue.settle(2, LoginResult::Refused, now), (AccountFate::Settled, Some(stop)));
        assert!(queue.is_empty());
    }

    #[test]
    fn a_server_that_has_let_somebody_in_may_refuse_others() {
        let (mut queue, now) = open(LIMITS, 8);
        for at in 1..8 {
            assert_eq!(queue.next(now), Next::Go(at));
            assert_eq!(queue.settle(at, LoginResult::Refused, now), (AccountFate::Settled, None));
        }
    }

    #[test]
    fn one_that_refuses_very_many_in_a_row_is_asked_no_more() {
        let (mut queue, now) = open(LIMITS, 32);
        for at in 1..31 {
            assert_eq!(queue.next(now), Next::Go(at));
            let went = if at == 9 { LoginResult::Well } else { LoginResult::Refused };
            let (next, stop) = queue.settle(at, went, now);
            assert_eq!(next, AccountFate::Settled);
            if let Some(stop) = stop {
                assert_eq!((at, stop.why), (18, StopReason::Refusals(9)), "8, then 9 in a row");
                return;
            }
        }
        panic!("asked for ever");
    }

    #[test]
    fn an_account_that_was_let_in_and_is_no_good_is_no_refusal() {
        let (mut queue, now) = (queue(LIMITS, &[0; 9]), Instant::now());
        for at in 0..9 {
            assert_eq!(queue.next(now), Next::Go(at));
            let went = if at % 3 == 2 { LoginResult::Unfit } else { LoginResult::Refused };
            assert_eq!(queue.settle(at, went, now), (AccountFate::Settled, None));
        }
    }

    #[test]
    fn without_a_limit_of_refusals_all_are_tried() {
        let limits = AddressLimits { max_refusals: 0, ..LIMITS };
        let (mut queue, now) = (queue(limits, &[0; 20]), Instant::now());
        for at in 0..20 {
            assert_eq!(queue.next(now), Next::Go(at));
            assert_eq!(queue.settle(at, LoginResult::Refused, now), (AccountFate::Settled, None));
        }
    }

    #[test]
    fn a_server_that_cannot_be_spoken_to_is_asked_once_and_others_go_on() {
        let (mut queue, now) = (queue(LIMITS, &[0, 0, 1]), Instant::now());
        assert_eq!(queue.next(now), Next::Go(0));
        let stop = ServerStopped { server: 0, left: vec![1], why: StopReason::Hopeless };
        assert_eq!(queue.settle(0, LoginResult::Hopeless, now), (AccountFate::Settled, Some(stop)));
        assert_eq!(queue.next(now), Next::Go(2));
    }

    #[test]
    fn names_of_one_address_share_its_limits_and_not_what_is_wrong_with_a_name() {
        let queue = || AccountQueue::new(LIMITS, vec![0, 0, 0], vec![0, 1, 2, 0, 1, 2, 0, 1], 0..8);
        let now = Instant::now();
        let mut limited = queue();
        assert_eq!(limited.next(now), Next::Go(0));
        assert_eq!(limited.next(now), Next::Wait(None));
        limited.settle(0, LoginResult::Well, now);
        let taken: Vec<_> = (0..4).map(|_| limited.next(now)).collect();
        assert_eq!(taken, [Next::Go(1), Next::Go(2), Next::Go(3), Next::Wait(None)]);
        // A certificate for none but the first two.
        let stop = ServerStopped { server: 2, left: vec![5], why: StopReason::Hopeless };
        assert_eq!(
            limited.settle(2, LoginResult::Hopeless, now),
            (AccountFate::Settled, Some(stop))
        );
        assert_eq!(limited.next(now), Next::Go(4));

        let mut refusing = queue();
        for at in [0, 1] {
            assert_eq!(refusing.next(now), Next::Go(at));
            assert_eq!(
                refusing.settle(at, LoginResult::Refused, now),
                (AccountFate::Settled, None)
            );
        }
        assert_eq!(refusing.next(now), Next::Go(2));
        let stop =
            ServerStopped { server: 2, left: vec![3, 4, 5, 6, 7], why: StopReason::Refusals(3) };
        assert_eq!(
            refusing.settle(2, LoginResult::Refused, now),
            (AccountFate::Settled, Some(stop))
        );
        assert!(refusing.is_empty());
    }

    #[test]
    fn a_server_that_lets_nobody_in_is_asked_less_and_less_and_then_no_more() {
        let (mut queue, begun) = (queue(LIMITS, &[0; 100]), Instant::now());
        let (mut now, mut asked) = (begun, 0);
        let stop = loop {
            match queue.next(now) {
                Next::Go(at) => {
                    asked += 1;
                    if let (_, Some(stop)) = queue.settle(at, LoginResult::Later, now) {
                        break stop;
                    }
                }
                Next::Wait(until) => now = until.expect("nothing is running"),
            }
        };
        assert_eq!(stop.why, StopReason::Silent);
        assert_eq!(asked, 10);
        // 0 + 1 + 2 + .. + 32, and from then on 60: the tenth is well after a minute.
        assert_eq!(now - begun, seconds(63 + 2 * 60));
        assert!(queue.is_empty());
        let all: BTreeSet<usize> = stop.left.iter().copied().collect();
        assert_eq!(all.len(), stop.left.len());
    }

    #[test]
    fn one_login_that_works_makes_up_for_a_row_that_did_not() {
        let (mut queue, now) = open(LIMITS, 6);
        for at in [1, 2] {
            assert_eq!(queue.next(now), Next::Go(at));
            queue.settle(at, LoginResult::Later, now);
        }
        assert_eq!(queue.next(now), Next::Wait(Some(now + seconds(1))));
        assert_eq!(queue.next(now + seconds(1)), Next::Go(3));
        queue.settle(3, LoginResult::Well, now + seconds(1));
        assert_eq!(queue.next(now + seconds(1)), Next::Go(4));
        queue.settle(4, LoginResult::Later, now + seconds(1));
        assert_eq!(queue.next(now + seconds(1)), Next::Go(5));
    }

    proptest! {
        #[test]
        fn every_account_is_settled_once_within_the_limits(
            address_of in proptest::collection::vec(0_usize..3, 1..4),
            results in proptest::collection::vec((0_usize..9, 0_u8..5), 1..40),
            max_refusals in 0_u32..4,
        ) {
            let server_of: Vec<usize> =
                results.iter().map(|(server, _)| server % address_of.len()).collect();
            let limits = AddressLimits { max_refusals, ..LIMITS };
            let all = 0..results.len();
            let mut queue =
                AccountQueue::new(limits, address_of.clone(), server_of.clone(), all.clone());
            let (mut now, mut running, mut settled) = (Instant::now(), Vec::new(), Vec::new());
            loop {
                match queue.next(now) {
                    Next::Go(at) => {
                        running.push(at);
                        for address in 0..3 {
                            let is_here = |at: &&usize| address_of[server_of[**at]] == address;
                            prop_assert!(running.iter().filter(is_here).count() <= 3);
                        }
                    }
                    Next::Wait(until) if running.is_empty() => match until {
                        Some(until) => {
                            prop_assert!(until > now);
                            now = until;
                        }
                        None => break,
                    },
                    Next::Wait(_) => {
                        let at = running.remove(0);
                        let result = match results[at].1 {
                            0 => LoginResult::Well,
                            1 => LoginResult::Later,
                            2 => LoginResult::Refused,
                            3 => LoginResult::Unfit,
                            _ => LoginResult::Hopeless,
                        };
                        let (verdict, stopped) = queue.settle(at, result, now);
                        if verdict == AccountFate::Settled {
                            settled.push(at);
                        }
                        settled.extend(stopped.into_iter().flat_map(|stopped| stopped.left));
                    }
                }
            }
            prop_assert!(queue.is_empty());
            prop_assert_eq!(queue.tried_again(), 0);
            settled.sort_unstable();
            prop_assert_eq!(settled, all.collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_under_way_when_its_server_is_given_up_is_not_tried_again() {
        let limits = AddressLimits { patience: Duration::ZERO, ..LIMITS };
        let (mut queue, now) = open(limits, 14);
        let mut now = now;
        let mut running = Vec::new();
        let mut last = None;
        while last.is_none() {
            match queue.next(now) {
                Next::Go(at) => running.push(at),
                Next::Wait(Some(until)) => now = until,
                Next::Wait(None) => {
                    last = queue.settle(running.remove(0), LoginResult::Later, now).1;
                }
            }
        }
        assert!(!running.is_empty());
        for at in running {
            assert_eq!(queue.settle(at, LoginResult::Later, now), (AccountFate::Settled, None));
        }
        assert!(queue.is_empty());
    }
}
