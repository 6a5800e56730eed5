//! A file read through `mmap`: [`Mapped`].
//!
//! A range is mapped where it is large: a map under guard costs five calls. A small one is read,
//! which is one call, and no signal: a file that was cut short is an error of `pread` itself.
//!
//! Only the pages of the wanted range are mapped, only while they are copied out; afterwards
//! nothing refers to the file. A file that is cut short under the map would end the process by
//! SIGBUS. So the copy runs under a guard that turns a SIGBUS in that range into an error, the way
//! systemd-journald does (`src/basic/sigbus.c`): the handler puts a page of zeros where the file
//! ended, and the copy, which now ends well, is thrown away.
//!
//! SELinux, for example, may let a file be read but not mapped. Such a file is read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering, compiler_fence};

use memmap2::{MmapOptions, MmapRaw};
use parking_lot::Mutex;

use crate::file::read_at::{ReadAt, room_for};

/// The most octets mapped at one time. A block of any size is copied through a window of this
/// size: `service pop3` has 256 MB of address space for everything.
const WINDOW_OCTETS: usize = 1 << 20;

/// A range of so many octets is mapped, and a smaller one is read.
const LEAST_MAPPED_OCTETS: usize = 64 << 10;

/// A file of which large ranges are mapped and small ones are read with `pread`. Once the system
/// refuses to map it, all are read.
#[derive(Debug)]
pub struct Mapped {
    file: File,
    len_octets: u64,
    is_map_denied: AtomicBool,
}

impl Mapped {
    /// Takes the file, and its length as it is now. Maps nothing yet.
    ///
    /// # Errors
    ///
    /// The error of `fstat`.
    pub fn new(file: File) -> io::Result<Self> {
        let len_octets = file.metadata()?.len();
        Ok(Self { file, len_octets, is_map_denied: AtomicBool::new(false) })
    }

    /// A copy of a range within the file, made through maps, with a step for tests between each map
    /// and its copy.
    fn read_mapped(
        &self,
        mut offset: u64,
        len: usize,
        mut before_copy: impl FnMut(),
    ) -> io::Result<Vec<u8>> {
        let mut octets = room_for(len)?;
        while octets.len() < len {
            let window = WINDOW_OCTETS.min(len - octets.len());
            match self.map(offset, window)? {
                Some(map) => {
                    before_copy();
                    copy_guarded(&map, &mut octets)?;
                }
                None => {
                    let start = octets.len();
                    octets.resize(start + window, 0);
                    self.file.read_exact_at(&mut octets[start..], offset)?;
                }
            }
            offset += window as u64;
        }
        // When the file now ends inside a page, the rest of that page reads as zeros, without a
        // fault.
        if self.file.metadata()?.len() != self.len_octets {
            return Err(cut_short());
        }
        Ok(octets)
    }

    /// Whether the system refuses to map it, so that it is read. This maps its first octet to see.
    ///
    /// # Errors
    ///
    /// Another error of `mmap`.
    pub fn is_map_denied(&self) -> io::Result<bool> {
        Ok(self.map(0, 1)?.is_none())
    }

    /// A map of that range; `None` when this file must be read instead.
    fn map(&self, offset: u64, len: usize) -> io::Result<Option<MmapRaw>> {
        if self.is_map_denied.load(Ordering::Relaxed) {
            return Ok(None);
        }
        match MmapOptions::new().offset(offset).len(len).map_raw_read_only(&self.file) {
            Ok(map) => Ok(Some(map)),
            Err(error) if is_denial(&error) => {
                self.is_map_denied.store(true, Ordering::Relaxed);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether mmap(2) says that the file may be read but not mapped: EACCES from a security module,
/// EPERM from a seal or a filter, ENODEV from a file system without maps.
fn is_denial(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM | libc::ENODEV))
}

impl ReadAt for Mapped {
    /// The length when the file was taken.
    fn len_octets(&self) -> io::Result<u64> {
        Ok(self.len_octets)
    }

    fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let end = offset.checked_add(len as u64);
        if end.is_none_or(|end| end > self.len_octets) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if len < LEAST_MAPPED_OCTETS {
            return ReadAt::read_at(&self.file, offset, len);
        }
        self.read_mapped(offset, len, || ())
    }
}

fn cut_short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the file was cut short while it was read")
}

