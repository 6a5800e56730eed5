//! Who says when a command may be sent: [`Pace`].
#![forbid(unsafe_code)]

/// Holds commands back, so that a server is not overrun.
pub trait Pace: Sync {
    /// Returns when `count` more commands may be sent. `count` is at most [`MOST_WINDOW`].
    ///
    /// [`MOST_WINDOW`]: crate::capture::pop3::CaptureOptions::MOST_WINDOW
    fn commands(&self, count: u32);
}

/// No pace: a command is sent when there is one.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPace;

impl Pace for NoPace {
    fn commands(&self, _count: u32) {}
}
