//! Whether the messages of a mailbox still have the names that they were listed under, all at once:
//! [`ListedNames`].
#![forbid(unsafe_code)]

use super::checksum::{CHECKSUM_OCTETS, Checksum};

/// The octets that are hashed at a time: many cost much less than a few.
const RUN_OCTETS: usize = 16 << 10;

/// A digest of UID and name of all messages of a Maildir that a listing tells of, ascending by UID.
///
/// The front of a ledger has it behind its checksum. Where that of now is the same, so are all
/// names, and none need be compared alone. Where it is another, or there is none, nothing is said:
/// a message may have gone.
#[derive(Clone)]
pub struct ListedNames {
    checksum: Checksum,
    run: Vec<u8>,
}

impl Default for ListedNames {
    /// No message.
    fn default() -> Self {
        Self { checksum: Checksum::new(), run: Vec::new() }
    }
}

impl ListedNames {
    /// Adds a message by its UID and its name as
    /// [`FileKey::until_cut`](crate::key::FileKey::until_cut) gives it. It has no NUL.
    pub fn add(&mut self, uid: u32, name: &[u8]) {
        self.run.extend(uid.to_le_bytes());
        self.run.extend(name);
        self.run.push(0);
        if self.run.len() >= RUN_OCTETS {
            self.checksum.add(&self.run);
            self.run.clear();
        }
    }

    /// The digest of those that were added so far.
    pub fn digest(&self) -> [u8; CHECKSUM_OCTETS] {
        let mut all = self.checksum.clone();
        all.add(&self.run);
        all.octets()
    }
}
