//! The settings of a site: [`SiteSettings`]. `docs/settings.md` describes the file.
//!
//! ```text
//! uidl-keep-settings 1
//! match file message header
//! @example.com match file message header origin
//! ```
//!
//! The plugin reads them at each login of a user who is on a roster, and the helper reads the same
//! file. What cannot be understood is an error, and never the default.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::key::Match;
use crate::site::directory::Site;
use crate::site::remedy::Remedy;
use crate::site::scope::Scope;

/// What counts for one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// `match`: the keys that may match.
    pub keys: Match,
    /// `bake`: whether a first listing is also written where Dovecot keeps such things.
    pub bake: bool,
    /// `order`: whether the old order is kept.
    pub order: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { keys: Match::default(), bake: true, order: true }
    }
}

/// The settings of a site: those of all users, and those of single domains.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SiteSettings {
    all: SaidSettings,
    domains: BTreeMap<String, SaidSettings>,
}

/// What lines say for all users, or for those of one domain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct SaidSettings {
    keys: Option<Match>,
    bake: Option<bool>,
    order: Option<bool>,
}

/// The reason why there is no telling what the settings are.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// It does not begin as settings do.
    #[error("the first line is not \"{HEADER}\"")]
    NotSettings,
    /// It has another version.
    #[error("settings of version {found}, and only version {VERSION} is read")]
    Version {
        /// Its version.
        found: u32,
    },
    /// A line is none, or says what another line has said.
    #[error("line {number}: {what}")]
    Line {
        /// The number of the line, from 1.
        number: usize,
        /// The fault.
        what: String,
    },
    /// It could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Remedy for SettingsError {
    fn remedy(&self) -> &'static str {
        match self {
            Self::Version { .. } => "use the uidl-keep that it was written for",
            Self::Io(error) => error.remedy(),
            Self::NotSettings | Self::Line { .. } => {
                "correct it as uidl-keep(1) says, beside itself, and rename it into place"
            }
        }
    }
}

/// The version of the form that is read.
const VERSION: u32 = 1;
const HEADER_OF_ANY_VERSION: &str = "uidl-keep-settings ";
const HEADER: &str = "uidl-keep-settings 1";
/// More than the settings of ten thousand domains.
const MOST_OCTETS: u64 = 1 << 20;
/// So much of a word that is wrong is shown.
const MOST_SHOWN: usize = 60;
const KEYS: [&str; 4] = ["file", "message", "header", "origin"];

