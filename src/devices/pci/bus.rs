//! The bus: which function is where, in configuration space and in memory.
//!
//! Lock order: a function's lock, then the routes (a leaf). An access looks its function up first and drops the routes,
//! then takes the function's lock.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::config::{BAR0, BARS, COMMAND, ConfigSpace};

/// Devices of a bus.
const DEVICES: usize = 32;
/// Bytes of ECAM for each function (PCI Express Base Specification, section "PCI Express Enhanced Configuration Access
/// Mechanism (ECAM)").
const ECAM_FUNCTION_BYTES: u64 = 4096;
const FUNCTIONS: u64 = 8;
/// Bytes of ECAM for one bus.
pub const ECAM_BYTES: u64 = ECAM_FUNCTION_BYTES * FUNCTIONS * DEVICES as u64;

/// A function of the bus, under a lock of its own. Accesses are 1 to 8 bytes, on a vCPU's thread: must not block.
pub trait Function: Send {
    /// Its configuration space.
    fn config(&self) -> &ConfigSpace;
    /// A read of its configuration space.
    fn read_config(&mut self, offset: usize, data: &mut [u8]);
    /// A write of its configuration space.
    fn write_config(&mut self, offset: usize, data: &[u8]);
    /// A read of the memory behind BAR `bar`.
    fn read_bar(&mut self, bar: usize, offset: u64, data: &mut [u8]);
    /// A write of the memory behind BAR `bar`.
    fn write_bar(&mut self, bar: usize, offset: u64, data: &[u8]);
    /// Software has made an NMI or an INIT of a message that it can send.
    fn can_give_nmi(&self) -> bool {
        false
    }
}

/// Memory that a function answers for.
#[derive(Clone, Copy)]
struct Route {
    base: u64,
    len: u64,
    device: usize,
    bar: usize,
}

/// One bus; function 0 of each device.
pub struct PciBus {
    functions: [Option<Arc<Mutex<dyn Function>>>; DEVICES],
    routes: RwLock<Vec<Route>>,
}

impl PciBus {
    /// A bus with nothing on it.
    pub fn new() -> Self {
        Self { functions: [const { None }; DEVICES], routes: RwLock::default() }
    }

    /// Puts `function` on it as the next device; gives its number, or `None` if there is no place left.
    pub fn insert(&mut self, function: Arc<Mutex<dyn Function>>) -> Option<u8> {
        let device = self.next_device()?;
        self.routes.get_mut().extend(of_function(usize::from(device), function.lock().config()));
        self.functions[usize::from(device)] = Some(function);
        Some(device)
    }

    /// The number that the next device will have.
    pub fn next_device(&self) -> Option<u8> {
        self.functions.iter().position(Option::is_none).map(|device| device as u8)
    }

    /// Software has made an NMI or an INIT of a message that a function can send.
    pub fn can_give_nmi(&self) -> bool {
        self.functions.iter().flatten().any(|function| function.lock().can_give_nmi())
    }

    /// A read of configuration space; all ones where there is no function.
    pub fn read_config(&self, place: Place, offset: usize, data: &mut [u8]) {
        match self.function(place) {
            Some((_, function)) => function.lock().read_config(offset, data),
            None => data.fill(0xff),
        }
    }

    /// A write of configuration space; lost where there is no function.
    pub fn write_config(&self, place: Place, offset: usize, data: &[u8]) {
        let Some((device, function)) = self.function(place) else { return };
        let mut function = function.lock();
        function.write_config(offset, data);
        let end = offset.saturating_add(data.len());
        let moves = offset < COMMAND + 2 && end > COMMAND || offset < BAR0 + 4 * BARS && end > BAR0;
        if moves {
            // Under the function's lock, so that the last write's routes are the last.
            let mut routes = self.routes.write();
            routes.retain(|route| route.device != device);
            routes.extend(of_function(device, function.config()));
        }
    }

    /// A read in the bus's part of ECAM.
    pub fn read_ecam(&self, offset: u64, data: &mut [u8]) {
        let (place, offset) = split_ecam(offset);
        self.read_config(place, offset, data);
    }

    /// A write in the bus's part of ECAM.
    pub fn write_ecam(&self, offset: u64, data: &[u8]) {
        let (place, offset) = split_ecam(offset);
        self.write_config(place, offset, data);
    }

    /// A read of memory; all ones where no function answers.
    pub fn read_memory(&self, address: u64, data: &mut [u8]) {
        match self.find(address) {
            Some((function, route)) => {
                let offset = address - route.base;
                let inside = data.len().min((route.len - offset) as usize);
                let (inside, outside) = data.split_at_mut(inside);
                function.lock().read_bar(route.bar, offset, inside);
                outside.fill(0xff);
            }
            None => data.fill(0xff),
        }
    }

    /// A write of memory; lost where no function answers.
    pub fn write_memory(&self, address: u64, data: &[u8]) {
        if let Some((function, route)) = self.find(address) {
            let offset = address - route.base;
            let inside = data.len().min((route.len - offset) as usize);
            function.lock().write_bar(route.bar, offset, &data[..inside]);
        }
    }

    fn function(&self, place: Place) -> Option<(usize, &Arc<Mutex<dyn Function>>)> {
        let Place { bus: 0, device, function: 0 } = place else { return None };
        Some((device.into(), self.functions.get(usize::from(device))?.as_ref()?))
    }

    fn find(&self, address: u64) -> Option<(&Arc<Mutex<dyn Function>>, Route)> {
        // Where a guest lets two overlap, the one that it placed first answers.
        let routes = self.routes.read();
        let route = routes.iter().find(|route| address.checked_sub(route.base).is_some_and(|at| at < route.len));
        let route = *route?;
        Some((self.functions.get(route.device)?.as_ref()?, route))
    }
}

impl Default for PciBus {
    fn default() -> Self {
        Self::new()
    }
}

fn of_function(device: usize, config: &ConfigSpace) -> impl Iterator<Item = Route> {
    (0..BARS).filter_map(move |bar| config.bar(bar).map(|(base, len)| Route { base, len, device, bar }))
}

fn split_ecam(offset: u64) -> (Place, usize) {
    let place = u16::try_from(offset / ECAM_FUNCTION_BYTES).unwrap_or(u16::MAX);
    (Place::from_bits(place), (offset % ECAM_FUNCTION_BYTES) as usize)
}

/// Bus, device and function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Bus.
    pub bus: u8,
    /// Device, below 32.
    pub device: u8,
    /// Function, below 8.
    pub function: u8,
}

impl Place {
    /// The place in bits 8 to 23 of a configuration address, and in bits 12 to 27 of an ECAM offset.
    pub fn from_bits(bits: u16) -> Self {
        Self { bus: (bits >> 8) as u8, device: (bits >> 3 & 0x1f) as u8, function: (bits & 7) as u8 }
    }
}

#[cfg(test)]
mod tests;