/// A process makes one guarded copy at a time: it has one SIGBUS handler and one guarded range.
static GUARD: Mutex<()> = Mutex::new(());

// The handler reads these. Only the holder of `GUARD` writes them. The range is empty when no copy
// is under way.
static GUARDED_START: AtomicUsize = AtomicUsize::new(0);
static GUARDED_END: AtomicUsize = AtomicUsize::new(0);
static PAGE_OCTETS: AtomicUsize = AtomicUsize::new(0);
static PREVIOUS_HANDLER: AtomicUsize = AtomicUsize::new(libc::SIG_DFL);
static PREVIOUS_FLAGS: AtomicI32 = AtomicI32::new(0);
// The handler writes this.
static FAULTED: AtomicBool = AtomicBool::new(false);

/// Appends all of `map` to `octets`, which has room for it.
///
/// # Errors
///
/// The file no longer reaches as far as the map; or it could not be read there (a disk's I/O error
/// is a SIGBUS too); or the guard could not be set up.
fn copy_guarded(map: &MmapRaw, octets: &mut Vec<u8>) -> io::Result<()> {
    let _alone = GUARD.lock();
    let guard = SigbusGuard::install(map)?;
    let len = map.len();
    assert!(octets.capacity() - octets.len() >= len, "the caller made room");
    // The handler changes memory and `FAULTED` where the compiler sees only a copy.
    compiler_fence(Ordering::SeqCst);
    // SAFETY: `map` covers `len` octets from `as_ptr` and lives until the end of this function
    // (memmap2's promise). The file stands behind them, or, once it was cut short, the page that
    // `on_sigbus` puts there. `octets` has room for `len` more (asserted above). The two do not
    // overlap. No reference to the mapped octets exists: another process that writes to the file
    // races with memcpy, not with Rust.
    unsafe {
        let to = octets.as_mut_ptr().add(octets.len());
        libc::memcpy(to.cast(), map.as_ptr().cast(), len);
    }
    compiler_fence(Ordering::SeqCst);
    if guard.remove()? {
        return Err(cut_short());
    }
    // SAFETY: `memcpy` has just written these `len` octets, and they are within the capacity.
    unsafe { octets.set_len(octets.len() + len) };
    Ok(())
}

/// Our SIGBUS handler in place of the previous one, for as long as one copy takes.
struct SigbusGuard {
    previous: libc::sigaction,
    removed: bool,
}

impl SigbusGuard {
    /// Guards the pages of `map`. The caller holds `GUARD`.
    fn install(map: &MmapRaw) -> io::Result<Self> {
        let previous = sigbus_action(None)?;
        let page_octets = rustix::param::page_size();
        let start = map.as_ptr() as usize;
        PAGE_OCTETS.store(page_octets, Ordering::SeqCst);
        PREVIOUS_HANDLER.store(previous.sa_sigaction, Ordering::SeqCst);
        PREVIOUS_FLAGS.store(previous.sa_flags, Ordering::SeqCst);
        FAULTED.store(false, Ordering::SeqCst);
        GUARDED_START.store(start, Ordering::SeqCst);
        GUARDED_END.store(start + map.len(), Ordering::SeqCst);

        // SAFETY: all of `sigaction` is integers and optional function pointers, for which zeros
        // are a value (libc's definition of the struct).
        let mut ours: libc::sigaction = unsafe { std::mem::zeroed() };
        ours.sa_sigaction = on_sigbus as *const () as usize;
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        if let Err(error) = sigbus_action(Some(&ours)) {
            forget_range();
            return Err(error);
        }
        Ok(Self { previous, removed: false })
    }

    /// Puts the previous handler back; returns whether there was a fault.
    fn remove(mut self) -> io::Result<bool> {
        self.put_back()?;
        Ok(FAULTED.load(Ordering::SeqCst))
    }

    fn put_back(&mut self) -> io::Result<()> {
        self.removed = true;
        let put_back = sigbus_action(Some(&self.previous));
        forget_range();
        put_back.map(|_| ())
    }
}

