//! The settings of a site: what is read is written and read the same, and a fault is one short
//! line.

use uidl_keep::site::{SettingsError, SiteSettings};

use super::check_message;

/// Checks the input as it is, and as lines behind a right first one.
pub fn check(octets: &[u8]) {
    check_file(octets);
    check_file(&[b"uidl-keep-settings 1\n", octets, b"\n"].concat());
}

fn check_file(octets: &[u8]) {
    let settings = match SiteSettings::parse(octets) {
        Ok(settings) => settings,
        Err(error) => {
            assert!(!matches!(error, SettingsError::Io(_)), "{error}");
            return check_message(error);
        }
    };
    let text = settings.to_text();
    let again = SiteSettings::parse(text.as_bytes()).expect("what was written is read");
    assert_eq!(again.to_text(), text);
    for domain in settings.domains().map(Some).chain([None, Some("none.example")]) {
        assert_eq!(settings.of_domain(domain), again.of_domain(domain), "{domain:?}");
        let user = domain.map_or_else(|| "a".to_owned(), |domain| format!("a@b@{domain}"));
        assert_eq!(settings.of(&user), settings.of_domain(domain), "{user}");
    }
}
