//! Proving a capture by a sample: some maildrops, chosen at random, are compared with what the old
//! server itself lists.
#![forbid(unsafe_code)]

use std::thread;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::capture::disk::server::{ServerKind, capture};
use crate::capture::find::source::Source;
use crate::capture::keys::Keys;
use crate::capture::prove::proof::{self, Comparison, Difference};
use crate::capture::prove::witness::Witness;
use crate::maildrop::{Maildrop, State};
use crate::text::{printable, printable_path};

/// How often a maildrop is compared before mail that comes and goes is no explanation any more.
const TRIES: u32 = 4;

/// The pauses between tries.
const PAUSES: Backoff = Backoff::without_end(Duration::from_millis(500));

/// How many maildrops may have no listing, each for a reason of its own. With one more, an address
/// that fails to log in too often would be banned.
const MOST_UNHEARD: usize = 2;

/// How many maildrops are looked at for one that is not empty.
const LOOKS: usize = 100;

/// The capture to prove, and how much of it.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    /// The server that is taken for the one that answered.
    pub server: &'a ServerKind,
    /// All maildrops of the capture.
    pub sources: &'a [Source],
    /// The keys that the capture takes.
    pub keys: Keys,
    /// How many maildrops to compare.
    pub wanted: usize,
    /// The seed of the choice: the same seed chooses the same maildrops.
    pub seed: u64,
}

/// Why a capture is not proven. Nothing of it may be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SampleError {
    /// Too many maildrops have no listing of the old server's.
    #[error(
        "{0} maildrops have no listing of the old server's to compare with: nothing was written; \
         mend that, or see docs/capture-prove.md"
    )]
    Unheard(usize),
    /// The old server lists something else.
    #[error(
        "{user}: {place}: {difference}; nothing was written: capture by what answers POP3 there, \
         with its own format, or over POP3 (seed {seed})"
    )]
    Differs {
        /// Whose maildrop it is, printable.
        user: String,
        /// Where it lies, printable.
        place: String,
        /// What differs.
        difference: Difference,
        /// The seed of the choice.
        seed: u64,
    },
    /// There are not enough maildrops to compare.
    #[error(
        "only {proven} of {wanted} maildrops could be compared with the old server's listing: \
         nothing was written; {}", mend(first.as_deref())
    )]
    TooFew {
        /// How many were compared.
        proven: usize,
        /// How many were asked for.
        wanted: usize,
        /// The first that cannot be captured, and why.
        first: Option<String>,
    },
    /// Every maildrop that was compared is empty.
    #[error(
        "no maildrop with mail was compared, which proves nothing: nothing was written; is the \
         mail where this capture looks for it?"
    )]
    NoMail,
}

fn mend(first: Option<&str>) -> String {
    first.map_or_else(
        || "ask for fewer, or see docs/capture-prove.md".to_owned(),
        |first| format!("the first that cannot be captured: {first}"),
    )
}

/// Compares as many maildrops as are wanted. Returns the sentences that say so, for the head of the
/// listing; `tell` hears them one by one, and also why a maildrop has no listing.
///
/// # Errors
///
/// [`SampleError`].
pub fn prove(
    sample: &Sample<'_>,
    witness: &dyn Witness,
    tell: &mut dyn FnMut(&str),
) -> Result<Vec<String>, SampleError> {
    // A message is followed from capture to capture by its file.
    let sample = Sample { keys: Keys { file: true, ..sample.keys }, ..*sample };
    let Sample { sources, wanted, seed, .. } = sample;
    let mut order: Vec<&Source> =
        sources.iter().filter(|source| !source.is_gap() && witness.can_tell(source)).collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut order);
    let (mut sentences, mut unheard) = (Vec::new(), 0);
    let (mut proven, mut compared) = (0, 0);
    let mut first_fault = None;
    for source in sample.mail_first(&order) {
        if proven == wanted {
            break;
        }
        let user = printable(source.user().as_bytes());
        match sample.compare(witness, source) {
            Compared::Same { messages } => {
                (proven, compared) = (proven + 1, compared + messages);
                let sentence = format!("proven: {user}: {messages} messages, by {witness}");
                tell(&sentence);
                sentences.push(sentence);
            }
            Compared::NotCaptured(why) => {
                first_fault.get_or_insert_with(|| format!("{user}: {why}"));
            }
            Compared::Unheard(why) => {
                unheard += 1;
                tell(&format!("{user}: no listing of the old server's: {why}"));
                if unheard > MOST_UNHEARD {
                    return Err(SampleError::Unheard(unheard));
                }
            }
            Compared::Differs(difference) => {
                let place = printable_path(source.place());
                return Err(SampleError::Differs { user, place, difference, seed });
            }
        }
    }
    let named = sources.iter().filter(|source| !source.is_gap()).count();
    if proven < wanted.min(named) {
        return Err(SampleError::TooFew { proven, wanted, first: first_fault });
    }
    if compared == 0 {
        return Err(SampleError::NoMail);
    }
    let sentence = format!("proven: {proven} of {} maildrops, seed {seed}", sources.len());
    tell(&sentence);
    sentences.push(sentence);
    Ok(sentences)
}

/// How one maildrop compares.
enum Compared {
    /// The old server lists the same.
    Same { messages: usize },
    /// The maildrop cannot be captured at all, and why.
    NotCaptured(String),
    /// There is no listing to compare with, and why.
    Unheard(String),
    /// The old server lists something else.
    Differs(Difference),
}

