//! File names in a Maildir: qmail's UIDLs, and the keys that every capture takes from a name.

use uidl_keep::capture::disk::maildir::{base_name, octets_in_name};
use uidl_keep::capture::disk::qmail::plan;
use uidl_keep::key::FileKey;

use super::{check_plan, snapshot};

/// File names, one on each line.
pub fn check(octets: &[u8]) {
    let snapshot = snapshot(None, octets);
    let plan = plan(&snapshot);
    for pair in plan.entries.windows(2) {
        assert!(snapshot.messages[pair[0].at].mtime <= snapshot.messages[pair[1].at].mtime);
    }
    for entry in &plan.entries {
        assert_eq!(entry.uidl.as_bytes(), &*snapshot.messages[entry.at].base);
    }
    check_plan(plan, &snapshot);
    for message in &snapshot.messages {
        let base = &*message.base;
        assert_eq!(base_name(base), base);
        assert!(message.name.starts_with(base) && !base.contains(&b':'));
        // Flags come and go.
        assert_eq!(FileKey::of_name(&message.name), FileKey::of_name(base));
        assert_eq!(FileKey::of_name(&[base, b":2,FS"].concat()), FileKey::of_name(base));
        // Sizes come and go too, but only the whole name shows them.
        let sized = [base, b",S=7,W=9"].concat();
        assert_eq!(FileKey::of_name(&sized).cut, FileKey::of_name(base).cut);
        if octets_in_name(base).is_none() && !base.contains(&b',') {
            assert_eq!(octets_in_name(&sized), Some(9));
        }
    }
}
