//! Tap interfaces: network interfaces whose cable ends in this process (Linux: Documentation/networking/tuntap.rst).
//!
//! Every packet has a virtio-net header of [`HEADER`] bytes in front. Packets never block.
//!
//! An interface may have several queues, each a descriptor of its own. The kernel spreads incoming packets over those that are attached, by
//! flow.

#[cfg(test)]
mod tests;

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::check;

/// Bytes of the header in front of each packet.
pub const HEADER: usize = 12;

/// What the other side may leave to the receiver of its packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Packets without checksums.
    pub checksum: bool,
    /// Long TCP segments over IPv4.
    pub tso4: bool,
    /// Long TCP segments over IPv6.
    pub tso6: bool,
    /// Those with ECN, too.
    pub ecn: bool,
}

/// An open tap interface, or one queue of it.
#[derive(Debug)]
pub struct Tap {
    file: File,
    attached: AtomicBool,
}

impl Tap {
    /// Opens interface `name`, which must be there.
    ///
    /// # Errors
    ///
    /// There is no such interface, it is no tap interface, or it belongs to somebody else. A message without the name.
    pub fn open(name: &str) -> io::Result<Self> {
        let (file, name) = prepare(name)?;
        // One that was made for several queues must be opened as such.
        let attached = attach(&file, &name, 0).or_else(|e| match e.raw_os_error() {
            Some(libc::EINVAL) => attach(&file, &name, libc::IFF_MULTI_QUEUE),
            _ => Err(e),
        });
        attached.map_err(refused)?;
        Self::ready(file)
    }

    /// Opens `count` queues of interface `name`, which must be there and made for several. Only the first is attached.
    ///
    /// # Errors
    ///
    /// As for [`Tap::open`]; [`io::ErrorKind::Unsupported`] if the interface has one queue only.
    pub fn open_queues(name: &str, count: u16) -> io::Result<Vec<Self>> {
        let open = |number| {
            let (file, name) = prepare(name)?;
            attach(&file, &name, libc::IFF_MULTI_QUEUE).map_err(|e| match e.raw_os_error() {
                // It may be one that was not made for several.
                Some(libc::EINVAL) => match attach(&file, &name, 0).map_err(|e| e.raw_os_error()) {
                    Ok(()) | Err(Some(libc::EBUSY)) => {
                        io::Error::new(io::ErrorKind::Unsupported, "it has one queue only")
                    }
                    Err(_) => refused(e),
                },
                _ => refused(e),
            })?;
            let tap = Self::ready(file)?;
            tap.set_attached(number == 0)?;
            Ok(tap)
        };
        (0..count).map(open).collect()
    }

    /// Makes an interface for several queues, which is there as long as this is open; this is one of them, detached. For tests.
    pub fn make(name: &str) -> io::Result<Self> {
        let (file, name) = (open_tun()?, checked(name)?);
        attach(&file, &name, libc::IFF_MULTI_QUEUE).map_err(refused)?;
        let tap = Self::ready(file)?;
        tap.set_attached(false)?;
        Ok(tap)
    }

    /// The interface is this file's.
    fn ready(file: File) -> io::Result<Self> {
        let bytes = HEADER as libc::c_int;
        // SAFETY: the request reads one int.
        check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &bytes) })?;
        let tap = Self { file, attached: AtomicBool::new(true) };
        tap.set_offloads(Offloads::default())?;
        Ok(tap)
    }

    /// Whether packets come to this queue of several. Detaching it loses those that are in it. Waits for the kernel, some milliseconds. For
    /// one caller at a time.
    pub fn set_attached(&self, attached: bool) -> io::Result<()> {
        if self.attached.load(Ordering::Relaxed) != attached {
            let flags = if attached { libc::IFF_ATTACH_QUEUE } else { libc::IFF_DETACH_QUEUE };
            request(&self.file, libc::TUNSETQUEUE, &CString::default(), flags)?;
            self.attached.store(attached, Ordering::Relaxed);
        }
        Ok(())
    }

    /// What packets may come in with.
    pub fn set_offloads(&self, offloads: Offloads) -> io::Result<()> {
        let mut flags = 0;
        if offloads.checksum {
            flags |= libc::TUN_F_CSUM;
            flags |= if offloads.tso4 { libc::TUN_F_TSO4 } else { 0 };
            flags |= if offloads.tso6 { libc::TUN_F_TSO6 } else { 0 };
            flags |= if offloads.ecn && (offloads.tso4 || offloads.tso6) { libc::TUN_F_TSO_ECN } else { 0 };
        }
        // SAFETY: the request takes its argument as a number.
        check(unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(flags)) }).map(drop)
    }

    /// Takes the next packet with its header; gives its length, cut off at the end of `packet`.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there is none.
    pub fn receive(&self, packet: &mut [u8]) -> io::Result<usize> {
        (&self.file).read(packet)
    }

    /// Sends a packet with its header.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        (&self.file).write(packet).map(drop)
    }
}

impl AsRawFd for Tap {
    /// Readable when there is a packet.
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// A file for interface `name`, which is there.
fn prepare(name: &str) -> io::Result<(File, CString)> {
    let c_name = checked(name)?;
    // Opening one that is not there would make it, if we may.
    // SAFETY: the name is a string with its end.
    if unsafe { libc::if_nametoindex(c_name.as_ptr()) } == 0 {
        return Err(io::Error::new(io::ErrorKind::NotFound, "there is no such interface"));
    }
    Ok((open_tun()?, c_name))
}

fn checked(name: &str) -> io::Result<CString> {
    if name.is_empty() || name.len() >= libc::IFNAMSIZ {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "an interface's name has 1 to 15 characters"));
    }
    CString::new(name).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// A file that is no interface's yet.
fn open_tun() -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
    options.open("/dev/net/tun").map_err(|e| io::Error::new(e.kind(), format!("/dev/net/tun: {e}")))
}

fn attach(file: &File, name: &CString, flags: libc::c_int) -> io::Result<()> {
    request(file, libc::TUNSETIFF, name, flags | libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR)
}

/// Why an interface can't be had.
fn refused(e: io::Error) -> io::Error {
    match e.raw_os_error() {
        Some(libc::EINVAL) => io::Error::new(io::ErrorKind::InvalidInput, "it is no tap interface"),
        Some(libc::EBUSY) => io::Error::new(io::ErrorKind::ResourceBusy, "another program uses it"),
        _ => e,
    }
}

/// A request whose argument is an `ifreq` with name and flags.
fn request(file: &File, number: libc::Ioctl, name: &CString, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: all of it is numbers, of which zero is one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(name.as_bytes()) {
        *place = *byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: both requests that come here read and write an ifreq, which `request` is.
    check(unsafe { libc::ioctl(file.as_raw_fd(), number, &mut request) }).map(drop)
}
