//! What can go wrong before the guest runs: sizes, input files, and the host's memory.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::memory;

/// Who can mend an error; the command line turns it into its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The caller: an argument or an input file is wrong.
    Input,
    /// The host: it lacks something or failed.
    Host,
}

/// Which input file an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputKind {
    /// The kernel image.
    Kernel,
    /// The initial RAM disk.
    Initrd,
    /// A further module.
    Module,
}

impl fmt::Display for InputKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
            Self::Module => "module",
        })
    }
}

/// A size for messages: in the notation of `--memory` where that is exact, else in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(
    /// Bytes.
    pub u64,
);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0 bytes"),
            n if n.is_multiple_of(1 << 30) => write!(f, "{}G", n >> 30),
            n if n.is_multiple_of(1 << 20) => write!(f, "{}M", n >> 20),
            n => write!(f, "{n} bytes"),
        }
    }
}

/// An error of setting up memory, ACPI tables or the boot image. Displays as one line: the cause, then the remedy.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A memory size that cannot be read.
    #[error("memory size {text:?} is not a number with an optional suffix K, M, G or T; write for example 512M or 2G")]
    MemorySyntax {
        /// The text as given.
        text: String,
    },
    /// Less than the smallest machine's memory.
    #[error("memory size {} is too small; give --memory {} or more", Size(*bytes), Size(memory::MIN_BYTES))]
    MemoryTooSmall {
        /// The size asked for, in bytes.
        bytes: u64,
    },
    /// More than the largest machine's memory.
    #[error("memory size is too large; give --memory {} or less", Size(memory::MAX_BYTES))]
    MemoryTooLarge,
    /// Not a multiple of the page size.
    #[error("memory size {bytes} bytes is no multiple of the 4K page; give for example --memory {}K",
            (bytes >> 12) << 2)]
    MemoryUnaligned {
        /// The size asked for, in bytes.
        bytes: u64,
    },
    /// The host gave no memory.
    #[error("cannot map {} of guest memory: {cause}; give a smaller --memory, or raise the limit (ulimit -v)",
            Size(*bytes))]
    MemoryMap {
        /// The size asked for, in bytes.
        bytes: u64,
        /// What the host said.
        cause: vm_memory::mmap::FromRangesError,
    },
    /// An input file cannot be opened.
    #[error("{what} {path:?}: {cause}; {}", open_remedy(cause))]
    Open {
        /// Which file.
        what: InputKind,
        /// Its name as given.
        path: PathBuf,
        /// What the host said.
        cause: io::Error,
    },
    /// An input file is a directory.
    #[error("{what} {path:?} is a directory; name the file in it")]
    Directory {
        /// Which file.
        what: InputKind,
        /// Its name as given.
        path: PathBuf,
    },
    /// An input file is a pipe, a socket or a device: its size is not known beforehand.
    #[error("{what} {path:?} is no regular file; copy its contents to a file and name that")]
    NotRegular {
        /// Which file.
        what: InputKind,
        /// Its name as given.
        path: PathBuf,
    },
    /// An input file has no bytes.
    #[error("{what} {path:?} is empty; check how the file was made")]
    Empty {
        /// Which file.
        what: InputKind,
        /// Its name as given.
        path: PathBuf,
    },
    /// Reading an input file failed.
    #[error("{what} {path:?}: reading it failed: {cause}; check that nothing else is writing it, and its disk")]
    Read {
        /// Which file.
        what: InputKind,
        /// Its name as given.
        path: PathBuf,
        /// What the host or the loader said.
        cause: String,
    },
    /// The file begins like none of the formats we know.
    #[error(
        "kernel {path:?} is in no format known here; give a bzImage (a distribution's vmlinuz), an ELF file with a PVH \
             note, a Linux vmlinux, or a multiboot image"
    )]
    UnknownFormat {
        /// The kernel's name as given.
        path: PathBuf,
    },
    /// The kernel is no image of its format that we can start.
    #[error(
        "kernel {path:?} is no bootable {format}: at offset {offset:#x} found {found}, expected {expected}; {remedy}"
    )]
    BadImage {
        /// The kernel's name as given.
        path: PathBuf,
        /// What its beginning says it is.
        format: &'static str,
        /// The offset in the file that was looked at.
        offset: u64,
        /// What is there.
        found: String,
        /// What should be there.
        expected: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// The kernel's header promises more than the file has.
    #[error(
        "kernel {path:?} is truncated: setup_sects (offset 0x1f1) and syssize (offset 0x1f4) say {needed} bytes, \
             the file has {bytes}; copy or build it again"
    )]
    Truncated {
        /// The kernel's name as given.
        path: PathBuf,
        /// Bytes the header promises.
        needed: u64,
        /// Bytes in the file.
        bytes: u64,
    },
    /// The memory cannot hold the kernel.
    #[error("kernel {path:?} ({bytes} bytes) needs memory up to {end:#x} to start, and there is {}; \
             give --memory {} or more", Size(*memory), Size(end.next_multiple_of(1 << 20)))]
    KernelTooLarge {
        /// The kernel's name as given.
        path: PathBuf,
        /// Bytes in the file.
        bytes: u64,
        /// End of the memory it needs.
        end: u64,
        /// Guest memory in bytes.
        memory: u64,
    },
    /// The memory cannot hold the initrd, or a module, beside the kernel.
    #[error("{what} {path:?} ({bytes} bytes) does not fit between the kernel, which needs memory up to {kernel_end:#x}, \
             and {limit:#x}, the end of the memory this kernel can take it from; {}",
            module_remedy(*what, *bytes, *kernel_end, *max_end))]
    ModuleTooLarge {
        /// Which file.
        what: InputKind,
        /// Its name as given.
        path: PathBuf,
        /// Bytes in the file.
        bytes: u64,
        /// End of the memory the kernel needs.
        kernel_end: u64,
        /// End of the memory the initrd may lie in.
        limit: u64,
        /// That end if there were all the memory one could want.
        max_end: u64,
    },
    /// A Linux kernel takes an initrd and nothing else.
    #[error("a Linux kernel takes no modules beside its initrd; leave out --module, or put the files into the initrd")]
    ModulesForLinux,
    /// There is no room for the list of modules.
    #[error("there is room for a list of {limit} modules, and there are {count}; give fewer --module")]
    TooManyModules {
        /// How many there are, the initrd included.
        count: usize,
        /// The most.
        limit: usize,
    },
    /// The image leaves no room for what multiboot tells it.
    #[error(
        "there is no room beside the image for {bytes} bytes of multiboot information (command line, list of {modules} \
             modules); give fewer --module or a larger --memory"
    )]
    NoRoomForInfo {
        /// Its size in bytes.
        bytes: u64,
        /// How many modules there are.
        modules: usize,
    },
    /// The command line is longer than the kernel takes.
    #[error("kernel command line is {bytes} bytes long, this kernel takes at most {limit}; give a shorter --cmdline")]
    CmdlineTooLong {
        /// Its length in bytes.
        bytes: usize,
        /// The most, in bytes, without the terminating NUL.
        limit: usize,
    },
    /// The command line has a NUL byte, where the kernel would stop reading.
    #[error("kernel command line has a NUL byte at position {position}; give a --cmdline without it")]
    CmdlineNul {
        /// Where, in bytes.
        position: usize,
    },
    /// The ACPI tables outgrow their place.
    #[error("ACPI tables for {cpus} vCPUs need more than the {limit} bytes kept for them; give fewer --cpus")]
    AcpiTooLarge {
        /// How many vCPUs were asked for.
        cpus: usize,
        /// Bytes there are.
        limit: u64,
    },
    /// Guest memory refused a write that the size checks had allowed.
    #[error("writing {what} to guest memory failed: {cause}; please report this as a bug")]
    GuestWrite {
        /// What was written.
        what: &'static str,
        /// What vm-memory said.
        cause: vm_memory::GuestMemoryError,
    },
}

impl BootError {
    /// Who can mend it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::MemoryMap { .. } | Self::Read { .. } | Self::GuestWrite { .. } => ErrorKind::Host,
            Self::Open { cause, .. } => match cause.kind() {
                io::ErrorKind::NotFound
                | io::ErrorKind::PermissionDenied
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::InvalidInput
                | io::ErrorKind::InvalidFilename => ErrorKind::Input,
                _ => ErrorKind::Host,
            },
            _ => ErrorKind::Input,
        }
    }
}

fn open_remedy(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::PermissionDenied => "make the file and its directories readable for this user",
        _ => "check the path",
    }
}

fn module_remedy(what: InputKind, bytes: u64, kernel_end: u64, max_end: u64) -> String {
    match kernel_end.checked_next_multiple_of(memory::PAGE_BYTES).and_then(|end| end.checked_add(bytes)) {
        Some(end) if end.next_multiple_of(memory::PAGE_BYTES) <= max_end => {
            format!("use a larger --memory, {} or more", Size(end.next_multiple_of(1 << 20)))
        }
        _ => format!("no --memory is enough, use a smaller {what}"),
    }
}
