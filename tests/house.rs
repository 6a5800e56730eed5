//! The rules of the house, held against every line of the source: which room may know which, that a
//! name means one thing, where `unsafe` may stand, and how long a line is.
//!
//! This needs nothing of ours, so that `make check` compiles it alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms of `src/` that a room may know: the arrows of docs/design.md. A room that is not here
/// is never known: a capture knows no index, the plugin no capture, and the rules and the formats
/// no files.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("uidl", &[]),
    ("encoding", &[]),
    ("text", &[]),
    ("backoff", &[]),
    ("abi", &[]),
    ("account", &[]),
    ("format", &["encoding", "uidl"]),
    ("key", &["encoding"]),
    ("maildrop", &["format", "key", "uidl"]),
    ("listing", &["encoding", "format", "key", "maildrop", "text", "uidl"]),
    ("file", &[]),
    ("index", &["encoding", "file", "format", "key", "maildrop", "uidl"]),
    ("ledger", &["encoding", "file", "format", "key", "maildrop", "uidl"]),
    ("resolve", &["format", "key", "ledger", "maildrop", "uidl"]),
    ("site", &["encoding", "file", "index", "key", "maildrop"]),
    ("dovecot", &["abi", "site", "text"]),
    (
        "capture",
        &[
            "account", "backoff", "encoding", "file", "format", "key", "ledger", "listing",
            "maildrop", "text", "uidl",
        ],
    ),
    ("way_back", &["capture", "maildrop", "site", "uidl"]),
    ("late", &["capture", "key", "ledger", "maildrop", "site", "text", "uidl"]),
    (
        "forecast",
        &[
            "capture", "dovecot", "encoding", "file", "format", "index", "key", "ledger",
            "maildrop", "resolve", "site", "text", "uidl",
        ],
    ),
    (
        "bake",
        &[
            "capture", "dovecot", "encoding", "file", "forecast", "ledger", "maildrop", "resolve",
            "text", "uidl",
        ],
    ),
    ("rehearsal", &["account", "capture", "dovecot", "maildrop", "text"]),
    ("verify", &["file", "forecast", "format", "index", "maildrop", "site", "uidl"]),
    (
        "status",
        &[
            "bake",
            "capture",
            "dovecot",
            "file",
            "forecast",
            "format",
            "key",
            "ledger",
            "maildrop",
            "rehearsal",
            "resolve",
            "site",
            "text",
            "uidl",
        ],
    ),
    (
        "doctor",
        &[
            "abi", "account", "dovecot", "file", "format", "index", "maildrop", "site", "status",
            "text",
        ],
    ),
    ("report", &["maildrop", "site", "text"]),
    (
        "plugin",
        &[
            "encoding", "file", "format", "index", "key", "ledger", "maildrop", "resolve", "site",
            "uidl",
        ],
    ),
];

/// Rooms, and files of rooms, that are pure: octets in, answers out. They may know
/// `file::read_at`, which is a trait, and nothing else that reaches a system.
const PURE: &[&str] = &[
    "src/uidl.rs",
    "src/encoding.rs",
    "src/format.rs",
    "src/key/",
    "src/maildrop.rs",
    "src/maildrop/",
    "src/listing/",
    "src/index/",
    "src/resolve/",
    "src/ledger/",
];

/// The files of `ledger/` that read and write: the control directory is their work.
const NOT_PURE: &[&str] = &["src/ledger/control.rs", "src/ledger/fingerprint_cache.rs"];

/// The places where `unsafe` may stand.
const UNSAFE: &[&str] = &["src/plugin/", "src/file/map.rs"];

const MOST_COLUMNS: usize = 100;

struct Source {
    /// The path from the top of the project, as `src/site/roster.rs`.
    path: String,
    text: String,
}

impl Source {
    /// The lines that are compiled into the library or the helper, without comments, each with its
    /// number; unit tests stand at the end of a file, and are left out.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().take_while(|line| *line != "#[cfg(test)]");
        let code = lines.map(|line| line.split("//").next().unwrap_or_default());
        (1..).zip(code)
    }

    fn is_helper(&self) -> bool {
        self.path.starts_with("src/bin/")
    }

    /// The module's names from the crate on: `site`, `roster`.
    fn module(&self) -> Vec<&str> {
        let path = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        path.split('/').filter(|name| *name != "mod").collect()
    }
}

/// Every file that is kept, below these directories or of these names.
fn sources(ends: &[&str], below: &[&str]) -> Vec<Source> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut left: Vec<PathBuf> = below.iter().map(|name| top.join(name)).collect();
    let mut sources = Vec::new();
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let name = path.strip_prefix(top).unwrap().to_str().unwrap().to_owned();
        let is_kept = !name.starts_with("fuzz/target") && !name.starts_with("tests/data");
        if is_kept && ends.iter().any(|end| name.ends_with(end)) {
            sources.push(Source { path: name, text: fs::read_to_string(&path).unwrap() });
        }
    }
    assert!(!sources.is_empty(), "nothing was read below {below:?}");
    sources.sort_by(|one, other| one.path.cmp(&other.path));
    sources
}

fn rust_sources() -> Vec<Source> {
    sources(&[".rs"], &["src"])
}

fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Every path that begins with `crate::`, as its names; `use` of several names is several paths.
fn crate_paths(code: &str) -> Vec<Vec<String>> {
    let is_of_path = |char: char| char.is_alphanumeric() || "_:".contains(char);
    let mut paths = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let end = rest.find(|char| !is_of_path(char)).unwrap_or(rest.len());
        let base: Vec<String> =
            rest[..end].split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let group = rest[end..].strip_prefix('{').filter(|_| rest[..end].ends_with("::"));
        match group.and_then(|group| group.split_once('}')) {
            // This house's style has no nested groups.
            Some((names, _)) => {
                for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                    let names = name.split(" as ").next().unwrap_or_default().split("::");
                    paths.push(base.iter().cloned().chain(names.map(str::to_owned)).collect());
                }
            }
            None => paths.push(base),
        }
    }
    paths
}

