//! Where maildrops lie, as an operator writes it: a [`Pattern`] such as
//! `/srv/vmail/{domain}/{local}/Maildir`.
//!
//! A name that can be read in two ways, as `anna-lena-2019` by `{local}-{stamp}`, is nobody's: each
//! user that it may be of has a maildrop that could not be captured, until a variable is given a
//! form, as in `{stamp:[0-9]+}`.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use regex_lite::Regex;

/// Where maildrops lie and who uses them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// The directory names up to the first variable.
    pub(super) start: PathBuf,
    /// The names below it.
    pub(super) names: Vec<Vec<Piece>>,
    /// A panel's own: a `{domain}` has a dot, and an account's directory need not be a Maildir.
    pub(super) is_panel: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Literal(Vec<u8>),
    /// Its name, and the form of what it stands for.
    Variable(String, Option<Form>),
    /// `*`: any name, and no part of the user's.
    Any,
    /// `?`: a name of one octet, as a server splits large directories.
    Split,
}

/// The form of a variable: a regular expression for all that it stands for.
#[derive(Debug, Clone)]
pub(super) struct Form(Regex);

impl Form {
    fn new(text: &str) -> Result<Self, BadPattern> {
        // The text must be an expression by itself: inside ours, a brace too many could find a
        // partner.
        let regex = Regex::new(text).and_then(|_| Regex::new(&format!("^(?:{text})$")));
        regex.map(Self).map_err(|error| BadPattern::Form(text.to_owned(), error.to_string()))
    }

    fn is_of(&self, value: &str) -> bool {
        self.0.is_match(value)
    }
}

impl PartialEq for Form {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Form {}

/// Why a text is not a pattern, a template or a list of names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadPattern {
    /// It must start at the root.
    #[error("pattern {0:?} does not start with /")]
    Relative(String),
    /// Nothing varies in it.
    #[error("pattern {0:?} has no variable such as {{domain}} or {{local}}")]
    Fixed(String),
    /// A brace without its partner, or with something else than a name in it.
    #[error("{0:?} has a brace that is not around a name, as in {{local}}")]
    Brace(String),
    /// The form of a variable is no regular expression.
    #[error("{0:?} is not a regular expression: {1}")]
    Form(String, String),
    /// A template says only what is put where.
    #[error("user template has a form for {{{0}}}: give it in the pattern")]
    FormInTemplate(String),
    /// Two variables side by side: nobody knows where one ends.
    #[error("{0:?} has two variables with nothing between them")]
    Adjacent(String),
    /// `*` and `?` stand for whole names only.
    #[error("pattern {0:?} has * or ? within a name; each stands for a whole one")]
    Wildcard(String),
    /// `.` or `..` as a name.
    #[error("pattern {0:?} has . or .. in it")]
    Dots(String),
    /// A variable that the pattern does not have.
    #[error("user template has {{{0}}}, which the pattern does not have")]
    NoSuchVariable(String),
    /// No template, and no variable that could be the user name.
    #[error("pattern has neither {{local}} nor {{user}} nor {{account}}: give a user template")]
    NoUser,
}

/// The pieces of one name, or of a template.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, BadPattern> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let literal = &rest[..rest.find(['{', '}']).unwrap_or(rest.len())];
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal.as_bytes().to_vec()));
            rest = &rest[literal.len()..];
            continue;
        }
        let brace = || BadPattern::Brace(text.to_owned());
        let end = closing_brace(rest).ok_or_else(brace)?;
        let variable = rest[..end].strip_prefix('{').ok_or_else(brace)?;
        let (name, form) = match variable.split_once(':') {
            Some((name, form)) => (name, Some(Form::new(form)?)),
            None => (variable, None),
        };
        if name.is_empty() || !name.bytes().all(|octet| octet.is_ascii_lowercase()) {
            return Err(brace());
        }
        if matches!(pieces.last(), Some(Piece::Variable(..))) {
            return Err(BadPattern::Adjacent(text.to_owned()));
        }
        pieces.push(Piece::Variable(name.to_owned(), form));
        rest = &rest[end + 1..];
    }
    Ok(pieces)
}

/// Where the brace is closed that `text` begins with: a form may have braces, in pairs.
fn closing_brace(text: &str) -> Option<usize> {
    let mut open = 0;
    text.bytes().position(|octet| {
        match octet {
            b'{' => open += 1,
            b'}' => open -= 1,
            _ => {}
        }
        open == 0
    })
}

