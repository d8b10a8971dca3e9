//! Where packets go.

use std::io;

use sys::tap::{Offloads, Tap};

/// A cable's other end, or one queue of it. Packets have a virtio-net header in front. Nothing blocks but for one call.
pub trait Backend: Send + Sync {
    /// Takes the next packet; gives its length. `WouldBlock` when there is none.
    fn receive(&self, packet: &mut [u8]) -> io::Result<usize>;
    /// Sends a packet.
    fn send(&self, packet: &[u8]) -> io::Result<()>;
    /// What packets may come in with.
    fn set_offloads(&self, offloads: Offloads) -> io::Result<()>;
    /// Whether packets come to this queue, of several; those that are in it may be lost. The one call that may block.
    fn set_attached(&self, attached: bool) -> io::Result<()>;
}

impl Backend for Tap {
    fn receive(&self, packet: &mut [u8]) -> io::Result<usize> {
        self.receive(packet)
    }

    fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.send(packet)
    }

    fn set_offloads(&self, offloads: Offloads) -> io::Result<()> {
        self.set_offloads(offloads)
    }

    fn set_attached(&self, attached: bool) -> io::Result<()> {
        self.set_attached(attached)
    }
}
