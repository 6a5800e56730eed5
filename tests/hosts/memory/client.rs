//! A client that leaves mail on the server, and is asked what it downloads.

use std::collections::HashMap;

use super::scenario::{Scenario, USER, uidl};

/// The memory of a client: each UIDL, and the message that it has under it.
#[derive(Debug, Clone, Default)]
pub struct Client {
    held: HashMap<String, u32>,
}

impl Client {
    /// A client that has polled the old server while these messages were there.
    pub fn of_the_old_server(numbers: impl IntoIterator<Item = u32>) -> Self {
        Self { held: numbers.into_iter().map(|number| (uidl(number), number)).collect() }
    }

    /// A client that has polled an old server that told it these.
    pub fn that_holds(uidls: impl IntoIterator<Item = (String, u32)>) -> Self {
        Self { held: uidls.into_iter().collect() }
    }

    /// Whether it would not download what is listed under that UIDL.
    pub fn holds(&self, uidl: &str) -> bool {
        self.held.contains_key(uidl)
    }

    /// Polls, and says which messages it downloads, by their numbers, in the order of the
    /// listing.
    ///
    /// Panics where a message is listed under a UIDL that it holds another message under: it
    /// would not be downloaded, and be deleted unseen one day.
    pub fn poll(&mut self, moved: &Scenario) -> Vec<u32> {
        self.poll_as(moved, USER)
    }

    /// The same under another login name.
    pub fn poll_as(&mut self, moved: &Scenario, name: &str) -> Vec<u32> {
        let listing = listing(moved, name);
        let mut downloaded = Vec::new();
        for (uidl, number) in &listing {
            match self.held.insert(uidl.clone(), *number) {
                None => downloaded.push(*number),
                Some(held) => assert_eq!(
                    held,
                    *number,
                    "message {number} is hidden: {uidl} is {held} to the client; {listing:?}\n{}",
                    moved.log().join("\n")
                ),
            }
        }
        downloaded
    }
}

/// The listing that a client is told: each UIDL with the number of its message, in order.
pub fn listing(moved: &Scenario, name: &str) -> Vec<(String, u32)> {
    let served = || {
        let mut session = moved.dovecot.login(name)?;
        let uidls = session.uidl()?;
        let mut listing = Vec::new();
        for (number, uidl) in (1..).zip(uidls) {
            listing.push((uidl, number_of(&session.lines(&format!("TOP {number} 0"))?)));
        }
        session.quit()?;
        Ok(listing)
    };
    served().unwrap_or_else(|why: crate::support::pop3::Refused| {
        panic!("no listing for {name}: {why:?}\n{}", moved.log().join("\n"))
    })
}

/// The number that [`Message::plain`](crate::support::mail::Message::plain) has made it from.
fn number_of(header: &[Vec<u8>]) -> u32 {
    let subject = header.iter().find_map(|line| line.strip_prefix(b"Subject: message "));
    let digits = std::str::from_utf8(subject.expect("mail of ours")).expect("ASCII");
    digits.parse().expect("a number")
}
