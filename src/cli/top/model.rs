//! What the screen shows, and what keys make of it: no terminal, no clock.

use vmm::stats::Snapshot;

use super::find::Found;
use super::keys::Key;
use super::rates::View;
use super::tables::{self, COUNT, ORDERS, Order, Table};

#[cfg(test)]
mod tests;

/// A page of rows.
const PAGE: usize = 10;

/// What has become of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Running,
    /// It is there, and does not answer: its figures are old.
    Silent,
    /// It has ended, and these were its last figures.
    Ended,
}

/// A machine that is or was there.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Its activity in the last interval; of one that is new, since its start.
    pub view: View,
    /// What has become of it.
    pub state: State,
    last: Snapshot,
}

/// What is to be done after a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Reaction {
    /// The screen is to be drawn.
    Draw,
    /// All of it, whatever the terminal shows now.
    Repaint,
    Quit,
}

/// The state of the screen.
#[derive(Debug)]
pub struct Model {
    machines: Vec<Machine>,
    /// What is shown instead, while it is paused.
    frozen: Option<Vec<Machine>>,
    /// The process whose machine is shown.
    watched: Option<u32>,
    /// The table that keys act on.
    pub focus: usize,
    /// It has the screen for itself.
    pub zoomed: bool,
    orders: [Order; COUNT],
    scrolled: [usize; COUNT],
}

impl Default for Model {
    fn default() -> Self {
        Self {
            machines: Vec::new(),
            frozen: None,
            watched: None,
            focus: 0,
            zoomed: false,
            orders: ORDERS,
            scrolled: [0; COUNT],
        }
    }
}

impl Model {
    /// Takes what a look has found. A machine that has ended stays as long as it is watched, or the screen is paused.
    pub fn take(&mut self, found: Found) {
        let mut old = std::mem::take(&mut self.machines);
        for snapshot in found.machines {
            let known = old.iter().position(|machine| machine.last.pid == snapshot.pid).map(|at| old.swap_remove(at));
            let view = match &known {
                Some(known) => View::between(&known.last, &snapshot),
                None => View::since_start(&snapshot),
            };
            self.machines.push(Machine { view, state: State::Running, last: snapshot });
        }
        for machine in old {
            let pid = machine.last.pid;
            let state = if found.silent.contains(&pid) { State::Silent } else { State::Ended };
            if state == State::Silent || self.is_paused() || self.watched == Some(pid) {
                self.machines.push(Machine { state, ..machine });
            }
        }
        self.machines.sort_by_key(|machine| machine.last.pid);
        self.watched = self.watched.or(self.machines.first().map(|machine| machine.last.pid));
    }

    /// All machines that are shown.
    pub fn machines(&self) -> &[Machine] {
        self.frozen.as_deref().unwrap_or(&self.machines)
    }

    /// The one that is watched, and which of all it is.
    pub fn watched(&self) -> Option<(usize, &Machine)> {
        let machines = self.machines();
        let at = machines.iter().position(|machine| Some(machine.last.pid) == self.watched).unwrap_or(0);
        machines.get(at).map(|machine| (at, machine))
    }

    /// Figures stay as they were.
    pub fn is_paused(&self) -> bool {
        self.frozen.is_some()
    }

    /// The tables of the watched machine, sorted.
    pub fn tables(&self) -> Vec<Table> {
        let Some((_, machine)) = self.watched() else { return Vec::new() };
        let mut tables = tables::all(&machine.view).to_vec();
        tables.iter_mut().zip(self.orders).for_each(|(table, order)| table.sort(order));
        tables
    }

    /// How a table is sorted.
    pub fn order(&self, table: usize) -> Order {
        self.orders[table]
    }

    /// The first row of a table that is shown.
    pub fn scrolled(&self, table: usize) -> usize {
        self.scrolled[table]
    }

    /// Acts on a key; one that means nothing changes nothing.
    pub fn press(&mut self, key: Key) -> Reaction {
        match key {
            Key::Char('q') | Key::Interrupt => return Reaction::Quit,
            Key::Repaint => return Reaction::Repaint,
            Key::Char(' ') => self.frozen = if self.is_paused() { None } else { Some(self.machines.clone()) },
            Key::Char('n') => self.watch_next(1),
            Key::Char('p') => self.watch_next(-1),
            Key::Char('z') => self.zoomed = !self.zoomed,
            Key::Char('r') => self.orders[self.focus].reversed ^= true,
            Key::Char(digit @ '1'..='8') => self.focus = digit as usize - '1' as usize,
            Key::Tab => self.focus = (self.focus + 1) % COUNT,
            Key::BackTab => self.focus = (self.focus + COUNT - 1) % COUNT,
            Key::Left => self.sort_by_next(-1),
            Key::Right => self.sort_by_next(1),
            Key::Up | Key::Char('k') => self.scroll(|row| row.saturating_sub(1)),
            Key::Down | Key::Char('j') => self.scroll(|row| row + 1),
            Key::PageUp => self.scroll(|row| row.saturating_sub(PAGE)),
            Key::PageDown => self.scroll(|row| row + PAGE),
            Key::Home => self.scroll(|_| 0),
            Key::End => self.scroll(|_| usize::MAX),
            Key::Char(_) => {}
        }
        Reaction::Draw
    }

    fn watch_next(&mut self, step: isize) {
        let Some((at, _)) = self.watched() else { return };
        let count = self.machines().len() as isize;
        let next = (at as isize + step).rem_euclid(count) as usize;
        self.watched = self.machines().get(next).map(|machine| machine.last.pid);
        self.scrolled = [0; COUNT];
    }

    fn focused(&self) -> Option<Table> {
        let (_, machine) = self.watched()?;
        tables::all(&machine.view).into_iter().nth(self.focus)
    }

    fn sort_by_next(&mut self, step: isize) {
        let Some(table) = self.focused() else { return };
        let column = (self.orders[self.focus].column as isize + step).rem_euclid(table.columns.len() as isize);
        self.orders[self.focus] = Order { column: column as usize, reversed: false };
    }

    fn scroll(&mut self, to: impl Fn(usize) -> usize) {
        let last = self.focused().map_or(0, |table| table.rows.len().saturating_sub(1));
        self.scrolled[self.focus] = to(self.scrolled[self.focus].min(last)).min(last);
    }
}