impl Drop for SigbusGuard {
    fn drop(&mut self) {
        if !self.removed {
            let _ = self.put_back();
        }
    }
}

fn forget_range() {
    GUARDED_END.store(0, Ordering::SeqCst);
    GUARDED_START.store(0, Ordering::SeqCst);
}

/// Sets the action of SIGBUS, when `new` is given; returns the action before.
fn sigbus_action(new: Option<&libc::sigaction>) -> io::Result<libc::sigaction> {
    // SAFETY: zeros are a value of this struct, as in `install`.
    let mut previous: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to whole structs that outlive the call (or null, which sigaction(2)
    // allows), and a handler in `new` is either `on_sigbus`, which is one, or came from here.
    let done = unsafe {
        libc::sigaction(libc::SIGBUS, new.map_or(ptr::null(), ptr::from_ref), &mut previous)
    };
    if done == 0 { Ok(previous) } else { Err(io::Error::last_os_error()) }
}

/// Handles a SIGBUS. A fault in the guarded range is noted, and a page of zeros is put there. Any
/// other fault goes to the handler that was there before.
///
/// # Safety
///
/// For the kernel only, as a handler installed with SA_SIGINFO.
unsafe extern "C" fn on_sigbus(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel hands a whole siginfo_t to a handler installed with SA_SIGINFO
    // (sigaction(2)), and `si_addr` of a SIGBUS is set where `si_code` is above 0.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    let guarded = GUARDED_START.load(Ordering::SeqCst)..GUARDED_END.load(Ordering::SeqCst);
    if code > 0 && guarded.contains(&address) {
        let page_octets = PAGE_OCTETS.load(Ordering::SeqCst);
        let page = address - address % page_octets;
        // SAFETY: `__errno_location` is this thread's errno (glibc, musl). The interrupted code may
        // be about to read it.
        let errno = unsafe { *libc::__errno_location() };
        // SAFETY: the page lies in the guarded range, which is ours: `copy_guarded` holds the map,
        // and nothing has a reference to it. mmap is a plain system call on Linux and may be made
        // from a handler.
        let zeros = unsafe {
            libc::mmap(
                page as *mut libc::c_void,
                page_octets,
                libc::PROT_READ,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        // SAFETY: as above.
        unsafe { *libc::__errno_location() = errno };
        if zeros != libc::MAP_FAILED {
            FAULTED.store(true, Ordering::SeqCst);
            return;
        }
    }
    match PREVIOUS_HANDLER.load(Ordering::SeqCst) {
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: both are async-signal-safe (signal-safety(7)). The signal is blocked while
            // its handler runs and ends the process when this returns.
            unsafe {
                libc::signal(libc::SIGBUS, libc::SIG_DFL);
                libc::raise(libc::SIGBUS);
            }
        }
        handler if PREVIOUS_FLAGS.load(Ordering::SeqCst) & libc::SA_SIGINFO != 0 => {
            // SAFETY: whoever installed it with SA_SIGINFO promised the kernel a function of this
            // type (sigaction(2)).
            let handler: unsafe extern "C" fn(
                libc::c_int,
                *mut libc::siginfo_t,
                *mut libc::c_void,
            ) = unsafe { std::mem::transmute(handler) };
            // SAFETY: called as the kernel would, with what the kernel gave.
            unsafe { handler(signal, info, context) };
        }
        handler => {
            // SAFETY: whoever installed it without SA_SIGINFO promised a function of this type.
            let handler: unsafe extern "C" fn(libc::c_int) =
                unsafe { std::mem::transmute(handler) };
            // SAFETY: as above.
            unsafe { handler(signal) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::atomic::AtomicU32;

    use super::*;

    /// Tests that look at the process's SIGBUS handler run one at a time.
    static ALONE: Mutex<()> = Mutex::new(());

    fn file_of(octets: &[u8]) -> Mapped {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(octets).unwrap();
        Mapped::new(file).unwrap()
    }

    #[test]
    fn copies_any_range_out() {
        let octets: Vec<u8> = (0..3 * WINDOW_OCTETS / 2 + 7).map(|n| (n % 251) as u8).collect();
        let mapped = file_of(&octets);
        assert_eq!(mapped.len_octets().unwrap(), octets.len() as u64);
        let least = LEAST_MAPPED_OCTETS;
        for (offset, len) in [
            (0, 0),
            (0, 1),
            (4095, 2),
            (77, least - 1),
            (77, least),
            (4096, least + 1),
            (100, WINDOW_OCTETS + 7),
            (0, octets.len()),
            (octets.len(), 0),
        ] {
            let read = mapped.read_at(offset as u64, len).unwrap();
            assert!(read == octets[offset..offset + len], "{offset} {len}");
        }
        for (offset, len) in [(0, octets.len() + 1), (octets.len(), 1), (5, usize::MAX)] {
            let error = mapped.read_at(offset as u64, len).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn a_file_cut_short_under_the_map_is_an_error_and_the_process_lives() {
        let _alone = ALONE.lock();
        let before = sigbus_action(None).unwrap().sa_sigaction;
        // In the last case all pages are there, and the last page ends in zeros.
        for left in [0, 1, 4096, 5000, 8192, 8193] {
            let mapped = file_of(&[b'x'; 3 * 4096]);
            let cut = || mapped.file.set_len(left).unwrap();
            let error = mapped.read_mapped(0, 3 * 4096, cut).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{left} left");
        }
        assert_eq!(sigbus_action(None).unwrap().sa_sigaction, before);
    }

    #[test]
    fn a_small_range_of_a_file_cut_short_is_an_error_too() {
        let mapped = file_of(&[b'x'; 3 * 4096]);
        mapped.file.set_len(5000).unwrap();
        assert_eq!(mapped.read_at(4096, 904).unwrap(), [b'x'; 904]);
        for (offset, len) in [(4096, 905), (5000, 1), (0, 3 * 4096)] {
            let error = mapped.read_at(offset, len).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{offset} {len}");
        }
    }

    #[test]
    fn a_fault_is_noted_also_when_the_file_has_its_length_again() {
        let _alone = ALONE.lock();
        let mapped = file_of(&[b'x'; 3 * 4096]);
        let map = MmapOptions::new().len(3 * 4096).map_raw_read_only(&mapped.file).unwrap();
        mapped.file.set_len(4096).unwrap();
        let mut octets = room_for(3 * 4096).unwrap();
        assert!(copy_guarded(&map, &mut octets).is_err());
        assert!(octets.is_empty());
    }

    #[test]
    fn a_file_cut_by_another_thread_at_any_moment_is_read_whole_or_not_at_all() {
        let _alone = ALONE.lock();
        for round in 0..50 {
            let mapped = file_of(&vec![b'x'; 1 << 20]);
            let file = mapped.file.try_clone().unwrap();
            let read = std::thread::scope(|scope| {
                scope.spawn(move || {
                    std::thread::sleep(std::time::Duration::from_micros(round * 10));
                    file.set_len(10).unwrap();
                });
                mapped.read_at(0, 1 << 20)
            });
            if let Ok(octets) = read {
                assert!(octets.iter().all(|&octet| octet == b'x'));
            }
        }
    }

    #[test]
    fn a_sigbus_that_is_not_ours_goes_to_the_previous_handler() {
        static SEEN: AtomicU32 = AtomicU32::new(0);
        extern "C" fn theirs(_signal: libc::c_int) {
            SEEN.fetch_add(1, Ordering::SeqCst);
        }
        let _alone = ALONE.lock();
        // SAFETY: as in `SigbusGuard::install`.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = theirs as *const () as usize;
        let before = sigbus_action(Some(&action)).unwrap();
        let mapped = file_of(b"octets");
        let map = MmapOptions::new().len(6).map_raw_read_only(&mapped.file).unwrap();
        {
            let _turn = GUARD.lock();
            let guard = SigbusGuard::install(&map).unwrap();
            // SAFETY: raise(3) has no preconditions.
            unsafe { libc::raise(libc::SIGBUS) };
            assert!(!guard.remove().unwrap(), "not a fault of the file");
        }
        assert_eq!(SEEN.load(Ordering::SeqCst), 1);
        assert_eq!(sigbus_action(Some(&before)).unwrap().sa_sigaction, action.sa_sigaction);
    }
}
