//! The output of doveadm, in JSON.

use std::collections::BTreeMap;

use uidl_keep::capture::doveadm::{DoveadmRequest, read};
use uidl_keep::capture::keys::Keys;
use uidl_keep::format::UidlFormat;
use uidl_keep::listing::{Reader, write_maildrop};
use uidl_keep::maildrop::State;

use super::{check_message, check_uidl};

/// The input as it is.
pub fn check(octets: &[u8]) {
    for user in [None, Some("bob".to_owned())] {
        let asked = DoveadmRequest {
            user,
            users: vec!["alice".to_owned()],
            format: UidlFormat::parse("%v.%u").expect("a format"),
            keys: Keys { origin: true, ..Keys::default() },
            control: BTreeMap::new(),
        };
        let mut users = Vec::new();
        let mut listing = Vec::new();
        let all = read(octets, &asked, &mut |captured| {
            let maildrop = captured.maildrop;
            assert!(maildrop.state != State::Failed || maildrop.entries.is_empty());
            for uidl in maildrop.entries.iter().map(|entry| &entry.uidl).chain(&maildrop.spent) {
                check_uidl(uidl.as_bytes());
            }
            captured.losses.iter().for_each(check_message);
            // A value that no listing can hold, such as a user name of control characters, is
            // reported elsewhere.
            let mut block = Vec::new();
            if write_maildrop(&mut block, &maildrop).is_ok() {
                listing.extend(block);
            }
            users.push(maildrop.user);
            Ok(())
        });
        match all {
            Ok(()) => {
                assert!(users.contains(&"alice".to_owned()), "somebody is not spoken of");
                let blocks = users.len();
                users.sort();
                users.dedup();
                assert_eq!(users.len(), blocks, "somebody comes twice");
            }
            Err(error) => check_message(error),
        }
        if !listing.is_empty() {
            assert!(Reader::new(&listing[..]).all(|block| block.is_ok()), "nobody can read that");
        }
    }
}
