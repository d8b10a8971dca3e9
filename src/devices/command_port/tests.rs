//! The port against a sink that keeps what it takes.

use parking_lot::Mutex;

use super::*;
use crate::testing::{Control, inb, outb};

/// Room for 1000 bytes, both streams together.
#[derive(Default)]
struct Kept(Mutex<Vec<(CommandStream, u8)>>);

impl Kept {
    fn of(&self, stream: CommandStream) -> Vec<u8> {
        self.0.lock().iter().filter(|(of, _)| *of == stream).map(|(_, byte)| *byte).collect()
    }
}

impl CommandSink for Kept {
    fn room(&self, _: CommandStream) -> usize {
        1000 - self.0.lock().len()
    }

    fn put(&self, stream: CommandStream, byte: u8) {
        self.0.lock().push((stream, byte));
    }
}

fn port() -> (CommandPort, Arc<Kept>, Arc<Control>) {
    let (kept, control) = (Arc::new(Kept::default()), Arc::new(Control::default()));
    (CommandPort::new(kept.clone(), control.clone()), kept, control)
}

#[test]
fn output_goes_to_the_stream_of_its_window() {
    let (mut port, kept, _) = port();
    assert_eq!((inb(&mut port, 0, COMMAND_STATUS), inb(&mut port, 0, COMMAND_STATUS + 1)), (3, 3));
    for (at, byte) in (0..COMMAND_WINDOW).zip(0..=255) {
        outb(&mut port, 0, COMMAND_STDOUT + at, byte);
    }
    outb(&mut port, 0, COMMAND_STDERR, b'!');
    port.write(0, COMMAND_STDERR + COMMAND_WINDOW - 1, b"?");
    assert_eq!(kept.of(CommandStream::Out), (0..=255).collect::<Vec<u8>>());
    assert_eq!(kept.of(CommandStream::Err), b"!?");
    assert_eq!(inb(&mut port, 0, COMMAND_STATUS), 2);
    // A wide access is one of each of its bytes.
    port.write(0, COMMAND_STDERR - 2, b"abcd");
    assert!(kept.of(CommandStream::Out).ends_with(b"ab") && kept.of(CommandStream::Err).ends_with(b"cd"));
}

#[test]
fn every_status_is_passed_on_and_other_bytes_are_nothing() {
    let (mut port, kept, control) = port();
    for offset in [COMMAND_STATUS + 1, COMMAND_BYTES, COMMAND_BYTES + 7, u64::MAX] {
        port.write(0, offset, &[1; 8]);
    }
    let mut data = [0; 8];
    port.read(0, u64::MAX - 1, &mut data);
    assert_eq!(data, [0xff; 8]);
    assert_eq!(inb(&mut port, 0, COMMAND_STDOUT), 0xff);
    assert_eq!((control.take(), kept.0.lock().len()), (vec![], 0));
    for status in 0..=255 {
        outb(&mut port, 0, COMMAND_STATUS, status);
        assert_eq!(control.take(), [MachineEvent::CommandEnded(status)]);
    }
}
