//! Where the slow part of a device runs, among the places that its type allows.

use std::fmt;

use devices::virtio::Home;

use crate::Error;

/// A place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the top half itself, on the vCPU's thread.
    Inline,
    /// In a softirq of its own vector, on the CPU that asked.
    Softirq,
    /// In a tasklet, at home on the main loop's CPU.
    Tasklet,
    /// In an item of a work queue, which may block.
    Workqueue,
}

impl Place {
    const ALL: [Self; 4] = [Self::Inline, Self::Softirq, Self::Tasklet, Self::Workqueue];

    /// As the user says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inline => "inline",
            Self::Softirq => "softirq",
            Self::Tasklet => "tasklet",
            Self::Workqueue => "workqueue",
        }
    }

    /// The same for a virtio device, which has none inline.
    pub fn home(self) -> Home {
        match self {
            Self::Inline | Self::Softirq => Home::Softirq,
            Self::Tasklet => Home::Tasklet,
            Self::Workqueue => Home::WorkQueue,
        }
    }
}

/// A type of device with a slow part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// The serial port: writing its output.
    Serial,
    /// The programmable interval timer: its expiry.
    Pit,
    /// The real-time clock: its expiry.
    Rtc,
    /// The high-precision event timer: its expiry.
    Hpet,
    /// The ACPI timer: its expiry.
    Pm,
    /// The watchdog: its expiry.
    Watchdog,
    /// The storm device: raising what is due.
    Storm,
    /// A disk: where its reads and writes are tried first, without waiting; what would wait goes to the work queue.
    Blk,
    /// A network device: sending and receiving.
    Net,
    /// A virtio console: writing its output.
    Console,
}

impl Device {
    /// Every type, in the order of the help.
    pub const ALL: [Self; 10] = [
        Self::Serial,
        Self::Pit,
        Self::Rtc,
        Self::Hpet,
        Self::Pm,
        Self::Watchdog,
        Self::Storm,
        Self::Blk,
        Self::Net,
        Self::Console,
    ];

    /// As the user says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Serial => "serial",
            Self::Pit => "pit",
            Self::Rtc => "rtc",
            Self::Hpet => "hpet",
            Self::Pm => "pm",
            Self::Watchdog => "watchdog",
            Self::Storm => "storm",
            Self::Blk => "blk",
            Self::Net => "net",
            Self::Console => "console",
        }
    }

    /// Where it may run; the first is the default. What expires has nobody to be in line with, and a guest that notifies by a
    /// doorbell has not left.
    pub fn places(self) -> &'static [Place] {
        match self {
            Self::Serial => &[Place::Tasklet, Place::Inline, Place::Softirq, Place::Workqueue],
            Self::Pit | Self::Rtc | Self::Hpet | Self::Pm | Self::Watchdog | Self::Storm => {
                &[Place::Softirq, Place::Tasklet, Place::Workqueue]
            }
            Self::Blk => &[Place::Workqueue, Place::Softirq, Place::Tasklet],
            Self::Net => &[Place::Softirq, Place::Tasklet, Place::Workqueue],
            Self::Console => &[Place::Tasklet, Place::Softirq, Place::Workqueue],
        }
    }
}

/// The place of each type of device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places([Place; Device::ALL.len()]);

impl Default for Places {
    fn default() -> Self {
        Self(Device::ALL.map(|device| device.places()[0]))
    }
}

impl Places {
    /// From choices such as `serial=workqueue`; of several for one device the last counts.
    ///
    /// # Errors
    ///
    /// One line for a choice that is none, or that the device does not allow.
    pub fn parse<T: AsRef<str>>(choices: &[T]) -> Result<Self, Error> {
        let mut places = Self::default();
        for choice in choices {
            let (device, place) = parse(choice.as_ref())?;
            places.0[device as usize] = place;
        }
        Ok(places)
    }

    /// That of `device`.
    pub fn of(&self, device: Device) -> Place {
        self.0[device as usize]
    }
}

fn parse(choice: &str) -> Result<(Device, Place), Error> {
    let wrong = |why: String| Err(Error::Usage(why));
    let Some((device, place)) = choice.split_once('=') else {
        return wrong(format!("{choice:?} is no choice of a bottom half; give --bottom-half DEVICE=PLACE"));
    };
    let Some(&device) = Device::ALL.iter().find(|known| known.name() == device) else {
        let known = List(Device::ALL.iter().map(|device| device.name()).collect());
        return wrong(format!("{device:?} has no bottom half; give --bottom-half one of {known}"));
    };
    let allowed = List(device.places().iter().map(|place| place.name()).collect());
    match Place::ALL.into_iter().find(|known| known.name() == place) {
        Some(place) if device.places().contains(&place) => Ok((device, place)),
        _ => wrong(format!(
            "{} can't run its bottom half in {place:?}; give --bottom-half {}= one of {allowed}",
            device.name(),
            device.name()
        )),
    }
}

/// Names, separated by commas.
struct List(Vec<&'static str>);

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}
