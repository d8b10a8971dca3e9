//! Trying out the host's KVM.

use std::fs::OpenOptions;
use std::io;

use ::kvm::Kvm;
use ::kvm::probe::{HostFeatures, modes};

use super::{Device, Mode, Trial};

/// The default mode, which is tried first.
const USER: &str = "user";

/// Opens /dev/kvm and tries each mode.
pub fn try_out() -> Trial {
    let kvm = match Kvm::open() {
        Ok(kvm) => kvm,
        Err(e) => return Trial { device: device(&e), features: None, modes: Vec::new() },
    };
    let features = HostFeatures::probe(&kvm);
    let mode = |name, error: Option<&::kvm::Error>| Mode { name, obstacle: error.map(ToString::to_string) };
    let modes = vec![
        mode(USER, features.as_ref().err()),
        mode("split", modes::split_works(&kvm).as_ref().err()),
        mode("kernel", modes::kernel_works(&kvm).as_ref().err()),
    ];
    Trial { device: Device::Usable, features: features.ok(), modes }
}

/// Why it can't be used, when `error` is what opening it gave.
fn device(error: &::kvm::Error) -> Device {
    let ::kvm::Error::Host { cause, remedy } = error else {
        return Device::Unusable { cause: error.to_string(), remedy: "see that KVM works on this host".to_owned() };
    };
    // The message is for people; which case it is, the system says.
    let opened = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    match opened.map_err(|e| (e.kind(), e.raw_os_error())) {
        Err((io::ErrorKind::NotFound, _)) => Device::Missing,
        Err((io::ErrorKind::PermissionDenied, _)) => Device::Denied { remedy: remedy.clone() },
        Err((_, Some(libc::ENXIO | libc::ENODEV))) => Device::NotLoaded,
        _ => Device::Unusable { cause: cause.clone(), remedy: remedy.clone() },
    }
}
