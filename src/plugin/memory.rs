//! Ends the process by exit where memory ends, as Dovecot itself does.
//!
//! Rust's standard library would end it by SIGABRT, and the operator would read of a crash instead
//! of a limit. The helper and the tests are linked with this allocator too; there it changes
//! nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::OnceLock;

use super::host;
use crate::file::read_at::is_room_asked_for;

#[global_allocator]
static ALLOCATOR: OrExit = OrExit;

/// How to end a process of Dovecot. A pointer, for programs that have no Dovecot to call.
static EXIT: OnceLock<fn(usize) -> !> = OnceLock::new();

/// From now on, memory that cannot be allocated ends the process.
pub fn exit_when_it_ends() {
    let _ = EXIT.set(host::die_of_memory);
}

struct OrExit;

impl OrExit {
    fn given(memory: *mut u8, octets: usize) -> *mut u8 {
        if memory.is_null() && !is_room_asked_for() {
            if let Some(exit) = EXIT.get() {
                exit(octets);
            }
        }
        memory
    }
}

// SAFETY: everything is `System`'s, which keeps the promises of this trait; what is added allocates
// nothing and does not unwind.
unsafe impl GlobalAlloc for OrExit {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise, handed on.
        Self::given(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise, handed on.
        Self::given(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, octets: usize) -> *mut u8 {
        // SAFETY: the caller's promise, handed on.
        Self::given(unsafe { System.realloc(memory, layout, octets) }, octets)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, handed on.
        unsafe { System.dealloc(memory, layout) }
    }
}
