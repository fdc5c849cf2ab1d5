use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

thread_local! {
    static IS_COUNTED: Cell<bool> = const { Cell::new(false) };
}

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicI64 = AtomicI64::new(0);

/// The system's allocator, which counts what [counted](count_this_thread) threads ask of it. A test makes it
/// its `#[global_allocator]`.
#[derive(Debug)]
pub(crate) struct CountingAllocator;

/// From now on this thread's allocations count.
pub(crate) fn count_this_thread() {
    IS_COUNTED.set(true);
}

/// Runs `step` often enough to warm everything up, then `times` times, and returns what the latter allocated.
///
/// What lies unused for a second is given back, so on a machine that is held up something rarely needed may be
/// allocated anew: the fewest of some tries are what a step needs.
pub(crate) fn allocations_of(times: u32, mut step: impl FnMut()) -> u64 {
    (0..300).for_each(|_| step());
    let mut fewest = u64::MAX;
    for _ in 0..5 {
        let before = ALLOCATIONS.load(Ordering::SeqCst);
        (0..times).for_each(|_| step());
        fewest = fewest.min(ALLOCATIONS.load(Ordering::SeqCst) - before);
        if fewest == 0 {
            break;
        }
    }
    fewest
}

/// Bytes that counted threads have allocated and not freed, as far as they were counted.
pub(crate) fn allocated_bytes() -> i64 {
    BYTES.load(Ordering::SeqCst)
}

fn count(bytes: i64) {
    if IS_COUNTED.try_with(Cell::get).unwrap_or(false) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(bytes, Ordering::Relaxed);
    }
}

fn count_free(bytes: usize) {
    if IS_COUNTED.try_with(Cell::get).unwrap_or(false) {
        BYTES.fetch_sub(bytes as i64, Ordering::Relaxed);
    }
}

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count_free(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as i64 - layout.size() as i64);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