impl SiteSettings {
    /// Reads the text of a settings file.
    ///
    /// # Errors
    ///
    /// [`SettingsError`], which names the line.
    pub fn parse(octets: &[u8]) -> Result<Self, SettingsError> {
        let Some(text) = octets.strip_suffix(b"\n") else {
            let number = octets.split(|octet| *octet == b'\n').count();
            return Err(match octets.starts_with(HEADER_OF_ANY_VERSION.as_bytes()) {
                true => fault(number, "the line has no end: the file was cut short"),
                false => SettingsError::NotSettings,
            });
        };
        let mut lines = (1..).zip(text.split(|octet| *octet == b'\n'));
        let (_, header) = lines.next().expect("split gives one at least");
        check_header(header)?;
        let mut settings = Self::default();
        let mut said_in = BTreeMap::new();
        for (number, line) in lines {
            let line = std::str::from_utf8(line)
                .map_err(|_| fault(number, format_args!("{} is not UTF-8", shown(line))))?;
            let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty()).peekable();
            let domain = match words.peek() {
                Some(word) if !word.starts_with('#') => words.next_if(|word| word.starts_with('@')),
                _ => continue,
            };
            let said = match domain {
                Some(word) => settings.domains.entry(domain_of(number, word)?).or_default(),
                None => &mut settings.all,
            };
            let name = words.next().unwrap_or_default();
            let values: Vec<&str> = words.collect();
            match name {
                "match" => said.keys = Some(keys_of(number, &values)?),
                "bake" => said.bake = Some(yes_or_no(number, name, &values)?),
                "order" => said.order = Some(yes_or_no(number, name, &values)?),
                _ => {
                    let name = shown(name.as_bytes());
                    let what = format!("{name} is no setting: there are match, bake, order");
                    return Err(fault(number, what));
                }
            }
            if let Some(first) = said_in.insert((domain, name), number) {
                return Err(fault(number, format_args!("{name} is said in line {first} already")));
            }
        }
        Ok(settings)
    }

    /// What counts for a user. A line of his domain goes before one of all users, wherever it
    /// stands.
    pub fn of(&self, user: &str) -> Settings {
        self.of_domain(user.rsplit_once('@').map(|(_, domain)| domain))
    }

    /// What counts for the users of a domain; `None`: for those without a domain.
    pub fn of_domain(&self, domain: Option<&str>) -> Settings {
        let own = domain.and_then(|domain| self.domains.get(domain)).copied().unwrap_or_default();
        let default = Settings::default();
        Settings {
            keys: own.keys.or(self.all.keys).unwrap_or(default.keys),
            bake: own.bake.or(self.all.bake).unwrap_or(default.bake),
            order: own.order.or(self.all.order).unwrap_or(default.order),
        }
    }

    /// Reads a file, whoever may write it: one that is not in a site yet.
    ///
    /// # Errors
    ///
    /// As [`Site::settings`].
    pub fn read(path: &Path) -> Result<Self, String> {
        let read = File::open(path).map_err(SettingsError::Io).and_then(Self::of_file);
        read.map_err(|why| fault_at(path, &why))
    }

    fn of_file(file: File) -> Result<Self, SettingsError> {
        let mut octets = Vec::new();
        file.take(MOST_OCTETS + 1).read_to_end(&mut octets)?;
        if octets.len() as u64 > MOST_OCTETS {
            let error = format!("larger than {MOST_OCTETS} octets");
            return Err(io::Error::new(io::ErrorKind::InvalidData, error).into());
        }
        Self::parse(&octets)
    }

    /// The same settings, where nothing is left to the defaults.
    pub fn with_defaults(self) -> Self {
        let Settings { keys, bake, order } = self.of_domain(None);
        let all = SaidSettings { keys: Some(keys), bake: Some(bake), order: Some(order) };
        Self { all, ..self }
    }

    /// The domains that have lines of their own, in order.
    pub fn domains(&self) -> impl Iterator<Item = &str> {
        self.domains.keys().map(String::as_str)
    }

    /// A text that is read as the same settings.
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEADER}\n");
        let own = self.domains.iter().map(|(domain, said)| (format!("@{domain} "), said));
        for (domain, said) in [(String::new(), &self.all)].into_iter().chain(own) {
            // Writing to a String cannot fail.
            if let Some(keys) = said.keys {
                let _ = writeln!(text, "{domain}match {}", words_of(keys));
            }
            for (name, value) in [("bake", said.bake), ("order", said.order)] {
                if let Some(value) = value {
                    let _ = writeln!(text, "{domain}{name} {}", yes_or_no_of(value));
                }
            }
        }
        text
    }
}

impl Settings {
    /// The three lines that say this for all users.
    pub fn to_lines(self) -> String {
        let Self { keys, bake, order } = self;
        let (bake, order) = (yes_or_no_of(bake), yes_or_no_of(order));
        format!("match {}\nbake {bake}\norder {order}\n", words_of(keys))
    }
}

impl Site {
    /// The path of its settings.
    pub fn settings_path(&self) -> PathBuf {
        self.dir().join("settings")
    }

    /// Its settings. Where it has no such file, they are the defaults. Cost: an open, which mostly
    /// fails, and then one of the directory.
    ///
    /// # Errors
    ///
    /// Could not tell: a sentence that names place, fact and next step.
    pub fn settings(&self) -> Result<SiteSettings, String> {
        let path = self.settings_path();
        match self.open(&path, MOST_OCTETS).map_err(|why| fault_at(&path, &why))? {
            Some(file) => SiteSettings::of_file(file).map_err(|why| fault_at(&path, &why)),
            None => Ok(SiteSettings::default()),
        }
    }
}

fn fault_at(path: &Path, why: &dyn Remedy) -> String {
    format!("{}: {why}; {}", path.display(), why.remedy())
}

fn check_header(line: &[u8]) -> Result<(), SettingsError> {
    if line == HEADER.as_bytes() {
        return Ok(());
    }
    let version = line.strip_prefix(HEADER_OF_ANY_VERSION.as_bytes());
    let version = version.and_then(|version| std::str::from_utf8(version).ok()?.parse().ok());
    Err(match version {
        Some(found) if found != VERSION => SettingsError::Version { found },
        _ => SettingsError::NotSettings,
    })
}

