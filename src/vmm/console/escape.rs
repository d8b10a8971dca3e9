//! The keys that are ours and not the guest's: Ctrl-A and one more.

const CTRL_A: u8 = 1;

/// What a key press is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A byte for the guest.
    Byte(u8),
    /// The user wants to quit.
    Quit,
    /// The user wants to know the keys.
    Help,
    /// Nothing, or nothing yet.
    None,
}

/// Remembers whether Ctrl-A was pressed.
#[derive(Debug, Default)]
pub struct Escape {
    pressed: bool,
}

impl Escape {
    /// Takes one byte.
    pub fn press(&mut self, byte: u8) -> Key {
        if !std::mem::take(&mut self.pressed) {
            self.pressed = byte == CTRL_A;
            return if self.pressed { Key::None } else { Key::Byte(byte) };
        }
        match byte {
            CTRL_A => Key::Byte(CTRL_A),
            b'x' => Key::Quit,
            b'h' | b'?' => Key::Help,
            _ => Key::None,
        }
    }
}
