//! The closing summary of a capture: [`CaptureSummary`].

use std::path::Path;

use indicatif::HumanCount;

use super::block::Block;
use crate::output::summary;

/// What was captured.
#[derive(Default)]
pub struct CaptureSummary {
    captured: usize,
    /// Maildrops of which no client holds a UIDL.
    empty: usize,
    failed: usize,
    messages: usize,
    /// Maildrops that an earlier run captured.
    before: usize,
}

impl CaptureSummary {
    /// Counts a maildrop.
    pub fn add(&mut self, block: &Block) {
        let of_its_kind = match (block.has_failed, block.is_empty) {
            (true, _) => &mut self.failed,
            (_, true) => &mut self.empty,
            _ => &mut self.captured,
        };
        *of_its_kind += 1;
        self.messages += block.messages;
    }

    /// Counts maildrops that an earlier run captured.
    pub fn add_before(&mut self, maildrops: usize) {
        self.before += maildrops;
    }

    /// Says it, and where the listing is; `None` is stdout.
    pub fn say(&self, output: Option<&Path>) {
        let Self { captured, empty, failed, messages, before } = *self;
        let before = match before {
            0 => String::new(),
            before => format!(", {} by an earlier run", HumanCount(before as u64)),
        };
        let place = output.filter(|place| *place != Path::new("-"));
        let place = place.map_or("standard output".into(), |place| place.display().to_string());
        summary(format_args!(
            "{} captured, {} never polled, {} failed, {} messages{before} -> {place}",
            HumanCount(captured as u64),
            HumanCount(empty as u64),
            HumanCount(failed as u64),
            HumanCount(messages as u64),
        ));
    }
}
