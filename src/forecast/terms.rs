//! Asks the rules about one maildrop, as the plugin would: [`forecast`].
#![forbid(unsafe_code)]

use std::fs::File;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::capture::find::source::Source;
use crate::dovecot::Dovecot;
use crate::file::map::Mapped;
use crate::forecast::asked_survey::AskedSurvey;
use crate::forecast::compare::Forecast;
use crate::forecast::maildir_survey::{ControlPlace, MaildirSurvey, Unsurveyed};
use crate::format::UidlFormat;
use crate::index::Index;
use crate::ledger::{Epoch, Ledger, Mark};
use crate::maildrop::{CapturedMaildrop, Entry, Maildrop, State};
use crate::resolve::{
    self, Match, Memory, Message, Need, Outcome, Purpose, Resolution, Situation, Stamps,
};
use crate::site::remedy::Remedy;
use crate::site::roster::{self, Gate, RosterLine};
use crate::site::{Settings, Site, SiteSettings};

/// What a forecast goes by beside the mail.
#[derive(Debug)]
pub struct Terms {
    /// The site that the plugin will look into.
    pub site: Site,
    /// The new server's `pop3_uidl_format`, where it is one that we can follow.
    pub native: Option<UidlFormat>,
    /// The settings of the site.
    pub settings: SiteSettings,
    /// The keys that may match, in place of those that the settings name.
    pub keys: Option<Match>,
}

/// What can be said of a user before he logs in.
#[derive(Debug)]
pub enum Foretold {
    /// The rules have decided, with these messages.
    Told {
        /// What clients will see.
        forecast: Box<Forecast>,
        /// What was read of a Maildir. `None`: there is none, or Dovecot was asked.
        survey: Option<Box<MaildirSurvey>>,
    },
    /// Could not tell, or POP3 refuses him, for this reason.
    CouldNotTell(String),
    /// The operator lets his clients download everything again.
    Redownload,
    /// He is on no roster.
    NotMigrated,
}

/// Where the mail of a user is.
#[derive(Debug, Clone, Copy)]
pub enum MailPlace<'a> {
    /// Nowhere yet.
    Nowhere,
    /// Nobody knows, for this reason.
    Unknown(&'a str),
    /// In a Maildir, which is read straight.
    Maildir {
        /// Where its mail lies.
        mail: &'a Source,
        /// Where its list and its ledger lie.
        control: ControlPlace<'a>,
    },
    /// Where only Dovecot can read it.
    Asked {
        /// The Dovecot, [without our plugin](Dovecot::without_plugin).
        dovecot: &'a Dovecot,
        /// Where the ledger lies.
        control: &'a Source,
    },
    /// In a Maildir, as far as that can be read straight, and else where only Dovecot can read it.
    MaildirOrAsked {
        /// The Dovecot, [without our plugin](Dovecot::without_plugin).
        dovecot: &'a Dovecot,
        /// Where its mail lies.
        mail: &'a Source,
        /// Where its list and its ledger lie.
        control: &'a Source,
    },
}

/// How often a maildrop is read that changes meanwhile.
const TRIES: u32 = 3;

/// Says what clients of a user will see, if he logs in now and nobody is held.
pub fn forecast(terms: &Terms, user: &str, inbox: MailPlace<'_>) -> Foretold {
    let line = match terms.line_to_ask_by(user) {
        Ok(line) => line,
        Err(Unbegun::NotMigrated) => return Foretold::NotMigrated,
        Err(Unbegun::Redownload) => return Foretold::Redownload,
        Err(why) => return Foretold::CouldNotTell(why.to_string()),
    };
    let told = terms.captured(user).and_then(|(captured, is_final)| {
        if let MailPlace::Unknown(why) = inbox {
            return Err(why.to_owned());
        }
        if let MailPlace::Nowhere = inbox {
            let mut forecast = Forecast::of_nothing(&captured);
            let may_be_missing = line.unguarded > 0 || line.listed;
            let mut last = captured.last_entries();
            forecast.is_refused = !may_be_missing && last.any(Entry::has_key);
            return Ok((forecast, None));
        }
        let mut tries = 1;
        loop {
            match terms.ask(user, &line, (&captured, is_final), inbox) {
                Ok((forecast, survey)) => return Ok((forecast, survey.map(Box::new))),
                Err(Untold::Unsurveyed(Unsurveyed::Changed)) if tries < TRIES => tries += 1,
                Err(why) => return Err(why.to_string()),
            }
        }
    });
    match told {
        Ok((forecast, survey)) => Foretold::Told { forecast: Box::new(forecast), survey },
        Err(why) => Foretold::CouldNotTell(why),
    }
}

