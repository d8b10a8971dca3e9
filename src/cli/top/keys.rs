//! From the bytes that a terminal sends to keys.
//!
//! Ours, since the terminal crate's reader goes round for ever when its terminal is gone.

#[cfg(test)]
mod tests;

/// A key that means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A printable ASCII character.
    Char(char),
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-L.
    Repaint,
    /// The tabulator, to the right or to the left.
    Tab,
    BackTab,
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
}

/// The longest sequence that may become a key.
const LONGEST: usize = 16;
const ESCAPE: u8 = 0x1b;

/// Bytes that are no whole key yet.
#[derive(Default)]
pub struct Keys {
    rest: Vec<u8>,
}

enum Sequence {
    Key(Key),
    Unknown,
    Unfinished,
}

impl Keys {
    /// The keys in these bytes; what has no meaning here is left out.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<Key> {
        let mut keys = Vec::new();
        for &byte in bytes {
            if !self.rest.is_empty() {
                self.rest.push(byte);
                match sequence(&self.rest) {
                    Sequence::Unfinished if self.rest.len() < LONGEST => continue,
                    Sequence::Key(key) => keys.push(key),
                    Sequence::Unfinished | Sequence::Unknown => {}
                }
                let alone = self.rest.len() == 2 && !matches!(byte, b'[' | b'O');
                self.rest.clear();
                if !alone {
                    continue;
                }
                // The Escape key, and then this.
            }
            match byte {
                ESCAPE => self.rest.push(byte),
                0x03 => keys.push(Key::Interrupt),
                0x0c => keys.push(Key::Repaint),
                b'\t' => keys.push(Key::Tab),
                b' '..=b'~' => keys.push(Key::Char(byte.into())),
                _ => {}
            }
        }
        keys
    }
}

/// ECMA-48, section "Control sequences"; the keys as xterm sends them.
fn sequence(bytes: &[u8]) -> Sequence {
    let (parameters, last) = match bytes {
        [ESCAPE, b'[' | b'O'] => return Sequence::Unfinished,
        [ESCAPE, b'[' | b'O', parameters @ .., last] => (parameters, *last),
        _ => return Sequence::Unknown,
    };
    match (last, parameters) {
        (0x20..=0x3f, _) => Sequence::Unfinished,
        (b'A', _) => Sequence::Key(Key::Up),
        (b'B', _) => Sequence::Key(Key::Down),
        (b'C', _) => Sequence::Key(Key::Right),
        (b'D', _) => Sequence::Key(Key::Left),
        (b'H', _) | (b'~', b"1" | b"7") => Sequence::Key(Key::Home),
        (b'F', _) | (b'~', b"4" | b"8") => Sequence::Key(Key::End),
        (b'Z', _) => Sequence::Key(Key::BackTab),
        (b'~', b"5") => Sequence::Key(Key::PageUp),
        (b'~', b"6") => Sequence::Key(Key::PageDown),
        _ => Sequence::Unknown,
    }
}
