//! Mail in an mbox: one file a maildrop, and what clients know of it in the headers of its
//! messages.
//!
//! | server | UIDL |
//! |---|---|
//! | Dovecot, UW ipop3d | of `X-UID`, and the UIDVALIDITY in `X-IMAPbase` of the first message |
//! | mailutils | `X-UIDL`, written when a session ends |
//! | Qpopper | `X-UIDL` of 11 to 32 octets, written when a session ends |
//! | popa3d | the MD5 of what stays the same in the header: [`digest`] |
//!
//! Learnt from dovecot `mbox-sync-parse.c` and `istream-raw-mbox.c`, mailutils `msguidl.c` and
//! `mboxrd.c`, Qpopper 4 `pop_dropcopy.c` and `pop_updt.c`, and popa3d `mailbox.c`.
//!
//! Each also splits the file in its own way: [`from_line`]. The order is that of the file.
#![forbid(unsafe_code)]

pub mod digest;
mod drafts;
pub mod from_line;
pub(super) mod reading;
pub mod server;
pub mod split;
