//! The exception table: which instructions of the kernel may fault, and where to go on then.
//!
//! An accessor of ring 3's memory can't know that an address is good without touching it. So it just touches it, and an entry in this
//! table says that a fault at this instruction goes on at another, which returns an error. A fault of the kernel at any other
//! address is a bug, and fatal.
//!
//! To read more: Linux, Documentation/arch/x86/exception-tables.rst.

/// One entry: a fault at `fault` goes on at `fixup`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Entry {
    /// Address of the instruction that may fault.
    pub fault: u64,
    /// Where to go on, with RAX holding the vector and RDX the error code.
    pub fixup: u64,
}

/// An assembly line for the table, between quotes: `extable!("2b", "3f")`.
#[macro_export]
macro_rules! extable {
    ($fault:literal, $fixup:literal) => {
        concat!(
            ".pushsection extable, \"a\"\n",
            ".balign 8\n",
            ".quad ",
            $fault,
            "\n",
            ".quad ",
            $fixup,
            "\n",
            ".popsection"
        )
    };
}

/// The table, as the linker has put it together.
pub fn entries() -> &'static [Entry] {
    unsafe extern "C" {
        static __start_extable: u8;
        static __stop_extable: u8;
    }
    let (start, stop) = (&raw const __start_extable, &raw const __stop_extable);
    // SAFETY: the section holds pairs of words, all of them entries.
    unsafe { core::slice::from_raw_parts(start.cast(), (stop as usize - start as usize) / size_of::<Entry>()) }
}

/// Where a fault at `address` goes on.
pub fn search(address: u64) -> Option<u64> {
    entries().iter().find(|entry| entry.fault == address).map(|entry| entry.fixup)
}
