//! What became of one user's messages, for whoever has him on the telephone: [`Story`].
#![forbid(unsafe_code)]

use std::path::Path;

use crate::capture::find::source::Source;
use crate::forecast::{
    ControlPlace, Forecast, Foretold, MailPlace, MissingBecause, Terms, forecast,
};
use crate::ledger::{Provenance, Record};
use crate::maildrop::{Entry, Maildrop};
use crate::status::ledger::{LedgerSeen, ListedHere, look};
use crate::status::tally::MaildropStatus;
use crate::uidl::Uidl;

/// What is known of one user.
#[derive(Debug)]
pub struct Story {
    /// The user name.
    pub user: String,
    /// What the roster says, and what was seen beside the mail. `None`: no roster names the user.
    /// The name in the line is another one where it stands for everybody of the domain.
    pub status: Option<MaildropStatus>,
    /// What was captured, and whether no capture follows; or why that could not be told.
    pub captured: Option<Result<(Maildrop, bool), String>>,
    /// Where no client has listed the maildrop yet, what clients will see.
    pub forecast: Option<Result<Box<Forecast>, String>>,
}

/// One message as the old server told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WasThere {
    /// Its place in the old order, from 1.
    pub place: usize,
    /// What was captured of it.
    pub entry: Entry,
}

/// One message as this server told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HereBefore {
    /// What clients were told. A UID of 0: the message had gone.
    pub record: Record,
    /// Its message-number in the last listing that was recorded, while all other messages are
    /// there; `None`: it was not there.
    pub number: Option<usize>,
}

/// What became of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageStory {
    /// What the old server told of it. Several messages may have one UIDL.
    pub was: Vec<WasThere>,
    /// What this server told of it.
    pub here: Vec<HereBefore>,
    /// Whether the old server had the UIDL for a message that was gone when it was captured.
    pub is_spent: bool,
    /// Where no client has listed the maildrop yet: whether the message is foretold missing, and
    /// why.
    pub foretold_missing: Option<MissingBecause>,
}

impl Story {
    /// Gathers what is known of a user. `dir` is the control directory of the INBOX; `None`: it is
    /// not known.
    ///
    /// # Errors
    ///
    /// A sentence: whether a roster names the user could not be told.
    pub fn of(terms: &Terms, user: &str, dir: Option<&Path>) -> Result<Self, String> {
        let line = terms.roster_line(user)?;
        let is_his = line.as_ref().is_some_and(|line| line.user == user);
        let captured = is_his.then(|| terms.captured(user));
        let seen = dir.map_or(LedgerSeen::NotLooked, |dir| look(user, dir));
        let status = line.map(|line| MaildropStatus { line, seen });
        let mut story = Self { user: user.to_owned(), status, captured, forecast: None };
        story.forecast = dir.and_then(|dir| story.foretell(terms, dir));
        Ok(story)
    }

    /// The forecast of a Maildir that nobody has listed.
    fn foretell(&self, terms: &Terms, dir: &Path) -> Option<Result<Box<Forecast>, String>> {
        let status = self.status.as_ref().filter(|status| status.line.user == self.user)?;
        if status.seen != LedgerSeen::Nothing || !dir.join("cur").is_dir() {
            return None;
        }
        let source = Source::named(self.user.as_str(), dir);
        let place = MailPlace::Maildir { mail: &source, control: ControlPlace::Beside };
        match forecast(terms, &self.user, place) {
            Foretold::Told { forecast, .. } => Some(Ok(forecast)),
            Foretold::CouldNotTell(why) => Some(Err(why)),
            Foretold::Redownload | Foretold::NotMigrated => None,
        }
    }

    /// What was captured, where that could be told.
    pub fn maildrop(&self) -> Option<&Maildrop> {
        self.captured.as_ref()?.as_ref().ok().map(|(maildrop, _)| maildrop)
    }

    /// What clients were told here, where there is a ledger that counts.
    pub fn listed(&self) -> Option<&ListedHere> {
        match &self.status.as_ref()?.seen {
            LedgerSeen::Listed(listed) => Some(listed),
            _ => None,
        }
    }

