//! The roster: a look-up by bisection agrees with the full read, and a roster that was read is
//! written the same.

use uidl_keep::site::roster::{Roster, RosterError, lookup};

use super::forge;
use super::{Watched, check_message};

/// Checks the input as it is, and its lines with right checksums.
pub fn check(octets: &[u8]) {
    check_file(octets);
    check_file(&forge::roster(octets));
}

fn check_file(file: &[u8]) {
    let watched = Watched::new(file);
    let read = match Roster::read(&watched) {
        Ok(roster) => {
            assert_eq!(roster.to_text().as_bytes(), file);
            Some(roster)
        }
        Err(error) => {
            check_error(error);
            None
        }
    };
    let text = String::from_utf8_lossy(file);
    let mut users: Vec<String> = text.split(['\n', ' ']).take(40).map(str::to_owned).collect();
    if let Some(roster) = &read {
        users.extend(roster.lines().map(|line| line.user.clone()));
    }
    // A bisection halves what is left of the file at each read.
    let most_reads = 4 + usize::BITS - file.len().leading_zeros();
    for user in users {
        let reads = watched.reads.get();
        match lookup(&watched, &user) {
            Ok(found) => {
                assert!(found.as_ref().is_none_or(|line| line.user == user));
                if let Some(roster) = &read {
                    assert_eq!(found.as_ref(), roster.get(&user), "{user:?}");
                }
            }
            Err(error) => {
                assert!(read.is_none(), "{user:?}: {error}");
                check_error(error);
            }
        }
        assert!(watched.reads.get() - reads <= most_reads, "a look-up that reads on and on");
    }
}

fn check_error(error: RosterError) {
    assert!(!matches!(error, RosterError::Io(_)), "{error}");
    check_message(error);
}
