//! Which lines an mbox reader takes for the beginning of a message.
//!
//! All begin with `From `. Readers differ in what has to come before, and in what has to follow.
#![forbid(unsafe_code)]

/// The rule of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FromLine {
    /// After a blank line, whatever it says: popa3d `mailbox.c`, `mailbox_parse`.
    AfterBlank,
    /// After a blank line, with a date at its end: Qpopper `pop_dropcopy.c`, `isfromline`.
    DatedAfterBlank,
    /// The same, and the blank line is one of the body: mailutils `mboxrd.c`,
    /// `mboxrd_rescan_unlocked`.
    DatedAfterBlankInBody,
    /// Anywhere but right behind another, with a date after the sender: Dovecot
    /// `istream-raw-mbox.c`, which looks for a line end and `From `, and has taken the line end
    /// with the line before; and `mbox-from.c`.
    Dated,
}

/// The line before a line, as far as a rule asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Before {
    /// There is none: this is the first line.
    pub is_start: bool,
    /// The line before began a message.
    pub is_from_line: bool,
    /// The line before is blank; a line with a CR is not.
    pub is_blank: bool,
    /// The line before was not the one that ended a header.
    pub is_in_body: bool,
}

impl FromLine {
    /// Whether `line`, which may lack its end, begins a message.
    pub fn begins_at(self, line: &[u8], before: Before) -> bool {
        let Some(rest) = line.strip_prefix(b"From ") else { return false };
        let is_blank = before.is_start || before.is_blank;
        match self {
            Self::AfterBlank => is_blank,
            Self::DatedAfterBlank => is_blank && ends_in_date(line),
            Self::DatedAfterBlankInBody => {
                (before.is_start || before.is_blank && before.is_in_body) && ends_in_date(line)
            }
            Self::Dated => !before.is_from_line && has_date(rest).is_some(),
        }
    }

    /// Whether the server lets nobody in to an mbox with this line: popa3d still takes the line
    /// before the first of a message for a blank one, and lets no message be without a line.
    pub fn refuses(self, line: &[u8], before: Before) -> bool {
        self == Self::AfterBlank && before.is_from_line && line.starts_with(b"From ")
    }
}

/// Whether a line ends in a date such as `Wed Dec  2 05:53:22 1992`: the seconds may be missing, a
/// zone may stand before the year or after it, and ` remote from HOST` behind all.
///
/// Others took this rule over from c-client. It looks at where blanks and colons stand, and at no
/// word.
fn ends_in_date(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = match line.iter().rposition(|&octet| octet == b' ') {
        Some(blank) if line.len() >= 41 => {
            line[..=blank].strip_suffix(b" remote from ").unwrap_or(line)
        }
        _ => line,
    };
    // Returns the octet that many before the end.
    let from_end = |back: usize| line.len().checked_sub(back).map(|at| line[at]);
    let is = |back: usize, octet: u8| from_end(back) == Some(octet);
    let is_sign = |back: usize| is(back, b'+') || is(back, b'-');
    // The place of the blank before the year and the zone.
    let year = if is(5, b' ') {
        // A year; before it seconds or minutes, a named zone, or a numeric one.
        if is(8, b':') {
            5
        } else if is(9, b' ') {
            9
        } else if is(11, b' ') && is_sign(10) {
            11
        } else {
            return false;
        }
    } else if is(4, b' ') && is(9, b' ') {
        // A named zone after the year.
        9
    } else if is(6, b' ') && is_sign(5) && is(11, b' ') {
        11
    } else {
        return false;
    };
    let time = year + if is(year + 6, b':') { 9 } else { 6 };
    line.len() >= 27 && is(year + 3, b':') && [0, 3, 7, 11].iter().all(|back| is(time + back, b' '))
}

const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// Whether a date follows the sender: `alice@example.net Thu Nov  9 22:33:52 2001 +0300`, the
/// seconds may be missing and a zone may stand before the year; or `Thu, 9 Nov 2002 22:33`.
fn has_date(rest: &[u8]) -> Option<()> {
    let date = after_sender(rest)?;
    if date.len() < 21 {
        return None;
    }
    let (_weekday, rest) = date.split_at(4);
    let Some(rest) = month(rest) else {
        let rest = day(&rest[1..])?;
        let rest = month(rest)?;
        let rest = digits(rest, 4)?.get(1..)?;
        return hours_and_minutes(rest).map(drop);
    };
    let rest = day(rest.strip_prefix(b" ").unwrap_or(rest))?;
    let rest = hours_and_minutes(rest)?;
    let rest = match rest.strip_prefix(b":") {
        Some(seconds) => digits(seconds, 2)?,
        None => rest,
    };
    let rest = rest.strip_prefix(b" ")?;
    digits(rest, 4).or_else(|| digits(after_word(rest)?, 4)).map(drop)
}

