//! What guests are measured in, and by which command.

use std::fmt;

use super::host;
use crate::quote;

/// What runs the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Tophalf, every interrupt controller in user space.
    User,
    /// Tophalf, local APICs in KVM.
    Split,
    /// Tophalf, all controllers in KVM.
    Kernel,
    /// QEMU, no controller in KVM. Does not come up with more than one vCPU.
    QemuOff,
    /// QEMU, all controllers in KVM.
    QemuOn,
}

impl Kind {
    const ALL: [(Self, &str); 5] = [
        (Self::User, "user"),
        (Self::Split, "split"),
        (Self::Kernel, "kernel"),
        (Self::QemuOff, "qemu-off"),
        (Self::QemuOn, "qemu-on"),
    ];

    /// From its name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, name)| *name == text).map(|(kind, _)| kind)
    }

    /// Whether it comes up with so many vCPUs.
    pub fn runs_on(self, cpus: u32) -> bool {
        self != Self::QemuOff || cpus == 1
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.into_iter().find(|(kind, _)| kind == self).map_or("", |(_, name)| name);
        f.pad(name)
    }
}

/// The guest; paths as the script finds them.
#[derive(Default)]
pub struct Machine {
    /// The tophalf program.
    pub program: String,
    /// The kernel's bzImage.
    pub kernel: String,
    /// The initramfs.
    pub initrd: String,
    /// Raw images of virtio disks.
    pub disks: Vec<String>,
    /// The tap interface of a virtio network device.
    pub tap: Option<String>,
}

impl Machine {
    /// Runs it with so many vCPUs and this kernel command line.
    pub fn command(&self, kind: Kind, cpus: u32, cmdline: &str) -> Vec<String> {
        let cpus = cpus.to_string();
        let Self { program, kernel, initrd, .. } = self;
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let tophalf = |mode| {
            let words =
                [program, "run", kernel, "--initrd", initrd, "--irqchip", mode, "--no-reboot", "--memory", "512M"];
            let mut words = owned(&[&words[..], &["--cpus", &cpus, "--cmdline", cmdline]].concat());
            words.extend(self.disks.iter().flat_map(|disk| ["--disk".to_owned(), disk.clone()]));
            words.extend(self.tap.iter().flat_map(|tap| ["--net".to_owned(), format!("tap={tap}")]));
            words
        };
        let qemu = |accel, cpu| {
            let words = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"];
            let machine = ["-machine", "q35", "-accel", accel, "-cpu", cpu, "-m", "512", "-smp", &cpus];
            let guest = ["-kernel", kernel, "-initrd", initrd, "-append", cmdline, "-serial", "stdio"];
            let mut words = owned(&[&words[..], &machine, &guest].concat());
            for (number, disk) in self.disks.iter().enumerate() {
                let drive = format!("if=none,id=disk{number},format=raw,cache=writeback,file={disk}");
                words.extend(owned(&["-drive", &drive, "-device", &format!("virtio-blk-pci,drive=disk{number}")]));
            }
            if let Some(tap) = &self.tap {
                let net = format!("tap,id=net,ifname={tap},script=no,downscript=no,vhost=off");
                // No boot from it: no ROM.
                words.extend(owned(&["-netdev", &net, "-device", "virtio-net-pci,netdev=net,romfile="]));
            }
            words
        };
        match kind {
            Kind::User => tophalf("user"),
            Kind::Split => tophalf("split"),
            Kind::Kernel => tophalf("kernel"),
            // These paravirtual features need a local APIC in KVM.
            Kind::QemuOff => {
                qemu("kvm,kernel-irqchip=off", "host,kvm-asyncpf=off,kvm-asyncpf-int=off,kvm-pv-eoi=off,kvm-pv-ipi=off")
            }
            Kind::QemuOn => qemu("kvm,kernel-irqchip=on", "host"),
        }
    }
}

/// What is to be measured.
pub struct Plan {
    /// The guest.
    pub machine: Machine,
    /// What runs it.
    pub kinds: Vec<Kind>,
    /// With so many vCPUs, one after the other.
    pub cpus: Vec<u32>,
    /// How often.
    pub rounds: u32,
}

impl Plan {
    /// A script: `prelude`, and a line for each guest that calls the shell function `call` of it with kind, vCPUs, round and the command
    /// that runs the guest, at most for `limit` seconds, with this kernel command line.
    pub fn script(&self, prelude: &str, call: &str, limit: u32, cmdline: &str) -> String {
        let mut script = [host::FACTS, prelude].concat();
        for round in 0..self.rounds {
            for &cpus in &self.cpus {
                for kind in self.order(round).filter(|kind| kind.runs_on(cpus)) {
                    let command = quote::line(&self.machine.command(kind, cpus, cmdline));
                    script += &format!("{call} {kind} {cpus} {round} timeout {limit} {command}\n");
                }
            }
        }
        script
    }

    /// Guests that the script runs.
    pub fn guests(&self) -> usize {
        let runs = |&cpus: &u32| self.kinds.iter().filter(|kind| kind.runs_on(cpus)).count();
        self.rounds as usize * self.cpus.iter().map(runs).sum::<usize>()
    }

    /// Every round begins with another kind.
    pub fn order(&self, round: u32) -> impl Iterator<Item = Kind> {
        let count = self.kinds.len();
        (0..count).map(move |i| self.kinds[(i + round as usize) % count])
    }
}
