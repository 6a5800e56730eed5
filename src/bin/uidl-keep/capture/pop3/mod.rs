//! `uidl-keep capture pop3`: what an old server tells its POP3 clients, asked for as they do.

pub mod accounts;
mod args;
pub mod line;
pub mod password;
mod run;

pub use args::Pop3Args;
pub use run::run;