fn domain_of(number: usize, word: &str) -> Result<String, SettingsError> {
    let domain = word.trim_start_matches('@');
    match Scope::of(word) {
        Some(Scope::Domain(_)) if word.len() == domain.len() + 1 && !domain.contains('@') => {
            Ok(domain.to_owned())
        }
        _ => Err(fault(number, format_args!("{} is no domain", shown(word.as_bytes())))),
    }
}

fn keys_of(number: usize, words: &[&str]) -> Result<Match, SettingsError> {
    if words.is_empty() {
        return Err(fault(number, "match names no key: it takes file, message, header, origin"));
    }
    let mut keys = Match::NONE;
    for word in words {
        let key = match *word {
            "file" => &mut keys.file,
            "message" => &mut keys.message,
            "header" => &mut keys.header,
            "origin" => &mut keys.origin,
            _ => {
                let word = shown(word.as_bytes());
                let what = format!(
                    "{word} is no key: match takes file, message, header, origin, with blanks \
                     between them"
                );
                return Err(fault(number, what));
            }
        };
        if std::mem::replace(key, true) {
            return Err(fault(number, format_args!("match names {word} twice")));
        }
    }
    Ok(keys)
}

fn yes_or_no(number: usize, name: &str, values: &[&str]) -> Result<bool, SettingsError> {
    match values {
        ["yes"] => Ok(true),
        ["no"] => Ok(false),
        _ => {
            let said = shown(values.join(" ").as_bytes());
            Err(fault(number, format_args!("{name} takes yes or no, and not {said}")))
        }
    }
}

fn words_of(keys: Match) -> String {
    let Match { file, message, header, origin } = keys;
    let is_named = [file, message, header, origin];
    let words = KEYS.iter().zip(is_named).filter(|(_, is_named)| *is_named);
    words.map(|(word, _)| *word).collect::<Vec<_>>().join(" ")
}

