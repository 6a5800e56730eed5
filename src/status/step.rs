//! What an operator does next: [`next_step`].
#![forbid(unsafe_code)]

use std::fmt;
use std::path::PathBuf;

use crate::status::tally::StatusTally;

/// Whether the POP3 service of this machine loads the plugin, and for this site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plugin {
    /// Nobody asked.
    NotAsked,
    /// Could not tell, for this reason.
    CouldNotTell(String),
    /// It loads it.
    Loaded,
    /// It does not, and says why.
    NotLoaded(String),
    /// It loads it, and looks into this other site.
    OtherSite(PathBuf),
}

impl fmt::Display for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAsked => f.write_str("not looked at"),
            Self::CouldNotTell(why) => write!(f, "could not tell: {why}"),
            Self::Loaded => f.write_str("loaded by POP3, for this site"),
            Self::NotLoaded(why) => write!(f, "not loaded: {why}"),
            Self::OtherSite(site) => {
                write!(f, "loaded by POP3 for another site, {}", site.display())
            }
        }
    }
}

/// What is to be done next. What comes first here is done first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NextStep {
    /// POP3 guards nobody: load the plugin.
    Load,
    /// Maildrops that are held await their last capture.
    Build,
    /// The mail has moved: make the first listings before the clients do.
    Rehearse,
    /// All is as it was captured: let clients in.
    Release,
    /// Users are refused until they are captured again, or given up.
    Recapture,
    /// Clients are served, and the index says that captures may follow: nothing is settled before
    /// the last one.
    Finish,
    /// Nobody has looked at the ledgers.
    Look,
    /// Of some ledgers it could not tell.
    Explain,
    /// Clients have not listed all maildrops yet.
    Await,
    /// Some Maildirs lack UIDLs.
    Bake,
    /// UIDLs of mdbox and sdbox are in the ledgers alone.
    BakeInto,
    /// All is where Dovecot itself has it: prove that.
    Retire,
    /// There is nobody on the rosters.
    Nothing,
}

impl NextStep {
    /// The stable name of it, as `--json` prints it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Build => "build",
            Self::Rehearse => "rehearse",
            Self::Release => "release",
            Self::Recapture => "recapture",
            Self::Finish => "finish",
            Self::Look => "look",
            Self::Explain => "explain",
            Self::Await => "await",
            Self::Bake => "bake",
            Self::BakeInto => "bake_into",
            Self::Retire => "retire",
            Self::Nothing => "nothing",
        }
    }

    /// The command that does it for these users or domains, and what it is for. `first` is the
    /// first user whom it is about.
    pub fn command(self, who: &str, first: Option<&str>) -> String {
        let user = first.unwrap_or(who);
        match self {
            Self::Load => "name uidl_keep in mail_plugins of the last `protocol pop3` block of \
                           dovecot.conf, and reload Dovecot"
                .to_owned(),
            Self::Build => format!(
                "uidl-keep build --install --final LISTING (copy the mail of {who}, see `uidl-keep \
                 forecast`, and capture for the last time)"
            ),
            Self::Rehearse => {
                format!("uidl-keep rehearse {who} (see `uidl-keep forecast` before)")
            }
            Self::Release => format!(
                "uidl-keep release {who} (with --unrehearsed where clients listed it here before)"
            ),
            Self::Recapture => format!(
                "uidl-keep build --install LISTING (capture {user} again), or uidl-keep release \
                 --redownload {user}"
            ),
            Self::Finish => {
                format!("uidl-keep build --install --final LISTING (the last capture of {who})")
            }
            Self::Look => format!("uidl-keep status {who} (as root, with a Dovecot that runs)"),
            Self::Explain => format!("uidl-keep explain {user}"),
            Self::Await => {
                format!(
                    "wait until {user} has logged in by POP3, or uidl-keep rehearse {user}; who is \
                     baked by uidl-keep bake need not log in: uidl-keep retire --check {who}"
                )
            }
            Self::Bake => format!("uidl-keep bake {user}"),
            Self::BakeInto => format!(
                "uidl-keep bake --into LOCATION {user} (a new place, such as mdbox:~/mdbox; see \
                 docs/bake.md)"
            ),
            Self::Retire => format!("uidl-keep retire --check {who}"),
            Self::Nothing => "nothing: nobody is on the roster".to_owned(),
        }
    }
}

