//! The paths below a directory.

use std::fs;
use std::path::{Path, PathBuf};

/// Every path below a directory, sorted, the directories among them. Links are not followed.
pub fn below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut next = vec![dir.to_owned()];
    while let Some(dir) = next.pop() {
        let entries = fs::read_dir(&dir).unwrap_or_else(|why| panic!("{}: {why}", dir.display()));
        for entry in entries {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("a type").is_dir() {
                next.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found.sort();
    found
}
