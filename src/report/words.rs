//! Numbers and names, as a page says them.
#![forbid(unsafe_code)]

/// A number with commas: `10,767`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// So many of a thing: `1 message`, `1,000 messages`.
pub(super) fn counted(number: u64, one: &str) -> String {
    match (number, one) {
        (1, _) => format!("1 {one}"),
        (_, "mailbox") => format!("{} mailboxes", grouped(number)),
        _ => format!("{} {one}s", grouped(number)),
    }
}

/// A share in hundredths, rounded down: `100 %` means all. `None`: there is nothing to share.
pub(super) fn percent(part: u64, whole: u64) -> Option<String> {
    let hundredths = u128::from(part) * 10_000 / u128::from((whole > 0).then_some(whole)?);
    Some(match (hundredths / 100, hundredths % 100) {
        (whole, 0) => format!("{whole} %"),
        (whole, rest) => format!("{whole}.{rest:02} %"),
    })
}

/// A name as a word of a shell's command line. `None`: it has octets that nobody should paste into
/// a terminal.
pub(super) fn shell_word(name: &str) -> Option<String> {
    let is_odd = |char: char| !char.is_ascii_graphic() && char != ' ';
    if name.is_empty() || name.contains(is_odd) {
        return None;
    }
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "@._+-".contains(char);
    if name.chars().all(is_plain) {
        return Some(name.to_owned());
    }
    Some(format!("'{}'", name.replace('\'', r"'\''")))
}

/// A command of uidl-keep that ends with a name. `None`: as [`shell_word`].
pub(super) fn command(words: &str, name: &str) -> Option<String> {
    // In quotes as well, a name that begins with a dash would be an option.
    let dashes = if name.starts_with('-') { "-- " } else { "" };
    Some(format!("uidl-keep {words} {dashes}{}", shell_word(name)?))
}

/// The domain of a user; empty where there is none.
pub(super) fn domain_of(user: &str) -> &str {
    user.rsplit_once('@').map_or("", |(_, domain)| domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_commas_and_shares_are_never_rounded_up() {
        let grouped: Vec<String> = [0, 999, 1_000, 10_767, 1_234_567].map(grouped).into();
        assert_eq!(grouped, ["0", "999", "1,000", "10,767", "1,234,567"]);
        assert_eq!(counted(1, "mailbox"), "1 mailbox");
        assert_eq!(counted(2, "mailbox"), "2 mailboxes");
        assert_eq!(counted(3_000, "message"), "3,000 messages");
        assert_eq!(percent(99_999, 100_000).unwrap(), "99.99 %");
        assert_eq!(percent(7, 7).unwrap(), "100 %");
        assert_eq!(percent(u64::MAX, u64::MAX).unwrap(), "100 %");
        assert_eq!(percent(0, 0), None);
    }

    #[test]
    fn a_name_in_a_command_is_one_word_of_a_shell() {
        assert_eq!(shell_word("a.b+c@example.com").unwrap(), "a.b+c@example.com");
        assert_eq!(shell_word("$(id) a@b").unwrap(), "'$(id) a@b'");
        assert_eq!(shell_word("o'brien@b").unwrap(), r"'o'\''brien@b'");
        assert_eq!(command("release", "-rf@b").unwrap(), "uidl-keep release -- -rf@b");
        assert_eq!(command("release", "a;b@b").unwrap(), "uidl-keep release 'a;b@b'");
        for odd in ["", "a\nb", "a\u{202e}b", "a\u{7f}"] {
            assert_eq!(shell_word(odd), None, "{odd:?}");
        }
    }
}
