//! Patterns, templates and renames, as an operator writes them.

use uidl_keep::capture::find::naming::Naming;
use uidl_keep::capture::find::pattern::Pattern;
use uidl_keep::capture::find::source::Holds;

use super::{check_message, parts};

/// A pattern, a template and a file of renames, apart by a NUL.
pub fn check(octets: &[u8]) {
    let [pattern, template, renames] = parts::<3>(octets).map(String::from_utf8_lossy);
    let naming = match Naming::new(Some(&template).filter(|it| !it.is_empty()).map(|it| &**it)) {
        Ok(mut naming) => {
            match naming.read_renames(&renames) {
                Ok(()) => assert!(naming.renames().len() <= renames.lines().count()),
                Err(error) => {
                    assert!(error.line <= renames.lines().count());
                    check_message(error);
                }
            }
            naming
        }
        Err(_) => Naming::default(),
    };
    let Ok(pattern) = pattern.parse::<Pattern>() else { return };
    for holds in [Holds::Directory, Holds::CyrusMailbox, Holds::File] {
        // Cyrus says itself whose a mailbox is: it can be named wherever another can.
        let is_named = naming.check(&pattern, holds).is_ok();
        assert!(!is_named || naming.check(&pattern, Holds::CyrusMailbox).is_ok());
    }
}