impl Sample<'_> {
    /// The maildrops to compare, in their order: first those with messages, if some are found soon,
    /// then the others.
    fn mail_first<'a>(&self, order: &[&'a Source]) -> Vec<&'a Source> {
        // No message need be read where files have names of their own.
        let keys = if self.server.has_file_names() {
            Keys { file: true, header: false, message: false, origin: false }
        } else {
            self.keys
        };
        let (mut full, mut empty) = (Vec::new(), Vec::new());
        let mut left = order.iter();
        // A few more than are wanted: some may have no listing.
        while full.len() < self.wanted + MOST_UNHEARD
            && full.len() + empty.len() < self.wanted.saturating_mul(LOOKS)
        {
            let Some(&source) = left.next() else { break };
            let maildrop = capture(self.server, keys, source).maildrop;
            if maildrop.entries.is_empty() { empty.push(source) } else { full.push(source) }
        }
        full.into_iter().chain(empty).chain(left.copied()).collect()
    }

    fn compare(&self, witness: &dyn Witness, source: &Source) -> Compared {
        let capture = || -> Result<Maildrop, Compared> {
            let captured = capture(self.server, self.keys, source);
            match captured.maildrop.state {
                State::Failed => Err(Compared::NotCaptured(captured.losses.join("; "))),
                State::Captured | State::Empty => Ok(captured.maildrop),
            }
        };
        let mut difference = None;
        for tries in 0..TRIES {
            if difference.is_some() {
                thread::sleep(PAUSES.pause(tries - 1));
            }
            let before = match capture() {
                Ok(before) => before,
                Err(fault) => return fault,
            };
            let listed = match witness.listing(source) {
                Ok(listed) => listed,
                Err(why) => return Compared::Unheard(why),
            };
            let after = match capture() {
                Ok(after) => after,
                Err(fault) => return fault,
            };
            match proof::check(&before, &listed, &after) {
                Comparison::Same => return Compared::Same { messages: listed.len() },
                Comparison::Wrong(difference) => return Compared::Differs(difference),
                Comparison::Unlike(unlike) => difference = Some(unlike),
            }
        }
        Compared::Differs(difference.expect("each try that goes on leaves one"))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::fs;
    use std::path::Path;

    use super::*;

    /// A witness that lists what each maildrop's file `listed` says, and knows nobody without one.
    struct Files;

    impl Witness for Files {
        fn can_tell(&self, source: &Source) -> bool {
            source.user() != "untold"
        }

        fn listing(&self, source: &Source) -> Result<Vec<Box<[u8]>>, String> {
            let listed =
                fs::read(source.place().join("listed")).map_err(|_| "no login".to_owned())?;
            Ok(listed
                .split(|&octet| octet == b' ')
                .filter(|u| !u.is_empty())
                .map(Into::into)
                .collect())
        }
    }

    impl fmt::Display for Files {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("files")
        }
    }

    /// A Maildir with a message of this name, where that is one, whose listing is this.
    fn maildrop(top: &Path, user: &str, message: &str, listed: Option<&str>) -> Source {
        let place = top.join(user);
        fs::create_dir_all(place.join("cur")).unwrap();
        if !message.is_empty() {
            fs::write(place.join("cur").join(message), "A: b\n\n").unwrap();
        }
        listed.inspect(|listed| fs::write(place.join("listed"), listed).unwrap());
        Source::named(user, place)
    }

    fn proven(
        sources: &[Source],
        wanted: usize,
    ) -> (Result<Vec<String>, SampleError>, Vec<String>) {
        let keys = Keys { file: true, header: false, message: false, origin: false };
        let sample = Sample { server: &ServerKind::Qmail, sources, keys, wanted, seed: 7 };
        let mut told = Vec::new();
        (prove(&sample, &Files, &mut |sentence| told.push(sentence.to_owned())), told)
    }

    #[test]
    fn maildrops_with_mail_come_first_and_each_is_told() {
        let top = tempfile::tempdir().unwrap();
        let of = |user, message, listed| maildrop(top.path(), user, message, listed);
        let sources =
            [of("a", "", Some("")), of("b", "1.h", Some("1.h")), of("untold", "2.h", None)];
        let (said, told) = proven(&sources, 1);
        let said = said.unwrap();
        assert_eq!(said, ["proven: b: 1 messages, by files", "proven: 1 of 3 maildrops, seed 7"]);
        assert_eq!(told, said);
        assert_eq!(proven(&sources, 2).0.unwrap().len(), 3);
        // More than there are proves no less than all; but one of them cannot be asked about.
        assert_eq!(
            proven(&sources, 9).0,
            Err(SampleError::TooFew { proven: 2, wanted: 9, first: None })
        );
        assert_eq!(proven(&sources[..2], 9).0.unwrap().len(), 3);
        assert_eq!(proven(&sources[..1], 1).0, Err(SampleError::NoMail));
    }

    #[test]
    fn a_listing_that_differs_proves_nothing_and_a_third_silence_ends_it() {
        let top = tempfile::tempdir().unwrap();
        let of = |user, message, listed| maildrop(top.path(), user, message, listed);
        let silent = ["a", "b", "c"].map(|user| of(user, "1.h", None));
        let (said, told) = proven(&silent, 3);
        assert_eq!(said, Err(SampleError::Unheard(3)));
        assert_eq!(told.len(), 3);
        assert!(told[0].ends_with(": no listing of the old server's: no login"), "{told:?}");
        assert_eq!(
            proven(&silent[..2], 2).0,
            Err(SampleError::TooFew { proven: 0, wanted: 2, first: None })
        );
        let gone = Source::named("gone", top.path().join("nowhere"));
        let sources = [gone, of("d", "1.h", Some("1.x"))];
        let Err(SampleError::Differs { user, difference, seed: 7, .. }) = proven(&sources, 1).0
        else {
            panic!("it differs");
        };
        assert_eq!(user, "d");
        assert_eq!(
            difference.to_string(),
            "message 1: captured is 1.h, and the old server lists 1.x"
        );
    }
}
