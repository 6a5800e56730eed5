//! How a maildrop is captured over POP3: [`CaptureOptions`].
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::capture::keys::Keys;
use crate::capture::pop3::learnt::Learnt;
use crate::capture::pop3::pace::Pace;

/// Whether messages are retrieved whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Retrieve {
    /// Never: for a server that hides, marks or deletes what was retrieved. TOP may still bring
    /// whole messages, unless the server says `EXPIRE 0`. A remark says what the block lacks for
    /// that.
    Never,
    /// Those that TOP tells too little of: where there is no TOP, and where a header has no end,
    /// stands at two messages or does not name its own, and TOP did not bring the whole message in
    /// the size that LIST has; and all where [`Keys::message`] is wanted. None on a server that
    /// says `EXPIRE 0`.
    #[default]
    Needed,
    /// Each: for sizes, and where TOP cannot be trusted. A server that says `EXPIRE 0` is then left
    /// without QUIT, so that it deletes nothing.
    Always,
}

/// How a maildrop is captured.
#[derive(Clone, Copy)]
pub struct CaptureOptions<'a> {
    /// Which keys to take. `file` is taken where all UIDLs are Maildir file names (qmail-pop3d).
    pub keys: Keys,
    /// Whether to retrieve.
    pub retrieve: Retrieve,
    /// The most commands under way unanswered; 1 is one at a time, and more than
    /// [`CaptureOptions::MOST_WINDOW`] is that. Without PIPELINING it is reached step by step,
    /// while all goes well.
    pub window: u32,
    /// How long a connection may take, and an answer; a long answer, each 64 KiB of it.
    pub timeout: Duration,
    /// How long to wait before a broken session is taken up again, doubled each time it does not
    /// get further; longer where the server says LOGIN-DELAY. Zero waits for nothing.
    pub pause: Duration,
    /// How long one account may take, in all its sessions and the pauses between them, and how many
    /// octets it may bring. A server that goes on and on is left then.
    pub most_time: Duration,
    /// See [`CaptureOptions::most_time`].
    pub most_octets: u64,
    /// What is known of the server, and what is learnt of it here; `None` for one account alone.
    pub learnt: Option<&'a Learnt>,
    /// Who says when a command may be sent.
    pub pace: &'a dyn Pace,
    /// Told how many more messages were asked about and answered. What has to be asked again is not
    /// taken back, so that the sum may exceed the messages that there are.
    pub progress: &'a dyn Fn(u64),
}

impl<'a> CaptureOptions<'a> {
    /// The widest window. So many commands take less than 4 KiB: a server that is itself busy
    /// sending never leaves us waiting to send.
    pub const MOST_WINDOW: u32 = 200;

    /// The usual: as fast as the line allows, patient for a minute.
    pub fn new(pace: &'a dyn Pace, progress: &'a dyn Fn(u64)) -> Self {
        Self {
            keys: Keys::default(),
            retrieve: Retrieve::default(),
            window: Self::MOST_WINDOW,
            timeout: Duration::from_secs(60),
            pause: Duration::from_secs(2),
            most_time: Duration::from_secs(12 * 60 * 60),
            most_octets: 64 << 30,
            learnt: None,
            pace,
            progress,
        }
    }
}
