//! Memory that the kernel fills, and sends from.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// The alignment that the kernel wants of a ring of buffers.
const PAGE: usize = 4096;

/// Zeroed memory on a page boundary, which is only reached through pointers.
///
/// It must not be freed while the kernel has an operation on it under way.
#[derive(Debug)]
pub(super) struct Region {
    start: NonNull<u8>,
    layout: Layout,
}

impl Region {
    pub(super) fn new(length: usize) -> Self {
        let layout = Layout::from_size_align(length.max(1), PAGE).expect("the length is reasonable");
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else {
            handle_alloc_error(layout);
        };
        Self { start, layout }
    }

    /// Where the byte at `offset` is.
    pub(super) fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset < self.layout.size(), "beyond the region");
        self.start.as_ptr().wrapping_add(offset)
    }

    /// Copies bytes to `offset`.
    #[inline]
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset.checked_add(bytes.len());
        assert!(end.is_some_and(|end| end <= self.layout.size()), "beyond the region");
        let start = self.start.as_ptr().wrapping_add(offset);
        // SAFETY: the place is part of the allocation, and nobody has borrowed it; what is copied is not part of it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), start, bytes.len()) };
    }

    /// The bytes from `offset` on.
    ///
    /// # Safety
    ///
    /// Nobody may write to them while they are borrowed.
    pub(super) unsafe fn bytes(&self, offset: usize, length: usize) -> &[u8] {
        assert!(offset.checked_add(length).is_some_and(|end| end <= self.layout.size()), "beyond the region");
        let start = self.start.as_ptr().wrapping_add(offset);
        // SAFETY: the bytes are part of the allocation, initialised, and not written meanwhile.
        unsafe { std::slice::from_raw_parts(start, length) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: this is the allocation that was made with this layout.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}
