//! What keeps /dev/kvm from being used, and what to do about it on this particular host.

use super::facts::Facts;
use super::{Finding, Flavour, Kind};

/// How opening /dev/kvm went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    /// It can be used.
    Usable,
    /// There is no such file.
    Missing,
    /// The file is there, but nobody answers.
    NotLoaded,
    /// This user may not open it.
    Denied {
        /// What lets this user.
        remedy: String,
    },
    /// It is something else, or lacks something.
    Unusable {
        /// What.
        cause: String,
        /// What to do about it.
        remedy: String,
    },
}

/// The problem, if there is one.
pub fn problem(device: &Device, host: &Facts, kvm: &Flavour) -> Option<Finding> {
    let (cause, remedy) = match device {
        Device::Usable => return None,
        Device::Unusable { cause, remedy } => (cause.clone(), remedy.clone()),
        Device::Denied { remedy } => {
            ("/dev/kvm is there, but this user may not open it".to_owned(), denied(host, remedy))
        }
        Device::Missing => (format!("there is no /dev/kvm{}", in_container(host)), missing(host, kvm)),
        Device::NotLoaded => {
            (format!("/dev/kvm is there{}, but no module of KVM is loaded", in_container(host)), load(host))
        }
    };
    Some(Finding { cause, remedy })
}

fn in_container(host: &Facts) -> &'static str {
    if host.container { " in this container" } else { "" }
}

fn denied(host: &Facts, remedy: &str) -> String {
    if host.container {
        format!("{remedy}; in a container: start it with the group, `docker run --device /dev/kvm --group-add …`")
    } else {
        remedy.to_owned()
    }
}

fn missing(host: &Facts, kvm: &Flavour) -> String {
    match (host.container, kvm.kind) {
        (true, Kind::None) => {
            format!("on the container's host: {}; then start it with `--device /dev/kvm`", load(host))
        }
        (true, _) => {
            "start the container with the device: `docker run --device /dev/kvm …` (podman takes the same)".to_owned()
        }
        (false, Kind::None) => load(host),
        // The module is there, only the file is not.
        (false, _) => {
            "the module is loaded: make the file (`sudo mknod /dev/kvm c 10 232`), and see why udev has not".to_owned()
        }
    }
}

/// How to get a module of KVM that works here.
fn load(host: &Facts) -> String {
    match (host.vmx, host.svm, host.virtual_machine) {
        (true, _, _) => "`sudo modprobe kvm_intel`; if that fails, switch on VT-x in the firmware's setup".to_owned(),
        (_, true, _) => {
            "`sudo modprobe kvm_amd`; if that fails, switch on SVM (AMD-V) in the firmware's setup".to_owned()
        }
        (false, false, true) => {
            "this host is a virtual machine that is given no virtualization of its own: switch on nested \
             virtualization where it runs (module parameter nested=1, its CPU model passed through)"
                .to_owned()
        }
        (false, false, false) => {
            "the processor shows neither VT-x nor AMD-V: switch it on in the firmware's setup, or use another host"
                .to_owned()
        }
    }
}
