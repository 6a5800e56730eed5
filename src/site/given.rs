//! Rosters that root gave to one account, which can have written them since.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::site::directory::Site;
use crate::site::roster::Roster;
use crate::site::scope::Scope;
use crate::site::trusted::OpenError;

impl Site {
    /// The largest roster of one account's own, in octets: half a million users.
    pub const MOST_GIVEN_OCTETS: u64 = 64 << 20;

    /// The uid of the account that the roster of a scope was given to, where it is neither root's
    /// nor ours. This account can make lines of anybody, with the right checksums.
    pub fn given_to(&self, scope: &Scope) -> Option<u32> {
        let uid = fs::symlink_metadata(self.paths_of(scope).roster).ok()?.uid();
        (uid != 0 && uid != rustix::process::geteuid().as_raw()).then_some(uid)
    }

    /// Takes those lines out of a roster that are not of its scope: a login finds none of them.
    /// Returns their names.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: could not tell.
    pub fn take_others_out(
        &self,
        scope: &Scope,
        roster: &mut Roster,
    ) -> Result<Vec<String>, OpenError> {
        let mut others = Vec::new();
        for line in roster.lines() {
            if self.scope_of(&line.user)?.as_ref() != Some(scope) {
                others.push(line.user.clone());
            }
        }
        for user in &others {
            roster.remove(user);
        }
        Ok(others)
    }
}