impl FromStr for Pattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        if !text.starts_with('/') {
            return Err(BadPattern::Relative(text.to_owned()));
        }
        let mut pattern = Self { start: PathBuf::from("/"), names: Vec::new(), is_panel: false };
        for name in text.split('/').filter(|name| !name.is_empty()) {
            if name == "." || name == ".." {
                return Err(BadPattern::Dots(text.to_owned()));
            }
            let pieces = match name {
                "*" => vec![Piece::Any],
                "?" => vec![Piece::Split],
                _ => pieces(name)?,
            };
            let has_wildcard = |piece: &Piece| match piece {
                Piece::Literal(text) => text.iter().any(|octet| b"*?".contains(octet)),
                Piece::Variable(..) | Piece::Any | Piece::Split => false,
            };
            if pieces.iter().any(has_wildcard) {
                return Err(BadPattern::Wildcard(text.to_owned()));
            }
            let is_fixed = matches!(&pieces[..], [Piece::Literal(_)]);
            if is_fixed && pattern.names.is_empty() {
                pattern.start.push(name);
            } else {
                pattern.names.push(pieces);
            }
        }
        if pattern.names.is_empty() {
            return Err(BadPattern::Fixed(text.to_owned()));
        }
        Ok(pattern)
    }
}

impl Pattern {
    pub(super) fn panel(text: &str) -> Self {
        let pattern: Self = text.parse().expect("patterns of panels are written here");
        Self { is_panel: true, ..pattern }
    }

    /// The names of its variables.
    pub(super) fn variables(&self) -> impl Iterator<Item = &str> {
        self.names.iter().flatten().filter_map(|piece| match piece {
            Piece::Variable(name, _) => Some(name.as_str()),
            Piece::Literal(_) | Piece::Any | Piece::Split => None,
        })
    }
}

/// The values of a pattern's variables in one place.
#[derive(Debug, Clone, Default)]
pub(super) struct Bound(pub(super) BTreeMap<String, String>);

impl Bound {
    /// Whether a variable is bound.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Binds `local`, and `domain` where there is one.
    pub(super) fn set_owner(&mut self, local: &str, domain: Option<&str>) {
        self.0.insert("local".to_owned(), local.to_owned());
        if let Some(domain) = domain {
            self.0.insert("domain".to_owned(), domain.to_owned());
        }
    }

    /// This and what makes `name` of `pieces`, in each way in which it can be read; at most
    /// [`MOST_READINGS`].
    pub(super) fn readings(&self, pieces: &[Piece], name: &str) -> Vec<Self> {
        let mut readings = Vec::new();
        self.read(pieces, name, &mut readings);
        readings
    }

    fn read(&self, pieces: &[Piece], name: &str, readings: &mut Vec<Self>) {
        if readings.len() >= MOST_READINGS {
            return;
        }
        match pieces {
            [] if name.is_empty() => readings.push(self.clone()),
            [] => {}
            [Piece::Any, ..] => readings.push(self.clone()),
            [Piece::Split, ..] if name.len() == 1 => readings.push(self.clone()),
            [Piece::Split, ..] => {}
            [Piece::Literal(text), rest @ ..] => {
                let text = std::str::from_utf8(text).ok();
                if let Some(left) = text.and_then(|text| name.strip_prefix(text)) {
                    self.read(rest, left, readings);
                }
            }
            [Piece::Variable(variable, form), rest @ ..] => {
                let ends = name.char_indices().map(|(at, char)| at + char.len_utf8());
                // The last one stands for all that is left.
                for end in ends.filter(|&end| !rest.is_empty() || end == name.len()) {
                    let (value, left) = name.split_at(end);
                    let is_other = self.0.get(variable).is_some_and(|before| before != value);
                    if is_other || form.as_ref().is_some_and(|form| !form.is_of(value)) {
                        continue;
                    }
                    let mut bound = self.clone();
                    bound.0.insert(variable.clone(), value.to_owned());
                    bound.read(rest, left, readings);
                }
            }
        }
    }
}

/// In how many ways a name is read at most. Two are enough to ask the operator which is meant.
pub(super) const MOST_READINGS: usize = 256;

