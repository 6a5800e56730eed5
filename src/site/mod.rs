//! The site directory holds the index and roster of every user: [`Site`].
//!
//! ```text
//! /var/lib/uidl-keep/            root, 0711
//!     domain/example.com.idx     what was captured of all of example.com
//!     domain/example.com.roster  who of example.com was migrated
//!     user/alice.idx             the same for a login without a domain
//!     user/alice.roster
//!     user/bob@example.org.idx   for a user of a domain that shares no group: 0400, his own
//!     user/bob@example.org.roster
//! ```
//!
//! A user's own files go before those of his domain. He is in one of the two.
//!
//! A user who is not on a roster is none of our business. Finding that out costs one open that
//! fails. That answer must not come from a file system that is not mounted, nor from a roster that
//! was lost. So when there is no roster, two things are checked: the directory that would hold it
//! exists, and it has no index that goes with the roster. `uidl-keep build` makes both directories;
//! `install -d -m 0711 /var/lib/uidl-keep /var/lib/uidl-keep/domain /var/lib/uidl-keep/user` makes
//! an empty site. A directory that has nothing of a site is an empty site too, unless something is
//! to be mounted there: see [`Site::open_roster`].
//!
//! Beside them lies [`settings`](SiteSettings), where the defaults will not do.
//!
//! A process that has left its root directory by chroot finds the site through a [`Root`] that it
//! held before.
#![forbid(unsafe_code)]

pub mod change;
mod directory;
mod given;
mod lookup;
pub mod remedy;
mod root;
pub mod roster;
mod scope;
mod settings;
mod trusted;

pub use directory::{Paths, Site};
pub use root::Root;
pub use scope::Scope;
pub use settings::{Settings, SettingsError, SiteSettings};
pub use trusted::{OpenError, open_trusted};
