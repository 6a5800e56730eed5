//! The users whose maildrops one index and one roster hold: [`Scope`].
#![forbid(unsafe_code)]

/// The users of one index and roster: those of a domain, or one login that has no domain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// All users of this domain.
    Domain(String),
    /// This user alone.
    User(String),
}

/// The longest name of a domain or user that can make a file name. It leaves room for what is
/// added: `NAME.roster.new` must fit in the 255 octets of NAME_MAX.
pub(super) const MAX_STEM_OCTETS: usize = 255 - ".roster.new".len();

impl Scope {
    /// The scope that `user` belongs to: the domain is what follows the last `@`.
    ///
    /// `None` when no file can have that name (it is empty, starts with a dot, has a `/` or NUL, or
    /// is too long). No site can hold such a user.
    pub fn of(user: &str) -> Option<Self> {
        let (stem, scope): (_, fn(String) -> Self) = match user.rsplit_once('@') {
            Some((_, domain)) => (domain, Self::Domain),
            None => (user, Self::User),
        };
        is_stem(stem).then(|| scope(stem.to_owned()))
    }

    /// The scope that a user of a domain may have for himself. `None` for a login without a domain,
    /// which has no other scope, and when no file can have that name.
    pub fn own(user: &str) -> Option<Self> {
        (user.contains('@') && is_stem(user)).then(|| Self::User(user.to_owned()))
    }

    /// Whether this scope can hold a user.
    pub fn fits(&self, user: &str) -> bool {
        [Self::own(user), Self::of(user)].iter().any(|scope| scope.as_ref() == Some(self))
    }

    /// The domain's or the user's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Domain(name) | Self::User(name) => name,
        }
    }

    /// The directory of the site that has its files.
    pub fn directory(&self) -> &'static str {
        match self {
            Self::Domain(_) => "domain",
            Self::User(_) => "user",
        }
    }
}

/// Whether it can be part of a file name.
fn is_stem(stem: &str) -> bool {
    !stem.is_empty()
        && stem.len() <= MAX_STEM_OCTETS
        && !stem.starts_with('.')
        && !stem.contains(['/', '\0'])
}
