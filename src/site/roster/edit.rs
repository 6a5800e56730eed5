//! A roster of which some lines change, at the cost of these lines: [`RosterEdit`].
//!
//! A line's checksum covers the line and the name before it, and nothing holds an offset. So a line
//! that changes leaves all others as they are, and one that comes or goes changes only the next
//! one. All the rest is copied octet by octet, neither read nor checked: whoever reads it checks
//! it.

use std::collections::BTreeMap;
use std::io::Write;

use super::{
    BadName, Lines, MAGIC, MAX_LINE_OCTETS, NO_LINE, Position, Roster, RosterEnds, RosterError,
    RosterLine, check, content, fields, find, first_line, lookup, unescaped, write_lines, written,
};
use crate::file::read_at::ReadAt;

/// A roster in its file, with lines that are to stand there, or no longer.
#[derive(Debug)]
pub struct RosterEdit<S> {
    /// `None`: all its lines are in `new`.
    old: Option<S>,
    /// The lines by name as written; `None` for one that goes.
    new: BTreeMap<String, Option<RosterLine>>,
}

/// Where lines are looked up, a roster has at least so many others for each of them. Reading all of
/// it costs less otherwise.
const OTHERS_A_LOOKUP: u64 = 16;
/// So much is copied, or looked through, at once.
const STEP_OCTETS: u64 = 1 << 20;

impl<S: ReadAt> RosterEdit<S> {
    /// No change yet of a roster in its file.
    pub fn upon(old: S) -> Self {
        Self { old: Some(old), new: BTreeMap::new() }
    }

    /// A roster that is not read from its file any more.
    pub fn of(roster: Roster) -> Self {
        let lines = roster.lines.into_iter().map(|(name, line)| (name, Some(line)));
        Self { old: None, new: lines.collect() }
    }

    /// Puts a line in the place of the line of the same user, or of none.
    ///
    /// # Errors
    ///
    /// [`BadName`].
    pub fn insert(&mut self, line: RosterLine) -> Result<(), BadName> {
        self.new.insert(written(&line.user)?, Some(line));
        Ok(())
    }

    /// Takes the line of a user out.
    pub fn remove(&mut self, user: &str) {
        if let Ok(name) = written(user) {
            self.new.insert(name, None);
        }
    }

    /// The line of a user. Cost: that of [`lookup`].
    ///
    /// # Errors
    ///
    /// Any [`RosterError`]: could not tell.
    pub fn get(&self, user: &str) -> Result<Option<RosterLine>, RosterError> {
        let new = written(user).ok().and_then(|name| self.new.get(&name));
        match (new, &self.old) {
            (Some(new), _) => Ok(new.clone()),
            (None, Some(old)) => lookup(old, user),
            (None, None) => Ok(None),
        }
    }

    /// The number of lines that it had before, as its first line says.
    ///
    /// # Errors
    ///
    /// Any [`RosterError`].
    pub fn line_count(&self) -> Result<u64, RosterError> {
        self.old.as_ref().map_or(Ok(0), |old| RosterEnds::open(old).map(|ends| ends.count))
    }

    /// Whether so many lines are better looked up than read with all others.
    ///
    /// # Errors
    ///
    /// Any [`RosterError`].
    pub fn is_large_beside(&self, lines: usize) -> Result<bool, RosterError> {
        Ok(self.old.is_some() && self.line_count()? / OTHERS_A_LOOKUP >= lines as u64)
    }

