//! How login names are made: [`LoginTemplate`].
#![forbid(unsafe_code)]

use crate::capture::fleet::account_fault::AccountFault;
use crate::text::printable;

/// A login name, with `{user}`, `{local}` and `{domain}` for what the old server calls the account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoginTemplate {
    /// The template; `None` is `{user}`.
    pub text: Option<String>,
    /// Whether a master user logs in on behalf of each account: its name is then the authorization
    /// identity of SASL PLAIN.
    pub authorizes: bool,
}

/// Why no login name can be made of a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// A `{` that no `}` follows.
    #[error("a {{ without its }}")]
    Unclosed,
    /// No such variable.
    #[error("no such variable: {{{0}}}; there are {{user}}, {{local}} and {{domain}}")]
    NoVariable(String),
}

impl LoginTemplate {
    /// A template of that text, for which nobody is authorized.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: Some(text.into()), authorizes: false }
    }

    fn text(&self) -> &str {
        self.text.as_deref().unwrap_or("{user}")
    }

    /// Puts the name of an account into the template.
    ///
    /// # Errors
    ///
    /// [`TemplateError`].
    pub fn fill(&self, user: &str) -> Result<String, TemplateError> {
        let (local, domain) = user.rsplit_once('@').unwrap_or((user, ""));
        let mut name = String::with_capacity(self.text().len() + user.len());
        let mut rest = self.text();
        while let Some((before, behind)) = rest.split_once('{') {
            name.push_str(before);
            let (variable, behind) = behind.split_once('}').ok_or(TemplateError::Unclosed)?;
            name.push_str(match variable {
                "user" => user,
                "local" => local,
                "domain" => domain,
                _ => return Err(TemplateError::NoVariable(printable(variable.as_bytes()))),
            });
            rest = behind;
        }
        name.push_str(rest);
        Ok(name)
    }

    /// The login name of an account.
    ///
    /// # Errors
    ///
    /// [`AccountFault::Template`], and [`AccountFault::SameForAll`].
    pub fn login(&self, user: &str) -> Result<String, AccountFault> {
        let login = self.fill(user)?;
        if !self.authorizes && login == self.text() && self.text() != user {
            return Err(AccountFault::SameForAll(printable(self.text().as_bytes())));
        }
        Ok(login)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_knows_the_login_name_and_its_parts() {
        let filled = |template: &str, user| LoginTemplate::new(template).fill(user);
        let fill = |template| filled(template, "alice@example.com");
        assert_eq!(fill("{user}*master").unwrap(), "alice@example.com*master");
        assert_eq!(fill("{domain}/{local}").unwrap(), "example.com/alice");
        assert_eq!(filled("{local}+{domain}", "bob").unwrap(), "bob+");
        assert!(fill("{mailbox}").unwrap_err().to_string().contains("{mailbox}"));
        assert!(fill("{user").unwrap_err().to_string().contains("without its }"));
        // A name that looks like a template is not one.
        assert_eq!(filled("{user}", "{domain}").unwrap(), "{domain}");
        assert_eq!(LoginTemplate::default().login("bob").unwrap(), "bob");
    }

    #[test]
    fn a_template_without_a_variable_is_for_a_master_user_alone() {
        let mut template = LoginTemplate::new("master");
        let said = template.login("bob").unwrap_err().to_string();
        assert_eq!(
            said,
            "--login-template master is the same for all: put {user} in it, or say --authorize"
        );
        assert_eq!(template.login("master").unwrap(), "master");
        template.authorizes = true;
        assert_eq!(template.login("bob").unwrap(), "master");
    }
}
