//! The ordered queue of precise timers: a heap with four children a node, in which an entry can be found by its number.

const NOWHERE: u32 = u32::MAX;
const CHILDREN: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Node {
    at: u64,
    /// Equal times run in the order in which they were started.
    order: u64,
    id: u32,
}

/// The queue. Room for all entries is made when they are, never when they are started.
#[derive(Debug, Default)]
pub(crate) struct Heap {
    nodes: Vec<Node>,
    place: Vec<u32>,
    started: u64,
}

impl Heap {
    /// Makes room for entry `id`.
    pub(crate) fn grow(&mut self, id: u32) {
        let len = self.place.len().max(id as usize + 1);
        self.place.resize(len, NOWHERE);
        self.nodes.reserve(len - self.nodes.len());
    }

    /// Puts entry `id` in, which is not.
    pub(crate) fn insert(&mut self, id: u32, at: u64) {
        self.started += 1;
        self.nodes.push(Node { at, order: self.started, id });
        self.rise(self.nodes.len() - 1);
    }

    /// Takes entry `id` out, which is in.
    pub(crate) fn remove(&mut self, id: u32) {
        let place = self.place[id as usize] as usize;
        self.place[id as usize] = NOWHERE;
        self.nodes.swap_remove(place);
        if place < self.nodes.len() {
            let place = self.rise(place);
            self.sink(place);
        }
    }

    /// The earliest entry, if it is due.
    pub(crate) fn pop_due(&mut self, now: u64) -> Option<u32> {
        let first = self.nodes.first().filter(|node| node.at <= now)?.id;
        self.remove(first);
        Some(first)
    }

    /// The earliest time; `u64::MAX` if it is empty.
    pub(crate) fn next(&self) -> u64 {
        self.nodes.first().map_or(u64::MAX, |node| node.at)
    }

    fn rise(&mut self, mut place: usize) -> usize {
        let node = self.nodes[place];
        while place > 0 {
            let parent = (place - 1) / CHILDREN;
            if self.nodes[parent] <= node {
                break;
            }
            self.put(place, self.nodes[parent]);
            place = parent;
        }
        self.put(place, node);
        place
    }

    fn sink(&mut self, mut place: usize) {
        let node = self.nodes[place];
        loop {
            let first = place * CHILDREN + 1;
            let children = first..(first + CHILDREN).min(self.nodes.len());
            let Some(least) = children.min_by_key(|&child| self.nodes[child]) else { break };
            if node <= self.nodes[least] {
                break;
            }
            self.put(place, self.nodes[least]);
            place = least;
        }
        self.put(place, node);
    }

    fn put(&mut self, place: usize, node: Node) {
        self.nodes[place] = node;
        self.place[node.id as usize] = place as u32;
    }
}