    /// The lines of these users, as far as they are there, and perhaps others: those that
    /// cost less to read than to leave out.
    ///
    /// # Errors
    ///
    /// Any [`RosterError`].
    pub fn lines_of<'u>(
        &self,
        users: impl ExactSizeIterator<Item = &'u str>,
    ) -> Result<Roster, RosterError> {
        if !self.is_large_beside(users.len())? {
            return self.whole();
        }
        let mut some = Roster::new();
        for user in users {
            if let (Some(line), Ok(name)) = (self.get(user)?, written(user)) {
                some.lines.insert(name, line);
            }
        }
        Ok(some)
    }

    /// All lines.
    ///
    /// # Errors
    ///
    /// Any [`RosterError`].
    pub fn whole(&self) -> Result<Roster, RosterError> {
        let mut whole = self.old.as_ref().map_or_else(|| Ok(Roster::new()), Roster::read)?;
        for (name, line) in &self.new {
            match line {
                Some(line) => whole.lines.insert(name.clone(), line.clone()),
                None => whole.lines.remove(name),
            };
        }
        Ok(whole)
    }

    /// Writes the roster with its new lines. The octets are those of [`Roster::to_text`].
    ///
    /// # Errors
    ///
    /// Those of reading the old one: its damage elsewhere is copied, and stays an error. Those of
    /// `out`.
    pub fn write(&self, out: &mut impl Write) -> Result<(), RosterError> {
        match &self.old {
            Some(old) if self.is_large_beside(self.new.len())? => self.write_upon(old, out),
            Some(_) => Ok(out.write_all(self.whole()?.to_text().as_bytes())?),
            None => {
                let lines = self.new.iter().filter_map(|(name, line)| Some((name, line.as_ref()?)));
                Ok(write_lines(out, lines.clone().count(), lines)?)
            }
        }
    }

    fn write_upon(&self, old: &S, out: &mut impl Write) -> Result<(), RosterError> {
        let ends = RosterEnds::open(old)?;
        let (mut places, mut count) = (Vec::with_capacity(self.new.len()), ends.count);
        for (name, line) in &self.new {
            let place = find(old, &ends, name)?;
            let (is, was) = (u64::from(line.is_some()), u64::from(place.line.is_some()));
            count = (count + is).checked_sub(was).ok_or_else(|| ends.corrupt(NO_LINE, 0))?;
            places.push(place);
        }
        let header = format!("{MAGIC}{count}");
        writeln!(out, "{header}")?;
        let (at, old_before) = (ends.body_at, ends.header.clone());
        let mut copy = Copy { old, ends: &ends, at, before: header, old_before };
        for ((name, line), place) in self.new.iter().zip(places) {
            let Position { before, start, end, line: was } = place;
            copy.up_to(start, before, out)?;
            if let Some(line) = line {
                let content = content(name, line);
                writeln!(out, "{content} {}", check(&copy.before, &content))?;
                copy.before.clone_from(name);
            }
            if was.is_some() {
                (copy.at, copy.old_before) = (end, name.clone());
            }
        }
        copy.rest(out)
    }
}

/// An old roster that is being copied.
struct Copy<'a, S> {
    old: &'a S,
    ends: &'a RosterEnds,
    /// The line that is copied next.
    at: u64,
    /// The name, or first line, before that in the new roster.
    before: String,
    /// The same in the old one.
    old_before: String,
}

impl<S: ReadAt> Copy<'_, S> {
    /// Copies the lines up to a place before which the old roster has this name.
    fn up_to(&mut self, to: u64, before: String, out: &mut impl Write) -> Result<(), RosterError> {
        if self.at == to {
            return Ok(());
        }
        if self.before != self.old_before {
            let octets = self.read(self.at, self.ends.file_len.min(self.at + MAX_LINE_OCTETS))?;
            let (lines, before) = (self.ends, self.old_before.clone());
            let mut scan = Lines { lines, octets: &octets, offset: self.at, before };
            let (name, line) =
                scan.next_line()?.ok_or_else(|| self.ends.corrupt(NO_LINE, self.at))?;
            let content = content(&name, &line);
            writeln!(out, "{content} {}", check(&self.before, &content))?;
            self.at = scan.offset;
        }
        while self.at < to {
            let octets = self.read(self.at, to.min(self.at + STEP_OCTETS))?;
            out.write_all(&octets)?;
            self.at += octets.len() as u64;
        }
        (self.before, self.old_before) = (before.clone(), before);
        Ok(())
    }

    /// Copies the rest of the lines, and makes the last line.
    fn rest(mut self, out: &mut impl Write) -> Result<(), RosterError> {
        let (end_at, file_len) = (self.ends.end_at, self.ends.file_len);
        // The name before the last line is not asked for: the line goes with it as it is.
        self.up_to(end_at, String::new(), out)?;
        let octets = self.read(end_at, file_len)?;
        if self.before == self.old_before {
            return Ok(out.write_all(&octets)?);
        }
        let (lines, before) = (self.ends, self.old_before);
        Lines { lines, octets: &octets, offset: end_at, before }.next_line()?;
        Ok(writeln!(out, ". {}", check(&self.before, "."))?)
    }

    fn read(&self, from: u64, to: u64) -> Result<Vec<u8>, RosterError> {
        Ok(self.old.read_at(from, (to - from) as usize)?)
    }
}

