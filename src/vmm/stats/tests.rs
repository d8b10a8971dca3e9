//! A snapshot of a machine, its audit, its file, its socket.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use bottom_half::{System, ThreadPort};
use irqchip::lapic::{Config, LocalApic};
use irqchip::line::{LineTarget, MsiTarget};
use x86::apic::TriggerMode;
use x86::ioapic::{IOREGSEL, IOWIN, REG_TABLE};

use super::*;
use crate::interrupts::Interrupts;

/// A machine of one vCPU whose pin 4 has interrupted, whose MSI went nowhere, and whose ledger is published.
fn machine() -> (Books, System) {
    let config = Config { id: 0, bsp: true, x2apic: true, tsc_deadline: true, cmci: false, physical_bits: 40 };
    let mut apic = LocalApic::new(config);
    let _ = apic.enter_virtual_wire_mode();
    let interrupts = Arc::new(Interrupts::new(Clock::start(), 0, vec![apic.address()]));
    let window = crate::interrupts::IoApicWindow(Arc::clone(&interrupts));
    use crate::io_bus::Handler;
    window.write(0, IOREGSEL, &[REG_TABLE + 8]);
    window.write(0, IOWIN, &0x51_u32.to_le_bytes());
    interrupts.set_level(4, true);
    interrupts.set_level(4, false);
    interrupts.send(0xfee0_9000, 0x61);
    let _ = apic.collect(interrupts.mailbox(0));
    let vector = apic.acknowledge().expect("pin 4's");
    apic.accept(0x31, TriggerMode::Edge);
    let processors = interrupts.processors();
    processors.counts(0).interrupt(vector);
    let ledger = VcpuLedger { apic: *apic.ledger(), pending: apic.pending(), ..VcpuLedger::default() };
    assert!(processors.counts(0).publish(&ledger));
    let (system, _owners) =
        System::new(bottom_half::Config::default(), vec![Arc::new(ThreadPort::default())]).expect("threads");
    (Books::of_parts(processors, Some(Arc::clone(&interrupts) as _), &system), system)
}

fn snapshot() -> Snapshot {
    let (books, system) = machine();
    let snapshot = books.snapshot(Moment::End);
    system.shutdown(None).expect("nothing of it is stuck");
    snapshot
}

#[test]
fn a_snapshot_says_what_happened_and_balances() {
    let snapshot = snapshot();
    assert_eq!(snapshot.imbalances(), []);
    let source = |name: &str| snapshot.sources.iter().find(|source| source.name == name).expect(name);
    assert_eq!((source("pin 4").account.asserted, source("pin 4").account.delivered), (1, 1));
    assert_eq!((source("MSI").account.asserted, source("MSI").account.dropped.no_destination), (1, 1));
    assert_eq!(snapshot.vcpus[0].vectors, BTreeMap::from([(0x51, 1)]));
    assert_eq!(snapshot.vcpus[0].ledger.expect("ours").pending.requests, 1, "the self-IPI");
}

#[test]
fn a_snapshot_comes_back_from_its_line() {
    let snapshot = snapshot();
    let line = snapshot.to_line();
    assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1, "one line");
    assert_eq!(serde_json::from_slice::<Snapshot>(&line).expect("ours"), snapshot);
}

