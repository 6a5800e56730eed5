//! What `uidl-keep forecast` says of a user of a private Dovecot, held against what he is told.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::dovecot::Dovecot;

/// The forecast of one user.
pub struct ForetoldUser {
    user: String,
    line: Value,
}

impl ForetoldUser {
    /// Asks the helper, which asks this Dovecot. `None`: he is on no roster, or there is no site.
    pub fn of(server: &Dovecot, user: &str) -> Option<Self> {
        Self::with(server, user, &[])
    }

    /// The same with more arguments.
    pub fn with(server: &Dovecot, user: &str, more: &[&str]) -> Option<Self> {
        let output = server.forecast(&["--json", "--uidls", "--only", user]).args(more).output();
        let output = output.expect("the helper");
        let said = String::from_utf8(output.stdout).expect("text");
        let lines = said.lines().map(|line| serde_json::from_str(line).expect("JSON"));
        let mut lines = lines.filter(|line: &Value| line["user"] == user);
        Some(Self { user: user.to_owned(), line: lines.next()? })
    }

    /// The sign of the line.
    pub fn sign(&self) -> &str {
        self.line["sign"].as_str().expect("a sign")
    }

    /// Why it could not be told, if it could not.
    pub fn why(&self) -> Option<&str> {
        self.line["why"].as_str()
    }

    /// A number of the line.
    pub fn count(&self, field: &str) -> u64 {
        self.line[field].as_u64().unwrap_or_else(|| panic!("{field} of {}", self.line))
    }

    /// Whether a login is refused.
    pub fn is_refused(&self) -> bool {
        self.line["refused"] == true
    }

    /// Insists that this listing of a client is what was foretold, message for message and in its
    /// order. `keeps_order` is whether the plugin gives the old order.
    #[track_caller]
    pub fn comes_true(&self, server: &Dovecot, listing: &[String], keeps_order: bool) {
        let Self { user, line } = self;
        // Nobody can download such a message, so that the operator must hear of it, whether a login
        // needs to read it or not.
        if self.why().is_some_and(|why| why.contains(" cannot be read by uid ")) {
            return;
        }
        assert!(self.why().is_none(), "served, and not foretold: {line}");
        assert!(!self.is_refused(), "served, and foretold refused: {line}");
        let fetch = ["-f", "json", "fetch", "-u", user, "uid pop3.uidl", "mailbox", "INBOX", "all"];
        let told: Vec<BTreeMap<String, String>> =
            serde_json::from_str(&server.doveadm_with_us_ok(fetch)).expect("JSON");
        let number = |text: &String| text.parse::<u64>().expect("a UID");
        let told: BTreeMap<u64, &str> =
            told.iter().map(|message| (number(&message["uid"]), &*message["pop3.uidl"])).collect();
        assert_eq!(self.count("messages") as usize, listing.len(), "{line}");

        let pair = |kept: &Value| -> (u64, String) {
            (kept[0].as_u64().expect("a UID"), kept[1].as_str().expect("a UIDL").to_owned())
        };
        let kept: Vec<(u64, String)> =
            line["kept_uidls"].as_array().expect("a list").iter().map(pair).collect();
        for (uid, uidl) in &kept {
            assert_eq!(told.get(uid), Some(&&**uidl), "UID {uid} of {told:?}: {line}");
        }
        let uidls: BTreeSet<&String> = kept.iter().map(|(_, uidl)| uidl).collect();
        let mut heard: Vec<&String> = listing.iter().filter(|uidl| uidls.contains(uidl)).collect();
        let mut foretold: Vec<&String> = kept.iter().map(|(_, uidl)| uidl).collect();
        if !keeps_order {
            heard.sort();
            foretold.sort();
        }
        assert_eq!(heard, foretold, "in order: {line}");

        let downloaded = line["downloaded_uids"].as_array().expect("a list").iter();
        let downloaded: BTreeSet<u64> = downloaded.map(|uid| uid.as_u64().expect("one")).collect();
        let is_kept: BTreeSet<u64> = kept.iter().map(|(uid, _)| *uid).collect();
        let others: BTreeSet<u64> =
            told.keys().copied().filter(|uid| !is_kept.contains(uid)).collect();
        let listed = self.count("listed") as usize + self.count("unreadable") as usize;
        assert!(downloaded.is_subset(&others), "{told:?}: {line}");
        assert_eq!(downloaded.len() + listed, others.len(), "{told:?}: {line}");
        for reason in ["not_copied", "changed", "ambiguous"] {
            for missing in line[reason].as_array().expect("a list") {
                let missing = missing.as_str().expect("a UIDL").to_owned();
                // Several may have had it.
                let is_heard = listing.contains(&missing) && !uidls.contains(&missing);
                assert!(!is_heard, "{missing} is missing: {line}");
            }
        }
    }
}
