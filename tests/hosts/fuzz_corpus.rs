//! The corpus of the fuzz targets, and every input that once broke something, without libFuzzer.

use std::fs;
use std::path::{Path, PathBuf};

use uidl_keep::index::Index;
use uidl_keep::ledger::Ledger;
use uidl_keep::site::roster::Roster;

use crate::fuzz;

/// The inputs below `fuzz/KIND/TARGET`, sorted.
fn inputs(kind: &str, target: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kind).join(target);
    let Ok(entries) = fs::read_dir(&dir) else { return Vec::new() };
    let mut inputs: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    inputs.sort();
    inputs
}

#[test]
fn whatever_fuzzing_found_still_holds() {
    for (target, check) in fuzz::TARGETS {
        let corpus = inputs("corpus", target);
        assert!(!corpus.is_empty(), "no corpus of {target}");
        for input in corpus.into_iter().chain(inputs("regressions", target)) {
            // This is shown when a check panics.
            println!("{}", input.display());
            check(&fs::read(&input).unwrap());
        }
    }
}

/// A seed from before a form was changed would lead the fuzzer nowhere.
#[test]
fn seeds_are_of_the_forms_of_today() {
    let seed = |target: &str, name: &str| {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        fs::read(dir.join(target).join(name)).unwrap()
    };
    for name in ["n0", "n1", "n5", "n40", "settled", "unclaimed"] {
        assert_eq!(Ledger::decode(&seed("ledger", name)).map(|_| ()), Ok(()), "{name}");
    }
    for name in ["empty", "one", "small", "every-field"] {
        let verified = Index::open(&seed("index", name)[..]).and_then(|index| index.verify());
        assert!(verified.is_ok(), "{name}: {verified:?}");
    }
    for name in ["n0", "n1", "n3", "n400"] {
        let read = Roster::read(&seed("roster", name)[..]);
        assert!(read.is_ok(), "{name}: {read:?}");
    }
}