/// Each is an increment that somebody forgot.
#[test]
fn an_increment_left_out_is_found_and_named() {
    let good = snapshot();
    let ledger = |snapshot: &mut Snapshot| snapshot.vcpus[0].ledger.take().expect("ours");
    type Forget<'a> = (&'a str, Box<dyn Fn(&mut Snapshot)>);
    let source = |name: &'static str, forget: fn(&mut Account)| -> Box<dyn Fn(&mut Snapshot)> {
        Box::new(move |s| forget(&mut s.sources.iter_mut().find(|source| source.name == name).expect(name).account))
    };
    let vcpu = |forget: fn(&mut VcpuLedger)| -> Box<dyn Fn(&mut Snapshot)> {
        Box::new(move |s| {
            let mut changed = ledger(s);
            forget(&mut changed);
            s.vcpus[0].ledger = Some(changed);
        })
    };
    let cases: Vec<Forget<'_>> = vec![
        ("pin 4", source("pin 4", |account| account.asserted -= 1)),
        ("pin 4", source("pin 4", |account| account.delivered -= 1)),
        ("MSI", source("MSI", |account| account.dropped.no_destination -= 1)),
        ("vCPU 0 requests", vcpu(|ledger| ledger.apic.requests.delivered -= 1)),
        ("vCPU 0 in service", vcpu(|ledger| ledger.apic.in_service.asserted -= 1)),
        ("vCPU 0 sources to IRR", vcpu(|ledger| ledger.apic.requests.asserted -= 1)),
        ("vCPU 0 NMIs", vcpu(|ledger| ledger.nmis.asserted += 1)),
        ("vCPU 0 acknowledged to given", Box::new(|s| s.vcpus[0].interrupts -= 1)),
        ("vCPU 0 given by vector", Box::new(|s| s.vcpus[0].vectors.clear())),
        ("posts to mailboxes", Box::new(|s| s.posts.get_mut("ioapic").expect("posts").requests -= 1)),
        ("NMIs to mailboxes", Box::new(|s| s.vcpus[0].mailbox_nmis += 1)),
        ("8259A cycles to vCPUs", Box::new(|s| s.vcpus[0].extints += 1)),
        ("8259A cycles to inputs", Box::new(|s| s.pic_cycles.as_mut().expect("ours").polled += 1)),
    ];
    for (name, forget) in cases {
        let mut broken = good.clone();
        forget(&mut broken);
        let found = broken.imbalances();
        assert!(found.iter().any(|imbalance| imbalance.source == name), "{name}: {found:?}");
    }
}

#[test]
fn what_ties_two_chips_is_checked_at_the_end_only() {
    let mut snapshot = snapshot();
    snapshot.moment = Moment::Running;
    snapshot.vcpus[0].mailbox_requests += 1;
    assert_eq!(snapshot.imbalances(), []);
}

#[test]
fn the_table_has_interrupts_costs_and_the_ledger() {
    let table = snapshot().table();
    for word in ["CPU0", " 0x51:          1", "LOC:", "exits by reason", "pin 4", "no_destination=1", "vCPU 0 ISR"] {
        assert!(table.contains(word), "no {word:?} in\n{table}");
    }
}

#[test]
fn a_full_disk_ends_the_file_and_not_the_machine() {
    let output = Output::open(Path::new("/dev/full")).expect("it can be opened");
    let snapshot = snapshot();
    output.write(&snapshot);
    output.write(&snapshot);
}

#[test]
fn a_file_that_can_t_be_made_is_the_user_s_mistake() {
    let Err(error) = Output::open(Path::new("/nowhere/stats")) else { panic!("it can't be made") };
    assert!(matches!(&error, crate::Error::Usage(line) if line.contains("/nowhere/stats") && line.contains("give")));
}

fn answer(server: &mut Server, text: &[u8]) -> Vec<u8> {
    let mut client = UnixStream::connect(server.path()).expect("somebody listens");
    let slow = server.accept(|| text.to_vec());
    let mut got = Vec::new();
    let mut part = vec![0; 1 << 16];
    // As the main loop does: more, whenever there is room.
    for fd in slow {
        loop {
            let done = server.send_more(fd);
            if done {
                break;
            }
            let n = client.read(&mut part).expect("more");
            got.extend(&part[..n]);
        }
        server.forget(fd);
    }
    client.read_to_end(&mut got).expect("the rest");
    got
}

#[test]
fn a_client_gets_one_answer_whole_however_slowly_it_reads() {
    let scratch = tempfile::tempdir().expect("a folder");
    let folder = scratch.path().join("tophalf");
    let mut server = Server::open(&folder).expect("a socket");
    for size in [1, 3 << 20] {
        let text = vec![b'x'; size];
        assert_eq!(answer(&mut server, &text).len(), size);
    }
    let path = server.path().to_owned();
    assert!(path.exists());
    drop(server);
    assert!(!path.exists(), "it is removed");
}

#[test]
fn a_folder_that_others_can_enter_is_refused() {
    let scratch = tempfile::tempdir().expect("a folder");
    let folder = scratch.path().join("tophalf");
    fs::DirBuilder::new().mode(0o700).create(&folder).expect("a folder");
    assert!(Server::open(&folder).is_ok());
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("ours");
    let Err(error) = Server::open(&folder) else { panic!("others can enter") };
    assert!(error.to_string().contains("XDG_RUNTIME_DIR"), "{error}");
    fs::remove_dir(&folder).expect("empty");
    std::os::unix::fs::symlink(scratch.path(), &folder).expect("a link");
    assert!(Server::open(&folder).is_err(), "a link to elsewhere");
}