fn code_of(source: &Source) -> String {
    source.code().map(|(_, line)| format!("{line}\n")).collect()
}

#[test]
fn a_room_knows_only_the_rooms_that_it_may() {
    let rooms: BTreeMap<_, _> = MAY_KNOW.iter().copied().collect();
    let mut seen = BTreeSet::new();
    let mut faults = Vec::new();
    for source in rust_sources().iter().filter(|source| !source.is_helper()) {
        let room = source.module()[0].to_owned();
        if room == "lib" {
            continue;
        }
        let Some(may_know) = rooms.get(room.as_str()) else {
            faults.push(format!("{}: no room of MAY_KNOW: say what it may know", source.path));
            continue;
        };
        for path in crate_paths(&code_of(source)) {
            let known = path[0].as_str();
            if known != room && !may_know.contains(&known) {
                faults.push(format!("{}: {room} may not know {known}", source.path));
            }
        }
        seen.insert(room);
    }
    for (room, _) in MAY_KNOW {
        if !seen.contains(*room) {
            faults.push(format!("there is no room {room}: take it out of MAY_KNOW"));
        }
    }
    assert_none(&faults);
}

#[test]
fn the_rules_and_the_formats_know_no_files() {
    let systems = ["std::fs", "std::process", "std::net", "rustix", "libc", "memmap2", "std::env"];
    let mut faults = Vec::new();
    let is_pure = |source: &&Source| {
        PURE.iter().any(|place| source.path.starts_with(place))
            && !NOT_PURE.contains(&source.path.as_str())
    };
    for source in rust_sources().iter().filter(is_pure) {
        for (number, line) in source.code() {
            for system in systems.iter().filter(|system| line.contains(*system)) {
                faults.push(format!("{}:{number}: {system} in what is pure", source.path));
            }
        }
        for path in crate_paths(&code_of(source)) {
            if path[0] == "file" && path.get(1).is_some_and(|module| module != "read_at") {
                faults.push(format!("{}: file::{} in what is pure", source.path, path[1]));
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn nothing_is_imported_from_a_module_above() {
    let all = rust_sources();
    let modules: BTreeSet<Vec<String>> =
        all.iter().map(|it| it.module().into_iter().map(str::to_owned).collect()).collect();
    let mut faults = Vec::new();
    for source in all.iter().filter(|source| !source.is_helper()) {
        let own: Vec<String> = source.module().into_iter().map(str::to_owned).collect();
        for path in crate_paths(&code_of(source)) {
            let above = path.len().saturating_sub(1);
            let is_above = above > 0 && above < own.len() && own[..above] == path[..above];
            if is_above && !modules.contains(&path) {
                let path = path.join("::");
                faults.push(format!("{}: crate::{path} is an item of a module above", source.path));
            }
        }
        for (number, line) in source.code().filter(|(_, line)| line.contains("super::")) {
            let rest = line.split("super::").last().unwrap_or_default();
            if rest.starts_with(|char: char| char.is_uppercase() || char == '*') {
                faults.push(format!("{}:{number}: an item of a module above", source.path));
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn a_type_name_means_one_thing() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in rust_sources() {
        for (number, line) in source.code() {
            let code = line.trim_start();
            let is_indented = code.len() < line.len();
            let code = code.strip_prefix("pub").map_or(code, |rest| {
                let rest = rest.strip_prefix('(').and_then(|rest| rest.split_once(')'));
                rest.map_or(&code[3..], |(_, rest)| rest).trim_start()
            });
            let Some((kind, rest)) = code.split_once(' ') else { continue };
            // An associated type is the trait's.
            let is_type = matches!(kind, "struct" | "enum" | "union" | "trait")
                || kind == "type" && !is_indented;
            if is_type {
                let is_of_name = |char: char| char.is_alphanumeric() || char == '_';
                let end = rest.find(|char| !is_of_name(char)).unwrap_or(rest.len());
                let place = format!("{}:{number}", source.path);
                places.entry(rest[..end].to_owned()).or_default().push(place);
            }
        }
    }
    assert!(places.len() > 200, "only {} types were found", places.len());
    let twice = places.iter().filter(|(_, places)| places.len() > 1);
    let faults: Vec<_> =
        twice.map(|(name, places)| format!("{name}: {}", places.join(", "))).collect();
    assert_none(&faults);
}

#[test]
fn unsafe_stands_where_it_may_and_nowhere_else() {
    let mut faults = Vec::new();
    for source in rust_sources() {
        if UNSAFE.iter().any(|place| source.path.starts_with(place)) {
            continue;
        }
        for (number, line) in source.code() {
            let is_word = |word: &str| word == "unsafe" || word == "unsafe_code";
            let mut words = line.split(|char: char| !char.is_alphanumeric() && char != '_');
            if words.any(is_word) && !line.contains("forbid(unsafe_code)") {
                faults.push(format!("{}:{number}: {line}", source.path));
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn no_line_is_longer_than_a_hundred_columns() {
    let below = ["src", "tests", "fuzz/src", "benches", "dovecot-plugin", "build.rs", "Makefile"];
    let mut faults = Vec::new();
    for source in sources(&[".rs", ".c", ".h", ".sh", "Makefile"], &below) {
        for (number, line) in (1..).zip(source.text.lines()) {
            let columns = line.chars().count();
            if columns > MOST_COLUMNS {
                faults.push(format!("{}:{number}: {columns} columns", source.path));
            }
        }
    }
    assert_none(&faults);
}
