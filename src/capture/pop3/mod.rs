//! Capture over POP3: what an old server tells of one account that we can log in to.
//!
//! UIDL tells the unique-ids, TOP the headers by which messages are recognised after the move.
//! Where a header says too little, TOP is asked for more lines than there are, which marks nothing
//! where RETR does; then comes RETR, where it is allowed. [`capture()`] does one account and keeps
//! nothing. The files:
//!
//! | module | knows |
//! |---|---|
//! | `server`, `pin` | where a server answers, and which certificate it is trusted by |
//! | `account`, `secret`, `token` | who logs in, and by what |
//! | `options`, `pace` | how a maildrop is captured, and how fast |
//! | `connect` | TCP, TLS, and which certificate to trust |
//! | `session` | commands, replies, and the octets of both |
//! | `fault` | why an account cannot be captured, and whether to try again |
//! | `capabilities` | what a server says that it can |
//! | `login` | CAPA, STLS, and the ways to say a password or a token |
//! | `listing` | UIDL and LIST |
//! | `fetch` | TOP and RETR, several under way |
//! | `reading` | which messages one session asks for |
//! | `sessions` | how many sessions an account takes |
//! | `so_far` | what the sessions of an account have told so far |
//! | `retry` | when another session follows one that broke |
//! | `learnt` | what one account shows of a server for all others there |
//! | `findings` | what was found out about the messages of a session |
//! | `block` | the block that the findings make |
//! | `uidl_shape` | what the form of the UIDLs gives away |
//!
//! # What is never done
//!
//! DELE is never sent, and a password never in the clear unless that was asked for
//! ([`Security::Clear`]). RETR is sent where it is needed, not where the server says `EXPIRE 0`
//! (RFC 2449 section 6.7: it may delete what was retrieved, as Gmail does), and never when
//! [`Retrieve::Never`] says so.
//!
//! A session ends with QUIT, as every client's does: mailutils writes down only there which UIDLs
//! it gave. qmail-pop3d then moves mail from `new` to `cur`, as it does after each client.
//!
//! # One moment
//!
//! A block is the maildrop at the login of its last session. UIDL is asked for again at the end:
//! where it says something else, the numbers may have moved under TOP, and all that was read is
//! thrown away. A UIDL that an earlier session listed and the last does not is spent.
#![forbid(unsafe_code)]

mod account;
mod block;
mod capabilities;
mod connect;
mod fault;
mod fetch;
mod findings;
mod learnt;
mod listing;
mod login;
mod options;
mod pace;
mod pin;
mod pipes;
mod reading;
mod retry;
mod secret;
mod server;
mod session;
mod sessions;
mod so_far;
mod token;
mod uidl_shape;

pub use account::{Account, Credential, source};
pub use connect::{Stream, log_in};
pub use fault::{ErrReply, Fault, Retry};
pub use learnt::Learnt;
pub use listing::{Listed, listing};
pub use options::{CaptureOptions, Retrieve};
pub use pace::{NoPace, Pace};
pub use pin::{BadPin, Pin};
pub use pipes::Pipes;
pub use secret::Secret;
pub use server::{Security, Server, Trust};
pub use session::Session;
pub use sessions::{capture, capture_over};
pub use token::{TokenCommand, Tokens};
