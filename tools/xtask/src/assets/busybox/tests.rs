use super::*;

/// An ELF header with program headers of the given types.
fn elf(kinds: &[u32]) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    bytes[32] = 64;
    bytes[54] = 56;
    bytes[56] = kinds.len() as u8;
    for kind in kinds {
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.resize(bytes.len() + 52, 0);
    }
    bytes
}

#[test]
fn a_program_with_an_interpreter_is_not_static() {
    assert!(is_static(&elf(&[1, 1, 7])));
    assert!(!is_static(&elf(&[6, 3, 1])));
}

#[test]
fn a_file_that_is_no_elf_or_is_cut_off_is_not_static() {
    assert!(!is_static(b"#!/bin/sh"));
    assert!(!is_static(b""));
    assert!(!is_static(&elf(&[1, 1])[..100]));
}
