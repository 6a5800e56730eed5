//! One page for people: what clients will see, who is at risk and why, and what to do next.
//!
//! [`ReportInputs`] reads what the commands print with `--json`, and rosters. A
//! [`MigrationReport`] joins them by mailbox and by domain, the worst first. [`page`] writes it as
//! one HTML file that needs nothing beside it: no network, no fonts, and no script for who only
//! reads.
//!
//! Names, reasons and UIDLs come from outside. They go into the page through the escaping of the
//! templates, and commands have them in quotes for a shell.
#![forbid(unsafe_code)]

mod input;
mod judged;
mod model;
mod page;
mod words;

pub use input::{InputError, InputKind, NamedUidls, ReadInput, ReportInputs, StatusOfDomain};
pub use judged::{Advice, Outlook};
pub use model::{MigrationReport, ReportDomain, ReportMailbox, ReportMessages, ReportTotals};
pub use page::{is_page, page};
