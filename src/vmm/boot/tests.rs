//! Images that are cut off or garbled: never a panic, never anything but an input error, never half a load.

use super::testing::{ElfFile, LOAD, Scratch, boot, bzimage, flat, multiboot_elf, pvh, read, refused};
use super::*;

const MEMORY: u64 = 64 << 20;
/// How much of an image has headers worth garbling.
const HEADERS: u64 = 0x280;
const ROUNDS: u64 = 600;

/// A generator for tests (xorshift, Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    /// A few bytes changed: to anything, or by one bit, or to a value at an edge.
    fn garble(&mut self, image: &mut [u8]) {
        for _ in 0..=self.below(3) {
            let at = self.below(HEADERS.min(image.len() as u64)) as usize;
            let width = 1 << self.below(4);
            let kind = self.below(3);
            let bit = self.below(8);
            let byte = self.below(256) as u8;
            for target in image.iter_mut().skip(at).take(width) {
                match kind {
                    0 => *target = byte,
                    1 => *target ^= 1 << bit,
                    _ => *target = if bit == 0 { 0 } else { 0xff },
                }
            }
        }
    }
}

fn images() -> Vec<Vec<u8>> {
    vec![
        bzimage(),
        ElfFile::new(true).bytes(),
        ElfFile::new(false).bytes(),
        pvh(LOAD as u32).bytes(),
        multiboot_elf().bytes(),
        flat(),
    ]
}

#[test]
fn unknown_files_are_told_what_is_known() {
    let ram = GuestRam::new(MEMORY).unwrap();
    for contents in [&b"#!/bin/sh\n"[..], &[0; 0x3000], b"x"] {
        let file = Scratch::file(contents);
        let line = refused(&ram, &boot(&file));
        assert!(line.starts_with(&format!("kernel {:?} is in no format known", file.path())), "{line}");
        assert!(line.contains("give a bzImage") && line.contains("multiboot"), "{line}");
    }
}

#[test]
fn an_image_cut_anywhere_is_refused() {
    for image in images() {
        for cut in (1..image.len().min(0x400)).chain([image.len() / 2]) {
            let file = Scratch::file(&image[..cut]);
            let line = refused(&GuestRam::new(MEMORY).unwrap(), &boot(&file));
            assert!(line.starts_with("kernel "), "{line}");
        }
    }
}

#[test]
fn a_garbled_image_is_loaded_or_refused() {
    let mut refusals = 0;
    for (kind, image) in images().into_iter().enumerate() {
        for round in 0..ROUNDS {
            let seed = (kind as u64 + 1) << 32 | (round + 1);
            let mut image = image.clone();
            Random(seed).garble(&mut image);
            let file = Scratch::file(&image);
            let ram = GuestRam::new(MEMORY).unwrap();
            // A panic in here shows the seed by this.
            let result = std::panic::catch_unwind(|| load(&ram, &boot(&file)));
            match result.unwrap_or_else(|_| panic!("a panic with seed {seed:#x}")) {
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Input, "seed {seed:#x}: {error}");
                    assert_eq!(read(&ram, 0, 0x1_0000), vec![0; 0x1_0000], "seed {seed:#x}");
                    assert!(!error.to_string().contains('\n'), "seed {seed:#x}: {error}");
                    refusals += 1;
                }
            }
        }
    }
    // Some change what nobody looks at, some are found.
    assert!(refusals > 100, "{refusals}");
}