fn yes_or_no_of(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

fn fault(number: usize, what: impl std::fmt::Display) -> SettingsError {
    SettingsError::Line { number, what: what.to_string() }
}

/// A word of the file, as a line of a log can show it.
fn shown(word: &[u8]) -> String {
    let more = if word.len() > MOST_SHOWN { "..." } else { "" };
    format!("\"{}{more}\"", word[..word.len().min(MOST_SHOWN)].escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn parsed(lines: &str) -> SiteSettings {
        SiteSettings::parse(format!("{HEADER}\n{lines}").as_bytes()).unwrap()
    }

    fn refused(text: impl AsRef<[u8]>) -> String {
        SiteSettings::parse(text.as_ref()).unwrap_err().to_string()
    }

    #[test]
    fn what_is_too_long_is_refused_and_not_read_in_part() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut text = format!("{HEADER}\n");
        text += &"#\n".repeat((MOST_OCTETS as usize - text.len()) / 2);
        text.insert(text.len() - 1, '#');
        assert_eq!(text.len() as u64, MOST_OCTETS);
        std::fs::write(&file, &text).unwrap();
        assert_eq!(SiteSettings::read(file.path()), Ok(SiteSettings::default()));
        std::fs::write(&file, text + "bake no\n").unwrap();
        let why = SiteSettings::read(file.path()).unwrap_err();
        assert!(why.contains("larger than 1048576 octets"), "{why}");
    }

    #[test]
    fn a_line_of_a_domain_goes_before_one_of_all_wherever_it_stands() {
        let settings = parsed(
            "# What we kept for a while.\n\
             @example.com match file message header origin\n\
             \n\
             match  file\theader\n\
             \x20 # bake no\n\
             @example.net bake no\n\
             order no\n",
        );
        let keys = |user| settings.of(user).keys;
        let all = Match { file: true, message: true, header: true, origin: true };
        assert_eq!(keys("alice@example.com"), all);
        let two = Match { file: true, header: true, ..Match::NONE };
        for user in ["alice", "bob@example.net", "a@example.com@example.org", "example.com"] {
            assert_eq!(keys(user), two, "{user}");
        }
        let bakes = |user| settings.of(user).bake;
        assert!(bakes("alice@example.com") && bakes("alice") && !bakes("bob@example.net"));
        assert!(!settings.of("alice@example.com").order);
        assert!(settings.domains().eq(["example.com", "example.net"]));
    }

    #[test]
    fn nothing_said_is_the_default() {
        assert_eq!(parsed("").of("alice@example.com"), Settings::default());
        let lines = "match file message header\nbake yes\norder yes\n";
        assert_eq!(Settings::default().to_lines(), lines);
        let own = parsed("@example.com bake no\n").with_defaults();
        assert_eq!(own.to_text(), format!("{HEADER}\n{lines}@example.com bake no\n"));
        assert!(own.of("a@example.com") != own.of("a@example.net"));
    }

    #[test]
    fn whatever_is_not_understood_is_an_error_that_names_the_line() {
        for (lines, why) in [
            ("match file uid\n", "line 2: \"uid\" is no key"),
            ("match file,header\n", "line 2: \"file,header\" is no key"),
            ("match\n", "line 2: match names no key"),
            ("match file header file\n", "line 2: match names file twice"),
            ("\n\nbake\n", "line 4: bake takes yes or no, and not \"\""),
            ("bake Yes\n", "line 2: bake takes yes or no, and not \"Yes\""),
            ("order no # for a day\n", "line 2: order takes yes or no, and not \"no # for"),
            ("order no\r\n", "line 2: order takes yes or no, and not \"no\\r\""),
            ("dir /srv\n", "line 2: \"dir\" is no setting"),
            ("@example.com\n", "line 2: \"\" is no setting"),
            ("@ bake no\n", "line 2: \"@\" is no domain"),
            ("@a@b bake no\n", "line 2: \"@a@b\" is no domain"),
            ("@@a bake no\n", "line 2: \"@@a\" is no domain"),
            ("@a/b bake no\n", "line 2: \"@a/b\" is no domain"),
            ("alice@example.com bake no\n", "line 2: \"alice@example.com\" is no setting"),
            ("bake no\n# 3\nbake no\n", "line 4: bake is said in line 2 already"),
            ("@a bake no\n@a bake yes\n", "line 3: bake is said in line 2 already"),
            ("bake no", "line 2: the line has no end"),
            ("#", "line 2: the line has no end"),
        ] {
            let said = refused(format!("{HEADER}\n{lines}"));
            assert!(said.starts_with(why), "{lines:?}: {said}");
        }
        let said = refused(b"uidl-keep-settings 1\nbake \xff\n");
        assert!(said.contains("line 2: \"bake \\xff\" is not UTF-8"), "{said}");
        for text in ["", "\n", "bake no\n", "uidl-keep-settings\n", "uidl-keep-settings 1 \n"] {
            assert!(refused(text).starts_with("the first line is not"), "{text:?}");
        }
        assert!(refused(HEADER).contains("cut short"));
        assert!(refused("uidl-keep-settings 2\nmay be\n").contains("version 2"));
        assert!(refused(format!("{HEADER}\n{}\n", "x".repeat(5000))).len() < 200);
    }

    fn said() -> impl Strategy<Value = SaidSettings> {
        let keys = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
        let keys = keys.prop_filter_map("none", |(file, message, header, origin)| {
            let keys = Match { file, message, header, origin };
            (keys != Match::NONE).then_some(keys)
        });
        let parts = (proptest::option::of(keys), any::<Option<bool>>(), any::<Option<bool>>());
        parts.prop_map(|(keys, bake, order)| SaidSettings { keys, bake, order })
    }

    proptest! {
        #[test]
        fn settings_are_read_as_they_are_written(
            all in said(),
            domains in proptest::collection::btree_map("[a-z0-9][a-z0-9.-]{0,20}", said(), 0..5),
        ) {
            let written = SiteSettings { all, domains };
            let text = written.to_text();
            let read = SiteSettings::parse(text.as_bytes()).unwrap();
            for user in written.domains().map(|domain| format!("a@{domain}")).chain(["a".into()]) {
                prop_assert_eq!(read.of(&user), written.of(&user), "{}", text);
            }
            prop_assert_eq!(read.to_text(), text);
        }

        #[test]
        fn a_file_that_was_cut_short_is_settings_only_at_the_end_of_a_line(
            all in said(), cut in 0usize..200,
        ) {
            let settings = SiteSettings { all, domains: BTreeMap::new() };
            let text = settings.to_text();
            let short = &text[..cut.min(text.len())];
            prop_assert_eq!(SiteSettings::parse(short.as_bytes()).is_ok(), short.ends_with('\n'));
        }
    }
}
