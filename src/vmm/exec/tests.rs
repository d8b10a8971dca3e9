//! What goes into the guest, and what comes out of it; tests/boots.rs runs the real thing.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use cpio::newc::Reader;
use devices::command_port::{CommandSink, CommandStream};
use iced_x86::{Decoder, DecoderOptions};

use super::*;

/// The entries of an archive: mode and contents.
fn entries(archive: &[u8]) -> BTreeMap<String, (u32, Vec<u8>)> {
    let (mut rest, mut found) = (archive, BTreeMap::new());
    loop {
        let mut reader = Reader::new(rest).expect("an entry");
        let (name, mode) = (reader.entry().name().to_owned(), reader.entry().mode());
        if reader.entry().is_trailer() {
            return found;
        }
        let mut contents = Vec::new();
        reader.read_to_end(&mut contents).expect("its contents");
        found.insert(name, (mode, contents));
        rest = reader.finish().expect("the next entry");
    }
}

#[test]
fn the_initramfs_has_a_shell_and_the_layer_nothing_but_the_init() {
    let whole = archive::with_busybox(b"init", b"busybox").expect("an archive");
    let found = entries(&whole);
    assert_eq!(found[INIT], (0o100_700, b"init".to_vec()));
    assert_eq!(found["bin/busybox"], (0o100_755, b"busybox".to_vec()));
    assert_eq!(found["bin/sh"], (0o120_777, b"busybox".to_vec()));
    assert_eq!(found["proc"], (0o040_755, Vec::new()));

    let layer = archive::layer(b"an init").expect("an archive");
    let found = entries(&layer);
    assert_eq!(found.keys().collect::<Vec<_>>(), [".tophalf", INIT]);
    for archive in [whole, layer] {
        assert_eq!(archive.len() % 4, 0, "the next archive must begin on a boundary");
    }
    assert!(WORDS.ends_with(&format!("rdinit=/{INIT}")));
}

#[test]
fn the_init_is_a_program_with_the_command_in_it() {
    let elf = init::program(&["sh", "-c", "echo 'a b'"]).expect("assembled");
    assert!(elf.starts_with(b"\x7fELF\x02\x01"));
    let at = |range: std::ops::Range<usize>| u64::from_le_bytes(elf[range].try_into().expect("eight bytes"));
    let entry = at(24..32);
    // The first program header: the whole file, where the entry point is.
    let (offset, address, bytes) = (at(72..80), at(80..88), at(96..104));
    assert_eq!((offset, bytes), (0, elf.len() as u64));
    assert!((address..address + bytes).contains(&entry));
    let text = elf.windows(12).position(|window| window == b"echo 'a b'\0t" || window.starts_with(b"echo 'a b'\0"));
    assert!(text.is_some());
    // It is code up to the constants: every instruction is one, up to the first string.
    let constants = elf.windows(9).position(|window| window == b"devtmpfs\0").expect("the first constant");
    let start = (entry - address) as usize;
    let mut decoder = Decoder::with_ip(64, &elf[start..constants], entry, DecoderOptions::NONE);
    let mut count = 0;
    for instruction in &mut decoder {
        assert!(!instruction.is_invalid(), "at {:#x}", instruction.ip());
        count += 1;
    }
    assert!(count > 100, "{count}");
}

fn config(command: &str) -> Config {
    let exec = Exec { command: command.to_owned(), busybox: None, path: OsString::new() };
    Config {
        kernel: "k".into(),
        initrd: Some("i".into()),
        cmdline: Some("console=ttyS0 -- x".into()),
        exec: Some(exec),
        ..testing()
    }
}

/// A configuration to start from.
fn testing() -> Config {
    Config {
        kernel: "k".into(),
        initrd: None,
        modules: Vec::new(),
        cmdline: None,
        cpus: 1,
        memory: 64 << 20,
        no_reboot: false,
        on_halt: crate::OnHalt::Exit,
        serial: crate::SerialTarget::Null,
        announce: |_| {},
        irqchip: crate::Irqchip::User,
        testdev: false,
        apic_ids: Vec::new(),
        agent: None,
        same_cpuid: false,
        stats: None,
        stats_interval: None,
        trace: None,
        disks: Vec::new(),
        nets: Vec::new(),
        consoles: Vec::new(),
        rng: false,
        virtio: crate::Transport::Pci,
        watchdog: None,
        bottom_halves: crate::BottomHalfPlaces::default(),
        exec: None,
    }
}

