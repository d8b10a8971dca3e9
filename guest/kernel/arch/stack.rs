//! Stacks: each CPU has one for hard interrupts, one for softirqs, one for NMIs, and small ones where gates enter.
//!
//! Below each stack lies a canary, a word that nobody writes. If it has changed, something ran off the end of its stack; the kernel looks on
//! the way out of each interrupt.
//!
//! To read more: Linux, Documentation/arch/x86/kernel-stacks.rst.

use core::arch::naked_asm;
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU64, Ordering};

/// Assembly that saves the six registers that a function must keep, for its caller, on the stack.
#[macro_export]
macro_rules! push_kept {
    () => {
        "push rbx\npush rbp\npush r12\npush r13\npush r14\npush r15"
    };
}

/// Assembly that loads what [`push_kept!`](crate::push_kept) has saved.
#[macro_export]
macro_rules! pop_kept {
    () => {
        "pop r15\npop r14\npop r13\npop r12\npop rbp\npop rbx"
    };
}

/// Size of a stack that Rust code runs on, in bytes.
pub const SIZE: usize = 32 << 10;
/// What a canary looks like when all is well.
const CANARY: u64 = 0x5ca1_ab1e_0ddb_a11c;

/// A stack with its canary below, and above its top the address of its CPU's area: an entry that can't trust GS finds it there.
#[repr(C, align(64))]
pub struct Stack<const BYTES: usize> {
    canary: AtomicU64,
    bytes: UnsafeCell<MaybeUninit<[u64; BYTES]>>,
    owner: AtomicU64,
}

// SAFETY: the memory between the canary and the owner is used by the processor, through stack pointers only.
unsafe impl<const BYTES: usize> Sync for Stack<BYTES> {}

/// A stack that Rust code runs on. An odd number of words, so that the top is a multiple of 16.
pub type KernelStack = Stack<{ SIZE / 8 - 3 }>;
/// The stack of a kernel thread: interrupts have others.
pub type TaskStack = Stack<{ (16 << 10) / 8 - 3 }>;
/// A stack where a gate enters and is left at once.
pub type EntryStack = Stack<61>;

impl<const WORDS: usize> Stack<WORDS> {
    /// An empty stack, without its canary yet, so that the image need not hold it.
    pub const fn new() -> Self {
        Self { canary: AtomicU64::new(0), bytes: UnsafeCell::new(MaybeUninit::zeroed()), owner: AtomicU64::new(0) }
    }

    /// Its top: the address of the first byte above it, a multiple of 16, where the address of its CPU's area is.
    pub fn top(&self) -> u64 {
        self.owner.as_ptr() as u64
    }

    /// Makes it ready: the canary, and the address of its CPU's area.
    pub(super) fn prepare(&self, owner: u64) {
        self.canary.store(CANARY, Ordering::Relaxed);
        self.owner.store(owner, Ordering::Relaxed);
    }

    /// Makes a stack of fresh memory that is no CPU's. What lies between canary and top stays as it is.
    ///
    /// # Safety
    ///
    /// The memory is the caller's, aligned and large enough.
    pub(crate) unsafe fn prepare_in_place(stack: *mut Self) {
        // SAFETY: by the contract; fields are written without a reference to what is not initialized yet.
        unsafe {
            (&raw mut (*stack).canary).write(AtomicU64::new(CANARY));
            (&raw mut (*stack).owner).write(AtomicU64::new(0));
        }
    }

    /// Its canary is alive.
    pub fn intact(&self) -> bool {
        self.canary.load(Ordering::Relaxed) == CANARY
    }

    /// The address is on this stack.
    pub fn holds(&self, address: u64) -> bool {
        (self.bytes.get() as u64..self.top()).contains(&address)
    }

    /// The lowest word, next to the canary, as what runs off the end would write it: returns the canary's word for a test to spoil.
    pub fn canary(&self) -> &AtomicU64 {
        &self.canary
    }
}

impl<const WORDS: usize> Default for Stack<WORDS> {
    fn default() -> Self {
        Self::new()
    }
}

/// Calls `function(argument)` on the stack whose top is `top`.
///
/// # Safety
///
/// Nothing else uses that stack meanwhile, on any CPU, and `top` is a multiple of 16.
#[unsafe(naked)]
pub unsafe extern "C" fn call_on(top: u64, function: extern "C" fn(u64), argument: u64) {
    naked_asm!("push rbp", "mov rbp, rsp", "mov rsp, rdi", "mov rdi, rdx", "call rsi", "mov rsp, rbp", "pop rbp", "ret",)
}

/// Calls `function(argument)` on this CPU's softirq stack. Interrupts may be on in `function`, but it must not be called again before
/// it is over, which only code that counts softirqs can know.
pub fn call_on_softirq_stack(function: extern "C" fn(u64), argument: u64) {
    let stack = &super::percpu::this_cpu().stacks.softirq;
    // SAFETY: the stack is for this; the caller sees to it that there is one user.
    unsafe { call_on(stack.top(), function, argument) };
}
