//! The output of a capture beside a server.

use crate::shared::capture::{Ran, uidls};

impl Ran {
    /// The UIDLs of a user, all being captured.
    pub fn uidls(&self, user: &str) -> Vec<String> {
        assert_eq!(self.status, 0, "{}", self.stderr);
        uidls(self.blocks().iter().find(|block| block.user == user).expect(user))
    }

    /// The UIDL of the first message of the first maildrop, which is there.
    pub fn uidl(&self) -> String {
        assert_eq!(self.status, 0, "{}", self.stderr);
        uidls(&self.blocks()[0]).remove(0)
    }
}
