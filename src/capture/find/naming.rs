//! How users are called on the new server: [`Naming`].
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};

use crate::capture::find::pattern::{BadPattern, Bound, Pattern, Piece, pieces};
use crate::capture::find::source::Holds;
use crate::maildrop::everybody_of;
use crate::text::printable;

/// Why a line is no rename.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line}: {why}")]
pub struct BadRename {
    /// Which line, from 1.
    pub line: usize,
    /// What is wrong with it, printable.
    pub why: String,
}

/// How a user is called on the new server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Naming {
    template: Option<Vec<Piece>>,
    renamed: HashMap<String, String>,
}

impl Naming {
    /// Names from a template such as `{local}@{domain}`.
    ///
    /// Without a template the name is `{local}@{domain}` where the pattern has both, else the one
    /// of `{local}`, `{user}` and `{account}` that it has.
    ///
    /// # Errors
    ///
    /// [`BadPattern::Brace`], [`BadPattern::Adjacent`], [`BadPattern::FormInTemplate`].
    pub fn new(template: Option<&str>) -> Result<Self, BadPattern> {
        let template = template.map(pieces).transpose()?;
        let with_form = template.iter().flatten().find_map(|piece| match piece {
            Piece::Variable(name, Some(_)) => Some(name.clone()),
            _ => None,
        });
        match with_form {
            Some(name) => Err(BadPattern::FormInTemplate(name)),
            None => Ok(Self { template, renamed: HashMap::new() }),
        }
    }

    /// Afterwards `old` is called `new`. `false` when `old` was renamed before.
    pub fn rename(&mut self, old: &str, new: &str) -> bool {
        self.renamed.insert(old.to_owned(), new.to_owned()).is_none()
    }

    /// Takes "old new" on each line; blank lines and those that begin with # are skipped.
    ///
    /// # Errors
    ///
    /// [`BadRename`] for the first line that cannot be taken.
    pub fn read_renames(&mut self, text: &str) -> Result<(), BadRename> {
        for (line, words) in (1..).zip(text.lines()) {
            let shown = |word: &str| printable(word.as_bytes());
            let mut each = words.split_whitespace();
            match (each.next(), each.next(), each.next()) {
                (None, ..) => {}
                (Some(word), ..) if word.starts_with('#') => {}
                (Some(old), Some(new), None) => {
                    if !self.rename(old, new) {
                        let why = format!("{} is renamed a second time", shown(old));
                        return Err(BadRename { line, why });
                    }
                }
                _ => {
                    let why = format!("not an old and a new name: {}", shown(words));
                    return Err(BadRename { line, why });
                }
            }
        }
        Ok(())
    }

    /// The users that are renamed, each with the new name, sorted.
    pub fn renames(&self) -> BTreeMap<&str, &str> {
        self.renamed.iter().map(|(old, new)| (old.as_str(), new.as_str())).collect()
    }

    /// The same renames, and no template.
    pub(super) fn without_template(&self) -> Self {
        Self { template: None, renamed: self.renamed.clone() }
    }

    /// The name of whoever a pattern's variables point at.
    pub(super) fn user(&self, bound: &Bound) -> Result<String, BadPattern> {
        let by_default;
        let template = match &self.template {
            Some(template) => template,
            None => {
                let text = match ["local", "user", "account"].iter().find(|v| bound.has(v)) {
                    Some(&local) if bound.has("domain") => format!("{{{local}}}@{{domain}}"),
                    Some(local) => format!("{{{local}}}"),
                    None => return Err(BadPattern::NoUser),
                };
                by_default = pieces(&text)?;
                &by_default
            }
        };
        let mut user = String::new();
        for piece in template {
            match piece {
                Piece::Literal(text) => user.push_str(&String::from_utf8_lossy(text)),
                Piece::Any | Piece::Split => {}
                Piece::Variable(name, _) => user.push_str(
                    bound.0.get(name).ok_or_else(|| BadPattern::NoSuchVariable(name.clone()))?,
                ),
            }
        }
        Ok(self.renamed.get(&user).cloned().unwrap_or(user))
    }

    /// The user whose maildrop lies at a place of `pattern`, or everybody who may have one there: a
    /// variable that is not bound could be anything.
    pub(super) fn user_or_everybody(
        &self,
        pattern: &Pattern,
        bound: &Bound,
        holds: Holds,
    ) -> String {
        // No name on a disk has it.
        const ANYTHING: &str = "\0";
        let mut filled = Bound::default();
        let variables = pattern.variables().map(ToOwned::to_owned);
        filled.0.extend(variables.map(|name| (name, ANYTHING.to_owned())));
        if holds == Holds::CyrusMailbox {
            filled.set_owner(ANYTHING, Some(ANYTHING));
        }
        filled.0.extend(bound.0.clone());
        let user = self.user(&filled).unwrap_or_else(|_| ANYTHING.to_owned());
        if !user.contains(ANYTHING) {
            return user;
        }
        let domain = user.rsplit_once('@').map(|(_, domain)| domain);
        everybody_of(domain.filter(|domain| !domain.is_empty() && !domain.contains(ANYTHING)))
    }

    /// Whether this naming can name what `pattern` finds.
    ///
    /// # Errors
    ///
    /// [`BadPattern::NoSuchVariable`], [`BadPattern::NoUser`].
    pub fn check(&self, pattern: &Pattern, holds: Holds) -> Result<(), BadPattern> {
        let names = pattern.variables().map(ToOwned::to_owned);
        let mut bound = Bound(names.map(|name| (name, String::new())).collect());
        if holds == Holds::CyrusMailbox {
            bound.set_owner("", None);
        }
        self.user(&bound).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renames_are_two_words_a_line_and_each_once() {
        let read = |text: &str| {
            let mut naming = Naming::default();
            naming.read_renames(text).map(|()| naming.renames().len())
        };
        assert_eq!(read("a b\n\n# c d e\n\tc  d\n"), Ok(2));
        assert_eq!(read("a b\na c\n").unwrap_err().to_string(), "2: a is renamed a second time");
        for line in ["a", "a b c"] {
            let error = read(&format!("\n{line}\n")).unwrap_err().to_string();
            assert_eq!(error, format!("2: not an old and a new name: {line}"));
        }
    }
}
