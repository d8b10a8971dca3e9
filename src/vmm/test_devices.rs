//! The devices of `--testdev`, and where they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use devices::fw_cfg::{self, FwCfg};
use devices::testdev::{self, FlushPort, IrqLines, PageFlush, ScratchMemory, ScratchPorts};
use parking_lot::Mutex;
use vm_memory::{GuestAddress, GuestMemoryMmap};
use x86::platform;

use crate::Config;
use crate::boot::e820_map;
use crate::memory::GuestRam;
use crate::wiring::Wiring;

/// Puts them on the buses; `fw_cfg` holds these contents.
pub fn insert(wiring: &mut Wiring, contents: fw_cfg::Contents, ram: &GuestRam) {
    let scratch = || Arc::new(Mutex::new(ScratchPorts::default()));
    for base in [platform::TEST_SCRATCH, platform::TEST_SCRATCH_BYTES] {
        wiring.ports.insert(base.into(), testdev::SCRATCH_PORTS.into(), scratch());
    }
    let flush = FlushPort::new(Arc::new(Refault { memory: ram.memory().clone(), failed: AtomicBool::new(false) }));
    wiring.ports.insert(platform::TEST_FLUSH.into(), 4, Arc::new(Mutex::new(flush)));
    // As an ISA IRQ where there is one of this number. The cascade has no line; its number means I/O APIC pin 2.
    let gsi = |irq: u8| platform::isa_irq_to_gsi(irq).unwrap_or(irq);
    let lines: Vec<_> = (0..platform::GSIS as u8).map(|irq| wiring.line(gsi(irq))).collect();
    wiring.ports.insert(
        platform::TEST_IRQ_LINES.into(),
        lines.len() as u64,
        Arc::new(Mutex::new(IrqLines::new(lines))),
    );
    let memory = Arc::new(Mutex::new(ScratchMemory::default()));
    wiring.mmio.insert(platform::TEST_MEMORY, testdev::SCRATCH_MEMORY as u64, memory);
    let fw_cfg = FwCfg::new(contents);
    wiring.ports.insert(platform::FW_CFG.into(), 2, Arc::new(Mutex::new(fw_cfg)));
}

/// What `fw_cfg` tells of a machine; `apic_ids` are those of the vCPUs.
pub fn contents(config: &Config, ram: &GuestRam, apic_ids: &[u32]) -> fw_cfg::Contents {
    // Loaded already; if a file has vanished since, the guest is told of none.
    let bytes = |path: &std::path::Path| std::fs::metadata(path).map_or(0, |file| file.len() as u32);
    let e820 = e820_map(ram).into_iter().flat_map(|entry| {
        let (start, bytes) = (entry.start.to_le_bytes(), (entry.end - entry.start).to_le_bytes());
        [&start[..], &bytes, &(entry.kind as u32).to_le_bytes()].concat()
    });
    let end = apic_ids.iter().max().map_or(0, |id| id.saturating_add(1));
    fw_cfg::Contents {
        cpus: apic_ids.len() as u16,
        max_cpus: u16::try_from(end).unwrap_or(u16::MAX),
        ram: ram.bytes(),
        cmdline: config.cmdline.clone().unwrap_or_default(),
        kernel_bytes: bytes(&config.kernel),
        initrd_bytes: config.initrd.as_deref().map_or(0, bytes),
        files: vec![("etc/e820", e820.collect())],
    }
}

/// The host's mapping of guest memory.
struct Refault {
    memory: GuestMemoryMmap,
    failed: AtomicBool,
}

impl PageFlush for Refault {
    fn flush(&self, address: u64) {
        if let Err(e) = kvm::refault(&self.memory, GuestAddress(address))
            && !self.failed.swap(true, Ordering::Relaxed)
        {
            log::warn!("the host does not drop pages of guest memory: {e}");
        }
    }
}
