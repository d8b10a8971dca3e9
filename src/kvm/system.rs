//! `/dev/kvm`: opening it, and saying plainly why it cannot be used.

use std::ffi::CString;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::{fs, io};

use kvm_bindings::{KVM_API_VERSION, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::Cap;

use crate::{Error, Vm};

/// The device.
const DEVICE: &str = "/dev/kvm";

/// What every machine needs, with the kernel that first had it.
const NEEDED: [(Cap, &str, &str); 8] = [
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY", "2.6.25"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR", "2.6.24"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID", "2.6.26"),
    (Cap::VcpuEvents, "KVM_CAP_VCPU_EVENTS", "2.6.33"),
    (Cap::UserNmi, "KVM_CAP_USER_NMI", "2.6.29"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT", "4.13"),
    (Cap::X86UserSpaceMsr, "KVM_CAP_X86_USER_SPACE_MSR", "5.10"),
    (Cap::X86MsrFilter, "KVM_CAP_X86_MSR_FILTER", "5.10"),
];

/// An open `/dev/kvm` with everything this program needs.
#[derive(Debug)]
pub struct Kvm {
    fd: kvm_ioctls::Kvm,
}

impl Kvm {
    /// Opens `/dev/kvm`. Fails with [`Error::Host`], cause and remedy, if it is missing, may not be opened by this
    /// user, is not version 12, or lacks a capability.
    pub fn open() -> Result<Self, Error> {
        Self::open_at(Path::new(DEVICE))
    }

    fn open_at(path: &Path) -> Result<Self, Error> {
        let name =
            CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| Error::Unexpected("a path with a NUL"))?;
        let fd = kvm_ioctls::Kvm::new_with_path(&name)
            .map_err(|e| cannot_open(path, &io::Error::from_raw_os_error(e.errno())))?;
        match fd.get_api_version() {
            v if i64::from(v) == i64::from(KVM_API_VERSION) => {}
            -1 => {
                let cause = format!("{} is not the KVM device", path.display());
                return Err(host(cause, "load the kvm module of this kernel"));
            }
            v => {
                let cause = format!("this kernel's KVM has API version {v}, not {KVM_API_VERSION}");
                return Err(host(cause, "use Linux 5.10 or newer"));
            }
        }
        for (cap, name, since) in NEEDED {
            if !fd.check_extension(cap) {
                return Err(missing(name, since));
            }
        }
        Ok(Self { fd })
    }

    /// Makes an empty virtual machine without an interrupt controller.
    pub fn create_vm(&self) -> Result<Vm, Error> {
        Vm::new(self)
    }

    /// The CPUID entries that KVM could give a guest; [`crate::cpuid::table`] makes a vCPU's table from them.
    pub fn supported_cpuid(&self) -> Result<Vec<kvm_cpuid_entry2>, Error> {
        let entries =
            self.fd.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(Error::call("KVM_GET_SUPPORTED_CPUID"))?;
        Ok(entries.as_slice().to_vec())
    }

    /// The most vCPUs a machine can have here.
    pub fn max_vcpus(&self) -> usize {
        self.fd.get_max_vcpus()
    }

    /// Whether the run page can carry the general registers (KVM_CAP_SYNC_REGS), which saves an ioctl per look at them.
    pub fn has_sync_regs(&self) -> bool {
        self.fd.check_extension_int(Cap::SyncRegs) & kvm_bindings::KVM_SYNC_X86_REGS as i32 != 0
    }

    /// The vCPU numbers that KVM takes are below this; with KVM's local APICs they are APIC IDs.
    pub fn max_vcpu_ids(&self) -> u32 {
        u32::try_from(self.fd.get_max_vcpu_id()).unwrap_or(u32::MAX)
    }

    /// Fails if this KVM can't have all interrupt controllers itself.
    pub fn check_irqchip(&self) -> Result<(), Error> {
        self.check_for_mode(&[(Cap::Irqchip, "KVM_CAP_IRQCHIP"), (Cap::IrqRouting, "KVM_CAP_IRQ_ROUTING")])
    }

    /// Fails if this KVM can't have the local APICs alone.
    pub fn check_split_irqchip(&self) -> Result<(), Error> {
        self.check_for_mode(&[(Cap::SplitIrqchip, "KVM_CAP_SPLIT_IRQCHIP"), (Cap::X2ApicApi, "KVM_CAP_X2APIC_API")])
    }

    /// Whether KVM's local APICs have the TSC-deadline timer.
    pub fn has_tsc_deadline_timer(&self) -> bool {
        self.fd.check_extension(Cap::TscDeadlineTimer)
    }

    fn check_for_mode(&self, needed: &[(Cap, &str)]) -> Result<(), Error> {
        match needed.iter().find(|(cap, _)| !self.fd.check_extension(*cap)) {
            None => Ok(()),
            Some((_, name)) => Err(host(format!("this host's KVM lacks {name}"), "use --irqchip user")),
        }
    }

    pub(crate) fn fd(&self) -> &kvm_ioctls::Kvm {
        &self.fd
    }
}

/// Whether `/dev/kvm` can be opened and used; for tests that are skipped without it.
pub fn kvm_available() -> bool {
    Kvm::open().is_ok()
}

pub(crate) fn missing(capability: &str, since: &str) -> Error {
    host(format!("this host's KVM lacks {capability}"), &format!("it needs Linux {since} or newer"))
}

fn host(cause: String, remedy: &str) -> Error {
    Error::Host { cause, remedy: remedy.to_owned() }
}

fn cannot_open(path: &Path, error: &io::Error) -> Error {
    let shown = path.display();
    match error.raw_os_error() {
        Some(libc::ENOENT) => host(
            format!("{shown} does not exist"),
            "load the module (`modprobe kvm_intel` or `modprobe kvm_amd`) and see that virtualization is on in the firmware",
        ),
        Some(libc::ENXIO | libc::ENODEV) => host(
            format!("{shown} is there, but its module is not loaded"),
            "`modprobe kvm_intel` or `modprobe kvm_amd`",
        ),
        Some(libc::EACCES | libc::EPERM) => {
            let remedy = fs::metadata(path).ok().and_then(|m| allowed_group(&m)).map_or_else(
                || "run as root, or let your user read and write it".to_owned(),
                |group| format!("add yourself to group {group} (`sudo adduser $USER {group}`) and log in again"),
            );
            host(format!("no permission to open {shown}"), &remedy)
        }
        _ => host(format!("cannot open {shown}: {error}"), "see that KVM works on this host"),
    }
}

/// The group that may read and write the device, by name if `/etc/group` has it.
fn allowed_group(device: &fs::Metadata) -> Option<String> {
    if !device.file_type().is_char_device() || device.mode() & 0o060 != 0o060 || device.gid() == 0 {
        return None;
    }
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    Some(group_name(&groups, device.gid()).unwrap_or_else(|| device.gid().to_string()))
}

fn group_name(groups: &str, gid: u32) -> Option<String> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == gid.to_string()).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests;
