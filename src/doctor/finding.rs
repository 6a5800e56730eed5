//! What is found out about a server, and what to do about it: [`DoctorFinding`].
#![forbid(unsafe_code)]

use std::fmt;

/// How much a finding matters. Those after are worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Weight {
    /// As it should be.
    Fine,
    /// Something to look at. POP3 is right as it is.
    Notice,
    /// Could not tell.
    CouldNotTell,
    /// POP3 refuses somebody, or tells somebody something wrong.
    Trouble,
}

impl Weight {
    /// The stable name of it, as `--json` prints it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Notice => "notice",
            Self::CouldNotTell => "could_not_tell",
            Self::Trouble => "trouble",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoctorFinding {
    /// The stable name of what was looked at: `abi`, `mail_plugins`, `access`.
    pub about: &'static str,
    /// How much it matters.
    pub weight: Weight,
    /// What was found.
    pub what: String,
    /// Why it matters; empty where all is fine.
    pub why: String,
    /// What to run or to write; empty where nothing is to be done.
    pub run: String,
}

impl DoctorFinding {
    /// As it should be.
    pub fn fine(about: &'static str, what: impl fmt::Display) -> Self {
        Self::of(about, Weight::Fine, what, "", "")
    }

    /// Something to look at.
    pub fn notice(
        about: &'static str,
        what: impl fmt::Display,
        why: impl fmt::Display,
        run: impl fmt::Display,
    ) -> Self {
        Self::of(about, Weight::Notice, what, why, run)
    }

    /// Somebody is refused, or told something wrong.
    pub fn trouble(
        about: &'static str,
        what: impl fmt::Display,
        why: impl fmt::Display,
        run: impl fmt::Display,
    ) -> Self {
        Self::of(about, Weight::Trouble, what, why, run)
    }

    /// Could not tell, for this reason.
    pub fn could_not_tell(
        about: &'static str,
        what: impl fmt::Display,
        run: impl fmt::Display,
    ) -> Self {
        let why = "what cannot be told may be wrong";
        Self::of(about, Weight::CouldNotTell, what, why, run)
    }

    fn of(
        about: &'static str,
        weight: Weight,
        what: impl fmt::Display,
        why: impl fmt::Display,
        run: impl fmt::Display,
    ) -> Self {
        let (what, why, run) = (what.to_string(), why.to_string(), run.to_string());
        Self { about, weight, what, why, run }
    }
}
