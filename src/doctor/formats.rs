//! Settings of Dovecot's that change UIDLs, or what the plugin sees.
#![forbid(unsafe_code)]

use crate::doctor::facts::SiteFacts;
use crate::doctor::finding::DoctorFinding;
use crate::doctor::subject::Subject;
use crate::format::UidlFormat;

const FORMAT: &str = "pop3_uidl_format";
const DUPLICATES: &str = "pop3_uidl_duplicates";
const REUSE: &str = "pop3_reuse_xuidl";
const DIRTY: &str = "maildir_very_dirty_syncs";

/// Looks at them.
pub fn check(subject: &Subject<'_>, facts: &SiteFacts, found: &mut Vec<DoctorFinding>) {
    type Check = fn(&Subject<'_>, &SiteFacts, &str) -> DoctorFinding;
    let checks: [(&'static str, Check); 4] =
        [(FORMAT, format), (DUPLICATES, duplicates), (REUSE, reuse), (DIRTY, dirty_syncs)];
    for (name, check) in checks {
        found.push(match subject.dovecot.setting_of_pop3(name) {
            Ok(value) => check(subject, facts, value.as_deref().unwrap_or_default()),
            Err(error) => {
                let run = format!("doveconf -f protocol=pop3 {name}");
                DoctorFinding::could_not_tell(name, error, run)
            }
        });
    }
}

fn format(subject: &Subject<'_>, _: &SiteFacts, format: &str) -> DoctorFinding {
    let what = format!("pop3_uidl_format = {format}");
    let parsed = UidlFormat::parse(format);
    // "%%{" is a per cent sign and a brace on both lines.
    let is_of_2_4 = format.replace("%%", "").contains("%{");
    if subject.is_2_4() && !is_of_2_4 {
        let spelled = spelled_for_2_4(format);
        let run = spelled.map_or_else(
            || "spell it as Dovecot 2.4 does, with %{uid} and %{uidvalidity}".to_owned(),
            |spelled| format!("write: pop3_uidl_format = {spelled}"),
        );
        let why = "Dovecot 2.4 does not start with a format that 2.3 has spelled";
        return DoctorFinding::trouble(FORMAT, what, why, run);
    }
    if !subject.is_2_4() && is_of_2_4 {
        let run = parsed.map_or_else(
            |_| "spell it as Dovecot 2.3 does: %u, %v, %08Xu".to_owned(),
            |format| format!("write: pop3_uidl_format = {format}"),
        );
        let why = "Dovecot 2.3 does not start with a format that 2.4 has spelled";
        return DoctorFinding::trouble(FORMAT, what, why, run);
    }
    match parsed {
        Ok(_) => DoctorFinding::fine(FORMAT, what),
        Err(error) => DoctorFinding::notice(
            FORMAT,
            format_args!("{what}: {error}"),
            "new mail gets derived UIDLs, and nothing can be forecast of it",
            "take the default, unless clients hold UIDLs of this format",
        ),
    }
}

/// A format of 2.3 in 2.4's spelling. `None`: there is none, or it is not known.
fn spelled_for_2_4(format: &str) -> Option<String> {
    // As it is printed, there is one spelling of each variable.
    let plain = UidlFormat::parse(format).ok()?.to_string();
    let mut spelled = String::new();
    let mut rest = plain.as_str();
    while let Some(first) = rest.chars().next() {
        rest = &rest[first.len_utf8()..];
        if first != '%' {
            spelled.push(first);
            continue;
        }
        let name = |letter| match letter {
            'u' => Some("uid"),
            'v' => Some("uidvalidity"),
            'f' => Some("filename"),
            'g' => Some("guid"),
            _ => None,
        };
        let end = rest.find(|char| char == '%' || name(char).is_some())?;
        let (options, letter) = (&rest[..end], rest[end..].chars().next()?);
        rest = &rest[end + 1..];
        let Some(name) = name(letter) else {
            spelled.push('%');
            continue;
        };
        let base = options.trim_start_matches(|char: char| char.is_ascii_digit());
        let width = options[..options.len() - base.len()].trim_start_matches('0');
        let filters = match (base, width) {
            ("", "") => String::new(),
            ("M", "") => " | md5".to_owned(),
            ("X", "") => " | hex".to_owned(),
            ("X", width) => format!(" | hex({width})"),
            ("XU", "") => " | hex | upper".to_owned(),
            ("XU", width) => format!(" | hex({width}) | upper"),
            _ => return None,
        };
        spelled.push_str(&format!("%{{{name}{filters}}}"));
    }
    let is_same = UidlFormat::parse(&spelled) == UidlFormat::parse(format);
    is_same.then_some(spelled)
}

fn duplicates(_: &Subject<'_>, facts: &SiteFacts, value: &str) -> DoctorFinding {
    let what = format!("pop3_uidl_duplicates = {value}");
    let run = "write: pop3_uidl_duplicates = allow";
    match &facts.repeated {
        _ if value != "rename" => DoctorFinding::fine(DUPLICATES, what),
        Some((user, count)) => DoctorFinding::trouble(
            DUPLICATES,
            format_args!("{what}, and the old server repeated {count} UIDLs of {user}"),
            "Dovecot gives them other UIDLs, and these messages are downloaded again",
            run,
        ),
        None => {
            let why = "where the old server repeated a UIDL, that message is downloaded again";
            DoctorFinding::notice(DUPLICATES, what, why, run)
        }
    }
}

fn reuse(_: &Subject<'_>, _: &SiteFacts, value: &str) -> DoctorFinding {
    let what = format!("pop3_reuse_xuidl = {value}");
    if value != "yes" {
        return DoctorFinding::fine(REUSE, what);
    }
    let why = "once the plugin is gone Dovecot tells what X-UIDL headers say, which any sender can \
               write, and not what was baked";
    DoctorFinding::notice(REUSE, what, why, "write: pop3_reuse_xuidl = no")
}

fn dirty_syncs(subject: &Subject<'_>, _: &SiteFacts, value: &str) -> DoctorFinding {
    // 2.4 has it in a block, `maildir { very_dirty_syncs = yes }`, and tells it only so.
    let mut changed = subject.about.changed.lines().map(str::trim);
    let is_set = value == "yes" || changed.any(|line| line == "very_dirty_syncs = yes");
    if !is_set {
        return DoctorFinding::fine(DIRTY, format_args!("maildir_very_dirty_syncs = {value}"));
    }
    let what = "maildir_very_dirty_syncs = yes";
    let why = "Dovecot takes itself for the only one that changes Maildirs: it may not see what is \
               copied into cur/ beside it";
    let run = "write: maildir_very_dirty_syncs = no, until the last copy is done; then doveadm \
               reload";
    DoctorFinding::notice(DIRTY, what, why, run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_of_2_3_is_spelled_for_2_4() {
        for (old, new) in [
            ("%08Xu%08Xv", "%{uid | hex(8)}%{uidvalidity | hex(8)}"),
            ("UID%u-%v", "UID%{uid}-%{uidvalidity}"),
            ("%v.%u", "%{uidvalidity}.%{uid}"),
            ("%g", "%{guid}"),
            ("%f", "%{filename}"),
            ("%Mf", "%{filename | md5}"),
            ("%Xu-x", "%{uid | hex}-x"),
        ] {
            assert_eq!(spelled_for_2_4(old).as_deref(), Some(new), "{old}");
        }
        assert_eq!(spelled_for_2_4("%m"), None);
        assert_eq!(spelled_for_2_4("x"), None);
    }
}
