//! The keys that are ours and not the guest's: Ctrl-A and one more; and a line for the monitor.

const CTRL_A: u8 = 1;
const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;
const BACKSPACE: u8 = 8;
const CTRL_U: u8 = 0x15;
const ESCAPE: u8 = 0x1b;
const DELETE: u8 = 0x7f;
/// Longest line.
const LONGEST: usize = 200;
/// Rubs out one character on the screen.
const RUB_OUT: &str = "\x08 \x08";

/// What a key press is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A byte for the guest.
    Byte(u8),
    /// The user wants to quit.
    Quit,
    /// The user wants to know the keys.
    Help,
    /// The user wants the monitor, or has enough of it.
    Monitor,
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
            b'c' => Key::Monitor,
            b'h' | b'?' => Key::Help,
            _ => Key::None,
        }
    }
}

/// What a byte does to the monitor's line.
#[derive(Debug, PartialEq, Eq)]
pub enum Edit {
    /// The screen shows this in addition.
    Show(String),
    /// The line is complete.
    Line(String),
    /// The user is done with the monitor.
    Leave,
}

/// The monitor's line while it is typed.
#[derive(Debug, Default)]
pub struct Line {
    text: String,
    sequence: Sequence,
}

/// Where in an escape sequence (an arrow key, say) we are; those do nothing.
#[derive(Debug, Default, PartialEq, Eq)]
enum Sequence {
    #[default]
    No,
    Begun,
    Inside,
}

impl Line {
    /// Takes one byte.
    pub fn press(&mut self, byte: u8) -> Edit {
        match (&self.sequence, byte) {
            (Sequence::No, ESCAPE) => self.sequence = Sequence::Begun,
            (Sequence::Begun, b'[' | b'O') => self.sequence = Sequence::Inside,
            (Sequence::Inside, b'0'..=b'9' | b';') => {}
            (Sequence::Begun | Sequence::Inside, _) => self.sequence = Sequence::No,
            (Sequence::No, b'\r' | b'\n') => return Edit::Line(std::mem::take(&mut self.text)),
            (Sequence::No, BACKSPACE | DELETE) => return Edit::Show(self.rub_out(1)),
            (Sequence::No, CTRL_U | CTRL_C) => return Edit::Show(self.rub_out(LONGEST)),
            (Sequence::No, CTRL_D) if self.text.is_empty() => return Edit::Leave,
            (Sequence::No, b' '..=b'~') if self.text.len() < LONGEST => {
                self.text.push(byte.into());
                return Edit::Show(char::from(byte).into());
            }
            (Sequence::No, _) => {}
        }
        Edit::Show(String::new())
    }

    fn rub_out(&mut self, most: usize) -> String {
        let count = most.min(self.text.len());
        self.text.truncate(self.text.len() - count);
        RUB_OUT.repeat(count)
    }
}
