//! The corpus of the fuzz targets, and every input that once broke something, without libFuzzer.

use std::fs;
use std::path::{Path, PathBuf};

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
