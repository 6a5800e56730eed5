//! What POP3 clients of the new server will see, before anybody logs in: [`forecast`].
//!
//! The rules are the plugin's own: [`resolve`](crate::resolve::resolve), asked as for doveadm. Only
//! the facts come another way: a [`MaildirSurvey`] reads them from the files of a Maildir, without
//! Dovecot, and writes nothing. A [`Forecast`] then compares the answers with what was captured.
#![forbid(unsafe_code)]

mod compare;
mod maildir_survey;
mod terms;

pub use compare::{Forecast, ForecastSign, Missing, MissingBecause, NewMessage};
pub use maildir_survey::{MaildirPlace, MaildirSurvey, Unsurveyed};
pub use terms::{FirstListing, Foretold, Terms, Unbegun, Untold, forecast};