#[test]
fn commands_that_make_no_sense_are_refused() {
    let refused = |config: Config| match config.check() {
        Err(e @ Error::Usage(_)) => e.to_string(),
        _ => panic!("not refused: {config:?}"),
    };
    assert!(refused(config(" \n")).contains("nothing to run"));
    assert!(refused(config("a\0b")).contains("NUL"));
    assert!(refused(config(&"x".repeat(131_072))).contains("131071"));
    let with = |change: fn(&mut Config)| {
        let mut config = config("true");
        change(&mut config);
        refused(config)
    };
    assert!(with(|c| c.cmdline = Some("a rdinit=/bin/sh".to_owned())).contains("rdinit="));
    assert!(with(|c| c.exec.as_mut().expect("set").busybox = Some("b".into())).contains("--busybox makes no sense"));
}

#[test]
fn the_users_words_come_behind_ours() {
    let config = config(&"x".repeat(131_071));
    config.check().expect("a good configuration");
    let command = Command::prepare(&config).expect("a good command").expect("a command");
    assert_eq!(command.cmdline, format!("{WORDS} console=ttyS0 -- x"));
    command.finish();
    assert!(Command::prepare(&testing()).expect("no command").is_none());
}

/// An x86-64 ELF file with one program header of this kind.
fn elf(kind: u32) -> Vec<u8> {
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(64, 0);
    elf[18] = 62;
    elf[32] = 64;
    (elf[54], elf[56]) = (56, 1);
    elf.extend(kind.to_le_bytes());
    elf.resize(120, 0);
    elf
}

#[test]
fn a_busybox_has_to_be_static() {
    let folder = std::env::temp_dir().join(format!("tophalf-busybox-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("the temporary directory is writable");
    let file = folder.join("busybox");
    let given = |contents: &[u8]| {
        fs::write(&file, contents).expect("the temporary directory is writable");
        busybox::find(Some(&file), OsStr::new("")).map_err(|e| e.to_string())
    };
    assert_eq!(given(&elf(1)), Ok(elf(1)));
    assert!(given(&elf(3)).is_err_and(|e| e.contains("shared libraries")));
    assert!(given(b"#!/bin/sh\n").is_err_and(|e| e.contains("no x86-64 program")));
    for length in 0..120 {
        assert!(given(&elf(1)[..length]).is_err() || length >= 68, "{length}");
    }
    assert!(busybox::find(Some(&folder), OsStr::new("")).is_err());
    assert!(busybox::find(Some(Path::new("/nonexistent")), OsStr::new("")).is_err());
    // Found in a path, past a folder that has none.
    fs::write(&file, elf(1)).expect("the temporary directory is writable");
    let path = std::env::join_paths([Path::new("/nonexistent"), &folder]).expect("plain paths");
    assert_eq!(busybox::find(None, &path).expect("it is there"), elf(1));
    fs::remove_dir_all(&folder).expect("it is ours");
}

/// A stream that takes so many bytes.
struct Narrow<'a>(&'a mut Vec<u8>, usize);

impl Write for Narrow<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(3).min(self.1);
        self.1 -= count;
        self.0.extend(&bytes[..count]);
        if count == 0 { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(count) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn put(streams: &Streams, stream: CommandStream, bytes: &[u8]) {
    bytes.iter().for_each(|&byte| streams.put(stream, byte));
}

#[test]
fn output_is_bounded_while_nobody_writes_it() {
    let streams = Streams::default();
    let room = streams.room(CommandStream::Out);
    put(&streams, CommandStream::Out, &vec![b'x'; room - 1]);
    put(&streams, CommandStream::Err, b"e");
    assert_eq!(streams.room(CommandStream::Out), 1);
    put(&streams, CommandStream::Out, b"yz");
    assert_eq!((streams.room(CommandStream::Out), streams.room(CommandStream::Err)), (0, room - 1));
    streams.close();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    streams.write_to(Narrow(&mut out, usize::MAX), Narrow(&mut err, usize::MAX));
    assert_eq!((out.len(), out.last(), err), (room, Some(&b'y'), b"e".to_vec()));
}

#[test]
fn a_stream_that_breaks_does_not_hold_up_the_other() {
    let streams = Streams::default();
    put(&streams, CommandStream::Out, b"output");
    put(&streams, CommandStream::Err, b"error");
    streams.close();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    streams.write_to(Narrow(&mut out, 4), Narrow(&mut err, usize::MAX));
    assert_eq!((out, err), (b"outp".to_vec(), b"error".to_vec()));
}
