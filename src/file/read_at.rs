//! Reading a range of a file: [`ReadAt`], which index and roster read through.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fs::File;
use std::io;

use rustix::buffer::spare_capacity;
use rustix::io::Errno;

/// Octets that can be read by offset.
///
/// A source does not change its length while it is read: index and roster are replaced, never
/// edited. If somebody edits one all the same, reading fails, or a checksum does.
pub trait ReadAt {
    /// The number of octets.
    ///
    /// # Errors
    ///
    /// The system's error when it cannot tell.
    fn len_octets(&self) -> io::Result<u64>;

    /// A copy of exactly `len` octets from `offset` on.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` when the range reaches past the end, `OutOfMemory` when there is no room for
    /// the copy, and the system's error when it cannot read.
    fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>>;
}

/// An empty buffer with room for `len` octets. A length that memory cannot hold is an error and
/// does not end the process.
pub(crate) fn room_for(len: usize) -> io::Result<Vec<u8>> {
    let mut room = Vec::new();
    IS_ROOM_ASKED_FOR.set(true);
    let reserved = room.try_reserve_exact(len);
    IS_ROOM_ASKED_FOR.set(false);
    reserved.map_err(|_| io::ErrorKind::OutOfMemory)?;
    Ok(room)
}

thread_local! {
    static IS_ROOM_ASKED_FOR: Cell<bool> = const { Cell::new(false) };
}

/// Whether [`room_for`] is asking this thread's allocator: it can take a failure for an answer.
#[cfg(feature = "plugin")]
pub(crate) fn is_room_asked_for() -> bool {
    IS_ROOM_ASKED_FOR.get()
}

impl ReadAt for [u8] {
    fn len_octets(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let wanted = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(len)?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(wanted.to_vec())
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn len_octets(&self) -> io::Result<u64> {
        (**self).len_octets()
    }

    fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        (**self).read_at(offset, len)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for Box<T> {
    fn len_octets(&self) -> io::Result<u64> {
        (**self).len_octets()
    }

    fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        (**self).read_at(offset, len)
    }
}

/// Reads with `pread`, into room that is not filled with zeros before.
impl ReadAt for File {
    fn len_octets(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut octets = room_for(len)?;
        while octets.len() < len {
            let at = offset.saturating_add(octets.len() as u64);
            match rustix::io::pread(self, spare_capacity(&mut octets), at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        octets.truncate(len);
        Ok(octets)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_range_past_the_end_is_an_error_and_never_a_short_answer() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"octets").unwrap();
        let octets = &b"octets"[..];
        for source in [&file as &dyn ReadAt, &octets] {
            assert_eq!(source.len_octets().unwrap(), 6);
            assert_eq!(source.read_at(2, 4).unwrap(), b"tets");
            assert_eq!(source.read_at(6, 0).unwrap(), b"");
            for (offset, len) in [(2, 5), (6, 1), (u64::MAX, 1), (0, 7)] {
                let error = source.read_at(offset, len).unwrap_err();
                assert!(
                    matches!(
                        error.kind(),
                        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput
                    ),
                    "{offset} {len}: {error:?}"
                );
            }
            let error = source.read_at(0, usize::MAX).unwrap_err();
            assert!(
                matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::OutOfMemory),
                "{error:?}"
            );
        }
    }
}