/// Calls `each` with the lines of a roster that contain one of these words. The checksums are not
/// compared: this is for what is only said, and for rosters that were made just now.
///
/// # Errors
///
/// Any [`RosterError`].
pub fn lines_with_word<S: ReadAt>(
    source: &S,
    words: &[&str],
    mut each: impl FnMut(RosterLine),
) -> Result<(), RosterError> {
    let ends = RosterEnds::open(source)?;
    let finders: Vec<_> = words.iter().map(memchr::memmem::Finder::new).collect();
    let mut at = ends.body_at;
    while at < ends.end_at {
        let to = ends.end_at.min(at + STEP_OCTETS);
        let octets = source.read_at(at, (to - at) as usize)?;
        let whole_lines = memchr::memrchr(b'\n', &octets).map(|end| &octets[..=end]);
        let lines = whole_lines.ok_or_else(|| ends.corrupt(NO_LINE, at))?;
        let mut from = 0;
        while let Some(hit) =
            finders.iter().filter_map(|word| word.find(&lines[from..])).min().map(|hit| hit + from)
        {
            let start = memchr::memrchr(b'\n', &lines[..hit]).map_or(0, |end| end + 1);
            let line = first_line(&lines[start..]);
            let line = line.ok_or_else(|| ends.corrupt(NO_LINE, at + start as u64))?;
            if let Some(fields) = fields(line) {
                if let Some(user) = unescaped(fields.name) {
                    each(RosterLine { user, ..fields.line });
                }
            }
            from = start + line.len() + 1;
        }
        at += lines.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{line, roster};
    use super::*;
    use crate::maildrop::State;
    use crate::site::roster::Gate;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_is_copied_is_what_would_be_written_anew(
            before in roster(300), new in prop::collection::vec(line(), 0..6),
            gone in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
            ends_change in any::<bool>(),
        ) {
            let text = before.to_text();
            let mut edit = RosterEdit::upon(text.as_bytes());
            let mut after = before.clone();
            for line in new {
                edit.insert(line.clone()).unwrap();
                after.insert(line).unwrap();
            }
            let names: Vec<String> = before.lines().map(|line| line.user.clone()).collect();
            let gone = gone.iter().filter(|_| !names.is_empty());
            let mut gone: Vec<&String> = gone.map(|at| at.get(&names)).collect();
            if ends_change {
                gone.extend(names.first().into_iter().chain(names.last()));
            }
            for user in gone {
                edit.remove(user);
                after.remove(user);
            }
            let mut written = Vec::new();
            edit.write_upon(&text.as_bytes(), &mut written).unwrap();
            prop_assert_eq!(String::from_utf8(written).unwrap(), after.to_text());
            let mut as_is_cheaper = Vec::new();
            edit.write(&mut as_is_cheaper).unwrap();
            prop_assert_eq!(String::from_utf8(as_is_cheaper).unwrap(), after.to_text());
            for user in &names {
                prop_assert_eq!(edit.get(user).unwrap(), after.get(user).cloned());
            }
            prop_assert_eq!(edit.whole().unwrap(), after.clone());
            let some = edit.lines_of(names.iter().take(2).map(String::as_str)).unwrap();
            for user in names.iter().take(2) {
                prop_assert_eq!(some.get(user), after.get(user));
            }
        }

        #[test]
        fn a_damage_that_is_copied_stays_one(
            before in roster(300), new in line(), flip in any::<prop::sample::Index>(),
            bits in 1..=u8::MAX,
        ) {
            let mut damaged = before.to_text().into_bytes();
            let at = flip.index(damaged.len());
            damaged[at] ^= bits;
            let mut edit = RosterEdit::upon(&damaged[..]);
            edit.insert(new.clone()).unwrap();
            let mut written = Vec::new();
            if edit.write_upon(&&damaged[..], &mut written).is_ok() {
                let mut after = before.clone();
                after.insert(new).unwrap();
                // It is read as an error, unless the damage was in the line that was replaced.
                let read = Roster::read(&written[..]);
                prop_assert!(read.map_or(true, |read| read == after));
            }
        }
    }

    #[test]
    fn a_word_is_found_in_each_line_that_has_it() {
        let mut roster = Roster::new();
        for number in 0..40_000 {
            let state = if number % 1000 == 7 { State::Failed } else { State::Captured };
            let line = RosterLine::new(format!("{number:05}@example.com"), state, Gate::Guarded);
            roster.insert(line).unwrap();
        }
        let text = roster.to_text();
        assert!(text.len() as u64 > STEP_OCTETS);
        let mut found = Vec::new();
        lines_with_word(&text.as_bytes(), &[" failed "], |line| found.push(line)).unwrap();
        let failed: Vec<_> =
            roster.lines().filter(|line| line.state == State::Failed).cloned().collect();
        assert_eq!((found.len(), found), (40, failed));
    }
}