/// Returns what follows a sender, which may begin with something in quotes that has blanks in it.
fn after_sender(line: &[u8]) -> Option<&[u8]> {
    let mut at = 0;
    if line.first() == Some(&b'"') {
        let mut is_escaped = false;
        let end = line[1..].iter().position(|&octet| {
            let ends = octet == b'"' && !is_escaped || is_line_end(octet);
            is_escaped = octet == b'\\';
            ends
        })?;
        at = end + 2;
    }
    if line[..at].iter().any(|&octet| is_line_end(octet)) {
        return None;
    }
    let rest = after_word(&line[at..])?;
    Some(&rest[rest.iter().take_while(|&&octet| octet == b' ').count()..])
}

/// Returns what follows a word and a blank on the same line.
fn after_word(line: &[u8]) -> Option<&[u8]> {
    let end = line.iter().position(|&octet| octet == b' ' || is_line_end(octet))?;
    line[end..].strip_prefix(b" ")
}

fn is_line_end(octet: u8) -> bool {
    octet == b'\r' || octet == b'\n'
}

/// Returns what follows the name of a month and a blank; `???` is a month, too.
fn month(line: &[u8]) -> Option<&[u8]> {
    let (name, rest) = line.split_at_checked(3)?;
    let is_month = MONTHS.iter().any(|month| name.eq_ignore_ascii_case(&month[..]));
    (is_month || name == b"???").then_some(rest)?.strip_prefix(b" ")
}

/// Returns what follows one or two digits and a blank.
fn day(line: &[u8]) -> Option<&[u8]> {
    let rest = digits(line, 2).or_else(|| digits(line, 1))?;
    rest.strip_prefix(b" ")
}

fn hours_and_minutes(line: &[u8]) -> Option<&[u8]> {
    digits(digits(line, 2)?.strip_prefix(b":")?, 2)
}

/// Returns what follows that many digits.
fn digits(line: &[u8], count: usize) -> Option<&[u8]> {
    let (digits, rest) = line.split_at_checked(count)?;
    digits.iter().all(u8::is_ascii_digit).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER_BLANK: Before =
        Before { is_start: false, is_from_line: false, is_blank: true, is_in_body: true };

    #[test]
    fn every_kind_of_date_is_known() {
        for date in [
            "Wed Dec  2 05:53 1992",
            "Wed Dec  2 05:53:22 1992",
            "Wed Dec  2 05:53 PST 1992",
            "Wed Dec  2 05:53:22 PST 1992",
            "Wed Dec  2 05:53 -0700 1992",
            "Wed Dec  2 05:53:22 -0700 1992",
            "Wed Dec  2 05:53:22 1992 -0700",
        ] {
            let line = format!("From user {date}\n");
            assert!(FromLine::DatedAfterBlank.begins_at(line.as_bytes(), AFTER_BLANK), "{line}");
            assert!(FromLine::Dated.begins_at(line.as_bytes(), AFTER_BLANK), "{line}");
        }
        for line in [
            "From user Wed Dec  2 05:53:22 1992 PST\n",
            "From user Wed Dec  2 05:53 1992 remote from example\n",
        ] {
            assert!(FromLine::DatedAfterBlank.begins_at(line.as_bytes(), AFTER_BLANK), "{line}");
        }
        for line in [
            "From \"a b\"@example.net Wed Dec  2 05:53:22 1992\n",
            "From user Wed, 2 Dec 1992 05:53:22\n",
            "From user  Wed dec 12 05:53:22 1992\n",
        ] {
            assert!(FromLine::Dated.begins_at(line.as_bytes(), AFTER_BLANK), "{line}");
        }
    }

    #[test]
    fn prose_begins_a_message_only_for_popa3d() {
        for line in [
            "From here on nothing is known, and nothing was known before\n",
            "From \n",
            "From user Wed Dec  2 05.53.22 1992\n",
            "From x",
        ] {
            assert!(FromLine::AfterBlank.begins_at(line.as_bytes(), AFTER_BLANK), "{line}");
            for rule in
                [FromLine::DatedAfterBlank, FromLine::DatedAfterBlankInBody, FromLine::Dated]
            {
                assert!(!rule.begins_at(line.as_bytes(), AFTER_BLANK), "{rule:?}: {line}");
            }
        }
        for rule in [FromLine::AfterBlank, FromLine::DatedAfterBlank, FromLine::Dated] {
            assert!(!rule.begins_at(b">From user Wed Dec  2 05:53:22 1992\n", AFTER_BLANK));
        }
    }

    #[test]
    fn what_has_to_come_before_differs() {
        let line = b"From user Wed Dec  2 05:53:22 1992\n";
        let before = |is_start, is_blank, is_in_body| Before {
            is_start,
            is_from_line: false,
            is_blank,
            is_in_body,
        };
        for (rule, text, ends_header, in_body) in [
            (FromLine::AfterBlank, false, true, true),
            (FromLine::DatedAfterBlank, false, true, true),
            (FromLine::DatedAfterBlankInBody, false, false, true),
            (FromLine::Dated, true, true, true),
        ] {
            assert!(rule.begins_at(line, before(true, false, false)), "{rule:?}");
            assert_eq!(rule.begins_at(line, before(false, false, true)), text, "{rule:?}");
            assert_eq!(rule.begins_at(line, before(false, true, false)), ends_header, "{rule:?}");
            assert_eq!(rule.begins_at(line, before(false, true, true)), in_body, "{rule:?}");
        }
    }
}