/// Why the rules have not decided.
#[derive(Debug, thiserror::Error)]
pub enum Untold {
    /// Could not tell what is in the maildrop.
    #[error("{0}")]
    Unsurveyed(#[from] Unsurveyed),
    /// The rules refuse an answer, for this reason.
    #[error("{0}")]
    Undecidable(String),
}

/// Why nobody can be asked about a user.
#[derive(Debug, thiserror::Error)]
pub enum Unbegun {
    /// He is on no roster.
    #[error("on no roster")]
    NotMigrated,
    /// The operator lets his clients download everything again.
    #[error("set to redownload")]
    Redownload,
    /// Could not tell, or POP3 refuses him, for this reason.
    #[error("{0}")]
    CouldNotTell(String),
    /// Could not tell what is in the maildrop.
    #[error("{0}")]
    Unsurveyed(#[from] Unsurveyed),
}

/// What is known of a user before his first listing, or before the next one.
#[derive(Debug)]
pub struct FirstListing<'a> {
    terms: &'a Terms,
    user: &'a str,
    line: RosterLine,
    /// What was captured of him.
    pub captured: Maildrop,
    /// The same as the rules look at it.
    columns: CapturedMaildrop,
    /// Whether no more captures follow.
    pub is_final: bool,
    /// His maildrop.
    pub survey: MaildirSurvey,
    ledger: Option<Ledger>,
    mark: Option<Mark>,
}

/// What the rules are told of a user beside his messages.
#[derive(Clone, Copy)]
struct About<'a> {
    user: &'a str,
    line: &'a RosterLine,
    captured: &'a CapturedMaildrop,
    is_final: bool,
    memory: Memory<'a>,
}

impl FirstListing<'_> {
    fn about(&self) -> About<'_> {
        let Self { user, line, columns: captured, is_final, ledger, mark, .. } = self;
        let memory = Memory { ledger: ledger.as_ref(), mark: mark.as_ref() };
        About { user, line, captured, is_final: *is_final, memory }
    }

    /// Finds out what costs nothing: names, and stored UIDLs.
    ///
    /// # Errors
    ///
    /// [`Unsurveyed`].
    pub fn find_names(&mut self) -> Result<(), Unsurveyed> {
        let asked: Vec<_> = (0..self.survey.messages.len()).map(|at| (at, Need::Names)).collect();
        self.survey.find_out(&asked, None)
    }

    /// The lowest next UID that the mailbox may have, once the names are found.
    pub fn first_unspent_uid(&self) -> u32 {
        let listing = Purpose::Listing { guarded: true };
        let situation = self.terms.situation(self.about(), &self.survey, listing);
        resolve::first_unspent_uid(&situation, &self.survey.messages)
    }

    /// Whether what is stored in the maildrop may be void: the operator had all forgotten that was
    /// told here before, or nobody but a rehearsal has listed it (rule 2).
    pub fn may_have_void_answers(&self) -> bool {
        self.line.forgotten > 0 || self.about().memory.is_rehearsal()
    }

    /// Whether ledger and mark are still the ones that were read.
    ///
    /// # Errors
    ///
    /// [`Unsurveyed`].
    pub fn is_memory_the_same(&self) -> Result<bool, Unsurveyed> {
        let (ledger, mark) = self.survey.memory(self.user)?;
        Ok((&ledger, &mark) == (&self.ledger, &self.mark))
    }

    /// What a first listing would tell, or the next one.
    ///
    /// # Errors
    ///
    /// [`Untold`].
    pub fn resolve(&mut self) -> Result<Resolution, Untold> {
        let Self { terms, user, line, columns: captured, is_final, survey, ledger, mark, .. } =
            self;
        let memory = Memory { ledger: ledger.as_ref(), mark: mark.as_ref() };
        let about = About { user, line, captured, is_final: *is_final, memory };
        let situation = terms.situation(about, survey, Purpose::Listing { guarded: true });
        terms.resolve(user, &situation, survey)
    }
}

/// The UIDVALIDITY of a list that would be made now: the time, as Dovecot has it.
fn uidvalidity_of_now() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_secs());
    u32::try_from(now).unwrap_or(1)
}

impl Terms {
    /// The terms of a site, with its settings as they are now.
    ///
    /// # Errors
    ///
    /// A sentence that says why it could not tell what they are.
    pub fn of(site: Site, native: Option<UidlFormat>, keys: Option<Match>) -> Result<Self, String> {
        let settings = site.settings()?;
        Ok(Self { site, native, settings, keys })
    }

    /// What counts for a user.
    pub fn settings_of(&self, user: &str) -> Settings {
        let settings = self.settings.of(user);
        Settings { keys: self.keys.unwrap_or(settings.keys), ..settings }
    }

