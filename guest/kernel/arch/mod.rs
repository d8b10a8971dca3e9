//! The processor: segments, gates, the way into the kernel and back, exceptions, paging, ring 3.

pub mod entry;
pub mod extable;
pub mod fault;
pub mod fpu;
pub mod frame;
pub mod gdt;
pub mod idt;
pub mod nmi;
pub mod paging;
pub mod percpu;
pub mod stack;
pub mod stamp;
pub mod traps;
pub mod uaccess;
pub mod user;
pub mod vectors;
