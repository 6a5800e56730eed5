//! Who tells what the old server lists of a maildrop: [`Witness`].
#![forbid(unsafe_code)]

use std::fmt;
use std::time::Duration;

use crate::capture::find::source::Source;
use crate::capture::prove::program::Program;

/// How long a witness waits for an answer.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Somebody who tells what the old server lists. Its text says who that is.
pub trait Witness: fmt::Display {
    /// Whether it can be asked about this maildrop.
    fn can_tell(&self, source: &Source) -> bool;

    /// The UIDLs that the old server lists, in its order.
    ///
    /// # Errors
    ///
    /// Why there is no listing, a sentence for people.
    fn listing(&self, source: &Source) -> Result<Vec<Box<[u8]>>, String>;
}

impl Witness for Program {
    fn can_tell(&self, _: &Source) -> bool {
        true
    }

    fn listing(&self, source: &Source) -> Result<Vec<Box<[u8]>>, String> {
        let listed = self.listing(source, PATIENCE).map_err(|error| error.to_string())?;
        Ok(listed.into_iter().map(|listed| listed.uidl).collect())
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}
