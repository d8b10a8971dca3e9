//! A port as the host's end sees it.

use super::super::Common;
use super::super::queue::{read, total, write};
use super::{Console, Port, receive_queue, transmit_queue};
use crate::traits::ConsoleEnd;
use sys::terminal::Size;

/// Chains looked at in one call: a driver's empty ones must not keep anybody.
const BUDGET: usize = 64;

/// One port, for as long as the device is locked.
pub struct End<'a> {
    console: &'a mut Console,
    common: &'a mut Common,
    index: usize,
}

impl<'a> End<'a> {
    pub(super) fn new(console: &'a mut Console, common: &'a mut Common, index: usize) -> Self {
        Self { console, common, index }
    }

    fn port(&mut self) -> &mut Port {
        &mut self.console.ports[self.index]
    }

    /// Gives back what has been read whole, and takes the next that has something in it.
    fn settle(&mut self) {
        let queue = transmit_queue(self.index);
        let mut any = false;
        for turn in 0.. {
            if let Some((chain, read)) = self.port().output.take() {
                if read < total(chain.readable()) {
                    self.port().output = Some((chain, read));
                    break;
                }
                self.common.push(queue, chain.head(), 0);
                any = true;
            }
            if turn == BUDGET {
                // The rest later, when others have had their turn.
                self.port().look.iter().for_each(super::Runner::schedule);
                break;
            }
            match self.common.pop(queue) {
                Some(chain) => self.port().output = Some((chain, 0)),
                None if self.common.want_notification(queue) => {}
                None => break,
            }
        }
        if any {
            self.common.done(queue);
        }
    }
}

impl ConsoleEnd for End<'_> {
    fn push_input(&mut self, bytes: &[u8]) -> usize {
        if !self.console.takes_input(self.index, self.common) {
            return 0;
        }
        let queue = receive_queue(self.index);
        let (mut taken, mut any) = (0, false);
        for _ in 0..BUDGET {
            if taken == bytes.len() {
                break;
            }
            let Some(chain) = self.common.pop(queue) else {
                if self.common.want_notification(queue) {
                    continue;
                }
                break;
            };
            let written = write(self.common.memory(), chain.writable(), 0, &bytes[taken..]);
            self.common.push(queue, chain.head(), written as u32);
            taken += written;
            any = true;
        }
        if any {
            self.common.done(queue);
        }
        if any && taken < bytes.len() {
            self.port().look.iter().for_each(super::Runner::schedule);
        }
        taken
    }

    fn peek_output(&mut self, data: &mut [u8]) -> usize {
        self.settle();
        let memory = self.common.memory().clone();
        self.port().output.as_ref().map_or(0, |(chain, done)| read(&memory, chain.readable(), *done, data))
    }

    fn consume_output(&mut self, count: usize) {
        if let Some((_, read)) = &mut self.port().output {
            *read += count as u64;
        }
        self.settle();
    }

    fn output_len(&mut self) -> usize {
        self.settle();
        // virtio_queue takes no chain of 4 GiB.
        self.port().output.as_ref().map_or(0, |(chain, read)| (total(chain.readable()) - read) as usize)
    }

    fn resize(&mut self, size: Size) {
        self.console.resize(self.index, size, self.common);
    }
}
