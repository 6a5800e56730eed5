//! What a real client remembers, read from its own file, and so how many messages it would fetch
//! from a listing. For tests alone: the helper never sees a client's files.

use std::collections::HashSet;

use super::clients::Program;

/// The UIDLs that one client remembers for one user of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientState {
    uidls: HashSet<Vec<u8>>,
    /// Whether it refuses a listing that has a UIDL twice.
    refuses_repeated: bool,
}

impl ClientState {
    /// Reads the file of one of these programs.
    pub fn of(program: Program, octets: &[u8], user: &str, host: &str) -> Self {
        match program {
            Program::Fetchmail | Program::FetchmailByHalves => Self::fetchmail(octets, user, host),
            Program::Mpop => Self::mpop(octets, user, host),
            Program::Getmail | Program::GetmailWithTraces => Self::getmail(octets),
        }
    }

    /// fetchmail's .fetchids: "user@host uidl" on each line.
    fn fetchmail(octets: &[u8], user: &str, host: &str) -> Self {
        let whose = format!("{user}@{host} ");
        let uidls = lines(octets).filter_map(|line| line.strip_prefix(whose.as_bytes()));
        Self::holding(uidls)
    }

    /// mpop's uidls file: " count host user", and then so many lines of one UIDL.
    fn mpop(octets: &[u8], user: &str, host: &str) -> Self {
        let (mut left, mut is_ours) = (0, false);
        let mut uidls = Vec::new();
        for line in lines(octets).filter(|line| !line.starts_with(b"#")) {
            if left == 0 {
                let head = String::from_utf8_lossy(line);
                let mut words = head.split_whitespace();
                left = words.next().expect("a count").parse().expect("a count");
                is_ours = words.eq([host, user]);
                continue;
            }
            left -= 1;
            if is_ours {
                uidls.push(line);
            }
        }
        Self::holding(uidls)
    }

    /// getmail's oldmail file, which is of one user of one server: "uidl\0time" on each line.
    fn getmail(octets: &[u8]) -> Self {
        let uidl = |line| <[u8]>::split(line, |&octet| octet == 0).next().unwrap_or_default();
        Self { refuses_repeated: true, ..Self::holding(lines(octets).map(uidl)) }
    }

    /// Thunderbird's popstate.dat: "*host user", and then lines of a sign, a UIDL and a time. The
    /// signs k, d, f and b are of messages that it has, or has dealt with.
    pub fn thunderbird(octets: &[u8], user: &str, host: &str) -> Self {
        let mut is_ours = false;
        let mut uidls = Vec::new();
        for line in lines(octets).filter(|line| !line.starts_with(b"#")) {
            if let Some(whose) = line.strip_prefix(b"*") {
                is_ours = whose == format!("{host} {user}").as_bytes();
                continue;
            }
            let mut words = line.split(|&octet| octet == b' ');
            let sign = words.next().unwrap_or_default();
            if is_ours && matches!(sign, b"k" | b"d" | b"f" | b"b") {
                uidls.extend(words.next());
            }
        }
        Self::holding(uidls)
    }

    fn holding<'a>(uidls: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let uidls = uidls.into_iter().map(<[u8]>::to_vec).collect();
        Self { uidls, refuses_repeated: false }
    }

    /// How many UIDLs it remembers.
    pub fn len(&self) -> usize {
        self.uidls.len()
    }

    /// How many messages of this listing it would fetch; `None` where it refuses the listing.
    pub fn would_fetch(&self, listing: &[String]) -> Option<usize> {
        let different: HashSet<&String> = listing.iter().collect();
        if self.refuses_repeated && different.len() < listing.len() {
            return None;
        }
        let is_new = |uidl: &&String| !self.uidls.contains(uidl.as_bytes());
        Some(listing.iter().filter(is_new).count())
    }
}

fn lines(octets: &[u8]) -> impl Iterator<Item = &[u8]> {
    octets.split(|&octet| octet == b'\n').filter(|line| !line.is_empty())
}