    /// The line of the roster that a login would go by. `None`: no roster names the user.
    ///
    /// # Errors
    ///
    /// A sentence that says why it could not tell.
    pub fn roster_line(&self, user: &str) -> Result<Option<RosterLine>, String> {
        let place = || self.site.paths(user).map(|paths| paths.roster).unwrap_or_default();
        let file = self.site.open_roster(user).map_err(|why| fault(&place(), &why))?;
        let Some(file) = file else { return Ok(None) };
        roster::lookup_or_everybody(&file, user).map_err(|why| fault(&place(), &why))
    }

    /// The line of a user about whom the rules can be asked.
    ///
    /// # Errors
    ///
    /// [`Unbegun`]; [`Unbegun::Unsurveyed`] is none of them.
    fn line_to_ask_by(&self, user: &str) -> Result<RosterLine, Unbegun> {
        let line = self.roster_line(user).map_err(Unbegun::CouldNotTell)?;
        let line = line.ok_or(Unbegun::NotMigrated)?;
        if line.gate == Gate::Redownload {
            return Err(Unbegun::Redownload);
        }
        if let Some(why) = refusal_of(&line, user) {
            return Err(Unbegun::CouldNotTell(why));
        }
        if line.user != user {
            return Err(Unbegun::NotMigrated);
        }
        Ok(line)
    }

    /// Begins to ask what a first listing of this user would tell, where his Maildir is here.
    ///
    /// # Errors
    ///
    /// [`Unbegun`]: there is nothing to ask, or could not tell.
    pub fn begin<'a>(
        &'a self,
        user: &'a str,
        mail: &Source,
        control: ControlPlace<'_>,
    ) -> Result<FirstListing<'a>, Unbegun> {
        let line = self.line_to_ask_by(user)?;
        let (captured, is_final) = self.captured(user).map_err(Unbegun::CouldNotTell)?;
        let survey = MaildirSurvey::begin(mail, control, uidvalidity_of_now())?;
        let (ledger, mark) = survey.memory(user)?;
        let (terms, columns) = (self, CapturedMaildrop::from(&captured));
        Ok(FirstListing { terms, user, line, captured, columns, is_final, survey, ledger, mark })
    }

    /// What was captured of a user who is on a roster, and whether no more captures follow.
    ///
    /// # Errors
    ///
    /// A sentence that says why it could not tell.
    pub fn captured(&self, user: &str) -> Result<(Maildrop, bool), String> {
        let path = self.site.paths(user).map(|paths| paths.index).unwrap_or_default();
        let file = self.site.open_index(user).map_err(|why| fault(&path, &why))?;
        let file: File =
            file.ok_or_else(|| fault(&path, &"no index, but its roster names the user"))?;
        let mapped = Mapped::new(file).map_err(|why| fault(&path, &why))?;
        let index = Index::open(mapped).map_err(|why| fault(&path, &why))?;
        let captured = index.maildrop(user).map_err(|why| fault(&path, &why))?;
        let lacks = || fault(&path, &"its roster names the user, the index does not");
        Ok((captured.ok_or_else(lacks)?, index.is_final()))
    }

    fn ask(
        &self,
        user: &str,
        line: &RosterLine,
        (captured, is_final): (&Maildrop, bool),
        inbox: MailPlace<'_>,
    ) -> Result<(Forecast, Option<MaildirSurvey>), Untold> {
        let (mail, control) = match inbox {
            MailPlace::Nowhere | MailPlace::Unknown(_) => {
                unreachable!("there is nothing to ask about")
            }
            MailPlace::Asked { dovecot, control } => {
                let mut survey = AskedSurvey::begin(dovecot, user)?;
                let memory = survey.memory(control)?;
                let forecast = self.decide(user, line, (captured, is_final), &memory, &mut survey);
                return Ok((forecast?, None));
            }
            MailPlace::Maildir { mail, control } => (mail, control),
            MailPlace::MaildirOrAsked { dovecot, mail, control } => {
                let straight = MailPlace::Maildir { mail, control: ControlPlace::At(control) };
                return match self.ask(user, line, (captured, is_final), straight) {
                    Err(Untold::Unsurveyed(why)) if why.may_be_told_by_dovecot() => {
                        let asked = MailPlace::Asked { dovecot, control };
                        self.ask(user, line, (captured, is_final), asked)
                    }
                    told => told,
                };
            }
        };
        let mut survey = MaildirSurvey::begin(mail, control, uidvalidity_of_now())?;
        let memory = survey.memory(user)?;
        let forecast = self.decide(user, line, (captured, is_final), &memory, &mut survey)?;
        Ok((forecast, Some(survey)))
    }

    fn decide(
        &self,
        user: &str,
        line: &RosterLine,
        (captured, is_final): (&Maildrop, bool),
        (ledger, mark): &(Option<Ledger>, Option<Mark>),
        survey: &mut impl Surveyed,
    ) -> Result<Forecast, Untold> {
        let memory = Memory { ledger: ledger.as_ref(), mark: mark.as_ref() };
        let columns = CapturedMaildrop::from(captured);
        let about = About { user, line, captured: &columns, is_final, memory };
        let situation = self.situation(about, survey, Purpose::Preview);
        let resolution = self.resolve(user, &situation, survey)?;
        let mut forecast = Forecast::of(captured, survey.messages(), &resolution);
        if !self.settings_of(user).order {
            forecast.forget_order();
        }
        if forecast.kept * 2 < forecast.captured {
            // Only a listing is refused for that: a preview is not.
            let listing = Purpose::Listing { guarded: true };
            let situation = Situation { purpose: listing, ..situation };
            forecast.is_refused = match self.resolve(user, &situation, survey) {
                Ok(_) => false,
                Err(Untold::Undecidable(_)) => true,
                Err(why) => return Err(why),
            };
        }
        Ok(forecast)
    }

    fn situation<'a>(
        &'a self,
        about: About<'a>,
        survey: &impl Surveyed,
        purpose: Purpose,
    ) -> Situation<'a> {
        let &RosterLine { forgotten, listed, restored, unguarded, .. } = about.line;
        Situation {
            // A login of a settled maildrop does without; the answers are the same.
            captured: Some(about.captured),
            basis: [0; 16],
            is_final: about.is_final,
            memory: about.memory,
            stamps: Stamps { forgotten, restored, unguarded, listed },
            epoch: survey.epoch(),
            is_maildir: survey.is_maildir(),
            native: self.native.as_ref(),
            keys: self.settings_of(about.user).keys,
            purpose,
            rehearsal: 0,
        }
    }

    /// Asks the rules, and finds out what they ask, until they have decided.
    ///
    /// # Errors
    ///
    /// [`Untold::Undecidable`]: the rules refuse an answer.
    fn resolve(
        &self,
        user: &str,
        situation: &Situation<'_>,
        survey: &mut impl Surveyed,
    ) -> Result<Resolution, Untold> {
        loop {
            match resolve::resolve(user, situation, survey.messages()) {
                Outcome::Ask(asked) => survey.find_out(&asked, self.native.as_ref())?,
                Outcome::AskCaptured => unreachable!("they have it"),
                Outcome::Resolved(resolution) => return Ok(*resolution),
                Outcome::Refused(why) => {
                    let fault = survey.first_fault();
                    let because = fault.map(|fault| format!(": {fault}")).unwrap_or_default();
                    return Err(Untold::Undecidable(format!("{why}{because}")));
                }
            }
        }
    }
}

