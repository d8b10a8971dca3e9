//! Numbered places: the number of an entry is what goes through an inbox.

use crate::protocol::inbox::MAX_ENTRIES;

/// Entries with a number each; a number is used again when its entry is gone.
#[derive(Debug)]
pub(crate) struct Table<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Table<T> {
    /// Makes an entry that knows its number.
    ///
    /// # Panics
    ///
    /// Beyond 2^31 entries, for which there is no memory.
    pub(crate) fn insert(&mut self, make: impl FnOnce(u32) -> T) -> u32 {
        let id = match self.free.pop() {
            Some(id) => id,
            None => {
                let id = self.slots.len() as u32;
                assert!(id < MAX_ENTRIES, "more entries than numbers");
                self.slots.push(None);
                // Freeing must not allocate.
                self.free.reserve(self.slots.len() - self.free.len());
                id
            }
        };
        self.slots[id as usize] = Some(make(id));
        id
    }

    pub(crate) fn remove(&mut self, id: u32) -> Option<T> {
        let gone = self.slots.get_mut(id as usize)?.take();
        if gone.is_some() {
            self.free.push(id);
        }
        gone
    }

    pub(crate) fn get(&self, id: u32) -> Option<&T> {
        self.slots.get(id as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        self.slots.get_mut(id as usize)?.as_mut()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().flatten()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().flatten()
    }
}

/// Doubly linked lists through numbered entries: putting in and taking out anywhere in a few steps, no allocation.
#[derive(Debug, Default)]
pub(crate) struct Links(Vec<Link>);

#[derive(Debug, Clone, Copy)]
struct Link {
    before: u32,
    after: u32,
}

const NOBODY: u32 = u32::MAX;

/// One list: its ends. Which entries may be in it is its user's business.
#[derive(Debug, Clone, Copy)]
pub(crate) struct List {
    first: u32,
    last: u32,
}

impl Default for List {
    fn default() -> Self {
        Self { first: NOBODY, last: NOBODY }
    }
}

impl List {
    pub(crate) fn first(&self) -> Option<u32> {
        (self.first != NOBODY).then_some(self.first)
    }
}

impl Links {
    /// Makes room for entry `id`.
    pub(crate) fn grow(&mut self, id: u32) {
        let len = self.0.len().max(id as usize + 1);
        self.0.resize(len, Link { before: NOBODY, after: NOBODY });
    }

    /// At the end of `list`; `id` is in none.
    pub(crate) fn push(&mut self, list: &mut List, id: u32) {
        self.0[id as usize] = Link { before: list.last, after: NOBODY };
        match list.last {
            NOBODY => list.first = id,
            last => self.0[last as usize].after = id,
        }
        list.last = id;
    }

    /// Out of `list`, in which it is.
    pub(crate) fn remove(&mut self, list: &mut List, id: u32) {
        let Link { before, after } = self.0[id as usize];
        match before {
            NOBODY => list.first = after,
            before => self.0[before as usize].after = after,
        }
        match after {
            NOBODY => list.last = before,
            after => self.0[after as usize].before = before,
        }
    }

    pub(crate) fn pop(&mut self, list: &mut List) -> Option<u32> {
        let id = list.first()?;
        self.remove(list, id);
        Some(id)
    }
}