    /// Everything that clients were told here, in the order of the last listing; what has gone
    /// since comes last.
    pub fn told(&self) -> Vec<HereBefore> {
        let Some(listed) = self.listed() else { return Vec::new() };
        let mut records: Vec<&Record> = listed.ledger.records.iter().collect();
        records.sort_by_key(|record| (record.uid == 0, record.order));
        let told = (1..).zip(records).map(|(number, record)| HereBefore {
            record: record.clone(),
            number: (record.uid != 0).then_some(number),
        });
        told.collect()
    }

    /// What became of the messages that have, or had, this UIDL; and of the one with this UID,
    /// where it is a number.
    pub fn message(&self, asked: &str) -> MessageStory {
        let is_it = |uidl: &Uidl| uidl.as_bytes() == asked.as_bytes();
        let entries = || (1..).zip(self.maildrop().into_iter().flat_map(|drop| &drop.entries));
        let told = self.told();
        let has_uidl = |told: &&HereBefore| is_it(&told.record.uidl);
        let mut here: Vec<HereBefore> = told.iter().filter(has_uidl).cloned().collect();
        let is_was = |entry: &Entry| entry.uidls().any(is_it);
        let mut was: Vec<WasThere> = Vec::new();
        for (place, entry) in entries().filter(|(_, entry)| is_was(entry)) {
            was.push(WasThere { place, entry: entry.clone() });
            // It may have been told under another UIDL.
            let claimed = told.iter().filter(|told| told.record.entry == Some(place as u32 - 1));
            here.extend(claimed.cloned());
        }
        if here.is_empty() && was.is_empty() {
            let uid = asked.parse::<u32>().ok().filter(|&uid| uid != 0);
            here.extend(told.iter().filter(|told| Some(told.record.uid) == uid).cloned());
        }
        for claimed in here.iter().filter_map(|told| told.record.entry) {
            let place = claimed as usize + 1;
            if !was.iter().any(|was| was.place == place) {
                let entry = entries().nth(claimed as usize).map(|(_, entry)| entry.clone());
                was.extend(entry.map(|entry| WasThere { place, entry }));
            }
        }
        here.sort_by_key(|told| (told.record.uid == 0, told.record.order));
        here.dedup();
        let spent = self.maildrop().map(|maildrop| maildrop.spent.iter().any(is_it));
        let missing = self.forecast.iter().flatten().flat_map(|forecast| &forecast.missing);
        let missing = missing.filter(|missing| is_it(&missing.uidl)).map(|missing| missing.because);
        let foretold_missing = missing.into_iter().next();
        MessageStory { was, here, is_spent: spent.unwrap_or(false), foretold_missing }
    }
}

impl MessageStory {
    /// Whether nobody knows the message.
    pub fn is_unknown(&self) -> bool {
        self.was.is_empty() && self.here.is_empty() && !self.is_spent
    }
}

impl HereBefore {
    /// By which evidence the message has its UIDL, in words.
    pub fn because(&self) -> &'static str {
        match self.record.provenance {
            Provenance::File => "kept: its file name, or its GUID, is that of the captured message",
            Provenance::Message => "kept: its header and body are those of the captured message",
            Provenance::Header => "kept: its header is that of the captured message",
            Provenance::Origin => {
                "kept: its header, without what relays add, is that of the captured message"
            }
            Provenance::Stored => "kept: Dovecot had its UIDL stored",
            Provenance::Native => {
                "new here: no captured message has its name, header or content; its UIDL is what \
                 Dovecot itself gives"
            }
            Provenance::Derived => {
                "new here: no captured message has its name, header or content; a client may hold \
                 for another message what Dovecot itself would give, so that it has a UIDL of ours"
            }
        }
    }

    /// The same in one word, as `--json` prints it.
    pub fn evidence(&self) -> &'static str {
        match self.record.provenance {
            Provenance::File => "file",
            Provenance::Message => "message",
            Provenance::Header => "header",
            Provenance::Origin => "origin",
            Provenance::Stored => "stored",
            Provenance::Native => "native",
            Provenance::Derived => "derived",
        }
    }
}