/// Whether a name that was found can be what the variables in it say.
pub(super) fn is_plausible(pattern: &Pattern, pieces: &[Piece], name: &str, bound: &Bound) -> bool {
    let here = |variable: &str| {
        pieces.iter().any(|piece| matches!(piece, Piece::Variable(name, _) if name == variable))
    };
    // An account may have its own Maildir beside its domains.
    let is_of_maildir = matches!(name, "cur" | "new" | "tmp");
    if here("domain") && is_of_maildir {
        return false;
    }
    if !pattern.is_panel {
        return true;
    }
    !here("domain") || bound.0.get("domain").is_some_and(|domain| domain.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::find::naming::Naming;
    use crate::capture::find::source::Holds;

    fn user_of(pieces_of: &str, name: &str, template: Option<&str>) -> Option<String> {
        users_of(pieces_of, name, template).pop()
    }

    /// All that a name can be read as.
    fn users_of(pieces_of: &str, name: &str, template: Option<&str>) -> Vec<String> {
        let readings = Bound::default().readings(&pieces(pieces_of).unwrap(), name);
        let naming = Naming::new(template).unwrap();
        let mut users: Vec<_> = readings.iter().map(|bound| naming.user(bound).unwrap()).collect();
        users.dedup();
        users
    }

    #[test]
    fn a_name_gives_its_parts_to_the_variables() {
        assert_eq!(user_of("{local}@{domain}", "al@ex@x.org", None).unwrap(), "al@ex@x.org");
        assert_eq!(user_of("u-{user}", "u-alice", None).unwrap(), "alice");
        assert_eq!(user_of("u-{user}", "v-alice", None), None);
        assert_eq!(user_of("{user}.box", "alice.box", None).unwrap(), "alice");
        assert_eq!(user_of("{a}-{a}", "x-x", Some("{a}")).unwrap(), "x");
        assert_eq!(user_of("{a}-{a}", "x-y", Some("{a}")), None);
        assert_eq!(user_of("{local}", "", None), None);
    }

    #[test]
    fn a_name_is_read_in_each_way_in_which_it_can_be_unless_a_form_says_which() {
        let stamped = |pattern: &str| users_of(pattern, "anna-lena-2019.05.06", Some("{local}"));
        assert_eq!(stamped("{local}-{stamp}"), ["anna", "anna-lena"]);
        assert_eq!(stamped("{local}-{stamp:[0-9.]+}"), ["anna-lena"]);
        assert_eq!(stamped(r"{local}-{stamp:\d{4}\.\d\d\.\d\d}"), ["anna-lena"]);
        assert_eq!(stamped("{local:[a-z]+}-{stamp}"), ["anna"]);
        assert_eq!(stamped("{local:x|y}-{stamp}"), [""; 0]);
        let by_account =
            |pattern: &str| users_of(pattern, "first.last.acme", Some("{local}@{account}"));
        assert_eq!(by_account("{local}.{account}"), ["first@last.acme", "first.last@acme"]);
        assert_eq!(by_account("{local}.{account:[^.]+}"), ["first.last@acme"]);
        let by_domain = |pattern: &str| users_of(pattern, "a-b.org-c-d", None);
        assert_eq!(by_domain("{domain}-{local}").len(), 3);
        assert_eq!(by_domain(r"{domain:[^.]+\.[a-z]+}-{local}"), ["c-d@a-b.org"]);
        // A variable that no user name has may stand for anything.
        assert_eq!(users_of("{a}-{local}-{b}", "1-x-2", Some("{local}")), ["x"]);
        assert_eq!(
            Bound::default().readings(&pieces("{a}-{b}").unwrap(), &"-".repeat(999)).len(),
            256
        );
    }

    #[test]
    fn a_pattern_that_cannot_be_walked_is_refused_with_the_reason() {
        let refused = |text: &str| text.parse::<Pattern>().unwrap_err().to_string();
        assert_eq!(refused("srv/{local}"), "pattern \"srv/{local}\" does not start with /");
        assert!(refused("/srv/mail").contains("no variable"));
        assert!(refused("/srv/{local").contains("brace"));
        assert!(refused("/srv/}x{").contains("brace"));
        assert!(refused("/srv/{a}{b}").contains("nothing between"));
        assert!(refused("/srv/{a:[}").contains("\"[\" is not a regular expression"));
        assert!(refused("/srv/{a:)(}").contains("is not a regular expression"));
        assert!(refused("/srv/{a:x{2}").contains("brace"));
        assert!(refused("/srv/a*{a:b*}").contains("* or ?"));
        let template = Naming::new(Some("{local:x}")).unwrap_err().to_string();
        assert_eq!(template, "user template has a form for {local}: give it in the pattern");
        assert!(refused("/srv/../{local}").contains(".."));
        let pattern: Pattern = "/srv/{x}".parse().unwrap();
        assert_eq!(Naming::default().check(&pattern, Holds::Directory), Err(BadPattern::NoUser));
    }
}
