//! What POP3 clients of the new server will see, before anybody logs in: [`forecast`].
//!
//! The rules are the plugin's own: [`resolve`](crate::resolve::resolve), asked as for doveadm. Only
//! the facts come another way: a [`MaildirSurvey`] reads them from the files of a Maildir, without
//! Dovecot, and writes nothing; an [`AskedSurvey`] has Dovecot read what is no Maildir. A
//! [`Forecast`] then compares the answers with what was captured.
#![forbid(unsafe_code)]

mod asked_survey;
mod compare;
mod maildir_survey;
mod terms;

pub use asked_survey::AskedSurvey;
pub use compare::{Forecast, ForecastSign, KeptMessage, Missing, MissingBecause, NewMessage};
pub use maildir_survey::{ControlPlace, MaildirSurvey, Unsurveyed};
pub use terms::{FirstListing, Foretold, MailPlace, Terms, Unbegun, Untold, forecast};