/// What is to be done next for the maildrops that were counted, and the first user whom it is
/// about, where one stands for the rest.
pub fn next_step<'a>(plugin: &Plugin, tally: &'a StatusTally) -> (NextStep, Option<&'a str>) {
    let first = |users: &'a [(String, String)]| users.first().map(|(user, _)| &**user);
    let is_held = tally.held > 0;
    match () {
        () if tally.maildrops == 0 && tally.refused.is_empty() && tally.held_domains == 0 => {
            (NextStep::Nothing, None)
        }
        () if matches!(plugin, Plugin::NotLoaded(_) | Plugin::OtherSite(_)) => {
            (NextStep::Load, None)
        }
        () if is_held && tally.open_indexes > 0 => (NextStep::Build, None),
        () if tally.unrehearsed > 0 => (NextStep::Rehearse, None),
        () if is_held || tally.held_domains > 0 => (NextStep::Release, None),
        () if !tally.refused.is_empty() => {
            (NextStep::Recapture, tally.refused.first().map(|(user, _)| &**user))
        }
        () if tally.open_indexes > 0 => (NextStep::Finish, None),
        () if tally.not_looked > 0 => (NextStep::Look, None),
        () if !tally.not_told.is_empty() => (NextStep::Explain, first(&tally.not_told)),
        () if !tally.bake_not_told.is_empty() => (NextStep::Explain, first(&tally.bake_not_told)),
        () if tally.waiting > 0 => (NextStep::Await, tally.first_waiting.as_deref()),
        () if !tally.unbaked.is_empty() => {
            (NextStep::Bake, tally.unbaked.first().map(|user| &**user))
        }
        () if !tally.ledger_alone.is_empty() => {
            (NextStep::BakeInto, tally.ledger_alone.first().map(|user| &**user))
        }
        () => (NextStep::Retire, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tally::Refused;

    fn settled() -> StatusTally {
        StatusTally {
            maildrops: 2,
            captured: 2,
            released: 2,
            final_indexes: 1,
            listed: 2,
            baked: 2,
            ..StatusTally::default()
        }
    }

    #[test]
    fn each_state_has_its_next_step() {
        type Change = fn(&mut StatusTally);
        let states: [(NextStep, Option<&str>, Change); 14] = [
            (NextStep::Nothing, None, |tally| *tally = StatusTally::default()),
            (NextStep::Build, None, |tally| (tally.held, tally.open_indexes) = (1, 1)),
            (NextStep::Rehearse, None, |tally| (tally.held, tally.unrehearsed) = (2, 1)),
            (NextStep::Release, None, |tally| (tally.held, tally.rehearsed) = (2, 2)),
            (NextStep::Release, None, |tally| tally.held_domains = 1),
            (NextStep::Recapture, Some("b@a.org"), |tally| {
                tally.refused = vec![("b@a.org".into(), Refused::CaptureFailed)];
            }),
            (NextStep::Finish, None, |tally| tally.open_indexes = 1),
            (NextStep::Look, None, |tally| tally.not_looked = 1),
            (NextStep::Explain, Some("b@a.org"), |tally| {
                tally.not_told = vec![("b@a.org".into(), "damaged".into())];
            }),
            (NextStep::Explain, Some("b@a.org"), |tally| {
                tally.bake_not_told = vec![("b@a.org".into(), "no list".into())];
            }),
            (NextStep::Await, Some("b@a.org"), |tally| {
                tally.waiting = 1;
                tally.first_waiting = Some("b@a.org".into());
            }),
            (NextStep::Bake, Some("b@a.org"), |tally| tally.unbaked = vec!["b@a.org".into()]),
            (NextStep::BakeInto, Some("b@a.org"), |tally| {
                tally.ledger_alone = vec!["b@a.org".into()]
            }),
            (NextStep::Retire, None, |_| {}),
        ];
        for (step, first, change) in states {
            let mut tally = settled();
            change(&mut tally);
            assert_eq!(next_step(&Plugin::Loaded, &tally), (step, first));
            let words = step.command("a.org", first);
            let is_named = words.contains(first.unwrap_or("a.org"));
            assert!(is_named || [NextStep::Nothing, NextStep::Build].contains(&step), "{words}");
        }
    }

    #[test]
    fn what_keeps_clients_out_goes_before_what_they_do_not_notice() {
        let mut tally = settled();
        let mut expect = |change: fn(&mut StatusTally), step: NextStep| {
            change(&mut tally);
            assert_eq!(next_step(&Plugin::Loaded, &tally).0, step);
        };
        expect(|tally| tally.unbaked = vec!["b@a.org".into()], NextStep::Bake);
        expect(|tally| tally.waiting = 1, NextStep::Await);
        expect(|tally| tally.not_looked = 1, NextStep::Look);
        expect(|tally| tally.open_indexes = 1, NextStep::Finish);
        let refuse = |tally: &mut StatusTally| {
            tally.refused = vec![("b@a.org".into(), Refused::Forgotten)];
        };
        expect(refuse, NextStep::Recapture);
        expect(|tally| (tally.held, tally.unrehearsed) = (1, 1), NextStep::Build);
        expect(|tally| tally.open_indexes = 0, NextStep::Rehearse);
        expect(|tally| tally.unrehearsed = 0, NextStep::Release);
    }

    #[test]
    fn a_plugin_that_guards_nobody_goes_before_everything() {
        let mut tally = settled();
        (tally.held, tally.open_indexes) = (1, 1);
        for plugin in [Plugin::NotLoaded("quota".into()), Plugin::OtherSite("/elsewhere".into())] {
            assert_eq!(next_step(&plugin, &tally), (NextStep::Load, None), "{plugin}");
        }
        for plugin in [Plugin::Loaded, Plugin::NotAsked, Plugin::CouldNotTell("down".into())] {
            assert_eq!(next_step(&plugin, &tally).0, NextStep::Build, "{plugin}");
        }
    }
}
