//! The kernel's heap: a fixed area, a free list, one lock.
//!
//! Allocating is for starting up and for code that may wait; handlers use what was allocated before. The lock is held with interrupts off,
//! so a handler that allocates all the same only waits, and never for what it interrupted.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::{self, NonNull};

use linked_list_allocator::Heap;

use crate::sync::IrqLock;

const SIZE: usize = 4 << 20;

#[repr(align(4096))]
struct Area(UnsafeCell<[u8; SIZE]>);

// SAFETY: only the allocator behind the lock uses the area.
unsafe impl Sync for Area {}

static AREA: Area = Area(UnsafeCell::new([0; SIZE]));

/// The free list; made when memory is first asked for.
struct KernelHeap(IrqLock<Option<Heap>>);

#[global_allocator]
static HEAP: KernelHeap = KernelHeap(IrqLock::new(None));

// SAFETY: the heap behind the lock gives out each piece of the area at most once, aligned as asked.
unsafe impl GlobalAlloc for KernelHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut heap = self.0.lock();
        let heap = heap.get_or_insert_with(|| {
            // SAFETY: the area is static, and this is done once.
            unsafe { Heap::new(AREA.0.get().cast(), SIZE) }
        });
        heap.allocate_first_fit(layout).map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if let (Some(heap), Some(pointer)) = (self.0.lock().as_mut(), NonNull::new(pointer)) {
            // SAFETY: by the contract of GlobalAlloc the pointer came from `alloc` with this layout.
            unsafe { heap.deallocate(pointer, layout) };
        }
    }
}

/// Bytes in use.
pub fn used() -> usize {
    HEAP.0.lock().as_ref().map_or(0, Heap::used)
}
