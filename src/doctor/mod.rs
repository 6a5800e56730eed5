//! Looks at a server before the cut-over, or any time after, for all that makes POP3 refuse
//! somebody or tell him something wrong: [`Examination`]. It changes nothing.
//!
//! Each kind of finding has a file here. Dovecot is asked by its own tools, and files of the site
//! are opened by the very account that will open them ([`as_owner`]).

mod access;
pub mod as_owner;
mod clock;
mod confinement;
mod examination;
mod facts;
mod finding;
mod formats;
pub mod included;
mod limits;
mod loading;
mod machine;
mod panel;
mod programs;
mod second_names;
mod subject;

pub use examination::{Diagnosis, Examination};
pub use finding::{DoctorFinding, Weight};
pub use machine::Machine;
