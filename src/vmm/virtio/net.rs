//! `--net`.

use std::io;
use std::str::FromStr;

use devices::virtio::net::MAX_PAIRS;
use sys::tap::Tap;

use crate::Error;

/// A network device as the command line gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetConfig {
    /// The tap interface at its other end.
    pub tap: String,
    /// Its address.
    pub mac: [u8; 6],
    /// Pairs of queues, 1 to [`MAX_PAIRS`].
    pub queues: u16,
}

impl FromStr for NetConfig {
    type Err = Error;

    /// `tap=NAME`, and behind commas `mac=` with six bytes and `queues=` with a number.
    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |why: String| {
            Error::Usage(format!("--net {text:?}: {why}; give --net tap=NAME[,mac=02:00:00:00:00:01][,queues=N]"))
        };
        let (mut tap, mut mac, mut queues) = (None, None, 1);
        for part in text.split(',') {
            match part.split_once('=') {
                Some(("tap", name)) if !name.is_empty() => tap = Some(name.to_owned()),
                Some(("mac", address)) => {
                    mac = Some(parse_mac(address).ok_or_else(|| wrong(format!("{address:?} is no device's address")))?);
                }
                Some(("queues", number)) => {
                    let possible = number.parse().ok().filter(|number| (1..=MAX_PAIRS).contains(number));
                    queues = possible.ok_or_else(|| wrong(format!("{number:?} is no number from 1 to {MAX_PAIRS}")))?;
                }
                _ => return Err(wrong(format!("there is no option {part:?}"))),
            }
        }
        let tap = tap.ok_or_else(|| wrong("it names no tap interface".into()))?;
        let mac = mac.unwrap_or_else(|| mac_of(&tap));
        Ok(Self { tap, mac, queues })
    }
}

impl NetConfig {
    /// Opens the interface, a file for each queue.
    pub fn open(&self) -> Result<Vec<Tap>, Error> {
        let name = &self.tap;
        let opened =
            if self.queues == 1 { Tap::open(name).map(|tap| vec![tap]) } else { Tap::open_queues(name, self.queues) };
        opened.map_err(|e| {
            let several = if self.queues == 1 { "" } else { " multi_queue" };
            let make = format!("ip tuntap add {name} mode tap{several} user $USER");
            let remedy = match e.kind() {
                io::ErrorKind::NotFound => format!("make it: {make}"),
                io::ErrorKind::PermissionDenied => format!("make it yours: {make}"),
                io::ErrorKind::Unsupported => format!("leave out queues={}, or make it anew: {make}", self.queues),
                _ => "check --net".to_owned(),
            };
            Error::Usage(format!("cannot use the network interface {name}: {e}; {remedy}"))
        })
    }
}

/// Six bytes in hexadecimal, of which the first must not be a group's.
fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        *byte = parts
            .next()
            .filter(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|part| u8::from_str_radix(part, 16).ok())?;
    }
    (parts.next().is_none() && mac[0] & 1 == 0 && mac != [0; 6]).then_some(mac)
}

/// A locally administered address made from the interface's name (FNV-1a), the same each time.
fn mac_of(name: &str) -> [u8; 6] {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let [a, b, c, d, e, ..] = hash.to_le_bytes();
    [0x02, a, b, c, d, e]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_device_is_an_interface_and_an_address() {
        let net = |text: &str| text.parse::<NetConfig>().map_err(|e| e.to_string());
        let mac = [2, 0, 0, 0xa, 0xb, 0xc];
        assert_eq!(net("tap=t0,mac=02:00:00:0a:0B:0c"), Ok(NetConfig { tap: "t0".into(), mac, queues: 1 }));
        assert_eq!(net("tap=t0,queues=16").map(|net| net.queues), Ok(16));
        let (first, second) = (net("tap=t0").expect("a name"), net("tap=t1").expect("a name"));
        assert_ne!(first.mac, second.mac);
        assert_eq!(first.mac[0], 2);
        for (text, words) in [
            ("", "no option \"\""),
            ("t0", "no option \"t0\""),
            ("tap=", "no option \"tap=\""),
            ("mac=02:00:00:00:00:01", "names no tap interface"),
            ("tap=t0,mac=01:00:00:00:00:01", "is no device's address"),
            ("tap=t0,mac=02:00:00:00:01", "is no device's address"),
            ("tap=t0,mac=+2:00:00:00:00:01", "is no device's address"),
            ("tap=t0,mac=00:00:00:00:00:00", "is no device's address"),
            ("tap=t0,queues=0", "\"0\" is no number from 1 to 16"),
            ("tap=t0,queues=17", "\"17\" is no number from 1 to 16"),
            ("tap=t0,queues=", "\"\" is no number from 1 to 16"),
        ] {
            let said = net(text).expect_err(text);
            assert!(said.contains(words) && said.contains("give --net tap=NAME"), "{said}");
        }
    }
}
