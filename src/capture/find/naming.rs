//! How users are called on the new server: [`Naming`].
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};

use crate::capture::find::pattern::{BadPattern, Bound, Pattern, Piece, pieces};
use crate::capture::find::source::Holds;
use crate::maildrop::everybody_of;

/// How a user is called on the new server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Naming {
    template: Option<Vec<Piece>>,
    renamed: HashMap<String, String>,
}

impl Naming {
    /// Names from a template such as `{local}@{domain}`.
    ///
    /// Without one it is `{local}@{domain}` where the pattern has both, else the one of `{local}`,
    /// `{user}` and `{account}` that it has.
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

    /// Those that are renamed, and what they are called afterwards, sorted.
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

    /// The user whose maildrops a place of `pattern` has, or all those that it may have: what is
    /// not bound there could be anything.
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
