//! Writes for the operator: results on stdout, remarks on stderr, and the exit status.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use uidl_keep::capture::fleet::JournalError;
use uidl_keep::capture::workers::ThreadStopped;
use uidl_keep::text::on_one_line;

use crate::manners;

/// The result of a command that ran to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completion {
    /// Done, or yes, or the same: exit status 0.
    Done,
    /// No, or not found, or different, or done except for what stderr names: exit status 1.
    Partial,
}

/// The reason why a command could not do its work: one sentence that names place, fact and next
/// step. The exit status is 2, and stdout is not to be trusted.
#[derive(Debug)]
pub struct Trouble(Option<String>);

impl Trouble {
    /// Takes the sentence, without the program's name and without a full stop.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self(Some(sentence.into()))
    }

    /// An error met at a place, which the error itself does not name.
    pub fn at(place: impl fmt::Display, error: impl fmt::Display) -> Self {
        Self(Some(format!("{place}: {error}")))
    }
}

impl From<io::Error> for Trouble {
    /// Takes an error of stdout. For a file, [`Trouble::at`] names the file. A closed pipe is no
    /// trouble: the program ends without a word.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self(None);
        }
        Self::at("standard output", error)
    }
}

impl From<ThreadStopped> for Trouble {
    fn from(error: ThreadStopped) -> Self {
        Self::new(error.to_string())
    }
}

impl From<JournalError> for Trouble {
    fn from(error: JournalError) -> Self {
        Self::new(error.to_string())
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or("standard output: closed"))
    }
}

/// Prints a remark about the work on stderr. A reader that has gone away is not an error.
pub fn remark(sentence: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "uidl-keep: {}", on_one_line(sentence));
}

/// Prints the closing summary of a command, which says what was done, on stderr; with --quiet it
/// does not.
pub fn summary(sentence: impl fmt::Display) {
    if !manners::is_quiet() {
        remark(sentence);
    }
}

/// The exit status of the program. This prints the trouble, if there was any.
pub fn exit_code(outcome: Result<Completion, Trouble>) -> ExitCode {
    match outcome {
        Ok(Completion::Done) => ExitCode::SUCCESS,
        Ok(Completion::Partial) => ExitCode::from(1),
        Err(Trouble(None)) => ExitCode::SUCCESS,
        Err(trouble) => {
            remark(trouble);
            ExitCode::from(2)
        }
    }
}
