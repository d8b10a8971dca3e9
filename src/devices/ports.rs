//! Splitting accesses into bytes, as a chipset does for eight-bit devices.

/// The ports `offset`, `offset + 1`, … of an access of `len` bytes, as far as they are among the first `ports`;
/// `None` for those beyond, which nobody answers.
fn span(offset: u64, len: usize, ports: u8) -> impl Iterator<Item = Option<u8>> {
    (0..len as u64).map(move |i| {
        let port = offset.checked_add(i)?;
        if port < u64::from(ports) { Some(port as u8) } else { None }
    })
}

/// A read of any size from a device with `ports` one-byte ports; all ones where there is none.
pub(crate) fn read_bytes(offset: u64, data: &mut [u8], ports: u8, mut read: impl FnMut(u8) -> u8) {
    let len = data.len();
    for (byte, port) in data.iter_mut().zip(span(offset, len, ports)) {
        *byte = port.map_or(0xff, &mut read);
    }
}

/// A write of any size to a device with `ports` one-byte ports; what falls beside them is lost.
pub(crate) fn write_bytes(offset: u64, data: &[u8], ports: u8, mut write: impl FnMut(u8, u8)) {
    for (&byte, port) in data.iter().zip(span(offset, data.len(), ports)) {
        if let Some(port) = port {
            write(port, byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wide_access_is_split_and_ends_at_the_last_port() {
        let mut data = [0; 4];
        read_bytes(2, &mut data, 4, |port| port + 0x10);
        assert_eq!(data, [0x12, 0x13, 0xff, 0xff]);
        let mut seen = Vec::new();
        write_bytes(3, &[7, 8], 4, |port, value| seen.push((port, value)));
        assert_eq!(seen, [(3, 7)]);
    }

    #[test]
    fn an_offset_at_the_end_of_the_address_space_is_no_overflow() {
        let mut data = [0; 8];
        read_bytes(u64::MAX - 1, &mut data, 8, |_| 0);
        assert_eq!(data, [0xff; 8]);
    }
}
