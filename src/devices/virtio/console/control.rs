//! The control queues: what driver and device tell each other of ports (section "Multiport Device Operation").
//!
//! What the driver has yet to be told is a set for each port, so that neither a driver that asks again and again nor a terminal that
//! changes its size again and again makes a list longer. A size is read when the message is written: the driver hears of the latest.

use bottom_half::Turn;

use super::super::queue::{Broken, read, total, write};
use super::super::{Common, Runner};
use super::{CONTROL_RECEIVE, CONTROL_TRANSMIT, Console, SIZE, Size};

/// Bytes of a message without a name: port, event, value.
const MESSAGE: usize = 8;
/// Messages in one turn.
const BUDGET: usize = 64;

/// Events.
const DEVICE_READY: u16 = 0;
const PORT_ADD: u16 = 1;
const PORT_READY: u16 = 3;
const CONSOLE_PORT: u16 = 4;
const RESIZE: u16 = 5;
const PORT_OPEN: u16 = 6;
const PORT_NAME: u16 = 7;

/// What the driver has yet to be told of a port, in the order of [`Pending::ORDER`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Pending(u8);

impl Pending {
    // A size is nothing to Linux's driver before it knows of the console.
    const ORDER: [u16; 5] = [PORT_ADD, CONSOLE_PORT, RESIZE, PORT_NAME, PORT_OPEN];

    fn add(&mut self, event: u16) {
        self.0 |= 1 << event;
    }

    fn remove(&mut self, event: u16) {
        self.0 &= !(1 << event);
    }

    fn first(self) -> Option<u16> {
        Self::ORDER.into_iter().find(|event| self.0 & 1 << event != 0)
    }
}

impl Console {
    /// Hears what the driver says, and tells it what it has yet to know.
    pub(super) fn serve_control(&mut self, common: &mut Common) -> Turn {
        let heard = self.hear(common);
        self.tell(common);
        heard
    }

    fn hear(&mut self, common: &mut Common) -> Turn {
        common.no_notification(CONTROL_TRANSMIT);
        let mut turn = Turn::Again;
        let mut any = false;
        for _ in 0..BUDGET {
            let Some(chain) = common.pop(CONTROL_TRANSMIT) else {
                if common.want_notification(CONTROL_TRANSMIT) {
                    continue;
                }
                turn = Turn::Done;
                break;
            };
            let mut message = [0; MESSAGE];
            if read(common.memory(), chain.readable(), 0, &mut message) == MESSAGE {
                self.take(message, common);
            }
            common.push(CONTROL_TRANSMIT, chain.head(), 0);
            any = true;
        }
        if any {
            common.done(CONTROL_TRANSMIT);
        }
        turn
    }

    /// One message; what makes no sense is ignored.
    fn take(&mut self, [p0, p1, p2, p3, e0, e1, v0, v1]: [u8; MESSAGE], common: &Common) {
        let (event, value) = (u16::from_le_bytes([e0, e1]), u16::from_le_bytes([v0, v1]));
        if (event, value) == (DEVICE_READY, 1) {
            return self.ports.iter_mut().for_each(|port| port.pending.add(PORT_ADD));
        }
        let index = u32::from_le_bytes([p0, p1, p2, p3]) as usize;
        let Some(port) = self.ports.get_mut(index) else { return };
        match (event, value) {
            (PORT_READY, 1) => {
                port.pending.add(if port.name.is_none() { CONSOLE_PORT } else { PORT_NAME });
                // There is always somebody: who is not there now may come and read.
                port.pending.add(PORT_OPEN);
                port.is_ready = true;
                if port.size != Size::default() {
                    self.news_of_size(index, common);
                }
            }
            (PORT_READY, _) if !std::mem::replace(&mut self.complained, true) => {
                log::warn!("console: the guest's driver can't use port {index} (further ones are not logged)");
            }
            (PORT_OPEN, value) => {
                port.is_open = value == 1;
                // What was typed before may wait.
                port.look.iter().for_each(Runner::schedule);
            }
            _ => {}
        }
    }

    /// The driver has yet to be told of a console's size, if it wants to know sizes.
    pub(super) fn news_of_size(&mut self, index: usize, common: &Common) {
        let port = &mut self.ports[index];
        if common.has(SIZE) && port.name.is_none() {
            port.pending.add(RESIZE);
        }
    }

    pub(super) fn tell(&mut self, common: &mut Common) {
        common.no_notification(CONTROL_RECEIVE);
        let mut any = false;
        while let Some((index, event)) = self.next_news() {
            let Some(chain) = common.pop(CONTROL_RECEIVE) else {
                if common.want_notification(CONTROL_RECEIVE) {
                    continue;
                }
                break;
            };
            let mut message = [&(index as u32).to_le_bytes()[..], &event.to_le_bytes(), &1u16.to_le_bytes()].concat();
            message.extend(self.more_about(index, event));
            if total(chain.writable()) < message.len() as u64 {
                common.broken(&Broken(format!("{} bytes for a message of {}", total(chain.writable()), message.len())));
                break;
            }
            let written = write(common.memory(), chain.writable(), 0, &message);
            common.push(CONTROL_RECEIVE, chain.head(), written as u32);
            self.ports[index].pending.remove(event);
            any = true;
        }
        if any {
            common.done(CONTROL_RECEIVE);
        }
    }

    /// What is behind the message.
    fn more_about(&self, index: usize, event: u16) -> Vec<u8> {
        let port = &self.ports[index];
        match event {
            PORT_NAME => port.name.as_deref().unwrap_or_default().into(),
            // The order of the specification, columns first. Linux's driver took the rows first from 2010 to 2025; then mainline was
            // corrected, and its stable branches with it: Debian 12's 6.1.172 goes by the specification. The driver does not say which it
            // is. Where a console is alone its size is in the configuration, on whose order all agree.
            RESIZE => [port.size.columns.to_le_bytes(), port.size.rows.to_le_bytes()].concat(),
            _ => Vec::new(),
        }
    }

    fn next_news(&self) -> Option<(usize, u16)> {
        self.ports.iter().enumerate().find_map(|(index, port)| Some((index, port.pending.first()?)))
    }
}
