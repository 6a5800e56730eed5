//! The next migration, from a server that uidl-keep serves: what the site of that server adds to a
//! capture of it.
//!
//! The ledger says what clients were told here; [`told_here`](crate::capture::told_here) reads it.
//! Where no client has listed a maildrop that was migrated here, there is no ledger, and clients
//! know what was captured of the server before. Only the site's index has that.
#![forbid(unsafe_code)]

use std::collections::HashSet;

use crate::capture::draft::Captured;
use crate::capture::told_here::ToldBy;
use crate::maildrop::{Entry, Maildrop, State};
use crate::site::Site;
use crate::site::roster::Gate;
use crate::uidl::Uidl;

/// Says whether the directory that has a user's ledger was looked into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlDirectory {
    /// It was.
    Known,
    /// It was not, for this reason.
    NotKnown(String),
}

/// Judges a capture of a maildrop of the server that this site is of. `login` is the user's name
/// there. Returns the capture itself where it is what clients were told; the index's block where no
/// client has listed the maildrop here; and a failed one where nobody can tell.
pub fn judge(site: &Site, login: &str, control: &ControlDirectory, captured: Captured) -> Captured {
    match judged(site, login, control, captured.told_by) {
        Ok(None) => captured,
        Ok(Some(maildrop)) => of_index(maildrop, captured),
        Err(why) => {
            let Maildrop { user, source, .. } = captured.maildrop;
            Captured::failed(user, source, why)
        }
    }
}

fn of_index(mut maildrop: Maildrop, captured: Captured) -> Captured {
    maildrop.user = captured.maildrop.user;
    maildrop.remarks = vec![
        "no POP3 client has listed it on this server: this is what was captured of the server \
         before"
            .to_owned(),
    ];
    let told_by = ToldBy::Server;
    Captured { maildrop, notes: Vec::new(), losses: Vec::new(), nameless: 0, told_by }
}

/// The index's block, where that counts; `None` where the capture does.
fn judged(
    site: &Site,
    login: &str,
    control: &ControlDirectory,
    told_by: ToldBy,
) -> Result<Option<Maildrop>, String> {
    let Some(line) = site.line_of(login)? else { return Ok(None) };
    if line.user != login || line.state == State::Failed || line.awaits_capture() {
        return Err(
            "POP3 refuses this user here, for he was not captured when he came: nobody knows what \
             his clients hold; capture the server before again, and build it upon this site"
                .to_owned(),
        );
    }
    if line.gate == Gate::Redownload {
        return Ok(None);
    }
    let log_in =
        "log in here as this user by POP3 and ask for UIDL, and capture the maildrop again";
    match told_by {
        ToldBy::NotKnown => Ok(None),
        ToldBy::Ledger { begun_after, .. } if begun_after < line.forgotten => {
            Err(format!("it was forgotten here, and no POP3 client has listed it since: {log_in}"))
        }
        ToldBy::Ledger { restored, .. } if restored < line.restored => Err(format!(
            "this server was restored from a backup, and no POP3 client has listed it since: \
             {log_in}"
        )),
        ToldBy::Ledger { .. } => Ok(None),
        ToldBy::Stored if line.forgotten > 0 => {
            Err(format!("it was forgotten here, and there is no ledger of it: {log_in}"))
        }
        ToldBy::Stored => Ok(None),
        ToldBy::Server | ToldBy::Nobody => {
            if let ControlDirectory::NotKnown(why) = control {
                return Err(format!(
                    "it was migrated here, and where its ledger would lie is not known: {why}; say \
                     --control"
                ));
            }
            if line.listed {
                return Err(format!(
                    "the roster says that POP3 clients have listed it, and there is no ledger: \
                     {log_in}"
                ));
            }
            site.captured_of(login).map(Some)
        }
    }
}

/// Says why a capture may not be of the server that it was taken for, where this site is of the
/// machine on which the capture runs and nobody said whose server it is. `None`: there is no doubt.
///
/// The UIDLs of a server that uidl-keep serves are in its ledgers alone, on mdbox for example. A
/// capture that finds no ledger, and none of the UIDLs that the site's index has of the maildrop,
/// may have missed them.
pub fn doubt(site: &Site, login: &str, captured: &Captured) -> Option<String> {
    let is_plain = captured.told_by == ToldBy::Server && !captured.maildrop.entries.is_empty();
    if !is_plain {
        return None;
    }
    let doubted = (|| -> Result<bool, String> {
        let Some(line) = site.line_of(login)? else { return Ok(false) };
        if line.user != login || line.gate == Gate::Redownload || line.state != State::Captured {
            return Ok(false);
        }
        let known = site.captured_of(login)?;
        let uidls: HashSet<&Uidl> = known.entries.iter().flat_map(Entry::uidls).collect();
        let is_known =
            |entry: &Entry| uidls.contains(&entry.uidl) || known.spent.contains(&entry.uidl);
        Ok(!uidls.is_empty() && !captured.maildrop.entries.iter().any(is_known))
    })();
    let place = site.dir().display();
    match doubted {
        Ok(false) => None,
        Ok(true) => Some(format!(
            "a roster of {place} names this user, and no unique-id here is one of those in its \
             index: if this is the server of that site, say --site {place}; if it is the server \
             before, say --site none"
        )),
        Err(why) => Some(format!("{why}; if this is not the server of {place}, say --site none")),
    }
}
