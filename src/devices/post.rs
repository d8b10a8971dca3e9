//! POST code port 0x80 and the DMA page registers behind it: writes vanish, reads are all ones.
//!
//! Linux writes port 0x80 as an I/O delay, often. There is no DMA controller.

use x86::Nanos;

use crate::traits::BusDevice;

/// The ports.
#[derive(Debug, Default)]
pub struct Post;

impl BusDevice for Post {
    fn read(&mut self, _now: Nanos, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn write(&mut self, _now: Nanos, _offset: u64, _data: &[u8]) {}
}
