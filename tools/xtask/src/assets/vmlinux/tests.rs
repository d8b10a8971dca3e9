use super::*;

/// A bzImage with this payload before the size.
fn bzimage(payload: &[u8], size: usize) -> Vec<u8> {
    let mut image = vec![0; 2 * SECTOR];
    image[SETUP_SECTS] = 1;
    image[PAYLOAD_OFFSET..][..4].copy_from_slice(&7_u32.to_le_bytes());
    image[PAYLOAD_LENGTH..][..4].copy_from_slice(&(payload.len() as u32 + 4).to_le_bytes());
    image.extend([0xee; 7]);
    image.extend(payload);
    image.extend((size as u32).to_le_bytes());
    image.extend([0xdd; 100]);
    image
}

fn lz4(blocks: &[&[u8]]) -> Vec<u8> {
    let mut payload = LZ4_LEGACY.to_vec();
    for block in blocks {
        let packed = lz4_flex::block::compress(block);
        payload.extend((packed.len() as u32).to_le_bytes());
        payload.extend(packed);
    }
    payload
}

#[test]
fn blocks_are_put_together() {
    let (first, second) = ([b"\x7fELF", &[7; 5000][..]].concat(), vec![9; 100]);
    let kernel = unpack(&bzimage(&lz4(&[&first, &second]), 5104)).expect("a good image");
    assert_eq!(kernel, [first, second].concat());
}

#[test]
fn what_is_wrong_is_said() {
    let elf = lz4(&[b"\x7fELF 1234567890"]);
    for (image, word) in [
        (vec![0; 10], "too short"),
        (bzimage(&elf, 15)[..1040].to_vec(), "not in its file"),
        (bzimage(&[0xfd, b'7', b'z'], 0), "fd, 37, 7a"),
        (bzimage(&elf, 16), "15 bytes instead of 16"),
        (bzimage(&elf[..elf.len() - 1], 15), "cut off"),
        (bzimage(&lz4(&[b"something else"]), 14), "no ELF file"),
    ] {
        let error = unpack(&image).expect_err(word);
        assert!(format!("{error:#}").contains(word), "{error:#}");
    }
}