/// The messages of an INBOX, as far as they were asked about.
trait Surveyed {
    fn messages(&self) -> &[Message];
    fn epoch(&self) -> Epoch;
    fn is_maildir(&self) -> bool;
    fn first_fault(&self) -> Option<&str>;
    fn find_out(
        &mut self,
        asked: &[(usize, Need)],
        native: Option<&UidlFormat>,
    ) -> Result<(), Unsurveyed>;
}

impl Surveyed for MaildirSurvey {
    fn messages(&self) -> &[Message] {
        &self.messages
    }

    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn is_maildir(&self) -> bool {
        true
    }

    fn first_fault(&self) -> Option<&str> {
        self.first_fault.as_deref()
    }

    fn find_out(
        &mut self,
        asked: &[(usize, Need)],
        native: Option<&UidlFormat>,
    ) -> Result<(), Unsurveyed> {
        self.find_out(asked, native)
    }
}

impl Surveyed for AskedSurvey<'_> {
    fn messages(&self) -> &[Message] {
        &self.messages
    }

    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn is_maildir(&self) -> bool {
        self.is_maildir
    }

    fn first_fault(&self) -> Option<&str> {
        self.first_fault.as_deref()
    }

    fn find_out(
        &mut self,
        asked: &[(usize, Need)],
        native: Option<&UidlFormat>,
    ) -> Result<(), Unsurveyed> {
        self.find_out(asked, native)
    }
}

fn fault(path: &Path, why: &dyn Remedy) -> String {
    format!("{}: {why}; {}", path.display(), why.remedy())
}

/// Why POP3 refuses the user whatever is in his mailbox, apart from being held: that ends when the
/// mail has moved.
fn refusal_of(line: &RosterLine, user: &str) -> Option<String> {
    if line.awaits_capture() {
        return Some(
            "it was forgotten: capture it again and build upon this site, or `uidl-keep release \
             --redownload` the user"
                .to_owned(),
        );
    }
    if line.state != State::Failed {
        return None;
    }
    Some(match line.user == user {
        true => "its capture failed: capture it again and build upon the old site".to_owned(),
        false => format!(
            "it may be one of {}, who lived at the old server where it could not be searched: \
             capture that domain again and build upon the old site",
            line.user
        ),
    })
}
